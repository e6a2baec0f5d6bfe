//! The edge of a process, as far as homes see one: credit, sequences, `h`, and what was written.

use crate::line::{FromClient, Line, Pipe, ToClient};
use crate::stage::Stage;
use futures::StreamExt;
use futures::channel::mpsc;
use starling_store_scylla::model::{Dice, Process};
use starling_wire::credit::Credit;
use starling_wire::{
    ConnId, Down, EdgeId, EdgeLink, Leave, RouterLink, Shard, Shards, ToEdge, ToHome, Token, Up,
};
use starling_xmpp::{BareJid, FullJid, Stanza};
use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::sync::Arc;
use std::time::Duration;

/// What an edge of the real kind waits before it tells the homes what it has written.
const REPORT_AFTER: Duration = Duration::from_millis(400);
/// How many stanzas it tells at once.
const REPORT_EVERY: u64 = 32;
/// Credit of a session, as the real edge has it.
pub(crate) const CREDIT: (usize, usize) = (64, 256 * 1024);

/// What comes to an edge.
enum Input {
    Open(ConnId, BareJid, Pipe<ToClient>),
    Heard(ConnId, FromClient),
    Lost(ConnId),
    Down(ToEdge),
    Report(ConnId),
    /// Whether sockets of this shard's sessions may be read.
    Reading(Shard, bool),
    /// To be closed so that it can be resumed.
    Cut(ConnId),
}

/// An edge from outside.
#[derive(Clone)]
pub(crate) struct Edge {
    id: EdgeId,
    inputs: mpsc::UnboundedSender<Input>,
}

/// Where homes hand over what they say; without a link in between it is looked at here.
struct Told(mpsc::UnboundedSender<Input>, Option<Arc<Stage>>);

impl EdgeLink for Told {
    fn deliver(&self, batch: &mut Vec<ToEdge>) {
        if let Some(stage) = &self.1 {
            stage.records.told(batch, false);
        }
        for down in batch.drain(..) {
            let _ = self.0.unbounded_send(Input::Down(down)); // nobody listens any more
        }
    }
}

/// An edge from inside.
pub(crate) struct Inside {
    stage: Arc<Stage>,
    process: Process,
    router: Option<Arc<dyn RouterLink>>,
    inputs: mpsc::UnboundedReceiver<Input>,
    own: mpsc::UnboundedSender<Input>,
    conns: BTreeMap<ConnId, Conn>,
    /// In a cluster: how accounts are sorted, and the shards that have no home.
    shards: Option<(Shards, BTreeSet<Shard>)>,
    dice: Dice,
}

struct Conn {
    account: BareJid,
    to: Pipe<ToClient>,
    token: Option<Token>,
    jid: Option<FullJid>,
    credit: Credit,
    unread: VecDeque<FromClient>,
    /// Stanza management: from where `h` counts.
    base: Option<u64>,
    asks: VecDeque<u64>,
    written: u64,
    reported: u64,
}

impl Edge {
    /// An edge of a process, and what is to run in it.
    pub(crate) fn new(
        stage: &Arc<Stage>,
        process: &Process,
        id: EdgeId,
        shards: Option<Shards>,
    ) -> (Self, Inside) {
        let (sender, inputs) = mpsc::unbounded();
        let own = sender.clone();
        let inside = Inside {
            stage: stage.clone(),
            process: process.clone(),
            router: None,
            inputs,
            own,
            conns: BTreeMap::new(),
            shards: shards.map(|shards| (shards, shards.all().collect())),
            dice: stage.world.dice(),
        };
        (Self { id, inputs: sender }, inside)
    }

    /// The way to it from whoever has the links of homes.
    pub(crate) fn told(&self) -> Arc<dyn EdgeLink> {
        Arc::new(Told(self.inputs.clone(), None))
    }

    /// The same for homes of its own process.
    pub(crate) fn told_by_homes(&self, stage: &Arc<Stage>) -> Arc<dyn EdgeLink> {
        Arc::new(Told(self.inputs.clone(), Some(stage.clone())))
    }

    /// Sockets of this shard's sessions may be read, or not.
    pub(crate) fn reading(&self, shard: Shard, reading: bool) {
        let _ = self.inputs.unbounded_send(Input::Reading(shard, reading)); // the edge is gone
    }

    /// A socket is to be closed so that its session can be resumed.
    pub(crate) fn close(&self, conn: ConnId) {
        let _ = self.inputs.unbounded_send(Input::Cut(conn)); // the edge is gone
    }

