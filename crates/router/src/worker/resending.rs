//! What goes again to homes of other shards, and sessions that have ended and wait for their answers.

use super::*;
use crate::requests;
use starling_wire::{Shard, Token};

/// How long a session that has ended waits for them: nobody is told any more what became of its messages.
const PARTED: Duration = Duration::from_secs(60);
/// How many of an account do.
const MAX_PARTED: usize = 16;

impl Worker {
    /// Sends again what has had no receipt for long.
    pub(super) fn resend(&mut self, turn: &Turn, account: &BareJid) {
        self.sending.remove(account);
        let Some(Slot::Ready(home)) = self.homes.get_mut(account) else { return };
        home.resend_timer = false;
        let before = turn.monotonic.saturating_sub(pairs::PATIENCE);
        for (token, to) in unanswered(home, before) {
            pairs::send_again(&self.shared, home, token, &to, None);
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
            for (token, to) in unanswered(home, turn.monotonic) {
                if self.shared.elsewhere(&to) == Some(shard) {
                    pairs::send_again(&self.shared, home, token, &to, None);
                }
            }
            self.touch(&account);
        }
        for account in self.requesting.accounts() {
            if let Some(Slot::Ready(home)) = self.homes.get_mut(&account)
                && home.requests.moved(shard, turn.monotonic)
            {
                self.timers.set(turn.monotonic + requests::PATIENCE, account, Why::Request);
            }
        }
    }

    /// Tells sessions that have asked something of which nobody may know any more.
    pub(super) fn give_up_requests(&mut self, turn: &Turn, account: &BareJid) {
        let Some(Slot::Ready(home)) = self.homes.get_mut(account) else { return };
        let mut out = Out { shared: &self.shared, downs: &mut self.downs, reads: &mut self.asked };
        while let Some((token, request)) = home.requests.lost(turn.monotonic) {
            let error = decide::message::not_confirmed();
            requests::note(home, token);
            if let Some(answer) = decide::error_to(home, token, &request, &error) {
                delivery::answer(&mut out, home, (token, 0), answer, None);
            }
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
        if pairs::is_news(home, token, recipient, turn.monotonic) {
            pairs::send_again(&self.shared, home, token, recipient, after);
        }
    }

    /// The recipient's home had no room for this one.
    pub(super) fn full(&mut self, turn: &Turn, account: &BareJid, token: Token, recipient: &BareJid) {
        let Some(Slot::Ready(home)) = self.homes.get_mut(account) else { return };
        let Some(link) = home.sender(token) else { return };
        for (_, message) in link.waiting_for(recipient) {
            if let Some(sent) = &mut message.sent {
                sent.at = (turn.monotonic + pairs::ROOM).saturating_sub(pairs::PATIENCE);
            }
        }
        self.timers.set(turn.monotonic + pairs::ROOM, account.clone(), Why::Resend);
    }

    /// Lets sessions go that have ended, and have their answers or have waited long enough.
    pub(super) fn part(&mut self, now: Duration, account: &BareJid) {
        let Some(Slot::Ready(home)) = self.homes.get_mut(account) else { return };
        let mut parted = std::mem::take(&mut home.parted);
        let surplus = parted.len().saturating_sub(MAX_PARTED);
        for (index, (since, link)) in parted.drain(..).enumerate() {
            // What is decided and has not left yet has to know of what was lost before it.
            let waits = if link.mute { link.has_to_leave() } else { link.waits_for_others() };
            if waits && now < since + PARTED && index >= surplus {
                home.parted.push_back((since, link));
                continue;
            }
            let holders = session::ended(home, &link).into_iter();
            self.downs.extend(holders.map(|conn| ToEdge { conn, down: Down::Released }));
            if let Some(jid) = link.far.and_then(|far| far.parted) {
                self.unbinding.push(LocationOp::Unbind { jid, token: link.token });
            }
        }
        if let Some((since, _)) = home.parted.front()
            && !std::mem::replace(&mut home.parted_timer, true)
        {
            self.timers.set(*since + PARTED, account.clone(), Why::Parted);
        }
    }
}

/// Which sessions have sent what there, by this moment, that has no answer; those that are over first.
fn unanswered(home: &Home, by: Duration) -> Vec<(Token, BareJid)> {
    let parted = home.parted.iter().map(|(_, link)| link).filter(|link| !link.is_past());
    let all = parted.chain(&home.links);
    all.flat_map(|link| link.unanswered(by).into_iter().map(|to| (link.token, to))).collect()
}
