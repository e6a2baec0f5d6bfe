//! An edge's uplink over real links: homes move, links break, sessions go on.

use super::super::*;
use super::stage::*;
use crate::frame::{EdgeHello, Home, RouterHello, RouterItem, UpBatch};
use crate::uplink::Patience;
use crate::{
    ConnId, Down, EdgeId, EdgeLink, Epoch, Incarnation, LinkError, Registration, RouterId, RouterLink, Shard,
    Shards, ToEdge, ToHome, Token, Up,
};
use bytes::Bytes;
use futures::future::BoxFuture;
use parking_lot::Mutex;
use starling_node::SystemClock;
use starling_store::AccountRow;
use starling_xmpp::sasl::Credentials;
use starling_xmpp::{BareJid, FullJid};
use std::sync::Arc;
use std::time::Duration;

/// A home of all shards in one reign: it takes what comes, and says that it is handled.
struct Homes {
    router: u64,
    epoch: u64,
    /// (epoch, sequence, again), and records as (epoch, handled, none).
    log: Arc<Mutex<Vec<String>>>,
    received: Arc<Mutex<u64>>,
    /// Takes, and does not answer.
    mute: bool,
    /// So many bytes does each session get at its beginning, in parts of 100,000.
    gift: usize,
}

struct HomesEar {
    homes: Arc<Homes>,
    outlet: Outlet<RouterItem>,
}

impl Hears<UpBatch> for HomesEar {
    fn hear(&mut self, items: Vec<UpBatch>) {
        let mut log = self.homes.log.lock();
        for batch in items {
            assert_eq!(batch.home.epoch.0, self.homes.epoch);
            for message in batch.ups {
                let conn = message.conn;
                let tell = |down| self.outlet.push(RouterItem::Down(batch.home, ToEdge { conn, down }));
                let epoch = self.homes.epoch;
                match message.up {
                    Up::Bind { .. } => {
                        let jid = format!("alice@example.org/{}", conn.number);
                        tell(Down::Bound { jid: FullJid::parse(&jid).unwrap() });
                        for number in 1..=self.homes.gift as u64 / 100_000 {
                            let (stanza, position) = (body(&"x".repeat(100_000)), None);
                            let (waits, counts, answers, trace) = (false, true, 0, None);
                            tell(Down::Stanza { number, position, waits, counts, stanza, answers, trace });
                        }
                    }
                    Up::Stanza { sequence, again, .. } => {
                        log.push(format!("{epoch}: {sequence}{}", if again { " again" } else { "" }));
                        let mut received = self.homes.received.lock();
                        *received = (*received).max(sequence);
                        if !self.homes.mute {
                            tell(Down::Handled { sequence });
                        }
                    }
                    Up::Attach(record) => log.push(format!("{epoch}: record {}", record.handled)),
                    _ => {}
                }
            }
        }
    }

    fn ended(&mut self, _end: &End) {}
}

struct HomesHost(Arc<Homes>);

impl Edges for HomesHost {
    fn connected(
        &self,
        _edge: EdgeHello,
        outlet: Outlet<RouterItem>,
    ) -> Result<(RouterHello, Box<dyn Hears<UpBatch>>), String> {
        let homes = (0..16).map(|shard| Home { shard: Shard(shard), epoch: Epoch(self.0.epoch) }).collect();
        let hello = RouterHello {
            version: version(),
            router: RouterId(self.0.router),
            name: "r".to_owned(),
            incarnation: Incarnation(1),
            homes,
            decoy_secret: Bytes::from_static(b"decoy"),
            features: Vec::new(),
            routers: Vec::new(),
        };
        Ok((hello, Box::new(HomesEar { homes: Arc::clone(&self.0), outlet })))
    }

    fn account(&self, _account: BareJid) -> BoxFuture<'static, Result<Option<AccountRow>, LinkError>> {
        Box::pin(async { Ok(None) })
    }

    fn register(
        &self,
        _account: BareJid,
        _credentials: Credentials,
    ) -> BoxFuture<'static, Result<Registration, LinkError>> {
        Box::pin(async { Ok(Registration::Created) })
    }
}

/// What the sessions of the edge are told.
#[derive(Default)]
struct Desk {
    told: Mutex<Vec<Down>>,
    reading: Mutex<Vec<(u16, bool)>>,
    cut: Mutex<Vec<u64>>,
}

impl EdgeLink for Desk {
    fn deliver(&self, batch: &mut Vec<ToEdge>) {
        self.told.lock().extend(batch.drain(..).map(|message| message.down));
    }
}

impl Sockets for Desk {
    fn reading(&self, shard: Shard, on: bool) {
        self.reading.lock().push((shard.0, on));
    }

