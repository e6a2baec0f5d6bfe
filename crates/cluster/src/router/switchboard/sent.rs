//! Presence and requests on their way to other routers, of which their senders keep nothing: a link that breaks takes with it what
//! waited for it, and whatever the network had taken, though both homes live on.
//!
//! Both sides count them, from the beginning of the younger process on. When a link is made anew its answer says how many have
//! come, so what did not goes once more, before anything newer and never twice.

use super::lobby::PATIENCE;
use parking_lot::Mutex;
use starling_wire::frame::{Forward, PeerHello, PeerItem};
use starling_wire::net::Outlet;
use starling_wire::{Incarnation, RouterId};
use std::collections::{HashMap, VecDeque};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

/// How many of one router are kept, and their bytes: the last ones. That is a fraction of a second of much presence.
const MOST: usize = 4_096;
const MOST_BYTES: usize = 8 << 20;
/// The most routers. Each life of a disk is one.
const ROUTERS: usize = 1_024;

/// To all routers.
#[derive(Debug, Default)]
pub(super) struct Sent(Mutex<HashMap<RouterId, Line>>);

/// To one.
#[derive(Debug, Default)]
struct Line {
    life: Option<Incarnation>,
    /// How many were sent to that life.
    count: u64,
    last: VecDeque<Box<Forward>>,
    bytes: usize,
    /// Since when there is no link.
    lost: Option<Duration>,
}

impl Line {
    fn keep(&mut self, forward: Box<Forward>) {
        self.count += 1;
        self.bytes += forward.stanza.encoded_len();
        self.last.push_back(forward);
        while self.last.len() > MOST || self.bytes > MOST_BYTES {
            let Some(first) = self.last.pop_front() else { return };
            self.bytes -= first.stanza.encoded_len();
        }
    }
}

impl Sent {
    /// Sends one. False, and nothing was sent: the link is over, or much waits there already. One client may cause much of that,
    /// and is not to end a link that others need.
    pub(super) fn hand(&self, to: RouterId, outlet: &Outlet<PeerItem>, forward: Box<Forward>) -> bool {
        // As they go, so they are counted.
        let mut lines = self.0.lock();
        if outlet.is_pressed() || !outlet.push(PeerItem::Forward(forward.clone())) {
            return false;
        }
        lines.entry(to).or_default().keep(forward);
        true
    }

    /// The link to a router is over.
    pub(super) fn lost(&self, to: RouterId, now: Duration) {
        self.0.lock().entry(to).or_default().lost = Some(now);
    }

    /// What was for routers that have had no link for too long is given up, with its memory: they may be gone for ever.
    pub(super) fn clear_out(&self, now: Duration) {
        for line in self.0.lock().values_mut() {
            if line.lost.is_some_and(|since| now >= since + PATIENCE) {
                (line.last, line.bytes) = (VecDeque::new(), 0);
            }
        }
    }

    /// There is a new one, over which nothing has gone yet: what the one before has not brought does. Returns how many nobody has
    /// any more, though that router lives on.
    pub(super) fn again(&self, peer: &PeerHello, outlet: &Outlet<PeerItem>, now: Duration) -> u64 {
        let mut lines = self.0.lock();
        if lines.len() >= ROUTERS {
            lines.retain(|_, line| line.lost.is_none());
        }
        let line = lines.entry(peer.router).or_default();
        let same = line.life.replace(peer.incarnation) == Some(peer.incarnation);
        // Who does not say it is older than this, or heard nothing of this process.
        let missing = peer.heard.filter(|_| same).map_or(0, |heard| line.count.saturating_sub(heard));
        let fresh = Line { life: line.life, count: peer.heard.unwrap_or(0), ..Line::default() };
        let Line { last, lost, .. } = std::mem::replace(line, fresh);
        let mut gone = missing;
        if lost.is_none_or(|since| now >= since + PATIENCE) {
            return gone;
        }
        let had = last.len().saturating_sub(usize::try_from(missing).unwrap_or(usize::MAX));
        for forward in last.into_iter().skip(had) {
            if outlet.push(PeerItem::Forward(forward.clone())) {
                line.keep(forward);
                gone -= 1;
            }
        }
        gone
    }
}

/// How many have come of each router, in its present life.
#[derive(Debug, Default)]
pub(super) struct Heard(Mutex<HashMap<RouterId, (Incarnation, Arc<AtomicU64>)>>);

impl Heard {
    /// What counts them over a link that begins.
    pub(super) fn of(&self, peer: &PeerHello) -> Arc<AtomicU64> {
        let mut all = self.0.lock();
        if all.len() >= ROUTERS {
            all.clear();
        }
        let (life, count) = all.entry(peer.router).or_insert_with(|| (peer.incarnation, Arc::default()));
        if *life != peer.incarnation {
            (*life, *count) = (peer.incarnation, Arc::default());
        }
        Arc::clone(count)
    }

