//! The list of migrations. One that was released is never changed: a new one follows it.

use super::{Kind, Migration};

/// All migrations, rising by one.
pub const LIST: &[Migration] = &[Migration {
    version: 1,
    name: "accounts, logs and who reigns",
    kind: Kind::Expand,
    statements: &[
        "CREATE TABLE IF NOT EXISTS {keyspace}.accounts (
    jid text,
    generation bigint,
    credentials blob,
    created bigint,
    disabled boolean,
    PRIMARY KEY ((jid))
) WITH comment = 'accounts; conditional statements only'
    AND compaction = {'class': 'LeveledCompactionStrategy'}
    AND speculative_retry = '100ms'
    AND gc_grace_seconds = 864000",
        "CREATE TABLE IF NOT EXISTS {keyspace}.account_names (
    domain text,
    slice int,
    local text,
    PRIMARY KEY ((domain, slice), local)
) WITH comment = 'local parts of a domain in 256 slices, for listing; accounts decides'
    AND compaction = {'class': 'LeveledCompactionStrategy'}
    AND speculative_retry = '100ms'
    AND gc_grace_seconds = 864000",
        "CREATE TABLE IF NOT EXISTS {keyspace}.account_data (
    jid text,
    generation bigint,
    kind text,
    name text,
    number bigint,
    body blob,
    PRIMARY KEY ((jid, generation), kind, name)
) WITH comment = 'roster, documents, cursor and marks of an account: read as one, written as one'
    AND compaction = {'class': 'SizeTieredCompactionStrategy'}
    AND speculative_retry = '100ms'
    AND gc_grace_seconds = 864000",
        "CREATE TABLE IF NOT EXISTS {keyspace}.log_buckets (
    jid text,
    generation bigint,
    bucket bigint,
    volume bigint,
    rows int,
    PRIMARY KEY ((jid, generation), bucket)
) WITH CLUSTERING ORDER BY (bucket DESC)
    AND comment = 'buckets of a log, named by the position from which they begin'
    AND compaction = {'class': 'LeveledCompactionStrategy'}
    AND speculative_retry = '100ms'
    AND gc_grace_seconds = 864000",
        "CREATE TABLE IF NOT EXISTS {keyspace}.log (
    jid text,
    generation bigint,
    bucket bigint,
    position bigint,
    nth int,
    filled int,
    safe bigint,
    session blob,
    sequence bigint,
    origin_id text,
    direction tinyint,
    peer text,
    archived boolean,
    offline boolean,
    expires bigint,
    stanza blob,
    PRIMARY KEY ((jid, generation, bucket), position)
) WITH CLUSTERING ORDER BY (position DESC)
    AND comment = 'messages by owner and bucket; at most 5,000 rows, 64 MiB or 30 days to a partition'
    AND compaction = {'class': 'SizeTieredCompactionStrategy'}
    AND speculative_retry = '100ms'
    AND gc_grace_seconds = 864000",
        "CREATE TABLE IF NOT EXISTS {keyspace}.log_by_peer (
    jid text,
    generation bigint,
    peer text,
    volume bigint,
    position bigint,
    bucket bigint,
    PRIMARY KEY ((jid, generation, peer, volume), position)
) WITH CLUSTERING ORDER BY (position DESC)
    AND comment = 'where the messages with a peer are; a volume is 50 buckets'
    AND compaction = {'class': 'SizeTieredCompactionStrategy'}
    AND speculative_retry = '100ms'
    AND gc_grace_seconds = 864000",
        "CREATE TABLE IF NOT EXISTS {keyspace}.purges (
    day int,
    slice int,
    jid text,
    generation bigint,
    since bigint,
    removed boolean,
    PRIMARY KEY ((day, slice), jid, generation)
) WITH comment = 'deleted accounts whose rows are to be removed, by the day since 1970 in 16 slices'
    AND compaction = {'class': 'LeveledCompactionStrategy'}
    AND speculative_retry = '100ms'
    AND gc_grace_seconds = 864000",
        CLUSTER,
        "CREATE TABLE IF NOT EXISTS {keyspace}.reigns (
    name text,
    epoch bigint,
    ceiling bigint,
    instance blob,
    holder text,
    grants bigint,
    PRIMARY KEY ((name))
) WITH comment = 'who gives out positions; conditional statements only'
    AND speculative_retry = '100ms'
    AND gc_grace_seconds = 864000",
    ],
}];

/// Where the store belongs stands there too, which is known before there is a version.
pub(super) const CLUSTER: &str = "CREATE TABLE IF NOT EXISTS {keyspace}.cluster (
    name text,
    body blob,
    PRIMARY KEY ((name))
) WITH comment = 'values of the cluster; conditional statements only'
    AND speculative_retry = '100ms'
    AND gc_grace_seconds = 864000";
