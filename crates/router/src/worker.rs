//! A worker: where homes live. Take, decide, commit, act.
//!
//! It goes in turns ([`Worker::step`]) and knows no runtime: what it waits for are futures that it polls, and moments of
//! the clock that it was given.

mod acting;
mod asking;
mod attaching;
mod complaints;
mod counting;
mod deadlines;
mod doubts;
pub(crate) mod ending;
mod hearing;
mod late;
mod leaving;
mod loading;
mod losing;
mod opening;
mod parking;
mod recalling;
mod resending;
mod unbinding;
mod waiting;

use self::asking::Asking;
use self::attaching::{Attaching, Parked};
use self::complaints::Complaints;
use self::counting::Counting;
use self::ending::{AWAY, LATER};
use self::hearing::{from_edge, is_of_another, unknown};
use self::unbinding::Unbinding;
use crate::act::{self, Act, What};
use crate::cluster::{LocationOp, Place};
use crate::count::Remembered;
use crate::decide;
use crate::delivery::{self, Out};
use crate::far::Far;
use crate::home::{Home, Read, Waiting};
use crate::line::{Held, Line};
use crate::link::Link;
use crate::msg::{Admin, Forward, Msg, Network, Refusal, needs_store};
use crate::pairs;
use crate::pipeline::{Done, Pipeline};
use crate::recognise::{Ended, GRACE, Recent, Since};
use crate::resuming;
use crate::route;
use crate::session;
use crate::shared::Shared;
use crate::tail;
use crate::timers::{Timers, Why};
use crate::turn::{MOST_ACTS, Turn};
use futures::StreamExt;
use futures::stream::FuturesUnordered;
use starling_store::{Reign, StoreError, Write};
use starling_wire::channel::Inbox;
use starling_wire::up::SessionInfo;
use starling_wire::{ConnId, Down, Leave, ToEdge, ToHome, Up};
use starling_xmpp::{BareJid, StreamCondition, StreamError};
use std::collections::{HashMap, HashSet, VecDeque};
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::Duration;

/// Messages decided in one turn at most, so that a long queue does not delay its own first commit.
const MAX_TURN: usize = 1_024;
/// Room for messages that is kept while there are none.
const KEPT: usize = 8 * MAX_TURN;
/// A cursor is written at most this long after it moved.
const CURSOR_DELAY: Duration = Duration::from_secs(2);
/// A home without sessions stays in memory this long.
const EVICT_AFTER: Duration = Duration::from_secs(60);
/// How long to wait before something is read again that could not be.
const REREAD_AFTER: Duration = Duration::from_secs(1);

/// How long the sender of a message waits for its answer: two commits, of which each may take so long as a store that is
/// slow takes to be given up.
const ANSWER_WITHIN: Duration = Duration::from_secs(10);

/// How long the edge of a session from before this reign has to say what no home has handled: a session that is resumed
/// meanwhile waits for that.
const DRAIN: Duration = Duration::from_secs(2);

/// How soon to look again whether it is known who reigns.
const LOOK_AGAIN: Duration = Duration::from_millis(20);
/// How long a worker stands still for that. Whoever has slept learns it with the answer to one question; a store that does not
/// answer is no reason to keep those waiting who need none.
const STILL: Duration = Duration::from_secs(1);
/// How long sessions go on without a lease. A store that is away, however long it takes to mend, is to end none; a server that
/// alone is cut off from it may have a successor, and sessions of the same accounts may be there: what these ones see of
/// presence is worth less every minute. The two look the same from here, and the first is what happens.
const ADRIFT_AFTER: Duration = Duration::from_secs(900);

/// What a worker has of an account.
enum Slot {
    /// Being loaded; these wait, and sessions that edges have named.
    Loading(Line, Vec<Parked>),
    /// Nobody has spoken to it in this reign: only sessions that edges have named.
    Parked(Vec<Parked>),
    /// Here.
    Ready(Box<Home>),
}

