//! The judge: a history in, what is wrong with it out.

use std::collections::{BTreeMap, BTreeSet, HashMap, HashSet};

use super::violation::Kind;
use super::{Archive, Event, History, Log, Message, Row, Sighting, Violation, What, bare};

impl History {
    /// Every message that was sent, with the full JID of its sender, in the order of sending for each sender.
    pub fn messages(&self) -> impl Iterator<Item = (&str, &Message)> {
        self.logs.iter().flat_map(|log| {
            log.events.iter().filter_map(|event| match &event.what {
                What::Sent(message) => Some((log.client.as_str(), message)),
                _ => None,
            })
        })
    }
}

/// Finds every broken rule. Nothing found means that the history is one that a correct server can cause.
pub fn check(history: &History) -> Vec<Violation> {
    let events = || history.logs.iter().flat_map(|log| &log.events);
    let refusals = events().any(|event| matches!(event.what, What::Refused { .. }));
    let mut judge = Judge { sent: HashMap::new(), rows: HashMap::new(), refusals, violations: Vec::new() };
    judge.read_logs(history);
    for archive in &history.archives {
        judge.check_archive(archive);
    }
    let accounts: BTreeSet<&str> = history.logs.iter().map(|l| bare(&l.client)).collect();
    let mut seen = HashSet::new();
    for account in accounts {
        let logs = history.logs.iter().filter(|l| bare(&l.client) == account);
        judge.check_sightings(account, logs, &mut seen);
    }
    judge.check_acknowledged(&seen);
    judge.violations
}

/// A message and what became of it on its sender's side.
struct Fate<'a> {
    from: &'a str,
    message: &'a Message,
    /// The place among all that its sender sent; where it knew that it was refused and sent it again, then.
    place: usize,
    /// It was sent again for that reason: what was sent after the first time may stand before it.
    moved: bool,
    acknowledged: bool,
    by_resumption: bool,
    refused: bool,
    given_up: bool,
}

impl Fate<'_> {
    /// The accounts whose archives it belongs to; both may be the same.
    fn owners(&self) -> [&str; 2] {
        [bare(self.from), bare(&self.message.to)]
    }
}

struct Judge<'a> {
    sent: HashMap<&'a str, Fate<'a>>,
    /// The first row of each (owner, `origin-id`), with its place in the archive.
    rows: HashMap<(&'a str, &'a str), (usize, &'a Row)>,
    /// Messages were refused. Then some of those that were sent again may have been refused before: its sender had
    /// forgotten the session in which it would have heard of that. What it then gave up is no measure of their order.
    refusals: bool,
    violations: Vec<Violation>,
}

impl<'a> Judge<'a> {
    fn report(&mut self, kind: Kind, place: &str, origin: Option<&str>, detail: impl Into<String>) {
        let origin = origin.map(str::to_owned);
        self.violations.push(Violation { kind, place: place.to_owned(), origin, detail: detail.into() });
    }

