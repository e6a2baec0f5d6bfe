use super::*;
use crate::cql::Volume;
use bytes::Bytes;
use starling_store::LogRow;
use starling_store::testing::{at, jid, row};
use starling_xmpp::BareJid;

const KNOWN: Known = Known { epoch: 5, closed: false, uncertain: false };
const BOTH: Needs = Needs { log: true, data: true };

fn alice() -> Owner {
    Owner { jid: jid("alice@x.org"), generation: 7 }
}

fn bucket(secs: u64, rows: u32) -> BucketRow {
    BucketRow { bucket: Bucket(at(secs)), volume: Volume(at(1)), rows }
}

fn stored(secs: u64, safe: u64, nth: u32) -> StoredRow {
    let row = row(&alice().jid, at(secs), &jid("bob@x.org"));
    StoredRow { row, nth, filled: 9, safe: at(safe) }
}

fn tail<const N: usize>(rows: [(u64, StoredRow); N]) -> Vec<(Bucket, Found)> {
    rows.map(|(bucket, row)| (Bucket(at(bucket)), Found::Row(row))).into()
}

fn close(seen: &Seen, needs: Needs) -> Closing {
    seen.closing(&alice(), needs, KNOWN, at(1_000), Timestamp(0), &Settings::default())
}

fn flat(step: &[Mutation]) -> Vec<(Partition, Position, Change)> {
    let changes = step.iter().flat_map(|mutation| {
        mutation.changes.iter().map(|change| (mutation.partition.clone(), mutation.at, change.clone()))
    });
    changes.collect()
}

#[test]
fn a_part_is_closed_when_a_mark_says_so() {
    let needs = |marks: &[(Mark, u64)], known| {
        let data: Vec<_> = marks.iter().map(|(mark, epoch)| mark.row(*epoch)).collect();
        Needs::of(&data, known)
    };
    let is = |log, data| Ok(Needs { log, data }).map_err(|_: StoreError| ());
    let needs = |marks: &[(Mark, u64)], known| needs(marks, known).map_err(|_| ());
    assert_eq!(
        needs(&[], KNOWN),
        is(true, false),
        "an older reign may have been asleep since before its first row"
    );
    assert_eq!(needs(&[(Mark::Log, 4), (Mark::Data, 0)], KNOWN), is(true, false));
    assert_eq!(needs(&[(Mark::Log, 5), (Mark::Data, 4)], KNOWN), is(false, true));
    assert_eq!(needs(&[(Mark::Log, 5), (Mark::Data, 5)], KNOWN), is(false, false), "loaded again");
    let doubt = Known { closed: true, uncertain: true, ..KNOWN };
    assert_eq!(needs(&[(Mark::Log, 5), (Mark::Data, 5)], doubt), is(true, true));
    assert_eq!(needs(&[(Mark::Log, 5), (Mark::Data, 0)], doubt), is(true, false));
    assert_eq!(
        needs(&[(Mark::Log, 4)], Known { closed: true, ..KNOWN }),
        is(false, false),
        "made by this reign"
    );
    for mark in [Mark::Claim, Mark::Log, Mark::Data] {
        assert!(matches!(Needs::of(&[mark.row(6)], KNOWN), Err(StoreError::Fenced)), "{mark:?}");
    }
}

