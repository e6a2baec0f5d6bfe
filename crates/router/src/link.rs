//! One session's two directions: what it has sent and is not settled, what it was sent and has not acknowledged.

mod feed;
mod refusals;

pub(crate) use self::feed::Feed;
use self::refusals::Refusal;
use crate::aside::Aside;
use crate::config::RouterConfig;
use crate::far::Far;
use crate::recognise::{Before, origin_id};
use crate::requests;
use starling_hooks::roster_push;
use starling_store::{Origin, Position};
use starling_wire::{ConnId, Down, Token, Trace};
use starling_xmpp::{BareJid, FullJid, IqType, Kind, Stanza, Timestamp, sm};
use std::collections::VecDeque;
use std::time::Duration;

/// How a message concerns a session.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum As {
    /// It is for this session.
    Itself,
    /// A copy of what another session of the account received (XEP-0280).
    CopyReceived,
    /// A copy of what another session of the account sent.
    CopySent,
}

/// Stanzas that a record of a session has room for.
const MOST_TOLD: usize = 90_000;

/// A stanza sent to the client and not acknowledged (with stream management) or not written (without).
#[derive(Debug)]
pub(crate) struct Unacked {
    /// Kept for sending it again: with stream management, and where it may be lost on its way to the edge.
    pub(crate) stanza: Option<Stanza>,
    /// Its row, when it has one.
    pub(crate) position: Option<Position>,
    /// The row waits for an acknowledgement of this session.
    pub(crate) waits: bool,
    pub(crate) size: u32,
    /// It is a request that the client has answered.
    pub(crate) answered: bool,
    /// The trace it belongs to: that of few.
    pub(crate) trace: Option<Box<Trace>>,
}

/// The row of a stanza that is sent to a session.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Row {
    pub(crate) position: Position,
    /// It waits for an acknowledgement of this session; a copy does not.
    pub(crate) waits: bool,
}

/// A stanza of the client that is taken and not settled.
#[derive(Debug)]
struct Unsettled {
    sequence: u64,
    /// A message that other homes or the store have a say in.
    message: Option<Box<Unanswered>>,
}

impl Unsettled {
    fn sent(&self) -> Option<&Sent> {
        self.message.as_ref().and_then(|message| message.sent.as_ref())
    }

    fn goes_to(&self, to: &BareJid) -> bool {
        self.sent().is_some_and(|sent| sent.to == *to)
    }
}

/// A message whose sender has no answer yet.
#[derive(Debug)]
pub(crate) struct Unanswered {
    /// Since when it waits for one (monotonic).
    pub(crate) since: Duration,
    /// Under which it may be kept.
    pub(crate) origin: Origin,
    pub(crate) stanza: Stanza,
    /// When it went to the home of another shard.
    pub(crate) sent: Option<Sent>,
}

/// A message on its way to the home of another shard.
#[derive(Debug)]
pub(crate) struct Sent {
    /// The recipient.
    pub(crate) to: BareJid,
    /// When it was sent last (monotonic).
    pub(crate) at: Duration,
    /// The same, if it was sent more than once.
    pub(crate) again: Option<Duration>,
    /// Its client may have sent it before, in a session that ended then.
    pub(crate) resent: Option<Duration>,
    /// To a home before this one.
    pub(crate) before: Before,
    /// It has not gone yet: it waits for the receipt of what the session that its address had before has sent there.
    pub(crate) held: bool,
    /// It may have gone before, to the home that its recipient has or to one before that.
    pub(crate) gone: bool,
    /// The trace it belongs to.
    pub(crate) trace: Option<Trace>,
}

/// Stream management of a session (XEP-0198).
#[derive(Debug)]
pub(crate) struct Management {
    /// The session can be resumed.
    pub(crate) resume: bool,
    /// For how long at most its client asked to be able to.
    pub(crate) max: Option<u32>,
    /// Sequence at which counting of the client's stanzas began.
    pub(crate) base: u64,
    /// The client's last `h`.
    pub(crate) acked: u32,
    /// Stanzas numbered since `<enabled/>`.
    pub(crate) sent: u32,
    /// How many entries at the front of the queue are from before `<enabled/>`: they end by being written.
    pub(crate) before: usize,
    /// Since when an `<r/>` is out (monotonic).
    pub(crate) asked_at: Option<Duration>,
}

