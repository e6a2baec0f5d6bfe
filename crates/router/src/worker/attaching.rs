//! Edges name their sessions, after a move of the home or a break of the link, and homes open.

use super::*;
use crate::notes::{self, Notes};
pub(super) use crate::rebuild::Parked;
use crate::rebuild::{self, Opening};
use starling_hooks::Session;
use starling_store::{LogRow, Position};
use starling_wire::{EdgeId, Record, Token};
use starling_xmpp::{PresenceType, Stanza, Timestamp};
use std::collections::HashSet;

/// How long an account waits for edges that have named none of its sessions.
const OPEN_WITHIN: Duration = Duration::from_millis(300);
/// Without a link for so long, an edge is taken for dead.
const DEAD_AFTER: Duration = Duration::from_secs(5);
/// A connection that its edge has not named may be one whose question is on its way.
const UNSEEN: Duration = Duration::from_secs(5);
/// The same for a session that is recorded and that nobody has.
const LOST_GRACE: Duration = Duration::from_secs(2);
/// How many accounts whose sessions are gone with their edge are looked at together, and how often.
const LOST_PACE: (usize, Duration) = (32, Duration::from_millis(20));
/// Sessions of one account that are kept until somebody needs it.
const MAX_PARKED: usize = 64;
/// How soon to read again what could not be.
const AGAIN: Duration = Duration::from_millis(250);

/// What is known of edges.
#[derive(Default)]
pub(super) struct Attaching {
    /// Those that have begun to name their sessions in this reign, over the link that they have.
    edges: HashMap<EdgeId, Attached>,
    /// Those that were declared dead, in the first moments of the reign; later whoever has not come is.
    dead: HashSet<EdgeId>,
    number: u64,
    /// Accounts that wait for edges.
    opening: Vec<BareJid>,
    /// It was looked for sessions that nobody has.
    swept: bool,
    lost: VecDeque<BareJid>,
    /// When to go on with these.
    next: Duration,
}

struct Attached {
    number: u64,
    whole: bool,
}

impl Attaching {
    pub(super) fn deadline(&self, shared: &Shared) -> Option<Duration> {
        shared.tier.as_ref()?;
        let sweep = (!self.swept).then_some(shared.began + DEAD_AFTER);
        let lost = (!self.lost.is_empty()).then_some(self.next);
        [sweep, lost].into_iter().flatten().min()
    }

    /// Whether an edge may yet name a session that is recorded: the one that it is recorded at, or the one before, if the
    /// session was on its way when the last home died.
    pub(super) fn may_have(&self, shared: &Shared, home: &Home, token: Token, turn: &Turn) -> bool {
        let Some(tier) = &shared.tier else { return false };
        let age = turn.monotonic.saturating_sub(shared.began);
        let places = tier.register.places(&home.account.jid);
        let early = age < DEAD_AFTER;
        places.iter().any(|place| place.token == token && (early || !self.has_answered(place.edge, age)))
    }

