//! What a home has its edges remember of a session: all that cannot be counted again.
//!
//! Only homes read it, older and newer ones. Fields are added at the end; a reader passes over what it does not know. The
//! number in front changes when that does not do.

use crate::far::MAY_BE_AGAIN;
use crate::link::{As, Link, Row};
use crate::requests::Digest;
use bytes::{BufMut, Bytes, BytesMut};
use starling_hooks::Session;
use starling_store::Position;
use starling_wire::{EdgeId, credit};
use starling_xmpp::{Jid, Stanza, Timestamp};
use std::collections::BTreeSet;

const FORM: u8 = 1;

const CARBONS: u16 = 1;
const INTERESTED: u16 = 1 << 1;
const WATCHES_BLOCKS: u16 = 1 << 2;
const INACTIVE: u16 = 1 << 3;
const BEGUN: u16 = 1 << 4;
const MAY_RESEND: u16 = 1 << 5;
const RESUMABLE: u16 = 1 << 6;
const AVAILABLE: u16 = 1 << 7;
const WHOLE: u16 = 1 << 8;
const BELIEVED: u16 = 1 << 9;
const NO_ECHOES: u16 = 1 << 10;

/// What was remembered.
#[derive(Debug, PartialEq)]
pub(crate) struct Notes {
    pub(crate) carbons: bool,
    pub(crate) interested: bool,
    pub(crate) watches_blocks: bool,
    pub(crate) active: bool,
    pub(crate) begun: bool,
    pub(crate) may_resend: bool,
    /// There may be something in the log that its client says again, though it did not say it in this session or was told that it
    /// is not there.
    pub(crate) echoes: bool,
    /// All that its client has not acknowledged has been sent to this edge, and nothing is to be taken from one before it.
    pub(crate) whole: bool,
    /// The table of locations was lost, and nothing but what an edge kept says that this is the session.
    pub(crate) believed: bool,
    /// Can be resumed, once stream management is on.
    pub(crate) resume: bool,
    pub(crate) priority: i8,
    pub(crate) since: Timestamp,
    /// Rows up to here were there before the session.
    pub(crate) from: Position,
    /// For how long at most it asked to be resumable, in seconds.
    pub(crate) max: Option<u32>,
    pub(crate) presence: Option<Stanza>,
    pub(crate) directed: BTreeSet<Jid>,
    /// Rows that were acknowledged over connections before the present one.
    pub(crate) acknowledged: Vec<Position>,
    /// Which of the session's moves brought it there; 0 where it was bound there.
    pub(crate) stay: u64,
    /// The highest row that had gone to it: its present edge knows of those that went there.
    pub(crate) sent: Position,
    /// The same of when it ceased to be available.
    pub(crate) ceased: Position,
    /// The edge that has what is missing here, if not all is.
    pub(crate) before: Option<EdgeId>,
    /// Answers to what its client has said, that it may not have and that may be missing here, with their numbers, rising.
    pub(crate) owed: Vec<(u64, Stanza)>,
    /// Messages for which the same holds.
    pub(crate) rows: Vec<(Row, As)>,
    /// Up to this sequence its client may say again what a home before had taken.
    pub(crate) again: u64,
    /// That was said above this sequence.
    pub(crate) after: u64,
    /// What it has asked others and has no answer to: the heads of these requests.
    pub(crate) asked: Vec<Stanza>,
    /// Of those that it asked before, the last ones that are over.
    pub(crate) over: Vec<Digest>,
    /// What it has asked its own account, has its answer to and may ask again under these sequences.
    pub(crate) replies: Vec<Digest>,
    /// The same that it has said again, and under which sequences: what its edge does not know.
    pub(crate) replied: Vec<(u64, Digest)>,
    /// Up to which version of the roster it was told of changes; `None` where that is not known, or it does not want to be told.
    pub(crate) listed: Option<u64>,
}

