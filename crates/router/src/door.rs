//! The way to the homes of one shard, for whoever has the links.

use crate::msg::{Admin, Forward, Msg, Network};
use crate::router::{create, stopped};
use crate::shared::Shared;
use crate::worker::Worker;
use crate::{decide, mail, pairs, route};
use futures::future::BoxFuture;
use starling_store::{AccountRow, StoreError};
use starling_wire::frame::{PeerItem, UpBatch};
use starling_wire::{EdgeId, LinkError, SessionInfo, Shard};
use starling_xmpp::sasl::Credentials;
use starling_xmpp::{BareJid, IqType, Kind, PresenceType};
use std::sync::Arc;
use tokio::sync::oneshot;

/// Bytes of forwards that may wait to be taken. Of presence and requests a home sends as many as its client has contacts, and
/// nobody's credit bounds them.
const MOST_BYTES: usize = 32 << 20;
/// What one takes besides its stanza.
const FRAME: usize = 512;

/// What is handed over is taken in that order, with the next turn. When the reign is over nobody takes it, and whoever waits
/// for an answer may wait for ever.
#[derive(Clone)]
pub struct Door {
    pub(crate) shared: Arc<Shared>,
}

/// Whether nobody says it again, and somebody would wait for it.
fn is_missed(forward: &Forward) -> bool {
    use PresenceType::{Available, Probe, Unavailable};
    let kind = forward.stanza.kind;
    let answered = matches!(kind, Kind::Iq(IqType::Get | IqType::Set));
    let said_again = matches!(kind, Kind::Presence(Available | Unavailable | Probe));
    forward.ticket.is_none() && !answered && !said_again
}

impl Door {
    /// What came of an edge, in this shard and reign; `link` tells its links apart.
    pub fn edge(&self, edge: EdgeId, link: u64, batch: UpBatch) {
        let UpBatch { attach_begin, ups, attach_end, .. } = batch;
        let mut messages = Vec::with_capacity(ups.len() + 2);
        if attach_begin {
            messages.push(Msg::Network(Network::AttachBegin(edge, link)));
        }
        messages.extend(ups.into_iter().map(Msg::Edge));
        if attach_end {
            messages.push(Msg::Network(Network::AttachEnd(edge)));
        }
        self.shared.inboxes[0].append(&mut messages);
    }

    /// An edge has had no link for so long that it is taken for dead: its sessions wait to be resumed, or end.
    pub fn dead(&self, edge: EdgeId) {
        self.push(Msg::Network(Network::Dead(edge)));
    }

    /// What came from the home of another shard: forwards for accounts of this one, and what is said of its own. False: so much
    /// waits that it was given up. That is presence, which nobody waits for; messages come again, and requests are answered. What
    /// nobody says again and somebody waits for, answers and subscriptions, has as much room once more.
    pub fn peer(&self, item: PeerItem) -> bool {
        let Some(msg) = mail::read(&self.shared, item) else { return true };
        let Msg::Forward(forward) = msg else {
            self.push(msg);
            return true;
        };
        let weight = FRAME + forward.stanza.encoded_len();
        let most = if is_missed(&forward) { 2 * MOST_BYTES } else { MOST_BYTES };
        match self.shared.inboxes[0].offer(Msg::Forward(forward), weight, most) {
            Err(Msg::Forward(forward)) => self.turn_away(&forward),
            _ => true,
        }
    }

    fn turn_away(&self, forward: &Forward) -> bool {
        if pairs::is_put_off(&self.shared, forward) {
            return true;
        }
        let Forward { account, stanza, ticket, hops, .. } = forward;
        let asks = matches!(stanza.kind, Kind::Iq(IqType::Get | IqType::Set));
        if asks {
            let error = decide::message::not_confirmed();
            route::refuse(&self.shared, account, ticket.as_ref(), stanza, &error, hops + 1);
        }
        asks
    }

    /// How much waits to be taken.
    pub fn waiting(&self) -> usize {
        self.shared.inboxes[0].len()
    }

    /// The home of that shard is another one than before, or can be reached again: what it has not answered goes once more.
    pub fn moved(&self, shard: Shard) {
        self.push(Msg::Network(Network::Moved(shard)));
    }

