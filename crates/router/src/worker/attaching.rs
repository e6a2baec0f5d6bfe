//! Edges name their sessions, after a move of the home or a break of the link.

use super::late::Late;
use super::losing::Losing;
use super::opening::Unsure;
use super::*;
use crate::notes;
use crate::rebuild;
pub(super) use crate::rebuild::Parked;
use starling_wire::frame::DEAD_AFTER;
use starling_wire::{EdgeId, Epoch, Record, Token};
use std::collections::{BTreeSet, HashSet};

/// Accounts whose sessions end together when their edge is lost, and how long before the next ones do: each has contacts at
/// other homes that hear of it.
const ENDS: (usize, Duration) = (8, Duration::from_millis(20));
/// A connection that its edge has not named may be one whose question is on its way.
const UNSEEN: Duration = Duration::from_secs(5);
/// So many entries does the log of a shard have at most in the first moments after it was founded.
const YOUNG: u64 = 64;
/// Records of sessions of one account that are kept until somebody needs it, at least, and for each session that it may have: as
/// many as there may be edges that keep it.
const MAX_PARKED: usize = 64;
const PARKED: usize = 4;
/// Edges that are gone, of which it is remembered that they had named all that they had.
const MOST_SPOKEN: usize = 1_024;

/// What is known of edges.
#[derive(Default)]
pub(super) struct Attaching {
    /// Those that have begun to name their sessions in this reign, over the link that they have.
    edges: HashMap<EdgeId, Attached>,
    /// Those that were declared dead, in the first moments of the reign; later whoever has not come is.
    dead: HashSet<EdgeId>,
    /// The last ones that were lost, or linked anew, after they had named all their sessions. What they did not name had never
    /// come there; since then only homes of this reign have sent sessions anywhere, and those know of it.
    spoken: VecDeque<EdgeId>,
    number: u64,
    /// Since when edges could come: the beginning of the reign, or the end of a time without a lease in its first moments, in which
    /// the home was open to none.
    since: Duration,
    /// Accounts that may have sessions there.
    at: HashMap<EdgeId, HashSet<BareJid>>,
    /// Accounts that wait for edges, in an order that is the same every time.
    pub(super) opening: BTreeSet<BareJid>,
    /// Sessions that may have gone on at an edge that is silent: what the edges before it keep of them.
    pub(super) unsure: HashMap<BareJid, Unsure>,
    /// What has come for sessions that edges have yet to name.
    pub(super) late: Late,
    pub(super) losing: Losing,
}

struct Attached {
    number: u64,
    whole: bool,
}

impl Attaching {
    /// Of a reign that begins then.
    pub(super) fn new(began: Duration) -> Self {
        Self { since: began, ..Self::default() }
    }

    /// For how long edges could come.
    pub(super) fn age(&self, now: Duration) -> Duration {
        now.saturating_sub(self.since)
    }

    /// When whoever has not come by then is taken for dead.
    pub(super) fn known_at(&self) -> Duration {
        self.since + DEAD_AFTER
    }

    /// There was no lease from then until now.
    pub(super) fn was_shut(&mut self, from: Duration, now: Duration) {
        if from < self.known_at() {
            self.since = now;
        }
    }

    /// An account may have a session at that edge.
    pub(super) fn is_at(&mut self, edge: EdgeId, account: &BareJid) {
        let all = self.at.entry(edge).or_default();
        if !all.contains(account) {
            all.insert(account.clone());
        }
    }

    /// An account is not in memory any more.
    pub(super) fn forget(&mut self, account: &BareJid) {
        for all in self.at.values_mut() {
            all.remove(account);
        }
    }

    /// The accounts that may have sessions there, in an order that is the same every time.
    fn accounts_at(&self, edge: EdgeId) -> Vec<BareJid> {
        let mut accounts: Vec<_> = self.at.get(&edge).into_iter().flatten().cloned().collect();
        accounts.sort_unstable();
        accounts
    }

    fn is_not_at(&mut self, edge: EdgeId, account: &BareJid) {
        if let Some(all) = self.at.get_mut(&edge) {
            all.remove(account);
        }
    }

    /// Whether an edge may yet name a session that is recorded: the one that it is recorded at, or the one before, if the
    /// session was on its way when the last home died.
    pub(super) fn may_have(&self, shared: &Shared, home: &Home, token: Token, turn: &Turn) -> bool {
        let Some(tier) = &shared.tier else { return false };
        let age = self.age(turn.monotonic);
        let places = tier.register.places(&home.account.jid);
        if Worker::waits_for_edges(shared, turn.monotonic) {
            // An edge that has it may not be linked yet.
            return true;
        }
        let early = age < DEAD_AFTER;
        places.iter().any(|place| place.token == token && (early || !self.has_answered(place.edge, age)))
    }

