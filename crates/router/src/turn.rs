//! A turn: what is decided until the next commit.

use crate::act::{Act, What, Wrote, is_push};
use crate::cluster::LocationOp;
use crate::follow::{self, Basis, Follow, Step};
use crate::home::{Home, Read};
use crate::pipeline::Draft;
use crate::shared::Shared;
use starling_hooks::{Change, Cx, Effect};
use starling_node::{Span, Trace};
use starling_store::{DocKind, LogRow, Origin, Position, StoreError, Write};
use starling_wire::Token;
use starling_xmpp::{BareJid, Timestamp};
use std::collections::HashMap;
use std::sync::Arc;

/// What a turn gathers while it decides.
pub(crate) struct Turn {
    pub(crate) shared: Arc<Shared>,
    pub(crate) now: Timestamp,
    pub(crate) monotonic: std::time::Duration,
    /// When what is being decided on came (monotonic).
    pub(crate) came: std::time::Duration,
    /// With their positions; none where none may be given at present.
    pub(crate) writes: Vec<(Option<Position>, Write)>,
    pub(crate) acts: Vec<Act>,
    /// How many there were in all.
    made: usize,
    /// Questions that the turn has begun to work on.
    pub(crate) reads: Vec<Read>,
    /// What is to be recorded of who is where, with the home that waits for it.
    ops: Vec<(BareJid, LocationOp)>,
    /// The same of sessions that have ended; nobody waits for it.
    pub(crate) unbinds: Vec<LocationOp>,
    /// Source of ids; goes on over turns.
    pub(crate) next_id: u64,
    effects: Vec<Effect>,
    /// The step of a traced stanza that is being decided on, and how many came of it.
    step: Option<(Trace, u32)>,
}

/// What one turn may leave to be done after its commit, a home all in all, and how much of what came of that may wait in the inbox
/// before the next is decided. No credit bounds it: one presence makes an act for each contact.
pub(crate) const MOST_ACTS: usize = 16_384;

/// As many stanzas that come of a traced one belong to its trace; the rest of a large fan-out is only counted.
const FOLLOWED: u32 = 32;

impl Turn {
    pub(crate) fn new(shared: Arc<Shared>, next_id: u64) -> Self {
        let (now, monotonic) = (shared.now(), shared.clock.monotonic());
        let (writes, acts, reads, effects) = (Vec::new(), Vec::new(), Vec::new(), Vec::new());
        let (ops, unbinds) = (Vec::new(), Vec::new());
        let (came, step, made) = (monotonic, None, 0);
        Self { shared, now, monotonic, came, writes, acts, made, reads, ops, unbinds, next_id, effects, step }
    }

    /// Looks at the clock again: a turn begins.
    pub(crate) fn begin(&mut self) {
        (self.now, self.monotonic) = (self.shared.now(), self.shared.clock.monotonic());
        self.made = 0;
    }

    /// Whether nothing more is to be decided in it.
    pub(crate) fn is_full(&self) -> bool {
        self.made >= MOST_ACTS
    }

    /// An origin for what no session has sent.
    pub(crate) fn anonymous(&mut self) -> Origin {
        self.next_id += 1;
        let epoch = u128::from(self.shared.positions.epoch());
        // Reigns over different shards may have the same epoch.
        let shard = self.shared.tier.as_ref().map_or(0, |tier| u128::from(tier.shard.0) + 1);
        Origin { session: shard << 64 | epoch, sequence: self.next_id }
    }

    /// A position for what this home has written now; `None` when none may be given.
    pub(crate) fn position(&self, home: &mut Home) -> Option<Position> {
        let position = self.shared.positions.next(home.top, self.now, self.monotonic)?;
        home.top = position;
        Some(position)
    }

    /// Has a question worked on, elsewhere where that is possible: it may take long.
    pub(crate) fn ask(&mut self, question: Read) {
        match &self.shared.spawn {
            Some(spawn) => {
                let shared = Arc::clone(&self.shared);
                spawn(Box::pin(async move { shared.answer(question.await) }));
            }
            None => self.reads.push(question),
        }
    }

