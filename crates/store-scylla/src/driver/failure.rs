//! What the driver's errors mean for whoever asked: may it have been done, and is it worth trying again.
//!
//! Texts name the error and never a value: where a server quotes a key, its words are left out.

use crate::cql::CqlError;
use scylla::errors::{
    ConnectionPoolError, DbError, ExecutionError, OperationType, PrepareError, RequestAttemptError,
};
use scylla::frame::protocol_features::ProtocolFeatures;

/// Whether the statement has a condition. Then even an answer that speaks of too few replicas may come after the
/// decision, from the commit that follows it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Kind {
    Read,
    Write,
    Conditional,
}

/// An attempt that failed.
#[derive(Debug, Clone)]
pub(super) struct Failure {
    pub(super) error: CqlError,
    /// No node could be reached: the request has not left.
    pub(super) disconnected: bool,
    /// `error.type` of a span.
    pub(super) name: &'static str,
    /// The server's own number for it, where the server has said so.
    pub(super) code: Option<i32>,
}

impl From<CqlError> for Failure {
    fn from(error: CqlError) -> Self {
        let name = match &error {
            CqlError::Unknown(_) => "timeout",
            CqlError::Refused(_) => "unavailable",
            CqlError::Overloaded(_) => "overloaded",
            CqlError::Invalid(_) | CqlError::Unreadable(_) => "invalid",
        };
        Self { error, disconnected: false, name, code: None }
    }
}

/// Stored data that is not what we write.
pub(super) fn unreadable(column: &'static str) -> CqlError {
    CqlError::Unreadable(column)
}

/// What an error of one attempt means.
pub(super) fn of_execution(error: &ExecutionError, kind: Kind) -> Failure {
    let failure = |error, name| Failure { error, disconnected: false, name, code: None };
    match error {
        ExecutionError::EmptyPlan => Failure {
            error: CqlError::Refused("no node of the local datacenter is known".to_owned()),
            disconnected: true,
            name: "no_connection",
            code: None,
        },
        ExecutionError::ConnectionPoolError(error) => of_pool(error),
        ExecutionError::LastAttemptError(error) => of_attempt(error, kind),
        ExecutionError::RequestTimeout(after) => {
            failure(CqlError::Unknown(format!("no answer within {} ms", after.as_millis())), "timeout")
        }
        ExecutionError::PrepareError(error) => of_prepare(error),
        ExecutionError::BadQuery(_) => {
            failure(CqlError::Invalid("the values do not fit the statement".to_owned()), "bad_query")
        }
        _ => failure(CqlError::Unknown("the driver failed".to_owned()), "driver"),
    }
}

/// What an error of preparing means.
pub(super) fn of_prepare(error: &PrepareError) -> Failure {
    match error {
        PrepareError::ConnectionPoolError(error) => of_pool(error),
        // Nothing is done by preparing, so nothing is unknown after it.
        PrepareError::AllAttemptsFailed { first_attempt } => match of_attempt(first_attempt, Kind::Read) {
            Failure { error: CqlError::Unknown(text), disconnected, name, code } => {
                Failure { error: CqlError::Refused(text), disconnected, name, code }
            }
            other => other,
        },
        _ => CqlError::Refused("the statement could not be prepared".to_owned()).into(),
    }
}

fn of_pool(error: &ConnectionPoolError) -> Failure {
    let text = match error {
        ConnectionPoolError::Broken { last_connection_error } => {
            format!("no connection: {last_connection_error}")
        }
        ConnectionPoolError::Initializing => "no connection yet".to_owned(),
        _ => "no connection".to_owned(),
    };
    Failure { error: CqlError::Refused(text), disconnected: true, name: "no_connection", code: None }
}

fn of_attempt(error: &RequestAttemptError, kind: Kind) -> Failure {
    let failure = |error, name| Failure { error, disconnected: false, name, code: None };
    match error {
        RequestAttemptError::SerializationError(_) | RequestAttemptError::CqlRequestSerialization(_) => {
            failure(CqlError::Invalid("the request cannot be encoded".to_owned()), "bad_query")
        }
        RequestAttemptError::UnableToAllocStreamId => {
            failure(CqlError::Overloaded("a connection has no stream left".to_owned()), "overloaded")
        }
        RequestAttemptError::BrokenConnectionError(_) => {
            failure(CqlError::Unknown("the connection broke".to_owned()), "connection_broken")
        }
        RequestAttemptError::DbError(error, text) => {
            // The number of a rate limit is agreed on with each connection.
            let known = !matches!(error, DbError::RateLimitReached { .. });
            let code = known.then(|| error.code(&ProtocolFeatures::default()));
            Failure { code, ..of_database(error, text, kind) }
        }
        RequestAttemptError::RepreparedIdChanged { .. } | RequestAttemptError::RepreparedIdMissingInBatch => {
            failure(CqlError::Invalid("a prepared statement has become another".to_owned()), "unprepared")
        }
        // It was sent and something has come back.
        _ if kind == Kind::Read => {
            failure(CqlError::Invalid("the answer cannot be read".to_owned()), "bad_answer")
        }
        _ => failure(CqlError::Unknown("the answer cannot be read".to_owned()), "bad_answer"),
    }
}

