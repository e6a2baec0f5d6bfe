//! What waits for a home, in the order in which it came, and how long.

use crate::msg::{Msg, needs_store};
use starling_wire::{ConnId, ToHome, Up};
use starling_xmpp::Jid;
use std::collections::{HashSet, VecDeque};
use std::time::Duration;

/// How long anything waits until its home is loaded, or can decide. Then it is answered, whatever the store does.
pub(crate) const PATIENCE: Duration = Duration::from_secs(5);

/// A message that waits until its home can decide on it.
pub(crate) struct Held {
    /// Since when (monotonic).
    pub(crate) since: Duration,
    pub(crate) msg: Msg,
}

/// Who speaks in a line: whatever was refused to a sender, nothing that he sent after it is taken out of the same line.
#[derive(Debug, PartialEq, Eq, Hash)]
enum Sender {
    /// A session of the home's own.
    Conn(ConnId),
    /// Anybody else.
    Jid(Jid),
}

/// All that waits for one home.
#[derive(Default)]
pub(crate) struct Line {
    /// When the load began that it waits for: it says nothing of what came later.
    pub(crate) asked: Duration,
    held: VecDeque<Held>,
    /// When it is looked how long the first has waited.
    due: Option<Duration>,
}

impl Line {
    /// Of what waits for a load that begins now.
    pub(crate) fn asked_at(now: Duration) -> Self {
        Self { asked: now, ..Self::default() }
    }

    pub(crate) fn len(&self) -> usize {
        self.held.len()
    }

    pub(crate) fn is_empty(&self) -> bool {
        self.held.is_empty()
    }

    /// The last stanza of a connection that waits.
    pub(crate) fn last_of(&self, conn: ConnId) -> Option<u64> {
        self.held.iter().rev().find_map(|held| match &held.msg {
            Msg::Edge(message) if message.conn == conn => match &message.up {
                Up::Stanza { sequence, .. } => Some(*sequence),
                _ => None,
            },
            _ => None,
        })
    }

    /// Adds one that came last; returns when to [`look`](Self::look), if that is to be asked for.
    pub(crate) fn push(&mut self, held: Held) -> Option<Duration> {
        self.held.push_back(held);
        self.ask()
    }

    /// The same with one that came before all others.
    pub(crate) fn push_first(&mut self, held: Held) -> Option<Duration> {
        self.held.push_front(held);
        self.ask()
    }

    /// Takes the first.
    pub(crate) fn pop(&mut self) -> Option<Held> {
        self.held.pop_front()
    }

    /// Takes all.
    pub(crate) fn take(&mut self) -> VecDeque<Held> {
        std::mem::take(&mut self.held)
    }

    /// Takes out who asked for sessions, in order: they wait only until these are built.
    pub(crate) fn take_resumptions(&mut self) -> VecDeque<Held> {
        let asks = |held: &Held| matches!(&held.msg, Msg::Edge(ToHome { up: Up::Resume { .. }, .. }));
        let (asks, rest) = std::mem::take(&mut self.held).into_iter().partition(asks);
        self.held = rest;
        asks
    }

    /// Takes what has waited long enough, and what the senders of that have sent since, in order; returns when to look again, if
    /// there is more.
    pub(crate) fn look(&mut self, now: Duration) -> (Vec<Held>, Option<Duration>) {
        if self.due.is_none_or(|due| now < due) {
            // Somebody else asked, who is gone.
            return (Vec::new(), None);
        }
        self.due = None;
        let over = self.held.iter().take_while(|held| held.since + PATIENCE <= now).count();
        let mut over: Vec<_> = self.held.drain(..over).collect();
        let refused = |held: &&Held| match &held.msg {
            Msg::Edge(message) => {
                matches!(&message.up, Up::Stanza { stanza, fault: None, .. } if needs_store(stanza))
            }
            Msg::Forward(forward) => needs_store(&forward.stanza),
            _ => false,
        };
        let refused: HashSet<_> = over.iter().filter(refused).filter_map(sender).collect();
        if !refused.is_empty() {
            // What came later would be taken before what is sent again (promise 4).
            let behind = |held: &Held| sender(held).is_some_and(|sender| refused.contains(&sender));
            let (behind, others) = std::mem::take(&mut self.held).into_iter().partition(behind);
            (self.held, over) = (others, over.into_iter().chain::<VecDeque<_>>(behind).collect());
        }
        (over, self.ask())
    }

    fn ask(&mut self) -> Option<Duration> {
        if self.due.is_some() {
            return None;
        }
        self.due = self.held.front().map(|held| held.since + PATIENCE);
        self.due
    }
}

fn sender(held: &Held) -> Option<Sender> {
    match &held.msg {
        Msg::Edge(message) => Some(Sender::Conn(message.conn)),
        Msg::Forward(forward) => forward.stanza.from.clone().map(Sender::Jid),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::msg::Forward;
    use starling_xmpp::{BareJid, MessageType, Stanza};

    fn held(since: u64) -> Held {
        Held { since: Duration::from_secs(since), msg: Msg::Fenced }
    }

    #[test]
    fn each_waits_so_long_and_one_look_is_asked_for_at_a_time() {
        let secs = Duration::from_secs;
        let mut line = Line::default();
        assert_eq!(line.push(held(10)), Some(secs(15)));
        assert_eq!(line.push(held(12)), None);
        let (over, next) = line.look(secs(14));
        assert!(over.is_empty() && next.is_none(), "it was not asked for then");
        let (over, next) = line.look(secs(15));
        assert_eq!((over.len(), next), (1, Some(secs(17))));
        // The rest is taken; what comes then is looked at when that was due, and again when it has waited.
        assert_eq!(line.pop().map(|held| held.since), Some(secs(12)));
        assert_eq!(line.push(held(16)), None);
        let (over, next) = line.look(secs(17));
        assert_eq!((over.len(), next), (0, Some(secs(21))));
        assert_eq!(line.take().len(), 1);
        let (over, next) = line.look(secs(21));
        assert_eq!((over.len(), next), (0, None));
        assert_eq!(line.push_first(held(30)), Some(secs(35)));
    }

    /// From this sender to somebody whose home is not there.
    fn message(since: u64, from: &str) -> Held {
        let account = BareJid::parse("bob@localhost").unwrap();
        let mut stanza = Stanza::message(MessageType::Chat);
        (stanza.from, stanza.to) = (Jid::parse(from).ok(), Some(account.clone().into()));
        let forward = Forward { account, stanza, ticket: None, hops: 1, trace: None, passed: false };
        Held { since: Duration::from_secs(since), msg: Msg::Forward(Box::new(forward)) }
    }

    #[test]
    fn nothing_is_taken_that_was_sent_after_what_is_refused() {
        let secs = Duration::from_secs;
        let (phone, desk) = ("alice@localhost/phone", "alice@localhost/desk");
        let mut line = Line::default();
        assert_eq!(line.push(message(10, phone)), Some(secs(15)));
        for (since, from) in [(11, desk), (12, phone), (13, desk), (14, phone)] {
            assert_eq!(line.push(message(since, from)), None);
        }
        let (over, next) = line.look(secs(15));
        let since: Vec<_> = over.iter().map(|held| held.since.as_secs()).collect();
        assert_eq!((since, next), (vec![10, 12, 14], Some(secs(16))));
        let since: Vec<_> = line.take().iter().map(|held| held.since.as_secs()).collect();
        assert_eq!(since, [11, 13]);
    }
}
