//! Trying again: how often, how long, and what is known when it has failed.
//!
//! The same change is sent again with the same timestamp, so it does not matter how often it arrives. What matters is
//! what is known of it in the end: that it was done, that it certainly never was, or that it is in doubt.

use crate::cql::{Answer, Cql, CqlError, Mutation};
use crate::gate::{Entry, Gate, Places};
use crate::settings::Settings;
use futures::future::{Either, join_all, select};
use parking_lot::Mutex;
use starling_store::StoreError;
use starling_store::codec::damaged;
use std::sync::Arc;
use std::time::Duration;

/// The wait before the second attempt; it doubles with each.
const FIRST_WAIT: Duration = Duration::from_millis(50);
const LONGEST_WAIT: Duration = Duration::from_millis(800);
/// Attempts beyond the second that may be made in a row, and how many calls that succeed earn one more.
const SAVINGS: u32 = 100;
const CALLS_PER_ATTEMPT: u32 = 10;

/// A server with patience.
pub(crate) struct Calls<C> {
    pub(crate) cql: Arc<C>,
    pub(crate) settings: Settings,
    pub(crate) gate: Arc<Gate>,
    /// What takes several requests one behind the other: so many at once as get their places in time.
    pub(crate) loads: Arc<Gate>,
    savings: Savings,
}

/// Why a call was given up.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Failure {
    /// Some attempt may have been done, or may be yet.
    pub(crate) doubt: bool,
    /// The last answer.
    pub(crate) last: CqlError,
}

/// What is known of changes that belong together.
#[derive(Debug, Clone)]
pub(crate) enum Outcome {
    /// All of them are durable.
    Written,
    /// Certainly none was made.
    Nothing(StoreError),
    /// Some may have been made, or may be yet.
    Doubt(StoreError),
}

impl Failure {
    /// As a read that failed.
    pub(crate) fn of_read(self) -> StoreError {
        match self.last {
            CqlError::Overloaded(_) => StoreError::Overloaded,
            // No bad weather: it would be the same the next time.
            CqlError::Unreadable(column) => damaged(column),
            last => StoreError::Unavailable(last.to_string()),
        }
    }

    /// As a call after which nobody knows what was written.
    pub(crate) fn in_doubt(self) -> StoreError {
        StoreError::Unavailable(self.last.to_string())
    }
}

impl<C: Cql> Calls<C> {
    pub(crate) fn new(cql: Arc<C>, settings: Settings) -> Self {
        let gate = Gate::new(settings.in_flight, settings.waiting, Arc::clone(&settings.metrics));
        // Counted apart: a load that waits here has no request yet.
        let loads = Gate::new(settings.in_flight, settings.waiting, Arc::default());
        Self { cql, settings, gate, loads, savings: Savings::new() }
    }

    /// The moment at which something that begins now and may take so long is to be given up.
    pub(crate) fn deadline(&self, time: Duration) -> Duration {
        self.cql.monotonic() + time
    }

    /// Waits for places.
    pub(crate) async fn places(&self, places: usize, until: Duration) -> Result<Places, CqlError> {
        self.enter(&self.gate, places, until).await
    }

    /// Waits until a load may begin. Its time begins then: were it to count the wait, those that wait for each other's
    /// requests would all be given up half-way, and again and again.
    pub(crate) async fn load(&self) -> Result<Places, StoreError> {
        let until = self.deadline(self.settings.read_deadline);
        let entered = self.enter(&self.loads, 1, until).await;
        entered.map_err(|last| Failure { doubt: false, last }.of_read())
    }

    async fn enter(&self, gate: &Arc<Gate>, places: usize, until: Duration) -> Result<Places, CqlError> {
        let busy = |why: &str| CqlError::Overloaded(why.to_owned());
        match gate.enter(places) {
            Entry::Open(places) => Ok(places),
            Entry::Full => Err(busy("too many requests wait")),
            Entry::Queued(woken) => {
                let left = until.saturating_sub(self.cql.monotonic());
                match select(woken, self.cql.sleep(left)).await {
                    Either::Left((Ok(places), _)) => Ok(places),
                    _ => Err(busy("no place in time")),
                }
            }
        }
    }

    /// Makes attempts until one succeeds, or it is of no use, or the time is over. Waits for no place.
    pub(crate) async fn call<T>(
        &self,
        until: Duration,
        mut attempt: impl FnMut(u32) -> Answer<T>,
    ) -> Result<T, Failure> {
        let mut doubt = false;
        let mut wait = FIRST_WAIT;
        let mut count = 0;
        loop {
            count += 1;
            let last = match self.attempt(until, attempt(count)).await {
                Ok(answer) => {
                    self.savings.earn();
                    return Ok(answer);
                }
                Err(error) => error,
            };
            doubt |= matches!(last, CqlError::Unknown(_));
            let left = until.saturating_sub(self.cql.monotonic());
            if left <= wait || !self.again(count, &last) {
                return Err(Failure { doubt, last });
            }
            self.settings.metrics.store_retries.inc();
            self.cql.sleep(wait).await;
            wait = (wait * 2).min(LONGEST_WAIT);
        }
    }

