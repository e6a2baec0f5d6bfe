//! Homes come into memory, and what came for those that are not there.

use super::*;
use crate::reads;
use crate::rebuild::Opening;

impl Worker {
    /// Has an account loaded.
    pub(super) fn load(&mut self, account: BareJid, reign: Reign) {
        let state = self.shared.store.load(&account, reign);
        self.asked.push(Box::pin(async move {
            let state = reads::caught(state).await.map(|state| state.map(Box::new));
            Msg::Loaded { account, state }
        }));
    }

    /// An account has been loaded, or not.
    pub(super) fn loaded(
        &mut self,
        turn: &mut Turn,
        account: BareJid,
        state: Result<Option<Box<starling_store::AccountState>>, StoreError>,
    ) {
        if matches!(state, Err(StoreError::Fenced)) {
            self.shared.fence();
        }
        if let Some(Slot::Ready(_)) = self.homes.get(&account) {
            return self.settled(turn, &account, state);
        }
        let Some(Slot::Loading(mut line, parked)) = self.homes.remove(&account) else { return };
        let (asked, waiting) = (line.asked, line.take());
        self.lives += 1;
        let home = state.and_then(|state| {
            state.map(|state| Home::load(account.clone(), self.lives, *state, &self.shared)).transpose()
        });
        match home {
            Ok(Some(mut home)) => {
                home.used = turn.monotonic;
                home.unresumed = self.ended.take(&account);
                self.remembered.take(&account, &mut home.count, home.last);
                self.timers.set(turn.monotonic + EVICT_AFTER, account.clone(), Why::Evict);
                if self.shared.tier.is_some() {
                    home.opening = Some(Box::new(Opening { parked, ..Opening::default() }));
                }
                self.homes.insert(account.clone(), Slot::Ready(Box::new(home)));
                for held in waiting {
                    self.ready(turn, &account, held);
                }
                self.try_open(turn, &account);
            }
            Ok(None) => {
                for parked in parked {
                    self.absent_session(&parked);
                }
                // What the home that removed the account could not take out any more.
                let places = self.shared.tier.as_ref().map(|tier| tier.register.places(&account));
                for Place { jid, token, .. } in places.into_iter().flatten() {
                    self.unbinding.push(LocationOp::Unbind { jid, token });
                }
                self.absent_as_of(asked, waiting);
            }
            Err(error) => {
                if let Some(times) = self.complaints.loads.made(turn.monotonic) {
                    tracing::warn!(event = "load_failed", %error, times, "an account could not be loaded");
                }
                // It may have written something under its floor nevertheless: the next one has another.
                let floor = self.shared.positions.reign().floor;
                self.shared.positions.forget(floor);
                if !parked.is_empty() {
                    self.attaching.losing.wake(account.clone());
                    self.homes.insert(account.clone(), Slot::Parked(parked));
                } else if waiting.iter().any(|held| matches!(held.msg, Msg::Wake(_))) {
                    self.attaching.losing.again(account.clone(), turn.monotonic);
                }
                for held in waiting {
                    if let Some(msg) = self.keep(turn, &account, held.msg) {
                        self.unloadable(msg);
                    }
                }
            }
        }
    }

    /// For an account that did not exist when that was asked: by the time a message came it may have been made.
    pub(super) fn absent_as_of(&mut self, asked: Duration, waiting: VecDeque<Held>) {
        let mut later = Vec::new();
        for held in waiting {
            if held.since <= asked {
                self.absent(held.msg);
            } else {
                later.push(held.msg);
            }
        }
        self.hear_again(later);
    }

    /// What has come is heard before all that comes from now on, in this order.
    pub(super) fn hear_again(&mut self, messages: Vec<Msg>) {
        messages.into_iter().rev().for_each(|msg| self.backlog.push_front(msg));
    }

    /// A session of an account that does not exist any more.
    pub(super) fn absent_session(&mut self, parked: &Parked) {
        let (conn, record) = (parked.conn, &parked.record);
        if parked.gone.is_none() {
            let error = StreamError::new(StreamCondition::NotAuthorized).with_text("account removed");
            self.downs.push(ToEdge { conn, down: Down::Close(Some(Box::new(error))) });
        }
        self.downs.push(ToEdge { conn, down: Down::Released });
        self.unbinding.push(LocationOp::Unbind { jid: record.jid.clone(), token: record.token });
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
                let answer = decide::nobody(&forward.stanza);
                match (&forward.ticket, answer) {
                    (Some(ticket), answer) => {
                        let refusal = Refusal { answer, unsure: None };
                        route::receipt(&self.shared, &forward.account, ticket, Some(refusal));
                    }
                    (None, Some(answer)) => {
                        route::route(&self.shared, &forward.account, answer, forward.hops + 1, forward.trace);
                    }
                    (None, None) => {}
                }
            }
            Msg::Admin(Admin::Passwd(_, _, answer) | Admin::Delete(_, answer)) => {
                drop(answer.send(Ok(false)))
            }
            _ => {}
        }
    }
}
