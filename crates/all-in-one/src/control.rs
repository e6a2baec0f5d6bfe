//! What administration may do, done through the homes.

use futures::future::BoxFuture;
use starling_admin::traces::{Rules, TraceRules};
use starling_admin::{
    Control, ControlError, ListenerStatus, NewUser, Password, Status, Traces, UserPage, UserQuery,
};
use starling_hooks::Server;
use starling_node::SharedClock;
use starling_router::Router;
use starling_setup::accounts::{found, keys, local, page, unavailable};
use starling_wire::SessionInfo;
use starling_xmpp::BareJid;
use std::sync::Arc;
use std::time::Duration;

/// Administration of this process.
pub(crate) struct Administration {
    pub(crate) router: Arc<Router>,
    pub(crate) server: Arc<Server>,
    pub(crate) listeners: Vec<ListenerStatus>,
    pub(crate) clock: SharedClock,
    pub(crate) rules: Rules,
}

impl Control for Administration {
    fn user_add(&self, user: NewUser) -> BoxFuture<'_, Result<(), ControlError>> {
        Box::pin(async move {
            local(&self.server, &user.jid)?;
            let keys = keys(&self.server, &user.password).await?;
            let created = self.router.create_account(&user.jid, keys).await.map_err(unavailable)?;
            if created { Ok(()) } else { Err(ControlError::Exists) }
        })
    }

    fn user_delete(&self, jid: BareJid) -> BoxFuture<'_, Result<(), ControlError>> {
        Box::pin(async move { found(self.router.delete_account(&jid).await.map_err(unavailable)?) })
    }

    fn user_passwd(&self, jid: BareJid, password: Password) -> BoxFuture<'_, Result<(), ControlError>> {
        Box::pin(async move {
            let keys = keys(&self.server, &password).await?;
            found(self.router.set_credentials(&jid, keys).await.map_err(unavailable)?)
        })
    }

    fn users(&self, query: UserQuery) -> BoxFuture<'_, Result<UserPage, ControlError>> {
        Box::pin(page(&self.server, query))
    }

    fn sessions(
        &self,
        of: Option<BareJid>,
        limit: usize,
    ) -> BoxFuture<'_, Result<Vec<SessionInfo>, ControlError>> {
        Box::pin(async move {
            let mut sessions = self.router.sessions().await;
            if let Some(of) = of {
                sessions.retain(|session| session.jid.same_bare(&of));
            }
            sessions.sort_by(|a, b| a.jid.as_str().cmp(b.jid.as_str()));
            sessions.truncate(limit);
            Ok(sessions)
        })
    }

    fn status(&self) -> BoxFuture<'_, Result<Status, ControlError>> {
        Box::pin(async move {
            let sessions = self.router.sessions().await;
            Ok(Status {
                version: self.server.software.1.to_owned(),
                domains: self.server.domains.all().to_vec(),
                uptime_seconds: self.clock.monotonic().as_secs(),
                sessions: sessions.len() as u64,
                detached: sessions.iter().filter(|session| session.detached).count() as u64,
                listeners: self.listeners.clone(),
                details: Vec::new(),
            })
        })
    }

    fn traces(&self) -> Option<&dyn Traces> {
        Some(self)
    }
}

impl Traces for Administration {
    fn start(
        &self,
        account: BareJid,
        ttl: Duration,
        most: u32,
    ) -> BoxFuture<'_, Result<TraceRules, ControlError>> {
        Box::pin(async move {
            local(&self.server, &account)?;
            let started = self.rules.start(&account, ttl, most)?;
            let rules = self.rules.rows(|rule| rule.id == started.id);
            Ok(TraceRules { rules, warnings: self.rules.warnings() })
        })
    }

    fn list(&self) -> TraceRules {
        TraceRules { rules: self.rules.rows(|_| true), warnings: self.rules.warnings() }
    }

    fn stop(&self, which: String) -> BoxFuture<'_, Result<TraceRules, ControlError>> {
        Box::pin(async move {
            let stopped = self.rules.stop(&which)?;
            let rules = self.rules.rows(|rule| stopped.iter().any(|one| one.id == rule.id));
            Ok(TraceRules { rules, warnings: Vec::new() })
        })
    }
}
