//! Homes without a runtime, on a store whose answers are given one by one, with a clock that stands still.

use crate::bench::{account, chat, jid, parts};
use crate::toil::{COMMIT, LOAD, ROW, Toil};
use futures::FutureExt;
use futures::channel::oneshot;
use futures::future::{BoxFuture, ready};
use parking_lot::Mutex;
use starling_node::{Clock, ManualClock};
use starling_router::{Homes, RouterConfig};
use starling_store::testing::FaultyStore;
use starling_store::{
    AccountRow, AccountState, Accounts, Batch, Claim, LogFilter, LogPage, LogRow, Page, Position, Reign,
    Result, Retention, SharedStore, Store, StoreError, Write,
};
use starling_wire::{ConnId, Down, EdgeLink, ToEdge, ToHome, Token, Up};
use starling_xmpp::{BareJid, Jid, Kind, PresenceType, Stanza, Timestamp};
use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::sync::Arc;
use std::task::Context;
use std::time::Duration;

/// When everything begins.
pub(crate) const START: u64 = 1_700_000_000_000_000;

/// Commits go through to the store behind it at once; whether they are answered is decided account by account.
#[derive(Clone)]
pub(crate) struct Gate {
    pub(crate) inner: FaultyStore,
    state: Arc<Mutex<State>>,
}

#[derive(Default)]
struct State {
    held: BTreeSet<BareJid>,
    all_held: bool,
    waiting: BTreeMap<BareJid, VecDeque<Answer>>,
    loads: Vec<(BareJid, oneshot::Sender<()>)>,
    loads_held: BTreeSet<BareJid>,
    /// What accounts were given so far.
    given: BTreeMap<BareJid, Position>,
    floors: Vec<(BareJid, Position)>,
    violations: Vec<String>,
    /// Every commit, and the one before it that had no answer.
    commits: Vec<(BareJid, Position, Option<Position>)>,
    most_rows: usize,
    /// The next load panics, and the next commit.
    panics: (bool, bool),
    grants: Option<StoreError>,
    grants_held: Option<Vec<oneshot::Sender<()>>>,
    released: Vec<u64>,
    toil: Option<Toil>,
    /// Pages of what waits that were longer than what a session is fed; so many of them at once.
    pages: usize,
    /// Pages that were read to recognise messages.
    pages_read: usize,
    abreast: usize,
    most_abreast: usize,
}

/// Rows that a session is fed at once.
const FED: usize = 50;

struct Answer {
    rows: usize,
    tell: oneshot::Sender<()>,
}

impl Gate {
    pub(crate) fn new() -> Self {
        Self { inner: FaultyStore::in_memory().apart(), state: Arc::default() }
    }

    /// Commits of this account are not answered from now on.
    pub(crate) fn hold(&self, account: &str) {
        self.state.lock().held.insert(jid(account));
    }

    /// No commit is answered from now on.
    pub(crate) fn hold_all(&self) {
        self.state.lock().all_held = true;
    }

    /// Loads of this account are not answered from now on.
    pub(crate) fn hold_loads(&self, account: &str) {
        self.state.lock().loads_held.insert(jid(account));
    }

    /// They are, and those that wait too.
    pub(crate) fn release_loads(&self, account: &str) {
        let mut state = self.state.lock();
        state.loads_held.remove(&jid(account));
        state.let_loads();
    }

    /// All commits of this account: their position, and the first before it that had no answer.
    pub(crate) fn commits(&self, account: &str) -> Vec<(Position, Option<Position>)> {
        let state = self.state.lock();
        let own = state.commits.iter().filter(|(owner, ..)| *owner == jid(account));
        own.map(|(_, at, open)| (*at, *open)).collect()
    }

    /// How many commits wait for their answer.
    pub(crate) fn all_waiting(&self) -> usize {
        self.state.lock().waiting.values().map(VecDeque::len).sum()
    }

    /// How many commits of this account wait for their answer.
    pub(crate) fn waiting(&self, account: &str) -> usize {
        self.state.lock().waiting.get(&jid(account)).map_or(0, VecDeque::len)
    }

