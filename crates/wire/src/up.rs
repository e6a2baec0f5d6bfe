//! From an edge to a home.

use crate::{ConnId, Record, Token};
use compact_str::CompactString;
use starling_node::Trace;
use starling_xmpp::{BareJid, FullJid, Stanza, StanzaError};

/// One message of a connection to the home of its account.
#[derive(Debug)]
pub struct ToHome {
    /// The account the connection has authenticated as; its home takes the message.
    pub account: BareJid,
    /// Which connection of the edge.
    pub conn: ConnId,
    /// What it says.
    pub up: Up,
}

/// What a connection says to its home, in order.
#[derive(Debug)]
pub enum Up {
    /// Wants a resource (RFC 6120 §7). Answered by `Bound` or `Refused`.
    Bind {
        /// Name of the session that begins.
        token: Token,
        /// The resource asked for, not yet prepared; `None` lets the home make one.
        resource: Option<CompactString>,
    },
    /// Wants to go on with a session (XEP-0198 §5). Answered by `Resumed` or `NotResumed`.
    Resume {
        /// The session to go on with.
        token: Token,
        /// How many of the home's stanzas the client has handled.
        handled: u32,
    },
    /// A stanza of the client.
    Stanza {
        /// Number of this stanza in its session, from 1, without gaps.
        sequence: u64,
        /// Checked by the edge, `from` stamped with the full JID, `xml:lang` filled in.
        stanza: Stanza,
        /// What the edge or the reader found wrong with it: the home numbers it and answers with this error.
        fault: Option<Box<StanzaError>>,
        /// The trace this stanza belongs to, when it is sampled.
        trace: Option<Trace>,
        /// May have been sent before, to this home or to one before it.
        again: bool,
    },
    /// A session of this edge, for a home that has just begun or whose link was broken.
    Attach(Box<Record>),
    /// `<enable/>` (XEP-0198 §3): stanzas are counted from here. Answered by `SmEnabled`.
    EnableSm {
        /// The client wants to be able to resume.
        resume: bool,
        /// The longest absence the client asks for, in seconds.
        max: Option<u32>,
    },
    /// `<a h=…/>`: the client has handled this many.
    Acknowledged {
        /// Modulo 2^32, since `<enable/>`.
        handled: u32,
    },
    /// Cumulative number of the session's stanzas (`Down::Stanza`) written to the socket of this connection.
    Written {
        /// Stanzas written since this connection was bound or resumed.
        count: u64,
    },
    /// XEP-0352: whether the user looks at the client.
    ClientState {
        /// True for `<active/>`.
        active: bool,
    },
    /// Nothing was heard of the client for long: the home may ping it (XEP-0199).
    Idle,
    /// The connection is gone.
    Gone(Leave),
}

/// How a connection ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Leave {
    /// By the client's end tag, a stream error or our own decision: the session is over.
    Closed,
    /// The transport broke or fell silent: a resumable session waits.
    Lost,
    /// The same before any session had come there: who has asked for one has not heard of it, and its edge keeps nothing.
    Never,
}

/// A session as listed by administration.
#[derive(Debug, Clone)]
pub struct SessionInfo {
    /// Full JID.
    pub jid: FullJid,
    /// Presence was sent and is not unavailable.
    pub available: bool,
    /// Priority of the last presence.
    pub priority: i8,
    /// No connection at present; waits to be resumed.
    pub detached: bool,
    /// XEP-0198 is on.
    pub stream_management: bool,
    /// When it was bound, microseconds since the Unix epoch.
    pub since: u64,
}
