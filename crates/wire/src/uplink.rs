//! What an edge knows of homes, and what it keeps so that its sessions outlive them.
//!
//! One [`Seat`] per shard: who its home is, and a [record](crate::Record) in the making of every session. It is a plain
//! state machine, without a runtime, a clock or a socket: an edge feeds it what sessions say and what links bring, and
//! carries out what it returns; a simulation does the same. Seats know nothing of one another.
//!
//! - The highest reign that was announced is the home. It is told of all sessions first, then all that no home has
//!   handled comes again, marked so. What an older reign says is dropped.
//!   In the other direction the same holds: over a new link a home tells a session nothing that has a number before the
//!   edge has told of that session.
//! - A session that goes on over another connection of the same edge takes all of it along. From one edge to another:
//!   after `Resumed` a home sends the queue and then its notes; with those the edge has all of the session, and says so
//!   with its record. Only then may the connection before it be told `Released`.
//! - What goes up is kept until it is handled, what came down until the client has it. Both are bounded by others: the
//!   session's credit, and the home's window.
//! - Without a home sockets are not read, and after a while they are closed: the clients resume elsewhere.
//! - A session without a socket stays until a home says `Released`.

mod kept;
mod seat;

pub use seat::Seat;

use crate::frame::EdgeItem;
use crate::{ConnId, RouterId, ToEdge};
use std::time::Duration;

/// One stream between this edge and a router; a later one has a higher number.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct LinkId {
    /// Who is at the other end.
    pub router: RouterId,
    /// The edge's own number for the stream.
    pub number: u64,
}

/// What is to be done, in order.
#[derive(Debug)]
pub enum Output {
    /// Say this over the link; if it is gone, nothing.
    Send(LinkId, EdgeItem),
    /// Tell the connection. [`Down::Released`](crate::Down::Released) means that its session is elsewhere or over: the
    /// socket is closed without a further word to the home.
    Deliver(ToEdge),
    /// Whether sockets of this shard's sessions may be read.
    Reading(bool),
    /// Close this socket so that the session can be resumed: no end of the stream, and `Gone(Lost)`.
    Cut(ConnId),
    /// What came over the link cannot be: end it.
    Break(LinkId),
}

/// How much a seat keeps.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Load {
    /// Sessions, and connections that are about to have one.
    pub sessions: usize,
    /// Of these, without a socket.
    pub detached: usize,
    /// Questions and stanzas that no home has answered or handled.
    pub ups: usize,
    /// Stanzas of homes that have not arrived for certain.
    pub downs: usize,
}

/// How long what is kept.
#[derive(Debug, Clone, Copy)]
pub struct Patience {
    /// Without a home for so long, sockets are closed.
    pub homeless: Duration,
    /// A session without a socket of which no home says anything is forgotten: longer than any session can wait for its
    /// resumption.
    pub detached: Duration,
    /// The same for one that its client has ended.
    pub ended: Duration,
}

impl Default for Patience {
    fn default() -> Self {
        Self {
            homeless: Duration::from_secs(5),
            detached: Duration::from_secs(2 * 3600),
            ended: Duration::from_secs(60),
        }
    }
}

#[cfg(test)]
mod tests;