    /// Whether it is known what an edge has.
    pub(super) fn has_answered(&self, edge: EdgeId, age: Duration) -> bool {
        match self.edges.get(&edge) {
            Some(attached) => attached.whole,
            None => age >= DEAD_AFTER || self.dead.contains(&edge),
        }
    }

    /// Whether it has named all its sessions itself, whatever has become of it since.
    pub(super) fn has_spoken(&self, edge: EdgeId) -> bool {
        self.edges.get(&edge).is_some_and(|attached| attached.whole) || self.spoken.contains(&edge)
    }

    /// What it has named was named over a link that is gone.
    fn leaves(&mut self, edge: EdgeId) {
        let spoke = self.edges.remove(&edge).is_some_and(|attached| attached.whole);
        if spoke && !self.spoken.contains(&edge) {
            if self.spoken.len() >= MOST_SPOKEN {
                self.spoken.pop_front();
            }
            self.spoken.push_back(edge);
        }
    }
}

impl Worker {
    /// An edge will name all its sessions. Nothing is sent to them before it has.
    pub(super) fn attach_begins(&mut self, edge: EdgeId, link: u64) {
        let Some(tier) = &self.shared.tier else { return };
        // What was said before went to the link that is gone.
        self.shared.edge.deliver(&mut self.downs);
        self.downs.clear();
        tier.edges.open(edge, link);
        self.attaching.number += 1;
        let number = self.attaching.number;
        self.attaching.leaves(edge);
        self.attaching.edges.insert(edge, Attached { number, whole: false });
        self.attaching.dead.remove(&edge);
        for account in self.attaching.accounts_at(edge) {
            let Some(Slot::Ready(home)) = self.homes.get_mut(&account) else { continue };
            let mut any = home.opening.is_some();
            for link in &mut home.links {
                let Some(far) = &mut link.far else { continue };
                any |= far.may_be_at(edge);
                if far.holders.last().is_some_and(|conn| conn.edge == edge) {
                    // What it was told last may be lost: it says what it has.
                    far.told = 0;
                }
                if link.conn.is_some_and(|conn| conn.edge == edge) {
                    (far.quiet, far.unheard, any) = (true, false, true);
                }
            }
            if !any {
                self.attaching.is_not_at(edge, &account);
            }
        }
    }

    /// It has named them all. What it has not named, and does not ask about soon, is not there any more.
    pub(super) fn attach_ends(&mut self, turn: &mut Turn, edge: EdgeId) {
        let Some(attached) = self.attaching.edges.get_mut(&edge) else { return };
        attached.whole = true;
        let number = attached.number;
        for account in self.attaching.accounts_at(edge) {
            if let Some(unsure) = self.attaching.unsure.get_mut(&account) {
                unsure.parked.retain(|parked| is_named(parked, edge, number));
            }
            match self.homes.get_mut(&account) {
                Some(Slot::Ready(home)) => {
                    for link in &mut home.links {
                        // What it has, it has named.
                        link.far.iter_mut().for_each(|far| far.never_came(|conn| conn.edge == edge));
                        let own = link.conn.is_some_and(|conn| conn.edge == edge);
                        if own && link.far.as_ref().is_some_and(|far| far.quiet) {
                            self.timers.set(
                                turn.monotonic + UNSEEN,
                                account.clone(),
                                Why::Unseen(link.token),
                            );
                        }
                    }
                    if let Some(opening) = &mut home.opening {
                        opening.parked.retain(|parked| is_named(parked, edge, number));
                    }
                }
                Some(Slot::Loading(_, all)) => all.retain(|parked| is_named(parked, edge, number)),
                Some(Slot::Parked(all)) => {
                    let before = all.len();
                    all.retain(|parked| is_named(parked, edge, number));
                    let lost = all.len() < before;
                    if all.is_empty() {
                        self.homes.remove(&account);
                        self.attaching.forget(&account);
                    }
                    self.attaching.losing.extend(lost.then_some(account));
                }
                None => {}
            }
        }
        self.edges_changed(turn, edge);
    }

    /// An edge is taken for dead: what can be resumed waits for it.
    pub(super) fn edge_died(&mut self, turn: &mut Turn, edge: EdgeId) {
        self.attaching.leaves(edge);
        if turn.monotonic < self.attaching.known_at() {
            self.attaching.dead.insert(edge);
        }
        for (nth, account) in self.attaching.accounts_at(edge).into_iter().enumerate() {
            let later = ENDS.1.saturating_mul(u32::try_from(nth / ENDS.0).unwrap_or(u32::MAX));
            self.guard(&account, |worker| worker.loses(turn, &account, edge, later));
        }
        self.attaching.at.remove(&edge);
        self.edges_changed(turn, edge);
    }

