//! Whether a run against a cluster was good.

use anyhow::{Result, bail, ensure};

use super::Summary;
use crate::history::{History, Violation, What};

/// What is known of a run beside its history.
#[derive(Clone, Copy, Debug)]
pub struct Verdict<'a> {
    /// How many faults were made.
    pub faults: usize,
    /// How many requests were answered, and how many of them with an error.
    pub answered: [u32; 2],
    /// How many requests got neither.
    pub silences: u32,
    /// What took longer than it may.
    pub late: &'a [String],
    /// How many messages were refused as they have to be.
    pub due: usize,
}

impl Verdict<'_> {
    /// An error with all that has to be known if the run was not good, or if too little happened in it.
    pub fn of(&self, history: &History, violations: &[Violation], summary: &Summary) -> Result<()> {
        if let Some(first) = violations.first() {
            let story = first.origin.as_deref().map(|o| history.story(o)).unwrap_or_default();
            bail!("{} violations. The first: {first}\n{story}", violations.len());
        }
        ensure!(self.silences == 0, "{} requests got neither a result nor an error", self.silences);
        // An error is an answer, but a server must not get away with errors.
        let [answered, errors] = self.answered;
        let least = u32::try_from(2 * self.faults)?;
        ensure!(answered >= least, "{answered} requests were answered, at least {least} are needed");
        ensure!(errors <= answered / 4, "{errors} of {answered} requests were answered with an error");
        ensure!(self.late.is_empty(), "too slow: {}", self.late.join("; "));
        let events = history.logs.iter().flat_map(|l| &l.events);
        let other = events.filter_map(|event| match &event.what {
            What::Refused { origin, condition } if condition != "wait resource-constraint" => {
                Some(format!("{origin}: {condition}"))
            }
            _ => None,
        });
        let other: Vec<String> = other.collect();
        ensure!(other.is_empty(), "{} messages refused in another way, the first {}", other.len(), other[0]);
        summary.too_idle_for(self.faults, self.due).map_or(Ok(()), |why| bail!(why))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::history::{Kind, Log, Message, Sighting};
    use std::time::Duration;

    /// Enough for one fault.
    fn busy() -> Vec<What> {
        let origin = |n: usize| format!("m{n}");
        let message = |n| Message { origin: origin(n), to: "b@x".to_owned(), body: String::new() };
        let sighting = |n| Sighting {
            id: Some(origin(n)),
            origin: Some(origin(n)),
            from: "a@x/phone".to_owned(),
            body: String::new(),
            delayed: false,
        };
        let mut events: Vec<What> = (0..40).map(|n| What::Sent(message(n))).collect();
        events.extend((0..40).map(|n| What::Acknowledged(origin(n))));
        events.extend((0..5).map(|n| What::Copied(sighting(n))));
        events.extend([What::Resumed, What::Resumed]);
        events
    }

    fn judged(events: &[What], verdict: &Verdict<'_>, violations: &[Violation]) -> String {
        let mut log = Log::new("a@x/phone");
        events.iter().for_each(|what| log.note(Duration::ZERO, what.clone()));
        let history = History { logs: vec![log], archives: Vec::new() };
        let summary = Summary::of(&history);
        verdict
            .of(&history, violations, &summary)
            .map_or_else(|error| error.to_string(), |()| "good".to_owned())
    }

    #[test]
    fn whatever_is_wrong_is_told() {
        let (events, late) = (busy(), ["homes were late".to_owned()]);
        let good = Verdict { faults: 1, answered: [20, 5], silences: 0, late: &[], due: 0 };
        assert_eq!(judged(&events, &good, &[]), "good");
        let violation = Violation {
            kind: Kind::Doubled,
            place: "a@x".to_owned(),
            origin: None,
            detail: "came twice in one session".to_owned(),
        };
        for (verdict, why) in [
            (Verdict { silences: 1, ..good }, "1 requests got neither"),
            (Verdict { answered: [1, 0], ..good }, "at least 2 are needed"),
            (Verdict { answered: [20, 6], ..good }, "6 of 20 requests"),
            (Verdict { late: &late, ..good }, "too slow: homes were late"),
            (Verdict { faults: 3, ..good }, "too little happened: 40 messages acknowledged"),
        ] {
            let told = judged(&events, &verdict, &[]);
            assert!(told.contains(why), "{told}");
        }
        assert!(judged(&events, &good, &[violation]).contains("The first: Doubled at a@x"));
        for missing in [What::Resumed, events[80].clone()] {
            let mut fewer = events.clone();
            fewer.retain(|what| std::mem::discriminant(what) != std::mem::discriminant(&missing));
            assert!(judged(&fewer, &good, &[]).contains("too little happened: 0"), "{missing:?}");
        }
    }

    #[test]
    fn refusals_are_few_and_of_the_right_kind() {
        let verdict = Verdict { faults: 1, answered: [20, 0], silences: 0, late: &[], due: 0 };
        let refused = |n: usize, condition: &str| What::Refused {
            origin: format!("m{n}"),
            condition: condition.to_owned(),
        };
        let with_due =
            |due: usize, more: &[What]| judged(&[&busy(), more].concat(), &Verdict { due, ..verdict }, &[]);
        let with = |more: &[What]| with_due(0, more);
        let many =
            |count: usize| (0..count).map(|n| refused(n, "wait resource-constraint")).collect::<Vec<_>>();
        assert_eq!(
            (with(&many(8)), with(&many(9))),
            ("good".to_owned(), "9 messages were refused".to_owned())
        );
        assert_eq!(
            (with_due(12, &many(20)), with_due(12, &many(21))),
            ("good".to_owned(), "9 messages were refused".to_owned())
        );
        assert!(with(&[refused(1, "cancel service-unavailable")]).contains("refused in another way"));
    }
}
