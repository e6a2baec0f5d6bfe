//! What administration may do, done through the homes, wherever they are.

use super::asking::{ask, ask_all};
use super::desk::Unanswered;
use super::house::House;
use super::questions::{Answer, MOST_SESSIONS, Question};
use crate::leaving::Leaving;
use futures::future::{BoxFuture, join_all};
use starling_admin::Raft;
use starling_admin::{
    Control, ControlError, Draining, ListenerStatus, NewUser, Password, Status, User, UserPage, UserQuery,
};
use starling_locations::Locations;
use starling_store::{AccountRow, StoreError};
use starling_wire::{RouterId, SessionInfo};
use starling_xmpp::sasl::Credentials;
use starling_xmpp::{BareJid, StanzaCondition};
use std::sync::Arc;

/// Administration of the cluster, asked at one of its routers.
pub(super) struct Administration {
    pub(super) house: Arc<House>,
    pub(super) locations: Locations,
    pub(super) leaving: Arc<Leaving>,
    pub(super) cluster: String,
    pub(super) listeners: Vec<ListenerStatus>,
}

impl Administration {
    async fn keys(&self, password: &Password) -> Result<Credentials, ControlError> {
        let derived = self.house.server.passwords.derive(password.expose().to_owned()).await;
        derived.map_err(|error| {
            let text = error.text.map_or_else(|| "try again later".to_owned(), |text| text.to_string());
            match error.condition {
                StanzaCondition::NotAcceptable => ControlError::Invalid(text),
                _ => ControlError::Unavailable(text),
            }
        })
    }

    fn local(&self, jid: &BareJid) -> Result<(), ControlError> {
        if jid.local().is_none() {
            return Err(ControlError::Invalid("an account is name@domain".to_owned()));
        }
        if self.house.server.is_local(jid) { Ok(()) } else { Err(ControlError::UnknownDomain) }
    }

    /// Nodes, shards and who leads them, as far as this router knows.
    fn details(&self) -> Vec<(String, String)> {
        let board = &self.house.board;
        let own = &board.own;
        let members = self.locations.members();
        let name = |router: RouterId| match members.get(&router) {
            Some((member, _)) => member.name.clone(),
            None => format!("{:016x}", router.0),
        };
        let mut details =
            vec![("role".to_owned(), format!("router {} of cluster {}", own.name, self.cluster))];
        let linked: Vec<RouterId> = board.peers().into_iter().map(|(router, _)| router).collect();
        for (router, (member, votes)) in &members {
            let led = self.locations.groups().iter().filter(|group| group.leader() == Some(*router)).count();
            let votes = if *votes { "votes" } else { "is joining" };
            let here = match *router == own.router {
                true => "this one",
                false if linked.contains(router) => "linked",
                false => "not linked",
            };
            let value = format!("{} {votes}, leads {led} shards, {here}", member.address);
            details.push((format!("router {}", member.name), value));
        }
        for (edge, called) in board.edges() {
            details.push((format!("edge {called}"), format!("{:016x}, linked", edge.0)));
        }
        for group in self.locations.groups() {
            let one = group.standing();
            let leader = one.leader.map_or_else(|| "no leader".to_owned(), name);
            let lag = one.last.saturating_sub(one.applied);
            let value = format!("{leader}, epoch {}, {} sessions recorded, lag {lag}", one.epoch.0, one.rows);
            details.push((format!("shard {}", group.shard().0), value));
        }
        details
    }

    /// Whether it was done.
    async fn done(&self, question: Question) -> Result<bool, ControlError> {
        match ask(&self.house.board, question).await {
            Answer::Done(done) => Ok(done),
            other => Err(no_answer(&other)),
        }
    }
}

fn no_answer(answer: &Answer) -> ControlError {
    ControlError::Unavailable(match answer {
        Answer::NotHome => "the account's shard has no home at present".to_owned(),
        Answer::Unavailable(why) => why.clone(),
        _ => "a router of another version gave an answer that is none".to_owned(),
    })
}

