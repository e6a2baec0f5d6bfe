//! A full disk, a slow one, and a quiet group that would keep old segments for ever.

use std::time::Instant;

use super::*;
use crate::{
    disk::{
        Disk,
        faulty::{Crash, Plan},
    },
    wal::segment,
};

#[test]
fn a_full_disk_is_told_in_time_and_stops_the_log_cleanly() {
    let disk = FaultyDisk::new();
    let options = small();
    run(async {
        let wal = create(&disk, &options).unwrap();
        // Room for this segment and half of the next.
        disk.plan(Plan { capacity: Some(4_096 + 2_048), ..Plan::default() });
        let mut log = wal.group::<Texts>(0, None).unwrap();
        let mut acknowledged = 0;
        let mut told = false;
        for index in 1..100 {
            if append(&mut log, vec![entry(1, index, &"x".repeat(300))]).await.is_err() {
                break;
            }
            acknowledged = index;
            told |= wal.metrics().short_of_space.get() == 1;
        }
        assert!(told && acknowledged > 5, "{told} {acknowledged}");
        let error = wal.failed().wait_for(Option::is_some).await.unwrap().clone().unwrap();
        assert!(!error.is_lost(), "{error}");
        let disk = disk.crash(Crash::Power(3));
        let wal = open(&disk, &options).unwrap();
        let found = seen(&mut wal.group::<Texts>(0, None).unwrap()).await;
        assert_eq!(found.entries.len(), acknowledged as usize);
    });
}

#[test]
fn a_disk_that_has_room_again_in_time_is_no_fault() {
    let disk = FaultyDisk::new();
    run(async {
        let wal = create(&disk, &small()).unwrap();
        disk.plan(Plan { capacity: Some(4_096), ..Plan::default() });
        let mut log = wal.group::<Texts>(0, None).unwrap();
        for index in 1..100 {
            append(&mut log, vec![entry(1, index, &"x".repeat(100))]).await.unwrap();
            if wal.metrics().short_of_space.get() == 1 {
                disk.plan(Plan::default());
            }
        }
        assert_eq!(wal.metrics().short_of_space.get(), 0);
    });
}

#[test]
fn a_quiet_group_does_not_keep_the_segments_of_a_busy_one() {
    let disk = FaultyDisk::new();
    let options = small();
    let (quiet, busy) = run(async {
        let wal = create(&disk, &options).unwrap();
        let mut quiet = wal.group::<Texts>(0, covered()).unwrap();
        let mut busy = wal.group::<Texts>(1, covered()).unwrap();
        quiet.save_vote(&Vote::new(7, 2)).await.unwrap();
        append(&mut quiet, (1..6).map(|index| entry(7, index, "quiet")).collect()).await.unwrap();
        quiet.purge(id(7, 2)).await.unwrap();
        for index in 1..600 {
            append(&mut busy, vec![entry(1, index, &"x".repeat(100))]).await.unwrap();
            if index % 10 == 0 {
                busy.purge(id(1, index - 5)).await.unwrap();
            }
            let files = disk.names().unwrap().len();
            assert!(files <= 10, "{files} files at {index}");
        }
        let seen = (seen(&mut quiet).await, seen(&mut busy).await);
        wal.close().unwrap();
        seen
    });
    let oldest = segment::number(&disk.names_of_segments()[0]).unwrap();
    assert!(oldest > 5, "{oldest}");
    run(async {
        // The quiet group is not even opened in this life, and is kept all the same.
        let wal = open(&disk, &options).unwrap();
        let mut log = wal.group::<Texts>(1, covered()).unwrap();
        assert_eq!(seen(&mut log).await, busy);
        for index in 600..1_000 {
            append(&mut log, vec![entry(1, index, &"x".repeat(100))]).await.unwrap();
            if index % 10 == 0 {
                log.purge(id(1, index - 5)).await.unwrap();
            }
        }
        wal.close().unwrap();
        assert!(segment::number(&disk.names_of_segments()[0]).unwrap() > oldest + 5);
        let wal = open(&disk.crash(Crash::Power(1)), &options).unwrap();
        assert_eq!(seen(&mut wal.group(0, covered()).unwrap()).await, quiet);
    });
}

#[test]
fn much_that_lives_is_not_written_again_and_again() {
    // 100 segments' worth of live entries: what is written stays in proportion to what is appended.
    let disk = FaultyDisk::new();
    run(async {
        let wal = create(&disk, &small()).unwrap();
        let mut logs: Vec<_> = (0..4).map(|group| wal.group::<Texts>(group, covered()).unwrap()).collect();
        let mut appended = 0;
        for index in 1..1_000_u64 {
            let log = &mut logs[usize::try_from(index % 4).unwrap()];
            append(log, vec![entry(1, index / 4 + 1, &"x".repeat(300))]).await.ok();
            appended += 400;
        }
        let written = wal.metrics().bytes.get();
        assert!(written < appended * 2, "{written} for {appended}");
        let files = disk.names().unwrap().len();
        assert!(files < 140, "{files}");
    });
}

#[test]
fn a_slow_disk_shares_its_syncs() {
    const GROUPS: u16 = 16;
    let disk = FaultyDisk::new();
    let options = Options { segment_bytes: 1 << 20, ..Options::default() };
    let wal = create(&disk, &options).unwrap();
    disk.plan(Plan { sync_delay: Duration::from_millis(5), ..Plan::default() });
    let before = disk.calls().1;
    let runtime =
        tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_time().build().unwrap();
    let started = started();
    let tasks: Vec<_> = (0..GROUPS)
        .map(|group| {
            let mut log = wal.group::<Texts>(group, None).unwrap();
            runtime.spawn(async move {
                for index in 0..20 {
                    append(&mut log, vec![entry(1, index, "x")]).await.unwrap();
                }
            })
        })
        .collect();
    for task in tasks {
        runtime.block_on(task).unwrap();
    }
    let syncs = disk.calls().1 - before;
    let appends = u64::from(GROUPS) * 20;
    assert!(syncs < appends / 3, "{syncs} syncs for {appends} appends, {:?}", started.elapsed());
}

#[allow(clippy::disallowed_methods)] // a test may look at the time
fn started() -> Instant {
    Instant::now()
}

#[test]
fn a_full_queue_makes_groups_wait() {
    let disk = FaultyDisk::new();
    let options = Options { queue_bytes: 4_096, segment_bytes: 64 << 10, ..small() };
    let wal = create(&disk, &options).unwrap();
    disk.plan(Plan { sync_delay: Duration::from_millis(50), ..Plan::default() });
    let mut logs: Vec<_> = (0..8).map(|group| wal.group::<Texts>(group, None).unwrap()).collect();
    run(async {
        // Each takes more than half of the room, so they go one by one; all go.
        let text = "x".repeat(3_000);
        let all = logs.iter_mut().map(|log| append(log, vec![entry(1, 1, &text)]));
        for done in futures::future::join_all(all).await {
            done.unwrap();
        }
        assert!(disk.calls().1 >= 8);
    });
}
