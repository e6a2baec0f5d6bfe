//! Killed at every call that changes the disk, and opened again: nothing that was acknowledged is missing, no vote has
//! gone back, and what comes after is kept as well.

use super::*;
use crate::{
    disk::faulty::{Crash, Plan},
    wal::{
        coding,
        record::{Ends, Kind},
        segment,
    },
};

/// One thing that openraft asks for.
#[derive(Debug, Clone)]
pub(super) enum Step {
    Vote(u64),
    /// That many entries, of that length.
    Append(u64, usize),
    /// The last so many entries go.
    Truncate(u64),
    /// All but the last so many entries go.
    Purge(u64),
}

/// What a group must have: after each step, the content; and the last step that was acknowledged.
#[derive(Debug, Clone)]
pub(super) struct Expected {
    pub(super) after: Vec<Seen>,
    pub(super) acknowledged: usize,
    /// The index and the term that come next.
    next: u64,
    term: u64,
}

impl Default for Expected {
    fn default() -> Self {
        Self { after: vec![Seen::default()], acknowledged: 0, next: 1, term: 1 }
    }
}

impl Expected {
    pub(super) fn last(&self) -> &Seen {
        self.after.last().unwrap()
    }

    /// Does a step to the log and to this.
    pub(super) async fn step(
        &mut self,
        log: &mut GroupLog<Texts>,
        step: &Step,
    ) -> Result<(), StorageError<u64>> {
        let mut content = self.last().clone();
        match *step {
            Step::Vote(more) => {
                self.term += more;
                let vote = Vote::new(self.term, more);
                content.vote = Some(vote);
                self.after.push(content);
                log.save_vote(&vote).await?;
                self.acknowledged = self.after.len() - 1;
            }
            Step::Append(count, length) => {
                let texts = (self.next..self.next + count).map(|index| {
                    let seed = index * 31 + self.term;
                    (id(self.term, index), format!("{seed:x}").repeat(1 + length / 8))
                });
                let texts: Vec<_> = texts.collect();
                self.next += count;
                content.entries.extend(texts.iter().cloned());
                self.after.push(content);
                let entries = texts.into_iter().map(|(id, text)| entry(id.leader_id.term, id.index, &text));
                append(log, entries.collect()).await?;
                self.acknowledged = self.after.len() - 1;
            }
            Step::Truncate(count) => {
                let keep = content.entries.len().saturating_sub(usize::try_from(count).unwrap());
                let Some((from, _)) = content.entries.get(keep).cloned() else { return Ok(()) };
                content.entries.truncate(keep);
                self.next = from.index;
                self.term += 1;
                self.after.push(content);
                log.truncate(from).await?;
            }
            Step::Purge(keep) => {
                let gone = content.entries.len().saturating_sub(usize::try_from(keep).unwrap());
                let Some(last) = gone.checked_sub(1) else { return Ok(()) };
                let upto = content.entries[last].0;
                content.entries.drain(..gone);
                content.purged = Some(upto);
                self.after.push(content);
                log.snapshot_durable(upto);
                log.purge(upto).await?;
            }
        }
        Ok(())
    }

    /// Takes what was found after a crash as the beginning, if it may be found.
    pub(super) fn found(&mut self, found: Seen) {
        let allowed = &self.after[self.acknowledged..];
        assert!(allowed.contains(&found), "found {found:#?}\nbut acknowledged was {:#?}", allowed[0]);
        self.next = found.entries.last().map(|last| last.0).or(found.purged).map_or(1, |last| last.index + 1);
        self.after = vec![found];
        self.acknowledged = 0;
    }
}

/// The steps of a run: three groups, of which one is quiet.
pub(super) fn story(seed: u64) -> Vec<(u16, Step)> {
    let mut state = seed;
    let mut random = move |below: u64| {
        state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        (state >> 33) % below
    };
    let mut steps = vec![(9, Step::Vote(1)), (9, Step::Append(2, 40))];
    for _ in 0..70 {
        let group = u16::try_from(random(2)).unwrap();
        let step = match random(10) {
            0 => Step::Vote(random(2)),
            1 => Step::Truncate(1 + random(3)),
            2 => Step::Purge(random(4)),
            _ => Step::Append(1 + random(4), usize::try_from(random(200)).unwrap()),
        };
        steps.push((group, step));
    }
    steps
}

