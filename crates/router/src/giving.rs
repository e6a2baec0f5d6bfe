//! What only this home has of a session goes to the edge that keeps it, before its shard is moved on purpose.

use crate::delivery::{Out, push, send_so_many, too_much};
use crate::home::Home;
use crate::notes;
use crate::session::remember;
use starling_node::config::MOST_GIVEN;
use starling_node::telemetry::metrics::Limit;
use starling_store::Position;
use starling_wire::{Down, ToEdge};
use std::time::Duration;

/// The home is about to be another one: what waits here for a session goes to the edge that keeps it, though it takes no more or its
/// client reads nothing.
pub(crate) fn give_away(out: &mut Out<'_>, home: &mut Home, at: usize) {
    let Some(keeper) = home.links[at].keeper() else { return };
    let most = MOST_GIVEN * out.shared.config.max_unacked_bytes;
    while home.links[at].is_below(most)
        && let Some(stanza) = home.links[at].held.take()
    {
        push(out, home, at, stanza, None, None);
    }
    while home.links[at].is_below(most)
        && let Some((stanza, trace)) = home.links[at].feed.behind.take(Position(u64::MAX))
    {
        push(out, home, at, stanza, None, trace);
    }
    if home.links[at].held.exceeds(0, 0) || home.links[at].feed.behind.exceeds(0, 0) {
        // Its client has read nothing for several homes. It is to come back, and will have missed something.
        out.shared.metrics.limits.at(Limit::SmUnacked).inc();
        out.downs.push(ToEdge { conn: keeper, down: Down::Close(Some(Box::new(too_much()))) });
    }
    home.touched = true;
    let link = &mut home.links[at];
    let there = link.conn == Some(keeper);
    let Some(far) = &mut link.far else { return };
    // What has changed goes there now, too.
    far.rests = Duration::ZERO;
    if !there {
        // Nothing has gone there since it lost its client. Answers are worth nothing to the next home without what follows from
        // them.
        let told = far.told;
        if std::mem::take(&mut far.news) {
            let notes = notes::encode(&home.account.sessions[at], &home.links[at]);
            out.downs.push(ToEdge { conn: keeper, down: Down::Remember(notes) });
        }
        let link = &home.links[at];
        out.downs.extend(link.queued(told).map(|down| ToEdge { conn: keeper, down }));
    } else if let Some(sent) = far.gone {
        let whole = far.whole;
        send_so_many(out, home, at, sent, usize::MAX);
        if !whole {
            remember(out, home, at);
        }
    }
}
