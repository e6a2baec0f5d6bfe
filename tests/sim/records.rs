//! What is recorded, and what homes tell: seen where it leaves them, whether or not it arrives.
//!
//! A crash shows that something was told too early only where it comes in between. Here each word is held against what is
//! recorded when it is said.

use crate::speech;
use parking_lot::Mutex;
use starling_store_scylla::cql::{Change, Found, Mutation, Partition, StoredRow};
use starling_store_scylla::model::World;
use starling_wire::frame::PeerItem;
use starling_wire::{ConnId, Down, EdgeId, ToEdge, Token};
use starling_xmpp::{BareJid, Stanza};
use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::time::Duration;

/// Something that was told before it was recorded.
#[derive(Debug, Clone)]
pub(crate) struct Early {
    pub(crate) origin: Option<String>,
    pub(crate) at: Duration,
    /// It was called handled: with an error for it that is as it should be.
    pub(crate) counted: bool,
    pub(crate) text: String,
}

pub(crate) struct Records {
    world: World,
    state: Mutex<State>,
}

#[derive(Default)]
struct State {
    /// Messages that have a row of this account, confirmed or read at quorum, and since when.
    rows: HashMap<String, BTreeMap<String, Duration>>,
    /// Sessions that it was recorded of that they are, or were, at an edge.
    places: BTreeSet<(u128, EdgeId)>,
    /// Sessions that were told elsewhere that they go on, which their edge there has not heard; and whether it was recorded that
    /// they move once more since then.
    adrift: HashMap<u128, bool>,
    /// Of these that have moved those whose home was lost then. A row names the last place and the one before it; where the
    /// session is in truth, the next home cannot know.
    strayed: BTreeSet<u128>,
    /// What connections asked for.
    tokens: HashMap<ConnId, Token>,
    /// Messages of sessions by sequence.
    said: BTreeMap<(u128, u64), Vec<Said>>,
    /// The same by how many their client had said. After a resumption it may be another one.
    counted: BTreeMap<(u128, u64), Vec<Said>>,
    /// Where counting began.
    bases: HashMap<u128, u64>,
    /// How many sequences homes have left out before those of this connection.
    left_out: HashMap<ConnId, u64>,
    /// Up to where these were called handled.
    handled: HashMap<u128, u64>,
    /// Messages that homes have refused, and when the last time.
    refused: BTreeMap<String, Duration>,
    early: Vec<Early>,
    /// The most of one session that was not called handled.
    most: u64,
}

#[derive(Clone)]
struct Said {
    from: String,
    to: String,
    origin: String,
}

impl Records {
    pub(crate) fn new(world: &World) -> Self {
        Self { world: world.clone(), state: Mutex::default() }
    }

    /// The rows that a mutation writes.
    pub(crate) fn rows_of(mutation: &Mutation) -> Vec<(String, String)> {
        let Partition::Log(owner, _) = &mutation.partition else { return Vec::new() };
        let put = mutation.changes.iter().filter_map(|change| match change {
            Change::PutRow(row, _) => origin_of(row),
            _ => None,
        });
        put.map(|origin| (owner.jid.as_str().to_owned(), origin)).collect()
    }

    /// They are there.
    pub(crate) fn recorded(&self, rows: Vec<(String, String)>) {
        let now = self.world.now();
        let mut state = self.state.lock();
        for (owner, origin) in rows {
            state.rows.entry(owner).or_default().entry(origin).or_insert(now);
        }
    }

    /// These were read of an account's log.
    pub(crate) fn read(&self, owner: &BareJid, rows: &[Found]) {
        let owner = owner.as_str();
        let read = rows.iter().filter_map(Found::stored).filter_map(origin_of);
        self.recorded(read.map(|origin| (owner.to_owned(), origin)).collect());
    }

    /// It is recorded that a session is there.
    pub(crate) fn placed(&self, token: Token, edge: EdgeId) {
        self.state.lock().places.insert((token.0, edge));
    }

    /// Whether it was recorded at some time that a session is there.
    pub(crate) fn was_at(&self, token: Token, edge: EdgeId) -> bool {
        self.state.lock().places.contains(&(token.0, edge))
    }