const GROUPS: [u16; 3] = [0, 1, 9];

/// Does the steps until the disk fails. Returns what must be there.
async fn tell(wal: &Wal, steps: &[(u16, Step)], mut expected: Vec<Expected>) -> Vec<Expected> {
    let mut logs: Vec<_> =
        GROUPS.iter().map(|&group| wal.group::<Texts>(group, covered()).unwrap()).collect();
    for (group, step) in steps {
        let at = GROUPS.iter().position(|known| known == group).unwrap();
        if expected[at].step(&mut logs[at], step).await.is_err() {
            break;
        }
    }
    expected
}

/// The same, all groups at once: batches with records of several.
async fn tell_together(wal: &Wal, steps: &[(u16, Step)], expected: Vec<Expected>) -> Vec<Expected> {
    let told = GROUPS.iter().zip(expected).map(async |(&group, mut expected)| {
        let mut log = wal.group::<Texts>(group, covered()).unwrap();
        for (_, step) in steps.iter().filter(|(of, _)| *of == group) {
            if expected.step(&mut log, step).await.is_err() {
                break;
            }
        }
        expected
    });
    futures::future::join_all(told).await
}

/// Opens the disk and looks whether all is there that must be.
async fn look(disk: &FaultyDisk, expected: &mut [Expected]) {
    let wal = open(disk, &small()).unwrap();
    for (&group, expected) in GROUPS.iter().zip(expected) {
        expected.found(seen(&mut wal.group::<Texts>(group, covered()).unwrap()).await);
    }
    wal.close().unwrap();
}

fn all_boundaries(seed: u64) -> u64 {
    let steps = story(seed);
    let whole = FaultyDisk::new();
    run(async {
        let wal = create(&whole, &small()).unwrap();
        tell(&wal, &steps, vec![Expected::default(); 3]).await;
        wal.close().unwrap();
    });
    let (calls, _) = whole.calls();
    assert!(calls > 150, "{calls}");
    for kill_at in 8..=calls {
        let disk = FaultyDisk::new();
        let after = run(async {
            let wal = create(&disk, &small()).unwrap();
            disk.plan(Plan { kill_at: Some(kill_at), ..Plan::default() });
            tell(&wal, &steps, vec![Expected::default(); 3]).await
        });
        for crash in [Crash::Process, Crash::Power(seed + kill_at), Crash::Power(!kill_at)] {
            let mut expected = after.clone();
            let disk = disk.crash(crash);
            run(async {
                look(&disk, &mut expected).await;
                // It is as good as before: it goes on, is killed again, and is opened again.
                let wal = open(&disk, &small()).unwrap();
                disk.plan(Plan { kill_at: Some(disk.calls().0 + kill_at % 13), ..Plan::default() });
                let mut expected = tell(&wal, &steps[2..20], expected).await;
                drop(wal);
                look(&disk.crash(Crash::Power(kill_at)), &mut expected).await;
            });
        }
    }
    calls
}

#[test]
fn killed_at_every_write_nothing_acknowledged_is_missing() {
    all_boundaries(1);
}

#[test]
fn killed_at_every_write_of_another_story() {
    all_boundaries(77);
}

#[test]
fn killed_in_the_middle_of_batches_of_several_groups() {
    let mut torn = 0;
    for seed in 0..150 {
        let disk = FaultyDisk::new();
        let steps = story(seed);
        run(async {
            let wal = create(&disk, &small()).unwrap();
            let sync_delay = Duration::from_micros(300);
            disk.plan(Plan { kill_at: Some(8 + seed), sync_delay, ..Plan::default() });
            let mut expected = tell_together(&wal, &steps, vec![Expected::default(); 3]).await;
            drop(wal);
            for turn in 0..4 {
                look(&disk.crash(Crash::Power(seed * 4 + turn)), &mut expected.clone()).await;
            }
            look(&disk.crash(Crash::Process), &mut expected).await;
            torn += u32::from(disk.is_dead());
        });
    }
    assert!(torn > 100, "{torn}");
}

