//! What is kept for links, and what is told of homes.

use super::*;
use futures::future::BoxFuture;
use starling_hooks::{ArchiveDefault, ArchiveIds, Domains, Hooks, Limits, Passwords, Server};
use starling_node::{Metrics, SystemClock, Telemetry, Tracer};
use starling_router::{Homes, LocationOp, Place, RecordError, Register, Reigning, RouterConfig, ShardParts};
use starling_store::testing::FaultyStore;
use starling_store::{Position, SharedStore};
use starling_wire::frame::Forward;
use starling_wire::gate::Listeners;
use starling_wire::{Epoch, Token};
use starling_xmpp::sasl::Credentials;
use starling_xmpp::{BareJid, Element, FullJid, PresenceType, Stanza, StanzaCondition, StanzaError, ns};

/// A router without any link.
pub(super) fn board(telemetry: &Telemetry, figures: Figures) -> Arc<Switchboard> {
    let shards = Shards::new(4).unwrap();
    let own = Own {
        version: Version::own("test", shards),
        router: RouterId(1),
        name: "router".to_owned(),
        incarnation: Incarnation(1),
        address: Bytes::new(),
        shards,
        decoy_secret: Bytes::new(),
        features: Vec::new(),
    };
    Switchboard::new(own, figures, Rules(telemetry.clone()), SystemClock::shared())
}

struct Nothing;

impl Register for Nothing {
    fn record(&self, _ops: Vec<LocationOp>) -> BoxFuture<'static, Result<(), RecordError>> {
        Box::pin(async { Err(RecordError::Busy) })
    }

    fn places(&self, _account: &BareJid) -> Vec<Place> {
        Vec::new()
    }

    fn each(&self, _visit: &mut dyn FnMut(&FullJid, Token, EdgeId)) {}
}

impl Passwords for Nothing {
    fn derive(&self, _password: String) -> BoxFuture<'static, Result<Credentials, StanzaError>> {
        Box::pin(async { Err(StanzaError::new(StanzaCondition::NotAllowed)) })
    }
}

/// A reign begins. Its homes take what comes once they are polled.
pub(super) fn gate(
    board: &Arc<Switchboard>,
    home: Home,
) -> (Gate, impl Future<Output = ()> + Send + 'static) {
    let hooks = Hooks::of(Vec::new());
    let store: SharedStore = Arc::new(FaultyStore::in_memory());
    let server = Server {
        domains: Domains::new(vec!["localhost".to_owned()]),
        software: ("test", "0"),
        store: Arc::clone(&store),
        archive_ids: ArchiveIds::new(&[1; 32]),
        features: hooks.features(),
        limits: Limits::default(),
        registration: false,
        iterations: 1,
        archive_default: ArchiveDefault::Always,
        passwords: Arc::new(Nothing),
    };
    let deliveries = Arc::new(Deliveries(Listeners::new(home)));
    let (door, homes) = Homes::serve(ShardParts {
        config: RouterConfig::default(),
        server: Arc::new(server),
        hooks: Arc::new(hooks),
        store,
        edges: deliveries.clone(),
        register: Arc::new(Nothing),
        post: Arc::new(Mail(Arc::clone(board))),
        clock: SystemClock::shared(),
        metrics: Arc::new(Metrics::new()),
        tracer: Tracer::off(),
        shard: home.shard,
        shards: board.own.shards,
        reign: Reigning {
            epoch: home.epoch,
            floor: Position(1),
            ceiling: Arc::new(AtomicU64::new(u64::MAX / 2)),
            until: Arc::new(AtomicU64::new(u64::MAX / 2)),
            age: Duration::ZERO,
        },
    });
    let gate = Gate { door, deliveries };
    board.chart.begin(home, gate.clone());
    (gate, homes)
}

#[test]
fn what_waited_for_a_link_goes_when_that_takes_more() {
    let board = board(&Telemetry::off(), Figures::default());
    let (other, home) = (RouterId(2), Home { shard: Shard(3), epoch: Epoch(41) });
    let linked = |outlet: &Outlet<PeerItem>| {
        let (name, outlet) = ("other".to_owned(), outlet.clone());
        board.peers.write().insert(other, Linked { number: 1, name, outlet, silent: true });
    };
    let outlet = Outlet::new(64 << 10);
    linked(&outlet);
    board.chart.announced(other, home);
    let account = BareJid::parse("bob@localhost").unwrap();
    let status = Element::new(ns::CLIENT, "status").text("x".repeat(1_000));
    let stanza = Stanza::presence(PresenceType::Unavailable).child(status);
    let forward = Forward { home, account, stanza, ticket: None, hops: 0, trace: None, passed: false };
    while !board.lobby.has(home.shard) {
        assert!(board.post(home.shard, PeerItem::Forward(Box::new(forward.clone()))));
    }
    board.clear_out();
    assert!(board.lobby.has(home.shard) && outlet.is_pressed());
    // What is there has gone, and nothing more is said to that shard.
    let outlet = Outlet::new(64 << 10);
    linked(&outlet);
    board.clear_out();
    assert!(!board.lobby.has(home.shard) && outlet.waiting() > 0);
}

#[test]
fn what_takes_nothing_is_not_told_as_served() {
    let (telemetry, figures) = (Telemetry::off(), Figures::default());
    figures.register(&telemetry.metrics);
    let board = board(&telemetry, figures);
    let home = Home { shard: Shard(3), epoch: Epoch(41) };
    let told = || {
        let all = telemetry.metrics.encode();
        let line = all.lines().find(|line| line.starts_with("starling_shard_home{")).map(str::to_owned);
        line.and_then(|line| Some(line.rsplit_once(' ')?.1.to_owned()))
    };
    board.announce(home);
    assert_eq!(told().as_deref(), Some("41"));
    // Closed for want of a quorum, or while the shard is being moved.
    board.withdraw(home.shard);
    assert_eq!(told().as_deref(), Some("0"));
    board.announce(home);
    assert_eq!(told().as_deref(), Some("41"));
}
