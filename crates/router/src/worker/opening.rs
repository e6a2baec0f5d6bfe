//! Accounts open: their sessions from before this reign are built from what edges have named.

use super::attaching::Parked;
use super::*;
use crate::far;
use crate::notes::{self, Notes};
use crate::owed;
use crate::rebuild::{self, Opening};
use crate::requests;
use starling_store::LogRow;
use starling_wire::frame::DEAD_AFTER;
use starling_wire::{EdgeId, Record, Token};

/// How long an account waits for edges that have named none of its sessions.
pub(super) const OPEN_WITHIN: Duration = Duration::from_millis(300);
/// How long a session that is recorded and that nobody has is looked for.
const LOST_GRACE: Duration = Duration::from_secs(2);
/// When it is certain that the present edge of a session has what another had.
const ARRIVES: Duration = Duration::from_secs(5);
/// How soon to read again what could not be.
const AGAIN: Duration = Duration::from_millis(250);
/// How much is kept of what is said over connections whose sessions may be elsewhere.
const MAX_SAID: usize = 512;

/// Of one account: sessions that may have gone on at an edge that is silent.
#[derive(Default)]
pub(super) struct Unsure {
    /// What edges before that one keep of them.
    pub(super) parked: Vec<Parked>,
    /// What was said over their connections.
    said: Vec<Msg>,
}

impl Unsure {
    pub(super) fn has(&self, token: Token) -> bool {
        self.parked.iter().any(|parked| parked.record.token == token)
    }
}

/// What is known of a session that is recorded.
enum Found {
    /// What is kept of it, by the edge where it was last first; the notes of that.
    It(Vec<usize>, Box<Notes>),
    /// An edge that is silent may have it.
    Perhaps,
    /// Nobody has it, or not all of it.
    Lost,
}

impl Worker {
    /// Opens an account if all is known of its sessions that can be.
    pub(super) fn try_open(&mut self, turn: &mut Turn, account: &BareJid) {
        let (shared, age) = (Arc::clone(&self.shared), self.attaching.age(turn.monotonic));
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
        let waits = |parked: &Parked| {
            parked.adopted.is_some_and(|until| turn.monotonic < until)
                && !places
                    .iter()
                    .any(|place| place.token == parked.record.token && came_there(place, &parked.record))
        };
        if opening.parked.iter().any(waits) {
            // What was lost with the table is being recorded.
            if !std::mem::replace(&mut opening.listed, true) {
                self.attaching.opening.insert(account.clone());
                self.timers.set(turn.monotonic + DEAD_AFTER, account.clone(), Why::Open);
            }
            return;
        }
        if silent && turn.monotonic < shared.began + OPEN_WITHIN {
            if !std::mem::replace(&mut opening.listed, true) {
                self.attaching.opening.insert(account.clone());
                self.timers.set(shared.began + OPEN_WITHIN, account.clone(), Why::Open);
            }
            return;
        }
        let mut parked: Vec<_> = std::mem::take(&mut opening.parked).into_iter().map(Some).collect();
        let recorded: Vec<_> = places.iter().map(|place| (place.jid.clone(), place.token)).collect();
        let mut chosen: Vec<(Parked, Notes, Place)> = Vec::new();
        let mut unsure = Vec::new();
        for place in places {
            // Another session of that name has been bound meanwhile, which is being recorded.
            if home.has(place.token) || home.account.resource(&place.jid).is_some() {
                continue;
            }
            if self.unbinding.has(place.token) || turn.unbinds(place.token) {
                // It has ended here, and its edge has not heard of that.
                continue;
            }
            match find(&parked, &place, &self.attaching, age) {
                Found::It(all, notes) => {
                    let mut all = all.into_iter().filter_map(|index| parked[index].take());
                    let Some(mut best) = all.next() else { continue };
                    for other in all {
                        if notes.before == Some(other.conn.edge) {
                            // Otherwise their numbers may not be of the same stanzas.
                            rebuild::merge(&mut best, &other.record);
                        }
                        best.others.push(other.conn);
                        close_other(&other, true, &mut self.downs);
                    }
                    owed::carry(&mut best.record, &notes.owed);
                    chosen.push((best, *notes, place));
                }
                Found::Perhaps => {
                    let is_it = |parked: &Parked| parked.record.token == place.token;
                    unsure.extend(parked.iter_mut().filter_map(|parked| parked.take_if(|it| is_it(it))));
                }
                // That is looked for when the account is open.
                Found::Lost => {}
            }
        }
        chosen.sort_by_key(|(_, notes, _)| notes.since);
        let mut built = Vec::new();
        for (parked, notes, place) in chosen {
            let mut out = Out { shared: &shared, downs: &mut self.downs, reads: &mut self.asked };
            let highest = rebuild::build(&mut out, home, &parked, notes, &place);
            built.push((parked.record.token, highest));
            if home.requests.open() > 0 {
                self.timers.set(turn.monotonic + requests::PATIENCE, account.clone(), Why::Request);
            }
            if !parked.others.is_empty() {
                let at = turn.monotonic + ARRIVES;
                self.timers.set(at, account.clone(), Why::Arrived(parked.record.token));
            }
            settle_in(turn, &mut out, home, &parked, &mut self.timers);
            rebuild::tell_changes(turn, home, parked.record.token);
        }
        built.retain(|(token, _)| home.links.iter().any(|link| link.token == *token));
        for parked in parked.into_iter().flatten() {
            let Record { token, jid, .. } = &*parked.record;
            if parked.adopted.is_some() && !recorded.iter().any(|(_, recorded)| recorded == token) {
                self.unbinding.give_up(parked.record.jid.clone(), parked.record.token);
            }
            let replaced = recorded.iter().any(|(address, other)| address == jid && other != token);
            other_record(home, &parked, replaced, &mut self.downs);
        }
        if let Some(opening) = &mut home.opening {
            opening.built.append(&mut built);
        }
        if !unsure.is_empty() {
            self.attaching.unsure.entry(account.clone()).or_default().parked.append(&mut unsure);
            self.timers.set(self.attaching.known_at(), account.clone(), Why::Open);
        }
        self.read_unsent(turn, account);
    }

