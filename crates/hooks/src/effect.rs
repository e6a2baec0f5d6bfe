//! What a decision wants done.

use crate::account::{ArchivePreferences, BlockList};
use crate::passwords::NewCredentials;
use starling_store::RosterItem;
use starling_wire::Token;
use starling_xmpp::{BareJid, Jid, Stanza, StreamError};

/// One thing to be done; carried out in order, by the home, after the decision.
#[derive(Debug, Clone, PartialEq)]
pub enum Effect {
    /// To wherever its `to` says; `from` is set by the decision. Not logged.
    Route(Stanza),
    /// To one session of this account as it stands (`to` and `from` set by the decision). Not logged.
    Deliver(Token, Stanza),
    /// A fact on the account changes: in memory at once, durable before any answer to the stanza being decided.
    Change(Change),
    /// End a session with this stream error.
    Close(Token, StreamError),
    /// Remove the account with all that it has, ending its sessions.
    DeleteAccount,
}

/// A change of an account's facts.
#[derive(Debug, Clone, PartialEq)]
pub enum Change {
    /// A roster item is new or different. The home gives it the next roster version.
    RosterItem(Box<RosterItem>),
    /// A contact leaves the roster.
    RosterRemove(BareJid),
    /// The block list is now this.
    Blocked(BlockList),
    /// The archive preferences are now these.
    Archive(ArchivePreferences),
    /// The account has a new password.
    Credentials(Box<NewCredentials>),
    /// A session switches carbons on or off.
    Carbons(Token, bool),
    /// A session wants roster pushes.
    Interested(Token),
    /// A session wants block list pushes.
    WatchesBlocks(Token),
    /// A session's broadcast presence: `None` makes it unavailable.
    Presence(Token, Option<Box<Stanza>>, i8),
    /// A session has sent directed presence there.
    Directed(Token, Jid),
    /// A session has taken it back, or the target cannot be reached.
    Undirected(Token, Jid),
}
