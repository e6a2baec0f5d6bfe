//! From one schema to the next.
//!
//! Migrations are a list, each of them statements that may be run again: what was killed half way is begun anew. One that
//! expands adds what older servers do not look at, so they go on working; one that contracts removes what no server since a
//! given version needs. A server starts on a schema that has all it knows of, and beyond that only expansions.
//!
//! Whoever applies holds a lock: a row written by condition, which ends by itself when its holder is gone. All statements
//! go through one node, the same for everybody: two that create a table at the same moment through different nodes would
//! make two tables of one name.

mod copies;
mod fitness;
pub mod list;
mod lock;
mod place;
mod read;
mod shape;
#[cfg(test)]
mod tests;
mod write;

use crate::driver::connect::{ConnectError, Connection};
use crate::options::{Options, Replication};
use list::LIST;
use lock::Lock;
use sha2::{Digest, Sha256};
use std::{fmt, time::Duration};
use write::{Writer, create, create_keyspace, unanswered};

pub(crate) use copies::{Copies, Nodes, quorum, too_many, wanted};
pub use fitness::{Fitness, Refusal};
use read::applied;
pub(crate) use read::{Keyspace, keyspace};
pub use shape::Gap;

/// One step of the schema.
#[derive(Debug, Clone, Copy)]
pub struct Migration {
    /// From 1, rising by one.
    pub version: u32,
    /// What it brings, for people.
    pub name: &'static str,
    /// Whether older servers go on working after it.
    pub kind: Kind,
    /// In CQL, `{keyspace}` for the keyspace. Each may be run again.
    pub statements: &'static [&'static str],
}

/// What a migration does to servers of older versions.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Kind {
    /// Nothing: it adds.
    Expand,
    /// They no longer work: it removes.
    Contract,
}

impl Kind {
    /// As it is stored.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Expand => "expand",
            Self::Contract => "contract",
        }
    }
}

impl Migration {
    /// Over everything that it is; 32 hexadecimal digits.
    pub fn checksum(&self) -> String {
        let mut hash = Sha256::new();
        for part in [self.name, self.kind.as_str()].iter().chain(self.statements) {
            hash.update(part.as_bytes());
            hash.update([0]);
        }
        hash.finalize()[..16].iter().map(|byte| format!("{byte:02x}")).collect()
    }

    fn text(&self, statement: &str, keyspace: &str) -> String {
        statement.replace("{keyspace}", keyspace)
    }
}

/// A migration that has been applied, as the keyspace says.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Applied {
    /// Its version.
    pub version: u32,
    /// Its name.
    pub name: String,
    /// Whether servers that do not know it go on working.
    pub kind: Kind,
    /// When, in milliseconds since the epoch, by the clock of whoever applied it.
    pub at_millis: i64,
    /// Of what was applied.
    pub checksum: String,
    /// Who applied it: host and process.
    pub by: String,
}

/// How the schema stands.
#[derive(Debug, Clone)]
pub struct Status {
    /// The copies of the keyspace; `None` where there is no keyspace.
    pub replication: Option<Replication>,
    /// What has been applied, rising.
    pub applied: Vec<Applied>,
    /// What this version knows and has not been applied, rising.
    pub pending: Vec<Migration>,
    /// Tables of the books that are missing: `apply` makes them again.
    pub unwritten: Vec<&'static str>,
    /// Who is applying now.
    pub held_by: Option<String>,
    /// The datacenter that the store belongs to; `None` before the first `apply`.
    pub datacenter: Option<String>,
    /// What a server of this version does on it.
    pub fitness: Fitness,
}

/// What would be done.
#[derive(Debug, Clone)]
pub struct Plan {
    /// Every statement in order, as it would be sent.
    pub statements: Vec<String>,
    /// The migrations they belong to.
    pub pending: Vec<Migration>,
    /// What somebody should know about it.
    pub remarks: Vec<String>,
    /// Why [`apply`] would do nothing. The statements are then what would mend it, if anything would.
    pub refusal: Option<Refusal>,
}

/// What goes on while migrations are applied.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Progress {
    /// Somebody else is applying; said once for each holder.
    Waiting {
        /// Host and process.
        holder: String,
    },
    /// The keyspace was created, with these copies.
    Created(Replication),
    /// The keyspace has other copies than the options say; it is left as it is.
    Differs {
        /// As the options say.
        wanted: Replication,
        /// As it is.
        there: Replication,
    },
    /// A statement of a migration is sent.
    Statement {
        /// Of the migration.
        version: u32,
        /// From 1.
        number: usize,
        /// Of so many.
        of: usize,
    },
    /// A migration is complete.
    Applied {
        /// Its version.
        version: u32,
        /// Its name.
        name: &'static str,
    },
}

