//! Whether edges are there, and have taken what they were told.
//!
//! A link that carries nothing stays up for seconds. So a home that is moved on purpose asks the edges that have sessions of it,
//! before it takes nothing more, and again behind what it has given away: their answers come over the same links, in order.

use super::Switchboard;
use futures::future::join_all;
use parking_lot::Mutex;
use starling_wire::frame::RouterItem;
use starling_wire::{EdgeId, Shard};
use std::collections::{HashMap, HashSet};
use std::sync::OnceLock;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;
use tokio::sync::watch;
use tokio::time::timeout;

/// How long after an edge did not answer nothing that it has sessions of is moved only to spread the load.
const SHUNNED: Duration = Duration::from_secs(5);

/// What edges were asked, and have answered.
#[derive(Debug, Default)]
pub(super) struct Echoes {
    asks: AtomicU64,
    /// Those that are linked and answer.
    edges: Mutex<HashMap<EdgeId, Echo>>,
    /// From when on nothing waits for any of them.
    over: OnceLock<Duration>,
}

/// The links to edges, at some moment.
#[derive(Debug)]
pub(in crate::router) struct Links(HashMap<EdgeId, u64>);

impl Links {
    /// Whether the links to these edges are the same now as then.
    fn last(&self, now: &Self, edges: &HashSet<EdgeId>) -> bool {
        edges.iter().all(|edge| now.0.get(edge).is_some_and(|link| self.0.get(edge) == Some(link)))
    }
}

/// Of one link.
#[derive(Debug)]
struct Echo {
    link: u64,
    /// The highest that it has answered.
    heard: watch::Sender<u64>,
    /// When it last did not answer in time, if it has not since.
    silent: Option<Duration>,
}

impl Echoes {
    /// An edge has begun a link; one of an earlier version `answers` nothing.
    pub(super) fn linked(&self, edge: EdgeId, link: u64, answers: bool) {
        let mut edges = self.edges.lock();
        edges.remove(&edge);
        if answers {
            edges.insert(edge, Echo { link, heard: watch::Sender::new(0), silent: None });
        }
    }

    /// That link is over: whoever waits for an answer hears so.
    pub(super) fn ended(&self, edge: EdgeId, link: u64) {
        let mut edges = self.edges.lock();
        if edges.get(&edge).is_some_and(|echo| echo.link == link) {
            edges.remove(&edge);
        }
    }

    /// An answer, maybe a late one.
    pub(super) fn heard(&self, edge: EdgeId, ask: u64) {
        if let Some(echo) = self.edges.lock().get_mut(&edge) {
            echo.silent = None;
            echo.heard.send_if_modified(|heard| {
                let news = ask > *heard;
                *heard = ask.max(*heard);
                news
            });
        }
    }

    fn answers_of(&self, edge: EdgeId) -> Option<watch::Receiver<u64>> {
        self.edges.lock().get(&edge).map(|echo| echo.heard.subscribe())
    }

    /// It has not answered; whether that is news.
    fn silent(&self, edge: EdgeId, now: Duration) -> bool {
        let mut edges = self.edges.lock();
        edges.get_mut(&edge).is_some_and(|echo| echo.silent.replace(now).is_none())
    }

    fn is_silent(&self, edge: EdgeId, now: Duration) -> bool {
        let edges = self.edges.lock();
        let since = edges.get(&edge).and_then(|echo| echo.silent);
        since.is_some_and(|since| now < since + SHUNNED)
    }
}

impl Switchboard {
    /// The edges that have sessions of a shard.
    fn edges_of(&self, shard: Shard) -> HashSet<EdgeId> {
        let group = self.locations().and_then(|locations| locations.group(shard));
        group.map(|group| group.view().rows().iter().map(|(_, row)| row.edge).collect()).unwrap_or_default()
    }

    /// Whether all sessions of a shard are at edges that are linked. Those of an edge that was lost wait at their home to be
    /// resumed, and nowhere else: if it moved, they would be gone.
    pub(in crate::router) fn has_all(&self, shard: Shard) -> bool {
        let edges = self.edges.read();
        self.edges_of(shard).iter().all(|edge| edges.contains_key(edge))
    }

    /// The same, and none of them has just been silent.
    pub(in crate::router) fn is_calm(&self, shard: Shard) -> bool {
        let now = self.clock.monotonic();
        self.has_all(shard) && !self.edges_of(shard).iter().any(|edge| self.echoes.is_silent(*edge, now))
    }

    /// Names of the edges that have sessions of a shard and were silent when they were last asked.
    pub(in crate::router) fn silent_edges(&self, shard: Shard) -> Vec<String> {
        let now = self.clock.monotonic();
        let has = self.edges_of(shard);
        let linked = self.edges().into_iter();
        let silent = linked.filter(|(edge, _)| has.contains(edge) && self.echoes.is_silent(*edge, now));
        silent.map(|(_, name)| name).collect()
    }

    /// This router leaves: from that moment on no move waits for any edge.
    pub(in crate::router) fn waits_until(&self, over: Duration) {
        let _ = self.echoes.over.set(over); // it leaves once
    }

