//! Sessions from before this reign, built again from what their edges keep of them.

use crate::cluster::Place;
use crate::delivery;
use crate::far::{self, Far};
use crate::home::{Home, Read};
use crate::im::recipients::{Recipients, recipients};
use crate::link::{As, Link, Management, Row};
use crate::msg::Msg;
use crate::notes::{self, Notes};
use crate::owed;
use crate::reads;
use crate::requests;
use crate::session;
use crate::shared::Shared;
use crate::turn::Turn;
use starling_hooks::{Fate, Flow, Session, roster_push};
use starling_store::{Direction, LogFilter, LogRow, Page, Position};
use starling_wire::{ConnId, Down, Epoch, Record, ToEdge, Token};
use starling_xmpp::{IqType, Kind, Stanza};
use std::sync::Arc;
use std::time::Duration;

/// How many rows are read at once that are decided again for sessions which may not have been sent them.
const UNSENT: usize = 256;
/// How many pages of them are read. What waits beyond that is fed as what waited while nobody was there; of what does not, copies
/// do not come.
const MAX_PAGES: usize = 16;

/// A session that its edge has named and whose account nobody has touched yet.
#[derive(Debug)]
pub(crate) struct Parked {
    pub(crate) conn: ConnId,
    pub(crate) record: Box<Record>,
    /// Up to where its edge has what it is sent.
    pub(crate) named: u64,
    /// In which attachment of its edge.
    pub(crate) attachment: u64,
    /// What its connection has said since.
    pub(crate) acknowledged: Option<u32>,
    pub(crate) written: Option<u64>,
    pub(crate) active: Option<bool>,
    /// When it lost its connection (monotonic).
    pub(crate) gone: Option<Duration>,
    /// The home has closed that.
    pub(crate) cut: bool,
    /// Its client has ended it.
    pub(crate) closed: bool,
    /// It is being recorded, for the table was lost; it is waited for that until then (monotonic).
    pub(crate) adopted: Option<Duration>,
    /// Its edge has nothing more to say of what was before this reign.
    pub(crate) drained: bool,
    /// Connections that the session had before, of which something is kept.
    pub(crate) others: Vec<ConnId>,
}

impl Opening {
    /// Rows up to there have been read; whether to read on.
    pub(crate) fn reads_on(&mut self, rows: &[LogRow], complete: bool) -> bool {
        self.read = rows.last().map(|row| row.position).or(self.read);
        self.pages += 1;
        !complete && !rows.is_empty() && self.pages < MAX_PAGES
    }
}

impl Parked {
    /// As it was named at this moment.
    pub(crate) fn new(conn: ConnId, record: Box<Record>, attachment: u64, now: Duration) -> Self {
        let gone = record.detached.map(|ago| now.saturating_sub(ago));
        let named = record.received;
        Self {
            conn,
            record,
            named,
            attachment,
            acknowledged: None,
            written: None,
            active: None,
            gone,
            cut: false,
            closed: false,
            adopted: None,
            drained: false,
            others: Vec::new(),
        }
    }

    /// Whether its queue is what it says it is: anything else cannot be gone on with.
    pub(crate) fn is_whole(&self) -> bool {
        let Record { queue, received, .. } = &*self.record;
        let contiguous = queue.iter().rev().zip(0..).all(|(queued, back)| queued.number + back == *received);
        let counting = queue.iter().skip_while(|queued| !queued.counts);
        contiguous && counting.into_iter().all(|queued| queued.counts)
    }
}

/// An account that is not open yet: its edges have yet to name its sessions, or the log is read for them.
#[derive(Debug, Default)]
pub(crate) struct Opening {
    pub(crate) parked: Vec<Parked>,
    /// Sessions that have just been built, and the highest row that each may have been sent.
    pub(crate) built: Vec<(Token, Position)>,
    /// Up to where the log was read for them, and how many pages.
    pub(crate) read: Option<Position>,
    pub(crate) pages: usize,
    /// The log is being read, or is to be.
    pub(crate) reading: bool,
    /// Above what it is to be read as soon as all rows decided before are committed, or not.
    pub(crate) above: Option<Position>,
    /// It is in the list of those that wait for edges.
    pub(crate) listed: bool,
}