/// One worker.
pub(crate) struct Worker {
    shared: Arc<Shared>,
    inbox: Arc<Inbox<Msg>>,
    homes: HashMap<BareJid, Slot>,
    /// Homes there have been.
    lives: u64,
    timers: Timers,
    pipeline: Pipeline,
    /// What is being looked up.
    reads: FuturesUnordered<Read>,
    /// What is to be, begun in this turn.
    asked: Vec<Read>,
    downs: Vec<ToEdge>,
    touched: Vec<BareJid>,
    backlog: VecDeque<Msg>,
    batch: Vec<Msg>,
    /// Homes whose messages wait because too much is under way in all.
    crowded: VecDeque<BareJid>,
    flushes: Vec<tokio::sync::oneshot::Sender<()>>,
    /// Who waits until all questions have their answers.
    quiets: Vec<tokio::sync::oneshot::Sender<()>>,
    /// Who waits until what the next home needs has left.
    partings: Vec<tokio::sync::oneshot::Sender<()>>,
    asking: Asking,
    /// Accounts that have asked something of other shards.
    requesting: Asking,
    counting: Counting,
    remembered: Remembered,
    ended: Ended,
    /// Accounts with messages that homes of other shards have not answered, or had not when it was last looked.
    sending: HashSet<BareJid>,
    /// What is known of edges, in a cluster.
    attaching: Attaching,
    unbinding: Unbinding,
    fenced: bool,
    /// Since when it is known that the lease is over.
    lapsed: Option<Duration>,
    /// When it was last seen to hold.
    held: Duration,
    /// It is not known who reigns; it was looked then.
    blind: Option<Duration>,
    /// The lease has been over for long, and all sessions were sent away.
    adrift: bool,
    complaints: Complaints,
    /// The shard is about to be moved, and what the next home needs has left.
    left: bool,
}

impl Worker {
    pub(crate) fn new(shared: Arc<Shared>, index: usize) -> Self {
        let (attaching, held) = (Attaching::new(shared.began), shared.began);
        let inbox = Arc::clone(&shared.inboxes[index]);
        let shards = shared.tier.as_ref().map_or(1, |tier| tier.shards.count());
        let pipeline = Pipeline::new(shared.store.commits_together(), shards);
        Self {
            shared,
            inbox,
            homes: HashMap::new(),
            lives: 0,
            timers: Timers::default(),
            pipeline,
            reads: FuturesUnordered::new(),
            asked: Vec::new(),
            downs: Vec::new(),
            touched: Vec::new(),
            backlog: VecDeque::new(),
            batch: Vec::new(),
            crowded: VecDeque::new(),
            flushes: Vec::new(),
            quiets: Vec::new(),
            partings: Vec::new(),
            asking: Asking::default(),
            requesting: Asking::default(),
            counting: Counting::default(),
            remembered: Remembered::default(),
            ended: Ended::default(),
            sending: HashSet::new(),
            attaching,
            unbinding: Unbinding::default(),
            fenced: false,
            lapsed: None,
            held,
            blind: None,
            adrift: false,
            complaints: Complaints::default(),
            left: false,
        }
    }

    /// How many homes there are.
    pub(crate) fn len(&self) -> usize {
        self.homes.len()
    }

    /// When there is something to do in any case, on monotonic time.
    pub(crate) fn deadline(&self) -> Option<Duration> {
        let lease = match (self.blind, self.lapsed) {
            (Some(looked), _) => return Some(looked + LOOK_AGAIN),
            _ if self.fenced || self.adrift => None,
            (None, Some(since)) => Some(since + ADRIFT_AFTER),
            (None, None) => self.shared.positions.until(),
        };
        let known_at = self.attaching.known_at();
        let cluster = [self.unbinding.deadline(), self.attaching.losing.deadline(&self.shared, known_at)];
        [lease, self.timers.next()].into_iter().chain(cluster).flatten().min()
    }

