use super::*;
use crate::cql::{Change, Owner};
use futures::FutureExt;
use futures::channel::oneshot;
use starling_store::testing::{append, at, jid, row};

fn lane() -> Lane {
    let owner = Owner { jid: jid("a@x.org"), generation: 7 };
    Lane { opened: Some(Opened::new(owner, 1, Position(0))), ..Lane::default() }
}

fn settings() -> Settings {
    Settings { window: 3, ..Settings::default() }
}

fn writes(list: Vec<Write>) -> Writes {
    let mut writes = Writes::default();
    for write in list {
        assert!(writes.take(write, &settings()).is_none(), "too many for one flight");
    }
    writes
}

fn commit(lane: &mut Lane, secs: u64, rows: u64) -> oneshot::Receiver<Result<()>> {
    let (joint, answered) = Joint::new(1, Vec::new());
    let list = (0..rows).map(|n| append(row(&jid("a@x.org"), Position(at(secs).0 + n), &jid("b@x.org"))));
    let until = Duration::from_secs(5);
    let writes = writes(list.collect());
    lane.push(Job::Commit(Commit {
        at: at(secs + 1),
        open: None,
        epoch: 0,
        writes,
        more: false,
        traces: Vec::new(),
        until,
        joint,
    }));
    answered
}

fn step(lane: &mut Lane) -> Step {
    lane.step(Duration::ZERO, Timestamp(0), &settings())
}

fn fly(step: Step) -> Flight {
    match step {
        Step::Fly(flight) => *flight,
        _ => panic!("does not fly"),
    }
}

fn safe(flight: &Flight) -> Vec<Position> {
    let rows = flight.plan.mutations[0].changes.iter().map(|change| match change {
        Change::PutRow(row, _) => row.safe,
        _ => panic!("no row"),
    });
    rows.collect()
}

#[test]
fn what_comes_while_something_is_under_way_is_written_together() {
    let mut lane = lane();
    let _answers: Vec<_> = [(10, 2), (20, 1), (30, 1), (40, 1), (50, 1)]
        .map(|(secs, rows)| commit(&mut lane, secs, rows))
        .into();
    let first = fly(step(&mut lane));
    assert_eq!(first.joints.len(), 2, "three rows");
    assert_eq!(safe(&first), [Position(at(10).0 - 1); 3], "all or nothing");
    assert!(first.plan.mutations.iter().all(|mutation| mutation.at == at(21)), "of the last of them");
    assert!(matches!(step(&mut lane), Step::Rest), "one flight at a time");
    lane.landed(true);
    let second = fly(step(&mut lane));
    assert_eq!((second.joints.len(), safe(&second)[0]), (3, Position(at(30).0 - 1)));
    lane.landed(true);
    assert!(matches!(step(&mut lane), Step::Rest));
    assert!(lane.may_be_forgotten());
}

#[test]
fn a_flight_holds_so_many_bytes() {
    let mut lane = lane();
    let mut answers = Vec::new();
    for secs in [10, 20, 30] {
        let (joint, answered) = Joint::new(1, Vec::new());
        let mut large = row(&jid("a@x.org"), at(secs), &jid("b@x.org"));
        large.stanza = vec![0; 120_000].into();
        let until = Duration::from_secs(5);
        let writes = writes(vec![append(large)]);
        let commit = Commit {
            at: at(secs),
            open: None,
            epoch: 0,
            writes,
            more: false,
            traces: Vec::new(),
            until,
            joint,
        };
        lane.push(Job::Commit(commit));
        answers.push(answered);
    }
    assert_eq!(fly(step(&mut lane)).joints.len(), 2);
}

#[test]
fn what_has_little_time_left_does_not_start() {
    let mut lane = lane();
    let _answer = commit(&mut lane, 10, 1);
    let late = Duration::from_millis(4_800);
    let step = lane.step(late, Timestamp(0), &settings());
    assert!(matches!(step, Step::Tell(_, Outcome::Nothing(StoreError::Overloaded))));
}

