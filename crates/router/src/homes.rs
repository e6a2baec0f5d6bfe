//! The homes of one worker without a runtime: the very code of the server, moved by whoever holds it.

use crate::cluster::ShardParts;
use crate::door::Door;
use crate::drive::{Turns, drive};
use crate::lease::Lease;
use crate::msg::{Admin, Msg};
use crate::router::{Link, RouterParts};
use crate::shared::Shared;
use crate::turn::Turn;
use crate::worker::Worker;
use futures::future::BoxFuture;
use starling_store::{Reign, StoreError};
use starling_wire::{RouterLink, ToHome};
use starling_xmpp::BareJid;
use starling_xmpp::sasl::Credentials;
use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::Duration;
use tokio::sync::oneshot;

/// One worker with all homes, and what keeps its reign. It spawns nothing, sleeps nowhere and asks only the clock of its
/// parts for the time, so a simulation runs it with a clock of its own and comes to the same end with the same seed.
/// What homes say goes to [`RouterParts::edge`]. Dropping it is a crash.
pub struct Homes {
    shared: Arc<Shared>,
    seat: Seat,
    /// What keeps the reign, where nobody else does.
    lease: Option<Lease>,
}

/// A worker and the turn that it is in.
pub(crate) struct Seat {
    worker: Worker,
    turn: Turn,
}

impl Seat {
    pub(crate) fn new(shared: &Arc<Shared>, index: usize) -> Self {
        let worker = Worker::new(Arc::clone(shared), index);
        // Ids that homes make up are not those of an earlier reign, whose sessions go on.
        let first = if shared.tier.is_some() { shared.positions.epoch() << 24 } else { 0 };
        Self { worker, turn: Turn::new(Arc::clone(shared), first) }
    }
}

impl Drop for Seat {
    /// The reign over the shard is over, or its homes have crashed: whatever comes next closes what they leave behind.
    fn drop(&mut self) {
        let shared = &self.turn.shared;
        if let Some(tier) = &shared.tier {
            let (shard, shards) = (tier.shard, tier.shards);
            let accounts = Arc::new(move |account: &BareJid| shards.of(account) == shard);
            shared.store.leave(shared.positions.epoch(), accounts);
        }
    }
}

impl Turns for Seat {
    fn turn(&mut self, cx: &mut Context<'_>) -> Poll<()> {
        self.worker.step(&mut self.turn, cx)
    }

    fn deadline(&self) -> Option<Duration> {
        self.worker.deadline()
    }
}

impl Homes {
    /// Begins a reign. The future needs nothing but the store's.
    ///
    /// # Errors
    /// When the store cannot begin one.
    pub async fn begin(parts: RouterParts) -> Result<Self, StoreError> {
        let shared = Shared::begin(parts, 1, None).await?;
        let (seat, lease) = (Seat::new(&shared, 0), Some(Lease::new(Arc::clone(&shared))));
        Ok(Self { shared, seat, lease })
    }

    /// The homes of one shard of a cluster, in a reign that others have begun and keep. When that is over they are dropped: no
    /// client is told anything, for its sessions go on in the next reign.
    pub fn of_shard(parts: ShardParts) -> Self {
        let shared = Shared::of_shard(parts, None);
        let seat = Seat::new(&shared, 0);
        Self { shared, seat, lease: None }
    }

    /// The same for a server on tokio: the way to them, and what moves them, for ever. Dropping that is a crash.
    pub fn serve(parts: ShardParts) -> (Door, impl Future<Output = ()> + Send + 'static) {
        let shared = Shared::of_shard(parts, Some(|task| drop(tokio::spawn(task))));
        let seat = Seat::new(&shared, 0);
        let clock = Arc::clone(&shared.clock);
        (Door { shared }, drive(seat, clock))
    }

    /// The way to them, for whoever has the links.
    pub fn door(&self) -> Door {
        Door { shared: Arc::clone(&self.shared) }
    }

    /// The way to the homes, for edges.
    pub fn link(&self) -> Arc<dyn RouterLink> {
        Arc::new(Link::new(&self.shared))
    }

    /// Hands a message over; the next turn takes it.
    pub fn send(&self, message: ToHome) {
        self.shared.inboxes[0].push(Msg::Edge(message));
    }

    /// Does what there is to do. `Ready`: something was done, and there may be more. `Pending`: there was nothing; the waker is
    /// called when there is, and a turn is due at the [`deadline`](Self::deadline).
    pub fn turn(&mut self, cx: &mut Context<'_>) -> Poll<()> {
        let lease = self.lease.as_mut().map_or(Poll::Pending, |lease| lease.turn(cx));
        let seat = self.seat.turn(cx);
        if lease.is_ready() { lease } else { seat }
    }

    /// When something is to be done in any case, on the monotonic time of the clock.
    pub fn deadline(&self) -> Option<Duration> {
        let lease = self.lease.as_ref().and_then(Turns::deadline);
        [lease, self.seat.deadline()].into_iter().flatten().min()
    }

    /// Another reign has taken over: nothing is decided any more, and all sessions have been ended.
    pub fn is_fenced(&self) -> bool {
        self.shared.fence.is_raised()
    }

    /// How many homes are in memory.
    pub fn len(&self) -> usize {
        self.seat.worker.len()
    }

    /// Whether there is none.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// Has written down what is only in memory; resolves after turns that write it.
    pub fn flush(&self) -> BoxFuture<'static, ()> {
        let (done, wait) = oneshot::channel();
        self.shared.inboxes[0].push(Msg::Flush(done));
        Box::pin(async move { drop(wait.await) })
    }

    /// The reign, for calls of the store on behalf of an account that has no home.
    pub fn reign(&self) -> Reign {
        self.shared.positions.reign()
    }

    /// Ends the reign in order; after a [`flush`](Self::flush), when nobody speaks any more. Nothing is confirmed from then on.
    pub fn release(&self) -> BoxFuture<'static, Result<(), StoreError>> {
        self.shared.positions.close();
        self.shared.store.release(self.shared.positions.epoch())
    }

    /// Removes an account, ending its sessions; false where there is none.
    pub fn delete_account(&self, account: &BareJid) -> BoxFuture<'static, Result<bool, StoreError>> {
        self.ask(|answer| Admin::Delete(account.clone(), answer))
    }

    /// Gives an account new keys; false where there is none.
    pub fn set_credentials(
        &self,
        account: &BareJid,
        credentials: Credentials,
    ) -> BoxFuture<'static, Result<bool, StoreError>> {
        self.ask(|answer| Admin::Passwd(account.clone(), Box::new(credentials), answer))
    }

    fn ask(
        &self,
        question: impl FnOnce(oneshot::Sender<Result<bool, StoreError>>) -> Admin,
    ) -> BoxFuture<'static, Result<bool, StoreError>> {
        let (answer, wait) = oneshot::channel();
        self.shared.inboxes[0].push(Msg::Admin(question(answer)));
        Box::pin(async move { wait.await.unwrap_or_else(|_| Err(crate::router::stopped())) })
    }
}