    /// It is recorded that a session goes on elsewhere.
    pub(crate) fn moved(&self, token: Token) {
        if let Some(moved) = self.state.lock().adrift.get_mut(&token.0) {
            *moved = true;
        }
    }

    /// The edge where it went has heard of that.
    pub(crate) fn arrived(&self, token: Token) {
        let mut state = self.state.lock();
        state.adrift.remove(&token.0);
        state.strayed.remove(&token.0);
    }

    /// These are recorded as another home begins to reign over them.
    pub(crate) fn succeeded(&self, tokens: impl Iterator<Item = Token>) {
        let mut state = self.state.lock();
        let state = &mut *state;
        let is_away = |token: &Token| state.adrift.get(&token.0) == Some(&true);
        state.strayed.extend(tokens.filter(is_away).map(|token| token.0));
    }

    /// Whether no home can know where this session is.
    pub(crate) fn has_strayed(&self, token: Token) -> bool {
        self.state.lock().strayed.contains(&token.0)
    }

    /// A connection asks for a session.
    pub(crate) fn asks(&self, conn: ConnId, token: Token) {
        self.state.lock().tokens.insert(conn, token);
    }

    /// A connection counts from there: of several homes that told it so, it has heard one.
    pub(crate) fn counts_from(&self, conn: ConnId, token: Token, base: u64) {
        self.state.lock().leaves_out(conn, token, base);
    }

    /// A session says something to its home.
    pub(crate) fn said(&self, conn: ConnId, (token, sequence): (Token, u64), from: &str, stanza: &Stanza) {
        let mut state = self.state.lock();
        let count = state.count(conn, sequence);
        let open = count.saturating_sub(state.handled.get(&token.0).copied().unwrap_or(0));
        state.most = state.most.max(open);
        let Some(said) = said(from, stanza) else { return };
        state.said.entry((token.0, sequence)).or_default().push(said.clone());
        state.counted.entry((token.0, count)).or_default().push(said);
    }

    /// Homes say this to edges; of a cluster, whose sessions are recorded, or not.
    pub(crate) fn told(&self, batch: &[ToEdge], in_cluster: bool) {
        let now = self.world.now();
        let mut state = self.state.lock();
        for ToEdge { conn, down } in batch {
            let token = state.tokens.get(conn).copied();
            match (down, token) {
                (Down::Stanza { stanza, .. }, _) => state.delivers(stanza, now),
                (Down::SmEnabled { base, .. }, Some(token)) => {
                    state.bases.entry(token.0).or_insert(*base);
                }
                (Down::Handled { sequence }, Some(token)) => {
                    let count = state.count(*conn, *sequence);
                    state.counts(token, count, now);
                }
                (Down::Resumed { sequence, base, .. }, Some(token)) => {
                    state.leaves_out(*conn, token, *base);
                    state.adrift.entry(token.0).or_default();
                    let count = state.count(*conn, *sequence);
                    state.counts(token, count, now);
                    state.is_at(token, conn.edge, in_cluster, now);
                    // What it says behind that is new.
                    state.handled.insert(token.0, count);
                }
                (Down::Bound { .. }, Some(token)) => state.is_at(token, conn.edge, in_cluster, now),
                _ => {}
            }
        }
    }

    /// A home says this to another one.
    pub(crate) fn passed(&self, item: &PeerItem) {
        let PeerItem::Receipt(receipt) = item else { return };
        if receipt.refused.is_some() {
            return;
        }
        let now = self.world.now();
        let mut state = self.state.lock();
        let recipient = receipt.pair.recipient.as_str();
        let Some(all) = state.said.get(&(receipt.pair.token.0, receipt.sequence)).cloned() else { return };
        let mut there = all.iter().filter(|said| said.to == recipient).peekable();
        let Some(first) = there.peek().map(|said| said.origin.clone()) else { return };
        if !there.any(|said| state.has(recipient, &said.origin)) {
            let text = format!("{recipient} gave a receipt for it before it was recorded there");
            state.early.push(Early { origin: Some(first), at: now, counted: false, text });
        }
    }

