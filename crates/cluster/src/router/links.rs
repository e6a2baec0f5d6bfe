//! The links of the Raft groups, over those between routers.

use super::switchboard::Switchboard;
use bytes::Bytes;
use futures::future::BoxFuture;
use parking_lot::Mutex;
use starling_locations::peers::{Links, PeerError, Peers};
use starling_locations::types::Member;
use starling_wire::RouterId;
use starling_wire::net::{Addresses, CallError, PeerState, RaftLinks, Seeds};
use std::collections::{BTreeMap, BTreeSet};
use std::io;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;
use tokio::sync::watch;

/// Where routers are: as configured, and as those who belong to the cluster said.
#[derive(Debug)]
pub(super) struct Book {
    own: String,
    seeds: Vec<String>,
    members: Mutex<BTreeSet<String>>,
}

impl Book {
    /// What is configured; `own` is where this router is itself.
    pub(super) fn new(own: &str, seeds: &[String]) -> Self {
        Self { own: own.to_owned(), seeds: seeds.to_vec(), members: Mutex::default() }
    }

    fn all(&self) -> Vec<String> {
        let members = self.members.lock();
        let more = members.iter().filter(|member| !self.seeds.contains(member));
        let mut all: Vec<_> =
            self.seeds.iter().chain(more).filter(|address| **address != self.own).cloned().collect();
        if all.is_empty() {
            // It finds itself, which is no trouble; to find nobody would be.
            all.push(self.own.clone());
        }
        all
    }
}

impl Addresses for Book {
    fn find(&self) -> BoxFuture<'static, io::Result<Vec<SocketAddr>>> {
        Seeds(self.all()).find()
    }
}

/// The links as the locations use them. `states` is followed by [`follow`].
pub(super) struct RaftPeers {
    links: RaftLinks,
    book: Arc<Book>,
    board: Arc<Switchboard>,
    linked: watch::Receiver<Links>,
}

impl RaftPeers {
    /// They are, and what has to run beside them.
    pub(super) fn new(
        links: RaftLinks,
        book: Arc<Book>,
        board: Arc<Switchboard>,
    ) -> (Self, impl Future<Output = ()> + Send + 'static) {
        let (told, linked) = watch::channel(Links::default());
        let states = links.states();
        (Self { links, book, board, linked }, follow(states, told))
    }
}

/// Tells who is linked, for ever.
async fn follow(mut states: watch::Receiver<BTreeMap<RouterId, PeerState>>, told: watch::Sender<Links>) {
    loop {
        let now: BTreeMap<_, _> =
            states.borrow_and_update().iter().map(|(id, state)| (*id, member(state))).collect();
        told.send_if_modified(|before| {
            let news = **before != now;
            if news {
                *before = Arc::new(now);
            }
            news
        });
        if states.changed().await.is_err() {
            return;
        }
    }
}

/// Routers say where they are in what their links carry beside.
fn member(state: &PeerState) -> Member {
    Member::new(state.name.clone(), String::from_utf8_lossy(&state.notes))
}

impl Peers for RaftPeers {
    fn call(
        &self,
        to: RouterId,
        group: u16,
        body: Bytes,
        within: Duration,
    ) -> BoxFuture<'static, Result<Bytes, PeerError>> {
        let (links, linked) = (self.links.clone(), self.linked.borrow().contains_key(&to));
        Box::pin(async move {
            let answer = links.call(to, group, body, within).await;
            answer.map_err(|error| match error {
                CallError::Unlinked if !linked => PeerError::NotLinked,
                CallError::Late => PeerError::Late,
                error => {
                    tracing::debug!(router = %to, %error, "a call of raft has no answer");
                    PeerError::Lost
                }
            })
        })
    }

    fn links(&self) -> watch::Receiver<Links> {
        self.linked.clone()
    }

    fn members(&self, members: &BTreeMap<RouterId, Member>) {
        let addresses: BTreeSet<_> = members.values().map(|member| member.address.clone()).collect();
        self.board.members(addresses.iter().cloned().collect());
        *self.book.members.lock() = addresses;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn whoever_belongs_to_the_cluster_is_called_beside_those_configured() {
        let book = Book::new("a:1", &["a:1".to_owned(), "b:1".to_owned()]);
        assert_eq!(book.all(), ["b:1"]);
        assert_eq!(Book::new("a:1", &[]).all(), ["a:1"]);
        *book.members.lock() = ["a:1", "b:1", "c:1"].map(str::to_owned).into();
        assert_eq!(book.all(), ["b:1", "c:1"]);
    }
}
