//! Deliveries: numbering stanzas for a session, its window, and feeding it from the log.

use crate::home::{Home, Read};
use crate::link::{As, Link, Row};
use crate::msg::{Fed, Msg};
use crate::reads;
use crate::session::{self, remember};
use crate::shared::Shared;
use starling_hooks::carbon::{self, Way};
use starling_hooks::{Pace, delay};
use starling_node::telemetry::metrics::Limit;
use starling_store::{LogFilter, LogRow, Page, Position, StoreError};
use starling_wire::{Down, ToEdge, Token, Trace, refused};
use starling_xmpp::{
    BareJid, Element, IqType, Kind, Stanza, StanzaCondition, StreamCondition, StreamError, ns,
};
use std::sync::Arc;

/// How many stanzas may wait while nobody looks at the client (XEP-0352), and how many bytes of them.
const UNSEEN: (usize, usize) = (128, 256 << 10);
/// How many may wait for room; of bytes as many as may be unacknowledged. A session for which more would is too slow to be served.
const MAX_HELD: usize = 20_000;
/// How many rows are read for a session at once.
const PAGE: usize = 50;
/// How many positions of missed messages are remembered for a session; beyond that it is too slow to be served.
const MAX_MISSED: usize = 20_000;

/// Where deliveries go.
pub(crate) struct Out<'a> {
    pub(crate) shared: &'a Arc<Shared>,
    pub(crate) downs: &'a mut Vec<ToEdge>,
    /// What is to be looked up.
    pub(crate) reads: &'a mut Vec<Read>,
}

/// So much is said in one turn at most before what can wait does: whether a link takes it is seen when the turn is over.
const AT_ONCE: usize = 4_096;

impl Out<'_> {
    /// Whether the link to a session's edge has more to do than it should be given.
    pub(crate) fn is_pressed(&self, link: &Link) -> bool {
        let (Some(tier), Some(conn)) = (&self.shared.tier, link.conn) else { return false };
        self.downs.len() >= AT_ONCE || tier.edges.is_pressed(conn.edge)
    }
}

/// A stanza that is not in the log, for one session.
pub(crate) fn plain(out: &mut Out<'_>, home: &mut Home, token: Token, stanza: Stanza, trace: Option<Trace>) {
    say(out, home, token, 0, stanza, trace);
}

/// The same of a message that has come, which is not to overtake those that its sender has sent before and that are to be read
/// from the log (promise 4).
fn unlogged(out: &mut Out<'_>, home: &mut Home, token: Token, stanza: Stanza, trace: Option<Trace>) {
    let Some(at) = home.find(token) else { return };
    match home.links[at].feed.last() {
        Some(last) => {
            home.links[at].feed.behind.add(last, stanza, trace);
            bound(out, home, at);
        }
        None => say(out, home, token, 0, stanza, trace),
    }
}

/// Rows have gone to a session, and what came behind them follows.
fn follow(out: &mut Out<'_>, home: &mut Home, at: usize) {
    let token = home.links[at].token;
    loop {
        let feed = &mut home.links[at].feed;
        let given = feed.given();
        let Some((stanza, trace)) = feed.behind.take(given) else { return };
        say(out, home, token, 0, stanza, trace);
    }
}

/// The same with what answers a stanza of the session, if it does.
fn say(out: &mut Out<'_>, home: &mut Home, token: Token, answers: u64, stanza: Stanza, trace: Option<Trace>) {
    let Some(at) = home.find(token) else { return };
    if !home.account.sessions[at].active {
        let session = &home.account.sessions[at];
        let pace = out
            .shared
            .hooks
            .on_outgoing()
            .map(|hook| hook.outgoing(session, &stanza))
            .find(|pace| *pace != Pace::Now);
        match pace {
            Some(Pace::Never) => return,
            Some(Pace::Later) => return hold(out, home, at, stanza),
            Some(Pace::Now) | None => {}
        }
    }
    if !release(out, home, at) || !home.links[at].has_room(&out.shared.config) {
        return overflow(out, home, at, stanza);
    }
    let done = answers > 0 && matches!(stanza.kind, Kind::Iq(IqType::Result));
    // Whoever has the answer has what it says of the session: that copies are on, that pushes are wanted. Where that may not go
    // there yet, the next home is asked once more.
    let noted = !done || home.links[at].hears().is_none() || session::reminds(out, home, at);
    home.links[at].will_answer(if noted { answers } else { 0 });
    push(out, home, at, stanza, None, trace);
}

