//! Homes: the one place where an account's stanzas are numbered, ordered, decided, logged and sent on.
//!
//! A [`Router`] runs a few workers (`worker`); an account's home lives on one of them and nowhere else. A worker
//! goes in turns: it takes all messages there are, decides on each with what the home has in memory (no I/O, no
//! waiting), commits what the turn wants written in one batch, and only then acts: deliveries, answers,
//! forwards and receipts leave in the order in which they were decided. Turns are pipelined: the next one is
//! decided while the last one commits. So nothing durable is delivered or acknowledged before it is committed,
//! and order needs no further care.
//!
//! The path of a message: `worker::Worker::edge` → `decide::message::sent` (sender's home) → commit →
//! `act::carry_out` → `decide::message::received` (recipient's home) → commit → `delivery::deliver` → edge;
//! the receipt goes back to the sender's home, which lets the edge count the stanza.

#![forbid(unsafe_code)]

mod act;
pub mod config;
mod decide;
mod delivery;
mod doubt;
mod drive;
mod fence;
mod home;
mod homes;
pub mod im;
mod lease;
mod link;
mod log;
mod msg;
mod pipeline;
mod positions;
mod recognise;
mod route;
mod router;
mod session;
mod shared;
mod strangers;
mod tail;
mod timers;
mod turn;
mod worker;

pub use config::RouterConfig;
pub use homes::Homes;
pub use router::{Router, RouterParts};
