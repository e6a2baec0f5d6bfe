mod bug;
mod model;
mod mutations;

use bug::Bug;
use model::{Harm, generate};

use super::*;

#[test]
fn passes_every_correct_history() {
    for seed in 0..300 {
        let (history, _) = generate(seed, None);
        let violations = check(&history);
        let shown: Vec<String> = violations.iter().take(5).map(ToString::to_string).collect();
        assert!(violations.is_empty(), "seed {seed}: {}\n{}", shown.join("\n"), story(&history, &violations));
    }
}

#[test]
fn correct_histories_have_what_the_rules_are_about() {
    let (mut again, mut delayed, mut resumed, mut given_up, mut own) = (0, 0, 0, 0, 0);
    for seed in 0..20 {
        for log in generate(seed, None).0.logs {
            for event in &log.events {
                match &event.what {
                    What::SentAgain(_) => again += 1,
                    What::Seen(sighting) if sighting.delayed => delayed += 1,
                    What::Resumed => resumed += 1,
                    What::GivenUp(_) => given_up += 1,
                    What::Sent(message) if bare(&message.to) == bare(&log.client) => own += 1,
                    _ => {}
                }
            }
        }
    }
    assert!(
        [again, delayed, resumed, given_up, own].iter().all(|n| *n > 50),
        "{again} {delayed} {resumed} {given_up} {own}"
    );
}

#[test]
fn finds_every_planted_fault() {
    for (bug, kinds) in Bug::ALL {
        let (mut struck, mut by_kind) = (0, vec![0; kinds.len()]);
        for seed in 0..60 {
            let (history, harm) = generate(seed, Some(*bug));
            let violations = check(&history);
            let found = |kind: &Kind| violations.iter().any(|v| v.kind == *kind);
            match harm {
                Harm::None => {
                    let shown = violations.first().map(ToString::to_string);
                    assert!(violations.is_empty(), "{bug:?} did no harm with seed {seed}, but {shown:?}");
                }
                Harm::Perhaps => {}
                Harm::Done => {
                    struck += 1;
                    let all: Vec<_> = violations.iter().map(|v| v.kind).collect();
                    assert!(kinds.iter().any(found), "{bug:?} with seed {seed} is not found, only {all:?}");
                }
            }
            for (kind, count) in kinds.iter().zip(&mut by_kind) {
                *count += usize::from(found(kind));
            }
        }
        assert!(struck >= 20, "{bug:?} did harm with {struck} seeds only");
        assert!(by_kind.iter().all(|n| *n >= 3), "{bug:?} shows as {kinds:?} {by_kind:?} times");
    }
}

#[test]
fn tells_the_story_of_a_message() {
    let (history, _) = generate(1, Some(Bug::SecondRow));
    let violation = check(&history).into_iter().find(|v| v.kind == Kind::SecondRow).unwrap();
    let story = history.story(violation.origin.as_deref().unwrap());
    for part in ["sent m", "sent again m", "killed", "archive of"] {
        assert!(story.contains(part), "no {part:?} in\n{story}");
    }
}

#[test]
fn an_error_is_not_an_acknowledgement() {
    let mut log = Log::new("a@x/phone");
    let message = Message { origin: "m1".to_owned(), to: "b@x".to_owned(), body: "text".to_owned() };
    log.note(Duration::ZERO, What::Opened);
    log.note(Duration::ZERO, What::Sent(message));
    let refused = What::Refused { origin: "m1".to_owned(), condition: "wait resource-constraint".to_owned() };
    let acknowledged = What::Acknowledged("m1".to_owned());
    let end = |events: &[&What]| {
        let mut log = log.clone();
        events.iter().for_each(|what| log.note(Duration::ZERO, (*what).clone()));
        let found = check(&History { logs: vec![log], archives: Vec::new() });
        found.into_iter().map(|violation| violation.kind).collect::<Vec<_>>()
    };
    assert_eq!(end(&[&acknowledged]), [Kind::MissingRow, Kind::MissingRow, Kind::NeverSeen]);
    assert_eq!(end(&[&refused]), []);
    assert_eq!(end(&[&refused, &acknowledged]), []);
    assert_eq!(end(&[&acknowledged, &refused]), [Kind::RefusedLate]);
    assert_eq!(end(&[&What::Resumed, &acknowledged, &refused]), []);
    assert_eq!(end(&[&What::Resumed, &What::Settled, &acknowledged, &refused]), [Kind::RefusedLate]);
    let again = What::SentAgain("m1".to_owned());
    let twice = [&refused, &acknowledged, &again];
    let then = |more: &[&What]| end(&[&twice[..], more].concat());
    assert_eq!(then(&[]), [Kind::NoAnswer]);
    assert_eq!(then(&[&refused, &acknowledged]), []);
    assert_eq!(then(&[&acknowledged, &refused]), [Kind::RefusedLate]);
}

