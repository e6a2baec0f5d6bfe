//! What administration asks about the groups, and has done with them.

use super::control::{Administration, the_one, unanswered};
use super::desk::Unanswered;
use super::questions::{Answer, Question};
use super::switchboard::Switchboard;
use futures::future::BoxFuture;
use starling_admin::ControlError;
use starling_admin::raft::{Place, Raft, Reconciled, Record, RouterRow, ShardRow, Standing};
use starling_locations::era::Era;
use starling_locations::{GiveError, ReconcileError, RestoreError};
use starling_wire::{RouterId, Shard};
use starling_xmpp::BareJid;
use std::collections::BTreeMap;
use std::time::Duration;
use tokio::time::sleep;

/// How long a move may take.
const MOVED_WITHIN: Duration = Duration::from_secs(8);
/// Why a shard is not moved.
const MISSED: &str =
    "sessions of an edge that was lost wait at this home to be resumed, and would be gone: ask again later";
/// How long it may take until the right ones vote.
const RECONCILED_WITHIN: Duration = Duration::from_secs(60);
/// How often, and how many times, it is asked for the removal of a router until it is done.
const REMOVE_EVERY: Duration = Duration::from_millis(500);
const REMOVE_TIMES: usize = 12;

impl Administration {
    fn names(&self) -> BTreeMap<RouterId, String> {
        self.locations.members().into_iter().map(|(id, (member, _))| (id, member.name)).collect()
    }

    /// The router of this name, or of this identity.
    fn router(&self, called: &str) -> Result<RouterId, ControlError> {
        let id = u64::from_str_radix(called, 16).ok().map(RouterId);
        let found = self.names().into_iter().filter(|(router, name)| *name == called || Some(*router) == id);
        the_one(called, found.map(|(router, _)| (router.0, router)).collect())
    }

    /// How many shards each router leads.
    pub(super) fn led(&self) -> BTreeMap<RouterId, usize> {
        let mut led = BTreeMap::new();
        for leader in self.locations.groups().iter().filter_map(|group| group.standing().leader) {
            *led.entry(leader).or_default() += 1;
        }
        led
    }
}

fn hex(number: u64) -> String {
    format!("{number:016x}")
}

/// Moves a shard that this router leads.
pub(super) async fn give(board: &Switchboard, shard: Shard, to: RouterId) -> Answer {
    let Some(locations) = board.locations().cloned() else { return Answer::NotHome };
    if !board.has_all(shard) {
        return Answer::Unavailable(MISSED.to_owned());
    }
    // Whoever asked may go away meanwhile. The homes that were told to finish are told the end of it all the same.
    match tokio::spawn(async move { locations.give(shard, to).await }).await {
        Ok(Ok(())) => Answer::Done(true),
        Ok(Err(GiveError::Unsafe)) => Answer::Unavailable(unheard(&board.silent_edges(shard))),
        Ok(Err(error)) => Answer::Unavailable(error.to_string()),
        Err(error) => Answer::Unavailable(error.to_string()),
    }
}

/// Why a shard is not moved that these edges have sessions of.
fn unheard(silent: &[String]) -> String {
    if silent.is_empty() {
        return MISSED.to_owned();
    }
    let silent = silent.join(", ");
    format!("sessions of an edge that does not answer ({silent}) would be gone: ask again later")
}

impl Raft for Administration {
    fn standing(&self) -> Standing {
        let (board, locations, names, led) = (&self.house.board, &self.locations, self.names(), self.led());
        let name = |router: &RouterId| names.get(router).cloned().unwrap_or_else(|| hex(router.0));
        let own = board.own.router;
        let router = |(id, (member, votes)): (
            RouterId,
            (starling_locations::types::Member, starling_locations::Votes),
        )| RouterRow {
            id: hex(id.0),
            name: member.name,
            address: member.address,
            votes: votes.are_all(),
            linked: id == own || board.peer(id).is_some(),
            leads: led.get(&id).copied().unwrap_or_default(),
            round_trip: locations
                .round_trip(id)
                .map(|time| u64::try_from(time.as_micros()).unwrap_or(u64::MAX)),
        };
        let shard = |group: &starling_locations::Group| {
            let one = group.standing();
            ShardRow {
                shard: group.shard().0,
                leader: one.leader.as_ref().map(name),
                term: one.term,
                epoch: one.epoch.0,
                sessions: one.rows,
                last: one.last,
                applied: one.applied,
                snapshot: one.snapshot,
                confirmed: u64::try_from(one.confirmed.as_millis()).unwrap_or(u64::MAX),
                learners: one.learners.iter().map(name).collect(),
                replicated: one.replicated.iter().map(|(id, upto)| (name(id), *upto)).collect(),
            }
        };
        Standing {
            cluster: Some(locations.cluster()).filter(|id| *id != 0).map(hex).unwrap_or_default(),
            router: board.own.name.clone(),
            routers: locations.members().into_iter().map(router).collect(),
            shards: locations.groups().iter().map(shard).collect(),
        }
    }

