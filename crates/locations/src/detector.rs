//! When to elect: a failure detector on the links, and the vote before the vote that openraft 0.9 lacks.
//!
//! openraft's own timers find a dead leader after 450 to 675 ms. The links know earlier, but who campaigns must not
//! break the promise that he has given the leader. Timers stay on as the fallback, except at a router that could only
//! disturb: one that is cut off, or whose neighbours hear the leader well.

use crate::lease::{Configs, GRANTED, is_quorum};
use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

/// A leader's router that has said nothing for so long is dead, link or no link: at the least.
pub const SILENCE: Duration = Duration::from_millis(300);
/// How much longer than the promise a voter waits.
const MARGIN: Duration = Duration::from_millis(25);
/// How long each voter leaves to those before it.
const RANK: Duration = Duration::from_millis(60);

/// How soon to look again what others hear.
const AGAIN: Duration = Duration::from_millis(10);

/// What a voter sees of one group.
#[derive(Debug, Clone, Copy)]
pub struct Sight<'a> {
    /// The moment.
    pub now: Duration,
    /// This router.
    pub own: u64,
    /// The group's number; it decides who goes first.
    pub group: u16,
    /// Whom the last committed vote names.
    pub leader: Option<u64>,
    /// Who votes.
    pub configs: &'a Configs,
    /// The routers whose links are up.
    pub linked: &'a BTreeSet<u64>,
    /// Those of them that have lately told what they hear, and when.
    pub telling: &'a BTreeMap<u64, Duration>,
    /// When entries or a heartbeat of this leader were last taken.
    pub taken: Duration,
    /// When anything was last heard of the leader's router, or its link came up.
    pub heard: Duration,
    /// How long a silence of the leader's router is borne while its link is up.
    pub patience: Duration,
    /// Before this moment silence proves nothing: this router was away itself.
    pub fair: Duration,
    /// Whether a linked router hears the leader, as far as it has said.
    pub heard_elsewhere: bool,
    /// Whether this voter has already campaigned against this leader.
    pub campaigned: bool,
}

/// What to do about it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Verdict {
    /// Look again at this moment, or when a link changes.
    Wait(Duration),
    /// Nothing until a link or the leader changes.
    Rest,
    /// Campaign, once.
    Elect,
}

/// Judges whether this voter is to campaign against the leader.
pub fn judge(sight: &Sight<'_>) -> Verdict {
    let votes = |id: u64| sight.configs.iter().any(|voters| voters.contains(&id));
    let Some(leader) = sight.leader.filter(|leader| *leader != sight.own) else {
        return Verdict::Rest;
    };
    if sight.campaigned || !votes(sight.own) {
        return Verdict::Rest;
    }
    // What it has promised the leader comes first, whatever the links say.
    let promised = sight.taken + GRANTED + MARGIN;
    let (dead, since) = if sight.linked.contains(&leader) {
        let silent = (sight.heard + sight.patience).max(sight.fair);
        if sight.now < silent {
            return Verdict::Wait(silent);
        }
        (promised.max(silent), sight.heard + sight.patience / 2)
    } else {
        (promised, Duration::ZERO)
    };
    // Links that carry nothing stay up for seconds: whoever has not heard a quorum while the leader was silent is the one who
    // is cut off.
    let told = |id: u64| sight.telling.get(&id).is_some_and(|told| *told >= since);
    if !is_quorum(sight.configs, |id| id == sight.own || (id != leader && told(id))) {
        return Verdict::Rest;
    }
    let present = |id: u64| id == sight.own || (id != leader && sight.linked.contains(&id));
    let live: Vec<u64> = voters(sight.configs).into_iter().filter(|id| present(*id)).collect();
    let first = usize::from(sight.group) % live.len().max(1);
    let place = live.iter().position(|id| *id == sight.own).unwrap_or(0);
    let rank = (place + live.len() - first) % live.len().max(1);
    let due = dead + RANK * u32::try_from(rank).unwrap_or(u32::MAX);
    if sight.now < due {
        Verdict::Wait(due)
    } else if sight.heard_elsewhere {
        // It lives, and only the way to it is broken: nobody would give his vote, and the new term would end its reign.
        Verdict::Wait(sight.now + AGAIN)
    } else {
        Verdict::Elect
    }
}

