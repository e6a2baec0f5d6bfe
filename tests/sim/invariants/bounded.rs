//! Promise 7: what is kept in memory and in the store has its bounds.

use super::Evidence;

pub(super) fn find(evidence: &Evidence<'_>) -> Vec<(Option<String>, String)> {
    let mut found = Vec::new();
    let endless = evidence.stage.model.endless();
    if endless > 0 {
        found.push((None, format!("{endless} rows have no end, though all rows were to have one")));
    }
    found
}