    /// Learns what was sent and acknowledged.
    fn read_logs(&mut self, history: &'a History) {
        for log in &history.logs {
            for (place, event) in log.events.iter().enumerate() {
                if let What::Sent(message) = &event.what {
                    self.read_sent(log, message, place);
                }
            }
        }
        for log in &history.logs {
            // What `<resumed h=''/>` covers is counted before the errors that wait in the session's queue can come.
            let mut resuming = false;
            for (place, event) in log.events.iter().enumerate() {
                resuming = match event.what {
                    What::Resumed => true,
                    What::Acknowledged(_) => resuming,
                    _ => false,
                };
                match &event.what {
                    What::Acknowledged(origin) => match self.sent.get_mut(origin.as_str()) {
                        Some(fate) if fate.from == log.client => {
                            fate.acknowledged = true;
                            fate.by_resumption = resuming;
                        }
                        _ => self.report(
                            Kind::BadRun,
                            &log.client,
                            Some(origin),
                            "acknowledged, not sent here",
                        ),
                    },
                    What::Refused { origin, condition } => {
                        let Some(fate) = self.sent.get_mut(origin.as_str()) else {
                            let detail = format!("an error ({condition}) for what nobody has sent");
                            self.report(Kind::Phantom, &log.client, Some(origin), detail);
                            continue;
                        };
                        if fate.from != log.client {
                            let detail = format!("an error ({condition}) for what {} has sent", fate.from);
                            self.report(Kind::Misdelivered, &log.client, Some(origin), detail);
                            continue;
                        }
                        fate.refused = true;
                        if fate.acknowledged && !fate.by_resumption {
                            self.report(Kind::RefusedLate, &log.client, Some(origin), condition);
                        }
                    }
                    What::SentAgain(origin) => {
                        // The refusal is of no account any more: whatever is promised now counts.
                        if let Some(fate) = self.sent.get_mut(origin.as_str()).filter(|fate| fate.refused) {
                            (fate.place, fate.moved, fate.refused) = (place, true, false);
                            // Neither is what was acknowledged with it: it may be refused once more.
                            (fate.acknowledged, fate.by_resumption) = (false, false);
                        }
                    }
                    What::GivenUp(origin) => {
                        if let Some(fate) = self.sent.get_mut(origin.as_str()) {
                            fate.given_up = true;
                        }
                    }
                    What::NotResumed { condition, should: true } => {
                        self.report(Kind::ResumptionRefused, &log.client, None, condition);
                    }
                    What::Fault(fault) => self.report(Kind::Fault, &log.client, None, fault),
                    _ => {}
                }
            }
        }
    }

    fn read_sent(&mut self, log: &'a Log, message: &'a Message, place: usize) {
        let fate = Fate {
            from: &log.client,
            message,
            place,
            moved: false,
            acknowledged: false,
            by_resumption: false,
            refused: false,
            given_up: false,
        };
        if self.sent.insert(&message.origin, fate).is_some() {
            self.report(Kind::BadRun, &log.client, Some(&message.origin), "two messages with one origin-id");
        }
    }

    fn check_archive(&mut self, archive: &'a Archive) {
        let owner = archive.owner.as_str();
        let mut ids = HashSet::new();
        let mut order = Order::default();
        let mut stamp = "";
        for (index, row) in archive.rows.iter().enumerate() {
            let origin = row.origin.as_deref();
            if !ids.insert(row.id.as_str()) {
                self.report(Kind::SharedId, owner, origin, format!("a second row with the id {}", row.id));
            }
            if row.stamp.as_str() < stamp {
                self.report(Kind::TimeRunsBack, owner, origin, format!("{} after {stamp}", row.stamp));
            }
            stamp = &row.stamp;
            let Some(origin) = origin.filter(|o| self.sent.contains_key(o)) else {
                self.report(Kind::Phantom, owner, origin, format!("nobody sent what this row holds: {row}"));
                continue;
            };
            let fate = &self.sent[origin];
            let (from, message, place) = (fate.from, fate.message, fate.place);
            let binds = !(fate.moved || self.refusals && fate.given_up);
            if !fate.owners().contains(&owner) {
                let detail = format!("archived, but sent by {from} to {}", message.to);
                self.report(Kind::Misdelivered, owner, Some(origin), detail);
                continue;
            }
            if (&*row.from, &*row.to, &*row.body) != (from, &*message.to, &*message.body) {
                self.report(Kind::Altered, owner, Some(origin), format!("archived as {row}"));
            }
            if let Some((_, first)) = self.rows.get(&(owner, origin)) {
                let detail = format!("archived as {} and again as {}", first.id, row.id);
                self.report(Kind::SecondRow, owner, Some(origin), detail);
                continue;
            }
            self.rows.insert((owner, origin), (index, row));
            if let Some(later) = order.take(from, bare(&message.to), origin, place, binds) {
                let detail = format!("archived after {later}, which was sent later");
                self.report(Kind::StoredOutOfOrder, owner, Some(origin), detail);
            }
        }
        if !archive.rows.iter().map(|r| &r.id).eq(&archive.backwards) {
            let detail =
                format!("{} rows forwards, {} backwards", archive.rows.len(), archive.backwards.len());
            self.report(Kind::PagesDiffer, owner, None, detail);
        }
        let asked: BTreeSet<&str> = archive.with.iter().map(|(peer, _)| peer.as_str()).collect();
        if asked != archive.peers() {
            self.report(Kind::BadRun, owner, None, "not every account was asked for");
        }
        for (peer, ids) in &archive.with {
            let rows = || archive.rows.iter().filter(|row| archive.peer(row) == peer).map(|row| &row.id);
            if !rows().eq(ids) {
                let lost = rows().find(|id| !ids.contains(id));
                let detail = format!(
                    "{} rows with {peer}, {} when asked for; not found: {lost:?}",
                    rows().count(),
                    ids.len()
                );
                self.report(Kind::PeerDiffers, owner, None, detail);
            }
        }
    }

