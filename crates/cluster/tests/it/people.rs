//! Edges without sockets, and clients that speak over them.

use crate::site::{CLUSTER, Site, jid};
use parking_lot::Mutex;
use starling_node::SystemClock;
use starling_wire::net::{EdgeClient, Options, Own, Roll, Sockets, Uplink};
use starling_wire::uplink::Patience;
use starling_wire::{ConnId, Down, EdgeId, EdgeLink, Leave, RouterLink, Shard, ToEdge, ToHome, Token, Up};
use starling_xmpp::{BareJid, Element, FullJid, IqType, Jid, Kind, MessageType, PresenceType, Stanza, ns};
use std::collections::HashMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;
use tokio::time::Instant;

/// What a client has sent and seen.
#[derive(Debug, Default)]
pub(crate) struct Seen {
    pub(crate) jid: Option<FullJid>,
    pub(crate) handled: u64,
    /// `handled` has risen since it was last looked.
    pub(crate) news: bool,
    pub(crate) managed: bool,
    pub(crate) resumed: Option<u64>,
    /// Bodies, in order; errors as `!` and the id of what was refused, which is its body.
    pub(crate) messages: Vec<String>,
    /// What it was asked.
    pub(crate) requests: Vec<Stanza>,
    /// Ids of what it has asked and was answered; of errors with `!`.
    pub(crate) answers: Vec<String>,
    /// Ids of presence that has one.
    pub(crate) presences: Vec<String>,
    /// Stanzas that count for stream management.
    counted: u32,
    pub(crate) closed: bool,
    pub(crate) ended: Option<String>,
}

impl Seen {
    fn takes(&mut self, stanza: Stanza) {
        let id = stanza.id.clone().unwrap_or_default().to_string();
        match stanza.kind {
            Kind::Message(MessageType::Error) => self.messages.push(format!("!{id}")),
            Kind::Message(_) => self.messages.push(body(&stanza)),
            Kind::Iq(IqType::Get | IqType::Set) => self.requests.push(stanza),
            Kind::Iq(IqType::Result) => self.answers.push(id),
            Kind::Iq(IqType::Error) => self.answers.push(format!("!{id}")),
            Kind::Presence(_) if id.is_empty() => {}
            Kind::Presence(_) => self.presences.push(id),
        }
    }
}

/// What homes said to the connections of one edge.
#[derive(Default)]
pub(crate) struct Desk {
    seen: Mutex<HashMap<u64, Seen>>,
    cut: Mutex<Vec<u64>>,
    /// When all sockets were last read again.
    acks: Mutex<Vec<(u64, u32)>>,
}

impl EdgeLink for Desk {
    fn deliver(&self, batch: &mut Vec<ToEdge>) {
        let mut all = self.seen.lock();
        for ToEdge { conn, down } in batch.drain(..) {
            let seen = all.entry(conn.number).or_default();
            match down {
                Down::Bound { jid } => seen.jid = Some(jid),
                Down::Resumed { jid, sequence, .. } => {
                    seen.jid = Some(jid);
                    seen.handled = seen.handled.max(sequence);
                    seen.resumed = Some(sequence);
                }
                Down::SmEnabled { .. } => seen.managed = true,
                Down::Handled { sequence } => (seen.handled, seen.news) = (seen.handled.max(sequence), true),
                Down::Stanza { stanza, counts, .. } => {
                    if counts {
                        seen.counted = seen.counted.wrapping_add(1);
                        self.acks.lock().push((conn.number, seen.counted));
                    }
                    seen.takes(stanza);
                }
                Down::Close(error) => {
                    seen.closed = true;
                    seen.ended = Some(format!("{error:?}"));
                }
                Down::Released => seen.closed = true,
                Down::Refused(error) => seen.ended = Some(format!("{error:?}")),
                Down::NotResumed => seen.ended = Some("not resumed".to_owned()),
                Down::SmFailed
                | Down::Remember(_)
                | Down::Saved { .. }
                | Down::Decided { .. }
                | Down::RequestAck => {}
            }
        }
    }
}

impl Desk {
    /// Whether the edge has given this connection up, for nobody was home.
    pub(crate) fn has_cut(&self, conn: ConnId) -> bool {
        self.cut.lock().contains(&conn.number)
    }
}

impl Sockets for Desk {
    fn reading(&self, _shard: Shard, _on: bool) {}

    fn cut(&self, conn: ConnId) {
        self.cut.lock().push(conn.number);
    }
}

fn body(stanza: &Stanza) -> String {
    stanza.payload.get(ns::CLIENT, "body").map(|body| body.text()).unwrap_or_default()
}

/// One edge, linked to all routers.
pub(crate) struct Edge {
    pub(crate) id: EdgeId,
    pub(crate) uplink: Arc<Uplink>,
    pub(crate) desk: Arc<Desk>,
    client: Mutex<Option<EdgeClient>>,
    next: AtomicU64,
}

impl Edge {
    pub(crate) async fn start(site: &Site, id: u64) -> Arc<Self> {
        Self::with_seeds(site, id, site.addresses()).await
    }

    /// It is told of these routers only.
    pub(crate) async fn with_seeds(site: &Site, id: u64, seeds: Vec<String>) -> Arc<Self> {
        let name = format!("edge-{id}");
        let own =
            Own { edge: EdgeId(id), name: name.clone(), cluster: CLUSTER.to_owned(), shards: site.shards() };
        let desk = Arc::new(Desk::default());
        let uplink =
            Uplink::start(own, Patience::default(), desk.clone(), desk.clone(), SystemClock::shared());
        let (seeds, tls) = (Arc::new(Roll::new(seeds)), site.edge_tls(&name));
        let client = EdgeClient::start(seeds, tls, Options::default(), Arc::new(Arc::clone(&uplink)));
        let client = Mutex::new(Some(client));
        let edge = Self { id: EdgeId(id), uplink, desk, client, next: AtomicU64::new(1) };
        let all = usize::from(site.shards().count());
        crate::site::until(Duration::from_secs(5), "an edge has all homes", || edge.uplink.load().0 == all)
            .await;
        Arc::new(edge)
    }

