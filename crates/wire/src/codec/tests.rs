use super::*;
use crate::frame::{
    EdgeHello, EdgeItem, Forward, Home, NotHome, Pair, PeerHello, PeerItem, Receipt, Refusal, RouterHello,
    RouterItem, RouterNews, Ticket, UpBatch, Version,
};
use crate::record::{Counting, Queued, Record};
use crate::{ConnId, Down, EdgeId, Epoch, Incarnation, Leave, RouterId, Shard, Shards, ToEdge, ToHome, Up};
use proptest::prelude::*;
use prost::Message;
use starling_store::Origin;
use starling_xmpp::{ErrorType, IqType, Jid, MessageType, PresenceType, StanzaCondition, StreamCondition};
use std::collections::VecDeque;
use std::sync::Arc;
use std::time::Duration;

mod buffers;
mod sizes;

const EDGE: EdgeId = EdgeId(0x0102_0304_0506_0708);
const HOME: Home = Home { shard: Shard(3), epoch: Epoch(9) };

fn stanza(text: &str) -> Stanza {
    Stanza::message(MessageType::Chat)
        .to(Jid::parse("bob@example.org").unwrap())
        .from(Jid::parse("alice@example.org/phone").unwrap())
        .id("m1")
        .child(Element::new(ns::CLIENT, "body").text(text))
}

fn said(up: Up) -> EdgeItem {
    let conn = ConnId { edge: EDGE, number: 5 };
    EdgeItem::Up(HOME, ToHome { account: bare("alice@example.org").unwrap(), conn, up })
}

fn told(down: Down) -> RouterItem {
    RouterItem::Down(HOME, ToEdge { conn: ConnId { edge: EDGE, number: 5 }, down })
}

fn span() -> Trace {
    Trace { trace_id: [7; 16], span_id: [8; 8], flags: 1 }
}

fn record() -> Record {
    let queued = |number: u64, position: Option<u64>, counts| {
        let stanza = stanza(&number.to_string());
        Arc::new(Queued { number, position: position.map(Position), waits: false, counts, stanza })
    };
    Record {
        detached: Some(Duration::from_millis(1500)),
        token: Token(u128::MAX - 5),
        jid: full("alice@example.org/phone").unwrap(),
        epoch: Epoch(8),
        handled: 12,
        answered: Vec::new(),
        asked: Vec::new(),
        spoken: Vec::new(),
        received: 30,
        first: 4,
        management: Some(Counting { base: 2, acknowledged: u32::MAX }),
        queue: vec![queued(28, None, false), queued(29, Some(1 << 50), true), queued(30, None, true)],
        acknowledged: vec![Position(5), Position(7)],
        highest: Some(Position(1 << 50)),
        notes: Bytes::from_static(b"\x01notes"),
    }
}

fn ups() -> Vec<Up> {
    let spoken = vec![(bare("bob@example.org").unwrap(), 300)];
    let fault = StanzaError::new(StanzaCondition::NotAllowed).with_text("a resource is bound already");
    let plain = |again| Up::Stanza { sequence: 7, stanza: stanza("hi"), fault: None, trace: None, again };
    vec![
        Up::Bind { token: Token(1), resource: None },
        Up::Bind { token: Token(2), resource: Some("phone".into()) },
        Up::Resume { token: Token(3), handled: u32::MAX },
        plain(false),
        plain(true),
        Up::Stanza {
            sequence: u64::MAX,
            stanza: Stanza::iq(IqType::Get).id("x"),
            fault: Some(Box::new(fault)),
            trace: Some(span()),
            again: false,
        },
        Up::EnableSm { resume: true, max: Some(300) },
        Up::EnableSm { resume: false, max: None },
        Up::Acknowledged { handled: 0 },
        Up::Written { count: 0 },
        Up::ClientState { active: false },
        Up::ClientState { active: true },
        Up::Idle,
        Up::Gone(Leave::Closed),
        Up::Gone(Leave::Lost),
        Up::Gone(Leave::Never),
        Up::Attach(Box::new(record())),
        Up::Attach(Box::new(Record {
            answered: vec![14, 300],
            asked: vec![0, u64::MAX],
            spoken,
            queue: vec![],
            ..record()
        })),
        Up::Attach(Box::new(Record { management: None, detached: None, highest: None, ..record() })),
    ]
}

