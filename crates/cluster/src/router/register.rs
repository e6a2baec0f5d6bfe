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
        Box::pin(async move { Outcome::judge(&recorded.await.map_err(unrecorded)?).map_err(unrecorded) })
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

fn unrecorded(error: Unrecorded) -> RecordError {
    match error {
        Unrecorded::Unknown => RecordError::Unknown,
        Unrecorded::NotLeader => RecordError::NotLeader,
        Unrecorded::Busy => RecordError::Busy,
    }
}