    /// How many.
    pub(super) fn count(&self, of: RouterId) -> Option<u64> {
        self.0.lock().get(&of).map(|(_, count)| count.load(Ordering::Relaxed))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use starling_wire::frame::{Home, Version};
    use starling_wire::{Epoch, Shard, Shards};
    use starling_xmpp::{BareJid, PresenceType, Stanza};

    const TO: RouterId = RouterId(2);

    fn forward(number: usize) -> Box<Forward> {
        let mut stanza = Stanza::presence(PresenceType::Subscribe);
        stanza.id = Some(number.to_string().as_str().into());
        let account = BareJid::parse("bob@localhost").unwrap();
        let home = Home { shard: Shard(1), epoch: Epoch(1) };
        Box::new(Forward { home, account, stanza, ticket: None, hops: 0, trace: None, passed: false })
    }

    fn hello(life: u64, heard: Option<u64>) -> PeerHello {
        PeerHello {
            version: Version::own("test", Shards::default()),
            router: TO,
            name: "other".to_owned(),
            incarnation: Incarnation(life),
            homes: Vec::new(),
            notes: bytes::Bytes::new(),
            heard,
        }
    }

    fn kept(sent: &Sent) -> Vec<usize> {
        let lines = sent.0.lock();
        let all = lines.get(&TO).unwrap().last.iter();
        all.map(|forward| forward.stanza.id.as_ref().unwrap().parse().unwrap()).collect()
    }

    /// So many have gone over a link that is lost after ten seconds.
    fn broken(many: usize) -> Sent {
        let (sent, outlet) = (Sent::default(), Outlet::new(64 << 20));
        assert_eq!(sent.again(&hello(1, Some(0)), &outlet, Duration::ZERO), 0);
        assert!((1..=many).all(|number| sent.hand(TO, &outlet, forward(number))));
        sent.lost(TO, Duration::from_secs(10));
        sent
    }

    #[test]
    fn what_did_not_come_goes_again_in_order_and_nothing_else() {
        let (sent, outlet, now) = (broken(5), Outlet::new(1 << 20), Duration::from_secs(11));
        assert_eq!(sent.again(&hello(1, Some(3)), &outlet, now), 0);
        assert_eq!((kept(&sent), outlet.waiting() > 0), (vec![4, 5], true));
        assert!(sent.hand(TO, &outlet, forward(6)));
        // It breaks once more: one of these three has come.
        sent.lost(TO, now);
        assert_eq!(sent.again(&hello(1, Some(4)), &Outlet::new(1 << 20), now), 0);
        assert_eq!(kept(&sent), [5, 6]);
        sent.lost(TO, now);
        let outlet = Outlet::new(1 << 20);
        assert_eq!(sent.again(&hello(1, Some(6)), &outlet, now), 0);
        assert_eq!((kept(&sent), outlet.waiting()), (vec![], 0), "all of it has come");
    }

    #[test]
    fn what_is_given_up_is_counted() {
        let (outlet, soon) = (Outlet::new(64 << 20), Duration::from_secs(11));
        let late = Duration::from_secs(10) + PATIENCE;
        assert_eq!(broken(5).again(&hello(1, Some(3)), &outlet, late), 2, "too long ago");
        assert_eq!(broken(MOST + 9).again(&hello(1, Some(4)), &outlet, soon), 5, "too many");
        outlet.close(starling_wire::net::End::Closed);
        assert_eq!(broken(5).again(&hello(1, Some(3)), &outlet, soon), 2, "gone again");
    }

    #[test]
    fn what_was_for_a_router_that_is_gone_does_not_stay() {
        let (sent, late) = (broken(5), Duration::from_secs(10) + PATIENCE);
        sent.clear_out(late - Duration::from_millis(1));
        assert_eq!(kept(&sent).len(), 5);
        sent.clear_out(late);
        assert_eq!(kept(&sent).len(), 0);
        assert_eq!(sent.0.lock().get(&TO).unwrap().bytes, 0);
        assert_eq!(sent.again(&hello(1, Some(3)), &Outlet::new(1 << 20), late), 2, "and that is counted");
    }

    #[test]
    fn who_does_not_know_of_it_is_sent_nothing_again() {
        let outlet = Outlet::new(1 << 20);
        for other in [hello(2, Some(0)), hello(1, None), hello(1, Some(99))] {
            let sent = broken(5);
            assert_eq!(sent.again(&other, &outlet, Duration::from_secs(11)), 0);
            assert_eq!((kept(&sent), outlet.waiting()), (vec![], 0));
        }
    }

    #[test]
    fn a_life_is_counted_from_its_beginning() {
        let heard = Heard::default();
        assert_eq!(heard.count(TO), None);
        heard.of(&hello(1, None)).fetch_add(3, Ordering::Relaxed);
        heard.of(&hello(1, None)).fetch_add(1, Ordering::Relaxed);
        assert_eq!(heard.count(TO), Some(4));
        heard.of(&hello(2, None));
        assert_eq!(heard.count(TO), Some(0));
    }
}
