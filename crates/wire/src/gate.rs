//! What stands between the homes of a reign and edges: whom they listen to, and who hears of them. No link, no clock: tables
//! and their rules, as the [chart](crate::chart) is.

use crate::chart::Chart;
use crate::frame::{Home, NotHome, RouterItem};
use crate::{EdgeId, Epoch, Shard, ToEdge};
use parking_lot::Mutex;
use std::collections::HashMap;

/// The reigns that a link's edge has attached to, and how often each was closed by then. What comes after something for one was
/// refused, or after it was closed, is refused until the edge attaches again: a home must not take what followed without what
/// it missed, nor anything but the beginning after it has said how far it has come.
#[derive(Debug, Default)]
pub struct Attachments(HashMap<Shard, (Epoch, u64)>);

/// What becomes of something that an edge has said to a reign.
#[derive(Debug, PartialEq, Eq)]
pub enum Taken<D> {
    /// It goes there; with how often that was closed before.
    By(D, u64),
    /// It is passed over: its edge says it again, to whoever is home then.
    Dropped,
    /// Its edge is told this.
    Refused(NotHome),
}

impl Attachments {
    /// What becomes of something for this reign; `begins`: its edge attaches with it.
    pub fn take<D: Clone>(&mut self, chart: &Chart<D>, home: Home, begins: bool) -> Taken<D> {
        let taken = chart.take(home);
        if let Ok((door, closings)) = &taken
            && self.allow(home, begins, *closings)
        {
            return Taken::By(door.clone(), *closings);
        }
        self.0.remove(&home.shard);
        if chart.is_leaving(home) {
            // It has yet to say what it has done.
            return Taken::Dropped;
        }
        Taken::Refused(taken.err().unwrap_or_else(|| chart.not_home(home.shard)))
    }

    /// Whether a home that is open may take it.
    fn allow(&mut self, home: Home, begins: bool, closings: u64) -> bool {
        if begins {
            self.0.insert(home.shard, (home.epoch, closings));
        }
        self.0.get(&home.shard) == Some(&(home.epoch, closings))
    }
}

/// The edges that hear of the homes of one reign; `O` is the way to one.
///
/// An edge takes what homes say in order or not at all. So what is for one that is not attached goes nowhere, and after a home
/// was closed all edges have to attach once more; then it comes again.
#[derive(Debug)]
pub struct Listeners<O> {
    home: Home,
    attached: Mutex<Attached<O>>,
}

#[derive(Debug)]
struct Attached<O> {
    /// How often the home was closed.
    closings: u64,
    /// Edges that have begun to name their sessions, with a number for that.
    named: HashMap<EdgeId, (u64, O)>,
    /// Those of them of which the homes know it.
    open: HashMap<EdgeId, O>,
}

impl<O> Attached<O> {
    fn after(closings: u64) -> Self {
        Self { closings, named: HashMap::new(), open: HashMap::new() }
    }
}

impl<O: Clone> Listeners<O> {
    /// Of a reign that begins: none.
    pub fn new(home: Home) -> Self {
        Self { home, attached: Mutex::new(Attached::after(0)) }
    }

    /// An edge begins to name its sessions. The home had been closed so often when it was seen to be open.
    pub fn name(&self, edge: EdgeId, number: u64, to: &O, closings: u64) {
        let mut attached = self.attached.lock();
        if attached.closings == closings {
            attached.named.insert(edge, (number, to.clone()));
        }
    }

    /// The homes know that it has begun, under this number.
    pub fn open(&self, edge: EdgeId, number: u64) {
        let mut attached = self.attached.lock();
        let named = attached.named.get(&edge).filter(|(named, _)| *named == number);
        match named.map(|(_, to)| to.clone()) {
            Some(to) => drop(attached.open.insert(edge, to)),
            // It has begun anew since, or has to.
            None => drop(attached.open.remove(&edge)),
        }
    }

    /// The home is closed for the how-manieth time: nothing goes to any edge until it attaches again.
    pub fn close(&self, closings: u64) {
        let mut attached = self.attached.lock();
        if closings > attached.closings {
            *attached = Attached::after(closings);
        }
    }

    /// An edge is dead.
    pub fn forget(&self, edge: EdgeId) {
        let mut attached = self.attached.lock();
        attached.named.remove(&edge);
        attached.open.remove(&edge);
    }

    /// Whether an edge hears of the homes, and this is true of the way to it.
    pub fn hears(&self, edge: EdgeId, is: impl FnOnce(&O) -> bool) -> bool {
        self.attached.lock().open.get(&edge).is_some_and(is)
    }

