//! What is kept of one session.

use crate::record::{self, Counting, MOST_SPOKEN, Queued, Record};
use crate::{Epoch, Leave, Token, Up};
use bytes::Bytes;
use starling_store::Position;
use starling_xmpp::{BareJid, FullJid, IqType, Kind, StanzaCondition};
use std::collections::VecDeque;
use std::sync::Arc;
use std::time::Duration;

/// The most acknowledged rows that are remembered while no home says that they are saved. Beyond it the oldest are
/// forgotten: should the session be lost with its home, they come a second time, marked as delayed.
const MAX_ACKNOWLEDGED: usize = 1024;

/// One connection, from its first question to `Released`.
#[derive(Debug)]
pub(super) struct Kept {
    pub(super) account: BareJid,
    pub(super) token: Token,
    /// Absent until the home has answered the first question.
    pub(super) jid: Option<FullJid>,
    pub(super) epoch: Epoch,
    /// Questions without an answer, and stanzas that are not handled, in the order in which they were said.
    pub(super) ups: VecDeque<Pending>,
    pub(super) handled: u64,
    /// [`Record::spoken`].
    spoken: Vec<(BareJid, u64)>,
    received: u64,
    first: u64,
    /// It goes on with a session, whose next number only the home knows.
    resumed: bool,
    /// The home has not been told that all of it has arrived here.
    unconfirmed: bool,
    management: Option<Counting>,
    queue: VecDeque<Arc<Queued>>,
    /// How many of the queue the client's `h` counts.
    counting: u32,
    acknowledged: VecDeque<Position>,
    highest: Option<Position>,
    notes: Bytes,
    /// The client's last word on whether its user looks.
    pub(super) active: Option<bool>,
    /// It has been silent for long, and has said nothing since. A ping may have been lost with its home.
    pub(super) idle: bool,
    /// The home has closed the socket. The session is over when it is released, not before.
    pub(super) closed: bool,
    /// The home has said how far it has come, and takes nothing more.
    pub(super) left: bool,
    /// How and when the socket went.
    pub(super) gone: Option<(Leave, Duration)>,
}

/// Something the home has to answer.
#[derive(Debug)]
pub(super) enum Pending {
    Bind {
        resource: Option<compact_str::CompactString>,
    },
    Resume {
        handled: u32,
    },
    Enable {
        resume: bool,
        max: Option<u32>,
    },
    Stanza {
        sequence: u64,
        stanza: starling_xmpp::Stanza,
        fault: Option<Box<starling_xmpp::StanzaError>>,
        trace: Option<crate::Trace>,
        /// It has gone to a home, which may have decided it.
        said: bool,
        /// The same of a home before the present one.
        before: bool,
        /// Its answer has come.
        answered: bool,
    },
}

impl Pending {
    /// It as it is said to a home that has just come; until then there may have been none.
    pub(super) fn say(&mut self, token: Token) -> Up {
        match self {
            Self::Bind { resource } => Up::Bind { token, resource: resource.clone() },
            Self::Resume { handled } => Up::Resume { token, handled: *handled },
            Self::Enable { resume, max } => Up::EnableSm { resume: *resume, max: *max },
            Self::Stanza { sequence, stanza, fault, trace, said, before, .. } => {
                *before = std::mem::replace(said, true);
                Up::Stanza {
                    sequence: *sequence,
                    stanza: stanza.clone(),
                    fault: fault.clone(),
                    trace: *trace,
                    again: *before,
                }
            }
        }
    }

    /// Its sequence, if it has an answer, and what it is known by, if it is a request of that account.
    fn answered(&self, own: &BareJid) -> Option<(u64, u64)> {
        let Self::Stanza { sequence, stanza, answered: true, .. } = self else { return None };
        let asks = matches!(stanza.kind, Kind::Iq(IqType::Get | IqType::Set));
        let to = stanza.to.as_ref().unwrap_or(own.as_jid());
        Some((*sequence, if asks { record::request(stanza.id.as_deref(), Some(to)) } else { 0 }))
    }
}

/// What becomes of a stanza of the home.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Taken {
    /// It is new.
    New,
    /// It has come before.
    Known,
    /// One before it has not come.
    Gap,
}

impl Kept {
    pub(super) fn new(account: BareJid, token: Token, question: Pending) -> Self {
        Self {
            account,
            token,
            jid: None,
            epoch: Epoch::default(),
            ups: VecDeque::from([question]),
            handled: 0,
            spoken: Vec::new(),
            received: 0,
            first: 1,
            resumed: false,
            unconfirmed: false,
            management: None,
            queue: VecDeque::new(),
            counting: 0,
            acknowledged: VecDeque::new(),
            highest: None,
            notes: Bytes::new(),
            active: None,
            idle: false,
            closed: false,
            left: false,
            gone: None,
        }
    }

