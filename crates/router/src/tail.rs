//! Reads of the tail of an account's log, which a decision waits for.

use crate::act::origin;
use crate::decide;
use crate::home::{Home, Read};
use crate::msg::Msg;
use crate::reads;
use crate::recognise::{self, Fingerprint, Reach, Recent};
use crate::shared::Shared;
use crate::turn::Turn;
use starling_store::{Position, SharedStore};
use starling_wire::{ToHome, Up};
use starling_xmpp::{Jid, Stanza, ns};
use std::time::Duration;

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
            let reach = match at.map(|at| &home.links[at]) {
                Some(link) if link.echoes.is_none() || !may_be_recognised(stanza) => {
                    Reach::Session(link.token.0)
                }
                _ => Reach::Whole,
            };
            if again && !taken && !is_told(home, reach, shared.began) {
                return read_first(turn, home, reach);
            }
            let earlier = home.earlier(stanza, turn.monotonic, shared);
            let repeats = |at: &usize| decide::message::may_repeat(turn, home, *at, stanza);
            let origin = match (earlier, at.filter(repeats)) {
                (Some(earlier), _) if earlier.kept => return false,
                (Some(earlier), _) => earlier.origin,
                (None, Some(at)) => origin(home.links[at].token, *sequence),
                (None, None) => return false,
            };
            let with = stanza.to.as_ref().map_or_else(|| account.clone(), Jid::to_bare);
            let said = at.map(|at| {
                (home.links[at].token.0, decide::message::said_before(turn, home, at, *sequence, stanza))
            });
            let message = Fingerprint::of(account, &with, stanza);
            // It may have been refused in another session.
            let reach = if earlier.is_some() { Reach::Whole } else { reach };
            home.may_have(origin, message.as_ref(), said.unwrap_or_default(), reach, shared).then_some(reach)
        }
        Msg::Forward(forward) => {
            let Some(ticket) = &forward.ticket else { return false };
            let own = ticket.origin == ticket.said();
            let reach = if own && (ticket.again.is_none() || !may_be_recognised(&forward.stanza)) {
                Reach::Session(ticket.token.0)
            } else {
                Reach::Whole
            };
            if ticket.repeated && !is_told(home, reach, home.heard.unknown_before()) {
                return read_first(turn, home, reach);
            }
            if ticket.again.is_none() {
                // It may come after what its client has said again.
                let known = home.recent.as_ref().is_some_and(|recent| !recent.has(ticket.origin));
                let reach = Reach::Session(ticket.origin.session);
                return known
                    && home.since.has(ticket.origin, &shared.hasher)
                    && read_first(turn, home, reach);
            }
            let message = ticket.message(&home.account.jid, &forward.stanza);
            let said = (ticket.token.0, ticket.before);
            home.may_have(ticket.origin, Some(&message), said, reach, shared).then_some(reach)
        }
        _ => return false,
    };
    home.looked = true;
    needed.is_some_and(|reach| read_first(turn, home, reach))
}

/// Whether a message may be known by what it is, and not only by its origin.
fn may_be_recognised(stanza: &Stanza) -> bool {
    stanza.payload.has(ns::SID, "origin-id")
}

/// Whether what was read tells of all rows within this reach that were decided before this moment.
fn is_told(home: &Home, reach: Reach, moment: Duration) -> bool {
    home.recent.as_ref().is_some_and(|recent| recent.covers(moment) && recent.tells(reach))
}

/// Whether there is anything to be read.
fn read_first(turn: &Turn, home: &mut Home, reach: Reach) -> bool {
    home.since.begins();
    if home.last == Position(0) {
        // There never was a row.
        home.since.ends();
        home.recent = Some(Recent::empty(turn.monotonic));
        return false;
    }
    // One that has not reached far enough once is not to be read for each of many sessions.
    let short = home.recent.as_ref().is_some_and(|recent| !recent.tells(reach));
    home.reach = if short { Reach::Whole } else { reach };
    home.reading = true;
    true
}

/// Reads it.
pub(crate) fn read(shared: &Shared, home: &mut Home) -> Read {
    home.tails += 1;
    let number = home.tails;
    let (store, account) = (SharedStore::clone(&shared.store), home.account.jid.clone());
    let window = shared.config.resume_timeout + recognise::GRACE;
    let (reach, through) = (home.reach, shared.clock.monotonic());
    Box::pin(async move {
        let tail = reads::caught(recognise::read_tail(store, account.clone(), reach, window, through)).await;
        Msg::Tail { account, number, tail }
    })
}
