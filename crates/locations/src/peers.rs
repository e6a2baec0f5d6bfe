//! The seam to the other routers.

use crate::types::Member;
use bytes::Bytes;
use futures::future::BoxFuture;
use starling_wire::RouterId;
use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;
use tokio::sync::watch;

/// The group number of calls that belong to none.
pub const NO_GROUP: u16 = u16::MAX;

/// Why a call got no answer.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum PeerError {
    /// There is no link to this router. The call was not sent.
    #[error("not linked")]
    NotLinked,
    /// The link ended before the answer came.
    #[error("the link was lost")]
    Lost,
    /// The answer did not come in time.
    #[error("no answer in time")]
    Late,
}

/// Who is linked now: both directions are up, both hellos are answered, and the other is a router of this cluster.
pub type Links = Arc<BTreeMap<RouterId, Member>>;

/// The links to the other routers. Its other half is [`Locations::answer`](crate::Locations::answer), to which what
/// comes in is given, with the name that the caller's certificate allows it.
pub trait Peers: Send + Sync + 'static {
    /// Asks a router and waits for its answer, for so long. Calls need not arrive in order. When the link ends, all that
    /// wait for it fail at once. A call whose answer nobody awaits any more must not harm the link.
    fn call(
        &self,
        to: RouterId,
        group: u16,
        body: Bytes,
        within: Duration,
    ) -> BoxFuture<'static, Result<Bytes, PeerError>>;

    /// Who is linked. It changes as soon as a link ends or begins.
    fn links(&self) -> watch::Receiver<Links>;

    /// To whom links should be kept, besides those that configuration names; the latest call holds.
    fn members(&self, members: &BTreeMap<RouterId, Member>);
}

/// Links shared by all groups.
pub type SharedPeers = Arc<dyn Peers>;
