//! What waits for accounts is counted: one account at a time, a page at a time, behind all that somebody waits for.

use super::*;
use crate::count::Amount;
use crate::reads;
use starling_store::{LogFilter, Page, Position};

/// Accounts that may wait for that.
const MAX_QUEUED: usize = 4_096;
/// Rows of a page.
const PAGE: usize = 200;
/// Commits and reads of a worker that are few.
const FEW: usize = 8;
/// Between two pages while that is so.
const PAUSE: Duration = Duration::from_millis(20);
/// And while it is not.
const LONG_PAUSE: Duration = Duration::from_secs(1);
/// A page that has not come within this time does not come any more.
const LOST: Duration = Duration::from_secs(60);
/// What could not be counted is not counted again before.
const AGAIN: Duration = Duration::from_secs(30);

/// Accounts to be counted, and the one that is.
#[derive(Default)]
pub(super) struct Counting {
    queue: VecDeque<BareJid>,
    current: Option<Current>,
    /// When the last page came.
    paged: Duration,
    /// When it will be looked whether to go on.
    look: Option<Duration>,
}

struct Current {
    account: BareJid,
    life: u64,
    sum: Amount,
    above: Position,
    through: Position,
    /// Since when a page is being read.
    reading: Option<Duration>,
}

impl Worker {
    /// Goes on with it if it is time.
    pub(super) fn go_on_counting(&mut self, turn: &Turn) {
        let now = turn.monotonic;
        if let Some(current) = &self.counting.current {
            match current.reading {
                Some(since) if now < since + LOST => return,
                Some(_) => self.end_count(None, now),
                None => {}
            }
        }
        if self.counting.current.is_none() && self.counting.queue.is_empty() {
            return;
        }
        let calm = self.pipeline.under_way() <= FEW && self.reads.len() <= FEW;
        let next = self.counting.paged + if calm { PAUSE } else { LONG_PAUSE };
        if now >= next {
            return self.count_page(now);
        }
        if self.counting.look.is_none_or(|at| at <= now || next < at)
            && let Some(account) = self.counting.account()
        {
            self.counting.look = Some(next);
            self.timers.set(next, account, Why::Count);
        }
    }

    /// Asks for the next page.
    fn count_page(&mut self, now: Duration) {
        while self.counting.current.is_none() {
            let Some(account) = self.counting.queue.pop_front() else { return };
            let Some(Slot::Ready(home)) = self.homes.get_mut(&account) else { continue };
            if home.doubt.is_some() {
                // What is there will be known later. The next message that is kept asks again.
                home.count.fails(now);
                continue;
            }
            home.count.starts();
            let Some(above) = home.deliveries.waiting_above() else {
                home.count.ends(Amount::default());
                continue;
            };
            let (life, through, sum) = (home.life, home.last, Amount::default());
            self.counting.current = Some(Current { account, life, sum, above, through, reading: None });
        }
        let Some(current) = &mut self.counting.current else { return };
        current.reading = Some(now);
        let (account, through) = (current.account.clone(), current.through);
        let filter = LogFilter {
            offline: true,
            above: Some(current.above),
            below: Some(Position(through.0 + 1)),
            ..LogFilter::default()
        };
        let page = self.shared.store.log_page(&account, filter, Page::First(PAGE));
        self.reads.push(Box::pin(async move {
            let waiting = reads::caught(page).await.map(|page| {
                let last = page.rows.last().map(|row| row.position);
                let rows = page.rows.iter().map(|row| (row.position, row.stanza.len())).collect();
                Waiting { rows, next: page.reached.or(last).filter(|_| !page.complete) }
            });
            Msg::Waiting { account, waiting }
        }));
    }

    /// A page has come.
    pub(super) fn counted(&mut self, turn: &Turn, account: &BareJid, waiting: Result<Waiting, StoreError>) {
        let now = turn.monotonic;
        let Some(current) = &mut self.counting.current else { return };
        if current.account != *account || current.reading.take().is_none() {
            return;
        }
        self.counting.paged = now;
        let Some(Slot::Ready(home)) = self.homes.get(account) else { return self.end_count(None, now) };
        if home.life != current.life {
            return self.end_count(None, now);
        }
        let waiting = match waiting {
            Ok(waiting) => waiting,
            Err(error) => {
                tracing::debug!(event = "count_failed", %error, "waiting messages could not be counted");
                return self.end_count(None, now);
            }
        };
        for (_, bytes) in waiting.rows.iter().filter(|(position, _)| home.deliveries.wants(*position)) {
            current.sum = current.sum.and(Amount::of(*bytes));
        }
        let sum = current.sum;
        match waiting.next.filter(|_| !sum.is_full(&self.shared.config)) {
            Some(next) => current.above = next,
            None => self.end_count(Some(sum), now),
        }
    }

    /// The account is done with.
    fn end_count(&mut self, sum: Option<Amount>, now: Duration) {
        let Some(current) = self.counting.current.take() else { return };
        if let Some(Slot::Ready(home)) = self.homes.get_mut(&current.account)
            && home.life == current.life
        {
            match sum {
                Some(sum) => home.count.ends(sum),
                None => home.count.fails(now + AGAIN),
            }
        }
    }
}

impl Counting {
    /// Has this one counted. Where too many wait for that, it is asked for again later.
    pub(super) fn add(&mut self, home: &mut Home, now: Duration) {
        if self.queue.len() < MAX_QUEUED {
            self.queue.push_back(home.account.jid.clone());
        } else {
            home.count.fails(now + AGAIN);
        }
    }

    /// The next one that is counted.
    fn account(&self) -> Option<BareJid> {
        self.current.as_ref().map(|current| &current.account).or_else(|| self.queue.front()).cloned()
    }
}