/// The moving part of a session.
#[derive(Debug)]
pub(crate) struct Link {
    pub(crate) token: Token,
    /// Its connection; `None` while it is detached.
    pub(crate) conn: Option<ConnId>,
    /// A resumption waits for what the old connection sent to be settled; the number of stanzas the client says it has handled.
    pub(crate) resuming: Option<u32>,
    pub(crate) since: Timestamp,
    /// Since when it is detached (monotonic).
    pub(crate) detached_at: Option<Duration>,
    /// Highest sequence taken from the client.
    pub(crate) received: u64,
    /// Up to where a home before this one may have taken, or refused, what it said.
    pub(crate) before: u64,
    /// By sequence, rising.
    unsettled: VecDeque<Unsettled>,
    /// Has sent a message with an `origin-id`, which its client may send again should it lose the session.
    pub(crate) may_resend: bool,
    /// When there last was something that its client may say again, of another session or of what was refused in this one
    /// (monotonic); `None`: there is nothing, whoever was its home.
    pub(crate) echoes: Option<Duration>,
    /// Number of the last stanza that was sent to it.
    pub(crate) sent: u64,
    /// Highest sequence that the edge was told is handled.
    pub(crate) announced: u64,
    pub(crate) queue: VecDeque<Unacked>,
    queued_bytes: usize,
    queued_stored: usize,
    /// Stanzas the edge has written over this connection.
    pub(crate) written: u64,
    pub(crate) management: Option<Box<Management>>,
    /// An error for one of its stanzas was lost for want of room: nothing is called handled any more, and it ends. Of a session
    /// that has ended: its client is back.
    pub(crate) mute: bool,
    /// A deadline for its next `<a/>` is set.
    pub(crate) awaited: bool,
    pub(crate) feed: Feed,
    /// Answers to messages that were not confirmed and that its client may not have yet.
    refusals: Vec<Refusal>,
    /// Up to where homes of this process have refused what it sent to an account.
    refused: Vec<(BareJid, u64)>,
    /// What waits while nobody looks (XEP-0352), or for want of room.
    pub(crate) held: Aside,
    /// Its edge, where that is another process.
    pub(crate) far: Option<Box<Far>>,
}

impl Link {
    pub(crate) fn new(token: Token, conn: ConnId, since: Timestamp) -> Self {
        Self {
            token,
            conn: Some(conn),
            resuming: None,
            since,
            detached_at: None,
            received: 0,
            before: 0,
            unsettled: VecDeque::new(),
            may_resend: false,
            echoes: None,
            sent: 0,
            announced: 0,
            queue: VecDeque::new(),
            queued_bytes: 0,
            queued_stored: 0,
            written: 0,
            management: None,
            mute: false,
            awaited: false,
            feed: Feed::default(),
            refusals: Vec::new(),
            refused: Vec::new(),
            held: Aside::default(),
            far: None,
        }
    }

    /// A stanza of the client is taken.
    pub(crate) fn take(&mut self, sequence: u64) {
        self.received = sequence;
        self.unsettled.push_back(Unsettled { sequence, message: None });
    }

    /// A home before this one may have taken this stanza, or refused it: which of the two, nobody knows here.
    pub(crate) fn was_decided(&mut self, sequence: u64) {
        self.before = self.before.max(sequence);
    }

    /// All that this stanza stands for is done.
    pub(crate) fn settle(&mut self, sequence: u64) {
        if let Some(index) = self.place(sequence) {
            self.unsettled.remove(index);
        }
        if self.unsettled.is_empty() {
            self.unsettled.shrink_to(0);
        }
    }

    /// The stanza that was just taken is a message, and is answered when this is.
    pub(crate) fn awaits(&mut self, sequence: u64, message: Unanswered) {
        if let Some(last) = self.unsettled.back_mut().filter(|last| last.sequence == sequence) {
            last.message = Some(Box::new(message));
        }
    }

    /// Since when the oldest message waits for an answer.
    pub(crate) fn waits_since(&self) -> Option<Duration> {
        self.unsettled.iter().find_map(|entry| entry.message.as_ref()).map(|message| message.since)
    }

    /// Settles the oldest message if it has waited since before this moment.
    pub(crate) fn overdue(&mut self, before: Duration) -> Option<(u64, Unanswered)> {
        let index = self.unsettled.iter().position(|entry| entry.message.is_some())?;
        let entry = self.unsettled.get_mut(index)?;
        let message = entry.message.take_if(|message| message.since <= before)?;
        let sequence = entry.sequence;
        self.settle(sequence);
        Some((sequence, *message))
    }

    /// Whether the home before this one may have taken it.
    pub(crate) fn may_be_again(&self, sequence: u64) -> bool {
        self.far.as_ref().is_some_and(|far| sequence <= far.again)
    }

