//! A home: all that one account needs in memory while it is touched.

use crate::act::{Act, What};
use crate::link::Link;
use crate::log::Deliveries;
use crate::msg::{Ask, Msg};
use crate::recognise::Recent;
use crate::shared::Shared;
use crate::strangers::Strangers;
use futures::future::BoxFuture;
use starling_hooks::{Account, ArchivePreferences, BlockList, Change, Cx, Effect, Later};
use starling_store::{AccountState, DocKind, Origin, Position, StoreError, Write};
use starling_wire::Token;
use starling_xmpp::{BareJid, Timestamp};
use std::collections::VecDeque;
use std::sync::Arc;

/// Messages that wait for nobody in particular.
#[derive(Debug, Clone, Copy, Default)]
pub(crate) struct Waiting {
    pub(crate) messages: usize,
    pub(crate) bytes: u64,
}

/// One account.
pub(crate) struct Home {
    pub(crate) account: Account,
    /// `links[i]` belongs to `account.sessions[i]`.
    pub(crate) links: Vec<Link>,
    pub(crate) deliveries: Deliveries,
    /// Position of the newest row decided.
    pub(crate) last: Position,
    /// The highest position given, to rows and to whatever else was written.
    pub(crate) top: Position,
    /// When the last session ended unresumed: until then messages may come a second time.
    pub(crate) unresumed: Option<Timestamp>,
    pub(crate) recent: Option<Recent>,
    /// For whose resent messages the tail is being read, and the end of their session.
    pub(crate) reading: Option<(BareJid, Timestamp)>,
    /// Its removal is on its way to the store.
    pub(crate) leaving: bool,
    /// Messages that wait for the tail of the log to be read, or for the removal to be durable.
    pub(crate) paused: Option<VecDeque<Msg>>,
    /// Messages that wait for the account's devices; `None` until it was asked for.
    pub(crate) waiting: Option<Waiting>,
    /// Whom it writes to outside its roster.
    pub(crate) strangers: Strangers,
    pub(crate) asking: usize,
    pub(crate) questions: VecDeque<(Box<Ask>, BoxFuture<'static, Later>)>,
    /// Something about its sessions is to be told to the edge at the end of the turn.
    pub(crate) touched: bool,
    /// It is in the list of those that are looked at at the end of the turn.
    pub(crate) listed: bool,
    pub(crate) cursor_timer: bool,
    /// The last commit, by its number, in which something is written that it believes.
    pub(crate) changed: Option<u64>,
    /// How many commits were done when it was last asked to be read back.
    pub(crate) read_after: u64,
    /// Acts not yet carried out: the home must stay.
    pub(crate) acts: usize,
    pub(crate) used: std::time::Duration,
}

impl Home {
    /// From what the store holds.
    ///
    /// # Errors
    /// When a document is damaged: an account whose block list cannot be read is not served (promise 9).
    pub(crate) fn load(jid: BareJid, state: AccountState, shared: &Shared) -> Result<Self, StoreError> {
        let (blocked, archive) = documents(&state, shared)?;
        Ok(Self {
            account: Account { jid, roster: state.roster, blocked, archive, sessions: Vec::new() },
            links: Vec::new(),
            deliveries: Deliveries::load(state.cursor, state.last),
            last: state.last,
            top: state.last,
            unresumed: None,
            recent: None,
            reading: None,
            leaving: false,
            paused: None,
            waiting: None,
            strangers: Strangers::default(),
            asking: 0,
            questions: VecDeque::new(),
            touched: false,
            listed: false,
            cursor_timer: false,
            changed: None,
            read_after: 0,
            acts: 0,
            used: std::time::Duration::ZERO,
        })
    }

    /// Takes over what the store holds; sessions and deliveries stay.
    pub(crate) fn believe(&mut self, state: &AccountState, shared: &Shared) -> Result<(), StoreError> {
        (self.account.blocked, self.account.archive) = documents(state, shared)?;
        self.account.roster = state.roster.clone();
        self.last = self.last.max(state.last);
        self.top = self.top.max(state.last);
        Ok(())
    }

    /// Whether it is to be looked at at the end of the turn and is not yet listed for it. It is taken as listed.
    pub(crate) fn has_news(&mut self) -> bool {
        let news = self.touched || (self.deliveries.is_dirty() && !self.cursor_timer);
        news && !std::mem::replace(&mut self.listed, true)
    }

    /// Whether what is read back now knows everything that it has had written since.
    pub(crate) fn may_believe(&self) -> bool {
        self.changed.is_none_or(|commit| commit < self.read_after)
    }

    /// Where this session is in the lists.
    pub(crate) fn find(&self, token: Token) -> Option<usize> {
        self.links.iter().position(|link| link.token == token)
    }

    /// Until when messages of this account may come a second time: the end of its last session that ended unresumed.
    pub(crate) fn lost_until(&self, shared: &Shared) -> Timestamp {
        self.unresumed.map_or(shared.began, |at| at.max(shared.began))
    }
}

/// The documents that hooks read.
fn documents(state: &AccountState, shared: &Shared) -> Result<(BlockList, ArchivePreferences), StoreError> {
    let blocked = match state.docs.get(&DocKind::BlockList) {
        Some(body) => BlockList::decode(body)?,
        None => BlockList::default(),
    };
    let archive = match state.docs.get(&DocKind::ArchivePreferences) {
        Some(body) => ArchivePreferences::decode(body)?,
        None => {
            ArchivePreferences { default: shared.server.archive_default, ..ArchivePreferences::default() }
        }
    };
    Ok((blocked, archive))
}

/// What a turn gathers while it decides.
pub(crate) struct Turn {
    pub(crate) shared: Arc<Shared>,
    pub(crate) now: Timestamp,
    pub(crate) monotonic: std::time::Duration,
    /// With their positions; none where none may be given at present.
    pub(crate) writes: Vec<(Option<Position>, Write)>,
    pub(crate) acts: Vec<Act>,
    /// Number of the commit in which what is decided now is written; goes on over turns.
    pub(crate) commit: u64,
    /// Source of ids; goes on over turns.
    pub(crate) next_id: u64,
    effects: Vec<Effect>,
}

impl Turn {
    pub(crate) fn new(shared: Arc<Shared>, next_id: u64) -> Self {
        let (now, monotonic) = (shared.now(), shared.clock.monotonic());
        let (writes, acts, effects) = (Vec::new(), Vec::new(), Vec::new());
        Self { shared, now, monotonic, writes, acts, commit: 0, next_id, effects }
    }

