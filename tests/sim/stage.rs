//! What all of a run share: the world, the store's server, where clients find the server, and what is known of it all.

use crate::cluster::Break;
use crate::line::Line;
use crate::peek::Peek;
use crate::plan::Plan;
use crate::promises::Promises;
use crate::records::Records;
use crate::server::Server;
use parking_lot::{MappedMutexGuard, Mutex, MutexGuard};
use starling_store::SharedStore;
use starling_store_scylla::model::{Dice, Faults, Model, Process, Reach, World};
use starling_tests::history::{Event, Log, What, bare};
use starling_wire::{ConnId, EdgeId, Token};
use starling_xmpp::{BareJid, FullJid};
use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

/// How far a run has come.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Phase {
    /// Clients write, things break.
    Storm,
    /// Nothing breaks any more; clients bring what is open to its end.
    Calm,
    /// Clients have acknowledged all there is.
    Settled,
    /// Everybody leaves.
    Over,
}

pub(crate) struct Stage {
    pub(crate) world: World,
    pub(crate) model: Model,
    pub(crate) plan: Plan,
    /// Clients, and whoever directs the run.
    pub(crate) crowd: Process,
    /// What is recorded, and what homes tell.
    pub(crate) records: Records,
    numbers: AtomicU64,
    inner: Mutex<Inner>,
}

struct Inner {
    phase: Phase,
    serving: Option<Arc<Server>>,
    /// The edges of a cluster.
    hosts: Vec<Arc<dyn Host>>,
    logs: BTreeMap<String, Log>,
    left: u32,
    stirred: Duration,
    wrong: Vec<Wrong>,
    promises: Promises,
    /// Errors that were put on a line, whether or not they arrived.
    refused: Vec<Refusal>,
    /// Messages that `<resumed/>` covered: whose, which, and the session.
    resumed_over: BTreeSet<(String, String, u128)>,
    peeks: Vec<Peek>,
    healed: Option<Duration>,
    /// When the mayfly was last removed for sure; asked for then.
    removed: Option<Duration>,
    /// Since when commits may have failed.
    rough: Option<Duration>,
    /// Sockets that have a session: whose, and which.
    sockets: BTreeMap<ConnId, (String, Token)>,
    /// Where sessions are, as the locations have it at the end, and sockets as they were then.
    located: Option<Located>,
    /// Who was told last that its session goes on.
    resumed: Option<BareJid>,
    /// It was tried to remove the mayfly.
    remade: bool,
    faults: Faults,
    /// How late a write may be, of all that have been made.
    latest: Duration,
    story: Vec<(Duration, String)>,
    hash: u64,
    dice: Dice,
}

/// With what a session may have been lost, named by a number, and since when it was there.
pub(crate) type Life = (u64, Duration);

/// Where clients find a way in.
pub(crate) trait Host: Send + Sync {
    /// What a session is lost with, named by a number.
    fn life(&self) -> u64;

    /// Whether somebody has a session in any case that was lost with that.
    fn keeps(&self, life: Life, account: &BareJid) -> bool;

    /// A new connection of an account.
    fn line(&self, stage: &Stage, account: &BareJid) -> Line;

    /// The store, for who reads it without a home.
    fn store(&self) -> Option<SharedStore>;
}

/// Where sessions are: whose, which, and at which edge.
#[derive(Debug, Clone)]
pub(crate) struct Located {
    /// As the locations have it.
    pub(crate) rows: Vec<(String, Token, EdgeId)>,
    /// As edges have it.
    pub(crate) sockets: Vec<(String, Token, EdgeId)>,
    /// How many sessions edges keep, with sockets or without.
    pub(crate) kept: usize,
}

/// An error that was put on a line, or that a client gave up reading.
struct Refusal {
    at: Duration,
    client: String,
    token: Token,
    origin: String,
    condition: String,
}

/// Something that should not be.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Wrong {
    /// Which invariant says so.
    pub(crate) invariant: &'static str,
    /// The `origin-id` of the message concerned.
    pub(crate) message: Option<String>,
    pub(crate) text: String,
}

