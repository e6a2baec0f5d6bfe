//! The parts of the process, put together: read top down, this is what there is.

use super::figures::Figures;
use super::house::House;
use super::links::{Book, RaftPeers};
use super::reigns::{self, Leaving};
use super::settings::Settings;
use super::switchboard::{Neighbours, Own, Reception, Switchboard};
use super::threads::Threads;
use super::{RouterNode, control, upkeep};
use crate::identity;
use anyhow::Result;
use bytes::Bytes;
use starling_admin::AdminSocket;
use starling_admin::traces::Rules;
use starling_locations::era::StoreEras;
use starling_locations::places::Places;
use starling_locations::types::Member;
use starling_locations::{Locations, Opened, StartError};
use starling_node::health::Health;
use starling_node::{Check, Config, Probe, SharedClock, SystemClock, Telemetry};
use starling_setup::{BackEnd, Core, Obstacle, end, probes, settings as configured};
use starling_store::SharedStore;
use starling_wire::Incarnation;
use starling_wire::frame::Version;
use starling_wire::net::{Options, PeerClient, Server};
use starling_wire::tls::Role;
use std::net::SocketAddr;
use std::path::Path;
use std::sync::Arc;
use tokio::net::TcpListener;
use tokio::task::JoinHandle;

/// Starts a router, on its own store if it is given none.
pub(super) async fn start(
    config: Config,
    telemetry: Telemetry,
    store: Option<SharedStore>,
) -> Result<RouterNode> {
    let health = Health::default();
    let started = health.check("started", &[Probe::Startup, Probe::Ready]);
    let ready = Arc::new(health.check("stopping", &[Probe::Ready]));
    // Whoever looks after this process wants to know that it lives while it waits for a store.
    let (mut tasks, admin) = probes::serve(&config, &health, &telemetry)?;
    match assemble(&config, &telemetry, store, &health, Arc::clone(&ready)).await {
        Ok(mut node) => {
            node.listeners.extend(admin);
            match administration(&node, &config) {
                Ok(socket) => tasks.push(socket),
                Err(error) => {
                    end(tasks).await;
                    node.abort().await;
                    return Err(error);
                }
            }
            node.tasks.append(&mut tasks);
            started.pass();
            ready.pass();
            Ok(node)
        }
        Err(error) => {
            end(tasks).await;
            Err(error)
        }
    }
}

async fn assemble(
    config: &Config,
    telemetry: &Telemetry,
    given: Option<SharedStore>,
    health: &Health,
    ready: Arc<Check>,
) -> Result<RouterNode> {
    let clock: SharedClock = SystemClock::shared();
    let settings = Settings::of(config)?;
    let (tls, name) = identity::load(config, Role::Router, &clock)?;
    let (listeners, addresses) = listen(&settings)?;

    // Where everything is kept that all routers share.
    let (store, own_store) = match given {
        Some(store) => (store, None),
        None => {
            let back_end = BackEnd::open(config, configured::retention(config), &clock, telemetry).await?;
            (back_end.shared(), Some(back_end))
        }
    };
    let core = Core::new(config, &store).await?;

    // The disk of this router, which says who it is.
    let opened = open(&settings, &clock).await?;
    let id = opened.id();
    telemetry.metrics.register(|registry| opened.log_metrics().register(registry));
    let member = Member::new(name.clone(), advertised(&settings, &name, &addresses));
    let incarnation = Incarnation(u64::from_le_bytes(starling_node::ids::bytes()));

    // Links, and what goes over them.
    let own = Own {
        version: Version::own(&settings.cluster, settings.shards),
        router: id,
        name,
        incarnation,
        address: Bytes::from(member.address.clone()),
        shards: settings.shards,
        decoy_secret: Bytes::copy_from_slice(&core.unknown_accounts),
        features: core.features().iter().map(|feature| feature.to_bytes("")).collect(),
    };
    let figures = Figures::default();
    figures.register(&telemetry.metrics);
    let telemetry = &telemetry.clone().with_secret(&core.unknown_accounts);
    let board = Switchboard::new(own, figures, Rules(telemetry.clone()), Arc::clone(&clock));
    let threads = Threads::start()?;
    let options = Options { raft: Some(threads.handle().clone()), ..Options::default() };
    telemetry.metrics.register(|registry| options.refused.register(registry));
    telemetry.metrics.register(|registry| tls.register(registry));
    let reception = Arc::new(Reception(Arc::clone(&board)));
    let neighbours = Arc::new(Neighbours::new(Arc::clone(&board)));
    let server = Server::on(listeners, Arc::clone(&tls), options.clone(), reception, neighbours.clone())?;
    let book = Arc::new(Book::new(&member.address, &settings.seeds));
    let client = PeerClient::start(book.clone(), Arc::clone(&tls), options, neighbours);
    let (peers, following) = RaftPeers::new(client.raft().clone(), book, Arc::clone(&board));
    let mut tasks = vec![threads.handle().spawn(following)];

    // Homes, and who says that they reign.
    let house = Arc::new(House {
        board: Arc::clone(&board),
        config: configured::router_config(config, false),
        server: Arc::clone(&core.server),
        hooks: Arc::new(core.hooks),
        store: Arc::clone(&store),
        clock: Arc::clone(&clock),
        telemetry: telemetry.clone(),
        shards: settings.shards,
    });
    let options = starling_locations::Options {
        member,
        incarnation,
        found_with: (settings.initial_routers > 0).then_some(settings.initial_routers),
        eras: Arc::new(StoreEras(store)),
        drain: Some(Arc::new(Leaving(Arc::clone(&house)))),
        spread: true,
        times: settings.times,
    };
    let starting = threads.handle().spawn(Locations::start(opened, options, Arc::new(peers), clock));
    let locations = match starting.await? {
        Ok(locations) => locations,
        Err(error) => {
            end(tasks).await;
            return Err(obstacle(&settings.data_dir, error).into());
        }
    };
    board.answer_with(locations.clone());
    let serving = locations.groups().iter().map(|group| reigns::serve(Arc::clone(&house), group.clone()));
    tasks.extend(serving.map(tokio::spawn));
    tasks.push(tokio::spawn(upkeep::edges(Arc::clone(&board))));
    tasks.push(tokio::spawn(upkeep::watch(
        upkeep::checks(health),
        Arc::clone(&house),
        locations.clone(),
        own_store.clone(),
    )));
    tasks.push(tokio::spawn(upkeep::sweep(Arc::clone(&house), configured::retention(config))));
    tasks.extend(own_store.clone().map(|store| tokio::spawn(store.ask())));
    Ok(RouterNode {
        house,
        locations,
        tls,
        server,
        client,
        store: own_store,
        listeners: probes::listening("cluster", &addresses),
        tasks,
        ready,
        leaving: Arc::clone(&board.leaving),
        grace: settings.grace,
        place: settings.data_dir.display().to_string(),
        _threads: threads,
    })
}

