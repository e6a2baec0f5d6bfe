//! The edge: it accepts clients, does TLS, XML framing, authentication and limits, and holds nothing that cannot
//! be lost. A session lives in the routing tier; what is here is its socket.
//!
//! An edge meets homes in two traits of `starling-wire`: it speaks to a `RouterLink` and offers an `EdgeLink`
//! ([`EdgeTable`]). Every counted stanza passes the home; the edge answers, adds and drops none, and no `h` leaves
//! it that the home has not recorded (XEP-0198).
//!
//! The way of a connection: `listener` → `negotiate` (header, TLS, SASL, resource; in one boxed future) →
//! `session` (one small task that is woken by its socket, its mailbox or the common timer wheel, does all there
//! is to do, and writes once).

#![forbid(unsafe_code)]

mod drain;
mod edge;
mod gate;
mod hash_pool;
mod io;
mod listener;
mod mailbox;
mod negotiate;
mod registrations;
mod session;
mod shared;
mod source;
mod table;
mod tenancy;
mod throttle;
mod tls;
mod wheel;

pub use edge::{Addresses, Edge, EdgeError, Fingerprint, Parts};
pub use table::EdgeTable;
pub use tls::TlsError;
