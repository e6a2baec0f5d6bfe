//! Deadlines of homes.

use super::*;
use starling_store::{Cursor, Position};
use starling_wire::Token;

impl Worker {
    /// Deadlines that are over.
    pub(super) fn expire(&mut self, turn: &mut Turn) {
        while let Some((account, why)) = self.timers.due(turn.monotonic) {
            self.guard(&account, |worker| worker.is_over(turn, &account, why));
        }
    }

    /// One of them.
    fn is_over(&mut self, turn: &mut Turn, account: &BareJid, why: Why) {
        match why {
            Why::Patience => {
                self.lose_patience(turn, account);
                return;
            }
            Why::Open => {
                self.open_due(turn, account);
                return;
            }
            Why::Resend => {
                self.resend(turn, account);
                self.touch(account);
                return;
            }
            _ => {}
        }
        let home = match self.homes.get_mut(account) {
            Some(Slot::Ready(home)) => home,
            Some(Slot::Parked(_)) if matches!(why, Why::Resume(_)) => {
                self.parked_expired(account.clone());
                return;
            }
            _ => return,
        };
        match why {
            Why::Unsent => self.read_unsent(turn, account),
            Why::Lost => self.end_lost(turn, account),
            Why::Unseen(token) => self.unseen(turn, account, token),
            Why::Drain(token) => {
                if let Some(at) = home.find(token) {
                    resuming::drained(home, at);
                }
            }
            Why::Notes(token) => {
                if let Some(far) = home.find(token).and_then(|at| home.links[at].far.as_mut()) {
                    far.waits = false;
                    home.touched = true;
                }
            }
            Why::Room(token) => {
                if let Some(at) = home.find(token) {
                    let mut out =
                        Out { shared: &self.shared, downs: &mut self.downs, reads: &mut self.asked };
                    delivery::go_on(&mut out, home, at);
                }
            }
            Why::Arrived(token) => {
                let far = home.find(token).and_then(|at| home.links[at].far.as_mut());
                let others = far.map(|far| far.settled()).unwrap_or_default();
                self.downs.extend(others.into_iter().map(|conn| ToEdge { conn, down: Down::Released }));
            }
            // It is looked at with the turn's end.
            Why::Parted => (home.parted_timer, home.touched) = (false, true),
            Why::Reload => {
                if home.doubt.as_ref().is_some_and(|doubt| doubt.is_due(turn.monotonic)) {
                    self.reload(turn, account);
                }
                return;
            }
            Why::Feed(token) => {
                if let Some(at) = home.find(token) {
                    home.links[at].feed.busy = false;
                    let mut out =
                        Out { shared: &self.shared, downs: &mut self.downs, reads: &mut self.asked };
                    delivery::feed(&mut out, home, token);
                }
                return;
            }
            Why::Patience | Why::Open | Why::Resend | Why::Count => return,
            Why::Answer => self.give_up(turn, account),
            Why::Request => self.give_up_requests(turn, account),
            Why::Tail => {
                // With a doubt it is read when that is settled.
                if home.rereading && home.doubt.is_none() {
                    self.asked.push(tail::read(&self.shared, home));
                }
                return;
            }
            Why::Cursor => {
                home.cursor_timer = false;
                if self.pipeline.has_room() {
                    self.write_cursor(turn, account);
                } else {
                    home.cursor_timer = true;
                    self.timers.set(turn.monotonic + CURSOR_DELAY, account.clone(), Why::Cursor);
                }
            }
            Why::Resume(token) => {
                let over = home.find(token).is_some_and(|at| {
                    let link = &home.links[at];
                    let resumable = link.management.as_ref().is_some_and(|management| management.resume);
                    let gone = !resumable && link.far.is_some();
                    link.conn.is_none() && gone
                        || link.conn.is_none()
                            && link
                                .detached_at
                                .is_some_and(|at| at + turn.shared.config.resume_timeout <= turn.monotonic)
                });
                if over {
                    session::end(turn, home, token, None);
                }
            }
            Why::Acknowledge(token) => {
                let Some(at) = home.find(token) else { return };
                let link = &mut home.links[at];
                link.awaited = false;
                let Some(management) = &mut link.management else { return };
                let (Some(asked), Some(conn)) = (management.asked_at, link.conn) else { return };
                let deadline = asked + turn.shared.config.ack_timeout;
                if deadline > turn.monotonic {
                    // It has answered since, and was asked again.
                    link.awaited = true;
                    self.timers.set(deadline, account.clone(), why);
                    return;
                }
                // The transport is as good as dead. The session leaves it first: it can be resumed, and what the
                // edge says of the closed connection is no longer about it.
                session::cut(turn, home, at, &mut self.timers);
                let error =
                    StreamError::new(StreamCondition::ConnectionTimeout).with_text("no acknowledgement");
                self.downs.push(ToEdge { conn, down: Down::Close(Some(Box::new(error))) });
            }
            Why::Evict => {
                let window = turn.shared.config.resume_timeout + GRACE;
                // What is not looked at any more can be read again.
                let over = |recent: &Recent| recent.is_over(turn.monotonic, window);
                if !std::mem::take(&mut home.looked) || home.recent.as_ref().is_some_and(over) {
                    home.recent = None;
                    if !home.reading {
                        home.since = Since::default();
                    }
                }
                // A cursor not yet on disk would be read back as it was before.
                let idle = home.is_idle() && !home.deliveries.has_moved();
                if idle && home.used + EVICT_AFTER <= turn.monotonic {
                    if let Some(end) = home.unresumed {
                        self.ended.keep(account.clone(), end, turn.monotonic, window);
                    }
                    self.remembered.keep(account, &home.count, home.last);
                    turn.shared.positions.forget(home.top);
                    self.homes.remove(account);
                    self.attaching.forget(account);
                    return;
                }
                self.timers.set(turn.monotonic + EVICT_AFTER, account.clone(), Why::Evict);
                self.write_cursor(turn, account);
            }
        }
        self.touch(account);
    }

    /// Writes the cursor, if it has moved. While a home is in doubt it would not be written.
    pub(super) fn write_cursor(&mut self, turn: &mut Turn, account: &BareJid) {
        if let Some(Slot::Ready(home)) = self.homes.get_mut(account)
            && !home.leaving
            && home.doubt.is_none()
            && let Some(cursor) = home.deliveries.take_moved()
        {
            let saved = saved(home, &cursor);
            let holders = home.holders.clone();
            turn.write(home, Write::Cursor(account.clone(), cursor), act::Wrote::Cursor(saved, holders));
        }
    }
}

/// Up to where this is all that each session of another process has acknowledged, and ever will: what it is yet to be given may
/// lie below what others have acknowledged, and is not in this cursor.
fn saved(home: &Home, cursor: &Cursor) -> Vec<(Token, Position)> {
    let highest = cursor.highest();
    let far = home.links.iter().filter_map(|link| Some((link, link.far.as_ref()?)));
    far.filter(|(_, far)| far.saved < highest)
        .map(|(link, far)| {
            let open = link.queue.iter().filter(|entry| entry.waits).filter_map(|entry| entry.position).min();
            let closed = open.map_or(highest, |open| Position(open.0.saturating_sub(1)));
            // What others leave behind comes to it if it is above what it was sent.
            let sent = if link.feed.begun { far.sent } else { link.feed.sent.min(far.sent) };
            let given = link.feed.given().min(sent.max(cursor.through));
            (link.token, highest.min(closed).min(given))
        })
        .collect()
}