/// Takes over what another record of the session has beyond this one, whose edge was given it only in part.
pub(crate) fn merge(parked: &mut Parked, other: &Record) {
    let own = &mut *parked.record;
    let acked = |record: &Record| record.management.map_or(0, |counting| counting.acknowledged);
    // What the client had when it came to the edge of this one.
    let mut had = if own.received == 0 { acked(own).wrapping_sub(acked(other)) } else { 0 };
    for queued in other.queue.iter().filter(|queued| queued.number > own.received) {
        // Who has resumed has had all that came before `<enabled/>`, which no `h` counts.
        let done = had > 0 || !queued.counts;
        had -= u32::from(had > 0 && queued.counts);
        if !done {
            own.queue.push(queued.clone());
        } else if let Some(position) = queued.position.filter(|_| queued.waits) {
            own.acknowledged.push(position);
        }
    }
    own.received = own.received.max(other.received);
    own.highest = own.highest.max(other.highest);
    own.acknowledged.extend(&other.acknowledged);
}

/// Builds a session that is recorded there; returns the highest row that it may have been sent.
pub(crate) fn build(
    out: &mut delivery::Out<'_>,
    home: &mut Home,
    parked: &Parked,
    notes: Notes,
    place: &Place,
) -> Position {
    let Parked { conn, record, .. } = parked;
    let there = conn.edge == place.edge;
    let mut session = Session::new(record.token, record.jid.clone());
    session.presence = notes.presence;
    session.priority = notes.priority;
    session.carbons = notes.carbons;
    session.interested = notes.interested;
    session.watches_blocks = notes.watches_blocks;
    session.active = parked.active.unwrap_or(notes.active);
    session.directed = notes.directed;

    let mut link = Link::new(record.token, *conn, notes.since);
    let (last, _) = far::named(place.attempt);
    let mut far = Far::new(*conn, notes.from);
    (far.bound, far.news, far.cut, far.reborn) = (true, false, parked.cut, true);
    (far.whole, far.lacks) = (notes.whole, notes.before);
    (far.again, far.after) = (notes.again, notes.after);
    far.believed = notes.believed || record.epoch.era() < Epoch(out.shared.positions.epoch()).era();
    far.edge = (there && notes.stay == last).then_some(place.edge);
    far.is_at(notes.stay, last);
    far.holders.insert_many(0, parked.others.iter().copied());
    far.built = (!parked.drained).then_some(*conn);
    let asked = record.asked.iter().copied().chain(std::iter::repeat(0));
    far.answered = record.answered.iter().copied().zip(asked).collect();
    // Of these it was not told.
    far.replied = notes.replied.into_iter().filter(|(sequence, _)| *sequence > record.handled).collect();
    far.answered.extend(&far.replied);
    far.answered.sort_unstable_by_key(|(sequence, _)| *sequence);
    far.answered.dedup_by_key(|(sequence, _)| *sequence);
    (far.listed, far.noted) = (notes.listed, notes.listed);
    let queued = record.queue.iter().map(|queued| &queued.stanza);
    let replies = queued.filter(|stanza| matches!(stanza.kind, Kind::Iq(IqType::Result | IqType::Error)));
    far.replies = replies.map(|reply| requests::answered_by(reply, &home.account.jid)).collect();
    notes.replies.into_iter().for_each(|request| far.has_reply(request));
    link.far = Some(Box::new(far));
    (link.received, link.announced, link.before) = (record.handled, record.handled, record.handled);
    let counting = record.queue.iter().filter(|queued| queued.counts).count();
    for queued in &record.queue {
        let row = queued.position.map(|position| Row { position, waits: queued.waits });
        link.keep(queued.stanza.clone(), row, None);
        if let Some(row) = row.filter(|row| row.waits && home.deliveries.may_wait(row.position)) {
            home.deliveries.offered(row.position, record.token);
        }
    }
    for position in record.acknowledged.iter().chain(&notes.acknowledged) {
        home.deliveries.was_acknowledged(*position);
        if let Some(far) = &mut link.far {
            far.acknowledged(*position);
        }
    }
    if let Some(far) = &mut link.far {
        far.carried = notes.acknowledged;
        far.highest = far.highest.max(record.highest.unwrap_or_default());
        // Rows that went to it over other edges, its present one knows nothing of.
        far.sent = record.highest.unwrap_or_default().max(notes.sent);
    }
    link.sent = record.received;
    link.far.iter_mut().for_each(|far| far.told = parked.named);
    link.echoes = notes.echoes.then(|| out.shared.clock.monotonic());
    for queued in &record.queue {
        if let Some(to) = delivery::unconfirmed(&queued.stanza) {
            link.was_refused(to, queued.number, out.shared.clock.monotonic());
        }
    }
    for (to, through) in &record.spoken {
        link.had_spoken(to.clone(), *through, out.shared.clock.monotonic());
    }
    if record.first > 0 {
        link.written = link.first().saturating_sub(record.first);
    }
    link.management = record.management.map(|counted| {
        let own = u32::try_from(counting).unwrap_or(u32::MAX);
        Box::new(Management {
            resume: notes.resume,
            max: notes.max,
            base: counted.base,
            acked: counted.acknowledged,
            sent: counted.acknowledged.wrapping_add(own),
            before: record.queue.len() - counting,
            asked_at: None,
        })
    });
    link.may_resend = notes.may_resend;
    // The home before may have been lost between its presence and what follows from that.
    link.feed.begun = notes.begun || session.is_available();
    link.feed.sent = notes.ceased;
    if parked.gone.is_some() || !there {
        (link.conn, link.detached_at) = (None, parked.gone);
    }
    let highest = record.highest.unwrap_or_default().max(notes.from);
    owed::fetch(home, &mut link, record, &notes.rows, highest);
    home.account.sessions.push(session);
    home.links.push(link);
    if home.links.iter().any(|link| link.echoes.is_some()) {
        // What one has yet to say may have been said by another that was bound beside it.
        home.links.iter_mut().for_each(|link| link.may_echo(out.shared.clock.monotonic()));
    }
    requests::inherit(out.shared, home, record.token, (notes.asked, notes.over));
    // The next home has to know that this is the one, and all of it, whatever moves were recorded and never came about.
    // Where more follows, that is said behind it ([`is_all_there`]); but answers that it has only in its notes have other
    // numbers now.
    let follows = |link: &Link| link.conn.is_some() && link.far.as_ref().is_some_and(|far| !far.whole);
    if let Some((session, link)) = home.account.sessions.last().zip(home.links.last())
        && (!follows(link) || !notes.owed.is_empty())
    {
        out.downs.push(ToEdge { conn: *conn, down: Down::Remember(notes::encode(session, link)) });
    }
    highest
}