pub(super) fn unanswered(error: Unanswered) -> ControlError {
    ControlError::Unavailable(error.to_string())
}

fn unavailable(error: StoreError) -> ControlError {
    ControlError::Unavailable(error.to_string())
}

fn found(there: bool) -> Result<(), ControlError> {
    if there { Ok(()) } else { Err(ControlError::NotFound) }
}

impl Control for Administration {
    fn user_add(&self, user: NewUser) -> BoxFuture<'_, Result<(), ControlError>> {
        Box::pin(async move {
            self.local(&user.jid)?;
            let keys = self.keys(&user.password).await?;
            if self.done(Question::Create(user.jid, keys)).await? {
                Ok(())
            } else {
                Err(ControlError::Exists)
            }
        })
    }

    fn user_delete(&self, jid: BareJid) -> BoxFuture<'_, Result<(), ControlError>> {
        Box::pin(async move { found(self.done(Question::Delete(jid)).await?) })
    }

    fn user_passwd(&self, jid: BareJid, password: Password) -> BoxFuture<'_, Result<(), ControlError>> {
        Box::pin(async move {
            let keys = self.keys(&password).await?;
            found(self.done(Question::SetKeys(jid, keys)).await?)
        })
    }

    fn users(&self, query: UserQuery) -> BoxFuture<'_, Result<UserPage, ControlError>> {
        Box::pin(async move {
            let (server, store) = (&self.house.server, &self.house.store);
            let mut domains: Vec<String> = match query.domain {
                Some(domain) if server.domains.contains(&domain) => vec![domain],
                Some(_) => return Err(ControlError::UnknownDomain),
                None => server.domains.all().to_vec(),
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
                users.extend(store.accounts(&domain, after, room).await.map_err(unavailable)?);
                if users.len() > query.limit {
                    break;
                }
            }
            let more = users.len() > query.limit;
            users.truncate(query.limit);
            let rows = join_all(users.iter().map(|jid| store.account(jid))).await;
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
            let most = u32::try_from(limit.min(MOST_SESSIONS)).unwrap_or(u32::MAX);
            let board = &self.house.board;
            let answers = match of {
                Some(of) => vec![ask(board, Question::Sessions(Some(of), most)).await],
                None => {
                    ask_all(board, Question::Sessions(None, most)).await.map_err(ControlError::Unavailable)?
                }
            };
            let mut all = Vec::new();
            for answer in answers {
                match answer {
                    Answer::Sessions(sessions) => all.extend(sessions),
                    other => return Err(no_answer(&other)),
                }
            }
            all.sort_by(|a, b| a.jid.as_str().cmp(b.jid.as_str()));
            all.truncate(limit);
            Ok(all)
        })
    }

    fn status(&self) -> BoxFuture<'_, Result<Status, ControlError>> {
        Box::pin(async move {
            let answers =
                ask_all(&self.house.board, Question::Count).await.map_err(ControlError::Unavailable)?;
            let (mut sessions, mut detached) = (0, 0);
            for answer in answers {
                match answer {
                    Answer::Count(all, waiting) => {
                        (sessions, detached) = (sessions + all, detached + waiting)
                    }
                    other => return Err(no_answer(&other)),
                }
            }
            Ok(Status {
                version: self.house.server.software.1.to_owned(),
                domains: self.house.server.domains.all().to_vec(),
                uptime_seconds: self.house.clock.monotonic().as_secs(),
                sessions,
                detached,
                listeners: self.listeners.clone(),
                details: self.details(),
            })
        })
    }

    fn raft(&self) -> Option<&dyn Raft> {
        Some(self)
    }

    fn drain(&self) -> BoxFuture<'_, Result<Draining, ControlError>> {
        self.leaving.ask();
        self.draining()
    }

    fn draining(&self) -> BoxFuture<'_, Result<Draining, ControlError>> {
        let left = self.house.board.chart.homes().len() as u64;
        Box::pin(async move { Ok(Draining { phase: self.leaving.phase(), left }) })
    }
}
