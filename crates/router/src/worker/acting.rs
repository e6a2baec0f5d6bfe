//! Commits, and what is done when they have ended.

use super::*;
use crate::follow;
use crate::rebuild;

impl Worker {
    /// Carries out what waited for commits that have ended; false where none has.
    pub(super) fn land(&mut self, turn: &mut Turn, cx: &mut Context<'_>) -> bool {
        self.pipeline.poll(&self.shared, cx);
        let mut any = false;
        while let Some(done) = self.pipeline.next() {
            any = true;
            self.carry_out(turn, done);
        }
        any
    }

    /// Has written what the turn wants written; its acts follow when that is durable. Acts may call for more acts (a session
    /// that ends): these belong to the same turn.
    pub(super) fn commit(&mut self, turn: &mut Turn) {
        loop {
            let drafts = turn.drafts(self.pipeline.is_together());
            if drafts.is_empty() {
                break;
            }
            for draft in drafts {
                if let Some(done) = self.pipeline.push(&self.shared, draft) {
                    self.carry_out(turn, done);
                }
            }
        }
        for op in turn.unbinds.drain(..) {
            self.unbinding.push(op);
        }
        self.reads.extend(self.asked.drain(..).chain(turn.reads.drain(..)));
        if self.pipeline.is_empty() {
            for done in self.flushes.drain(..) {
                let _ = done.send(());
            }
            if !self.quiets.is_empty() && self.has_answered() {
                for done in self.quiets.drain(..) {
                    let _ = done.send(());
                }
            }
        }
    }

    /// Carries out what was decided together, in order.
    fn carry_out(&mut self, turn: &mut Turn, done: Done) {
        let Done { acts, result, recorded } = done;
        let failed = match &result {
            Ok(()) => Vec::new(),
            Err(error) => self.failed(turn, &acts, error),
        };
        for act in acts {
            let account = act.home.clone();
            self.guard(&account, |worker| worker.act(turn, act, &result, recorded));
        }
        for account in failed {
            if let Some(Slot::Ready(home)) = self.homes.get_mut(&account) {
                home.failed = false;
            }
            self.guard(&account, |worker| worker.settle_doubt(turn, &account));
        }
    }

    /// A commit was not confirmed; returns whose writes were in it.
    fn failed(&mut self, turn: &Turn, acts: &[Act], error: &StoreError) -> Vec<BareJid> {
        if matches!(error, StoreError::Fenced) {
            self.shared.fence();
        }
        let clean = matches!(error, StoreError::Overloaded);
        let mut failed = Vec::new();
        for act in acts {
            let Some(Slot::Ready(home)) = self.homes.get_mut(&act.home) else { continue };
            if home.life != act.life || !act.what.is_written() {
                continue;
            }
            if act.what.is_doubtful(clean) {
                home.doubts();
            }
            if !std::mem::replace(&mut home.failed, true) {
                failed.push(act.home.clone());
            }
        }
        if let Some(times) = self.complaints.commits.made(turn.monotonic) {
            let homes = failed.len();
            tracing::error!(event = "commit_failed", %error, homes, times, "writes were not confirmed");
        }
        failed
    }

    /// Carries one act out.
    fn act(&mut self, turn: &mut Turn, act: Act, result: &Result<(), StoreError>, recorded: bool) {
        let home = match self.homes.get_mut(&act.home) {
            Some(Slot::Ready(home)) if home.life == act.life => home,
            _ => {
                // Its home was forsaken. What is committed waits in the log; its sender is not kept waiting.
                if let What::Arrive(arriving) = act.what
                    && let Some(ticket) = &arriving.ticket
                {
                    let failed = arriving.position.is_some() && result.is_err();
                    let unsure = failed.then(|| Box::new(decide::message::not_confirmed()));
                    match unsure.or(arriving.refused) {
                        Some(error) => {
                            let (stanza, home) = (&arriving.stanza, &act.home);
                            route::refuse(&self.shared, home, Some(ticket), stanza, &error, 1);
                        }
                        None => route::receipt(&self.shared, &act.home, ticket, None),
                    }
                }
                return;
            }
        };
        home.acts = home.acts.saturating_sub(act.what.weight());
        home.rows = home.rows.saturating_sub(usize::from(act.what.is_row()));
        match act.what {
            What::ReadTail => {
                // With a doubt the log may yet change: it is read when that is settled.
                if home.doubt.is_none() && home.reading {
                    self.asked.push(tail::read(&self.shared, home));
                }
            }
            What::ReadUnsent => {
                if home.doubt.is_none() {
                    self.asked.extend(rebuild::read(&self.shared, home));
                }
            }
            What::CountWaiting => self.counting.add(home, turn.monotonic),
            What::Deleted(report) => {
                if let Some(report) = report {
                    let _ = report.send(result.clone().map(|()| true));
                }
                if result.is_ok() {
                    // What came before it may not be there; nor is the account.
                    let held = home.doubt.take().map(|doubt| doubt.held).unwrap_or_default();
                    follow::removed(&self.shared, home, held);
                    return self.gone(&act.home, Duration::MAX);
                }
                home.leaving = false;
            }
            What::Bound(token) => {
                let mut out = Out { shared: &self.shared, downs: &mut self.downs, reads: &mut self.asked };
                session::bound(turn, &mut out, home, token, recorded);
            }
            What::Drain(token) => {
                self.timers.set(turn.monotonic + DRAIN, act.home.clone(), Why::Drain(token))
            }
            What::Moved(token, conn) => {
                let mut out = Out { shared: &self.shared, downs: &mut self.downs, reads: &mut self.asked };
                resuming::moved(turn, &mut out, home, (token, conn), recorded, &mut self.timers);
            }
            what => {
                let mut out = Out { shared: &self.shared, downs: &mut self.downs, reads: &mut self.asked };
                act::carry_out(turn, &mut out, home, what, result);
            }
        }
        if home.doubt.is_some() && home.acts == 0 {
            self.settle_doubt(turn, &act.home);
        } else if !home.paused.is_empty() && !home.is_held() {
            self.go_on(turn, &act.home);
        }
        self.touch(&act.home);
    }