/// Of a session of a cluster.
pub(crate) fn encode(session: &Session, link: &Link) -> Bytes {
    let management = link.management.as_deref();
    let flags = [
        (CARBONS, session.carbons),
        (INTERESTED, session.interested),
        (WATCHES_BLOCKS, session.watches_blocks),
        (INACTIVE, !session.active),
        (BEGUN, link.feed.begun),
        (MAY_RESEND, link.may_resend),
        (RESUMABLE, management.is_some_and(|management| management.resume)),
        (AVAILABLE, session.presence.is_some()),
        (WHOLE, link.far.as_ref().is_some_and(|far| far.whole)),
        (NO_ECHOES, link.echoes.is_none()),
        (BELIEVED, link.far.as_ref().is_some_and(|far| far.believed)),
    ];
    let flags = flags.iter().filter(|(_, set)| *set).fold(0, |flags, (flag, _)| flags | flag);
    let presence = session.presence.as_ref().map(Stanza::encode).unwrap_or_default();
    let mut out = BytesMut::with_capacity(64 + presence.len());
    out.put_u8(FORM);
    out.put_u16_le(flags);
    out.put_i8(session.priority);
    out.put_u64_le(link.since.0);
    out.put_u64_le(link.far.as_ref().map_or(0, |far| far.from.0));
    out.put_u32_le(management.and_then(|management| management.max).unwrap_or(0));
    put(&mut out, &presence);
    out.put_u32_le(u32::try_from(session.directed.len()).unwrap_or(u32::MAX));
    for jid in &session.directed {
        put(&mut out, jid.as_str().as_bytes());
    }
    let carried = link.far.as_ref().map_or(&[][..], |far| &far.carried);
    out.put_u32_le(u32::try_from(carried.len()).unwrap_or(u32::MAX));
    for position in carried {
        out.put_u64_le(position.0);
    }
    out.put_u64_le(link.far.as_ref().map_or(0, |far| far.stay));
    out.put_u64_le(link.far.as_ref().map_or(0, |far| far.sent.0));
    out.put_u64_le(link.feed.sent.0);
    out.put_u64_le(link.far.as_ref().and_then(|far| far.before()).map_or(0, |edge| edge.0));
    let owed = link.owes().unwrap_or_default();
    out.put_u32_le(u32::try_from(owed.len()).unwrap_or(u32::MAX));
    for (number, answer) in owed {
        out.put_u64_le(number);
        put(&mut out, &answer.encode());
    }
    let rows = link.owed_rows();
    out.put_u32_le(u32::try_from(rows.len()).unwrap_or(u32::MAX));
    for (row, how) in rows {
        out.put_u64_le(row.position.0);
        out.put_u8(match how {
            As::Itself => u8::from(row.waits),
            As::CopyReceived => 2,
            As::CopySent => 3,
        });
    }
    out.put_u64_le(link.far.as_ref().map_or(0, |far| far.again));
    let asked = link.far.as_ref().map_or(&[][..], |far| &far.asked);
    out.put_u32_le(u32::try_from(asked.len()).unwrap_or(u32::MAX));
    for request in asked {
        put(&mut out, &request.encode());
    }
    let listed = link.far.as_ref().and_then(|far| far.noted);
    out.put_u64_le(listed.map_or(0, |version| version.saturating_add(1)));
    let over = link.far.as_ref().map_or(&[][..], |far| &far.over);
    out.put_u32_le(u32::try_from(over.len()).unwrap_or(u32::MAX));
    for digest in over {
        out.put_u64_le(*digest);
    }
    out.put_u64_le(link.far.as_ref().map_or(0, |far| far.after));
    let replies = link.far.as_ref().filter(|far| far.again > 0).map_or(&[][..], |far| &far.replies);
    let replies = &replies[replies.len().saturating_sub(credit::MOST)..];
    out.put_u32_le(u32::try_from(replies.len()).unwrap_or(u32::MAX));
    for digest in replies {
        out.put_u64_le(*digest);
    }
    // Should this home be lost, its edge says those again that it was not told are handled.
    let replied = link.far.as_ref().map_or(&[][..], |far| &far.replied);
    let replied: Vec<_> = replied.iter().filter(|(sequence, _)| *sequence > link.announced).collect();
    out.put_u32_le(u32::try_from(replied.len()).unwrap_or(u32::MAX));
    for (sequence, request) in replied {
        out.put_u64_le(*sequence);
        out.put_u64_le(*request);
    }
    out.freeze()
}

fn put(out: &mut BytesMut, bytes: &[u8]) {
    out.put_u32_le(u32::try_from(bytes.len()).unwrap_or(u32::MAX));
    out.put_slice(bytes);
}

