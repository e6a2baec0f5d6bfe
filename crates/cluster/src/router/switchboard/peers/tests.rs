//! What routers tell one another when links come and go.

use super::super::tests::{board, gate};
use super::*;
use crate::router::figures::Figures;
use starling_admin::Phase;
use starling_node::Telemetry;
use starling_store::Origin;
use starling_wire::frame::{Pair, Receipt, Ticket};
use starling_wire::{Epoch, Incarnation, Shards, Token};
use starling_xmpp::{BareJid, Element, IqType, Jid, Kind, MessageType, PresenceType, Stanza, ns};

const HOME: Home = Home { shard: Shard(1), epoch: Epoch(5) };

fn peer(board: &Switchboard, homes: Vec<Home>) -> PeerHello {
    let (router, name) = (RouterId(2), "other".to_owned());
    PeerHello { router, name, incarnation: Incarnation(7), homes, ..board.peer_hello() }
}

#[test]
fn what_a_router_hears_last_of_a_home_holds() {
    let chart = Chart::new(RouterId(1), Shards::new(4).unwrap());
    let outlet = Outlet::new(1 << 20);
    let not = chart.not_home(HOME.shard);
    deny(&chart, &outlet, not);
    let one = outlet.waiting();
    chart.begin(HOME, ());
    assert!(outlet.push(PeerItem::Home(HOME)));
    deny(&chart, &outlet, not);
    assert_eq!(outlet.waiting(), 4 * one, "it is told once more of the home");
}

#[tokio::test]
async fn a_home_is_asked_again_as_soon_as_it_can_answer() {
    let board = board(&Telemetry::off(), Figures::default());
    let (gate, _homes) = gate(&board, Home { shard: Shard(0), epoch: Epoch(4) });
    let neighbours = Neighbours::new(Arc::clone(&board));
    let mut ear = neighbours.connected(peer(&board, vec![HOME])).unwrap();
    // Of that it is told, and it makes a link of its own anew: the home is no news.
    let before = gate.door.waiting();
    ear.hear(vec![PeerItem::Home(HOME)]);
    assert_eq!(gate.door.waiting(), before + 1, "what it has not answered goes again");
    ear.hear(vec![PeerItem::Home(HOME)]);
    assert_eq!(gate.door.waiting(), before + 1, "once for each link");
    let mut ear = neighbours.connected(peer(&board, vec![HOME])).unwrap();
    assert_eq!(gate.door.waiting(), before + 1, "it cannot answer yet");
    ear.hear(vec![PeerItem::Home(HOME)]);
    assert_eq!(gate.door.waiting(), before + 2);
}

/// One that leads nothing is gone as soon as it is to leave, and with it what it has not said.
#[tokio::test]
async fn who_is_asked_to_leave_answers_first() {
    let board = board(&Telemetry::off(), Figures::default());
    let neighbours = Neighbours::new(Arc::clone(&board));
    // It was started a moment ago: who asks is linked to it, and not the other way round.
    let mut ear = neighbours.connected(peer(&board, Vec::new())).unwrap();
    ear.hear(vec![PeerItem::Question { id: 1, body: Question::Leave.encode() }]);
    for _ in 0..10 {
        tokio::task::yield_now().await;
    }
    assert_eq!(board.leaving.phase(), Phase::Serving);
    let outlet = Outlet::new(1 << 20);
    let _farewell = neighbours.linked(peer(&board, Vec::new()), outlet.clone());
    let before = outlet.waiting();
    timeout(Duration::from_secs(5), board.leaving.asked()).await.expect("it leaves");
    assert!(outlet.waiting() > before && board.leaving.phase() == Phase::Settling);
}