    /// An account is no more: its sessions end, and whoever waits for an answer gets one. What has come since then may be for
    /// another one of that name.
    pub(super) fn gone(&mut self, account: &BareJid, since: Duration) {
        let Some(Slot::Ready(mut home)) = self.homes.remove(account) else { return };
        self.shared.positions.forget(home.top);
        self.unbind_all(&home);
        let mut out = Out { shared: &self.shared, downs: &mut self.downs, reads: &mut self.asked };
        act::deleted(&mut out, &mut home);
        for parked in home.opening.take().into_iter().flat_map(|opening| opening.parked) {
            self.absent_session(&parked);
        }
        // Whoever spoke to the name speaks to who has it now; whoever was let in as this one was is not.
        let mut later = Vec::new();
        for held in home.paused.take() {
            if held.since > since || matches!(held.msg, Msg::Forward(_) | Msg::Admin(_)) {
                later.push(held.msg);
            } else {
                self.absent(held.msg);
            }
        }
        self.hear_again(later);
    }

    /// A decision on this account, or an act of it, has panicked: what its home holds in memory cannot be trusted any more. Its
    /// sessions end, and it is read again from the store when it is next spoken to. Nobody else notices.
    pub(super) fn forsake(&mut self, account: &BareJid) {
        tracing::error!(event = "home_panicked", "a home has panicked and is given up; its sessions end");
        let Some(Slot::Ready(mut home)) = self.homes.remove(account) else { return };
        // Its clients may say again what has a row already.
        let (now, window) = (self.shared.clock.monotonic(), self.shared.config.resume_timeout + GRACE);
        self.ended.keep(account.clone(), now, now, window);
        self.shared.positions.forget(home.top);
        self.unbind_all(&home);
        session::release_all(&mut self.downs, &mut home);
        let error = || Some(Box::new(StreamError::new(StreamCondition::InternalServerError)));
        for link in &home.links {
            if let Some(conn) = link.conn {
                self.downs.push(ToEdge { conn, down: Down::Close(error()) });
            }
            session::release(&mut self.downs, link);
        }
        for parked in home.opening.take().into_iter().flat_map(|opening| opening.parked) {
            let (conn, record) = (parked.conn, parked.record);
            if parked.gone.is_none() {
                self.downs.push(ToEdge { conn, down: Down::Close(error()) });
            }
            self.downs.push(ToEdge { conn, down: Down::Released });
            self.unbinding.push(LocationOp::Unbind { jid: record.jid, token: record.token });
        }
        for held in home.paused.take() {
            self.unloadable(held.msg);
        }
    }

    /// All sessions of this home are over.
    fn unbind_all(&mut self, home: &Home) {
        for (_, link) in &home.parted {
            session::release(&mut self.downs, link);
            if let Some(jid) = link.far.as_ref().and_then(|far| far.parted.clone()) {
                self.unbinding.push(LocationOp::Unbind { jid, token: link.token });
            }
        }
        let links = home.account.sessions.iter().zip(&home.links);
        for (session, _) in links.filter(|(_, link)| link.far.is_some()) {
            self.unbinding.push(LocationOp::Unbind { jid: session.jid.clone(), token: session.token });
        }
    }
}
