//! Correct histories in which one line is changed, at every place where that breaks a rule: each must be found, by the
//! name of the rule. Faults planted in a server show where the server has them; these show wherever the judge might not
//! look.

use std::collections::BTreeSet;

use super::super::{Archive, Event, History, Kind, Row, Sighting, What, bare, check};
use super::model::generate;

/// Each place of each mutation in so many histories.
const SEEDS: u64 = 2;
/// A mutation that finds fewer places says little.
const ENOUGH: usize = 40;

/// A place in a log: which log, which event.
type Place = (usize, usize);

/// What is known of the messages of a history.
struct Known {
    acknowledged: BTreeSet<String>,
    /// Seen by somebody, not counting copies.
    seen: BTreeSet<String>,
    given_up: BTreeSet<String>,
}

impl Known {
    fn of(history: &History) -> Self {
        let all = |of: fn(&What) -> Option<&str>| {
            let events = history.logs.iter().flat_map(|log| &log.events);
            events.filter_map(|event| of(&event.what)).map(str::to_owned).collect()
        };
        Self {
            acknowledged: all(|what| match what {
                What::Acknowledged(origin) => Some(origin),
                _ => None,
            }),
            seen: all(|what| match what {
                What::Seen(sighting) => sighting.origin.as_deref(),
                _ => None,
            }),
            given_up: all(|what| match what {
                What::GivenUp(origin) => Some(origin),
                _ => None,
            }),
        }
    }

    /// Whether a message has a row in each archive, by what is known outside of them.
    fn is_bound(&self, origin: &str) -> bool {
        self.acknowledged.contains(origin) || self.seen.contains(origin)
    }
}

/// The places of events that this picks.
fn places(history: &History, pick: impl Fn(&What) -> bool) -> Vec<Place> {
    let logs = history.logs.iter().enumerate();
    logs.flat_map(|(log, l)| l.events.iter().enumerate().map(move |(n, event)| ((log, n), event)))
        .filter(|(_, event)| pick(&event.what))
        .map(|(place, _)| place)
        .collect()
}

/// The places of rows: which archive, which row.
fn rows(history: &History) -> Vec<Place> {
    let archives = history.archives.iter().enumerate();
    archives.flat_map(|(archive, a)| (0..a.rows.len()).map(move |row| (archive, row))).collect()
}

fn row(history: &History, (archive, row): Place) -> &Row {
    &history.archives[archive].rows[row]
}

fn origin_of_row(history: &History, place: Place) -> String {
    row(history, place).origin.clone().unwrap()
}

fn sighting(history: &mut History, (log, event): Place) -> &mut Sighting {
    match &mut history.logs[log].events[event].what {
        What::Seen(sighting) | What::Copied(sighting) => sighting,
        other => panic!("{other:?} is no sighting"),
    }
}

/// A changed archive whose pages all agree with each other: the server itself believes in it.
fn change_archive(history: &mut History, archive: usize, change: impl FnOnce(&mut Vec<Row>)) {
    let archive = &mut history.archives[archive];
    change(&mut archive.rows);
    *archive = reread(archive);
}

fn reread(archive: &Archive) -> Archive {
    let ids_with = |peer: &str| {
        let rows = archive.rows.iter().filter(|row| archive.peer(row) == peer);
        (peer.to_owned(), rows.map(|row| row.id.clone()).collect())
    };
    Archive {
        backwards: archive.rows.iter().map(|row| row.id.clone()).collect(),
        with: archive.peers().into_iter().map(ids_with).collect(),
        ..archive.clone()
    }
}

/// Makes each of the changes to each of the histories and has them judged.
fn each_is_found(
    kinds: &[Kind],
    find: impl Fn(&History, &Known) -> Vec<Place>,
    change: impl Fn(&mut History, Place),
) {
    let mut count = 0;
    for seed in 0..SEEDS {
        let (history, _) = generate(seed, None);
        for place in find(&history, &Known::of(&history)) {
            let mut changed = history.clone();
            change(&mut changed, place);
            let found: Vec<Kind> = check(&changed).into_iter().map(|violation| violation.kind).collect();
            assert!(kinds.iter().any(|kind| found.contains(kind)), "seed {seed}, {place:?}: {found:?}");
            count += 1;
        }
    }
    assert!(count >= ENOUGH, "{count} places only");
}

/// Where a row has to be.
fn bound_rows(history: &History, known: &Known) -> Vec<Place> {
    let is_bound = |place: &Place| known.is_bound(&origin_of_row(history, *place));
    rows(history).into_iter().filter(is_bound).collect()
}

#[test]
fn a_row_that_is_not_there() {
    each_is_found(&[Kind::MissingRow, Kind::SeenNotStored], bound_rows, |history, (archive, row)| {
        change_archive(history, archive, |rows| drop(rows.remove(row)));
    });
}

#[test]
fn a_row_that_is_there_twice() {
    let change = |history: &mut History, (archive, row): Place| {
        change_archive(history, archive, |rows| {
            let again = Row { id: "again".to_owned(), ..rows[row].clone() };
            rows.insert(row + 1, again);
        });
    };
    each_is_found(&[Kind::SecondRow], |history, _| rows(history), change);
}

