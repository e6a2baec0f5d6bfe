//! All groups of one router, and what they have in common.

mod finishing;
mod founding;
mod joining;
mod moving;
mod opening;
mod reconcile;
mod sentry;
mod spread;
mod starting;
mod upkeep;

pub use founding::RestoreError;
pub use joining::{MOST_VOTERS, RemoveError, Votes};
pub use opening::Opened;
pub use reconcile::{ReconcileError, Reconciled};

use crate::attention::Gaps;
use crate::call::{Answer, Call, Ping, Refusal, bits, has};
use crate::detector;
use crate::era::{Era, Eras, Limits};
use crate::group::{GiveError, Group};
use crate::lease::{GRANTED, Lease};
use crate::logs::Logs;
use crate::network::Network;
use crate::peers::{NO_GROUP, SharedPeers};
use crate::places::{Cluster, Places};
use crate::snapshots::SnapshotError;
use crate::state::StateError;
use crate::types::Member;
use crate::wal::WalError;
use bytes::Bytes;
use futures::future::BoxFuture;
use parking_lot::Mutex;
use starling_node::clock::SharedClock;
use starling_wire::{EdgeId, Epoch, Incarnation, RouterId, Shard, Shards};
use std::collections::{BTreeMap, BTreeSet};
use std::io;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;
use tokio::sync::{mpsc, watch};
use tokio::task::JoinSet;

/// What a router says about itself and its part in the cluster.
#[derive(Clone)]
pub struct Options {
    /// Its name and address.
    pub member: Member,
    /// Names this life of the process.
    pub incarnation: Incarnation,
    /// How many routers found a cluster together, the same for all: of those that are linked, the one with the lowest
    /// identity does it, as soon as they are so many (itself among them) and all have empty disks. One that has `None`
    /// never does, and waits to be founded with.
    pub found_with: Option<usize>,
    /// Where eras are kept.
    pub eras: Arc<dyn Eras>,
    /// Told before a leadership is given away.
    pub drain: Option<Arc<dyn Drain>>,
    /// Whether leaderships are moved until they are spread evenly.
    pub spread: bool,
    /// When heartbeats go, and how long silence is borne.
    pub times: Times,
}

/// Times that can be chosen. None of them is part of what a lease rests upon: voters refuse others for 300 ms whatever is
/// chosen here, so routers may differ.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Times {
    /// How often a leader tells the others that it leads: a lease lasts for 270 ms after what a quorum has taken.
    pub heartbeat: Duration,
    /// How long a router may be silent, while its link is up, before what it led is led by others. Never less than 300 ms.
    pub election: Duration,
}

impl Default for Times {
    fn default() -> Self {
        Self { heartbeat: Duration::from_millis(75), election: detector::SILENCE }
    }
}

/// A home that can be asked to stop for a while.
pub trait Drain: Send + Sync + 'static {
    /// Takes nothing more of a shard, and finishes what it has begun. Its reign ends after that. When it could not be moved,
    /// a new one begins here, or this one goes on. False: it cannot be moved now without harm, and goes on as if it had not
    /// been asked.
    fn drain(&self, shard: Shard, epoch: Epoch) -> BoxFuture<'static, bool>;

    /// It was not moved. If that reign is not over, it takes again what comes.
    fn resume(&self, shard: Shard, epoch: Epoch);

    /// Whether a shard can be moved without harm, only to spread the load. It is asked before each such move.
    fn is_calm(&self, shard: Shard) -> bool;

    /// The edges that are linked to this router: where they cannot go, its shards had better not go either.
    fn edges(&self) -> BTreeSet<EdgeId>;
}

