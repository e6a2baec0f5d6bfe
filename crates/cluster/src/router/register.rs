//! Who is where, as homes ask for it, over the Raft group of their shard.

use futures::future::BoxFuture;
use starling_locations::{Group, Op, Outcome, RecordError as Unrecorded};
use starling_router::{LocationOp, Place, RecordError, Register};
use starling_wire::{EdgeId, Epoch, Token};
use starling_xmpp::{BareJid, FullJid};

/// Of one reign.
pub(super) struct Locations {
    pub(super) group: Group,
    pub(super) epoch: Epoch,
}

impl Register for Locations {
    fn record(&self, ops: Vec<LocationOp>) -> BoxFuture<'static, Result<(), RecordError>> {
        let recorded = self.group.record(ops.into_iter().map(|op| under(self.epoch, op)).collect());
        Box::pin(async move { judge(recorded.await) })
    }

    fn places(&self, account: &BareJid) -> Vec<Place> {
        let place = |(jid, row): (FullJid, starling_locations::Row)| Place {
            jid,
            token: row.token,
            edge: row.edge,
            attempt: row.attempt,
        };
        self.group.of(account).into_iter().map(place).collect()
    }

    fn each(&self, visit: &mut dyn FnMut(&FullJid, Token, EdgeId)) {
        for (jid, row) in self.group.view().rows().iter() {
            visit(jid, row.token, row.edge);
        }
    }
}

fn under(epoch: Epoch, op: LocationOp) -> Op {
    match op {
        LocationOp::Bind { jid, token, edge } => Op::Bind { epoch, jid, token, edge },
        LocationOp::Move { jid, token, edge, attempt } => Op::Move { epoch, jid, token, edge, attempt },
        LocationOp::Unbind { jid, token } => Op::Unbind { epoch, jid, token },
    }
}

/// All or none of them: where some were done and some were not, nobody may believe either.
fn judge(outcomes: Result<Vec<Outcome>, Unrecorded>) -> Result<(), RecordError> {
    let outcomes = outcomes.map_err(|error| match error {
        Unrecorded::Unknown => RecordError::Unknown,
        Unrecorded::NotLeader => RecordError::NotLeader,
        Unrecorded::Busy => RecordError::Busy,
    })?;
    let done = |outcome: &Outcome| {
        // A row of this name that is not there was taken over, or is unbound already: both are as good as done.
        matches!(outcome, Outcome::Bound { .. } | Outcome::Moved { .. } | Outcome::Unbound | Outcome::Absent)
    };
    if outcomes.iter().all(done) {
        Ok(())
    } else if outcomes.iter().any(|outcome| matches!(outcome, Outcome::Stale { .. })) {
        Err(RecordError::NotLeader)
    } else if outcomes.iter().any(done) {
        Err(RecordError::Unknown)
    } else {
        Err(RecordError::Busy)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_not_all_done_is_not_believed() {
        let stale = Outcome::Stale { epoch: Epoch(9) };
        assert_eq!(judge(Ok(vec![Outcome::Unbound, Outcome::Absent])), Ok(()));
        assert_eq!(judge(Ok(vec![stale, stale])), Err(RecordError::NotLeader));
        assert_eq!(judge(Ok(vec![Outcome::Full])), Err(RecordError::Busy));
        assert_eq!(judge(Ok(vec![Outcome::Unbound, Outcome::Full])), Err(RecordError::Unknown));
        assert_eq!(judge(Err(Unrecorded::Unknown)), Err(RecordError::Unknown));
    }
}
