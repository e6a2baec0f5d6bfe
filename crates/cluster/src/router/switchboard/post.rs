//! What homes say: to homes of other shards, and to edges.

use super::Switchboard;
use crate::router::chart::Way;
use parking_lot::Mutex;
use starling_router::{Edges, Post};
use starling_wire::frame::{Home, PeerItem, RouterItem};
use starling_wire::net::Outlet;
use starling_wire::{EdgeId, EdgeLink, Epoch, Shard, ToEdge};
use std::collections::HashMap;
use std::sync::Arc;

/// To homes of other shards, wherever they are.
pub(in crate::router) struct Mail(pub(in crate::router) Arc<Switchboard>);

impl Post for Mail {
    fn send(&self, to: Shard, item: PeerItem) -> bool {
        match self.0.chart.way(to) {
            Way::Here(epoch, door) => {
                door.peer(addressed(item, to, epoch));
                true
            }
            Way::There(epoch, router) => {
                self.0.peer(router).is_some_and(|outlet| outlet.push(addressed(item, to, epoch)))
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

/// To edges, of the homes of one reign. What is for an edge that has not attached to it goes nowhere: it comes again.
pub(in crate::router) struct Deliveries {
    board: Arc<Switchboard>,
    home: Home,
    open: Mutex<HashMap<EdgeId, Outlet<RouterItem>>>,
}

impl Deliveries {
    pub(in crate::router) fn new(board: Arc<Switchboard>, home: Home) -> Self {
        Self { board, home, open: Mutex::default() }
    }
}

impl EdgeLink for Deliveries {
    fn deliver(&self, batch: &mut Vec<ToEdge>) {
        let open = self.open.lock();
        let mut items = Vec::new();
        let mut messages = batch.drain(..).peekable();
        while let Some(message) = messages.next() {
            let edge = message.conn.edge;
            items.push(RouterItem::Down(self.home, message));
            if messages.peek().is_some_and(|next| next.conn.edge == edge) {
                continue;
            }
            match open.get(&edge) {
                Some(outlet) => drop(outlet.append(&mut items)),
                None => items.clear(),
            }
        }
    }
}

impl Edges for Deliveries {
    fn open(&self, edge: EdgeId, link: u64) {
        let edges = self.board.edges.read();
        let outlet =
            edges.get(&edge).filter(|linked| linked.number == link).map(|linked| linked.outlet.clone());
        let mut open = self.open.lock();
        match outlet {
            Some(outlet) => drop(open.insert(edge, outlet)),
            // That link is over again; the next one begins with naming its sessions.
            None => drop(open.remove(&edge)),
        }
    }
}
