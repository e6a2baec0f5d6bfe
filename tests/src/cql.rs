//! The CQL protocol, version 4, as far as tests need it: frames, a client that runs statements as text, and a
//! [proxy](Proxy) that breaks the rules on command.
//!
//! Its own code for the same reason as the XMPP client's: what is under test must not be what judges.

mod client;
mod faults;
mod frame;
mod proxy;
mod statements;

pub use client::{Connection, Rows};
pub use faults::{Counts, Faults, Refusal};
pub use frame::{Frame, opcode};
pub use proxy::Proxy;

use std::net::SocketAddr;

/// Whether a server takes CQL clients at this address now.
pub async fn answers(address: SocketAddr) -> bool {
    Connection::options(address).await.is_ok()
}