/// Why migrations could not be applied or read.
#[derive(Debug, Clone, thiserror::Error)]
pub enum MigrateError {
    /// No session.
    #[error(transparent)]
    Connect(#[from] ConnectError),
    /// Nodes do not answer, or too few of them: it may be otherwise in a moment.
    #[error("{what}: {reason}")]
    Unanswered {
        /// What was asked.
        what: &'static str,
        /// What it failed with.
        reason: String,
    },
    /// Somebody else has been applying all the time that was to be waited.
    #[error("{holder} is applying migrations; waited {} s for it. Its lock ends {} s after it has gone", waited.as_secs(), lock::LIFE.as_secs())]
    Held {
        /// Host and process.
        holder: String,
        /// How long was waited.
        waited: Duration,
    },
    /// The lock was lost while migrations were applied: somebody else goes on with them.
    #[error("the lock was lost while migrations were applied: run `starling migrate status`")]
    Lost,
    /// The servers or the schema are not such that anything is to be changed; nothing was.
    #[error("{}", .0.why)]
    Refused(Refusal),
    /// A statement failed.
    #[error("{what}: {reason}")]
    Statement {
        /// What it was for.
        what: String,
        /// What it failed with.
        reason: String,
    },
}

/// How the schema stands.
///
/// # Errors
/// No session, or something cannot be read.
pub async fn status(options: &Options) -> Result<Status, MigrateError> {
    let connection = Connection::open(options).await?;
    look(&connection, options).await
}

/// What [`apply`] would do now, or why it would not.
///
/// # Errors
/// As [`status`].
pub async fn plan(options: &Options) -> Result<Plan, MigrateError> {
    let connection = Connection::open(options).await?;
    let wanted = wanted(options, &connection);
    let refusal = hindrance(options, &connection, &wanted).await?;
    let mut plan = Plan { statements: Vec::new(), pending: Vec::new(), remarks: Vec::new(), refusal };
    if plan.refusal.is_some() {
        return Ok(plan);
    }
    let status = look(&connection, options).await?;
    plan.refusal = status.refusal(&options.keyspace);
    if let Fitness::Damaged(gaps) = &status.fitness {
        plan.statements.extend(gaps.iter().flat_map(|gap| gap.statements(&options.keyspace, LIST)));
    }
    if plan.refusal.is_some() {
        return Ok(plan);
    }
    plan.pending.clone_from(&status.pending);
    match &status.replication {
        None => {
            plan.statements.push(create_keyspace(options, &wanted, connection.dialect.keyspace_options()))
        }
        Some(there) if !options.replication.0.is_empty() && *there != wanted => plan.remarks.push(format!(
            "the keyspace has the copies {there} and the configuration says {wanted}: it is left as it is; \
             change it with ALTER KEYSPACE, then repair"
        )),
        Some(_) => {}
    }
    for (table, text) in BOOKS {
        if status.unwritten.contains(&table) {
            plan.statements.push(text.replace("{keyspace}", &options.keyspace));
        }
    }
    for migration in &status.pending {
        let texts = migration.statements.iter();
        plan.statements.extend(texts.map(|text| migration.text(text, &options.keyspace)));
        if migration.kind == Kind::Contract {
            let version = migration.version;
            plan.remarks.push(format!("servers that do not know version {version} stop working with it"));
        }
    }
    plan.remarks.extend(status.held_by.map(|holder| format!("{holder} is applying migrations now")));
    let newer = status.applied.iter().filter(|applied| applied.version > newest());
    plan.remarks.extend(newer.map(|applied| {
        let Applied { version, name, .. } = applied;
        format!("the schema is newer: it has version {version} ({name}), which adds only, so this server works on it")
    }));
    Ok(plan)
}

/// Brings the schema to this version. `by` says who applies, `patience` how long to wait for somebody else who does.
/// Returns the migrations that it has applied.
///
/// # Errors
/// See [`MigrateError`]. It can be called again after any of them.
pub async fn apply(
    options: &Options,
    by: &str,
    patience: Duration,
    progress: &mut (dyn FnMut(Progress) + Send),
) -> Result<Vec<Migration>, MigrateError> {
    apply_list(options, LIST, by, patience, progress).await
}

async fn apply_list(
    options: &Options,
    list: &[Migration],
    by: &str,
    patience: Duration,
    progress: &mut (dyn FnMut(Progress) + Send),
) -> Result<Vec<Migration>, MigrateError> {
    let connection = Connection::open(options).await?;
    let name = &options.keyspace;
    let wanted = wanted(options, &connection);
    // All that speaks against it is looked for before anything is made.
    if let Some(refusal) = hindrance(options, &connection, &wanted).await? {
        return Err(MigrateError::Refused(refusal));
    }
    let before = state(&connection, name, list).await?;
    if let Some(refusal) = before.refusal(name) {
        return Err(MigrateError::Refused(refusal));
    }
    let writer = Writer::new(&connection);
    match before.replication {
        None => {
            create(&writer, options, &connection, &wanted).await?;
            progress(Progress::Created(wanted));
        }
        Some(there) if !options.replication.0.is_empty() && there != wanted => {
            progress(Progress::Differs { wanted, there });
        }
        Some(_) => {}
    }
    for (_, text) in BOOKS {
        writer.send("create the books of the schema", text.replace("{keyspace}", name)).await?;
    }
    // The lock is decided in one datacenter, so first comes which one.
    let there = place::settle(&connection, name).await?;
    if there != connection.datacenter {
        return Err(elsewhere(&there, &connection.datacenter).into());
    }
    let lock = Lock::new(&connection.session, name, by);
    lock.acquire(patience, progress).await?;
    // Both are needed: the lock is kept alive while statements run, and what runs ends with it.
    let result = tokio::select! {
        result = migrate(&connection, &writer, options, list, by, progress) => result,
        () = lock.keep() => return Err(MigrateError::Lost),
    };
    lock.release().await;
    result
}

async fn migrate(
    connection: &Connection,
    writer: &Writer<'_>,
    options: &Options,
    list: &[Migration],
    by: &str,
    progress: &mut (dyn FnMut(Progress) + Send),
) -> Result<Vec<Migration>, MigrateError> {
    let status = state(connection, &options.keyspace, list).await?;
    if let Some(refusal) = status.refusal(&options.keyspace) {
        return Err(MigrateError::Refused(refusal));
    }
    for migration in &status.pending {
        let (version, of) = (migration.version, migration.statements.len());
        for (index, text) in migration.statements.iter().enumerate() {
            progress(Progress::Statement { version, number: index + 1, of });
            let what = format!("version {version}, statement {} of {of}", index + 1);
            writer.send(&what, migration.text(text, &options.keyspace)).await?;
        }
        writer.record(&options.keyspace, migration, by).await?;
        progress(Progress::Applied { version, name: migration.name });
    }
    if !status.pending.is_empty() {
        // A table that was there before, and is another one, is left as it is by a statement that makes it.
        let after = state(connection, &options.keyspace, list).await?;
        if let Some(refusal) = after.refusal(&options.keyspace) {
            return Err(MigrateError::Refused(refusal));
        }
    }
    Ok(status.pending)
}

/// Why nothing can be made or changed on these servers, whatever the schema is.
async fn hindrance(
    options: &Options,
    connection: &Connection,
    wanted: &Replication,
) -> Result<Option<Refusal>, MigrateError> {
    let (local, nodes) = (&connection.datacenter, &connection.datacenters);
    Ok(match keyspace(connection, &options.keyspace).await? {
        None => too_many(wanted, local, nodes),
        Some(there) => there.hopeless(&options.keyspace, local, nodes),
    })
}

/// How the schema stands, with who applies.
pub(crate) async fn look(connection: &Connection, options: &Options) -> Result<Status, MigrateError> {
    let mut status = state(connection, &options.keyspace, LIST).await?;
    if status.replication.is_some() {
        status.held_by = Lock::new(&connection.session, &options.keyspace, "").holder().await?;
    }
    Ok(status)
}

/// Makes sure that a server of this version works on the schema.
pub(crate) async fn demand(connection: &Connection, keyspace: &str) -> Result<(), ConnectError> {
    let status = match state(connection, keyspace, LIST).await {
        Ok(status) => status,
        Err(MigrateError::Connect(error)) => return Err(error),
        Err(error) => return Err(ConnectError::Other(error.to_string())),
    };
    if let Some(refusal) = status.fitness.refusal(keyspace, newest()) {
        return Err(ConnectError::Schema(refusal));
    }
    match status.datacenter {
        Some(there) if there == connection.datacenter => Ok(()),
        Some(there) => Err(elsewhere(&there, &connection.datacenter)),
        None => Err(ConnectError::Schema(homeless(keyspace))),
    }
}

/// Nothing says which datacenter the store belongs to.
pub(crate) fn homeless(keyspace: &str) -> Refusal {
    Refusal {
        why: format!("the schema of {keyspace} does not say which datacenter the store belongs to"),
        advice: "run `starling migrate apply`".to_owned(),
    }
}

/// The store belongs to another datacenter than ours.
pub(crate) fn elsewhere(there: &str, here: &str) -> ConnectError {
    ConnectError::Datacenter(format!(
        "the store belongs to datacenter {there}, and this server would use {here}: set store.local_datacenter = \
         \"{there}\"; all servers of a store use the same one. `starling migrate move` makes it belong to {here}"
    ))
}

/// Makes the store belong to the datacenter that the options name; returns where it belonged. No server may run, and a
/// repair of this datacenter must have ended since the last one did: what has not arrived here is lost.
///
/// # Errors
/// As [`apply`], and where the store has no schema yet.
pub async fn move_here(
    options: &Options,
    by: &str,
    patience: Duration,
    progress: &mut (dyn FnMut(Progress) + Send),
) -> Result<String, MigrateError> {
    let connection = Connection::open(options).await?;
    let keyspace = &options.keyspace;
    let lock = Lock::new(&connection.session, keyspace, by);
    lock.acquire(patience, progress).await?;
    let result = relocate(&connection, keyspace).await;
    lock.release().await;
    result
}

async fn relocate(connection: &Connection, keyspace: &str) -> Result<String, MigrateError> {
    let Some(there) = place::read(connection, keyspace).await? else {
        let why = format!("there is no store in {keyspace}");
        return Err(MigrateError::Refused(Refusal {
            why,
            advice: "run `starling migrate apply`".to_owned(),
        }));
    };
    if there != connection.datacenter && !place::replace(connection, keyspace, &there).await? {
        return Err(MigrateError::Lost);
    }
    Ok(there)
}

/// The newest version that is known here.
pub fn newest() -> u32 {
    LIST.last().map_or(0, |last| last.version)
}

impl Status {
    /// Why applying would do nothing, or nothing good.
    fn refusal(&self, keyspace: &str) -> Option<Refusal> {
        let refused = !self.fitness.can_be_applied();
        refused.then(|| self.fitness.refusal(keyspace, newest())).flatten()
    }
}

/// What a server needs to know; not who applies.
async fn state(connection: &Connection, name: &str, list: &[Migration]) -> Result<Status, MigrateError> {
    let Some(Keyspace { replication, .. }) = keyspace(connection, name).await? else {
        return Ok(Status {
            replication: None,
            applied: Vec::new(),
            pending: list.to_vec(),
            unwritten: BOOKS.map(|(table, _)| table).to_vec(),
            held_by: None,
            datacenter: None,
            fitness: Fitness::NoKeyspace,
        });
    };
    let there = shape::read(connection, name).await?;
    let applied = applied(connection, name).await?;
    let is = |migration: &&Migration| !applied.iter().any(|applied| applied.version == migration.version);
    let pending: Vec<Migration> = list.iter().filter(is).copied().collect();
    let mut fitness = Fitness::of(&applied, list);
    if fitness == Fitness::Fits {
        let gaps = shape::gaps(&shape::after(list), &there);
        if !gaps.is_empty() {
            fitness = Fitness::Damaged(gaps);
        }
    }
    let unwritten = BOOKS.map(|(table, _)| table).into_iter().filter(|table| !there.contains_key(*table));
    Ok(Status {
        replication: Some(replication),
        pending,
        unwritten: unwritten.collect(),
        held_by: None,
        datacenter: place::read(connection, name).await?,
        fitness,
        applied,
    })
}

impl fmt::Display for Replication {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_map().entries(&self.0).finish()
    }
}

/// What is known of the schema, who changes it, and where. In place before everything else, hence without a version.
const BOOKS: [(&str, &str); 3] = [
    (
        "schema_versions",
        "CREATE TABLE IF NOT EXISTS {keyspace}.schema_versions (
    family text,
    version int,
    name text,
    kind text,
    applied_at bigint,
    checksum text,
    applied_by text,
    PRIMARY KEY ((family), version)
) WITH comment = 'migrations that were applied'
    AND speculative_retry = '100ms'",
    ),
    (
        "schema_lock",
        "CREATE TABLE IF NOT EXISTS {keyspace}.schema_lock (
    name text,
    holder text,
    ticket blob,
    PRIMARY KEY ((name))
) WITH comment = 'who applies migrations; conditional statements only'
    AND speculative_retry = '100ms'",
    ),
    ("cluster", list::CLUSTER),
];

/// The one family there is.
const FAMILY: &str = "starling";
