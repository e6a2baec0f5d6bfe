//! The shard is about to be moved on purpose: what only this home has goes to where the next one finds it.
//!
//! What it has said to sessions is kept by their edges until it is acknowledged, so what waits here for a session goes there
//! too. What has come and is not decided goes on to the next home, unless whoever said it keeps it and says it again. And edges
//! are told how far each session has come: otherwise the next home would take for half done what nobody has looked at.

use super::*;
use crate::giving;
use crate::mail;
use tokio::sync::oneshot;

impl Worker {
    /// Gives away all that the next home cannot know otherwise, and takes nothing more.
    pub(super) fn leave(&mut self, turn: &Turn, done: oneshot::Sender<()>) {
        self.left = true;
        self.partings.push(done);
        for account in self.accounts() {
            self.guard(&account, |worker| worker.give_away(turn, &account));
            // Of a whole shard that would be much at once.
            self.shared.edge.deliver(&mut self.downs);
            self.downs.clear();
        }
        for account in self.attaching.late.accounts() {
            for forward in self.attaching.late.take(&account) {
                self.pass_on(*forward);
            }
        }
    }

    /// It was not moved after all.
    pub(super) fn stay(&mut self) {
        self.left = false;
    }

    /// What comes after that. `Some`: it is of this home.
    pub(super) fn comes_late(&mut self, msg: Msg) -> Option<Msg> {
        match msg {
            Msg::Forward(forward) => self.pass_on(*forward),
            // It says it again to whoever is home then.
            Msg::Edge(_) => {}
            msg => return Some(msg),
        }
        None
    }

    /// A stanza that nobody has decided on and nobody says again goes to the next home. Whoever says it again is to do so soon:
    /// should this home stay, it is no news to anybody.
    fn pass_on(&self, mut forward: Forward) {
        if pairs::is_put_off(&self.shared, &forward) {
            return;
        }
        if let (None, Some(tier)) = (&forward.ticket, &self.shared.tier) {
            forward.hops += 1;
            // Its sender may say something newer to that one first.
            forward.passed = true;
            tier.post.send(tier.shard, mail::forward(&self.shared, tier.shard, forward));
        }
    }

    /// The same of one account.
    fn give_away(&mut self, turn: &Turn, account: &BareJid) {
        let waiting = match self.homes.get_mut(account) {
            Some(Slot::Ready(home)) => home.paused.take(),
            Some(Slot::Loading(line, _)) => line.take(),
            Some(Slot::Parked(_)) | None => VecDeque::new(),
        };
        for held in waiting {
            // Administration is told that nobody knows.
            drop(self.comes_late(held.msg));
        }
        let unsure = self.attaching.unsure.get(account).into_iter().flat_map(|unsure| &unsure.parked);
        let parked = match self.homes.get_mut(account) {
            Some(Slot::Ready(home)) => home.opening.as_ref().map_or(&[][..], |opening| &opening.parked),
            Some(Slot::Loading(_, parked) | Slot::Parked(parked)) => parked,
            None => &[],
        };
        for Parked { conn, record, .. } in parked.iter().chain(unsure) {
            // It was not built yet, and nothing of it taken.
            let down = Down::Decided { through: record.handled, open: Vec::new() };
            self.downs.push(ToEdge { conn: *conn, down });
        }
        let Some(Slot::Ready(home)) = self.homes.get_mut(account) else { return };
        let mut out = Out { shared: &self.shared, downs: &mut self.downs, reads: &mut self.asked };
        for at in 0..home.links.len() {
            giving::give_away(&mut out, home, at);
        }
        self.tell(turn.monotonic, account);
        let Some(Slot::Ready(home)) = self.homes.get_mut(account) else { return };
        for link in home.links.iter().chain(home.parted.iter().map(|(_, link)| link)) {
            if let Some((conn, (through, open))) = link.keeper().zip(link.decided()) {
                self.downs.push(ToEdge { conn, down: Down::Decided { through, open } });
            }
        }
    }
}
