//! Messages that wait until their home can decide again, and what they get when it cannot.

use super::*;

/// Stanzas of other accounts that may wait for one home. What sessions of its own send is bounded by their credit.
const MAX_WAITING: usize = 4_096;

/// Whether this one has to be refused, for so much waits already.
pub(super) fn is_full(waiting: &Line, msg: &Msg) -> bool {
    waiting.len() >= MAX_WAITING && matches!(msg, Msg::Forward(_))
}

impl Worker {
    /// Keeps a message until the home can decide again.
    pub(super) fn hold(&mut self, turn: &mut Turn, account: &BareJid, held: Held) {
        let Some(Slot::Ready(home)) = self.homes.get_mut(account) else { return };
        if is_full(&home.paused, &held.msg) {
            return self.no_room(held.msg);
        }
        if let Some(at) = home.paused.push(held) {
            self.timers.set(at, account.clone(), Why::Patience);
        }
        if let Some(doubt) = &mut home.doubt {
            if let Some(at) = doubt.hurry(turn.monotonic) {
                self.timers.set(at, account.clone(), Why::Reload);
            }
        } else if !home.is_held() {
            self.crowd(account);
        }
    }

    /// Keeps one that came before all that wait.
    pub(super) fn wait_first(&mut self, account: &BareJid, held: Held) {
        let Some(Slot::Ready(home)) = self.homes.get_mut(account) else { return };
        if let Some(at) = home.paused.push_first(held) {
            self.timers.set(at, account.clone(), Why::Patience);
        }
    }

    /// Answers what has waited long enough. Its home goes on as it would: what it will know is too late for these.
    pub(super) fn lose_patience(&mut self, turn: &mut Turn, account: &BareJid) {
        let line = match self.homes.get_mut(account) {
            Some(Slot::Loading(line, _)) => line,
            Some(Slot::Ready(home)) => &mut home.paused,
            Some(Slot::Parked(_)) | None => return,
        };
        let (over, next) = line.look(turn.monotonic);
        if let Some(at) = next {
            self.timers.set(at, account.clone(), Why::Patience);
        }
        for held in over {
            match held.msg {
                // Whoever looks for what is lost there comes back.
                Msg::Wake(account) => self.attaching.losing.again(account, turn.monotonic),
                msg => self.refuse(turn, account, msg),
            }
        }
        self.touch(account);
    }

    /// Tells senders who have waited long enough for an answer that their messages are not confirmed. What becomes of these is
    /// no longer waited for: a receipt that comes later says nothing new.
    pub(super) fn give_up(&mut self, turn: &Turn, account: &BareJid) {
        let Some(Slot::Ready(home)) = self.homes.get_mut(account) else { return };
        home.answer_timer = false;
        let before = turn.monotonic.saturating_sub(ANSWER_WITHIN);
        let mut out = Out { shared: &self.shared, downs: &mut self.downs, reads: &mut self.asked };
        for at in 0..home.links.len() {
            while let Some((sequence, message)) = home.links[at].overdue(before) {
                let token = home.links[at].token;
                act::give_up(&mut out, home, (token, sequence), &message);
                if let Some(to) = &message.stanza.to {
                    act::refuse_behind(&mut out, home, token, &to.to_bare(), sequence);
                }
            }
        }
        // The next one is looked for with it.
        home.touched = true;
    }

    /// A home that could decide if less were under way in all waits in a queue of homes.
    fn crowd(&mut self, account: &BareJid) {
        if !self.pipeline.has_room() {
            self.queue_up(account);
        }
    }

    fn queue_up(&mut self, account: &BareJid) {
        let Some(Slot::Ready(home)) = self.homes.get_mut(account) else { return };
        if !std::mem::replace(&mut home.crowded, true) {
            self.crowded.push_back(account.clone());
        }
    }

    /// Lets homes go on for which there is room again.
    pub(super) fn let_in(&mut self, turn: &mut Turn) {
        if !self.pipeline.is_open() {
            return;
        }
        for _ in 0..self.pipeline.room().min(self.crowded.len()) {
            let Some(account) = self.crowded.pop_front() else { break };
            if let Some(Slot::Ready(home)) = self.homes.get_mut(&account) {
                home.crowded = false;
                self.guard(&account, |worker| worker.go_on(turn, &account));
            }
        }
    }

    /// What a home had to wait with, in the order in which it came, until it has to wait again.
    pub(super) fn go_on(&mut self, turn: &mut Turn, account: &BareJid) {
        while let Some(Slot::Ready(home)) = self.homes.get_mut(account) {
            if home.is_held() {
                return;
            }
            if home.acts >= MOST_ACTS {
                // It goes on when some are done.
                return;
            }
            if !self.pipeline.has_room_for(home.rows) {
                return self.crowd(account);
            }
            if turn.is_full() {
                return self.queue_up(account);
            }
            let Some(held) = home.paused.pop() else { return };
            self.take(turn, account, held);
        }
    }

