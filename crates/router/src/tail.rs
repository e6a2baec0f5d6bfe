//! Reads of an account's log that a decision waits for: its tail, and how much of it waits for a device.

use crate::decide;
use crate::home::{Home, Read, Waiting};
use crate::msg::{Msg, Ticket};
use crate::recognise::{self, Recent};
use crate::shared::Shared;
use crate::turn::Turn;
use starling_store::{LogFilter, Page, Position, SharedStore, StoreError};
use starling_wire::{ToHome, Up};
use starling_xmpp::BareJid;

/// How many rows are in memory at once when what waits is counted.
const COUNTED: usize = 200;

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

/// Counts what waits for an account's devices, up to its limits.
pub(crate) fn count_waiting(shared: &Shared, home: &Home) -> Read {
    let (store, account) = (SharedStore::clone(&shared.store), home.account.jid.clone());
    let most = (shared.config.offline_messages, shared.config.offline_bytes);
    let above = home.deliveries.waiting_above();
    Box::pin(async move {
        let waiting = count(&store, &account, above, most).await;
        Msg::Waiting { account, waiting }
    })
}

async fn count(
    store: &SharedStore,
    account: &BareJid,
    mut above: Option<Position>,
    (messages, bytes): (usize, u64),
) -> Result<Waiting, StoreError> {
    let mut waiting = Waiting::default();
    loop {
        let filter = LogFilter { offline: true, above, ..LogFilter::default() };
        let page = store.log_page(account, filter, Page::First(COUNTED)).await?;
        waiting.messages += page.rows.len();
        waiting.bytes += page.rows.iter().map(|row| row.stanza.len() as u64).sum::<u64>();
        let next = page.reached.or_else(|| page.rows.last().map(|row| row.position));
        if page.complete || next.is_none() || waiting.messages >= messages || waiting.bytes >= bytes {
            return Ok(waiting);
        }
        above = next;
    }
}
