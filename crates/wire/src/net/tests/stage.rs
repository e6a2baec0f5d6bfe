//! A router and an edge that write down what they hear.

use super::super::*;
use crate::frame::{
    EdgeHello, EdgeItem, Home, PeerHello, PeerItem, RouterHello, RouterItem, RouterNews, UpBatch, Version,
};
use crate::tls::{Authority, Files, Identity, Role, Tls};
use crate::{
    ConnId, Down, EdgeId, Epoch, Incarnation, LinkError, Registration, RouterId, Shard, Shards, ToEdge,
    ToHome, Up,
};
use bytes::Bytes;
use futures::future::BoxFuture;
use parking_lot::Mutex;
use starling_node::{SharedClock, SystemClock};
use starling_store::AccountRow;
use starling_xmpp::sasl::Credentials;
use starling_xmpp::{BareJid, Element, MessageType, Stanza, ns};
use std::collections::HashMap;
use std::io;
use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;
use tempfile::TempDir;

pub(super) const DAY: Duration = Duration::from_secs(86_400);
pub(super) const HOME: Home = Home { shard: Shard(3), epoch: Epoch(9) };

/// A cluster's certificates.
pub(super) struct Site {
    pub(super) dir: TempDir,
    pub(super) authority: Authority,
    files: AtomicU64,
}

pub(super) fn seconds(clock: &SharedClock) -> u64 {
    clock.now_micros() / 1_000_000
}

impl Site {
    pub(super) fn new() -> Self {
        let authority = Authority::create("one", seconds(&SystemClock::shared()), DAY * 365).unwrap();
        Self { dir: TempDir::new().unwrap(), authority, files: AtomicU64::new(0) }
    }

    pub(super) fn files(&self, ca: &str, authority: &Authority, identity: &str, now: u64) -> Files {
        let pair = authority.issue(&Identity::parse(identity).unwrap(), &[], now, DAY).unwrap();
        let number = self.files.fetch_add(1, Ordering::Relaxed);
        let path = |what: &str| self.dir.path().join(format!("{number}-{what}.pem"));
        std::fs::write(path("ca"), ca).unwrap();
        std::fs::write(path("cert"), pair.cert).unwrap();
        std::fs::write(path("key"), pair.key).unwrap();
        Files { ca: path("ca"), cert: path("cert"), key: path("key") }
    }

    pub(super) fn tls(&self, identity: &str) -> Arc<Tls> {
        let clock = SystemClock::shared();
        let files = self.files(&self.authority.pair().cert, &self.authority, identity, seconds(&clock));
        let identity = Identity::parse(identity).unwrap();
        Tls::load(files, &identity.cluster, identity.role, clock).unwrap()
    }
}

pub(super) fn version() -> Version {
    Version::own("one", Shards::default())
}

pub(super) fn account() -> BareJid {
    BareJid::parse("alice@example.org").unwrap()
}

pub(super) fn body(text: &str) -> Stanza {
    Stanza::message(MessageType::Chat).child(Element::new(ns::CLIENT, "body").text(text))
}

pub(super) fn say(sequence: u64, text: &str) -> EdgeItem {
    let conn = ConnId { edge: EdgeId(0), number: 5 };
    let up = Up::Stanza { sequence, stanza: body(text), fault: None, trace: None, again: false };
    EdgeItem::Up(HOME, ToHome { account: account(), conn, up })
}

pub(super) fn tell(edge: EdgeId, number: u64, text: &str) -> RouterItem {
    let down = Down::Stanza {
        number,
        position: None,
        waits: false,
        counts: true,
        stanza: body(text),
        answers: 0,
        trace: None,
    };
    RouterItem::Down(HOME, ToEdge { conn: ConnId { edge, number: 5 }, down })
}