    /// The `n`-th of those that wait is answered.
    pub(crate) fn answer(&self, account: &str, n: usize) {
        let mut state = self.state.lock();
        let waiting = state.waiting.get_mut(&jid(account)).expect("some wait");
        let _ = waiting.remove(n).expect("so many wait").tell.send(());
        state.let_loads();
    }

    /// All of this account are answered, now and from now on.
    pub(crate) fn release(&self, account: &str) {
        let mut state = self.state.lock();
        state.held.remove(&jid(account));
        state.all_held = false;
        for answer in state.waiting.remove(&jid(account)).unwrap_or_default() {
            let _ = answer.tell.send(());
        }
        state.let_loads();
    }

    /// The next load panics when its answer is looked at.
    pub(crate) fn panic_at_load(&self) {
        self.state.lock().panics.0 = true;
    }

    /// The next commit does.
    pub(crate) fn panic_at_commit(&self) {
        self.state.lock().panics.1 = true;
    }

    /// Grants fail with this, or go well again.
    pub(crate) fn refuse_grants(&self, error: Option<StoreError>) {
        self.state.lock().grants = error;
    }

    /// Grants are not answered from now on.
    pub(crate) fn hold_grants(&self) {
        self.state.lock().grants_held.get_or_insert_default();
    }

    /// They are, and those that wait too.
    pub(crate) fn release_grants(&self) {
        for answer in self.state.lock().grants_held.take().unwrap_or_default() {
            let _ = answer.send(());
        }
    }

    /// The most rows of one account that waited for an answer at once.
    pub(crate) fn most_rows(&self) -> usize {
        self.state.lock().most_rows
    }

    /// With which floors this account was loaded.
    pub(crate) fn floors(&self, account: &str) -> Vec<Position> {
        let state = self.state.lock();
        state.floors.iter().filter(|(of, _)| *of == jid(account)).map(|(_, floor)| *floor).collect()
    }

    /// From now on it does one thing after the other, and takes its time.
    pub(crate) fn toil(&self, clock: &ManualClock) {
        self.state.lock().toil = Some(Toil::new(clock));
    }

    /// How many pages were read to recognise messages.
    pub(crate) fn tails(&self) -> usize {
        self.state.lock().pages_read
    }

    /// How many pages were read to count what waits, and how many at once at most.
    pub(crate) fn counted(&self) -> (usize, usize) {
        let state = self.state.lock();
        (state.pages, state.most_abreast)
    }

    /// The answer, when all that was to be done before is done.
    fn after<T: Send + 'static>(
        &self,
        cost: Duration,
        answer: BoxFuture<'static, Result<T>>,
    ) -> BoxFuture<'static, Result<T>> {
        match &mut self.state.lock().toil {
            Some(toil) => toil.add(cost).then(|_| answer).boxed(),
            None => answer,
        }
    }

    /// Reigns that were ended in order.
    pub(crate) fn released(&self) -> Vec<u64> {
        self.state.lock().released.clone()
    }
}

impl State {
    fn let_loads(&mut self) {
        let (waiting, held) = (&self.waiting, &self.loads_held);
        self.loads.retain(|(account, _)| {
            held.contains(account) || waiting.get(account).is_some_and(|waiting| !waiting.is_empty())
        });
    }

    /// What [`Batch::at`] promises.
    fn check(&mut self, batch: &Batch) {
        let owners: BTreeSet<_> = batch.writes.iter().map(|write| write.owner().clone()).collect();
        if owners.len() != 1 {
            self.violations.push(format!("a batch of {} homes", owners.len()));
        }
        for owner in owners {
            let given = self.given.get(&owner).copied().unwrap_or_default();
            let rows = batch.writes.iter().filter_map(|write| match write {
                Write::Append(row) => Some(row.position),
                _ => None,
            });
            let rows: Vec<_> = rows.collect();
            if rows.iter().any(|row| *row <= given || *row > batch.at) || batch.at <= given {
                self.violations.push(format!("{:?} and {rows:?} after {given:?}", batch.at));
            }
            self.given.insert(owner, batch.at);
        }
    }
}

