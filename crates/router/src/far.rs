//! What a home knows of a session's edge, where that is another process.

use crate::requests::{self, Digest};
use smallvec::{SmallVec, smallvec};
use starling_store::Position;
use starling_wire::{ConnId, EdgeId, credit};
use starling_xmpp::{BareJid, FullJid, Stanza};
use std::collections::VecDeque;
use std::time::Duration;

/// Connections that may have been a session's; beyond that one is told to forget it.
const MAX_HOLDERS: usize = 4;
/// Acknowledged rows that are remembered while the cursor is not written: what is beyond may be delivered once more, should
/// the home be lost as well.
const MAX_UNSAVED: usize = 1_024;

/// So many stanzas of a session were under way to the last home at most.
pub(crate) const MAY_BE_AGAIN: u64 = credit::MOST as u64;

/// Notes of this size go to an edge as often as they change, in bytes.
const SMALL: usize = 8 << 10;

/// The edges' side of one session.
#[derive(Debug)]
pub(crate) struct Far {
    /// Connections whose edges may have a record of the session, the present one last. Each is told when it may forget it.
    pub(crate) holders: SmallVec<[ConnId; 1]>,
    /// Where the session is as recorded; `None` when that is not known.
    pub(crate) edge: Option<EdgeId>,
    /// The move that brought it to where it is; 0 where it was bound there.
    pub(crate) stay: u64,
    /// The same of where it was last whose edge is known to have it.
    base: u64,
    /// The same of where its client was told since then that it goes on, and where nobody knows whether that has arrived.
    hoped: SmallVec<[(ConnId, u64); 1]>,
    /// Moves that were tried.
    pub(crate) attempts: u64,
    /// It is recorded that it is bound.
    pub(crate) bound: bool,
    /// It is being recorded that it goes on there.
    pub(crate) moving: Option<ConnId>,
    /// Its edge has been linked anew and has not spoken of it yet, or asks once more for an answer that has to come first:
    /// nothing is sent to it.
    pub(crate) quiet: bool,
    /// It is about to be told once more that it is bound: that comes first.
    pub(crate) repeats: bool,
    /// All that is unacknowledged has been sent to where it is.
    pub(crate) whole: bool,
    /// If it has not: the edge that has the rest.
    pub(crate) lacks: Option<EdgeId>,
    /// Up to where its queue has gone to its edge, whose link takes no more at present; `None`: all of it has.
    pub(crate) gone: Option<u64>,
    /// While it has no connection: up to here its keeper has its queue, as it has said itself or as has gone to it over a link that
    /// has not ended since.
    pub(crate) told: u64,
    /// Its link takes no more, and it is not fed from the log.
    pub(crate) starved: bool,
    /// It is looked soon whether that link takes more.
    pub(crate) knocks: bool,
    /// What its edge is to remember has changed.
    pub(crate) news: bool,
    /// It goes there again from this moment on.
    pub(crate) rests: Duration,
    /// And is looked at then.
    pub(crate) waits: bool,
    /// The answer to `<enable/>` did not arrive; the question comes once more.
    pub(crate) unheard: bool,
    /// It was built from what the edge of this connection keeps, which says once more what no home has handled, and at the end
    /// that the connection is gone. What the client says over another one comes after that.
    pub(crate) built: Option<ConnId>,
    /// It is resumed, and waits for that.
    pub(crate) drains: bool,
    /// It was built in this reign, and its client has not come over another connection since.
    pub(crate) reborn: bool,
    /// It was built from what an edge kept when the table of locations was lost: its client may have gone on elsewhere since then,
    /// at an edge that is lost as well.
    pub(crate) believed: bool,
    /// Up to this sequence its client may say again, over another connection, what homes before had taken.
    pub(crate) again: u64,
    /// That was said above this sequence.
    pub(crate) after: u64,
    /// Up to this one it has come again to this home, in order.
    pub(crate) matched: u64,
    /// What it has yet to say to this home and has its answer from the last one, rising.
    pub(crate) answered: Vec<(u64, Digest)>,
    /// Requests that homes before have answered, until its client says none of them again: whose answers its edge had for it, and
    /// which it did not say again to this home before its client went on elsewhere.
    pub(crate) replies: Vec<Digest>,
    /// Which of them it has said again, and under which sequences, rising: its edge does not know that these have their answer.
    pub(crate) replied: Vec<(u64, Digest)>,
    /// Numbers in its queue that are answers, and the sequences of what they answer.
    pub(crate) answers: VecDeque<(u64, u64)>,
    /// Up to this number its client has had all in its queue, as it said when it resumed.
    pub(crate) had: u64,
    /// Requests of it that have left and have no answer: their heads.
    pub(crate) asked: Vec<Stanza>,
    /// The last ones that are over.
    pub(crate) over: Vec<Digest>,
    /// The version of the roster up to which it has been told of changes, if it wants that.
    pub(crate) listed: Option<u64>,
    /// The same as its edge remembers it: of what had gone there.
    pub(crate) noted: Option<u64>,
    /// The home has closed its last connection, not its client.
    pub(crate) cut: bool,
    /// Its session has ended; its address.
    pub(crate) parted: Option<FullJid>,
    /// Rows up to here were there before it.
    pub(crate) from: Position,
    /// The highest row that it was to be sent.
    pub(crate) highest: Position,
    /// The highest one that has gone to it: nothing older follows, but at its beginning.
    pub(crate) sent: Position,
    /// Rows that were acknowledged and may not be kept yet.
    pub(crate) unsaved: Vec<Position>,
    /// Those of them that the present connection's edge does not know of itself: it has them in its notes.
    pub(crate) carried: Vec<Position>,
    /// Its edge was told that what was acknowledged up to here is kept.
    pub(crate) saved: Position,
}