/// Why a router cannot take part.
#[derive(Debug, thiserror::Error)]
pub enum StartError {
    /// The file system refused something.
    #[error("the directory cannot be used: {0}")]
    Io(#[from] io::Error),
    /// The log cannot be opened.
    #[error(transparent)]
    Log(#[from] WalError),
    /// The snapshots cannot be opened.
    #[error(transparent)]
    Snapshots(#[from] SnapshotError),
    /// A snapshot cannot be read.
    #[error("shard {0}: {1}")]
    State(u16, StateError),
    /// The cluster has another number of shards.
    #[error("the cluster has {found} shards, not {wanted}")]
    Shards {
        /// How many it has.
        found: u16,
        /// How many are configured.
        wanted: u16,
    },
    /// Raft cannot start.
    #[error("raft: {0}")]
    Raft(String),
}

/// Why a router that took part cannot go on. Its process should end.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum Failure {
    /// The log has failed.
    #[error("the log has failed: {0}")]
    Log(String),
    /// Raft has stopped in a shard.
    #[error("raft has stopped in shard {0}: {1}")]
    Raft(u16, String),
    /// The others have removed this router, or another disk is there in its stead.
    #[error("this router is no member any more")]
    Removed,
    /// A later cluster has begun on the same store.
    #[error("a later cluster has taken over the store")]
    Superseded,
}

/// All shards' groups at one router. Clones are the same.
#[derive(Clone)]
pub struct Locations {
    inner: Arc<Inner>,
}

struct Inner {
    own: RouterId,
    options: Options,
    peers: SharedPeers,
    clock: SharedClock,
    places: Places,
    limits: Arc<Limits>,
    shards: Shards,
    groups: Vec<Group>,
    seen: Mutex<BTreeMap<RouterId, Seen>>,
    /// Since when it listens.
    began: Duration,
    leaving: AtomicBool,
    /// The shards in which a new router is just being made a member.
    adding: Mutex<BTreeSet<u16>>,
    /// To whom a shard could not be moved, and when that was last.
    unmoved: Mutex<BTreeMap<RouterId, Duration>>,
    /// When it was last said of a shard that it stays here.
    kept: Mutex<BTreeMap<Shard, Duration>>,
    /// Shards whose home did not finish in time when it was to be moved, and when.
    late: Mutex<BTreeMap<Shard, Duration>>,
    /// A snapshot is due, and does not fit on the disk.
    short_of_room: AtomicBool,
    /// Its place is another one's: when others said so first, and last.
    kept_out: Mutex<Option<(Duration, Duration)>>,
    removed: Arc<AtomicBool>,
    failed: watch::Sender<Option<Failure>>,
    admissions: mpsc::Sender<joining::Admission>,
    tasks: Mutex<JoinSet<()>>,
    /// Ends with this.
    _logs: Box<dyn std::any::Any + Send + Sync>,
}

/// What is known of another router.
#[derive(Debug, Clone, Default)]
struct Seen {
    heard: Duration,
    pinged: Duration,
    ping: Ping,
    rtt: Option<Duration>,
    gaps: Gaps,
}

impl Seen {
    fn hear(&mut self, now: Duration) {
        self.heard = now;
        self.gaps.hear(now);
    }

    /// This router was away for so long, and could not hear it.
    fn excuse(&mut self, missed: Duration, now: Duration) {
        self.heard = (self.heard + missed).min(now);
        self.pinged = (self.pinged + missed).min(now);
    }
}

impl Locations {
    /// Takes part with an opened disk. Ends with [`Locations::stop`].
    ///
    /// # Errors
    /// When Raft cannot start with what is on the disk.
    pub async fn start<L: Logs>(
        opened: Opened<L>,
        options: Options,
        peers: SharedPeers,
        clock: SharedClock,
    ) -> Result<Self, StartError> {
        let Opened { id: own, shards, places, snapshots, logs, groups: opened } = opened;
        let limits = Arc::new(Limits::default());
        if let Some(cluster) = places.cluster()? {
            limits.belong(cluster.id, cluster.era);
        }
        let removed = Arc::new(AtomicBool::new(false));
        let mut groups = Vec::new();
        let mut drivers = Vec::new();
        for (shard, (machine, log)) in shards.all().zip(opened) {
            let lease = Arc::new(Lease::new(own.0));
            let promise = Arc::default();
            let network = Network {
                peers: Arc::clone(&peers),
                group: shard.0,
                cluster: limits.shared_cluster(),
                clock: Arc::clone(&clock),
                lease,
                promise,
                removed: Arc::clone(&removed),
            };
            let start = starting::Start {
                shard,
                own,
                incarnation: options.incarnation,
                snapshots: &snapshots,
                limits: &limits,
            };
            let (group, driver) = start.group(machine, log, network).await?;
            groups.push(group);
            drivers.push(driver);
        }
        let failed_log = logs.failed();
        let (admissions, wanted) = mpsc::channel(16);
        let inner = Arc::new(Inner {
            began: clock.monotonic(),
            own,
            options,
            peers,
            clock,
            places,
            limits,
            shards,
            groups,
            seen: Mutex::default(),
            leaving: AtomicBool::new(false),
            adding: Mutex::default(),
            unmoved: Mutex::default(),
            kept: Mutex::default(),
            late: Mutex::default(),
            short_of_room: AtomicBool::new(false),
            kept_out: Mutex::default(),
            removed,
            failed: watch::Sender::new(None),
            admissions,
            tasks: Mutex::new(JoinSet::new()),
            _logs: Box::new(logs),
        });
        {
            let mut tasks = inner.tasks.lock();
            for driver in drivers {
                tasks.spawn(driver.run());
            }
            tasks.spawn(sentry::pulse(Arc::clone(&inner)));
            tasks.spawn(sentry::ping(Arc::clone(&inner)));
            tasks.spawn(sentry::watch(Arc::clone(&inner)));
            tasks.spawn(founding::belong(Arc::clone(&inner)));
            tasks.spawn(joining::admit(Arc::clone(&inner), wanted));
            tasks.spawn(finishing::finish(Arc::clone(&inner)));
            tasks.spawn(spread::spread(Arc::clone(&inner)));
            tasks.spawn(upkeep::snapshots(Arc::clone(&inner)));
            tasks.spawn(upkeep::failures(Arc::clone(&inner), failed_log));
            tasks.spawn(upkeep::era(Arc::clone(&inner)));
        }
        Ok(Self { inner })
    }

    /// The identity of this router's disk.
    pub fn id(&self) -> RouterId {
        self.inner.own
    }

    /// The cluster's number; 0 while this router belongs to none.
    pub fn cluster(&self) -> u64 {
        self.inner.limits.cluster()
    }

    /// All shards, in order.
    pub fn groups(&self) -> &[Group] {
        &self.inner.groups
    }

    /// One shard.
    pub fn group(&self, shard: Shard) -> Option<&Group> {
        self.inner.groups.get(usize::from(shard.0))
    }

    /// Becomes `Some` when this router cannot take part any more.
    pub fn failed(&self) -> watch::Receiver<Option<Failure>> {
        self.inner.failed.subscribe()
    }

    /// All members of the cluster, as far as they are known here, and where they vote.
    pub fn members(&self) -> BTreeMap<RouterId, (Member, Votes)> {
        self.inner.members()
    }

    /// Whether every shard has a leader that a quorum has answered within the last second, as far as is known here, and this
    /// router's disk does not stand still: what a router's readiness tells.
    pub fn is_ready(&self) -> bool {
        let groups = &self.inner.groups;
        let led = !groups.is_empty() && groups.iter().all(|group| group.core().led_by().is_some());
        led && !self.stands_still()
    }

    /// For how long a group has waited for the disk here, of the one that has waited the longest.
    pub fn waits(&self) -> Duration {
        self.inner.stuck(self.inner.clock.monotonic())
    }

    /// Whether a snapshot is due that does not fit on the disk: until it does, the log grows.
    pub fn is_short_of_room(&self) -> bool {
        self.inner.short_of_room.load(Ordering::Acquire)
    }

    /// Whether that is so long that this router's votes do not count any more, whatever else it answers.
    pub fn stands_still(&self) -> bool {
        self.waits() >= sentry::STUCK
    }

    /// The time that a question to a router and back took lately.
    pub fn round_trip(&self, router: RouterId) -> Option<Duration> {
        self.inner.seen.lock().get(&router)?.rtt
    }

    /// Answers a call of another router that came over a link: what [`Peers::call`](crate::peers::Peers::call) sent. `from`
    /// is who its hello said, of the cluster that its certificate says, and `name` what that allows it to call itself.
    pub async fn answer(&self, from: RouterId, name: &str, group: u16, body: Bytes) -> Bytes {
        let answer = match Call::decode(body) {
            Ok((_, Call::Join { name: other, .. })) if other != name => {
                tracing::warn!(
                    event = "name_taken",
                    name,
                    other,
                    "a router wants to be taken in under the name of another"
                );
                Answer::Refused(Refusal::Name)
            }
            Ok((cluster, call)) => self.inner.answer(from, group, cluster, call).await,
            Err(error) => {
                tracing::warn!(event = "call_unreadable", %error, "a call of another router cannot be read");
                Answer::Refused(Refusal::Malformed)
            }
        };
        answer.encode()
    }

    /// How many edges are linked to a router, as it has said lately, and how many of those that are linked here are not.
    pub fn edges(&self, router: RouterId) -> Option<(usize, usize)> {
        self.inner.edges_of(router)
    }

    /// Moves a shard that this router leads to another voter.
    ///
    /// # Errors
    /// When that cannot be or has not worked. This router then goes on, with a new reign.
    pub async fn give(&self, shard: Shard, to: RouterId) -> Result<(), GiveError> {
        self.inner.give(shard, to).await
    }

    /// Leads nothing more: every shard that this router leads is moved to another one, within `grace`. Whether that was
    /// done; it is not tried where nobody else could lead. Before the process ends.
    pub async fn leave(&self, grace: Duration) -> bool {
        self.inner.leaving.store(true, Ordering::Release);
        tokio::time::timeout(grace, spread::leave(&self.inner)).await.unwrap_or(false)
    }

    /// Has a router removed from all shards, by whoever leads them. To be asked again until it is no member any more. The
    /// process of that router should have ended, or it ends then.
    ///
    /// # Errors
    /// When there would be no quorum without it, as far as is known here. Nobody was asked.
    pub async fn remove(&self, router: RouterId) -> Result<(), RemoveError> {
        joining::remove(&self.inner, router).await
    }

    /// Brings the number of voters of every shard to `voters`: takes routers in that are there and do not vote, lets living
    /// ones that are too many take part without a vote, and removes those that are gone. In steps, each of which keeps a
    /// quorum; at most for `within`.
    ///
    /// # Errors
    /// When a step would cost the quorum, or is not done in time. What was done stays; to be asked again.
    pub async fn reconcile(&self, voters: usize, within: Duration) -> Result<Reconciled, ReconcileError> {
        reconcile::reconcile(&self.inner, voters, within).await
    }

    /// Founds a cluster that comes after one of which only `above` is known: with `routers` routers, all of whose disks are
    /// empty, on a store that may know less. No rows come back: they are of sessions, and edges tell of those that live.
    ///
    /// # Errors
    /// When there may be a cluster that lives, or too few routers are linked.
    pub async fn restore(&self, above: Era, routers: usize) -> Result<(), RestoreError> {
        self.inner.restore(above, routers).await
    }

    /// What [`Locations::restore`] has to know of the cluster if it is lost: its era, and a position above all that it can have
    /// given so far, as far as it is known here. `None` while this router belongs to none.
    pub fn era(&self) -> Option<Era> {
        let limits = &self.inner.limits;
        // Another router's clock may be ahead of this one's.
        let granted = self.inner.groups.iter().map(|group| group.core().state.machine.lock().head().ceiling);
        let floor = granted.fold(limits.ceiling().max(limits.floor()), u64::max);
        (limits.cluster() != 0).then(|| Era { number: limits.era(), floor })
    }

    /// Whether this router is a member of any shard, as far as it knows.
    pub fn is_member(&self) -> bool {
        self.inner.members().contains_key(&self.inner.own)
    }

    /// For how long others have said that this router's place is another one's, whom they have heard a moment ago. `None` when
    /// they do not.
    pub fn kept_out(&self) -> Option<Duration> {
        self.inner.kept_out.lock().map(|(first, last)| last.saturating_sub(first))
    }

    /// Whether this router votes in every shard, or takes part without a vote because there are voters enough. It has not yet
    /// while the disk that it replaces has a vote.
    pub fn has_its_part(&self) -> bool {
        self.inner.groups.iter().all(|group| {
            let server = group.core().server.borrow();
            let membership = server.membership_config.membership();
            let (own, voters) = (self.inner.own.0, detector::voters(membership.get_joint_config()));
            // Before it has heard of any members nobody votes.
            let votes = !voters.is_empty()
                && membership.get_joint_config().iter().all(|voters| voters.contains(&own));
            let replaces = |id: &u64| {
                let other = membership.get_node(id).filter(|_| *id != own);
                other.is_some_and(|other| other.name == self.inner.options.member.name)
            };
            let enough = |node: &Member| node.spare || voters.len() >= MOST_VOTERS;
            votes || (!voters.iter().any(replaces) && membership.get_node(&own).is_some_and(enough))
        })
    }

    /// Stops at once.
    pub async fn stop(&self) {
        self.inner.tasks.lock().abort_all();
        for group in &self.inner.groups {
            group.core().reign.send_replace(None);
            group.core().lease.end();
            let _ = group.core().raft.shutdown().await;
        }
        // So that the log and the directories are free when this returns.
        let mut tasks = std::mem::take(&mut *self.inner.tasks.lock());
        while tasks.join_next().await.is_some() {}
    }
}

impl Inner {
    async fn answer(&self, from: RouterId, group: u16, cluster: u64, call: Call) -> Answer {
        self.hear(from);
        match call {
            Call::Ping(ping) => {
                let promised = self.promise(from, &ping);
                self.pinged(from, ping, None);
                return Answer::Pong(Ping { promised, ..self.ping() });
            }
            Call::Found { cluster, era, floor } => {
                return self.be_founded(from, cluster, Era { number: era, floor }).await;
            }
            _ => {}
        }
        if cluster == 0 || cluster != self.limits.cluster() {
            return Answer::Refused(Refusal::Stranger);
        }
        match call {
            Call::Join { name, address } => self.ask_admission(from, Member::new(name, address)),
            Call::Remove(router) => self.ask_removal(router),
            Call::Reconcile(wanted) if self.is_there(&wanted.gone) => Answer::Refused(Refusal::Linked),
            // Nobody is to vote: it is only asked.
            Call::Reconcile(wanted) if wanted.voters.is_empty() => Answer::Done,
            Call::Reconcile(wanted) => self.ask(joining::Admission::Reconcile(wanted)),
            Call::Elect { .. } if !self.may_campaign(from, group).await => Answer::Refused(Refusal::Busy),
            _ if group == NO_GROUP => Answer::Refused(Refusal::Malformed),
            call => match self.groups.get(usize::from(group)) {
                Some(group) => group.core().answer(from, call).await,
                None => Answer::Refused(Refusal::Malformed),
            },
        }
    }

    fn hear(&self, from: RouterId) {
        let now = self.clock.monotonic();
        self.seen.lock().entry(from).or_default().hear(now);
    }

    fn pinged(&self, from: RouterId, ping: Ping, rtt: Option<Duration>) {
        let ping = Ping { renews: Vec::new(), promised: Vec::new(), ..ping };
        let now = self.clock.monotonic();
        // What routers of another cluster lead is nothing to this one.
        let own = ping.cluster == self.limits.cluster();
        for group in self.groups.iter().filter(|group| own && has(&ping.leads, group.shard().0)) {
            group.core().confirm(from, now);
        }
        let mut seen = self.seen.lock();
        let one = seen.entry(from).or_default();
        one.hear(now);
        (one.pinged, one.ping) = (now, ping);
        one.rtt = rtt.or(one.rtt);
    }

    /// How it goes here.
    fn ping(&self) -> Ping {
        let now = self.clock.monotonic();
        let links = self.peers.links().borrow().clone();
        let hears = |group: &&Group| {
            let core = group.core();
            let leader = core.leader();
            core.leads_with_lease().is_some()
                || leader.is_some_and(|leader| links.contains_key(&leader))
                    && now < core.promised_to(leader) + GRANTED
        };
        let led = self.groups.iter().filter(|group| group.core().leads_with_lease().is_some());
        let leads: Vec<u16> = led
            .map(|group| {
                group.core().confirm(self.own, now);
                group.shard().0
            })
            .collect();
        Ping {
            cluster: self.limits.cluster(),
            era: self.limits.era(),
            floor: self.limits.floor(),
            fresh: self.is_fresh(),
            hears: bits(self.groups.iter().filter(hears).map(|group| group.shard().0)),
            reigns: u32::try_from(leads.len()).unwrap_or(u32::MAX),
            leads: bits(leads.into_iter()),
            leaving: self.leaving.load(Ordering::Acquire),
            stuck: self.stuck(now) >= sentry::STILL,
            edges: self.edges().map(Arc::new),
            ..Ping::default()
        }
    }

    /// Promises other leaders what they ask for, where that can be; in which groups.
    fn promise(&self, leader: RouterId, ping: &Ping) -> Vec<u8> {
        if ping.cluster == 0 || ping.cluster != self.limits.cluster() {
            return Vec::new();
        }
        let promised = ping.renews.iter().filter(|(group, term)| {
            self.groups.get(usize::from(*group)).is_some_and(|group| group.core().renew(leader, *term))
        });
        bits(promised.map(|(group, _)| *group))
    }

    /// No group has ever been told anything.
    fn is_fresh(&self) -> bool {
        self.groups.iter().all(|group| group.core().fresh.load(Ordering::Acquire))
    }
}

impl std::fmt::Debug for Locations {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Locations").field("id", &self.inner.own).finish_non_exhaustive()
    }
}

/// Unfounded or founded: what is on the disk.
fn write_cluster(inner: &Inner, cluster: &Cluster) -> io::Result<()> {
    inner.places.write_cluster(cluster)?;
    inner.limits.belong(cluster.id, cluster.era);
    Ok(())
}

#[cfg(test)]
mod tests;