/// `None` where they are in a form that is not known, or damaged.
pub(crate) fn decode(notes: &Bytes) -> Option<Notes> {
    let mut left = Left(notes.clone());
    if left.number(1)? != u64::from(FORM) {
        return None;
    }
    let flags = u16::try_from(left.number(2)?).ok()?;
    let is = |flag: u16| flags & flag != 0;
    let priority = i8::from_le_bytes([u8::try_from(left.number(1)?).ok()?]);
    let (since, from) = (Timestamp(left.number(8)?), Position(left.number(8)?));
    let max = u32::try_from(left.number(4)?).ok().filter(|max| *max > 0);
    let presence = left.bytes()?;
    let presence = is(AVAILABLE).then(|| Stanza::decode(presence).ok()).flatten();
    let mut directed = BTreeSet::new();
    for _ in 0..left.number(4)? {
        directed.insert(Jid::parse(std::str::from_utf8(&left.bytes()?).ok()?).ok()?);
    }
    let mut acknowledged = Vec::new();
    for _ in 0..left.number(4)? {
        acknowledged.push(Position(left.number(8)?));
    }
    let stay = left.number(8)?;
    let (sent, ceased) = (Position(left.later(8)?), Position(left.later(8)?));
    let before = Some(left.later(8)?).filter(|edge| *edge != 0).map(EdgeId);
    let mut owed = Vec::new();
    for _ in 0..left.later(4)? {
        owed.push((left.number(8)?, Stanza::decode(left.bytes()?).ok()?));
    }
    let mut rows = Vec::new();
    for _ in 0..left.later(4)? {
        let (position, how) = (Position(left.number(8)?), left.number(1)?);
        let row = Row { position, waits: how == 1 };
        rows.push((
            row,
            if how < 2 {
                As::Itself
            } else if how == 2 {
                As::CopyReceived
            } else {
                As::CopySent
            },
        ));
    }
    let again = left.later(8)?;
    let mut asked = Vec::new();
    for _ in 0..left.later(4)? {
        asked.push(Stanza::decode(left.bytes()?).ok()?);
    }
    let listed = left.later(8)?.checked_sub(1);
    let mut over = Vec::new();
    for _ in 0..left.later(4)? {
        over.push(left.number(8)?);
    }
    // Homes of before left no numbers out: nothing is known by what it is.
    let after = if left.0.is_empty() { again.saturating_sub(MAY_BE_AGAIN) } else { left.number(8)? };
    let mut replies = Vec::new();
    for _ in 0..left.later(4)? {
        replies.push(left.number(8)?);
    }
    let mut replied = Vec::new();
    for _ in 0..left.later(4)? {
        replied.push((left.number(8)?, left.number(8)?));
    }
    Some(Notes {
        carbons: is(CARBONS),
        interested: is(INTERESTED),
        watches_blocks: is(WATCHES_BLOCKS),
        active: !is(INACTIVE),
        begun: is(BEGUN),
        may_resend: is(MAY_RESEND),
        whole: is(WHOLE),
        believed: is(BELIEVED),
        echoes: !is(NO_ECHOES),
        resume: is(RESUMABLE),
        priority,
        since,
        from,
        max,
        presence,
        directed,
        acknowledged,
        stay,
        sent,
        ceased,
        before,
        owed,
        rows,
        again,
        after,
        asked,
        over,
        replies,
        replied,
        listed,
    })
}

/// What has not been read yet.
struct Left(Bytes);

impl Left {
    fn take(&mut self, length: usize) -> Option<Bytes> {
        (length <= self.0.len()).then(|| self.0.split_to(length))
    }

    /// The next so many bytes, the lowest first.
    fn number(&mut self, length: usize) -> Option<u64> {
        let bytes = self.take(length)?;
        Some(bytes.iter().rev().fold(0, |number, byte| number << 8 | u64::from(*byte)))
    }

    /// The same of a field that homes of before did not write.
    fn later(&mut self, length: usize) -> Option<u64> {
        if self.0.is_empty() { Some(0) } else { self.number(length) }
    }