    /// Checks what the clients of one account saw, by time, and notes it in `seen`.
    fn check_sightings(
        &mut self,
        account: &'a str,
        logs: impl Iterator<Item = &'a Log>,
        seen: &mut HashSet<&'a str>,
    ) {
        let mut events: Vec<(usize, &str, &Event)> = Vec::new();
        for log in logs {
            let mut session = 0;
            for event in &log.events {
                session += usize::from(event.what == What::Opened);
                events.push((session, &log.client, event));
            }
        }
        events.sort_by_key(|(_, _, event)| event.at);

        let mut witness = Witness::default();
        for (session, client, event) in events {
            match &event.what {
                What::Settled => witness.settled = true,
                What::Seen(sighting) => {
                    let Some(origin) = self.check_sighting(account, client, sighting, false) else {
                        continue;
                    };
                    seen.insert(origin);
                    self.check_in_session(&mut witness, client, session, origin);
                    self.check_against_earlier(&mut witness, client, origin, sighting);
                }
                What::Copied(sighting) => {
                    let Some(origin) = self.check_sighting(account, client, sighting, true) else { continue };
                    self.check_in_session(&mut witness, client, session, origin);
                }
                _ => {}
            }
        }
    }

    /// Checks a sighting by itself; gives the `origin-id` if it is a message that should come here.
    fn check_sighting(
        &mut self,
        account: &str,
        client: &str,
        sighting: &'a Sighting,
        copied: bool,
    ) -> Option<&'a str> {
        let origin = sighting.origin.as_deref();
        let Some(origin) = origin.filter(|o| self.sent.contains_key(o)) else {
            let detail = format!("nobody sent this: from {}, {:?}", sighting.from, sighting.body);
            self.report(Kind::Phantom, client, origin, detail);
            return None;
        };
        let fate = &self.sent[origin];
        let (from, message, owners) = (fate.from, fate.message, fate.owners().map(str::to_owned));
        let concerned = if copied {
            // A device needs no copy of what it has sent itself.
            from != client && owners.iter().any(|o| o == account)
        } else {
            bare(&message.to) == account
        };
        if !concerned {
            let detail = format!("seen here, but sent to {}", message.to);
            self.report(Kind::Misdelivered, client, Some(origin), detail);
            return None;
        }
        if (&*sighting.from, &*sighting.body) != (from, &*message.body) {
            let detail = format!("seen from {} with the text {:?}", sighting.from, sighting.body);
            self.report(Kind::Altered, client, Some(origin), detail);
        }
        if sighting.id.is_none() {
            self.report(Kind::NoId, client, Some(origin), "seen without a stanza-id of the account");
        }
        match (self.rows.get(&(account, origin)), &sighting.id) {
            (Some((_, row)), Some(id)) if row.id != *id => {
                let detail = format!("seen with id {id}, archived with {}", row.id);
                self.report(Kind::OtherId, client, Some(origin), detail);
            }
            _ => {}
        }
        // A copy of what was sent may come before the recipient's side is done.
        let stored = owners.iter().filter(|owner| !copied || *owner == account);
        for owner in stored.collect::<BTreeSet<_>>() {
            if !self.rows.contains_key(&(&**owner, origin)) {
                let detail = format!("seen, but not in the archive of {owner}");
                self.report(Kind::SeenNotStored, client, Some(origin), detail);
            }
        }
        Some(origin)
    }

    /// Checks a message, or a copy of one, against what came before in the same session.
    fn check_in_session(
        &mut self,
        witness: &mut Witness<'a>,
        client: &'a str,
        session: usize,
        origin: &'a str,
    ) {
        if !witness.sessions.insert((client, session, origin)) {
            self.report(Kind::Doubled, client, Some(origin), "came twice in one session");
        }
        let Some((index, _)) = self.rows.get(&(bare(client), origin)) else { return };
        let latest = witness.positions.entry((client, session)).or_insert((*index, origin));
        if latest.0 > *index {
            let detail = format!("came after {}, which stands behind it in the archive", latest.1);
            self.report(Kind::OutOfPosition, client, Some(origin), detail);
        } else {
            *latest = (*index, origin);
        }
    }

    /// Checks a message against all that came to the account before.
    fn check_against_earlier(
        &mut self,
        witness: &mut Witness<'a>,
        client: &'a str,
        origin: &'a str,
        sighting: &'a Sighting,
    ) {
        let mut found = Vec::new();
        if let Some(id) = &sighting.id
            && let Some(other) = witness.by_id.insert(id, origin).filter(|other| *other != origin)
        {
            found.push((Kind::SharedId, format!("the id {id} was that of {other}")));
        }
        match witness.first.get(origin) {
            Some(first) => {
                if first.id != sighting.id {
                    found
                        .push((Kind::OtherId, format!("the id was {:?} and is {:?}", first.id, sighting.id)));
                }
                if !sighting.delayed {
                    found.push((Kind::NoDelay, "came again without a delay".to_owned()));
                }
                if witness.settled {
                    found.push((Kind::CameBack, "came again after all was acknowledged".to_owned()));
                }
            }
            None => {
                witness.first.insert(origin, sighting);
                let fate = &self.sent[origin];
                let to = bare(&fate.message.to);
                let binds = !(fate.moved || self.refusals && fate.given_up);
                if let Some(later) = witness.order.take(fate.from, to, origin, fate.place, binds) {
                    let detail = format!("first seen after {later}, which was sent later");
                    found.push((Kind::SeenOutOfOrder, detail));
                }
            }
        }
        for (kind, detail) in found {
            self.report(kind, client, Some(origin), detail);
        }
    }

    fn check_acknowledged(&mut self, seen: &HashSet<&str>) {
        let mut found = Vec::new();
        for (origin, fate) in self.sent.iter().filter(|(_, f)| !f.refused) {
            if !fate.acknowledged {
                if !fate.given_up {
                    found.push((fate.from.to_owned(), *origin, Kind::NoAnswer, "never acknowledged"));
                }
                continue;
            }
            for owner in BTreeSet::from(fate.owners()) {
                if !self.rows.contains_key(&(owner, *origin)) {
                    found.push((
                        owner.to_owned(),
                        *origin,
                        Kind::MissingRow,
                        "acknowledged, but not archived",
                    ));
                }
            }
            if !seen.contains(origin) {
                let to = bare(&fate.message.to).to_owned();
                found.push((to, *origin, Kind::NeverSeen, "acknowledged, but never seen"));
            }
        }
        found.sort();
        for (place, origin, kind, detail) in found {
            self.report(kind, &place, Some(origin), detail);
        }
    }
}

/// What the clients of one account have seen so far.
#[derive(Default)]
struct Witness<'a> {
    first: HashMap<&'a str, &'a Sighting>,
    by_id: HashMap<&'a str, &'a str>,
    sessions: HashSet<(&'a str, usize, &'a str)>,
    /// The latest place in the archive that each session has got to.
    positions: HashMap<(&'a str, usize), (usize, &'a str)>,
    order: Order<'a>,
    settled: bool,
}

/// The latest message so far of each pair of sender and account written to, with its place in the order of sending.
#[derive(Default)]
struct Order<'a>(BTreeMap<(&'a str, &'a str), (usize, &'a str)>);

impl<'a> Order<'a> {
    /// Takes the next message of a pair; gives the `origin-id` of one that came before it but was sent after it. What
    /// does not bind may stand before anything.
    fn take(
        &mut self,
        from: &'a str,
        to: &'a str,
        origin: &'a str,
        place: usize,
        binds: bool,
    ) -> Option<&'a str> {
        let latest = self.0.get(&(from, to)).filter(|latest| latest.0 > place).copied();
        if latest.is_none() && binds {
            self.0.insert((from, to), (place, origin));
        }
        latest.map(|latest| latest.1)
    }
}