    /// Adds a write that is not a row.
    pub(crate) fn write(&mut self, home: &mut Home, write: Write, what: Wrote) {
        let position = self.position(home);
        self.writes.push((position, write));
        self.act(home, What::Wrote(what));
    }

    /// Has a change of who is where recorded; the act follows when it is, or not.
    pub(crate) fn record(&mut self, home: &mut Home, op: LocationOp, what: What) {
        self.ops.push((home.account.jid.clone(), op));
        self.act(home, what);
    }

    /// A session that had been refused is bound after all: it is not to be unbound.
    pub(crate) fn spare(&mut self, token: Token) {
        self.unbinds.retain(|op| !matches!(op, LocationOp::Unbind { token: own, .. } if *own == token));
    }

    /// Whether a session has ended in this turn, and is to be taken out of the table.
    pub(crate) fn unbinds(&self, token: Token) -> bool {
        self.unbinds.iter().any(|op| matches!(op, LocationOp::Unbind { token: own, .. } if *own == token))
    }

    /// Adds a row; an act that says what follows from it has to be added too.
    pub(crate) fn append(&mut self, home: &mut Home, row: LogRow) {
        (home.last, home.rows) = (row.position, home.rows + 1);
        self.writes.push((Some(row.position), Write::Append(Box::new(row))));
    }

    /// What was decided since the last call, by lane.
    pub(crate) fn drafts(&mut self, together: bool) -> Vec<Draft> {
        let (acts, writes) = (std::mem::take(&mut self.acts), std::mem::take(&mut self.writes));
        let ops = std::mem::take(&mut self.ops);
        if acts.is_empty() && writes.is_empty() {
            return Vec::new();
        }
        if together {
            let ops = ops.into_iter().map(|(_, op)| op).collect();
            return vec![Draft { lane: None, acts, writes, ops }];
        }
        let mut drafts: Vec<Draft> = Vec::new();
        let mut places = HashMap::new();
        let mut place = |drafts: &mut Vec<Draft>, home: &BareJid| match places.get(home) {
            Some(place) => *place,
            None => {
                places.insert(home.clone(), drafts.len());
                drafts.push(Draft { lane: Some(home.clone()), ..Draft::default() });
                drafts.len() - 1
            }
        };
        for act in acts {
            let place = place(&mut drafts, &act.home);
            drafts[place].acts.push(act);
        }
        for (at, write) in writes {
            let place = place(&mut drafts, write.owner());
            drafts[place].writes.push((at, write));
        }
        for (home, op) in ops {
            let place = place(&mut drafts, &home);
            drafts[place].ops.push(op);
        }
        drafts
    }

    /// What is decided up to [`Self::decided`] comes of this step of a stanza.
    pub(crate) fn deciding(&mut self, span: &Span) {
        self.step = span.context().map(|trace| (trace, 0));
    }

    /// The step is over.
    pub(crate) fn decided(&mut self, mut span: Span) {
        if let Some((_, count)) = self.step.take()
            && count > 1
        {
            span.set("messaging.batch.message_count", i64::from(count));
        }
    }

    /// The trace of a stanza that comes of the one that is being decided on.
    pub(crate) fn follows(&mut self) -> Option<Trace> {
        let (trace, count) = self.step.as_mut()?;
        *count += 1;
        (*count <= FOLLOWED).then_some(*trace)
    }

    /// Adds something to do after the commit.
    pub(crate) fn act(&mut self, home: &mut Home, what: What) {
        home.acts += what.weight();
        self.made += 1;
        self.acts.push(Act { home: home.account.jid.clone(), life: home.life, what });
    }

    /// Gives a session, as it is now, what waits by now.
    pub(crate) fn feed(&mut self, home: &mut Home, token: Token) {
        let Some(at) = home.find(token) else { return };
        let (through, times) = (home.last, home.links[at].feed.ceased_times);
        self.act(home, What::Feed(token, through, times));
    }

