//! Stanzas for shards that have no home at the moment: presence and requests, of which their senders keep nothing.
//!
//! A shard that moves has none for a fraction of a second. What is for it waits here in the order in which it came; what waits
//! too long is given up, and a request is answered.

use super::Switchboard;
use parking_lot::Mutex;
use starling_wire::chart::Way;
use starling_wire::frame::{Forward, PeerItem};
use starling_wire::{Epoch, Shard};
use starling_xmpp::{ErrorType, IqType, Kind, StanzaCondition, StanzaError};
use std::collections::{HashMap, VecDeque};
use std::time::Duration;

/// How many wait at most, and their bytes.
const MOST: usize = 4_096;
const MOST_BYTES: usize = 8 << 20;
/// How long.
pub(super) const PATIENCE: Duration = Duration::from_secs(5);

/// All that wait.
#[derive(Debug, Default)]
pub(super) struct Lobby(Mutex<Waiting>);

#[derive(Debug, Default)]
struct Waiting {
    shards: HashMap<Shard, Room>,
    count: usize,
    bytes: usize,
}

/// What waits for one shard. It is there until the last of it has gone: what comes meanwhile goes behind it.
#[derive(Debug, Default)]
struct Room {
    line: VecDeque<(Duration, Box<Forward>)>,
    /// Somebody is letting it go, one by one.
    leaving: bool,
}

impl Lobby {
    /// Whether anything waits for this shard.
    pub(super) fn has(&self, shard: Shard) -> bool {
        self.0.lock().shards.contains_key(&shard)
    }

    pub(super) fn is_empty(&self) -> bool {
        self.0.lock().shards.is_empty()
    }

    /// The shards for which something waits.
    fn shards(&self) -> Vec<Shard> {
        self.0.lock().shards.keys().copied().collect()
    }

    /// Keeps one that came last; gives it back where there is no room.
    pub(super) fn keep(
        &self,
        shard: Shard,
        forward: Box<Forward>,
        now: Duration,
    ) -> Result<(), Box<Forward>> {
        let mut waiting = self.0.lock();
        let size = forward.stanza.encoded_len();
        if waiting.count >= MOST || waiting.bytes + size > MOST_BYTES {
            return Err(forward);
        }
        waiting.count += 1;
        waiting.bytes += size;
        waiting.shards.entry(shard).or_default().line.push_back((now, forward));
        Ok(())
    }

    /// Begins to let go what waits for a shard. False: nothing does, or somebody else is about it.
    fn open(&self, shard: Shard) -> bool {
        let mut waiting = self.0.lock();
        waiting.shards.get_mut(&shard).is_some_and(|room| !std::mem::replace(&mut room.leaving, true))
    }

    /// Takes the next one, for whoever has [opened](Self::open) it; at the end all have gone.
    fn next(&self, shard: Shard) -> Option<(Duration, Box<Forward>)> {
        let mut waiting = self.0.lock();
        let Some(next) = waiting.shards.get_mut(&shard)?.line.pop_front() else {
            waiting.shards.remove(&shard);
            return None;
        };
        waiting.count -= 1;
        waiting.bytes -= next.1.stanza.encoded_len();
        Some(next)
    }

    /// This one, which was the first, could not go: it waits again, and so does what is behind it.
    fn close(&self, shard: Shard, first: (Duration, Box<Forward>)) {
        let mut waiting = self.0.lock();
        waiting.count += 1;
        waiting.bytes += first.1.stanza.encoded_len();
        let room = waiting.shards.entry(shard).or_default();
        room.line.push_front(first);
        room.leaving = false;
    }

    /// Takes what has waited too long.
    fn over(&self, now: Duration) -> Vec<Forward> {
        let mut waiting = self.0.lock();
        let mut over = Vec::new();
        for room in waiting.shards.values_mut() {
            while let Some((_, forward)) = room.line.pop_front_if(|(since, _)| now >= *since + PATIENCE) {
                over.push(*forward);
            }
        }
        waiting.shards.retain(|_, room| room.leaving || !room.line.is_empty());
        waiting.count -= over.len();
        waiting.bytes -= over.iter().map(|forward| forward.stanza.encoded_len()).sum::<usize>();
        over
    }
}

impl Switchboard {
    /// Whether the sender of this keeps nothing of it.
    pub(super) fn waits(item: &PeerItem) -> bool {
        matches!(item, PeerItem::Forward(forward) if forward.ticket.is_none())
    }

    /// Keeps it until its shard has a home. False: there is no room.
    pub(super) fn wait(&self, shard: Shard, item: PeerItem) -> bool {
        let PeerItem::Forward(forward) = item else { return false };
        let kept = self.lobby.keep(shard, forward, self.clock.monotonic()).is_ok();
        if !kept {
            self.figures.dropped("room", 1);
        }
        kept
    }

