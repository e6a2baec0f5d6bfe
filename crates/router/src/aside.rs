//! What waits at a home for one session: while nobody looks at its client (XEP-0352), until there is room for it, or until older
//! messages have gone to it from the log.

use compact_str::CompactString;
use starling_store::Position;
use starling_wire::Trace;
use starling_xmpp::{Kind, PresenceType, Stanza};
use std::collections::{BTreeMap, VecDeque};

/// Of one session, in order. Of each contact's presence the last is enough.
#[derive(Debug, Default)]
pub(crate) struct Aside {
    line: BTreeMap<u64, Stanza>,
    /// Where the presence of each is.
    presences: BTreeMap<CompactString, u64>,
    last: u64,
    bytes: usize,
    /// There was no room for the first of it: it goes on when there is.
    pub(crate) stuck: bool,
}

impl Aside {
    /// Puts a stanza behind the others.
    pub(crate) fn add(&mut self, stanza: Stanza) {
        self.last += 1;
        if let Some(key) = key(&stanza)
            && let Some(before) = self.presences.insert(key, self.last)
            && let Some(before) = self.line.remove(&before)
        {
            self.bytes -= before.encoded_len();
        }
        self.bytes += stanza.encoded_len();
        self.line.insert(self.last, stanza);
    }

    /// Takes the first one.
    pub(crate) fn take(&mut self) -> Option<Stanza> {
        let (_, stanza) = self.line.pop_first()?;
        self.bytes -= stanza.encoded_len();
        if let Some(key) = key(&stanza) {
            self.presences.remove(&key);
        }
        Some(stanza)
    }

    pub(crate) fn is_empty(&self) -> bool {
        self.line.is_empty()
    }

    /// Whether it is more than so many stanzas, or so many bytes.
    pub(crate) fn exceeds(&self, stanzas: usize, bytes: usize) -> bool {
        self.line.len() > stanzas || self.bytes > bytes
    }
}

/// Whose presence it is.
fn key(stanza: &Stanza) -> Option<CompactString> {
    match (&stanza.kind, &stanza.from) {
        (Kind::Presence(PresenceType::Available | PresenceType::Unavailable), Some(from)) => {
            Some(from.as_str().into())
        }
        _ => None,
    }
}

/// Messages without a row that came behind some which a session is yet to be sent from the log (promise 4).
#[derive(Debug, Default)]
pub(crate) struct Behind {
    /// Each with the last of these rows.
    line: VecDeque<(Position, Stanza, Option<Trace>)>,
    bytes: usize,
}

impl Behind {
    /// One that came behind this row.
    pub(crate) fn add(&mut self, row: Position, stanza: Stanza, trace: Option<Trace>) {
        self.bytes += stanza.encoded_len();
        self.line.push_back((row, stanza, trace));
    }

    /// Takes the first one, if all rows before it are among those up to here.
    pub(crate) fn take(&mut self, given: Position) -> Option<(Stanza, Option<Trace>)> {
        self.line.front().filter(|(row, ..)| *row <= given)?;
        let (_, stanza, trace) = self.line.pop_front()?;
        self.bytes -= stanza.encoded_len();
        if self.line.is_empty() {
            self.line.shrink_to(0);
        }
        Some((stanza, trace))
    }

    /// Whether it is more than so many stanzas, or so many bytes.
    pub(crate) fn exceeds(&self, stanzas: usize, bytes: usize) -> bool {
        self.line.len() > stanzas || self.bytes > bytes
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use starling_xmpp::{IqType, Jid, MessageType};

    fn presence(kind: PresenceType, from: &str) -> Stanza {
        let mut stanza = Stanza::presence(kind);
        stanza.from = Some(Jid::parse(from).unwrap());
        stanza
    }

    #[test]
    fn the_last_presence_of_each_goes_in_order_with_the_rest() {
        let mut aside = Aside::default();
        let (one, two) = ("bob@localhost/one", "bob@localhost/two");
        let gone = presence(PresenceType::Unavailable, one);
        let asks = presence(PresenceType::Subscribe, one);
        let push = Stanza::iq(IqType::Set).id("1");
        for stanza in [
            presence(PresenceType::Available, one),
            asks.clone(),
            presence(PresenceType::Available, two),
            push.clone(),
            asks.clone(),
            gone.clone(),
        ] {
            aside.add(stanza);
        }
        let all = [asks.clone(), presence(PresenceType::Available, two), push, asks, gone];
        let bytes: usize = all.iter().map(Stanza::encoded_len).sum();
        assert!(!aside.exceeds(5, bytes) && aside.exceeds(4, bytes) && aside.exceeds(5, bytes - 1));
        assert_eq!(std::iter::from_fn(|| aside.take()).collect::<Vec<_>>(), all);
        assert!(aside.is_empty() && !aside.exceeds(0, 0) && aside.presences.is_empty());
    }

    #[test]
    fn what_came_behind_rows_goes_when_these_are_given() {
        let mut behind = Behind::default();
        let message = |id: &str| Stanza::message(MessageType::Chat).id(id);
        for (row, id) in [(5, "a"), (7, "b"), (6, "c")] {
            behind.add(Position(row), message(id), None);
        }
        let bytes = 3 * message("a").encoded_len();
        assert!(!behind.exceeds(3, bytes) && behind.exceeds(2, bytes) && behind.exceeds(3, bytes - 1));
        let mut taken = |given| behind.take(Position(given)).map(|(stanza, _)| stanza);
        assert_eq!(taken(4), None);
        assert_eq!((taken(5), taken(6)), (Some(message("a")), None));
        assert_eq!((taken(7), taken(7), taken(7)), (Some(message("b")), Some(message("c")), None));
        assert!(!behind.exceeds(0, 0));
    }
}
