//! A server that never existed: a model that makes histories a correct server can cause, with the faults of real
//! ones to switch on. Crashes, cuts, resumption, resending and giving up come in random order from a seed.

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::time::Duration;

use rand::rngs::StdRng;
use rand::{RngExt, SeedableRng};

use super::super::{Archive, History, Log, Message, Row, Sighting, What, bare};
use super::bug::Bug;

/// What a planted fault has done to a history.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Harm {
    /// It had no occasion: the history is correct.
    None,
    /// It lost something that may have been made up for.
    Perhaps,
    /// It must show.
    Done,
}

/// Makes a history, with a fault or without.
pub(super) fn generate(seed: u64, bug: Option<Bug>) -> (History, Harm) {
    let mut model = Model::new(seed, bug);
    for _ in 0..model.rng.random_range(150..400) {
        model.step();
    }
    model.finish()
}

const ACCOUNTS: [&str; 3] = ["a@x", "b@x", "c@x"];

#[derive(Clone, Debug)]
struct Sent {
    from: String,
    message: Message,
}

/// A delivery on its way to a client.
#[derive(Clone, Debug)]
struct Delivery {
    sent: Sent,
    id: String,
    delayed: bool,
}

/// One client and the server's side of its session.
#[derive(Debug, Default)]
struct Client {
    log: Log,
    /// Not acknowledged, as the client knows it.
    open: VecDeque<Message>,
    /// On the way to the server.
    uplink: VecDeque<Message>,
    /// Handled by the server, not yet told.
    handled: usize,
    /// On the way to the client: messages to a `phone`, copies to a `desk`.
    downlink: VecDeque<Delivery>,
    /// Seen, but not acknowledged to the server.
    unconfirmed: Vec<Delivery>,
}

/// What outlives a crash, and the cursor that does not.
#[derive(Debug, Default)]
struct Account {
    rows: Vec<Row>,
    /// Everything for this account in order, by id.
    inbox: Vec<Delivery>,
    cursor: BTreeSet<String>,
    written_cursor: BTreeSet<String>,
}

struct Model {
    rng: StdRng,
    bug: Option<Bug>,
    harm: usize,
    /// Messages that the fault lost. It does harm if they turn out to be acknowledged and nothing makes up for it.
    lost: BTreeSet<String>,
    now: u64,
    next: usize,
    position: u64,
    clients: Vec<Client>,
    accounts: BTreeMap<&'static str, Account>,
    server: Log,
}

impl Model {
    fn new(seed: u64, bug: Option<Bug>) -> Self {
        let mut model = Self {
            rng: StdRng::seed_from_u64(seed),
            bug,
            harm: 0,
            lost: BTreeSet::new(),
            now: 0,
            next: 0,
            position: 0,
            clients: Vec::new(),
            accounts: ACCOUNTS.map(|a| (a, Account::default())).into(),
            server: Log::new("server"),
        };
        for account in ACCOUNTS {
            for resource in ["phone", "desk"] {
                let log = Log::new(&format!("{account}/{resource}"));
                model.clients.push(Client { log, ..Client::default() });
                model.note(model.clients.len() - 1, What::Opened);
            }
        }
        model
    }

    /// Whether the fault is this one and strikes now.
    fn strikes(&mut self, bug: Bug, chance: f64) -> bool {
        self.bug == Some(bug) && self.rng.random_bool(chance)
    }

    fn note(&mut self, client: usize, what: What) {
        self.now += 1;
        self.clients[client].log.note(Duration::from_micros(self.now), what);
    }

    fn step(&mut self) {
        let client = self.rng.random_range(0..self.clients.len());
        match self.rng.random_range(0..100) {
            0..30 => self.send(client),
            30..55 => self.commit(client),
            55..70 => self.acknowledge(client),
            70..85 => self.deliver(client),
            85..90 => self.confirm(client),
            90..92 => self.write_cursors(),
            92..94 => self.resume(client),
            94..96 => self.reopen(client),
            96..97 => self.crash(),
            _ => {}
        }
    }