fn downs() -> Vec<Down> {
    let jid = || full("alice@example.org/phone").unwrap();
    let error = StanzaError::new(StanzaCondition::ResourceConstraint).with_type(ErrorType::Wait);
    let stream = StreamError::new(StreamCondition::SeeOtherHost).with_text("b.example");
    let plain = |number, position, counts, answers, trace| Down::Stanza {
        number,
        position,
        waits: counts,
        counts,
        stanza: stanza("hi"),
        answers,
        trace,
    };
    vec![
        Down::Bound { jid: jid() },
        Down::Refused(Box::new(error)),
        Down::Resumed { jid: jid(), sequence: 9, base: 2 },
        Down::NotResumed,
        Down::SmEnabled { resume: Some(600), base: 3 },
        Down::SmEnabled { resume: None, base: 0 },
        Down::SmFailed,
        plain(1, None, false, 0, None),
        plain(2, Some(Position(77)), true, 301, Some(span())),
        Down::Handled { sequence: 0 },
        Down::Remember(Bytes::from_static(b"abc")),
        Down::Saved { through: Position(0) },
        Down::Decided { through: 300, open: vec![297, 299] },
        Down::Decided { through: 0, open: vec![] },
        Down::Released,
        Down::RequestAck,
        Down::Close(None),
        Down::Close(Some(Box::new(stream))),
    ]
}

fn peers() -> Vec<PeerItem> {
    let pair = || Pair {
        shard: Shard(1),
        sender: bare("alice@example.org").unwrap(),
        token: Token(6),
        recipient: bare("bob@example.org").unwrap(),
    };
    let ticket = Ticket {
        origin: Origin { session: 6, sequence: 2 },
        sender: bare("alice@example.org").unwrap(),
        token: Token(6),
        sequence: 4,
        prev: Some(0),
        again: true,
        resent: Some(Duration::from_millis(7)),
        before: 3,
        unheard: (0, 0),
    };
    let forward = Forward {
        home: HOME,
        account: bare("bob@example.org").unwrap(),
        stanza: stanza("hi"),
        ticket: Some(ticket.clone()),
        hops: 8,
        trace: Some(span()),
        passed: false,
    };
    let bounce = Stanza::message(MessageType::Error).id("m1");
    let refused = Refusal { answer: Some(bounce), unsure: Some(ticket.origin) };
    let empty = Refusal { answer: None, unsure: None };
    vec![
        PeerItem::Home(HOME),
        PeerItem::NotHome(NotHome { shard: Shard(3), epoch: Epoch(4), hint: Some(RouterId(0)) }),
        PeerItem::NotHome(NotHome { shard: Shard(0), epoch: Epoch(0), hint: None }),
        PeerItem::Forward(Box::new(forward.clone())),
        PeerItem::Forward(Box::new(Forward {
            ticket: Some(Ticket {
                prev: None,
                again: false,
                resent: None,
                before: 0,
                unheard: (4, 5),
                ..ticket
            }),
            ..forward.clone()
        })),
        PeerItem::Forward(Box::new(Forward { ticket: None, trace: None, hops: 0, passed: true, ..forward })),
        PeerItem::Receipt(Box::new(Receipt { pair: pair(), sequence: 4, refused: None })),
        PeerItem::Receipt(Box::new(Receipt { pair: pair(), sequence: 4, refused: Some(refused) })),
        PeerItem::Receipt(Box::new(Receipt { pair: pair(), sequence: 4, refused: Some(empty) })),
        PeerItem::Missing(Box::new(pair()), Some(0)),
        PeerItem::Missing(Box::new(pair()), None),
        PeerItem::Busy(Box::new(pair()), 3),
        PeerItem::Question { id: 1, body: Bytes::from_static(b"q") },
        PeerItem::Answer { id: 1, body: Bytes::new() },
    ]
}