    /// It as another home needs it; `None` while it is no session yet.
    pub(super) fn record(&self, now: Duration) -> Option<Record> {
        let answered = self.ups.iter().filter_map(|pending| pending.answered(&self.account));
        let (answered, asked) = answered.unzip();
        Some(Record {
            detached: self.gone.map(|(_, since)| now.saturating_sub(since)),
            token: self.token,
            jid: self.jid.clone()?,
            epoch: self.epoch,
            handled: self.handled,
            answered,
            asked,
            spoken: self.spoken.clone(),
            received: self.received,
            first: self.first,
            management: self.management,
            queue: self.queue.iter().cloned().collect(),
            acknowledged: self.acknowledged.iter().copied().collect(),
            highest: self.highest,
            notes: self.notes.clone(),
        })
    }

    /// It is a session now.
    pub(super) fn bound(&mut self, jid: FullJid) {
        self.jid = Some(jid);
        self.answered(|pending| matches!(pending, Pending::Bind { .. }));
    }

    /// It goes on with a session that was bound before.
    pub(super) fn resumed(&mut self, jid: FullJid, sequence: u64, base: u64) {
        let handled = self.ups.iter().find_map(|pending| match pending {
            Pending::Resume { handled } => Some(*handled),
            _ => None,
        });
        let Some(acknowledged) = handled else { return };
        self.jid = Some(jid);
        self.handled = sequence;
        self.first = 0;
        self.resumed = true;
        self.unconfirmed = true;
        self.management = Some(Counting { base, acknowledged });
        self.answered(|pending| matches!(pending, Pending::Resume { .. }));
    }

    /// The answer to `<enable/>`; `None`: it was refused.
    pub(super) fn enabled(&mut self, base: Option<u64>) {
        // An answer that comes twice begins nothing anew.
        if let (Some(base), None) = (base, self.management) {
            self.management = Some(Counting { base, acknowledged: 0 });
        }
        self.answered(|pending| matches!(pending, Pending::Enable { .. }));
    }

    fn answered(&mut self, is_it: impl Fn(&Pending) -> bool) {
        if let Some(at) = self.ups.iter().position(is_it) {
            self.ups.remove(at);
        }
        self.shrink();
    }

    /// Stanzas up to this one are handled.
    pub(super) fn settle(&mut self, sequence: u64) {
        if sequence <= self.handled {
            return;
        }
        self.handled = sequence;
        self.spoken.retain(|(_, through)| *through > sequence);
        let done =
            |pending: &Pending| matches!(pending, Pending::Stanza { sequence: own, .. } if *own <= sequence);
        while self.ups.front().is_some_and(done) {
            self.ups.pop_front();
        }
        // Behind a question that is open there may be some, too.
        if self.ups.front().is_some_and(|first| !matches!(first, Pending::Stanza { .. })) {
            self.ups.retain(|pending| !done(pending));
        }
        self.shrink();
    }

    /// The answer to this stanza has come: no other home is to give another one.
    pub(super) fn is_answered(&mut self, by: u64) {
        // It is among the first as a rule.
        for pending in &mut self.ups {
            if let Pending::Stanza { sequence, answered, .. } = pending
                && *sequence == by
            {
                *answered = true;
                return;
            }
        }
    }

    /// The home leaves, and has come so far with what no `Handled` covers.
    pub(super) fn decided(&mut self, through: u64, open: &[u64]) {
        self.left = true;
        for pending in &mut self.ups {
            let Pending::Stanza { sequence, said, before, answered, .. } = pending else { continue };
            if *sequence > through {
                *said = *before;
            } else if open.binary_search(sequence).is_err() {
                *answered = true;
            }
        }
    }

    fn shrink(&mut self) {
        if self.ups.is_empty() {
            self.ups.shrink_to(0);
        }
    }

    /// A stanza of the home has come.
    pub(super) fn take(&mut self, queued: Queued) -> Taken {
        if self.jid.is_none() {
            return Taken::Gap;
        }
        if self.received == 0 && self.resumed {
            self.first = queued.number;
        } else if queued.number <= self.received {
            return Taken::Known;
        } else if queued.number > self.received + 1 {
            return Taken::Gap;
        }
        self.received = queued.number;
        self.highest = self.highest.max(queued.position);
        self.counting += u32::from(queued.counts);
        self.queue.push_back(Arc::new(queued));
        Taken::New
    }