/// Waits until it is so; fails after ten seconds.
pub(super) async fn until(mut is_it: impl FnMut() -> bool) {
    for _ in 0..2_000 {
        if is_it() {
            return;
        }
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
    panic!("it did not come to pass");
}

/// What happened at a router, in order.
#[derive(Debug, Clone, PartialEq)]
pub(super) enum Event {
    Edge(u64),
    Heard(u64, u64),
    EdgeEnded(u64, End),
    /// An edge has taken what came before this.
    Taken(u64, u64),
    Peer(u64),
    Item(u64, PeerItem),
    PeerEnded(u64, End),
    Linked(u64),
    LinkEnded(u64, End),
    Doubled,
}

pub(super) struct Router {
    pub(super) id: u64,
    pub(super) incarnation: AtomicU64,
    pub(super) events: Mutex<Vec<Event>>,
    pub(super) edges: Mutex<HashMap<u64, Outlet<RouterItem>>>,
    pub(super) peers: Mutex<HashMap<u64, Outlet<PeerItem>>>,
    /// What the answers to its links said of that.
    pub(super) told_heard: Mutex<Vec<Option<u64>>>,
    pub(super) refuse: Mutex<Option<String>>,
    /// Ends as soon as another process has its identity.
    pub(super) server: Mutex<Option<Server>>,
    generation: AtomicU64,
}

impl Router {
    pub(super) fn new(id: u64) -> Arc<Self> {
        Arc::new(Self {
            id,
            incarnation: AtomicU64::new(id + 100),
            events: Mutex::default(),
            edges: Mutex::default(),
            peers: Mutex::default(),
            told_heard: Mutex::default(),
            refuse: Mutex::default(),
            server: Mutex::default(),
            generation: AtomicU64::new(0),
        })
    }

    pub(super) fn count(&self, is_it: impl Fn(&Event) -> bool) -> usize {
        self.events.lock().iter().filter(|event| is_it(event)).count()
    }

    /// Sequences that were heard, in order.
    pub(super) fn heard(&self) -> Vec<u64> {
        let events = self.events.lock();
        events
            .iter()
            .filter_map(|event| if let Event::Heard(_, n) = event { Some(*n) } else { None })
            .collect()
    }

    pub(super) fn ends(&self) -> Vec<End> {
        let events = self.events.lock();
        let end = |event: &Event| if let Event::EdgeEnded(_, end) = event { Some(end.clone()) } else { None };
        events.iter().filter_map(end).collect()
    }
}

/// One link, with a number that tells old from new.
struct Ear {
    router: Arc<Router>,
    generation: u64,
}

impl Hears<UpBatch> for Ear {
    fn hear(&mut self, items: Vec<UpBatch>) {
        let mut events = self.router.events.lock();
        for message in items.into_iter().flat_map(|batch| batch.ups) {
            if let Up::Stanza { sequence, .. } = message.up {
                events.push(Event::Heard(self.generation, sequence));
            }
        }
    }

    fn ended(&mut self, end: &End) {
        self.router.events.lock().push(Event::EdgeEnded(self.generation, end.clone()));
    }
}

pub(super) struct Host(pub(super) Arc<Router>);

impl Edges for Host {
    fn connected(
        &self,
        edge: EdgeHello,
        outlet: Outlet<RouterItem>,
    ) -> Result<(RouterHello, Box<dyn Hears<UpBatch>>), String> {
        if let Some(why) = &*self.0.refuse.lock() {
            return Err(why.clone());
        }
        let generation = self.0.generation.fetch_add(1, Ordering::Relaxed);
        self.0.events.lock().push(Event::Edge(generation));
        self.0.edges.lock().insert(edge.edge.0, outlet);
        let hello = RouterHello {
            version: version(),
            router: RouterId(self.0.id),
            name: format!("r{}", self.0.id),
            incarnation: Incarnation(self.0.incarnation.load(Ordering::Relaxed)),
            homes: vec![HOME],
            decoy_secret: Bytes::from_static(b"secret"),
            features: Vec::new(),
            routers: Vec::new(),
        };
        Ok((hello, Box::new(Ear { router: Arc::clone(&self.0), generation })))
    }

    fn heard(&self, edge: EdgeId, ask: u64) {
        self.0.events.lock().push(Event::Taken(edge.0, ask));
    }

    fn account(&self, account: BareJid) -> BoxFuture<'static, Result<Option<AccountRow>, LinkError>> {
        Box::pin(async move {
            match account.local() {
                Some("alice") => Ok(Some(AccountRow {
                    generation: 4,
                    credentials: Credentials::derive("secret", [1; 16], 1).unwrap(),
                    created: starling_xmpp::Timestamp(5),
                    disabled: false,
                })),
                Some("busy") => Err(LinkError::Busy),
                Some("elsewhere") => Err(LinkError::NoHome),
                Some("slow") => futures::future::pending().await,
                _ => Ok(None),
            }
        })
    }

    fn register(
        &self,
        account: BareJid,
        _credentials: Credentials,
    ) -> BoxFuture<'static, Result<Registration, LinkError>> {
        let taken = account.local() == Some("alice");
        Box::pin(async move { Ok(if taken { Registration::Conflict } else { Registration::Created }) })
    }
}

