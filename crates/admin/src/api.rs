//! The calls as JSON, version 1. Both ends use these types.

use serde::{Deserialize, Serialize};
use starling_wire::SessionInfo;

use crate::control::{ControlError, Draining, Status, User, UserPage};

/// `POST /v1/users`, and one item of an import.
#[derive(Clone, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct AddUser {
    /// Bare JID.
    pub jid: String,
    /// Clear text; only its SCRAM keys are kept.
    pub password: String,
}

/// `PUT /v1/users/{jid}/password`.
#[derive(Clone, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct SetPassword {
    /// Clear text.
    pub password: String,
}

/// `POST /v1/users:import`: makes accounts, or sets the passwords of those that are there.
#[derive(Clone, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Import {
    /// At most [`IMPORT_MAX`].
    pub users: Vec<AddUser>,
}

/// What became of an import.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
pub struct Imported {
    /// New accounts.
    pub added: usize,
    /// Accounts that were there and have a new password.
    pub changed: usize,
    /// What failed; the rest was done.
    pub failed: Vec<ImportFailure>,
}

/// One item that failed.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct ImportFailure {
    /// Its place in the call, from 0.
    pub index: usize,
    /// Why.
    pub error: ErrorBody,
}

/// `GET /v1/users?domain&after&limit`.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
pub struct Users {
    /// Ordered by address.
    pub users: Vec<UserRow>,
    /// Give this as `after` for the next page; absent on the last.
    pub next: Option<String>,
}

/// An account.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct UserRow {
    /// Bare JID.
    pub jid: String,
    /// Microseconds since the Unix epoch.
    pub created: Option<u64>,
}

/// `GET /v1/sessions?jid&limit`.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
pub struct Sessions {
    /// The first in the order of their addresses.
    pub sessions: Vec<SessionRow>,
    /// There are more than were asked for.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub more: bool,
}

/// A session.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct SessionRow {
    /// Full JID.
    pub jid: String,
    /// `available`, `unavailable` or `detached`.
    pub state: String,
    /// Of the last presence.
    pub priority: i8,
    /// XEP-0198 is on.
    pub stream_management: bool,
    /// When it was bound, microseconds since the Unix epoch.
    pub since: u64,
}

/// `GET /v1/status`.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
pub struct StatusBody {
    /// Version of the server.
    pub version: String,
    /// Its process.
    pub pid: u32,
    /// Domains it answers for.
    pub domains: Vec<String>,
    /// Seconds since its start.
    pub uptime_seconds: u64,
    /// Sessions, detached ones included.
    pub sessions: u64,
    /// Sessions that wait to be resumed.
    pub detached: u64,
    /// Addresses in use, `name address`.
    pub listeners: Vec<ListenerRow>,
    /// What else there is to say.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub details: Vec<Detail>,
}

/// One thing more.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Detail {
    /// What it is.
    pub name: String,
    /// How it is.
    pub value: String,
}

/// `POST` and `GET /v1/drain`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct DrainBody {
    /// `serving`, `settling`, `leaving` or `ending`.
    pub phase: String,
    /// What is still here.
    pub left: u64,
}

/// An address that is listened on.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct ListenerRow {
    /// The key: `c2s`, `c2s_tls`, `admin`.
    pub name: String,
    /// `ip:port`.
    pub address: String,
}

/// What an error says.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct ErrorBody {
    /// A word for programs: see [`code`].
    pub code: String,
    /// A sentence for people.
    pub message: String,
}

/// Words of [`ErrorBody::code`].
pub mod code {
    /// 404.
    pub const NOT_FOUND: &str = "not_found";
    /// 409.
    pub const EXISTS: &str = "exists";
    /// 422.
    pub const UNKNOWN_DOMAIN: &str = "unknown_domain";
    /// 422.
    pub const INVALID: &str = "invalid";
    /// 503.
    pub const UNAVAILABLE: &str = "unavailable";
}

/// Users in one call of an import; `ctl` cuts a file into such pieces.
pub const IMPORT_MAX: usize = 500;

/// Items on one page, unless the call asks for fewer.
pub const PAGE_MAX: usize = 1_000;

/// The longest password that is looked at, in bytes: the same bound as on the wire.
pub const PASSWORD_MAX: usize = 1_023;

impl From<&ControlError> for ErrorBody {
    fn from(error: &ControlError) -> Self {
        let code = match error {
            ControlError::NotFound => code::NOT_FOUND,
            ControlError::Exists => code::EXISTS,
            ControlError::UnknownDomain => code::UNKNOWN_DOMAIN,
            ControlError::Invalid(_) => code::INVALID,
            ControlError::Unavailable(_) => code::UNAVAILABLE,
        };
        Self { code: code.to_owned(), message: error.to_string() }
    }
}

impl From<UserPage> for Users {
    fn from(page: UserPage) -> Self {
        let last = page.users.last().filter(|_| page.more);
        let next = last.map(|user| user.jid.as_str().to_owned());
        Self { users: page.users.into_iter().map(UserRow::from).collect(), next }
    }
}

impl From<User> for UserRow {
    fn from(user: User) -> Self {
        Self { jid: user.jid.as_str().to_owned(), created: user.created }
    }
}

impl From<SessionInfo> for SessionRow {
    fn from(session: SessionInfo) -> Self {
        let state = match (session.detached, session.available) {
            (true, _) => "detached",
            (false, true) => "available",
            (false, false) => "unavailable",
        };
        Self {
            jid: session.jid.as_str().to_owned(),
            state: state.to_owned(),
            priority: session.priority,
            stream_management: session.stream_management,
            since: session.since,
        }
    }
}

impl From<Status> for StatusBody {
    fn from(status: Status) -> Self {
        let listeners = status.listeners.into_iter();
        Self {
            version: status.version,
            pid: std::process::id(),
            domains: status.domains,
            uptime_seconds: status.uptime_seconds,
            sessions: status.sessions,
            detached: status.detached,
            listeners: listeners
                .map(|listener| ListenerRow { name: listener.name, address: listener.address.to_string() })
                .collect(),
            details: status.details.into_iter().map(|(name, value)| Detail { name, value }).collect(),
        }
    }
}

impl From<Draining> for DrainBody {
    fn from(draining: Draining) -> Self {
        Self { phase: draining.phase.as_str().to_owned(), left: draining.left }
    }
}
