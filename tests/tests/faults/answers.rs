//! What clients were answered, and when: what the judge of histories does not look at.
//!
//! How soon a store that is back is used again is measured beside a client of our own, who asks it all the time: it is
//! back when it has answered us, and what we had to wait for our answers and for the disk then was not the server's to
//! hurry.

use std::collections::HashMap;
use std::time::Duration;

use anyhow::{Context, Result, ensure};
use starling_tests::history::{History, Log, Message, What};

use crate::pulse::{Beat, Pulse};

/// A store that is back is used again within this.
const USED_AGAIN: Duration = Duration::from_secs(2);
/// And every client is served again: it had to wait for its turn to write, and the store has much to catch up with.
const ALL_SERVED: Duration = Duration::from_secs(5);

/// How many stanzas of a session the server takes before it has handled them: behind that it does not read.
const CREDIT: usize = 64;

/// A message and its answer.
#[derive(Clone, Debug)]
pub(crate) struct Answer {
    pub(crate) client: String,
    pub(crate) origin: String,
    /// When it was sent, the last time.
    pub(crate) sent: Duration,
    /// When there was credit for it: the server need not have read it before.
    pub(crate) read: Duration,
    /// When the answer came.
    pub(crate) answered: Duration,
    /// The condition if it was refused; otherwise it was acknowledged.
    pub(crate) refused: Option<String>,
}

impl Answer {
    fn took(&self) -> Duration {
        self.answered.saturating_sub(self.sent)
    }

    /// How long the server took for it.
    pub(crate) fn waited(&self) -> Duration {
        self.answered.saturating_sub(self.read)
    }
}

/// All answers of a run.
pub(crate) struct Answers {
    /// Those that clients got, in the order in which they came.
    given: Vec<Answer>,
    /// Those that the store gave us.
    beats: Vec<Beat>,
    /// Those of the clock.
    ticks: Vec<Beat>,
    /// Those of the disk.
    syncs: Vec<Beat>,
}

impl Answers {
    pub(crate) fn of(history: &History, pulse: &Pulse) -> Self {
        let mut given: Vec<_> = history.logs.iter().flat_map(of_client).collect();
        given.sort_by_key(|answer| answer.answered);
        Self { given, beats: pulse.beats(), ticks: pulse.ticks(), syncs: pulse.syncs() }
    }

    /// The one that the server took longest for.
    pub(crate) fn slowest(&self) -> Option<&Answer> {
        self.given.iter().max_by_key(|answer| answer.waited())
    }

    /// The one that its sender waited for longest.
    pub(crate) fn patient(&self) -> Option<&Answer> {
        self.given.iter().max_by_key(|answer| answer.took())
    }

    /// Those that were refused.
    pub(crate) fn refused(&self) -> impl Iterator<Item = &Answer> {
        self.given.iter().filter(|answer| answer.refused.is_some())
    }

    /// How many were sent and acknowledged in this time.
    pub(crate) fn taken(&self, from: Duration, until: Duration) -> usize {
        let within = |a: &&Answer| a.refused.is_none() && from <= a.sent && a.answered <= until;
        self.given.iter().filter(within).count()
    }

    /// For each client, how long after this moment it had the first acknowledgement for a message sent after it; the
    /// soonest first.
    pub(crate) fn served_after(&self, moment: Duration) -> Vec<(Duration, &str)> {
        let mut first: HashMap<&str, Duration> = HashMap::new();
        for answer in self.given.iter().filter(|a| a.refused.is_none() && a.sent >= moment) {
            first.entry(&answer.client).or_insert(answer.answered - moment);
        }
        let mut clients: Vec<_> = first.into_iter().map(|(client, after)| (after, client)).collect();
        clients.sort();
        clients
    }

    /// When the store answered us for the first time after this moment.
    fn back_after(&self, moment: Duration) -> Option<Duration> {
        self.beats.iter().map(|beat| beat.answered).find(|answered| *answered >= moment)
    }

    /// The longest that we waited for the store or its disk around these moments, our own tardiness included. A write that the
    /// store confirms waits for the disk, which is everybody's.
    fn lag(&self, from: Duration, until: Duration) -> Duration {
        longest(&self.beats, from, until).max(longest(&self.syncs, from, until))
    }

    /// The longest that a task of ours which had something to do was not let run while this one was waited for.
    pub(crate) fn tardiness(&self, answer: &Answer) -> Duration {
        longest(&self.ticks, answer.read, answer.answered)
    }
}

