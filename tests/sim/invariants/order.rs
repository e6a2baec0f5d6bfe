//! Promise 4: first sight and archives keep the order of sending, sessions that of the archive.

use super::Evidence;
use starling_tests::history::Kind;

pub(super) fn find(evidence: &Evidence<'_>) -> Vec<(Option<String>, String)> {
    evidence.of(&[Kind::SeenOutOfOrder, Kind::OutOfPosition, Kind::StoredOutOfOrder, Kind::TimeRunsBack])
}
