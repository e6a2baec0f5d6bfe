//! What a run was made of. A run in which little happens proves little.

use std::collections::HashSet;
use std::fmt;

use crate::history::{History, What};

/// Counts over all logs.
#[derive(Clone, Debug, Default)]
pub struct Summary {
    sent: usize,
    sent_again: usize,
    acknowledged: usize,
    refused: usize,
    given_up: usize,
    seen: usize,
    seen_again: usize,
    copied: usize,
    sessions: usize,
    resumed: usize,
    not_resumed: usize,
    rows: usize,
}

impl Summary {
    /// Counts a history.
    pub fn of(history: &History) -> Self {
        let mut sum = Self { rows: history.archives.iter().map(|a| a.rows.len()).sum(), ..Self::default() };
        let mut known = HashSet::new();
        for event in history.logs.iter().flat_map(|l| &l.events) {
            let count = match &event.what {
                What::Sent(_) => &mut sum.sent,
                What::SentAgain(_) => &mut sum.sent_again,
                What::Acknowledged(_) => &mut sum.acknowledged,
                What::Refused { .. } => &mut sum.refused,
                What::GivenUp(_) => &mut sum.given_up,
                What::Seen(sighting) if known.insert(&sighting.origin) => &mut sum.seen,
                What::Seen(_) => &mut sum.seen_again,
                What::Copied(_) => &mut sum.copied,
                What::Opened => &mut sum.sessions,
                What::Resumed => &mut sum.resumed,
                What::NotResumed { .. } => &mut sum.not_resumed,
                What::Copying | What::Settled | What::Fault(_) | What::Remark(_) => continue,
            };
            *count += 1;
        }
        sum
    }

    /// Why a run with this many kills says too little, if it does.
    pub fn too_idle(&self, kills: u32) -> Option<String> {
        let kills = kills as usize;
        let floors = [
            ("messages acknowledged", self.acknowledged, 20 * kills),
            ("messages sent again", self.sent_again, 2 * kills),
            ("messages seen again", self.seen_again, kills),
            ("copies", self.copied, 5 * kills),
            ("sessions resumed", self.resumed, kills / 8),
        ];
        let low = floors.into_iter().find(|(_, is, least)| is < least);
        if let Some((what, is, least)) = low {
            return Some(format!("too little happened: {is} {what}, at least {least} are needed"));
        }
        // An error promises nothing, so a server must not get away with errors.
        (self.refused > self.acknowledged / 50).then(|| format!("{} messages were refused", self.refused))
    }
}

impl Summary {
    /// Why a run with this many faults of a cluster says too little, if it does. That sessions are resumed is the point.
    /// So many were refused as they have to be.
    pub fn too_idle_for(&self, faults: usize, due: usize) -> Option<String> {
        let floors = [
            ("messages acknowledged", self.acknowledged, 20 * faults),
            ("copies", self.copied, 2 * faults),
            ("sessions resumed", self.resumed, 2 * faults),
        ];
        let low = floors.into_iter().find(|(_, is, least)| is < least);
        if let Some((what, is, least)) = low {
            return Some(format!("too little happened: {is} {what}, at least {least} are needed"));
        }
        // An error promises nothing, so a cluster must not get away with errors; with faults all the time, on a machine that
        // is too busy for leases, there are some.
        let refused = self.refused.saturating_sub(due);
        (refused > self.acknowledged / 5).then(|| format!("{refused} messages were refused"))
    }
}

impl fmt::Display for Summary {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(
            f,
            "{} messages sent, {} acknowledged, {} sent again, {} given up, {} refused; {} seen, {} seen again, {} \
             copied; {} new sessions, {} resumed, {} not taken back; {} rows",
            self.sent,
            self.acknowledged,
            self.sent_again,
            self.given_up,
            self.refused,
            self.seen,
            self.seen_again,
            self.copied,
            self.sessions,
            self.resumed,
            self.not_resumed,
            self.rows
        )
    }
}