    /// The same for one account, whose sessions end so much later than the first ones.
    fn loses(&mut self, turn: &mut Turn, account: &BareJid, edge: EdgeId, later: Duration) {
        if let Some(unsure) = self.attaching.unsure.get_mut(account) {
            lose_edge(&mut unsure.parked, edge, turn.monotonic);
        }
        match self.homes.get_mut(account) {
            Some(Slot::Ready(home)) => {
                let links = home.links.iter().filter(|link| link.conn.is_some_and(|conn| conn.edge == edge));
                let tokens: Vec<_> = links.map(|link| link.token).collect();
                for token in tokens {
                    if let Some(at) = home.find(token) {
                        session::lost(turn, home, at, later, &mut self.timers);
                    }
                }
                if let Some(opening) = &mut home.opening {
                    lose_edge(&mut opening.parked, edge, turn.monotonic);
                }
                self.touch(account);
            }
            Some(Slot::Loading(_, all)) => {
                lose_edge(all, edge, turn.monotonic);
            }
            Some(Slot::Parked(all)) => {
                let any = lose_edge(all, edge, turn.monotonic);
                // Loaded, its sessions end or wait as any others.
                self.attaching.losing.extend(any.then_some(account.clone()));
            }
            None => {}
        }
    }

    /// Accounts that wait for edges may go on.
    fn edges_changed(&mut self, turn: &mut Turn, edge: EdgeId) {
        for account in std::mem::take(&mut self.attaching.opening) {
            if let Some(Slot::Ready(home)) = self.homes.get_mut(&account)
                && let Some(opening) = &mut home.opening
            {
                opening.listed = false;
            }
            self.guard(&account, |worker| worker.try_open(turn, &account));
        }
        let mut unsure: Vec<_> = self.attaching.unsure.keys().cloned().collect();
        unsure.sort_unstable();
        for account in unsure {
            self.guard(&account, |worker| worker.try_unsure(turn, &account));
        }
        // What an edge has not named is looked for after that.
        self.attaching.losing.looks_at(edge);
    }

    /// An edge names a session.
    pub(super) fn attach(&mut self, turn: &mut Turn, account: &BareJid, conn: ConnId, record: Box<Record>) {
        let number = self.attaching.edges.get(&conn.edge).map_or(0, |attached| attached.number);
        self.attaching.is_at(conn.edge, account);
        let mut parked = Parked::new(conn, record, number, turn.monotonic);
        if let Some(unsure) = self.attaching.unsure.get_mut(account) {
            unsure.parked.retain(|other| other.conn != conn);
        }
        if let Some(Slot::Ready(home)) = self.homes.get(account)
            && home.find(parked.record.token).is_some()
        {
            return self.attach_again(account, &parked);
        }
        self.adopt(turn, account, &mut parked);
        let token = parked.record.token;
        self.park(account, parked);
        if self.attaching.unsure.get(account).is_some_and(|unsure| unsure.has(token)) {
            // All that there is of it is looked at together.
            self.recall(account);
        }
        self.try_open(turn, account);
    }

    /// A session from before the present era: the table of locations was lost with the disks of all routers, and knows nothing of
    /// it. Then what edges hold is believed, and recorded anew; of several records of one session that of the latest move.
    fn adopt(&mut self, turn: &Turn, account: &BareJid, parked: &mut Parked) {
        let Parked { conn, record, .. } = &*parked;
        let Some(tier) = &self.shared.tier else { return };
        if record.epoch.era() >= Epoch(self.shared.positions.epoch()).era() {
            return;
        }
        let Some(stay) = notes::decode(&record.notes).map(|notes| notes.stay) else { return };
        let others = match self.homes.get(account) {
            Some(Slot::Ready(home)) if home.account.resource(&record.jid).is_some() => return,
            Some(Slot::Ready(home)) => home.opening.as_ref().map_or(&[][..], |opening| &opening.parked),
            Some(Slot::Loading(_, all) | Slot::Parked(all)) => all,
            None => &[],
        };
        let later = |other: &Parked| {
            other.record.token == record.token
                && notes::decode(&other.record.notes).is_some_and(|notes| notes.stay > stay)
        };
        let taken = |place: &Place| place.jid == record.jid && place.token != record.token;
        if others.iter().any(later) || tier.register.places(account).iter().any(taken) {
            return;
        }
        let (jid, token, edge) = (record.jid.clone(), record.token, conn.edge);
        self.unbinding.push(LocationOp::Bind { jid: jid.clone(), token, edge });
        self.unbinding.push(LocationOp::Move { jid, token, edge, attempt: stay << 32 | stay });
        parked.adopted = Some(turn.monotonic + DEAD_AFTER);
    }

