//! A router with nothing around it, and clients that are lists.

use parking_lot::Mutex;
use starling_hooks::{
    Answer, AnswerIq, ArchiveDefault, ArchiveIds, At, BlockList, Change, Cx, Domains, Effect, Fate, Flow,
    Hooks, Later, Limits, Outgoing, Pace, Passwords, Received, Sent, Server, Session, Spec, Stage,
    Undelivered, Xep,
};
use starling_node::{Metrics, SharedClock, SystemClock, Tracer};
use starling_router::{Router, RouterConfig, RouterParts};
use starling_store::testing::FaultyStore;
use starling_store::{AccountRow, Claim, Reign, Retention, RosterItem, SharedStore};
use starling_wire::{ConnId, Down, EdgeLink, Leave, RouterLink, ToEdge, ToHome, Token, Up};
use starling_xmpp::sasl::Credentials;
use starling_xmpp::{BareJid, Element, Jid, Kind, PresenceType, Stanza, StanzaError, Timestamp, ns};
use std::collections::HashMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;
use tokio::sync::Notify;

/// A message with this body makes the module below panic.
pub(crate) const POISON: &str = "poison";

/// Archives and keeps every message with a body.
struct KeepAll;

static ABOUT: starling_hooks::About = starling_hooks::About {
    spec: Spec::Rfc(6121),
    name: "keep all",
    server_features: &[],
    account_features: &[],
};

impl Xep for KeepAll {
    fn about(&self) -> &'static starling_hooks::About {
        &ABOUT
    }

    fn install(self: Arc<Self>, on: &mut Hooks) {
        on.sent(Stage::Shape, self.clone());
        on.received(Stage::Shape, self.clone());
        on.undelivered(self.clone());
        on.outgoing(self);
        for name in ["blocklist", "block", "unblock"] {
            on.iq(At::Account, ns::BLOCKING, name, Arc::new(Blocks));
        }
        on.iq(At::Account, "test:pages", "page", Arc::new(Pages));
    }
}

impl Outgoing for KeepAll {
    fn outgoing(&self, _: &Session, stanza: &Stanza) -> Pace {
        if matches!(stanza.kind, Kind::Presence(_)) { Pace::Later } else { Pace::Now }
    }
}

impl Sent for KeepAll {
    /// Whoever asks for the roster gets pushes, if nothing else. Other sessions of negative priority get copies.
    fn sent(&self, cx: &mut Cx<'_>, stanza: &mut Stanza, fate: &mut Fate) -> Flow {
        if let (Kind::Iq(_), Some(session)) = (stanza.kind, cx.session) {
            cx.change(Change::Interested(session.token));
        }
        assert_ne!(body(stanza), POISON, "a mistake in a module");
        fate.archived = has_body(stanza) && !stanza.payload.has("urn:xmpp:hints", "no-permanent-store");
        if let Some(sender) = cx.session.filter(|_| has_body(stanza) && is_copied(stanza)) {
            let others = cx.account.sessions.iter().filter(|session| session.priority < 0);
            let others = others.map(|session| session.token).filter(|token| *token != sender.token);
            fate.copies.extend(others.collect::<Vec<_>>());
        }
        Flow::Next
    }
}

/// The list of whom an account blocks; changes are told to nobody but those whom they concern.
struct Blocks;

/// Whom is blocked from now on sees the account's sessions leave, whom is not any more sees them come.
fn show(cx: &mut Cx<'_>, list: &BlockList) {
    let account = cx.account;
    let sees = |contact: &RosterItem| contact.subscription.is_from();
    for contact in account.roster.items.values().filter(|contact| sees(contact)).map(|contact| &contact.jid) {
        let to: Jid = contact.clone().into();
        for session in account.available().filter(|_| account.blocked.blocks(&to) != list.blocks(&to)) {
            let gone = Stanza::presence(PresenceType::Unavailable).from(session.jid.clone());
            let shown = session.presence.clone().filter(|_| !list.blocks(&to));
            cx.route(shown.unwrap_or(gone).to(to.clone()));
        }
    }
    for session in &account.sessions {
        for to in session.directed.iter().filter(|to| list.blocks(to)) {
            let gone = Stanza::presence(PresenceType::Unavailable).from(session.jid.clone());
            cx.route(gone.to(to.clone()));
            cx.change(Change::Undirected(session.token, to.clone()));
        }
    }
}

