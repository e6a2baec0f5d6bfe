//! A task per shard: while this router reigns over it, its homes are here.
//!
//! They begin when the reign's own opening is applied, and are dropped when it is over, as in a crash: no client is told
//! anything, for its session goes on in the next reign. Between the two they may take nothing for a while: without a lease for
//! long, when edges had better not read what nobody can confirm, and while the shard is being moved.

use super::house::House;
use super::switchboard::Gate;
use futures::future::BoxFuture;
use starling_locations::{Drain, Group, Reigning};
use starling_router::Door;
use starling_wire::frame::Home;
use starling_wire::{EdgeId, Epoch, Shard};
use std::collections::BTreeSet;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;
use tokio::task::JoinHandle;
use tokio::time::timeout;

/// How often it is looked whether the lease holds.
const LOOK: Duration = Duration::from_millis(100);
/// How long without a lease edges go on reading. It is renewed every 75 ms; a disk may stand still for longer than it lasts.
const PATIENCE: Duration = Duration::from_secs(1);
/// How long a home that the store takes nothing of waits for word of who reigns, where this router is still promised that nobody
/// else does.
const TURNED_AWAY: Duration = Duration::from_secs(5);
/// How long a shard that is being moved waits for what is on its way to the store, and then for questions that are being worked on.
const WRITTEN: Duration = Duration::from_secs(2);
const QUESTIONS: Duration = Duration::from_millis(300);
/// How long edges may take to say that they are there, and then that they have what was given to them, which may be much.
pub(super) const THERE: Duration = Duration::from_millis(300);
const GIVEN: Duration = Duration::from_secs(1);

/// Serves a shard whenever this router reigns over it, for ever.
pub(super) async fn serve(house: Arc<House>, group: Group) {
    let mut reigns = group.reign();
    loop {
        let reign = reigns.borrow_and_update().clone();
        let Some(reign) = reign else {
            if reigns.changed().await.is_err() {
                return;
            }
            continue;
        };
        let home = Home { shard: group.shard(), epoch: reign.epoch };
        let mut led = Led::begin(&house, &group, home, &reign);
        loop {
            tokio::select! {
                changed = reigns.changed() => {
                    let now = reigns.borrow().as_ref().map(|reign| reign.epoch);
                    if changed.is_err() || now != Some(home.epoch) {
                        break;
                    }
                }
                _ = &mut led.homes => {
                    house.fail(format!("the homes of shard {} have ended", home.shard.0));
                    return;
                }
                () = tokio::time::sleep(LOOK) => led.look(&reign),
            }
        }
        led.end().await;
    }
}

/// A reign that is served.
struct Led {
    house: Arc<House>,
    home: Home,
    gate: Gate,
    homes: JoinHandle<()>,
    /// When it began; its lease may come a moment later.
    began: Duration,
    /// Since when the store takes nothing of its homes, though nobody else reigns as far as is known here.
    turned_away: Option<Duration>,
    over: bool,
}

impl Led {
    fn begin(house: &Arc<House>, group: &Group, home: Home, reign: &Reigning) -> Self {
        let (gate, homes) = house.homes(group, home, reign);
        let homes = tokio::spawn(homes);
        house.board.chart.begin(home, gate.clone());
        house.board.figures.young(house.board.young());
        house.board.announce(home);
        let began = house.clock.monotonic();
        Self { house: Arc::clone(house), home, gate, homes, began, turned_away: None, over: false }
    }

    /// Looks whether it may go on taking what comes.
    fn look(&mut self, reign: &Reigning) {
        let until = Duration::from_micros(reign.until.load(Ordering::Acquire));
        let now = self.house.clock.monotonic();
        let fenced = self.gate.door.is_fenced();
        self.give_up_if(fenced && now < until, now);
        let open = !fenced && now < until.max(self.began) + PATIENCE;
        let (board, Home { shard, epoch }) = (&self.house.board, self.home);
        if open {
            if board.chart.reopen(self.home) {
                tracing::info!(
                    event = "home_open",
                    shard = shard.0,
                    epoch = epoch.0,
                    "a quorum is there again"
                );
                board.announce(self.home);
            }
        } else if let Some((gate, closings)) = board.chart.close(self.home) {
            tracing::warn!(
                event = "home_closed",
                shard = shard.0,
                epoch = epoch.0,
                fenced,
                "no quorum confirms that this router leads, or the store knows of a later home; edges stop reading"
            );
            gate.deliveries.0.close(closings);
            board.withdraw(shard);
        }
    }

