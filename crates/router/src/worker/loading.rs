//! Homes come into memory, and what came for those that are not there.

use super::*;

impl Worker {
    pub(super) fn load(&self, account: BareJid) {
        let shared = Arc::clone(&self.shared);
        tokio::spawn(async move {
            let state =
                shared.store.load(&account, shared.positions.reign()).await.map(|state| state.map(Box::new));
            shared.send(&account.clone(), Msg::Loaded { account, state });
        });
    }

    pub(super) fn loaded(
        &mut self,
        turn: &mut Turn,
        account: BareJid,
        state: Result<Option<Box<starling_store::AccountState>>, StoreError>,
    ) {
        if let Some(Slot::Ready(home)) = self.homes.get_mut(&account) {
            // Read again after a failed commit.
            match state {
                // What was written since would be undone in memory, were it a block list.
                Ok(Some(_)) if !home.may_believe() => {
                    self.timers.set(turn.monotonic + RELOAD_AFTER, account, Why::Reload);
                }
                Ok(Some(state)) => {
                    if let Err(error) = home.believe(&state, &self.shared) {
                        tracing::error!(event = "load_failed", %error, "an account cannot be read back");
                    }
                }
                Ok(None) => {}
                Err(_) => self.timers.set(turn.monotonic + RELOAD_AFTER, account, Why::Reload),
            }
            return;
        }
        let Some(Slot::Loading(waiting)) = self.homes.remove(&account) else { return };
        let home = state.and_then(|state| {
            state.map(|state| Home::load(account.clone(), *state, &self.shared)).transpose()
        });
        match home {
            Ok(Some(mut home)) => {
                home.used = turn.monotonic;
                home.unresumed = self.ended.take(&account);
                self.timers.set(turn.monotonic + EVICT_AFTER, account.clone(), Why::Evict);
                self.homes.insert(account.clone(), Slot::Ready(Box::new(home)));
                for msg in waiting {
                    self.ready(turn, &account, msg);
                }
            }
            Ok(None) => {
                for msg in waiting {
                    self.absent(msg);
                }
            }
            Err(error) => {
                tracing::warn!(event = "load_failed", %error, "an account could not be loaded");
                for msg in waiting {
                    self.unloadable(msg);
                }
            }
        }
    }

    /// For an account that does not exist.
    pub(super) fn absent(&mut self, msg: Msg) {
        match msg {
            Msg::Edge(ToHome { conn, up, account }) => match up {
                Up::Bind { .. } | Up::Resume { .. } => {
                    let error = StreamError::new(StreamCondition::NotAuthorized).with_text("account removed");
                    self.downs.push(ToEdge { conn, down: Down::Close(Some(Box::new(error))) });
                }
                _ => drop(account),
            },
            Msg::Forward(forward) => {
                if let Some(answer) = decide::nobody(&forward.stanza) {
                    route(&self.shared, &forward.account, answer, forward.hops + 1);
                }
                receipt(&self.shared, forward.ticket.as_ref());
            }
            Msg::Admin(Admin::Passwd(_, _, answer) | Admin::Delete(_, answer)) => {
                drop(answer.send(Ok(false)))
            }
            _ => {}
        }
    }

    /// For an account that cannot be loaded now.
    fn unloadable(&mut self, msg: Msg) {
        let error = || Box::new(decide::message::not_confirmed());
        match msg {
            Msg::Edge(ToHome { conn, up: Up::Bind { .. }, .. }) => {
                self.downs.push(ToEdge { conn, down: Down::Refused(error()) })
            }
            Msg::Edge(ToHome { conn, up: Up::Resume { .. }, .. }) => {
                self.downs.push(ToEdge { conn, down: Down::NotResumed { handled: None } });
            }
            Msg::Forward(forward) => {
                if let Some(answer) = forward.stanza.error(&error()) {
                    route(&self.shared, &forward.account, answer, forward.hops + 1);
                }
                receipt(&self.shared, forward.ticket.as_ref());
            }
            Msg::Admin(Admin::Passwd(_, _, answer) | Admin::Delete(_, answer)) => {
                drop(answer.send(Err(StoreError::Unavailable("the account could not be loaded".to_owned()))));
            }
            _ => {}
        }
    }
}