    fn transfer(&self, shard: u16, to: String) -> BoxFuture<'_, Result<(), ControlError>> {
        Box::pin(async move {
            let (shard, to) = (Shard(shard), self.router(&to)?);
            let leader = self.locations.group(shard).ok_or(ControlError::NotFound)?.standing().leader;
            let board = &self.house.board;
            let answer = match leader {
                Some(leader) if leader == to => return Ok(()),
                Some(leader) if leader == board.own.router => give(board, shard, to).await,
                Some(leader) => {
                    let outlet = board.peer(leader).ok_or_else(|| unanswered(Unanswered::NotLinked))?;
                    let question = Question::Give(shard, to);
                    board.desk.ask(leader, &outlet, &question, MOVED_WITHIN).await.map_err(unanswered)?
                }
                None => Answer::NotHome,
            };
            match answer {
                Answer::Done(true) => Ok(()),
                Answer::Unavailable(why) => Err(ControlError::Unavailable(why)),
                _ => Err(ControlError::Unavailable("nobody leads the shard at present".to_owned())),
            }
        })
    }

    fn remove(&self, router: String) -> BoxFuture<'_, Result<(), ControlError>> {
        Box::pin(async move {
            let router = self.router(&router)?;
            if self.locations.members().len() < 2 {
                return Err(ControlError::Invalid("it is the only router there is".to_owned()));
            }
            for _ in 0..REMOVE_TIMES {
                let asked = self.locations.remove(router).await;
                asked.map_err(|error| ControlError::Unavailable(error.to_string()))?;
                sleep(REMOVE_EVERY).await;
                if !self.locations.members().contains_key(&router) {
                    return Ok(());
                }
            }
            Err(ControlError::Unavailable("it still is a member of some shards: ask again".to_owned()))
        })
    }

    fn snapshot(&self, shard: Option<u16>) -> BoxFuture<'_, Result<(), ControlError>> {
        Box::pin(async move {
            let all = self.locations.groups().iter();
            let groups: Vec<_> =
                all.filter(|group| shard.is_none_or(|shard| group.shard().0 == shard)).collect();
            if groups.is_empty() {
                return Err(ControlError::NotFound);
            }
            for group in groups {
                let made = group.snapshot().await;
                made.map_err(|error| ControlError::Unavailable(error.to_string()))?;
            }
            Ok(())
        })
    }

    fn reconcile(&self, voters: usize) -> BoxFuture<'_, Result<Reconciled, ControlError>> {
        Box::pin(async move {
            let done = self.locations.reconcile(voters, RECONCILED_WITHIN).await.map_err(|error| {
                let why = error.to_string();
                match error {
                    ReconcileError::NoQuorum(_) | ReconcileError::Late => ControlError::Unavailable(why),
                    ReconcileError::Number
                    | ReconcileError::Few(_)
                    | ReconcileError::Away(..)
                    | ReconcileError::Linked(_) => ControlError::Invalid(why),
                }
            })?;
            let names = |these: BTreeMap<RouterId, starling_locations::types::Member>| {
                let mut names: Vec<_> = these.into_values().map(|member| member.name).collect();
                names.sort();
                names
            };
            Ok(Reconciled { voters: names(done.voters), spare: names(done.spare), removed: names(done.gone) })
        })
    }

    fn record(&self) -> Result<Record, ControlError> {
        let era = self.locations.era().ok_or_else(|| {
            ControlError::Unavailable("this router does not belong to a cluster yet".to_owned())
        })?;
        let cluster = hex(self.locations.cluster());
        let shards = self.house.board.own.shards.count();
        Ok(Record { cluster, shards, era: era.number, ceiling: era.floor })
    }

    fn restore(&self, record: Record, routers: usize) -> BoxFuture<'_, Result<(), ControlError>> {
        Box::pin(async move {
            let shards = self.house.board.own.shards.count();
            if record.shards != shards {
                let why = format!("that cluster had {} shards, not {shards}", record.shards);
                return Err(ControlError::Invalid(why));
            }
            let above = Era { number: record.era, floor: record.ceiling };
            self.locations.restore(above, routers).await.map_err(|error| {
                let why = error.to_string();
                match error {
                    RestoreError::Lives(_) | RestoreError::Few(_) => ControlError::Invalid(why),
                    RestoreError::Refused(_) | RestoreError::Store(_) | RestoreError::Disk(_) => {
                        ControlError::Unavailable(why)
                    }
                }
            })
        })
    }

    fn find(&self, account: BareJid) -> Vec<Place> {
        let board = &self.house.board;
        let shard = board.own.shards.of(&account);
        let Some(group) = self.locations.group(shard) else { return Vec::new() };
        let (names, one) = (self.names(), group.standing());
        let home = one.leader.map(|leader| names.get(&leader).cloned().unwrap_or_else(|| hex(leader.0)));
        let edges: BTreeMap<_, _> = board.edges().into_iter().collect();
        let place = |(jid, row): (starling_xmpp::FullJid, starling_locations::Row)| {
            let edge = edges.get(&row.edge);
            Place {
                jid: jid.as_str().to_owned(),
                shard: shard.0,
                home: home.clone(),
                epoch: one.epoch.0,
                edge: edge.cloned().unwrap_or_else(|| hex(row.edge.0)),
                linked: edge.is_some(),
                // Above stands from which stay the session was moved last.
                moves: row.attempt & u64::from(u32::MAX),
            }
        };
        group.of(&account).into_iter().map(place).collect()
    }
}
