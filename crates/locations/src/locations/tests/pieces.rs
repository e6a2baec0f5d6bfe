//! Snapshots that a leader sends and nobody can use.

use super::cluster::{Cluster, jid, ms};
use crate::call::{Answer, Call, Piece, Refusal};
use crate::disk::faulty::FaultyDisk;
use crate::image::{self, Meta};
use crate::machine::{Machine, Op, epoch};
use crate::snapshots::Snapshots;
use crate::types::{LogId, StoredMembership};
use bytes::Bytes;
use starling_wire::{EdgeId, Incarnation, Shard, Token};
use std::collections::BTreeSet;
use std::sync::Arc;
use tokio::time::sleep;

/// The pieces of a good one of three rows: what describes it, and the rows.
fn pieces(last: LogId, membership: StoredMembership) -> [Bytes; 2] {
    let mut machine = Machine::new();
    let (incarnation, router) = (Incarnation(1), starling_wire::RouterId(101));
    machine.apply(1, &[Op::Open { era: 1, incarnation, router, floor: 0, ceiling: 5 }]);
    for n in 0..3 {
        let (token, edge) = (Token(n.into()), EdgeId(1));
        machine.apply(n + 2, &[Op::Bind { epoch: epoch(1, 1), jid: jid(n), token, edge }]);
    }
    let snapshots = Snapshots::open(Arc::new(FaultyDisk::default())).unwrap();
    let meta = Meta { last_log_id: Some(last), last_membership: membership, snapshot_id: "one".to_owned() };
    let (file, _) = image::write(&snapshots, 0, &meta, &BTreeSet::new(), &machine.view()).unwrap();
    let mut parts = file.read().unwrap();
    [parts.meta().clone(), parts.next_part().unwrap().unwrap()]
}

#[tokio::test(start_paused = true)]
async fn a_snapshot_that_cannot_be_read_is_not_kept() {
    let cluster = Cluster::start(51, 3, 1, false).await;
    cluster.settled(ms(3_000)).await;
    let (home, group, _) = cluster.home(0);
    let (leader, other) = (cluster.routers[home].id, (home + 1) % 3);
    let server = group.core().server.borrow().clone();
    let last = LogId::new(*group.core().figures.borrow().last_applied.unwrap().committed_leader_id(), 10_000);
    let [description, rows] = pieces(last, server.membership_config.as_ref().clone());
    let kept = || cluster.at(other).group(Shard(0)).unwrap().core().snapshots.files(0).len();
    let mut id = 0;
    let mut send = async |parts: &[Bytes], old: bool| {
        id += 1;
        let mut vote = server.vote;
        vote.leader_id.term -= u64::from(old);
        let mut answer = Answer::Done;
        for (number, bytes) in parts.iter().enumerate() {
            let (number, last, bytes) = (number as u64, number + 1 == parts.len(), bytes.clone());
            let call = Call::Piece(Piece { vote, id, number, last, bytes });
            let locations = cluster.at(other);
            let answered = locations.answer(leader, "", 0, call.encode(locations.cluster())).await;
            answer = Answer::decode(answered).unwrap();
        }
        answer
    };
    let (half, one) = (rows.slice(..rows.len() - 1), rows.slice(..rows.len() / 3));
    let mut broken = rows.to_vec();
    broken[2] = b'@';
    let bad: [&[Bytes]; 5] = [
        &[description.clone(), half],
        &[description.clone(), one],
        &[description.clone(), Bytes::from(broken)],
        &[description.clone(), rows.clone(), rows.clone(), Bytes::from_static(b"more")],
        std::slice::from_ref(&description),
    ];
    for (number, bad) in bad.into_iter().enumerate() {
        let answer = send(bad, false).await;
        assert!(matches!(answer, Answer::Refused(Refusal::Malformed)), "{number}: {answer:?}");
        assert_eq!(kept(), 0, "{number}: nothing has got its name");
        assert_eq!(cluster.failed(other), None, "{number}");
    }
    // One of a leader that is none any more is not kept either: he is told.
    let answer = send(&[description.clone(), rows.clone()], true).await;
    assert!(matches!(answer, Answer::Piece(Some(vote)) if vote == server.vote), "{answer:?}");
    assert_eq!(kept(), 0);
    // The disk is as good as it was.
    cluster.kill(other).await;
    cluster.run(other).await;
    sleep(ms(1_000)).await;
    assert_eq!(cluster.failed(other), None);
    assert!(cluster.bind(0, 7).await);
    // A good one is taken.
    let answer = send(&[description, rows], false).await;
    assert!(matches!(answer, Answer::Piece(Some(_))), "{answer:?}");
    assert_eq!(kept(), 1);
    let group = cluster.at(other).group(Shard(0)).unwrap().clone();
    assert!((0..3).all(|n| group.row(&jid(n)).is_some()));
}
