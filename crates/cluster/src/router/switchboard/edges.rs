//! Links of edges.

use super::{Linked, Switchboard};
use crate::router::asking;
use futures::future::BoxFuture;
use starling_store::AccountRow;
use starling_wire::frame::{EdgeHello, RouterHello, RouterItem, UpBatch};
use starling_wire::net::{Edges, End, Hears, Outlet};
use starling_wire::{EdgeId, LinkError, Registration};
use starling_xmpp::BareJid;
use starling_xmpp::sasl::Credentials;
use std::sync::Arc;
use std::time::Duration;

/// An edge without a link for so long is taken for dead.
const DEAD_AFTER: Duration = Duration::from_secs(5);

/// What a router does with edges.
pub(in crate::router) struct Reception(pub(in crate::router) Arc<Switchboard>);

impl Edges for Reception {
    fn connected(
        &self,
        edge: EdgeHello,
        outlet: Outlet<RouterItem>,
    ) -> Result<(RouterHello, Box<dyn Hears<UpBatch>>), String> {
        let board = &self.0;
        let (id, number) = (edge.edge, board.number());
        let linked = Linked { number, name: edge.name, outlet: outlet.clone() };
        board.edges.write().insert(id, linked);
        board.lost.lock().remove(&id);
        // After it is among those that are told of new reigns: it may hear of one twice, but not never.
        let hello = board.router_hello();
        Ok((hello, Box::new(Ear { board: Arc::clone(board), edge: id, number, outlet })))
    }

    fn account(&self, account: BareJid) -> BoxFuture<'static, Result<Option<AccountRow>, LinkError>> {
        let board = Arc::clone(&self.0);
        Box::pin(async move { asking::account(&board, account).await })
    }

    fn register(
        &self,
        account: BareJid,
        credentials: Credentials,
    ) -> BoxFuture<'static, Result<Registration, LinkError>> {
        let board = Arc::clone(&self.0);
        Box::pin(async move { asking::register(&board, account, credentials).await })
    }
}

/// Listens to one edge.
struct Ear {
    board: Arc<Switchboard>,
    edge: EdgeId,
    number: u64,
    outlet: Outlet<RouterItem>,
}

impl Hears<UpBatch> for Ear {
    fn hear(&mut self, items: Vec<UpBatch>) {
        for batch in items {
            let home = batch.home;
            let shards = self.board.own.shards;
            if batch.ups.iter().any(|message| shards.of(&message.account) != home.shard) {
                // Another home would have this account as well.
                return self.outlet.close(End::Malformed("an account of another shard".to_owned()));
            }
            match self.board.chart.take(home) {
                Ok(door) => door.edge(self.edge, self.number, batch),
                Err(not) => {
                    self.board.figures.not_home.inc();
                    self.outlet.push(RouterItem::NotHome(not));
                }
            }
        }
    }

    fn ended(&mut self, _end: &End) {
        let mut edges = self.board.edges.write();
        if edges.get(&self.edge).is_some_and(|linked| linked.number == self.number) {
            edges.remove(&self.edge);
            self.board.lost.lock().insert(self.edge, self.board.clock.monotonic());
        }
    }
}

impl Switchboard {
    /// Tells homes of edges that have been away for too long.
    pub(in crate::router) fn bury(&self) {
        let now = self.clock.monotonic();
        let mut dead = Vec::new();
        self.lost.lock().retain(|edge, since| {
            let over = now.saturating_sub(*since) >= DEAD_AFTER;
            dead.extend(over.then_some(*edge));
            !over
        });
        for edge in dead {
            tracing::info!(event = "edge_dead", edge = edge.0, "an edge has had no link for too long");
            for door in self.chart.doors() {
                door.dead(edge);
            }
        }
    }
}
