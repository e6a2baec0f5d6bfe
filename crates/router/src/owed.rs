//! What a resumed session may not have yet.
//!
//! `<resumed h/>` covers all that the session has said, what was refused of it, too; and its client is not sent again what it was sent
//! since by another home. The errors and the messages are in the queue, which follows; the edges where the session was may never
//! have had them. So the new edge remembers them before it hears that the session goes on: the answers whole, of messages where
//! they are in the log. Whatever is lost then, a home that finds the count finds these with it.

use crate::home::Home;
use crate::link::{As, Link, Row};
use starling_store::Position;
use starling_wire::Record;
use starling_wire::record::Queued;
use starling_xmpp::{IqType, Kind, MessageType, Stanza, ns};
use std::sync::Arc;

/// So many bytes of answers are remembered at most.
const MOST: usize = 256 << 10;
/// So large at most is one of which it is not known whose it is: those of homes are small.
const SMALL: usize = 1 << 10;
/// And so many rows: more are never on their way to a session.
const MOST_ROWS: usize = 4_096;

/// Whether an answer has to be remembered.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
enum Need {
    Must,
    Should,
    May,
}

fn take(room: &mut usize, size: usize) -> bool {
    let fits = size <= *room;
    *room -= if fits { size } else { 0 };
    fits
}

impl Link {
    /// The answers that its client may not have, with their numbers: all errors for its messages, and as far as there is room the
    /// answers to its requests and what a home before may have answered. What others send as answers is theirs to lose. Nothing
    /// once its edge has all. `None`: the errors are too many.
    pub(crate) fn owes(&self) -> Option<Vec<(u64, &Stanza)>> {
        let answers: Vec<_> = self
            .following()
            .filter(|(_, entry)| entry.position.is_none())
            .filter_map(|(number, entry)| {
                let (stanza, size) = (entry.stanza.as_ref()?, entry.size as usize);
                let is_own = self.far.as_ref().is_some_and(|far| far.answered_by(number) > 0);
                let need = match stanza.kind {
                    Kind::Message(MessageType::Error) if is_own => Need::Must,
                    Kind::Iq(IqType::Result | IqType::Error) if is_own => Need::Should,
                    Kind::Message(MessageType::Error) | Kind::Iq(IqType::Result | IqType::Error) => Need::May,
                    _ => return None,
                };
                (need < Need::May || size <= SMALL).then_some((need, number, stanza, size))
            })
            .collect();
        let sizes = |of: Need| answers.iter().filter(move |(need, ..)| *need == of).map(|(.., size)| size);
        let room = MOST.checked_sub(sizes(Need::Must).sum())?;
        let mut rooms = [room, room.saturating_sub(sizes(Need::Should).sum())];
        let mut fits = |need: Need, size: usize| match need {
            Need::Must => true,
            Need::Should => take(&mut rooms[0], size),
            Need::May => take(&mut rooms[1], size),
        };
        let owed = answers.iter().filter(|(need, _, _, size)| fits(*need, *size));
        Some(owed.map(|(_, number, stanza, _)| (*number, *stanza)).collect())
    }

    /// The messages that its edge may not have and that no home would look for, and whether they wait for this session.
    pub(crate) fn owed_rows(&self) -> Vec<(Row, As)> {
        let from = self.far.as_ref().map_or(Position(0), |far| far.from);
        let queued = self.following().filter_map(|(_, entry)| {
            let (position, payload) = (entry.position?, &entry.stanza.as_ref()?.payload);
            let how = match (payload.has(ns::CARBONS, "received"), payload.has(ns::CARBONS, "sent")) {
                _ if entry.waits => As::Itself,
                (true, _) => As::CopyReceived,
                (_, true) => As::CopySent,
                _ => As::Itself,
            };
            Some((Row { position, waits: entry.waits }, how))
        });
        let missed = self.feed.missed.iter().take_while(|(position, _)| *position <= from);
        let missed =
            missed.map(|(position, how)| (Row { position: *position, waits: *how == As::Itself }, *how));
        queued.chain(missed).take(MOST_ROWS).collect()
    }

    /// What of its queue its client has not said that it has and its edge may not have.
    fn following(&self) -> impl Iterator<Item = (u64, &crate::link::Unacked)> {
        let had = self.far.as_ref().filter(|far| !far.whole).map_or(u64::MAX, |far| far.had);
        (self.first()..).zip(&self.queue).filter(move |(number, _)| *number > had)
    }
}

/// Adds to what an edge keeps of a session the answers that it was to remember and has not been sent. These may get other numbers:
/// what else was queued before them is not there.
pub(crate) fn carry(record: &mut Record, owed: &[(u64, Stanza)]) {
    let had = record.received;
    for (_, answer) in owed.iter().filter(|(number, _)| *number > had) {
        record.received += 1;
        let (number, stanza) = (record.received, answer.clone());
        record.queue.push(Arc::new(Queued { number, position: None, waits: false, counts: true, stanza }));
    }
}

/// The rows of a session that was just built which its edge was not sent go to it from the log. Those above the highest one are
/// looked for there anyway.
pub(crate) fn fetch(
    home: &mut Home,
    link: &mut Link,
    record: &Record,
    rows: &[(Row, As)],
    highest: Position,
) {
    // From the log they come in this order.
    let mut rows = rows.to_vec();
    rows.sort_by_key(|(row, _)| row.position);
    rows.dedup_by_key(|(row, _)| row.position);
    for (row, how) in &rows {
        let position = row.position;
        let is_queued = record.queue.iter().any(|queued| queued.position == Some(position));
        let has = is_queued || record.acknowledged.contains(&position) || position > highest;
        // Of copies no edge says which were acknowledged.
        let is_done = match how {
            As::Itself if row.waits => !home.deliveries.may_wait(position),
            _ => record.highest.is_some_and(|highest| position <= highest),
        };
        if has || is_done || row.waits && !home.deliveries.offered(position, record.token) {
            continue;
        }
        link.feed.missed.push_back((position, *how));
    }
}