#[test]
fn what_runs_alone_waits_and_is_waited_for() {
    let mut lane = lane();
    let _answers = commit(&mut lane, 10, 1);
    lane.push(Job::Alone(Box::new(|| async {}.boxed())));
    let _after = commit(&mut lane, 20, 1);
    fly(step(&mut lane));
    assert!(matches!(step(&mut lane), Step::Rest), "a commit is under way");
    lane.landed(true);
    assert!(matches!(step(&mut lane), Step::Alone(_)));
    assert!(matches!(step(&mut lane), Step::Rest), "it runs");
    lane.ended();
    fly(step(&mut lane));
}

#[test]
fn in_doubt_nothing_starts() {
    let mut lane = lane();
    let _first = commit(&mut lane, 10, 1);
    fly(step(&mut lane));
    let _second = commit(&mut lane, 20, 1);
    lane.doubt();
    assert!(matches!(step(&mut lane), Step::Tell(_, Outcome::Nothing(StoreError::Unavailable(_)))));
    lane.landed(true);
    let opened = Opened::new(Owner { jid: jid("a@x.org"), generation: 7 }, 1, at(25));
    lane.settle(Some(opened));
    let _low = commit(&mut lane, 20, 1);
    assert!(matches!(step(&mut lane), Step::Tell(_, Outcome::Nothing(StoreError::Overloaded))), "below");
    let _high = commit(&mut lane, 30, 1);
    fly(step(&mut lane));
}

#[test]
fn what_was_decided_behind_a_commit_that_is_left_out_is_left_out_too() {
    let overloaded = |step| matches!(step, Step::Tell(_, Outcome::Nothing(StoreError::Overloaded)));
    let mut lane = lane();
    let _late = commit(&mut lane, 10, 1);
    let _behind = commit(&mut lane, 20, 1);
    assert!(overloaded(lane.step(Duration::from_secs(5), Timestamp(0), &settings())));
    assert!(overloaded(step(&mut lane)), "though it has time left");
    let _next = commit(&mut lane, 30, 1);
    assert_eq!(fly(step(&mut lane)).joints.len(), 1, "decided when that was known");
    let _waits = commit(&mut lane, 40, 1);
    lane.leaves_out();
    lane.landed(true);
    assert!(overloaded(step(&mut lane)), "nothing of the flight was written");
    let _first = commit(&mut lane, 50, 1);
    lane.opened = None;
    assert!(matches!(step(&mut lane), Step::Open));
    let _second = commit(&mut lane, 60, 1);
    lane.ended();
    assert!(lane.fail_first(StoreError::Overloaded).is_some());
    assert!(overloaded(step(&mut lane)), "the account was not opened");
}

#[test]
fn what_was_decided_before_its_home_heard_of_that_is_left_out_too() {
    let overloaded = |step| matches!(step, Step::Tell(_, Outcome::Nothing(StoreError::Overloaded)));
    let decided = |lane: &mut Lane, secs: u64, open: Option<u64>| {
        drop(commit(lane, secs, 1));
        if let Some(Job::Commit(commit)) = lane.jobs.back_mut() {
            commit.open = open.map(|secs| at(secs + 1));
        }
    };
    let mut lane = lane();
    decided(&mut lane, 10, None);
    assert!(overloaded(lane.step(Duration::from_secs(5), Timestamp(0), &settings())), "too late");
    decided(&mut lane, 20, Some(10));
    assert!(overloaded(step(&mut lane)));
    decided(&mut lane, 30, Some(20));
    assert!(overloaded(step(&mut lane)), "nor what is behind that");
    decided(&mut lane, 40, None);
    assert_eq!(fly(step(&mut lane)).joints.len(), 1);
    lane.landed(true);
    decided(&mut lane, 50, Some(40));
    assert_eq!(fly(step(&mut lane)).joints.len(), 1, "that one was written");
    lane.landed(true);
    lane.turns_away(at(61));
    decided(&mut lane, 70, Some(60));
    assert!(overloaded(step(&mut lane)), "there was no room for that one");
}

#[test]
fn what_is_not_known_is_asked_first() {
    let mut lane = Lane::default();
    let answer = commit(&mut lane, 10, 1);
    assert!(matches!(step(&mut lane), Step::Open));
    lane.ended();
    lane.absent = true;
    match step(&mut lane) {
        Step::Tell(joint, outcome) => joint.end(outcome),
        _ => panic!("there is no account: nothing to do"),
    }
    assert!(answer.now_or_never().unwrap().unwrap().is_ok());
    assert!(matches!(step(&mut lane), Step::Rest));
    assert!(!lane.absent, "the next one asks again");
}