impl Store for Gate {
    fn commit(&self, batch: Batch) -> BoxFuture<'static, Result<()>> {
        let mut state = self.state.lock();
        state.check(&batch);
        let Some(owner) = batch.writes.first().map(|write| write.owner().clone()) else {
            return ready(Ok(())).boxed();
        };
        if std::mem::take(&mut state.panics.1) {
            return async { panic!("a mistake in a store") }.boxed();
        }
        let rows = batch.writes.iter().filter(|write| matches!(write, Write::Append(_))).count();
        state.commits.push((owner.clone(), batch.at, batch.open));
        let answer = self.inner.commit(batch);
        if !state.held.contains(&owner) && !state.all_held {
            drop(state);
            return self.after(COMMIT, answer);
        }
        let (tell, told) = oneshot::channel();
        let waiting = state.waiting.entry(owner).or_default();
        waiting.push_back(Answer { rows, tell });
        let rows = waiting.iter().map(|answer| answer.rows).sum();
        state.most_rows = state.most_rows.max(rows);
        told.then(|_| answer).boxed()
    }

    fn commits_together(&self) -> bool {
        self.inner.commits_together()
    }

    fn create_account(&self, jid: &BareJid, row: AccountRow, reign: Reign) -> BoxFuture<'static, Result<()>> {
        self.inner.create_account(jid, row, reign)
    }

    fn account(&self, jid: &BareJid) -> BoxFuture<'static, Result<Option<AccountRow>>> {
        self.inner.account(jid)
    }

    fn accounts(
        &self,
        domain: &str,
        after: Option<BareJid>,
        limit: usize,
    ) -> BoxFuture<'static, Result<Vec<BareJid>>> {
        self.inner.accounts(domain, after, limit)
    }

    fn load(&self, jid: &BareJid, reign: Reign) -> BoxFuture<'static, Result<Option<AccountState>>> {
        let mut state = self.state.lock();
        state.floors.push((jid.clone(), reign.floor));
        if state.given.get(jid).is_some_and(|given| *given >= reign.floor) {
            state.violations.push(format!("loaded with a floor of {:?}", reign.floor));
        }
        if std::mem::take(&mut state.panics.0) {
            return async { panic!("a mistake in a store") }.boxed();
        }
        let held = state.loads_held.contains(jid);
        if held || state.waiting.get(jid).is_some_and(|waiting| !waiting.is_empty()) {
            let (done, wait) = oneshot::channel();
            state.loads.push((jid.clone(), done));
            let (store, jid) = (self.inner.clone(), jid.clone());
            return wait.then(move |_| store.load(&jid, reign)).boxed();
        }
        drop(state);
        self.after(LOAD, self.inner.load(jid, reign))
    }

    fn log_page(
        &self,
        owner: &BareJid,
        filter: LogFilter,
        page: Page,
    ) -> BoxFuture<'static, Result<LogPage>> {
        let (Page::First(limit) | Page::Last(limit)) = page;
        let counts = filter.offline && limit > FED;
        let offline = filter.offline;
        let answer = self.inner.log_page(owner, filter, page);
        if !counts {
            self.state.lock().pages_read += usize::from(!offline);
            return self.after(ROW * u32::try_from(limit).unwrap(), answer);
        }
        let mut state = self.state.lock();
        state.pages += 1;
        state.abreast += 1;
        state.most_abreast = state.most_abreast.max(state.abreast);
        drop(state);
        let store = self.clone();
        let ended = move |page| {
            store.state.lock().abreast -= 1;
            page
        };
        self.after(ROW * u32::try_from(limit).unwrap(), answer).map(ended).boxed()
    }

    fn log_rows(&self, owner: &BareJid, positions: Vec<Position>) -> BoxFuture<'static, Result<Vec<LogRow>>> {
        self.inner.log_rows(owner, positions)
    }

    fn open_reign(&self, claim: Claim) -> BoxFuture<'static, Result<Reign>> {
        self.inner.open_reign(claim)
    }

    fn grant(&self, epoch: u64, ceiling: Position) -> BoxFuture<'static, Result<()>> {
        let mut state = self.state.lock();
        if let Some(held) = &mut state.grants_held {
            let (tell, told) = oneshot::channel();
            held.push(tell);
            let store = self.clone();
            return told.then(move |_| store.grant(epoch, ceiling)).boxed();
        }
        match state.grants.clone() {
            Some(error) => ready(Err(error)).boxed(),
            None => self.inner.grant(epoch, ceiling),
        }
    }

    fn release(&self, epoch: u64) -> BoxFuture<'static, Result<()>> {
        self.state.lock().released.push(epoch);
        Store::release(&self.inner, epoch)
    }

    fn leave(&self, epoch: u64, accounts: Accounts) {
        self.inner.leave(epoch, accounts);
    }

    fn is_shared(&self) -> bool {
        self.inner.is_shared()
    }

    fn secret(&self, name: &'static str) -> BoxFuture<'static, Result<[u8; 32]>> {
        self.inner.secret(name)
    }

    fn sweep(&self, now: Timestamp, retention: Retention) -> BoxFuture<'static, Result<u64>> {
        self.inner.sweep(now, retention)
    }
}