#[test]
fn two_rows_of_one_sender_that_have_changed_places() {
    // What was given up and sent again may stand anywhere only where messages were refused; here none is.
    let neighbours = |history: &History, _: &Known| {
        let next = |place: &Place| {
            let rows = &history.archives[place.0].rows;
            let Some(other) = rows.get(place.1 + 1) else { return false };
            let one = &rows[place.1];
            one.from == other.from && bare(&one.to) == bare(&other.to)
        };
        rows(history).into_iter().filter(next).collect()
    };
    each_is_found(&[Kind::StoredOutOfOrder], neighbours, |history, (archive, row)| {
        change_archive(history, archive, |rows| {
            let stamps = [rows[row].stamp.clone(), rows[row + 1].stamp.clone()];
            rows.swap(row, row + 1);
            // The times are right, so that only the order tells.
            for (row, stamp) in rows[row..].iter_mut().zip(stamps) {
                row.stamp = stamp;
            }
        });
    });
}

#[test]
fn a_row_with_another_id() {
    let seen = |history: &History, known: &Known| {
        // Whoever saw it is of the account that the archive is of.
        let is_seen = |place: &Place| {
            let (owner, row) = (&history.archives[place.0].owner, row(history, *place));
            bare(&row.to) == owner && known.seen.contains(row.origin.as_deref().unwrap())
        };
        rows(history).into_iter().filter(is_seen).collect()
    };
    each_is_found(&[Kind::OtherId], seen, |history, (archive, row)| {
        change_archive(history, archive, |rows| rows[row].id.push('x'));
    });
}

#[test]
fn a_row_with_another_text_or_sender_or_address() {
    let fields: [fn(&mut Row) -> &mut String; 3] =
        [|row| &mut row.body, |row| &mut row.from, |row| &mut row.to];
    for field in fields {
        each_is_found(
            &[Kind::Altered],
            |history, _| rows(history),
            |history, (archive, row)| {
                change_archive(history, archive, |rows| field(&mut rows[row]).push('x'));
            },
        );
    }
}

#[test]
fn a_row_of_nobody_and_one_in_a_strange_archive() {
    let change = |history: &mut History, (archive, row): Place| {
        change_archive(history, archive, |rows| {
            let strange =
                Row { id: "strange".to_owned(), origin: Some("m0".to_owned()), ..rows[row].clone() };
            rows.insert(row + 1, strange);
        });
    };
    each_is_found(&[Kind::Phantom], |history, _| rows(history), change);
    let of_others = |history: &History, _: &Known| {
        let foreign = |place: &Place| {
            let (owner, row) = (&history.archives[(place.0 + 1) % 3].owner, row(history, *place));
            ![bare(&row.from), bare(&row.to)].contains(&owner.as_str())
        };
        rows(history).into_iter().filter(foreign).collect()
    };
    each_is_found(&[Kind::Misdelivered], of_others, |history, (archive, at)| {
        let strange = row(history, (archive, at)).clone();
        change_archive(history, (archive + 1) % 3, |rows| rows.push(strange));
    });
}

#[test]
fn a_message_that_nobody_gets() {
    let acknowledged = |history: &History, known: &Known| {
        let first = |what: &What| match what {
            What::Sent(message) => known.acknowledged.contains(&message.origin),
            _ => false,
        };
        places(history, first)
    };
    each_is_found(&[Kind::NeverSeen], acknowledged, |history, (log, event)| {
        let What::Sent(message) = history.logs[log].events[event].what.clone() else { panic!() };
        let of_it = |what: &What| matches!(what, What::Seen(s) if s.origin.as_ref() == Some(&message.origin));
        for log in &mut history.logs {
            log.events.retain(|event| !of_it(&event.what));
        }
    });
}

#[test]
fn a_delivery_that_comes_twice() {
    let all = |history: &History, _: &Known| places(history, |what| matches!(what, What::Seen(_)));
    // In one session, even as what comes late;
    each_is_found(&[Kind::Doubled], all, |history, (log, event)| {
        let again = history.logs[log].events[event].clone();
        history.logs[log].events.insert(event + 1, again);
        sighting(history, (log, event + 1)).delayed = true;
    });
    // also when it was resumed in between;
    each_is_found(&[Kind::Doubled], all, |history, (log, event)| {
        let again = history.logs[log].events[event].clone();
        let resumed = Event { what: What::Resumed, ..again };
        history.logs[log].events.splice(event + 1..event + 1, [resumed, again]);
        sighting(history, (log, event + 2)).delayed = true;
    });
    // in the next session as what is new,
    each_is_found(&[Kind::NoDelay], all, |history, (log, event)| {
        let again = history.logs[log].events[event].clone();
        let opened = Event { what: What::Opened, ..again };
        history.logs[log].events.splice(event + 1..event + 1, [opened, again]);
        sighting(history, (log, event + 2)).delayed = false;
    });
    // and when all was acknowledged.
    each_is_found(&[Kind::CameBack], all, |history, (log, event)| {
        let at = history.logs.iter().flat_map(|log| &log.events).map(|event| event.at).max().unwrap();
        let mut again = history.logs[log].events[event].clone();
        again.at = at;
        history.logs[log].note(at, What::Opened);
        history.logs[log].events.push(again);
        let last = history.logs[log].events.len() - 1;
        sighting(history, (log, last)).delayed = true;
    });
}

