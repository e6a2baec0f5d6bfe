//! The tables, shaped by what is asked of them.
//!
//! Every read and write names a whole partition, and no partition grows without bound: a bucket of the log ends at 5,000
//! rows, 64 MiB or 30 days, a volume of the index at 50 buckets, names and purges are spread over slices. There is no secondary
//! index, no materialized view, no filtering and no batch over partitions.
//!
//! A coordinator asks as many replicas as make a quorum. When one of them has just died, the others are asked only after
//! `speculative_retry`: by default that is learned from reads that were fast, and half the server's own timeout until there
//! are enough of them, which is longer than an attempt has. So it is a fixed time.
//!
//! Deletes of a home are ranges: a reign that begins removes what an older one may still have under way, in one
//! tombstone per range and account. They must outlive what they hide: a write that a replica has missed reaches it by
//! hint or repair, so `gc_grace_seconds` stays at ten days, and repair within them is asked for in the documentation.

/// A table of the keyspace.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Table {
    /// Accounts and their keys: conditional statements only.
    Accounts,
    /// Local parts of a domain, in slices, for listing.
    AccountNames,
    /// Everything of an account that is not its log; read and written in one.
    AccountData,
    /// Which buckets a log has.
    LogBuckets,
    /// The log.
    Log,
    /// Where the rows with a peer are.
    LogByPeer,
    /// Owners whose rows are to be removed.
    Purges,
    /// Values of the cluster: conditional statements only.
    Cluster,
    /// Who reigns: conditional statements only.
    Reigns,
}

impl Table {
    /// All of them.
    pub const ALL: [Self; 9] = [
        Self::Accounts,
        Self::AccountNames,
        Self::AccountData,
        Self::LogBuckets,
        Self::Log,
        Self::LogByPeer,
        Self::Purges,
        Self::Cluster,
        Self::Reigns,
    ];

    /// Its name.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Accounts => "accounts",
            Self::AccountNames => "account_names",
            Self::AccountData => "account_data",
            Self::LogBuckets => "log_buckets",
            Self::Log => "log",
            Self::LogByPeer => "log_by_peer",
            Self::Purges => "purges",
            Self::Cluster => "cluster",
            Self::Reigns => "reigns",
        }
    }
}

/// The one row of `reigns`.
pub(crate) const REIGN: &str = "home";

/// What answers.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Dialect {
    /// Apache Cassandra.
    Cassandra,
    /// ScyllaDB.
    Scylla,
}

impl Dialect {
    /// For people.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Cassandra => "Apache Cassandra",
            Self::Scylla => "ScyllaDB",
        }
    }

    /// What a keyspace is created with beyond its copies. The one place where the two differ: on ScyllaDB conditional
    /// statements need tablets off before version 2025.4, and are as right with vnodes after it.
    pub(crate) fn keyspace_options(self) -> &'static str {
        match self {
            Self::Cassandra => "",
            Self::Scylla => " AND tablets = {'enabled': false}",
        }
    }
}