    /// These shards may have a home: what waits for it goes there.
    pub(super) fn let_in(&self, shards: &[Shard]) {
        for shard in shards.iter().filter(|shard| self.lobby.has(**shard)) {
            if matches!(self.chart.way(*shard), Way::Nowhere) || !self.lobby.open(*shard) {
                continue;
            }
            while let Some((since, forward)) = self.lobby.next(*shard) {
                if !self.pass_on(*shard, PeerItem::Forward(forward.clone())) {
                    self.lobby.close(*shard, (since, forward));
                    break;
                }
            }
        }
    }

    /// Lets go what can go by now, for a link that took no more may do so again and nobody says that, and gives up what has waited
    /// too long.
    pub(in crate::router) fn clear_out(&self) {
        self.let_in(&self.lobby.shards());
        let now = self.clock.monotonic();
        self.sent.clear_out(now);
        let over = self.lobby.over(now);
        self.figures.dropped("homeless", over.len() as u64);
        for mut forward in over {
            let Kind::Iq(IqType::Get | IqType::Set) = forward.stanza.kind else { continue };
            let error = StanzaError::new(StanzaCondition::ResourceConstraint)
                .with_type(ErrorType::Wait)
                .with_text("nobody serves that account now");
            let Some(answer) = forward.stanza.error(&error) else { continue };
            let Some(account) = answer.to.as_ref().map(|to| to.to_bare()) else { continue };
            let shard = self.own.shards.of(&account);
            forward.home.epoch = Epoch::default();
            forward.home.shard = shard;
            (forward.account, forward.stanza, forward.hops) = (account, answer, forward.hops + 1);
            self.pass_on(shard, PeerItem::Forward(Box::new(forward)));
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use starling_wire::frame::Home;
    use starling_xmpp::{BareJid, PresenceType, Stanza};

    fn forward(id: &str) -> Box<Forward> {
        let mut stanza = Stanza::presence(PresenceType::Subscribed);
        stanza.id = Some(id.into());
        let account = BareJid::parse("bob@localhost").unwrap();
        let home = Home { shard: Shard(1), epoch: Epoch(0) };
        Box::new(Forward { home, account, stanza, ticket: None, hops: 1, trace: None, passed: false })
    }

    #[test]
    fn what_waits_does_so_in_order_for_a_while_and_is_bounded() {
        let (lobby, secs) = (Lobby::default(), Duration::from_secs);
        for (at, id) in [(1, "a"), (2, "b"), (7, "c")] {
            assert!(lobby.keep(Shard(1), forward(id), secs(at)).is_ok());
        }
        let ids = |all: Vec<Forward>| -> Vec<String> {
            all.iter().map(|forward| forward.stanza.id.as_ref().unwrap().to_string()).collect()
        };
        assert_eq!(ids(lobby.over(secs(6))), ["a"]);
        assert!(lobby.has(Shard(1)) && !lobby.has(Shard(2)));
        assert!(lobby.open(Shard(1)));
        let all = std::iter::from_fn(|| lobby.next(Shard(1)));
        assert_eq!(ids(all.map(|(_, forward)| *forward).collect()), ["b", "c"]);
        assert!(!lobby.has(Shard(1)) && !lobby.open(Shard(1)));
        let kept = (0..MOST + 9).filter(|_| lobby.keep(Shard(2), forward("d"), secs(9)).is_ok()).count();
        assert_eq!(kept, MOST);
        assert_eq!(lobby.over(secs(14)).len(), MOST);
        let waiting = lobby.0.lock();
        assert_eq!((waiting.count, waiting.bytes), (0, 0));
    }

    #[test]
    fn what_comes_while_others_leave_goes_behind_them() {
        let (lobby, shard, secs) = (Lobby::default(), Shard(1), Duration::from_secs);
        let id = |next: Option<(Duration, Box<Forward>)>| next.unwrap().1.stanza.id.unwrap().to_string();
        for (at, id) in [(1, "a"), (2, "b")] {
            assert!(lobby.keep(shard, forward(id), secs(at)).is_ok());
        }
        assert!(lobby.open(shard));
        assert_eq!(id(lobby.next(shard)), "a");
        let second = lobby.next(shard).unwrap();
        assert!(lobby.has(shard), "the last one is on its way");
        assert!(lobby.over(secs(9)).is_empty() && lobby.has(shard));
        assert!(!lobby.open(shard), "one goes after the other");
        assert!(lobby.keep(shard, forward("c"), secs(3)).is_ok());
        // The home is gone again.
        lobby.close(shard, second);
        assert!(lobby.open(shard));
        assert_eq!([id(lobby.next(shard)), id(lobby.next(shard))], ["b", "c"]);
        assert!(lobby.next(shard).is_none() && !lobby.has(shard));
        let waiting = lobby.0.lock();
        assert_eq!((waiting.count, waiting.bytes), (0, 0));
    }
}
