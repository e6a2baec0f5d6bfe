//! What a worker's inbox holds.

use crate::home::Waiting;
use crate::recognise::{Before, Fingerprint, Recent};
use crate::route::is_subscription;
use starling_hooks::Later;
use starling_store::{AccountState, LogRow, Origin, Position, StoreError};
use starling_wire::up::SessionInfo;
use starling_wire::{EdgeId, Shard, ToHome, Token, Trace, Up};
use starling_xmpp::sasl::Credentials;
use starling_xmpp::{BareJid, IqType, Kind, MessageType, Stanza};
use std::time::Duration;
use tokio::sync::oneshot;

/// A message to one home.
pub(crate) enum Msg {
    /// From a connection of the account.
    Edge(ToHome),
    /// A stanza for the account, from anybody's home (its own too).
    Forward(Box<Forward>),
    /// The recipient's home has done with what one of the account's sessions sent: committed it, or refused it with this
    /// answer. The answer comes with the receipt, so that nothing is acknowledged first and refused later.
    Receipt { account: BareJid, token: Token, sequence: u64, refused: Option<Box<Refusal>> },
    /// The store's answer to a load.
    Loaded { account: BareJid, state: Result<Option<Box<AccountState>>, StoreError> },
    /// Rows read for a session that could not be fed live.
    Rows { account: BareJid, token: Token, rows: Result<Fed, StoreError> },
    /// The tail of the log, for recognising resent messages; the how many-th that the home asked for.
    Tail { account: BareJid, number: u64, tail: Result<Recent, StoreError> },
    /// How many messages wait for the account's devices.
    Waiting { account: BareJid, waiting: Result<Waiting, StoreError> },
    /// An answer that was worked out elsewhere.
    Answered { account: BareJid, ask: Box<Ask>, later: Later },
    /// A session was to be given what it has no room for and cannot get later: it must not be resumed.
    Broken { account: BareJid, token: Token },
    /// From administration.
    Admin(Admin),
    /// A home is needed: sessions of the account may be gone with their edge.
    Wake(BareJid),
    /// The newest rows of the log, which sessions from before this reign may not have been sent, and whether they are all.
    Unsent { account: BareJid, rows: Result<(Vec<LogRow>, bool), StoreError> },
    /// The recipient's home asks for what it has not seen: all that this session sent to it after a sequence.
    Missing { account: BareJid, token: Token, recipient: BareJid, after: Option<u64> },
    /// The recipient's home has no room now for what this session sends to it.
    Full { account: BareJid, token: Token, recipient: BareJid },
    /// Of edges and other homes, in a cluster.
    Network(Network),
    /// Write down what is only in memory (cursors); answered when it is durable.
    Flush(oneshot::Sender<()>),
    /// Say when no question is being worked on and nothing is under way.
    Quiet(oneshot::Sender<()>),
    /// The shard is about to be moved: give away what the next home cannot know otherwise; answered when that has left.
    Leave(oneshot::Sender<()>),
    /// Another reign has begun.
    Fenced,
}

impl Msg {
    /// Whether it only matters to a home that is in memory: all but what begins something.
    pub(crate) fn is_about_the_past(&self) -> bool {
        match self {
            Self::Edge(message) => !matches!(message.up, Up::Bind { .. } | Up::Resume { .. }),
            Self::Forward(_) | Self::Admin(_) | Self::Wake(_) => false,
            Self::Network(_) | Self::Flush(_) | Self::Quiet(_) | Self::Leave(_) | Self::Fenced => false,
            _ => true,
        }
    }

    /// Whether an edge names a session.
    pub(crate) fn is_attach(&self) -> bool {
        matches!(self, Self::Edge(ToHome { up: Up::Attach(_), .. }))
    }

    /// The account whose home takes it; `None` for the worker itself.
    pub(crate) fn account(&self) -> Option<&BareJid> {
        match self {
            Self::Edge(message) => Some(&message.account),
            Self::Forward(forward) => Some(&forward.account),
            Self::Receipt { account, .. }
            | Self::Loaded { account, .. }
            | Self::Rows { account, .. }
            | Self::Tail { account, .. }
            | Self::Waiting { account, .. }
            | Self::Answered { account, .. }
            | Self::Broken { account, .. }
            | Self::Unsent { account, .. }
            | Self::Missing { account, .. }
            | Self::Full { account, .. }
            | Self::Wake(account) => Some(account),
            Self::Admin(admin) => admin.account(),
            Self::Network(_) | Self::Flush(_) | Self::Quiet(_) | Self::Leave(_) | Self::Fenced => None,
        }
    }

    /// Whether it may wait while its home cannot decide: whatever may have something written, and what has to stay behind
    /// that. Acknowledgements go on, and so do sessions.
    pub(crate) fn may_wait(&self) -> bool {
        match self {
            Self::Edge(message) => {
                matches!(message.up, Up::Bind { .. } | Up::Stanza { .. } | Up::EnableSm { .. } | Up::Gone(_))
            }
            Self::Forward(_) | Self::Admin(_) => true,
            _ => false,
        }
    }
}

