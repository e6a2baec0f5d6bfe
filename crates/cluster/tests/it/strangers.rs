//! Who has a certificate of the cluster and says what it must not (rows G02 and G04): it is refused, and the others go on.

use crate::people::{Client, Edge};
use crate::site::{CLUSTER, Site, jid, until};
use bytes::Bytes;
use futures::future::BoxFuture;
use openraft::raft::{AppendEntriesRequest, VoteRequest};
use parking_lot::Mutex;
use starling_locations::call::{Answer, Call, Piece, Refusal};
use starling_locations::peers::NO_GROUP;
use starling_locations::types::Vote;
use starling_node::SystemClock;
use starling_wire::frame::{EdgeHello, EdgeItem, Home, PeerHello, PeerItem, RouterNews, Version};
use starling_wire::net::{
    EdgeClient, End, Hears, LinkedRouter, Options, Outlet, PeerClient, Peers, Routers, Seeds,
};
use starling_wire::tls::{Role, Tls};
use starling_wire::{ConnId, Down, EdgeId, Epoch, Incarnation, RouterId, Shard, ToHome, Token, Up};
use starling_xmpp::{BareJid, Element, MessageType, Stanza, ns};
use std::collections::HashMap;
use std::sync::Arc;
use std::time::Duration;

const SECOND: Duration = Duration::from_secs(1);
const EVIL: EdgeId = EdgeId(66);

/// An edge that says whatever a test wants.
struct Raw {
    version: Version,
    links: Mutex<HashMap<RouterId, LinkedRouter>>,
    homes: Mutex<HashMap<Shard, (Epoch, RouterId)>>,
    denied: Mutex<Vec<Shard>>,
    told: Mutex<Vec<String>>,
    ends: Mutex<Vec<String>>,
}

struct RawEar(Arc<Raw>, RouterId);

impl Raw {
    fn is_home(&self, router: RouterId, home: Home) {
        let mut homes = self.homes.lock();
        let known = homes.entry(home.shard).or_insert((home.epoch, router));
        if home.epoch >= known.0 {
            *known = (home.epoch, router);
        }
    }

    fn home(&self, shard: Shard) -> (Home, RouterId) {
        let (epoch, router) = self.homes.lock()[&shard];
        (Home { shard, epoch }, router)
    }

    fn push(&self, to: RouterId, item: EdgeItem) {
        // If there is no link at the moment, the test asks again.
        if let Some(link) = self.links.lock().get(&to) {
            link.outlet.push(item);
        }
    }
}

struct RawHost(Arc<Raw>);

impl Routers for RawHost {
    fn hello(&self) -> EdgeHello {
        EdgeHello { version: self.0.version.clone(), edge: EVIL, name: "edge-66".to_owned() }
    }

    fn linked(&self, router: LinkedRouter) -> Box<dyn Hears<RouterNews>> {
        let id = router.hello.router;
        for home in &router.hello.homes {
            self.0.is_home(id, *home);
        }
        self.0.links.lock().insert(id, router);
        Box::new(RawEar(Arc::clone(&self.0), id))
    }
}

impl Hears<RouterNews> for RawEar {
    fn hear(&mut self, items: Vec<RouterNews>) {
        for news in items {
            match news {
                RouterNews::Home(home) => self.0.is_home(self.1, home),
                RouterNews::NotHome(not) => self.0.denied.lock().push(not.shard),
                RouterNews::Downs(_, downs) => {
                    for message in downs {
                        let stanza = matches!(message.down, Down::Stanza { .. } | Down::Resumed { .. });
                        self.0.told.lock().push(format!("{stanza} {:?}", message.down));
                    }
                }
            }
        }
    }

    fn ended(&mut self, end: &End) {
        self.0.links.lock().remove(&self.1);
        self.0.ends.lock().push(end.to_string());
    }
}

fn up(account: &BareJid, number: u64, up: Up) -> ToHome {
    ToHome { account: account.clone(), conn: ConnId { edge: EVIL, number }, up }
}

