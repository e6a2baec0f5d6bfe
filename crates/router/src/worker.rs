//! A worker: the loop in which homes live. Take, decide, commit, act.

mod deadlines;
mod loading;

use crate::act::{self, Act, What};
use crate::decide;
use crate::delivery::{self, Out};
use crate::home::{Home, Turn};
use crate::msg::{Admin, Msg};
use crate::recognise::{Ended, GRACE, Recent};
use crate::route::{receipt, route};
use crate::session;
use crate::shared::Shared;
use crate::tail;
use crate::timers::{Timers, Why};
use futures::StreamExt;
use futures::future::BoxFuture;
use futures::stream::FuturesOrdered;
use starling_node::telemetry::metrics::{Outcome, StoreTable};
use starling_store::{Batch, Position, SharedStore, StoreError, Write};
use starling_wire::channel::Inbox;
use starling_wire::up::SessionInfo;
use starling_wire::{ConnId, Down, Leave, ToEdge, ToHome, Trace, Up};
use starling_xmpp::{BareJid, StreamCondition, StreamError};
use std::collections::{HashMap, VecDeque};
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Arc;
use std::time::Duration;

/// Turns that may be on their way to the disk at once; more would only make the batches smaller.
const MAX_PENDING: usize = 8;
/// Messages decided in one turn at most, so that a long queue does not delay its own first commit.
const MAX_TURN: usize = 1_024;
/// Room for messages that is kept while there are none.
const KEPT: usize = 8 * MAX_TURN;
/// A cursor is written at most this long after it moved.
const CURSOR_DELAY: Duration = Duration::from_secs(2);
/// A home without sessions stays in memory this long.
const EVICT_AFTER: Duration = Duration::from_secs(60);
/// How long to wait before what a failed commit has left is read again, when reading fails too.
const RELOAD_AFTER: Duration = Duration::from_secs(1);

/// What a worker has of an account.
enum Slot {
    /// Being loaded; these wait.
    Loading(Vec<Msg>),
    /// Here.
    Ready(Box<Home>),
}

/// The acts of a turn, and what became of its commit, if it had anything to write.
type Done = (Vec<Act>, Option<Result<(), StoreError>>);

/// One worker.
pub(crate) struct Worker {
    shared: Arc<Shared>,
    inbox: Arc<Inbox<Msg>>,
    homes: HashMap<BareJid, Slot>,
    timers: Timers,
    pending: FuturesOrdered<BoxFuture<'static, Done>>,
    downs: Vec<ToEdge>,
    touched: Vec<BareJid>,
    backlog: VecDeque<Msg>,
    flushes: Vec<tokio::sync::oneshot::Sender<()>>,
    ended: Ended,
    /// Commits that are done, well or not.
    committed: u64,
}

impl Worker {
    pub(crate) fn new(shared: Arc<Shared>, index: usize) -> Self {
        let inbox = Arc::clone(&shared.inboxes[index]);
        Self {
            shared,
            inbox,
            homes: HashMap::new(),
            timers: Timers::default(),
            pending: FuturesOrdered::new(),
            downs: Vec::new(),
            touched: Vec::new(),
            backlog: VecDeque::new(),
            flushes: Vec::new(),
            ended: Ended::default(),
            committed: 0,
        }
    }

