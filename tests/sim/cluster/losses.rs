//! What a session may be lost with: its home together with the edge that it was at. Then, and only then, nobody has it.

use super::Cluster;
use starling_wire::{EdgeId, Shard};
use starling_xmpp::BareJid;
use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

/// How long a link has to last for a new home to have heard from an edge what it keeps.
const HEARD: Duration = Duration::from_secs(1);
/// How long a new home waits for an edge, less what links may take.
const WAITS: Duration = Duration::from_millis(4_500);

/// How long a home does not hear of an edge before it takes it for dead, less what links may take: from then on its sessions wait
/// for their clients as any that are detached.
const SILENT: Duration = Duration::from_secs(4);

/// A reign began, at that router.
struct Opening {
    shard: Shard,
    router: usize,
    at: Duration,
    /// Its router ended, or was killed.
    until: Option<Duration>,
}

/// An edge and a router heard each other all the time, over one link.
struct Span {
    link: u64,
    from: Duration,
    to: Duration,
    ended: bool,
}

/// When reigns began, and who heard whom.
#[derive(Default)]
pub(super) struct Losses {
    openings: Vec<Opening>,
    spans: BTreeMap<(EdgeId, usize), Vec<Span>>,
}

impl Losses {
    pub(super) fn opened(&mut self, shard: Shard, router: usize, at: Duration) {
        self.openings.push(Opening { shard, router, at, until: None });
    }

    fn ended(&mut self, router: usize, now: Duration) {
        for opening in self.openings.iter_mut().filter(|opening| opening.router == router) {
            opening.until.get_or_insert(now);
        }
    }

    fn see(&mut self, edge: EdgeId, router: usize, link: Option<u64>, now: Duration) {
        let spans = self.spans.entry((edge, router)).or_default();
        match (spans.last_mut(), link) {
            (Some(span), Some(link)) if span.link == link && !span.ended => span.to = now,
            (_, Some(link)) => spans.push(Span { link, from: now, to: now, ended: false }),
            (Some(span), None) => span.ended = true,
            (None, None) => {}
        }
    }

    /// When the reign of an opening was over, if that is known: at the next one, or when its router ended.
    fn end(opening: &Opening, next: Option<&Opening>, now: Duration) -> Duration {
        next.map_or(now, |next| next.at).min(opening.until.unwrap_or(now))
    }

    /// Whether a session of this shard that was at this edge from then on is somewhere in any case: every home since has had the
    /// time to hear of it there, or none to take the edge for dead.
    fn keeps(&self, edge: EdgeId, since: Duration, shard: Shard, now: Duration) -> bool {
        let mut openings =
            self.openings.iter().filter(|opening| opening.shard == shard && opening.at >= since);
        let mut next = openings.next();
        while let Some(opening) = next {
            next = openings.next();
            let end = Self::end(opening, next, now);
            let heard = |span: &Span| {
                let from = span.from.max(opening.at);
                span.to.min(end) >= from + HEARD && from + HEARD <= opening.at + WAITS
            };
            let spans = self.spans.get(&(edge, opening.router));
            let any = |is: &dyn Fn(&Span) -> bool| spans.is_some_and(|spans| spans.iter().any(is));
            if end > opening.at + WAITS && !any(&heard) {
                return false;
            }
            // One that begins waits for all that it does not take for dead yet.
            if next.is_none() && now <= opening.at + WAITS && !any(&|span| span.to + WAITS >= now) {
                return false;
            }
        }
        true
    }

    /// Whether some home heard nothing of this edge for so long since then.
    fn has_been_silent(
        &self,
        edge: EdgeId,
        since: Duration,
        shard: Shard,
        now: Duration,
        long: Duration,
    ) -> bool {
        let mut openings = self.openings.iter().filter(|opening| opening.shard == shard).peekable();
        while let Some(opening) = openings.next() {
            let end = Self::end(opening, openings.peek().copied(), now);
            let mut heard = opening.at.max(since);
            for span in self.spans.get(&(edge, opening.router)).into_iter().flatten() {
                if span.from.min(end).saturating_sub(heard) >= long {
                    return true;
                }
                heard = heard.max(span.to);
            }
            if end.saturating_sub(heard) >= long {
                return true;
            }
        }
        false
    }
}

impl Cluster {
    /// Notes who hears whom.
    pub(super) fn keep_losses(self: &Arc<Self>) {
        let now = self.stage.world.now();
        for router in self.routers().iter().filter(|router| !router.is_alive()) {
            self.losses.lock().ended(router.index, now);
        }
        for tip in self.tips() {
            for router in self.routers() {
                let link =
                    (tip.runs() && router.runs()).then(|| self.link_of(tip.id, router.index)).flatten();
                self.losses.lock().see(tip.id, router.index, link, now);
            }
        }
    }

    /// Whether an account's session that was at this edge is to be had.
    pub(super) fn keeps(&self, edge: EdgeId, since: Duration, account: &BareJid) -> bool {
        let (losses, shard, now) = (self.losses.lock(), self.shards.of(account), self.stage.world.now());
        let long = SILENT + self.stage.plan.resume_timeout;
        losses.keeps(edge, since, shard, now) && !losses.has_been_silent(edge, since, shard, now, long)
    }
}
