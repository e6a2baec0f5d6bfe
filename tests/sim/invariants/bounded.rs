//! Promise 7: what is kept in memory and in the store has its bounds.

use super::Evidence;
use crate::edge::CREDIT;

pub(super) fn find(evidence: &Evidence<'_>) -> Vec<(Option<String>, String)> {
    let mut found = Vec::new();
    let endless = evidence.stage.model.endless();
    if endless > 0 {
        found.push((None, format!("{endless} rows have no end, though all rows were to have one")));
    }
    let most = evidence.stage.records.most_open();
    if most > CREDIT.0 as u64 {
        found.push((None, format!("{most} stanzas of a session were under way")));
    }
    found
}