    /// One turn. `Pending`: there was nothing to do; the waker is called when there is.
    pub(crate) fn step(&mut self, turn: &mut Turn, cx: &mut Context<'_>) -> Poll<()> {
        turn.begin();
        if self.shared.fence.is_raised() && !self.fenced {
            self.end_all(turn);
        }
        self.look(turn.monotonic);
        if self.blind.is_some() {
            return Poll::Pending;
        }
        let leaving = self.drift(turn);
        if self.unbinding.poll(&self.shared, turn.monotonic, cx) {
            // Sessions that were lost with the table may be recorded now.
            self.backlog.extend(self.attaching.opening.iter().cloned().map(Msg::Wake));
        }
        self.look_for_lost(turn);
        let landed = self.land(turn, cx);
        // Whoever commits together first lets go what is durable: what has come meanwhile is the next commit.
        let taken = (!landed || !self.pipeline.is_together()) && self.take_in(turn, cx);
        if !landed && !taken && !leaving {
            return Poll::Pending;
        }
        self.expire(turn);
        self.let_in(turn);
        if self.pipeline.is_open() {
            for _ in 0..MAX_TURN {
                if turn.is_full() {
                    break;
                }
                let Some(msg) = self.backlog.pop_front() else { break };
                match msg.account().cloned() {
                    Some(account) => self.guard(&account, |worker| worker.decide(turn, msg)),
                    None => {
                        // Homes that it concerns are guarded one by one.
                        let _ = catch_unwind(AssertUnwindSafe(|| self.decide(turn, msg)));
                    }
                }
            }
        }
        self.commit(turn);
        self.go_on_counting(turn);
        self.finish();
        if self.backlog.is_empty() && self.backlog.capacity() > KEPT {
            // A burst is over.
            self.backlog = VecDeque::new();
            self.batch = Vec::new();
        }
        Poll::Ready(())
    }

    /// Has something done for one account. A mistake in a module costs that account its home, and nobody else anything.
    fn guard(&mut self, account: &BareJid, what: impl FnOnce(&mut Self)) {
        if catch_unwind(AssertUnwindSafe(|| what(self))).is_err() {
            self.forsake(account);
        }
    }

    /// Takes what there is to decide on; false where there is nothing to do at all.
    fn take_in(&mut self, turn: &Turn, cx: &mut Context<'_>) -> bool {
        loop {
            match catch_unwind(AssertUnwindSafe(|| self.reads.poll_next_unpin(cx))) {
                Ok(Poll::Ready(Some(msg))) => self.backlog.push_back(msg),
                Ok(_) => break,
                Err(_) => tracing::error!(event = "read_panicked", "a read has panicked and is given up"),
            }
        }
        let open = self.pipeline.is_open();
        if open && self.backlog.is_empty() && self.inbox.poll_take(cx, &mut self.batch).is_ready() {
            self.backlog.extend(self.batch.drain(..));
        } else if open && self.inbox.len() >= MOST_ACTS {
            self.take_in_first();
        }
        let due = self.timers.next().is_some_and(|at| at <= turn.monotonic);
        let waits = !self.backlog.is_empty() || !self.crowded.is_empty() && self.pipeline.has_room();
        due || (waits && open)
    }

    /// Takes what comes from homes before what sessions say: that is what came of what sessions said before, and would be more and
    /// more.
    fn take_in_first(&mut self) {
        self.inbox.try_take(&mut self.batch);
        let (first, rest) = std::mem::take(&mut self.backlog)
            .into_iter()
            .chain(self.batch.drain(..))
            .partition::<VecDeque<_>, _>(|msg| matches!(msg, Msg::Forward(_) | Msg::Receipt { .. }));
        self.backlog = first;
        self.backlog.extend(rest);
    }

