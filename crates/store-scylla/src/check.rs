//! What would keep a store on this server from being fast or safe, with a remedy for each: the part of `starling check`
//! that looks at CQL.
//!
//! Nothing is changed, but for a row of ten seconds that shows whether conditional writes work.

mod keyspace;
mod nodes;
mod probes;
#[cfg(test)]
mod tests;

use crate::driver::connect::{ConnectError, Connection};
use crate::migrations::{self, Fitness, MigrateError};
use crate::options::Options;
use scylla::errors::ExecutionError;
use scylla::statement::Statement;
use starling_node::Clock;
use std::net::IpAddr;

/// How a thing is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Verdict {
    /// As it should be.
    Good,
    /// It works, and somebody may not have meant it.
    Doubtful,
    /// It does not work, or loses what was confirmed.
    Bad,
}

/// One thing that was looked at.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Finding {
    /// How it is.
    pub verdict: Verdict,
    /// What was found.
    pub text: String,
    /// What to do about it; `None` where it is good.
    pub remedy: Option<String>,
}

impl Finding {
    fn good(text: impl Into<String>) -> Self {
        Self { verdict: Verdict::Good, text: text.into(), remedy: None }
    }

    fn doubtful(text: impl Into<String>, remedy: impl Into<String>) -> Self {
        Self { verdict: Verdict::Doubtful, text: text.into(), remedy: Some(remedy.into()) }
    }

    fn bad(text: impl Into<String>, remedy: impl Into<String>) -> Self {
        Self { verdict: Verdict::Bad, text: text.into(), remedy: Some(remedy.into()) }
    }
}

/// Looks at everything, as far as it gets.
pub async fn run(options: &Options, clock: &dyn Clock) -> Vec<Finding> {
    let connection = match Connection::open(options).await {
        Ok(connection) => connection,
        Err(error) => return vec![unusable(&error)],
    };
    let mut findings = vec![reached(&connection)];
    findings.extend(access(options));
    findings.extend(nodes::look(&connection, clock).await);
    let (copies, hopeless) = keyspace::look(options, &connection).await;
    findings.extend(copies);
    // Where no quorum can answer there is nothing more to be learned, and no other remedy.
    if !hopeless {
        findings.extend(schema(options, &connection, clock).await);
    }
    findings
}

async fn schema(options: &Options, connection: &Connection, clock: &dyn Clock) -> Vec<Finding> {
    let status = match migrations::look(connection, options).await {
        Ok(status) => status,
        Err(MigrateError::Connect(error)) => return vec![unusable(&error)],
        Err(error) => {
            let remedy = "see `nodetool status`: in each range of tokens a quorum of the copies has to be up";
            return vec![Finding::bad(error.to_string(), remedy)];
        }
    };
    let mut findings = Vec::new();
    let (name, known) = (&options.keyspace, migrations::newest());
    if let Some(refusal) = status.fitness.refusal(name, known) {
        findings.push(Finding::bad(refusal.why, refusal.advice));
    } else {
        let newer = status.applied.last().filter(|last| last.version > known);
        let newer =
            newer.map_or_else(String::new, |last| format!(" (it has {}, which adds only)", last.version));
        findings.push(Finding::good(format!("{}{newer}", status.fitness.text(name, known))));
        match status.datacenter {
            None => {
                let refusal = migrations::homeless(name);
                findings.push(Finding::bad(refusal.why, refusal.advice));
            }
            Some(there) if there != connection.datacenter => {
                let text = migrations::elsewhere(&there, &connection.datacenter).to_string();
                findings.push(Finding::bad(text, "set store.local_datacenter to it"));
            }
            Some(_) => {}
        }
    }
    if status.replication.is_some() && !status.unwritten.is_empty() && status.fitness == Fitness::Fits {
        let text = format!("tables for migrations are missing: {}", status.unwritten.join(", "));
        findings.push(Finding::bad(text, "run `starling migrate apply`"));
    } else if status.fitness == Fitness::Fits {
        findings.extend(probes::look(options, connection, clock).await);
    }
    findings
}

fn unusable(error: &ConnectError) -> Finding {
    let remedy = match error {
        ConnectError::Options(_) => "see `starling config explain store`",
        ConnectError::Tls(_) => "see `starling config explain store.tls`",
        ConnectError::Unreachable { .. } => {
            "start the server, or name those there are in store.contact_points; look at firewalls, and at TLS on both sides"
        }
        ConnectError::Login(_) => {
            "give a role that may log in as store.username, its password in store.password_file"
        }
        ConnectError::Datacenter(_) => "set store.local_datacenter to the one that is near",
        ConnectError::Schema(refusal) => return Finding::bad(refusal.why.as_str(), refusal.advice.as_str()),
        ConnectError::Denied(_) => {
            "GRANT SELECT ON KEYSPACE and GRANT MODIFY ON KEYSPACE to the role (docs/store-scylla.md, Permissions)"
        }
        ConnectError::Other(_) => "look into the log of the CQL server",
    };
    Finding::bad(error.to_string(), remedy)
}

fn reached(connection: &Connection) -> Finding {
    let (all, connected) = connection.nodes();
    let text = format!("{connected} of {all} nodes of datacenter {} are connected", connection.datacenter());
    match connected {
        0 => Finding::bad(text, "start them"),
        _ if connected < all => Finding::doubtful(text, "start the others, or remove them from the ring"),
        _ => Finding::good(text),
    }
}

/// Who gets in, and who listens.
fn access(options: &Options) -> Vec<Finding> {
    let mut findings = Vec::new();
    match &options.username {
        Some(_) => findings.push(Finding::good("the login was accepted")),
        None => findings.push(Finding::doubtful(
            "the server lets everybody in who reaches it",
            "set `authenticator: PasswordAuthenticator` and `authorizer: CassandraAuthorizer` there, and store.username here",
        )),
    }
    let near = options.contact_points.iter().all(|point| is_loopback(point));
    match &options.tls {
        Some(_) => findings.push(Finding::good("connections are encrypted")),
        None if near => {}
        None => findings.push(Finding::doubtful(
            "connections are not encrypted: messages and keys of accounts can be read on the way",
            "set `client_encryption_options` there, and store.tls here",
        )),
    }
    findings
}

fn is_loopback(point: &str) -> bool {
    let host = match point.strip_prefix('[').and_then(|rest| rest.split_once(']')) {
        Some((host, _)) => host,
        None if point.matches(':').count() == 1 => point.split(':').next().unwrap_or_default(),
        None => point,
    };
    host == "localhost" || host.parse::<IpAddr>().is_ok_and(|address| address.is_loopback())
}

/// Rows of one small read at one node, or wherever the driver goes.
async fn ask(
    connection: &Connection,
    statement: Statement,
    values: impl scylla::serialize::row::SerializeRow,
) -> Result<Vec<scylla::value::Row>, ExecutionError> {
    let rows = connection.session.query_unpaged(statement, values).await?.into_rows_result();
    let rows = rows.ok().and_then(|rows| rows.rows().ok()?.collect::<Result<Vec<_>, _>>().ok());
    Ok(rows.unwrap_or_default())
}
