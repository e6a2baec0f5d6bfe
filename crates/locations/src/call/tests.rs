use super::*;
use crate::types::{Command, LogId};
use openraft::{CommittedLeaderId, EntryPayload};

fn id(term: u64, index: u64) -> LogId {
    LogId::new(CommittedLeaderId::new(term, 3), index)
}

#[test]
fn calls_arrive_as_they_were_sent() {
    let vote = Vote::new_committed(4, 3);
    let entry = Entry { log_id: id(4, 9), payload: EntryPayload::Normal(Command(Bytes::from_static(b"x"))) };
    let calls = [
        Call::Append(AppendEntriesRequest {
            vote,
            prev_log_id: Some(id(3, 8)),
            entries: vec![entry, Entry { log_id: id(4, 10), payload: EntryPayload::Blank }],
            leader_commit: None,
        }),
        Call::Vote(VoteRequest { vote, last_log_id: Some(id(1, 2)) }),
        Call::Piece(Piece { vote, id: 9, number: 1 << 33, last: true, bytes: vec![7; 100].into() }),
        Call::Elect { age: Duration::from_millis(4_321) },
        Call::Ping(Ping {
            cluster: 7,
            era: 8,
            floor: 9,
            fresh: true,
            hears: vec![1],
            leads: vec![2],
            reigns: 3,
            leaving: true,
            stuck: true,
            edges: Some(Arc::new([1, u64::MAX].into())),
            renews: vec![(0, 7), (1023, 1 << 40)],
            promised: vec![4],
        }),
        // That none is linked is something else than to say nothing of it.
        Call::Ping(Ping { edges: Some(Arc::default()), ..Ping::default() }),
        Call::Ping(Ping::default()),
        Call::Join { name: "router-0".to_owned(), address: "host:5270".to_owned() },
        Call::Found { cluster: 1, era: 2, floor: 3 },
        Call::Remove(RouterId(u64::MAX)),
        Call::Reconcile(Wanted {
            voters: [1, 2].map(RouterId).into(),
            gone: [u64::MAX].map(RouterId).into(),
        }),
        Call::Heir,
    ];
    for call in calls {
        let (cluster, again) = Call::decode(call.encode(77)).unwrap();
        assert_eq!((cluster, format!("{again:?}")), (77, format!("{call:?}")));
    }
    assert!(Call::decode(Bytes::from_static(b"\x78\x01")).is_err(), "a kind that is not known");
    assert!(Call::decode(Bytes::from_static(b"\x1a\x00")).is_err(), "a candidate without a vote");
}

#[test]
fn answers_arrive_as_they_were_given() {
    let vote = Vote::new(4, 3);
    let answers = [
        Answer::Append(AppendEntriesResponse::Success),
        Answer::Append(AppendEntriesResponse::PartialSuccess(None)),
        Answer::Append(AppendEntriesResponse::PartialSuccess(Some(id(1, 1)))),
        Answer::Append(AppendEntriesResponse::Conflict),
        Answer::Append(AppendEntriesResponse::HigherVote(vote)),
        Answer::Vote(VoteResponse { vote, vote_granted: true, last_log_id: None }),
        Answer::Piece(None),
        Answer::Piece(Some(vote)),
        Answer::Pong(Ping::default()),
        Answer::Done,
        Answer::Refused(Refusal::Malformed),
        Answer::Refused(Refusal::Stranger),
        Answer::Refused(Refusal::Removed),
        Answer::Refused(Refusal::Led),
        Answer::Refused(Refusal::Busy),
        Answer::Refused(Refusal::Stopped),
        Answer::Refused(Refusal::Linked),
        Answer::Refused(Refusal::Name),
        Answer::Refused(Refusal::Kept),
    ];
    for answer in answers {
        assert_eq!(format!("{:?}", Answer::decode(answer.encode()).unwrap()), format!("{answer:?}"));
    }
    assert!(Answer::decode(Bytes::new()).is_err());
}

#[test]
fn groups_are_bits() {
    let bits = bits([0, 9, 1023].into_iter());
    assert_eq!(bits.len(), 128);
    let set: Vec<u16> = (0..1100).filter(|group| has(&bits, *group)).collect();
    assert_eq!(set, [0, 9, 1023]);
}
