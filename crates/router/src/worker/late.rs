//! What comes for sessions that are recorded and that their edges have yet to name.
//!
//! An account does not wait for a silent edge for long: another of its edges may have been lost with the last home. What is
//! kept in the log reaches such a session by that. Of what is not, nobody else says it again.

use super::attaching::DEAD_AFTER;
use super::*;
use starling_xmpp::{Kind, PresenceType, Stanza};

/// How many stanzas are kept for an account, and how many bytes of them.
const MOST: (usize, usize) = (64, 256 << 10);

/// Of one account, in order.
#[derive(Default)]
pub(super) struct Late {
    line: VecDeque<Box<Forward>>,
    bytes: usize,
}

impl Late {
    /// Keeps one; of presence the last is enough. False: there is no room.
    fn add(&mut self, forward: &Forward) -> bool {
        let stanza = &forward.stanza;
        let same = |other: &Stanza| is_state(other) && other.from == stanza.from && other.to == stanza.to;
        if is_state(stanza)
            && let Some(index) = self.line.iter().position(|other| same(&other.stanza))
            && let Some(other) = self.line.remove(index)
        {
            self.bytes -= other.stanza.encoded_len();
        }
        let bytes = self.bytes + stanza.encoded_len();
        if self.line.len() >= MOST.0 || bytes > MOST.1 {
            return false;
        }
        self.bytes = bytes;
        self.line.push_back(Box::new(forward.clone()));
        true
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
        let age = turn.monotonic.saturating_sub(self.shared.began);
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
        let late = self.attaching.late.entry(account.clone()).or_insert_with(|| {
            self.timers.set(self.shared.began + DEAD_AFTER, account.clone(), Why::Open);
            Late::default()
        });
        late.add(forward) && !to.is_bare()
    }

    /// Some sessions have been named, or none will be: takes what came for them before all that came later.
    pub(super) fn take_early(&mut self, turn: &Turn, account: &BareJid) {
        let Some(late) = self.attaching.late.remove(account) else { return };
        for forward in late.line.into_iter().rev() {
            self.wait_first(account, Held { since: turn.monotonic, msg: Msg::Forward(forward) });
        }
    }
}