    /// Runs a decision and takes its effects in.
    pub(crate) fn decide<R>(
        &mut self,
        home: &mut Home,
        session: Option<usize>,
        decision: impl FnOnce(&mut Cx<'_>) -> R,
    ) -> R {
        let (answer, mut effects) = self.run(home, session, decision);
        if follow::changes(&effects) {
            self.take_change(home, &mut effects);
        } else {
            effects.drain(..).for_each(|effect| self.take(home, effect));
        }
        self.effects = effects;
        answer
    }

    /// Takes in a decision that changes a list. What follows from that is told when it is confirmed, beside what clients are told
    /// of the list itself.
    fn take_change(&mut self, home: &mut Home, effects: &mut Vec<Effect>) {
        let (mut basis, mut steps) = (None, Vec::new());
        for effect in effects.drain(..) {
            match effect {
                Effect::Route(stanza) => steps.push(Step::Route(stanza, self.follows())),
                Effect::Deliver(token, stanza) if !is_push(&stanza) => {
                    steps.push(Step::Deliver(token, stanza, self.follows()));
                }
                Effect::Change(change) => {
                    if let Change::Undirected(token, jid) = &change {
                        let available =
                            home.find(*token).is_some_and(|at| home.account.sessions[at].is_available());
                        steps.push(Step::Undirected(*token, jid.clone(), available));
                    }
                    basis = Basis::of(&change, home.account.roster.version + 1).or(basis);
                    self.change(home, change);
                }
                effect => {
                    if let Some(basis) = basis.clone().filter(|_| !steps.is_empty()) {
                        self.follow(home, basis, std::mem::take(&mut steps));
                    }
                    self.take(home, effect);
                }
            }
        }
        if let Some(basis) = basis {
            self.follow(home, basis, steps);
        }
    }

    /// Has it leave with what is decided now. Of a list it is told by the next one whether it was there, so it counts though nothing
    /// follows from it.
    pub(crate) fn follow(&mut self, home: &mut Home, basis: Basis, steps: Vec<Step>) {
        if !steps.is_empty() || matches!(basis, Basis::Blocked(_)) {
            self.made += steps.len();
            self.act(home, What::Follow(Box::new(Follow { basis, steps })));
        }
    }

    /// Runs a decision of which nothing but its answer counts: it was made before.
    pub(crate) fn consult<R>(
        &mut self,
        home: &Home,
        session: Option<usize>,
        decision: impl FnOnce(&mut Cx<'_>) -> R,
    ) -> R {
        let (answer, mut effects) = self.run(home, session, decision);
        effects.clear();
        self.effects = effects;
        answer
    }

    /// Runs a decision, and gives its effects in the buffer that is to be put back.
    fn run<R>(
        &mut self,
        home: &Home,
        session: Option<usize>,
        decision: impl FnOnce(&mut Cx<'_>) -> R,
    ) -> (R, Vec<Effect>) {
        let mut effects = std::mem::take(&mut self.effects);
        let answer = decision(&mut Cx {
            account: &home.account,
            session: session.and_then(|at| home.account.sessions.get(at)),
            now: self.now,
            server: &self.shared.server,
            effects: &mut effects,
            because: "",
            next_id: &mut self.next_id,
        });
        (answer, effects)
    }

    /// Takes one effect in: changes at once, the rest after the commit.
    pub(crate) fn take(&mut self, home: &mut Home, effect: Effect) {
        match effect {
            Effect::Route(stanza) => {
                let trace = self.follows();
                self.act(home, What::Route(stanza, trace));
            }
            Effect::Deliver(token, stanza) => {
                let trace = self.follows();
                self.act(home, What::Deliver(token, stanza, trace));
            }
            Effect::Close(token, error) => self.act(home, What::Close(token, error)),
            Effect::DeleteAccount => self.delete(home, None),
            Effect::Change(change) => self.change(home, change),
        }
    }

    /// Removes the account with all that it has.
    pub(crate) fn delete(
        &mut self,
        home: &mut Home,
        report: Option<tokio::sync::oneshot::Sender<Result<bool, StoreError>>>,
    ) {
        // RFC 6121 §2.5.2 for every contact: they learn that nobody is there any more.
        let partings = |item| starling_hooks::roster_push::partings(&home.account, item).into_iter();
        let partings: Vec<_> = home.account.roster.items.values().flat_map(partings).collect();
        let steps = partings.into_iter().map(|stanza| Step::Route(stanza, self.follows())).collect();
        self.follow(home, Basis::Removal, steps);
        self.write(home, Write::DeleteAccount(home.account.jid.clone()), Wrote::Account);
        // What comes from now on is for an account that may not be there: nothing is decided or written for it.
        home.leaving = true;
        self.act(home, What::Deleted(report));
    }

    fn change(&mut self, home: &mut Home, change: Change) {
        let jid = home.account.jid.clone();
        let account = &mut home.account;
        match change {
            Change::RosterItem(mut item) => {
                account.roster.version += 1;
                item.version = account.roster.version;
                account.roster.removed.remove(&item.jid);
                account.roster.items.insert(item.jid.clone(), (*item).clone());
                let contact = item.jid.clone();
                self.write(home, Write::RosterItem(jid, item), Wrote::Contact(contact));
            }
            Change::RosterRemove(contact) => {
                let roster = &mut account.roster;
                roster.version += 1;
                roster.items.remove(&contact);
                roster.removed.insert(contact.clone(), roster.version);
                if roster.removed.len() > Write::MAX_REMOVED
                    && let Some((oldest, version)) = roster
                        .removed
                        .iter()
                        .min_by_key(|(_, version)| **version)
                        .map(|(jid, version)| (jid.clone(), *version))
                {
                    roster.removed.remove(&oldest);
                    roster.removed_since = version;
                }
                let version = roster.version;
                let write = Write::RosterRemove(jid, contact.clone(), version);
                self.write(home, write, Wrote::Contact(contact));
            }
            Change::Blocked(list) => {
                let body = list.encode();
                let before = Box::new(std::mem::replace(&mut account.blocked, list));
                self.write(home, Write::Doc(jid, DocKind::BlockList, body), Wrote::Blocked(before));
            }
            Change::Archive(preferences) => {
                let body = preferences.encode();
                account.archive = preferences;
                self.write(home, Write::Doc(jid, DocKind::ArchivePreferences, body), Wrote::Document);
            }
            Change::Credentials(credentials) => {
                self.write(home, Write::Credentials(jid, Box::new(credentials.0)), Wrote::Account)
            }
            Change::Carbons(token, on) => session(home, token, |session| session.carbons = on),
            Change::Interested(token) => {
                let version = home.account.roster.version;
                session(home, token, |session| session.interested = true);
                // It is told all of it now, and what changes from then on.
                if let Some(far) = home.find(token).and_then(|at| home.links[at].far.as_mut()) {
                    far.listed.get_or_insert(version);
                }
            }
            Change::WatchesBlocks(token) => session(home, token, |session| session.watches_blocks = true),
            Change::Directed(token, jid) => session(home, token, |session| {
                session.directed.insert(jid);
            }),
            Change::Undirected(token, jid) => session(home, token, |session| {
                session.directed.remove(&jid);
            }),
            Change::Presence(token, presence, priority) => {
                self.presence_changed(home, token, presence.map(|stanza| *stanza), priority)
            }
        }
    }

    fn presence_changed(
        &mut self,
        home: &mut Home,
        token: Token,
        presence: Option<starling_xmpp::Stanza>,
        priority: i8,
    ) {
        let Some(at) = home.find(token) else { return };
        let (was_there, took_bare) = {
            let session = &home.account.sessions[at];
            (session.is_available(), session.takes_bare())
        };
        let session = &mut home.account.sessions[at];
        session.presence = presence;
        session.priority = priority;
        home.links[at].note();
        if was_there && !session.is_available() {
            // What waits from now on comes when it is back; newer ones wait with it (promise 4).
            let link = &mut home.links[at];
            link.feed.ceased_times = link.feed.ceased_times.wrapping_add(1);
            if std::mem::take(&mut link.feed.begun) {
                link.feed.sent = link.far.as_ref().map_or(Position(0), |far| far.sent);
            }
        }
        let session = &home.account.sessions[at];
        if (!took_bare && session.takes_bare()) || (!was_there && session.is_available()) {
            self.feed(home, token);
        }
    }
}

pub(crate) fn session(home: &mut Home, token: Token, change: impl FnOnce(&mut starling_hooks::Session)) {
    if let Some(at) = home.find(token) {
        change(&mut home.account.sessions[at]);
        home.links[at].note();
    }
}
