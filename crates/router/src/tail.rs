//! Reads of the tail of an account's log, which a decision waits for.

use crate::act::origin;
use crate::decide;
use crate::home::{Home, Read};
use crate::msg::Msg;
use crate::reads;
use crate::recognise::{self, Fingerprint, Recent};
use crate::shared::Shared;
use crate::turn::Turn;
use starling_store::{Position, SharedStore};
use starling_wire::{ToHome, Up};
use starling_xmpp::Jid;

/// Whether the tail of the log must be read before this message can be decided.
pub(crate) fn is_needed(turn: &Turn, home: &mut Home, msg: &Msg) -> bool {
    let shared = &turn.shared;
    let needed = match msg {
        Msg::Edge(ToHome { account, conn, up: Up::Stanza { sequence, stanza, fault: None, again, .. } }) => {
            if !stanza.is_message() {
                return false;
            }
            let at = home.says(*conn);
            let taken = at.is_none_or(|at| home.links[at].has_taken(*sequence));
            let again = *again || at.is_some_and(|at| home.links[at].may_be_again(*sequence));
            if again && !taken && !home.recent.as_ref().is_some_and(|recent| recent.covers(shared.began)) {
                return read_first(turn, home);
            }
            let earlier = home.earlier(stanza, turn.monotonic, shared);
            let own = at.map(|at| origin(home.links[at].token, *sequence));
            let origin = match (earlier, own) {
                (Some(earlier), _) if earlier.kept => return false,
                (Some(earlier), _) => earlier.origin,
                (None, Some(own)) if decide::message::may_repeat(turn, home, stanza) => own,
                (None, _) => return false,
            };
            let with = stanza.to.as_ref().map_or_else(|| account.clone(), Jid::to_bare);
            let before = at.map_or(0, |at| home.links[at].before);
            home.may_have(origin, Fingerprint::of(account, &with, stanza).as_ref(), before, shared)
        }
        Msg::Forward(forward) => {
            let Some(ticket) = &forward.ticket else { return false };
            let moment = home.heard.unknown_before();
            let covers = |recent: &Recent| recent.covers(moment);
            if ticket.repeated && !home.recent.as_ref().is_some_and(covers) {
                return read_first(turn, home);
            }
            if ticket.again.is_none() {
                return false;
            }
            let message = Fingerprint::of(&ticket.sender, &home.account.jid, &forward.stanza);
            home.may_have(ticket.origin, message.as_ref(), ticket.before, shared)
        }
        _ => false,
    };
    needed && read_first(turn, home)
}

/// Whether there is anything to be read.
fn read_first(turn: &Turn, home: &mut Home) -> bool {
    home.since.begins();
    if home.last == Position(0) {
        // There never was a row.
        home.since.ends();
        home.recent = Some(Recent::empty(turn.monotonic));
        return false;
    }
    home.reading = true;
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
        let tail = reads::caught(recognise::read_tail(store, account.clone(), window, through)).await;
        Msg::Tail { account, number, tail }
    })
}
