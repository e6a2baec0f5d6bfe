//! Who would not have a link with this process, and why: a process whose settings do not go with those of the others is to end
//! with that reason, and not to wait for ever.

use parking_lot::Mutex;
use starling_setup::Obstacle;
use starling_wire::net::End;
use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::time::Duration;

/// What was last heard of those who are no link.
#[derive(Debug, Default)]
pub(crate) struct Refusals(Mutex<BTreeMap<SocketAddr, Trouble>>);

#[derive(Debug, Clone)]
struct Trouble {
    end: End,
    /// The same kind of trouble since then.
    since: Duration,
    last: Duration,
}

/// It is tried again every two seconds at least: what is older than this is over.
const FRESH: Duration = Duration::from_secs(6);
/// So many addresses are remembered.
const MOST: usize = 256;

impl Refusals {
    /// An attempt was in vain.
    pub(crate) fn note(&self, address: SocketAddr, end: &End, now: Duration) {
        let mut all = self.0.lock();
        if all.len() >= MOST && !all.contains_key(&address) {
            all.retain(|_, trouble| now < trouble.last + FRESH);
            if all.len() >= MOST {
                return;
            }
        }
        let is_refusal = |end: &End| matches!(end, End::Refused(_));
        let before = all
            .get(&address)
            .filter(|before| now < before.last + FRESH && is_refusal(&before.end) == is_refusal(end));
        let since = before.map_or(now, |before| before.since);
        all.insert(address, Trouble { end: end.clone(), since, last: now });
    }

    /// Who has refused all that time, and why.
    pub(crate) fn standing(&self, for_so_long: Duration, now: Duration) -> Option<(SocketAddr, String)> {
        let all = self.0.lock();
        all.iter().find_map(|(address, trouble)| match &trouble.end {
            End::Refused(why) if now < trouble.last + FRESH && now >= trouble.since + for_so_long => {
                Some((*address, why.clone()))
            }
            _ => None,
        })
    }

    /// All that is wrong at present, in one line.
    pub(crate) fn told(&self, now: Duration) -> String {
        let all = self.0.lock();
        let fresh = all.iter().filter(|(_, trouble)| now < trouble.last + FRESH);
        fresh.map(|(address, trouble)| format!("{address}: {}", trouble.end)).collect::<Vec<_>>().join("; ")
    }
}

/// What a process says at its end that nobody would have.
pub(crate) fn refused(who: &str, (address, why): (SocketAddr, String)) -> Obstacle {
    Obstacle::new(format!("the routers of the cluster refuse this {who}")).at(address).because(why).advise(
        "`cluster.name`, `cluster.shards`, `cluster.tls.ca` and the version are to be the same for all processes, and `cluster.node` another one for each router",
    )
}

/// The same of a router whose place is another one's, who lives.
pub(crate) fn kept_out(name: &str) -> Obstacle {
    Obstacle::new("the routers of the cluster refuse this router")
        .because(format!("another router is called {name:?} already, and lives"))
        .advise(
            "each needs a `cluster.node` of its own; to take the place of the other one, end that one first",
        )
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_refusal_that_stays_is_told_and_one_that_passed_is_not() {
        let refusals = Refusals::default();
        let (one, two) = ("10.0.0.1:1".parse().unwrap(), "10.0.0.2:1".parse().unwrap());
        let at = Duration::from_secs;
        let no = End::Refused("shards".to_owned());
        refusals.note(one, &no, at(1));
        refusals.note(two, &End::Lost("away".to_owned()), at(1));
        assert_eq!(refusals.standing(at(5), at(4)), None, "not for so long");
        refusals.note(one, &no, at(5));
        assert_eq!(refusals.standing(at(5), at(6)), Some((one, "shards".to_owned())));
        assert_eq!(refusals.told(at(6)), "10.0.0.1:1: refused: shards; 10.0.0.2:1: lost: away");
        refusals.note(one, &End::Lost("away".to_owned()), at(7));
        assert_eq!(refusals.standing(at(5), at(7)), None, "it is another trouble now");
        refusals.note(one, &no, at(8));
        assert_eq!(refusals.standing(at(5), at(10)), None, "it begins anew");
        assert_eq!(refusals.standing(at(1), at(20)), None, "it is not tried any more");
        assert!(refusals.told(at(20)).is_empty());
    }
}