    fn send(&mut self, client: usize) {
        self.next += 1;
        let mut to = ACCOUNTS[self.rng.random_range(0..ACCOUNTS.len())].to_owned();
        if self.rng.random_bool(0.1) {
            to.push_str("/phone");
        }
        let message = Message { origin: format!("m{}", self.next), to, body: format!("text {}", self.next) };
        self.note(client, What::Sent(message.clone()));
        let Client { open, uplink, .. } = &mut self.clients[client];
        open.push_back(message.clone());
        uplink.push_back(message);
    }

    /// The server takes one message from a client, writes it and sends it on.
    fn commit(&mut self, client: usize) {
        let pair = self.clients[client].uplink.iter().take(2).map(|m| bare(&m.to)).collect::<Vec<_>>();
        if pair.len() == 2 && pair[0] == pair[1] && self.strikes(Bug::ReorderCommit, 0.3) {
            let fresh = !self.is_stored(client, 0) && !self.is_stored(client, 1);
            self.harm += usize::from(fresh);
            self.clients[client].uplink.swap(0, 1);
        }
        let known = self.is_stored(client, 0);
        let Some(message) = self.clients[client].uplink.pop_front() else { return };
        self.clients[client].handled += 1;
        let from = self.clients[client].log.client.clone();
        let owners = BTreeSet::from([bare(&from).to_owned(), bare(&message.to).to_owned()]);
        if known && self.bug != Some(Bug::SecondRow) {
            return;
        }
        self.harm += usize::from(known);
        if self.strikes(Bug::DeliverBeforeCommit, 0.1) {
            // Delivered, and the crash comes before the write.
            let id = format!("id{}", self.position + 1);
            self.position += 1;
            let delivery = Delivery { sent: Sent { from, message: message.clone() }, id, delayed: false };
            let phone = self.phone_of(&message.to);
            if self.clients[phone].downlink.is_empty() {
                self.harm += 1;
                self.clients[phone].downlink.push_back(delivery);
                self.deliver(phone);
                self.crash();
            } else {
                self.clients[client].uplink.push_front(message);
                self.clients[client].handled -= 1;
            }
            return;
        }
        for owner in owners {
            self.store(&owner, &from, &message);
        }
    }

    /// Whether a message that waits in the uplink is in its sender's archive.
    fn is_stored(&self, client: usize, place: usize) -> bool {
        let Client { log, uplink, .. } = &self.clients[client];
        let origin = uplink.get(place).map(|m| m.origin.as_str());
        self.accounts[bare(&log.client)]
            .rows
            .iter()
            .any(|r| origin.is_some() && r.origin.as_deref() == origin)
    }

    fn store(&mut self, owner: &str, from: &str, message: &Message) {
        if self.strikes(Bug::ReuseId, 0.05) && self.position > 0 {
            self.harm += usize::from(self.accounts[owner].rows.iter().any(|r| r.id == self.id()));
        } else {
            self.position += 1;
        }
        let recipient = owner == bare(&message.to);
        if recipient && owner != bare(from) && self.strikes(Bug::AcknowledgeHalf, 0.05) {
            self.lost.insert(message.origin.clone());
            return;
        }
        let mut row = Row {
            id: self.id(),
            stamp: format!("{:09}", self.position),
            origin: Some(message.origin.clone()),
            from: from.to_owned(),
            to: message.to.clone(),
            body: message.body.clone(),
        };
        let mut account = ACCOUNTS.into_iter().find(|a| *a == owner).unwrap();
        if self.strikes(Bug::AlterStored, 0.05) {
            self.harm += 1;
            row.from = "b@x/other".to_owned();
        }
        if self.strikes(Bug::OldStamp, 0.05) && !self.accounts[owner].rows.is_empty() {
            self.harm += 1;
            row.stamp = "000000000".to_owned();
        }
        if self.strikes(Bug::StorePhantom, 0.05) {
            self.harm += 1;
            let phantom = Row { origin: None, id: format!("{}p", row.id), ..row.clone() };
            self.accounts.get_mut(owner).unwrap().rows.push(phantom);
        }
        if self.strikes(Bug::Misfile, 0.05)
            && let Some(other) = ACCOUNTS.into_iter().find(|a| *a != bare(from) && *a != bare(&message.to))
        {
            self.harm += 1;
            account = other;
        }
        self.accounts.get_mut(account).unwrap().rows.push(row);
        if recipient {
            let sent = Sent { from: from.to_owned(), message: message.clone() };
            let delivery = Delivery { sent, id: self.id(), delayed: false };
            self.accounts.get_mut(owner).unwrap().inbox.push(delivery.clone());
            let phone = self.phone_of(owner);
            self.clients[phone].downlink.push_back(delivery);
        }
        self.copy(owner, from, message);
    }

