//! A device that gets copies misses none (XEP-0280): in a session all that others of its account have sent and received since,
//! up to the last that came to it; and up to the end, if it goes on until then.

use super::Evidence;
use starling_tests::history::{Log, Message, Row, What, bare};
use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

/// A session that gets copies.
struct Session<'a> {
    since: Duration,
    /// What has come to it.
    seen: BTreeSet<&'a str>,
    /// It was there when all had come to rest.
    lasts: bool,
}

/// A message, its sender, and when it was sent first.
struct Sent<'a> {
    message: &'a Message,
    by: &'a str,
    at: Duration,
    /// More than once: copies of it may have gone to another session.
    again: bool,
    /// When its client left the connection, and gave it up.
    left: Option<Duration>,
}

pub(super) fn find(evidence: &Evidence<'_>) -> Vec<(Option<String>, String)> {
    let logs = evidence.stage.logs();
    let sent = sent(&logs);
    let mut found = Vec::new();
    for log in &logs {
        let Some(kept) = evidence.before.0.get(bare(&log.client)) else { continue };
        for session in sessions(log) {
            for row in missed(&kept.rows, &session, &sent, log) {
                // Blocked by now, it is not looked for; and what is refused is told its sender, who may be gone.
                let Some(origin) = row.origin.as_deref() else { continue };
                let records = &evidence.stage.records;
                let left = sent.get(origin).and_then(|sent| sent.left);
                let since = records.since(bare(&log.client), origin);
                let is_unheard = left.is_some_and(|left| since.is_none_or(|since| since > left));
                if records.is_refused(origin) || is_unheard || evidence.may_be_blocked(Some(origin)) {
                    continue;
                }
                let text =
                    format!("{} gets copies since {:?}, and not this one: {row}", log.client, session.since);
                found.push((row.origin.clone(), text));
            }
        }
    }
    found
}

fn sent(logs: &[Log]) -> BTreeMap<&str, Sent<'_>> {
    let mut sent: BTreeMap<&str, Sent<'_>> = BTreeMap::new();
    for log in logs {
        let mut given_up = Vec::new();
        for event in &log.events {
            match &event.what {
                What::Sent(message) => {
                    let one = Sent { message, by: &log.client, at: event.at, again: false, left: None };
                    sent.insert(&message.origin, one);
                }
                What::SentAgain(origin) => {
                    if let Some(sent) = sent.get_mut(origin.as_str()) {
                        sent.again = true;
                    }
                }
                What::Opened | What::Remark(_) => given_up.drain(..).for_each(|origin| {
                    if let Some(sent) = sent.get_mut(origin) {
                        sent.left = Some(event.at);
                    }
                }),
                What::GivenUp(origin) => given_up.push(origin.as_str()),
                _ => {}
            }
        }
    }
    sent
}

/// The sessions of a client that get copies.
fn sessions(log: &Log) -> Vec<Session<'_>> {
    let mut all: Vec<Session<'_>> = Vec::new();
    let mut open = false;
    for event in &log.events {
        match &event.what {
            What::Opened => open = false,
            What::Copying => {
                open = true;
                all.push(Session { since: event.at, seen: BTreeSet::new(), lasts: false });
            }
            What::Seen(sighting) | What::Copied(sighting) if open => {
                if let Some(session) = all.last_mut() {
                    session.seen.extend(sighting.origin.as_deref());
                }
            }
            What::Settled if open => {
                if let Some(session) = all.last_mut() {
                    session.lasts = true;
                }
            }
            _ => {}
        }
    }
    all
}

/// The rows that should have come to a session and have not.
fn missed<'a>(
    rows: &'a [Row],
    session: &Session<'_>,
    sent: &BTreeMap<&str, Sent<'_>>,
    log: &Log,
) -> Vec<&'a Row> {
    let has = |row: &Row| row.origin.as_deref().is_some_and(|origin| session.seen.contains(origin));
    let through = if session.lasts { rows.len() } else { rows.iter().rposition(has).unwrap_or(0) };
    let due = |row: &&Row| {
        let Some(sent) = row.origin.as_deref().and_then(|origin| sent.get(origin)) else { return false };
        let concerns =
            sent.by != log.client && [bare(sent.by), bare(&sent.message.to)].contains(&bare(&log.client));
        concerns && sent.at > session.since && !sent.again
    };
    rows.iter().take(through).filter(due).filter(|row| !has(row)).collect()
}
