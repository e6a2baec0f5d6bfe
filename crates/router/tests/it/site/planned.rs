//! Shards are moved on purpose.

use super::{ROUTER, Site};
use futures::FutureExt;
use futures::future::BoxFuture;
use starling_node::Clock;
use starling_wire::Shard;
use starling_wire::uplink::LinkId;

impl Site {
    /// The shard of this account moves to another router, after all that its home has begun has come to an end.
    pub(crate) fn hand_on(&mut self, account: &str) {
        self.begin_to_leave(account);
        self.end_to_leave(account);
    }

    /// Its home takes nothing more.
    pub(crate) fn begin_to_leave(&mut self, account: &str) {
        let shard = self.shard(account);
        self.wires.leaving.lock().push(shard);
    }

    /// It answers what it can, gives away the rest, and the next one begins.
    pub(crate) fn end_to_leave(&mut self, account: &str) {
        let shard = self.shard(account);
        self.leave(account);
        self.homes[usize::from(shard.0)] = None;
        self.wires.leaving.lock().retain(|other| *other != shard);
        self.begin(shard);
        self.run();
    }

    /// It could not be moved: the home goes on.
    pub(crate) fn leave_and_stay(&mut self, account: &str) {
        self.begin_to_leave(account);
        self.leave(account);
        let shard = self.shard(account);
        let home = self.homes[usize::from(shard.0)].as_ref().unwrap();
        home.door.stay();
        self.wires.leaving.lock().retain(|other| *other != shard);
        self.attach_again(shard);
        self.run();
    }

    fn leave(&mut self, account: &str) {
        let shard = self.shard(account);
        let door = self.homes[usize::from(shard.0)].as_ref().unwrap().door.clone();
        for _ in 0..2 {
            self.wait_for(door.flush());
        }
        self.wait_for(door.quiet());
        self.wait_for(door.leave());
    }

    /// Edges were told that it is closed, and that it takes again what comes.
    fn attach_again(&mut self, shard: Shard) {
        let Some(epoch) = self.homes[usize::from(shard.0)].as_ref().map(|home| home.epoch) else { return };
        let now = self.clock.monotonic();
        for edge in 0..self.edges.len() {
            let own = &mut self.edges[edge];
            let (id, Some(number)) = (own.id, own.link) else { continue };
            let mut out = Vec::new();
            let link = LinkId { router: ROUTER, number };
            own.seats[usize::from(shard.0)].not_home(link, epoch, None, now, &mut out);
            self.carry_out(id, out);
            self.announce(edge, shard);
        }
    }

    /// Lets all go on until this is done, or nothing is to do.
    fn wait_for(&mut self, mut what: BoxFuture<'static, ()>) {
        self.run();
        let _ = (&mut what).now_or_never();
    }
}