fn longest(beats: &[Beat], from: Duration, until: Duration) -> Duration {
    let around = beats.iter().filter(|beat| beat.due < until && beat.answered > from);
    around.map(|beat| beat.answered.saturating_sub(beat.due.max(from))).max().unwrap_or_default()
}

impl std::fmt::Display for Answer {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let how = self.refused.as_deref().unwrap_or("acknowledged");
        let Self { client, origin, answered, .. } = self;
        let (took, waited) = (self.took(), self.waited());
        write!(
            f,
            "{origin} of {client}: {how} after {took:?}, {waited:?} of them with credit, at {answered:?}"
        )
    }
}

/// The answers that a client got.
fn of_client(log: &Log) -> Vec<Answer> {
    let mut given = Vec::new();
    // In the order in which they were sent: when, and when they were answered.
    let mut all: Vec<(Duration, Option<Duration>)> = Vec::new();
    let mut open: HashMap<&str, usize> = HashMap::new();
    for event in &log.events {
        let (origin, refused) = match &event.what {
            What::Sent(Message { origin, .. }) | What::SentAgain(origin) => {
                open.insert(origin, all.len());
                all.push((event.at, None));
                continue;
            }
            What::Acknowledged(origin) => (origin, None),
            What::Refused { origin, condition } => (origin, Some(condition.clone())),
            _ => continue,
        };
        let Some(number) = open.remove(origin.as_str()) else { continue };
        let sent = all[number].0;
        all[number].1 = Some(event.at);
        let (client, origin) = (log.client.clone(), origin.clone());
        given.push((number, Answer { client, origin, sent, read: sent, answered: event.at, refused }));
    }
    // Credit is given back in the order of sending.
    let mut handled = Duration::ZERO;
    let handled: Vec<_> = all
        .iter()
        .map(|(_, answered)| {
            handled = answered.unwrap_or_default().max(handled);
            handled
        })
        .collect();
    let read = |number: usize| number.checked_sub(CREDIT).map_or(Duration::ZERO, |before| handled[before]);
    given
        .into_iter()
        .map(|(number, answer)| Answer { read: answer.sent.max(read(number)), ..answer })
        .collect()
}

/// The server used its store again within two seconds after it was back, four on a busy machine: after most of these moments, at which what was in
/// the way had ended.
pub(crate) fn ensure_used_again(answers: &Answers, moments: &[Duration]) -> Result<()> {
    let mut waits = Vec::new();
    for moment in moments {
        let back = answers.back_after(*moment).context("the store does not answer any more")?;
        let lag = answers.lag(back, back + USED_AGAIN);
        let clients = answers.served_after(back);
        let (first, _) = clients.first().context("nobody was served any more")?;
        println!(
            "  back {:?} after all was well, used again after {first:?}; we waited {lag:?} at most",
            back - *moment
        );
        waits.push(first.saturating_sub(lag));
    }
    waits.sort();
    let wait = waits.get(waits.len() / 2).context("the store never came back")?;
    let most = if is_busy() { USED_AGAIN * 2 } else { USED_AGAIN };
    ensure!(*wait <= most, "the store was used {wait:?} after it was back, not {most:?}");
    Ok(())
}

/// Whether far more wants to run than there are processors: then times say little of what is measured.
fn is_busy() -> bool {
    let text = std::fs::read_to_string("/proc/loadavg").unwrap_or_default();
    let load = text.split_ascii_whitespace().next().and_then(|load| load.parse::<f64>().ok());
    let processors = std::thread::available_parallelism().map_or(1, usize::from);
    load.is_some_and(|load| load > 2.0 * processors as f64)
}

/// The same where no client has anything to do but to write: each of them is served again soon after.
pub(crate) fn ensure_all_served(answers: &Answers, moment: Duration) -> Result<()> {
    ensure_used_again(answers, &[moment])?;
    let back = answers.back_after(moment).context("the store does not answer any more")?;
    let lag = answers.lag(back, back + ALL_SERVED);
    let clients = answers.served_after(back);
    let (last, slowest) = clients.last().context("nobody was served any more")?;
    println!("  {} clients were served after {last:?}", clients.len());
    ensure!(*last <= ALL_SERVED + lag, "{slowest} was served {last:?} after the store was back");
    Ok(())
}
