//! Accounts that are traced, told to all edges and all routers.
//!
//! Any router is asked. It tells its edges and the other routers, which tell theirs: an edge hears of a rule several times and
//! takes it once. Whoever is linked later is told then. Edges say how many traces they have begun; each router adds that up
//! and ends what is used up.

use super::asking::WITHIN;
use super::control::Administration;
use super::questions::{Answer, Question};
use super::switchboard::Switchboard;
use futures::future::{BoxFuture, join_all};
use starling_admin::traces::{TraceRules, digits};
use starling_admin::{ControlError, Traces};
use starling_setup::accounts::local;
use starling_wire::frame::{PeerItem, TraceReport};
use starling_wire::net::Outlet;
use starling_wire::{RouterId, TraceRule};
use starling_xmpp::BareJid;
use std::sync::Arc;
use std::time::Duration;

impl Switchboard {
    /// Another router tells of rules. What is news to this one may be to its edges.
    pub(super) fn traces_heard(&self, rules: &[TraceRule]) {
        let news: Vec<_> = rules.iter().filter(|rule| self.rules.0.targets.merge(rule)).cloned().collect();
        if !news.is_empty() {
            self.tell_traces(&news);
        }
    }

    /// An edge tells how many traces it has begun.
    pub(super) fn traces_counted(&self, report: &TraceReport) {
        let over = self.traced(report);
        if !over.is_empty() {
            for rule in &over {
                tracing::info!(
                    event = "trace_used_up",
                    rule = digits(rule.id),
                    "an account is traced no longer"
                );
            }
            self.tell_traces(&over);
        }
    }

    /// Tells a router that was just linked.
    pub(super) async fn introduce_traces(self: Arc<Self>, router: RouterId, outlet: Outlet<PeerItem>) {
        let rules = self.rules.0.targets.all();
        if !rules.is_empty() {
            // Should the link be lost, the next one begins in the same way.
            let _ = self.desk.ask(router, &outlet, &Question::Traces(rules), WITHIN).await;
        }
    }

    /// Tells all that are linked. Returns the names of routers that have not said that they know.
    async fn spread_traces(&self, rules: Vec<TraceRule>) -> Vec<String> {
        self.tell_traces(&rules);
        let question = Question::Traces(rules);
        let asked = self.peers().into_iter().map(|(router, name)| {
            let question = &question;
            async move {
                let outlet = self.peer(router)?;
                let answer = self.desk.ask(router, &outlet, question, WITHIN).await;
                (!matches!(answer, Ok(Answer::Done(_)))).then_some(name)
            }
        });
        join_all(asked).await.into_iter().flatten().collect()
    }
}

impl Administration {
    /// Tells everybody. Returns the names of routers that have not said that they know.
    async fn spread(&self, rules: Vec<TraceRule>) -> Vec<String> {
        let board = &self.house.board;
        let members = self.locations.members();
        let linked: Vec<_> = board.peers().into_iter().map(|(router, _)| router).collect();
        let away = members.into_iter().filter(|(id, _)| *id != board.own.router && !linked.contains(id));
        let mut unreached = board.spread_traces(rules).await;
        unreached.extend(away.map(|(_, (member, _))| member.name));
        unreached
    }

    /// Why spans may be missing.
    fn warnings(&self, unreached: &[String]) -> Vec<String> {
        let board = &self.house.board;
        let mut warnings = board.rules.warnings();
        let silent = board.silent();
        if !silent.is_empty() {
            warnings.push(format!(
                "no spans are recorded by {}: set telemetry.otlp_endpoint there, and start them again",
                silent.join(", ")
            ));
        }
        if !unreached.is_empty() {
            warnings.push(format!(
                "no answer from {}: edges that are linked to no other router are not told yet",
                unreached.join(", ")
            ));
        }
        warnings
    }
}

impl Traces for Administration {
    fn start(
        &self,
        account: BareJid,
        ttl: Duration,
        most: u32,
    ) -> BoxFuture<'_, Result<TraceRules, ControlError>> {
        Box::pin(async move {
            local(&self.house.server, &account)?;
            let board = &self.house.board;
            let rule = board.rules.start(&account, ttl, most)?;
            let id = rule.id;
            let unreached = self.spread(vec![rule]).await;
            let rules = board.rules.rows(|rule| rule.id == id);
            Ok(TraceRules { rules, warnings: self.warnings(&unreached) })
        })
    }

    fn list(&self) -> TraceRules {
        TraceRules { rules: self.house.board.rules.rows(|_| true), warnings: self.warnings(&[]) }
    }

    fn stop(&self, which: String) -> BoxFuture<'_, Result<TraceRules, ControlError>> {
        Box::pin(async move {
            let board = &self.house.board;
            let stopped = board.rules.stop(&which)?;
            let ids: Vec<_> = stopped.iter().map(|rule| rule.id).collect();
            let unreached = self.spread(stopped).await;
            let rules = board.rules.rows(|rule| ids.contains(&rule.id));
            Ok(TraceRules { rules, warnings: self.warnings(&unreached) })
        })
    }
}
