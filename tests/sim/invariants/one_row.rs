//! Promise 2: exactly one row per owner and accepted message, the same one whichever way it is found, and no cell of
//! another write in it.

use super::Evidence;
use starling_tests::history::Kind;

pub(super) fn find(evidence: &Evidence<'_>) -> Vec<(Option<String>, String)> {
    let mut found = evidence.of(&[Kind::SecondRow, Kind::SharedId, Kind::OtherId, Kind::Altered]);
    let torn = evidence.stage.model.torn();
    if torn > 0 {
        let first = evidence.stage.model.tear().unwrap_or_default();
        found.push((
            None,
            format!("{torn} rows were written twice under one timestamp, and not alike: {first}"),
        ));
    }
    found
}
