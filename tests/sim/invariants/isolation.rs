//! Promises 5 and 9: nothing comes to an account that nobody sent there, and nothing of whom it has blocked.

use super::Evidence;
use crate::client::PEST;
use crate::promises::Demand;
use starling_tests::history::{Kind, What, bare};
use std::collections::BTreeMap;
use std::time::Duration;

pub(super) fn find(evidence: &Evidence<'_>) -> Vec<(Option<String>, String)> {
    let mut found = evidence.of(&[Kind::Phantom, Kind::Misdelivered]);
    found.extend(blocked(evidence));
    found
}

/// What the pest sent, and the account saw, while it was blocked without a doubt.
fn blocked(evidence: &Evidence<'_>) -> Vec<(Option<String>, String)> {
    let logs = evidence.stage.logs();
    let mut sent = BTreeMap::new();
    for log in logs.iter().filter(|log| bare(&log.client) == PEST) {
        for event in &log.events {
            if let What::Sent(message) = &event.what {
                sent.insert(message.origin.as_str(), event.at);
            }
        }
    }
    let mut found = Vec::new();
    for account in evidence.before.0.keys() {
        let spans = spans(evidence, account);
        for event in logs.iter().filter(|log| bare(&log.client) == account).flat_map(|log| &log.events) {
            let (What::Seen(sighting) | What::Copied(sighting)) = &event.what else { continue };
            let Some(origin) = &sighting.origin else { continue };
            let Some(sent) = sent.get(origin.as_str()) else { continue };
            if spans.iter().any(|(from, to)| from < sent && event.at < *to) {
                let text =
                    format!("{account} had blocked {PEST} all the time from its sending to its coming");
                found.push((Some(origin.clone()), text));
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
