//! What is longer than a message between processes may be.

use super::*;

#[test]
fn a_long_queue_is_sent_in_parts() {
    let text = "x".repeat(2_000);
    let queued = |number| Queued {
        number,
        position: Some(Position(number)),
        waits: true,
        counts: true,
        stanza: stanza(&text),
    };
    let queue: Vec<_> = (1..=3_000).map(|number| Arc::new(queued(number))).collect();
    let long = Record { received: 3_000, queue, ..record() };
    let items = vec![
        EdgeItem::AttachBegin(HOME),
        said(Up::Attach(Box::new(long.clone()))),
        said(Up::Attach(Box::new(record()))),
        EdgeItem::AttachEnd(HOME),
    ];
    let frames = frames::<EdgePieces>(items);
    assert!(frames.len() > 10, "{}", frames.len());
    let batches = read_ups(&frames).unwrap();
    let records: Vec<&Record> = batches
        .iter()
        .flat_map(|batch| &batch.ups)
        .map(|message| match &message.up {
            Up::Attach(record) => &**record,
            other => panic!("{other:?}"),
        })
        .collect();
    assert_eq!(records, [&long, &record()]);
    assert!(batches[0].attach_begin && batches.last().unwrap().attach_end);
    assert!(!batches[0].attach_end);
}

#[test]
fn a_stanza_that_no_message_has_room_for_keeps_its_number() {
    let huge = stanza(&"x".repeat(MAX_STANZA));
    let up = Up::Stanza { sequence: 7, stanza: huge, fault: None, trace: None, again: false };
    let batches = read_ups(&frames::<EdgePieces>(vec![said(up)])).unwrap();
    let Up::Stanza { sequence: 7, stanza, fault: Some(fault), .. } = &batches[0].ups[0].up else { panic!() };
    assert_eq!(fault.condition, StanzaCondition::PolicyViolation);
    assert!(stanza.payload.is_empty() && stanza.id.as_deref() == Some("m1"));
}

#[test]
fn an_answer_that_no_message_has_room_for_is_an_error() {
    let huge = Stanza { kind: Kind::Iq(IqType::Result), ..stanza(&"x".repeat(MAX_STANZA)) };
    let down = Down::Stanza {
        number: 7,
        position: None,
        waits: false,
        counts: true,
        stanza: huge,
        answers: 0,
        trace: None,
    };
    let message = ToEdge { conn: ConnId { edge: EDGE, number: 1 }, down };
    let sent = frames::<RouterPieces>(vec![RouterItem::Down(HOME, message)]);
    let frame = proto::RouterFrame::decode(&*sent[0]).unwrap();
    let news = read_router_frame(EDGE, frame).unwrap();
    let RouterNews::Downs(_, downs) = &news[0] else { panic!("{news:?}") };
    let Down::Stanza { number: 7, stanza, .. } = &downs[0].down else { panic!("{downs:?}") };
    assert_eq!((stanza.kind, stanza.id.as_deref()), (Kind::Iq(IqType::Error), Some("m1")));
    assert!(String::from_utf8_lossy(&stanza.encode()).contains("<resource-constraint "));
}

#[test]
fn no_frame_is_larger_than_what_is_read_however_long_the_addresses_are() {
    let long = |letter: &str| letter.repeat(1_000);
    let account = bare(&format!("{}@{}.example", long("a"), "b".repeat(60))).unwrap();
    let full = account.with_resource(&long("c")).unwrap();
    let pair = Pair { shard: Shard(3), sender: account.clone(), token: Token(6), recipient: account.clone() };
    let receipt =
        |sequence| PeerItem::Receipt(Box::new(Receipt { pair: pair.clone(), sequence, refused: None }));
    assert!(frames::<PeerPieces>((0..4_000).map(receipt).collect()).len() > 10);
    let conn = ConnId { edge: EDGE, number: 1 };
    let bound = |_| RouterItem::Down(HOME, ToEdge { conn, down: Down::Bound { jid: full.clone() } });
    let mut items: Vec<_> = (0..4_000).map(bound).collect();
    // As much as a home ever has remembered, behind a frame that is nearly full.
    let notes = Bytes::from(vec![b'n'; MAX_STANZA]);
    items.insert(120, RouterItem::Down(HOME, ToEdge { conn, down: Down::Remember(notes) }));
    assert!(frames::<RouterPieces>(items).len() > 10);
    let idle = |_| EdgeItem::Up(HOME, ToHome { account: account.clone(), conn, up: Up::Idle });
    assert!(frames::<EdgePieces>((0..4_000).map(idle).collect()).len() > 10);
}