/// What an attempt names: which move it was, and the one that it went on from. `None` where the session has not moved.
pub(crate) fn named(attempt: u64) -> (u64, Option<u64>) {
    let this = attempt & u64::from(u32::MAX);
    (this, (attempt != 0).then_some(attempt >> 32))
}

impl Far {
    /// Of a session that begins at this connection.
    pub(crate) fn new(conn: ConnId, from: Position) -> Self {
        Self {
            holders: smallvec![conn],
            edge: Some(conn.edge),
            stay: 0,
            base: 0,
            hoped: SmallVec::new(),
            attempts: 0,
            bound: false,
            moving: None,
            quiet: false,
            repeats: false,
            whole: true,
            lacks: None,
            gone: None,
            told: 0,
            starved: false,
            knocks: false,
            news: true,
            rests: Duration::ZERO,
            waits: false,
            unheard: false,
            built: None,
            drains: false,
            reborn: false,
            believed: false,
            again: 0,
            after: 0,
            matched: 0,
            answered: Vec::new(),
            replies: Vec::new(),
            replied: Vec::new(),
            answers: VecDeque::new(),
            had: 0,
            asked: Vec::new(),
            over: Vec::new(),
            listed: None,
            noted: None,
            cut: false,
            parted: None,
            from,
            highest: from,
            sent: Position(0),
            unsaved: Vec::new(),
            carried: Vec::new(),
            saved: Position(0),
        }
    }

    /// The session goes on there; returns who may forget it already.
    pub(crate) fn goes_to(&mut self, conn: ConnId) -> Option<ConnId> {
        self.holders.retain(|holder| *holder != conn);
        self.holders.push(conn);
        self.told = 0;
        // The first one has all of it; of the others that is not known.
        (self.holders.len() > MAX_HOLDERS).then(|| self.holders.remove(1))
    }

    /// A connection was never told that the session goes on there: its edge has nothing of it.
    pub(crate) fn is_not_at(&mut self, conn: ConnId) {
        self.holders.retain(|holder| *holder != conn);
    }

    /// It was built from what the edge keeps where this move brought it; so many were tried.
    pub(crate) fn is_at(&mut self, stay: u64, attempts: u64) {
        (self.stay, self.base, self.attempts) = (stay, stay, attempts);
    }