    /// Whether it is known what an edge has.
    fn has_answered(&self, edge: EdgeId, age: Duration) -> bool {
        match self.edges.get(&edge) {
            Some(attached) => attached.whole,
            None => age >= DEAD_AFTER || self.dead.contains(&edge),
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
        self.attaching.edges.insert(edge, Attached { number, whole: false });
        self.attaching.dead.remove(&edge);
        for slot in self.homes.values_mut() {
            let Slot::Ready(home) = slot else { continue };
            for link in &mut home.links {
                if let Some(far) =
                    link.far.as_mut().filter(|_| link.conn.is_some_and(|conn| conn.edge == edge))
                {
                    (far.quiet, far.unheard) = (true, false);
                }
            }
        }
    }

    /// It has named them all. What it has not named, and does not ask about soon, is not there any more.
    pub(super) fn attach_ends(&mut self, turn: &mut Turn, edge: EdgeId) {
        let Some(attached) = self.attaching.edges.get_mut(&edge) else { return };
        attached.whole = true;
        let number = attached.number;
        for account in self.accounts() {
            match self.homes.get_mut(&account) {
                Some(Slot::Ready(home)) => {
                    for link in &home.links {
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
                    }
                    if lost {
                        self.attaching.lost.push_back(account);
                    }
                }
                None => {}
            }
        }
        self.edges_changed(turn);
    }

    /// An edge is taken for dead: what can be resumed waits for it.
    pub(super) fn edge_died(&mut self, turn: &mut Turn, edge: EdgeId) {
        self.attaching.edges.remove(&edge);
        if turn.monotonic < self.shared.began + DEAD_AFTER {
            self.attaching.dead.insert(edge);
        }
        for account in self.accounts() {
            match self.homes.get_mut(&account) {
                Some(Slot::Ready(home)) => {
                    let links =
                        home.links.iter().filter(|link| link.conn.is_some_and(|conn| conn.edge == edge));
                    let tokens: Vec<_> = links.map(|link| link.token).collect();
                    for token in tokens {
                        if let Some(at) = home.find(token) {
                            session::gone(turn, home, at, Leave::Lost, &mut self.timers);
                        }
                    }
                    if let Some(opening) = &mut home.opening {
                        lose_edge(&mut opening.parked, edge, turn.monotonic);
                    }
                    self.touch(&account);
                }
                Some(Slot::Loading(_, all)) => {
                    lose_edge(all, edge, turn.monotonic);
                }
                Some(Slot::Parked(all)) => {
                    let any = lose_edge(all, edge, turn.monotonic);
                    // Loaded, its sessions end or wait as any others.
                    self.attaching.lost.extend(any.then_some(account));
                }
                None => {}
            }
        }
        self.edges_changed(turn);
    }

    /// Accounts that wait for edges may go on.
    fn edges_changed(&mut self, turn: &mut Turn) {
        for account in std::mem::take(&mut self.attaching.opening) {
            if let Some(Slot::Ready(home)) = self.homes.get_mut(&account)
                && let Some(opening) = &mut home.opening
            {
                opening.listed = false;
            }
            self.try_open(turn, &account);
        }
        // What an edge has not named is looked for after that.
        self.attaching.swept &= turn.monotonic < self.shared.began + DEAD_AFTER;
    }

    /// An edge names a session.
    pub(super) fn attach(&mut self, turn: &mut Turn, account: &BareJid, conn: ConnId, record: Box<Record>) {
        let number = self.attaching.edges.get(&conn.edge).map_or(0, |attached| attached.number);
        let parked = Parked::new(conn, record, number, turn.monotonic);
        let all = match self.homes.get_mut(account) {
            Some(Slot::Ready(home)) if home.find(parked.record.token).is_some() => {
                return self.attach_again(account, &parked);
            }
            Some(Slot::Ready(home)) => &mut home.opening.get_or_insert_default().parked,
            Some(Slot::Loading(_, all) | Slot::Parked(all)) => all,
            None => {
                self.homes.insert(account.clone(), Slot::Parked(vec![parked]));
                return;
            }
        };
        all.retain(|other| other.conn != parked.conn);
        if all.len() < MAX_PARKED {
            all.push(parked);
        }
        self.try_open(turn, account);
    }

    /// The same for a session that is here: only the link was broken.
    fn attach_again(&mut self, account: &BareJid, parked: &Parked) {
        let Some(Slot::Ready(home)) = self.homes.get_mut(account) else { return };
        let Parked { conn, record, .. } = parked;
        let Some(at) = home.find(record.token) else { return };
        let mut out = Out { shared: &self.shared, downs: &mut self.downs, reads: &mut self.asked };
        let link = &mut home.links[at];
        let Some(far) = &mut link.far else { return };
        let last = far.holders.last() == Some(conn);
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
                return;
            }
            // The edge was taken for dead, and was not.
            (link.conn, link.detached_at) = (Some(*conn), None);
        } else if !far.quiet {
            // The link was not broken: the session has been resumed there, and is there whole.
            let before = far.arrived(*conn).into_iter();
            return out.downs.extend(before.map(|conn| ToEdge { conn, down: Down::Released }));
        }
        // Who does not know that it is managed asks once more, and is answered before anything that counts.
        far.unheard = link.management.is_some() && record.management.is_none();
        far.quiet = far.unheard;
        let (unheard, received) = (far.unheard, record.received);
        let done = rebuild::catch_up(link, record);
        if unheard {
            let early =
                link.queued(received).filter(|down| matches!(down, Down::Stanza { counts: false, .. }));
            out.downs.extend(early.map(|down| ToEdge { conn: *conn, down }));
        } else {
            session::remember(&mut out, home, at);
            delivery::send_again(&mut out, home, at, received);
        }
        delivery::acknowledged(&mut out, home, at, done);
        home.touched = true;
        self.touch(account);
    }

    /// For an account of which only sessions are known. What only tells of one is kept with it; all else has it loaded.
    pub(super) fn parked(&mut self, turn: &mut Turn, account: BareJid, msg: Msg) {
        let Some(Slot::Parked(all)) = self.homes.get_mut(&account) else { return };
        if let Msg::Edge(ToHome { conn, up, .. }) = &msg
            && let Some(parked) = all.iter_mut().find(|parked| parked.conn == *conn)
        {
            match up {
                Up::Acknowledged { handled } => return parked.acknowledged = Some(*handled),
                Up::Written { count } => return parked.written = Some(*count),
                Up::ClientState { active } => return parked.active = Some(*active),
                Up::Gone(_) if parked.cut => return,
                Up::Gone(Leave::Lost) if is_resumable(parked) => {
                    parked.drained = true;
                    let since = *parked.gone.get_or_insert(turn.monotonic);
                    let (at, token) = (since + self.shared.config.resume_timeout, parked.record.token);
                    return self.timers.set(at, account, Why::Resume(token));
                }
                _ => {}
            }
        } else if msg.is_about_the_past() {
            return self.nobody(&msg);
        }
        let parked = std::mem::take(all);
        self.load_for(turn, account, msg, parked);
    }

    /// What is said of a session where none is: its edge may forget it.
    pub(super) fn nobody(&mut self, msg: &Msg) {
        if let Msg::Edge(ToHome { conn, up, .. }) = msg
            && self.shared.tier.is_some()
        {
            let mut out = Out { shared: &self.shared, downs: &mut self.downs, reads: &mut self.asked };
            unknown(&mut out, *conn, up);
        }
    }

    /// What a session said could not be decided on: it is to come back.
    pub(super) fn cut_parked(&mut self, account: &BareJid, conn: ConnId) {
        if let Some(Slot::Parked(all) | Slot::Loading(_, all)) = self.homes.get_mut(account)
            && let Some(parked) = all.iter_mut().find(|parked| parked.conn == conn)
        {
            (parked.gone, parked.cut) = (Some(self.shared.clock.monotonic()), true);
        }
        self.close(conn, AWAY);
    }

    /// Its time to be resumed may be over.
    pub(super) fn parked_expired(&mut self, account: BareJid) {
        if let Some(Slot::Parked(_)) = self.homes.get(&account) {
            self.backlog.push_back(Msg::Wake(account));
        }
    }

    /// Opens an account if all is known of its sessions that can be.
    pub(super) fn try_open(&mut self, turn: &mut Turn, account: &BareJid) {
        let (shared, age) = (Arc::clone(&self.shared), turn.monotonic.saturating_sub(self.shared.began));
        let Some(tier) = &shared.tier else { return };
        let Some(Slot::Ready(home)) = self.homes.get_mut(account) else { return };
        let Some(opening) = home.opening.as_mut().filter(|opening| !opening.reading) else { return };
        let places = tier.register.places(account);
        let silent = places.iter().any(|place| {
            let named =
                |parked: &Parked| parked.record.token == place.token && parked.conn.edge == place.edge;
            !self.attaching.has_answered(place.edge, age)
                && !home.links.iter().any(|link| link.token == place.token)
                && !opening.parked.iter().any(named)
        });
        if silent && age < OPEN_WITHIN {
            if !std::mem::replace(&mut opening.listed, true) {
                self.attaching.opening.push(account.clone());
                self.timers.set(shared.began + OPEN_WITHIN, account.clone(), Why::Open);
            }
            return;
        }
        let mut parked = std::mem::take(&mut opening.parked);
        let mut chosen: Vec<(Parked, Notes, EdgeId)> = Vec::new();
        let mut lost = false;
        for place in &places {
            if home.find(place.token).is_some() {
                continue;
            }
            let is_it =
                |parked: &Parked| parked.record.token == place.token && parked.record.jid == place.jid;
            // The one that it moved to last, or the one that has heard most.
            let rank = |parked: &Parked| {
                (parked.conn.edge == place.edge, parked.record.epoch, parked.record.received)
            };
            let all = parked.iter().enumerate().filter(|(_, parked)| is_it(parked) && parked.is_whole());
            let mut all: Vec<usize> = all.map(|(index, _)| index).collect();
            all.sort_by_key(|index| rank(&parked[*index]));
            // The last one may have been named before its home could say what to remember.
            let notes = all.iter().rev().find_map(|index| notes::decode(&parked[*index].record.notes));
            match notes.zip(all.pop()) {
                Some((notes, best)) => {
                    let others: Vec<Record> =
                        all.iter().map(|index| (*parked[*index].record).clone()).collect();
                    let mut best = parked.remove(best);
                    for other in others.iter().rev() {
                        rebuild::merge(&mut best, other);
                    }
                    chosen.push((best, notes, place.edge));
                }
                None => lost |= self.attaching.has_answered(place.edge, age),
            }
        }
        chosen.sort_by_key(|(_, notes, _)| notes.since);
        let mut built = Vec::new();
        for (parked, notes, edge) in chosen {
            let highest = rebuild::build(home, &parked, notes, edge);
            built.push((parked.record.token, highest));
            let mut out = Out { shared: &shared, downs: &mut self.downs, reads: &mut self.asked };
            settle_in(turn, &mut out, home, &parked, &mut self.timers);
        }
        built.retain(|(token, _)| home.links.iter().any(|link| link.token == *token));
        for parked in parked {
            other_record(home, &parked, &mut self.downs);
        }
        if lost {
            let at = (turn.monotonic + LOST_GRACE).max(shared.began + DEAD_AFTER);
            self.timers.set(at, account.clone(), Why::Lost);
        }
        let Some(opening) = &mut home.opening else { return };
        opening.built.append(&mut built);
        self.read_unsent(turn, account);
    }

    /// Has the rows read that the sessions which were built may not have been sent, if there may be some.
    pub(super) fn read_unsent(&mut self, turn: &mut Turn, account: &BareJid) {
        let Some(Slot::Ready(home)) = self.homes.get_mut(account) else { return };
        let Some(opening) = &mut home.opening else { return };
        let lowest = opening.built.iter().map(|(_, highest)| *highest).min();
        match lowest.filter(|lowest| *lowest < home.last) {
            Some(lowest) => {
                opening.reading = true;
                let read = rebuild::read(&self.shared, home, lowest);
                self.asked.push(read);
            }
            None => self.open(turn, account, &[], true),
        }
    }

    /// They have been read.
    pub(super) fn unsent(
        &mut self,
        turn: &mut Turn,
        account: &BareJid,
        rows: Result<(Vec<LogRow>, bool), StoreError>,
    ) {
        match rows {
            Ok((rows, complete)) => self.open(turn, account, &rows, complete),
            Err(error) => {
                tracing::warn!(event = "unsent_failed", %error, "an account's sessions have to wait for its log");
                self.timers.set(turn.monotonic + AGAIN, account.clone(), Why::Unsent);
            }
        }
    }

    fn open(&mut self, turn: &mut Turn, account: &BareJid, rows: &[LogRow], complete: bool) {
        let Some(Slot::Ready(home)) = self.homes.get_mut(account) else { return };
        let Some(opening) = home.opening.take() else { return };
        let Opening { parked, built, .. } = *opening;
        rebuild::decide(turn, home, &built, rows, complete && !built.is_empty());
        let mut out = Out { shared: &self.shared, downs: &mut self.downs, reads: &mut self.asked };
        rebuild::feed(&mut out, home, &built);
        home.touched = true;
        if !parked.is_empty() {
            // Another edge has named some meanwhile.
            home.opening = Some(Box::new(Opening { parked, ..Opening::default() }));
            return self.try_open(turn, account);
        }
        self.go_on(turn, account);
        self.touch(account);
    }

    /// Looks once for recorded sessions that nobody has, when all edges have had time to name theirs; then at a few accounts
    /// at a time.
    pub(super) fn look_for_lost(&mut self, turn: &Turn) {
        let (shared, age) = (Arc::clone(&self.shared), turn.monotonic.saturating_sub(self.shared.began));
        let Some(tier) = &shared.tier else { return };
        if !self.attaching.swept && age >= DEAD_AFTER {
            self.attaching.swept = true;
            let mut lost = HashSet::new();
            tier.register.each(&mut |jid, token, edge| {
                let account = jid.as_jid().to_bare();
                if self.attaching.has_answered(edge, age) && !self.has(&account, token) {
                    lost.insert(account);
                }
            });
            let mut lost: Vec<_> = lost.into_iter().collect();
            lost.sort_unstable();
            self.attaching.lost.extend(lost);
        }
        if !self.attaching.lost.is_empty() && turn.monotonic >= self.attaching.next {
            let few = self.attaching.lost.len().min(LOST_PACE.0);
            self.backlog.extend(self.attaching.lost.drain(..few).map(Msg::Wake));
            self.attaching.next = turn.monotonic + LOST_PACE.1;
        }
    }

    fn has(&self, account: &BareJid, token: Token) -> bool {
        match self.homes.get(account) {
            Some(Slot::Ready(home)) => {
                let opening = home.opening.iter().flat_map(|opening| &opening.parked);
                home.find(token).is_some() || opening.into_iter().any(|parked| parked.record.token == token)
            }
            Some(Slot::Loading(_, all) | Slot::Parked(all)) => {
                all.iter().any(|parked| parked.record.token == token)
            }
            None => false,
        }
    }

    /// Ends recorded sessions that nobody has: their contacts are told.
    pub(super) fn end_lost(&mut self, turn: &mut Turn, account: &BareJid) {
        let (shared, age) = (Arc::clone(&self.shared), turn.monotonic.saturating_sub(self.shared.began));
        let Some(tier) = &shared.tier else { return };
        let Some(Slot::Ready(home)) = self.homes.get_mut(account) else { return };
        if home.opening.is_some() {
            return;
        }
        for place in tier.register.places(account) {
            if home.find(place.token).is_some() || !self.attaching.has_answered(place.edge, age) {
                continue;
            }
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

/// A session as it is listed.
pub(super) fn info(parked: &Parked) -> Option<SessionInfo> {
    let notes = notes::decode(&parked.record.notes)?;
    Some(SessionInfo {
        jid: parked.record.jid.clone(),
        available: notes.presence.is_some(),
        priority: notes.priority,
        detached: parked.gone.is_some(),
        stream_management: parked.record.management.is_some(),
        since: notes.since.0,
    })
}

fn is_named(parked: &Parked, edge: EdgeId, number: u64) -> bool {
    parked.conn.edge != edge || parked.attachment == number
}

/// Whether a session can be resumed once its connection is lost.
fn is_resumable(parked: &Parked) -> bool {
    let notes = || notes::decode(&parked.record.notes);
    parked.record.management.is_some() && notes().is_some_and(|notes| notes.resume)
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

/// A session has been built: what its connection has said since it was named, and how it stands.
fn settle_in(turn: &mut Turn, out: &mut Out<'_>, home: &mut Home, parked: &Parked, timers: &mut Timers) {
    let token = parked.record.token;
    let Some(at) = home.find(token) else { return };
    if let Some(count) = parked.written {
        session::written(out, home, at, count);
    }
    if let Some(handled) = parked.acknowledged {
        session::acknowledged(out, home, at, handled);
    }
    let link = &mut home.links[at];
    if link.conn.is_some() {
        return delivery::send_again(out, home, at, parked.named);
    }
    if link.management.as_ref().is_none_or(|management| !management.resume) {
        return session::end(turn, home, token, None);
    }
    let since = *link.detached_at.get_or_insert(turn.monotonic);
    let at = since + turn.shared.config.resume_timeout;
    timers.set(at, home.account.jid.clone(), Why::Resume(token));
}

/// A record of a session that is somewhere else by now, or over.
fn other_record(home: &mut Home, parked: &Parked, downs: &mut Vec<ToEdge>) {
    let conn = parked.conn;
    if parked.gone.is_none() {
        let error = StreamError::new(StreamCondition::Conflict).with_text("the session is over or elsewhere");
        downs.push(ToEdge { conn, down: Down::Close(Some(Box::new(error))) });
    }
    match home.find(parked.record.token).and_then(|at| home.links[at].far.as_mut()) {
        // Its edge forgets it when the present one has spoken.
        Some(far) if !far.holders.contains(&conn) => far.holders.insert(0, conn),
        Some(_) => {}
        None => downs.push(ToEdge { conn, down: Down::Released }),
    }
}
