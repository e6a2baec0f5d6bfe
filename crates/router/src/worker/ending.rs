//! The end of a turn, and of everything.

use super::*;

/// Why connections end when another reign has begun.
const FOLLOWED: &str = "another server has taken over";
/// Why they do when the store has been away for long.
pub(super) const AWAY: &str = "the store cannot be reached";
/// Why one does whose session cannot be gone on with at this moment.
pub(crate) const LATER: &str = "the session cannot be served at this moment, come back for it";

impl Worker {
    /// Ends a turn: tells edges what has become of their sessions, and lets the messages go.
    pub(super) fn finish(&mut self) {
        let now = self.shared.clock.monotonic();
        for account in std::mem::take(&mut self.touched) {
            self.guard(&account, |worker| worker.tell(now, &account));
        }
        self.reads.extend(self.asked.drain(..));
        if !self.downs.is_empty() {
            self.shared.edge.deliver(&mut self.downs);
            self.downs.clear();
        }
        for done in self.partings.drain(..) {
            let _ = done.send(());
        }
    }

    /// What one home has to tell, and what is to be looked at later.
    pub(super) fn tell(&mut self, now: Duration, account: &BareJid) {
        let Some(Slot::Ready(home)) = self.homes.get_mut(account) else { return };
        home.listed = false;
        let touched = std::mem::take(&mut home.touched);
        if touched && !home.parted.is_empty() {
            self.part(now, account);
        }
        let Some(Slot::Ready(home)) = self.homes.get_mut(account) else { return };
        pairs::go_on(&self.shared, home);
        let departed = std::mem::take(&mut home.departed);
        if home.deliveries.is_dirty() && (departed || !home.cursor_timer) {
            home.cursor_timer = true;
            let delay = if departed { Duration::ZERO } else { CURSOR_DELAY };
            self.timers.set(now + delay, account.clone(), Why::Cursor);
        }
        if !touched {
            return;
        }
        if !home.answer_timer
            && let Some(since) = home.waits_since()
        {
            home.answer_timer = true;
            self.timers.set(since + ANSWER_WITHIN, account.clone(), Why::Answer);
        }
        if !home.resend_timer
            && let Some(since) = home.unanswered_since()
        {
            home.resend_timer = true;
            self.sending.insert(account.clone());
            self.timers.set(since + pairs::PATIENCE, account.clone(), Why::Resend);
        }
        for at in 0..home.links.len() {
            let mut out = Out { shared: &self.shared, downs: &mut self.downs, reads: &mut self.asked };
            resuming::finish_resume(&mut out, home, at);
            report(&mut out, home, at, now, &mut self.timers);
            let link = &mut home.links[at];
            if let Some(far) = link.far.as_mut().filter(|far| far.gone.is_some() || far.starved)
                && !std::mem::replace(&mut far.knocks, true)
            {
                self.timers.set(now + KNOCK, account.clone(), Why::Room(link.token));
            }
        }
    }

    /// Looks whether the lease holds.
    pub(super) fn look(&mut self, now: Duration) {
        let positions = &self.shared.positions;
        let before = self.lapsed;
        self.lapsed = (!positions.hold(now)).then(|| before.unwrap_or(now));
        if before.is_some() || self.lapsed.is_some() {
            // It may have ended long before that was seen, on a machine that slept.
            self.attaching.was_shut(self.held, now);
        }
        if self.lapsed.is_none() {
            self.held = now;
        }
        // Whoever may have been succeeded tells nobody anything, until the store has said so or that it cannot.
        let still = self.lapsed.is_some_and(|since| now < since + STILL);
        self.blind = (still && !self.fenced && positions.are_open(now)).then_some(now);
    }

    /// Ends all connections when the lease has been over for long; whether that has just been done. What can be resumed
    /// waits for it as after any lost connection, should this server come to reign again.
    pub(super) fn drift(&mut self, turn: &mut Turn) -> bool {
        let adrift = self.lapsed.is_some_and(|since| turn.monotonic >= since + ADRIFT_AFTER);
        let before = std::mem::replace(&mut self.adrift, adrift);
        if before || !adrift || self.fenced {
            return false;
        }
        tracing::error!(
            event = "adrift",
            "the lease has been over for long; clients are sent away until it is back"
        );
        for account in self.accounts() {
            self.guard(&account, |worker| worker.send_away(turn, &account));
        }
        true
    }