    /// It is time to look once more.
    pub(super) fn open_due(&mut self, turn: &mut Turn, account: &BareJid) {
        self.try_unsure(turn, account);
        self.try_open(turn, account);
        match self.homes.get(account) {
            // When they are built, with that.
            Some(Slot::Ready(home)) if home.opening.is_some() => {}
            Some(Slot::Ready(_)) => {
                self.take_early(turn, account);
                self.go_on(turn, account);
            }
            _ => self.take_early(turn, account),
        }
        let known_at = self.attaching.known_at();
        if turn.monotonic < known_at && self.attaching.unsure.contains_key(account) {
            // There was no lease for a while.
            self.timers.set(known_at, account.clone(), Why::Open);
        }
    }

    /// Goes on with sessions that may have been elsewhere, if it is known by now.
    pub(super) fn try_unsure(&mut self, turn: &mut Turn, account: &BareJid) {
        let (shared, age) = (Arc::clone(&self.shared), self.attaching.age(turn.monotonic));
        let Some(tier) = &shared.tier else { return };
        let Some(unsure) = self.attaching.unsure.get(account) else { return };
        let is_it = |place: &Place| unsure.has(place.token);
        let mut places = tier.register.places(account).into_iter().filter(is_it);
        let is_silent = |edge: EdgeId| !self.attaching.has_answered(edge, age);
        let lacks = |parked: &Parked| {
            notes::decode(&parked.record.notes).and_then(|notes| notes.before).is_some_and(is_silent)
        };
        if places.any(|place| is_silent(place.edge)) || unsure.parked.iter().any(lacks) {
            return;
        }
        self.recall(account);
        if let Some(Slot::Parked(_)) = self.homes.get(account) {
            self.backlog.push_back(Msg::Wake(account.clone()));
        }
        self.try_open(turn, account);
    }

    /// Takes sessions that may have been elsewhere for what they are, with what was said over their connections.
    pub(super) fn recall(&mut self, account: &BareJid) {
        let Some(Unsure { parked, said }) = self.attaching.unsure.remove(account) else { return };
        for parked in parked {
            self.park(account, parked);
        }
        // What they have said since stands behind it.
        self.hear_again(said);
    }

    /// Keeps what a connection says whose session may be elsewhere; `Some` where it is of another.
    pub(super) fn stash(&mut self, msg: Msg) -> Option<Msg> {
        let Msg::Edge(ToHome { account, conn, up, .. }) = &msg else { return Some(msg) };
        if matches!(up, Up::Attach(_)) {
            return Some(msg);
        }
        match self.attaching.unsure.get_mut(account) {
            Some(unsure) if unsure.parked.iter().any(|parked| parked.conn == *conn) => {
                if unsure.said.len() < MAX_SAID {
                    unsure.said.push(msg);
                }
                None
            }
            _ => Some(msg),
        }
    }