    /// Answers all that waits: the store does not say what it would have to follow from. What needs no store is done.
    pub(super) fn refuse_held(&mut self, turn: &mut Turn, account: &BareJid) {
        let Some(Slot::Ready(home)) = self.homes.get_mut(account) else { return };
        for held in home.paused.take() {
            self.refuse(turn, account, held.msg);
        }
        self.touch(account);
    }

    fn refuse(&mut self, turn: &mut Turn, account: &BareJid, msg: Msg) {
        let Some(msg) = self.keep(turn, account, msg) else { return };
        let Some(Slot::Ready(home)) = self.homes.get_mut(account) else { return self.unloadable(msg) };
        let mut out = Out { shared: &self.shared, downs: &mut self.downs, reads: &mut self.asked };
        match msg {
            Msg::Edge(ToHome {
                conn,
                up: Up::Stanza { sequence, stanza, fault: None, trace, again },
                account,
            }) if home.says(conn).is_none_or(|at| {
                let link = &home.links[at];
                !link.has_taken(sequence)
                    && !link.has_missed(sequence)
                    && !link.was_answered(sequence)
                    && !link
                        .far
                        .as_ref()
                        .is_some_and(|far| far.will_have_reply(sequence, &stanza, &home.account.jid))
            }) =>
            {
                // Of a connection that its session has left, too: what it says may have a row, which nobody has looked for.
                let says = home.says(conn).filter(|at| {
                    let link = &home.links[*at];
                    link.resuming.is_none() || link.conn != Some(conn)
                });
                match says.filter(|_| needs_store(&stanza)) {
                    Some(at) => {
                        let link = &mut home.links[at];
                        let token = link.token;
                        link.take(sequence);
                        if again || link.may_be_again(sequence) {
                            link.was_decided(sequence);
                        }
                        home.touched = true;
                        decide::message::refuse_once_more(turn, home, &stanza);
                        let error = decide::message::not_confirmed();
                        decide::refuse(turn, home, token, sequence, &stanza, &error);
                    }
                    None => {
                        let up = Up::Stanza { sequence, stanza, fault: None, trace, again };
                        from_edge(turn, &mut out, home, ToHome { account, conn, up }, &mut self.timers);
                    }
                }
            }
            Msg::Edge(ToHome { up: Up::Bind { .. }, .. }) => self.unloadable(msg),
            // Its session may be one that is not built yet.
            Msg::Edge(ToHome { up: Up::Resume { .. }, .. }) if self.shared.tier.is_some() => {
                self.unloadable(msg)
            }
            Msg::Edge(message) => from_edge(turn, &mut out, home, message, &mut self.timers),
            Msg::Forward(forward) if !needs_store(&forward.stanza) => decide::received(turn, home, *forward),
            msg => self.unloadable(msg),
        }
    }

    /// For a home that has too much to do.
    pub(super) fn no_room(&mut self, msg: Msg) {
        if let Msg::Forward(forward) = &msg
            && pairs::is_put_off(&self.shared, forward)
        {
            return;
        }
        self.unloadable(msg);
    }

    /// For an account that cannot be loaded now, or whose home has too much to do.
    pub(super) fn unloadable(&mut self, msg: Msg) {
        let error = || Box::new(decide::message::not_confirmed());
        match msg {
            Msg::Edge(ToHome { conn, up: Up::Bind { .. }, .. }) => {
                self.downs.push(ToEdge { conn, down: Down::Refused(error()) })
            }
            Msg::Edge(ToHome { conn, up: Up::Resume { .. }, .. }) => {
                if self.shared.tier.is_some() {
                    // The session is there, it only cannot be gone on with now.
                    return self.close(conn, LATER);
                }
                self.downs.push(ToEdge { conn, down: Down::NotResumed });
            }
            Msg::Edge(ToHome { account, conn, up: Up::Stanza { .. } | Up::EnableSm { .. } })
                if self.shared.tier.is_some() =>
            {
                // Of a session that could not be built: it comes back, and says it again. What follows `<enable/>` is not to be
                // taken as of one whose stanzas are not counted.
                self.cut_parked(&account, conn);
            }
            Msg::Forward(forward) => {
                let Forward { account, stanza, ticket, hops, .. } = *forward;
                route::refuse(&self.shared, &account, ticket.as_ref(), &stanza, &error(), hops + 1);
            }
            Msg::Admin(Admin::Passwd(_, _, answer) | Admin::Delete(_, answer)) => {
                drop(answer.send(Err(StoreError::Unavailable("the account could not be loaded".to_owned()))));
            }
            _ => {}
        }
    }
}
