//! What homes say: to homes of other shards, and to edges.

use super::Switchboard;
use starling_router::{Door, Edges, Post};
use starling_wire::chart::Way;
use starling_wire::frame::{Home, PeerItem, RouterItem};
use starling_wire::gate::Listeners;
use starling_wire::net::Outlet;
use starling_wire::{EdgeId, EdgeLink, Epoch, Shard, ToEdge};
use std::sync::Arc;

/// To homes of other shards, wherever they are.
pub(in crate::router) struct Mail(pub(in crate::router) Arc<Switchboard>);

impl Post for Mail {
    fn send(&self, to: Shard, item: PeerItem) -> bool {
        self.0.post(to, item)
    }
}

impl Switchboard {
    /// Hands something over to the home of a shard, or keeps it for a while if nobody else does. False: neither can be done.
    pub(super) fn post(&self, to: Shard, item: PeerItem) -> bool {
        if !Self::waits(&item) {
            return self.pass_on(to, item);
        }
        // What came before it goes before it.
        self.let_in(&[to]);
        !self.lobby.has(to) && self.pass_on(to, item.clone()) || self.wait(to, item)
    }

    /// Hands it over, if that home is known and can be reached.
    pub(super) fn pass_on(&self, to: Shard, item: PeerItem) -> bool {
        match self.chart.way(to) {
            Way::Here(epoch, gate) => {
                gate.door.peer(addressed(item, to, epoch));
                true
            }
            Way::There(epoch, router) => {
                self.peer(router).is_some_and(|outlet| outlet.push_kept(addressed(item, to, epoch)))
            }
            Way::Nowhere => false,
        }
    }
}

fn addressed(mut item: PeerItem, shard: Shard, epoch: Epoch) -> PeerItem {
    if let PeerItem::Forward(forward) = &mut item {
        forward.home = Home { shard, epoch };
    }
    item
}

/// The homes of one reign, as links see them.
#[derive(Clone)]
pub(in crate::router) struct Gate {
    pub(in crate::router) door: Door,
    pub(in crate::router) deliveries: Arc<Deliveries>,
}

/// To edges, of the homes of one reign.
pub(in crate::router) struct Deliveries(pub(in crate::router) Listeners<Outlet<RouterItem>>);

impl EdgeLink for Deliveries {
    fn deliver(&self, batch: &mut Vec<ToEdge>) {
        // Homes keep what they say to sessions until their edges have it.
        self.0.deliver(batch, |outlet, items| {
            outlet.append_kept(items);
        });
    }
}

impl Edges for Deliveries {
    fn open(&self, edge: EdgeId, number: u64) {
        self.0.open(edge, number);
    }

    fn is_pressed(&self, edge: EdgeId) -> bool {
        self.0.hears(edge, Outlet::is_pressed)
    }
}
