//! What goes again to homes of other shards.

use super::*;
use starling_wire::{Shard, Token};

impl Worker {
    /// Sends again what has had no receipt for long.
    pub(super) fn resend(&mut self, turn: &Turn, account: &BareJid) {
        self.sending.remove(account);
        let Some(Slot::Ready(home)) = self.homes.get_mut(account) else { return };
        home.resend_timer = false;
        let before = turn.monotonic.saturating_sub(pairs::PATIENCE);
        for at in 0..home.links.len() {
            for to in home.links[at].unanswered(before) {
                pairs::send_again(&self.shared, home, at, &to, None);
            }
        }
        // The next look is set with it.
        home.touched = true;
    }

    /// The home of a shard is another one, or is back.
    pub(super) fn shard_moved(&mut self, turn: &Turn, shard: Shard) {
        let mut sending: Vec<_> = self.sending.iter().cloned().collect();
        sending.sort_unstable();
        for account in sending {
            let Some(Slot::Ready(home)) = self.homes.get_mut(&account) else { continue };
            for at in 0..home.links.len() {
                for to in home.links[at].unanswered(turn.monotonic) {
                    if self.shared.elsewhere(&to) == Some(shard) {
                        pairs::send_again(&self.shared, home, at, &to, None);
                    }
                }
            }
            self.touch(&account);
        }
    }

    /// The recipient's home has not seen what came after this one.
    pub(super) fn missing(
        &mut self,
        turn: &Turn,
        account: &BareJid,
        token: Token,
        recipient: &BareJid,
        after: Option<u64>,
    ) {
        let Some(Slot::Ready(home)) = self.homes.get_mut(account) else { return };
        if let Some(at) = home.find(token)
            && pairs::is_news(home, at, recipient, turn.monotonic)
        {
            pairs::send_again(&self.shared, home, at, recipient, after);
        }
    }

    /// The recipient's home had no room for this one.
    pub(super) fn full(&mut self, turn: &Turn, account: &BareJid, token: Token, recipient: &BareJid) {
        let Some(Slot::Ready(home)) = self.homes.get_mut(account) else { return };
        let Some(at) = home.find(token) else { return };
        for (_, message) in home.links[at].waiting_for(recipient) {
            if let Some(sent) = &mut message.sent {
                sent.at = (turn.monotonic + pairs::ROOM).saturating_sub(pairs::PATIENCE);
            }
        }
        self.timers.set(turn.monotonic + pairs::ROOM, account.clone(), Why::Resend);
    }
}
