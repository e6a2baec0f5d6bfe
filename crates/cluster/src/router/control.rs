//! What administration may do, done through the homes, wherever they are.

use super::asking::{Gathered, answer, ask, ask_all, going};
use super::desk::Unanswered;
use super::house::House;
use super::questions::{Answer, MOST_SESSIONS, Question};
use crate::leaving::{self, Leaving as Departure};
use futures::future::BoxFuture;
use starling_admin::{
    Control, ControlError, Draining, ListenerStatus, NewUser, Password, Raft, Status, Traces, UserPage,
    UserQuery,
};
use starling_locations::{Locations, MOST_VOTERS, Votes};
use starling_setup::accounts::{found, keys, local, page};
use starling_wire::frame::Leaving;
use starling_wire::{EdgeId, RouterId, SessionInfo};
use starling_xmpp::BareJid;
use std::sync::Arc;
use std::time::Duration;

/// Administration of the cluster, asked at one of its routers.
pub(super) struct Administration {
    pub(super) house: Arc<House>,
    pub(super) locations: Locations,
    pub(super) leaving: Arc<Departure>,
    pub(super) cluster: String,
    pub(super) listeners: Vec<ListenerStatus>,
}

impl Administration {
    /// Nodes, shards and who leads them, as far as this router knows.
    fn details(&self) -> Vec<(String, String)> {
        let board = &self.house.board;
        let own = &board.own;
        let members = self.locations.members();
        let name = |router: RouterId| match members.get(&router) {
            Some((member, _)) => member.name.clone(),
            None => router.to_string(),
        };
        let mut details =
            vec![("role".to_owned(), format!("router {} of cluster {}", own.name, self.cluster))];
        let led = self.led();
        let linked: Vec<RouterId> = board.peers().into_iter().map(|(router, _)| router).collect();
        // As many vote as do at the most.
        let given: usize = members.values().map(|(_, votes)| votes.shards).sum();
        for (router, (member, votes)) in &members {
            let led = led.get(router).copied().unwrap_or_default();
            let votes = match *votes {
                votes if votes.are_all() => "votes".to_owned(),
                Votes { shards: 0, known, .. } if member.spare || given >= MOST_VOTERS * known => {
                    "has no vote".to_owned()
                }
                Votes { shards: 0, .. } => "is joining".to_owned(),
                Votes { shards, all, .. } => format!("votes in {shards} of {all} shards"),
            };
            let here = match *router == own.router {
                true => "this one",
                false if linked.contains(router) => "linked",
                false => "not linked",
            };
            let edges = match *router == own.router {
                true => format!(", {} edges", board.edges().len()),
                false => match self.locations.edges(*router) {
                    Some((all, 0)) => format!(", {all} edges"),
                    Some((all, lacks)) => {
                        format!(
                            ", {all} edges: {lacks} of those that are linked to this router are not linked to it"
                        )
                    }
                    None => String::new(),
                },
            };
            let value = format!("{} {votes}, leads {led} shards, {here}{edges}", member.address);
            details.push((format!("router {}", member.name), value));
        }
        for (edge, called) in board.edges() {
            details.push((format!("edge {called}"), format!("{edge}, linked")));
        }
        let young = board.young();
        if young > 0 {
            let value = format!(
                "{young} shards here: for some seconds nobody is told that a session cannot be resumed"
            );
            details.push(("young".to_owned(), value));
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

impl Control for Administration {
    fn user_add(&self, user: NewUser) -> BoxFuture<'_, Result<(), ControlError>> {
        Box::pin(async move {
            local(&self.house.server, &user.jid)?;
            let keys = keys(&self.house.server, &user.password).await?;
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
            let keys = keys(&self.house.server, &password).await?;
            found(self.done(Question::SetKeys(jid, keys)).await?)
        })
    }

    fn users(&self, query: UserQuery) -> BoxFuture<'_, Result<UserPage, ControlError>> {
        Box::pin(page(&self.house.server, query))
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
                    let Gathered { answers, silent } = ask_all(board, Question::Sessions(None, most)).await;
                    if let Some((name, why)) = silent.first() {
                        // A list with holes would be taken for the whole.
                        return Err(ControlError::Unavailable(format!("router {name}: {why}")));
                    }
                    answers
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
            let Gathered { answers, silent } = ask_all(&self.house.board, Question::Count).await;
            let (mut sessions, mut detached) = (0, 0);
            for answer in answers {
                if let Answer::Count(all, waiting) = answer {
                    (sessions, detached) = (sessions + all, detached + waiting);
                }
            }
            let mut details = self.details();
            let silent = silent.into_iter().map(|(name, why)| {
                ("silent".to_owned(), format!("router {name}: {why}; its sessions are not counted"))
            });
            details.splice(1..1, silent);
            Ok(Status {
                version: self.house.server.software.1.to_owned(),
                domains: self.house.server.domains.all().to_vec(),
                uptime_seconds: self.house.clock.monotonic().as_secs(),
                sessions,
                detached,
                listeners: self.listeners.clone(),
                details,
            })
        })
    }

    fn raft(&self) -> Option<&dyn Raft> {
        Some(self)
    }

    fn traces(&self) -> Option<&dyn Traces> {
        Some(self)
    }

    fn drain(&self) -> BoxFuture<'_, Result<Draining, ControlError>> {
        self.leaving.ask();
        self.draining()
    }

    fn draining(&self) -> BoxFuture<'_, Result<Draining, ControlError>> {
        Box::pin(async move { Ok(draining(going(&self.house.board))) })
    }

    fn drain_node(&self, node: String) -> BoxFuture<'_, Result<Draining, ControlError>> {
        Box::pin(async move {
            match self.node(&node)? {
                Node::Router(router) => self.going(router, Question::Leave).await,
                Node::Edge(edge) if self.house.board.send_away(edge) => {
                    let how_far = self.house.board.going(edge).ok_or(ControlError::NotFound)?;
                    // It is told a moment later that it is.
                    Ok(draining(Leaving { phase: how_far.phase.max(1), ..how_far }))
                }
                Node::Edge(_) => Err(ControlError::NotFound),
            }
        })
    }

    fn draining_node(&self, node: String) -> BoxFuture<'_, Result<Draining, ControlError>> {
        Box::pin(async move {
            match self.node(&node)? {
                Node::Router(router) => self.going(router, Question::Going).await,
                Node::Edge(edge) => self.house.board.going(edge).map(draining).ok_or(ControlError::NotFound),
            }
        })
    }
}