    /// What its client had said before it said this, and may be saying again with it.
    pub(crate) fn said_before(&self, sequence: u64) -> Before {
        let unheard = self.far.as_ref().filter(|far| sequence <= far.again).map(|far| far.unheard());
        // Behind a resumption it says again what a home before had refused, and once more when it has read that.
        let again = self.far.as_ref().map_or(0, |far| far.again);
        Before { through: self.before.max(again.min(sequence)), unheard: unheard.unwrap_or_default() }
    }

    /// Whether this stanza came before, over a link that was broken since.
    pub(crate) fn has_taken(&self, sequence: u64) -> bool {
        self.far.is_some() && sequence <= self.received
    }

    /// Whether the home before this one has answered this stanza, and nobody knows what else it may have done.
    pub(crate) fn was_answered(&self, sequence: u64) -> bool {
        self.far.as_ref().is_some_and(|far| {
            far.answered.binary_search_by_key(&sequence, |(answered, _)| *answered).is_ok()
        })
    }

    /// Whether its client says a request again, behind a resumption, that a home before this one has answered.
    pub(crate) fn had_answer(&mut self, sequence: u64, request: &Stanza, own: &BareJid) -> bool {
        let far = self.far.as_mut().filter(|far| requests::is_one(request) && !far.replies.is_empty());
        far.is_some_and(|far| far.had_reply(sequence, requests::asked(request, own)))
    }

    /// Whether one before it has not come: it is said again, with all that follow.
    pub(crate) fn has_missed(&self, sequence: u64) -> bool {
        self.far.is_some() && sequence > self.received + 1
    }

    /// A message that has no answer yet.
    pub(crate) fn message(&self, sequence: u64) -> Option<&Unanswered> {
        let entry = self.place(sequence).and_then(|index| self.unsettled.get(index))?;
        entry.message.as_deref()
    }

    /// Whether a message of this id to this account has no answer yet.
    pub(crate) fn waits_with(&self, id: &str, to: &BareJid) -> bool {
        self.unsettled.iter().filter_map(|entry| entry.message.as_ref()).any(|message| {
            message.stanza.to.as_ref().is_some_and(|jid| jid.to_bare() == *to)
                && origin_id(&message.stanza).is_some_and(|own| own == id)
        })
    }

    /// A message goes to the home of another shard.
    pub(crate) fn sends(&mut self, sequence: u64, sent: Sent) {
        let entry = self.place(sequence).and_then(|index| self.unsettled.get_mut(index));
        if let Some(message) = entry.and_then(|entry| entry.message.as_mut()) {
            message.sent = Some(sent);
        }
    }

    /// The last message there, before this one, that has no receipt.
    pub(crate) fn unreceipted(&self, to: &BareJid, before: u64) -> Option<u64> {
        let mut earlier = self.unsettled.iter().rev().skip_while(|entry| entry.sequence >= before);
        earlier.find(|entry| entry.goes_to(to)).map(|entry| entry.sequence)
    }

