//! What goes through between nodes, as rules of nftables on the bridge.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt::Write as _;

use super::{Place, Sandbox};

/// The state of all links. Each direction has its own.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Links {
    cuts: BTreeSet<(Place, Place)>,
    losses: BTreeMap<(Place, Place), u8>,
}

impl Links {
    /// Lets nothing through from one node to another.
    pub fn cut_one_way(&mut self, from: Place, to: Place) -> &mut Self {
        self.cuts.insert((from, to));
        self
    }

    /// Lets nothing through between two nodes.
    pub fn cut(&mut self, one: Place, other: Place) -> &mut Self {
        self.cut_one_way(one, other).cut_one_way(other, one)
    }

    /// Lets nothing through between any of these and any of those.
    pub fn part(&mut self, these: &[Place], those: &[Place]) -> &mut Self {
        for one in these {
            for other in those.iter().filter(|other| *other != one) {
                self.cut(*one, *other);
            }
        }
        self
    }

    /// Loses so many of a hundred packets from one node to another, 99 at most.
    pub fn lose(&mut self, from: Place, to: Place, percent: u8) -> &mut Self {
        self.losses.insert((from, to), percent.min(99));
        self
    }

    /// Loses so many of a hundred packets between any two of these.
    pub fn lose_among(&mut self, places: &[Place], percent: u8) -> &mut Self {
        for from in places {
            for to in places.iter().filter(|to| *to != from) {
                self.lose(*from, *to, percent);
            }
        }
        self
    }

    /// Whether everything goes through.
    pub fn are_good(&self) -> bool {
        self.cuts.is_empty() && self.losses.is_empty()
    }

    pub(super) fn rules(&self, sandbox: &Sandbox) -> String {
        let mut rules = String::from(
            "table bridge links\ndelete table bridge links\ntable bridge links {\n chain forward {\n  \
             type filter hook forward priority 0\n",
        );
        let mut rule = |(from, to): (Place, Place), which: &str| {
            let [from, to] = [from, to].map(|place| sandbox.address(place));
            // Writing to a string cannot fail.
            let _ = writeln!(rules, "  ip saddr {from} ip daddr {to}{which} counter drop");
        };
        self.cuts.iter().for_each(|pair| rule(*pair, ""));
        self.losses.iter().for_each(|(pair, n)| rule(*pair, &format!(" numgen random mod 100 < {n}")));
        rules.push_str(" }\n}\n");
        rules
    }
}
