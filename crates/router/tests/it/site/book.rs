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
    rows: Mutex<BTreeMap<String, (FullJid, Token, EdgeId)>>,
    /// What is recorded from now on fails so.
    pub(crate) failing: Mutex<Option<RecordError>>,
}

impl Book {
    pub(crate) fn edges(&self) -> Vec<(String, u64)> {
        self.rows.lock().iter().map(|(jid, (_, _, edge))| (jid.clone(), edge.0)).collect()
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
                    rows.insert(jid.as_str().to_owned(), (jid, token, edge));
                }
                LocationOp::Move { jid, token, edge, .. } => {
                    if let Some(row) = rows.get_mut(jid.as_str()).filter(|row| row.1 == token) {
                        row.2 = edge;
                    }
                }
                LocationOp::Unbind { jid, token } => {
                    if rows.get(jid.as_str()).is_some_and(|row| row.1 == token) {
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
        let own = rows.values().filter(|(jid, ..)| jid.as_jid().to_bare() == *account);
        own.map(|(jid, token, edge)| Place { jid: jid.clone(), token: *token, edge: *edge }).collect()
    }

    fn each(&self, visit: &mut dyn FnMut(&FullJid, Token, EdgeId)) {
        for (jid, token, edge) in self.rows.lock().values() {
            visit(jid, *token, *edge);
        }
    }
}
