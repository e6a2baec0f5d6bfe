//! A home: all that one account needs in memory while it is touched.

use crate::copied::Copied;
use crate::count::Count;
use crate::doubt::Doubt;
use crate::heard::Heard;
use crate::later::WaitingTraces;
use crate::line::Line;
use crate::link::Link;
use crate::log::Deliveries;
use crate::msg::{Ask, Msg};
use crate::rebuild::Opening;
use crate::recognise::{Before, Fingerprint, Reach, Recent, Since};
use crate::refused::{Earlier, Refused};
use crate::requests::Requests;
use crate::shared::Shared;
use crate::strangers::Strangers;
use futures::future::BoxFuture;
use starling_hooks::{Account, ArchivePreferences, BlockList, Later};
use starling_store::{AccountState, DocKind, Origin, Position, StoreError};
use starling_wire::{ConnId, Token};
use starling_xmpp::{BareJid, Stanza};
use std::collections::VecDeque;
use std::time::Duration;

/// After how many rows edges are told again that their sessions have been given all of them.
const REMIND: usize = 128;

/// Something that is looked up or worked out elsewhere; what comes of it is a message.
pub(crate) type Read = BoxFuture<'static, Msg>;

/// A page of the messages that wait for an account's devices.
#[derive(Debug)]
pub(crate) struct Waiting {
    /// Where they are, and their bytes.
    pub(crate) rows: Vec<(Position, usize)>,
    /// Above what the next page begins, if there may be more.
    pub(crate) next: Option<Position>,
}

/// One account.
pub(crate) struct Home {
    pub(crate) account: Account,
    /// Which home it is of those that its worker has had: acts of an earlier one of the account are not for it.
    pub(crate) life: u64,
    /// Of the account's row: one that was removed and made again is another account.
    pub(crate) generation: u64,
    /// `links[i]` belongs to `account.sessions[i]`.
    pub(crate) links: Vec<Link>,
    /// Sessions that have ended, whose messages homes of other shards have yet to answer; since when. They stay recorded, and
    /// their edges keep them: should this home be lost, the next one sends these messages again. When their client is back they
    /// go: what it says then is not to be overtaken by what it said before. Other devices of the account say nothing of that.
    pub(crate) parted: VecDeque<(Duration, Link)>,
    pub(crate) deliveries: Deliveries,
    /// Position of the newest row decided.
    pub(crate) last: Position,
    /// The newest row of which every session that it concerns has been given it, or has it coming.
    pub(crate) told: Position,
    /// Rows since edges were last asked to remember that.
    pub(crate) told_since: usize,
    /// The highest position given, to rows and to whatever else was written.
    pub(crate) top: Position,
    /// When the last session ended unresumed (monotonic): until then messages may come a second time.
    pub(crate) unresumed: Option<Duration>,
    pub(crate) recent: Option<Recent>,
    /// Something was looked for in it since it was last considered to give it up.
    pub(crate) looked: bool,
    /// Its messages that were refused and may be kept.
    pub(crate) refused: Refused,
    /// Its messages that were copied and are not kept here.
    pub(crate) copied: Copied,
    /// Rows decided since that was read.
    pub(crate) since: Since,
    /// The tail is being read, for resent messages.
    pub(crate) reading: bool,
    /// How far back.
    pub(crate) reach: Reach,
    /// The tail could not be read and is read once more.
    pub(crate) rereading: bool,
    /// How often the tail was to be read; only the last answer counts.
    pub(crate) tails: u64,
    /// Its removal is on its way to the store.
    pub(crate) leaving: bool,
    /// A commit was not confirmed.
    pub(crate) doubt: Option<Box<Doubt>>,
    /// What is carried out now was decided with writes of it that have failed.
    pub(crate) failed: bool,
    /// Rows that are not yet confirmed.
    pub(crate) rows: usize,
    /// Messages that wait, in order.
    pub(crate) paused: Line,
    /// It will be looked how long senders have waited for an answer.
    pub(crate) answer_timer: bool,
    /// It is in the queue of homes that wait for less to be under way.
    pub(crate) crowded: bool,
    /// How much waits for the account's devices.
    pub(crate) count: Count,
    /// Traced messages among it.
    pub(crate) waiting_traces: WaitingTraces,
    /// Whom it writes to outside its roster.
    pub(crate) strangers: Strangers,
    pub(crate) asking: usize,
    pub(crate) questions: VecDeque<(Box<Ask>, BoxFuture<'static, Later>)>,
    /// Something about its sessions is to be told to the edge at the end of the turn.
    pub(crate) touched: bool,
    /// Something waits for what sessions before have sent to other shards.
    pub(crate) holds: bool,
    /// It is in the list of those that are looked at at the end of the turn.
    pub(crate) listed: bool,
    pub(crate) cursor_timer: bool,
    /// A session has left its connection: what it has acknowledged is to be written now, for who comes next may find another
    /// home.
    pub(crate) departed: bool,
    /// Where sessions were that are over: their edges are told to forget them once the cursor is written.
    pub(crate) holders: Vec<ConnId>,
    /// It is not open yet: what is said to it waits.
    pub(crate) opening: Option<Box<Opening>>,
    /// Of sessions of other shards.
    pub(crate) heard: Heard,
    /// What its sessions have asked accounts of other shards.
    pub(crate) requests: Requests,
    /// It will be looked whether other homes have answered.
    pub(crate) resend_timer: bool,
    /// It will be looked how long sessions that have ended have waited.
    pub(crate) parted_timer: bool,
    /// Acts not yet carried out: the home must stay.
    pub(crate) acts: usize,
    pub(crate) used: Duration,
}

impl Home {
    /// From what the store holds.
    ///
    /// # Errors
    /// When a document is damaged: an account whose block list cannot be read is not served (promise 9).
    pub(crate) fn load(
        jid: BareJid,
        life: u64,
        state: AccountState,
        shared: &Shared,
    ) -> Result<Self, StoreError> {
        let (blocked, archive) = documents(&state, shared)?;
        let deliveries = Deliveries::load(state.cursor, state.last);
        let count = Count::begin(deliveries.waiting_above().is_some());
        Ok(Self {
            life,
            generation: state.row.generation,
            account: Account { jid, roster: state.roster, blocked, archive, sessions: Vec::new() },
            links: Vec::new(),
            parted: VecDeque::new(),
            deliveries,
            last: state.last,
            told: Position::default(),
            told_since: 0,
            top: state.last,
            unresumed: None,
            recent: None,
            looked: false,
            refused: Refused::default(),
            copied: Copied::default(),
            since: Since::default(),
            reading: false,
            reach: Reach::Whole,
            rereading: false,
            tails: 0,
            leaving: false,
            doubt: None,
            failed: false,
            rows: 0,
            paused: Line::default(),
            answer_timer: false,
            crowded: false,
            count,
            waiting_traces: WaitingTraces::default(),
            strangers: Strangers::default(),
            asking: 0,
            questions: VecDeque::new(),
            touched: false,
            holds: false,
            listed: false,
            cursor_timer: false,
            departed: false,
            holders: Vec::new(),
            opening: None,
            heard: Heard::since(shared.clock.monotonic()),
            requests: Requests::default(),
            resend_timer: false,
            parted_timer: false,
            acts: 0,
            used: Duration::ZERO,
        })
    }