    /// Whether a shard is not to be moved now, for an edge that has sessions of it is not linked any more, or does not say
    /// within this time that it has taken what it was told. `links`: what is said since then went over these; one that is made
    /// anew answers for itself only.
    pub(in crate::router) async fn would_lose(&self, shard: Shard, within: Duration, links: &Links) -> bool {
        match self.echoes.over.get() {
            Some(over) if self.clock.monotonic() >= *over => false,
            _ => self.misses(&[shard], within).await || !links.last(&self.links(), &self.edges_of(shard)),
        }
    }

    /// The links to edges, as they are now.
    pub(in crate::router) fn links(&self) -> Links {
        Links(self.edges.read().iter().map(|(edge, linked)| (*edge, linked.number)).collect())
    }

    /// Whether some sessions of these shards are at edges that are not linked, or do not answer in time.
    pub(in crate::router) async fn misses(&self, shards: &[Shard], within: Duration) -> bool {
        shards.iter().any(|shard| !self.has_all(*shard)) || self.are_deaf(shards, within).await
    }

    async fn are_deaf(&self, shards: &[Shard], within: Duration) -> bool {
        let edges: HashSet<EdgeId> = shards.iter().flat_map(|shard| self.edges_of(*shard)).collect();
        let deaf = join_all(edges.into_iter().map(|edge| self.is_deaf(edge, within))).await;
        deaf.contains(&true)
    }

    /// Whether an edge that is linked and answers does not do so in time.
    async fn is_deaf(&self, edge: EdgeId, within: Duration) -> bool {
        let Some(mut answers) = self.echoes.answers_of(edge) else { return false };
        let Some((name, outlet)) = self.way_to(edge) else { return false };
        // Whoever takes a higher one has said what it had to say before: an answer to that one holds for this one, too.
        let ask = self.echoes.asks.fetch_add(1, Ordering::AcqRel) + 1;
        outlet.push(RouterItem::Ask(ask));
        let heard = timeout(within, answers.wait_for(|heard| *heard >= ask)).await;
        if matches!(heard, Ok(Ok(_))) {
            return false;
        }
        if self.echoes.silent(edge, self.clock.monotonic()) {
            tracing::warn!(
                event = "edge_silent",
                edge = %edge,
                name,
                "an edge does not answer, though its link is up: shards that it has sessions of stay where they are"
            );
        }
        true
    }
}

#[cfg(test)]
mod tests {
    use super::super::tests::board;
    use super::super::{Figures, Linked};
    use super::*;
    use starling_node::Telemetry;
    use starling_wire::net::Outlet;
    use std::sync::Arc;

    const EDGE: EdgeId = EdgeId(7);
    const SOON: Duration = Duration::from_millis(20);
    const LONG: Duration = Duration::from_secs(60);

    fn linked(answers: bool) -> (Arc<Switchboard>, Outlet<RouterItem>) {
        let (board, outlet) = (board(&Telemetry::off(), Figures::default()), Outlet::new(1 << 20));
        let link = Linked { number: 3, name: "edge".to_owned(), outlet: outlet.clone(), silent: false };
        board.edges.write().insert(EDGE, link);
        board.echoes.linked(EDGE, 3, answers);
        (board, outlet)
    }

    #[tokio::test]
    async fn who_answers_is_there() {
        let (board, outlet) = linked(true);
        let answers = async {
            while outlet.waiting() == 0 {
                tokio::task::yield_now().await;
            }
            board.echoes.heard(EDGE, 1);
        };
        assert!(!tokio::join!(board.is_deaf(EDGE, LONG), answers).0);
        // What was answered before is no answer to this.
        assert!(board.is_deaf(EDGE, SOON).await);
    }

    #[tokio::test]
    async fn who_does_not_is_silent_until_it_does() {
        let (board, _outlet) = linked(true);
        let is_silent = || board.echoes.is_silent(EDGE, board.clock.monotonic());
        assert!(board.is_deaf(EDGE, SOON).await && is_silent());
        board.echoes.heard(EDGE, 1);
        assert!(!is_silent());
    }

    #[tokio::test]
    async fn who_is_lost_meanwhile_has_not_heard() {
        let (board, _outlet) = linked(true);
        let lost = async {
            board.echoes.ended(EDGE, 2); // an older link
            assert!(board.echoes.answers_of(EDGE).is_some());
            board.echoes.ended(EDGE, 3);
        };
        assert!(tokio::join!(board.is_deaf(EDGE, LONG), lost).0);
    }

    #[tokio::test]
    async fn who_answers_nothing_is_not_asked() {
        let (board, outlet) = linked(false);
        assert!(!board.is_deaf(EDGE, LONG).await && outlet.waiting() == 0);
    }

    #[test]
    fn a_link_that_was_made_anew_is_another_one() {
        let links =
            |all: &[(u64, u64)]| Links(all.iter().map(|(edge, link)| (EdgeId(*edge), *link)).collect());
        let (then, edges) = (links(&[(1, 10), (2, 11)]), HashSet::from([EdgeId(1)]));
        assert!(then.last(&links(&[(1, 10), (2, 12)]), &edges), "nothing is at the other one");
        assert!(!then.last(&links(&[(1, 12), (2, 11)]), &edges));
        assert!(!then.last(&links(&[(2, 11)]), &edges) && !links(&[]).last(&then, &edges));
    }
}
