//! The interface between a home and what it knows how to do.
//!
//! A module (an XEP, or a part of RFC 6121) is a static [`About`] and an [`install`](Xep::install) that names
//! the typed hooks it wants. Hooks are synchronous decisions: facts come in with [`Cx`], results go out as
//! [`Effect`]s, which the home carries out after them in one place. Nothing here does I/O, reads a clock or
//! draws random numbers, so a decision is tested by comparing effects and can be replayed.
//!
//! Order is the order of installation within three [`Stage`]s; there are no priority numbers.

#![forbid(unsafe_code)]

pub mod account;
pub mod archive_id;
#[cfg(any(test, feature = "testing"))]
pub mod bench;
pub mod carbon;
pub mod cx;
pub mod delay;
pub mod docs;
pub mod domains;
pub mod effect;
pub mod forward;
pub mod passwords;
pub mod roster_push;
pub mod table;
#[cfg(any(test, feature = "testing"))]
pub mod testing;

pub use account::{Account, ArchiveDefault, ArchivePreferences, BlockList, Session};
pub use archive_id::ArchiveIds;
pub use cx::{Cx, Limits, Server};
pub use domains::Domains;
pub use effect::{Change, Effect};
pub use passwords::{NewCredentials, Passwords};
pub use table::{About, At, Features, Hooks, Spec, Stage, Xep};

use futures::future::BoxFuture;
use starling_store::StoreError;
use starling_wire::Token;
use starling_xmpp::{Element, Stanza, StanzaError, Timestamp};

/// What a hook says of the stanza it was shown.
#[derive(Debug, Clone, PartialEq)]
pub enum Flow {
    /// Go on with the next hook.
    Next,
    /// Take it no further, silently.
    Drop,
    /// Take it no further and answer its sender with this error.
    Refuse(Box<StanzaError>),
}

/// What is to become of a message; a home fills it in, hooks may change it.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct Fate {
    /// Shown by the owner's archive.
    pub archived: bool,
    /// Kept until a device has acknowledged it (messages that come in only).
    pub offline: bool,
    /// When the row ends by itself.
    pub expires: Option<Timestamp>,
    /// Sessions that get the message itself.
    pub recipients: Vec<Token>,
    /// Sessions that get a carbon copy.
    pub copies: Vec<Token>,
}

impl Fate {
    /// Whether the message is written to the log at all.
    pub fn is_kept(&self) -> bool {
        self.archived || self.offline
    }
}

/// A stanza of this account is about to leave its home (from one of its own sessions).
pub trait Sent: Send + Sync {
    /// Decides on it; `fate` is that of the sender's own log row and of copies to the sender's other devices.
    fn sent(&self, cx: &mut Cx<'_>, stanza: &mut Stanza, fate: &mut Fate) -> Flow;
}

/// A stanza has arrived for this account.
pub trait Received: Send + Sync {
    /// Decides on it; `fate` is that of the recipient's log row and deliveries.
    fn received(&self, cx: &mut Cx<'_>, stanza: &mut Stanza, fate: &mut Fate) -> Flow;
}

/// A message has arrived and no session takes it (RFC 6121 §8.5).
pub trait Undelivered: Send + Sync {
    /// Keeps it (by setting `fate.offline`) or refuses it. What no hook decides on is refused with `service-unavailable`.
    fn undelivered(&self, cx: &mut Cx<'_>, stanza: &Stanza, fate: &mut Fate) -> Flow;
}

/// When a stanza goes to a client that nobody looks at.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Pace {
    /// At once, together with all that waits.
    Now,
    /// It can wait; a later one with the same key replaces it (the last presence of one contact).
    Later,
    /// Nobody will miss it: not sent while the client is inactive.
    Never,
}

/// A stanza is about to be numbered for one session.
pub trait Outgoing: Send + Sync {
    /// Decides when it goes. Sees every stanza, for inactive sessions only (XEP-0352).
    fn outgoing(&self, session: &Session, stanza: &Stanza) -> Pace;
}

/// What happened to a session's presence.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum PresenceEvent {
    /// Became available (first presence).
    Available,
    /// Became unavailable, by presence or because its session ended.
    Unavailable,
}

/// A session's presence changed.
pub trait Presence: Send + Sync {
    /// Reacts to it; `cx.session` is the session.
    fn presence(&self, cx: &mut Cx<'_>, event: PresenceEvent);
}

/// The answer to an IQ request.
pub enum Answer {
    /// `result`, with this payload. It leaves after the effects pushed with it are durable.
    Result(Option<Element>),
    /// `error`.
    Error(Box<StanzaError>),
    /// Worked out elsewhere (a read of the archive, a key derivation); other stanzas of the account go on meanwhile.
    Later(BoxFuture<'static, Later>),
}

impl Answer {
    /// An error answer.
    pub fn error(error: StanzaError) -> Self {
        Self::Error(Box::new(error))
    }

    /// An empty result.
    pub fn done() -> Self {
        Self::Result(None)
    }
}

/// What an answer that came later brings.
#[derive(Debug)]
pub struct Later {
    /// Effects, in order, carried out before the answer (result messages of an archive query are `Effect::Deliver`).
    pub effects: Vec<Effect>,
    /// The answer itself.
    pub answer: Result<Option<Element>, Box<StanzaError>>,
}

/// Answers IQ requests of one namespace and name.
pub trait AnswerIq: Send + Sync {
    /// Decides on a request (`get` or `set`); `payload` is its one child. `cx.session` is the asking session when it belongs to
    /// this account, `None` for anybody else.
    fn answer(&self, cx: &mut Cx<'_>, iq: &Stanza, payload: &Element) -> Answer;
}

/// A store failure as a client sees it: `resource-constraint` of type `wait`, "not confirmed".
pub fn store_error(_: &StoreError) -> StanzaError {
    StanzaError::new(starling_xmpp::StanzaCondition::ResourceConstraint)
        .with_type(starling_xmpp::ErrorType::Wait)
        .with_text("not confirmed: the store of the server does not answer now")
}
