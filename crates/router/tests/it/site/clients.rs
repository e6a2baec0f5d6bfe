//! Clients of a site, what they say and what they are told.

use super::{Client, Site};
use crate::bench::{body, chat, jid};
use crate::stage::{condition, now};
use starling_node::Clock;
use starling_store::{LogFilter, Page, Store};
use starling_wire::{ConnId, Down, Leave, ToHome, Token, Up};
use starling_xmpp::{Jid, Kind, MessageType, PresenceType, Stanza};
use std::sync::atomic::Ordering;

impl Site {
    /// A connection that asks for a session.
    pub(crate) fn connect(&mut self, edge: usize, account: &str, resource: &str) -> Client {
        self.conns += 1;
        let full = Jid::parse(&format!("{account}@localhost/{resource}")).unwrap();
        let (conn, token) =
            (ConnId { edge: self.edges[edge].id, number: self.conns }, Token(u128::from(self.conns)));
        let client = Client { account: jid(account), full, conn, token, sequence: 0 };
        self.numbers.is_of(conn, token);
        self.say(&client, Up::Bind { token, resource: Some(resource.into()) });
        client
    }

    /// Somebody who is available.
    pub(crate) fn client(&mut self, edge: usize, account: &str, resource: &str) -> Client {
        let mut client = self.connect(edge, account, resource);
        self.run();
        self.send(&mut client, Stanza::presence(PresenceType::Available));
        self.run();
        let downs = self.told(&client);
        assert!(matches!(downs.first(), Some(Down::Bound { .. })), "{downs:?}");
        client
    }

    /// The same with stream management.
    pub(crate) fn managed(&mut self, edge: usize, account: &str, resource: &str) -> Client {
        let client = self.client(edge, account, resource);
        self.say(&client, Up::EnableSm { resume: true, max: None });
        self.run();
        let downs = self.told(&client);
        assert!(
            downs.iter().any(|down| matches!(down, Down::SmEnabled { resume: Some(_), .. })),
            "{downs:?}"
        );
        client
    }

    /// The session goes on over a new connection.
    pub(crate) fn resume(&mut self, client: &Client, edge: usize, handled: u32) -> Client {
        self.conns += 1;
        let conn = ConnId { edge: self.edges[edge].id, number: self.conns };
        let client = Client { conn, ..client.clone() };
        self.numbers.is_of(conn, client.token);
        self.say(&client, Up::Resume { token: client.token, handled });
        client
    }

    pub(crate) fn say(&mut self, client: &Client, up: Up) {
        let message = ToHome { account: client.account.clone(), conn: client.conn, up };
        self.accounts.insert(client.conn, client.account.clone());
        let (shard, now) = (self.shards.of(&client.account), self.clock.monotonic());
        let Some(edge) = self.edges.iter_mut().find(|own| own.id == client.conn.edge) else { return };
        let mut out = Vec::new();
        edge.seats[usize::from(shard.0)].up(message, now, &mut out);
        let id = edge.id;
        self.carry_out(id, out);
    }

    pub(crate) fn send(&mut self, client: &mut Client, mut stanza: Stanza) {
        client.sequence += 1;
        stanza.from = Some(client.full.clone());
        let (sequence, fault, trace) = (self.numbers.said(client.conn, client.sequence), None, None);
        self.say(client, Up::Stanza { sequence, stanza, fault, trace, again: false });
    }

    /// It is on its way then.
    pub(crate) fn post(&mut self, client: &mut Client, to: &str, body: &str) {
        self.send(client, chat(&format!("{to}@localhost"), body));
    }

    /// Sends a message and lets all go on.
    pub(crate) fn chat(&mut self, client: &mut Client, to: &str, body: &str) {
        self.post(client, to, body);
        self.run();
    }

    /// Its socket is lost.
    pub(crate) fn lose(&mut self, client: &Client) {
        self.say(client, Up::Gone(Leave::Lost));
        self.run();
    }

    /// What it was told since the last time.
    pub(crate) fn told(&mut self, client: &Client) -> Vec<Down> {
        let Some(edge) = self.edges.iter_mut().find(|own| own.id == client.conn.edge) else {
            return Vec::new();
        };
        edge.told.remove(&client.conn.number).unwrap_or_default()
    }

    /// The messages among that, as `body` or `!condition`.
    pub(crate) fn messages(&mut self, client: &Client) -> Vec<String> {
        let message = |down: &Down| {
            let Down::Stanza { stanza, .. } = down else { return None };
            match stanza.kind {
                Kind::Message(MessageType::Error) => Some(condition(stanza)),
                Kind::Message(_) if stanza.payload.has_ns("urn:xmpp:carbons:2") => Some("copy".to_owned()),
                Kind::Message(_) => Some(body(stanza)),
                _ => None,
            }
        };
        self.told(client).iter().filter_map(message).collect()
    }

    /// How many stanzas were said to edges so far.
    pub(crate) fn stanzas(&self) -> usize {
        self.wires.stanzas.load(Ordering::Relaxed)
    }

    /// Bytes that edges were to remember so far.
    pub(crate) fn remembered(&self) -> usize {
        self.wires.remembered.load(Ordering::Relaxed)
    }

    /// How far its stanzas are handled.
    pub(crate) fn handled(&mut self, client: &Client) -> u64 {
        let handled = self.told(client).into_iter().filter_map(|down| match down {
            Down::Handled { sequence } => Some(sequence),
            _ => None,
        });
        handled.max().unwrap_or(0)
    }

    /// How many connections this edge keeps something of.
    pub(crate) fn kept(&self, edge: usize) -> usize {
        self.edges[edge].seats.iter().map(|seat| seat.load().sessions).sum()
    }

    /// What this edge keeps, in words.
    pub(crate) fn keeps(&self, edge: usize) -> String {
        format!(
            "{:?}",
            self.edges[edge].seats.iter().filter(|seat| seat.load().sessions > 0).collect::<Vec<_>>()
        )
    }

    /// The bodies of all rows of an account.
    pub(crate) fn rows(&self, account: &str) -> Vec<String> {
        let page = self.store.log_page(&jid(account), LogFilter::default(), Page::First(100_000));
        now(page).unwrap().rows.into_iter().map(|row| body(&Stanza::decode(row.stanza).unwrap())).collect()
    }

    /// Who wrote what, of the rows that came to an account.
    pub(crate) fn rows_from(&self, account: &str) -> Vec<(String, String)> {
        let filter = LogFilter::default();
        let rows = now(self.store.log_page(&jid(account), filter, Page::First(100_000))).unwrap().rows;
        let came = rows.into_iter().filter(|row| row.direction != starling_store::Direction::Out);
        came.map(|row| {
            let with = row.with.as_jid().local().unwrap_or_default().to_owned();
            (with, body(&Stanza::decode(row.stanza).unwrap()))
        })
        .collect()
    }
}
