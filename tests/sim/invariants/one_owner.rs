//! Promise 6: what was read when an account was opened is what every later read shows below that; nothing of a dead
//! reign comes up, from whichever replicas it is read and however late it arrives.

use super::Evidence;
use starling_store::LogRow;

pub(super) fn find(evidence: &Evidence<'_>) -> Vec<(Option<String>, String)> {
    let mut found = Vec::new();
    for (when, reading) in evidence.later {
        for (account, before) in &evidence.before.0 {
            let Some(later) = reading.0.get(account) else { continue };
            let mut differs = |row: &starling_tests::history::Row, what: &str| {
                found.push((row.origin.clone(), format!("{account}: {what} {when}: {row}")));
            };
            for row in before.rows.iter().filter(|row| !later.rows.contains(row)) {
                differs(row, "is gone");
            }
            for row in later.rows.iter().filter(|row| !before.rows.contains(row)) {
                differs(row, "has come up");
            }
        }
    }
    let Some(((_, before), later)) = evidence.rows.split_first() else { return found };
    for (when, rows) in later {
        for (account, before) in before {
            let Some(later) = rows.get(account) else { continue };
            let mut differs = |row: &LogRow, what: &str| {
                let origin = row.origin_id.as_ref().map(ToString::to_string);
                found.push((origin, format!("{account}: {what} {when}: {row:?}")));
            };
            if before == later {
                continue;
            }
            before.iter().filter(|row| !later.contains(row)).for_each(|row| differs(row, "is gone"));
            later.iter().filter(|row| !before.contains(row)).for_each(|row| differs(row, "has come up"));
        }
    }
    found
}
