//! What clients were answered, and when: what the judge of histories does not look at.

use std::collections::HashMap;
use std::time::Duration;

use starling_tests::history::{History, What};

/// A message and its answer.
#[derive(Clone, Debug)]
pub(crate) struct Answer {
    pub(crate) client: String,
    pub(crate) origin: String,
    /// When it was sent, the last time.
    pub(crate) sent: Duration,
    /// When the answer came.
    pub(crate) answered: Duration,
    /// The condition if it was refused; otherwise it was acknowledged.
    pub(crate) refused: Option<String>,
}

impl Answer {
    fn took(&self) -> Duration {
        self.answered.saturating_sub(self.sent)
    }
}

/// All answers of a run.
pub(crate) struct Answers(Vec<Answer>);

impl Answers {
    pub(crate) fn of(history: &History) -> Self {
        let mut answers = Vec::new();
        for log in &history.logs {
            let mut open: HashMap<&str, Duration> = HashMap::new();
            for event in &log.events {
                let (origin, refused) = match &event.what {
                    What::Sent(message) => {
                        open.insert(&message.origin, event.at);
                        continue;
                    }
                    What::SentAgain(origin) => {
                        open.insert(origin, event.at);
                        continue;
                    }
                    What::Acknowledged(origin) => (origin, None),
                    What::Refused { origin, condition } => (origin, Some(condition.clone())),
                    _ => continue,
                };
                if let Some(sent) = open.remove(origin.as_str()) {
                    let (client, origin) = (log.client.clone(), origin.clone());
                    answers.push(Answer { client, origin, sent, answered: event.at, refused });
                }
            }
        }
        answers.sort_by_key(|answer| answer.answered);
        Self(answers)
    }

    /// The one that its sender waited for longest.
    pub(crate) fn slowest(&self) -> Option<&Answer> {
        self.0.iter().max_by_key(|answer| answer.took())
    }

    /// Those that were refused.
    pub(crate) fn refused(&self) -> impl Iterator<Item = &Answer> {
        self.0.iter().filter(|answer| answer.refused.is_some())
    }

    /// How many were sent and acknowledged in this time.
    pub(crate) fn taken(&self, from: Duration, until: Duration) -> usize {
        let within = |a: &&Answer| a.refused.is_none() && from <= a.sent && a.answered <= until;
        self.0.iter().filter(within).count()
    }

    /// For each client, how long after this moment it had the first acknowledgement for a message sent after it; the
    /// soonest first.
    pub(crate) fn served_after(&self, moment: Duration) -> Vec<(Duration, &str)> {
        let mut first: HashMap<&str, Duration> = HashMap::new();
        for answer in self.0.iter().filter(|a| a.refused.is_none() && a.sent >= moment) {
            first.entry(&answer.client).or_insert(answer.answered - moment);
        }
        let mut clients: Vec<_> = first.into_iter().map(|(client, after)| (after, client)).collect();
        clients.sort();
        clients
    }
}

impl std::fmt::Display for Answer {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let how = self.refused.as_deref().unwrap_or("acknowledged");
        write!(f, "{} of {}: {how} after {:?}, at {:?}", self.origin, self.client, self.took(), self.answered)
    }
}