    /// A new connection of somebody who has authenticated, and how to tell that client that it is gone.
    pub(crate) fn connect(
        &self,
        stage: &Stage,
        account: &BareJid,
    ) -> (Line, mpsc::UnboundedSender<ToClient>) {
        let conn = ConnId { edge: self.id, number: stage.number() };
        let (sender, heard) = mpsc::unbounded();
        let end = sender.clone();
        let down = Pipe::new(stage, move |what| {
            let _ = sender.unbounded_send(what); // the client has left
        });
        let inputs = self.inputs.clone();
        let up = Pipe::new(stage, move |what| {
            let _ = inputs.unbounded_send(Input::Heard(conn, what)); // the edge is gone
        });
        let inputs = self.inputs.clone();
        let lost = Box::new(move || drop(inputs.unbounded_send(Input::Lost(conn))));
        let _ = self.inputs.unbounded_send(Input::Open(conn, account.clone(), down.clone()));
        (Line { up, down, heard, lost }, end)
    }
}

impl Inside {
    /// Serves until the process ends, or until the homes do (`close`).
    pub(crate) async fn serve(mut self, router: Arc<dyn RouterLink>) {
        self.router = Some(router);
        while let Some(input) = self.inputs.next().await {
            self.take(input);
        }
    }

    fn take(&mut self, input: Input) {
        match input {
            Input::Open(conn, account, to) => {
                self.conns.insert(conn, Conn::new(account, to));
            }
            Input::Heard(conn, what) => {
                if let Some(open) = self.conns.get_mut(&conn) {
                    open.unread.push_back(what);
                    self.read(conn);
                }
            }
            Input::Lost(conn) => self.leave(conn, Leave::Lost),
            Input::Down(ToEdge { conn, down }) => self.down(conn, down),
            Input::Report(conn) => self.report(conn),
            Input::Reading(shard, reading) => self.set_reading(shard, reading),
            Input::Cut(conn) => {
                if let Some(open) = self.conns.get(&conn) {
                    open.to.send(ToClient::Lost);
                    self.leave(conn, Leave::Lost);
                }
            }
        }
    }

    fn set_reading(&mut self, shard: Shard, reading: bool) {
        let Some((shards, closed)) = &mut self.shards else { return };
        if !reading {
            closed.insert(shard);
            return;
        }
        closed.remove(&shard);
        let of = |open: &Conn| shards.of(&open.account) == shard;
        let conns: Vec<_> = self.conns.iter().filter(|(_, open)| of(open)).map(|(conn, _)| *conn).collect();
        for conn in conns {
            self.read(conn);
        }
    }

    fn say(&self, conn: ConnId, up: Up) {
        let (Some(open), Some(router)) = (self.conns.get(&conn), &self.router) else { return };
        router.send(&mut vec![ToHome { account: open.account.clone(), conn, up }]);
    }

    /// Takes what a client has said, as far as its credit goes.
    fn read(&mut self, conn: ConnId) {
        loop {
            let Some(open) = self.conns.get_mut(&conn) else { return };
            if open.jid.is_some() && !open.credit.is_open() {
                return;
            }
            if self.shards.as_ref().is_some_and(|(shards, closed)| closed.contains(&shards.of(&open.account)))
            {
                return;
            }
            let Some(what) = open.unread.pop_front() else { return };
            match what {
                FromClient::Bind(resource) => {
                    let token = Token(u128::from(self.dice.next()) << 64 | u128::from(self.dice.next()));
                    open.token = Some(token);
                    self.stage.records.asks(conn, token);
                    self.say(conn, Up::Bind { token, resource: Some(resource.into()) });
                }
                FromClient::Resume(token, handled) => {
                    open.token = Some(token);
                    self.stage.records.asks(conn, token);
                    self.say(conn, Up::Resume { token, handled });
                }
                FromClient::Enable => self.say(conn, Up::EnableSm { resume: true, max: None }),
                FromClient::Stanza(stanza) => self.stanza(conn, stanza),
                FromClient::Acknowledge(handled) => self.say(conn, Up::Acknowledged { handled }),
                FromClient::Ask => {
                    open.asks.push_back(open.credit.spent_through());
                    open.answer_asks();
                }
                FromClient::End => {
                    self.report(conn);
                    self.leave(conn, Leave::Closed);
                }
            }
        }
    }

