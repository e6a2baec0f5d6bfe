//! Reads of the tail of an account's log, which a decision waits for.

use crate::decide;
use crate::home::{Home, Read};
use crate::msg::{Msg, Ticket};
use crate::recognise::{self, Recent};
use crate::shared::Shared;
use crate::turn::Turn;
use starling_store::{Position, SharedStore};
use starling_wire::{ToHome, Up};

/// Whether the tail of the log must be read before this message can be decided.
pub(crate) fn is_needed(turn: &Turn, home: &mut Home, msg: &Msg) -> bool {
    let (sender, end) = match msg {
        Msg::Edge(ToHome { account, up: Up::Stanza { stanza, fault: None, .. }, .. }) => {
            if !stanza.is_message() {
                return false;
            }
            match home.earlier(stanza, turn.monotonic, &turn.shared) {
                Some(earlier) if earlier.kept => return false,
                Some(earlier) => (account, earlier.at),
                None if decide::message::may_repeat(turn, home, stanza) => {
                    (account, home.lost_until(&turn.shared))
                }
                None => return false,
            }
        }
        Msg::Forward(forward) => match &forward.ticket {
            Some(Ticket { again: Some(end), sender, .. }) => (sender, *end),
            _ => return false,
        },
        _ => return false,
    };
    if home.recent.as_ref().is_some_and(|recent| recent.covers_sender(sender, end, turn.shared.began)) {
        return false;
    }
    if home.last == Position(0) {
        // There never was a row.
        home.recent = Some(Recent::empty(end));
        return false;
    }
    home.reading = Some((sender.clone(), end));
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
