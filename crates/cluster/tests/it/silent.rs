//! An edge whose process stands still: its links stay up for seconds, and it hears nothing of what homes give to it.

use crate::people::{Client, Edge};
use crate::site::{Site, jid, until};
use starling_cluster::RouterNode;
use starling_locations::GiveError;
use starling_wire::{RouterId, Shard};
use std::sync::Arc;
use std::sync::mpsc::{Sender, channel};
use std::time::Duration;
use tokio::runtime::{Builder, Runtime};
use tokio::task::block_in_place;
use tokio::time::{Instant, sleep, timeout};

/// How an edge goes while what it has sessions of is being moved.
#[derive(Debug, Clone, Copy, PartialEq)]
enum Goes {
    /// Its process stands still.
    Silent,
    /// It has ended.
    Lost,
}

/// Longer than an edge is asked, and less than its link takes to be declared dead.
const UNHEARD: Duration = Duration::from_secs(1);

/// An edge that has one thread, and one of its own.
struct Remote {
    runtime: Option<Runtime>,
    edge: Arc<Edge>,
}

impl Remote {
    fn start(site: &Site, id: u64) -> Self {
        let runtime = Builder::new_multi_thread().worker_threads(1).enable_all().build().unwrap();
        let edge = block_in_place(|| runtime.block_on(Edge::start(site, id)));
        Self { runtime: Some(runtime), edge }
    }

    /// It does nothing while what this returns lives.
    fn stops(&self) -> Sender<()> {
        let ((stopped, stops), (goes, waits)) = (channel(), channel::<()>());
        self.runtime.as_ref().unwrap().spawn(async move {
            stopped.send(()).unwrap();
            let _ = waits.recv(); // until the other end is gone
        });
        block_in_place(|| stops.recv()).unwrap();
        goes
    }
}

impl Drop for Remote {
    fn drop(&mut self) {
        self.runtime.take().unwrap().shutdown_background();
    }
}

/// Who leads a shard, and who could.
fn places(site: &Site, shard: Shard) -> (usize, usize) {
    let leads = |router: &Option<RouterNode>| {
        let own = router.as_ref().unwrap();
        own.locations().group(shard).unwrap().standing().leader == Some(own.id())
    };
    let home = site.routers.iter().position(leads).unwrap();
    (home, (home + 1) % site.routers.len())
}

fn id(site: &Site, router: usize) -> RouterId {
    site.routers[router].as_ref().unwrap().id()
}

/// Three routers, alice's session at an edge that can be stopped, and another edge.
async fn scene() -> (Site, Remote, Arc<Edge>, Client) {
    let site = Site::start(3).await;
    site.account("alice").await;
    let (remote, near) = (Remote::start(&site, 1), Edge::start(&site, 2).await);
    let alice = Client::managed(&remote.edge, "alice", "phone").await;
    (site, remote, near, alice)
}

/// She writes to herself.
async fn goes_on(alice: &mut Client, text: &str) {
    alice.tell("alice", text);
    alice.until("it has come", |seen| seen.messages.iter().any(|body| body == text)).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn no_shard_is_moved_while_an_edge_with_sessions_of_it_is_silent() {
    let (site, remote, near, alice) = scene().await;
    let shard = site.shards().of(&jid("alice"));
    let (home, heir) = places(&site, shard);
    let mut admin = starling_admin::Client::connect(&site.data_dir(home)).await.unwrap();
    let stopped = remote.stops();
    let (asked, to) = (Instant::now(), format!("router-{heir}"));
    let refused =
        admin.raft_transfer(shard.0, &to).await.expect_err("its sessions would be gone").to_string();
    assert!(refused.contains("edge-1") && refused.contains("ask again later"), "{refused}");
    assert!(asked.elapsed() < UNHEARD, "after {:?}", asked.elapsed());
    let mut alice = alice.resume(&near).await;
    goes_on(&mut alice, "before").await;
    // No session is there any more.
    admin.raft_transfer(shard.0, &to).await.unwrap();
    goes_on(&mut alice, "after").await;
    drop(stopped);
}

/// It was there when it was asked first.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_home_goes_on_when_what_it_gave_away_has_not_come() {
    for goes in [Goes::Silent, Goes::Lost] {
        let (site, remote, near, mut alice) = scene().await;
        let shard = site.shards().of(&jid("alice"));
        let (home, heir) = places(&site, shard);
        let (serves, to) = (site.routers[home].as_ref().unwrap().serves(), id(&site, heir));
        // The home has to wait for it before it gives away anything.
        site.store.hold();
        alice.tell("alice", "held");
        until(UNHEARD, "it is on its way", || site.store.held() > 0).await;
        let locations = site.routers[home].as_ref().unwrap().locations().clone();
        let given = tokio::spawn(async move { locations.give(shard, to).await });
        let router = site.routers[home].as_ref().unwrap();
        until(UNHEARD, "it takes nothing more", || router.serves() < serves).await;
        let stopped = (goes == Goes::Silent).then(|| remote.stops());
        let remote = (goes == Goes::Silent).then_some(remote);
        if remote.is_none() {
            // The heir has one edge, and the home no other.
            until(UNHEARD, "its links are over", || router.locations().edges(to) == Some((1, 0))).await;
        }
        site.store.release();
        assert_eq!(given.await.unwrap(), Err(GiveError::Unsafe), "{goes:?}");
        let mut alice = alice.resume(&near).await;
        alice.until("it has come", |seen| seen.messages == ["held"]).await;
        goes_on(&mut alice, "more").await;
        assert_eq!(alice.messages(), ["held", "more"]);
        drop((stopped, remote));
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_router_that_leaves_waits_for_sessions_of_an_edge_that_is_silent() {
    let (mut site, remote, near, alice) = scene().await;
    let shard = site.shards().of(&jid("alice"));
    let (home, _) = places(&site, shard);
    let stopped = remote.stops();
    let stopping = tokio::spawn(site.routers[home].take().unwrap().stop());
    // Her client needs a moment to find out.
    sleep(UNHEARD).await;
    let mut alice = alice.resume(&near).await;
    goes_on(&mut alice, "meanwhile").await;
    timeout(Duration::from_secs(10), stopping).await.expect("it goes").unwrap();
    goes_on(&mut alice, "after").await;
    drop(stopped);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_router_that_leaves_waits_for_nobody_for_ever() {
    let (mut site, remote, _near, _alice) = scene().await;
    let (home, _) = places(&site, site.shards().of(&jid("alice")));
    let stopped = remote.stops();
    let began = Instant::now();
    timeout(Duration::from_secs(15), site.routers[home].take().unwrap().stop()).await.expect("it goes");
    assert!(began.elapsed() > Duration::from_secs(4), "after {:?}", began.elapsed());
    let all = usize::from(site.shards().count());
    until(Duration::from_secs(2), "the others serve all", || {
        site.running().map(RouterNode::serves).sum::<usize>() == all
    })
    .await;
    drop(stopped);
}
