//! What homes say: to homes of other shards, and to edges.

use super::Switchboard;
use starling_router::{Door, Edges, Post};
use starling_wire::chart::Way;
use starling_wire::frame::{Home, PeerItem, RouterItem};
use starling_wire::gate::Listeners;
use starling_wire::net::Outlet;
use starling_wire::{EdgeId, EdgeLink, Shard, ToEdge};
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

    /// Hands it to a home in this process.
    pub(super) fn enter(&self, gate: &Gate, item: PeerItem) {
        if !gate.door.peer(item) {
            self.figures.dropped("busy", 1);
        }
    }

    /// Hands it over, if that home is known and can be reached.
    pub(super) fn pass_on(&self, to: Shard, item: PeerItem) -> bool {
        match self.chart.way(to) {
            Way::Here(epoch, gate) => {
                self.enter(&gate, item.addressed(Home { shard: to, epoch }));
                true
            }
            Way::There(epoch, router) => {
                self.peer(router).is_some_and(|outlet| match item.addressed(Home { shard: to, epoch }) {
                    PeerItem::Forward(forward) if forward.ticket.is_none() => {
                        self.sent.hand(router, &outlet, forward)
                    }
                    item => outlet.push_kept(item),
                })
            }
            Way::Nowhere => false,
        }
    }
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

#[cfg(test)]
mod tests {
    use super::super::sent::Sent;
    use super::*;
    use starling_wire::Epoch;
    use starling_wire::RouterId;
    use starling_wire::frame::Forward;
    use starling_xmpp::{BareJid, Element, PresenceType, Stanza, ns};

    #[test]
    fn what_nobody_keeps_ends_no_link() {
        let status = Element::new(ns::CLIENT, "status").text("x".repeat(30_000));
        let stanza = Stanza::presence(PresenceType::Unavailable).child(status);
        let account = BareJid::parse("bob@localhost").unwrap();
        let home = Home { shard: Shard(1), epoch: Epoch(1) };
        let forward = Forward { home, account, stanza, ticket: None, hops: 0, trace: None, passed: false };
        let (outlet, sent) = (Outlet::new(1 << 20), Sent::default());
        let hand = || sent.hand(RouterId(2), &outlet, Box::new(forward.clone()));
        let gone = (0..1_000).filter(|_| hand()).count();
        assert!((2..20).contains(&gone), "{gone}");
        assert!(outlet.is_open() && outlet.push_kept(PeerItem::Home(home)), "what others need still goes");
    }
}