    /// All its links are gone, as if its process were.
    pub(crate) fn unplug(&self) {
        drop(self.client.lock().take());
    }

    fn conn(&self) -> ConnId {
        ConnId { edge: self.id, number: self.next.fetch_add(1, Ordering::Relaxed) }
    }
}

/// A client with a session.
pub(crate) struct Client {
    pub(crate) edge: Arc<Edge>,
    pub(crate) account: BareJid,
    pub(crate) conn: ConnId,
    pub(crate) token: Token,
    pub(crate) sequence: u64,
    from: Option<Jid>,
    acknowledged: u32,
}

impl Client {
    /// Binds, comes online, and has its stanzas counted. As any client does, it tries again when it is asked to wait.
    pub(crate) async fn managed(edge: &Arc<Edge>, name: &str, resource: &str) -> Self {
        let mut attempts = 0;
        let mut client = loop {
            let conn = edge.conn();
            let token = Token(u128::from(edge.id.0) << 64 | u128::from(conn.number));
            let account = jid(name);
            let (from, acknowledged) = (None, 0);
            let client =
                Self { edge: Arc::clone(edge), account, conn, token, sequence: 0, from, acknowledged };
            client.say(Up::Bind { token, resource: Some(resource.into()) });
            client.until("it is bound", |seen| seen.jid.is_some() || seen.ended.is_some()).await;
            if client.see(|seen| seen.jid.is_some()) {
                break client;
            }
            attempts += 1;
            assert!(attempts < 20, "{:?}", client.see(|seen| seen.ended.clone()));
        };
        client.from = client.see(|seen| seen.jid.clone()).map(Into::into);
        client.say(Up::EnableSm { resume: true, max: None });
        client.until("it is managed", |seen| seen.managed).await;
        client.send(Stanza::presence(PresenceType::Available));
        client
    }

    /// The session goes on at that edge, with all that the client has seen and not had an answer to.
    pub(crate) async fn resume(self, edge: &Arc<Edge>) -> Self {
        let seen = self.see(std::mem::take);
        let mut attempts = 0;
        loop {
            let conn = edge.conn();
            let again = Seen {
                messages: seen.messages.clone(),
                counted: seen.counted,
                managed: true,
                ..Seen::default()
            };
            edge.desk.seen.lock().insert(conn.number, again);
            let client = Self {
                edge: Arc::clone(edge),
                conn,
                account: self.account.clone(),
                from: self.from.clone(),
                ..self
            };
            client.say(Up::Resume { token: client.token, handled: seen.counted });
            client
                .until("it is resumed", |seen| seen.resumed.is_some() || seen.closed || seen.ended.is_some())
                .await;
            if let Some(sequence) = client.see(|seen| seen.resumed) {
                return Self { sequence, ..client };
            }
            attempts += 1;
            assert!(attempts < 100, "{:?}", client.see(|seen| seen.ended.clone()));
            tokio::time::sleep(Duration::from_millis(50)).await;
        }
    }

    pub(crate) fn say(&self, up: Up) {
        self.edge.uplink.send(&mut vec![ToHome { account: self.account.clone(), conn: self.conn, up }]);
    }

    pub(crate) fn send(&mut self, mut stanza: Stanza) {
        self.sequence += 1;
        stanza.from.clone_from(&self.from);
        self.say(Up::Stanza { sequence: self.sequence, stanza, fault: None, trace: None, again: false });
    }

    /// A chat message.
    pub(crate) fn tell(&mut self, to: &str, text: &str) {
        let mut stanza =
            Stanza::message(MessageType::Chat).child(Element::new(ns::CLIENT, "body").text(text));
        stanza.to = Some(jid(to).into());
        stanza.id = Some(text.into());
        self.send(stanza);
    }

    /// Says what it has handled.
    pub(crate) fn acknowledge(&mut self) {
        let counted = self.see(|seen| seen.counted);
        if counted != self.acknowledged {
            self.acknowledged = counted;
            self.say(Up::Acknowledged { handled: counted });
        }
    }

    /// Its socket is gone.
    pub(crate) fn lose(&self) {
        self.say(Up::Gone(Leave::Lost));
    }

    pub(crate) fn see<T>(&self, look: impl FnOnce(&mut Seen) -> T) -> T {
        look(self.edge.desk.seen.lock().entry(self.conn.number).or_default())
    }

    pub(crate) fn messages(&self) -> Vec<String> {
        self.see(|seen| seen.messages.clone())
    }

    /// How many of its stanzas have no answer.
    pub(crate) fn open(&self) -> u64 {
        self.sequence - self.see(|seen| seen.handled)
    }

    pub(crate) async fn until(&self, what: &str, is_it: impl Fn(&Seen) -> bool) {
        let end = Instant::now() + Duration::from_secs(10);
        while !self.see(|seen| is_it(seen)) {
            assert!(
                Instant::now() < end,
                "{}: not in time: {what}: {:?}",
                self.account,
                self.see(|seen| format!("{seen:?}"))
            );
            tokio::time::sleep(Duration::from_millis(2)).await;
        }
    }
}