#[test]
fn an_error_stops_all_groups_and_nothing_acknowledged_is_missing() {
    const EIO: i32 = 5;
    let steps = story(5);
    for fail_at in (10..160).step_by(3) {
        let disk = FaultyDisk::new();
        run(async {
            let wal = create(&disk, &small()).unwrap();
            disk.plan(Plan { fail: [(fail_at, EIO)].into(), ..Plan::default() });
            let mut expected = tell(&wal, &steps, vec![Expected::default(); 3]).await;
            let failed = wal.failed().borrow().clone();
            // Making the next segment ahead of time is tried again; all else is the end.
            if failed.is_some() {
                assert_eq!(wal.metrics().failed.get(), 1);
                assert!(wal.group::<Texts>(30, None).unwrap().save_vote(&Vote::new(1, 1)).await.is_err());
            }
            drop(wal);
            look(&disk.crash(Crash::Power(fail_at)), &mut expected.clone()).await;
            // What the next process has found must be on the disk, though a sync of it has failed before it came.
            let next = disk.crash(Crash::Process);
            look(&next, &mut expected).await;
            look(&next.crash(Crash::Power(!fail_at)), &mut expected).await;
        });
    }
}

/// A segment with two whole batches (a vote each) and a third of two records, the first of which is torn.
fn torn() -> (FaultyDisk, String, usize) {
    let disk = FaultyDisk::new();
    drop(create(&disk, &small()).unwrap());
    let name = disk.names_of_segments()[0].clone();
    let seed = record::seed(DISK, 1);
    let mut end = segment::START;
    for batch in 1..=3 {
        let mut records = Vec::new();
        for group in 0..=u16::from(batch == 3) {
            let mut vote = Vec::new();
            coding::put_vote(&mut vote, &Vote::new(batch, 1));
            record::put(&mut records, Kind::Vote, group, batch, &vote);
        }
        record::seal(&mut records, seed, Ends::Batch);
        if batch == 3 {
            records[record::HEADER] ^= 1;
        }
        disk.change(&name, |bytes| bytes[end..end + records.len()].copy_from_slice(&records));
        end += records.len();
    }
    (disk, name, end)
}

#[test]
fn what_a_torn_batch_has_left_is_taken_away() {
    let (disk, name, end) = torn();
    let wal = open(&disk, &small()).unwrap();
    let votes = [0, 1].map(|group| run(seen(&mut wal.group(group, None).unwrap())).vote);
    // Not the second record of the torn batch, though it is whole.
    assert_eq!(votes, [Some(Vote::new(2, 1)), None]);
    drop(wal);
    let seed = record::seed(DISK, 1);
    let bytes = disk.bytes(&name);
    let left = (0..end).step_by(record::ALIGN).filter_map(|at| record::read(&bytes[at..], seed));
    let left: Vec<_> = left.map(|(record, _)| (record.kind, record.batch)).collect();
    // Else it would be the end of the next batch of that number, if that one is torn too.
    assert_eq!(left, [(Kind::Vote, 1), (Kind::Vote, 2), (Kind::Calm, 3)]);
}

#[test]
fn a_disk_that_lies_about_a_sync_is_found_out() {
    // The power goes; what a middle batch wrote is not there, though later ones are.
    let disk = FaultyDisk::new();
    run(async {
        let wal = create(&disk, &small()).unwrap();
        let mut log = wal.group::<Texts>(1, None).unwrap();
        for index in 1..4 {
            append(&mut log, vec![entry(1, index, "xxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxx")]).await.unwrap();
        }
        wal.close().unwrap();
    });
    let name = disk.names_of_segments()[0].clone();
    disk.change(&name, |bytes| bytes[64 + 120..64 + 180].fill(0));
    let error = open(&disk, &small()).unwrap_err();
    assert!(error.is_lost(), "{error}");
}