    fn bytes(&mut self) -> Option<Bytes> {
        let length = usize::try_from(self.number(4)?).ok()?;
        self.take(length)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::far::Far;
    use starling_wire::{ConnId, Token};
    use starling_xmpp::{FullJid, IqType, Kind, MessageType, PresenceType};

    fn session() -> (Session, Link) {
        let mut session = Session::new(Token(7), FullJid::parse("alice@localhost/phone").unwrap());
        let mut link = Link::new(Token(7), ConnId::local(1), Timestamp(99));
        link.far = Some(Box::new(Far::new(ConnId::local(1), Position(41))));
        (session.carbons, session.active, session.priority) = (true, false, -7);
        session.presence = Some(Stanza::presence(PresenceType::Available).to(session.jid.clone()));
        session.directed.extend(["a@b/c", "d@e"].map(|jid| Jid::parse(jid).unwrap()));
        link.feed.begun = true;
        link.far.as_mut().unwrap().carried = vec![Position(5), Position(8)];
        (link.far.as_mut().unwrap().stay, link.far.as_mut().unwrap().sent) = (3, Position(9));
        link.feed.sent = Position(8);
        (link.far.as_mut().unwrap().noted, link.far.as_mut().unwrap().over) = (Some(0), vec![7, u64::MAX]);
        (session, link)
    }

    #[test]
    fn what_is_remembered_comes_back() {
        let (session, mut link) = session();
        (link.far.as_mut().unwrap().again, link.far.as_mut().unwrap().replies) = (500, vec![3, 4]);
        let notes = decode(&encode(&session, &link)).unwrap();
        assert_eq!((notes.again, notes.replies), (500, vec![3, 4]));
        assert!(
            notes.carbons
                && !notes.interested
                && !notes.active
                && notes.begun
                && notes.whole
                && !notes.resume
        );
        assert_eq!((notes.priority, notes.since, notes.from), (-7, Timestamp(99), Position(41)));
        assert_eq!((notes.presence, notes.directed), (session.presence, session.directed));
        assert_eq!((notes.acknowledged, notes.stay), (vec![Position(5), Position(8)], 3));
        assert_eq!((notes.sent, notes.ceased), (Position(9), Position(8)));
        assert_eq!((notes.before, notes.listed, notes.over), (None, Some(0), vec![7, u64::MAX]));
    }

    #[test]
    fn what_is_not_all_there_names_who_has_the_rest() {
        let (session, mut link) = session();
        let far = link.far.as_mut().unwrap();
        far.goes_to(ConnId { edge: EdgeId(5), number: 1 });
        far.goes_to(ConnId { edge: EdgeId(6), number: 1 });
        far.goes_on(ConnId { edge: EdgeId(6), number: 1 });
        assert_eq!(decode(&encode(&session, &link)).unwrap().before, Some(EdgeId(5)));
        link.far.as_mut().unwrap().whole = true;
        assert_eq!(decode(&encode(&session, &link)).unwrap().before, None);
        let far = link.far.as_mut().unwrap();
        far.goes_to(ConnId { edge: EdgeId(6), number: 2 });
        far.goes_on(ConnId { edge: EdgeId(6), number: 2 });
        assert!(!far.whole && far.before().is_none(), "it had all of it already");
    }

    #[test]
    fn what_is_owed_comes_back_until_all_is_there() {
        let (session, mut link) = session();
        let answer = |kind| Stanza::new(kind).to(session.jid.clone());
        let error = answer(Kind::Message(MessageType::Error));
        for (stanza, row) in [
            (error.clone(), None),
            (answer(Kind::Message(MessageType::Chat)), Some(Row { position: Position(50), waits: true })),
            (answer(Kind::Presence(PresenceType::Available)), None),
            (answer(Kind::Iq(IqType::Result)), None),
            (error, None),
        ] {
            link.queue(stanza, row, None);
        }
        let rows = vec![(Row { position: Position(50), waits: true }, As::Itself)];
        for (whole, had) in [(true, 0), (false, 0), (false, 1)] {
            let far = link.far.as_mut().unwrap();
            (far.whole, far.had) = (whole, had);
            let notes = decode(&encode(&session, &link)).unwrap();
            let numbers: Vec<_> = notes.owed.iter().map(|(number, _)| *number).collect();
            assert_eq!(numbers, if whole { &[][..] } else { &[1, 4, 5][usize::from(had == 1)..] });
            assert_eq!(notes.rows, if whole { Vec::new() } else { rows.clone() });
        }
        let whole = encode(&session, &link);
        let cut = (1..whole.len()).filter(|cut| decode(&whole.slice(..whole.len() - cut)).is_some());
        assert_eq!(cut.count(), 12, "where fields were added");
    }

    #[test]
    fn what_is_newer_is_passed_over_and_what_is_damaged_is_nothing() {
        let (session, link) = session();
        let whole = encode(&session, &link);
        let newer: Bytes = [&whole[..], b"more"].concat().into();
        assert_eq!(decode(&newer), decode(&whole));
        // What homes of before wrote ends where fields were added.
        let ends = [88, 80, 72, 64, 60, 56, 48, 44, 36, 16, 8, 4].map(|less| whole.len() - less);
        for length in 0..whole.len() {
            let known = decode(&whole.slice(..length));
            assert_eq!(known.is_some(), ends.contains(&length), "{length} bytes");
        }
        let (_, mut numbered) = self::session();
        numbered.far.as_mut().unwrap().again = 700;
        let numbered = encode(&session, &numbered);
        let last = decode(&numbered.slice(..numbered.len() - 16)).unwrap();
        assert_eq!((last.again, last.after), (700, 700 - MAY_BE_AGAIN));
        let older = decode(&whole.slice(..ends[0])).unwrap();
        assert_eq!((older.stay, older.sent, older.ceased), (3, Position(0), Position(0)));
        assert!(older.before.is_none() && older.owed.is_empty() && older.rows.is_empty());
        assert!(
            older.again == 0 && older.asked.is_empty() && older.over.is_empty() && older.listed.is_none()
        );
        assert_eq!(older.after, 0);
        let other: Bytes = [&[9], &whole[1..]].concat().into();
        assert_eq!(decode(&other), None);
    }
}
