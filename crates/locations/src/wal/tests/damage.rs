//! Damage at rest: every flipped bit and every lost end of what was acknowledged is found, and never served.

use super::{
    kill::{Expected, Step, story},
    *,
};
use crate::{disk::Disk, wal::segment};

impl FaultyDisk {
    /// The files of segments, oldest first.
    pub(super) fn names_of_segments(&self) -> Vec<String> {
        let mut names = self.names().unwrap();
        names.retain(|name| segment::number(name).is_some());
        names.sort_unstable();
        names
    }
}

/// A log over several segments that was closed, and what is in it.
fn written() -> (FaultyDisk, Vec<Seen>) {
    let disk = FaultyDisk::new();
    let wal = create(&disk, &small()).unwrap();
    let expected = run(async {
        let mut logs: Vec<_> = (0..2).map(|group| wal.group::<Texts>(group, covered()).unwrap()).collect();
        let mut expected = vec![Expected::default(); 2];
        for (group, step) in story(3).iter().filter(|(group, _)| *group < 2) {
            let group = usize::from(*group);
            expected[group].step(&mut logs[group], step).await.unwrap();
        }
        expected
    });
    wal.close().unwrap();
    (disk, expected.iter().map(|expected| expected.last().clone()).collect())
}

/// What is found, or the error.
fn find(disk: &FaultyDisk) -> Result<Vec<Seen>, WalError> {
    let wal = open(disk, &small())?;
    let mut found = Vec::new();
    for group in 0..2 {
        found.push(run(seen(&mut wal.group::<Texts>(group, covered())?)));
    }
    Ok(found)
}

#[test]
fn flipped_bits_are_found_out() {
    let (disk, expected) = written();
    assert_eq!(find(&disk.fork()).unwrap(), expected);
    let names = disk.names_of_segments();
    assert!(names.len() > 2, "{names:?}");
    let (mut refused, mut harmless) = (0, 0);
    let mut state = 1_u64;
    for turn in 0..1_200 {
        state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        let name = &names[turn % names.len()];
        let bit = usize::try_from(state >> 20).unwrap() % (4_096 * 8);
        let damaged = disk.fork();
        damaged.flip(name, bit);
        match find(&damaged) {
            Err(error) => {
                assert!(error.is_lost(), "{error}");
                refused += 1;
            }
            // In the free room of a segment, in one that is on its way out, or in the mark at the end.
            Ok(found) => {
                assert_eq!(found, expected, "{name} bit {bit}");
                harmless += 1;
            }
        }
    }
    assert!(refused > 400 && harmless > 0, "{refused} refused, {harmless} harmless");
}

#[test]
fn every_byte_of_a_record_that_was_acknowledged_counts() {
    let disk = FaultyDisk::new();
    let wal = create(&disk, &small()).unwrap();
    run(async {
        let mut log = wal.group::<Texts>(0, None).unwrap();
        log.save_vote(&Vote::new(4, 2)).await.unwrap();
        append(&mut log, vec![entry(4, 1, "what was acknowledged")]).await.unwrap();
    });
    wal.close().unwrap();
    let name = disk.names_of_segments()[0].clone();
    let bytes = disk.bytes(&name);
    // Up to the mark that says that all before it is durable.
    let end = bytes.iter().rposition(|&byte| byte != 0).unwrap() + 1 - record::HEADER;
    for bit in 0..end * 8 {
        let damaged = disk.fork();
        damaged.flip(&name, bit);
        let error = open(&damaged, &small()).unwrap_err();
        assert!(error.is_lost(), "bit {bit}: {error}");
    }
    let end = end.next_multiple_of(record::ALIGN);
    for cut in (0..end).step_by(7) {
        let damaged = disk.fork();
        damaged.change(&name, |bytes| bytes.truncate(cut));
        assert!(open(&damaged, &small()).unwrap_err().is_lost(), "cut at {cut}");
    }
}

#[test]
fn missing_and_foreign_files_are_found_out() {
    let (disk, expected) = written();
    let names = disk.names_of_segments();
    for name in &names {
        let damaged = disk.fork();
        damaged.remove(name).unwrap();
        match find(&damaged) {
            Err(error) => assert!(error.is_lost(), "{error}"),
            // One that is made ahead of its time.
            Ok(found) => assert_eq!((&found, name), (&expected, names.last().unwrap())),
        }
    }
    let empty = FaultyDisk::new();
    assert!(matches!(open(&empty, &small()), Err(WalError::Missing { segment: 1 })));
    let foreign = Wal::open(shared(&disk), DISK + 1, small(), SystemClock::shared()).unwrap_err();
    assert!(foreign.is_lost(), "{foreign}");
    // One file in place of another.
    let damaged = disk.fork();
    let other = disk.bytes(&names[0]);
    damaged.change(&names[1], |bytes| *bytes = other);
    assert!(find(&damaged).unwrap_err().is_lost());
}

#[test]
fn what_an_earlier_life_of_a_file_has_left_never_passes() {
    // Files are used again many times; their old records lie behind the new ones' end, whole and well-formed.
    let disk = FaultyDisk::new();
    let options = small();
    let mut expected = Expected::default();
    let wal = create(&disk, &options).unwrap();
    let mut log = wal.group::<Texts>(0, covered()).unwrap();
    run(async {
        for turn in 0..400 {
            expected.step(&mut log, &kill_step(turn)).await.unwrap();
            if turn % 7 == 0 {
                let copy = disk.crash_copy();
                let wal = open(&copy, &options).unwrap();
                assert_eq!(
                    &seen(&mut wal.group(0, covered()).unwrap()).await,
                    expected.last(),
                    "turn {turn}"
                );
            }
        }
    });
    let names = disk.names().unwrap();
    assert!(names.len() <= 9, "{names:?}");
    let highest = segment::number(disk.names_of_segments().last().unwrap()).unwrap();
    assert!(highest > 10, "{highest}");
}

fn kill_step(turn: u64) -> Step {
    // The last step is one that is acknowledged whenever a look is taken.
    match turn % 7 {
        3 => Step::Purge(2),
        5 => Step::Vote(1),
        _ => Step::Append(1, 300),
    }
}

impl FaultyDisk {
    /// What a process would find that looks now, while this one goes on.
    fn crash_copy(&self) -> Self {
        self.fork()
    }
}
