//! Sessions that have ended and are still recorded, and such as the table has lost. They go together, one batch after the
//! other, and again until it is done: a row of a session that is over would be taken for one whose edge was lost.

use crate::cluster::{LocationOp, RecordError, Register};
use crate::shared::Shared;
use futures::FutureExt;
use futures::future::BoxFuture;
use starling_wire::Token;
use starling_xmpp::FullJid;
use std::collections::{HashSet, VecDeque};
use std::task::{Context, Poll};
use std::time::Duration;

/// How many wait at most. What is beyond that is found by the next reign.
const MOST: usize = 1 << 17;
/// How many go together.
const BATCH: usize = 1_024;
/// How soon one that failed goes again.
const AGAIN: Duration = Duration::from_millis(250);

/// After how many failures sessions that were to be recorded anew are given up.
const MOST_FAILURES: u32 = 16;

/// All of one worker.
#[derive(Default)]
pub(super) struct Unbinding {
    waiting: VecDeque<LocationOp>,
    /// Of all that are not recorded yet.
    tokens: HashSet<Token>,
    /// What is under way, for the case that it fails.
    batch: Vec<LocationOp>,
    flight: Option<BoxFuture<'static, Result<(), RecordError>>>,
    /// Not before.
    again: Option<Duration>,
    /// How often it has failed on end.
    failures: u32,
}

impl Unbinding {
    pub(super) fn push(&mut self, op: LocationOp) {
        if self.waiting.len() >= MOST
            && let Some(LocationOp::Unbind { token, .. }) = self.waiting.pop_front()
        {
            self.tokens.remove(&token);
        }
        if let LocationOp::Unbind { token, .. } = &op {
            self.tokens.insert(*token);
        }
        self.waiting.push_back(op);
    }

    /// A session that had been refused is bound after all. What is under way comes before that, and does not go again.
    pub(super) fn spare(&mut self, token: Token) {
        if self.tokens.remove(&token) {
            let other =
                |op: &LocationOp| !matches!(op, LocationOp::Unbind { token: own, .. } if *own == token);
            self.waiting.retain(other);
            self.batch.retain(other);
        }
    }

    /// A session that was to be recorded anew is over: it does not go again, for its address may be another's by then, and what
    /// is under way is undone.
    pub(super) fn give_up(&mut self, jid: FullJid, token: Token) {
        let other = |op: &LocationOp| match op {
            LocationOp::Bind { token: own, .. } | LocationOp::Move { token: own, .. } => *own != token,
            LocationOp::Unbind { .. } => true,
        };
        self.waiting.retain(other);
        self.batch.retain(other);
        self.push(LocationOp::Unbind { jid, token });
    }

    /// Whether this session has ended, and is still recorded.
    pub(super) fn has(&self, token: Token) -> bool {
        self.tokens.contains(&token)
    }

    pub(super) fn deadline(&self) -> Option<Duration> {
        self.again
    }

    /// Goes on with it; whether sessions were recorded.
    pub(super) fn poll(&mut self, shared: &Shared, now: Duration, cx: &mut Context<'_>) -> bool {
        let mut any = false;
        let Some(tier) = &shared.tier else { return any };
        loop {
            if let Some(flight) = &mut self.flight {
                let Poll::Ready(result) = flight.poll_unpin(cx) else { return any };
                self.flight = None;
                match result {
                    Ok(()) => {
                        self.failures = 0;
                        for op in self.batch.drain(..) {
                            match op {
                                LocationOp::Unbind { token, .. } => drop(self.tokens.remove(&token)),
                                LocationOp::Bind { .. } | LocationOp::Move { .. } => any = true,
                            }
                        }
                    }
                    Err(_) => {
                        self.again = Some(now + AGAIN);
                        self.failures += 1;
                        any |= drop_recorded(&mut self.batch, &*tier.register);
                        if self.failures >= MOST_FAILURES {
                            // There may be no room for them, ever.
                            self.batch.retain(|op| matches!(op, LocationOp::Unbind { .. }));
                        }
                    }
                }
            }
            if self.again.is_some_and(|again| now < again) {
                return any;
            }
            self.again = None;
            if self.batch.is_empty() {
                let most = self.waiting.len().min(BATCH);
                self.batch.extend(self.waiting.drain(..most));
            }
            if self.batch.is_empty() {
                self.waiting.shrink_to(BATCH);
                return any;
            }
            self.flight = Some(tier.register.record(self.batch.clone()));
        }
    }
}

/// It is not known of this batch whether it was recorded. Leaves out the sessions that are, for they may have moved on since;
/// whether there are any.
fn drop_recorded(batch: &mut Vec<LocationOp>, register: &dyn Register) -> bool {
    let before = batch.len();
    batch.retain(|op| match op {
        LocationOp::Unbind { .. } => true,
        LocationOp::Bind { jid, token, .. } | LocationOp::Move { jid, token, .. } => {
            let places = register.places(&jid.as_jid().to_bare());
            !places.iter().any(|place| place.token == *token)
        }
    });
    batch.len() < before
}
