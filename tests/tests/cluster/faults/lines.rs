//! Lines that are cut, one way or both, lose packets, are slow, or end what goes over them.

use std::time::Duration;

use anyhow::{Result, ensure};
use rand::RngExt;
use starling_tests::crowd::Awaited;
use starling_tests::sandbox::{Links, SlowLink, Weather};
use tokio::time::sleep;

use super::NotDone;
use crate::drill::Drill;
use crate::site::{ROUTERS, Which};

/// An edge is cut off from all routers, not from its clients: it has to tell them to go, and those whose sessions move
/// away meanwhile must not be held up by it.
pub(super) async fn an_edge_is_cut_off(drill: &mut Drill) -> Result<String> {
    let edge = drill.any_edge();
    let (place, routers) = (drill.site.place(Which::Edge(edge)), drill.site.router_places());
    drill.site.link(|links| {
        links.part(&[place], &routers);
    })?;
    let time = drill.hold(1.0..10.0).await;
    Ok(format!("edge-{edge} for {time:.1?}, {}", drill.was_felt()?))
}

pub(super) async fn an_edge_is_not_heard(drill: &mut Drill) -> Result<String> {
    let edge = drill.any_edge();
    let (place, routers) = (drill.site.place(Which::Edge(edge)), drill.site.router_places());
    drill.site.link(|links| {
        for router in &routers {
            links.cut_one_way(place, *router);
        }
    })?;
    let time = drill.hold(1.0..8.0).await;
    Ok(format!("edge-{edge} for {time:.1?}, {}", drill.was_felt()?))
}

pub(super) async fn an_edge_hears_nothing(drill: &mut Drill) -> Result<String> {
    let edge = drill.any_edge();
    let (place, routers) = (drill.site.place(Which::Edge(edge)), drill.site.router_places());
    drill.site.link(|links| {
        for router in &routers {
            links.cut_one_way(*router, place);
        }
    })?;
    let time = drill.hold(1.0..8.0).await;
    Ok(format!("edge-{edge} for {time:.1?}, {}", drill.was_felt()?))
}

/// A router hears the others and is not heard by them.
pub(super) async fn a_router_is_not_heard(drill: &mut Drill) -> Result<String> {
    let router = drill.leader();
    let (place, routers) = (drill.site.place(Which::Router(router)), drill.site.router_places());
    drill.site.link(|links| {
        for other in &routers {
            links.cut_one_way(place, *other);
        }
    })?;
    let time = drill.hold(1.0..5.0).await;
    Ok(format!("router-{router} for {time:.1?}, {}", drill.was_felt()?))
}

/// A router is heard by the others and hears nobody: shards that others lead are none of its business.
pub(super) async fn a_router_hears_nothing(drill: &mut Drill) -> Result<String> {
    let router = (drill.leader() + 1 + drill.any(ROUTERS - 1)) % ROUTERS;
    let (place, routers) = (drill.site.place(Which::Router(router)), drill.site.router_places());
    drill.site.link(|links| {
        for other in &routers {
            links.cut_one_way(*other, place);
        }
    })?;
    let time = drill.hold(0.8..5.0).await;
    Ok(format!("router-{router} for {time:.1?}, {}", drill.was_felt()?))
}

/// They have nothing to say to each other.
pub(super) async fn edges_are_cut_off_from_each_other(drill: &mut Drill) -> Result<String> {
    let edges = drill.site.edge_places();
    drill.site.link(|links| {
        links.part(&edges, &edges);
    })?;
    for (one, other) in [(0, 1), (1, 2), (2, 0)] {
        let reached = drill.site.reaches(Which::Edge(one), Which::Edge(other))?;
        ensure!(!reached, "edge-{one} reaches edge-{other} all the same");
    }
    let time = drill.hold(1.0..3.0).await;
    Ok(format!("for {time:.1?}, {}", drill.was_felt()?))
}

/// The third sees both.
pub(super) async fn two_routers_are_cut_off_from_each_other(drill: &mut Drill) -> Result<String> {
    let one = drill.leader();
    let other = (one + 1 + drill.any(2)) % ROUTERS;
    let places = drill.places(&[Which::Router(one), Which::Router(other)]);
    drill.site.link(|links| {
        links.cut(places[0], places[1]);
    })?;
    let time = drill.hold(1.0..5.0).await;
    Ok(format!("router-{one} and router-{other} for {time:.1?}, {}", drill.was_felt()?))
}

pub(super) async fn the_leader_is_cut_off(drill: &mut Drill) -> Result<String> {
    let router = drill.leader();
    let place = drill.site.place(Which::Router(router));
    let others = [drill.site.router_places(), drill.site.edge_places()].concat();
    drill.site.link(|links| {
        links.part(&[place], &others);
    })?;
    let time = drill.hold(1.0..6.0).await;
    Ok(format!("router-{router} for {time:.1?}, {}", drill.was_felt()?))
}

/// Two on one side, four on the other: who is alone must not serve.
pub(super) async fn an_edge_and_a_router_are_cut_off(drill: &mut Drill) -> Result<String> {
    let (edge, router) = (drill.any_edge(), drill.leader());
    let few = drill.places(&[Which::Edge(edge), Which::Router(router)]);
    let mut many = [drill.site.router_places(), drill.site.edge_places()].concat();
    many.retain(|place| !few.contains(place));
    drill.site.link(|links| {
        links.part(&few, &many);
    })?;
    let time = drill.hold(1.0..7.0).await;
    Ok(format!("edge-{edge} with router-{router} for {time:.1?}, {}", drill.was_felt()?))
}

