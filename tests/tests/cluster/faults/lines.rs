//! Lines that are cut, one way or both, lose packets, are slow, or end what goes over them.

use std::time::Duration;

use anyhow::Result;
use rand::RngExt;
use starling_tests::sandbox::{SlowLink, Weather};

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
    Ok(format!("edge-{edge} for {time:.1?}"))
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
    Ok(format!("edge-{edge} for {time:.1?}"))
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
    Ok(format!("edge-{edge} for {time:.1?}"))
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
    Ok(format!("router-{router} for {time:.1?}"))
}

/// They have nothing to say to each other.
pub(super) async fn edges_are_cut_off_from_each_other(drill: &mut Drill) -> Result<String> {
    let edges = drill.site.edge_places();
    drill.site.link(|links| {
        links.part(&edges, &edges);
    })?;
    let time = drill.hold(1.0..3.0).await;
    Ok(format!("for {time:.1?}"))
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
    Ok(format!("router-{one} and router-{other} for {time:.1?}"))
}

pub(super) async fn the_leader_is_cut_off(drill: &mut Drill) -> Result<String> {
    let router = drill.leader();
    let place = drill.site.place(Which::Router(router));
    let others = [drill.site.router_places(), drill.site.edge_places()].concat();
    drill.site.link(|links| {
        links.part(&[place], &others);
    })?;
    let time = drill.hold(1.0..6.0).await;
    Ok(format!("router-{router} for {time:.1?}"))
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
    Ok(format!("edge-{edge} with router-{router} for {time:.1?}"))
}

pub(super) async fn packets_are_lost(drill: &mut Drill) -> Result<String> {
    let percent = drill.rng.random_range(1..8);
    let all = [drill.site.router_places(), drill.site.edge_places()].concat();
    drill.site.link(|links| {
        links.lose_among(&all, percent);
    })?;
    let time = drill.hold(2.0..6.0).await;
    Ok(format!("{percent} of 100 between all for {time:.1?}"))
}

/// All that goes to it and comes from it is late, out of order, at times twice or not at all.
pub(super) async fn a_router_is_slow_to_reach(drill: &mut Drill) -> Result<String> {
    let router = drill.any_router();
    if let Some(why) = SlowLink::missing() {
        return Ok(format!("not done: {why}"));
    }
    let delay = drill.rng.random_range(5..60);
    let weather = Weather {
        delay: Duration::from_millis(delay),
        jitter: Duration::from_millis(delay),
        doubled: 50,
        lost: 10,
    };
    let (place, seed) = (drill.site.place(Which::Router(router)), drill.rng.random());
    let link = SlowLink::new(&drill.site.sandbox, place, weather, seed)?;
    drill.site.slow(link);
    let time = drill.hold(2.0..6.0).await;
    Ok(format!("router-{router}, {delay} to {} ms each way, for {time:.1?}", 2 * delay))
}

/// Whoever talks to it finds the connection gone.
pub(super) async fn connections_of_a_router_are_reset(drill: &mut Drill) -> Result<String> {
    let router = drill.leader();
    let place = drill.site.place(Which::Router(router));
    let mut others = [drill.site.router_places(), drill.site.edge_places()].concat();
    others.retain(|other| *other != place);
    drill.site.sandbox.reset(place, &others, Duration::from_millis(300)).await?;
    Ok(format!("router-{router} for 300 ms"))
}

/// Clients come over another edge while theirs is well and has their sessions.
pub(super) async fn haproxy_loses_an_edge(drill: &mut Drill) -> Result<String> {
    let edge = drill.any_edge();
    let places = drill.places(&[Which::Balancer, Which::Edge(edge)]);
    drill.site.link(|links| {
        links.cut(places[0], places[1]);
    })?;
    let time = drill.hold(3.0..10.0).await;
    Ok(format!("edge-{edge} for {time:.1?}"))
}

pub(super) async fn a_router_loses_the_store(drill: &mut Drill) -> Result<String> {
    let router = drill.leader();
    let places = drill.places(&[Which::Router(router), Which::Store]);
    drill.site.link(|links| {
        links.cut(places[0], places[1]);
    })?;
    let time = drill.hold(0.5..4.0).await;
    Ok(format!("router-{router} for {time:.1?}"))
}