/// All frames of some items, as they go over the wire.
fn frames<P: Pieces>(items: Vec<P::Item>) -> Vec<Vec<u8>>
where
    P::Frame: Message,
{
    let mut items = VecDeque::from(items);
    let mut pieces = P::default();
    let mut out = Vec::new();
    while let Some(frame) = pieces.frame(&mut items) {
        out.push(frame.encode_to_vec());
    }
    assert!(out.iter().all(|frame| frame.len() <= MAX_MESSAGE));
    out
}

fn read_ups(frames: &[Vec<u8>]) -> Result<Vec<UpBatch>> {
    let mut reader = Reader::new(EDGE);
    let mut all = Vec::new();
    for frame in frames {
        all.extend(reader.read(proto::EdgeFrame::decode(&**frame).map_err(|_| Malformed("frame"))?)?);
    }
    Ok(all)
}

#[test]
fn everything_an_edge_says_arrives() {
    let mut items = vec![EdgeItem::AttachBegin(HOME)];
    items.extend(ups().into_iter().map(said));
    items.push(EdgeItem::AttachEnd(HOME));
    let other = Home { shard: Shard(4), epoch: Epoch(u64::MAX) };
    items.extend([EdgeItem::AttachBegin(other), EdgeItem::AttachEnd(other), said(Up::Idle)]);
    let batches = read_ups(&frames::<EdgePieces>(items)).unwrap();
    let shape: Vec<_> = batches.iter().map(|b| (b.home, b.attach_begin, b.ups.len(), b.attach_end)).collect();
    assert_eq!(shape, [(HOME, true, ups().len(), true), (other, true, 0, true), (HOME, false, 1, false)]);
    for (read, sent) in batches[0].ups.iter().zip(ups()) {
        assert_eq!(format!("{:?}", read.up), format!("{sent:?}"));
        assert_eq!((read.account.as_str(), read.conn.edge, read.conn.number), ("alice@example.org", EDGE, 5));
        // The debug form of a token does not show it.
        match (&read.up, &sent) {
            (Up::Bind { token: one, .. }, Up::Bind { token: two, .. })
            | (Up::Resume { token: one, .. }, Up::Resume { token: two, .. }) => assert_eq!(one.0, two.0),
            (Up::Attach(one), Up::Attach(two)) => assert_eq!(one, two),
            _ => {}
        }
    }
}

#[test]
fn everything_a_router_says_arrives() {
    let not = NotHome { shard: Shard(3), epoch: Epoch(4), hint: Some(RouterId(8)) };
    let mut items = vec![RouterItem::Home(HOME)];
    items.extend(downs().into_iter().map(told));
    items.push(RouterItem::NotHome(not));
    items.push(told(Down::RequestAck));
    let frames = frames::<RouterPieces>(items);
    let read =
        |frame: &Vec<u8>| read_router_frame(EDGE, proto::RouterFrame::decode(&**frame).unwrap()).unwrap();
    let news: Vec<RouterNews> = frames.iter().flat_map(read).collect();
    let [
        RouterNews::Home(HOME),
        RouterNews::Downs(HOME, all),
        RouterNews::NotHome(last),
        RouterNews::Downs(..),
    ] = &news[..]
    else {
        panic!("{news:?}")
    };
    assert_eq!(*last, not);
    assert_eq!(all.len(), downs().len());
    for (read, sent) in all.iter().zip(downs()) {
        assert_eq!(format!("{:?}", read.down), format!("{sent:?}"));
    }
}

#[test]
fn everything_routers_say_to_one_another_arrives() {
    let frames = frames::<PeerPieces>(peers());
    let read = |frame: &Vec<u8>| read_peer_frame(proto::PeerFrame::decode(&**frame).unwrap()).unwrap();
    let all: Vec<PeerItem> = frames.iter().flat_map(read).collect();
    assert_eq!(all, peers());
}