    /// The second device gets a copy of what the account has sent or received without it.
    fn copy(&mut self, owner: &str, from: &str, message: &Message) {
        let desk = self.phone_of(owner) + 1;
        let sent = Sent { from: from.to_owned(), message: message.clone() };
        let delivery = Delivery { sent, id: self.id(), delayed: false };
        if self.clients[desk].log.client != from {
            self.clients[desk].downlink.push_back(delivery);
        } else if self.strikes(Bug::MiscopyBack, 0.1) {
            self.lost.insert("a copy".to_owned());
            self.clients[desk].downlink.push_back(delivery);
        }
        let abroad = (desk + 2) % self.clients.len();
        let concerned = [bare(from), bare(&message.to)];
        if !concerned.contains(&bare(&self.clients[abroad].log.client))
            && self.strikes(Bug::MiscopyAbroad, 0.1)
        {
            self.harm += 1;
            let id = Some(self.id());
            let (origin, body) = (Some(message.origin.clone()), message.body.clone());
            let sighting = Sighting { id, origin, from: from.to_owned(), body, delayed: false };
            self.note(abroad, What::Copied(sighting));
        }
    }

    fn id(&self) -> String {
        format!("id{}", self.position)
    }

    fn phone_of(&self, jid: &str) -> usize {
        let phone = format!("{}/phone", bare(jid));
        self.clients.iter().position(|c| c.log.client == phone).unwrap()
    }

    /// The server tells a client what it has handled.
    fn acknowledge(&mut self, client: usize) {
        let mut count = std::mem::take(&mut self.clients[client].handled);
        if self.strikes(Bug::AcknowledgeBeforeCommit, 0.5) {
            // The crash comes before the write.
            let early: Vec<Message> = self.clients[client].uplink.drain(..).collect();
            count += early.len();
            self.lost.extend(early.into_iter().map(|m| m.origin));
        }
        for _ in 0..count {
            let message = self.clients[client].open.pop_front().unwrap();
            if self.strikes(Bug::NeverAnswer, 0.05) {
                self.harm += 1;
                continue;
            }
            self.note(client, What::Acknowledged(message.origin));
        }
    }

    /// A client sees the next message.
    fn deliver(&mut self, client: usize) {
        if self.clients[client].downlink.len() > 1 && self.strikes(Bug::ReorderDelivery, 0.3) {
            self.harm += 1;
            self.clients[client].downlink.swap(0, 1);
            self.deliver(client);
        }
        let Some(delivery) = self.clients[client].downlink.pop_front() else { return };
        let mut sighting = Sighting {
            id: Some(delivery.id.clone()),
            origin: Some(delivery.sent.message.origin.clone()),
            from: delivery.sent.from.clone(),
            body: delivery.sent.message.body.clone(),
            delayed: delivery.delayed,
        };
        if self.clients[client].log.client.ends_with("/desk") {
            self.harm += usize::from(delivery.sent.from == self.clients[client].log.client);
            self.clients[client].unconfirmed.push(delivery);
            return self.note(client, What::Copied(sighting));
        }
        if self.strikes(Bug::AlterDelivered, 0.1) {
            self.harm += 1;
            sighting.body.push('!');
        }
        if self.strikes(Bug::NoId, 0.1) {
            self.harm += 1;
            sighting.id = None;
        }
        if self.strikes(Bug::DeliverPhantom, 0.1) {
            self.harm += 1;
            let phantom = Sighting { origin: Some("m0".to_owned()), ..sighting.clone() };
            self.note(client, What::Seen(phantom));
        }
        if self.strikes(Bug::Misdeliver, 0.1) {
            self.harm += 1;
            self.note((client + 2) % 6, What::Seen(sighting.clone()));
        }
        if delivery.delayed && self.saw(client, &delivery) {
            if self.strikes(Bug::NewId, 0.5) {
                self.harm += 1;
                sighting.id = Some(format!("{}n", delivery.id));
            }
            if self.strikes(Bug::NoDelay, 0.5) {
                self.harm += 1;
                sighting.delayed = false;
            }
        }
        self.note(client, What::Seen(sighting));
        self.clients[client].unconfirmed.push(delivery);
    }

