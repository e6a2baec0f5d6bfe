//! Routers in one process, with real links and one store between them; edges as they keep their sessions, without sockets.
#![allow(clippy::unwrap_used, clippy::disallowed_methods)]

mod asking;
mod calm;
mod failover;
mod fenced;
mod leaving;
mod members;
mod pages;
mod people;
mod refusals;
mod silent;
mod site;
mod strangers;
mod traces;
