//! The two traits at which edges and homes meet.

use crate::{ToEdge, ToHome};
use futures::future::BoxFuture;
use starling_store::AccountRow;
use starling_xmpp::BareJid;
use starling_xmpp::sasl::Credentials;

/// Why a question to a home got no answer.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum LinkError {
    /// No home for this account at present; SASL answers `temporary-auth-failure`.
    #[error("no home for this account")]
    NoHome,
    /// The home is there but cannot do it now.
    #[error("home is overloaded or its store is away")]
    Busy,
}

/// What became of a registration (XEP-0077).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Registration {
    /// The account exists now.
    Created,
    /// It existed before.
    Conflict,
}

/// An edge's way to the homes.
pub trait RouterLink: Send + Sync + 'static {
    /// Hands over what is ready, in order. Never blocks; what is sent and not yet taken is bounded by the sessions' credit.
    fn send(&self, batch: &mut Vec<ToHome>);

    /// The account's row with its SCRAM keys, from its home; never cached by the caller.
    fn account(&self, account: &BareJid) -> BoxFuture<'static, Result<Option<AccountRow>, LinkError>>;

    /// Creates an account (in-band registration before authentication).
    fn register(
        &self,
        account: &BareJid,
        credentials: Credentials,
    ) -> BoxFuture<'static, Result<Registration, LinkError>>;

    /// Whether homes are reachable and serving: part of an edge's readiness.
    fn ready(&self) -> bool;
}

/// A home's way to an edge.
pub trait EdgeLink: Send + Sync + 'static {
    /// Hands over what is ready, in order. Never blocks; bounded by the windows that homes keep per session.
    fn deliver(&self, batch: &mut Vec<ToEdge>);
}
