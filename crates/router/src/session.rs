//! The life of a session: bound, managed, detached, resumed, ended.

use crate::act::What;
use crate::cluster::LocationOp;
use crate::config::Conflict;
use crate::decide;
use crate::delivery::{self, Out};
use crate::far::Far;
use crate::home::Home;
use crate::link::{As, Feed, Link, Management};
use crate::notes;
use crate::recognise::GRACE;
use crate::timers::{Timers, Why};
use crate::turn::Turn;
use compact_str::CompactString;
use starling_hooks::Session;
use starling_store::Position;
use starling_wire::{ConnId, Down, Leave, ToEdge, Token};
use starling_xmpp::{
    BareJid, Element, ErrorType, IqType, Kind, Stanza, StanzaCondition, StanzaError, StreamCondition,
    StreamError, ns,
};
use std::time::Duration;

/// A connection wants a resource (RFC 6120 §7).
pub(crate) fn bind(
    turn: &mut Turn,
    home: &mut Home,
    conn: ConnId,
    token: Token,
    resource: Option<CompactString>,
) {
    if let Some(at) = home.find(token) {
        return bound_already(turn, home, at, conn);
    }
    if let Some(link) = home.links.iter_mut().find(|link| link.conn == Some(conn)) {
        // Its edge knows nothing of that one: it was refused first, and bound when the question came a second time.
        let old = link.token;
        link.conn = None;
        link.far.iter_mut().for_each(|far| far.is_not_at(conn));
        end(turn, home, old, None);
    }
    let resource = match resource {
        Some(resource) if !resource.is_empty() => resource,
        // RFC 6120 §7.6: unique and not to be guessed.
        _ => starling_node::ids::short().into(),
    };
    let Ok(jid) = home.account.jid.with_resource(&resource) else {
        return refuse_bind(turn, home, conn, StanzaError::new(StanzaCondition::BadRequest));
    };
    if !turn.shared.positions.hold(turn.monotonic) {
        // Whoever may reign instead has the say in who is there.
        return refuse_bind(turn, home, conn, decide::message::not_confirmed());
    }
    if let Some(old) = home.account.resource(&jid).map(|session| session.token) {
        if turn.shared.config.conflict == Conflict::Refuse
            && home.find(old).is_some_and(|at| home.links[at].conn.is_some())
        {
            return refuse_bind(turn, home, conn, StanzaError::new(StanzaCondition::Conflict));
        }
        let error = StreamError::new(StreamCondition::Conflict).with_text("replaced by a new session");
        end(turn, home, old, Some(error));
    } else if home.links.len() >= turn.shared.config.max_resources {
        let error = StanzaError::new(StanzaCondition::ResourceConstraint)
            .with_type(ErrorType::Wait)
            .with_text("too many resources");
        return refuse_bind(turn, home, conn, error);
    }
    let edges = turn.shared.tier.is_some();
    if home.links.iter().any(|link| edges || link.conn.is_none() && link.may_resend) {
        // Whoever could resume that session may be the one who comes now, and will say again what it is not sure of.
        home.unresumed = Some(turn.monotonic);
    }
    if edges {
        // And may say it before its edge does, which may be cut off.
        home.links.iter_mut().for_each(|link| link.may_echo(turn.monotonic));
    }
    // Without stream management it does not know what was taken.
    home.is_back(|link| link.management.is_some() && link.was(&jid));
    home.touched = true;
    home.account.sessions.push(Session::new(token, jid.clone()));
    let mut link = Link::new(token, conn, turn.now);
    let window = turn.shared.config.resume_timeout + GRACE;
    let alone = home.links.is_empty() && home.parted.is_empty() && home.opening.is_none();
    if !alone || turn.monotonic < home.lost_until(&turn.shared) + window {
        // What sessions of before or beside it have said may be said again over it.
        link.echoes = Some(turn.monotonic);
    }
    if turn.shared.tier.is_none() {
        home.links.push(link);
        return turn.act(home, What::Tell(conn, Down::Bound { jid }));
    }
    link.far = Some(Box::new(Far::new(conn, home.last)));
    home.links.push(link);
    turn.record(home, LocationOp::Bind { jid, token, edge: conn.edge }, What::Bound(token));
}