    /// Decides on one message.
    fn decide(&mut self, turn: &mut Turn, msg: Msg) {
        if self.fenced {
            return self.turn_away(msg);
        }
        let msg = if self.left { self.comes_late(msg) } else { Some(msg) };
        let Some(msg) = msg else { return };
        let Some(account) = msg.account().cloned() else { return self.own(turn, msg) };
        if self.adrift
            && let Msg::Edge(ToHome { conn, up: Up::Resume { .. }, .. }) = msg
        {
            return self.close(conn, AWAY);
        }
        let Some(msg) = self.stash(msg) else { return };
        if let Msg::Edge(ToHome { conn, up: Up::Bind { .. } | Up::Resume { .. }, .. }) = &msg
            && self.shared.tier.is_some()
        {
            self.attaching.is_at(conn.edge, &account);
        }
        if let Msg::Loaded { state, .. } = msg {
            return self.loaded(turn, account, state);
        }
        if let Msg::Waiting { waiting, .. } = msg {
            return self.counted(turn, &account, waiting);
        }
        match self.homes.get_mut(&account) {
            _ if msg.is_attach() => {
                if let Msg::Edge(ToHome { conn, up: Up::Attach(record), .. }) = msg {
                    self.attach(turn, &account, conn, record);
                }
            }
            Some(Slot::Parked(_)) => self.parked(turn, account, msg),
            Some(Slot::Loading(waiting, _)) if waiting::is_full(waiting, &msg) => self.no_room(msg),
            Some(Slot::Loading(waiting, _)) => {
                if let Some(at) = waiting.push(Held { since: turn.monotonic, msg }) {
                    self.timers.set(at, account, Why::Patience);
                }
            }
            Some(Slot::Ready(_)) => self.ready(turn, &account, Held { since: turn.monotonic, msg }),
            // No session and no question is left without a home: what is said of one is late.
            None if msg.is_about_the_past() => self.nobody(&msg),
            None => self.load_for(turn, account, msg, Vec::new()),
        }
    }

    /// Has an account loaded that this message needs, and whose sessions these are.
    fn load_for(&mut self, turn: &Turn, account: BareJid, msg: Msg, parked: Vec<Parked>) {
        self.load(account.clone(), self.shared.positions.reign());
        let mut line = Line::asked_at(turn.monotonic);
        if let Some(at) = line.push(Held { since: turn.monotonic, msg }) {
            self.timers.set(at, account.clone(), Why::Patience);
        }
        self.homes.insert(account, Slot::Loading(line, parked));
    }

    /// For a home that is here: now, or when it can decide again.
    fn ready(&mut self, turn: &mut Turn, account: &BareJid, held: Held) {
        let Some(Slot::Ready(home)) = self.homes.get_mut(account) else { return };
        home.used = turn.monotonic;
        if home.opening.is_some() && is_of_another(home, &held.msg) {
            // It may be of a session that is named soon.
            self.hold(turn, account, held);
        } else if held.msg.may_wait()
            && (!home.paused.is_empty()
                || home.is_held()
                || home.acts >= MOST_ACTS
                || !self.pipeline.has_room_for(home.rows))
        {
            self.hold(turn, account, held);
        } else {
            self.take(turn, account, held);
        }
    }