fn of_database(error: &DbError, text: &str, kind: Kind) -> Failure {
    use CqlError::{Invalid, Overloaded, Refused, Unknown};
    let failure = |error, name| Failure { error, disconnected: false, name, code: None };
    // What cannot have been done by a plain write may be done by a conditional one.
    let not_done: fn(String) -> CqlError = if kind == Kind::Conditional { Unknown } else { Refused };
    let shed: fn(String) -> CqlError = if kind == Kind::Conditional { Unknown } else { Overloaded };
    match error {
        DbError::Unavailable { required, alive, .. } => {
            failure(not_done(format!("{alive} of {required} replicas are alive")), "unavailable")
        }
        DbError::Overloaded => failure(shed("the coordinator is overloaded".to_owned()), "overloaded"),
        DbError::RateLimitReached { op_type, rejected_by_coordinator } => {
            let done = !rejected_by_coordinator && *op_type != OperationType::Read;
            let text = "a rate limit of the server was reached".to_owned();
            failure(if done { Unknown(text) } else { shed(text) }, "rate_limit")
        }
        DbError::IsBootstrapping => failure(not_done("the node is starting".to_owned()), "is_bootstrapping"),
        DbError::Unprepared { .. } => {
            failure(not_done("the statement is not prepared".to_owned()), "unprepared")
        }
        DbError::ReadTimeout { received, required, .. } => {
            failure(Unknown(format!("{received} of {required} replicas answered in time")), "read_timeout")
        }
        DbError::WriteTimeout { received, required, .. } => {
            failure(Unknown(format!("{received} of {required} replicas answered in time")), "write_timeout")
        }
        DbError::ReadFailure { numfailures, .. } => {
            failure(Unknown(format!("{numfailures} replicas failed to read")), "read_failure")
        }
        DbError::WriteFailure { numfailures, .. } => {
            failure(Unknown(format!("{numfailures} replicas failed to write")), "write_failure")
        }
        DbError::ServerError => failure(Unknown("the server failed".to_owned()), "server_error"),
        DbError::SyntaxError => failure(Invalid(said("syntax error", text)), "syntax_error"),
        DbError::Invalid => failure(Invalid(said("invalid request", text)), "invalid"),
        DbError::Unauthorized => failure(Invalid(said("not permitted", text)), "unauthorized"),
        DbError::AuthenticationError => {
            failure(Invalid("name or password is wrong".to_owned()), "authentication_error")
        }
        DbError::ConfigError => failure(Invalid(said("the server's configuration", text)), "config_error"),
        DbError::AlreadyExists { .. } => failure(Invalid("it exists already".to_owned()), "already_exists"),
        DbError::FunctionFailure { .. } => {
            failure(Invalid("a function failed".to_owned()), "function_failure")
        }
        DbError::TruncateError => failure(Invalid("truncating failed".to_owned()), "truncate_error"),
        DbError::ProtocolError => failure(Invalid("protocol error".to_owned()), "protocol_error"),
        _ => failure(Unknown("an error that is not known here".to_owned()), "other"),
    }
}

/// The server's own words, unless they could have an address in them.
fn said(what: &str, text: &str) -> String {
    if text.len() > 300 || text.contains('@') || text.contains("keys") {
        what.to_owned()
    } else {
        format!("{what}: {text}")
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use scylla::errors::WriteType;
    use scylla::frame::types::Consistency;
    use std::time::Duration;

    fn database(error: DbError, kind: Kind) -> CqlError {
        let error = RequestAttemptError::DbError(error, "words".to_owned());
        of_execution(&ExecutionError::LastAttemptError(error), kind).error
    }

    #[test]
    fn what_may_have_been_done_is_unknown() {
        let timeout = DbError::WriteTimeout {
            consistency: Consistency::LocalQuorum,
            received: 1,
            required: 2,
            write_type: WriteType::Simple,
        };
        assert!(matches!(database(timeout, Kind::Write), CqlError::Unknown(_)));
        assert!(matches!(database(DbError::ServerError, Kind::Write), CqlError::Unknown(_)));
        let timeout = ExecutionError::RequestTimeout(Duration::from_secs(2));
        assert!(matches!(of_execution(&timeout, Kind::Write).error, CqlError::Unknown(_)));
        let limit = |coordinator| DbError::RateLimitReached {
            op_type: OperationType::Write,
            rejected_by_coordinator: coordinator,
        };
        assert!(matches!(database(limit(false), Kind::Write), CqlError::Unknown(_)));
        assert!(matches!(database(limit(true), Kind::Write), CqlError::Overloaded(_)));
    }

    #[test]
    fn what_was_certainly_not_done_can_be_tried_again() {
        let unavailable =
            || DbError::Unavailable { consistency: Consistency::LocalQuorum, required: 2, alive: 1 };
        assert!(matches!(database(unavailable(), Kind::Write), CqlError::Refused(_)));
        assert!(matches!(database(DbError::Overloaded, Kind::Write), CqlError::Overloaded(_)));
        let error = RequestAttemptError::DbError(DbError::Overloaded, String::new());
        let failure = of_execution(&ExecutionError::LastAttemptError(error), Kind::Write);
        assert_eq!((failure.name, failure.code), ("overloaded", Some(0x1001)));
        // A conditional write may have been decided before its commit found too few replicas.
        assert!(matches!(database(unavailable(), Kind::Conditional), CqlError::Unknown(_)));
        assert!(matches!(database(DbError::Overloaded, Kind::Conditional), CqlError::Unknown(_)));
        let pool = ExecutionError::ConnectionPoolError(ConnectionPoolError::Initializing);
        let failure = of_execution(&pool, Kind::Conditional);
        assert!(matches!(failure.error, CqlError::Refused(_)) && failure.disconnected);
        assert!(of_execution(&ExecutionError::EmptyPlan, Kind::Write).disconnected);
    }

    #[test]
    fn words_of_the_server_are_kept_unless_they_could_name_somebody() {
        assert_eq!(
            said("invalid request", "unconfigured table log"),
            "invalid request: unconfigured table log"
        );
        assert_eq!(said("invalid request", "Top keys are: log.romeo@example.net"), "invalid request");
        assert_eq!(said("invalid request", "key romeo@example.net is too long"), "invalid request");
    }
}