#[tokio::test]
async fn a_home_that_takes_nothing_new_hears_of_what_it_has_sent() {
    let board = board(&Telemetry::off(), Figures::default());
    let own = Home { shard: Shard(0), epoch: Epoch(4) };
    let (gate, _homes) = gate(&board, own);
    let mut ear = Neighbours::new(Arc::clone(&board)).connected(peer(&board, Vec::new())).unwrap();
    let account = |name: &str| BareJid::parse(&format!("{name}@localhost")).unwrap();
    let mut receipt = || {
        let (sender, recipient) = (account("alice"), account("bob"));
        let pair = Pair { shard: own.shard, sender, token: Token(1), recipient };
        ear.hear(vec![PeerItem::Receipt(Box::new(Receipt { pair, sequence: 1, refused: None }))]);
    };
    board.chart.close(own);
    receipt();
    assert_eq!(gate.door.waiting(), 1, "it has no quorum for a while");
    board.chart.end(own);
    receipt();
    assert_eq!(gate.door.waiting(), 1, "it is over");
}

/// Presence on its way from one router to another, with a link that breaks and comes back.
struct Between {
    near: Arc<Switchboard>,
    far: Arc<Switchboard>,
    /// What the far one is linked to by, and hears by.
    farewell: Box<dyn Hears<PeerItem>>,
    outlet: Outlet<PeerItem>,
    ear: Box<dyn Hears<PeerItem>>,
}

impl Between {
    fn new() -> Self {
        let boards = || board(&Telemetry::off(), Figures::default());
        let (near, far) = (boards(), boards());
        let (farewell, outlet, ear) = Self::link(&near, &far);
        Self { near, far, farewell, outlet, ear }
    }

    #[allow(clippy::type_complexity)]
    fn link(
        near: &Arc<Switchboard>,
        far: &Arc<Switchboard>,
    ) -> (Box<dyn Hears<PeerItem>>, Outlet<PeerItem>, Box<dyn Hears<PeerItem>>) {
        let (from, to) = (Neighbours::new(Arc::clone(near)), Neighbours::new(Arc::clone(far)));
        let ear = to.connected(from.hello()).unwrap();
        let outlet = Outlet::new(1 << 20);
        let hello = to.answer(near.own.router);
        let answer = PeerHello { homes: vec![HOME], heard: hello.heard, ..peer(far, Vec::new()) };
        let farewell = from.linked(answer, outlet.clone());
        (farewell, outlet, ear)
    }

    fn breaks(&mut self) {
        let end = End::Lost("cut".to_owned());
        self.outlet.close(end.clone());
        self.farewell.ended(&end);
        self.ear.ended(&end);
    }

    fn heals(&mut self) {
        (self.farewell, self.outlet, self.ear) = Self::link(&self.near, &self.far);
    }

    fn says(&self) -> PeerItem {
        let account = BareJid::parse("bob@localhost").unwrap();
        let stanza = Stanza::presence(PresenceType::Subscribe);
        let forward =
            Forward { home: HOME, account, stanza, ticket: None, hops: 0, trace: None, passed: false };
        let item = PeerItem::Forward(Box::new(forward));
        assert!(self.near.post(HOME.shard, item.clone()));
        item
    }
}

#[tokio::test]
async fn presence_outlives_the_link_that_it_was_on() {
    let mut between = Between::new();
    let before = between.outlet.waiting();
    let item = between.says();
    let one = between.outlet.waiting() - before;
    between.says();
    // The first has come when the link breaks, and what is said then waits for the next.
    between.ear.hear(vec![item.clone()]);
    between.breaks();
    between.says();
    assert!(between.near.lobby.has(HOME.shard));
    between.heals();
    assert!(!between.near.lobby.has(HOME.shard));
    assert_eq!(between.outlet.waiting(), before + 2 * one, "the second and the third");
    between.ear.hear(vec![item.clone(), item]);
    between.breaks();
    between.heals();
    assert_eq!(between.outlet.waiting(), before, "none of them twice");
    assert_eq!(between.near.figures.has_dropped("link"), 0);
}

