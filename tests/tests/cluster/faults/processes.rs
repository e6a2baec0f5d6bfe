//! Processes that end, stand still, or are told to end.

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use anyhow::{Context, Result, ensure};
use parking_lot::Mutex;
use starling_tests::server::PASSWORD;
use starling_tests::{Client, Login, Target};
use tokio::time::{Instant, sleep};

use crate::drill::{Drill, IDLER};
use crate::site::{EDGES, ROUTERS, Which};
use crate::states::http;

/// An edge that is told to end has a second for load balancers and two for its clients; a router hands over.
const DRAINED: Duration = Duration::from_secs(20);
/// So many clients more are at an edge that is drained: that all of them stay to the end has no chance worth a thought.
const MORE: usize = 8;
/// How long it may take to log in where nothing is broken, on a busy machine;
const SOON: Duration = Duration::from_secs(20);
const AGAIN: Duration = Duration::from_millis(100);
/// how often an edge is asked who is still there.
const LOOK: Duration = Duration::from_millis(50);
const REMAINING: &str = "starling_edge_drain_remaining ";

pub(super) async fn an_edge_is_killed(drill: &mut Drill) -> Result<String> {
    let edge = drill.any_edge();
    drill.site.kill(Which::Edge(edge))?;
    let time = drill.hold(0.2..3.0).await;
    Ok(format!("edge-{edge} for {time:.1?}"))
}

pub(super) async fn an_edge_is_killed_at_a_moment(drill: &mut Drill) -> Result<String> {
    let edge = drill.any_edge();
    let how = drill.kill_at_a_moment(Which::Edge(edge)).await?;
    let time = drill.hold(0.0..2.0).await;
    Ok(format!("edge-{edge} {how}, for {time:.1?}"))
}

pub(super) async fn the_leader_is_killed(drill: &mut Drill) -> Result<String> {
    let router = drill.leader();
    drill.site.kill(Which::Router(router))?;
    let time = drill.hold(1.5..4.0).await;
    Ok(format!("router-{router} for {time:.1?}"))
}

pub(super) async fn a_router_is_killed_at_a_moment(drill: &mut Drill) -> Result<String> {
    let router = drill.any_router();
    let how = drill.kill_at_a_moment(Which::Router(router)).await?;
    let time = drill.hold(0.0..3.0).await;
    Ok(format!("router-{router} {how}, for {time:.1?}"))
}

pub(super) async fn a_router_is_away_for_long(drill: &mut Drill) -> Result<String> {
    let router = drill.any_router();
    drill.site.kill(Which::Router(router))?;
    let time = drill.hold(7.0..12.0).await;
    Ok(format!("router-{router} for {time:.1?}"))
}

pub(super) async fn the_leader_stands_still(drill: &mut Drill) -> Result<String> {
    let router = drill.leader();
    drill.site.process(Which::Router(router)).pause()?;
    let time = drill.hold(0.5..7.0).await;
    Ok(format!("router-{router} for {time:.1?}"))
}

pub(super) async fn an_edge_stands_still(drill: &mut Drill) -> Result<String> {
    let edge = drill.any_edge();
    drill.site.process(Which::Edge(edge)).pause()?;
    let time = drill.hold(0.5..9.0).await;
    Ok(format!("edge-{edge} for {time:.1?}"))
}

pub(super) async fn an_edge_is_drained(drill: &mut Drill) -> Result<String> {
    let edge = drill.any_edge();
    let which = Which::Edge(edge);
    let mut here = Vec::new();
    for number in 0..MORE {
        here.push(arrive(&drill.site.at(edge), number).await?);
    }
    let admin = drill.site.admin(which);
    let before = remaining(admin).await?;
    ensure!(before == Some(0), "an edge that serves says that {before:?} clients remain");
    let (begin, seen) = (drill.run.now(), Arc::<Mutex<Vec<u64>>>::default());
    let noted = seen.clone();
    let looks = tokio::spawn(async move {
        loop {
            // At its very end there is nobody to ask.
            if let Ok(Some(count)) = remaining(admin).await {
                noted.lock().push(count);
            }
            sleep(LOOK).await;
        }
    });
    let status = drill.site.process(which).stop(DRAINED).await;
    looks.abort();
    let status = status?;
    ensure!(status.success(), "edge-{edge} ended with {status}");
    let seen = seen.lock();
    let most = seen.iter().max().copied().unwrap_or_default();
    ensure!(
        most >= MORE as u64,
        "{MORE} clients and more were there, and an edge says how many remain: {seen:?}"
    );
    let last = seen.last().copied().unwrap_or_default();
    ensure!(last < most, "clients went, and an edge that leaves says at all times that {last} remain");
    Ok(format!("edge-{edge} in {:.1?}, {most} clients at first and {last} at last", drill.run.now() - begin))
}

/// One who is at this edge and does nothing; its session ends with its connection.
pub(super) async fn arrive(edge: &Target, number: usize) -> Result<Client> {
    let (login, end) =
        (Login::new(IDLER, PASSWORD).resource(&format!("idle-{number}")), Instant::now() + SOON);
    loop {
        match login.connect(edge).await {
            Ok(client) => return Ok(client),
            Err(error) => ensure!(Instant::now() < end, "{error:#}"),
        }
        sleep(AGAIN).await;
    }
}

/// How many clients an edge says are still there while it leaves.
async fn remaining(admin: SocketAddr) -> Result<Option<u64>> {
    let (status, page) = http(admin, "/metrics").await?;
    ensure!(status == 200, "metrics are answered with {status}");
    let line = page.lines().find_map(|line| line.strip_prefix(REMAINING));
    line.map(|value| value.trim().parse().context("no number")).transpose()
}

