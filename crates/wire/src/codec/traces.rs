//! Which accounts are traced for a while.

use super::{Malformed, Result, bare};
use crate::frame::TraceReport;
use crate::{EdgeId, TraceRule, proto};
use std::time::Duration;

/// The most rules, and counts, in one message.
const MOST: usize = 1_024;

pub(super) fn rule(rule: TraceRule) -> proto::TraceRule {
    let TraceRule { id, account, left, most, stopped } = rule;
    let left = u64::try_from(left.as_millis()).unwrap_or(u64::MAX);
    proto::TraceRule { id, account, left, most, stopped }
}

pub(crate) fn read_rules(rules: proto::TraceRules) -> Result<Vec<TraceRule>> {
    if rules.rules.len() > MOST {
        return Err(Malformed("rules of traces"));
    }
    let read = |rule: proto::TraceRule| {
        let proto::TraceRule { id, account, left, most, stopped } = rule;
        // As accounts are written here.
        let account = bare(&account)?.as_str().to_owned();
        Ok(TraceRule { id, account, left: Duration::from_millis(left), most, stopped })
    };
    rules.rules.into_iter().map(read).collect()
}

pub(crate) fn report(report: &TraceReport) -> proto::TraceReport {
    let counts = report.counts.iter().take(MOST);
    let counts = counts.map(|(rule, begun)| proto::TraceCount { rule: *rule, begun: *begun }).collect();
    proto::TraceReport { edge: report.edge.0, records: report.records, counts }
}

pub(crate) fn read_report(report: proto::TraceReport) -> Result<TraceReport> {
    if report.counts.len() > MOST {
        return Err(Malformed("counts of traces"));
    }
    let counts = report.counts.into_iter().map(|count| (count.rule, count.begun)).collect();
    Ok(TraceReport { edge: EdgeId(report.edge), records: report.records, counts })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::codec::{Pieces, RouterPieces};
    use crate::frame::RouterItem;
    use std::collections::VecDeque;

    fn a_rule(account: &str) -> TraceRule {
        let left = Duration::from_millis(1_500);
        TraceRule { id: u64::MAX, account: account.to_owned(), left, most: 7, stopped: true }
    }

    #[test]
    fn rules_and_counts_arrive() {
        let rules = vec![a_rule("a@example.org"), a_rule("b@example.org")];
        let mut items: VecDeque<_> =
            rules.iter().map(|rule| RouterItem::Traces(vec![rule.clone()])).collect();
        let frame = RouterPieces.frame(&mut items).unwrap();
        assert!(frame.items.is_empty());
        assert_eq!(read_rules(frame.traces.unwrap()), Ok(rules));
        let said = TraceReport { edge: EdgeId(3), records: true, counts: vec![(1, 2), (u64::MAX, u32::MAX)] };
        assert_eq!(read_report(report(&said)), Ok(said));
    }

    #[test]
    fn what_cannot_be_is_refused() {
        let rules = |account: &str, count| proto::TraceRules { rules: vec![rule(a_rule(account)); count] };
        assert!(read_rules(rules("a@example.org", MOST)).is_ok());
        assert!(read_rules(rules("a@example.org", MOST + 1)).is_err());
        assert!(read_rules(rules("@", 1)).is_err());
        assert!(read_rules(rules("", 1)).is_err());
        let counts = vec![proto::TraceCount::default(); MOST + 1];
        assert!(read_report(proto::TraceReport { counts, ..proto::TraceReport::default() }).is_err());
    }
}