    /// Whether a client saw this message in any session.
    fn saw(&self, client: usize, delivery: &Delivery) -> bool {
        let origin = Some(delivery.sent.message.origin.as_str());
        let mut events = self.clients[client].log.events.iter();
        events.any(|e| matches!(&e.what, What::Seen(s) if s.origin.as_deref() == origin))
    }

    /// A client acknowledges what it saw.
    fn confirm(&mut self, client: usize) {
        let seen = std::mem::take(&mut self.clients[client].unconfirmed);
        if self.clients[client].log.client.ends_with("/desk") {
            return;
        }
        let account = bare(&self.clients[client].log.client).to_owned();
        let cursor = &mut self.accounts.get_mut(account.as_str()).unwrap().cursor;
        cursor.extend(seen.into_iter().map(|d| d.id));
    }

    fn write_cursors(&mut self) {
        if self.bug == Some(Bug::KeepNoCursor) {
            return;
        }
        for account in self.accounts.values_mut() {
            account.written_cursor = account.cursor.clone();
        }
    }

    /// A connection breaks and its session goes on over another.
    fn resume(&mut self, client: usize) {
        let arrived = self.rng.random_range(0..=self.clients[client].uplink.len());
        for _ in 0..arrived {
            self.commit(client);
        }
        if self.strikes(Bug::RefuseResumption, 0.5) {
            self.harm += 1;
            let condition = "item-not-found".to_owned();
            self.note(client, What::NotResumed { condition, should: true });
            self.open(client);
            return;
        }
        // `h` is exchanged both ways: the client sends the rest again, the server forgets what was seen.
        self.note(client, What::Resumed);
        self.acknowledge(client);
        self.clients[client].uplink = self.clients[client].open.clone();
        if self.strikes(Bug::DoubleOnResume, 0.5) {
            self.harm += self.clients[client].unconfirmed.len();
            let again = std::mem::take(&mut self.clients[client].unconfirmed);
            let count = again.len();
            for delivery in again.into_iter().rev() {
                self.clients[client].downlink.push_front(Delivery { delayed: true, ..delivery });
            }
            (0..count).for_each(|_| self.deliver(client));
        }
        if self.strikes(Bug::ForgetOnResume, 0.5) {
            let lost = std::mem::take(&mut self.clients[client].downlink);
            self.lost.extend(lost.iter().map(|d| d.sent.message.origin.clone()));
            self.clients[client].unconfirmed.extend(lost);
        }
        self.confirm(client);
    }

    /// A client that has lost its session state logs in again; the server lives.
    fn reopen(&mut self, client: usize) {
        let arrived = self.rng.random_range(0..=self.clients[client].uplink.len());
        for _ in 0..arrived {
            self.commit(client);
        }
        self.open(client);
    }

    fn crash(&mut self) {
        self.now += 1;
        self.server.note(Duration::from_micros(self.now), What::Remark("killed".to_owned()));
        if self.strikes(Bug::LoseCursor, 0.5) {
            for account in ACCOUNTS {
                let inbox = std::mem::take(&mut self.accounts.get_mut(account).unwrap().inbox);
                self.lost.extend(inbox.into_iter().map(|d| d.sent.message.origin));
            }
        }
        for account in self.accounts.values_mut() {
            account.cursor = account.written_cursor.clone();
        }
        for client in 0..self.clients.len() {
            self.note(client, What::NotResumed { condition: "item-not-found".to_owned(), should: false });
            self.open(client);
        }
    }