#[test]
fn two_deliveries_that_have_changed_places() {
    let neighbours = |of: fn(&What) -> bool| {
        move |history: &History, _: &Known| {
            let mut places = places(history, of);
            places.retain(|(log, event)| {
                history.logs[*log].events.get(event + 1).is_some_and(|next| of(&next.what))
            });
            places
        }
    };
    let change = |history: &mut History, (log, event): Place| {
        let events = &mut history.logs[log].events;
        let (before, after) = events.split_at_mut(event + 1);
        std::mem::swap(&mut before[event].what, &mut after[0].what);
    };
    each_is_found(&[Kind::OutOfPosition], neighbours(|what| matches!(what, What::Seen(_))), change);
    each_is_found(&[Kind::OutOfPosition], neighbours(|what| matches!(what, What::Copied(_))), change);
}

#[test]
fn a_delivery_that_is_not_what_was_sent() {
    let all = |history: &History, _: &Known| places(history, |what| matches!(what, What::Seen(_)));
    each_is_found(&[Kind::OtherId], all, |history, place| {
        sighting(history, place).id.as_mut().unwrap().push('x');
    });
    each_is_found(&[Kind::NoId], all, |history, place| sighting(history, place).id = None);
    each_is_found(&[Kind::Altered], all, |history, place| sighting(history, place).body.push('x'));
    each_is_found(&[Kind::Altered], all, |history, place| sighting(history, place).from.push('x'));
    each_is_found(&[Kind::Phantom], all, |history, place| {
        sighting(history, place).origin = Some("m0".to_owned());
    });
    each_is_found(&[Kind::Phantom], all, |history, place| sighting(history, place).origin = None);
    // To the wrong account; logs of an account's two clients stand beside each other.
    each_is_found(&[Kind::Misdelivered], all, |history, (log, event)| {
        let strange = history.logs[log].events[event].clone();
        history.logs[(log + 2) % 6].events.push(strange);
    });
    let copies = |history: &History, _: &Known| places(history, |what| matches!(what, What::Copied(_)));
    each_is_found(&[Kind::Misdelivered], copies, |history, (log, event)| {
        // As if it were a message to this client, or a copy to the one that sent it.
        let events = &mut history.logs[log].events;
        let What::Copied(sighting) = events[event].what.clone() else { panic!() };
        let sender = sighting.from.clone();
        let mut strange = events.remove(event);
        let to = history.logs.iter().position(|log| log.client == sender).unwrap();
        strange.what = What::Copied(sighting);
        history.logs[to].events.push(strange);
    });
}

#[test]
fn a_message_without_an_answer() {
    let answered = |history: &History, known: &Known| {
        places(history, |what| matches!(what, What::Acknowledged(o) if !known.given_up.contains(o)))
    };
    each_is_found(&[Kind::NoAnswer], answered, |history, (log, event)| {
        history.logs[log].events.remove(event);
    });
}

#[test]
fn an_error_for_what_was_acknowledged_or_that_nobody_sent() {
    let refused = |origin: &str| {
        let (origin, condition) = (origin.to_owned(), "wait resource-constraint".to_owned());
        What::Refused { origin, condition }
    };
    let later = |history: &History, _: &Known| {
        // By resumption, errors that have waited may come after the count.
        let mut places = places(history, |what| matches!(what, What::Acknowledged(_)));
        places.retain(|(log, event)| {
            let events = &history.logs[*log].events[..*event];
            !matches!(
                events.iter().rev().find(|e| !matches!(e.what, What::Acknowledged(_))).map(|e| &e.what),
                Some(What::Resumed)
            )
        });
        places
    };
    each_is_found(&[Kind::RefusedLate], later, |history, (log, event)| {
        let events = &mut history.logs[log].events;
        let What::Acknowledged(origin) = events[event].what.clone() else { panic!() };
        let error = Event { what: refused(&origin), ..events[event].clone() };
        events.insert(event + 1, error);
    });
    // Another client's error, or nobody's.
    let sent = |history: &History, _: &Known| places(history, |what| matches!(what, What::Sent(_)));
    each_is_found(&[Kind::Misdelivered], sent, |history, (log, event)| {
        let What::Sent(message) = history.logs[log].events[event].what.clone() else { panic!() };
        let at = history.logs[log].events[event].at;
        history.logs[(log + 1) % 6].note(at, refused(&message.origin));
    });
    each_is_found(&[Kind::Phantom], sent, |history, (log, event)| {
        let at = history.logs[log].events[event].at;
        history.logs[log].note(at, refused("m0"));
    });
}
