//! What administration may do, done through the homes.

use futures::future::{BoxFuture, join_all};
use starling_admin::{
    Control, ControlError, ListenerStatus, NewUser, Password, Status, User, UserPage, UserQuery,
};
use starling_hooks::{Passwords, Server};
use starling_node::SharedClock;
use starling_router::Router;
use starling_store::{AccountRow, StoreError};
use starling_wire::SessionInfo;
use starling_xmpp::BareJid;
use starling_xmpp::sasl::Credentials;
use std::sync::Arc;

/// Administration of this process.
pub(crate) struct Administration {
    pub(crate) router: Arc<Router>,
    pub(crate) server: Arc<Server>,
    pub(crate) passwords: Arc<dyn Passwords>,
    pub(crate) listeners: Vec<ListenerStatus>,
    pub(crate) clock: SharedClock,
}

impl Administration {
    async fn keys(&self, password: &Password) -> Result<Credentials, ControlError> {
        let derived = self.passwords.derive(password.expose().to_owned()).await;
        derived.map_err(|error| {
            let text = error.text.map_or_else(|| "try again later".to_owned(), |text| text.to_string());
            match error.condition {
                starling_xmpp::StanzaCondition::NotAcceptable => ControlError::Invalid(text),
                _ => ControlError::Unavailable(text),
            }
        })
    }

    fn local(&self, jid: &BareJid) -> Result<(), ControlError> {
        if jid.local().is_none() {
            return Err(ControlError::Invalid("an account is name@domain".to_owned()));
        }
        if self.server.is_local(jid) { Ok(()) } else { Err(ControlError::UnknownDomain) }
    }
}

fn unavailable(error: StoreError) -> ControlError {
    match error {
        StoreError::Exists => ControlError::Exists,
        other => ControlError::Unavailable(other.to_string()),
    }
}

fn found(there: bool) -> Result<(), ControlError> {
    if there { Ok(()) } else { Err(ControlError::NotFound) }
}

impl Control for Administration {
    fn user_add(&self, user: NewUser) -> BoxFuture<'_, Result<(), ControlError>> {
        Box::pin(async move {
            self.local(&user.jid)?;
            let keys = self.keys(&user.password).await?;
            let created = self.router.create_account(&user.jid, keys).await.map_err(unavailable)?;
            if created { Ok(()) } else { Err(ControlError::Exists) }
        })
    }

    fn user_delete(&self, jid: BareJid) -> BoxFuture<'_, Result<(), ControlError>> {
        Box::pin(async move { found(self.router.delete_account(&jid).await.map_err(unavailable)?) })
    }

    fn user_passwd(&self, jid: BareJid, password: Password) -> BoxFuture<'_, Result<(), ControlError>> {
        Box::pin(async move {
            let keys = self.keys(&password).await?;
            found(self.router.set_credentials(&jid, keys).await.map_err(unavailable)?)
        })
    }

    fn users(&self, query: UserQuery) -> BoxFuture<'_, Result<UserPage, ControlError>> {
        Box::pin(async move {
            let mut domains: Vec<String> = match query.domain {
                Some(domain) if self.server.domains.contains(&domain) => vec![domain],
                Some(_) => return Err(ControlError::UnknownDomain),
                None => self.server.domains.all().to_vec(),
            };
            domains.sort_unstable();
            let mut users = Vec::new();
            for domain in domains {
                let after = match &query.after {
                    Some(after) if after.domain() > domain.as_str() => continue,
                    Some(after) if after.domain() == domain => Some(after.clone()),
                    _ => None,
                };
                // One more than asked for tells whether there are more.
                let room = query.limit + 1 - users.len();
                users.extend(self.router.accounts(&domain, after, room).await.map_err(unavailable)?);
                if users.len() > query.limit {
                    break;
                }
            }
            let more = users.len() > query.limit;
            users.truncate(query.limit);
            let rows = join_all(users.iter().map(|jid| self.router.account(jid))).await;
            let user = |(jid, row): (BareJid, Result<Option<AccountRow>, StoreError>)| {
                let created = row.ok().flatten().map(|row| row.created.0);
                User { jid, created }
            };
            Ok(UserPage { users: users.into_iter().zip(rows).map(user).collect(), more })
        })
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
}