    fn stanza(&mut self, conn: ConnId, mut stanza: Stanza) {
        let Some(open) = self.conns.get_mut(&conn) else { return };
        let Some(jid) = &open.jid else { return };
        stanza.from = Some(jid.as_jid().clone());
        let sequence = open.credit.spend(stanza.encoded_len());
        if let Some(token) = open.token {
            if let Some(base) = open.base {
                self.stage.records.counts_from(conn, token, base);
            }
            self.stage.records.said(conn, (token, sequence), jid.as_str(), &stanza);
        }
        self.say(conn, Up::Stanza { sequence, stanza, fault: None, trace: None, again: false });
    }

    fn down(&mut self, conn: ConnId, down: Down) {
        let Some(open) = self.conns.get_mut(&conn) else { return };
        match down {
            Down::Bound { jid } => {
                self.stage.socket(conn, Some((jid.as_str().to_owned(), open.token.unwrap_or(Token(0)))));
                open.jid = Some(jid);
                open.to.send(ToClient::Bound(open.token.unwrap_or(Token(0))));
                self.read(conn);
            }
            Down::Refused(error) => open.to.send(ToClient::Refused(error.condition.as_str().to_owned())),
            Down::Resumed { jid, sequence, base } => {
                self.stage.goes_on(&open.account);
                self.stage.records.arrived(open.token.unwrap_or(Token(0)));
                self.stage.socket(conn, Some((jid.as_str().to_owned(), open.token.unwrap_or(Token(0)))));
                open.jid = Some(jid);
                open.base = Some(base);
                open.credit.resume_at(sequence);
                open.to.send(ToClient::Resumed(sequence.saturating_sub(base) as u32));
                self.read(conn);
            }
            Down::NotResumed => open.to.send(ToClient::NotResumed),
            Down::SmEnabled { resume, base } => {
                open.base = Some(base);
                open.to.send(ToClient::Enabled(resume.is_some()));
                open.answer_asks();
            }
            Down::SmFailed => open.to.send(ToClient::End(Some("sm failed".to_owned()))),
            Down::Stanza { stanza, .. } => {
                if stanza.is_error()
                    && let (Some(id), Some(jid), Some(token)) = (&stanza.id, &open.jid, open.token)
                {
                    self.stage.refuse(jid.as_str(), token, id, crate::speech::condition(&stanza));
                }
                open.to.send(ToClient::Stanza(stanza));
                open.written += 1;
                if open.written - open.reported >= REPORT_EVERY {
                    self.report(conn);
                } else if open.written - open.reported == 1 {
                    let own = self.own.clone();
                    let later = move || drop(own.unbounded_send(Input::Report(conn)));
                    self.process.world().after(REPORT_AFTER, later);
                }
            }
            Down::Handled { sequence } => {
                open.credit.handled(sequence);
                open.answer_asks();
                self.read(conn);
            }
            Down::RequestAck => open.to.send(ToClient::Asked),
            Down::Remember(_) | Down::Saved { .. } | Down::Decided { .. } => {}
            Down::Released => {
                open.to.send(ToClient::Lost);
                self.stage.socket(conn, None);
                self.conns.remove(&conn);
            }
            Down::Close(error) => {
                let error = error.map(|error| error.condition.as_str().to_owned());
                open.to.send(ToClient::End(error));
                self.report(conn);
                self.leave(conn, Leave::Closed);
            }
        }
    }

    fn report(&mut self, conn: ConnId) {
        let Some(open) = self.conns.get_mut(&conn) else { return };
        if open.written > open.reported {
            open.reported = open.written;
            let count = open.written;
            self.say(conn, Up::Written { count });
        }
    }

    fn leave(&mut self, conn: ConnId, leave: Leave) {
        self.stage.socket(conn, None);
        self.say(conn, Up::Gone(leave));
        self.conns.remove(&conn);
    }
}

impl Conn {
    fn new(account: BareJid, to: Pipe<ToClient>) -> Self {
        Self {
            account,
            to,
            token: None,
            jid: None,
            credit: Credit::new(CREDIT.0, CREDIT.1),
            unread: VecDeque::new(),
            base: None,
            asks: VecDeque::new(),
            written: 0,
            reported: 0,
        }
    }

    /// `<a/>` for each `<r/>` whose stanzas the home has handled.
    fn answer_asks(&mut self) {
        let Some(base) = self.base else { return };
        let handled = self.credit.handled_through();
        while self.asks.pop_front_if(|asked| *asked <= handled).is_some() {
            self.to.send(ToClient::Counted(handled.saturating_sub(base) as u32));
        }
    }
}
