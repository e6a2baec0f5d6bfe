//! The router as a whole: its workers, what keeps them going, and how others reach the homes.

use crate::config::RouterConfig;
use crate::drive::drive;
use crate::homes::Seat;
use crate::lease::Lease;
use crate::msg::{Admin, Msg};
use crate::shared::Shared;
use futures::future::BoxFuture;
use starling_hooks::{Hooks, Server};
use starling_node::{Metrics, SharedClock, Tracer};
use starling_store::{AccountRow, Claim, Retention, SharedStore, StoreError};
use starling_wire::up::SessionInfo;
use starling_wire::{EdgeLink, LinkError, Registration, RouterLink, ToHome};
use starling_xmpp::BareJid;
use starling_xmpp::sasl::Credentials;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;
use tokio::sync::oneshot;
use tokio::task::JoinHandle;

/// How long to wait for a reign to be released: the lease ends it soon in any case.
const RELEASE_WITHIN: Duration = Duration::from_secs(5);
/// How often rows that have expired are looked for.
const SWEEP_EVERY: Duration = Duration::from_secs(60);

/// What a router is made of.
pub struct RouterParts {
    /// Bounds and policies.
    pub config: RouterConfig,
    /// What is the same for all accounts.
    pub server: Arc<Server>,
    /// The modules.
    pub hooks: Hooks,
    /// Where everything is kept.
    pub store: SharedStore,
    /// Where sessions are.
    pub edge: Arc<dyn EdgeLink>,
    /// The time.
    pub clock: SharedClock,
    /// What is counted.
    pub metrics: Arc<Metrics>,
    /// What is traced.
    pub tracer: Tracer,
    /// How long the archive is kept.
    pub retention: Retention,
    /// Who asks to reign over the store.
    pub claim: Claim,
}

/// A running router. Ends with [`stop`](Self::stop).
pub struct Router {
    shared: Arc<Shared>,
    tasks: Vec<JoinHandle<()>>,
    link: Arc<Link>,
}

impl Router {
    /// Begins a reign and starts the workers. May take somewhat longer than [`starling_store::LEASE`], when another
    /// instance had the last reign and did not end it in order.
    ///
    /// # Errors
    /// When the store cannot begin a reign.
    pub async fn start(parts: RouterParts) -> Result<Self, StoreError> {
        let (workers, retention) = (parts.config.workers, parts.retention);
        let shared = Shared::begin(parts, workers, Some(|task| drop(tokio::spawn(task)))).await?;
        let clock = Arc::clone(&shared.clock);
        let mut tasks: Vec<_> = (0..shared.inboxes.len())
            .map(|index| tokio::spawn(drive(Seat::new(&shared, index), Arc::clone(&clock))))
            .collect();
        tasks.push(tokio::spawn(drive(Lease::new(Arc::clone(&shared)), clock)));
        tasks.push(tokio::spawn(sweep(Arc::clone(&shared), retention)));
        let link = Arc::new(Link::new(&shared));
        Ok(Self { shared, tasks, link })
    }

    /// The way to the homes, for edges.
    pub fn link(&self) -> Arc<dyn RouterLink> {
        self.link.clone()
    }

    /// Writes down what is only in memory and ends its reign. Sessions must be gone before, or end with it.
    pub async fn stop(&self, within: Duration) {
        self.link.close();
        let flushed = tokio::time::timeout(within, async {
            // What a home had taken when it was asked has left it then, and is written where it went when that is asked.
            for _ in 0..2 {
                futures::future::join_all(self.shared.inboxes.iter().map(|inbox| {
                    let (done, wait) = oneshot::channel();
                    inbox.push(Msg::Flush(done));
                    wait
                }))
                .await;
            }
        });
        if flushed.await.is_err() {
            tracing::warn!(
                event = "flush_late",
                "homes were not written down in time; messages may be delivered a second time"
            );
        }
        self.abort();
        if self.shared.fence.is_raised() {
            return;
        }
        let released = self.shared.store.release(self.shared.positions.epoch());
        if !matches!(tokio::time::timeout(within.min(RELEASE_WITHIN), released).await, Ok(Ok(()))) {
            tracing::warn!(
                event = "release_failed",
                "whoever reigns next waits until the lease of this reign is over"
            );
        }
    }

    /// Whether all workers run. One that has ended cannot be mended from inside: the process is to be restarted.
    pub fn is_whole(&self) -> bool {
        let workers = self.tasks.iter().take(self.shared.inboxes.len());
        !self.shared.fence.is_raised() && workers.into_iter().all(|worker| !worker.is_finished())
    }

    /// Whether its lease holds. While it does not, messages and binds are refused, and after a minute clients are sent away:
    /// it is alive, but not ready.
    pub fn reigns(&self) -> bool {
        self.shared.positions.hold(self.shared.clock.monotonic())
    }

    /// Resolves when another reign has taken over the store. All sessions have been told to end then, and nothing is taken any
    /// more: the process is to end too.
    pub async fn fenced(&self) {
        self.shared.fence.wait().await;
    }

    /// Ends at once, as a crash would: nothing more is written or told.
    pub fn abort(&self) {
        self.link.close();
        self.shared.positions.close();
        for task in &self.tasks {
            task.abort();
        }
    }

