//! What must hold, one file each. Most look at the history that clients wrote and at the archives at the end.

mod bounded;
mod copies;
mod durable;
mod early;
mod isolation;
mod liveness;
mod locations;
mod memory;
mod one_owner;
mod one_row;
mod order;
mod paging;
mod removal;
mod sessions;

use crate::audit::{Reading, Rows};
use crate::client::PEST;
use crate::promises::{Demand, Promise};
use crate::run::MAYFLY;
use crate::stage::{Stage, Wrong};
use starling_tests::history::{History, Violation, What, bare, check};

/// What invariants look at.
pub(crate) struct Evidence<'a> {
    pub(crate) stage: &'a Stage,
    pub(crate) violations: &'a [Violation],
    /// What the server had in memory and in the store at the end.
    pub(crate) before: &'a Reading,
    /// What later servers read, after which event.
    pub(crate) later: &'a [(String, Reading)],
    /// Logs as homes read them: then, and after which event, from which replicas.
    pub(crate) rows: &'a [(String, Rows)],
}

/// An invariant: its name, and what it finds.
type Invariant = (&'static str, fn(&Evidence<'_>) -> Vec<(Option<String>, String)>);

const ALL: [Invariant; 14] = [
    ("durable", durable::find),
    ("early", early::find),
    ("one row", one_row::find),
    ("sessions", sessions::find),
    ("order", order::find),
    ("isolation", isolation::find),
    ("copies", copies::find),
    ("one owner", one_owner::find),
    ("bounded", bounded::find),
    ("memory", memory::find),
    ("paging", paging::find),
    ("liveness", liveness::find),
    ("removal", removal::find),
    ("locations", locations::find),
];

/// Looks at everything.
pub(crate) fn judge(
    stage: &Stage,
    history: &History,
    before: &Reading,
    later: &[(String, Reading)],
    rows: &[(String, Rows)],
) -> Vec<Wrong> {
    let violations = check(history);
    let evidence = Evidence { stage, violations: &violations, before, later, rows };
    let mut wrong = Vec::new();
    for (invariant, find) in ALL {
        for (message, text) in find(&evidence) {
            wrong.push(Wrong { invariant, message, text });
        }
    }
    wrong
}

impl Evidence<'_> {
    /// What the judge of histories has found of these kinds.
    fn of(&self, kinds: &[starling_tests::history::Kind]) -> Vec<(Option<String>, String)> {
        let found = self.violations.iter().filter(|violation| kinds.contains(&violation.kind));
        found
            .filter(|violation| !self.is_excused(violation))
            .map(|violation| (violation.origin.clone(), violation.to_string()))
            .collect()
    }

    /// What the judge cannot know: some recipients count nothing, and some senders are blocked.
    fn is_excused(&self, violation: &Violation) -> bool {
        use starling_tests::history::Kind;
        let plain = self
            .stage
            .plan
            .accounts
            .iter()
            .any(|cast| cast.plain && violation.place.starts_with(&format!("{}@", cast.name)));
        if self.stage.is_remade() && self.is_of_mayfly(violation) {
            return matches!(
                violation.kind,
                Kind::MissingRow
                    | Kind::NeverSeen
                    | Kind::SeenNotStored
                    | Kind::SecondRow
                    | Kind::OtherId
                    | Kind::SeenOutOfOrder
                    | Kind::StoredOutOfOrder
                    | Kind::ResumptionRefused
                    | Kind::Doubled
                    | Kind::NoDelay
                    | Kind::OutOfPosition
            );
        }
        let origin = violation.origin.as_deref();
        match violation.kind {
            // What was on the way to a client that does not count is lost with its connection.
            Kind::NeverSeen => plain || self.may_be_blocked(origin),
            // Blocked: the error that said so may be lost with a session that is not resumed.
            Kind::MissingRow => self.may_be_blocked(origin),
            // It was on the way to such a client when that left, and comes again when the server has died since.
            Kind::SeenOutOfOrder if plain => true,
            // Blocked at first; and when its sender's home was lost with that answer, decided anew.
            Kind::SeenOutOfOrder | Kind::StoredOutOfOrder => {
                let anew = self.stage.plan.shape.is_some() || self.was_said_again(origin);
                anew && self.may_be_blocked(origin)
            }
            _ => false,
        }
    }

    /// What an account had that was removed is gone, and what it has sent comes anew.
    fn is_of_mayfly(&self, violation: &Violation) -> bool {
        let is = |text: &str| text.starts_with(&format!("{MAYFLY}@"));
        let to = || {
            let logs = self.stage.logs();
            let mut events = logs.iter().flat_map(|log| &log.events);
            events.any(|event| match &event.what {
                What::Sent(message) => Some(&message.origin) == violation.origin.as_ref() && is(&message.to),
                _ => false,
            })
        };
        let by = |origin: &String| origin.starts_with(&format!("{MAYFLY}."));
        is(&violation.place) || violation.origin.as_ref().is_some_and(by) || to()
    }

    /// Whether a message was said again, in another session.
    fn was_said_again(&self, origin: Option<&str>) -> bool {
        let logs = self.stage.logs();
        let mut events = logs.iter().flat_map(|log| &log.events);
        events.any(|event| matches!(&event.what, What::SentAgain(again) if Some(again.as_str()) == origin))
    }

    /// Whether a message of the pest was for somebody who ever wanted to block it.
    fn may_be_blocked(&self, origin: Option<&str>) -> bool {
        let logs = self.stage.logs();
        let mut events = logs.iter().filter(|log| bare(&log.client) == PEST).flat_map(|log| &log.events);
        let to = events.find_map(|event| match &event.what {
            What::Sent(message) if Some(message.origin.as_str()) == origin => Some(&message.to),
            _ => None,
        });
        let Some(to) = to else { return false };
        let promises = self.stage.promises();
        let blocks = |promise: &Promise| matches!(promise.what, Demand::Block(true, _));
        promises.all().iter().any(|promise| promise.account == bare(to) && blocks(promise))
    }
}