#[tokio::test]
async fn a_home_that_has_too_much_to_do_is_handed_no_more() {
    let board = board(&Telemetry::off(), Figures::default());
    let own = Home { shard: Shard(0), epoch: Epoch(4) };
    let (gate, _homes) = gate(&board, own);
    let neighbours = Neighbours::new(Arc::clone(&board));
    let outlet = Outlet::new(64 << 20);
    let _farewell = neighbours.linked(peer(&board, vec![HOME]), outlet.clone());
    let mut ear = neighbours.connected(peer(&board, Vec::new())).unwrap();
    let of = |shard: Shard| {
        let mut all = (0..).map(|n| BareJid::parse(&format!("u{n}@localhost")).unwrap());
        all.find(|account| board.own.shards.of(account) == shard).unwrap()
    };
    let (asker, account) = (of(HOME.shard), of(own.shard));
    let says = |kind: Kind| {
        let mut stanza = Stanza::new(kind).child(Element::new(ns::CLIENT, "x").text("x".repeat(30_000)));
        stanza.id = Some("1".into());
        stanza.from = Some(Jid::from(asker.clone()));
        stanza.to = Some(Jid::from(account.clone()));
        let account = account.clone();
        Forward { home: own, account, stanza, ticket: None, hops: 0, trace: None, passed: false }
    };
    let mut comes = |forward: &Forward| ear.hear(vec![PeerItem::Forward(Box::new(forward.clone()))]);
    let (presence, request) = (says(Kind::Presence(PresenceType::Unavailable)), says(Kind::Iq(IqType::Get)));
    for _ in 0..2_000 {
        comes(&presence);
    }
    let waiting = gate.door.waiting();
    assert!((1_000..1_200).contains(&waiting), "{waiting}");
    assert_eq!(board.figures.has_dropped("busy"), 2_001 - waiting as u64);
    // Whoever asks is told, and whoever keeps it sends it again.
    let before = outlet.waiting();
    comes(&request);
    let told = outlet.waiting();
    let ticket = Ticket {
        origin: Origin { session: 1, sequence: 1 },
        sender: asker.clone(),
        token: Token(1),
        sequence: 1,
        prev: None,
        again: false,
        resent: None,
        before: 0,
        unheard: (0, 0),
    };
    comes(&Forward { ticket: Some(ticket), ..says(Kind::Message(MessageType::Chat)) });
    assert!(before < told && told < outlet.waiting());
    assert_eq!(gate.door.waiting(), waiting);
    assert_eq!(board.figures.has_dropped("busy"), 2_001 - waiting as u64);
}

#[tokio::test]
async fn what_passed_too_many_homes_or_is_for_another_shard_goes_no_further() {
    let board = board(&Telemetry::off(), Figures::default());
    let own = Home { shard: Shard(0), epoch: Epoch(4) };
    let (gate, _homes) = gate(&board, own);
    let mut ear = Neighbours::new(Arc::clone(&board)).connected(peer(&board, Vec::new())).unwrap();
    let of = |shard: Shard| {
        let mut all = (0..).map(|n| BareJid::parse(&format!("u{n}@localhost")).unwrap());
        all.find(|account| board.own.shards.of(account) == shard).unwrap()
    };
    let mut comes = |account: BareJid, hops: u8| {
        let stanza = Stanza::presence(PresenceType::Subscribe);
        let forward = Forward { home: own, account, stanza, ticket: None, hops, trace: None, passed: false };
        ear.hear(vec![PeerItem::Forward(Box::new(forward))]);
        gate.door.waiting()
    };
    assert_eq!(comes(of(own.shard), MAX_HOPS), 1);
    assert_eq!(comes(of(own.shard), MAX_HOPS + 1), 1, "it goes round");
    assert_eq!(comes(of(HOME.shard), 0), 1, "whoever sent it counts shards otherwise");
    assert_eq!(comes(of(own.shard), 0), 2);
}