    /// A conditional write: it is tried again only while it certainly was not made, for it might be made twice. Waits for
    /// no place.
    pub(crate) async fn once(
        &self,
        until: Duration,
        mut attempt: impl FnMut() -> Answer<bool>,
    ) -> Result<bool, Failure> {
        let mut wait = FIRST_WAIT;
        let mut count = 0;
        loop {
            count += 1;
            let last = match self.attempt(until, attempt()).await {
                Ok(answer) => {
                    self.savings.earn();
                    return Ok(answer);
                }
                Err(error) => error,
            };
            let doubt = matches!(last, CqlError::Unknown(_));
            let left = until.saturating_sub(self.cql.monotonic());
            if doubt || left <= wait || !self.again(count, &last) {
                return Err(Failure { doubt, last });
            }
            self.settings.metrics.store_retries.inc();
            self.cql.sleep(wait).await;
            wait = (wait * 2).min(LONGEST_WAIT);
        }
    }

    /// A read, with its place.
    pub(crate) async fn read<T>(
        &self,
        until: Duration,
        mut attempt: impl FnMut() -> Answer<T>,
    ) -> Result<T, StoreError> {
        let _places = self.places(1, until).await.map_err(|last| Failure { doubt: false, last }.of_read())?;
        self.call(until, |_| attempt()).await.map_err(Failure::of_read)
    }

    /// One change of one partition. Waits for no place.
    pub(crate) async fn write(&self, mutation: Mutation, until: Duration) -> Result<(), Failure> {
        self.call(until, |attempt| self.cql.write(Mutation { attempt, ..mutation.clone() })).await
    }

    /// Changes that belong together, side by side.
    pub(crate) async fn write_all(&self, mutations: Vec<Mutation>, until: Duration) -> Outcome {
        if mutations.is_empty() {
            return Outcome::Written;
        }
        let Ok(_places) = self.places(mutations.len(), until).await else {
            return Outcome::Nothing(StoreError::Overloaded);
        };
        let answers = join_all(mutations.into_iter().map(|mutation| self.write(mutation, until))).await;
        Outcome::of(answers)
    }

    async fn attempt<T>(&self, until: Duration, answer: Answer<T>) -> Result<T, CqlError> {
        let left = until.saturating_sub(self.cql.monotonic()).min(self.settings.attempt_timeout);
        match select(answer, self.cql.sleep(left)).await {
            Either::Left((answer, _)) => answer,
            Either::Right(_) => Err(CqlError::Unknown("no answer in time".to_owned())),
        }
    }

    fn again(&self, attempts: u32, last: &CqlError) -> bool {
        match last {
            CqlError::Invalid(_) | CqlError::Unreadable(_) => false,
            // A server that has too much to do is not given more of it for nothing.
            CqlError::Overloaded(_) => self.savings.spend(),
            CqlError::Unknown(_) | CqlError::Refused(_) => attempts == 1 || self.savings.spend(),
        }
    }
}

impl Outcome {
    fn of(answers: Vec<Result<(), Failure>>) -> Self {
        let mut written = false;
        let mut doubt = false;
        let mut failed = None;
        for answer in answers {
            match answer {
                Ok(()) => written = true,
                Err(failure) => {
                    // What is rejected will be rejected again: it is an error of ours and no overload.
                    doubt |= failure.doubt
                        || matches!(failure.last, CqlError::Invalid(_) | CqlError::Unreadable(_));
                    failed = Some(failure.last);
                }
            }
        }
        match failed {
            None => Self::Written,
            Some(last) if written || doubt => Self::Doubt(StoreError::Unavailable(last.to_string())),
            Some(_) => Self::Nothing(StoreError::Overloaded),
        }
    }
}

/// A tenth of an attempt for each call that succeeded.
struct Savings(Mutex<u32>);

impl Savings {
    fn new() -> Self {
        Self(Mutex::new(SAVINGS * CALLS_PER_ATTEMPT))
    }

    fn earn(&self) {
        let mut saved = self.0.lock();
        *saved = (*saved + 1).min(SAVINGS * CALLS_PER_ATTEMPT);
    }

    fn spend(&self) -> bool {
        let mut saved = self.0.lock();
        let enough = *saved >= CALLS_PER_ATTEMPT;
        if enough {
            *saved -= CALLS_PER_ATTEMPT;
        }
        enough
    }
}
