//! Prints what one chat message costs on its way through this crate: nanoseconds each, best of several rounds.
//!
//! `cargo run --release -p starling-xmpp --example parse_cost`
#![allow(clippy::disallowed_methods, reason = "it measures")]

use std::{hint::black_box, time::Instant};

use bytes::BytesMut;
use starling_xmpp::{
    Element, Jid, Stanza, ns,
    stream::{Event, Limits, Reader},
};

const HEADER: &str = "<?xml version='1.0'?><stream:stream to='example.org' version='1.0' \
                      xmlns='jabber:client' xmlns:stream='http://etherx.jabber.org/streams'>";

const MESSAGE: &str = "<message to='bob@example.org' type='chat' id='7d8f1c3a-52c4-4b0e'>\
    <body>Hello, this is a message of ordinary length &amp; content, as people send them.</body>\
    <active xmlns='http://jabber.org/protocol/chatstates'/>\
    <origin-id xmlns='urn:xmpp:sid:0' id='7d8f1c3a-52c4-4b0e'/>\
    <request xmlns='urn:xmpp:receipts'/></message>";

/// Runs `work`, which does `count` things, and prints the best time per thing.
fn measure(name: &str, count: u32, mut work: impl FnMut()) {
    let mut best = f64::INFINITY;
    for _ in 0..200 {
        let start = Instant::now();
        work();
        best = best.min(start.elapsed().as_nanos() as f64 / f64::from(count));
    }
    println!("{name:<34} {best:8.0} ns");
}

/// A reader that has seen its header.
fn open() -> Reader {
    let mut reader = Reader::new(Limits::c2s());
    reader.feed(HEADER.as_bytes());
    let _ = reader.next();
    reader
}

/// The next stanza.
fn stanza(reader: &mut Reader) -> Stanza {
    match reader.next() {
        Ok(Some(Event::Stanza(incoming))) => incoming.stanza,
        other => panic!("no stanza but {other:?}"),
    }
}

fn main() {
    println!("message of {} bytes", MESSAGE.len());
    let mut reader = open();
    measure("read, one at a time", 1_000, || {
        for _ in 0..1_000 {
            reader.feed(black_box(MESSAGE.as_bytes()));
            black_box(stanza(&mut reader));
        }
    });
    let batch = MESSAGE.repeat(40);
    measure("read, 40 at a time", 1_000, || {
        for _ in 0..25 {
            reader.feed(black_box(batch.as_bytes()));
            for _ in 0..40 {
                black_box(stanza(&mut reader));
            }
        }
    });
    let halves = MESSAGE.as_bytes().split_at(200);
    measure("read, in two pieces", 1_000, || {
        for _ in 0..1_000 {
            reader.feed(black_box(halves.0));
            black_box(reader.next()).ok();
            reader.feed(black_box(halves.1));
            black_box(stanza(&mut reader));
        }
    });

    reader.feed(MESSAGE.as_bytes());
    let mut message = stanza(&mut reader);
    message.from = Jid::parse("alice@example.org/phone").ok();
    let mut out = BytesMut::with_capacity(1 << 20);
    measure("write", 1_000, || {
        out.clear();
        for _ in 0..1_000 {
            black_box(&message).write(&mut out);
        }
    });
    measure("encode", 1_000, || {
        for _ in 0..1_000 {
            black_box(black_box(&message).encode());
        }
    });
    let encoded = message.encode();
    measure("decode", 1_000, || {
        for _ in 0..1_000 {
            let _ = black_box(Stanza::decode(black_box(encoded.clone())));
        }
    });
    measure("clone", 1_000, || {
        for _ in 0..1_000 {
            black_box(black_box(&message).clone());
        }
    });
    measure("look for a child that is not there", 1_000, || {
        for _ in 0..1_000 {
            black_box(black_box(&message).payload.has(ns::CARBONS, "private"));
        }
    });
    let stanza_id =
        Element::new(ns::SID, "stanza-id").attr("id", "00000193-4f2a").attr("by", "bob@example.org");
    measure("add a child", 1_000, || {
        for _ in 0..1_000 {
            black_box(black_box(&message).payload.with(&stanza_id));
        }
    });
    measure("parse an address", 1_000, || {
        for _ in 0..1_000 {
            let _ = black_box(Jid::parse(black_box("bob@example.org")));
        }
    });
}
