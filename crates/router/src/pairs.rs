//! The order of what one session sends to one account of another shard, over lost links and moved homes: go-back-N.
//!
//! The sender's home keeps each message until its receipt; each names the one before it that has none. What was sent and not
//! answered goes again, all of its pair in order. The recipient's home decides each once ([`crate::heard`]).

use crate::decide;
use crate::heard::Verdict;
use crate::home::Home;
use crate::link::Sent;
use crate::mail;
use crate::msg::{Forward, Pairing, Ticket};
use crate::shared::Shared;
use starling_wire::frame::PeerItem;
use starling_wire::{Token, Trace};
use starling_xmpp::{BareJid, Stanza};
use std::hash::BuildHasher;
use std::time::Duration;

/// How long to wait for a receipt before all of the pair goes again.
pub(crate) const PATIENCE: Duration = Duration::from_secs(5);
/// How soon after the recipient's home said that it has no room.
pub(crate) const ROOM: Duration = Duration::from_millis(500);
/// What goes again because it was missed does so once in this time: word of one gap comes many times.
const ONCE: Duration = Duration::from_millis(20);

/// A message of a session goes to the home of another shard: what it is to be known by there. False: it does not, or not yet: one
/// before it is lost, and its client, who is back, says both again; or it waits for those of the session before.
pub(crate) fn leaves(
    shared: &Shared,
    home: &mut Home,
    ticket: &mut Ticket,
    to: &BareJid,
    trace: Option<Trace>,
) -> bool {
    if !home.parted.is_empty() && shared.elsewhere(to).is_some() {
        go_before(shared, home, ticket.token, to);
    }
    let (waits, holds) = (is_behind(home, ticket.token, to), home.holds);
    let Some(link) = home.sender(ticket.token) else { return true };
    if shared.elsewhere(to).is_none() {
        ticket.heard = link.refused_there(to);
        return true;
    }
    let prev = link.unreceipted(to, ticket.sequence);
    if link.is_past() && (prev.is_some() || link.refused_there(to) > 0) {
        // Nor does what follows: the one before may have its receipt by then, and this one would be overtaken.
        link.leaves_out(to, ticket.sequence);
        home.touched = true;
        return false;
    }
    ticket.pair = Some(Pairing { prev });
    let (at, resent) = (shared.clock.monotonic(), ticket.again);
    let held = waits || (holds && link.held().contains(to));
    let (before, gone) = (ticket.before, !held || ticket.repeated);
    let sent = Sent { to: to.clone(), at, again: None, resent, before, held, gone, trace };
    link.sends(ticket.sequence, sent);
    home.holds |= held;
    home.touched = true;
    !held
}

/// What the session before this one has sent there and may be lost goes before what this one sends.
fn go_before(shared: &Shared, home: &mut Home, token: Token, to: &BareJid) {
    for token in home.before(token).map(|link| link.token).collect::<Vec<_>>() {
        if is_news(home, token, to, shared.clock.monotonic()) {
            send_again(shared, home, token, to, None);
        }
    }
}

/// Whether the session that its address had before has sent something there that has no receipt: should that be lost on its way,
/// what this one sends is not to come before it (promise 4).
fn is_behind(home: &Home, token: Token, to: &BareJid) -> bool {
    !home.parted.is_empty() && home.before(token).any(|link| link.unreceipted(to, u64::MAX).is_some())
}

/// Sends what was held until the sessions before had their receipts.
pub(crate) fn go_on(shared: &Shared, home: &mut Home) {
    if !std::mem::take(&mut home.holds) {
        return;
    }
    let parted = home.parted.iter().map(|(_, link)| link).filter(|link| !link.is_past());
    let all = parted.chain(&home.links);
    let held: Vec<_> = all.flat_map(|link| link.held().into_iter().map(|to| (link.token, to))).collect();
    for (token, to) in held {
        send_again(shared, home, token, &to, None);
    }
}