impl Stage {
    pub(crate) fn new(plan: Plan, world: World, model: Model) -> Arc<Self> {
        let inner = Inner {
            phase: Phase::Storm,
            serving: None,
            hosts: Vec::new(),
            logs: BTreeMap::new(),
            left: plan.messages,
            stirred: Duration::ZERO,
            wrong: Vec::new(),
            promises: Promises::default(),
            refused: Vec::new(),
            resumed_over: BTreeSet::new(),
            peeks: Vec::new(),
            healed: None,
            removed: None,
            rough: None,
            sockets: BTreeMap::new(),
            located: None,
            resumed: None,
            remade: false,
            faults: Faults::NONE,
            latest: Duration::ZERO,
            story: Vec::new(),
            hash: 0xcbf2_9ce4_8422_2325,
            dice: world.dice(),
        };
        let crowd = world.process();
        let records = Records::new(&world);
        Arc::new(Self {
            world,
            model,
            plan,
            crowd,
            records,
            numbers: AtomicU64::new(0),
            inner: Mutex::new(inner),
        })
    }

    /// What is planted in a cluster.
    pub(crate) fn breaks(&self) -> Option<Break> {
        self.plan.breaks
    }

    pub(crate) fn number(&self) -> u64 {
        self.numbers.fetch_add(1, Ordering::Relaxed)
    }

    pub(crate) fn dice(&self) -> Dice {
        self.inner.lock().dice.split()
    }

    pub(crate) fn phase(&self) -> Phase {
        self.inner.lock().phase
    }

    pub(crate) fn enter(&self, phase: Phase) {
        self.tell("run", format!("{phase:?}"));
        self.inner.lock().phase = phase;
    }

    /// The server that clients find now.
    pub(crate) fn serving(&self) -> Option<Arc<Server>> {
        self.inner.lock().serving.clone()
    }

    pub(crate) fn serve(&self, server: Option<Arc<Server>>) {
        let before = std::mem::replace(&mut self.inner.lock().serving, server);
        drop(before);
    }

    /// Where the next connection goes.
    pub(crate) fn host(&self) -> Option<Arc<dyn Host>> {
        let mut inner = self.inner.lock();
        if inner.hosts.is_empty() {
            return inner.serving.clone().map(|server| server as Arc<dyn Host>);
        }
        let place = inner.hosts.len();
        let place = inner.dice.place(place);
        inner.hosts.get(place).cloned()
    }

    /// These are the edges there are.
    pub(crate) fn set_hosts(&self, hosts: Vec<Arc<dyn Host>>) {
        let before = std::mem::replace(&mut self.inner.lock().hosts, hosts);
        drop(before);
    }

    /// Lets a client write one of the messages that are left.
    pub(crate) fn take_turn(&self) -> bool {
        let mut inner = self.inner.lock();
        let some = inner.left > 0;
        inner.left = inner.left.saturating_sub(1);
        some
    }

    /// Writes down what a client did or saw.
    pub(crate) fn note(&self, client: &str, what: What) {
        self.tell(client, format!("{what:?}"));
        let mut inner = self.inner.lock();
        inner.stirred = self.world.now();
        let now = self.world.now();
        let log = inner.logs.entry(client.to_owned()).or_insert_with(|| Log::new(client));
        log.note(now, what);
    }

    /// When a client last did or saw anything.
    pub(crate) fn stirred(&self) -> Duration {
        self.inner.lock().stirred
    }

    /// One more line of the story.
    pub(crate) fn tell(&self, who: &str, text: String) {
        let now = self.world.now();
        let mut inner = self.inner.lock();
        let mut hash = inner.hash;
        let mut mix = |bytes: &[u8]| {
            for byte in bytes {
                hash = (hash ^ u64::from(*byte)).wrapping_mul(0x0100_0000_01b3);
            }
        };
        mix(&now.as_nanos().to_le_bytes());
        mix(who.as_bytes());
        mix(text.as_bytes());
        inner.hash = hash;
        if self.plan.told {
            inner.story.push((now, format!("{who}: {text}")));
        }
    }

    /// A line for whoever reads the whole story of a run.
    pub(crate) fn whisper(&self, text: impl FnOnce() -> String) {
        if self.plan.told {
            let now = self.world.now();
            self.inner.lock().story.push((now, format!("  {}", text())));
        }
    }

    pub(crate) fn wrong(&self, invariant: &'static str, message: Option<&str>, text: impl Into<String>) {
        let text = text.into();
        self.tell("wrong", format!("{invariant}: {text}"));
        let message = message.map(str::to_owned);
        self.inner.lock().wrong.push(Wrong { invariant, message, text });
    }