#[test]
fn the_end_of_the_log_is_written_again_and_what_lies_beyond_is_deleted() {
    let tail = tail([(20, stored(25, 22, 4)), (20, stored(23, 22, 3))]);
    let safe = at(22);
    let seen =
        Seen { buckets: vec![bucket(1, 9), bucket(10, 9), bucket(20, 0)], tail, safe, data: Vec::new() };
    let closing = close(&seen, Needs { log: true, data: false });
    let Closing { again, gone, older, marks, buckets } = closing;
    assert!(older.is_empty());
    let log = Partition::Log(alice(), Bucket(at(20)));
    let bob: BareJid = jid("bob@x.org");
    let peer = Partition::Peer(alice(), bob, Volume(at(1)));
    let listings = Partition::Buckets(alice());
    assert_eq!(
        flat(&again),
        [
            (listings.clone(), at(1_000), Change::PutBucket(bucket(10, 9))),
            (listings.clone(), at(1_000), Change::PutBucket(bucket(20, 0))),
            (log.clone(), at(1_000), Change::PutRow(Box::new(stored(25, 22, 4)), None)),
            (log.clone(), at(1_000), Change::PutRow(Box::new(stored(23, 22, 3)), None)),
            (peer.clone(), at(1_000), Change::PutPeer(at(25), Bucket(at(20)), None)),
            (peer, at(1_000), Change::PutPeer(at(23), Bucket(at(20)), None)),
            (Partition::Data(alice()), at(1_000), Change::PutData(Mark::Closing.row(at(22).0 + 1))),
        ]
    );
    let before = Position(at(1_000).0 - 1);
    let above = |secs| Position(at(secs).0 + 1);
    assert_eq!(
        flat(&gone),
        [
            (listings, before, Change::DropBuckets(Bucket(above(20)), Bucket(at(1_000)))),
            (log, before, Change::DropRows(above(22), at(1_000))),
        ]
    );
    let ended = Change::DropData(DataKind::Mark, Mark::Closing.name().to_owned());
    let [log, removal] = [Mark::Log.row(5), Mark::Removal.row(0)].map(Change::PutData);
    let marked = [log, ended, removal];
    assert_eq!(flat(&marks), marked.map(|mark| (Partition::Data(alice()), at(1_000), mark)));
    assert_eq!(buckets, seen.buckets);
}

#[test]
fn the_cursor_is_written_again_with_the_marks() {
    let cursor = codec::cursor(&starling_store::Cursor { through: at(3), above: vec![at(5)..=at(5)] });
    let seen = Seen { data: vec![cursor.clone(), Mark::Log.row(4)], ..Seen::default() };
    let Closing { marks, .. } = close(&seen, Needs { log: true, data: false });
    assert_eq!(marks.len(), 1, "no write more");
    assert!(flat(&marks).contains(&(Partition::Data(alice()), at(1_000), Change::PutData(cursor))));
    let Closing { marks, .. } = close(&seen, Needs { log: false, data: true });
    assert_eq!(flat(&marks).len(), 1, "what this reign wrote itself was confirmed");
}

#[test]
fn what_is_late_may_lie_in_two_buckets() {
    let tail = tail([(20, stored(20, 17, 1)), (10, stored(18, 17, 9))]);
    let safe = at(17);
    let seen =
        Seen { buckets: vec![bucket(1, 9), bucket(10, 9), bucket(20, 0)], tail, safe, data: Vec::new() };
    let Closing { again, gone, older, .. } = close(&seen, Needs { log: true, data: false });
    let rows = flat(&again).into_iter().filter(|(.., change)| matches!(change, Change::PutRow(..)));
    assert_eq!(rows.count(), 2);
    let dropped = |step| flat(step).into_iter().map(|(partition, ..)| partition).collect::<Vec<_>>();
    let log = |secs| Partition::Log(alice(), Bucket(at(secs)));
    assert_eq!(dropped(&gone), [Partition::Buckets(alice()), log(20)]);
    assert_eq!(
        dropped(&older),
        [log(10)],
        "or the row in the newer bucket would be seen without that before it"
    );
}

#[test]
fn what_cannot_be_read_stays() {
    let unreadable = |secs| (Bucket(at(20)), Found::Unreadable(at(secs), "log.peer"));
    let mut tail = tail([(20, stored(25, 22, 4)), (20, stored(24, 22, 3))]);
    tail.insert(0, unreadable(27));
    tail.insert(2, unreadable(23));
    let (safe, data) = (at(22), Vec::new());
    let seen = Seen { buckets: vec![bucket(10, 9), bucket(20, 0), bucket(30, 0)], tail, safe, data };
    let closing = close(&seen, Needs { log: true, data: false });
    assert_eq!(closing.buckets, [bucket(10, 9), bucket(20, 0)]);
    let again = flat(&closing.again).into_iter();
    let again = again.filter(|(.., change)| matches!(change, Change::PutRow(..))).count();
    let gone = flat(&closing.gone).into_iter().map(|(.., change)| change);
    let gone: Vec<_> = gone.filter(|change| matches!(change, Change::DropRows(..))).collect();
    let (above, below) = (|secs| Position(at(secs).0 + 1), |secs| Position(at(secs).0 - 1));
    assert_eq!(again, 2);
    assert_eq!(
        gone,
        [
            Change::DropRows(above(22), below(23)),
            Change::DropRows(above(23), below(27)),
            Change::DropRows(above(27), at(1_000)),
        ]
    );
    let nothing_else =
        Seen { buckets: vec![bucket(20, 0)], tail: vec![unreadable(27), unreadable(23)], ..Seen::default() };
    let closing = close(&nothing_else, Needs { log: true, data: false });
    assert_eq!(closing.buckets, [bucket(20, 0)], "its rows are there");
}

