//! What a reader holds.

use super::*;
use crate::StanzaCondition;

#[test]
fn an_idle_reader_is_small_and_holds_nothing() {
    assert!(size_of::<Reader>() <= 192, "{}", size_of::<Reader>());
    let mut reader = Reader::new(Limits::c2s());
    reader.feed(HEADER.as_bytes());
    reader.feed(b"<message><body>x</body></message>\n");
    while reader.next().unwrap().is_some() {}
    assert!(reader.idle());
    assert_eq!(reader.capacity(), 0);
}

#[test]
fn what_is_held_is_bounded_by_what_came_in() {
    // Tiny children are the worst.
    let input = format!("<message>{}</message>", "<a/>".repeat(4_000));
    let mut reader = Reader::new(Limits::c2s());
    reader.feed(HEADER.as_bytes());
    assert!(reader.next().unwrap().is_some());
    let mut received = HEADER.len();
    for piece in input.as_bytes().chunks(100) {
        reader.feed(piece);
        received += piece.len();
        let _ = reader.next().unwrap();
        assert!(reader.capacity() <= 4 * received + 1_024, "{} after {received}", reader.capacity());
    }
}

/// A namespace name that is bound once and used by every element, of characters that are written out.
#[test]
fn what_is_written_of_a_stanza_is_bounded_too() {
    let name = "'".repeat(16_384);
    let stanza = |id: &str| {
        format!(r#"<message {id} xmlns:p="{name}">{}</message><presence/>"#, "<p:a/>".repeat(4_000))
    };
    let mut reader = Reader::new(Limits::c2s());
    reader.feed(HEADER.as_bytes());
    assert!(reader.next().unwrap().is_some());
    let mut found = Vec::new();
    for piece in stanza("id='1'").as_bytes().chunks(1_000) {
        reader.feed(piece);
        while let Some(event) = reader.next().unwrap() {
            found.push(event);
        }
        assert!(reader.capacity() <= 2_000_000, "{}", reader.capacity());
    }
    let [Event::Stanza(large), Event::Stanza(next)] = found.as_slice() else { panic!("{found:?}") };
    assert_eq!(large.fault.as_ref().map(|fault| fault.condition), Some(StanzaCondition::PolicyViolation));
    assert!(next.fault.is_none() && next.stanza.is_presence());
    // Without an id nobody would know what is answered.
    let (_, error) = stream_with(Limits::c2s(), HEADER, stanza("").as_bytes());
    assert_eq!(error, Some(StreamCondition::PolicyViolation));
    // The same in the attributes of the stanza itself, in one tag.
    let own: String = (0..12).map(|n| format!(r#" xmlns:p{n}="{n}{}" p{n}:a="""#, &name[100..])).collect();
    let (events, error) = stream_with(Limits::c2s(), HEADER, format!("<message id='2'{own}/>").as_bytes());
    assert_eq!((events.len(), error), (1, None));
    let Event::Stanza(one) = &events[0] else { panic!("{events:?}") };
    assert_eq!(one.fault.as_ref().map(|fault| fault.condition), Some(StanzaCondition::PolicyViolation));
    assert!(one.stanza.extra.is_none());
}

#[test]
fn a_large_read_does_not_stay_for_a_small_rest() {
    let mut reader = Reader::new(Limits::c2s());
    reader.feed(HEADER.as_bytes());
    reader.feed(format!("{}<message", "<presence/>".repeat(1_000)).as_bytes());
    while reader.next().unwrap().is_some() {}
    assert!(reader.capacity() < 64, "{}", reader.capacity());
    reader.feed(b"><body>");
    assert_eq!(reader.next(), Ok(None));
    assert!(reader.capacity() < 1_200, "{}", reader.capacity());
}
