//! Sessions that are recorded and that nobody has any more; and accounts that nobody has touched in this reign, of which rows
//! may wait that the last one has not sent.

use super::opening::OPEN_WITHIN;
use super::*;
use starling_hooks::Session;
use starling_store::Position;
use starling_wire::frame::DEAD_AFTER;
use starling_wire::{EdgeId, Token};
use starling_xmpp::{PresenceType, Stanza, Timestamp};
use std::collections::HashSet;

/// How many accounts are looked at together, and how often.
const PACE: (usize, Duration) = (32, Duration::from_millis(20));
/// With more reads under way, those for which nobody waits have time.
const BUSY: usize = 64;

/// What is looked for.
#[derive(Default)]
pub(super) struct Losing {
    /// It was looked for sessions that nobody has, at all edges.
    swept: bool,
    /// Edges at which it is to be looked once more.
    edges: HashSet<EdgeId>,
    accounts: VecDeque<BareJid>,
    /// Only sessions are known of these.
    parked: VecDeque<BareJid>,
    /// When to go on with them.
    next: Duration,
}

impl Losing {
    /// When to look at what; `known_at`: when it is known what edges have.
    pub(super) fn deadline(&self, shared: &Shared, known_at: Duration) -> Option<Duration> {
        shared.tier.as_ref()?;
        let sweep = (!self.swept || !self.edges.is_empty()).then_some(known_at);
        let any = !self.accounts.is_empty() || !self.parked.is_empty();
        let lost = any.then_some(self.next.max(shared.began + OPEN_WITHIN));
        [sweep, lost].into_iter().flatten().min()
    }

    /// Sessions of these accounts may be gone with their edge.
    pub(super) fn extend(&mut self, accounts: impl IntoIterator<Item = BareJid>) {
        self.accounts.extend(accounts);
    }

    /// This account could not be looked at: it is tried again when the store may be there.
    pub(super) fn again(&mut self, account: BareJid, now: Duration) {
        if self.accounts.back() != Some(&account) {
            self.accounts.push_back(account);
        }
        self.next = self.next.max(now + REREAD_AFTER);
    }

    /// Of this account only sessions are known: it is loaded when there is time for it.
    pub(super) fn wake(&mut self, account: BareJid) {
        self.parked.push_back(account);
    }

    /// What this edge has is another: it is looked once more, once all have had time to speak.
    pub(super) fn looks_at(&mut self, edge: EdgeId) {
        if self.swept {
            self.edges.insert(edge);
        }
    }
}

impl Worker {
    /// Looks once for recorded sessions that nobody has, when all edges have had time to name theirs; then at a few accounts
    /// at a time.
    pub(super) fn look_for_lost(&mut self, turn: &Turn) {
        let (shared, age) = (Arc::clone(&self.shared), self.attaching.age(turn.monotonic));
        let Some(tier) = &shared.tier else { return };
        let losing = &mut self.attaching.losing;
        if age >= DEAD_AFTER && (!losing.swept || !losing.edges.is_empty()) {
            let all = !std::mem::replace(&mut losing.swept, true);
            let edges = std::mem::take(&mut losing.edges);
            let mut lost = HashSet::new();
            tier.register.each(&mut |jid, token, edge| {
                if !all && !edges.contains(&edge) || !self.attaching.has_answered(edge, age) {
                    return;
                }
                let account = jid.as_jid().to_bare();
                if !self.has(&account, token) {
                    lost.insert(account);
                }
            });
            let mut lost: Vec<_> = lost.into_iter().collect();
            lost.sort_unstable();
            self.attaching.losing.accounts.extend(lost);
        }
        let early = turn.monotonic < shared.began + OPEN_WITHIN;
        let losing = &mut self.attaching.losing;
        if early || turn.monotonic < losing.next || losing.accounts.is_empty() && losing.parked.is_empty() {
            return;
        }
        losing.next = turn.monotonic + PACE.1;
        let lost = losing.accounts.len().min(PACE.0);
        self.backlog.extend(losing.accounts.drain(..lost).map(Msg::Wake));
        let mut few = if self.reads.len() < BUSY { PACE.0 - lost } else { 0 };
        while few > 0
            && let Some(account) = self.attaching.losing.parked.pop_front()
        {
            if let Some(Slot::Parked(_)) = self.homes.get(&account) {
                self.backlog.push_back(Msg::Wake(account));
                few -= 1;
            }
        }
    }

    fn has(&self, account: &BareJid, token: Token) -> bool {
        let unsure = self.attaching.unsure.get(account);
        if unsure.is_some_and(|unsure| unsure.parked.iter().any(|parked| parked.record.token == token))
            || self.unbinding.has(token)
        {
            return true;
        }
        match self.homes.get(account) {
            Some(Slot::Ready(home)) => {
                let opening = home.opening.iter().flat_map(|opening| &opening.parked);
                home.has(token) || opening.into_iter().any(|parked| parked.record.token == token)
            }
            Some(Slot::Loading(_, all) | Slot::Parked(all)) => {
                all.iter().any(|parked| parked.record.token == token)
            }
            None => false,
        }
    }

    /// What is recorded of an account, which is open, and nobody has.
    pub(super) fn lost_of(&self, turn: &Turn, account: &BareJid) -> Vec<Place> {
        let age = self.attaching.age(turn.monotonic);
        let mut places = self.shared.tier.as_ref().map_or(Vec::new(), |tier| tier.register.places(account));
        places.retain(|place| {
            !self.has(account, place.token)
                && !turn.unbinds(place.token)
                && self.attaching.has_answered(place.edge, age)
        });
        places
    }

    /// Ends recorded sessions that nobody has: their contacts are told.
    pub(super) fn end_lost(&mut self, turn: &mut Turn, account: &BareJid) {
        let lost = self.lost_of(turn, account);
        let Some(Slot::Ready(home)) = self.homes.get_mut(account) else { return };
        if home.opening.is_some() {
            // They are looked for when that is over.
            return;
        }
        for place in lost {
            let mut session = Session::new(place.token, place.jid);
            session.presence = Some(Stanza::presence(PresenceType::Available));
            let conn = ConnId { edge: place.edge, number: 0 };
            let mut link = Link::new(place.token, conn, Timestamp(0));
            let mut far = Far::new(conn, Position(0));
            far.holders.clear();
            (link.conn, link.far, link.may_resend) = (None, Some(Box::new(far)), true);
            home.account.sessions.push(session);
            home.links.push(link);
            session::end(turn, home, place.token, None);
        }
        self.touch(account);
    }

    /// A session that its edge has neither named nor asked about.
    pub(super) fn unseen(&mut self, turn: &mut Turn, account: &BareJid, token: Token) {
        let Some(Slot::Ready(home)) = self.homes.get_mut(account) else { return };
        let Some(at) = home.find(token) else { return };
        if home.links[at].far.as_ref().is_some_and(|far| far.quiet) {
            session::gone(turn, home, at, Leave::Lost, &mut self.timers);
            if let Some(far) = home.find(token).and_then(|at| home.links[at].far.as_mut()) {
                far.quiet = false;
            }
        }
        self.touch(account);
    }
}