#[test]
fn hellos_arrive_and_are_judged() {
    let version = Version::own("test", Shards::default());
    let edge = EdgeHello { version: version.clone(), edge: EDGE, name: "edge-1".to_owned() };
    assert_eq!(read_edge_hello(edge_hello(&edge)).unwrap(), edge);
    let router = RouterHello {
        version: version.clone(),
        router: RouterId(3),
        name: "router-1".to_owned(),
        incarnation: Incarnation(4),
        homes: vec![HOME],
        decoy_secret: Bytes::from_static(b"secret"),
        features: vec![Bytes::from_static(b"<sub xmlns='urn:xmpp:features:pre-approval'/>")],
        routers: vec!["router-1.example.net:5270".to_owned()],
    };
    assert_eq!(read_router_hello(router_hello(&router)).unwrap(), router);
    assert!(!format!("{router:?}").contains("secret"), "it must not get into logs");
    let peer = PeerHello {
        version: version.clone(),
        router: RouterId(3),
        name: "router-1".to_owned(),
        incarnation: Incarnation(4),
        homes: vec![],
        notes: Bytes::from_static(b"n"),
        heard: Some(7),
    };
    assert_eq!(read_peer_hello(peer_hello(&peer)).unwrap(), peer);

    assert_eq!(version.refuses("a", &Version { minor: 99, ..version.clone() }, "b"), None);
    let no = |peer: Version| version.refuses("a", &peer, "b").unwrap();
    assert!(no(Version { major: 2, ..version.clone() }).contains("version"));
    assert!(no(Version { cluster: "other".to_owned(), ..version.clone() }).contains("cluster"));
    assert!(no(Version { shards: 17, ..version.clone() }).contains("shards"));
    assert!(no(Version { hash: "crc".to_owned(), ..version.clone() }).contains("hash"));

    let mut bad = edge_hello(&edge);
    bad.name = "a\nb".to_owned();
    assert_eq!(read_edge_hello(bad), Err(Malformed("name")));
    assert_eq!(read_edge_hello(proto::EdgeHello::default()), Err(Malformed("hello")));
}

#[test]
fn the_last_of_several_asks_is_answered() {
    let items = vec![told(Down::RequestAck), RouterItem::Ask(4), told(Down::RequestAck), RouterItem::Ask(9)];
    let asked = frames::<RouterPieces>(items);
    let [frame] = &asked[..] else { panic!("{} frames", asked.len()) };
    assert_eq!(proto::RouterFrame::decode(&**frame).unwrap().ask, 9);
    // With nothing else to say, too.
    let said = frames::<EdgePieces>(vec![EdgeItem::Heard(4), EdgeItem::Heard(9)]);
    let [frame] = &said[..] else { panic!("{} frames", said.len()) };
    assert_eq!(proto::EdgeFrame::decode(&**frame).unwrap().heard, 9);
    assert!(read_ups(&said).unwrap().is_empty());
    let older = Version { minor: 0, ..Version::own("test", Shards::new(16).unwrap()) };
    assert!(!older.answers() && Version { minor: 1, ..older }.answers());
}

/// The bytes of version 1.0. Whoever changes them speaks another protocol: fields are only added.
#[test]
fn the_bytes_stay() {
    let hex =
        |frames: Vec<Vec<u8>>| -> String { frames.concat().iter().map(|b| format!("{b:02x}")).collect() };
    let up = Up::Stanza { sequence: 7, stanza: stanza("hi"), fault: None, trace: Some(span()), again: true };
    let attach =
        vec![EdgeItem::AttachBegin(HOME), said(Up::Attach(Box::new(record()))), EdgeItem::AttachEnd(HOME)];
    let down = Down::Stanza {
        number: 300,
        position: Some(Position(77)),
        waits: false,
        counts: true,
        stanza: stanza("hi"),
        answers: 0,
        trace: None,
    };
    let bytes = [
        hex(frames::<EdgePieces>(vec![said(up)])),
        hex(frames::<EdgePieces>(attach)),
        hex(frames::<RouterPieces>(vec![RouterItem::Home(HOME), told(down)])),
        hex(frames::<PeerPieces>(vec![peers().swap_remove(3)])),
    ];
    let golden: Vec<&str> = include_str!("golden.txt").lines().collect();
    assert_eq!(bytes[..], golden);
}

#[test]
fn fields_of_a_newer_peer_are_passed_over() {
    let mut frame = frames::<EdgePieces>(ups().into_iter().map(said).collect()).remove(0);
    // Field 1000: a number, a text, and a group of them.
    frame.extend([0xc0, 0x3e, 5, 0xc2, 0x3e, 3, b'n', b'e', b'w', 0xc3, 0x3e, 0x08, 1, 0xc4, 0x3e]);
    assert_eq!(read_ups(&[frame]).unwrap()[0].ups.len(), ups().len());
}

