//! Promise 3: nothing comes twice in a session, resumed or not; what comes again in a new one says so.

use super::Evidence;
use starling_tests::history::Kind;

pub(super) fn find(evidence: &Evidence<'_>) -> Vec<(Option<String>, String)> {
    evidence.of(&[
        Kind::Doubled,
        Kind::NoDelay,
        Kind::NoId,
        Kind::CameBack,
        Kind::ResumptionRefused,
        Kind::Fault,
        Kind::BadRun,
    ])
}