/// The same question once more: the answer was lost, or has yet to come.
fn bound_already(turn: &mut Turn, home: &mut Home, at: usize, conn: ConnId) {
    let link = &mut home.links[at];
    let (token, own) = (link.token, link.conn == Some(conn));
    match &mut link.far {
        Some(far) if own => {
            far.quiet = false;
            if far.bound {
                far.repeats = true;
                turn.act(home, What::Bound(token));
            }
        }
        _ => refuse_bind(turn, home, conn, StanzaError::new(StanzaCondition::Conflict)),
    }
}

/// A session is recorded and may begin, or not.
pub(crate) fn bound(turn: &mut Turn, out: &mut Out<'_>, home: &mut Home, token: Token, recorded: bool) {
    let Some(at) = home.find(token) else { return };
    let (link, session) = (&mut home.links[at], &home.account.sessions[at]);
    let (Some(conn), Some(far)) = (link.conn, &mut link.far) else { return };
    if !recorded {
        let error = Box::new(decide::message::not_confirmed());
        out.downs.push(ToEdge { conn, down: Down::Refused(error) });
        // Its stream stays open: it may ask again.
        far.holders.clear();
        link.conn = None;
        return end(turn, home, token, None);
    }
    (far.bound, far.repeats) = (true, false);
    if far.quiet {
        // It asks again.
        return;
    }
    let jid = session.jid.clone();
    remember(out, home, at);
    out.downs.push(ToEdge { conn, down: Down::Bound { jid } });
    delivery::send_again(out, home, at, 0);
}

/// Has the edge remember what the home knows of the session, as it is now. How many bytes that are.
pub(crate) fn remember(out: &mut Out<'_>, home: &mut Home, at: usize) -> usize {
    let sure = home.doubt.is_none() && home.opening.is_none();
    let link = &mut home.links[at];
    let hears = link.hears().is_some();
    let all = sure && hears && link.feed.is_live() && link.feed.begun;
    let (Some(conn), Some(far)) = (link.conn, &mut link.far) else { return 0 };
    if !far.whole && far.gone.is_some() {
        // It would say that it has all of a session that was resumed.
        far.news = true;
        return 0;
    }
    far.news = false;
    if all && far.whole {
        // What it was to be sent of these went over this link before.
        far.from = far.from.max(home.told);
    }
    if hears && far.whole {
        far.noted = far.listed;
    }
    let notes = notes::encode(&home.account.sessions[at], &home.links[at]);
    let bytes = notes.len();
    out.downs.push(ToEdge { conn, down: Down::Remember(notes) });
    bytes
}

/// Has the edge remember what has changed of the session, if anything has. False where that may not go there yet.
pub(crate) fn reminds(out: &mut Out<'_>, home: &mut Home, at: usize) -> bool {
    let now = out.shared.clock.monotonic();
    let Some(far) = home.links[at].far.as_ref().filter(|far| far.news && far.bound) else { return true };
    if now < far.rests {
        return false;
    }
    let bytes = remember(out, home, at);
    if let Some(far) = &mut home.links[at].far {
        far.rest(now, bytes);
    }
    true
}

fn refuse_bind(turn: &mut Turn, home: &mut Home, conn: ConnId, error: StanzaError) {
    turn.act(home, What::Tell(conn, Down::Refused(Box::new(error))));
}

/// `<enable/>` (XEP-0198 §3).
pub(crate) fn enable(out: &mut Out<'_>, home: &mut Home, at: usize, resume: bool, max: Option<u32>) {
    let limit = u32::try_from(out.shared.config.resume_timeout.as_secs()).unwrap_or(u32::MAX);
    let link = &mut home.links[at];
    let Some(conn) = link.conn else { return };
    let unheard = link.far.as_mut().is_some_and(|far| std::mem::take(&mut far.unheard));
    let down = if let Some(management) = link.management.as_ref().filter(|_| unheard) {
        let (resume, base) = (management.resume, management.base);
        let resume = resume.then(|| management.max.map_or(limit, |max| max.min(limit)));
        Down::SmEnabled { resume, base }
    } else if link.management.is_some() {
        Down::SmFailed
    } else {
        let base = link.received;
        let max = max.filter(|max| *max > 0);
        link.management = Some(Box::new(Management {
            resume,
            max,
            base,
            acked: 0,
            sent: 0,
            before: link.queue.len(),
            asked_at: None,
        }));
        Down::SmEnabled { resume: resume.then(|| max.map_or(limit, |max| max.min(limit))), base }
    };
    // Whoever is told that a session can be resumed has to know what of it cannot be counted.
    remember(out, home, at);
    out.downs.push(ToEdge { conn, down });
    if unheard {
        let link = &mut home.links[at];
        let before = link.management.as_ref().map_or(0, |management| management.before as u64);
        let after = link.first() + before - 1;
        if let Some(far) = &mut link.far {
            far.quiet = false;
        }
        delivery::send_again(out, home, at, after);
    }
}

