//! What happened in a crash run, as the clients saw it, and the judgement over it.
//!
//! Clients write [`Log`]s (what they sent, what was acknowledged, what they saw), at the end every archive is read
//! into an [`Archive`]. Both together are a [`History`], a plain value: [`check`] looks at nothing else, so it can be
//! fed with histories of a server that never existed, with faults planted in them. That is how it is tested itself.
//!
//! The rules are promises of the server, seen from outside:
//!
//! - a message covered by `<a h=''/>` is exactly once in the archive of its sender and of its recipient (once in all
//!   if they are one account), and the recipient has seen it at least once;
//! - any other message is at most once in each, and if it was seen, it was stored before;
//! - a message that comes again has the `stanza-id` of the first time and a `<delay/>`, and never comes again in the
//!   same session, resumed or not;
//! - each session gets messages, its own and copies, in the order of the account's archive;
//! - first sight and archives keep the order of sending for each pair of full JID and account written to;
//! - nothing comes to an account that was not sent to it, by exactly that sender, with exactly that text.

mod check;
mod dump;
#[cfg(test)]
mod tests;
mod violation;

use std::collections::BTreeSet;
use std::time::Duration;

pub use check::check;
pub use violation::{Kind, Violation};

/// A whole run.
#[derive(Clone, Debug, Default)]
pub struct History {
    /// What each client did and saw, and one log of what was done to the server.
    pub logs: Vec<Log>,
    /// The archive of each account as it was at the end.
    pub archives: Vec<Archive>,
}

/// The log of one client over all its sessions, oldest first.
#[derive(Clone, Debug, Default)]
pub struct Log {
    /// The full JID, the same in all sessions; `server` for what was done to the server.
    pub client: String,
    /// What happened.
    pub events: Vec<Event>,
}

impl Log {
    /// An empty log.
    pub fn new(client: &str) -> Self {
        Self { client: client.to_owned(), events: Vec::new() }
    }

    /// Appends an event at this time since the start of the run.
    pub fn note(&mut self, at: Duration, what: What) {
        self.events.push(Event { at, what });
    }
}

/// One line of a log.
#[derive(Clone, Debug)]
pub struct Event {
    /// Time since the start of the run, to put the logs beside each other.
    pub at: Duration,
    /// What happened.
    pub what: What,
}

/// What can happen to a client.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum What {
    /// A new session: what the server knew of the one before does not count any more.
    Opened,
    /// The session before goes on over a new connection.
    Resumed,
    /// The server did not take the session back.
    NotResumed {
        /// Its condition.
        condition: String,
        /// Whether the process that held the session has run on all the time, so that it should have.
        should: bool,
    },
    /// The client sends a message, the first time.
    Sent(Message),
    /// The client sends a message with this `origin-id` again, in a new session.
    SentAgain(String),
    /// The server's `h` covers the message.
    Acknowledged(String),
    /// The server answered the message with an error: it promises nothing for it.
    Refused {
        /// The `origin-id`.
        origin: String,
        /// The condition of the error.
        condition: String,
    },
    /// The session is lost and the client will not send the message again.
    GivenUp(String),
    /// The client saw a message.
    Seen(Sighting),
    /// The client got a copy of a message that another device of its account sent or received (XEP-0280).
    Copied(Sighting),
    /// The server has confirmed that the session is available and gets copies (XEP-0280) from here on.
    Copying,
    /// From here on the client knows that all it saw is acknowledged and that the server had time to write this down.
    Settled,
    /// The server broke the protocol in a way that a client notices at once.
    Fault(String),
    /// Something worth reading beside the rest: kills, starts, cuts.
    Remark(String),
}

/// A message as its sender made it. The sender is the client of the log.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Message {
    /// Its `origin-id`, unique in the run.
    pub origin: String,
    /// The address it is sent to, bare or full.
    pub to: String,
    /// The body.
    pub body: String,
}

/// A message as a client saw it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Sighting {
    /// The `stanza-id` that the client's own account gave.
    pub id: Option<String>,
    /// The `origin-id`.
    pub origin: Option<String>,
    /// The `from`.
    pub from: String,
    /// The body.
    pub body: String,
    /// Whether there was a `<delay/>`.
    pub delayed: bool,
}

/// The archive of one account.
#[derive(Clone, Debug, Default)]
pub struct Archive {
    /// The account.
    pub owner: String,
    /// All rows, read page by page from the oldest on.
    pub rows: Vec<Row>,
    /// The ids of all rows, read page by page from the newest back, put into the order of `rows`.
    pub backwards: Vec<String>,
    /// The ids of the rows that are found when asking for those with one account, for each account there are rows with,
    /// in the order of the answers.
    pub with: Vec<(String, Vec<String>)>,
}

impl Archive {
    /// The account at the other end of a row.
    pub fn peer<'a>(&self, row: &'a Row) -> &'a str {
        bare(if bare(&row.from) == self.owner { &row.to } else { &row.from })
    }

    /// The accounts at the other ends of all rows.
    pub fn peers(&self) -> BTreeSet<&str> {
        self.rows.iter().map(|row| self.peer(row)).collect()
    }
}

/// A row of an archive.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Row {
    /// Its id.
    pub id: String,
    /// The time it was archived at, in the form of XEP-0082 (UTC, so that text order is time order).
    pub stamp: String,
    /// The `origin-id`.
    pub origin: Option<String>,
    /// The `from`.
    pub from: String,
    /// The `to`.
    pub to: String,
    /// The body.
    pub body: String,
}

/// The account of a full or bare JID.
pub fn bare(jid: &str) -> &str {
    jid.split('/').next().unwrap_or(jid)
}