    /// Has all of it sent to those that hear it, each edge's in order; `batch` is empty afterwards.
    pub fn deliver(&self, batch: &mut Vec<ToEdge>, mut send: impl FnMut(&O, &mut Vec<RouterItem>)) {
        let attached = self.attached.lock();
        let mut messages = batch.drain(..).peekable();
        while let Some(first) = messages.next() {
            let edge = first.conn.edge;
            // Of this edge alone: another one has connections with the same numbers.
            let mut items = vec![RouterItem::Down(self.home, first)];
            while let Some(next) = messages.next_if(|next| next.conn.edge == edge) {
                items.push(RouterItem::Down(self.home, next));
            }
            if let Some(to) = attached.open.get(&edge) {
                send(to, &mut items);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{ConnId, Down, RouterId, Shards};

    const EDGE: EdgeId = EdgeId(7);

    fn home(epoch: u64) -> Home {
        Home { shard: Shard(1), epoch: Epoch(epoch) }
    }

    #[test]
    fn what_follows_something_refused_is_refused() {
        let chart = Chart::new(RouterId(1), Shards::new(2).unwrap());
        let mut attached = Attachments::default();
        let refused = |epoch, hint: Option<u64>| {
            Taken::Refused(NotHome { shard: Shard(1), epoch: Epoch(epoch), hint: hint.map(RouterId) })
        };
        assert_eq!(attached.take(&chart, home(1), true), refused(0, None), "nobody is home");
        chart.begin(home(1), "one");
        assert_eq!(attached.take(&chart, home(1), false), refused(1, Some(1)), "it has not attached");
        assert_eq!(attached.take(&chart, home(1), true), Taken::By("one", 0));
        assert_eq!(attached.take(&chart, home(1), false), Taken::By("one", 0));
        chart.close(home(1));
        assert_eq!(attached.take(&chart, home(1), false), refused(1, None));
        chart.reopen(home(1));
        assert_eq!(attached.take(&chart, home(1), false), refused(1, Some(1)), "it has missed something");
        assert_eq!(attached.take(&chart, home(1), true), Taken::By("one", 1));
        chart.close(home(1));
        chart.reopen(home(1));
        assert_eq!(attached.take(&chart, home(1), false), refused(1, Some(1)), "it was closed meanwhile");
        assert_eq!(attached.take(&chart, home(1), true), Taken::By("one", 2));
        chart.leave(home(1));
        assert!(chart.stay(home(1), |_| ()));
        assert_eq!(attached.take(&chart, home(1), false), refused(1, Some(1)), "it was about to move");
        assert_eq!(attached.take(&chart, home(1), true), Taken::By("one", 3));
        chart.leave(home(1));
        assert_eq!(attached.take(&chart, home(1), false), Taken::Dropped);
        chart.begin(home(2), "two");
        assert_eq!(attached.take(&chart, home(2), false), refused(2, Some(1)), "another reign");
        assert_eq!(attached.take(&chart, home(2), true), Taken::By("two", 0));
        assert_eq!(attached.take(&chart, home(1), true), refused(2, Some(1)), "a reign that is over");
    }

    #[test]
    fn edges_hear_of_a_home_after_they_have_attached_and_no_longer() {
        let listeners = Listeners::new(home(1));
        let hears = || {
            let conn = ConnId { edge: EDGE, number: 1 };
            let mut heard = 0;
            listeners.deliver(&mut vec![ToEdge { conn, down: Down::RequestAck }], |(), items| {
                heard += items.len();
            });
            heard > 0
        };
        assert!(!hears(), "not attached");
        listeners.name(EDGE, 1, &(), 0);
        assert!(!hears(), "the homes do not know it yet");
        listeners.open(EDGE, 1);
        assert!(hears());
        listeners.close(1);
        assert!(!hears());
        listeners.open(EDGE, 1);
        assert!(!hears(), "what the homes took before they were closed");
        listeners.name(EDGE, 2, &(), 0);
        listeners.open(EDGE, 2);
        assert!(!hears(), "named before, counted after");
        listeners.name(EDGE, 3, &(), 1);
        listeners.open(EDGE, 2);
        assert!(!hears(), "an older attachment");
        listeners.open(EDGE, 3);
        assert!(hears());
        listeners.forget(EDGE);
        assert!(!hears());
    }

    #[test]
    fn what_is_for_one_edge_goes_to_no_other() {
        let listeners = Listeners::new(home(1));
        let other = EdgeId(8);
        listeners.name(other, 1, &other, 0);
        listeners.open(other, 1);
        let to = |edge, number| ToEdge { conn: ConnId { edge, number }, down: Down::RequestAck };
        let mut sent = Vec::new();
        let mut batch = vec![to(other, 1), to(EDGE, 1), to(EDGE, 2), to(other, 2), to(other, 3)];
        listeners.deliver(&mut batch, |to, items| {
            let conns = items.drain(..).map(|item| match item {
                RouterItem::Down(_, message) => message.conn,
                item => panic!("{item:?}"),
            });
            sent.push((*to, conns.map(|conn| (conn.edge, conn.number)).collect::<Vec<_>>()));
        });
        assert_eq!(sent, [(other, vec![(other, 1)]), (other, vec![(other, 2), (other, 3)])]);
        assert!(batch.is_empty());
    }
}