struct PeerEar {
    router: Arc<Router>,
    peer: u64,
    theirs: bool,
}

impl Hears<PeerItem> for PeerEar {
    fn hear(&mut self, items: Vec<PeerItem>) {
        self.router.events.lock().extend(items.into_iter().map(|item| Event::Item(self.peer, item)));
    }

    fn ended(&mut self, end: &End) {
        let (peer, end) = (self.peer, end.clone());
        let event = if self.theirs { Event::PeerEnded(peer, end) } else { Event::LinkEnded(peer, end) };
        self.router.events.lock().push(event);
    }
}

impl Peers for Host {
    fn hello(&self) -> PeerHello {
        PeerHello {
            version: version(),
            router: RouterId(self.0.id),
            name: format!("r{}", self.0.id),
            incarnation: Incarnation(self.0.incarnation.load(Ordering::Relaxed)),
            homes: vec![HOME],
            notes: Bytes::from_static(b"hello"),
            heard: None,
        }
    }

    fn answer(&self, to: RouterId) -> PeerHello {
        let heard = self.0.count(|event| matches!(event, Event::Item(from, _) if *from == to.0));
        PeerHello { heard: Some(heard as u64), ..self.hello() }
    }

    fn connected(&self, peer: PeerHello) -> Result<Box<dyn Hears<PeerItem>>, String> {
        self.0.events.lock().push(Event::Peer(peer.router.0));
        Ok(Box::new(PeerEar { router: Arc::clone(&self.0), peer: peer.router.0, theirs: true }))
    }

    fn doubled(&self) {
        self.0.events.lock().push(Event::Doubled);
        drop(self.0.server.lock().take());
    }

    fn linked(&self, peer: PeerHello, outlet: Outlet<PeerItem>) -> Box<dyn Hears<PeerItem>> {
        self.0.events.lock().push(Event::Linked(peer.router.0));
        self.0.told_heard.lock().push(peer.heard);
        self.0.peers.lock().insert(peer.router.0, outlet);
        Box::new(PeerEar { router: Arc::clone(&self.0), peer: peer.router.0, theirs: false })
    }

    fn raft(
        &self,
        from: RouterId,
        name: &Arc<str>,
        group: u16,
        body: Bytes,
    ) -> BoxFuture<'static, Result<Bytes, String>> {
        let own = self.0.id;
        assert_eq!(**name, format!("r{}", from.0));
        Box::pin(async move {
            match group {
                1 => tokio::time::sleep(Duration::from_millis(u64::from(body[0]))).await,
                2 => return Err("it is broken".to_owned()),
                3 => futures::future::pending().await,
                _ => {}
            }
            Ok(Bytes::from([format!("{} to {own}: ", from.0).as_bytes(), &body].concat()))
        })
    }

    fn notes(&self) -> Bytes {
        Bytes::from(format!("notes of {}", self.0.id))
    }
}

/// Times that make tests short; what ends a dead link stays as it is.
pub(super) fn options() -> Options {
    Options {
        hello: Duration::from_secs(2),
        pause: (Duration::from_millis(10), Duration::from_millis(200)),
        lookup: Duration::from_millis(200),
        question: Duration::from_millis(500),
        certificates: Duration::from_millis(50),
        ..Options::default()
    }
}

pub(super) async fn serve(site: &Site, router: &Arc<Router>) -> Server {
    serve_with(site.tls(&format!("starling://one/router/r{}", router.id)), router, options(), 0).await
}