    /// Whether nobody is told yet that a session is lost: the table of locations may have lost what it knew, for its log has
    /// hardly begun, and edges may be about to say what they have.
    pub(crate) fn waits_for_edges(shared: &Shared, now: Duration) -> bool {
        let age = now.saturating_sub(shared.began).saturating_add(shared.age);
        age < DEAD_AFTER && Epoch(shared.positions.epoch()).index() < YOUNG
    }

    /// Keeps what was named until the account opens.
    pub(super) fn park(&mut self, account: &BareJid, parked: Parked) {
        let config = &self.shared.config;
        let sessions = config.max_resources.saturating_add(config.detached_per_account);
        let most = sessions.saturating_mul(PARKED).max(MAX_PARKED);
        let all = match self.homes.get_mut(account) {
            Some(Slot::Ready(home)) => &mut home.opening.get_or_insert_default().parked,
            Some(Slot::Loading(_, all) | Slot::Parked(all)) => all,
            None => {
                self.homes.insert(account.clone(), Slot::Parked(vec![parked]));
                return self.attaching.losing.wake(account.clone());
            }
        };
        all.retain(|other| other.conn != parked.conn);
        if all.len() < most {
            all.push(parked);
        }
    }

    /// The same for a session that is here: only the link was broken.
    fn attach_again(&mut self, account: &BareJid, parked: &Parked) {
        let Some(Slot::Ready(home)) = self.homes.get_mut(account) else { return };
        let Parked { conn, record, .. } = parked;
        let Some(at) = home.find(record.token) else { return };
        let mut out = Out { shared: &self.shared, downs: &mut self.downs, reads: &mut self.asked };
        let link = &mut home.links[at];
        let Some(far) = &mut link.far else { return };
        far.is_there(*conn);
        let last = far.holders.last() == Some(conn);
        let has_all = notes::decode(&record.notes).is_some_and(|notes| notes.whole);
        if link.conn != Some(*conn) {
            if !last || link.conn.is_some() {
                // It goes on elsewhere.
                if record.detached.is_none() {
                    let error = StreamError::new(StreamCondition::Conflict).with_text("resumed elsewhere");
                    out.downs.push(ToEdge { conn: *conn, down: Down::Close(Some(Box::new(error))) });
                }
                if !far.holders.contains(conn) {
                    out.downs.push(ToEdge { conn: *conn, down: Down::Released });
                }
                return;
            }
            if record.detached.is_some() {
                far.told = record.received;
                return;
            }
            // The edge was taken for dead, and was not.
            (link.conn, link.detached_at) = (Some(*conn), None);
        } else if !far.quiet {
            // The link was not broken: the session has been resumed there, or was built, and is there whole.
            let before = has_all.then(|| far.arrived(*conn)).into_iter().flatten();
            return out.downs.extend(before.map(|conn| ToEdge { conn, down: Down::Released }));
        }
        // Who does not know that it is managed asks once more, and is answered before anything that counts.
        far.unheard = link.management.is_some() && record.management.is_none();
        far.quiet = far.unheard;
        let (unheard, received) = (far.unheard, record.received);
        if unheard {
            // Which are early is known by their places in the queue, as long as none is done with.
            let early =
                link.queued(received).filter(|down| matches!(down, Down::Stanza { counts: false, .. }));
            out.downs.extend(early.map(|down| ToEdge { conn: *conn, down }));
        }
        let done = rebuild::catch_up(link, record);
        if !unheard {
            delivery::send_again(&mut out, home, at, received);
            session::remember(&mut out, home, at);
        }
        // It may have said that it has all of a session that was resumed there over the link before.
        let far = home.links[at].far.as_mut().filter(|_| has_all);
        let before = far.map(|far| far.arrived(*conn)).into_iter().flatten();
        out.downs.extend(before.map(|conn| ToEdge { conn, down: Down::Released }));
        delivery::acknowledged(&mut out, home, at, done);
        home.touched = true;
        self.touch(account);
    }
}

fn is_named(parked: &Parked, edge: EdgeId, number: u64) -> bool {
    parked.conn.edge != edge || parked.attachment == number
}

/// An edge is gone; whether sessions were there.
fn lose_edge(all: &mut [Parked], edge: EdgeId, now: Duration) -> bool {
    let mut any = false;
    for parked in all.iter_mut().filter(|parked| parked.conn.edge == edge) {
        parked.gone.get_or_insert(now);
        parked.drained = true;
        any = true;
    }
    any
}
