//! A session goes on over another connection (XEP-0198 §5).

use crate::act::What;
use crate::cluster::LocationOp;
use crate::delivery::{self, Out};
use crate::home::Home;
use crate::link::Link;
use crate::session::{count_too_high, cut, end, remember, too_high};
use crate::timers::Timers;
use crate::turn::Turn;
use crate::worker::ending::LATER;
use starling_node::telemetry::metrics::ResumeResult;
use starling_store::Position;
use starling_wire::{ConnId, Down, ToEdge, Token};
use starling_xmpp::{StreamCondition, StreamError, sm};

/// A connection wants to go on with a session (XEP-0198 §5).
pub(crate) fn resume(
    turn: &mut Turn,
    out: &mut Out<'_>,
    home: &mut Home,
    conn: ConnId,
    token: Token,
    handled: u32,
) {
    let found = home
        .find(token)
        .filter(|at| home.links[*at].management.as_ref().is_some_and(|management| management.resume));
    let fits = found.is_some_and(|at| {
        let link = &home.links[at];
        link.far.is_none() || out_of_count(link, handled).is_none()
    });
    // The question may have come while this process stood still, after the turn had begun.
    let shared = &turn.shared;
    if !fits && shared.tier.is_some() && !shared.positions.hold(shared.clock.monotonic()) {
        // Without a lease somebody else may have it by now, and what happened there is not known here.
        let error = StreamError::new(StreamCondition::SystemShutdown).with_text(LATER);
        return turn.act(home, What::Tell(conn, Down::Close(Some(Box::new(error)))));
    }
    let Some(at) = found else {
        turn.shared.metrics.resumptions.at(ResumeResult::NotFound).inc();
        return turn.act(home, What::Tell(conn, Down::NotResumed));
    };
    if home.links[at].far.is_some()
        && let Some(down) = out_of_count(&home.links[at], handled)
    {
        turn.shared.metrics.resumptions.at(ResumeResult::NotFound).inc();
        if matches!(down, Down::Close(_)) && home.links[at].far.as_ref().is_some_and(|far| far.believed) {
            // Its client has more than that edge ever had: what is known here is of long ago, and it would ask for ever.
            let error =
                StreamError::new(StreamCondition::Conflict).with_text("the session is over or elsewhere");
            end(turn, home, token, Some(error));
            return turn.act(home, What::Tell(conn, Down::NotResumed));
        }
        // It is no reason to take the session away from where it is. A connection of long ago may ask once more: its edge had no
        // answer. Or its client has lost count.
        return turn.act(home, What::Tell(conn, down));
    }
    let link = &mut home.links[at];
    if let Some(old) = link.conn.replace(conn).filter(|old| *old != conn) {
        let error = StreamError::new(StreamCondition::Conflict).with_text("resumed by another connection");
        out.downs.push(ToEdge { conn: old, down: Down::Close(Some(Box::new(error))) });
        if let Some(far) = link.far.as_mut().filter(|_| link.resuming.is_some()) {
            far.is_not_at(old);
            out.downs.push(ToEdge { conn: old, down: Down::Released });
        }
    }
    link.resuming = Some(handled);
    link.detached_at = None;
    link.written = 0;
    home.touched = true;
    let Some(far) = &mut link.far else { return };
    (far.quiet, far.cut) = (false, false);
    far.drains = far.built.is_some_and(|built| built != conn);
    if far.drains {
        turn.act(home, What::Drain(token));
    }
    let Some(far) = &mut home.links[at].far else { return };
    if let Some(holder) = far.goes_to(conn) {
        out.downs.push(ToEdge { conn: holder, down: Down::Released });
    }
    // Without a lease somebody else may have the session by now: only what is recorded tells.
    let sure = turn.shared.positions.hold(turn.monotonic);
    if far.edge == Some(conn.edge) && far.moving.is_none() && sure {
        return;
    }
    if far.moving != Some(conn) {
        far.moving = Some(conn);
        let (jid, edge, attempt) = (home.account.sessions[at].jid.clone(), conn.edge, far.attempt());
        let op = LocationOp::Move { jid, token, edge, attempt };
        turn.record(home, op, What::Moved(token, conn));
    }
}

/// What a client is answered that wants to resume and has handled less than it has said before, or more than it was sent.
fn out_of_count(link: &Link, handled: u32) -> Option<Down> {
    let management = link.management.as_ref()?;
    if sm::acked(management.acked, handled, management.sent).is_ok() {
        return None;
    }
    let behind = management.acked.wrapping_sub(handled) < 1 << 31;
    Some(if behind {
        Down::NotResumed
    } else {
        Down::Close(Some(Box::new(count_too_high(management, handled))))
    })
}

/// All has come that the connection before had to say.
pub(crate) fn drained(home: &mut Home, at: usize) {
    if let Some(far) = &mut home.links[at].far {
        (far.built, far.drains) = (None, false);
        home.touched = true;
    }
}

/// It is recorded that a session goes on there, or not.
pub(crate) fn moved(
    turn: &mut Turn,
    out: &mut Out<'_>,
    home: &mut Home,
    (token, conn): (Token, ConnId),
    recorded: bool,
    timers: &mut Timers,
) {
    let Some(at) = home.find(token) else { return };
    let link = &mut home.links[at];
    let Some(far) = link.far.as_mut().filter(|far| far.moving == Some(conn)) else { return };
    far.moving = None;
    far.edge = recorded.then_some(conn.edge);
    if recorded {
        far.stay = far.attempts;
        home.touched = true;
    } else if link.conn == Some(conn) {
        // It may come again, here or over another edge.
        let error = StreamError::new(StreamCondition::ResourceConstraint).with_text("not confirmed");
        out.downs.push(ToEdge { conn, down: Down::Close(Some(Box::new(error))) });
        cut(turn, home, at, timers);
    }
}