/// The same with what one of the session's own stanzas is answered, which it said under this sequence (0: that is settled). That is
/// said, or the session ends: its client would wait for ever.
pub(crate) fn answer(
    out: &mut Out<'_>,
    home: &mut Home,
    (token, sequence): (Token, u64),
    answer: Stanza,
    trace: Option<Trace>,
) {
    if let Some(at) = home.find(token) {
        let waits = !release(out, home, at);
        let link = &mut home.links[at];
        link.mute |= waits || !link.has_room(&out.shared.config);
    }
    say(out, home, token, sequence, answer, trace);
}

/// The same with an error for one of its stanzas: its client would believe that the stanza was taken (promise 1).
pub(crate) fn refusal(
    out: &mut Out<'_>,
    home: &mut Home,
    (token, sequence): (Token, u64),
    refusal: Stanza,
    trace: Option<Trace>,
) {
    let to = unconfirmed(&refusal);
    if let Some(at) = home.find(token).filter(|_| to.is_some() || is_put_off(&refusal)) {
        home.links[at].may_echo(out.shared.clock.monotonic());
        if home.links[at].far.as_ref().is_some_and(|far| far.news) {
            // Whoever is its home when its client has read this and says the message again, has to know that it may be there.
            remember(out, home, at);
        }
    }
    answer(out, home, (token, sequence), refusal, trace);
    if let (Some(to), Some(at)) = (to, home.find(token)) {
        home.links[at].refuses(to, sequence, out.shared.clock.monotonic());
    }
}

/// For whom the message was of which this says that it is not confirmed.
pub(crate) fn unconfirmed(answer: &Stanza) -> Option<BareJid> {
    refused(answer, StanzaCondition::ResourceConstraint)
}

/// Whether it says that a message, which its sender may have in its log, is to be sent again: whom it is for is not there yet.
pub(crate) fn is_put_off(answer: &Stanza) -> bool {
    refused(answer, StanzaCondition::RecipientUnavailable).is_some()
}

/// A committed message for the sessions it concerns.
pub(crate) fn committed(
    out: &mut Out<'_>,
    home: &mut Home,
    to: &[(Token, As)],
    stanza: &Stanza,
    position: Option<Position>,
    offline: bool,
    trace: Option<Trace>,
) {
    let Some(position) = position else {
        for (token, how) in to {
            let stanza = dress(home, *token, *how, stanza);
            if let Some(stanza) = stanza {
                unlogged(out, home, *token, stanza, trace);
            }
        }
        return;
    };
    let stanza = with_id(out.shared, &home.account.jid, position, stanza);
    let mut taken = false;
    let nobody = !to.iter().any(|(token, how)| *how == As::Itself && home.find(*token).is_some());
    for (token, how) in to {
        let Some(at) = home.find(*token) else { continue };
        // Older ones wait until it is available; a newer one does not overtake them (promise 4).
        let deliveries = &home.deliveries;
        let any = || deliveries.waiting_above().is_some();
        let older = || offline && (nobody || any());
        let untaken = offline && !taken;
        let waits = |other| if other == position { untaken } else { deliveries.wants(other) };
        if home.links[at].feed.holds(position, *how, older, any, waits) {
            // Those that do not wait any more.
            feed(out, home, *token);
            continue;
        }
        // A copy is no delivery: whoever the message itself is for has yet to get it.
        let counts = offline && *how == As::Itself;
        if counts {
            taken = true;
            home.deliveries.offered(position, *token);
        }
        // Older ones that may yet turn up are not overtaken.
        let straight = home.doubt.is_none() && home.links[at].feed.is_live();
        if straight && takes(out, home, at) {
            if let Some(stanza) = dress(home, *token, *how, &stanza) {
                push(out, home, at, stanza, Some(Row { position, waits: counts }), trace);
            }
        } else if home.links[at].feed.missed.len() < MAX_MISSED {
            home.links[at].feed.missed.push_back((position, *how));
            home.waiting_traces.add(position, trace);
            feed(out, home, *token);
        } else {
            too_slow(out, home, at);
        }
    }
    if offline && !taken {
        home.deliveries.kept(position);
        home.waiting_traces.add(position, trace);
        if to.iter().any(|(_, how)| *how == As::Itself) {
            home.count.add(stanza.encoded_len());
        }
        // Whom it was for may have ended since that was decided, when this did not wait yet. One that has just come, or was
        // built, is fed in its turn; one that has a copy knows it.
        let is_fed = |heir: &Token| {
            home.find(*heir).is_some_and(|at| home.links[at].feed.begun)
                && !to.iter().any(|(token, _)| token == heir)
        };
        if let Some(heir) =
            session::heir(home).filter(|heir| nobody && home.opening.is_none() && is_fed(heir))
        {
            session::feed(out, home, heir, position);
        }
    }
}