/// What connections were told.
#[derive(Default)]
struct Told(Mutex<BTreeMap<ConnId, VecDeque<Down>>>);

impl EdgeLink for Told {
    fn deliver(&self, batch: &mut Vec<ToEdge>) {
        let mut told = self.0.lock();
        for message in batch.drain(..) {
            told.entry(message.conn).or_default().push_back(message.down);
        }
    }
}

/// Homes of alice, bob and carol.
pub(crate) struct Stage {
    pub(crate) store: Gate,
    pub(crate) clock: ManualClock,
    pub(crate) homes: Homes,
    config: RouterConfig,
    told: Arc<Told>,
    conns: u64,
    read: u64,
}

/// A connection that has bound.
#[derive(Clone, Debug)]
pub(crate) struct Client {
    account: BareJid,
    full: Jid,
    pub(crate) conn: ConnId,
    pub(crate) sequence: u64,
}

impl Stage {
    pub(crate) fn new() -> Self {
        Self::of(["alice", "bob", "carol"].map(str::to_owned))
    }

    /// Homes of others.
    pub(crate) fn of(accounts: impl IntoIterator<Item = String>) -> Self {
        Self::under(RouterConfig::default(), accounts)
    }

    /// The same with other limits.
    pub(crate) fn under(config: RouterConfig, accounts: impl IntoIterator<Item = String>) -> Self {
        let (store, clock) = (Gate::new(), ManualClock::at_micros(START));
        let row = account();
        for name in accounts {
            now(store.create_account(&jid(&name), row.clone(), Reign::NONE)).unwrap();
        }
        let told = Arc::new(Told::default());
        let shared: SharedStore = Arc::new(store.clone());
        let parts = parts(shared, config.clone(), Arc::new(clock.clone()), told.clone());
        let homes = now(Homes::begin(parts)).unwrap();
        Self { store, clock, homes, config, told, conns: 0, read: 0 }
    }

    /// A crash, and another life on the same store.
    pub(crate) fn crash(&mut self) {
        let shared: SharedStore = Arc::new(self.store.clone());
        let clock = Arc::new(self.clock.clone());
        self.homes = now(Homes::begin(parts(shared, self.config.clone(), clock, self.told.clone()))).unwrap();
    }

    /// Goes on until there is nothing to do.
    pub(crate) fn run(&mut self) {
        let mut cx = Context::from_waker(futures::task::noop_waker_ref());
        for _ in 0..100_000 {
            if self.homes.turn(&mut cx).is_pending() {
                return;
            }
        }
        panic!("it goes on for ever");
    }

    /// Lets time pass.
    pub(crate) fn advance(&mut self, time: Duration) {
        let end = self.clock.monotonic() + time;
        loop {
            self.run();
            let at = self.clock.monotonic();
            if at >= end {
                return;
            }
            let next = [self.homes.deadline(), self.store.state.lock().toil.as_ref().and_then(Toil::next)]
                .into_iter()
                .flatten()
                .min();
            let next = next.unwrap_or(end).clamp(at, end);
            self.clock.advance((next - at).max(Duration::from_micros(1)));
            if let Some(toil) = &mut self.store.state.lock().toil {
                toil.finish();
            }
        }
    }

    /// Somebody who is available, on a phone.
    pub(crate) fn client(&mut self, account: &str) -> Client {
        self.device(account, "phone")
    }

    /// The same on another device.
    pub(crate) fn device(&mut self, account: &str, resource: &str) -> Client {
        let mut client = self.bound(account, resource);
        self.send(&mut client, Stanza::presence(PresenceType::Available));
        self.run();
        let downs = self.told(&client);
        assert!(matches!(downs.first(), Some(Down::Bound { .. })), "{downs:?}");
        client
    }