    /// The client has handled as many. What cannot be is the home's to judge.
    pub(super) fn acknowledge(&mut self, handled: u32) {
        let Some(management) = &mut self.management else { return };
        let mut newly = handled.wrapping_sub(management.acknowledged);
        if newly > self.counting {
            return;
        }
        management.acknowledged = handled;
        while newly > 0 {
            let Some(done) = self.unqueue() else { break };
            newly -= u32::from(done.counts);
            if let Some(to) = record::refused(&done.stanza, StanzaCondition::ResourceConstraint) {
                self.spoke_before(to);
            }
        }
        self.slim();
    }

    /// The client has heard that a message to this account was not confirmed. What no home has handled by now was said before that,
    /// and is not to be taken: it would come before that message, which the client says again.
    fn spoke_before(&mut self, to: BareJid) {
        let last = self.ups.iter().rev().find_map(|pending| match pending {
            Pending::Stanza { sequence, .. } => Some(*sequence),
            _ => None,
        });
        let Some(through) = last else { return };
        self.spoken.retain(|(other, _)| *other != to);
        if self.spoken.len() >= MOST_SPOKEN {
            self.spoken.remove(0);
        }
        self.spoken.push((to, through));
    }

    /// So many were written over this connection. Those that no `h` counts have arrived thereby, as far as anybody knows.
    pub(super) fn written(&mut self, count: u64) {
        let through = self.first.saturating_add(count).saturating_sub(1);
        if self.first == 0 {
            return;
        }
        while self.queue.front().is_some_and(|first| !first.counts && first.number <= through) {
            self.unqueue();
        }
        self.slim();
    }

    fn unqueue(&mut self) -> Option<Arc<Queued>> {
        let first = self.queue.pop_front()?;
        self.counting -= u32::from(first.counts);
        if let Some(position) = first.position.filter(|_| first.waits) {
            // Rows come in the order of their positions, but for what is fed again.
            let at = self.acknowledged.partition_point(|known| *known < position);
            if self.acknowledged.get(at) != Some(&position) {
                self.acknowledged.insert(at, position);
            }
            if self.acknowledged.len() > MAX_ACKNOWLEDGED {
                self.acknowledged.pop_front();
            }
        }
        Some(first)
    }

    fn slim(&mut self) {
        if self.queue.is_empty() {
            self.queue.shrink_to(0);
        }
    }

    /// The store knows of all up to here.
    pub(super) fn saved(&mut self, through: Position) {
        while self.acknowledged.front().is_some_and(|first| *first <= through) {
            self.acknowledged.pop_front();
        }
        if self.acknowledged.is_empty() {
            self.acknowledged.shrink_to(0);
        }
    }

    /// Keeps notes of the home. True when with them all is there of a session that was resumed.
    pub(super) fn remember(&mut self, notes: &Bytes) -> bool {
        // A copy: it must not keep the buffer alive in which it came.
        self.notes = Bytes::copy_from_slice(notes);
        std::mem::take(&mut self.unconfirmed) && self.gone.is_none()
    }

    /// Takes over what the connection before had, as far as the client has not acknowledged it. What the home sends of it
    /// once more is known then.
    pub(super) fn inherit(&mut self, mut old: Self) {
        let (Some(own), Some(theirs)) = (self.management, old.management) else { return };
        if own.acknowledged.wrapping_sub(theirs.acknowledged) > old.counting {
            return; // the session has been at another edge since: the home knows more
        }
        old.acknowledge(own.acknowledged);
        // Who can resume has had all that came before `<enabled/>`, which no `h` counts.
        while old.queue.front().is_some_and(|first| !first.counts) {
            old.unqueue();
        }
        self.received = old.received;
        // Over a connection to which nothing came it is not known where the numbers go on.
        self.resumed = old.resumed;
        if !old.resumed {
            self.first = old.queue.front().map_or(old.received + 1, |first| first.number);
        }
        self.queue = old.queue;
        self.counting = old.counting;
        self.acknowledged = old.acknowledged;
        self.highest = old.highest;
        if self.notes.is_empty() {
            self.notes = old.notes;
        }
    }

    pub(super) fn queue(&self) -> impl Iterator<Item = &Queued> {
        self.queue.iter().map(|queued| &**queued)
    }

    pub(super) fn queued(&self) -> usize {
        self.queue.len()
    }
}
