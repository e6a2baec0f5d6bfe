//! Homes: the one place where an account's stanzas are numbered, ordered, decided, logged and sent on.
//!
//! A [`Router`] runs a few workers (`worker`); an account's home lives on one of them and nowhere else. A worker
//! goes in turns: it takes all messages there are, decides on each with what the home has in memory (no I/O, no
//! waiting), commits what is to be written, and only then acts: deliveries, answers, forwards and receipts of a home
//! leave in the order in which they were decided (`pipeline`). The next turn is decided while the last one commits. So
//! nothing durable is delivered or acknowledged before it is committed, and order needs no further care. A commit that
//! is not confirmed leaves its home in doubt until the account has been loaded again (`doubt`).
//!
//! The path of a message: `worker::from_edge` → `decide::message::sent` (sender's home) → commit →
//! `act::carry_out` → `decide::message::received` (recipient's home) → commit → `delivery::committed` → edge;
//! the receipt goes back to the sender's home, which lets the edge count the stanza.
//!
//! None of it knows a runtime: [`Homes`] is one worker that is moved by whoever holds it.

#![forbid(unsafe_code)]

mod act;
mod aside;
mod behind;
mod cluster;
pub mod config;
mod copied;
mod count;
mod decide;
mod delivery;
mod door;
mod doubt;
mod drive;
mod far;
mod fence;
mod follow;
mod giving;
mod heard;
mod home;
mod homes;
pub mod im;
mod later;
mod lease;
mod line;
mod link;
mod log;
mod mail;
mod msg;
mod notes;
mod overtaken;
mod owed;
mod pairs;
mod pipeline;
mod positions;
mod reads;
mod rebuild;
mod recognise;
mod refused;
mod requests;
mod resuming;
mod route;
mod router;
mod session;
mod shared;
mod strangers;
mod tail;
mod timers;
mod turn;
mod worker;

pub use cluster::{Edges, LocationOp, Place, Post, RecordError, Register, Reigning, ShardParts};
pub use config::RouterConfig;
pub use door::Door;
pub use homes::Homes;
pub use router::{Router, RouterParts};
