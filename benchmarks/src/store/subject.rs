//! A store under test, fresh, with the accounts that a measurement needs.

use std::cell::Cell;
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
use tempfile::TempDir;

use crate::cql::{CqlArguments, CqlServer};
use crate::usage::Watched;

/// A store.
#[derive(Clone, Copy, Debug, PartialEq, Eq, clap::ValueEnum)]
pub(super) enum Kind {
    Embedded,
    Cql,
}

impl Kind {
    pub(super) const ALL: [Self; 2] = [Self::Embedded, Self::Cql];

    pub(super) fn name(self) -> &'static str {
        match self {
            Self::Embedded => "embedded",
            Self::Cql => "CQL",
        }
    }
}

/// An open store.
pub(super) struct Subject {
    pub(super) kind: Kind,
    pub(super) store: SharedStore,
    pub(super) reign: Reign,
    embedded: Option<Arc<EmbeddedStore>>,
    server: Option<CqlServer>,
    position: Cell<u64>,
    _directory: Option<TempDir>,
}

impl Subject {
    /// Opens a fresh one whose positions begin at a moment, or says why it is left out.
    pub(super) async fn open(kind: Kind, cql: &CqlArguments, begin: Timestamp) -> Result<Option<Self>> {
        let (store, embedded, server, directory): (SharedStore, _, _, _) = match kind {
            Kind::Embedded => {
                let directory = TempDir::with_prefix("starling-bench-")?;
                let store = Arc::new(EmbeddedStore::open(&Options::at(directory.path()), Arc::new(now))?);
                (store.clone(), Some(store), None, Some(directory))
            }
            Kind::Cql => {
                let Some(server) = CqlServer::find(cql).await? else { return Ok(None) };
                (open_cql(&server).await?, None, Some(server), None)
            }
        };
        let claim = Claim { instance: 1, name: "benchmark".to_owned() };
        let reign = store.open_reign(claim).await?;
        let position = Cell::new(begin.0.max(reign.floor.0));
        Ok(Some(Self { kind, store, reign, embedded, server, position, _directory: directory }))
    }

    /// The processes behind it.
    pub(super) fn watched(&self) -> Watched {
        Watched { server: None, store: self.server.as_ref().and_then(|server| server.pid) }
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
        let credentials = StoredCredentials::derive("secret", [1; 16], 4_096)?;
        let made = stream::iter(0..count).map(async |number| {
            let jid = BareJid::parse(&format!("{name}{number}@bench.example"))?;
            let row = AccountRow {
                generation: self.position().0,
                credentials: credentials.clone(),
                created: now(),
                disabled: false,
            };
            self.store.create_account(&jid, row).await?;
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
        Ok(self.store.commit(Batch::of(at, writes)).await?)
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
