//! Links of edges.

use super::{Linked, Switchboard};
use crate::router::asking;
use futures::future::BoxFuture;
use starling_store::AccountRow;
use starling_wire::chart::Chart;
use starling_wire::frame::{
    DEAD_AFTER, EdgeHello, Home, Leaving, NotHome, RouterHello, RouterItem, TraceReport, UpBatch,
};
use starling_wire::gate::{Attachments, Taken};
use starling_wire::net::{Edges, End, Hears, Outlet};
use starling_wire::{EdgeId, LinkError, Registration};
use starling_xmpp::BareJid;
use starling_xmpp::sasl::Credentials;
use std::sync::Arc;

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
        let linked = Linked { number, name: edge.name, outlet: outlet.clone(), silent: false };
        board.edges.write().insert(id, linked);
        board.echoes.linked(id, number, edge.version.answers());
        // Waits for those who are just taking it for dead: what they say of it must not come after what it says now.
        board.lost.lock().remove(&id);
        let rules = board.rules.0.targets.all();
        if !rules.is_empty() {
            outlet.push(RouterItem::Traces(rules));
        }
        // After it is among those that are told of new reigns: it may hear of one twice, but not never.
        let hello = board.router_hello();
        let (board, attached) = (Arc::clone(board), Attachments::default());
        Ok((hello, Box::new(Ear { board, edge: id, number, outlet, attached })))
    }

    fn leaves(&self, edge: EdgeId, how_far: Leaving) {
        self.0.going.lock().insert(edge, how_far);
    }

    fn heard(&self, edge: EdgeId, ask: u64) {
        self.0.echoes.heard(edge, ask);
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

    fn traced(&self, report: TraceReport) {
        self.0.traces_counted(&report);
    }
}

/// Listens to one edge.
struct Ear {
    board: Arc<Switchboard>,
    edge: EdgeId,
    number: u64,
    outlet: Outlet<RouterItem>,
    attached: Attachments,
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
            self.take(home, batch);
        }
    }

    fn ended(&mut self, _end: &End) {
        self.board.echoes.ended(self.edge, self.number);
        let own = {
            let mut edges = self.board.edges.write();
            let own = edges.get(&self.edge).is_some_and(|linked| linked.number == self.number);
            if own {
                edges.remove(&self.edge);
            }
            own
        };
        if own {
            self.board.going.lock().remove(&self.edge);
            self.board.lost.lock().insert(self.edge, self.board.clock.monotonic());
        }
    }
}

impl Ear {
    fn take(&mut self, home: Home, batch: UpBatch) {
        let board = &self.board;
        match self.attached.take(&board.chart, home, batch.attach_begin) {
            Taken::By(gate, closings) => {
                let mut number = self.number;
                if batch.attach_begin {
                    number = board.number();
                    gate.deliveries.0.name(self.edge, number, &self.outlet, closings);
                }
                gate.door.edge(self.edge, number, batch);
            }
            Taken::Dropped => {}
            Taken::Refused(not) => {
                board.figures.not_home.inc();
                refuse(&board.chart, &self.outlet, not);
            }
        }
    }
}

/// Tells an edge what was found out a moment ago. Should a reign here have begun since, or have come to take again what comes,
/// the edge has been told of that before, and is told once more: what it hears last is to hold.
fn refuse<D: Clone>(chart: &Chart<D>, outlet: &Outlet<RouterItem>, not: NotHome) {
    outlet.push(RouterItem::NotHome(not));
    if let Some(home) = chart.reign(not.shard) {
        outlet.push(RouterItem::Home(home));
    }
}

impl Switchboard {
    /// Tells homes of edges that have been away for too long.
    pub(in crate::router) fn bury(&self) {
        let now = self.clock.monotonic();
        // Held to the end: an edge that comes back meanwhile waits, and what it says reaches the homes later.
        let mut lost = self.lost.lock();
        lost.retain(|edge, since| {
            if self.edges.read().contains_key(edge) {
                return false;
            }
            if now.saturating_sub(*since) < DEAD_AFTER {
                return true;
            }
            tracing::info!(event = "edge_dead", edge = %edge, "an edge has had no link for too long");
            for gate in self.chart.doors() {
                gate.deliveries.0.forget(*edge);
                gate.door.dead(*edge);
            }
            false
        });
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use starling_wire::{Epoch, RouterId, Shard, Shards};

    #[test]
    fn what_an_edge_hears_last_of_a_home_holds() {
        let chart = Chart::new(RouterId(1), Shards::new(4).unwrap());
        let (home, outlet) = (Home { shard: Shard(1), epoch: Epoch(5) }, Outlet::new(1 << 20));
        chart.begin(home, ());
        chart.close(home);
        let not = chart.take(home).unwrap_err();
        refuse(&chart, &outlet, not);
        let one = outlet.waiting();
        // Found out before, said after it was announced that it takes again what comes.
        assert!(chart.reopen(home) && outlet.push(RouterItem::Home(home)));
        refuse(&chart, &outlet, not);
        assert_eq!(outlet.waiting(), 4 * one, "it is told once more of the home");
    }
}