impl AnswerIq for Blocks {
    fn answer(&self, cx: &mut Cx<'_>, _: &Stanza, payload: &Element) -> Answer {
        let mut list = cx.account.blocked.clone();
        for item in payload.children().filter_map(|item| item.attribute("jid")) {
            let jid = Jid::parse(item).unwrap();
            if payload.name() == "block" {
                list.insert(jid)
            } else {
                list.remove(&jid)
            };
        }
        match cx.session {
            Some(session) if payload.name() == "blocklist" => cx.change(Change::WatchesBlocks(session.token)),
            _ => {
                show(cx, &list);
                cx.change(Change::Blocked(list));
            }
        }
        Answer::Result(None)
    }
}

/// Pages of messages, of so many bytes each.
struct Pages;

impl AnswerIq for Pages {
    fn answer(&self, cx: &mut Cx<'_>, _: &Stanza, payload: &Element) -> Answer {
        let number = |name| payload.attribute(name).and_then(|text| text.parse().ok()).unwrap_or(0);
        let (messages, bytes): (usize, usize) = (number("messages"), number("bytes"));
        let token = cx.session.map_or(Token(0), |session| session.token);
        Answer::Later(Box::pin(async move {
            let one = |_| Effect::Deliver(token, chat("alice@localhost", &"x".repeat(bytes)));
            Later { effects: (0..messages).map(one).collect(), answer: Ok(None) }
        }))
    }
}

impl Received for KeepAll {
    /// Sessions of negative priority get copies, and one that is called "copies".
    fn received(&self, cx: &mut Cx<'_>, stanza: &mut Stanza, fate: &mut Fate) -> Flow {
        fate.archived = has_body(stanza);
        fate.offline = has_body(stanza);
        let others = cx.account.sessions.iter().filter(|session| gets_copies(session) && is_copied(stanza));
        let others = others.map(|session| session.token).filter(|token| !fate.recipients.contains(token));
        fate.copies.extend(others.collect::<Vec<_>>());
        Flow::Next
    }
}

impl Undelivered for KeepAll {
    fn undelivered(&self, _: &mut Cx<'_>, stanza: &Stanza, fate: &mut Fate) -> Flow {
        fate.offline = has_body(stanza);
        Flow::Next
    }
}

fn gets_copies(session: &Session) -> bool {
    session.priority < 0 || session.jid.resource() == Some("copies")
}

fn is_copied(stanza: &Stanza) -> bool {
    !stanza.payload.has("urn:xmpp:hints", "no-copy")
}

fn has_body(stanza: &Stanza) -> bool {
    stanza.payload.has(ns::CLIENT, "body")
}

struct NoPasswords;

impl Passwords for NoPasswords {
    fn derive(&self, _: String) -> futures::future::BoxFuture<'static, Result<Credentials, StanzaError>> {
        Box::pin(async { Err(StanzaError::new(starling_xmpp::StanzaCondition::NotAllowed)) })
    }
}

/// The edge: what every connection was told.
#[derive(Default)]
pub(crate) struct Told {
    lists: Mutex<HashMap<ConnId, Vec<Down>>>,
    news: Notify,
}

impl EdgeLink for Told {
    fn deliver(&self, batch: &mut Vec<ToEdge>) {
        let mut lists = self.lists.lock();
        for message in batch.drain(..) {
            lists.entry(message.conn).or_default().push(message.down);
        }
        drop(lists);
        self.news.notify_waiters();
    }
}

/// A router, its store and its edge.
pub(crate) struct World {
    pub(crate) store: FaultyStore,
    pub(crate) told: Arc<Told>,
    pub(crate) router: Router,
    link: Arc<dyn RouterLink>,
    conns: AtomicU64,
}

impl World {
    /// With accounts alice, bob and carol on localhost.
    pub(crate) async fn new() -> Self {
        Self::with(RouterConfig::default(), SystemClock::shared()).await
    }

    /// The same with other bounds and another time.
    pub(crate) async fn with(config: RouterConfig, clock: SharedClock) -> Self {
        let store = FaultyStore::in_memory();
        for name in ["alice", "bob", "carol"] {
            let shared: SharedStore = Arc::new(store.clone());
            shared.create_account(&jid(name), account(), Reign::NONE).await.unwrap();
        }
        Self::on(store, config, clock).await
    }

