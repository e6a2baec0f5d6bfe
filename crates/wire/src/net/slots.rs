//! One link per peer: a new one takes the place of the old.

use super::{End, Hears};
use crate::codec::Malformed;
use parking_lot::Mutex;
use std::collections::HashMap;
use std::hash::Hash;
use std::sync::Arc;

/// The present links, by peer.
pub(super) struct Slots<K, T>(Arc<Mutex<HashMap<K, Arc<Slot<T>>>>>);

impl<K, T> Clone for Slots<K, T> {
    fn clone(&self) -> Self {
        Self(Arc::clone(&self.0))
    }
}

impl<K, T> Default for Slots<K, T> {
    fn default() -> Self {
        Self(Arc::default())
    }
}

struct Slot<T>(Mutex<(u64, Option<Entry<T>>)>);

/// A link in its place.
pub(super) struct Entry<T> {
    /// Takes what comes.
    pub(super) hears: Box<dyn Hears<T>>,
    /// Ends its sending half.
    pub(super) shut: Box<dyn Fn(End) + Send>,
}

/// A link's claim to its place.
pub(super) struct Held<K: Eq + Hash, T: 'static> {
    slots: Slots<K, T>,
    key: K,
    slot: Arc<Slot<T>>,
    number: u64,
}

impl<K: Eq + Hash + Clone, T: 'static> Slots<K, T> {
    /// Puts a new link in place. The old one is over before `make` is called, and nothing of it is heard after.
    pub(super) fn take_over<R, E>(
        &self,
        key: K,
        make: impl FnOnce() -> Result<(Entry<T>, R), E>,
    ) -> Result<(Held<K, T>, R), E> {
        let slot = {
            let mut slots = self.0.lock();
            Arc::clone(slots.entry(key.clone()).or_insert_with(|| Arc::new(Slot(Mutex::new((0, None))))))
        };
        let mut state = slot.0.lock();
        if let Some(mut old) = state.1.take() {
            (old.shut)(End::Superseded);
            old.hears.ended(&End::Superseded);
        }
        state.0 += 1;
        let number = state.0;
        let (entry, result) = make()?;
        state.1 = Some(entry);
        drop(state);
        Ok((Held { slots: self.clone(), key, slot, number }, result))
    }
}

impl<K: Eq + Hash, T: 'static> Held<K, T> {
    /// Hands over what came, unless that is no proper message, or the link is not in its place any more.
    pub(super) fn hear(&self, items: Result<Vec<T>, Malformed>) -> Result<(), End> {
        let items = items.map_err(|bad| End::Malformed(bad.to_string()))?;
        let mut state = self.slot.0.lock();
        match &mut *state {
            (number, Some(entry)) if *number == self.number => {
                entry.hears.hear(items);
                Ok(())
            }
            _ => Err(End::Superseded),
        }
    }

    /// Whether it is still in its place.
    pub(super) fn is_current(&self) -> bool {
        let state = self.slot.0.lock();
        state.0 == self.number && state.1.is_some()
    }

    /// It is over, unless it was before.
    pub(super) fn end(&self, end: End) {
        {
            let mut state = self.slot.0.lock();
            if state.0 != self.number {
                return;
            }
            if let Some(mut entry) = state.1.take() {
                (entry.shut)(end.clone());
                entry.hears.ended(&end);
            }
        }
        // Nobody else has this place or is about to take it: the map's share and our own are all there are.
        let mut slots = self.slots.0.lock();
        let own = slots.get(&self.key).is_some_and(|slot| Arc::ptr_eq(slot, &self.slot));
        if own && Arc::strong_count(&self.slot) == 2 {
            slots.remove(&self.key);
        }
    }
}

impl<K: Eq + Hash, T: 'static> Drop for Held<K, T> {
    fn drop(&mut self) {
        // Who dialled was dropped with the task that read from it; where it was accepted that task has panicked.
        self.end(End::Lost("the connection is gone".to_owned()));
    }
}