fn forged(sequence: u64) -> Up {
    let mut stanza =
        Stanza::message(MessageType::Chat).child(Element::new(ns::CLIENT, "body").text("forged"));
    stanza.to = Some(jid("bob").into());
    stanza.from = Some(starling_xmpp::Jid::parse("alice@localhost/phone").unwrap());
    Up::Stanza { sequence, stanza, fault: None, trace: None, again: true }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn g02_an_edge_speaks_for_its_own_sessions_and_in_the_present_reign_only() {
    let site = Site::start(3).await;
    let good = Edge::start(&site, 1).await;
    site.account("alice").await;
    site.account("bob").await;
    let mut alice = Client::managed(&good, "alice", "phone").await;
    let bob = Client::managed(&good, "bob", "phone").await;
    let raw = Arc::new(Raw {
        version: Version::own(CLUSTER, site.shards()),
        links: Mutex::default(),
        homes: Mutex::default(),
        denied: Mutex::default(),
        told: Mutex::default(),
        ends: Mutex::default(),
    });
    let seeds = Arc::new(Seeds(site.addresses()));
    let host = Arc::new(RawHost(Arc::clone(&raw)));
    let _client = EdgeClient::start(seeds, site.edge_tls("edge-66"), Options::default(), host);
    let all = usize::from(site.shards().count());
    let shard = site.shards().of(&jid("alice"));
    until(10 * SECOND, "it is linked to all", || {
        raw.links.lock().len() == 3 && raw.homes.lock().len() == all
    })
    .await;
    let denials = || raw.denied.lock().iter().filter(|denied| **denied == shard).count();

    // It has not attached; and then a reign that is over, and one that never was.
    let (home, router) = raw.home(shard);
    for epoch in [home.epoch, Epoch(home.epoch.0 - 1), Epoch(home.epoch.0 + 1_000)] {
        let before = denials();
        raw.push(router, EdgeItem::Up(Home { epoch, ..home }, up(&jid("alice"), 5, forged(1))));
        until(5 * SECOND, "it is told that this is not the home", || denials() > before).await;
    }

    // Attached, it speaks for a session that is not its own: by a connection that nobody bound, by a secret that is none.
    let not_resumed = || raw.told.lock().iter().filter(|told| told.contains("NotResumed")).count();
    for guess in 0..100 {
        // Anew each time: the shard may have moved, and takes nothing of an edge that has not attached there.
        let (home, router) = raw.home(shard);
        raw.push(router, EdgeItem::AttachBegin(home));
        raw.push(router, EdgeItem::AttachEnd(home));
        for sequence in 1..=3 {
            raw.push(router, EdgeItem::Up(home, up(&jid("alice"), 5, forged(sequence))));
        }
        let resume = Up::Resume { token: Token(guess), handled: 0 };
        raw.push(router, EdgeItem::Up(home, up(&jid("alice"), 1_000 + guess as u64, resume)));
        tokio::time::sleep(SECOND / 5).await;
        if not_resumed() >= 5 {
            break;
        }
    }
    assert!(not_resumed() >= 5, "no session is resumed by a guess: {:?}", raw.told.lock());
    assert!(raw.told.lock().iter().all(|told| told.starts_with("false")), "{:?}", raw.told.lock());

    // A replayed stanza of a session is one.
    alice.tell("bob", "once");
    bob.until("it is told once", |seen| seen.messages == ["once"]).await;
    let mut again = Stanza::message(MessageType::Chat).child(Element::new(ns::CLIENT, "body").text("once"));
    again.to = Some(jid("bob").into());
    again.from = Some(starling_xmpp::Jid::parse("alice@localhost/phone").unwrap());
    let sequence = alice.sequence;
    alice.say(Up::Stanza { sequence, stanza: again, fault: None, trace: None, again: true });
    alice.tell("bob", "and this");
    bob.until("it goes on", |seen| seen.messages.last().is_some_and(|last| last == "and this")).await;
    assert_eq!(bob.messages(), ["once", "and this"], "nothing forged and nothing twice");

    // An account of another shard would have two homes: the link ends, and no other.
    let stranger =
        (0..100).map(|n| jid(&format!("user{n}"))).find(|user| site.shards().of(user) != shard).unwrap();
    let ended = || raw.ends.lock().iter().any(|end| end.contains("an account of another shard"));
    for _ in 0..50 {
        // A busy machine may just have no link for another reason.
        raw.push(router, EdgeItem::Up(home, up(&stranger, 6, Up::Idle)));
        tokio::time::sleep(SECOND / 5).await;
        if ended() {
            break;
        }
    }
    assert!(ended(), "the link goes on: {:?}", raw.ends.lock());
    alice.tell("bob", "still here");
    bob.until("the good edge goes on", |seen| seen.messages.last().is_some_and(|last| last == "still here"))
        .await;
}

/// A router that is none of the cluster's, though its certificate is good.
struct Stranger(Version);

struct Deaf;

impl Hears<PeerItem> for Deaf {
    fn hear(&mut self, _items: Vec<PeerItem>) {}
    fn ended(&mut self, _end: &End) {}
}

impl Peers for Stranger {
    fn hello(&self) -> PeerHello {
        PeerHello {
            version: self.0.clone(),
            router: RouterId(9),
            name: "router-9".to_owned(),
            incarnation: Incarnation(9),
            homes: Vec::new(),
            notes: Bytes::from_static(b"127.0.0.1:1"),
            heard: None,
        }
    }

    fn connected(&self, _peer: PeerHello) -> Result<Box<dyn Hears<PeerItem>>, String> {
        Ok(Box::new(Deaf))
    }

    fn linked(&self, _peer: PeerHello, _outlet: Outlet<PeerItem>) -> Box<dyn Hears<PeerItem>> {
        Box::new(Deaf)
    }

    fn raft(
        &self,
        _from: RouterId,
        _name: &Arc<str>,
        _group: u16,
        _body: Bytes,
    ) -> BoxFuture<'static, Result<Bytes, String>> {
        Box::pin(async { Err("nothing is answered".to_owned()) })
    }

    fn notes(&self) -> Bytes {
        Bytes::from_static(b"127.0.0.1:1")
    }
}

