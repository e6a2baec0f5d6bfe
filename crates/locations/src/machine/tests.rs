//! The machine against a naive model, and what must hold whatever comes.

use super::*;
use proptest::prelude::*;
use std::collections::BTreeMap;

const NAMES: [&str; 6] = ["a@x.org/1", "a@x.org/2", "a@x.org/2/3", "aa@x.org/1", "b@x.org/1", "x.org/1"];

fn jid(name: &str) -> FullJid {
    FullJid::parse(name).unwrap()
}

/// Everything is a plain map, searched from end to end.
#[derive(Debug, Default, Clone)]
struct Model {
    epoch: u64,
    ceiling: u64,
    rows: BTreeMap<String, Row>,
}

impl Model {
    fn apply(&mut self, index: u64, op: &Op) -> Outcome {
        if op.epoch().is_some_and(|epoch| epoch.0 != self.epoch) {
            return Outcome::Stale { epoch: Epoch(self.epoch) };
        }
        match op.clone() {
            Op::Open { era, floor, ceiling, .. } => {
                let epoch = era * (1 << 40) + index;
                if epoch <= self.epoch {
                    return Outcome::Stale { epoch: Epoch(self.epoch) };
                }
                // Strictly: also above one that was granted nothing.
                let above = if self.epoch == 0 { 0 } else { self.ceiling + 1 };
                self.epoch = epoch;
                let floor = floor.max(above);
                self.ceiling = floor.max(ceiling);
                Outcome::Opened { epoch: Epoch(epoch), floor, ceiling: self.ceiling }
            }
            Op::Grant { ceiling, .. } => {
                self.ceiling = self.ceiling.max(ceiling);
                Outcome::Granted { ceiling: self.ceiling }
            }
            Op::Bind { jid, token, edge, .. } => {
                let before = self.rows.get(jid.as_str()).copied();
                if let Some(row) = before.filter(|row| row.token == token) {
                    return Outcome::Bound { row, replaced: None };
                }
                let row = Row { token, edge, index, attempt: 0 };
                self.rows.insert(jid.to_string(), row);
                Outcome::Bound { row, replaced: before }
            }
            Op::Move { jid, token, edge, attempt, .. } => match self.rows.get_mut(jid.as_str()) {
                Some(row) if row.token == token && row.attempt == attempt && row.edge == edge => {
                    Outcome::Moved { row: *row, from: None }
                }
                Some(row) if row.token == token => {
                    let from = row.edge;
                    *row = Row { token, edge, index, attempt };
                    Outcome::Moved { row: *row, from: Some(from) }
                }
                _ => Outcome::Absent,
            },
            Op::Unbind { jid, token, .. } => match self.rows.get(jid.as_str()) {
                Some(row) if row.token == token => {
                    self.rows.remove(jid.as_str());
                    Outcome::Unbound
                }
                _ => Outcome::Absent,
            },
            Op::Unknown => Outcome::Unknown,
        }
    }
}

/// An operation of the reign before last, the last one, or one to come: `Op` needs the epoch when it is made.
#[derive(Debug, Clone)]
enum Want {
    Open { era: u64, floor: u64, ceiling: u64 },
    Grant(u8, u64),
    Bind(u8, usize, u128, u64),
    Move(u8, usize, u128, u64, u64),
    Unbind(u8, usize, u128),
    Unknown,
}

fn want() -> impl Strategy<Value = Want> {
    let name = 0..NAMES.len();
    prop_oneof![
        1 => (0u64..3, 0u64..100, 0u64..200)
            .prop_map(|(era, floor, ceiling)| Want::Open { era, floor, ceiling }),
        1 => (0u8..3, 0u64..300).prop_map(|(reign, ceiling)| Want::Grant(reign, ceiling)),
        6 => (0u8..8, name.clone(), 1u128..5, 1u64..4).prop_map(|(r, n, t, e)| Want::Bind(r, n, t, e)),
        4 => (0u8..8, name.clone(), 1u128..5, 1u64..4, 1u64..4)
            .prop_map(|(r, n, t, e, a)| Want::Move(r, n, t, e, a)),
        4 => (0u8..8, name, 1u128..5).prop_map(|(r, n, t)| Want::Unbind(r, n, t)),
        1 => Just(Want::Unknown),
    ]
}

