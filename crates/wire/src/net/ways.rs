//! By which addresses routers are reached. Where two lead to one router, one of them rests: a link by either ends the one by the
//! other, and they would take turns for ever.

use crate::{Incarnation, RouterId};
use parking_lot::Mutex;
use std::collections::HashMap;
use std::net::SocketAddr;
use tokio::sync::Notify;

/// One life of a router's process. The next may be found elsewhere, and somebody else where it was.
pub(super) type Life = (RouterId, Incarnation);

/// So many addresses are remembered that led somewhere; then it begins anew.
const MOST_LED: usize = 1_024;

/// What is known of the routers that are linked for one purpose.
#[derive(Debug, Default)]
pub(super) struct Ways {
    known: Mutex<Known>,
    /// A link is over.
    over: Notify,
}

#[derive(Debug, Default)]
struct Known {
    /// By which address a router is linked.
    present: HashMap<RouterId, (Incarnation, SocketAddr)>,
    /// Where an address led last.
    led: HashMap<SocketAddr, Life>,
}

impl Known {
    fn otherwise(&self, address: SocketAddr, (router, life): Life) -> bool {
        self.present.get(&router).is_some_and(|(linked, by)| *linked == life && *by != address)
    }
}

impl Ways {
    /// Waits while the address is known to lead to a router that is linked by another one: to dial it would end that link.
    pub(super) async fn rest(&self, address: SocketAddr) {
        loop {
            let over = self.over.notified();
            if !self.is_linked_otherwise(address) {
                return;
            }
            over.await;
        }
    }

    fn is_linked_otherwise(&self, address: SocketAddr) -> bool {
        let known = self.known.lock();
        known.led.get(&address).is_some_and(|life| known.otherwise(address, *life))
    }

    /// A link stands.
    pub(super) fn linked(&self, address: SocketAddr, router: RouterId, life: Incarnation) {
        let mut known = self.known.lock();
        if known.led.len() >= MOST_LED {
            known.led.clear();
        }
        known.led.insert(address, (router, life));
        known.present.insert(router, (life, address));
        // Another life of it: who waited for the one before need not.
        self.over.notify_waiters();
    }

    /// It is over. Whether the router is linked by another address.
    pub(super) fn ended(&self, address: SocketAddr, router: RouterId, life: Incarnation) -> bool {
        let mut known = self.known.lock();
        if known.present.get(&router) == Some(&(life, address)) {
            known.present.remove(&router);
            self.over.notify_waiters();
        }
        known.otherwise(address, (router, life))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_address_rests_while_another_leads_to_the_same_life_of_a_router() {
        let at = |port| SocketAddr::from(([127, 0, 0, 1], port));
        let (one, first, next) = (RouterId(1), Incarnation(7), Incarnation(8));
        let ways = Ways::default();
        assert!(!ways.is_linked_otherwise(at(1)));
        ways.linked(at(1), one, first);
        assert!(!ways.is_linked_otherwise(at(1)) && !ways.is_linked_otherwise(at(2)));
        ways.linked(at(2), one, first);
        assert!(ways.ended(at(1), one, first), "the second one took its place");
        assert!(ways.is_linked_otherwise(at(1)) && !ways.is_linked_otherwise(at(2)));
        assert!(!ways.ended(at(2), one, first));
        assert!(!ways.is_linked_otherwise(at(1)), "nothing would be ended");
        // It comes back elsewhere; whoever has its old addresses now is somebody else.
        ways.linked(at(3), one, next);
        assert!(!ways.is_linked_otherwise(at(1)) && !ways.is_linked_otherwise(at(2)));
    }

    #[tokio::test]
    async fn whoever_rests_goes_on_as_soon_as_the_other_is_over() {
        let at = |port| SocketAddr::from(([127, 0, 0, 1], port));
        let (one, life) = (RouterId(1), Incarnation(7));
        let ways = Ways::default();
        ways.linked(at(1), one, life);
        ways.linked(at(2), one, life);
        let mut rests = std::pin::pin!(ways.rest(at(1)));
        assert!(futures::poll!(rests.as_mut()).is_pending());
        ways.ended(at(2), one, life);
        rests.await;
        ways.rest(at(2)).await;
    }
}
