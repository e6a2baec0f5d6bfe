//! Where a server under test keeps its data, and the keyspaces that are made for it and dropped after it.

use std::net::SocketAddr;
use std::sync::atomic::{AtomicU32, Ordering::Relaxed};

use anyhow::Result;

use crate::cassandra::{self, DATACENTER};
use crate::cql::{Connection, answers};

/// The store of a server under test.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Store {
    /// A directory of the server's own.
    Embedded,
    /// A keyspace of the server's own, reached at these addresses.
    Cql(Vec<SocketAddr>),
}

impl Store {
    /// The node that all suites share, or why there is none.
    pub fn shared_cql() -> Result<Self, String> {
        cassandra::shared().map(|address| Self::Cql(vec![address]))
    }

    /// Every store that suites run on, with the prefix of the names of their cases, or why it is not there.
    pub fn all() -> [(&'static str, Result<Self, String>); 2] {
        [("starling", Ok(Self::Embedded)), ("starling-cql", Self::shared_cql())]
    }
}

/// A keyspace of one server.
pub(super) struct Keyspace {
    pub(super) name: String,
    pub(super) contact_points: Vec<SocketAddr>,
}

impl Keyspace {
    /// A name that no other server of this or another test process has.
    pub(super) fn new(contact_points: Vec<SocketAddr>) -> Self {
        static COUNT: AtomicU32 = AtomicU32::new(0);
        let name = format!("starling_{}_{}", std::process::id(), COUNT.fetch_add(1, Relaxed));
        Self { name, contact_points }
    }

    /// The part of the configuration that names it.
    pub(super) fn config(&self) -> String {
        let points: Vec<String> = self.contact_points.iter().map(ToString::to_string).collect();
        let name = &self.name;
        let mut config =
            format!("\n[store]\nkind = \"scylla\"\ncontact_points = {points:?}\nkeyspace = {name:?}\n");
        if points.len() > 1 {
            // Nodes of our own: how many copies there are is for the test to say, not for whoever was seen first.
            let copies = points.len().min(3);
            config += &format!("replication = {{ {DATACENTER} = {copies} }}\n");
        }
        config
    }

    /// Drops it. A node has little memory, and every table takes some.
    async fn drop_it(&self) -> Result<()> {
        for address in &self.contact_points {
            if answers(*address).await {
                let mut connection = Connection::open(*address).await?;
                connection.run(&format!("DROP KEYSPACE IF EXISTS {}", self.name)).await?;
                break;
            }
        }
        Ok(())
    }
}

impl Drop for Keyspace {
    fn drop(&mut self) {
        let work = || {
            let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
            runtime.block_on(self.drop_it())
        };
        // On a thread of its own: this one may be inside a runtime. A node that is gone needs no cleaning.
        std::thread::scope(|scope| {
            let _ = scope.spawn(work).join();
        });
    }
}