/// `<a/>` (XEP-0198 §4).
pub(crate) fn acknowledged(out: &mut Out<'_>, home: &mut Home, at: usize, handled: u32) {
    match home.links[at].acknowledged(handled) {
        Ok(newly) => {
            let before = home.links[at]
                .management
                .as_mut()
                .map_or(0, |management| std::mem::take(&mut management.before));
            // What was written before `<enabled/>` was read before whatever is acknowledged now.
            let before = if newly > 0 { before } else { restore_before(home, at, before) };
            delivery::acknowledged(out, home, at, before + newly as usize);
        }
        Err(_) => {
            too_high(out, home, at, handled);
            if home.links[at].far.is_some() {
                home.links[at].conn = None;
                delivery::broken(out, home, at);
            }
        }
    }
}

fn restore_before(home: &mut Home, at: usize, before: usize) -> usize {
    if let Some(management) = &mut home.links[at].management {
        management.before = before;
    }
    0
}

pub(crate) fn too_high(out: &mut Out<'_>, home: &Home, at: usize, handled: u32) {
    let link = &home.links[at];
    let (Some(conn), Some(management)) = (link.conn, &link.management) else { return };
    let error = count_too_high(management, handled);
    out.downs.push(ToEdge { conn, down: Down::Close(Some(Box::new(error))) });
}

pub(crate) fn count_too_high(management: &Management, handled: u32) -> StreamError {
    let app = Element::new(ns::SM, "handled-count-too-high")
        .attr("h", compact_str::format_compact!("{handled}"))
        .attr("send-count", compact_str::format_compact!("{}", management.sent));
    StreamError::new(StreamCondition::UndefinedCondition).with_app(app)
}

/// The edge has written this many stanzas over the connection.
pub(crate) fn written(out: &mut Out<'_>, home: &mut Home, at: usize, count: u64) {
    let link = &mut home.links[at];
    let newly = usize::try_from(count.saturating_sub(link.written)).unwrap_or(usize::MAX);
    link.written = link.written.max(count);
    let done = match &mut link.management {
        None => newly,
        Some(management) => {
            let done = newly.min(management.before);
            management.before -= done;
            done
        }
    };
    if done > 0 {
        delivery::acknowledged(out, home, at, done);
    }
}

/// A connection is gone with its edge. What ends a session comes so much later: many are gone at once, and their contacts
/// hear of it at a pace that routers can keep.
pub(crate) fn lost(turn: &mut Turn, home: &mut Home, at: usize, later: Duration, timers: &mut Timers) {
    let link = &mut home.links[at];
    let resumable = link.management.as_ref().is_some_and(|management| management.resume);
    if !resumable && !later.is_zero() {
        home.departed = true;
        (link.conn, link.resuming) = (None, None);
        timers.set(turn.monotonic + later, home.account.jid.clone(), Why::Resume(link.token));
        return;
    }
    leaves(turn, home, at, Leave::Lost, later, timers);
}

/// A connection is gone.
pub(crate) fn gone(turn: &mut Turn, home: &mut Home, at: usize, leave: Leave, timers: &mut Timers) {
    leaves(turn, home, at, leave, Duration::ZERO, timers);
}