/// Whether a router's own timers may elect: a quorum has lately told what it hears, and nobody who is linked hears the leader.
pub fn may_elect(own: u64, configs: &Configs, telling: &BTreeMap<u64, Duration>, heard_by_any: bool) -> bool {
    is_quorum(configs, |id| id == own || telling.contains_key(&id)) && !heard_by_any
}

/// All that vote, in one or the other set.
pub fn voters(configs: &[BTreeSet<u64>]) -> BTreeSet<u64> {
    configs.iter().flatten().copied().collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    const fn ms(ms: u64) -> Duration {
        Duration::from_millis(ms)
    }

    fn set(ids: &[u64]) -> BTreeSet<u64> {
        ids.iter().copied().collect()
    }

    /// These have told at this moment.
    fn told(ids: &[u64], at: u64) -> BTreeMap<u64, Duration> {
        ids.iter().map(|id| (*id, ms(at))).collect()
    }

    fn sight<'a>(
        configs: &'a Configs,
        linked: &'a BTreeSet<u64>,
        telling: &'a BTreeMap<u64, Duration>,
        now: u64,
    ) -> Sight<'a> {
        let (taken, heard) = (ms(1000), ms(1010));
        let now = ms(now);
        Sight {
            now,
            own: 2,
            group: 0,
            leader: Some(1),
            configs,
            linked,
            telling,
            taken,
            heard,
            patience: SILENCE,
            fair: Duration::ZERO,
            heard_elsewhere: false,
            campaigned: false,
        }
    }

    #[test]
    fn a_closed_link_is_believed_when_the_promise_is_over() {
        let (configs, linked, telling) = (vec![set(&[1, 2, 3])], set(&[3]), told(&[3], 1300));
        assert_eq!(judge(&sight(&configs, &linked, &telling, 1001)), Verdict::Wait(ms(1325)));
        assert_eq!(judge(&sight(&configs, &linked, &telling, 1324)), Verdict::Wait(ms(1325)));
        assert_eq!(judge(&sight(&configs, &linked, &telling, 1325)), Verdict::Elect);
        let elsewhere = Sight { heard_elsewhere: true, ..sight(&configs, &linked, &telling, 1325) };
        assert_eq!(judge(&elsewhere), Verdict::Wait(ms(1335)), "only the way is broken");
        // Another group's first voter is another one.
        let second = Sight { group: 1, ..sight(&configs, &linked, &telling, 1325) };
        assert_eq!(judge(&second), Verdict::Wait(ms(1385)));
        let third = Sight {
            own: 3,
            linked: &set(&[2]),
            telling: &told(&[2], 1300),
            ..sight(&configs, &linked, &telling, 1325)
        };
        assert_eq!(judge(&third), Verdict::Wait(ms(1385)));
    }

    #[test]
    fn a_silent_router_is_dead_though_its_link_is_up() {
        let (configs, linked) = (vec![set(&[1, 2, 3])], set(&[1, 3]));
        let telling = told(&[3], 1300);
        assert_eq!(judge(&sight(&configs, &linked, &telling, 1200)), Verdict::Wait(ms(1310)));
        assert_eq!(judge(&sight(&configs, &linked, &telling, 1310)), Verdict::Wait(ms(1325)));
        assert_eq!(judge(&sight(&configs, &linked, &telling, 1325)), Verdict::Elect);
        let away = Sight { fair: ms(1400), ..sight(&configs, &linked, &telling, 1330) };
        assert_eq!(judge(&away), Verdict::Wait(ms(1400)), "it may have spoken to one who did not listen");
        let only = set(&[3]);
        assert_eq!(judge(&Sight { linked: &only, ..away }), Verdict::Elect, "a closed link is no silence");
        let slow = Sight { patience: ms(600), ..sight(&configs, &linked, &telling, 1400) };
        assert_eq!(judge(&slow), Verdict::Wait(ms(1610)));
        let heard = Sight { heard: ms(1290), ..sight(&configs, &linked, &telling, 1400) };
        assert_eq!(judge(&heard), Verdict::Wait(ms(1590)), "it lives; openraft's timers see to the rest");
    }

    #[test]
    fn who_cannot_win_or_has_tried_rests() {
        let (configs, linked, telling) = (vec![set(&[1, 2, 3])], set(&[3]), told(&[3], 2000));
        assert_eq!(judge(&sight(&configs, &set(&[]), &told(&[], 0), 2000)), Verdict::Rest, "no quorum");
        assert_eq!(
            judge(&Sight { campaigned: true, ..sight(&configs, &linked, &telling, 2000) }),
            Verdict::Rest
        );
        assert_eq!(judge(&Sight { leader: None, ..sight(&configs, &linked, &telling, 2000) }), Verdict::Rest);
        assert_eq!(
            judge(&Sight { leader: Some(2), ..sight(&configs, &linked, &telling, 2000) }),
            Verdict::Rest
        );
        assert_eq!(
            judge(&Sight { own: 4, ..sight(&configs, &linked, &telling, 2000) }),
            Verdict::Rest,
            "a learner"
        );
        let joint = vec![set(&[1, 2, 3]), set(&[2, 4, 5])];
        assert_eq!(judge(&sight(&joint, &linked, &telling, 2000)), Verdict::Rest, "half a quorum");
    }

    #[test]
    fn who_hears_nobody_does_not_campaign_though_links_are_up() {
        let (configs, linked) = (vec![set(&[1, 2, 3])], set(&[1, 3]));
        // The other one was heard a pulse later than the leader, and nothing since.
        for now in [1330, 1500, 3000] {
            assert_eq!(judge(&sight(&configs, &linked, &told(&[], 0), now)), Verdict::Rest);
            assert_eq!(judge(&sight(&configs, &linked, &told(&[3], 1085), now)), Verdict::Rest);
        }
        assert_eq!(judge(&sight(&configs, &linked, &told(&[3], 1160), 1330)), Verdict::Elect);
        assert_eq!(judge(&sight(&configs, &set(&[3]), &told(&[], 0), 1330)), Verdict::Rest);
        assert_eq!(judge(&sight(&configs, &set(&[3]), &told(&[3], 1085), 1330)), Verdict::Elect, "closed");
    }

    proptest! {
        /// Nobody campaigns while he has promised not to, and of a group's voters one is first.
        #[test]
        fn no_promise_is_broken(
            linked in prop::collection::btree_set(1u64..6, 0..6),
            (taken, heard, now) in (0u64..2000, 0u64..2000, 0u64..3000),
            (own, group) in (1u64..6, 0u16..20),
        ) {
            let configs = vec![set(&[1, 2, 3, 4, 5])];
            let sight = Sight {
                now: ms(now), own, group, leader: Some(1), configs: &configs, linked: &linked,
                telling: &linked.iter().map(|id| (*id, ms(now))).collect(), taken: ms(taken), heard: ms(heard), patience: SILENCE, fair: Duration::ZERO,
                heard_elsewhere: false, campaigned: false,
            };
            match judge(&sight) {
                Verdict::Elect => prop_assert!(now > taken + 300 && (!linked.contains(&1) || now >= heard + 300)),
                Verdict::Wait(again) => prop_assert!(again > ms(now), "it must not spin"),
                Verdict::Rest => {}
            }
        }

        #[test]
        fn of_all_voters_exactly_one_goes_first(group in 0u16..50) {
            let configs = vec![set(&[1, 2, 3, 4, 5])];
            let first = (2u64..6).filter(|own| {
                let linked = set(&[2, 3, 4, 5].into_iter().filter(|id| id != own).collect::<Vec<_>>());
                let sight = Sight {
                    now: ms(1325), own: *own, group, leader: Some(1), configs: &configs, linked: &linked,
                    telling: &linked.iter().map(|id| (*id, ms(1300))).collect(), taken: ms(1000), heard: ms(0), patience: SILENCE, fair: Duration::ZERO,
                    heard_elsewhere: false, campaigned: false,
                };
                judge(&sight) == Verdict::Elect
            });
            prop_assert_eq!(first.count(), 1);
        }
    }

    #[test]
    fn timers_elect_only_where_it_helps() {
        let configs = vec![set(&[1, 2, 3])];
        let (other, nobody) = (told(&[3], 0), told(&[], 0));
        assert!(may_elect(2, &configs, &other, false));
        assert!(!may_elect(2, &configs, &nobody, false), "cut off");
        assert!(!may_elect(2, &configs, &other, true), "the other one hears the leader");
        assert!(!may_elect(2, &Vec::new(), &told(&[1, 3], 0), false), "nothing to elect");
    }
}