fn op(want: &Want, now: u64, before: u64) -> Op {
    // Most come from the reign there is.
    let epoch = |reign: u8| match reign {
        0 => Epoch(before),
        1 => Epoch(now + 1),
        _ => Epoch(now),
    };
    match *want {
        Want::Open { era, floor, ceiling } => {
            Op::Open { era, incarnation: Incarnation(1), router: RouterId(1), floor, ceiling }
        }
        Want::Grant(reign, ceiling) => Op::Grant { epoch: epoch(reign), ceiling },
        Want::Bind(r, n, t, e) => {
            Op::Bind { epoch: epoch(r), jid: jid(NAMES[n]), token: Token(t), edge: EdgeId(e) }
        }
        Want::Move(r, n, t, e, attempt) => {
            Op::Move { epoch: epoch(r), jid: jid(NAMES[n]), token: Token(t), edge: EdgeId(e), attempt }
        }
        Want::Unbind(r, n, t) => Op::Unbind { epoch: epoch(r), jid: jid(NAMES[n]), token: Token(t) },
        Want::Unknown => Op::Unknown,
    }
}

fn rows(machine: &View) -> BTreeMap<String, Row> {
    machine.rows().iter().map(|(jid, row)| (jid.to_string(), *row)).collect()
}

fn restored(view: &View, size: usize) -> Machine {
    let mut restore = Restore::begin(&view.encode_head()).unwrap();
    for chunk in view.encode_rows(size) {
        restore.push(&chunk).unwrap();
    }
    restore.finish().unwrap()
}

proptest! {
    #[test]
    fn it_does_what_the_model_does(
        entries in prop::collection::vec(prop::collection::vec(want(), 1..6), 1..60),
        look in 0usize..60,
    ) {
        let (mut machine, mut model) = (Machine::new(), Model::default());
        let (mut before, mut kept) = (0, None);
        for (n, (index, wants)) in (1u64..).zip(&entries).enumerate() {
            for want in wants {
                let op = op(want, model.epoch, before);
                let last = model.epoch;
                let decoded = Batch::decode(&Batch::encode(std::slice::from_ref(&op))).unwrap();
                prop_assert_eq!(&decoded, std::slice::from_ref(&op));
                prop_assert_eq!(machine.apply(index, &decoded), vec![model.apply(index, &op)]);
                if model.epoch != last {
                    before = last;
                    prop_assert!(model.epoch > last, "reigns rise");
                }
            }
            if n == look {
                kept = Some((machine.view(), model.rows.clone()));
            }
            prop_assert_eq!(machine.len(), model.rows.len() as u64);
        }
        prop_assert_eq!(rows(&machine.view()), model.rows.clone());
        prop_assert_eq!((machine.head().epoch.0, machine.head().ceiling), (model.epoch, model.ceiling));
        for account in ["a@x.org", "aa@x.org", "b@x.org", "x.org", "c@x.org"] {
            let bare = BareJid::parse(account).unwrap();
            let of: Vec<_> = machine.of(&bare).map(|(jid, row)| (jid.to_string(), *row)).collect();
            let expected: Vec<_> = model.rows.iter().map(|(jid, row)| (jid.clone(), *row))
                .filter(|(one, _)| jid(one).bare() == bare).collect();
            prop_assert_eq!(of, expected);
        }
        // What was looked at has not changed since, and a snapshot of it is it.
        if let Some((view, expected)) = kept {
            prop_assert_eq!(&rows(&view), &expected);
            let again = restored(&view, 100);
            prop_assert_eq!(&rows(&again.view()), &expected);
            prop_assert_eq!(again.head(), view.head());
        }
    }

    #[test]
    fn bytes_that_are_no_snapshot_are_refused(bytes in prop::collection::vec(any::<u8>(), 0..200)) {
        let _ = Restore::begin(&bytes);
        let mut restore = Restore::begin(&Machine::new().view().encode_head()).unwrap();
        prop_assert!(bytes.is_empty() || restore.push(&bytes).is_err());
    }
}

fn open(era: u64, ceiling: u64) -> Op {
    Op::Open { era, incarnation: Incarnation(9), router: RouterId(4), floor: 0, ceiling }
}

fn reigning() -> (Machine, Epoch) {
    let mut machine = Machine::new();
    machine.apply(5, &[open(2, 1000)]);
    (machine, epoch(2, 5))
}

#[test]
fn a_reign_begins_above_what_was_granted_before() {
    let (mut machine, first) = reigning();
    assert_eq!(first, Epoch(2 << 40 | 5));
    machine.apply(6, &[Op::Grant { epoch: first, ceiling: 5000 }]);
    let outcomes = machine.apply(7, &[open(2, 3000), Op::Grant { epoch: first, ceiling: 9000 }]);
    let second = epoch(2, 7);
    assert_eq!(
        outcomes,
        [Outcome::Opened { epoch: second, floor: 5001, ceiling: 5001 }, Outcome::Stale { epoch: second }]
    );
    // That one was granted nothing.
    let third = epoch(2, 8);
    assert_eq!(
        machine.apply(8, &[open(2, 0)]),
        [Outcome::Opened { epoch: third, floor: 5002, ceiling: 5002 }],
        "two reigns never begin at one position"
    );
    assert_eq!((machine.head().router, machine.head().incarnation), (4, 9));
    // An older era cannot come back, whatever its index.
    assert_eq!(machine.apply(1 << 39, &[open(1, 9999)]), [Outcome::Stale { epoch: third }]);
}