/// The stanza as this session sees it; `None` when the session is gone.
fn dress(home: &Home, token: Token, how: As, stanza: &Stanza) -> Option<Stanza> {
    let session = home.account.session(token)?;
    Some(match how {
        As::Itself => stanza.clone(),
        As::CopyReceived => carbon::copy(Way::Received, &home.account.jid, &session.jid, stanza),
        As::CopySent => carbon::copy(Way::Sent, &home.account.jid, &session.jid, stanza),
    })
}

/// The stanza with its archive id (XEP-0359 §4).
pub(crate) fn with_id(shared: &Shared, owner: &BareJid, position: Position, stanza: &Stanza) -> Stanza {
    let id = shared.server.archive_ids.encode(owner, position);
    let mut stanza = stanza.clone();
    stanza.payload = stanza
        .payload
        .with(&Element::new(ns::SID, "stanza-id").attr("by", owner.as_str()).attr("id", id.as_str()));
    stanza
}

/// Whether one more row fits the session's window, behind all that was held back.
fn takes(out: &mut Out<'_>, home: &mut Home, at: usize) -> bool {
    let window = out.shared.config.window;
    home.links[at].can_take(&out.shared.config, window)
        && release(out, home, at)
        && home.links[at].can_take(&out.shared.config, window)
}

/// Counts a stanza for its session and sends it.
pub(crate) fn push(
    out: &mut Out<'_>,
    home: &mut Home,
    at: usize,
    stanza: Stanza,
    row: Option<Row>,
    trace: Option<Trace>,
) {
    let link = &mut home.links[at];
    if let Some(conn) = link.hears() {
        out.downs.push(ToEdge { conn, down: link.next(stanza.clone(), row, trace) });
        home.touched = true;
    }
    link.queue(stanza, row, trace);
}

/// Sends a session once more what it has not acknowledged, above this number: as much as the link to its edge takes. The rest
/// stays in the queue, with what is new, until it [goes on](go_on).
pub(crate) fn send_again(out: &mut Out<'_>, home: &mut Home, at: usize, after: u64) {
    let link = &home.links[at];
    let room = if out.is_pressed(link) { 0 } else { AT_ONCE.saturating_sub(out.downs.len()) };
    let room = if link.far.is_some() { room } else { usize::MAX };
    send_so_many(out, home, at, after, room);
}