/// What its sender knew to be refused and sent again takes its place then: what was sent before that may stand before it,
/// what was sent after that may not. And what is promised for it then holds.
#[test]
fn what_is_sent_again_after_a_refusal_has_its_place_there() {
    let message = |origin: &str| {
        What::Sent(Message { origin: origin.to_owned(), to: "b@x".to_owned(), body: origin.to_owned() })
    };
    let (first, again) = ("first".to_owned(), What::SentAgain("first".to_owned()));
    let refused = What::Refused { origin: first.clone(), condition: "wait".to_owned() };
    let row = |origin: &str| Row {
        id: origin.to_owned(),
        stamp: "2026-01-01T00:00:00Z".to_owned(),
        origin: Some(origin.to_owned()),
        from: "a@x/phone".to_owned(),
        to: "b@x".to_owned(),
        body: origin.to_owned(),
    };
    let found = |events: &[What], rows: &[&str]| {
        let mut log = Log::new("a@x/phone");
        events.iter().for_each(|what| log.note(Duration::ZERO, what.clone()));
        let rows = rows.iter().map(|origin| row(origin)).collect();
        let archive = Archive { owner: "b@x".to_owned(), rows, ..Archive::default() };
        let violations = check(&History { logs: vec![log], archives: vec![archive] });
        let kinds = [Kind::StoredOutOfOrder, Kind::MissingRow];
        violations.iter().map(|v| v.kind).filter(|kind| kinds.contains(kind)).collect::<Vec<_>>()
    };
    let [one, two, three] = ["first", "second", "third"].map(message);
    let mut events = vec![one.clone(), two.clone(), refused, again.clone(), three.clone()];
    assert_eq!(found(&events, &["second", "first", "third"]), []);
    assert_eq!(found(&events, &["second", "third", "first"]), [Kind::StoredOutOfOrder]);
    events.push(What::Acknowledged(first));
    assert_eq!(found(&events, &["second", "third"]), [Kind::MissingRow; 2]);
    // Without the refusal nothing has changed.
    assert_eq!(found(&[one, two, again, three], &["second", "first", "third"]), [Kind::StoredOutOfOrder]);
}

fn story(history: &History, violations: &[Violation]) -> String {
    let origin = violations.first().and_then(|v| v.origin.clone());
    origin.map(|o| history.story(&o)).unwrap_or_default()
}

/// What is sent again late stands behind what its sender gave up: with a refusal that it never heard of that is right,
/// without any it is not.
#[test]
fn a_refusal_that_was_not_heard_may_change_the_order() {
    let message = |origin: &str| {
        let (to, body) = ("bob@localhost".to_owned(), origin.to_owned());
        Message { origin: origin.to_owned(), to, body }
    };
    for refused in [true, false] {
        let mut log = Log::new("ann@localhost/phone");
        let mut events: Vec<What> = ["first", "second", "third"].map(|o| What::Sent(message(o))).into();
        if refused {
            let (origin, condition) = ("third".to_owned(), "wait resource-constraint".to_owned());
            events.push(What::Refused { origin, condition });
        }
        events.extend([What::GivenUp("second".to_owned()), What::SentAgain("first".to_owned())]);
        events.into_iter().for_each(|what| log.note(Duration::ZERO, what));
        let row = |origin: &str| Row {
            id: origin.to_owned(),
            stamp: "2026-01-01T00:00:00Z".to_owned(),
            origin: Some(origin.to_owned()),
            from: "ann@localhost/phone".to_owned(),
            to: "bob@localhost".to_owned(),
            body: origin.to_owned(),
        };
        let rows = vec![row("second"), row("first")];
        let archive = Archive { owner: "bob@localhost".to_owned(), rows, ..Archive::default() };
        let violations = check(&History { logs: vec![log], archives: vec![archive] });
        let found = violations.iter().any(|v| v.kind == Kind::StoredOutOfOrder);
        assert_eq!(found, !refused, "{violations:?}");
    }
}