    /// Looks at the clock again: a turn begins.
    pub(crate) fn begin(&mut self) {
        (self.now, self.monotonic) = (self.shared.now(), self.shared.clock.monotonic());
    }

    /// An origin for what no session has sent.
    pub(crate) fn anonymous(&mut self) -> Origin {
        self.next_id += 1;
        Origin { session: u128::from(self.shared.positions.epoch()), sequence: self.next_id }
    }

    /// A position for what this home has written now; `None` when none may be given.
    pub(crate) fn position(&self, home: &mut Home) -> Option<Position> {
        let position = self.shared.positions.next(home.top, self.now, self.monotonic)?;
        home.top = position;
        Some(position)
    }

    /// Adds a write that is not a row.
    pub(crate) fn write(&mut self, home: &mut Home, write: Write) {
        let position = self.position(home);
        self.writes.push((position, write));
    }

    /// Adds something to do after the commit.
    pub(crate) fn act(&mut self, home: &mut Home, what: What) {
        home.acts += 1;
        self.acts.push(Act { home: home.account.jid.clone(), what });
    }

    /// Runs a decision and takes its effects in.
    pub(crate) fn decide<R>(
        &mut self,
        home: &mut Home,
        session: Option<usize>,
        decision: impl FnOnce(&mut Cx<'_>) -> R,
    ) -> R {
        let mut effects = std::mem::take(&mut self.effects);
        let answer = {
            let mut cx = Cx {
                account: &home.account,
                session: session.and_then(|at| home.account.sessions.get(at)),
                now: self.now,
                server: &self.shared.server,
                effects: &mut effects,
                because: "",
                next_id: &mut self.next_id,
            };
            decision(&mut cx)
        };
        for effect in effects.drain(..) {
            self.take(home, effect);
        }
        self.effects = effects;
        answer
    }

    /// Takes one effect in: changes at once, the rest after the commit.
    pub(crate) fn take(&mut self, home: &mut Home, effect: Effect) {
        match effect {
            Effect::Route(stanza) => self.act(home, What::Route(stanza)),
            Effect::Deliver(token, stanza) => self.act(home, What::Deliver(token, stanza)),
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
        self.decide(home, None, |cx| {
            for item in cx.account.roster.items.values() {
                for stanza in starling_hooks::roster_push::partings(cx.account, item) {
                    cx.effects.push(Effect::Route(stanza));
                }
            }
        });
        self.write(home, Write::DeleteAccount(home.account.jid.clone()));
        // What comes from now on is for an account that may not be there: nothing is decided or written for it.
        home.leaving = true;
        home.paused.get_or_insert_default();
        self.act(home, What::Deleted(report));
    }

    fn change(&mut self, home: &mut Home, change: Change) {
        if matches!(
            change,
            Change::RosterItem(_) | Change::RosterRemove(_) | Change::Blocked(_) | Change::Archive(_)
        ) {
            home.changed = Some(self.commit);
        }
        let jid = home.account.jid.clone();
        let account = &mut home.account;
        match change {
            Change::RosterItem(mut item) => {
                account.roster.version += 1;
                item.version = account.roster.version;
                account.roster.removed.remove(&item.jid);
                account.roster.items.insert(item.jid.clone(), (*item).clone());
                self.write(home, Write::RosterItem(jid, item));
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
                self.write(home, Write::RosterRemove(jid, contact, version));
            }
            Change::Blocked(list) => {
                let body = list.encode();
                account.blocked = list;
                self.write(home, Write::Doc(jid, DocKind::BlockList, body));
            }
            Change::Archive(preferences) => {
                let body = preferences.encode();
                account.archive = preferences;
                self.write(home, Write::Doc(jid, DocKind::ArchivePreferences, body));
            }
            Change::Credentials(credentials) => {
                self.write(home, Write::Credentials(jid, Box::new(credentials.0)))
            }
            Change::Carbons(token, on) => session(account, token, |session| session.carbons = on),
            Change::Interested(token) => session(account, token, |session| session.interested = true),
            Change::WatchesBlocks(token) => session(account, token, |session| session.watches_blocks = true),
            Change::Directed(token, jid) => session(account, token, |session| {
                session.directed.insert(jid);
            }),
            Change::Undirected(token, jid) => session(account, token, |session| {
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
        if was_there && !session.is_available() {
            // What waits from now on comes when it is back; newer ones wait with it (promise 4).
            home.links[at].feed.begun = false;
        }
        let session = &home.account.sessions[at];
        if (!took_bare && session.takes_bare()) || (!was_there && session.is_available()) {
            let through = home.last;
            self.act(home, What::Feed(token, through));
        }
    }
}

fn session(account: &mut Account, token: Token, change: impl FnOnce(&mut starling_hooks::Session)) {
    if let Some(session) = account.sessions.iter_mut().find(|session| session.token == token) {
        change(session);
    }
}