pub(crate) fn send_so_many(out: &mut Out<'_>, home: &mut Home, at: usize, after: u64, room: usize) {
    let link = &mut home.links[at];
    if let Some(far) = &mut link.far {
        far.gone = None;
    }
    let Some(conn) = link.hears() else { return };
    home.touched = true;
    let (mut sent, mut gone) = (after, None);
    for (index, down) in link.queued(after).enumerate() {
        if index >= room {
            gone = Some(sent);
            break;
        }
        if let Down::Stanza { number, .. } = &down {
            sent = *number;
        }
        out.downs.push(ToEdge { conn, down });
    }
    let Some(far) = &mut link.far else { return };
    far.gone = gone;
    if gone.is_none() && !far.whole {
        // It was resumed, and all of it has been sent there, now or before.
        far.from = far.highest;
        far.carried = far.unsaved.clone();
        far.whole = true;
    }
}

/// Goes on with what its link had no room for.
pub(crate) fn go_on(out: &mut Out<'_>, home: &mut Home, at: usize) {
    let link = &mut home.links[at];
    let (token, there) = (link.token, link.conn.is_some() && link.resuming.is_none());
    let Some(far) = &mut link.far else { return };
    (far.knocks, far.starved) = (false, false);
    // One that its edge has yet to name is told all of it then.
    if let Some(sent) = far.gone.filter(|_| there && !far.quiet) {
        let whole = far.whole;
        session::reminds(out, home, at);
        send_again(out, home, at, sent);
        if !whole {
            remember(out, home, at);
        }
    }
    feed(out, home, token);
}

/// What can wait does, for nobody looks at the client.
fn hold(out: &mut Out<'_>, home: &mut Home, at: usize, stanza: Stanza) {
    let held = &mut home.links[at].held;
    held.add(stanza);
    if held.exceeds(UNSEEN.0, UNSEEN.1) && !release(out, home, at) {
        bound(out, home, at);
    }
}

/// Sends what was held back, in order, as far as there is room for it. Whether that was all of it.
pub(crate) fn release(out: &mut Out<'_>, home: &mut Home, at: usize) -> bool {
    while home.links[at].has_room(&out.shared.config)
        && let Some(stanza) = home.links[at].held.take()
    {
        push(out, home, at, stanza, None, None);
    }
    let held = &mut home.links[at].held;
    held.stuck = !held.is_empty();
    !held.stuck
}

/// A session has no room for what cannot wait in the log. A request of somebody else is answered, and nothing of
/// it is lost; the rest waits here until its client has acknowledged more, with what follows it. A session that nobody is
/// connected to ends: its client would believe that it has everything.
fn overflow(out: &mut Out<'_>, home: &mut Home, at: usize, stanza: Stanza) {
    out.shared.metrics.limits.at(Limit::SmUnacked).inc();
    let link = &mut home.links[at];
    let own = stanza.from.as_ref().is_none_or(|from| from.as_str() == home.account.jid.as_str());
    let is_answered = !own && matches!(stanza.kind, Kind::Iq(IqType::Get | IqType::Set));
    let over = link.mute || link.conn.is_none() && !is_answered;
    match stanza.kind {
        _ if is_answered => {
            let error = starling_xmpp::StanzaError::new(StanzaCondition::ResourceConstraint);
            if let Some(answer) = stanza.error(&error) {
                crate::route::route(out.shared, &home.account.jid, answer, 1, None);
            }
        }
        _ if over => {}
        _ => {
            link.held.add(stanza);
            link.held.stuck = true;
            bound(out, home, at);
        }
    }
    if over {
        broken(out, home, at);
    }
}

/// A session ends for which too much waits.
fn bound(out: &Out<'_>, home: &Home, at: usize) {
    let (link, bytes) = (&home.links[at], out.shared.config.max_unacked_bytes);
    if link.held.exceeds(MAX_HELD, bytes) || link.feed.behind.exceeds(MAX_HELD, bytes) {
        broken(out, home, at);
    }
}

fn too_slow(out: &mut Out<'_>, home: &mut Home, at: usize) {
    out.shared.metrics.limits.at(Limit::SmUnacked).inc();
    match home.links[at].conn {
        // In a cluster it is over only when the home says so.
        Some(_) if home.links[at].far.is_some() => broken(out, home, at),
        Some(conn) => out.downs.push(ToEdge { conn, down: Down::Close(Some(Box::new(too_much()))) }),
        None => broken(out, home, at),
    }
}

