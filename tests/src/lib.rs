//! What the tests of the whole server share: a raw client, a harness that runs servers, and a script runner.
//!
//! Nothing here uses a crate of the server. The client parses with `rxml` and has its own SCRAM and stream
//! management, so that a fault in the server's XML or SASL code cannot hide behind the same fault in its test.
//! The same client drives Prosody and ejabberd, which keeps our reading of the specifications honest.
//!
//! Every wait has an end: [`PATIENCE`] unless a call says otherwise.
#![allow(clippy::disallowed_methods)] // a test measures real time

pub mod cassandra;
pub mod certificate;
pub mod client;
pub mod collector;
pub mod cql;
pub mod crowd;
pub mod history;
pub mod http;
pub mod report;
pub mod sandbox;
pub mod script;
pub mod server;
pub mod xml;

use std::time::Duration;

pub use client::{Client, Detached, Login, Mechanism, Target, Transport};
pub use server::Server;
pub use xml::Node;

/// How long a test waits for something that must happen.
pub const PATIENCE: Duration = Duration::from_secs(15);

/// How long a test listens to be sure that something does not happen.
pub const SILENCE: Duration = Duration::from_millis(300);