    fn cut(&self, conn: ConnId) {
        self.cut.lock().push(conn.number);
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn sessions_outlive_their_home() {
    let site = Site::new();
    let log = Arc::new(Mutex::new(Vec::new()));
    let host = |router, epoch, mute| {
        Arc::new(Homes { router, epoch, log: Arc::clone(&log), received: Arc::default(), mute, gift: 0 })
    };
    let start = async |homes: &Arc<Homes>| {
        let peers = Arc::new(Host(Router::new(homes.router)));
        let tls = site.tls("starling://one/router/*");
        let edges = Arc::new(HomesHost(Arc::clone(homes)));
        Server::start("127.0.0.1:0".parse().unwrap(), tls, options(), edges, peers).await.unwrap()
    };
    let first = host(1, 5, true);
    let server = start(&first).await;
    let desk = Arc::new(Desk::default());
    let own =
        Own { edge: EdgeId(7), name: "e7".to_owned(), cluster: "one".to_owned(), shards: Shards::default() };
    let patience = Patience { homeless: Duration::from_secs(3), ..Patience::default() };
    let uplink =
        Uplink::start(own, patience, Arc::clone(&desk) as _, Arc::clone(&desk) as _, SystemClock::shared());
    assert!(!uplink.ready() && uplink.router_hello().is_none());
    // Who asks while nobody is home waits for the next one, not for ever.
    let early = tokio::spawn(uplink.account(&account()));
    let book = Book::of(&[server.address()]);
    let tls = site.tls("starling://one/edge/*");
    let _client = EdgeClient::start(Arc::new(book.clone()), tls, options(), Arc::new(Arc::clone(&uplink)));
    until(|| uplink.homes() == 16).await;
    assert_eq!(&*uplink.router_hello().unwrap().decoy_secret, b"decoy");
    assert!(early.await.unwrap().unwrap().is_none());
    assert!(uplink.account(&account()).await.unwrap().is_none());

    let conn = ConnId { edge: EdgeId(7), number: 1 };
    let say = |up| uplink.send(&mut vec![ToHome { account: account(), conn, up }]);
    let stanza =
        |sequence| Up::Stanza { sequence, stanza: body("hi"), fault: None, trace: None, again: false };
    say(Up::Bind { token: Token(1), resource: None });
    until(|| matches!(desk.told.lock().last(), Some(Down::Bound { .. }))).await;
    for sequence in 1..=3 {
        say(stanza(sequence));
    }
    until(|| *first.received.lock() == 3).await;

    // The home is lost. What it did not answer goes to the next one.
    let second = host(2, 6, false);
    let next = start(&second).await;
    *book.0.lock() = Some(vec![next.address()]);
    drop(server);
    until(|| matches!(desk.told.lock().last(), Some(Down::Handled { sequence: 3 }))).await;
    say(stanza(4));
    until(|| matches!(desk.told.lock().last(), Some(Down::Handled { sequence: 4 }))).await;
    let expected = ["5: 1", "5: 2", "5: 3", "6: record 0", "6: 1 again", "6: 2 again", "6: 3 again", "6: 4"];
    assert_eq!(*log.lock(), expected);
    assert!(uplink.ready() && desk.cut.lock().is_empty());
    assert_eq!(uplink.load().0, 16);

    // None is left: nothing is read, then sockets are closed.
    drop(next);
    until(|| !uplink.ready()).await;
    until(|| *desk.cut.lock() == [1]).await;
    let reading = desk.reading.lock();
    assert_eq!(reading.iter().filter(|(_, on)| !on).count(), reading.iter().filter(|(_, on)| *on).count());
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_home_is_told_of_all_sessions_however_much_their_edge_keeps() {
    let site = Site::new();
    let log = Arc::new(Mutex::new(Vec::new()));
    let start = async |router, epoch| {
        let (log, received) = (Arc::clone(&log), Arc::default());
        let homes = Arc::new(Homes { router, epoch, log, received, mute: true, gift: 500_000 });
        let peers = Arc::new(Host(Router::new(router)));
        let (tls, address) = (site.tls("starling://one/router/*"), "127.0.0.1:0".parse().unwrap());
        Server::start(address, tls, options(), Arc::new(HomesHost(homes)), peers).await.unwrap()
    };
    let server = start(1, 5).await;
    let desk = Arc::new(Desk::default());
    let own =
        Own { edge: EdgeId(7), name: "e7".to_owned(), cluster: "one".to_owned(), shards: Shards::default() };
    let sockets = (Arc::clone(&desk) as _, Arc::clone(&desk) as _);
    let uplink = Uplink::start(own, Patience::default(), sockets.0, sockets.1, SystemClock::shared());
    let book = Book::of(&[server.address()]);
    let tls = site.tls("starling://one/edge/*");
    let few = Options { outlet: 1 << 20, ..options() };
    let _client = EdgeClient::start(Arc::new(book.clone()), tls, few, Arc::new(Arc::clone(&uplink)));
    until(|| uplink.homes() == 16).await;
    let say = |number: u64, up| {
        let conn = ConnId { edge: EdgeId(7), number };
        uplink.send(&mut vec![ToHome { account: account(), conn, up }]);
    };
    // Eight sessions with 500 kB each that their clients have not acknowledged, and 600 kB that no home has handled.
    for number in 1..=8 {
        say(number, Up::Bind { token: Token(number.into()), resource: None });
    }
    until(|| uplink.load().1.downs == 40).await;
    for number in 1..=6 {
        let stanza = body(&"x".repeat(100_000));
        say(number, Up::Stanza { sequence: 1, stanza, fault: None, trace: None, again: false });
        until(|| log.lock().len() as u64 == number).await;
    }
    let next = start(2, 6).await;
    *book.0.lock() = Some(vec![next.address()]);
    drop(server);
    until(|| log.lock().iter().filter(|told| *told == "6: 1 again").count() == 6).await;
    assert_eq!(log.lock().iter().filter(|told| *told == "6: record 0").count(), 8);
    assert_eq!(uplink.homes(), 16);
}
