//! The router as a whole: its workers, what keeps them going, and how others reach the homes.

use crate::config::RouterConfig;
use crate::msg::{Admin, Msg};
use crate::positions::Positions;
use crate::shared::Shared;
use crate::worker::Worker;
use futures::future::BoxFuture;
use starling_hooks::{Hooks, Server};
use starling_node::{Metrics, SharedClock, Tracer};
use starling_store::{AccountRow, Claim, Retention, SharedStore, StoreError};
use starling_wire::channel::Inbox;
use starling_wire::up::SessionInfo;
use starling_wire::{EdgeLink, LinkError, Registration, RouterLink, ToHome};
use starling_xmpp::BareJid;
use starling_xmpp::sasl::Credentials;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;
use tokio::sync::oneshot;
use tokio::task::JoinHandle;

/// How often positions are granted ahead.
const GRANT_EVERY: Duration = Duration::from_secs(2);
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
    ready: Arc<AtomicBool>,
}

impl Router {
    /// Begins a reign and starts the workers.
    ///
    /// # Errors
    /// When the store cannot begin a reign.
    pub async fn start(parts: RouterParts) -> Result<Self, StoreError> {
        let RouterParts { config, server, hooks, store, edge, clock, metrics, tracer, retention, claim } =
            parts;
        let positions = Positions::open(&store, claim, config.alone).await?;
        let began = starling_xmpp::Timestamp(clock.now_micros());
        let inboxes = (0..config.workers.max(1)).map(|_| Arc::new(Inbox::default())).collect();
        let hasher = std::hash::RandomState::new();
        let shared = Arc::new(Shared {
            config,
            server,
            hooks,
            store,
            edge,
            inboxes,
            clock,
            positions,
            metrics,
            tracer,
            began,
            hasher,
        });
        extend(&shared).await?;
        let mut tasks: Vec<_> = (0..shared.inboxes.len())
            .map(|index| tokio::spawn(Worker::new(Arc::clone(&shared), index).run()))
            .collect();
        tasks.push(tokio::spawn(grant(Arc::clone(&shared))));
        tasks.push(tokio::spawn(sweep(Arc::clone(&shared), retention)));
        Ok(Self { shared, tasks, ready: Arc::new(AtomicBool::new(true)) })
    }

    /// The way to the homes, for edges.
    pub fn link(&self) -> Arc<dyn RouterLink> {
        Arc::new(Link { shared: Arc::clone(&self.shared), ready: Arc::clone(&self.ready) })
    }

    /// Writes down what is only in memory and ends. Sessions must be gone before, or end with it.
    pub async fn stop(&self, within: Duration) {
        self.ready.store(false, Ordering::Release);
        let flushed = self.shared.inboxes.iter().map(|inbox| {
            let (done, wait) = oneshot::channel();
            inbox.push(Msg::Flush(done));
            wait
        });
        let flushed = futures::future::join_all(flushed);
        if tokio::time::timeout(within, flushed).await.is_err() {
            tracing::warn!(
                event = "flush_late",
                "homes were not written down in time; messages may be delivered a second time"
            );
        }
        self.abort();
        self.shared.positions.close();
        let released = self.shared.store.release(self.shared.positions.epoch());
        if !matches!(tokio::time::timeout(within, released).await, Ok(Ok(()))) {
            tracing::warn!(
                event = "release_failed",
                "whoever reigns next waits until the lease of this reign is over"
            );
        }
    }

    /// Whether all workers run. One that has ended cannot be mended from inside: the process is to be restarted.
    pub fn is_whole(&self) -> bool {
        self.tasks.iter().take(self.shared.inboxes.len()).all(|worker| !worker.is_finished())
    }

    /// Ends at once, as a crash would: nothing more is written or told.
    pub fn abort(&self) {
        self.ready.store(false, Ordering::Release);
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

    /// An account's row.
    ///
    /// # Errors
    /// When the store does not answer.
    pub async fn account(&self, account: &BareJid) -> Result<Option<AccountRow>, StoreError> {
        self.shared.store.account(account).await
    }

    /// Accounts of a domain in order.
    ///
    /// # Errors
    /// When the store does not answer.
    pub async fn accounts(
        &self,
        domain: &str,
        after: Option<BareJid>,
        limit: usize,
    ) -> Result<Vec<BareJid>, StoreError> {
        self.shared.store.accounts(domain, after, limit).await
    }
}

fn stopped() -> StoreError {
    StoreError::Unavailable("the router has stopped".to_owned())
}

async fn create(shared: &Shared, account: &BareJid, credentials: Credentials) -> Result<bool, StoreError> {
    let generation = u64::from_le_bytes(starling_node::ids::bytes());
    let row = AccountRow { generation, credentials, created: shared.now(), disabled: false };
    match shared.store.create_account(account, row).await {
        Ok(()) => Ok(true),
        Err(StoreError::Exists) => Ok(false),
        Err(error) => Err(error),
    }
}

/// Grants positions ahead of the clock, again and again.
async fn grant(shared: Arc<Shared>) {
    if shared.config.alone {
        return;
    }
    loop {
        tokio::time::sleep(GRANT_EVERY).await;
        if let Err(error) = extend(&shared).await {
            tracing::warn!(event = "grant_failed", %error, "no positions granted; messages will be refused when the last grant ends");
        }
    }
}

/// Has more positions granted.
async fn extend(shared: &Shared) -> Result<(), StoreError> {
    let positions = &shared.positions;
    if positions.are_alone() {
        return Ok(());
    }
    let (asked, ceiling) = (shared.clock.monotonic(), positions.wanted(shared.now()));
    shared.store.grant(positions.epoch(), ceiling).await?;
    positions.granted(ceiling, asked);
    Ok(())
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
struct Link {
    shared: Arc<Shared>,
    ready: Arc<AtomicBool>,
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
        self.ready.load(Ordering::Acquire)
    }
}