    /// Ends the connections of one account.
    fn send_away(&mut self, turn: &mut Turn, account: &BareJid) {
        let Some(Slot::Ready(home)) = self.homes.get_mut(account) else { return };
        let conns: Vec<_> = home.links.iter().filter_map(|link| link.conn).collect();
        for conn in &conns {
            if let Some(at) = home.links.iter().position(|link| link.conn == Some(*conn)) {
                session::cut(turn, home, at, &mut self.timers);
            }
        }
        for conn in conns {
            self.close(conn, AWAY);
        }
        self.touch(account);
    }

    /// Another reign has begun. Clients come back to whoever has it; nothing of what is under way counts.
    pub(super) fn end_all(&mut self, turn: &mut Turn) {
        self.fenced = true;
        turn.writes.clear();
        turn.acts.clear();
        turn.reads.clear();
        self.pipeline.clear();
        self.reads.clear();
        self.asked.clear();
        self.timers = Timers::default();
        self.touched.clear();
        self.crowded.clear();
        self.counting = Counting::default();
        if self.shared.tier.is_some() {
            // Sessions go on in the next reign: nobody is told anything.
            self.homes.clear();
            self.backlog.clear();
            self.downs.clear();
            return;
        }
        for account in self.accounts() {
            let waiting = match self.homes.remove(&account) {
                Some(Slot::Ready(mut home)) => {
                    for conn in home.links.iter().filter_map(|link| link.conn) {
                        self.close(conn, FOLLOWED);
                    }
                    home.paused.take()
                }
                Some(Slot::Loading(mut waiting, _)) => waiting.take(),
                Some(Slot::Parked(_)) | None => continue,
            };
            for held in waiting {
                self.turn_away(held.msg);
            }
        }
    }

    /// What comes after that.
    pub(super) fn turn_away(&mut self, msg: Msg) {
        match msg {
            Msg::Edge(_) if self.shared.tier.is_some() => {}
            Msg::Edge(ToHome { conn, up, .. }) if !matches!(up, Up::Gone(_)) => self.close(conn, FOLLOWED),
            Msg::Admin(Admin::Passwd(_, _, answer) | Admin::Delete(_, answer)) => {
                drop(answer.send(Err(StoreError::Fenced)))
            }
            Msg::Admin(Admin::Sessions(answer)) => drop(answer.send(Vec::new())),
            Msg::Flush(done) | Msg::Quiet(done) | Msg::Leave(done) => drop(done.send(())),
            _ => {}
        }
    }

    /// RFC 6120 §4.9.3.20: the client comes back, and may come to another server.
    pub(super) fn close(&mut self, conn: ConnId, why: &'static str) {
        let error = StreamError::new(StreamCondition::SystemShutdown).with_text(why);
        self.downs.push(ToEdge { conn, down: Down::Close(Some(Box::new(error))) });
    }
}

/// How soon it is looked again whether the link to an edge takes more.
const KNOCK: Duration = Duration::from_millis(50);

/// Tells the edge how far a session's stanzas are handled, and asks for an acknowledgement when one is due.
fn report(out: &mut Out<'_>, home: &mut Home, at: usize, now: Duration, timers: &mut Timers) {
    let ack_timeout = out.shared.config.ack_timeout;
    let link = &mut home.links[at];
    let (Some(conn), None, false) = (link.hears(), link.resuming, link.mute) else { return };
    // Before what it follows from is called handled.
    if !session::reminds(out, home, at) {
        let link = &mut home.links[at];
        if let Some(far) = &mut link.far
            && !std::mem::replace(&mut far.waits, true)
        {
            timers.set(far.rests, home.account.jid.clone(), Why::Notes(link.token));
        }
        return;
    }
    let link = &mut home.links[at];
    let handled = link.handled();
    if handled > link.announced {
        link.announced = handled;
        out.downs.push(ToEdge { conn, down: Down::Handled { sequence: handled } });
    }
    if link.queue.is_empty() {
        return;
    }
    if let Some(management) = &mut link.management
        && management.asked_at.is_none()
        && link.queue.len() > management.before
    {
        management.asked_at = Some(now);
        out.downs.push(ToEdge { conn, down: Down::RequestAck });
        // One deadline for each session at a time, whatever is delivered meanwhile.
        if !std::mem::replace(&mut link.awaited, true) {
            timers.set(now + ack_timeout, home.account.jid.clone(), Why::Acknowledge(link.token));
        }
    }
}