    /// Somebody who is connected, and not available.
    pub(crate) fn bound(&mut self, account: &str, resource: &str) -> Client {
        self.conns += 1;
        let full = Jid::parse(&format!("{account}@localhost/{resource}")).unwrap();
        let client = Client { account: jid(account), full, conn: ConnId::local(self.conns), sequence: 0 };
        let bind = Up::Bind { token: Token(u128::from(self.conns)), resource: Some(resource.into()) };
        self.say(&client, bind);
        self.run();
        client
    }

    pub(crate) fn say(&self, client: &Client, up: Up) {
        self.homes.send(ToHome { account: client.account.clone(), conn: client.conn, up });
    }

    /// Its session goes on over a new connection.
    pub(crate) fn resume(&mut self, client: &Client, handled: u32) -> Client {
        self.conns += 1;
        let token = Token(u128::from(client.conn.number));
        let client = Client { conn: ConnId::local(self.conns), ..client.clone() };
        self.say(&client, Up::Resume { token, handled });
        client
    }

    /// All that it was sent so far has been written to its socket.
    pub(crate) fn reads(&mut self, client: &Client) {
        self.read += 1_000;
        self.say(client, Up::Written { count: self.read });
        self.run();
    }

    /// It is there when the homes go on.
    pub(crate) fn send(&self, client: &mut Client, mut stanza: Stanza) {
        client.sequence += 1;
        stanza.from = Some(client.full.clone());
        let up = Up::Stanza { sequence: client.sequence, stanza, fault: None, trace: None, again: false };
        self.say(client, up);
    }

    /// Sends a message and lets the homes go on.
    pub(crate) fn chat(&mut self, client: &mut Client, to: &str, body: &str) {
        self.send(client, chat(&format!("{to}@localhost"), body));
        self.run();
    }

    /// What it was told since the last time.
    pub(crate) fn told(&self, client: &Client) -> Vec<Down> {
        self.told.0.lock().remove(&client.conn).unwrap_or_default().into()
    }

    /// The messages among that, as `body` or `!condition`.
    pub(crate) fn messages(&self, client: &Client) -> Vec<String> {
        self.told(client).iter().filter_map(message).collect()
    }

    /// How far its stanzas are handled, and what messages it got.
    pub(crate) fn handled(&self, client: &Client) -> (u64, Vec<String>) {
        let downs = self.told(client);
        let handled = downs.iter().filter_map(|down| match down {
            Down::Handled { sequence } => Some(*sequence),
            _ => None,
        });
        (handled.max().unwrap_or(0), downs.iter().filter_map(message).collect())
    }

    /// The bodies of all rows of an account.
    pub(crate) fn rows(&self, account: &str) -> Vec<String> {
        let page = self.store.log_page(&jid(account), LogFilter::default(), Page::First(100_000));
        let rows = now(page).unwrap().rows;
        rows.into_iter().map(|row| crate::bench::body(&Stanza::decode(row.stanza).unwrap())).collect()
    }
}

impl Drop for Stage {
    fn drop(&mut self) {
        let violations = &self.store.state.lock().violations;
        if !std::thread::panicking() {
            assert!(violations.is_empty(), "{violations:#?}");
        }
    }
}

fn message(down: &Down) -> Option<String> {
    let Down::Stanza { stanza, .. } = down else { return None };
    match stanza.kind {
        Kind::Message(starling_xmpp::MessageType::Error) => Some(condition(stanza)),
        Kind::Message(_) => Some(crate::bench::body(stanza)),
        _ => None,
    }
}

/// `!` and the condition and type of an error stanza.
pub(crate) fn condition(stanza: &Stanza) -> String {
    let text = stanza.to_element().to_string();
    let wait = if text.contains("wait") { "wait" } else { "?" };
    let condition = if text.contains("resource-constraint") { "resource-constraint" } else { &text };
    format!("!{condition} {wait}")
}

/// What is there at once.
pub(crate) fn now<T>(future: impl Future<Output = T>) -> T {
    future.now_or_never().expect("it need not be waited for")
}