    /// Runs until its task is dropped.
    pub(crate) async fn run(mut self) {
        let mut turn = Turn::new(Arc::clone(&self.shared), 0);
        let mut batch = Vec::new();
        loop {
            if self.backlog.is_empty() {
                let deadline = self.timers.next();
                let open = self.pending.len() < MAX_PENDING;
                tokio::select! {
                    biased;
                    Some(done) = self.pending.next(), if !self.pending.is_empty() => self.carry_out(done, &mut turn),
                    () = self.inbox.take(&mut batch), if open => self.backlog.extend(batch.drain(..)),
                    () = until(&self.shared, deadline), if deadline.is_some() => {}
                }
            } else if self.pending.len() >= MAX_PENDING
                && let Some(done) = self.pending.next().await
            {
                self.carry_out(done, &mut turn);
            }
            turn.begin();
            self.expire(&mut turn);
            for _ in 0..MAX_TURN {
                let Some(msg) = self.backlog.pop_front() else { break };
                let account = msg.account().cloned();
                let decided = catch_unwind(AssertUnwindSafe(|| self.decide(&mut turn, msg)));
                if let (Err(_), Some(account)) = (decided, account) {
                    self.forsake(&account);
                }
            }
            // Acts may call for more acts (a session that ends): these belong to the same turn.
            loop {
                self.commit(&mut turn);
                if turn.writes.is_empty() && turn.acts.is_empty() {
                    break;
                }
            }
            self.finish();
            if self.backlog.is_empty() && self.backlog.capacity() > KEPT {
                // A burst is over.
                self.backlog = VecDeque::new();
                batch = Vec::new();
            }
        }
    }

    /// Decides on one message.
    fn decide(&mut self, turn: &mut Turn, msg: Msg) {
        let Some(account) = msg.account().cloned() else { return self.own(turn, msg) };
        if let Msg::Loaded { state, .. } = msg {
            return self.loaded(turn, account, state);
        }
        match self.homes.get_mut(&account) {
            Some(Slot::Loading(waiting)) => waiting.push(msg),
            Some(Slot::Ready(_)) => self.ready(turn, &account, msg),
            // No session and no question is left without a home: what is said of one is late.
            None if msg.is_about_the_past() => {}
            None => {
                self.load(account.clone());
                self.homes.insert(account, Slot::Loading(vec![msg]));
            }
        }
    }

    /// For a home that is here.
    fn ready(&mut self, turn: &mut Turn, account: &BareJid, msg: Msg) {
        let Some(Slot::Ready(home)) = self.homes.get_mut(account) else { return };
        home.used = turn.monotonic;
        if let Some(paused) = &mut home.paused
            && matches!(msg, Msg::Edge(_) | Msg::Forward(_) | Msg::Admin(_))
        {
            paused.push_back(msg);
            return;
        }
        if tail::is_needed(turn, home, &msg) {
            home.paused = Some(VecDeque::from([msg]));
            turn.act(home, What::ReadTail);
            return;
        }
        let mut out = Out { shared: &self.shared, downs: &mut self.downs };
        match msg {
            Msg::Edge(message) => from_edge(turn, &mut out, home, message, &mut self.timers),
            Msg::Forward(forward) => decide::received(turn, home, *forward),
            Msg::Receipt { token, sequence, .. } => {
                if let Some(at) = home.find(token) {
                    home.links[at].settle(sequence);
                    home.touched = true;
                }
            }
            Msg::Rows { token, rows: Err(StoreError::Unavailable(_) | StoreError::Overloaded), .. } => {
                // All devices of a site that come at once may be too much for it: no reason to send them away.
                self.timers.set(turn.monotonic + RELOAD_AFTER, account.clone(), Why::Feed(token));
            }
            Msg::Rows { token, rows, .. } => delivery::fed(&mut out, home, token, rows),
            Msg::Waiting { waiting, .. } => home.waiting = Some(waiting),
            Msg::Answered { ask, later, .. } => decide::iq::answered(turn, home, ask, later),
            Msg::Tail { tail, .. } => {
                let mut recent = match tail {
                    Ok(tail) => Recent::of(&home.account.jid, tail),
                    Err(error @ (StoreError::Unavailable(_) | StoreError::Overloaded)) => {
                        // What was sent before may not get a second row: it waits, as it would for a commit.
                        tracing::warn!(event = "tail_failed", %error, "resent messages cannot be recognised yet");
                        self.timers.set(turn.monotonic + RELOAD_AFTER, account.clone(), Why::Tail);
                        return;
                    }
                    Err(error) => {
                        // It would be the same the next time.
                        tracing::error!(event = "tail_failed", %error, "resent messages cannot be recognised");
                        Recent::empty(turn.now)
                    }
                };
                if let Some((sender, end)) = home.reading.take() {
                    recent.knows(home.recent.take(), sender, end);
                }
                home.recent = Some(recent);
                if !home.leaving {
                    self.go_on(turn, account);
                }
            }
            Msg::Broken { token, .. } => session::end(turn, home, token, Some(delivery::too_much())),
            Msg::Admin(Admin::Passwd(jid, credentials, answer)) => {
                turn.write(home, Write::Credentials(jid, credentials));
                turn.act(home, What::Report(answer));
            }
            Msg::Admin(Admin::Delete(_, answer)) => turn.delete(home, Some(answer)),
            Msg::Admin(Admin::Sessions(_)) | Msg::Loaded { .. } | Msg::Flush(_) => {}
        }
        self.touch(account);
    }

