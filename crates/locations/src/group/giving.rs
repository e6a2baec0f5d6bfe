//! Giving a leadership away on purpose, so that nobody notices.

use super::{Core, Driver};
use crate::call::{Answer, Call};
use crate::detector::voters;
use crate::lease::GRANTED;
use starling_wire::RouterId;
use std::sync::atomic::Ordering;
use std::time::Duration;
use tokio::time::{sleep, timeout};

/// How long the heir may take to have all entries.
const CAUGHT_UP_WITHIN: Duration = Duration::from_secs(2);
/// How many entries it may lack before the home stops.
const NEARLY: u64 = 10;
/// How long an election may take, and how long after a failed one nobody tries again.
const ELECTED_WITHIN: Duration = Duration::from_millis(100);
/// The same where it takes the silence of a promise to try again: on a slow link there and back twice is longer than that.
const ASKED_BACK_WITHIN: Duration = Duration::from_millis(250);
const PAUSE: Duration = Duration::from_millis(400);
/// How much longer than the promise to wait where it must run out.
const MARGIN: Duration = Duration::from_millis(10);
/// With so many voters the heir and the old leader are a quorum, and the old leader refuses nothing.
const FEW: usize = 3;

/// Why a leadership was not given away.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum GiveError {
    /// This router does not lead the shard.
    #[error("not led by this router")]
    NotLeader,
    /// The other one is not a voter, or is this router itself.
    #[error("not another voter")]
    NoVoter,
    /// The other one lags behind.
    #[error("the other router lags behind")]
    Behind,
    /// Its home here would not: something would be lost. It goes on.
    #[error("its home cannot be moved now without loss")]
    Unsafe,
    /// Its home here has not finished in time. It goes on.
    #[error("its home has not finished in time")]
    Late,
    /// It was not elected. This router goes on, with a new reign.
    #[error("the other router was not elected")]
    NotElected,
}

impl Driver {
    /// Ends the reign and has `to` elected. Whoever calls this has let the home finish what it had. When it fails, a new
    /// reign opens here.
    pub(super) async fn give(&mut self, to: RouterId) -> Result<(), GiveError> {
        let core = std::sync::Arc::clone(&self.core);
        if core.leads().is_none() {
            return Err(GiveError::NotLeader);
        }
        let voters = voters(&core.configs());
        if to == core.own || !voters.contains(&to.0) {
            return Err(GiveError::NoVoter);
        }
        // A router far behind is no heir; better to find out while the reign goes on.
        caught_up(&core, to).await?;
        let age = self.age();
        // Should the other one not be elected, the next reign here goes on as well.
        *core.inherits.lock() = Some((age, core.clock.monotonic()));
        self.end_reign();
        self.settle();
        // No entry is under way: this task writes them one at a time.
        let given = self.hand_to(&core, to, voters.len(), age).await;
        core.heir.store(0, Ordering::Release);
        core.heartbeats(true);
        given
    }

    async fn hand_to(
        &self,
        core: &Core,
        to: RouterId,
        voters: usize,
        age: Duration,
    ) -> Result<(), GiveError> {
        for attempt in 0..2 {
            if attempt > 0 {
                if voters > FEW {
                    // With heartbeats the others promise anew, and it could only end this router's leadership.
                    core.heir.store(0, Ordering::Release);
                }
                core.heartbeats(true);
                sleep(PAUSE).await;
                // On a busy machine it was elected later than it was waited for.
                if core.leads().is_none() {
                    return Ok(());
                }
            }
            caught_up(core, to).await?;
            if voters > FEW {
                // The others refuse for as long as they have promised. Until then it is no heir: it may have been told long ago.
                core.heartbeats(false);
                sleep(GRANTED + MARGIN).await;
            }
            core.heir.store(to.0, Ordering::Release);
            let cluster = self.limits.cluster();
            // Among many it is lost with the next heartbeat, so it gets the time to ask back.
            let within = if voters > FEW { ASKED_BACK_WITHIN } else { ELECTED_WITHIN };
            let call = self.peers.call(to, core.shard.0, Call::Elect { age }.encode(cluster), within);
            let asked = call.await.ok().and_then(|answer| Answer::decode(answer).ok());
            if matches!(asked, Some(Answer::Done)) {
                let mut server = core.raft.server_metrics();
                let deposed = server.wait_for(|server| !server.state.is_leader());
                if timeout(ELECTED_WITHIN, deposed).await.is_ok() {
                    return Ok(());
                }
            }
        }
        Err(GiveError::NotElected)
    }
}

/// Waits until a router has nearly all entries of a shard, before anything is stopped for it.
pub(crate) async fn nearly_caught_up(core: &Core, to: RouterId) -> Result<(), GiveError> {
    let mut figures = core.raft.metrics();
    let nearly = figures.wait_for(|figures| {
        // It leads no more, which is found out soon.
        let Some(others) = &figures.replication else { return true };
        let there = others.get(&to.0).copied().flatten();
        there.is_some_and(|id| id.index + NEARLY >= figures.last_log_index.unwrap_or_default())
    });
    match timeout(CAUGHT_UP_WITHIN, nearly).await {
        Ok(Ok(_)) => Ok(()),
        _ => Err(GiveError::Behind),
    }
}

/// Waits until a router has all entries there are.
async fn caught_up(core: &Core, to: RouterId) -> Result<(), GiveError> {
    let mut figures = core.raft.metrics();
    let all = figures.wait_for(|figures| {
        let there = figures.replication.as_ref().and_then(|others| others.get(&to.0).copied().flatten());
        there.map(|id| id.index) == figures.last_log_index && there.is_some()
    });
    match timeout(CAUGHT_UP_WITHIN, all).await {
        Ok(Ok(_)) => Ok(()),
        _ => Err(GiveError::Behind),
    }
}