    /// A new session: the client sends what is open again, the server what its cursor does not cover.
    fn open(&mut self, client: usize) {
        self.note(client, What::Opened);
        if self.rng.random_bool(0.1) {
            for message in std::mem::take(&mut self.clients[client].open) {
                self.note(client, What::GivenUp(message.origin));
            }
        }
        let open = self.clients[client].open.clone();
        for message in &open {
            self.note(client, What::SentAgain(message.origin.clone()));
        }
        let jid = self.clients[client].log.client.clone();
        let account = &self.accounts[bare(&jid)];
        let left = account.inbox.iter().filter(|d| !account.cursor.contains(&d.id));
        let downlink = left.map(|d| Delivery { delayed: true, ..d.clone() }).collect();
        let state = &mut self.clients[client];
        state.uplink = open;
        state.handled = 0;
        state.unconfirmed.clear();
        state.downlink = if jid.ends_with("/phone") { downlink } else { VecDeque::new() };
    }

    /// Lets everything come to rest, crashes once more, and reads the archives.
    fn finish(mut self) -> (History, Harm) {
        self.drain();
        let confirmed = self.accounts.values().map(|a| a.cursor.len()).sum::<usize>();
        self.write_cursors();
        for client in 0..self.clients.len() {
            self.note(client, What::Settled);
        }
        if self.bug == Some(Bug::KeepNoCursor) {
            self.harm += confirmed;
        }
        self.crash();
        self.drain();
        self.harm += self.lost.iter().filter(|origin| self.is_missed(origin)).count();
        let mut archives = Vec::new();
        for (owner, account) in std::mem::take(&mut self.accounts) {
            let mut backwards: Vec<String> = account.rows.iter().map(|r| r.id.clone()).collect();
            if !backwards.is_empty() && self.strikes(Bug::SkipRow, 0.5) {
                self.harm += 1;
                backwards.remove(self.rng.random_range(0..backwards.len()));
            }
            let mut archive =
                Archive { owner: owner.to_owned(), rows: account.rows, backwards, with: Vec::new() };
            let peers: Vec<String> = archive.peers().into_iter().map(str::to_owned).collect();
            let ids_with = |peer: String| {
                let rows = archive.rows.iter().filter(|row| archive.peer(row) == peer);
                let ids = rows.map(|row| row.id.clone()).collect();
                (peer, ids)
            };
            let mut found: Vec<(String, Vec<String>)> = peers.into_iter().map(ids_with).collect();
            if let Some((_, ids)) = found.first_mut()
                && self.strikes(Bug::LosePeer, 0.5)
            {
                self.harm += 1;
                ids.remove(self.rng.random_range(0..ids.len()));
            }
            archive.with = found;
            archives.push(archive);
        }
        let mut logs: Vec<Log> = self.clients.into_iter().map(|c| c.log).collect();
        logs.push(self.server);
        let harm = match (self.harm, self.lost.is_empty()) {
            (0, true) => Harm::None,
            (0, false) => Harm::Perhaps,
            _ => Harm::Done,
        };
        (History { logs, archives }, harm)
    }

    /// Whether a message is acknowledged but was not seen or is not in both archives.
    fn is_missed(&self, origin: &str) -> bool {
        let events = || self.clients.iter().flat_map(|c| &c.log.events).map(|e| &e.what);
        let acknowledged = events().any(|w| matches!(w, What::Acknowledged(o) if o == origin));
        let seen = events().any(|w| matches!(w, What::Seen(s) if s.origin.as_deref() == Some(origin)));
        let rows = self.accounts.values().flat_map(|a| &a.rows);
        let rows = rows.filter(|r| r.origin.as_deref() == Some(origin)).count();
        let own = self.clients.iter().any(|c| {
            let own = |w: &What| matches!(w, What::Sent(m) if m.origin == origin && bare(&m.to) == bare(&c.log.client));
            c.log.events.iter().any(|e| own(&e.what))
        });
        acknowledged && !(seen && (own || rows == 2))
    }

    fn drain(&mut self) {
        loop {
            let busy = self.clients.iter().position(|c| !c.uplink.is_empty() || !c.downlink.is_empty());
            let Some(client) = busy else { break };
            while !self.clients[client].uplink.is_empty() {
                self.commit(client);
            }
            while !self.clients[client].downlink.is_empty() {
                self.deliver(client);
            }
        }
        for client in 0..self.clients.len() {
            self.acknowledge(client);
            self.confirm(client);
        }
    }
}