/// Far above what elections make.
const HUGE: u64 = 1 << 40;

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn g04_a_stranger_changes_nothing_in_the_groups() {
    let site = Site::start(3).await;
    let files = site.files(Role::Router, "router-9");
    let tls = Tls::load(files, CLUSTER, Role::Router, SystemClock::shared()).unwrap();
    let stranger = Arc::new(Stranger(Version::own(CLUSTER, site.shards())));
    let client = PeerClient::start(Arc::new(Seeds(site.addresses())), tls, Options::default(), stranger);
    let links = client.raft().clone();
    until(10 * SECOND, "it is linked", || links.states().borrow().len() == 3).await;
    let routers: Vec<RouterId> = site.running().map(|node| node.id()).collect();
    let cluster = site.running().next().unwrap().locations().cluster();
    let ask = async |to: RouterId, group: u16, body: Bytes| {
        let answer = links.call(to, group, body, 2 * SECOND).await.unwrap();
        Answer::decode(answer).unwrap()
    };
    let refusal = |answer: &Answer| match answer {
        Answer::Refused(refusal) => Some(*refusal),
        _ => None,
    };
    let vote = |term: u64, node: u64| Vote::new(term, node);
    let candidate = |term, node| Call::Vote(VoteRequest { vote: vote(term, node), last_log_id: None });
    let entries = |term, node| {
        Call::Append(AppendEntriesRequest {
            vote: Vote::new_committed(term, node),
            prev_log_id: None,
            entries: Vec::new(),
            leader_commit: None,
        })
    };
    let snapshot = |term, node, number, bytes: &'static [u8]| {
        let (vote, bytes) = (Vote::new_committed(term, node), Bytes::from_static(bytes));
        Call::Piece(Piece { vote, id: 1, number, last: number > 0, bytes })
    };
    for to in &routers {
        // Bytes that are none of ours.
        for bytes in [&b"\xff\xff\xff\xff"[..], b"\x0a\xff\xff\xff\xff\xff\xff\xff\xff\x7f", b""] {
            let answer = ask(*to, 3, Bytes::from_static(bytes)).await;
            assert!(refusal(&answer).is_some(), "{answer:?}");
        }
        // Of another cluster, and of none.
        for other in [0, cluster ^ 1] {
            for call in [
                candidate(HUGE, 9),
                entries(HUGE, 9),
                snapshot(HUGE, 9, 0, b"?"),
                Call::Elect { age: Duration::ZERO },
            ] {
                let answer = ask(*to, 3, call.encode(other)).await;
                assert_eq!(refusal(&answer), Some(Refusal::Stranger));
            }
        }
        // A group that there is not.
        let answer = ask(*to, 9_999, candidate(HUGE, 9).encode(cluster)).await;
        assert_eq!(refusal(&answer), Some(Refusal::Malformed));
    }
    // It wants to be taken in, in place of a router that is away for a moment.
    let address = "127.0.0.1:1".to_owned();
    let join = Call::Join { name: "router-0".to_owned(), address }.encode(cluster);
    for to in &routers {
        assert_eq!(refusal(&ask(*to, NO_GROUP, join.clone()).await), Some(Refusal::Name));
    }
    // What no message has room for is not even sent.
    assert!(links.call(routers[0], 3, Bytes::from(vec![0; 8 << 20]), SECOND).await.is_err());
    // It knows the number of the cluster, and floods all groups in the name of a member.
    for round in 0..10 {
        for (to, member) in routers.iter().zip(routers.iter().cycle().skip(1)) {
            for group in 0..site.shards().count() {
                let (term, node) = (HUGE + round, member.0);
                for call in
                    [candidate(term, node), entries(term, node), snapshot(term, node, 0, b"none at all")]
                {
                    let answer = ask(*to, group, call.encode(cluster)).await;
                    assert_eq!(refusal(&answer), Some(Refusal::Stranger));
                }
            }
        }
    }
    for node in site.running() {
        for group in node.locations().groups() {
            let standing = group.standing();
            assert!(standing.term < HUGE, "{standing:?}");
            assert_eq!(standing.voters.len(), 3);
        }
    }
    site.settled(10 * SECOND).await;
}