#[test]
fn what_cannot_be_is_refused() {
    let envelope =
        |up| proto::UpEnvelope { account: "alice@example.org".to_owned(), conn: 5, up, never: false };
    let batch = |ups| proto::UpBatch { shard: 3, epoch: 9, ups, ..proto::UpBatch::default() };
    let read = |batch| {
        let batches = vec![batch];
        Reader::new(EDGE)
            .read(proto::EdgeFrame { batches, ..Default::default() })
            .map(|_| ())
            .map_err(|bad| bad.0)
    };
    use proto::up_envelope::Up as Said;
    assert_eq!(read(batch(vec![envelope(None)])), Err("message of an edge"));
    assert_eq!(read(batch(vec![envelope(Some(Said::Gone(7)))])), Err("leave"));
    assert_eq!(read(batch(vec![envelope(Some(Said::Gone(0)))])), Err("leave"));
    let short = proto::Resume { token: Bytes::from_static(b"short"), handled: 0 };
    assert_eq!(read(batch(vec![envelope(Some(Said::Resume(short)))])), Err("token"));
    for bytes in
        [&b""[..], b"<message", b"<a xmlns='jabber:client'/>", b"<!DOCTYPE x><message/>", b"\xff\xfe"]
    {
        let stanza = proto::ClientStanza { stanza: Bytes::copy_from_slice(bytes), ..Default::default() };
        assert_eq!(read(batch(vec![envelope(Some(Said::Stanza(stanza)))])), Err("stanza"), "{bytes:?}");
    }
    let idle = || Some(Said::Idle(proto::Empty {}));
    let address = proto::UpEnvelope { account: "a@b@c/d".to_owned(), conn: 1, up: idle(), never: false };
    assert_eq!(read(batch(vec![address])), Err("address"));
    assert_eq!(read(proto::UpBatch { shard: 70_000, ..Default::default() }), Err("shard"));
    let hello = proto::EdgeFrame { hello: Some(proto::EdgeHello::default()), ..Default::default() };
    assert_eq!(Reader::new(EDGE).read(hello).unwrap_err(), Malformed("second hello"));

    // Records: parts of one session must follow one another, and make sense together.
    let part = |change: &dyn Fn(&mut proto::Record)| {
        let mut rest = VecDeque::new();
        up::envelopes(
            ToHome {
                account: bare("alice@example.org").unwrap(),
                conn: ConnId { edge: EDGE, number: 5 },
                up: Up::Attach(Box::new(record())),
            },
            &mut rest,
        );
        let (mut envelope, _) = rest.pop_front().unwrap();
        if let Some(Said::Attach(record)) = &mut envelope.up {
            change(record);
        }
        envelope
    };
    let more = || part(&|record| record.more = true);
    assert_eq!(read(batch(vec![more(), envelope(idle())])), Err("record"));
    assert_eq!(read(batch(vec![more(), proto::UpEnvelope { conn: 6, ..part(&|_| {}) }])), Err("record"));
    let end = proto::UpBatch { attach_end: true, ..batch(vec![more()]) };
    assert_eq!(read(end), Err("record"));
    assert_eq!(read(batch(vec![part(&|record| record.queue.reverse())])), Err("record"));
    assert_eq!(read(batch(vec![part(&|record| record.received = 29)])), Err("record"));
    assert_eq!(read(batch(vec![part(&|record| record.acknowledged.reverse())])), Err("record"));
    assert_eq!(read(batch(vec![part(&|record| record.jid = "a@b".to_owned())])), Err("address"));
    let of_another = part(&|record| record.jid = "bob@example.org/phone".to_owned());
    assert_eq!(read(batch(vec![of_another])), Err("record"), "of an account whose home this need not be");

    let none = proto::PeerFrame { hello: None, items: vec![proto::PeerItem { item: None }] };
    assert_eq!(read_peer_frame(none), Err(Malformed("message of a router")));
    let answer = proto::RegisterAnswer { registration: 9 };
    assert_eq!(read_registration(&answer), Err(Malformed("registration")));
    let row = proto::AccountRow { credentials: Bytes::from_static(b"\x09"), ..Default::default() };
    assert!(read_account(proto::AccountAnswer { row: Some(row) }).is_err());
}

