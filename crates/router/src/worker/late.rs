//! What comes for sessions that are recorded and that their edges have yet to name.
//!
//! An account does not wait for a silent edge for long: another of its edges may have been lost with the last home. What is
//! kept in the log reaches such a session by that. Of what is not, nobody else says it again.

use super::*;
use starling_wire::frame::DEAD_AFTER;
use starling_xmpp::{Kind, PresenceType, Stanza};

/// How many stanzas are kept for an account, and how many bytes of them.
const MOST: (usize, usize) = (64, 256 << 10);
/// And how many bytes of all.
const MOST_OF_ALL: usize = 4 << 20;

/// By account, in order.
#[derive(Default)]
pub(super) struct Late {
    of: HashMap<BareJid, Waiting>,
    bytes: usize,
}

#[derive(Default)]
struct Waiting {
    line: VecDeque<Box<Forward>>,
    bytes: usize,
}

impl Late {
    fn has(&self, account: &BareJid) -> bool {
        self.of.contains_key(account)
    }

    /// For whom there is anything, in an order that is the same every time.
    pub(super) fn accounts(&self) -> Vec<BareJid> {
        let mut accounts: Vec<_> = self.of.keys().cloned().collect();
        accounts.sort_unstable();
        accounts
    }

    /// Keeps one; of presence the last is enough. False: there is no room.
    fn add(&mut self, account: &BareJid, forward: &Forward) -> bool {
        self.overtake(account, &forward.stanza);
        let stanza = &forward.stanza;
        let waiting = self.of.entry(account.clone()).or_default();
        let size = stanza.encoded_len();
        let full = waiting.line.len() >= MOST.0 || waiting.bytes + size > MOST.1;
        if full || self.bytes + size > MOST_OF_ALL {
            return false;
        }
        waiting.bytes += size;
        self.bytes += size;
        waiting.line.push_back(Box::new(forward.clone()));
        true
    }

    /// Forgets presence that this is newer than.
    fn overtake(&mut self, account: &BareJid, stanza: &Stanza) {
        let Some(waiting) = self.of.get_mut(account).filter(|_| is_state(stanza)) else { return };
        let same = |other: &Stanza| is_state(other) && other.from == stanza.from && other.to == stanza.to;
        if let Some(index) = waiting.line.iter().position(|other| same(&other.stanza))
            && let Some(other) = waiting.line.remove(index)
        {
            waiting.bytes -= other.stanza.encoded_len();
            self.bytes -= other.stanza.encoded_len();
        }
    }

    /// Takes what there is for this account.
    pub(super) fn take(&mut self, account: &BareJid) -> VecDeque<Box<Forward>> {
        let Waiting { line, bytes } = self.of.remove(account).unwrap_or_default();
        self.bytes -= bytes;
        line
    }
}

fn is_state(stanza: &Stanza) -> bool {
    matches!(stanza.kind, Kind::Presence(PresenceType::Available | PresenceType::Unavailable))
}

impl Worker {
    /// Whether this comes for a session that an edge may yet name, and waits for that. Presence for all that are available goes
    /// to those that are here, and to the others when they are.
    pub(super) fn is_early(&mut self, turn: &Turn, account: &BareJid, forward: &Forward) -> bool {
        let (None, Some(to), Some(tier)) = (&forward.ticket, &forward.stanza.to, &self.shared.tier) else {
            return false;
        };
        let age = self.attaching.age(turn.monotonic);
        if self.attaching.late.has(account)
            && !self.shared.overtaken.is(&forward.stanza, forward.passed, turn.monotonic)
        {
            // Also where nobody is waited for any more: what is kept is yet to be taken.
            self.attaching.late.overtake(account, &forward.stanza);
        }
        if age >= DEAD_AFTER || to.is_bare() && !is_state(&forward.stanza) {
            return false;
        }
        let Some(Slot::Ready(home)) = self.homes.get(account) else { return false };
        let mut places = tier.register.places(account);
        places.retain(|place| !home.has(place.token) && !self.attaching.has_answered(place.edge, age));
        if places.is_empty() || !to.is_bare() && places.iter().all(|place| place.jid.as_jid() != to) {
            return false;
        }
        if self.shared.overtaken.is(&forward.stanza, forward.passed, turn.monotonic) {
            // A newer one may be kept already.
            return false;
        }
        if !self.attaching.late.has(account) {
            self.timers.set(self.attaching.known_at(), account.clone(), Why::Open);
        }
        self.attaching.late.add(account, forward) && !to.is_bare()
    }

    /// Some sessions have been named, or none will be: takes what came for them before all that came later.
    pub(super) fn take_early(&mut self, turn: &Turn, account: &BareJid) {
        let ready = matches!(self.homes.get(account), Some(Slot::Ready(_)));
        for forward in self.attaching.late.take(account).into_iter().rev() {
            let msg = Msg::Forward(forward);
            if ready {
                self.wait_first(account, Held { since: turn.monotonic, msg });
            } else {
                // Its home is read anew, or the account is gone: somebody waits for an answer all the same.
                self.backlog.push_front(msg);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use starling_xmpp::{Element, IqType, Jid, ns};

    fn forward(account: &BareJid, kind: Kind, id: usize, text: usize) -> Forward {
        let text = Element::new(ns::CLIENT, "status").text("x".repeat(text));
        let mut stanza = Stanza::new(kind).id(id.to_string()).child(text);
        stanza.to = Some(account.clone().into());
        stanza.from = Some(Jid::parse("alice@localhost/phone").unwrap());
        Forward { account: account.clone(), stanza, ticket: None, hops: 0, trace: None, passed: false }
    }

    #[test]
    fn what_waits_is_bounded_for_each_and_for_all() {
        let (mut late, bob) = (Late::default(), BareJid::parse("bob@localhost").unwrap());
        let ids = |line: VecDeque<Box<Forward>>| -> Vec<String> {
            line.iter().filter_map(|forward| Some(forward.stanza.id.as_ref()?.to_string())).collect()
        };
        let (presence, ask) = (Kind::Presence(PresenceType::Available), Kind::Iq(IqType::Get));
        for (id, kind) in [presence, ask, presence].into_iter().enumerate() {
            assert!(late.add(&bob, &forward(&bob, kind, id, 9)));
        }
        assert_eq!(ids(late.take(&bob)), ["1", "2"], "of presence the last");
        let taken = (0..MOST.0 + 9).filter(|id| late.add(&bob, &forward(&bob, ask, *id, 9))).count();
        assert_eq!(taken, MOST.0);
        let all = |late: &mut Late| {
            let accounts = (0..1_000).map(|n| BareJid::parse(&format!("n{n}@localhost")).unwrap());
            accounts
                .filter(|account| late.add(account, &forward(account, ask, 0, 20_000)))
                .collect::<Vec<_>>()
        };
        let kept = all(&mut late);
        assert!((150..MOST_OF_ALL / 20_000).contains(&kept.len()), "{}", kept.len());
        kept.iter().for_each(|account| assert_eq!(late.take(account).len(), 1));
        late.take(&bob);
        assert_eq!(late.bytes, 0);
        assert_eq!(all(&mut late).len(), kept.len());
    }
}
