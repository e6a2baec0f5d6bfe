//! What a router may believe of reigns, and take for them, held against what it does at the moment at which it does it. Behind
//! each of these rules there is another one, which mostly hides that the first is missing.

use crate::stage::Stage;
use starling_wire::frame::Home;
use starling_wire::{Epoch, Shard};
use std::collections::BTreeMap;

/// What one router has heard.
#[derive(Default)]
pub(super) struct Heard {
    /// The highest reign that anybody spoke of to it.
    highest: BTreeMap<Shard, Epoch>,
    /// The reigns that edges have attached to, by link, and how often each was closed by then.
    attached: BTreeMap<(u64, Shard), (Home, u64)>,
}

impl Heard {
    /// Somebody spoke of a reign.
    pub(super) fn spoken(&mut self, shard: Shard, epoch: Epoch) {
        let highest = self.highest.entry(shard).or_default();
        *highest = epoch.max(*highest);
    }

    /// This one is taken for the home, since it was said so.
    pub(super) fn believes(&self, stage: &Stage, home: Home) {
        let highest = self.highest.get(&home.shard).copied().unwrap_or_default();
        if home.epoch < highest {
            let text = format!(
                "reign {} of shard {} is believed after word of {}",
                home.epoch.0, home.shard.0, highest.0
            );
            stage.wrong("reigns", None, text);
        }
    }

    /// What was meant for one reign goes to another, or to the same one.
    pub(super) fn takes(stage: &Stage, meant: Home, own: Home) {
        if meant != own {
            let text = format!(
                "reign {} of shard {} takes what was meant for {}",
                own.epoch.0, own.shard.0, meant.epoch.0
            );
            stage.wrong("reigns", None, text);
        }
    }

    /// A reign takes something that an edge has said over this link. `begins`: it attaches.
    pub(super) fn hears(&mut self, stage: &Stage, link: u64, (home, closings): (Home, u64), begins: bool) {
        if begins {
            self.attached.insert((link, home.shard), (home, closings));
        }
        if self.attached.get(&(link, home.shard)) != Some(&(home, closings)) {
            let text = format!(
                "reign {} of shard {} takes what an edge says that has not attached since it was refused",
                home.epoch.0, home.shard.0
            );
            stage.wrong("reigns", None, text);
        }
    }

    /// It does not.
    pub(super) fn refuses(&mut self, link: u64, shard: Shard) {
        self.attached.remove(&(link, shard));
    }

    /// A link has ended.
    pub(super) fn forgets(&mut self, link: u64) {
        self.attached.retain(|(own, _), _| *own != link);
    }
}
