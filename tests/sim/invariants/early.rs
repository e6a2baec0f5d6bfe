//! Promise 1, at the moment at which something is said: nothing is delivered, receipted or called handled, and nobody is told
//! of a session, before that is recorded.

use super::Evidence;
use crate::run::MAYFLY;

pub(super) fn find(evidence: &Evidence<'_>) -> Vec<(Option<String>, String)> {
    let early = evidence.stage.records.early().into_iter();
    let mayfly = format!("{MAYFLY}@");
    early
        .filter(|early| !early.text.contains(&mayfly))
        .map(|early| (early.origin, format!("at {:?}: {}", early.at, early.text)))
        .collect()
}
