//! Edges of a site: their links, and what becomes of them.

use super::{Client, ROUTER, Site};
use starling_node::Clock;
use starling_wire::EdgeId;
use starling_wire::uplink::{LinkId, Patience, Seat};
use std::time::Duration;

impl Site {
    /// Gives an edge a link.
    pub(crate) fn link(&mut self, edge: usize) {
        self.links += 1;
        (self.edges[edge].link, self.edges[edge].cut) = (Some(self.links), None);
        self.wires.links.lock().insert(self.edges[edge].id, self.links);
        for shard in self.shards.all() {
            self.announce(edge, shard);
        }
    }

    /// Gives an edge a link that breaks before it has named its sessions.
    pub(crate) fn begin_to_link(&mut self, edge: usize) {
        self.begins = true;
        self.link(edge);
        self.run();
        self.begins = false;
        self.cut(edge);
    }

    /// Takes it away. What is on its way is lost.
    pub(crate) fn cut(&mut self, edge: usize) {
        let (id, now) = (self.edges[edge].id, self.clock.monotonic());
        let Some(number) = self.edges[edge].link.take() else { return };
        self.edges[edge].cut = Some(now);
        self.wires.links.lock().remove(&id);
        let mut out = Vec::new();
        for seat in &mut self.edges[edge].seats {
            seat.unlinked(LinkId { router: ROUTER, number }, now, &mut out);
        }
        self.carry_out(id, out);
    }

    /// Homes take an edge for dead.
    pub(crate) fn declare_dead(&mut self, edge: usize) {
        for home in self.homes.iter().flatten() {
            home.door.dead(self.edges[edge].before.unwrap_or(self.edges[edge].id));
        }
        self.run();
    }

    /// Its process is another one from now on, which knows nothing.
    pub(crate) fn kill_edge(&mut self, edge: usize) {
        self.cut(edge);
        let (now, old) = (self.clock.monotonic(), self.edges[edge].id);
        // Known edges have small numbers, and every process another one.
        let id = EdgeId(old.0 + 100);
        self.killed.push((old, now));
        let own = &mut self.edges[edge];
        (own.id, own.before, own.cut) = (id, Some(old), None);
        own.told.clear();
        own.seats = self.shards.all().map(|shard| Seat::new(id, shard, Patience::default(), now)).collect();
    }

    /// Time has passed for edges, and for those who have the links to them.
    pub(super) fn tick(&mut self) {
        let now = self.clock.monotonic();
        if self.usurped.is_some_and(|since| now > since + Duration::from_secs(1)) {
            self.bury();
        }
        let late = |since: Duration| now >= since + Duration::from_secs(5);
        let dead = self.killed.iter().filter(|(_, since)| late(*since));
        let mut dead: Vec<EdgeId> = dead.map(|(id, _)| *id).collect();
        self.killed.retain(|(_, since)| !late(*since));
        for edge in 0..self.edges.len() {
            let own = &mut self.edges[edge];
            let mut out = Vec::new();
            for seat in &mut own.seats {
                seat.tick(now, &mut out);
            }
            if own.cut.take_if(|since| late(*since)).is_some() {
                dead.push(own.id);
            }
            let id = own.id;
            self.carry_out(id, out);
        }
        for home in self.homes.iter().flatten() {
            for id in &dead {
                home.door.dead(*id);
            }
        }
    }

    /// The present process of an edge.
    pub(crate) fn edge(&self, edge: usize) -> EdgeId {
        self.edges[edge].id
    }

    /// Whether this connection's edge is there.
    pub(crate) fn is_there(&self, client: &Client) -> bool {
        self.edges.iter().any(|own| own.id == client.conn.edge)
    }
}