    /// The store has heard of a later home, and this router has not: one of the two is wrong, and it would be so for ever.
    fn give_up_if(&mut self, turned_away: bool, now: Duration) {
        self.turned_away = turned_away.then(|| self.turned_away.unwrap_or(now));
        if self.turned_away.is_some_and(|since| now >= since + TURNED_AWAY) {
            let shard = self.home.shard.0;
            self.turned_away = Some(now);
            self.house
                .fail(format!("the store takes nothing of shard {shard} from it, though it leads that"));
        }
    }

    async fn end(mut self) {
        self.close();
        // The next reign here must not begin beside this one.
        let _ = (&mut self.homes).await;
    }

    fn close(&mut self) {
        if std::mem::replace(&mut self.over, true) {
            return;
        }
        self.homes.abort();
        self.house.board.chart.end(self.home);
        self.gate.deliveries.0.close(u64::MAX);
        self.house.board.withdraw(self.home.shard);
    }
}

impl Drop for Led {
    fn drop(&mut self) {
        self.close();
    }
}

/// Lets homes finish before their shard is moved.
pub(super) struct Leaving(pub(super) Arc<House>);

impl Drain for Leaving {
    fn drain(&self, shard: Shard, epoch: Epoch) -> BoxFuture<'static, bool> {
        let house = Arc::clone(&self.0);
        Box::pin(async move {
            let (board, home) = (&house.board, Home { shard, epoch });
            let links = board.links();
            // Who does not hear what is given to it would lose its sessions. Meanwhile all goes on as before.
            if board.would_lose(shard, THERE, &links).await {
                return false;
            }
            let Some((gate, closings)) = board.chart.leave(home) else { return true };
            // What it has taken is answered first; what comes meanwhile is kept by whoever sent it.
            if timeout(WRITTEN, flush(&gate.door)).await.is_err() {
                tracing::warn!(
                    event = "writes_left",
                    shard = shard.0,
                    "the next home finds out what became of them"
                );
            }
            if timeout(QUESTIONS, gate.door.quiet()).await.is_err() {
                tracing::info!(
                    event = "questions_left",
                    shard = shard.0,
                    "questions get an error from the next home; what waits until the store answers is not told"
                );
            }
            // What only it has goes to edges, and to the next one.
            gate.door.leave().await;
            if board.would_lose(shard, GIVEN, &links).await {
                Self(house).resume(shard, epoch);
                return false;
            }
            gate.deliveries.0.close(closings);
            board.withdraw(shard);
            true
        })
    }

    fn is_calm(&self, shard: Shard) -> bool {
        self.0.board.is_calm(shard)
    }

    fn edges(&self) -> BTreeSet<EdgeId> {
        self.0.board.edges().into_iter().map(|(edge, _)| edge).collect()
    }

    fn resume(&self, shard: Shard, epoch: Epoch) {
        let (board, home) = (&self.0.board, Home { shard, epoch });
        // The drain may have been given up before it came to that: edges that were refused attach again only after it.
        if let Some((gate, closings)) = board.chart.leave(home) {
            gate.deliveries.0.close(closings);
            board.withdraw(shard);
        }
        // Before anything comes again.
        if board.chart.stay(home, |gate| gate.door.stay()) {
            board.announce(home);
        }
    }
}

/// Has everything of a shard written down.
pub(super) async fn flush(door: &Door) {
    // What a home had taken when it was asked has left it then, and is written where it went when that is asked.
    for _ in 0..2 {
        door.flush().await;
    }
}
