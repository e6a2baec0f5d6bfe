//! What administration may do at an edge: look, and send it away. Accounts and sessions are the routers'.

use crate::leaving::Leaving;
use futures::future::BoxFuture;
use starling_admin::{
    Control, ControlError, Draining, ListenerStatus, NewUser, Password, Status, UserPage, UserQuery,
};
use starling_edge::Edge;
use starling_node::SharedClock;
use starling_node::config::Cluster;
use starling_wire::SessionInfo;
use starling_wire::net::Uplink;
use starling_xmpp::BareJid;
use std::sync::Arc;

/// Administration of one edge.
pub(super) struct EdgeControl {
    pub(super) edge: Arc<Edge>,
    pub(super) uplink: Arc<Uplink>,
    pub(super) leaving: Arc<Leaving>,
    pub(super) listeners: Vec<ListenerStatus>,
    pub(super) cluster: Cluster,
    pub(super) clock: SharedClock,
}

impl EdgeControl {
    fn progress(&self) -> Draining {
        Draining { phase: self.leaving.phase(), left: self.edge.connections() as u64 }
    }
}

fn not_here<T: Send + 'static>() -> BoxFuture<'static, Result<T, ControlError>> {
    Box::pin(async {
        Err(ControlError::Invalid(
            "this process is an edge and has no accounts: run the command with the settings of a router"
                .to_owned(),
        ))
    })
}

impl Control for EdgeControl {
    fn user_add(&self, _: NewUser) -> BoxFuture<'_, Result<(), ControlError>> {
        not_here()
    }

    fn user_delete(&self, _: BareJid) -> BoxFuture<'_, Result<(), ControlError>> {
        not_here()
    }

    fn user_passwd(&self, _: BareJid, _: Password) -> BoxFuture<'_, Result<(), ControlError>> {
        not_here()
    }

    fn users(&self, _: UserQuery) -> BoxFuture<'_, Result<UserPage, ControlError>> {
        not_here()
    }

    fn sessions(
        &self,
        _: Option<BareJid>,
        _: usize,
    ) -> BoxFuture<'_, Result<Vec<SessionInfo>, ControlError>> {
        not_here()
    }

    fn status(&self) -> BoxFuture<'_, Result<Status, ControlError>> {
        Box::pin(async move {
            let (homes, load) = self.uplink.load();
            let Cluster { name, shards, .. } = &self.cluster;
            let detail = |name: &str, value: String| (name.to_owned(), value);
            Ok(Status {
                version: env!("CARGO_PKG_VERSION").to_owned(),
                domains: self.edge.domains(),
                uptime_seconds: self.clock.monotonic().as_secs(),
                sessions: load.sessions as u64,
                detached: load.detached as u64,
                listeners: self.listeners.clone(),
                details: vec![
                    detail("role", format!("edge {} of cluster {name}", self.cluster.node_name())),
                    detail("homes", format!("{homes} of {shards} shards")),
                    detail("kept", format!("{} from clients, {} to them", load.ups, load.downs)),
                    detail("phase", self.leaving.phase().as_str().to_owned()),
                ],
            })
        })
    }

    fn drain(&self) -> BoxFuture<'_, Result<Draining, ControlError>> {
        self.leaving.ask();
        self.draining()
    }

    fn draining(&self) -> BoxFuture<'_, Result<Draining, ControlError>> {
        Box::pin(async move { Ok(self.progress()) })
    }

    fn drain_node(&self, node: String) -> BoxFuture<'_, Result<Draining, ControlError>> {
        if node == self.cluster.node_name() { self.drain() } else { elsewhere() }
    }

    fn draining_node(&self, node: String) -> BoxFuture<'_, Result<Draining, ControlError>> {
        if node == self.cluster.node_name() { self.draining() } else { elsewhere() }
    }
}

fn elsewhere() -> BoxFuture<'static, Result<Draining, ControlError>> {
    Box::pin(async {
        Err(ControlError::Invalid(
            "an edge sends away its own clients only: run the command with the settings of a router"
                .to_owned(),
        ))
    })
}
