use super::*;
use crate::disk::{
    Disk,
    faulty::{Crash, FaultyDisk, Plan},
};

fn on(disk: &FaultyDisk) -> Snapshots {
    Snapshots::open(Arc::new(disk.clone())).unwrap()
}

fn last(index: u64) -> LogId {
    log_id(1, 2, index)
}

fn write(snapshots: &Snapshots, index: u64, parts: &[&[u8]]) -> Result<SnapshotFile, SnapshotError> {
    let mut writer = snapshots.begin(3, last(index), format!("up to {index}").as_bytes())?;
    for part in parts {
        writer.part(part)?;
    }
    writer.finish()
}

fn read(file: &SnapshotFile) -> Result<(Vec<u8>, Vec<Vec<u8>>), SnapshotError> {
    let mut reader = file.read()?;
    let meta = reader.meta().to_vec();
    let mut parts = Vec::new();
    while let Some(part) = reader.next_part()? {
        parts.push(part.to_vec());
    }
    Ok((meta, parts))
}

#[test]
fn are_read_as_they_were_written() {
    let place = tempfile::tempdir().unwrap();
    let disk = || Arc::new(crate::disk::Directory::open(place.path()).unwrap());
    let large = vec![7; MAX_PART];
    let snapshots = Snapshots::open(disk()).unwrap();
    let file = write(&snapshots, 20, &[b"one", b"", &large]).unwrap();
    let content = (b"up to 20".to_vec(), vec![b"one".to_vec(), Vec::new(), large]);
    assert_eq!(read(&file).unwrap(), content);
    drop((file, snapshots));
    let snapshots = Snapshots::open(disk()).unwrap();
    let files = snapshots.files(3);
    assert_eq!((files.len(), files[0].last(), files[0].group()), (1, last(20), 3));
    assert_eq!(read(&files[0]).unwrap(), content);
    assert!(snapshots.files(4).is_empty());
    let mut writer = snapshots.begin(3, last(21), b"").unwrap();
    assert!(matches!(writer.part(&vec![0; MAX_PART + 1]), Err(SnapshotError::TooLarge { .. })));
}

#[test]
fn the_previous_one_stays_until_it_is_retired_and_nobody_reads_it() {
    let disk = FaultyDisk::new();
    let snapshots = on(&disk);
    write(&snapshots, 10, &[b"old"]).unwrap();
    write(&snapshots, 20, &[b"new"]).unwrap();
    let files = snapshots.files(3);
    assert_eq!(files.iter().map(SnapshotFile::last).collect::<Vec<_>>(), [last(20), last(10)]);
    let mut reader = files[1].read().unwrap();
    drop(files);
    snapshots.retire(3, last(20));
    assert_eq!(snapshots.files(3).len(), 1);
    assert_eq!(disk.names().unwrap().len(), 2);
    assert_eq!(&reader.next_part().unwrap().unwrap()[..], b"old");
    drop(reader);
    assert_eq!(disk.names().unwrap().len(), 1);
    snapshots.clear().unwrap();
    assert!(disk.names().unwrap().is_empty());
}

#[test]
fn every_flipped_bit_and_every_cut_is_found_out() {
    let disk = FaultyDisk::new();
    write(&on(&disk), 10, &[b"what one part says", b"and the other"]).unwrap();
    let name = disk.names().unwrap().remove(0);
    let size = disk.bytes(&name).len();
    for bit in 0..size * 8 {
        let damaged = disk.fork();
        damaged.flip(&name, bit);
        let error = on(&damaged).files(3)[0].verify().unwrap_err();
        assert!(matches!(error, SnapshotError::Damaged { .. }), "bit {bit}: {error}");
    }
    for cut in 0..size {
        let damaged = disk.fork();
        damaged.change(&name, |bytes| bytes.truncate(cut));
        on(&damaged).files(3)[0].verify().unwrap_err();
    }
    let longer = disk.fork();
    longer.change(&name, |bytes| bytes.push(0));
    on(&longer).files(3)[0].verify().unwrap_err();
}

#[test]
fn parts_cannot_change_places() {
    let disk = FaultyDisk::new();
    write(&on(&disk), 10, &[b"one", b"two"]).unwrap();
    let name = disk.names().unwrap().remove(0);
    disk.change(&name, |bytes| {
        let one = bytes.windows(3).position(|three| three == b"one").unwrap() - format::BLOCK;
        bytes[one..one + 22].rotate_left(11);
    });
    on(&disk).files(3)[0].verify().unwrap_err();
}

#[test]
fn killed_at_any_call_there_is_always_a_whole_one() {
    let whole = FaultyDisk::new();
    write(&on(&whole), 10, &[b"old"]).unwrap();
    let calls = {
        let disk = whole.fork();
        let snapshots = on(&disk);
        write(&snapshots, 20, &[&[1; 3_000], &[2; 3_000]]).unwrap();
        disk.calls().0
    };
    for kill_at in 2..=calls {
        for crash in [Crash::Process, Crash::Power(kill_at), Crash::Power(kill_at + 50)] {
            let disk = whole.fork();
            let snapshots = on(&disk);
            disk.plan(Plan { kill_at: Some(kill_at), ..Plan::default() });
            let written = write(&snapshots, 20, &[&[1; 3_000], &[2; 3_000]]);
            let after = disk.crash(crash);
            let files = on(&after).files(3);
            for file in &files {
                file.verify().unwrap();
            }
            let newest = files[0].last();
            assert!(files.len() <= 2 && files.last().unwrap().last() == last(10));
            assert!(written.is_err() || newest == last(20), "{kill_at} {crash:?}");
            let names = after.names().unwrap();
            assert!(names.iter().all(|name| !name.starts_with(format::UNFINISHED)), "{names:?}");
        }
    }
}

#[test]
fn what_fails_leaves_nothing() {
    let disk = FaultyDisk::new();
    let snapshots = on(&disk);
    disk.plan(Plan { capacity: Some(1_000), ..Plan::default() });
    let error = write(&snapshots, 10, &[&[0; 2_000]]).unwrap_err();
    assert!(matches!(error, SnapshotError::Io { .. }), "{error}");
    drop(snapshots.begin(3, last(11), b"dropped").unwrap());
    assert!(disk.names().unwrap().is_empty());
    assert!(snapshots.files(3).is_empty());
}

#[test]
fn a_snapshot_leaves_room_for_the_next_segment_of_the_log() {
    let disk = FaultyDisk::new();
    let segment =
        |name: &str| disk.create(name).and_then(|mut file| file.reserve(crate::wal::SEGMENT as u64));
    segment("1.wal").unwrap();
    let snapshots = on(&disk);
    let rows = 1 << 20;
    // Room for the snapshot only.
    let capacity = Some(crate::wal::SEGMENT + (16 << 20));
    disk.plan(Plan { capacity, ..Plan::default() });
    assert!(!snapshots.has_room(3, rows), "the log could not go on");
    disk.plan(Plan { capacity: capacity.map(|bytes| bytes + crate::wal::SEGMENT), ..Plan::default() });
    assert!(snapshots.has_room(3, rows));
    write(&snapshots, 20, &[&vec![7; 1 << 20]]).unwrap();
    segment("2.wal").unwrap();
}
