//! Answers that a message was not confirmed: what its session says behind it to the same account is not to be taken before its
//! client has read that.

use super::{Link, Unanswered};
use starling_xmpp::{BareJid, ns};
use std::time::Duration;

/// How long a client that is there takes to hear of a refusal, at most.
const HEARD_WITHIN: Duration = Duration::from_secs(5);

/// The same of one that is yet to be told: it waits for the store.
const TOLD_WITHIN: Duration = Duration::from_secs(60);

/// Accounts of which it is remembered that they have refused something.
const MOST_REFUSED: usize = 64;

/// The last answer that a message to an account was not confirmed.
#[derive(Debug)]
pub(super) struct Refusal {
    to: BareJid,
    /// Its number in the queue.
    number: u64,
    /// Since when there are such answers, and its client is there (monotonic).
    since: Duration,
    /// One of them has been queued since it heard of those before: nobody hears of what waits behind a commit.
    queued: bool,
    /// What its client says up to here was said before it has acknowledged that.
    through: u64,
    /// Among them are some of a home before this one: which messages these were is not known.
    inherited: bool,
    /// The last of these messages.
    last: u64,
}

impl Refusal {
    /// How long its client takes to hear of it.
    fn within(&self) -> Duration {
        if self.queued { HEARD_WITHIN } else { TOLD_WITHIN }
    }
}

impl Link {
    /// What was queued last tells that this message to this account is not confirmed.
    pub(crate) fn refuses(&mut self, to: BareJid, sequence: u64, now: Duration) {
        let number = self.sent;
        self.is_refused(to, sequence, number, now);
    }

    /// The same of what is queued soon: until then it comes after all that is there.
    pub(crate) fn will_refuse(&mut self, to: BareJid, sequence: u64, now: Duration) {
        self.is_refused(to, sequence, u64::MAX, now);
    }

    /// The same of what a home before this one has queued under this number.
    pub(crate) fn was_refused(&mut self, to: BareJid, number: u64, now: Duration) {
        self.is_refused(to, 0, number, now);
        self.refusals.iter_mut().for_each(|refusal| refusal.inherited = true);
    }

    /// The same of one of which its client had heard, and had spoken up to this sequence before.
    pub(crate) fn had_spoken(&mut self, to: BareJid, through: u64, now: Duration) {
        match self.refusals.iter_mut().find(|refusal| refusal.to == to) {
            Some(refusal) => refusal.through = refusal.through.max(through),
            None => {
                let (number, since, queued, inherited, last) = (0, now, true, false, 0);
                self.refusals.push(Refusal { to, number, since, queued, through, inherited, last });
            }
        }
    }

    /// Its client may say again what is or may be in the log.
    pub(crate) fn may_echo(&mut self, now: Duration) {
        if self.echoes.replace(now).is_none() {
            self.note();
        }
    }

    /// Whether it may still, so long after.
    pub(crate) fn echoes(&mut self, now: Duration, window: Duration) -> bool {
        if self.echoes.take_if(|since| now >= *since + window).is_some() {
            self.note();
        }
        self.echoes.is_some()
    }

    fn is_refused(&mut self, to: BareJid, sequence: u64, number: u64, now: Duration) {
        self.may_echo(now);
        let (first, queued, there) = (self.first(), number != u64::MAX, self.conn.is_some());
        match self.refusals.iter_mut().find(|refusal| refusal.to == to) {
            Some(refusal) => {
                let lapsed = there && refusal.since + refusal.within() <= now;
                if refusal.number < first || lapsed {
                    // Of those before it has heard, or nobody waits for that any more: not so of this one.
                    (refusal.since, refusal.queued, refusal.inherited) = (now, queued, false);
                } else if queued && !refusal.queued {
                    (refusal.since, refusal.queued) = (now, true);
                }
                (refusal.number, refusal.last) = (number, sequence.max(refusal.last));
            }
            None => {
                let received = self.received;
                self.refusals.retain(|refusal| refusal.number >= first || refusal.through > received);
                let (through, last, inherited) = (0, sequence, false);
                self.refusals.push(Refusal { to, number, since: now, queued, through, inherited, last });
            }
        }
    }