#[test]
fn lengths_and_depths_are_bounded() {
    let decode = |bytes: &[u8]| proto::EdgeFrame::decode(bytes).is_ok();
    assert!(
        !decode(&[0x12, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0x01]),
        "a negative length"
    );
    assert!(!decode(&[0x12, 0x05, 0x08]), "cut off");
    assert!(!decode(&[0xc3, 0x3e].repeat(100_000)), "groups in groups in groups");
    assert!(!decode(&[0x0f]), "a wire type that there is not");
}

#[test]
fn accounts_are_asked_for_and_made() {
    let account = bare("alice@example.org").unwrap();
    assert_eq!(read_account_question(&account_question(&account)).unwrap(), account);
    let credentials = starling_xmpp::sasl::Credentials::derive("secret", [1; 16], 1).unwrap();
    let row = starling_store::AccountRow {
        generation: u64::MAX,
        credentials: credentials.clone(),
        created: starling_xmpp::Timestamp(5),
        disabled: true,
    };
    let read = read_account(account_answer(Some(&row))).unwrap().unwrap();
    assert!(read.credentials == row.credentials && read.disabled);
    assert_eq!((read.generation, read.created), (row.generation, row.created));
    assert!(read_account(account_answer(None)).unwrap().is_none());
    let (who, what) = read_register(&register_question(&account, &credentials)).unwrap();
    assert!(who == account && what == credentials);
    for registration in [crate::Registration::Created, crate::Registration::Conflict] {
        assert_eq!(read_registration(&register_answer(registration)).unwrap(), registration);
    }
}

fn read_anything(bytes: &[u8]) {
    if let Ok(frame) = proto::EdgeFrame::decode(bytes) {
        let _ = Reader::new(EDGE).read(frame);
    }
    if let Ok(frame) = proto::RouterFrame::decode(bytes) {
        let _ = read_router_frame(EDGE, frame);
    }
    if let Ok(frame) = proto::PeerFrame::decode(bytes) {
        let _ = read_peer_frame(frame);
    }
    let _ = proto::EdgeHello::decode(bytes).map(read_edge_hello);
    let _ = proto::RouterHello::decode(bytes).map(read_router_hello);
    let _ = proto::PeerHello::decode(bytes).map(read_peer_hello);
    let _ = proto::AccountAnswer::decode(bytes).map(read_account);
    let _ = proto::RegisterQuestion::decode(bytes).map(|question| read_register(&question).map(|_| ()));
    let _ = proto::RaftFrame::decode(bytes);
    let _ = read_stanza(Bytes::copy_from_slice(bytes));
}

fn valid() -> Vec<Vec<u8>> {
    let mut all = frames::<EdgePieces>(ups().into_iter().map(said).collect());
    all.extend(frames::<RouterPieces>(downs().into_iter().map(told).collect()));
    all.extend(frames::<PeerPieces>(peers()));
    all.push(stanza("<&'\" hi").encode().to_vec());
    all.push(Stanza::presence(PresenceType::Probe).encode().to_vec());
    all
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 2_000, ..ProptestConfig::default() })]

    #[test]
    fn nothing_that_comes_makes_it_panic(bytes in proptest::collection::vec(any::<u8>(), 0..300)) {
        read_anything(&bytes);
    }

    #[test]
    fn nothing_that_was_damaged_makes_it_panic(
        which in any::<proptest::sample::Index>(),
        changes in proptest::collection::vec((any::<proptest::sample::Index>(), any::<u8>()), 1..6),
        cut in proptest::option::of(any::<proptest::sample::Index>()),
    ) {
        let all = valid();
        let mut bytes = which.get(&all).clone();
        for (at, value) in changes {
            let at = at.index(bytes.len());
            bytes[at] = value;
        }
        if let Some(cut) = cut {
            bytes.truncate(cut.index(bytes.len()));
        }
        read_anything(&bytes);
    }
}
