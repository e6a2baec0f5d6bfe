//! What a reader holds.

use super::*;

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