    /// What clients were promised.
    pub(crate) fn promises(&self) -> MappedMutexGuard<'_, Promises> {
        MutexGuard::map(self.inner.lock(), |inner| &mut inner.promises)
    }

    pub(crate) fn peeked(&self, peek: Peek) {
        self.inner.lock().peeks.push(peek);
    }

    pub(crate) fn peeks(&self) -> Vec<Peek> {
        self.inner.lock().peeks.clone()
    }

    /// The mayfly was removed for sure, asked for then.
    pub(crate) fn removed(&self, asked: Duration) {
        self.inner.lock().removed = Some(asked);
    }

    /// When that was, the last time.
    pub(crate) fn removed_at(&self) -> Option<Duration> {
        self.inner.lock().removed
    }

    /// When the store was back for good and a server served.
    pub(crate) fn healed(&self) -> Option<Duration> {
        self.inner.lock().healed
    }

    pub(crate) fn heal(&self) {
        self.inner.lock().healed = Some(self.world.now());
    }

    /// Whether nothing has happened so far that may make a commit fail, so that the server has no excuse.
    pub(crate) fn is_smooth(&self) -> bool {
        self.inner.lock().rough.is_none()
    }

    /// A connection has a session from now on, or none any more.
    pub(crate) fn socket(&self, conn: ConnId, session: Option<(String, Token)>) {
        let sockets = &mut self.inner.lock().sockets;
        match session {
            Some(session) => drop(sockets.insert(conn, session)),
            None => drop(sockets.remove(&conn)),
        }
    }

    /// Somebody is told that its session goes on.
    pub(crate) fn goes_on(&self, account: &BareJid) {
        self.inner.lock().resumed = Some(account.clone());
    }

    /// Who was told so since this was asked last.
    pub(crate) fn resumed(&self) -> Option<BareJid> {
        self.inner.lock().resumed.take()
    }

    /// All sockets of an edge are gone.
    pub(crate) fn no_sockets(&self, edge: EdgeId) {
        self.inner.lock().sockets.retain(|conn, _| conn.edge != edge);
    }

    /// Whether an edge has a socket with a session of such an account.
    pub(crate) fn has_socket(&self, edge: EdgeId, of: impl Fn(&BareJid) -> bool) -> bool {
        let inner = self.inner.lock();
        let mut here = inner.sockets.iter().filter(|(conn, _)| conn.edge == edge);
        here.any(|(_, (jid, _))| BareJid::parse(bare(jid)).is_ok_and(|account| of(&account)))
    }

    /// Where sessions are, now that nothing changes any more.
    pub(crate) fn locate(&self, rows: Vec<(FullJid, Token, EdgeId)>, kept: usize) {
        let mut inner = self.inner.lock();
        let sockets =
            inner.sockets.iter().map(|(conn, (jid, token))| (jid.clone(), *token, conn.edge)).collect();
        let rows =
            rows.into_iter().map(|(jid, token, edge)| (jid.as_str().to_owned(), token, edge)).collect();
        inner.located = Some(Located { rows, sockets, kept });
    }

    /// The same, at the end.
    pub(crate) fn located(&self) -> Option<Located> {
        self.inner.lock().located.clone()
    }

    /// From now on the server has an excuse.
    pub(crate) fn roughen(&self) {
        let now = self.world.now();
        self.inner.lock().rough.get_or_insert(now);
    }

    /// The mayfly is about to be removed.
    pub(crate) fn remake(&self) {
        self.inner.lock().remade = true;
    }

    /// Whether anybody tried to.
    pub(crate) fn is_remade(&self) -> bool {
        self.inner.lock().remade
    }

    /// What goes wrong now.
    pub(crate) fn faults(&self) -> Faults {
        self.inner.lock().faults
    }

    /// After how long everything has arrived that will.
    pub(crate) fn latest(&self) -> Duration {
        self.inner.lock().latest
    }

    pub(crate) fn set_faults(&self, faults: Faults) {
        self.tell("store", format!("{faults:?}"));
        if faults.may_fail() {
            self.roughen();
        }
        let mut inner = self.inner.lock();
        inner.faults = faults;
        inner.latest = inner.latest.max(faults.latest());
        drop(inner);
        self.model.set_faults(faults);
    }

    pub(crate) fn set_reach(&self, reach: Reach) {
        self.tell("store", format!("{reach:?}"));
        if reach != Reach::Up {
            self.roughen();
        }
        self.model.set_reach(reach);
    }

    pub(crate) fn set_replica(&self, replica: usize, up: bool) {
        self.tell("store", format!("replica {replica} is {}", if up { "up" } else { "down" }));
        if !up {
            self.roughen();
        }
        self.model.set_replica(replica, up);
    }

    /// An error goes to a client, in this session.
    pub(crate) fn refuse(&self, client: &str, token: Token, origin: &str, condition: String) {
        let (client, origin) = (client.to_owned(), origin.to_owned());
        let at = self.world.now();
        self.inner.lock().refused.push(Refusal { at, client, token, origin, condition });
    }

    /// The session has been resumed, and the count that came with it covers this message.
    pub(crate) fn resumed_over(&self, client: &str, token: Token, origin: &str) {
        self.inner.lock().resumed_over.insert((client.to_owned(), origin.to_owned(), token.0));
    }

    /// A client gives its session up, or finds it lost: an error that was on its way to it, wherever that had come, it does not read
    /// any more.
    pub(crate) fn forgets(&self, client: &str, token: Token) {
        let mut inner = self.inner.lock();
        let inner = &mut *inner;
        let counted =
            inner.resumed_over.iter().filter(|(of, _, session)| of == client && *session == token.0);
        let unread = counted
            .filter_map(|(client, origin, _)| Some((client, origin, self.records.refused_at(origin)?)));
        inner.refused.extend(unread.map(|(client, origin, at)| Refusal {
            at,
            client: client.clone(),
            token,
            origin: origin.clone(),
            condition: "resource-constraint".to_owned(),
        }));
    }

    /// What clients have seen so far; and what they could not see: an error is counted as handled, and where its connection
    /// goes before it comes, `<resumed/>` covers the message before the error is sent again (XEP-0198 section 5: what the
    /// server has handled, it has handled). If the session is then lost, too, nobody tells the client. So it is as if it had
    /// been told right behind that count, but only where the error was for this very session. What it was told before it said the
    /// message again is of no account.
    pub(crate) fn logs(&self) -> Vec<Log> {
        let inner = self.inner.lock();
        let mut logs = inner.logs.clone();
        for Refusal { at, client, token, origin, condition } in &inner.refused {
            let Some(log) = logs.get_mut(client) else { continue };
            let events = &mut log.events;
            let told =
                |event: &Event| matches!(&event.what, What::Refused { origin: of, .. } if of == origin);
            let again = |event: &Event| matches!(&event.what, What::SentAgain(of) if of == origin);
            let said = events.iter().rposition(again).unwrap_or(0);
            if events[said].at > *at || events[said..].iter().any(told) {
                continue;
            }
            if !inner.resumed_over.contains(&(client.clone(), origin.clone(), token.0)) {
                continue;
            }
            let Some(place) = behind_its_count(events, said, origin) else { continue };
            let what = What::Refused { origin: origin.clone(), condition: condition.clone() };
            let at = events[place.min(events.len() - 1)].at;
            events.insert(place, Event { at, what });
        }
        logs.into_values().collect()
    }

    /// All that is known at the end.
    pub(crate) fn take(&self) -> (Vec<Wrong>, Vec<(Duration, String)>, u64) {
        let mut inner = self.inner.lock();
        (std::mem::take(&mut inner.wrong), std::mem::take(&mut inner.story), inner.hash)
    }
}

/// Where the acknowledgement of this message is over that came with a resumption after it was said.
fn behind_its_count(events: &[Event], said: usize, origin: &str) -> Option<usize> {
    let counted = |event: &Event| matches!(&event.what, What::Acknowledged(of) if of == origin);
    let place = said + events[said..].iter().rposition(counted)?;
    let before = events[..place].iter().rev().find(|event| !matches!(event.what, What::Acknowledged(_)))?;
    if !matches!(before.what, What::Resumed) {
        return None;
    }
    let other = |event: &Event| !matches!(event.what, What::Acknowledged(_) | What::Refused { .. });
    Some(events[place..].iter().position(other).map_or(events.len(), |more| place + more))
}