    /// Its client is told over this connection that it goes on.
    pub(crate) fn is_told(&mut self, conn: ConnId) {
        self.hoped.retain(|(other, _)| *other != conn);
        if self.hoped.len() >= MAX_HOLDERS {
            self.base = self.hoped.remove(0).1;
        }
        self.hoped.push((conn, self.stay));
    }

    /// The edge of this connection has the session.
    pub(crate) fn is_there(&mut self, conn: ConnId) {
        if let Some(at) = self.hoped.iter().position(|(other, _)| *other == conn) {
            self.base = self.hoped[at].1;
            self.hoped.drain(..=at);
        }
    }

    /// It never came to these connections: where it was before is where it is, should no other move come about.
    pub(crate) fn never_came(&mut self, is_it: impl Fn(ConnId) -> bool) {
        self.hoped.retain(|(conn, _)| !is_it(*conn));
    }

    /// Whether it may be at that edge, which has not said so.
    pub(crate) fn may_be_at(&self, edge: EdgeId) -> bool {
        self.hoped.iter().any(|(conn, _)| conn.edge == edge)
    }

    /// The next attempt to move it. It names the move that it goes on from, too: should it never come about, that is where the
    /// session is.
    pub(crate) fn attempt(&mut self) -> u64 {
        self.attempts += 1;
        let base = self.hoped.last().map_or(self.base, |(_, stay)| *stay);
        base << 32 | self.attempts & u64::from(u32::MAX)
    }

    /// Takes out what the edge of this connection keeps from before the session was elsewhere: it is to take over nothing of
    /// that, whose numbers may be of others by now.
    pub(crate) fn outdated(&mut self, conn: ConnId) -> SmallVec<[ConnId; 1]> {
        let elsewhere = self.holders.iter().rposition(|holder| holder.edge != conn.edge).unwrap_or(0);
        let mut outdated = SmallVec::new();
        let mut index = 0;
        self.holders.retain(|holder| {
            let old = index < elsewhere && holder.edge == conn.edge;
            index += 1;
            if old {
                outdated.push(*holder);
            }
            !old
        });
        outdated
    }

    /// Notes of so many bytes have gone to its edge. No others do for a while: 512 KiB a second at the most. A client changes them
    /// with a few bytes, and is not told meanwhile that these are handled: then its edge reads no more of it.
    pub(crate) fn rest(&mut self, now: Duration, bytes: usize) {
        let rest = if bytes <= SMALL { Duration::ZERO } else { Duration::from_micros(2 * bytes as u64) };
        self.rests = now + rest;
    }

    /// What is queued under this number is the answer to this stanza.
    pub(crate) fn answers(&mut self, number: u64, sequence: u64) {
        self.answers.push_back((number, sequence));
    }

    /// What is answered with the one of this number; 0: nothing.
    pub(crate) fn answered_by(&self, number: u64) -> u64 {
        let at = self.answers.binary_search_by_key(&number, |(number, _)| *number);
        at.ok().and_then(|at| self.answers.get(at)).map_or(0, |(_, sequence)| *sequence)
    }

    /// Those before this number are not in the queue any more.
    pub(crate) fn forget_answers(&mut self, first: u64) {
        while self.answers.front().is_some_and(|(number, _)| *number < first) {
            self.answers.pop_front();
        }
        if self.answers.is_empty() {
            self.answers.shrink_to(0);
        }
    }

    /// Its client goes on over this connection, the last of the holders: who has what is missing there until all has been sent.
    pub(crate) fn goes_on(&mut self, conn: ConnId) {
        if self.whole || self.lacks.is_none() {
            // An edge takes over itself what it had of the session.
            let before = self.holders.iter().rev().nth(1).map(|holder| holder.edge);
            self.lacks = before.filter(|edge| *edge != conn.edge);
        }
        self.lacks.take_if(|edge| *edge == conn.edge);
        self.whole = false;
    }