pub(super) async fn a_router_is_drained(drill: &mut Drill) -> Result<String> {
    let router = drill.leader();
    let begin = drill.run.now();
    let status = drill.site.process(Which::Router(router)).stop(DRAINED).await?;
    let took = drill.run.now() - begin;
    ensure!(status.success(), "router-{router} ended with {status}");
    drill.hold(0.5..1.5).await;
    Ok(format!("router-{router} in {took:.1?}"))
}

/// As an upgrade does it: the next one when the one before is ready.
pub(super) async fn all_are_started_anew_in_turn(drill: &mut Drill) -> Result<String> {
    let begin = drill.run.now();
    for which in (0..ROUTERS).map(Which::Router).chain((0..EDGES).map(Which::Edge)) {
        start_anew(drill, which).await?;
    }
    Ok(format!("routers, then edges, in {:.1?}", drill.run.now() - begin))
}

/// A process is told to end, is started, and all are ready again.
pub(super) async fn start_anew(drill: &mut Drill, which: Which) -> Result<()> {
    let status = drill.site.process(which).stop(DRAINED).await?;
    ensure!(status.success(), "{which:?} ended with {status}");
    drill.site.begin(which)?;
    drill.site.ready(Duration::from_secs(20)).await
}

pub(super) async fn all_edges_are_killed(drill: &mut Drill) -> Result<String> {
    for edge in 0..EDGES {
        drill.site.kill(Which::Edge(edge))?;
    }
    let time = drill.hold(0.0..2.0).await;
    Ok(format!("for {time:.1?}"))
}

/// A machine on which both were. What only these two knew is lost: such sessions need not be resumed.
pub(super) async fn an_edge_and_a_router_are_killed(drill: &mut Drill) -> Result<String> {
    let (edge, router) = (drill.any_edge(), drill.any_router());
    drill.lose_sessions(Which::Edge(edge))?;
    drill.lose_sessions(Which::Router(router))?;
    let time = drill.hold(0.5..3.0).await;
    Ok(format!("edge-{edge} and router-{router} for {time:.1?}"))
}

/// An edge starts with the addresses of routers that are gone, and of one that is not.
pub(super) async fn an_edge_knows_one_router(drill: &mut Drill) -> Result<String> {
    let (edge, router) = (drill.any_edge(), drill.any_router());
    let which = Which::Edge(edge);
    drill.site.kill(which)?;
    let address = drill.site.sandbox.address(drill.site.place(Which::Router(router)));
    let list = format!("10.77.0.90:5270,{address}:5270,10.77.0.91:5270");
    drill.site.process(which).environment(&[("STARLING__CLUSTER__ROUTERS", &list)]);
    let begun = drill.site.begin(which);
    drill.site.process(which).environment(&[]);
    begun?;
    let before = drill.site.process(which).output().len();
    // The one tells it of the others.
    if let Err(error) = drill.site.ready(Duration::from_secs(10)).await {
        drill.note(format!("edge-{edge} knows router-{router} and {error:#}"), false);
    }
    let output = drill.site.process(which).output();
    let first =
        output.get(before..).and_then(|said| said.lines().find(|line| line.contains("linked to a router")));
    ensure!(
        first.is_some_and(|line| line.contains(&format!("\"{address}:5270\""))),
        "edge-{edge} did not come to know the others through router-{router}: {first:?}"
    );
    drill.site.kill(which)?;
    Ok(format!("edge-{edge} knows router-{router}"))
}

pub(super) async fn the_store_stands_still(drill: &mut Drill) -> Result<String> {
    drill.site.process(Which::Store).pause()?;
    let time = drill.hold(0.5..4.0).await;
    Ok(format!("for {time:.1?}"))
}

pub(super) async fn haproxy_is_killed(drill: &mut Drill) -> Result<String> {
    drill.site.kill(Which::Balancer)?;
    let time = drill.hold(0.0..1.0).await;
    Ok(format!("for {time:.1?}"))
}

/// Any two of the simple ones.
pub(super) async fn two_things_at_once(drill: &mut Drill) -> Result<String> {
    let mut done = Vec::new();
    let first = drill.any(4);
    let second = (first + 1 + drill.any(3)) % 4;
    // Nobody says anything to who is dead: to be cut off from it would not be felt.
    let (mut dead_edge, mut dead_router) = (EDGES, ROUTERS);
    for kind in [first, second] {
        let living = |one: usize, dead: usize, all: usize| if one == dead { (one + 1) % all } else { one };
        let edge = living(drill.any_edge(), dead_edge, EDGES);
        let router = living(drill.any_router(), dead_router, ROUTERS);
        done.push(match kind {
            0 => {
                dead_edge = edge;
                drill.lose_sessions(Which::Edge(edge))?;
                format!("edge-{edge} is killed")
            }
            1 => {
                dead_router = router;
                drill.lose_sessions(Which::Router(router))?;
                format!("router-{router} is killed")
            }
            2 => {
                let places = drill.places(&[Which::Router(router), Which::Edge(edge)]);
                drill.site.link(|links| {
                    links.cut(places[0], places[1]);
                })?;
                format!("router-{router} and edge-{edge} are cut off from each other")
            }
            _ => {
                let other = living((router + 1) % ROUTERS, dead_router, ROUTERS);
                let places = drill.places(&[Which::Router(router), Which::Router(other)]);
                drill.site.link(|links| {
                    links.cut_one_way(places[0], places[1]);
                })?;
                format!("router-{router} is not heard by router-{other}")
            }
        });
        drill.hold(0.0..1.0).await;
    }
    let time = drill.hold(0.5..2.0).await;
    if second.max(first) >= 2 {
        done.push(drill.was_felt()?);
    }
    Ok(format!("{}, for {time:.1?}", done.join(", ")))
}