#[test]
fn roster_changes_wait_for_their_mark() {
    let mut lane = lane();
    let _message = commit(&mut lane, 0, 1);
    let (joint, _answered) = Joint::new(1, Vec::new());
    let writes = writes(vec![Write::RosterRemove(jid("a@x.org"), jid("b@x.org"), 1)]);
    let until = Duration::from_secs(5);
    lane.push(Job::Commit(Commit {
        at: at(1),
        open: None,
        epoch: 0,
        writes,
        more: false,
        traces: Vec::new(),
        until,
        joint,
    }));
    assert_eq!(fly(step(&mut lane)).joints.len(), 1, "the message does not");
    lane.landed(true);
    assert!(matches!(step(&mut lane), Step::Mark));
    lane.ended();
    lane.opened.as_mut().unwrap().data_marked = true;
    fly(step(&mut lane));
}

#[test]
fn a_reign_that_was_followed_or_left_is_refused() {
    let mut lane = lane();
    lane.enter(1).unwrap();
    let of = |lane: &mut Lane, epoch| {
        let (joint, _) = Joint::new(1, Vec::new());
        let writes = writes(vec![append(row(&jid("a@x.org"), at(epoch), &jid("b@x.org")))]);
        let until = Duration::from_secs(5);
        lane.push(Job::Commit(Commit {
            at: at(epoch),
            open: None,
            epoch,
            writes,
            more: false,
            traces: Vec::new(),
            until,
            joint,
        }));
        step(lane)
    };
    let fenced = |step| matches!(step, Step::Tell(_, Outcome::Nothing(StoreError::Fenced)));
    assert!(matches!(of(&mut lane, 1), Step::Fly(_)));
    lane.doubt();
    lane.landed(true);
    lane.leave(1);
    assert!(lane.may_be_forgotten(), "the next reign closes it in any case");
    assert!(fenced(of(&mut lane, 1)) && lane.enter(1).is_err());
    lane.enter(2).unwrap();
    lane.settle(Some(Opened::new(Owner { jid: jid("a@x.org"), generation: 7 }, 2, Position(0))));
    lane.leave(1);
    assert!(lane.opened.is_some(), "somebody was late to say so");
    assert!(fenced(of(&mut lane, 1)));
    assert!(matches!(of(&mut lane, 2), Step::Fly(_)));
    lane.landed(true);
    lane.enter(3).unwrap();
    assert!(fenced(of(&mut lane, 2)) && lane.enter(2).is_err(), "whether or not the load comes to its end");
    assert!(matches!(of(&mut lane, 3), Step::Open), "what was learned under another reign is not gone by");
}

#[test]
fn what_is_sure_ends_before_what_is_under_way() {
    let before = |secs: u64| Position(at(secs).0 - 1);
    let mut lane = lane();
    let unknown = Lane::default();
    assert_eq!(unknown.sure(), codec::HIGHEST, "it is not known what there is");
    // The lane was put away and has come back: rows are there, and nothing was closed.
    lane.knows(Position(at(1).0 - 1));
    assert_eq!(lane.sure(), before(1));
    lane.opened.as_mut().unwrap().closed_at = at(1);
    assert_eq!(lane.sure(), at(1), "what begins now is above that");
    let _answers = [commit(&mut lane, 5, 2), commit(&mut lane, 9, 3)];
    assert_eq!(lane.sure(), before(5));
    fly(step(&mut lane));
    assert_eq!(lane.sure(), before(5));
    lane.landed(true);
    assert_eq!(lane.sure(), before(9), "the next one may begin at any moment");
    fly(step(&mut lane));
    lane.landed(true);
    assert_eq!(lane.sure(), at(10));
    let _answer = commit(&mut lane, 12, 1);
    fly(step(&mut lane));
    lane.landed(false);
    lane.doubt();
    assert_eq!(lane.sure(), before(12), "nobody knows");
    lane.settle(None);
    assert_eq!(lane.sure(), codec::HIGHEST);
}
