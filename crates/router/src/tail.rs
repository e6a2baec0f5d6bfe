//! Reads of the tail of an account's log, which a decision waits for.

use crate::decide;
use crate::home::{Home, Read};
use crate::msg::{Msg, Ticket};
use crate::recognise::{self, Recent};
use crate::shared::Shared;
use crate::turn::Turn;
use starling_store::{Position, SharedStore};
use starling_wire::{ToHome, Up};
use starling_xmpp::BareJid;
use std::time::Duration;

/// Whether the tail of the log must be read before this message can be decided.
pub(crate) fn is_needed(turn: &Turn, home: &mut Home, msg: &Msg) -> bool {
    let (sender, end) = match msg {
        Msg::Edge(ToHome { account, conn, up: Up::Stanza { sequence, stanza, fault: None, again, .. } }) => {
            if !stanza.is_message() {
                return false;
            }
            let taken = home.says(*conn).is_none_or(|at| home.links[at].has_taken(*sequence));
            let began = turn.shared.began;
            if *again && !taken && !home.recent.as_ref().is_some_and(|recent| recent.covers(began)) {
                return read_first(home, account.clone(), began);
            }
            match home.earlier(stanza, turn.monotonic, &turn.shared) {
                Some(earlier) if earlier.kept => return false,
                Some(earlier) => (account, home.refused.latest().unwrap_or(earlier.at)),
                None if decide::message::may_repeat(turn, home, stanza) => {
                    (account, home.lost_until(&turn.shared))
                }
                None => return false,
            }
        }
        Msg::Forward(forward) => match &forward.ticket {
            Some(ticket) if ticket.repeated => {
                let since = home.heard.unknown_before();
                if !home.recent.as_ref().is_some_and(|recent| recent.covers(since)) {
                    return read_first(home, ticket.sender.clone(), since);
                }
                match ticket.again {
                    Some(end) => (&ticket.sender, end),
                    None => return false,
                }
            }
            Some(Ticket { again: Some(end), sender, .. }) => (sender, *end),
            _ => return false,
        },
        _ => return false,
    };
    // What a home of another shard had on its way is so still, however young this one is.
    let far = turn.shared.elsewhere(sender).is_some();
    let began = if far { Duration::ZERO } else { turn.shared.began };
    if home.recent.as_ref().is_some_and(|recent| recent.covers_sender(sender, end, began)) {
        return false;
    }
    let sender = sender.clone();
    read_first(home, sender, end)
}

/// Whether it must be read for a sender whose messages may have been decided up to this end of their session.
fn read_first(home: &mut Home, sender: BareJid, end: Duration) -> bool {
    if home.last == Position(0) {
        // There never was a row.
        home.recent = Some(Recent::empty(end));
        return false;
    }
    home.reading = Some((sender, end));
    true
}

/// Reads it.
pub(crate) fn read(shared: &Shared, home: &mut Home) -> Read {
    home.tails += 1;
    let number = home.tails;
    let (store, account) = (SharedStore::clone(&shared.store), home.account.jid.clone());
    let window = shared.config.resume_timeout + recognise::GRACE;
    let through = shared.clock.monotonic();
    Box::pin(async move {
        let tail = recognise::read_tail(store, account.clone(), window, through).await;
        Msg::Tail { account, number, tail }
    })
}