    /// All messages there that have no receipt, in order.
    pub(crate) fn waiting_for<'a>(
        &'a mut self,
        to: &'a BareJid,
    ) -> impl Iterator<Item = (u64, &'a mut Unanswered)> {
        let waiting = self.unsettled.iter_mut().filter(|entry| entry.goes_to(to));
        waiting.filter_map(|entry| Some((entry.sequence, &mut **entry.message.as_mut()?)))
    }

    /// Where messages went, by this moment or before, that have no receipt.
    pub(crate) fn unanswered(&self, by: Duration) -> Vec<BareJid> {
        self.recipients(|sent| sent.at <= by)
    }

    /// Where messages are to go that wait for those of the session before.
    pub(crate) fn held(&self) -> Vec<BareJid> {
        self.recipients(|sent| sent.held)
    }

    fn recipients(&self, of: impl Fn(&Sent) -> bool) -> Vec<BareJid> {
        let mut all = Vec::new();
        for sent in self.unsettled.iter().filter_map(Unsettled::sent).filter(|sent| of(sent)) {
            if !all.contains(&sent.to) {
                all.push(sent.to.clone());
            }
        }
        all
    }

    /// When the first of them went.
    pub(crate) fn unanswered_since(&self) -> Option<Duration> {
        self.unsettled.iter().filter_map(Unsettled::sent).map(|sent| sent.at).min()
    }

    /// Whether this stanza has its answer.
    pub(crate) fn has_settled(&self, sequence: u64) -> bool {
        self.place(sequence).is_none()
    }

    fn place(&self, sequence: u64) -> Option<usize> {
        // Most are settled in the order in which they came.
        match self.unsettled.front() {
            Some(first) if first.sequence == sequence => Some(0),
            _ => self.unsettled.binary_search_by_key(&sequence, |entry| entry.sequence).ok(),
        }
    }

    /// Everything up to here is settled.
    pub(crate) fn handled(&self) -> u64 {
        self.unsettled.front().map_or(self.received, |first| first.sequence - 1)
    }

    /// Whether a message of it has no answer yet.
    pub(crate) fn waits_for_others(&self) -> bool {
        self.unsettled.iter().any(|entry| entry.message.is_some())
    }

    /// Whether a message of it was decided and has not left for the home of its recipient yet, if that is another one.
    pub(crate) fn has_to_leave(&self) -> bool {
        let message =
            |entry: &Unsettled| entry.message.as_ref().is_some_and(|message| message.sent.is_none());
        self.unsettled.iter().any(message)
    }

    /// It has ended, and its client is back: nothing of it goes again.
    pub(crate) fn is_past(&self) -> bool {
        self.mute && self.far.as_ref().is_some_and(|far| far.parted.is_some())
    }

    /// The address that it had, when it is over.
    pub(crate) fn address(&self) -> Option<&FullJid> {
        self.far.as_ref().and_then(|far| far.parted.as_ref())
    }

    /// Whether it is the session that this address had before.
    pub(crate) fn was(&self, jid: &FullJid) -> bool {
        self.address() == Some(jid)
    }

    /// Nothing is on its way.
    pub(crate) fn is_settled(&self) -> bool {
        self.unsettled.is_empty()
    }

    /// What is queued next is the answer to this stanza, if to any.
    pub(crate) fn will_answer(&mut self, sequence: u64) {
        let number = self.sent + 1;
        if let Some(far) = self.far.as_mut().filter(|_| sequence > 0) {
            far.answers(number, sequence);
        }
    }

    /// Whether less than so many bytes are unacknowledged, in a number that a record of it has room for.
    pub(crate) fn is_below(&self, bytes: usize) -> bool {
        self.queued_bytes < bytes && self.queue.len() < MOST_TOLD
    }

    /// Adds what was just sent (or would have been, were the session not detached).
    pub(crate) fn queue(&mut self, stanza: Stanza, row: Option<Row>, trace: Option<Trace>) {
        if let Some(management) = &mut self.management {
            management.sent = management.sent.wrapping_add(1);
        }
        self.sent += 1;
        self.keep(stanza, row, trace);
    }

    /// Adds what was sent before.
    pub(crate) fn keep(&mut self, stanza: Stanza, row: Option<Row>, trace: Option<Trace>) {
        let size = u32::try_from(stanza.encoded_len()).unwrap_or(u32::MAX);
        let (position, waits) = (row.map(|row| row.position), row.is_some_and(|row| row.waits));
        self.queued_bytes += size as usize;
        self.queued_stored += usize::from(waits);
        if let (Some(far), Some(position)) = (&mut self.far, position) {
            far.highest = far.highest.max(position);
            far.sent = far.sent.max(position);
        }
        if let Some((far, version)) = self.far.as_mut().zip(roster_push::pushed(&stanza)) {
            far.news |= far.listed < Some(version);
            far.listed = far.listed.max(Some(version));
        }
        let stanza = (self.management.is_some() || self.far.is_some()).then_some(stanza);
        let trace = trace.map(Box::new);
        self.queue.push_back(Unacked { stanza, position, waits, size, answered: false, trace });
    }

    /// The client answers a request that it need not have acknowledged.
    pub(crate) fn has_answered(&mut self, answer: &Stanza) {
        let is_it = |stanza: &Stanza| {
            matches!(stanza.kind, Kind::Iq(IqType::Get | IqType::Set))
                && stanza.id == answer.id
                && stanza.from == answer.to
        };
        let request = self.queue.iter_mut().find(|entry| entry.stanza.as_ref().is_some_and(is_it));
        if let Some(request) = request {
            request.answered = true;
        }
    }

    /// Whether stanzas go to its connection now, or only into its queue.
    pub(crate) fn hears(&self) -> Option<ConnId> {
        let takes = |far: &Far| !far.quiet && !far.repeats && far.gone.is_none();
        self.conn.filter(|_| self.resuming.is_none() && self.far.as_deref().is_none_or(takes))
    }

    /// The connection whose edge keeps what it is sent, if that is known there by now.
    pub(crate) fn keeper(&self) -> Option<ConnId> {
        let far = self.far.as_deref().filter(|far| far.bound && !far.quiet && !far.repeats)?;
        // Where it is about to go on, nothing of it is yet.
        let next = self.resuming.and(self.conn);
        far.holders.iter().rev().find(|holder| Some(**holder) != next).copied()
    }

    /// Up to where its stanzas were taken, and which of them are not settled. `None`: some are, and their client does not have
    /// the error.
    pub(crate) fn decided(&self) -> Option<(u64, Vec<u64>)> {
        let open = self.unsettled.iter().map(|entry| entry.sequence).collect();
        (!self.mute).then_some((self.received, open))
    }

    /// What its connection is told of the stanza that is queued next.
    pub(crate) fn next(&self, stanza: Stanza, row: Option<Row>, trace: Option<Trace>) -> Down {
        self.told(self.sent + 1, self.management.is_some(), stanza, row, trace)
    }

    /// What it is told of those in the queue whose number is above this one.
    pub(crate) fn queued(&self, after: u64) -> impl Iterator<Item = Down> {
        let first = self.first();
        let before = self.management.as_ref().map_or(usize::MAX, |management| management.before);
        self.queue.iter().enumerate().filter_map(move |(index, entry)| {
            let number = first + index as u64;
            let stanza = entry.stanza.as_ref().filter(|_| number > after)?;
            let row = entry.position.map(|position| Row { position, waits: entry.waits });
            let trace = entry.trace.as_deref().copied();
            Some(self.told(number, index >= before, stanza.clone(), row, trace))
        })
    }

    /// Number of the first one in the queue, or of the next.
    pub(crate) fn first(&self) -> u64 {
        self.sent + 1 - self.queue.len() as u64
    }

    fn told(
        &self,
        number: u64,
        counts: bool,
        stanza: Stanza,
        row: Option<Row>,
        trace: Option<Trace>,
    ) -> Down {
        let Some(far) = &self.far else {
            // An edge in this process keeps nothing.
            return Down::Stanza {
                number: 0,
                position: None,
                waits: false,
                counts: false,
                stanza,
                answers: 0,
                trace,
            };
        };
        let answers = far.answered_by(number);
        let (position, waits) = (row.map(|row| row.position), row.is_some_and(|row| row.waits));
        Down::Stanza { number, position, waits, counts, stanza, answers, trace }
    }

    /// Its edge has to remember something new of it.
    pub(crate) fn note(&mut self) {
        if let Some(far) = &mut self.far {
            far.news = true;
        }
    }

    /// Takes the oldest entry off.
    pub(crate) fn unqueue(&mut self) -> Option<Unacked> {
        let entry = self.queue.pop_front()?;
        self.queued_bytes -= entry.size as usize;
        self.queued_stored -= usize::from(entry.waits);
        if self.queue.is_empty() {
            self.queue.shrink_to(0);
        }
        let first = self.first();
        if let Some(far) = self.far.as_mut().filter(|far| !far.answers.is_empty()) {
            far.forget_answers(first);
        }
        Some(entry)
    }

    /// Whether one more stored message fits.
    pub(crate) fn can_take(&self, config: &RouterConfig, window: usize) -> bool {
        self.queued_stored < window && self.has_room(config)
    }

    /// Whether one more stanza of any kind fits. What is only to be written is bounded by its bytes: a count of stanzas
    /// is a bound on what is kept for sending it again.
    pub(crate) fn has_room(&self, config: &RouterConfig) -> bool {
        let few = self.management.is_none() || self.queue.len() < config.max_unacked;
        few && self.queued_bytes < config.max_unacked_bytes
    }

    /// Whether so many more fit, whole, and a small one behind them.
    pub(crate) fn has_room_for(&self, stanzas: usize, bytes: usize, config: &RouterConfig) -> bool {
        self.queue.len() + stanzas < config.max_unacked
            && self.queued_bytes + bytes < config.max_unacked_bytes
    }

    /// Takes the client's `h`; returns how many entries it has acknowledged.
    pub(crate) fn acknowledged(&mut self, handled: u32) -> Result<u32, sm::HandledTooHigh> {
        let Some(management) = &mut self.management else { return Ok(0) };
        // What waited here while its edge named the session anew is older than what that told. Before its first
        // acknowledgement there is nothing older: a count from before zero is too high.
        let behind = management.acked.wrapping_sub(handled);
        if self.far.is_some() && (1..=management.acked.min(u32::MAX / 2)).contains(&behind) {
            return Ok(0);
        }
        let newly = sm::acked(management.acked, handled, management.sent)?;
        management.acked = handled;
        management.asked_at = None;
        Ok(newly)
    }
}

#[cfg(test)]
mod tests;
