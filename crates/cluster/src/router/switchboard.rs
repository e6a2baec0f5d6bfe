//! What came over links goes to the homes it is for, and what homes say to the links: nothing is decided here but where to.
//!
//! An edge speaks to a reign, and is told `NotHome` where that is not this router's. Homes of other shards are spoken to in
//! the same way, in this process or another.

mod echoes;
mod edges;
mod lobby;
mod peers;
mod post;
mod sent;

pub(super) use edges::Reception;
pub(super) use peers::Neighbours;
pub(super) use post::{Deliveries, Gate, Mail};

use self::echoes::Echoes;
use self::lobby::Lobby;
use self::sent::{Heard, Sent};
use super::desk::Desk;
use super::figures::Figures;
use crate::leaving::Leaving;
use crate::refusals::Refusals;
use bytes::Bytes;
use parking_lot::{Mutex, RwLock};
use starling_admin::traces::Rules;
use starling_locations::Locations;
use starling_node::SharedClock;
use starling_setup::Obstacle;
use starling_wire::chart::Chart;
use starling_wire::frame::{
    Home, Leaving as Leaves, PeerHello, PeerItem, RouterHello, RouterItem, TraceReport, Version,
};
use starling_wire::net::Outlet;
use starling_wire::{EdgeId, Incarnation, RouterId, Shard, Shards, TraceRule};
use std::collections::HashMap;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, OnceLock};
use std::time::Duration;
use tokio::sync::watch;

/// Who this router is, as it says to others.
#[derive(Debug, Clone)]
pub(super) struct Own {
    pub(super) version: Version,
    pub(super) router: RouterId,
    pub(super) name: String,
    pub(super) incarnation: Incarnation,
    /// Where other routers reach it.
    pub(super) address: Bytes,
    pub(super) shards: Shards,
    /// What edges need that have no store.
    pub(super) decoy_secret: Bytes,
    pub(super) features: Vec<Bytes>,
}

/// All links of this router, and all homes.
pub(super) struct Switchboard {
    pub(super) own: Own,
    pub(super) chart: Chart<Gate>,
    pub(super) desk: Desk,
    pub(super) figures: Figures,
    /// Accounts that are traced.
    pub(super) rules: Rules,
    edges: RwLock<HashMap<EdgeId, Linked<RouterItem>>>,
    /// Edges whose links are gone, and since when.
    lost: Mutex<HashMap<EdgeId, Duration>>,
    /// What they were asked.
    echoes: Echoes,
    /// Routers to which this one speaks.
    peers: RwLock<HashMap<RouterId, Linked<PeerItem>>>,
    /// Where all routers of the cluster are.
    members: RwLock<Vec<String>>,
    /// What is for shards without a home.
    lobby: Lobby,
    /// What has gone to other routers, and has come of them.
    sent: Sent,
    heard: Heard,
    /// Edges that leave, and how far they are.
    going: Mutex<HashMap<EdgeId, Leaves>>,
    /// This router itself.
    pub(super) leaving: Arc<Leaving>,
    /// Who would not have a link, and why.
    pub(super) refusals: Refusals,
    /// Why this process cannot go on.
    pub(super) failed: watch::Sender<Option<Obstacle>>,
    locations: OnceLock<Locations>,
    links: AtomicU64,
    clock: SharedClock,
}

/// The sending end of a link; the number tells the links of one peer apart.
#[derive(Debug, Clone)]
struct Linked<T> {
    number: u64,
    name: String,
    outlet: Outlet<T>,
    /// Whether it records no spans, as far as is known.
    silent: bool,
}

impl Switchboard {
    pub(super) fn new(own: Own, figures: Figures, rules: Rules, clock: SharedClock) -> Arc<Self> {
        Arc::new(Self {
            chart: Chart::new(own.router, own.shards),
            own,
            desk: Desk::default(),
            figures,
            rules,
            edges: RwLock::default(),
            lost: Mutex::default(),
            echoes: Echoes::default(),
            peers: RwLock::default(),
            members: RwLock::default(),
            lobby: Lobby::default(),
            sent: Sent::default(),
            heard: Heard::default(),
            going: Mutex::default(),
            leaving: Arc::default(),
            refusals: Refusals::default(),
            failed: watch::Sender::new(None),
            locations: OnceLock::new(),
            links: AtomicU64::new(1),
            clock,
        })
    }

    /// Whoever asks over the Raft links is answered from now on.
    pub(super) fn answer_with(&self, locations: Locations) {
        let _ = self.locations.set(locations); // once per process
    }

    /// Of how many shards the homes here tell nobody yet that a session is lost.
    pub(super) fn young(&self) -> usize {
        self.chart.doors().iter().filter(|gate| gate.door.is_young()).count()
    }

    /// How much waits to be taken by the homes of a shard here, of that where it is most.
    pub(super) fn waiting(&self) -> usize {
        self.chart.doors().iter().map(|gate| gate.door.waiting()).max().unwrap_or(0)
    }

    /// The groups, once they have started.
    pub(super) fn locations(&self) -> Option<&Locations> {
        self.locations.get()
    }

    fn number(&self) -> u64 {
        self.links.fetch_add(1, Ordering::Relaxed)
    }

