//! What administration asks of the homes.

use std::{fmt, net::SocketAddr};

use futures::future::BoxFuture;
use starling_wire::SessionInfo;
use starling_xmpp::BareJid;
use zeroize::Zeroizing;

use crate::{raft::Raft, traces::Traces};

/// The data behind the calls. Implemented by whoever holds the homes.
pub trait Control: Send + Sync + 'static {
    /// Makes an account.
    ///
    /// # Errors
    /// [`ControlError::Exists`], [`ControlError::UnknownDomain`], [`ControlError::Invalid`] for a password that
    /// cannot be prepared, [`ControlError::Unavailable`].
    fn user_add(&self, user: NewUser) -> BoxFuture<'_, Result<(), ControlError>>;

    /// Removes an account with all its data, and closes its sessions.
    ///
    /// # Errors
    /// [`ControlError::NotFound`], [`ControlError::Unavailable`].
    fn user_delete(&self, jid: BareJid) -> BoxFuture<'_, Result<(), ControlError>>;

    /// Sets a new password. Sessions stay.
    ///
    /// # Errors
    /// [`ControlError::NotFound`], [`ControlError::Invalid`], [`ControlError::Unavailable`].
    fn user_passwd(&self, jid: BareJid, password: Password) -> BoxFuture<'_, Result<(), ControlError>>;

    /// One page of accounts, ordered by address.
    ///
    /// # Errors
    /// [`ControlError::UnknownDomain`], [`ControlError::Unavailable`].
    fn users(&self, query: UserQuery) -> BoxFuture<'_, Result<UserPage, ControlError>>;

    /// Sets the password of an account, making the account if it is not there. One step of an import.
    ///
    /// # Errors
    /// As [`Control::user_add`], without [`ControlError::Exists`].
    fn user_put(&self, user: NewUser) -> BoxFuture<'_, Result<Put, ControlError>> {
        Box::pin(async move {
            match self.user_add(user.clone()).await {
                Err(ControlError::Exists) => {
                    self.user_passwd(user.jid, user.password).await.map(|()| Put::Changed)
                }
                added => added.map(|()| Put::Added),
            }
        })
    }

    /// Sessions, at most `limit` of them, of one account or of all.
    ///
    /// # Errors
    /// [`ControlError::Unavailable`].
    fn sessions(
        &self,
        of: Option<BareJid>,
        limit: usize,
    ) -> BoxFuture<'_, Result<Vec<SessionInfo>, ControlError>>;

    /// How the server is.
    ///
    /// # Errors
    /// [`ControlError::Unavailable`].
    fn status(&self) -> BoxFuture<'_, Result<Status, ControlError>>;

    /// Sends all clients away and ends the process. Asking twice is asking once.
    ///
    /// # Errors
    /// [`ControlError::Invalid`] where there is nobody to whom they could go.
    fn drain(&self) -> BoxFuture<'_, Result<Draining, ControlError>> {
        Box::pin(async { Err(ControlError::Invalid(NOWHERE.to_owned())) })
    }

    /// How far that is.
    ///
    /// # Errors
    /// As [`Control::drain`].
    fn draining(&self) -> BoxFuture<'_, Result<Draining, ControlError>> {
        Box::pin(async { Err(ControlError::Invalid(NOWHERE.to_owned())) })
    }

    /// The same for another process of the cluster, by its name or number.
    ///
    /// # Errors
    /// [`ControlError::NotFound`], [`ControlError::Unavailable`], [`ControlError::Invalid`] where others cannot be asked.
    fn drain_node(&self, _node: String) -> BoxFuture<'_, Result<Draining, ControlError>> {
        Box::pin(async { Err(ControlError::Invalid(NOWHERE.to_owned())) })
    }

    /// How far that is.
    ///
    /// # Errors
    /// As [`Control::drain_node`]; [`ControlError::NotFound`] when it has ended.
    fn draining_node(&self, _node: String) -> BoxFuture<'_, Result<Draining, ControlError>> {
        Box::pin(async { Err(ControlError::Invalid(NOWHERE.to_owned())) })
    }

    /// What a router of a cluster answers beside; `None` for all others.
    fn raft(&self) -> Option<&dyn Raft> {
        None
    }

    /// Accounts that are traced; `None` where there are no homes.
    fn traces(&self) -> Option<&dyn Traces> {
        None
    }
}

const NOWHERE: &str =
    "only the processes of a cluster can be drained: the clients of this one have nowhere to go";

/// How far a process is with leaving.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Draining {
    /// Where it is.
    pub phase: Phase,
    /// Clients, or leaderships, that are still here.
    pub left: u64,
}

/// Steps of leaving, in order.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Phase {
    /// It is not leaving.
    Serving,
    /// It is not ready any more and goes on serving, until load balancers have noticed.
    Settling,
    /// What is here goes elsewhere.
    Leaving,
    /// It ends.
    Ending,
}

impl Phase {
    /// A word for it.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Serving => "serving",
            Self::Settling => "settling",
            Self::Leaving => "leaving",
            Self::Ending => "ending",
        }
    }
}

/// An account to be made.
#[derive(Debug, Clone)]
pub struct NewUser {
    /// Its address.
    pub jid: BareJid,
    /// Its password.
    pub password: Password,
}

/// A password: wiped from memory when it is dropped, and shown by nothing.
#[derive(Clone, PartialEq, Eq)]
pub struct Password(Zeroizing<String>);

impl Password {
    /// Takes a password.
    pub fn new(text: String) -> Self {
        Self(Zeroizing::new(text))
    }

    /// The text.
    pub fn expose(&self) -> &str {
        &self.0
    }
}

impl fmt::Debug for Password {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Password(..)")
    }
}

/// Which accounts to list.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct UserQuery {
    /// Of this domain; of all when `None`.
    pub domain: Option<String>,
    /// Only those after this address.
    pub after: Option<BareJid>,
    /// At most so many.
    pub limit: usize,
}

/// One page of accounts.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct UserPage {
    /// Ordered by address.
    pub users: Vec<User>,
    /// There are more after the last one.
    pub more: bool,
}

/// An account.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct User {
    /// Its address.
    pub jid: BareJid,
    /// When it was made, in microseconds since the Unix epoch, if that is known.
    pub created: Option<u64>,
}

/// What became of a step of an import.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Put {
    /// A new account.
    Added,
    /// A new password for one that was there.
    Changed,
}

/// How the server is.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Status {
    /// Version of the server.
    pub version: String,
    /// Domains it answers for.
    pub domains: Vec<String>,
    /// How long it has been up, in seconds.
    pub uptime_seconds: u64,
    /// Sessions, detached ones included.
    pub sessions: u64,
    /// Of these, sessions that wait to be resumed.
    pub detached: u64,
    /// Addresses in use.
    pub listeners: Vec<ListenerStatus>,
    /// What else there is to say, as name and value.
    pub details: Vec<(String, String)>,
}

/// An address that is listened on.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ListenerStatus {
    /// The key: `c2s`, `c2s_tls`, `admin`.
    pub name: String,
    /// With the real port.
    pub address: SocketAddr,
}

/// Why a call failed.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum ControlError {
    /// There is no such account.
    #[error("there is no such account")]
    NotFound,
    /// There is such an account already.
    #[error("there is such an account already")]
    Exists,
    /// The domain is not one of ours.
    #[error("the server does not answer for this domain")]
    UnknownDomain,
    /// Something in the call is wrong; the text says what and holds nothing secret.
    #[error("{0}")]
    Invalid(String),
    /// Not now: the store is overloaded, or the server is leaving.
    #[error("the server cannot do this now: {0}")]
    Unavailable(String),
}