/// The home before may have been lost with what it told a session of the roster. A client that is not told that its session is
/// over relies on that (RFC 6121 §2.1.6).
pub(crate) fn tell_changes(turn: &mut Turn, home: &mut Home, token: Token) {
    let version = home.account.roster.version;
    let Some(at) = home.find(token).filter(|at| home.account.sessions[*at].interested) else { return };
    let Some(far) = &mut home.links[at].far else { return };
    let since = *far.listed.get_or_insert(version);
    if since >= version {
        return;
    }
    turn.decide(home, Some(at), |cx| {
        let changes = roster_push::changes(&cx.account.roster, since, usize::MAX);
        for (version, item) in changes.unwrap_or_default() {
            cx.session
                .into_iter()
                .for_each(|session| roster_push::push_to(cx, session, item.clone(), version));
        }
    });
}

/// All that its client has not acknowledged has been sent to where it is: nothing has to be taken any more from an edge where it was.
pub(crate) fn is_all_there(out: &mut delivery::Out<'_>, home: &mut Home, at: usize) {
    let Some(far) = &mut home.links[at].far else { return };
    if far.gone.is_none() {
        // Of what went elsewhere before, this edge knows only by its notes.
        far.from = far.highest;
        far.carried = far.unsaved.clone();
        far.whole = true;
    }
    session::remember(out, home, at);
}

/// Reads the rows that sessions which were built may not have been sent, if that is to be done.
pub(crate) fn read(shared: &Shared, home: &mut Home) -> Option<Read> {
    let above = home.opening.as_mut()?.above.take()?;
    let account = home.account.jid.clone();
    let filter = LogFilter { above: Some(above), ..LogFilter::default() };
    let page = shared.store.log_page(&account, filter, Page::First(UNSENT));
    Some(Box::pin(async move {
        let rows = reads::caught(page).await.map(|page| (page.rows, page.complete));
        Msg::Unsent { account, rows }
    }))
}