pub(super) async fn serve_with(tls: Arc<Tls>, router: &Arc<Router>, options: Options, port: u16) -> Server {
    let host = Arc::new(Host(Arc::clone(router)));
    let address = SocketAddr::from(([127, 0, 0, 1], port));
    // A port that was given up may be that of somebody's connection for a while.
    for _ in 0..300 {
        let started = Server::start(address, tls.clone(), options.clone(), host.clone(), host.clone()).await;
        match started {
            Err(error) if error.kind() == io::ErrorKind::AddrInUse => {
                tokio::time::sleep(Duration::from_millis(100)).await;
            }
            started => return started.unwrap(),
        }
    }
    panic!("{address} is in use")
}

/// An edge, as much of it as has links.
pub(super) struct Edge {
    pub(super) id: u64,
    /// Linked and ended, by router, with the news in between.
    pub(super) told: Mutex<Vec<(u64, String)>>,
    pub(super) numbers: Mutex<Vec<u64>>,
    pub(super) links: Mutex<HashMap<u64, Arc<LinkedRouter>>>,
}

pub(super) struct Socketless(pub(super) Arc<Edge>);

struct EdgeEar {
    edge: Arc<Edge>,
    router: u64,
}

impl Edge {
    pub(super) fn new(id: u64) -> Arc<Self> {
        Arc::new(Self { id, told: Mutex::default(), numbers: Mutex::default(), links: Mutex::default() })
    }

    pub(super) fn link(&self, router: u64) -> Option<Arc<LinkedRouter>> {
        self.links.lock().get(&router).cloned()
    }

    pub(super) fn count(&self, what: &str) -> usize {
        self.told.lock().iter().filter(|(_, told)| told.starts_with(what)).count()
    }
}

impl Routers for Socketless {
    fn hello(&self) -> EdgeHello {
        EdgeHello { version: version(), edge: EdgeId(self.0.id), name: format!("e{}", self.0.id) }
    }

    fn linked(&self, router: LinkedRouter) -> Box<dyn Hears<RouterNews>> {
        let id = router.hello.router.0;
        self.0.told.lock().push((id, "linked".to_owned()));
        self.0.links.lock().insert(id, Arc::new(router));
        Box::new(EdgeEar { edge: Arc::clone(&self.0), router: id })
    }
}

impl Hears<RouterNews> for EdgeEar {
    fn hear(&mut self, items: Vec<RouterNews>) {
        for news in items {
            match news {
                RouterNews::Downs(_, downs) => {
                    let mut numbers = self.edge.numbers.lock();
                    for message in downs {
                        if let Down::Stanza { number, .. } = message.down {
                            numbers.push(number);
                        }
                    }
                }
                other => self.edge.told.lock().push((self.router, format!("{other:?}"))),
            }
        }
    }

    fn ended(&mut self, end: &End) {
        self.edge.told.lock().push((self.router, format!("ended: {end}")));
        self.edge.links.lock().remove(&self.router);
    }
}

/// Addresses that a test changes.
#[derive(Clone)]
pub(super) struct Book(pub(super) Arc<Mutex<Option<Vec<SocketAddr>>>>);

impl Book {
    pub(super) fn of(addresses: &[SocketAddr]) -> Self {
        Self(Arc::new(Mutex::new(Some(addresses.to_vec()))))
    }
}

impl Addresses for Book {
    fn find(&self) -> BoxFuture<'static, io::Result<Vec<SocketAddr>>> {
        let found = self.0.lock().clone().ok_or_else(|| io::Error::other("the directory is away"));
        Box::pin(async move { found })
    }
}

pub(super) fn dial(tls: Arc<Tls>, edge: &Arc<Edge>, addresses: &Book) -> EdgeClient {
    let routers = Arc::new(Socketless(Arc::clone(edge)));
    EdgeClient::start(Arc::new(addresses.clone()), tls, options(), routers)
}

/// A router, an edge, and the link between them.
pub(super) async fn pair(site: &Site) -> (Arc<Router>, Server, Arc<Edge>, EdgeClient) {
    let router = Router::new(1);
    let server = serve(site, &router).await;
    let edge = Edge::new(7);
    let client = dial(site.tls("starling://one/edge/*"), &edge, &Book::of(&[server.address()]));
    until(|| edge.link(1).is_some()).await;
    (router, server, edge, client)
}

pub(super) fn role_tls(site: &Site, files: Files, cluster: &str, role: Role, clock: SharedClock) -> Arc<Tls> {
    let _ = site;
    Tls::load(files, cluster, role, clock).unwrap()
}