/// A session ends: here it is in the midst of acts, so its home is told.
pub(crate) fn broken(out: &Out<'_>, home: &Home, at: usize) {
    let (account, token) = (home.account.jid.clone(), home.links[at].token);
    out.shared.send(&home.account.jid, Msg::Broken { account, token });
}

/// Why such a session ends.
pub(crate) fn too_much() -> StreamError {
    StreamError::new(StreamCondition::PolicyViolation)
        .with_text("too slow: more waits than can be remembered")
}

/// Reads more for a session when there is more, room for it, nothing is being read and nothing in doubt.
pub(crate) fn feed(out: &mut Out<'_>, home: &mut Home, token: Token) {
    let Some(at) = home.find(token).filter(|_| home.doubt.is_none()) else { return };
    let link = &mut home.links[at];
    let idle = link.conn.is_some() && link.resuming.is_none() && !link.feed.busy;
    if !idle || link.feed.is_live() || !link.can_take(&out.shared.config, out.shared.config.window / 2 + 1) {
        return;
    }
    if out.is_pressed(link) {
        // It waits in the log.
        if let Some(far) = &mut link.far {
            far.starved = true;
        }
        home.touched = true;
        return;
    }
    let account = home.account.jid.clone();
    link.feed.busy = true;
    // In the order of the log: what was missed before the stretch that is to be read, then the stretch up to the next
    // one that was missed.
    let next = link.feed.missed.front().map(|(position, _)| *position);
    match link.feed.waiting {
        Some((from, through)) if next.is_none_or(|next| next > from) => {
            let reach = next.map_or(through, |next| next.min(through));
            let filter = LogFilter {
                offline: true,
                above: Some(from),
                below: Some(Position(reach.0 + 1)),
                ..LogFilter::default()
            };
            let page = out.shared.store.log_page(&account, filter, Page::First(PAGE));
            out.reads.push(Box::pin(async move {
                let rows = reads::caught(page).await.map(|page| {
                    let reached = page.reached.or_else(|| page.complete.then_some(reach));
                    Fed::Page(page.rows, reached)
                });
                Msg::Rows { account, token, rows }
            }));
        }
        waiting => {
            let due = |position: Position| waiting.is_none_or(|(from, _)| position <= from);
            let missed = link.feed.missed.iter().map(|(position, _)| *position);
            let positions: Vec<_> = missed.take_while(|position| due(*position)).take(PAGE).collect();
            let rows = out.shared.store.log_rows(&account, positions.clone());
            out.reads.push(Box::pin(async move {
                let rows = reads::caught(rows).await.map(|rows| Fed::Known(positions, rows));
                Msg::Rows { account, token, rows }
            }));
        }
    }
}

/// Rows have been read for a session.
pub(crate) fn fed(out: &mut Out<'_>, home: &mut Home, token: Token, rows: Result<Fed, StoreError>) {
    let Some(at) = home.find(token) else { return };
    home.links[at].feed.busy = false;
    match rows {
        Ok(Fed::Page(rows, reach)) => waiting_page(out, home, at, rows, reach),
        Ok(Fed::Known(asked, rows)) => missed_rows(out, home, at, &asked, rows),
        Err(error) => {
            tracing::warn!(event = "feed_failed", %error, "waiting messages could not be read");
            // The client would wait for ever: it may come back and try again.
            if let Some(conn) = home.links[at].conn {
                let error = StreamError::new(StreamCondition::InternalServerError);
                out.downs.push(ToEdge { conn, down: Down::Close(Some(Box::new(error))) });
            }
            return;
        }
    }
    follow(out, home, at);
    feed(out, home, token);
}