/// The rows of so many at the front of the queue, which are done with: those that were to be acknowledged, and the one up to
/// which nothing else is left. `given`: all up to there have been given to the session, and were acknowledged if they are not
/// in the queue any more.
fn passed(link: &Link, count: usize, given: Option<Position>) -> (Vec<Position>, Position) {
    let waited = link.queue.iter().take(count).filter(|entry| entry.waits).filter_map(|entry| entry.position);
    let left = link.queue.iter().skip(count).filter_map(|entry| entry.position).min();
    let done = link.queue.iter().take(count).filter_map(|entry| entry.position);
    let through = done.filter(|position| left.is_none_or(|left| *position < left)).max();
    let given = given.map(|given| left.map_or(given, |left| given.min(Position(left.0.saturating_sub(1)))));
    (waited.collect(), through.max(given).unwrap_or_default())
}

/// What its edge did not say before to a home of this reign, or could not, its client says now. Or something else: so nothing that
/// it says has a number under which a home before may have decided something. `h` is what is above the base, and stays.
fn numbers_on(link: &mut Link) {
    let Some(far) = link.far.as_mut().filter(|far| far.reborn) else { return };
    far.reborn = false;
    let left_out = far.numbers_on(link.received);
    link.received += left_out;
    link.was_decided(link.received);
    if let Some(management) = &mut link.management {
        management.base += left_out;
    }
}

/// Ends a resumption once all that the old connection sent is settled: the client's stanzas are counted, its unacknowledged ones sent again.
pub(crate) fn finish_resume(out: &mut Out<'_>, home: &mut Home, at: usize) {
    let (sure, told) = (home.doubt.is_none() && home.opening.is_none(), home.told);
    let link = &mut home.links[at];
    let moves = link.far.as_ref().is_some_and(|far| far.moving.is_some() || far.quiet || far.drains);
    if !link.is_settled() || link.mute || moves {
        return;
    }
    let (Some(handled), Some(conn)) = (link.resuming.take(), link.conn) else { return };
    if link.management.is_none() {
        return;
    }
    let newly = match link.acknowledged(handled) {
        Ok(newly) => newly as usize,
        Err(_) => {
            // It would come again with the same count, and the session would wait for it anew each time.
            too_high(out, home, at, handled);
            home.links[at].conn = None;
            return delivery::broken(out, home, at);
        }
    };
    let before = link.management.as_mut().map_or(0, |management| std::mem::take(&mut management.before));
    while link.was_answered(link.received + 1) {
        // Its client has that answer, or it is in the queue: it need not say it again, and is not to be answered twice.
        link.received += 1;
    }
    if let Some(far) = &mut link.far {
        far.passes_over(link.received);
    }
    numbers_on(link);
    let (sequence, base) = (link.received, link.management.as_ref().map_or(0, |management| management.base));
    link.announced = sequence;
    link.is_back(out.shared.clock.monotonic());
    let token = link.token;
    let jid = home.account.sessions[at].jid.clone();
    // Should this home be lost with the edge where the session was, before the new one has all of it, nobody else knows. What is
    // in doubt, or yet to be read, is behind what the session was given.
    let given = link.feed.begun.then(|| {
        let highest = link.far.as_ref().map_or(Position(0), |far| far.highest).min(link.feed.given());
        if sure && link.feed.is_live() { highest.max(told) } else { highest }
    });
    let passed = passed(link, before + newly, given);
    let had = link.first() + (before + newly) as u64 - 1;
    if let Some(far) = &mut home.links[at].far {
        far.goes_on(conn);
        far.is_told(conn);
        (far.gone, far.had, far.believed) = (None, had, false);
        far.passes(passed);
        let outdated = far.outdated(conn).into_iter();
        out.downs.extend(outdated.map(|conn| ToEdge { conn, down: Down::Released }));
    }
    if home.links[at].owes().is_none() {
        // Its client says all of it again, in another session.
        let link = &mut home.links[at];
        link.conn = None;
        link.far.iter_mut().for_each(|far| far.is_not_at(conn));
        out.downs.push(ToEdge { conn, down: Down::NotResumed });
        return delivery::broken(out, home, at);
    }
    // With the answer goes which of its moves it was, what its client has acknowledged by asking, and the errors for what the
    // count covers: nobody else may know of that. The rest follows when all of it is there.
    remember(out, home, at);
    out.downs.push(ToEdge { conn, down: Down::Resumed { jid, sequence, base } });
    delivery::taken(home, at, before + newly);
    delivery::send_again(out, home, at, 0);
    // XEP-0352 §5: a resumed stream is active, whatever was said on the one before.
    home.account.sessions[at].active = true;
    // The edge's answer to this says that it has it all: then the one before may forget it. It waits until all has gone.
    remember(out, home, at);
    delivery::release(out, home, at);
    out.shared.metrics.resumptions.at(ResumeResult::Ok).inc();
    home.touched = true;
    delivery::feed(out, home, token);
}
