//! The locations of one shard: a table that survives everything.

use futures::FutureExt;
use futures::future::{BoxFuture, ready};
use parking_lot::Mutex;
use starling_router::{LocationOp, Place, RecordError, Register};
use starling_wire::{EdgeId, Token};
use starling_xmpp::{BareJid, FullJid};
use std::collections::BTreeMap;

/// Who is where, of one shard; outlives reigns.
#[derive(Default)]
pub(crate) struct Book {
    rows: Mutex<BTreeMap<String, Place>>,
    /// What is recorded from now on fails so.
    pub(crate) failing: Mutex<Option<RecordError>>,
}

impl Book {
    pub(crate) fn edges(&self) -> Vec<(String, u64)> {
        self.rows.lock().iter().map(|(jid, place)| (jid.clone(), place.edge.0)).collect()
    }
}

impl Register for Book {
    fn record(&self, ops: Vec<LocationOp>) -> BoxFuture<'static, Result<(), RecordError>> {
        if let Some(error) = *self.failing.lock() {
            return ready(Err(error)).boxed();
        }
        let mut rows = self.rows.lock();
        for op in ops {
            match op {
                LocationOp::Bind { jid, token, edge } => {
                    let row = rows.entry(jid.as_str().to_owned());
                    let place = Place { jid, token, edge, attempt: 0 };
                    row.and_modify(|row| {
                        if row.token != token {
                            *row = place.clone();
                        }
                    })
                    .or_insert(place);
                }
                LocationOp::Move { jid, token, edge, attempt } => {
                    if let Some(row) = rows.get_mut(jid.as_str()).filter(|row| row.token == token) {
                        (row.edge, row.attempt) = (edge, attempt);
                    }
                }
                LocationOp::Unbind { jid, token } => {
                    if rows.get(jid.as_str()).is_some_and(|row| row.token == token) {
                        rows.remove(jid.as_str());
                    }
                }
            }
        }
        // Raft takes a moment: the answer comes with the next turn.
        let mut first = true;
        futures::future::poll_fn(move |cx| {
            if std::mem::take(&mut first) {
                cx.waker().wake_by_ref();
                return std::task::Poll::Pending;
            }
            std::task::Poll::Ready(Ok(()))
        })
        .boxed()
    }

    fn places(&self, account: &BareJid) -> Vec<Place> {
        let rows = self.rows.lock();
        rows.values().filter(|row| row.jid.as_jid().to_bare() == *account).cloned().collect()
    }

    fn each(&self, visit: &mut dyn FnMut(&FullJid, Token, EdgeId)) {
        for Place { jid, token, edge, .. } in self.rows.lock().values() {
            visit(jid, *token, *edge);
        }
    }
}
