//! Homes in doubt: loaded again, until the store says what became of their writes.

use super::*;
use crate::follow;
use crate::rebuild;
use starling_hooks::{BlockList, Cx, Effect, roster_push};
use starling_store::AccountState;
use starling_xmpp::{Element, IqType, Jid, Stanza, ns};

impl Worker {
    /// Has the account of a home in doubt loaded, as soon as all that was decided before has been carried out.
    pub(super) fn settle_doubt(&mut self, turn: &mut Turn, account: &BareJid) {
        if let Some(Slot::Ready(home)) = self.homes.get_mut(account)
            && home.acts == 0
            && home.doubt.as_ref().is_some_and(|doubt| doubt.is_draining())
        {
            self.reload(turn, account);
        }
    }

    /// Loads it. The floor is above all that the home has given: what is not there then will never be.
    pub(super) fn reload(&mut self, turn: &mut Turn, account: &BareJid) {
        let Some(Slot::Ready(home)) = self.homes.get_mut(account) else { return };
        let Some(doubt) = &mut home.doubt else { return };
        doubt.load(turn.monotonic);
        match turn.position(home) {
            Some(floor) => {
                let epoch = self.shared.positions.epoch();
                self.load(account.clone(), Reign { epoch, floor });
            }
            None => self.unsettled(turn, account),
        }
    }

    /// Homes that have something to tell, and do not know whether it is so, are to find out.
    pub(super) fn hurry_doubts(&mut self, turn: &Turn) {
        for account in self.asking.accounts() {
            if let Some(Slot::Ready(home)) = self.homes.get_mut(&account)
                && let Some(doubt) = &mut home.doubt
                && let Some(at) = doubt.hurry(turn.monotonic)
            {
                self.timers.set(at, account, Why::Reload);
            }
        }
    }

    /// It cannot be loaded now. Nobody is kept waiting for it; it is tried again.
    fn unsettled(&mut self, turn: &mut Turn, account: &BareJid) {
        let Some(Slot::Ready(home)) = self.homes.get_mut(account) else { return };
        let Some(doubt) = &mut home.doubt else { return };
        self.timers.set(doubt.rest(turn.monotonic), account.clone(), Why::Reload);
        (home.reading, home.rereading) = (false, false);
        self.refuse_held(turn, account);
    }

    /// The account of a home in doubt has been loaded, or not.
    pub(super) fn settled(
        &mut self,
        turn: &mut Turn,
        account: &BareJid,
        state: Result<Option<Box<AccountState>>, StoreError>,
    ) {
        let Some(Slot::Ready(home)) = self.homes.get_mut(account) else { return };
        let Some(mut doubt) = home.doubt.take_if(|doubt| doubt.is_loading()) else { return };
        let state = match state {
            Ok(Some(state)) if state.row.generation == home.generation => state,
            // Its removal was in doubt, and took place.
            Ok(_) => {
                follow::removed(&self.shared, home, std::mem::take(&mut doubt.held));
                return self.gone(account, doubt.asked());
            }
            Err(error) => {
                if let Some(times) = self.complaints.reloads.made(turn.monotonic) {
                    tracing::warn!(
                        event = "reload_failed",
                        %error,
                        times,
                        "what became of a home's writes is not known yet"
                    );
                }
                home.doubt = Some(doubt);
                return self.unsettled(turn, account);
            }
        };
        let hidden = doubt.blocked.is_some().then(|| home.account.blocked.clone());
        if let Err(error) = home.believe(*state, &self.shared) {
            tracing::error!(event = "reload_failed", %error, "an account cannot be read back");
            home.doubt = Some(doubt);
            return self.unsettled(turn, account);
        }
        // Clients are told what came of the changes that they asked for.
        for contact in &doubt.contacts {
            let item = home.account.roster.items.get(contact).cloned();
            let version = home.account.roster.version;
            turn.decide(home, None, |cx| match item {
                Some(item) if item.visible => roster_push::push(cx, &item),
                _ => roster_push::push_removed(cx, contact, version),
            });
        }
        if let Some(before) = &doubt.blocked {
            turn.decide(home, None, |cx| tell_blocked(cx, before));
        }
        follow::settled(turn, home, std::mem::take(&mut doubt.held), hidden.as_ref());
        if home.reading {
            self.asked.push(tail::read(&self.shared, home));
        }
        self.asked.extend(rebuild::read(&self.shared, home));
        let mut out = Out { shared: &self.shared, downs: &mut self.downs, reads: &mut self.asked };
        // Rows that turned out to be there come first, as they are in the log.
        if let Some(heir) = session::heir(home) {
            let through = home.last;
            session::feed(&mut out, home, heir, through);
        }
        let tokens: Vec<_> = home.links.iter().map(|link| link.token).collect();
        for token in tokens {
            delivery::feed(&mut out, home, token);
        }
        home.touched = true;
        // What is known by now does not fail with what is decided next.
        self.commit(turn);
        self.go_on(turn, account);
        self.touch(account);
    }
}

/// Tells sessions that have asked for the list what of it is not as they believe (XEP-0191 §3.3).
fn tell_blocked(cx: &mut Cx<'_>, before: &BlockList) {
    let account = cx.account;
    let missing = |of: &BlockList, list: &BlockList| -> Vec<Jid> {
        list.iter().filter(|jid| !of.contains(jid)).cloned().collect()
    };
    let changes =
        [("block", missing(before, &account.blocked)), ("unblock", missing(&account.blocked, before))];
    // An empty `<unblock/>` would mean all.
    for (name, jids) in changes.into_iter().filter(|(_, jids)| !jids.is_empty()) {
        let items = jids.iter().map(|jid| Element::new(ns::BLOCKING, "item").attr("jid", jid.as_str()));
        let pushed = Element::new(ns::BLOCKING, name).children_of(items);
        for session in account.sessions.iter().filter(|session| session.watches_blocks) {
            let push = Stanza::iq(IqType::Set)
                .id(cx.fresh_id())
                .from(account.jid.clone())
                .to(session.jid.clone())
                .child(pushed.clone());
            cx.push(Effect::Deliver(session.token, push));
        }
    }
}
