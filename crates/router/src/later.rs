//! Traces of messages that wait in the log until a device takes them.
//!
//! What is delivered later is a trace of its own, linked with those of the messages: one that goes on for days is of no use.
//! Only the last few are remembered, and only in memory: after a move of the home there is no link.

use starling_node::telemetry::Step;
use starling_node::{Span, Trace, Tracer};
use starling_store::Position;
use std::collections::VecDeque;

/// Traced messages of one account that are remembered.
const MOST: usize = 64;

/// Where traced messages are that wait, oldest first.
#[derive(Debug, Default)]
pub(crate) struct WaitingTraces(VecDeque<(Position, Trace)>);

impl WaitingTraces {
    /// The message at this position waits.
    pub(crate) fn add(&mut self, position: Position, trace: Option<Trace>) {
        let Some(trace) = trace.filter(Trace::is_sampled) else { return };
        if self.find(position).is_none() {
            if self.0.len() >= MOST {
                self.0.pop_front();
            }
            self.0.push_back((position, trace));
        }
    }

    /// Rows are given to a session: a step, where messages among them are traced.
    pub(crate) fn feed(&self, tracer: &Tracer, rows: impl Iterator<Item = Position>) -> Span {
        if self.0.is_empty() {
            return Span::default();
        }
        let (mut count, mut traces) = (0_i64, Vec::new());
        for position in rows {
            count += 1;
            traces.extend(self.find(position));
        }
        let mut span = tracer.joins(Step::HomeFeed, &traces);
        span.set("messaging.batch.message_count", count);
        span
    }

    /// What the delivery of a row belongs to; nothing, if its message is not traced.
    pub(crate) fn is_fed(&self, position: Position, feed: &Span) -> Option<Trace> {
        self.find(position).and_then(|_| feed.context())
    }

    fn find(&self, position: Position) -> Option<Trace> {
        self.0.iter().find(|(known, _)| *known == position).map(|(_, trace)| *trace)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use starling_node::config::TelemetrySettings;
    use starling_node::{SystemClock, Telemetry};

    #[test]
    fn what_is_fed_later_is_linked() {
        let (telemetry, spans) = Telemetry::in_memory(&TelemetrySettings::default(), SystemClock::shared());
        let trace = |n: u8, flags| Some(Trace { trace_id: [n; 16], span_id: [n; 8], flags });
        let mut waiting = WaitingTraces::default();
        waiting.add(Position(1), trace(1, 1));
        waiting.add(Position(2), trace(2, 0));
        waiting.add(Position(3), None);
        waiting.add(Position(4), trace(4, 1));
        waiting.add(Position(4), trace(5, 1));
        assert!(!waiting.feed(&telemetry.tracer, [Position(2), Position(3)].into_iter()).is_on());
        let feed = waiting.feed(&telemetry.tracer, (1..=4).map(Position));
        assert_eq!(waiting.is_fed(Position(1), &feed), feed.context());
        assert_eq!(waiting.is_fed(Position(3), &feed), None);
        drop(feed);
        let links: Vec<_> = spans.all()[0].links.links.iter().map(|link| link.span_context.clone()).collect();
        let ids: Vec<_> = links.iter().map(|context| context.trace_id().to_bytes()[0]).collect();
        assert_eq!(ids, [1, 4]);
    }

    #[test]
    fn only_the_last_are_remembered() {
        let mut waiting = WaitingTraces::default();
        for at in 0..1_000 {
            waiting.add(Position(at), Some(Trace { trace_id: [1; 16], span_id: [1; 8], flags: 1 }));
        }
        assert_eq!((waiting.0.len(), waiting.find(Position(0))), (MOST, None));
        assert!(waiting.find(Position(999)).is_some());
    }
}
