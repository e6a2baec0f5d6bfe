//! A store under test, fresh, with the accounts that a measurement needs.

use std::cell::Cell;
use std::path::Path;
use std::sync::Arc;
use std::time::{Duration, UNIX_EPOCH};

use anyhow::{Result, ensure};
use futures::stream::{self, StreamExt, TryStreamExt};
use starling_node::{SystemClock, Telemetry};
use starling_store::{
    AccountRow, Batch, Claim, LogRow, Position, Reign, SharedStore, StoredCredentials, Write,
};
use starling_store_embedded::{EmbeddedStore, Options};
use starling_store_scylla::{ScyllaStore, driver::Driver, migrations, options as cql};
use starling_xmpp::{BareJid, Timestamp};

use crate::cql::CqlServer;
use crate::target::PASSWORD;
use crate::usage::Watched;

/// The domain of its accounts.
pub(crate) const DOMAIN: &str = "bench.example";

/// Where a store is.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Place<'a> {
    /// In this folder: the embedded one.
    Folder(&'a Path),
    Cql(&'a CqlServer),
}

/// An open store.
pub(crate) struct Subject {
    pub(super) name: &'static str,
    pub(super) store: SharedStore,
    /// The processes behind it.
    pub(super) watched: Watched,
    reign: Reign,
    embedded: Option<Arc<EmbeddedStore>>,
    position: Cell<u64>,
}

impl Subject {
    /// Opens a fresh one whose positions begin at a moment.
    pub(crate) async fn open(place: Place<'_>, begin: Timestamp) -> Result<Self> {
        let (name, store, embedded, pid): (_, SharedStore, _, _) = match place {
            Place::Folder(folder) => {
                let store = Arc::new(EmbeddedStore::open(&Options::at(folder), Arc::new(now))?);
                ("embedded", store.clone(), Some(store), None)
            }
            Place::Cql(server) => ("CQL", open_cql(server).await?, None, server.pid),
        };
        let claim = Claim { instance: 1, name: "benchmark".to_owned() };
        let reign = store.open_reign(claim).await?;
        let position = Cell::new(begin.0.max(reign.floor.0));
        let watched = Watched { server: Vec::new(), store: pid };
        Ok(Self { name, store, watched, reign, embedded, position })
    }

    /// Leaves the store to whoever opens it next.
    pub(crate) async fn close(self) -> Result<()> {
        Ok(self.store.release(self.reign.epoch).await?)
    }

    /// Times it has waited for the disk, where that is known.
    pub(super) fn syncs(&self) -> Option<u64> {
        self.embedded.as_ref().map(|store| store.figures().syncs)
    }

    /// From now on positions are above this one.
    pub(super) fn go_on_from(&self, position: Position) {
        self.position.set(self.position.get().max(position.0));
    }

    /// The next position: above all that were given.
    pub(super) fn position(&self) -> Position {
        self.position.set(self.position.get() + 1);
        Position(self.position.get())
    }

    /// Makes accounts of these names and loads them, as their homes would.
    pub(super) async fn accounts(&self, name: &str, count: usize) -> Result<Vec<BareJid>> {
        let credentials = StoredCredentials::derive(PASSWORD, [1; 16], 4_096)?;
        let made = stream::iter(0..count).map(async |number| {
            let jid = BareJid::parse(&format!("{name}{number}@{DOMAIN}"))?;
            let row = AccountRow {
                generation: self.position().0,
                credentials: credentials.clone(),
                created: now(),
                disabled: false,
            };
            self.store.create_account(&jid, row, self.reign).await?;
            let loaded = self.load(&jid).await?;
            ensure!(loaded, "an account is not there after it was made");
            anyhow::Ok(jid)
        });
        made.buffered(16).try_collect().await
    }

    /// Loads an account; whether it is there.
    pub(super) async fn load(&self, jid: &BareJid) -> Result<bool> {
        let reign = Reign { floor: self.position(), ..self.reign };
        Ok(self.store.load(jid, reign).await?.is_some())
    }

    /// Writes rows of one account as one commit.
    pub(super) async fn append(&self, rows: Vec<LogRow>) -> Result<()> {
        let at = rows.last().map_or(Position(0), |row| row.position);
        let writes = rows.into_iter().map(|row| Write::Append(Box::new(row))).collect();
        Ok(self.store.commit(Batch::under(self.reign.epoch, at, writes)).await?)
    }
}

async fn open_cql(server: &CqlServer) -> Result<SharedStore> {
    let options = cql::Options {
        contact_points: vec![server.address.clone()],
        keyspace: server.keyspace.clone(),
        ..cql::Options::default()
    };
    migrations::apply(&options, "benchmark", Duration::from_secs(60), &mut |_| {}).await?;
    let telemetry = Telemetry::off();
    let driver = Driver::connect(&options, &telemetry, SystemClock::shared()).await?;
    let settings = options.settings(Arc::clone(&telemetry.metrics));
    Ok(Arc::new(ScyllaStore::open(Arc::new(driver), settings, Arc::new(now))))
}

/// Microseconds since the epoch.
pub(super) fn now() -> Timestamp {
    Timestamp(UNIX_EPOCH.elapsed().unwrap_or(Duration::ZERO).as_micros() as u64)
}