    /// On a store that has accounts already.
    async fn on(store: FaultyStore, config: RouterConfig, clock: SharedClock) -> Self {
        let told = Arc::new(Told::default());
        let router =
            Router::start(parts(Arc::new(store.clone()), config, clock, told.clone())).await.unwrap();
        let link = router.link();
        Self { store, told, router, link, conns: AtomicU64::new(0) }
    }

    /// Stops without a word, as a kill would, and starts on the same store.
    pub(crate) async fn crash(self) -> Self {
        let store = self.store.clone();
        self.router.abort();
        Self::on(store, RouterConfig::default(), SystemClock::shared()).await
    }

    /// A client that has bound this resource.
    pub(crate) async fn client(&self, account: &str, resource: &str) -> Client<'_> {
        let conn = ConnId::local(self.conns.fetch_add(1, Ordering::Relaxed));
        let mut client = Client {
            world: self,
            account: jid(account),
            full: String::new(),
            conn,
            token: Token(starling_node::ids::token()),
            sequence: 0,
            seen: 0,
        };
        client.say(Up::Bind { token: client.token, resource: Some(resource.into()) });
        match client.next().await {
            Down::Bound { jid } => client.full = jid.as_str().to_owned(),
            other => panic!("not bound: {other:?}"),
        }
        client
    }

    /// A client that is available too.
    pub(crate) async fn available(&self, account: &str, resource: &str) -> Client<'_> {
        let mut client = self.client(account, resource).await;
        client.send(Stanza::presence(PresenceType::Available));
        client.until(|down| matches!(down, Down::Handled { .. })).await;
        client
    }
}

/// What a router is made of, around a store and an edge.
pub(crate) fn parts(
    store: SharedStore,
    config: RouterConfig,
    clock: SharedClock,
    edge: Arc<dyn EdgeLink>,
) -> RouterParts {
    let hooks = Hooks::of(vec![Arc::new(KeepAll)]);
    let server = Arc::new(Server {
        domains: Domains::new(vec!["localhost".to_owned()]),
        software: ("test", "0"),
        store: Arc::clone(&store),
        archive_ids: ArchiveIds::new(&[1; 32]),
        features: hooks.features(),
        limits: Limits::default(),
        registration: false,
        iterations: 1,
        archive_default: ArchiveDefault::Always,
        passwords: Arc::new(NoPasswords),
    });
    RouterParts {
        config,
        server,
        hooks,
        store,
        edge,
        clock,
        metrics: Arc::new(Metrics::new()),
        tracer: Tracer::off(),
        retention: Retention::default(),
        claim: Claim { instance: 1, name: "test".to_owned() },
    }
}

/// An account that anybody may have.
pub(crate) fn account() -> AccountRow {
    AccountRow {
        generation: 1,
        credentials: Credentials::derive("secret", [1; 16], 1).unwrap(),
        created: Timestamp(0),
        disabled: false,
    }
}

pub(crate) fn jid(name: &str) -> BareJid {
    BareJid::parse(&format!("{name}@localhost")).unwrap()
}

/// One connection.
pub(crate) struct Client<'a> {
    pub(crate) world: &'a World,
    pub(crate) account: BareJid,
    pub(crate) full: String,
    pub(crate) conn: ConnId,
    pub(crate) token: Token,
    pub(crate) sequence: u64,
    seen: usize,
}

