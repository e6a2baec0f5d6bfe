//! Links: of edges to routers, and between routers. What goes over one arrives in order or not at all; a link breaks at its
//! two ends at different times, and what is on its way then may still arrive, until the next link of the same two.

use super::Cluster;
use super::router::{Router, id_of};
use super::tip::Tip;
use crate::line::Pipe;
use starling_store_scylla::model::Dice;
use starling_wire::EdgeId;
use starling_wire::frame::{EdgeItem, Home, PeerItem, RouterItem};
use starling_wire::uplink::LinkId;
use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

/// After so long without an answer a link is given up.
pub(super) const KEEP_ALIVE: Duration = Duration::from_secs(3);

/// A link of an edge, as its router has it.
#[derive(Clone)]
pub(super) struct Wire {
    pub(super) number: u64,
    pub(super) down: Pipe<RouterItem>,
}

/// The same, with both directions.
#[derive(Clone)]
struct Link {
    wire: Wire,
    up: Pipe<EdgeItem>,
    breaking: bool,
}

/// A stream of a router to another one.
#[derive(Clone)]
struct Stream {
    number: u64,
    pipe: Pipe<PeerItem>,
    breaking: bool,
}

/// All links there are.
#[derive(Default)]
pub(super) struct Links {
    /// As edges know them.
    wires: BTreeMap<(EdgeId, usize), Link>,
    /// The newest of each two, as routers know them.
    newest: BTreeMap<(EdgeId, usize), Link>,
    streams: BTreeMap<(usize, usize), Stream>,
}

/// What befalls a word of one home to another.
enum Mishap {
    Lost,
    Twice,
    /// Others overtake it.
    Late(Duration),
}

/// How suddenly a link breaks.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(super) enum Fall {
    /// Both ends learn of it soon, and what was on its way may arrive.
    Soon,
    /// Nothing passes from now on, and nobody is told.
    Silent,
}

impl Cluster {
    /// Makes links that may be.
    pub(super) fn keep_links(self: &Arc<Self>, dice: &mut Dice) {
        let (routers, tips) = (self.routers(), self.tips());
        for (place, tip) in tips.iter().enumerate() {
            for router in &routers {
                let linked = self.links.lock().wires.contains_key(&(tip.id, router.index));
                let may = router.runs() && tip.runs() && !self.are_apart(place, router.index);
                if !linked && may && dice.permille(400) {
                    self.link(tip, router);
                }
            }
        }
        for one in &routers {
            for other in routers.iter().filter(|other| other.index != one.index) {
                let linked = self.links.lock().streams.contains_key(&(one.index, other.index));
                let may = one.runs() && other.runs() && self.hear_each_other(one.index, other.index);
                if !linked && may && dice.permille(400) {
                    self.stream(one, other);
                }
            }
        }
    }

    fn link(self: &Arc<Self>, tip: &Arc<Tip>, router: &Arc<Router>) {
        let number = self.stage.number() + 1;
        let id = LinkId { router: id_of(router.index), number };
        let (edge, to) = (tip.id, tip.clone());
        let down = Pipe::to_process(&self.stage, &tip.asleep, move |item| to.hear(id, item));
        let wire = Wire { number, down: down.clone() };
        let (at, back) = (router.clone(), wire.clone());
        let up = Pipe::to_process(&self.stage, &router.asleep, move |item| at.hear(edge, &back, item));
        let link = Link { wire, up: up.clone(), breaking: false };
        let before = {
            let mut links = self.links.lock();
            links.wires.insert((edge, router.index), link.clone());
            links.newest.insert((edge, router.index), link)
        };
        if let Some(before) = before {
            before.cut();
        }
        tip.linked(id, up);
        router.linked(edge);
        for home in router.homes() {
            down.send(RouterItem::Home(home));
        }
    }