    /// Whether nobody else reigns over the shard, for certain.
    pub fn holds(&self) -> bool {
        self.shared.positions.hold(self.shared.clock.monotonic())
    }

    /// Whether the store has said that another reign has followed: nothing is taken or answered any more.
    pub fn is_fenced(&self) -> bool {
        self.shared.fence.is_raised()
    }

    /// Whether these homes tell nobody yet that a session is lost: a table of locations that has just begun may have lost what
    /// it knew, and edges may be about to say what they have.
    pub fn is_young(&self) -> bool {
        self.shared.tier.is_some() && Worker::waits_for_edges(&self.shared, self.shared.clock.monotonic())
    }

    /// Has written down what is only in memory; resolves when it is.
    pub fn flush(&self) -> BoxFuture<'static, ()> {
        let (done, wait) = oneshot::channel();
        self.push(Msg::Flush(done));
        Box::pin(async move { drop(wait.await) })
    }

    /// Resolves when no question is being worked on, and nothing is under way to the store.
    pub fn quiet(&self) -> BoxFuture<'static, ()> {
        let (done, wait) = oneshot::channel();
        self.push(Msg::Quiet(done));
        Box::pin(async move { drop(wait.await) })
    }

    /// The shard is about to be moved, and nothing more of edges is handed over: gives away what the next home cannot know
    /// otherwise, to edges and by way of the [post](crate::Post). Resolves when all has left. What comes later is passed on.
    pub fn leave(&self) -> BoxFuture<'static, ()> {
        let (done, wait) = oneshot::channel();
        self.push(Msg::Leave(done));
        Box::pin(async move { drop(wait.await) })
    }

    /// It was not moved after all, and goes on.
    pub fn stay(&self) {
        self.push(Msg::Network(Network::Stay));
    }

    /// The account's row with its keys; `NoHome` without a lease.
    pub fn account(&self, account: &BareJid) -> BoxFuture<'static, Result<Option<AccountRow>, LinkError>> {
        let (door, row) = (self.clone(), self.shared.store.account(account));
        Box::pin(async move {
            let row = row.await.map_err(|_| LinkError::Busy)?;
            if door.holds() { Ok(row) } else { Err(LinkError::NoHome) }
        })
    }

    /// Creates an account; false when it exists.
    pub fn create_account(
        &self,
        account: &BareJid,
        credentials: Credentials,
    ) -> BoxFuture<'static, Result<bool, StoreError>> {
        let (shared, account) = (Arc::clone(&self.shared), account.clone());
        Box::pin(async move { create(&shared, &account, credentials).await })
    }

    /// Gives an account new keys; false where there is none.
    pub fn set_credentials(
        &self,
        account: &BareJid,
        credentials: Credentials,
    ) -> BoxFuture<'static, Result<bool, StoreError>> {
        self.ask(|answer| Admin::Passwd(account.clone(), Box::new(credentials), answer))
    }

    /// Removes an account, ending its sessions; false where there is none.
    pub fn delete_account(&self, account: &BareJid) -> BoxFuture<'static, Result<bool, StoreError>> {
        self.ask(|answer| Admin::Delete(account.clone(), answer))
    }

    /// All sessions of the shard, in no order; none when the reign is over.
    pub fn sessions(&self) -> BoxFuture<'static, Vec<SessionInfo>> {
        let (answer, wait) = oneshot::channel();
        self.push(Msg::Admin(Admin::Sessions(answer)));
        Box::pin(async move { wait.await.unwrap_or_default() })
    }

    fn push(&self, msg: Msg) {
        self.shared.inboxes[0].push(msg);
    }

    fn ask(
        &self,
        question: impl FnOnce(oneshot::Sender<Result<bool, StoreError>>) -> Admin,
    ) -> BoxFuture<'static, Result<bool, StoreError>> {
        let (answer, wait) = oneshot::channel();
        self.push(Msg::Admin(question(answer)));
        Box::pin(async move { wait.await.unwrap_or_else(|_| Err(stopped())) })
    }
}

impl std::fmt::Debug for Door {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Door").field("epoch", &self.shared.positions.epoch()).finish_non_exhaustive()
    }
}