/// What concerns all homes of a shard, or comes from homes of other shards.
pub(crate) enum Network {
    /// An edge will name all its sessions, over the link of this number.
    AttachBegin(EdgeId, u64),
    /// It has.
    AttachEnd(EdgeId),
    /// An edge is taken for dead.
    Dead(EdgeId),
    /// What another shard's home has not answered is to go once more.
    Moved(Shard),
    /// This one was not moved after all.
    Stay,
}

/// Whether a stanza may have something written, or is answered from what the store holds.
pub(crate) fn needs_store(stanza: &Stanza) -> bool {
    match stanza.kind {
        Kind::Message(kind) => kind != MessageType::Error,
        Kind::Iq(kind) => matches!(kind, IqType::Get | IqType::Set),
        Kind::Presence(_) => is_subscription(stanza),
    }
}

/// A stanza on its way to the home of `account`.
#[derive(Clone)]
pub(crate) struct Forward {
    /// Bare JID of the stanza's `to`.
    pub(crate) account: BareJid,
    /// With `to` and `from` set.
    pub(crate) stanza: Stanza,
    /// For messages: what they came from, for recognising them, and whose receipt waits.
    pub(crate) ticket: Option<Ticket>,
    /// Homes this stanza has passed, to end any loop.
    pub(crate) hops: u8,
    /// The trace it belongs to.
    pub(crate) trace: Option<Trace>,
    /// A home before this one has passed it on: what was said later may have come before it.
    pub(crate) passed: bool,
}

/// The sender's side of a message.
#[derive(Debug, Clone)]
pub(crate) struct Ticket {
    /// The same on every retry.
    pub(crate) origin: Origin,
    /// The session that waits for a receipt, and under which sequence.
    pub(crate) sender: BareJid,
    pub(crate) token: Token,
    pub(crate) sequence: u64,
    /// The message may have been sent before, in a session that ended unresumed by this moment of monotonic time.
    pub(crate) again: Option<Duration>,
    /// What its session may have said before: this may be one of these.
    pub(crate) before: Before,
    /// It may have been decided before, under this very origin, by this home or one before it.
    pub(crate) repeated: bool,
    /// What of its session and its recipient comes before it, where that is another shard's.
    pub(crate) pair: Option<Pairing>,
    /// Where it is this process's: the last one of that session that was not confirmed there, as far as its home has heard.
    pub(crate) heard: u64,
}

impl Ticket {
    /// Under which its session says it now. Of what was said before, its origin is another one.
    pub(crate) fn said(&self) -> Origin {
        crate::act::origin(self.token, self.sequence)
    }

    /// What it is known by where it is received.
    pub(crate) fn message(&self, recipient: &BareJid, stanza: &Stanza) -> Fingerprint {
        Fingerprint::of_any(self.token.0, &self.sender, recipient, stanza)
    }
}

/// The order of what one session sends to one account of another shard.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Pairing {
    /// The last one before it that had no receipt when it was sent.
    pub(crate) prev: Option<u64>,
}

/// Why a message was taken no further.
#[derive(Debug)]
pub(crate) struct Refusal {
    /// What its sender is told, where that is possible.
    pub(crate) answer: Option<Stanza>,
    /// It may be kept, under this origin: its client may send it again. Of what comes from another shard, the sender's home
    /// knows itself what message it was.
    pub(crate) unsure: Option<(Option<Fingerprint>, Origin)>,
}

/// An IQ request whose answer is being worked out.
pub(crate) struct Ask {
    /// The session that asked, when it is one of the account's own.
    pub(crate) token: Option<Token>,
    /// Under which sequence it did.
    pub(crate) sequence: u64,
    /// That is handled only with the answer: should the home be lost before, the next one is asked.
    pub(crate) settles: bool,
    /// The request; only its head where no error can follow.
    pub(crate) request: Stanza,
    /// The trace that the answer belongs to.
    pub(crate) trace: Option<Trace>,
}

/// Rows for a session, and how far they reach.
pub(crate) enum Fed {
    /// A page of what was waiting; when there is no more, up to where that is so.
    Page(Vec<LogRow>, Option<Position>),
    /// The positions asked for, and the rows that are there.
    Known(Vec<Position>, Vec<LogRow>),
}

/// Requests of administration.
pub(crate) enum Admin {
    /// All sessions of this worker.
    Sessions(oneshot::Sender<Vec<SessionInfo>>),
    /// New keys for an account; answered `false` where there is none.
    Passwd(BareJid, Box<Credentials>, oneshot::Sender<Result<bool, StoreError>>),
    /// Remove an account; answered `false` where there is none.
    Delete(BareJid, oneshot::Sender<Result<bool, StoreError>>),
}

impl Admin {
    fn account(&self) -> Option<&BareJid> {
        match self {
            Self::Passwd(account, ..) | Self::Delete(account, _) => Some(account),
            Self::Sessions(_) => None,
        }
    }
}