    /// What a home had to wait with, in the order in which it came; one of these may pause the home again.
    fn go_on(&mut self, turn: &mut Turn, account: &BareJid) {
        let Some(Slot::Ready(home)) = self.homes.get_mut(account) else { return };
        for msg in home.paused.take().unwrap_or_default() {
            self.ready(turn, account, msg);
        }
    }

    /// For the worker itself.
    fn own(&mut self, turn: &mut Turn, msg: Msg) {
        match msg {
            Msg::Admin(Admin::Sessions(answer)) => drop(answer.send(self.sessions())),
            Msg::Flush(done) => {
                for slot in self.homes.values_mut() {
                    if let Slot::Ready(home) = slot
                        && !home.leaving
                        && let Some(cursor) = home.deliveries.take_dirty()
                    {
                        turn.write(home, Write::Cursor(home.account.jid.clone(), cursor));
                    }
                }
                self.flushes.push(done);
            }
            _ => {}
        }
    }

    fn sessions(&self) -> Vec<SessionInfo> {
        let homes = self.homes.values().filter_map(|slot| match slot {
            Slot::Ready(home) => Some(home),
            Slot::Loading(_) => None,
        });
        homes
            .flat_map(|home| {
                home.account.sessions.iter().zip(&home.links).map(|(session, link)| SessionInfo {
                    jid: session.jid.clone(),
                    available: session.is_available(),
                    priority: session.priority,
                    detached: link.conn.is_none(),
                    stream_management: link.management.is_some(),
                    since: link.since.0,
                })
            })
            .collect()
    }

    fn touch(&mut self, account: &BareJid) {
        if let Some(Slot::Ready(home)) = self.homes.get_mut(account)
            && home.has_news()
        {
            self.touched.push(account.clone());
        }
    }

    /// Commits what the turn wants written; its acts follow when that is durable.
    fn commit(&mut self, turn: &mut Turn) {
        let flushes = std::mem::take(&mut self.flushes);
        if turn.writes.is_empty() && self.pending.is_empty() {
            let acts = std::mem::take(&mut turn.acts);
            self.carry_out((acts, None), turn);
            for done in flushes {
                let _ = done.send(());
            }
            return;
        }
        if turn.writes.is_empty() && turn.acts.is_empty() && flushes.is_empty() {
            return;
        }
        let acts = std::mem::take(&mut turn.acts);
        if turn.writes.is_empty() {
            self.pending.push_back(Box::pin(async move {
                for done in flushes {
                    let _ = done.send(());
                }
                (acts, None)
            }));
            return;
        }
        let writes = std::mem::take(&mut turn.writes);
        turn.commit += 1;
        let traces = acts.iter().filter_map(|act| act.what.trace()).collect();
        let commit = commit(&self.shared.store, writes, traces);
        let (shared, began) = (Arc::clone(&self.shared), self.shared.clock.monotonic());
        self.pending.push_back(Box::pin(async move {
            let result = commit.await;
            let outcome = if result.is_ok() { Outcome::Ok } else { Outcome::Error };
            let took = shared.clock.monotonic().saturating_sub(began);
            shared.metrics.store_write.at(StoreTable::Log, outcome).observe(took.as_secs_f64());
            for done in flushes {
                let _ = done.send(());
            }
            (acts, Some(result))
        }));
    }