    /// Has the rows read that the sessions which were built may not have been sent, if there may be some.
    pub(super) fn read_unsent(&mut self, turn: &mut Turn, account: &BareJid) {
        let Some(Slot::Ready(home)) = self.homes.get_mut(account) else { return };
        let Some(opening) = &mut home.opening else { return };
        let lowest = opening.built.iter().map(|(_, highest)| *highest).min();
        match lowest.filter(|lowest| *lowest < home.last) {
            Some(lowest) => {
                // An account that was open without these sessions may have rows under way.
                opening.reading = true;
                opening.above = Some(opening.read.unwrap_or(lowest));
                turn.act(home, What::ReadUnsent);
            }
            None => {
                if let Some(lowest) = lowest {
                    home.deliveries.known_above(lowest);
                }
                // Behind what is under way: a row that is not there yet would be taken for one that has expired.
                if let Some(heir) = session::heir(home) {
                    turn.feed(home, heir);
                }
                self.open(turn, account);
            }
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
            Ok((rows, complete)) => {
                let Some(Slot::Ready(home)) = self.homes.get_mut(account) else { return };
                let Some(mut opening) = home.opening.take() else { return };
                let on = opening.reads_on(&rows, complete);
                rebuild::decide(turn, home, &opening.built, &rows, complete && !opening.built.is_empty());
                home.opening = Some(opening);
                if on {
                    return self.read_unsent(turn, account);
                }
                // What waits for nobody may be older than what they were not sent (promise 4).
                if let Some(heir) = session::heir(home) {
                    let mut out =
                        Out { shared: &self.shared, downs: &mut self.downs, reads: &mut self.asked };
                    let through = home.last;
                    session::feed(&mut out, home, heir, through);
                }
                self.open(turn, account)
            }
            Err(error) => {
                tracing::warn!(event = "unsent_failed", %error, "an account's sessions have to wait for its log");
                self.timers.set(turn.monotonic + AGAIN, account.clone(), Why::Unsent);
            }
        }
    }

    fn open(&mut self, turn: &mut Turn, account: &BareJid) {
        let Some(Slot::Ready(home)) = self.homes.get_mut(account) else { return };
        let Some(opening) = home.opening.take() else { return };
        let Opening { parked, built, .. } = *opening;
        let mut out = Out { shared: &self.shared, downs: &mut self.downs, reads: &mut self.asked };
        for (token, _) in &built {
            delivery::feed(&mut out, home, *token);
        }
        home.touched = true;
        if !parked.is_empty() {
            // Another edge has named some meanwhile.
            home.opening = Some(Box::new(Opening { parked, ..Opening::default() }));
            return self.try_open(turn, account);
        }
        if !self.lost_of(turn, account).is_empty() {
            // Whoever has looked while the log was read was told nothing.
            let at = (turn.monotonic + LOST_GRACE).max(self.attaching.known_at());
            self.timers.set(at, account.clone(), Why::Lost);
        }
        let Some(Slot::Ready(home)) = self.homes.get_mut(account) else { return };
        // Behind what waits for the log, whoever asks later would overtake them, and lose the session to them.
        for held in home.paused.take_resumptions() {
            self.take(turn, account, held);
        }
        self.take_early(turn, account);
        self.go_on(turn, account);
        self.touch(account);
    }
}

/// Whether the place is of the move that brought the session to this edge: what was lost with the table may be recorded in parts.
fn came_there(place: &Place, record: &Record) -> bool {
    notes::decode(&record.notes).is_none_or(|notes| far::named(place.attempt).0 >= notes.stay)
}

