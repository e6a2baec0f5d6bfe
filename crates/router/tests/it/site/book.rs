//! The locations of one shard: a table that survives everything.

use futures::FutureExt;
use futures::channel::oneshot;
use futures::future::{BoxFuture, ready};
use parking_lot::Mutex;
use starling_router::{LocationOp, Place, RecordError, Register};
use starling_wire::{EdgeId, Epoch, Token};
use starling_xmpp::{BareJid, FullJid};
use std::collections::{BTreeMap, VecDeque};
use std::sync::Arc;

/// Who is where, of one shard; outlives reigns.
#[derive(Default)]
pub(crate) struct Book {
    rows: Mutex<BTreeMap<String, Place>>,
    /// What is recorded from now on fails so.
    pub(crate) failing: Mutex<Option<RecordError>>,
    /// What becomes of the next ones.
    moods: Mutex<VecDeque<Mood>>,
    late: Mutex<Vec<oneshot::Sender<()>>>,
    /// What is yet to be recorded.
    rest: Mutex<Vec<LocationOp>>,
    /// The last reign.
    epoch: Mutex<Epoch>,
}

/// What becomes of something that is to be recorded.
#[derive(Clone, Copy)]
pub(crate) enum Mood {
    /// It is, and its answer waits.
    Late,
    /// The first of it is, the rest and the answer wait.
    Begun,
    /// It is not, and the answer, that nobody knows, waits.
    Lost,
    /// It is, and nobody knows.
    Unknown,
    /// It is not.
    Not(RecordError),
}

impl Book {
    pub(crate) fn edges(&self) -> Vec<(String, u64)> {
        self.rows.lock().iter().map(|(jid, place)| (jid.clone(), place.edge.0)).collect()
    }

    /// A session is recorded there.
    pub(crate) fn bind(&self, jid: FullJid, token: Token, edge: EdgeId) {
        self.write(vec![LocationOp::Bind { jid, token, edge }]);
    }

    /// Nothing of it is left.
    pub(crate) fn burn(&self) {
        self.rows.lock().clear();
    }

    /// What becomes of the next one.
    pub(crate) fn next(&self, mood: Mood) {
        self.moods.lock().push_back(mood);
    }

    /// Answers what waits; what comes is as usual.
    pub(crate) fn calm(&self) {
        self.moods.lock().clear();
        self.write(std::mem::take(&mut *self.rest.lock()));
        self.late.lock().clear();
    }

    /// For a reign that begins: what earlier ones say does not count any more.
    pub(crate) fn open(self: &Arc<Self>, epoch: Epoch) -> Page {
        *self.epoch.lock() = epoch;
        Page { book: Arc::clone(self), epoch }
    }

    fn write(&self, ops: Vec<LocationOp>) {
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
    }
}

/// The book for one reign.
pub(crate) struct Page {
    book: Arc<Book>,
    epoch: Epoch,
}

impl Register for Page {
    fn record(&self, ops: Vec<LocationOp>) -> BoxFuture<'static, Result<(), RecordError>> {
        let book = &self.book;
        if *book.epoch.lock() != self.epoch {
            return ready(Err(RecordError::NotLeader)).boxed();
        }
        if let Some(error) = *book.failing.lock() {
            return ready(Err(error)).boxed();
        }
        let mood = book.moods.lock().pop_front();
        if let Some(Mood::Not(error)) = mood {
            return ready(Err(error)).boxed();
        }
        let mut ops = ops;
        if let Some(Mood::Begun) = mood {
            *book.rest.lock() = ops.split_off(1.min(ops.len()));
        }
        if !matches!(mood, Some(Mood::Lost)) {
            book.write(ops);
        }
        match mood {
            Some(Mood::Lost) => {
                let (answer, wait) = oneshot::channel();
                book.late.lock().push(answer);
                wait.map(|_| Err(RecordError::Unknown)).boxed()
            }
            Some(Mood::Late | Mood::Begun) => {
                let (answer, wait) = oneshot::channel();
                book.late.lock().push(answer);
                wait.map(|_| Ok(())).boxed()
            }
            Some(_) => ready(Err(RecordError::Unknown)).boxed(),
            None => {
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
        }
    }

    fn places(&self, account: &BareJid) -> Vec<Place> {
        let rows = self.book.rows.lock();
        rows.values().filter(|row| row.jid.as_jid().to_bare() == *account).cloned().collect()
    }

    fn each(&self, visit: &mut dyn FnMut(&FullJid, Token, EdgeId)) {
        for Place { jid, token, edge, .. } in self.book.rows.lock().values() {
            visit(jid, *token, *edge);
        }
    }
}