pub(super) async fn packets_are_lost(drill: &mut Drill) -> Result<String> {
    let percent = drill.rng.random_range(1..8);
    let all = [drill.site.router_places(), drill.site.edge_places()].concat();
    drill.site.link(|links| {
        links.lose_among(&all, percent);
    })?;
    let time = drill.hold(2.0..6.0).await;
    Ok(format!("{percent} of 100 between all for {time:.1?}, {}", drill.was_felt()?))
}

/// All that goes to it and comes from it is late, out of order, at times twice or not at all.
pub(super) async fn a_router_is_slow_to_reach(drill: &mut Drill) -> Result<String> {
    let router = drill.any_router();
    if let Some(why) = SlowLink::missing() {
        return Err(NotDone(why).into());
    }
    let delay = drill.rng.random_range(5..60);
    let weather = Weather {
        delay: Duration::from_millis(delay),
        jitter: Duration::from_millis(delay),
        doubled: 50,
        lost: 10,
    };
    drill.slow(Which::Router(router), weather).await?;
    let time = drill.hold(2.0..6.0).await;
    let tally = drill.was_bad_weather()?;
    Ok(format!("router-{router}, {delay} to {} ms each way, for {time:.1?}, {tally}", 2 * delay))
}

/// Whoever talks to it finds the connection gone.
pub(super) async fn connections_of_a_router_are_reset(drill: &mut Drill) -> Result<String> {
    let router = drill.leader();
    let place = drill.site.place(Which::Router(router));
    let mut others = [drill.site.router_places(), drill.site.edge_places()].concat();
    others.retain(|other| *other != place);
    let broken = drill.site.sandbox.reset(place, &others, Duration::from_millis(300)).await?;
    ensure!(broken > 0, "no connection of router-{router} was in use");
    Ok(format!("router-{router} for 300 ms, {broken} resets"))
}

/// Edges and peers are heard by a router and do not hear it, then their connections break: all that it has taken in
/// between is sent to it once more.
pub(super) async fn answers_are_lost(drill: &mut Drill) -> Result<String> {
    let router = drill.leader();
    let place = drill.site.place(Which::Router(router));
    let mut others = [drill.site.router_places(), drill.site.edge_places()].concat();
    others.retain(|other| *other != place);
    let (times, mut resets, mut broken) = (drill.rng.random_range(2..5), Vec::new(), 0);
    for _ in 0..times {
        drill.site.link(|links| {
            for edge in &others {
                links.cut_one_way(place, *edge);
            }
        })?;
        // Shorter than an election takes: it is still the home when they come back.
        sleep(Duration::from_millis(drill.rng.random_range(30..150))).await;
        resets.push(drill.run.now());
        drill.site.link(|links| *links = Links::default())?;
        broken += drill.site.sandbox.reset(place, &others, Duration::from_millis(100)).await?;
        sleep(Duration::from_millis(drill.rng.random_range(200..600))).await;
    }
    // Their clients stayed: whatever of it had reached the home came to it a second time, from the edge.
    ensure!(broken > 0, "no connection of router-{router} was in use");
    let open: usize = resets.iter().map(|reset| drill.run.waits_over(Awaited::Answer, *reset)).sum();
    Ok(format!(
        "of router-{router}, {times} times, with the connections, {open} messages under way, {}",
        drill.was_felt()?
    ))
}

/// What is on its way to a router is up to half a second late, each packet by itself, while connections break and are
/// made anew: what comes over the new one may be there before what was sent over the old one.
pub(super) async fn links_overtake_each_other(drill: &mut Drill) -> Result<String> {
    if let Some(why) = SlowLink::missing() {
        return Err(NotDone(why).into());
    }
    let router = drill.any_router();
    let delay = drill.rng.random_range(5..40);
    let weather = Weather {
        delay: Duration::from_millis(delay),
        jitter: Duration::from_millis(10 * delay),
        doubled: 200,
        lost: 0,
    };
    drill.slow(Which::Router(router), weather).await?;
    let place = drill.site.place(Which::Router(router));
    let mut others = [drill.site.router_places(), drill.site.edge_places()].concat();
    others.retain(|other| *other != place);
    let (wanted, mut times, mut broken) = (drill.rng.random_range(2..5), 0, 0);
    // A router that leads nothing says little, and what is silent for so long does not break.
    while times < wanted || broken == 0 && times < 5 * wanted {
        times += 1;
        drill.hold(0.3..1.5).await;
        // They close on one side only; what the other side has sent is still under way.
        let edge = others[drill.any(others.len())];
        broken += drill.site.sandbox.reset(edge, &[place], Duration::from_millis(50)).await?;
    }
    ensure!(broken > 0, "no connection of router-{router} was in use when it was to break");
    let tally = drill.was_bad_weather()?;
    Ok(format!("router-{router}, {delay} to {} ms, {times} resets, {tally}", 11 * delay))
}

/// Clients come over another edge while theirs is well and has their sessions.
pub(super) async fn haproxy_loses_an_edge(drill: &mut Drill) -> Result<String> {
    let edge = drill.any_edge();
    let places = drill.places(&[Which::Balancer, Which::Edge(edge)]);
    drill.site.link(|links| {
        links.cut(places[0], places[1]);
    })?;
    let time = drill.hold(3.0..10.0).await;
    Ok(format!("edge-{edge} for {time:.1?}, {}", drill.was_felt()?))
}

pub(super) async fn a_router_loses_the_store(drill: &mut Drill) -> Result<String> {
    let router = drill.leader();
    let places = drill.places(&[Which::Router(router), Which::Store]);
    drill.site.link(|links| {
        links.cut(places[0], places[1]);
    })?;
    let time = drill.hold(0.5..4.0).await;
    Ok(format!("router-{router} for {time:.1?}, {}", drill.was_felt()?))
}