    fn peer_hello(&self) -> PeerHello {
        let Own { version, router, name, incarnation, address, .. } = self.own.clone();
        PeerHello {
            version,
            router,
            name,
            incarnation,
            homes: self.chart.homes(),
            notes: address,
            heard: None,
        }
    }

    fn router_hello(&self) -> RouterHello {
        let Own { version, router, name, incarnation, decoy_secret, features, .. } = self.own.clone();
        let (homes, routers) = (self.chart.homes(), self.members.read().clone());
        RouterHello { version, router, name, incarnation, homes, decoy_secret, features, routers }
    }

    /// Routers have come to the cluster or left it: edges link to those that belong to it, whomever they were told to ask.
    pub(super) fn members(&self, addresses: Vec<String>) {
        self.members.write().clone_from(&addresses);
        for edge in self.edges.read().values() {
            edge.outlet.push(RouterItem::Routers(addresses.clone()));
        }
    }

    /// A reign has begun here, or takes again what comes.
    pub(super) fn announce(&self, home: Home) {
        self.figures.serves(home.shard, Some(home.epoch));
        for edge in self.edges.read().values() {
            edge.outlet.push(RouterItem::Home(home));
        }
        for peer in self.peers.read().values() {
            peer.outlet.push(PeerItem::Home(home));
        }
        self.moved(&[home.shard]);
    }

    /// A reign takes nothing more, or is over: edges need not wait to find out.
    pub(super) fn withdraw(&self, shard: Shard) {
        self.figures.serves(shard, None);
        let not = self.chart.not_home(shard);
        for edge in self.edges.read().values() {
            edge.outlet.push(RouterItem::NotHome(not));
        }
    }

    /// The homes of these shards are others than before, or can be reached again.
    fn moved(&self, shards: &[Shard]) {
        if shards.is_empty() {
            return;
        }
        for gate in self.chart.doors() {
            for shard in shards {
                gate.door.moved(*shard);
            }
        }
        self.let_in(shards);
    }

    /// The way to a router; `None` while there is no link to it.
    pub(super) fn peer(&self, router: RouterId) -> Option<Outlet<PeerItem>> {
        self.peers.read().get(&router).map(|peer| peer.outlet.clone())
    }

    /// The routers that this one can speak to, and their names.
    pub(super) fn peers(&self) -> Vec<(RouterId, String)> {
        self.peers.read().iter().map(|(router, peer)| (*router, peer.name.clone())).collect()
    }

    /// Tells all edges what is traced.
    pub(super) fn tell_traces(&self, rules: &[TraceRule]) -> usize {
        let edges = self.edges.read();
        edges.values().filter(|edge| edge.outlet.push(RouterItem::Traces(rules.to_vec()))).count()
    }

    /// What an edge says of the traces that it has begun. Returns what is used up by that.
    pub(super) fn traced(&self, report: &TraceReport) -> Vec<TraceRule> {
        let mut edges = self.edges.write();
        let Some(edge) = edges.get_mut(&report.edge) else { return Vec::new() };
        edge.silent = !report.records;
        self.rules.0.targets.counted(report.edge.0, &report.counts)
    }

    /// Names of edges that record no spans.
    pub(super) fn silent(&self) -> Vec<String> {
        let edges = self.edges.read();
        edges.values().filter(|edge| edge.silent).map(|edge| edge.name.clone()).collect()
    }

    /// This process cannot go on. The first reason is the one that is told.
    pub(super) fn fail(&self, obstacle: Obstacle) {
        tracing::error!(event = "router_failed", reason = %obstacle, "this router cannot go on");
        self.failed.send_if_modified(|failed| {
            let first = failed.is_none();
            failed.get_or_insert(obstacle);
            first
        });
    }

    /// Whether nothing waits here for others, on links or for want of a home.
    pub(super) fn has_said_all(&self) -> bool {
        let edges = self.edges.read().values().all(|edge| edge.outlet.waiting() == 0);
        edges && self.peers.read().values().all(|peer| peer.outlet.waiting() == 0) && self.lobby.is_empty()
    }

    /// Asks an edge to leave. False if it is not linked.
    pub(super) fn send_away(&self, edge: EdgeId) -> bool {
        self.edges.read().get(&edge).is_some_and(|linked| linked.outlet.push(RouterItem::Leave))
    }

    /// How far an edge is with leaving; `None` if it is not linked.
    pub(super) fn going(&self, edge: EdgeId) -> Option<Leaves> {
        let linked = self.edges.read().contains_key(&edge);
        linked.then(|| self.going.lock().get(&edge).copied().unwrap_or(Leaves { phase: 0, left: 0 }))
    }

    /// The name of an edge that is linked, and the way to it.
    fn way_to(&self, edge: EdgeId) -> Option<(String, Outlet<RouterItem>)> {
        self.edges.read().get(&edge).map(|linked| (linked.name.clone(), linked.outlet.clone()))
    }

    /// The edges that are linked.
    pub(super) fn edges(&self) -> Vec<(EdgeId, String)> {
        self.edges.read().iter().map(|(edge, linked)| (*edge, linked.name.clone())).collect()
    }
}

#[cfg(test)]
mod tests;