impl Client<'_> {
    pub(crate) fn say(&self, up: Up) {
        self.world.link.send(&mut vec![ToHome { account: self.account.clone(), conn: self.conn, up }]);
    }

    /// Sends a stanza; returns its sequence.
    pub(crate) fn send(&mut self, mut stanza: Stanza) -> u64 {
        self.sequence += 1;
        stanza.from = Some(Jid::parse(&self.full).unwrap());
        self.say(Up::Stanza { sequence: self.sequence, stanza, fault: None, trace: None, again: false });
        self.sequence
    }

    /// Sends stanzas that the home finds together.
    pub(crate) fn send_all(&mut self, stanzas: Vec<Stanza>) {
        let mut batch = Vec::new();
        for mut stanza in stanzas {
            self.sequence += 1;
            stanza.from = Some(Jid::parse(&self.full).unwrap());
            let up = Up::Stanza { sequence: self.sequence, stanza, fault: None, trace: None, again: false };
            batch.push(ToHome { account: self.account.clone(), conn: self.conn, up });
        }
        self.world.link.send(&mut batch);
    }

    /// Comes back over another connection, having handled so many.
    pub(crate) fn resume(&mut self, conn: u64, handled: u32) {
        self.conn = ConnId::local(conn);
        self.say(Up::Resume { token: self.token, handled });
    }

    /// Sends a chat message with this body.
    pub(crate) fn chat(&mut self, to: &str, body: &str) -> u64 {
        self.send(chat(to, body))
    }

    pub(crate) fn chat_with_origin(&mut self, to: &str, body: &str, origin: &str) -> u64 {
        let id = Element::new(ns::SID, "origin-id").attr("id", origin);
        self.send(chat(to, body).child(id))
    }

    /// The next thing it is told, in time.
    pub(crate) async fn next(&mut self) -> Down {
        let wait = async {
            loop {
                let news = self.world.told.news.notified();
                tokio::pin!(news);
                news.as_mut().enable();
                if let Some(down) = self.take() {
                    return down;
                }
                news.await;
            }
        };
        tokio::time::timeout(Duration::from_secs(20), wait).await.expect("nothing came in time")
    }

    /// What it was told already and has not looked at.
    pub(crate) fn take(&mut self) -> Option<Down> {
        let mut lists = self.world.told.lists.lock();
        let list = lists.get_mut(&self.conn)?;
        if list.is_empty() {
            return None;
        }
        self.seen += 1;
        Some(list.remove(0))
    }

    /// Reads on until this; returns it.
    pub(crate) async fn until(&mut self, wanted: impl Fn(&Down) -> bool) -> Down {
        loop {
            let down = self.next().await;
            if wanted(&down) {
                return down;
            }
        }
    }

    /// The next message it gets.
    pub(crate) async fn message(&mut self) -> Stanza {
        match self.until(|down| matches!(down, Down::Stanza { stanza, .. } if stanza.is_message())).await {
            Down::Stanza { stanza, .. } => stanza,
            _ => unreachable!("it was a stanza"),
        }
    }

    /// Waits until everything sent is handled.
    pub(crate) async fn settled(&mut self) {
        let all = self.sequence;
        self.until(|down| matches!(down, Down::Handled { sequence } if *sequence >= all)).await;
    }

    /// Messages that have come within a moment.
    pub(crate) async fn messages_for(&mut self, moment: Duration) -> Vec<Stanza> {
        tokio::time::sleep(moment).await;
        let mut messages = Vec::new();
        while let Some(down) = self.take() {
            if let Down::Stanza { stanza, .. } = down
                && stanza.is_message()
            {
                messages.push(stanza);
            }
        }
        messages
    }

    pub(crate) fn gone(&self, leave: Leave) {
        self.say(Up::Gone(leave));
    }

    pub(crate) async fn enable(&mut self) {
        self.say(Up::EnableSm { resume: true, max: None });
        self.until(|down| matches!(down, Down::SmEnabled { resume: Some(_), .. })).await;
    }
}

pub(crate) fn chat(to: &str, body: &str) -> Stanza {
    let mut stanza =
        Stanza::message(starling_xmpp::MessageType::Chat).child(Element::new(ns::CLIENT, "body").text(body));
    stanza.to = Some(Jid::parse(to).unwrap());
    stanza
}

pub(crate) fn body(stanza: &Stanza) -> String {
    stanza.payload.get(ns::CLIENT, "body").map(|body| body.text()).unwrap_or_default()
}

pub(crate) fn stanza_id(stanza: &Stanza) -> String {
    let id = stanza.payload.get(ns::SID, "stanza-id").expect("it has a stanza-id");
    id.attribute("id").expect("with an id").to_string()
}

/// All rows of an account's log.
pub(crate) async fn rows(world: &World, account: &str) -> Vec<starling_store::LogRow> {
    let store: SharedStore = Arc::new(world.store.clone());
    store
        .log_page(&jid(account), starling_store::LogFilter::default(), starling_store::Page::First(100_000))
        .await
        .unwrap()
        .rows
}