    /// Its client is about to acknowledge something. Up to this sequence it has spoken before, and that waits until its home can
    /// decide: of none of it has it heard then.
    pub(crate) fn spoke_before(&mut self, sequence: u64) {
        let first = self.first();
        let news = self.refusals.iter_mut().filter(|refusal| refusal.number >= first);
        news.for_each(|refusal| refusal.through = refusal.through.max(sequence));
    }

    /// Whether any refusal is known of which its client may not have heard.
    pub(crate) fn has_refusals(&self) -> bool {
        !self.refusals.is_empty()
    }

    /// Whether a message to this account was not confirmed of which the client may not have heard when it said this: what it has
    /// sent since follows that one. A client that is there and has heard nothing for long is not waited for.
    pub(crate) fn may_overtake(&mut self, to: &BareJid, sequence: u64, now: Duration) -> bool {
        if self.refusals.is_empty() {
            return false;
        }
        let (first, there) = (self.first(), self.conn.is_some());
        self.refusals.retain(|refusal| {
            sequence <= refusal.through
                || refusal.number >= first && !(there && refusal.since + refusal.within() <= now)
        });
        self.refusals.iter().any(|refusal| refusal.to == *to)
    }

    /// Its client is back: from now on it takes so long to hear of refusals.
    pub(crate) fn is_back(&mut self, now: Duration) {
        self.refusals.iter_mut().for_each(|refusal| refusal.since = now);
    }

    /// The client sends this message to this account again, which was refused: it has heard of that, and of those before it. False
    /// where others may have been refused by a home before this one, which are not known when they come again: none of them is
    /// to overtake another.
    pub(crate) fn has_heard(&mut self, to: &BareJid, sequence: u64) -> bool {
        self.refusals.retain(|refusal| refusal.to != *to || refusal.inherited || sequence < refusal.last);
        self.refusals.iter().all(|refusal| refusal.to != *to || !refusal.inherited)
    }

    /// A message of it to this account is not confirmed: takes out what it has sent there since that its client may send again,
    /// and that has no answer yet. Nothing more is waited for, and none of it goes there again.
    pub(crate) fn take_behind(&mut self, to: &BareJid, sequence: u64) -> Vec<(u64, Unanswered)> {
        let (mut last, mut behind) = (sequence, Vec::new());
        self.unsettled.retain_mut(|entry| {
            let follows = |message: &mut Box<Unanswered>| {
                let stanza = &message.stanza;
                let goes = stanza.to.as_ref().is_some_and(|jid| jid.to_bare() == *to);
                goes && stanza.payload.has(ns::SID, "origin-id")
            };
            if entry.sequence <= sequence {
                return true;
            }
            let Some(message) = entry.message.take_if(follows) else { return true };
            last = entry.sequence;
            behind.push((last, *message));
            false
        });
        self.is_cut_off(to, last);
        behind
    }

    /// Nothing that it has sent there up to this one is to come behind what was lost of it.
    fn is_cut_off(&mut self, to: &BareJid, last: u64) {
        match self.refused.iter_mut().find(|(account, _)| account == to) {
            Some((_, refused)) => *refused = last.max(*refused),
            None => {
                if self.refused.len() >= MOST_REFUSED {
                    self.refused.remove(0);
                }
                self.refused.push((to.clone(), last));
            }
        }
    }

    /// A message of a session that has ended goes no further: its client says it again.
    pub(crate) fn leaves_out(&mut self, to: &BareJid, sequence: u64) {
        self.settle(sequence);
        self.is_cut_off(to, sequence);
    }

    /// The last message to this account that was not confirmed.
    pub(crate) fn refused_there(&self, to: &BareJid) -> u64 {
        self.refused.iter().find(|(account, _)| account == to).map_or(0, |(_, sequence)| *sequence)
    }
}
