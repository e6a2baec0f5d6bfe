//! Paging has no gap and no double, in either direction and at any size; and what was read while others wrote has no
//! gap either: a client that goes on from there misses nothing.

use super::Evidence;
use crate::client::account;
use crate::run::MAYFLY;
use starling_tests::history::Kind;
use std::collections::BTreeSet;

pub(super) fn find(evidence: &Evidence<'_>) -> Vec<(Option<String>, String)> {
    let mut found = evidence.of(&[Kind::PagesDiffer, Kind::PeerDiffers]);
    for (when, reading) in evidence.later {
        for (account, kept) in &reading.0 {
            let ids: Vec<_> = kept.rows.iter().map(|row| &row.id).collect();
            if ids.iter().collect::<BTreeSet<_>>().len() != ids.len() {
                found.push((None, format!("{account}: a row twice {when}")));
            }
            if !ids.iter().copied().eq(&kept.backwards) {
                let text = format!("{account}: {ids:?} forwards, {:?} backwards {when}", kept.backwards);
                found.push((None, text));
            }
        }
    }
    let mayfly = account(MAYFLY);
    for peek in evidence.stage.peeks().into_iter().filter(|peek| peek.account != mayfly.as_str()) {
        let Some(kept) = evidence.before.0.get(&peek.account) else { continue };
        let ids: Vec<_> = kept.rows.iter().map(|row| &row.id).collect();
        let through = peek.ids.last().and_then(|last| ids.iter().position(|id| *id == last));
        let expected = through.map_or(&[][..], |through| &ids[..=through]);
        if let Some(gone) = peek.ids.iter().find(|id| !ids.contains(id)) {
            let text =
                format!("{} read row {gone} at {:?}; it is not there at the end", peek.account, peek.at);
            found.push((None, text));
        } else if !expected.iter().copied().eq(&peek.ids) {
            let missed = expected.iter().find(|id| !peek.ids.contains(id));
            let row = missed.and_then(|missed| kept.rows.iter().find(|row| row.id == **missed));
            let text = format!("{} read at {:?} and missed {row:?}", peek.account, peek.at);
            found.push((row.and_then(|row| row.origin.clone()), text));
        }
    }
    found
}