/// What is known of a session that is recorded there. An edge that has it says at which of its moves it came there. Where that
/// was the last one, it is the one. The one before it is, when the edge that the session was to go to has said that it never
/// came: its client knows nothing of that one. Any other may be of long ago.
fn find(parked: &[Option<Parked>], place: &Place, attaching: &Attaching, age: Duration) -> Found {
    let mut all: Vec<(usize, Notes)> = Vec::new();
    for (index, parked) in parked.iter().enumerate() {
        let Some(Parked { record, .. }) = parked else { continue };
        if record.token == place.token
            && record.jid == place.jid
            && let Some(notes) = notes::decode(&record.notes)
        {
            all.push((index, notes));
        }
    }
    let whole = |index: usize| parked[index].as_ref().is_some_and(Parked::is_whole);
    let best = |stay: Option<u64>| {
        let of = all.iter().filter(|(_, notes)| Some(notes.stay) == stay).map(|(index, _)| *index);
        of.max_by_key(|index| {
            parked[*index].as_ref().map(|parked| (parked.record.epoch, parked.record.received))
        })
    };
    let (last, before) = far::named(place.attempt);
    let (present, before) = (best(Some(last)), best(before));
    let lacks = |present: usize| {
        let notes = all.iter().find(|(index, _)| *index == present).map(|(_, notes)| notes);
        notes.and_then(|notes| notes.before).is_some_and(|edge| !attaching.has_answered(edge, age))
    };
    let found = match (present, before) {
        // Its home was lost before all of it had come there.
        (Some(present), None) if lacks(present) => return Found::Perhaps,
        (Some(present), before) => [Some(present), before],
        (None, _) if !attaching.has_answered(place.edge, age) => return Found::Perhaps,
        (None, before) => [before.filter(|_| attaching.has_spoken(place.edge)), None],
    };
    let found: Vec<_> = found.into_iter().flatten().filter(|index| whole(*index)).collect();
    match found.first().and_then(|first| all.into_iter().find(|(index, _)| index == first)) {
        Some((_, notes)) => Found::It(found, Box::new(notes)),
        None => Found::Lost,
    }
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
        if !parked.drained {
            // By then its edge has said all that no home had handled, and nothing is left for which a resumption would wait.
            timers.set(turn.monotonic + DRAIN, home.account.jid.clone(), Why::Drain(token));
        }
        let whole = link.far.as_ref().is_none_or(|far| far.whole);
        delivery::send_again(out, home, at, parked.named);
        if !whole {
            rebuild::is_all_there(out, home, at);
        }
        return;
    }
    if parked.closed || link.management.as_ref().is_none_or(|management| !management.resume) {
        if parked.drained {
            return session::end(turn, home, token, None);
        }
        // What no home has handled comes first.
        timers.set(turn.monotonic + DEAD_AFTER, home.account.jid.clone(), Why::Resume(token));
    }
    let since = *link.detached_at.get_or_insert(turn.monotonic);
    let at = since + turn.shared.config.resume_timeout;
    timers.set(at, home.account.jid.clone(), Why::Resume(token));
}

/// A record of a session that is somewhere else by now, or over. What its client has acknowledged does not come again.
fn other_record(home: &mut Home, parked: &Parked, replaced: bool, downs: &mut Vec<ToEdge>) {
    let conn = parked.conn;
    let Record { token, jid, .. } = &*parked.record;
    let elsewhere = replaced || home.find(*token).is_some() || home.account.resource(jid).is_some();
    close_other(parked, elsewhere, downs);
    let before = notes::decode(&parked.record.notes).map(|notes| notes.acknowledged).unwrap_or_default();
    for position in parked.record.acknowledged.iter().chain(&before) {
        home.deliveries.was_acknowledged(*position);
        // It is told only when that is kept.
        if let Some(far) = home.sender(*token).and_then(|link| link.far.as_mut()) {
            far.acknowledged(*position);
        }
    }
    home.departed |= home.deliveries.is_dirty();
    // Also of one that is over and whose messages have no answer: the next home is to hear of them, unless its client is back.
    let far = home.sender(*token).filter(|link| !link.is_past()).and_then(|link| link.far.as_ref());
    if far.is_some_and(|far| far.holders.contains(&conn)) || home.holders.contains(&conn) {
        return;
    }
    if home.deliveries.is_dirty() {
        // Until that is kept, it alone knows.
        home.holders.push(conn);
    } else {
        downs.push(ToEdge { conn, down: Down::Released });
    }
}

/// `elsewhere`: the session is, or another one has its address.
fn close_other(parked: &Parked, elsewhere: bool, downs: &mut Vec<ToEdge>) {
    if parked.gone.is_none() {
        let error = if elsewhere {
            StreamError::new(StreamCondition::Conflict).with_text("the session is elsewhere")
        } else {
            // Whoever is told of a conflict may not come back by itself (RFC 6120 section 4.9.3.3).
            StreamError::new(StreamCondition::Reset).with_text("the session is over")
        };
        downs.push(ToEdge { conn: parked.conn, down: Down::Close(Some(Box::new(error))) });
    }
}
