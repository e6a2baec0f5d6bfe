//! Accounts of which only sessions are known: nothing is loaded for them until somebody needs it.

use super::attaching::Parked;
use super::*;
use crate::notes;

impl Worker {
    /// For an account of which only sessions are known. What only tells of one is kept with it; all else has it loaded.
    pub(super) fn parked(&mut self, turn: &mut Turn, account: BareJid, msg: Msg) {
        let Some(msg) = self.keep(turn, &account, msg) else { return };
        let Some(Slot::Parked(all)) = self.homes.get_mut(&account) else { return };
        let known = matches!(&msg, Msg::Edge(said) if all.iter().any(|parked| parked.conn == said.conn));
        if !known && msg.is_about_the_past() {
            return self.nobody(&msg);
        }
        let parked = std::mem::take(all);
        self.load_for(turn, account, msg, parked);
    }

    /// Keeps with a session that is not built yet what its connection tells of it; `Some` where it is something else, or of
    /// another one.
    pub(super) fn keep(&mut self, turn: &Turn, account: &BareJid, msg: Msg) -> Option<Msg> {
        let Msg::Edge(ToHome { conn, up, .. }) = &msg else { return Some(msg) };
        let all = match self.homes.get_mut(account) {
            Some(Slot::Parked(all) | Slot::Loading(_, all)) => all,
            Some(Slot::Ready(home)) => match &mut home.opening {
                Some(opening) => &mut opening.parked,
                None => return Some(msg),
            },
            None => return Some(msg),
        };
        let Some(parked) = all.iter_mut().find(|parked| parked.conn == *conn) else { return Some(msg) };
        match up {
            Up::Acknowledged { handled } => parked.acknowledged = Some(*handled),
            Up::Written { count } => parked.written = Some(*count),
            Up::ClientState { active } => parked.active = Some(*active),
            Up::Gone(_) if parked.cut => {}
            Up::Gone(leave) => {
                let since = *parked.gone.get_or_insert(turn.monotonic);
                parked.drained = true;
                parked.closed |= *leave == Leave::Closed;
                if parked.closed || !is_resumable(parked) {
                    // It is over once it is built.
                    self.backlog.push_back(Msg::Wake(account.clone()));
                } else {
                    let (at, token) = (since + self.shared.config.resume_timeout, parked.record.token);
                    self.timers.set(at, account.clone(), Why::Resume(token));
                }
            }
            _ => return Some(msg),
        }
        None
    }

    /// What is said of a session where none is: its edge may forget it.
    pub(super) fn nobody(&mut self, msg: &Msg) {
        if let Msg::Edge(ToHome { conn, up, .. }) = msg
            && self.shared.tier.is_some()
        {
            let mut out = Out { shared: &self.shared, downs: &mut self.downs, reads: &mut self.asked };
            unknown(&mut out, *conn, up);
        }
    }

    /// What a session said could not be decided on: it is to come back.
    pub(super) fn cut_parked(&mut self, account: &BareJid, conn: ConnId) {
        if let Some(Slot::Parked(all) | Slot::Loading(_, all)) = self.homes.get_mut(account)
            && let Some(parked) = all.iter_mut().find(|parked| parked.conn == conn)
        {
            (parked.gone, parked.cut) = (Some(self.shared.clock.monotonic()), true);
        }
        self.close(conn, LATER);
    }

    /// Its time to be resumed may be over.
    pub(super) fn parked_expired(&mut self, account: BareJid) {
        if let Some(Slot::Parked(_)) = self.homes.get(&account) {
            self.backlog.push_back(Msg::Wake(account));
        }
    }

    /// All sessions there are.
    pub(super) fn sessions(&self) -> Vec<SessionInfo> {
        let homes = self.homes.values().filter_map(|slot| match slot {
            Slot::Ready(home) => Some(home),
            Slot::Loading(..) | Slot::Parked(_) => None,
        });
        let parked = self.homes.values().flat_map(|slot| match slot {
            Slot::Ready(home) => home.opening.as_ref().map_or(&[][..], |opening| &opening.parked),
            Slot::Loading(_, parked) | Slot::Parked(parked) => parked,
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
            .chain(parked.filter_map(info))
            .collect()
    }
}

/// A session as it is listed.
pub(super) fn info(parked: &Parked) -> Option<SessionInfo> {
    let notes = notes::decode(&parked.record.notes)?;
    Some(SessionInfo {
        jid: parked.record.jid.clone(),
        available: notes.presence.is_some(),
        priority: notes.priority,
        detached: parked.gone.is_some(),
        stream_management: parked.record.management.is_some(),
        since: notes.since.0,
    })
}

/// Whether a session can be resumed once its connection is lost.
fn is_resumable(parked: &Parked) -> bool {
    let notes = || notes::decode(&parked.record.notes);
    parked.record.management.is_some() && notes().is_some_and(|notes| notes.resume)
}