    fn stream(self: &Arc<Self>, from: &Arc<Router>, to: &Arc<Router>) {
        let (at, index) = (to.clone(), from.index);
        let pipe = Pipe::to_process(&self.stage, &to.asleep, move |item| at.receive(index, item));
        let number = self.stage.number() + 1;
        let stream = Stream { number, pipe: pipe.clone(), breaking: false };
        self.links.lock().streams.insert((from.index, to.index), stream);
        to.greet(from.index, &from.homes());
        for home in from.homes() {
            pipe.send(PeerItem::Home(home));
        }
        from.greet(to.index, &to.homes());
    }

    /// A router says something to all edges that are linked.
    pub(super) fn tell_edges(&self, by: usize, item: impl Fn() -> RouterItem) {
        for ((_, router), link) in &self.links.lock().newest {
            if *router == by {
                link.wire.down.send(item());
            }
        }
    }

    /// And to all routers.
    pub(super) fn tell_routers(&self, by: usize, home: Home) {
        for ((from, _), stream) in &self.links.lock().streams {
            if *from == by {
                stream.pipe.send(PeerItem::Home(home));
            }
        }
    }

    /// Says something to another router; false where there is no link. What homes say to each other is lost at times, or comes
    /// twice, or late: they have numbers for that.
    pub(super) fn say(&self, from: usize, to: usize, item: PeerItem) -> bool {
        let links = self.links.lock();
        let Some(stream) = links.streams.get(&(from, to)) else { return false };
        let of_homes = matches!(item, PeerItem::Forward(_) | PeerItem::Receipt(_) | PeerItem::Missing(..));
        match self.mishap().filter(|_| of_homes) {
            None => stream.pipe.send(item),
            Some(Mishap::Lost) => {}
            Some(Mishap::Twice) => {
                stream.pipe.send(item.clone());
                stream.pipe.send(item);
            }
            Some(Mishap::Late(by)) => {
                let pipe = stream.pipe.clone();
                self.stage.world.after(by, move || pipe.send(item));
            }
        }
        true
    }

    fn mishap(&self) -> Option<Mishap> {
        let often = self.stage.plan.lossy;
        if often == 0 || self.stage.healed().is_some() {
            return None;
        }
        let mut dice = self.dice.lock();
        dice.permille(often).then(|| match dice.place(3) {
            0 => Mishap::Lost,
            1 => Mishap::Twice,
            _ => Mishap::Late(Duration::from_micros(dice.within(100..20_000))),
        })
    }

    /// The link of an edge to a router, by its number, while it is whole.
    pub(super) fn link_of(&self, edge: EdgeId, router: usize) -> Option<u64> {
        let links = self.links.lock();
        links.wires.get(&(edge, router)).filter(|link| !link.breaking).map(|link| link.wire.number)
    }

    /// The link of an edge to a router breaks.
    pub(super) fn unlink(self: &Arc<Self>, edge: EdgeId, router: usize, fall: Fall) {
        let link = {
            let mut links = self.links.lock();
            let Some(link) = links.wires.get_mut(&(edge, router)).filter(|link| !link.breaking) else {
                return;
            };
            link.breaking = true;
            link.clone()
        };
        let mut dice = self.stage.dice();
        link.wire.down.end(passes(&mut dice, fall));
        link.up.end(passes(&mut dice, fall));
        let number = link.wire.number;
        let (at_edge, at_router) = (self.clone(), self.clone());
        self.stage.world.after(learns(&mut dice, fall), move || at_edge.edge_learns(edge, router, number));
        self.stage
            .world
            .after(learns(&mut dice, fall), move || at_router.router_learns(edge, router, number));
    }

