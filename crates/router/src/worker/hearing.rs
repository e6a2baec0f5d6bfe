//! What connections say to a home that can decide.

use super::*;

/// A message of one of the account's connections.
pub(super) fn from_edge(
    turn: &mut Turn,
    out: &mut Out<'_>,
    home: &mut Home,
    message: ToHome,
    timers: &mut Timers,
) {
    let ToHome { conn, up, .. } = message;
    match up {
        Up::Bind { token, resource } => return session::bind(turn, home, conn, token, resource),
        Up::Resume { token, handled } => return resuming::resume(turn, out, home, conn, token, handled),
        Up::Gone(Leave::Never) => {
            let all = home.links.iter_mut().filter_map(|link| link.far.as_mut());
            all.for_each(|far| far.never_came(|other| other == conn));
        }
        _ => {}
    }
    let Some(at) = home.links.iter().position(|link| link.conn == Some(conn)) else {
        return elsewhere(turn, out, home, conn, up);
    };
    match up {
        Up::Stanza { .. } => {
            if let Up::Stanza { sequence, .. } = &up
                && home.links[at].has_missed(*sequence)
            {
                // What came before it could not be taken. Its client comes back, and says all of it again.
                session::cut(turn, home, at, timers);
                let error = StreamError::new(StreamCondition::SystemShutdown).with_text(LATER);
                out.downs.push(ToEdge { conn, down: Down::Close(Some(Box::new(error))) });
            } else if home.links[at].resuming.is_none() {
                stanza(turn, home, at, up);
            }
        }
        Up::EnableSm { resume, max } => session::enable(out, home, at, resume, max),
        Up::Acknowledged { handled } => {
            if home.links[at].has_refusals()
                && let Some(sequence) = home.paused.last_of(conn)
            {
                // That came before, and waits: it is not to be taken for something said after an error was read.
                home.links[at].spoke_before(sequence);
            }
            session::acknowledged(out, home, at, handled);
        }
        Up::Written { count } => session::written(out, home, at, count),
        Up::ClientState { active } => {
            if std::mem::replace(&mut home.account.sessions[at].active, active) != active {
                home.links[at].note();
                home.touched = true;
            }
            if active {
                delivery::release(out, home, at);
            }
        }
        Up::Idle => session::ping(turn, home, at),
        Up::Gone(leave) => {
            let link = &mut home.links[at];
            if link.hears() == Some(conn)
                && let Some(far) = &mut link.far
            {
                far.told = link.sent;
            }
            if home.links[at].far.as_ref().is_some_and(|far| far.built == Some(conn)) {
                resuming::drained(home, at);
            }
            session::gone(turn, home, at, leave, timers);
        }
        Up::Bind { .. } | Up::Resume { .. } | Up::Attach(_) => {}
    }
}

/// A connection speaks whose session is not here: it is late (the session went on elsewhere, and its connection has been told
/// so), or the session was lost with its home. Either way it ends, and its client comes back.
pub(super) fn unknown(out: &mut Out<'_>, conn: ConnId, up: &Up) {
    if matches!(up, Up::Gone(_)) && out.shared.tier.is_some() {
        out.downs.push(ToEdge { conn, down: Down::Released });
    }
    if matches!(up, Up::Stanza { .. } | Up::EnableSm { .. } | Up::Idle) {
        let error = StreamError::new(StreamCondition::Reset).with_text("the session is not known any more");
        out.downs.push(ToEdge { conn, down: Down::Close(Some(Box::new(error))) });
    }
}

/// The same where a session may have been at the connection before.
fn elsewhere(turn: &mut Turn, out: &mut Out<'_>, home: &mut Home, conn: ConnId, up: Up) {
    if let (Up::Stanza { .. }, Some(at)) = (&up, home.says(conn)) {
        // It was said before the session left that connection, to a home before this one.
        return stanza(turn, home, at, up);
    }
    let holds = |link: &Link| link.far.as_ref().is_some_and(|far| far.holders.contains(&conn));
    let Some(at) = home.links.iter().position(holds) else {
        let parted = home.parted.iter().any(|(_, link)| holds(link) && !link.is_past());
        if matches!(up, Up::Gone(_)) && (parted || home.holders.contains(&conn)) {
            // It is told when its messages have their answers, and when the cursor is kept.
            return;
        }
        return unknown(out, conn, &up);
    };
    let Up::Gone(leave) = up else { return unknown(out, conn, &up) };
    let link = &home.links[at];
    let far = link.far.as_ref();
    let last = far.is_some_and(|far| far.holders.last() == Some(&conn) && !far.cut);
    let resumable = link.management.as_ref().is_some_and(|management| management.resume);
    if (leave == Leave::Closed || !resumable) && last && link.conn.is_none() {
        // It had lost its connection, as far as was known here.
        let token = link.token;
        return session::end(turn, home, token, None);
    }
    if far.is_some_and(|far| far.built == Some(conn)) {
        resuming::drained(home, at);
    }
}

/// A stanza of a session, over a connection that it has or had.
fn stanza(turn: &mut Turn, home: &mut Home, at: usize, up: Up) {
    let Up::Stanza { sequence, stanza, fault, trace, again } = up else { return };
    if home.links[at].has_missed(sequence) {
        return;
    }
    if home.links[at].has_taken(sequence) {
        // It came before the link was broken; whether it is handled is told again.
        home.touched = true;
    } else if home.links[at].was_answered(sequence)
        || home.links[at].had_answer(sequence, &stanza, &home.account.jid)
    {
        // By the home before this one, behind one that had no answer yet (or which its edge was not told).
        let link = &mut home.links[at];
        link.take(sequence);
        link.settle(sequence);
        link.was_decided(sequence);
        home.touched = true;
    } else {
        decide::sent(turn, home, at, decide::Said { sequence, stanza, fault, trace, again });
    }
}

/// Whether a message is of a connection that has no session here yet.
pub(super) fn is_of_another(home: &Home, msg: &Msg) -> bool {
    let Msg::Edge(message) = msg else { return false };
    !home.links.iter().any(|link| link.conn == Some(message.conn))
}