/// Rows that the sessions which were just built may not have been sent: decided again for these, nobody else. They go out
/// from the log, in order and before what is newer.
pub(crate) fn decide(
    turn: &mut Turn,
    home: &mut Home,
    built: &[(Token, Position)],
    rows: &[LogRow],
    complete: bool,
) {
    let lowest = built.iter().map(|(_, highest)| *highest).min();
    for row in rows {
        let (position, waits) = (row.position, row.offline && home.deliveries.may_wait(row.position));
        for (token, how) in concerned(turn, home, row) {
            let unsent = built.iter().any(|(own, highest)| *own == token && *highest < position);
            let Some(at) = home.find(token).filter(|_| unsent) else { continue };
            let deliveries = &home.deliveries;
            let wants = |position| deliveries.wants(position);
            let any = || deliveries.waiting_above().is_some();
            if home.links[at].feed.holds(position, how, || row.offline, any, wants) {
                // It waits until the session is available, with all that waits.
                continue;
            }
            if waits && how == As::Itself && !home.deliveries.offered(position, token) {
                // It has been read for it meanwhile, with what waits.
                continue;
            }
            home.links[at].feed.missed.push_back((position, how));
        }
        if waits {
            home.deliveries.waits(position);
        }
    }
    if complete && let Some(lowest) = lowest {
        home.deliveries.known_above(lowest);
    }
}

/// Whom a row concerns, as it is decided now.
fn concerned(turn: &mut Turn, home: &Home, row: &LogRow) -> Vec<(Token, As)> {
    let mut all = Vec::new();
    let Ok(stanza) = Stanza::decode(row.stanza.clone()) else { return all };
    let (Kind::Message(kind), Some(to)) = (stanza.kind, stanza.to.clone()) else { return all };
    let mut add = |tokens: &[Token], how: As| {
        for token in tokens {
            if !all.iter().any(|(known, _)| known == token) {
                all.push((*token, how));
            }
        }
    };
    let shared = Arc::clone(&turn.shared);
    if row.direction != Direction::Out {
        let mut fate = Fate::default();
        if let Recipients::To(sessions) = recipients(&home.account, &to, kind) {
            fate.recipients = sessions;
        }
        let mut stanza = stanza.clone();
        let flow = turn.consult(home, None, |cx| {
            let mut hooks = shared.hooks.on_received().map(|hook| hook.received(cx, &mut stanza, &mut fate));
            hooks.find(|flow| *flow != Flow::Next).unwrap_or(Flow::Next)
        });
        if flow == Flow::Next {
            add(&fate.recipients, As::Itself);
            add(&fate.copies, As::CopyReceived);
        }
    }
    if row.direction != Direction::In {
        let (mut stanza, mut fate) = (stanza, Fate::default());
        // Said again, it has the origin of a session before.
        let resource = stanza.from.as_ref().and_then(|from| home.account.resource(from));
        let sender = resource.map_or(Token(row.origin.session), |session| session.token);
        let flow = turn.consult(home, home.find(sender), |cx| {
            let mut hooks = shared.hooks.on_sent().map(|hook| hook.sent(cx, &mut stanza, &mut fate));
            hooks.find(|flow| *flow != Flow::Next).unwrap_or(Flow::Next)
        });
        if flow == Flow::Next {
            fate.copies.retain(|token| *token != sender);
            add(&fate.copies, As::CopySent);
        }
    }
    all
}

/// The edge's word on how far things are, for a session that the home has: its link was broken. Returns how many of the queue
/// are done with.
pub(crate) fn catch_up(link: &mut Link, record: &Record) -> usize {
    link.announced = link.announced.min(record.handled);
    let done = record.queue.first().map_or(record.received, |first| first.number.saturating_sub(1));
    let count = usize::try_from((done + 1).saturating_sub(link.first())).unwrap_or(0).min(link.queue.len());
    link.written += count as u64;
    if let Some(management) = &mut link.management {
        let uncounted = count.min(management.before);
        management.before -= uncounted;
        let counted = u32::try_from(count - uncounted).unwrap_or(u32::MAX);
        management.acked = management.acked.wrapping_add(counted);
        // What it was asked may be lost with the link.
        management.asked_at = None;
    }
    count
}
