//! What homes say: to homes of other shards, and to edges.

use super::Switchboard;
use parking_lot::Mutex;
use starling_router::{Door, Edges, Post};
use starling_wire::chart::Way;
use starling_wire::frame::{Home, PeerItem, RouterItem};
use starling_wire::net::Outlet;
use starling_wire::{EdgeId, EdgeLink, Epoch, Shard, ToEdge};
use std::collections::HashMap;
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
///
/// An edge takes what homes say in order or not at all. So what is for one that is not attached goes nowhere, and after a home
/// was closed all edges have to attach once more; then it comes again.
pub(in crate::router) struct Deliveries {
    home: Home,
    attached: Mutex<Attached>,
}

#[derive(Default)]
struct Attached {
    /// How often the home was closed.
    closings: u64,
    /// Edges that have begun to name their sessions, with a number for that.
    named: HashMap<EdgeId, (u64, Outlet<RouterItem>)>,
    /// Those of them of which the homes know it.
    open: HashMap<EdgeId, Outlet<RouterItem>>,
}

impl Deliveries {
    pub(in crate::router) fn new(home: Home) -> Self {
        Self { home, attached: Mutex::default() }
    }

    /// An edge begins to name its sessions. The home had been closed so often when it was seen to be open.
    pub(super) fn name(&self, edge: EdgeId, number: u64, outlet: &Outlet<RouterItem>, closings: u64) {
        let mut attached = self.attached.lock();
        if attached.closings == closings {
            attached.named.insert(edge, (number, outlet.clone()));
        }
    }

    /// The home is closed for the how-manieth time: nothing goes to any edge until it attaches again.
    pub(in crate::router) fn close(&self, closings: u64) {
        let mut attached = self.attached.lock();
        if closings > attached.closings {
            *attached = Attached { closings, ..Attached::default() };
        }
    }

    /// An edge is dead.
    pub(super) fn forget(&self, edge: EdgeId) {
        let mut attached = self.attached.lock();
        attached.named.remove(&edge);
        attached.open.remove(&edge);
    }
}

impl EdgeLink for Deliveries {
    fn deliver(&self, batch: &mut Vec<ToEdge>) {
        let attached = self.attached.lock();
        let mut items = Vec::new();
        let mut messages = batch.drain(..).peekable();
        while let Some(message) = messages.next() {
            let edge = message.conn.edge;
            items.push(RouterItem::Down(self.home, message));
            if messages.peek().is_some_and(|next| next.conn.edge == edge) {
                continue;
            }
            match attached.open.get(&edge) {
                // Homes keep what they say to sessions until their edges have it.
                Some(outlet) => drop(outlet.append_kept(&mut items)),
                None => items.clear(),
            }
        }
    }
}

impl Edges for Deliveries {
    fn open(&self, edge: EdgeId, number: u64) {
        let mut attached = self.attached.lock();
        let named = attached.named.get(&edge).filter(|(named, _)| *named == number);
        match named.map(|(_, outlet)| outlet.clone()) {
            Some(outlet) => drop(attached.open.insert(edge, outlet)),
            // It has begun anew since, or has to.
            None => drop(attached.open.remove(&edge)),
        }
    }

    fn is_pressed(&self, edge: EdgeId) -> bool {
        self.attached.lock().open.get(&edge).is_some_and(Outlet::is_pressed)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use starling_wire::{ConnId, Down};

    const EDGE: EdgeId = EdgeId(7);

    fn say(deliveries: &Deliveries) {
        let conn = ConnId { edge: EDGE, number: 1 };
        deliveries.deliver(&mut vec![ToEdge { conn, down: Down::RequestAck }]);
    }

    #[test]
    fn edges_hear_of_a_home_after_they_have_attached_and_no_longer() {
        let deliveries = Deliveries::new(Home { shard: Shard(0), epoch: Epoch(1) });
        let outlet = Outlet::new(1 << 20);
        let said = |waiting: usize| {
            say(&deliveries);
            outlet.waiting() > waiting
        };
        assert!(!said(0), "not attached");
        deliveries.name(EDGE, 1, &outlet, 0);
        assert!(!said(0), "the homes do not know it yet");
        deliveries.open(EDGE, 1);
        assert!(said(0));
        deliveries.close(1);
        assert!(!said(outlet.waiting()));
        deliveries.open(EDGE, 1);
        assert!(!said(outlet.waiting()), "what the homes took before they were closed");
        deliveries.name(EDGE, 2, &outlet, 0);
        deliveries.open(EDGE, 2);
        assert!(!said(outlet.waiting()), "named before, counted after");
        deliveries.name(EDGE, 3, &outlet, 1);
        deliveries.open(EDGE, 2);
        assert!(!said(outlet.waiting()), "an older attachment");
        deliveries.open(EDGE, 3);
        assert!(said(outlet.waiting()));
        deliveries.forget(EDGE);
        assert!(!said(outlet.waiting()));
    }
}