#[test]
fn a_bucket_without_a_row_is_unlisted() {
    let tail = tail([(10, stored(18, 17, 9))]);
    let (safe, data) = (at(17), Vec::new());
    let seen = Seen { buckets: vec![bucket(10, 9), bucket(20, 0), bucket(30, 0)], tail, safe, data };
    let closing = close(&seen, Needs { log: true, data: false });
    assert_eq!(closing.buckets, [bucket(10, 9)]);
    let gone: Vec<_> = flat(&closing.gone).into_iter().map(|(of, _, change)| (of, change)).collect();
    for secs in [20, 30] {
        assert!(gone.contains(&(Partition::Log(alice(), Bucket(at(secs))), Change::DropAll)), "{gone:?}");
    }
    assert!(!gone.contains(&(Partition::Log(alice(), Bucket(at(10))), Change::DropAll)));
    let listed = flat(&closing.again);
    assert!(
        !listed
            .iter()
            .any(|(.., change)| matches!(change, Change::PutBucket(row) if row.bucket > Bucket(at(10))))
    );
    let empty = Seen { buckets: vec![bucket(10, 9)], ..Seen::default() };
    let closing = close(&empty, Needs { log: true, data: false });
    assert!(closing.buckets.is_empty());
    let begun = Change::PutData(Mark::Closing.row(1));
    assert_eq!(flat(&closing.again), [(Partition::Data(alice()), at(1_000), begun)]);
    let all = Change::DropBuckets(Bucket(Position(0)), Bucket(at(1_000)));
    let before = Position(at(1_000).0 - 1);
    let log = Partition::Log(alice(), Bucket(at(10)));
    assert_eq!(
        flat(&closing.gone),
        [(Partition::Buckets(alice()), before, all), (log, before, Change::DropAll)]
    );
}

#[test]
fn a_row_that_has_ended_is_not_written_again() {
    let mut ended = stored(25, 22, 4);
    ended.row = LogRow { expires: Some(Timestamp::from_secs(50)), ..ended.row };
    let (tail, safe, data) = (tail([(20, ended)]), at(22), Vec::new());
    let seen = Seen { buckets: vec![bucket(20, 0)], tail, safe, data };
    let now = Timestamp::from_secs(60);
    let closing = seen.closing(&alice(), BOTH, KNOWN, at(1_000), now, &Settings::default());
    assert!(!flat(&closing.again).iter().any(|(.., change)| matches!(change, Change::PutRow(..))));
}

#[test]
fn roster_and_documents_are_written_again_as_a_whole() {
    let item = |name: &str| codec::contact(&starling_store::RosterItem::new(jid(name)));
    let data = vec![
        item("bob@x.org"),
        codec::removed(&jid("carol@x.org"), 3),
        codec::removed(&jid("bob@x.org"), 2),
        codec::roster_version(4, 1),
        codec::doc(DocKind::BlockList, Bytes::from_static(b"list")),
        codec::cursor(&starling_store::Cursor::default()),
        Mark::Data.row(4),
    ];
    let seen = Seen { data: data.clone(), ..Seen::default() };
    let Closing { again, gone, marks, .. } = close(&seen, Needs { log: false, data: true });
    let written: Vec<_> = flat(&again).into_iter().map(|(.., change)| change).collect();
    let put = |at: usize| Change::PutData(data[at].clone());
    let carol = Change::DropData(DataKind::Contact, "carol@x.org".to_owned());
    assert_eq!(written[..5], [put(0), put(1), carol, put(3), put(4)]);
    let docs = written[5..].iter().filter(|change| matches!(change, Change::DropData(DataKind::Doc, _)));
    assert_eq!(docs.count(), DocKind::ALL.len() - 1, "those that are not there");
    let kinds: Vec<_> = flat(&gone).into_iter().map(|(_, at, change)| (at, change)).collect();
    assert_eq!(kinds, MARKED.map(|kind| (Position(at(1_000).0 - 1), Change::DropKind(kind))));
    assert!(!MARKED.contains(&DataKind::Cursor) && !MARKED.contains(&DataKind::Mark));
    assert_eq!(flat(&marks)[0].2, Change::PutData(Mark::Data.row(0)));
}