    /// Takes over what the store holds. Sessions stay, and what devices have acknowledged: the store learns of that
    /// from here.
    ///
    /// # Errors
    /// As [`load`](Self::load); nothing has changed then.
    pub(crate) fn believe(&mut self, state: AccountState, shared: &Shared) -> Result<(), StoreError> {
        (self.account.blocked, self.account.archive) = documents(&state, shared)?;
        self.account.roster = state.roster;
        self.last = self.last.max(state.last);
        self.top = self.top.max(state.last);
        Ok(())
    }

    /// Whether it is to be looked at at the end of the turn and is not yet listed for it. It is taken as listed.
    pub(crate) fn has_news(&mut self) -> bool {
        let news = self.touched || self.departed || (self.deliveries.is_dirty() && !self.cursor_timer);
        news && !std::mem::replace(&mut self.listed, true)
    }

    /// A row has been given to whom it concerns. Edges learn of that now and then, so that the next home need not look for what
    /// they may have missed among all that was never for them.
    pub(crate) fn tells(&mut self, position: Position) {
        self.told = self.told.max(position);
        self.told_since += 1;
        if self.told_since >= REMIND {
            self.told_since = 0;
            self.links.iter_mut().for_each(Link::note);
        }
    }

    /// A commit of it was not confirmed. What is being read may hold what will never be.
    pub(crate) fn doubts(&mut self) {
        self.tails += 1;
        let account = &self.account.jid;
        self.doubt.get_or_insert_with(|| Box::new(Doubt::of(account))).drain();
    }

    /// Whether what comes has to wait, whatever there is room for.
    pub(crate) fn is_held(&self) -> bool {
        self.reading || self.leaving || self.doubt.is_some() || self.opening.is_some()
    }

    /// Whether acts that follow from what it believed when they were decided are to fail.
    pub(crate) fn is_wrong(&self) -> bool {
        self.failed || self.doubt.as_ref().is_some_and(|doubt| doubt.is_draining())
    }

    /// How much it alone knows: questions that are being worked on, and what follows from changes that may not be there.
    pub(crate) fn owes(&self) -> usize {
        self.asking + self.doubt.as_ref().map_or(0, |doubt| doubt.held.len())
    }

    /// Whether nobody would miss it for a while.
    pub(crate) fn is_idle(&self) -> bool {
        let busy = self.asking > 0 || self.acts > 0 || self.is_held();
        self.links.is_empty() && self.parted.is_empty() && self.paused.is_empty() && !busy
    }

    /// A message of one of its sessions was refused and may be kept under this origin; `kept`: its own row certainly is.
    pub(crate) fn refuses(&mut self, message: &Fingerprint, origin: Origin, kept: bool, shared: &Shared) {
        let earlier = Earlier { origin, at: shared.clock.monotonic(), kept };
        self.refused.add(message, earlier, &shared.hasher);
    }

