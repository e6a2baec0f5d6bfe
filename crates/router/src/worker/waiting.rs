//! Messages that wait until their home can decide again, and what they get when it cannot.

use super::*;

/// Stanzas of other accounts that may wait for one home. What sessions of its own send is bounded by their credit.
const MAX_WAITING: usize = 4_096;

/// Whether this one has to be refused, for so much waits already.
pub(super) fn is_full(waiting: &VecDeque<Msg>, msg: &Msg) -> bool {
    waiting.len() >= MAX_WAITING && matches!(msg, Msg::Forward(_))
}

impl Worker {
    /// Keeps a message until the home can decide again.
    pub(super) fn hold(&mut self, turn: &mut Turn, account: &BareJid, msg: Msg) {
        let Some(Slot::Ready(home)) = self.homes.get_mut(account) else { return };
        if is_full(&home.paused, &msg) {
            return self.unloadable(msg);
        }
        home.paused.push_back(msg);
        if let Some(doubt) = &mut home.doubt {
            if let Some(at) = doubt.hurry(turn.monotonic) {
                self.timers.set(at, account.clone(), Why::Reload);
            }
        } else if !home.is_held() {
            self.crowd(account);
        }
    }

    /// A home that could decide if less were under way in all waits in a queue of homes.
    fn crowd(&mut self, account: &BareJid) {
        let Some(Slot::Ready(home)) = self.homes.get_mut(account) else { return };
        if !self.pipeline.has_room() && !std::mem::replace(&mut home.crowded, true) {
            self.crowded.push_back(account.clone());
        }
    }

    /// Lets homes go on for which there is room again.
    pub(super) fn let_in(&mut self, turn: &mut Turn) {
        for _ in 0..self.pipeline.room().min(self.crowded.len()) {
            let Some(account) = self.crowded.pop_front() else { break };
            if let Some(Slot::Ready(home)) = self.homes.get_mut(&account) {
                home.crowded = false;
                self.go_on(turn, &account);
            }
        }
    }

    /// What a home had to wait with, in the order in which it came, until it has to wait again.
    pub(super) fn go_on(&mut self, turn: &mut Turn, account: &BareJid) {
        while let Some(Slot::Ready(home)) = self.homes.get_mut(account) {
            if home.is_held() {
                return;
            }
            if !self.pipeline.has_room_for(home.rows) {
                return self.crowd(account);
            }
            let Some(msg) = home.paused.pop_front() else { return };
            self.take(turn, account, msg);
        }
    }

    /// Answers all that waits: the store does not say what it would have to follow from. What needs no store is done.
    pub(super) fn refuse_held(&mut self, turn: &mut Turn, account: &BareJid) {
        let Some(Slot::Ready(home)) = self.homes.get_mut(account) else { return };
        for msg in std::mem::take(&mut home.paused) {
            self.refuse(turn, account, msg);
        }
        self.touch(account);
    }

    fn refuse(&mut self, turn: &mut Turn, account: &BareJid, msg: Msg) {
        let Some(Slot::Ready(home)) = self.homes.get_mut(account) else { return self.unloadable(msg) };
        let mut out = Out { shared: &self.shared, downs: &mut self.downs, reads: &mut self.asked };
        match msg {
            Msg::Edge(ToHome { conn, up: Up::Stanza { sequence, stanza, fault: None, trace }, account }) => {
                let at =
                    home.links.iter().position(|link| link.conn == Some(conn) && link.resuming.is_none());
                match at.filter(|_| needs_store(&stanza)) {
                    Some(at) => {
                        let token = home.links[at].token;
                        home.links[at].take(sequence);
                        home.touched = true;
                        let error = decide::message::not_confirmed();
                        decide::refuse(turn, home, token, sequence, &stanza, &error);
                    }
                    None => {
                        let up = Up::Stanza { sequence, stanza, fault: None, trace };
                        from_edge(turn, &mut out, home, ToHome { account, conn, up }, &mut self.timers);
                    }
                }
            }
            Msg::Edge(ToHome { up: Up::Bind { .. }, .. }) => self.unloadable(msg),
            Msg::Edge(message) => from_edge(turn, &mut out, home, message, &mut self.timers),
            Msg::Forward(forward) if !needs_store(&forward.stanza) => decide::received(turn, home, *forward),
            msg => self.unloadable(msg),
        }
    }

    /// For an account that cannot be loaded now, or whose home has too much to do.
    pub(super) fn unloadable(&mut self, msg: Msg) {
        let error = || Box::new(decide::message::not_confirmed());
        match msg {
            Msg::Edge(ToHome { conn, up: Up::Bind { .. }, .. }) => {
                self.downs.push(ToEdge { conn, down: Down::Refused(error()) })
            }
            Msg::Edge(ToHome { conn, up: Up::Resume { .. }, .. }) => {
                self.downs.push(ToEdge { conn, down: Down::NotResumed { handled: None } });
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