    /// Carries a turn's acts out, in order.
    fn carry_out(&mut self, (acts, result): Done, turn: &mut Turn) {
        self.committed += u64::from(result.is_some());
        let result = result.unwrap_or(Ok(()));
        if let Err(error) = &result {
            tracing::error!(event = "commit_failed", %error, "writes of a turn were not confirmed");
            self.doubt(&acts);
        }
        for act in acts {
            let account = act.home.clone();
            let done = catch_unwind(AssertUnwindSafe(|| self.act(turn, act, &result)));
            if done.is_err() {
                self.forsake(&account);
            }
        }
    }

    /// Carries one act out.
    fn act(&mut self, turn: &mut Turn, act: Act, result: &Result<(), StoreError>) {
        let Some(Slot::Ready(home)) = self.homes.get_mut(&act.home) else {
            // Its home was forsaken. What is committed waits in the log; its sender is not kept waiting.
            if let What::Arrive(arriving) = act.what {
                receipt(&self.shared, arriving.ticket.as_ref());
            }
            return;
        };
        home.acts = home.acts.saturating_sub(1);
        let mut out = Out { shared: &self.shared, downs: &mut self.downs };
        match act.what {
            What::ReadTail => tail::read(&self.shared, home),
            What::CountWaiting => tail::count_waiting(&self.shared, home),
            What::Deleted(report) => {
                let deleted = act::deleted(&mut out, home, result);
                if let Some(report) = report {
                    let _ = report.send(result.clone().map(|()| true));
                }
                if deleted {
                    let waiting = home.paused.take().unwrap_or_default();
                    self.homes.remove(&act.home);
                    // Their senders wait for an answer or a receipt.
                    for msg in waiting {
                        self.absent(msg);
                    }
                    return;
                }
                home.leaving = false;
                self.go_on(turn, &act.home);
            }
            what => {
                act::carry_out(turn, &mut out, home, what, result);
                if home.has_news() {
                    self.touched.push(act.home);
                }
                return;
            }
        }
        self.touch(&act.home);
    }

    /// Whether a failed commit was written is not known: what these homes believe is read again.
    fn doubt(&mut self, acts: &[Act]) {
        let mut accounts: Vec<_> = acts.iter().map(|act| act.home.clone()).collect();
        accounts.sort_unstable();
        accounts.dedup();
        for account in accounts {
            if let Some(Slot::Ready(home)) = self.homes.get_mut(&account) {
                home.read_after = self.committed;
                self.load(account);
            }
        }
    }

    /// A decision on this account, or an act of it, has panicked: what its home holds in memory cannot be trusted any more. Its
    /// sessions end, and it is read again from the store when it is next spoken to. Nobody else notices.
    fn forsake(&mut self, account: &BareJid) {
        tracing::error!(event = "home_panicked", "a home has panicked and is given up; its sessions end");
        let Some(Slot::Ready(home)) = self.homes.remove(account) else { return };
        self.shared.positions.forget(home.top);
        for conn in home.links.iter().filter_map(|link| link.conn) {
            let error = StreamError::new(StreamCondition::InternalServerError);
            self.downs.push(ToEdge { conn, down: Down::Close(Some(Box::new(error))) });
        }
    }

    /// Ends a turn: tells edges what has become of their sessions, and lets the messages go.
    fn finish(&mut self) {
        let now = self.shared.clock.monotonic();
        for account in std::mem::take(&mut self.touched) {
            let Some(Slot::Ready(home)) = self.homes.get_mut(&account) else { continue };
            home.listed = false;
            if home.deliveries.is_dirty() && !home.cursor_timer {
                home.cursor_timer = true;
                self.timers.set(now + CURSOR_DELAY, account.clone(), Why::Cursor);
            }
            if !std::mem::take(&mut home.touched) {
                continue;
            }
            for at in 0..home.links.len() {
                let mut out = Out { shared: &self.shared, downs: &mut self.downs };
                session::finish_resume(&mut out, home, at);
                report(&mut out, home, at, now, &mut self.timers);
            }
        }
        if !self.downs.is_empty() {
            self.shared.edge.deliver(&mut self.downs);
            self.downs.clear();
        }
    }
}