    /// Whether it is to be remembered which rows are decided: otherwise the tail is read before anything is looked for.
    pub(crate) fn minds(&self) -> bool {
        self.recent.is_some() || self.reading
    }

    /// The row of this message is decided: should the message come once more, that is to be noticed.
    pub(crate) fn keeps(&mut self, origin: Origin, message: &Fingerprint, shared: &Shared) {
        if !self.since.add(origin, message, self.reading, &shared.hasher) {
            self.recent = None;
        }
    }

    /// Whether the tail has to be read to know whether there is a row of this message, which this session says now: what it said
    /// up to `before` went to a home before this one.
    pub(crate) fn may_have(
        &self,
        origin: Origin,
        message: Option<&Fingerprint>,
        (session, before): (u128, Before),
        reach: Reach,
        shared: &Shared,
    ) -> bool {
        let Some(recent) = &self.recent else { return true };
        let found = |message| recent.find(message, session, before).is_some();
        let known = recent.has(origin) || message.is_some_and(found);
        let may = || self.since.may_have(origin, message, (session, before), &shared.hasher);
        !known && (!recent.tells(reach) || may())
    }

    /// What is known of a message that a session sends, if it was refused before.
    pub(crate) fn earlier(&self, stanza: &Stanza, now: Duration, shared: &Shared) -> Option<Earlier> {
        let own = &self.account.jid;
        let with = || stanza.to.as_ref().map_or_else(|| own.clone(), starling_xmpp::Jid::to_bare);
        self.refused.find(|| Fingerprint::of(own, &with(), stanza), now, &shared.hasher)
    }

    /// It is decided anew what becomes of a message that was refused: its row is there, or is being written.
    pub(crate) fn forgets(&mut self, stanza: &Stanza, shared: &Shared) {
        let own = &self.account.jid;
        let with = || stanza.to.as_ref().map_or_else(|| own.clone(), starling_xmpp::Jid::to_bare);
        self.refused.forget(|| Fingerprint::of(own, &with(), stanza), &shared.hasher);
    }

    /// Since when the message waits for an answer that does so longest.
    pub(crate) fn waits_since(&self) -> Option<Duration> {
        self.links.iter().filter_map(Link::waits_since).min()
    }

    /// Since when another home has not answered.
    pub(crate) fn unanswered_since(&self) -> Option<Duration> {
        let parted = self.parted.iter().map(|(_, link)| link).filter(|link| !link.is_past());
        self.links.iter().chain(parted).filter_map(Link::unanswered_since).min()
    }

    /// The session for which a connection may say something that counts: its own, or one that it had and that has to say what
    /// no home has handled.
    pub(crate) fn says(&self, conn: ConnId) -> Option<usize> {
        self.links.iter().position(|link| match &link.far {
            Some(far) if far.drains || link.conn.is_none() => far.built == Some(conn),
            _ => link.conn == Some(conn),
        })
    }

    /// Whether this session is here, or has parted.
    pub(crate) fn has(&self, token: Token) -> bool {
        self.find(token).is_some() || self.parted.iter().any(|(_, link)| link.token == token)
    }

    /// The clients of these sessions, which have ended, are back: what they have not heard of they say again.
    pub(crate) fn is_back(&mut self, whose: impl Fn(&Link) -> bool) {
        for (_, link) in self.parted.iter_mut().filter(|(_, link)| whose(link)) {
            link.mute = true;
            self.touched = true;
        }
    }

    /// The session that has sent something, over or not.
    pub(crate) fn sender(&mut self, token: Token) -> Option<&mut Link> {
        match self.find(token) {
            Some(at) => self.links.get_mut(at),
            None => self.parted.iter_mut().map(|(_, link)| link).find(|link| link.token == token),
        }
    }

    /// Sessions that are over, that the address of this one had before it, and whose client may not be back.
    pub(crate) fn before(&self, token: Token) -> impl Iterator<Item = &Link> {
        let own = self.account.session(token).map(|session| &session.jid);
        let parted = || self.parted.iter().map(|(_, link)| link);
        let own = own.or_else(|| parted().find(|link| link.token == token)?.address());
        let before = parted().take_while(move |link| link.token != token);
        before.filter(move |link| own.is_some_and(|jid| link.was(jid)) && !link.is_past())
    }

    /// All that this stanza of a session stands for is done.
    pub(crate) fn settle(&mut self, token: Token, sequence: u64) {
        if let Some(link) = self.sender(token) {
            link.settle(sequence);
            self.touched = true;
        }
    }

    /// Where this session is in the lists.
    pub(crate) fn find(&self, token: Token) -> Option<usize> {
        self.links.iter().position(|link| link.token == token)
    }

    /// Until when messages of this account may come a second time: the end of its last session that ended unresumed.
    pub(crate) fn lost_until(&self, shared: &Shared) -> Duration {
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
