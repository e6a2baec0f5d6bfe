//! Administration: probes and metrics for machines, and calls for those who run the server.
//!
//! Two doors. [`probes`] listens on TCP (`listen.admin`), answers `/livez`, `/readyz`, `/startupz` and `/metrics`,
//! asks for no password and can change nothing. [`socket`] is a Unix socket in the data directory; it takes
//! calls that change accounts, from the user the server runs as and from root, which the kernel vouches for.
//!
//! The key decision: this crate owns no data. It reaches accounts and sessions through [`Control`], which the
//! homes implement, so that an account changed here is changed where its owner keeps it. [`Client`] is the other
//! end, used by `starling ctl`.

#![forbid(unsafe_code)]

pub mod api;
pub mod client;
pub mod control;
pub mod probes;
pub mod raft;
mod routes;
mod serve;
pub mod socket;
pub mod traces;

pub use client::{Client, ClientError};
pub use control::{
    Control, ControlError, Draining, ListenerStatus, NewUser, Password, Phase, Status, User, UserPage,
    UserQuery,
};
pub use probes::Probes;
pub use raft::Raft;
pub use socket::{AdminSocket, SocketError};
pub use traces::Traces;
