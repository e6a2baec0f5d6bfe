use super::*;
use crate::{Kind, MessageType, StreamCondition, StreamError, ns};

const HEADER: &str = "<?xml version='1.0'?><stream:stream to='example.org' version='1.0' \
                      xmlns='jabber:client' xmlns:stream='http://etherx.jabber.org/streams'>";

/// All events of `input`, and the error at its end if there is one. Adjacent white space counts as one event.
fn read(limits: Limits, pieces: &[&[u8]]) -> (Vec<Event>, Option<StreamError>) {
    let mut reader = Reader::new(limits);
    let mut events = Vec::new();
    for piece in pieces {
        reader.feed(piece);
        loop {
            match (reader.next(), events.last_mut()) {
                (Ok(Some(Event::Whitespace(more))), Some(Event::Whitespace(count))) => *count += more,
                (Ok(Some(event)), _) => events.push(event),
                (Ok(None), _) => break,
                (Err(error), _) => {
                    assert_eq!(reader.next(), Err(error.clone()), "a reader that failed stays so");
                    assert_eq!(reader.buffered(), 0);
                    return (events, Some(error));
                }
            }
        }
    }
    (events, None)
}

/// The events after the header, whole, byte by byte and in threes: they must be the same.
fn stream_with(limits: Limits, header: &str, rest: &[u8]) -> (Vec<Event>, Option<StreamCondition>) {
    let input = [header.as_bytes(), rest].concat();
    let (events, error) = read(limits, &[&input]);
    for size in [1, 3, 64] {
        let pieces: Vec<_> = input.chunks(size).collect();
        assert_eq!(read(limits, &pieces), (events.clone(), error.clone()), "in pieces of {size}");
    }
    let mut events = events.into_iter();
    if !header.is_empty() {
        assert!(matches!(events.next(), Some(Event::Header(_))), "no header");
    }
    (events.collect(), error.map(|error| error.condition))
}

fn stream(rest: &str) -> (Vec<Event>, Option<StreamCondition>) {
    stream_with(Limits::c2s(), HEADER, rest.as_bytes())
}

fn stanza(rest: &str) -> Incoming {
    match stream(rest) {
        (events, None) => match events.into_iter().next() {
            Some(Event::Stanza(incoming)) => incoming,
            other => panic!("{rest}: {other:?}"),
        },
        (_, Some(error)) => panic!("{rest}: {error}"),
    }
}

#[test]
fn a_conversation_is_read() {
    let (events, error) = stream(
        " \n<message to='bob@example.org' id='1' type='chat'>\n <body>Hi</body>\t<active xmlns='urn:a'/> </message>\
         <r xmlns='urn:xmpp:sm:3'/><presence/>\n</stream:stream> trailing",
    );
    assert_eq!(error, None);
    assert_eq!(events.len(), 6);
    assert_eq!(events[0], Event::Whitespace(2));
    let Event::Stanza(message) = &events[1] else { panic!() };
    assert_eq!(message.stanza.kind, Kind::Message(MessageType::Chat));
    assert_eq!(message.stanza.id.as_deref(), Some("1"));
    assert_eq!(message.stanza.to.as_ref().unwrap().as_str(), "bob@example.org");
    assert_eq!(message.stanza.payload.bytes().as_ref(), b"<body>Hi</body><active xmlns='urn:a'/>");
    assert!(message.stanza.payload.has("urn:a", "active"));
    assert_eq!((message.size, &message.fault), (101, &None));
    assert_eq!(events[2], Event::Nonza(Element::new(ns::SM, "r")));
    assert!(matches!(&events[3], Event::Stanza(presence) if presence.stanza.is_presence()));
    assert_eq!(events[4..], [Event::Whitespace(1), Event::End]);
}

mod faults;
mod hostile;
mod memory;
mod oracle;
mod properties;