    /// All that was told too early, but for what was refused.
    pub(crate) fn early(&self) -> Vec<Early> {
        let state = self.state.lock();
        let refused =
            |early: &Early| early.origin.as_ref().is_some_and(|origin| state.refused.contains_key(origin));
        state.early.iter().filter(|early| !(early.counted && refused(early))).cloned().collect()
    }

    /// The most stanzas of one session that were not called handled.
    pub(crate) fn most_open(&self) -> u64 {
        self.state.lock().most
    }

    /// Since when this message is known to have a row of this account.
    pub(crate) fn since(&self, owner: &str, origin: &str) -> Option<Duration> {
        self.state.lock().rows.get(owner)?.get(origin).copied()
    }

    /// Whether homes have ever refused this message.
    pub(crate) fn is_refused(&self, origin: &str) -> bool {
        self.refused_at(origin).is_some()
    }

    /// When they last did.
    pub(crate) fn refused_at(&self, origin: &str) -> Option<Duration> {
        self.state.lock().refused.get(origin).copied()
    }
}

impl State {
    fn has(&self, owner: &str, origin: &str) -> bool {
        self.rows.get(owner).is_some_and(|rows| rows.contains_key(origin))
    }

    /// A stanza leaves for a client.
    fn delivers(&mut self, stanza: &Stanza, now: Duration) {
        if !stanza.is_message() {
            return;
        }
        if stanza.is_error() {
            self.refused.extend(stanza.id.as_deref().map(|id| (id.to_owned(), now)));
            return;
        }
        let Some(owner) = stanza.to.as_ref().map(|to| to.to_bare().as_str().to_owned()) else { return };
        let message = stanza.to_element();
        let original = speech::copied(&message, &owner).unwrap_or(&message);
        let Some(origin) = speech::origin(original).filter(|origin| !self.has(&owner, origin)) else {
            return;
        };
        let text = format!("{owner} was sent it before it was recorded there");
        self.early.push(Early { origin: Some(origin), at: now, counted: false, text });
    }

    fn leaves_out(&mut self, conn: ConnId, token: Token, base: u64) {
        let first = self.bases.get(&token.0).copied().unwrap_or(base);
        self.left_out.insert(conn, base.saturating_sub(first));
    }

    /// How many its client had said with what has this sequence.
    fn count(&self, conn: ConnId, sequence: u64) -> u64 {
        sequence.saturating_sub(self.left_out.get(&conn).copied().unwrap_or(0))
    }

    /// So many of a session are called handled.
    fn counts(&mut self, token: Token, count: u64, now: Duration) {
        let before = self.handled.insert(token.0, count).unwrap_or(0);
        if before >= count {
            self.handled.insert(token.0, before);
            return;
        }
        let range = (token.0, before + 1)..=(token.0, count);
        let all: Vec<Said> = self.counted.range(range).flat_map(|(_, said)| said.last().cloned()).collect();
        for Said { from, to, origin } in all {
            for owner in BTreeSet::from([&from, &to]) {
                if !self.has(owner, &origin) {
                    let text = format!("called handled before it was recorded for {owner}");
                    self.early.push(Early { origin: Some(origin.clone()), at: now, counted: true, text });
                }
            }
        }
    }

    /// A client is told that its session is there.
    fn is_at(&mut self, token: Token, edge: EdgeId, in_cluster: bool, now: Duration) {
        if in_cluster && !self.places.contains(&(token.0, edge)) {
            let text =
                format!("a client at edge {} was told of its session before that was recorded", edge.0);
            self.early.push(Early { origin: None, at: now, counted: false, text });
        }
    }
}

fn origin_of(row: &StoredRow) -> Option<String> {
    row.row.origin_id.as_ref().map(ToString::to_string)
}

fn said(from: &str, stanza: &Stanza) -> Option<Said> {
    let to = stanza.to.as_ref().filter(|_| stanza.is_message())?;
    let origin = speech::origin(&stanza.to_element())?;
    let from = starling_tests::history::bare(from).to_owned();
    Some(Said { from, to: to.to_bare().as_str().to_owned(), origin })
}