/// A process of the cluster.
enum Node {
    Router(RouterId),
    Edge(EdgeId),
}

fn draining(Leaving { phase, left }: Leaving) -> Draining {
    Draining { phase: leaving::phase(phase), left }
}

/// The only one of those that are called so, with their numbers.
pub(super) fn the_one<T>(called: &str, mut found: Vec<(u64, T)>) -> Result<T, ControlError> {
    if found.len() > 1 {
        let numbers: Vec<String> = found.iter().map(|(number, _)| format!("{number:016x}")).collect();
        return Err(ControlError::Invalid(format!(
            "several processes are called {called}: name one of them by its number, {}",
            numbers.join(" or ")
        )));
    }
    found.pop().map(|(_, one)| one).ok_or(ControlError::NotFound)
}

impl Administration {
    /// The process of this name, or of this number: a router of the cluster, or an edge that is linked.
    fn node(&self, called: &str) -> Result<Node, ControlError> {
        let board = &self.house.board;
        let number = u64::from_str_radix(called, 16).ok();
        let mut found = Vec::new();
        for (router, (member, _)) in self.locations.members() {
            if member.name == called || Some(router.0) == number {
                found.push((router.0, Node::Router(router)));
            }
        }
        for (edge, name) in board.edges() {
            if name == called || Some(edge.0) == number {
                found.push((edge.0, Node::Edge(edge)));
            }
        }
        the_one(called, found)
    }

    /// Asks a router how far it is, after having asked it to leave or not.
    async fn going(&self, router: RouterId, question: Question) -> Result<Draining, ControlError> {
        let board = &self.house.board;
        let answer = match board.peer(router) {
            _ if router == board.own.router => {
                if matches!(question, Question::Leave) {
                    self.leaving.ask();
                }
                answer(board, question).await
            }
            Some(outlet) => {
                board.desk.ask(router, &outlet, &question, TOLD_WITHIN).await.map_err(unanswered)?
            }
            None => return Err(unanswered(Unanswered::NotLinked)),
        };
        match answer {
            Answer::Going(how_far) => Ok(draining(how_far)),
            other => Err(no_answer(&other)),
        }
    }
}

/// How long another router may take to say how far it is.
const TOLD_WITHIN: Duration = Duration::from_secs(5);

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn nobody_is_taken_for_a_namesake() {
        assert_eq!(the_one("router-1", vec![(7, 'a')]), Ok('a'));
        assert_eq!(the_one::<char>("router-1", vec![]), Err(ControlError::NotFound));
        let refused = the_one("router-1", vec![(7, 'a'), (0xff, 'b')]).unwrap_err().to_string();
        assert!(refused.contains("0000000000000007 or 00000000000000ff"), "{refused}");
    }
}