#[test]
fn a_row_is_deleted_by_its_own_token_only() {
    let (mut machine, epoch) = reigning();
    let bind = |token, edge| Op::Bind { epoch, jid: jid(NAMES[0]), token: Token(token), edge: EdgeId(edge) };
    let unbind = |token| Op::Unbind { epoch, jid: jid(NAMES[0]), token: Token(token) };
    machine.apply(6, &[bind(1, 1)]);
    // The old session's end arrives after the new one was bound.
    let outcomes = machine.apply(7, &[bind(2, 2), unbind(1)]);
    assert!(matches!(outcomes[0], Outcome::Bound { replaced: Some(Row { index: 6, .. }), .. }));
    assert_eq!(outcomes[1], Outcome::Absent);
    assert_eq!(machine.row(&jid(NAMES[0])).unwrap().token, Token(2));
    assert_eq!(machine.apply(8, &[unbind(2)]), [Outcome::Unbound]);
    assert!(machine.is_empty());
}

#[test]
fn a_move_asked_for_again_is_the_same_move() {
    let (mut machine, epoch) = reigning();
    let (jid, token) = (jid(NAMES[0]), Token(1));
    let moved = |edge, attempt| Op::Move { epoch, jid: jid.clone(), token, edge: EdgeId(edge), attempt };
    machine.apply(6, &[Op::Bind { epoch, jid: jid.clone(), token, edge: EdgeId(1) }]);
    let first = machine.apply(7, &[moved(2, 33)]);
    assert!(matches!(first[0], Outcome::Moved { from: Some(EdgeId(1)), row } if row.index == 7));
    let again = machine.apply(8, &[moved(2, 33)]);
    assert!(matches!(again[0], Outcome::Moved { from: None, row } if row.index == 7));
    // The bind that came before, asked for again: the session stays where it went.
    let bind = machine.apply(9, &[Op::Bind { epoch, jid: jid.clone(), token, edge: EdgeId(1) }]);
    assert!(matches!(bind[0], Outcome::Bound { row, replaced: None } if row.edge == EdgeId(2)));
    let other = machine.apply(10, &[moved(1, 34)]);
    assert!(matches!(other[0], Outcome::Moved { from: Some(EdgeId(2)), row } if row.index == 10));
}

#[test]
fn a_snapshot_that_lacks_or_doubles_rows_is_refused() {
    let (mut machine, epoch) = reigning();
    for (n, name) in (1..).zip(NAMES) {
        machine.apply(10, &[Op::Bind { epoch, jid: jid(name), token: Token(n), edge: EdgeId(1) }]);
    }
    let view = machine.view();
    let chunks: Vec<_> = view.encode_rows(60).collect();
    assert!(chunks.len() > 2 && chunks.iter().rev().skip(1).all(|chunk| chunk.len() >= 60));
    let mut restore = Restore::begin(&view.encode_head()).unwrap();
    for chunk in &chunks[1..] {
        restore.push(chunk).unwrap();
    }
    assert!(matches!(restore.finish(), Err(SnapshotError::Count { said: 6, .. })));
    let mut restore = Restore::begin(&view.encode_head()).unwrap();
    assert_eq!(restore.push(&chunks[0][..chunks[0].len() - 1]), Err(SnapshotError::Row));
    let mut of_none = Restore::begin(&Machine::new().view().encode_head()).unwrap();
    assert!(matches!(of_none.push(&chunks[0]), Err(SnapshotError::Count { said: 0, found: 1 })));
    let later = HeadOf { version: 2 }.encode();
    assert_eq!(Restore::begin(&later).unwrap_err(), SnapshotError::Version(2));
}

struct HeadOf {
    version: u8,
}

impl HeadOf {
    fn encode(&self) -> Vec<u8> {
        vec![0x08, self.version]
    }
}

#[test]
fn what_is_not_all_done_is_not_believed() {
    let stale = Outcome::Stale { epoch: Epoch(9) };
    assert_eq!(Outcome::judge(&[Outcome::Unbound, Outcome::Absent]), Ok(()));
    assert_eq!(Outcome::judge(&[stale, stale]), Err(RecordError::NotLeader));
    assert_eq!(Outcome::judge(&[Outcome::Full]), Err(RecordError::Busy));
    assert_eq!(Outcome::judge(&[Outcome::Unbound, Outcome::Full]), Err(RecordError::Unknown));
}