/// Has these writes written; not, when one of them could be given no position.
fn commit(
    store: &SharedStore,
    writes: Vec<(Option<Position>, Write)>,
    traces: Vec<Trace>,
) -> BoxFuture<'static, Result<(), StoreError>> {
    let refused = writes.iter().any(|(at, _)| at.is_none());
    let Some(at) = writes.iter().filter_map(|(at, _)| *at).max().filter(|_| !refused) else {
        return Box::pin(std::future::ready(Err(StoreError::Unavailable(
            "no position is granted".to_owned(),
        ))));
    };
    store.commit(Batch { at, writes: writes.into_iter().map(|(_, write)| write).collect(), traces })
}

/// Tells the edge how far a session's stanzas are handled, and asks for an acknowledgement when one is due.
fn report(out: &mut Out<'_>, home: &mut Home, at: usize, now: Duration, timers: &mut Timers) {
    let ack_timeout = out.shared.config.ack_timeout;
    let link = &mut home.links[at];
    let (Some(conn), None) = (link.conn, link.resuming) else { return };
    let handled = link.handled();
    if handled > link.announced {
        link.announced = handled;
        out.downs.push(ToEdge { conn, down: Down::Handled { sequence: handled } });
    }
    if link.queue.is_empty() {
        return;
    }
    if let Some(management) = &mut link.management
        && management.asked_at.is_none()
        && link.queue.len() > management.before
    {
        management.asked_at = Some(now);
        out.downs.push(ToEdge { conn, down: Down::RequestAck });
        // One deadline for each session at a time, whatever is delivered meanwhile.
        if !std::mem::replace(&mut link.awaited, true) {
            timers.set(now + ack_timeout, home.account.jid.clone(), Why::Acknowledge(link.token));
        }
    }
}

/// A message of one of the account's connections.
fn from_edge(turn: &mut Turn, out: &mut Out<'_>, home: &mut Home, message: ToHome, timers: &mut Timers) {
    let ToHome { conn, up, .. } = message;
    match up {
        Up::Bind { token, resource } => return session::bind(turn, home, conn, token, resource),
        Up::Resume { token, handled } => return session::resume(turn, out, home, conn, token, handled),
        _ => {}
    }
    let Some(at) = home.links.iter().position(|link| link.conn == Some(conn)) else {
        return unknown(out, conn, &up);
    };
    match up {
        Up::Stanza { sequence, stanza, fault, trace } => {
            if home.links[at].resuming.is_none() {
                decide::sent(turn, home, at, sequence, stanza, fault, trace);
            }
        }
        Up::EnableSm { resume, max } => session::enable(out, home, at, resume, max),
        Up::Acknowledged { handled } => session::acknowledged(out, home, at, handled),
        Up::Written { count } => session::written(out, home, at, count),
        Up::ClientState { active } => {
            home.account.sessions[at].active = active;
            if active {
                delivery::release(out, home, at);
            }
        }
        Up::Idle => session::ping(turn, home, at),
        Up::Gone(leave) => session::gone(turn, home, at, leave, timers),
        Up::Bind { .. } | Up::Resume { .. } => {}
    }
}

/// A connection speaks whose session is not here: it is late (the session went on elsewhere, and its connection has been told
/// so), or the session was lost with its home. Either way it ends, and its client comes back.
pub(crate) fn unknown(out: &mut Out<'_>, conn: ConnId, up: &Up) {
    if matches!(up, Up::Stanza { .. } | Up::EnableSm { .. } | Up::Idle) {
        let error = StreamError::new(StreamCondition::Reset).with_text("the session is not known any more");
        out.downs.push(ToEdge { conn, down: Down::Close(Some(Box::new(error))) });
    }
}

/// Waits until a moment of monotonic time.
async fn until(shared: &Shared, deadline: Option<Duration>) {
    let now = shared.clock.monotonic();
    if let Some(deadline) = deadline {
        tokio::time::sleep(deadline.saturating_sub(now)).await;
    }
}
