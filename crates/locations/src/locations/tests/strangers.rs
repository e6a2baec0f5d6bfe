//! Who has the certificate of a router, and is no member.

use super::cluster::{Cluster, ms};
use crate::call::{Answer, Call, Piece, Refusal};
use crate::peers::NO_GROUP;
use crate::types::Vote;
use bytes::Bytes;
use openraft::raft::{AppendEntriesRequest, VoteRequest};
use starling_wire::{RouterId, Shard};
use tokio::time::sleep;

/// All by which a router says that it leads, or is to lead.
fn calls(vote: Vote) -> [Call; 3] {
    let committed = Vote { committed: true, ..vote };
    [
        Call::Append(AppendEntriesRequest {
            vote: committed,
            prev_log_id: None,
            entries: Vec::new(),
            leader_commit: None,
        }),
        Call::Vote(VoteRequest::new(vote, None)),
        Call::Piece(Piece { vote: committed, id: 1, number: 0, last: false, bytes: Bytes::new() }),
    ]
}

async fn refuse(cluster: &Cluster, from: RouterId, vote: Vote) {
    for number in 0..cluster.routers.len() {
        for (which, call) in calls(vote).into_iter().enumerate() {
            let locations = cluster.at(number);
            let answer = locations.answer(from, "", 0, call.encode(locations.cluster())).await;
            let answer = Answer::decode(answer).unwrap();
            assert!(
                matches!(answer, Answer::Refused(Refusal::Stranger)),
                "router {number}, call {which} by {vote}: {answer:?}"
            );
        }
    }
}

#[tokio::test(start_paused = true)]
async fn who_is_no_member_neither_leads_nor_is_voted_for() {
    let cluster = Cluster::start(61, 3, 1, false).await;
    cluster.settled(ms(3_000)).await;
    let (home, group, before) = cluster.home(0);
    let term = group.core().server.borrow().vote.leader_id.term;
    for term in [term, term + 1, term + 1_000, u64::MAX] {
        refuse(&cluster, RouterId(9), Vote::new(term, 9)).await;
    }
    // A member may not use all terms up either.
    let member = cluster.routers[(home + 1) % 3].id;
    refuse(&cluster, member, Vote::new(u64::MAX, member.0)).await;
    sleep(ms(3_000)).await;
    let (after, group, reign) = cluster.home(0);
    assert_eq!((after, reign.epoch), (home, before.epoch), "nothing is felt of it");
    assert_eq!(group.core().server.borrow().vote.leader_id.term, term);
    assert!(cluster.bind(0, 1).await);
    // Its members elect as ever.
    cluster.kill(home).await;
    cluster.settled(ms(1_000)).await;
    assert!(cluster.at(after.abs_diff(1)).group(Shard(0)).is_some() && cluster.bind(0, 2).await);
}

#[tokio::test(start_paused = true)]
async fn nobody_is_taken_in_under_the_name_of_another() {
    let cluster = Cluster::start(62, 3, 1, false).await;
    cluster.settled(ms(3_000)).await;
    let locations = cluster.at(cluster.home(0).0);
    let (name, address) = (cluster.routers[0].member.name.clone(), "elsewhere:5270".to_owned());
    let join = Call::Join { name: name.clone(), address }.encode(locations.cluster());
    // And whose certificate is for that name has to wait until the other one is gone.
    for (caller, refusal) in [("router-9", Refusal::Name), (&*name, Refusal::Kept)] {
        let answer = locations.answer(RouterId(9), caller, NO_GROUP, join.clone()).await;
        let Answer::Refused(answered) = Answer::decode(answer).unwrap() else { panic!("asked by {caller}") };
        assert_eq!(answered, refusal, "asked by {caller}");
    }
}
