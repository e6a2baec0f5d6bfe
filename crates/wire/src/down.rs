//! From a home to an edge.

use crate::ConnId;
use bytes::Bytes;
use starling_node::Trace;
use starling_store::Position;
use starling_xmpp::{FullJid, Stanza, StanzaError, StreamError};

/// One message to a connection of an edge. For a connection that is gone it is dropped: the home learns of that by `Up::Gone`.
#[derive(Debug)]
pub struct ToEdge {
    /// Which connection of the edge.
    pub conn: ConnId,
    /// What it is told.
    pub down: Down,
}

/// What a home says to a connection, in order.
#[derive(Debug)]
pub enum Down {
    /// The resource is bound.
    Bound {
        /// The session's full JID.
        jid: FullJid,
    },
    /// The bind failed; the stream stays open.
    Refused(Box<StanzaError>),
    /// The session goes on over this connection; its unacknowledged stanzas follow.
    Resumed {
        /// The session's full JID.
        jid: FullJid,
        /// Highest sequence the home has taken from this session; the next stanza gets the one after.
        sequence: u64,
        /// Sequence at which counting for XEP-0198 began: `h` = sequence - base, modulo 2^32.
        base: u64,
    },
    /// Not resumed (`item-not-found`).
    NotResumed,
    /// Stream management is on.
    SmEnabled {
        /// Whether the session can be resumed, and for how long at most, in seconds.
        resume: Option<u32>,
        /// Sequence at which counting began.
        base: u64,
    },
    /// Stream management was asked for in the wrong state.
    SmFailed,
    /// Write this stanza.
    Stanza {
        /// Its number in the session, from 1, without gaps; kept over resumptions and moves of the home. 0 where homes
        /// and edges share a process: nobody has to give it back.
        number: u64,
        /// Its row in the account's log, when it has one.
        position: Option<Position>,
        /// The row waits for an acknowledgement of this session: it is no copy of what is for another one.
        waits: bool,
        /// The client's `h` counts it (XEP-0198): it was numbered after `<enabled/>`.
        counts: bool,
        /// `to` and `from` as they go to the client.
        stanza: Stanza,
        /// Sequence of the client's stanza that is answered with this one; 0 where none is. No home decides on that again, though it
        /// may not be called handled yet.
        answers: u64,
        /// The trace it belongs to, when it is sampled.
        trace: Option<Trace>,
    },
    /// Every stanza up to this sequence is handled: `h` may count it.
    Handled {
        /// Cumulative.
        sequence: u64,
    },
    /// Notes of the home on the session, which only homes read: give the last ones back with its [record](crate::Record).
    Remember(Bytes),
    /// What was acknowledged up to this position is kept by the store: the edge need not remember it.
    Saved {
        /// Cumulative.
        through: Position,
    },
    /// The home is about to be moved on purpose, and says how far it has come with what the client has said since what is
    /// handled: the next one is not to take for decided what is not, nor decide anew what is.
    Decided {
        /// Nothing above this sequence was taken, nor will be.
        through: u64,
        /// Those up to it that are not settled, rising.
        open: Vec<u64>,
    },
    /// The session is over, or goes on at another connection: forget its record.
    Released,
    /// Ask the client for `<a/>`.
    RequestAck,
    /// End the stream: write the error if there is one, close.
    Close(Option<Box<StreamError>>),
}