fn leaves(turn: &mut Turn, home: &mut Home, at: usize, leave: Leave, later: Duration, timers: &mut Timers) {
    home.departed = true;
    let resumable = home.links[at].management.as_ref().is_some_and(|management| management.resume);
    let token = home.links[at].token;
    if leave == Leave::Closed || !resumable {
        return end(turn, home, token, None);
    }
    let detached: Vec<_> = home
        .links
        .iter()
        .filter(|link| link.conn.is_none())
        .map(|link| (link.detached_at, link.token))
        .collect();
    if detached.len() >= turn.shared.config.detached_per_account
        && let Some((_, oldest)) = detached.into_iter().min_by_key(|(since, _)| *since)
    {
        end(turn, home, oldest, None);
    }
    let Some(at) = home.find(token) else { return };
    let link = &mut home.links[at];
    if let (Some(conn), Some(_), Some(far)) = (link.conn, link.resuming, &mut link.far) {
        far.is_not_at(conn);
    }
    link.conn = None;
    link.resuming = None;
    link.detached_at = Some(turn.monotonic);
    if let Some(management) = &mut link.management {
        management.asked_at = None;
    }
    let over = turn.monotonic + turn.shared.config.resume_timeout + later;
    timers.set(over, home.account.jid.clone(), Why::Resume(token));
}

/// A session leaves its connection, which the home is about to close: what is said of that is not about it any more.
pub(crate) fn cut(turn: &mut Turn, home: &mut Home, at: usize, timers: &mut Timers) {
    if let Some(far) = &mut home.links[at].far {
        far.cut = true;
    }
    gone(turn, home, at, Leave::Lost, timers);
}

/// A session is over: which of its connections its edges may forget at once. The others when the cursor is kept: should this home
/// be lost before, only they know what need not come again.
pub(crate) fn ended(home: &mut Home, link: &Link) -> Vec<ConnId> {
    let Some(far) = &link.far else { return Vec::new() };
    if far.unsaved.is_empty() && far.carried.is_empty() || home.holders.len() >= MOST_HOLDERS {
        return far.holders.to_vec();
    }
    home.holders.extend(far.holders.iter().copied());
    home.deliveries.is_to_be_written();
    home.departed = true;
    Vec::new()
}

/// Connections of sessions that are over and whose edges are yet to forget them, of one account; more are told at once.
const MOST_HOLDERS: usize = 64;

/// Ends a session for good: its presence, what it had not acknowledged, its place.
pub(crate) fn end(turn: &mut Turn, home: &mut Home, token: Token, error: Option<StreamError>) {
    let Some(at) = home.find(token) else { return };
    let before = home.account.sessions[at].is_available();
    turn.decide(home, Some(at), crate::im::presence::session_ended);
    home.account.sessions[at].presence = None;
    decide::presence_hooks(turn, home, at, before);
    let mut link = home.links.remove(at);
    let session = home.account.sessions.remove(at);
    if let (Some(conn), Some(error)) = (link.conn, error) {
        turn.act(home, What::Tell(conn, Down::Close(Some(Box::new(error)))));
    }
    let parts = link.waits_for_others();
    if link.far.is_some() {
        if parts {
            link.far.iter_mut().for_each(|far| far.parted = Some(session.jid.clone()));
        } else {
            for holder in ended(home, &link) {
                turn.act(home, What::Tell(holder, Down::Released));
            }
            turn.unbinds.push(LocationOp::Unbind { jid: session.jid, token });
        }
    }
    if link.may_resend {
        home.unresumed = Some(turn.monotonic);
        home.links.iter_mut().for_each(|link| link.may_echo(turn.monotonic));
        home.touched = true;
    }
    home.requests.forget(token);
    home.deliveries.dropped(token);
    waits_again(home, &link);
    for entry in std::mem::take(&mut link.queue) {
        // Who asked has one answer, and is to get no other (RFC 6120 §8.2.3).
        let Some(stanza) = entry.stanza.filter(|_| !entry.answered) else { continue };
        if let Kind::Iq(IqType::Get | IqType::Set) = stanza.kind
            && stanza
                .from
                .as_ref()
                .is_some_and(|from| from.local().is_some() && from.as_str() != home.account.jid.as_str())
        {
            decide::bounce(turn, home, &stanza, &StanzaError::new(StanzaCondition::ServiceUnavailable));
        }
    }
    if parts && link.far.is_some() {
        (link.conn, link.feed) = (None, Feed::default());
        home.parted.push_back((turn.monotonic, link));
        home.touched = true;
    }
    hand_over(turn, home);
}

