//! Memory equals store: what a home shows after it has come to rest is what a fresh one loads.

use super::Evidence;

pub(super) fn find(evidence: &Evidence<'_>) -> Vec<(Option<String>, String)> {
    let mut found = Vec::new();
    for (when, reading) in evidence.later {
        for (account, before) in &evidence.before.0 {
            let Some(later) = reading.0.get(account) else { continue };
            let (one, two) = (
                (&before.roster, &before.version, &before.blocked),
                (&later.roster, &later.version, &later.blocked),
            );
            if one != two {
                found.push((None, format!("{account}: was {one:?}, is {two:?} {when}")));
            }
        }
    }
    found
}
