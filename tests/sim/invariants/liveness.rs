//! Promise 8: nobody waits for ever, and two seconds after the store is back everybody can send again.

use super::Evidence;
use starling_tests::history::{Kind, What};
use std::collections::BTreeMap;
use std::time::Duration;

/// How long sending may be refused once nothing is wrong any more.
const BACK: Duration = Duration::from_secs(2);

pub(super) fn find(evidence: &Evidence<'_>) -> Vec<(Option<String>, String)> {
    let mut found = evidence.of(&[Kind::NoAnswer]);
    if evidence.stage.plan.gentle {
        found.extend(refused(evidence));
    }
    let Some(healed) = evidence.stage.healed() else { return found };
    for log in evidence.stage.logs() {
        let mut sent = BTreeMap::new();
        for event in &log.events {
            match &event.what {
                What::Sent(message) if event.at >= healed + BACK => {
                    sent.insert(message.origin.clone(), event.at);
                }
                // As long as it was away itself it waited for nobody.
                What::Opened | What::Resumed => {
                    sent.values_mut().for_each(|at| *at = event.at);
                }
                What::Refused { origin, condition }
                    if sent.contains_key(origin) && condition == "resource-constraint" =>
                {
                    let text = format!("{} is refused {:?} after healing", log.client, event.at - healed);
                    found.push((Some(origin.clone()), text));
                }
                What::Acknowledged(origin) => {
                    if let Some(at) = sent.remove(origin)
                        && event.at > at + BACK
                    {
                        let text =
                            format!("{} waited {:?} for its acknowledgement", log.client, event.at - at);
                        found.push((Some(origin.clone()), text));
                    }
                }
                _ => {}
            }
        }
    }
    found
}

/// Nobody is refused anything because of moves that were planned, or links that are there again.
fn refused(evidence: &Evidence<'_>) -> Vec<(Option<String>, String)> {
    let mut found = Vec::new();
    for log in evidence.stage.logs() {
        for event in &log.events {
            if let What::Refused { origin, condition } = &event.what
                && condition == "resource-constraint"
                // Blocked at first; and when its sender's home had moved before it knew, decided anew.
                && !evidence.may_be_blocked(Some(origin))
            {
                found.push((Some(origin.clone()), format!("{} is refused at {:?}", log.client, event.at)));
            }
        }
    }
    found
}
