//! A store as a home uses it: under a reign, with positions that rise.

use crate::log::Position;
use crate::rows::{AccountRow, AccountState, Batch, Claim, Reign, Write};
use crate::{Result, SharedStore};
use futures::future::BoxFuture;
use starling_xmpp::BareJid;
use std::ops::Deref;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

/// Where positions begin that nobody chose: above all that cases choose, and below any clock.
const FIRST: u64 = 1_000_000_000_000_000;
/// How many a reign is granted.
const GRANT: u64 = 1_000_000;

static NEXT: AtomicU64 = AtomicU64::new(FIRST);

/// A position above all those given out in this process before.
pub fn rising() -> Position {
    Position(NEXT.fetch_add(1, Ordering::SeqCst))
}

/// A batch at such a position.
pub fn batch(writes: Vec<Write>) -> Batch {
    Batch::of(rising(), writes)
}

/// A reign with this epoch whose floor is such a position, to load with.
pub fn reign(epoch: u64) -> Reign {
    Reign { epoch, floor: rising() }
}

/// The claim of an instance.
pub fn claim(instance: u128) -> Claim {
    Claim { instance, name: format!("instance-{instance}") }
}

/// A store under a reign of its own. Its [`commit`](Self::commit) and [`load`](Self::load) give positions to the calls
/// of the store, within what the reign was granted; later reigns of the store give higher ones.
#[derive(Clone)]
pub struct Home {
    store: SharedStore,
    reign: Reign,
    /// Whether the store has given the reign.
    granted: bool,
    next: Arc<AtomicU64>,
}

impl Home {
    /// Begins a reign of instance 1.
    pub async fn open(store: SharedStore) -> Self {
        Self::open_as(store, claim(1)).await.unwrap()
    }

    /// Begins a reign of the instance that claims it.
    pub async fn open_as(store: SharedStore, claim: Claim) -> Result<Self> {
        let reign = store.open_reign(claim).await?;
        let next = FIRST.max(reign.floor.0 + 1);
        store.grant(reign.epoch, Position(next + GRANT)).await?;
        Ok(Self { store, reign, granted: true, next: Arc::new(AtomicU64::new(next)) })
    }

    /// The home of a shard, under a reign of which the store knows nothing.
    pub fn of_shard(store: &SharedStore, epoch: u64) -> Self {
        Self::above(store, Reign { epoch, floor: rising() })
    }

    /// The same shard under its next reign, in this store or that of another process: it begins above all that this one can
    /// give.
    pub fn followed_by(&self, store: &SharedStore, epoch: u64) -> Self {
        let floor = Position(self.reign.floor.0.max(FIRST) + GRANT);
        Self::above(store, Reign { epoch, floor })
    }

    fn above(store: &SharedStore, reign: Reign) -> Self {
        let next = Arc::new(AtomicU64::new(reign.floor.0 + 1));
        Self { store: Arc::clone(store), reign, granted: false, next }
    }

    /// The reign's number.
    pub fn epoch(&self) -> u64 {
        self.reign.epoch
    }

    /// A position above all that this home has given.
    pub fn position(&self) -> Position {
        Position(self.next.fetch_add(1, Ordering::SeqCst))
    }

    /// Lets so much time pass: positions given from now on are that much higher.
    pub async fn pass(&self, time: Duration) {
        let next = self.next.fetch_add(time.as_micros() as u64, Ordering::SeqCst) + time.as_micros() as u64;
        if self.granted {
            self.store.grant(self.reign.epoch, Position(next + GRANT)).await.unwrap();
        }
    }

    /// Commits at a position above all before.
    pub fn commit(&self, writes: Vec<Write>) -> BoxFuture<'static, Result<()>> {
        self.store.commit(Batch::under(self.reign.epoch, self.position(), writes))
    }

    /// Makes an account under this reign.
    pub fn create_account(&self, jid: &BareJid, row: AccountRow) -> BoxFuture<'static, Result<()>> {
        self.store.create_account(jid, row, Reign { epoch: self.reign.epoch, floor: self.position() })
    }

    /// Loads with a floor above all positions before.
    pub fn load(&self, jid: &BareJid) -> BoxFuture<'static, Result<Option<AccountState>>> {
        self.store.load(jid, Reign { epoch: self.reign.epoch, floor: self.position() })
    }
}

impl Deref for Home {
    type Target = SharedStore;

    fn deref(&self) -> &SharedStore {
        &self.store
    }
}
