//! Deadlines of homes.

use super::*;

impl Worker {
    /// Deadlines that are over.
    pub(super) fn expire(&mut self, turn: &mut Turn) {
        while let Some((account, why)) = self.timers.due(turn.monotonic) {
            let Some(Slot::Ready(home)) = self.homes.get_mut(&account) else { continue };
            match why {
                Why::Reload => {
                    home.read_after = self.committed;
                    self.load(account);
                    continue;
                }
                Why::Feed(token) => {
                    if let Some(at) = home.find(token) {
                        home.links[at].feed.busy = false;
                        let mut out = Out { shared: &self.shared, downs: &mut self.downs };
                        delivery::feed(&mut out, home, token);
                    }
                    continue;
                }
                Why::Tail => {
                    tail::read(&self.shared, home);
                    continue;
                }
                Why::Cursor => {
                    home.cursor_timer = false;
                    if !home.leaving
                        && let Some(cursor) = home.deliveries.take_dirty()
                    {
                        turn.write(home, Write::Cursor(account.clone(), cursor));
                    }
                }
                Why::Resume(token) => {
                    let over = home.find(token).is_some_and(|at| {
                        let link = &home.links[at];
                        link.conn.is_none()
                            && link
                                .detached_at
                                .is_some_and(|at| at + turn.shared.config.resume_timeout <= turn.monotonic)
                    });
                    if over {
                        session::end(turn, home, token, None);
                    }
                }
                Why::Acknowledge(token) => {
                    let Some(at) = home.find(token) else { continue };
                    let link = &mut home.links[at];
                    link.awaited = false;
                    let Some(management) = &mut link.management else { continue };
                    let (Some(asked), Some(conn)) = (management.asked_at, link.conn) else { continue };
                    let deadline = asked + turn.shared.config.ack_timeout;
                    if deadline > turn.monotonic {
                        // It has answered since, and was asked again.
                        link.awaited = true;
                        self.timers.set(deadline, account, why);
                        continue;
                    }
                    // The transport is as good as dead. The session leaves it first: it can be resumed, and what the
                    // edge says of the closed connection is no longer about it.
                    session::gone(turn, home, at, Leave::Lost, &mut self.timers);
                    let error =
                        StreamError::new(StreamCondition::ConnectionTimeout).with_text("no acknowledgement");
                    self.downs.push(ToEdge { conn, down: Down::Close(Some(Box::new(error))) });
                }
                Why::Evict => {
                    // A cursor not yet on disk would be read back as it was before.
                    if let Some(cursor) = home.deliveries.take_dirty() {
                        turn.write(home, Write::Cursor(account.clone(), cursor));
                        home.used = turn.monotonic;
                    }
                    let idle =
                        home.links.is_empty() && home.acts == 0 && home.asking == 0 && home.paused.is_none();
                    let window = turn.shared.config.resume_timeout + GRACE;
                    if home.recent.as_ref().is_some_and(|recent| recent.is_over(turn.now, window)) {
                        home.recent = None;
                    }
                    if idle && home.used + EVICT_AFTER <= turn.monotonic {
                        if let Some(end) = home.unresumed {
                            self.ended.keep(account.clone(), end, turn.now, window);
                        }
                        turn.shared.positions.forget(home.top);
                        self.homes.remove(&account);
                        continue;
                    }
                    self.timers.set(turn.monotonic + EVICT_AFTER, account.clone(), Why::Evict);
                }
            }
            self.touch(&account);
        }
    }
}