/// What only a session that has ended had been sent, or was to be, counts as waiting.
fn waits_again(home: &mut Home, link: &Link) {
    for entry in &link.queue {
        if entry.waits && entry.position.is_some_and(|position| home.deliveries.wants(position)) {
            home.count.add(entry.size as usize);
        }
    }
    let mut missed = link.feed.missed.iter().filter(|(_, how)| *how == As::Itself);
    if missed.any(|(position, _)| home.deliveries.wants(*position)) {
        // How large these are is not known.
        home.count.miss();
    }
}

/// What waits for nobody goes to the heir.
fn hand_over(turn: &mut Turn, home: &mut Home) {
    if let Some(token) = heir(home) {
        turn.feed(home, token);
    }
}

/// Who gets what waits for nobody, if anything does: the most available session, rather one that is connected.
pub(crate) fn heir(home: &Home) -> Option<Token> {
    home.deliveries.waiting_above()?;
    let sessions = home.account.sessions.iter().zip(&home.links);
    let heir = sessions
        .filter(|(session, _)| session.takes_bare())
        .max_by_key(|(session, link)| (link.conn.is_some(), session.priority));
    heir.map(|(session, _)| session.token)
}

/// A session may be given what waits up to this row.
pub(crate) fn feed(out: &mut Out<'_>, home: &mut Home, token: Token, through: Position) {
    let Some(at) = home.find(token) else { return };
    // It may have ceased to be available since this was decided.
    let begins = home.account.sessions[at].is_available() && home.links[at].feed.begins();
    if begins {
        home.links[at].note();
        home.touched = true;
    }
    if !home.account.sessions[at].takes_bare() {
        return delivery::feed(out, home, token);
    }
    let link = &mut home.links[at];
    let sent = if begins { link.feed.sent } else { link.far.as_ref().map_or(Position(0), |far| far.sent) };
    if link.feed.waiting.is_some() {
        link.feed.again = link.feed.again.max(Some(through));
    } else if let Some(above) = home.deliveries.waiting_above()
        // What another session leaves behind and is older than what this one has seen waits for the next (promise 1).
        && let above = above.max(sent)
        && above < through
    {
        link.feed.waiting = Some((above, through));
    }
    delivery::feed(out, home, token);
}

/// What was acknowledged is kept by the store now: up to where for each session, and who may forget one that is over.
pub(crate) fn saved(out: &mut Out<'_>, home: &mut Home, saved: &[(Token, Position)], holders: Vec<ConnId>) {
    home.holders.retain(|conn| !holders.contains(conn));
    out.downs.extend(holders.into_iter().map(|conn| ToEdge { conn, down: Down::Released }));
    for (token, through) in saved {
        let Some(at) = home.find(*token) else { continue };
        let link = &mut home.links[at];
        let (Some(conn), Some(far)) = (link.hears(), &mut link.far) else { continue };
        if far.saved < *through {
            far.saved = *through;
            far.unsaved.retain(|position| *position > *through);
            far.carried.retain(|position| *position > *through);
            out.downs.push(ToEdge { conn, down: Down::Saved { through: *through } });
        }
    }
}

/// The home goes, and with it what waits for its cursor.
pub(crate) fn release_all(downs: &mut Vec<ToEdge>, home: &mut Home) {
    let holders = std::mem::take(&mut home.holders).into_iter();
    downs.extend(holders.map(|conn| ToEdge { conn, down: Down::Released }));
}

/// Tells edges that they may forget a session.
pub(crate) fn release(downs: &mut Vec<ToEdge>, link: &Link) {
    if let Some(far) = &link.far {
        downs.extend(far.holders.iter().map(|conn| ToEdge { conn: *conn, down: Down::Released }));
    }
}

/// The home pings a client that has been silent (XEP-0199 §4.1).
pub(crate) fn ping(turn: &mut Turn, home: &mut Home, at: usize) {
    let session = &home.account.sessions[at];
    let (token, to) = (session.token, session.jid.clone());
    turn.next_id += 1;
    let mut ping = Stanza::iq(IqType::Get).child(Element::new(ns::PING, "ping"));
    ping.id = Some(compact_str::format_compact!("ping{:x}", turn.next_id));
    ping.from = BareJid::parse(to.domain()).ok().map(Into::into);
    ping.to = Some(to.into());
    turn.act(home, What::Deliver(token, ping, None));
}