    /// The edge that has what is missing at the present one.
    pub(crate) fn before(&self) -> Option<EdgeId> {
        self.lacks.filter(|_| !self.whole)
    }

    /// Its client goes on behind this sequence as far as a home of this reign knows: homes before may have decided more, which
    /// it says again, or not. Whatever it says now is numbered above all that. Returns how many numbers are left out.
    pub(crate) fn numbers_on(&mut self, sequence: u64) -> u64 {
        if sequence >= self.again {
            // It knows of all that it said when this was so the last time.
            self.after = sequence;
        }
        self.matched = 0;
        self.again = sequence + 2 * MAY_BE_AGAIN;
        MAY_BE_AGAIN
    }

    /// Whether what its client asks under this sequence was asked before, and has its answer; once for each.
    pub(crate) fn had_reply(&mut self, sequence: u64, asked: Digest) -> bool {
        if sequence > self.again {
            if self.again > 0 {
                // It has gone on to what is new.
                self.replies = Vec::new();
            }
            return false;
        }
        let Some(at) = self.replies.iter().position(|reply| *reply == asked) else { return false };
        let request = self.replies.remove(at);
        // What is further behind than its credit is handled, and its edge was told so.
        self.replied.retain(|(other, _)| other.saturating_add(MAY_BE_AGAIN) > sequence);
        self.replied.push((sequence, request));
        self.news = true;
        true
    }

    /// Whether [`had_reply`](Self::had_reply) is going to find that.
    pub(crate) fn will_have_reply(&self, sequence: u64, request: &Stanza, own: &BareJid) -> bool {
        sequence <= self.again
            && requests::is_one(request)
            && self.replies.contains(&requests::asked(request, own))
    }

    /// Its client goes on elsewhere, and says again what is above this sequence, also what has its answer.
    pub(crate) fn passes_over(&mut self, sequence: u64) {
        for (answered, request) in std::mem::take(&mut self.answered).into_iter().take(credit::MOST) {
            if answered > sequence && request != 0 {
                self.has_reply(request);
            }
        }
        self.replied = Vec::new();
    }

    /// A home before has answered this request.
    pub(crate) fn has_reply(&mut self, request: Digest) {
        if !self.replies.contains(&request) {
            self.replies.push(request);
        }
    }

    /// What its client may say again under numbers up to [`again`](Self::again): said above the first of these, and up to the
    /// second.
    pub(crate) fn unheard(&self) -> (u64, u64) {
        (self.after.max(self.matched), self.again.saturating_sub(MAY_BE_AGAIN))
    }

    /// A row was acknowledged.
    pub(crate) fn acknowledged(&mut self, position: Position) {
        if position > self.saved && self.unsaved.len() < MAX_UNSAVED {
            self.unsaved.push(position);
        }
    }

    /// Its client has acknowledged these rows by resuming, and is done with all up to the other: what its new edge is to remember
    /// before anything else.
    pub(crate) fn passes(&mut self, (acknowledged, through): (Vec<Position>, Position)) {
        self.carried.clone_from(&self.unsaved);
        self.carried.extend(acknowledged.into_iter().filter(|position| *position > self.saved));
        self.carried.truncate(MAX_UNSAVED);
        self.from = self.from.max(through);
    }

    /// Whatever edge has it now has all of it; returns who may forget it. On its way elsewhere, it may yet turn out to be
    /// where it was.
    pub(crate) fn settled(&mut self) -> SmallVec<[ConnId; 1]> {
        match self.holders.last() {
            Some(last) if self.whole && self.moving.is_none() => self.arrived(*last),
            _ => SmallVec::new(),
        }
    }

    /// The present connection has spoken as one that has the session; returns who may forget it.
    pub(crate) fn arrived(&mut self, conn: ConnId) -> SmallVec<[ConnId; 1]> {
        if self.holders.len() < 2 || self.holders.last() != Some(&conn) {
            return SmallVec::new();
        }
        std::mem::replace(&mut self.holders, smallvec![conn])
            .into_iter()
            .filter(|holder| *holder != conn)
            .collect()
    }
}
