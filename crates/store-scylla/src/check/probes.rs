//! Reads and conditional writes, as they are made every day.

use super::Finding;
use crate::driver::connect::Connection;
use crate::options::Options;
use scylla::frame::types::Consistency;
use scylla::statement::Statement;
use starling_node::Clock;
use std::time::Duration;

/// A quorum read of one row takes longer than this only on slow disks, slow networks or loaded servers.
const SLOW_READ: Duration = Duration::from_millis(20);

/// The same for a conditional write, which goes there and back four times.
const SLOW_CONDITION: Duration = Duration::from_millis(100);

pub(super) async fn look(options: &Options, connection: &Connection, clock: &dyn Clock) -> Vec<Finding> {
    vec![reads(options, connection, clock).await, conditions(options, connection, clock).await]
}

async fn reads(options: &Options, connection: &Connection, clock: &dyn Clock) -> Finding {
    let mut text =
        Statement::new(format!("SELECT holder FROM {}.schema_lock WHERE name = 'check'", options.keyspace));
    text.set_consistency(Consistency::LocalQuorum);
    let mut took = Vec::new();
    for _ in 0..20 {
        let begun = clock.monotonic();
        if let Err(error) = connection.session.query_unpaged(text.clone(), ()).await {
            return Finding::bad(
                format!("a quorum read failed: {error}"),
                "see `nodetool status`: a quorum of the copies has to be up",
            );
        }
        took.push(clock.monotonic().saturating_sub(begun));
    }
    pace("a quorum read takes", &mut took, SLOW_READ)
}

async fn conditions(options: &Options, connection: &Connection, clock: &dyn Clock) -> Finding {
    let text = Statement::new(format!(
        "INSERT INTO {}.schema_lock (name, holder) VALUES ('check', 'check') IF NOT EXISTS USING TTL 10",
        options.keyspace
    ));
    let mut took = Vec::new();
    for _ in 0..5 {
        let begun = clock.monotonic();
        if let Err(error) = connection.session.query_unpaged(text.clone(), ()).await {
            return Finding::bad(
                format!("a conditional write failed: {error}"),
                "a quorum of the copies has to be up, and the role may change rows; on ScyllaDB tablets and conditional \
                 writes go together from version 2025.4 on",
            );
        }
        took.push(clock.monotonic().saturating_sub(begun));
    }
    pace("a conditional write takes", &mut took, SLOW_CONDITION)
}

fn pace(what: &str, took: &mut [Duration], slow: Duration) -> Finding {
    took.sort_unstable();
    let median = took.get(took.len() / 2).copied().unwrap_or_default();
    let text = format!("{what} {:.1} ms (median of {})", median.as_secs_f64() * 1_000.0, took.len());
    if median > slow {
        let remedy = "look at the load and the disks of the nodes, and at the way to them: every message waits for this";
        Finding::doubtful(text, remedy)
    } else {
        Finding::good(text)
    }
}