/// Sends again what a session has sent there after this sequence and has no receipt for; what is held goes on waiting, or goes.
pub(crate) fn send_again(shared: &Shared, home: &mut Home, token: Token, to: &BareJid, after: Option<u64>) {
    let (now, sender) = (shared.clock.monotonic(), home.account.jid.clone());
    let waits = is_behind(home, token, to);
    home.holds |= waits;
    let Some(link) = home.sender(token) else { return };
    if waits {
        // It is looked at again as soon as something of this account changes, and after this time.
        link.waiting_for(to).filter_map(|(_, message)| message.sent.as_mut()).for_each(|sent| {
            (sent.at, sent.held) = (now, true);
        });
        return;
    }
    let mut prev = after.and_then(|after| link.unreceipted(to, after.saturating_add(1)));
    let mut forwards = Vec::new();
    for (sequence, message) in link.waiting_for(to) {
        if after.is_some_and(|after| sequence <= after) {
            continue;
        }
        let Some(sent) = &mut message.sent else { continue };
        (sent.at, sent.again, sent.held) = (now, Some(now), false);
        let pair = Some(Pairing { prev });
        let (origin, sender, again) = (message.origin, sender.clone(), sent.resent);
        let (repeated, heard, before) = (std::mem::replace(&mut sent.gone, true), 0, sent.before);
        let ticket = Some(Ticket { origin, sender, token, sequence, again, repeated, pair, heard, before });
        let (stanza, trace) = (message.stanza.clone(), sent.trace);
        forwards.push(Forward { account: to.clone(), stanza, ticket, hops: 1, trace, passed: false });
        prev = Some(sequence);
    }
    for forward in forwards {
        shared.forward(forward);
    }
    home.touched = true;
}

/// Whether word of a gap is news: what it asks for has not gone again just now.
pub(crate) fn is_news(home: &mut Home, token: Token, to: &BareJid, now: Duration) -> bool {
    let Some(link) = home.sender(token).filter(|link| !link.is_past()) else { return false };
    let first = link.waiting_for(to).next().and_then(|(_, message)| message.sent.as_ref());
    first.is_some_and(|sent| sent.again.is_none_or(|again| again + ONCE <= now))
}

/// A stanza of another shard has come, and the home can decide: whether it is to. If not, whoever sent it has been told.
pub(crate) fn is_new(shared: &Shared, home: &mut Home, forward: &Forward) -> bool {
    let Some(ticket) = &forward.ticket else { return true };
    let Some(pair) = ticket.pair else { return true };
    match home.heard.verdict(ticket.token, ticket.sequence, pair.prev, ticket.repeated) {
        Verdict::Decide => return true,
        Verdict::UnderWay => {}
        Verdict::Done => crate::route::receipt(shared, &home.account.jid, ticket, None),
        Verdict::Gap(after) => {
            say(shared, &home.account.jid, ticket, |pair| PeerItem::Missing(Box::new(pair), after))
        }
    }
    false
}

/// There is no room for a stanza of another shard now; false where it is to be refused instead.
pub(crate) fn is_put_off(shared: &Shared, forward: &Forward) -> bool {
    let Some(ticket) = forward.ticket.as_ref().filter(|ticket| ticket.pair.is_some()) else { return false };
    say(shared, &forward.account, ticket, |pair| PeerItem::Busy(Box::new(pair), ticket.sequence));
    true
}

fn say(
    shared: &Shared,
    own: &BareJid,
    ticket: &Ticket,
    item: impl FnOnce(starling_wire::frame::Pair) -> PeerItem,
) {
    if let (Some(shard), Some(tier)) = (shared.elsewhere(&ticket.sender), &shared.tier) {
        tier.post.send(shard, item(mail::pair(shard, own, ticket)));
    }
}

/// The stanza is decided now.
pub(crate) fn decides(turn: &crate::turn::Turn, home: &mut Home, forward: &Forward) {
    if let Some(ticket) = forward.ticket.as_ref().filter(|ticket| ticket.pair.is_some()) {
        home.heard.decides(ticket.token, ticket.sequence, turn.monotonic);
    }
}

/// Whether it was decided before as one that no log keeps, and its client says it again to another home of its own.
pub(crate) fn is_unkept(shared: &Shared, home: &mut Home, ticket: &Ticket, stanza: &Stanza) -> bool {
    if ticket.pair.is_none() || !ticket.before.is_unheard() {
        return false;
    }
    let hash = shared.hasher.hash_one(ticket.message(&home.account.jid, stanza));
    home.heard.had_unkept(ticket.token, ticket.before.unheard, hash)
}

/// It is done with, and no log keeps it.
pub(crate) fn keeps_nothing(shared: &Shared, home: &mut Home, ticket: &Ticket, stanza: &Stanza) {
    if ticket.pair.is_some() {
        let hash = shared.hasher.hash_one(ticket.message(&home.account.jid, stanza));
        home.heard.is_unkept(ticket.token, ticket.sequence, hash);
    }
}

/// It is done with; its receipt goes out.
pub(crate) fn done(
    shared: &Shared,
    home: &mut Home,
    ticket: &Ticket,
    error: Option<&starling_xmpp::StanzaError>,
) {
    if ticket.pair.is_some() {
        let unsure = error.is_some_and(|error| error.condition == decide::message::not_confirmed().condition);
        let now = shared.clock.monotonic();
        home.heard.done(ticket.token, ticket.sequence, error.is_some(), unsure, now);
        if unsure {
            // What was read before may lack its row, though it was read at this very moment.
            home.recent = None;
        }
    }
}