fn waiting_page(out: &mut Out<'_>, home: &mut Home, at: usize, rows: Vec<LogRow>, reach: Option<Position>) {
    let Some((mut from, through)) = home.links[at].feed.waiting else { return };
    let token = home.links[at].token;
    let span = home.waiting_traces.feed(&out.shared.tracer, rows.iter().map(|row| row.position));
    for row in rows {
        let position = row.position;
        if !takes(out, home, at) {
            // The rest is read again when the client has acknowledged.
            return;
        }
        if home.deliveries.wants(position) {
            home.deliveries.offered(position, token);
            home.links[at].feed.came(position);
            home.count.remove(row.stanza.len());
            if let Some(stanza) = stored(out.shared, home, &row) {
                let trace = home.waiting_traces.is_fed(position, &span);
                push(out, home, at, stanza, Some(Row { position, waits: true }), trace);
            }
        }
        home.deliveries.read_through(from, position);
        from = position;
        home.links[at].feed.waiting = Some((from, through));
        follow(out, home, at);
    }
    let Some(reach) = reach else { return };
    home.deliveries.read_through(from, reach);
    if reach < through {
        home.links[at].feed.waiting = Some((reach, through));
        return;
    }
    if home.deliveries.waiting_above().is_none() {
        home.count.clear();
    }
    // A session may have ended meanwhile, and what it had lies below what was just read.
    let again = home.links[at].feed.again.take();
    let sent = home.links[at].far.as_ref().map_or(Position(0), |far| far.sent);
    let above = home.deliveries.waiting_above().map(|above| above.max(sent));
    home.links[at].feed.waiting = above.zip(again).filter(|(above, through)| above < through);
}

fn missed_rows(out: &mut Out<'_>, home: &mut Home, at: usize, asked: &[Position], rows: Vec<LogRow>) {
    let token = home.links[at].token;
    let span = home.waiting_traces.feed(&out.shared.tracer, rows.iter().map(|row| row.position));
    let mut rows = rows.into_iter().peekable();
    // What was missed since then has not been asked for.
    for asked in asked {
        let Some((position, how)) = home.links[at].feed.missed.front().copied() else { return };
        if position != *asked || !takes(out, home, at) {
            return;
        }
        home.links[at].feed.missed.pop_front();
        let row = rows.next_if(|row| row.position == position);
        if row.is_none() && how == As::Itself {
            // It has expired, or its write was in doubt and has not been: nobody waits for it.
            home.deliveries.acknowledged(position);
        }
        if let Some(row) = row
            && let Some(stanza) = stored(out.shared, home, &row)
            && let Some(stanza) = dress(home, token, how, &stanza)
        {
            let waits = row.offline && how == As::Itself;
            let trace = home.waiting_traces.is_fed(position, &span);
            push(out, home, at, stanza, Some(Row { position, waits }), trace);
        }
        follow(out, home, at);
    }
}

/// A row as it is delivered late: with its id and when it was sent (XEP-0203).
fn stored(shared: &Shared, home: &Home, row: &LogRow) -> Option<Stanza> {
    let stanza = Stanza::decode(row.stanza.clone()).ok()?;
    let stanza = with_id(shared, &home.account.jid, row.position, &stanza);
    Some(delay::stamped(&stanza, home.account.jid.domain(), row.position.timestamp()))
}

/// The client has this many more: what waits for room goes on.
pub(crate) fn acknowledged(out: &mut Out<'_>, home: &mut Home, at: usize, count: usize) {
    let token = home.links[at].token;
    taken(home, at, count);
    if home.links[at].held.stuck {
        release(out, home, at);
    }
    feed(out, home, token);
}

/// The client has this many more; their rows are done with.
pub(crate) fn taken(home: &mut Home, at: usize, count: usize) {
    for _ in 0..count {
        let Some(entry) = home.links[at].unqueue() else { break };
        if let Some(position) = entry.position.filter(|_| entry.waits) {
            home.deliveries.acknowledged(position);
            if let Some(far) = &mut home.links[at].far {
                far.acknowledged(position);
            }
        }
    }
    home.touched = true;
}