/// Opens the door for those who run it.
fn administration(node: &RouterNode, config: &Config) -> Result<JoinHandle<()>> {
    let control = control::Administration {
        house: Arc::clone(&node.house),
        locations: node.locations.clone(),
        cluster: config.cluster.name.clone(),
        leaving: Arc::clone(&node.leaving),
        listeners: node.listeners.clone(),
    };
    Ok(tokio::spawn(AdminSocket::open(&config.data_dir)?.serve(Arc::new(control))))
}

fn listen(settings: &Settings) -> Result<(Vec<TcpListener>, Vec<SocketAddr>)> {
    let open = settings.listen.open()?;
    let listeners = open.into_iter().map(TcpListener::from_std).collect::<Result<Vec<_>, _>>()?;
    let addresses = listeners.iter().map(TcpListener::local_addr).collect::<Result<_, _>>()?;
    Ok((listeners, addresses))
}

/// Where others reach this router.
fn advertised(settings: &Settings, name: &str, addresses: &[SocketAddr]) -> String {
    let port = addresses.first().map_or(0, SocketAddr::port);
    settings.advertise.clone().unwrap_or_else(|| format!("{name}:{port}"))
}

async fn open(settings: &Settings, clock: &SharedClock) -> Result<Opened, Obstacle> {
    let (data_dir, shards, clock) = (settings.data_dir.clone(), settings.shards, Arc::clone(clock));
    let opened = tokio::task::spawn_blocking(move || Opened::open(&Places::open(&data_dir)?, shards, clock));
    let opened = opened.await.map_err(StartError::from).flatten();
    opened.map_err(|error| obstacle(&settings.data_dir, error))
}

/// Why the disk cannot be used, and what to do.
fn obstacle(data_dir: &Path, error: StartError) -> Obstacle {
    let (what, advice) = match &error {
        StartError::Io(error) if error.kind() == std::io::ErrorKind::ResourceBusy => (
            "another process uses the data directory",
            "stop that process, or give this one another `data_dir`",
        ),
        error if error.is_lost() => (
            "the disk of this router has lost what it had promised",
            "look after the disk, then empty `data_dir`: the router joins as a new one, from the others",
        ),
        StartError::Shards { .. } => (
            "the number of shards cannot be changed",
            "set `cluster.shards` to what it was, the same for all processes",
        ),
        _ => (
            "the data directory cannot be used",
            "make data_dir a directory of the user that the server runs as, or set data_dir to another",
        ),
    };
    Obstacle::new(what).at(data_dir.display()).because(error).advise(advice)
}
