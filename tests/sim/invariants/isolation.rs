//! Promises 5 and 9: nothing comes to an account that nobody sent there, and nothing of whom it has blocked.

use super::Evidence;
use crate::client::PEST;
use crate::promises::Demand;
use starling_tests::history::{Kind, What, bare};
use std::time::Duration;

pub(super) fn find(evidence: &Evidence<'_>) -> Vec<(Option<String>, String)> {
    let mut found = evidence.of(&[Kind::Phantom, Kind::Misdelivered]);
    found.extend(blocked(evidence));
    found
}

/// What the pest sent while it was blocked without a doubt.
fn blocked(evidence: &Evidence<'_>) -> Vec<(Option<String>, String)> {
    let logs = evidence.stage.logs();
    let mut found = Vec::new();
    for (account, kept) in &evidence.before.0 {
        let spans = spans(evidence, account);
        for log in logs.iter().filter(|log| bare(&log.client) == PEST) {
            for event in &log.events {
                let What::Sent(message) = &event.what else { continue };
                let within = spans.iter().any(|(from, to)| *from < event.at && event.at < *to);
                let stored = kept.rows.iter().any(|row| row.origin.as_ref() == Some(&message.origin));
                if within && bare(&message.to) == account && stored {
                    let text = format!("{account} had blocked {PEST} when it sent this");
                    found.push((Some(message.origin.clone()), text));
                }
            }
        }
    }
    found
}

/// From the confirmation of a block to the first wish to end it.
fn spans(evidence: &Evidence<'_>, account: &str) -> Vec<(Duration, Duration)> {
    let promises = evidence.stage.promises();
    let blocks: Vec<_> = promises.all().iter().filter(|promise| promise.account == account).collect();
    let mut spans = Vec::new();
    for (place, promise) in blocks.iter().enumerate() {
        let (Demand::Block(true, _), Some(confirmed)) = (&promise.what, promise.confirmed) else { continue };
        let end = blocks[place..].iter().find_map(|later| match later.what {
            Demand::Block(false, asked) => Some(asked),
            _ => None,
        });
        spans.push((confirmed, end.unwrap_or(Duration::MAX)));
    }
    spans
}
