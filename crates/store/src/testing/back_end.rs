//! What the suite asks of a back end under test.

use crate::{Now, Retention, SharedStore};
use std::time::Duration;

/// A back end under test: one place where data is kept.
pub trait BackEnd {
    /// Opens the store. Called again, after the earlier store was dropped, it opens the same data. The retention is for
    /// back ends that are told of it once; others are told with every sweep.
    fn open(&mut self, now: Now, retention: Retention) -> impl Future<Output = SharedStore>;
}

/// A back end that may be opened again while it is open, as by another process.
pub trait SharedBackEnd: BackEnd {
    /// Lets so much time pass for stores that wait. The case moves the time it has given to [`BackEnd::open`] by itself.
    fn pass(&mut self, time: Duration) -> impl Future<Output = ()>;

    /// Time by which its stores wait, since some moment; `None` where no time passes but by [`Self::pass`].
    fn elapsed(&self) -> Option<Duration> {
        None
    }
}

/// A back end, opened once or more, whose commits can be made late.
pub trait LateBackEnd: BackEnd {
    /// From now on what commits write stops at this point, and the commits are given up as
    /// [`StoreError::Unavailable`](crate::StoreError::Unavailable) in the store's own time.
    fn hold(&mut self, late: Late);

    /// From now on what commits and loads write goes through. What was held before stays where it is.
    fn let_through(&mut self);

    /// What was held goes on to wherever it was under way to, as often as it was sent. Where the store has no say in
    /// it, say, at replicas, there is nothing to wait for.
    fn arrive(&mut self);
}

/// How far a commit has come when it is given up.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Late {
    /// Nobody has it.
    Nowhere,
    /// Some have it, too few to count.
    Somewhere,
    /// It is written, and only the answer was lost.
    Everywhere,
}

impl Late {
    /// All of them.
    pub const ALL: [Self; 3] = [Self::Nowhere, Self::Somewhere, Self::Everywhere];
}