    /// For a home that can decide.
    fn take(&mut self, turn: &mut Turn, account: &BareJid, held: Held) {
        if let Msg::Forward(forward) = &held.msg
            && self.is_early(turn, account, forward)
        {
            return;
        }
        let Some(Slot::Ready(home)) = self.homes.get_mut(account) else { return };
        if let Msg::Forward(forward) = &held.msg
            && !pairs::is_new(&self.shared, home, forward)
        {
            return;
        }
        if tail::is_needed(turn, home, &held.msg) {
            turn.act(home, What::ReadTail);
            return self.wait_first(account, held);
        }
        let Held { since, msg } = held;
        // It may have waited for the account to open.
        let Some(msg) = self.stash(msg) else { return };
        let Some(Slot::Ready(home)) = self.homes.get_mut(account) else { return };
        turn.came = since;
        let mut out = Out { shared: &self.shared, downs: &mut self.downs, reads: &mut self.asked };
        match msg {
            Msg::Edge(ToHome { conn, up: Up::Resume { token, .. }, .. })
                if home.find(token).is_none() && self.attaching.may_have(&self.shared, home, token, turn) =>
            {
                // The edge that has it may yet say so: to be tried again.
                self.close(conn, LATER);
            }
            Msg::Edge(message) => {
                let asks = if let Up::Bind { token, .. } = message.up { Some(token) } else { None };
                from_edge(turn, &mut out, home, message, &mut self.timers);
                if let Some(token) = asks.filter(|token| home.find(*token).is_some()) {
                    turn.spare(token);
                    self.unbinding.spare(token);
                }
            }
            Msg::Forward(forward) => {
                pairs::decides(turn, home, &forward);
                decide::received(turn, home, *forward);
            }
            Msg::Receipt { token, sequence, refused, .. } => {
                if let Some(refusal) = refused {
                    act::refused_there(&mut out, home, token, sequence, *refusal);
                }
                home.settle(token, sequence);
            }
            Msg::Rows { token, rows: Err(StoreError::Unavailable(_) | StoreError::Overloaded), .. } => {
                // All devices of a site that come at once may be too much for it: no reason to send them away.
                self.timers.set(turn.monotonic + REREAD_AFTER, account.clone(), Why::Feed(token));
            }
            Msg::Rows { token, rows, .. } => delivery::fed(&mut out, home, token, rows),
            Msg::Answered { ask, later, .. } => decide::iq::answered(turn, home, ask, later),
            Msg::Tail { number, .. } if number != home.tails => {}
            Msg::Tail { tail, .. } => return self.tail_read(turn, account, tail),
            Msg::Missing { token, recipient, after, .. } => {
                self.missing(turn, account, token, &recipient, after)
            }
            Msg::Full { token, recipient, .. } => self.full(turn, account, token, &recipient),
            Msg::Unsent { rows, .. } => return self.unsent(turn, account, rows),
            Msg::Wake(_) if home.opening.is_some() => {
                if let Some(opening) = &mut home.opening {
                    opening.listed = false;
                }
                self.attaching.opening.remove(account);
                self.try_open(turn, account);
            }
            Msg::Wake(_) => self.end_lost(turn, account),
            Msg::Broken { token, .. } => session::end(turn, home, token, Some(delivery::too_much())),
            Msg::Admin(Admin::Passwd(jid, credentials, answer)) => {
                turn.write(home, Write::Credentials(jid, credentials), act::Wrote::Account);
                turn.act(home, What::Report(answer));
            }
            Msg::Admin(Admin::Delete(_, answer)) => turn.delete(home, Some(answer)),
            Msg::Admin(Admin::Sessions(_))
            | Msg::Loaded { .. }
            | Msg::Waiting { .. }
            | Msg::Network(_)
            | Msg::Flush(_)
            | Msg::Quiet(_)
            | Msg::Leave(_)
            | Msg::Fenced => {}
        }
        self.touch(account);
    }

    /// For the worker itself.
    fn own(&mut self, turn: &mut Turn, msg: Msg) {
        match msg {
            Msg::Admin(Admin::Sessions(answer)) => drop(answer.send(self.sessions())),
            Msg::Flush(done) => {
                for account in self.accounts() {
                    self.write_cursor(turn, &account);
                }
                self.flushes.push(done);
            }
            Msg::Quiet(done) => {
                self.quiets.push(done);
                self.hurry_doubts(turn);
            }
            Msg::Leave(done) => self.leave(turn, done),
            Msg::Fenced => self.end_all(turn),
            Msg::Network(Network::AttachBegin(edge, link)) => self.attach_begins(edge, link),
            Msg::Network(Network::AttachEnd(edge)) => self.attach_ends(turn, edge),
            Msg::Network(Network::Dead(edge)) => self.edge_died(turn, edge),
            Msg::Network(Network::Moved(shard)) => self.shard_moved(turn, shard),
            Msg::Network(Network::Stay) => self.stay(),
            _ => {}
        }
    }

    /// All accounts that have homes, in an order that is the same every time.
    fn accounts(&self) -> Vec<BareJid> {
        let mut accounts: Vec<_> = self.homes.keys().cloned().collect();
        accounts.sort_unstable();
        accounts
    }

    fn touch(&mut self, account: &BareJid) {
        let Some(Slot::Ready(home)) = self.homes.get_mut(account) else { return };
        self.asking.looks(account, home.owes());
        self.requesting.looks(account, home.requests.open());
        if home.has_news() {
            self.touched.push(account.clone());
        }
    }

    /// Whether no question is being worked on, and nothing waits for a doubt to be settled.
    fn has_answered(&mut self) -> bool {
        let homes = &self.homes;
        self.asking.are(|account| matches!(homes.get(account), Some(Slot::Ready(home)) if home.owes() > 0))
    }
}
