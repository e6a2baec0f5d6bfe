//! What an account had is gone with it: nothing of it comes up in one that is made again under its name.

use super::Evidence;
use crate::client::account;
use crate::run::MAYFLY;
use starling_tests::history::What;

pub(super) fn find(evidence: &Evidence<'_>) -> Vec<(Option<String>, String)> {
    let Some(removed) = evidence.stage.removed_at() else { return Vec::new() };
    let logs = evidence.stage.logs();
    let owner = account(MAYFLY);
    let readings = evidence.later.iter().map(|(_, reading)| reading).chain([evidence.before]);
    let kept: Vec<_> = readings.filter_map(|reading| reading.0.get(owner.as_str())).collect();
    let mut found = Vec::new();
    for event in logs.iter().flat_map(|log| &log.events) {
        // What was settled before the removal was asked for is not sent again after it.
        let What::Acknowledged(origin) = &event.what else { continue };
        let is_kept = kept.iter().any(|kept| kept.rows.iter().any(|row| row.origin.as_ref() == Some(origin)));
        if event.at < removed && is_kept {
            let text = format!("{owner} was removed after this was acknowledged, and has it now");
            found.push((Some(origin.clone()), text));
        }
    }
    found
}