    /// All sessions, in no order.
    pub async fn sessions(&self) -> Vec<SessionInfo> {
        let mut all = Vec::new();
        for inbox in &self.shared.inboxes {
            let (answer, wait) = oneshot::channel();
            inbox.push(Msg::Admin(Admin::Sessions(answer)));
            if let Ok(mut sessions) = wait.await {
                all.append(&mut sessions);
            }
        }
        all
    }

    /// Gives an account new keys; false where there is none.
    ///
    /// # Errors
    /// When the store does not confirm it.
    pub async fn set_credentials(
        &self,
        account: &BareJid,
        credentials: Credentials,
    ) -> Result<bool, StoreError> {
        let (answer, wait) = oneshot::channel();
        self.shared.send(account, Msg::Admin(Admin::Passwd(account.clone(), Box::new(credentials), answer)));
        wait.await.unwrap_or_else(|_| Err(stopped()))
    }

    /// Removes an account, ending its sessions; false where there is none.
    ///
    /// # Errors
    /// When the store does not confirm it.
    pub async fn delete_account(&self, account: &BareJid) -> Result<bool, StoreError> {
        let (answer, wait) = oneshot::channel();
        self.shared.send(account, Msg::Admin(Admin::Delete(account.clone(), answer)));
        wait.await.unwrap_or_else(|_| Err(stopped()))
    }

    /// Creates an account; false when it exists.
    ///
    /// # Errors
    /// When the store does not confirm it.
    pub async fn create_account(
        &self,
        account: &BareJid,
        credentials: Credentials,
    ) -> Result<bool, StoreError> {
        create(&self.shared, account, credentials).await
    }
}

pub(crate) fn stopped() -> StoreError {
    StoreError::Unavailable("the router has stopped".to_owned())
}

pub(crate) async fn create(
    shared: &Shared,
    account: &BareJid,
    credentials: Credentials,
) -> Result<bool, StoreError> {
    // Who may have been succeeded makes no accounts.
    if !shared.positions.hold(shared.clock.monotonic()) {
        return Err(StoreError::Unavailable("the lease is over".to_owned()));
    }
    let generation = u64::from_le_bytes(starling_node::ids::bytes());
    let row = AccountRow { generation, credentials, created: shared.now(), disabled: false };
    match shared.store.create_account(account, row, shared.positions.reign()).await {
        Ok(()) => Ok(true),
        Err(StoreError::Exists) => Ok(false),
        Err(error) => Err(error),
    }
}

/// Removes rows whose time has come, a bounded number at a time.
async fn sweep(shared: Arc<Shared>, retention: Retention) {
    let mut pause = SWEEP_EVERY;
    loop {
        tokio::time::sleep(pause).await;
        pause = match shared.store.sweep(shared.now(), retention).await {
            Ok(0) => SWEEP_EVERY,
            // There may be more: soon, but not at the expense of those who wait for a commit.
            Ok(_) => Duration::from_millis(200),
            Err(error) => {
                tracing::warn!(event = "sweep_failed", %error, "expired rows stay for now");
                SWEEP_EVERY
            }
        };
    }
}

/// The channel form of the way to the homes.
pub(crate) struct Link {
    shared: Arc<Shared>,
    open: AtomicBool,
}

impl Link {
    pub(crate) fn new(shared: &Arc<Shared>) -> Self {
        Self { shared: Arc::clone(shared), open: AtomicBool::new(true) }
    }

    /// Says that the homes are not there any more.
    fn close(&self) {
        self.open.store(false, Ordering::Release);
    }
}

impl RouterLink for Link {
    fn send(&self, batch: &mut Vec<ToHome>) {
        // A batch is what one connection has said: all for one home.
        let Some(first) = batch.first() else { return };
        let inbox = self.shared.inbox_of(&first.account);
        if batch.iter().all(|message| message.account == first.account) {
            let mut messages = batch.drain(..).map(Msg::Edge).collect();
            inbox.append(&mut messages);
        } else {
            for message in batch.drain(..) {
                self.shared.inbox_of(&message.account.clone()).push(Msg::Edge(message));
            }
        }
    }

    fn account(&self, account: &BareJid) -> BoxFuture<'static, Result<Option<AccountRow>, LinkError>> {
        if self.shared.fence.is_raised() {
            return Box::pin(std::future::ready(Err(LinkError::NoHome)));
        }
        let row = self.shared.store.account(account);
        Box::pin(async move { row.await.map_err(|_| LinkError::Busy) })
    }

    fn register(
        &self,
        account: &BareJid,
        credentials: Credentials,
    ) -> BoxFuture<'static, Result<Registration, LinkError>> {
        let (shared, account) = (Arc::clone(&self.shared), account.clone());
        Box::pin(async move {
            match create(&shared, &account, credentials).await {
                Ok(true) => Ok(Registration::Created),
                Ok(false) => Ok(Registration::Conflict),
                Err(_) => Err(LinkError::Busy),
            }
        })
    }

    fn ready(&self) -> bool {
        let holds = self.shared.positions.hold(self.shared.clock.monotonic());
        holds && self.open.load(Ordering::Acquire) && !self.shared.fence.is_raised()
    }
}