    fn edge_learns(self: &Arc<Self>, edge: EdgeId, router: usize, number: u64) {
        let tip = self.tips().into_iter().find(|tip| tip.id == edge && tip.process.is_alive());
        if tip.as_ref().is_some_and(|tip| !tip.runs()) {
            let again = self.clone();
            return self.stage.world.after(AGAIN, move || again.edge_learns(edge, router, number));
        }
        let link = {
            let mut links = self.links.lock();
            let same = links.wires.get(&(edge, router)).is_some_and(|link| link.wire.number == number);
            if same { links.wires.remove(&(edge, router)) } else { None }
        };
        let (Some(link), Some(tip)) = (link, tip) else { return };
        link.wire.down.cut();
        tip.unlinked(LinkId { router: id_of(router), number });
    }

    fn router_learns(self: &Arc<Self>, edge: EdgeId, router: usize, number: u64) {
        let at = self.routers()[router].clone();
        if at.is_alive() && !at.runs() {
            let again = self.clone();
            return self.stage.world.after(AGAIN, move || again.router_learns(edge, router, number));
        }
        let link = {
            let mut links = self.links.lock();
            let same = links.newest.get(&(edge, router)).is_some_and(|link| link.wire.number == number);
            if same { links.newest.remove(&(edge, router)) } else { None }
        };
        let Some(link) = link else { return };
        link.cut();
        at.unlinked(edge, number);
    }

    /// The stream of a router to another one breaks.
    pub(super) fn part(self: &Arc<Self>, from: usize, to: usize, fall: Fall) {
        let stream = {
            let mut links = self.links.lock();
            let Some(stream) = links.streams.get_mut(&(from, to)).filter(|stream| !stream.breaking) else {
                return;
            };
            stream.breaking = true;
            stream.clone()
        };
        let mut dice = self.stage.dice();
        stream.pipe.end(passes(&mut dice, fall));
        let cluster = self.clone();
        self.stage.world.after(learns(&mut dice, fall), move || {
            let mut links = cluster.links.lock();
            if links.streams.get(&(from, to)).is_some_and(|own| own.number == stream.number) {
                links.streams.remove(&(from, to));
            }
            drop(links);
            stream.pipe.cut();
        });
    }

    /// All links of a router break.
    pub(super) fn sever_router(self: &Arc<Self>, router: usize, fall: Fall) {
        for tip in self.tips() {
            self.unlink(tip.id, router, fall);
        }
        for other in (0..self.routers().len()).filter(|other| *other != router) {
            self.part(router, other, fall);
            self.part(other, router, fall);
        }
    }

    /// All links of an edge break.
    pub(super) fn sever_tip(self: &Arc<Self>, edge: EdgeId, fall: Fall) {
        for router in 0..self.routers().len() {
            self.unlink(edge, router, fall);
        }
    }
}

impl Link {
    fn cut(&self) {
        self.wire.down.cut();
        self.up.cut();
    }
}

impl Links {
    /// Whether a router has a link of this edge, as far as it knows.
    pub(super) fn knows(&self, edge: EdgeId, router: usize) -> bool {
        self.newest.contains_key(&(edge, router))
    }

    /// Forgets all of them.
    pub(super) fn clear(&mut self) {
        for link in self.wires.values().chain(self.newest.values()) {
            link.cut();
        }
        for stream in self.streams.values() {
            stream.pipe.cut();
        }
        *self = Self::default();
    }
}

const AGAIN: Duration = Duration::from_millis(10);

/// For how long what is on its way still arrives.
fn passes(dice: &mut Dice, fall: Fall) -> Duration {
    match fall {
        Fall::Silent => Duration::ZERO,
        Fall::Soon => Duration::from_micros(dice.within(0..[1, 3_000, 100_000][dice.clone().place(3)])),
    }
}

/// When an end learns that the link has broken.
fn learns(dice: &mut Dice, fall: Fall) -> Duration {
    let most = u64::try_from(KEEP_ALIVE.as_micros()).unwrap_or(u64::MAX);
    let range = match fall {
        Fall::Soon if dice.permille(900) => 100..30_000,
        Fall::Soon | Fall::Silent => most / 3..most,
    };
    Duration::from_micros(dice.within(range))
}
