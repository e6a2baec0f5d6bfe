//! A bench for modules: XML in, flow, fate and effects out. For tests of this crate and of those above it (feature `testing`).

use crate::domains::Domains;
use crate::{
    Account, Answer, ArchiveDefault, ArchiveIds, ArchivePreferences, At, BlockList, Change, Cx, Effect, Fate,
    Flow, Hooks, Limits, Pace, Passwords, PresenceEvent, Server, Session, Xep,
};
use futures::FutureExt;
use futures::future::BoxFuture;
use starling_store::memory::MemoryStore;
use starling_store::{
    AccountRow, Batch, Direction, LogRow, Origin, Position, Reign, Roster, RosterItem, Store, Subscription,
    Write,
};
use starling_wire::Token;
use starling_xmpp::sasl::{Credentials, MIN_ITERATIONS};
use starling_xmpp::{BareJid, Element, Jid, Stanza, StanzaCondition, StanzaError, Timestamp, ns};
use std::sync::Arc;

/// The moment at which everything on a bench happens: 2023-11-14T22:13:20Z.
pub const NOW: Timestamp = Timestamp::from_secs(1_700_000_000);

/// An element from a literal; `jabber:client` is the namespace around it.
///
/// # Panics
/// When the literal is not XML.
#[track_caller]
pub fn element(xml: &str) -> Element {
    Element::parse(xml.as_bytes(), ns::CLIENT).unwrap_or_else(|error| panic!("{error:?} in {xml}"))
}

/// A stanza from a literal.
///
/// # Panics
/// When the literal is not a stanza.
#[track_caller]
pub fn stanza(xml: &str) -> Stanza {
    Stanza::from_element(&element(xml)).unwrap_or_else(|error| panic!("{error:?} in {xml}"))
}

/// A stanza's XML, without `xmlns` of `jabber:client`.
pub fn xml(stanza: &Stanza) -> String {
    let mut bytes = Vec::new();
    stanza.write(&mut bytes);
    String::from_utf8_lossy(&bytes).into_owned()
}

/// A JID from a literal.
///
/// # Panics
/// When the literal is none.
#[track_caller]
pub fn jid(text: &str) -> Jid {
    Jid::parse(text).unwrap_or_else(|error| panic!("{error:?} in {text}"))
}

/// A bare JID from a literal.
///
/// # Panics
/// When the literal is none.
#[track_caller]
pub fn bare(text: &str) -> BareJid {
    BareJid::parse(text).unwrap_or_else(|error| panic!("{error:?} in {text}"))
}

/// The account `alice@localhost` with its home's hooks.
pub struct Bench {
    /// The account. Changes that hooks push take effect after each call.
    pub account: Account,
    /// What is the same for all accounts; serves `localhost`, with a store in memory that has the account.
    pub server: Arc<Server>,
    /// The hooks.
    pub hooks: Hooks,
    /// When it happens.
    pub now: Timestamp,
    /// How many stanza ids were made up.
    pub next_id: u64,
}

/// What became of a stanza.
#[derive(Debug)]
pub struct Seen {
    /// What the last hook said.
    pub flow: Flow,
    /// The stanza as decided.
    pub stanza: Stanza,
    /// Its fate.
    pub fate: Fate,
    /// What shall be done.
    pub effects: Vec<Effect>,
}

/// What became of a request.
#[derive(Debug)]
pub struct Asked {
    /// The answer.
    pub answer: Result<Option<Element>, StanzaError>,
    /// What shall be done, for an answer that came later too.
    pub effects: Vec<Effect>,
}

impl Asked {
    /// The payload of the result.
    ///
    /// # Panics
    /// When there is none.
    #[track_caller]
    pub fn result(&self) -> &Element {
        match &self.answer {
            Ok(Some(element)) => element,
            other => panic!("no result with a payload but {other:?}"),
        }
    }

    /// The condition of the error.
    ///
    /// # Panics
    /// When it is no error.
    #[track_caller]
    pub fn condition(&self) -> &'static str {
        self.answer.as_ref().expect_err("an error").condition.as_str()
    }
}

/// Keys made up from the password; `refused` is not acceptable.
struct MadeUp;

impl Passwords for MadeUp {
    fn derive(&self, password: String) -> BoxFuture<'static, Result<Credentials, StanzaError>> {
        let keys = (password != "refused").then(|| Credentials::fake(b"bench", &password, MIN_ITERATIONS));
        async { keys.ok_or(StanzaError::new(StanzaCondition::NotAcceptable)) }.boxed()
    }
}

impl Bench {
    /// With these modules and an account without sessions, contacts or history.
    ///
    /// # Panics
    /// Never: what is written here is right.
    pub fn new(modules: Vec<Arc<dyn Xep>>) -> Self {
        let owner = bare("alice@localhost");
        let store = MemoryStore::new();
        let credentials = Credentials::fake(b"bench", "alice", MIN_ITERATIONS);
        let row = AccountRow { generation: 1, credentials, created: NOW, disabled: false };
        now(store.create_account(&owner, row, Reign::NONE)).expect("a new store has no accounts");
        let hooks = Hooks::of(modules);
        let server = Arc::new(Server {
            domains: Domains::new(vec!["localhost".to_owned()]),
            software: ("Starling", "1.2.3"),
            store: Arc::new(store),
            archive_ids: ArchiveIds::new(&[7; 32]),
            features: hooks.features(),
            limits: Limits::default(),
            registration: false,
            iterations: MIN_ITERATIONS,
            archive_default: ArchiveDefault::Always,
            passwords: Arc::new(MadeUp),
        });
        let account = Account {
            jid: owner,
            roster: Roster::default(),
            blocked: BlockList::default(),
            archive: ArchivePreferences::default(),
            sessions: Vec::new(),
        };
        Self { account, server, hooks, now: NOW, next_id: 0 }
    }

    /// With another session, not available.
    ///
    /// # Panics
    /// When that is no resource.
    #[must_use]
    pub fn session(mut self, resource: &str) -> Self {
        let token = Token(self.account.sessions.len() as u128 + 1);
        let jid = self.account.jid.with_resource(resource).expect("a good resource");
        self.account.sessions.push(Session::new(token, jid));
        self
    }

    /// With another session, available with this priority.
    #[must_use]
    pub fn available(self, resource: &str, priority: i8) -> Self {
        let mut bench = self.session(resource);
        let priority_child =
            if priority == 0 { String::new() } else { format!("<priority>{priority}</priority>") };
        let xml =
            format!("<presence from='{}/{resource}'>{priority_child}</presence>", bench.account.jid.as_str());
        let session = bench.at(resource);
        session.presence = Some(stanza(&xml));
        session.priority = priority;
        bench
    }

    /// With a contact.
    #[must_use]
    pub fn contact(mut self, contact: &str, subscription: Subscription) -> Self {
        self.account.roster.put(RosterItem { subscription, visible: true, ..RosterItem::new(bare(contact)) });
        self
    }

    /// With these blocked.
    #[must_use]
    pub fn blocked(mut self, items: &[&str]) -> Self {
        self.account.blocked = BlockList::of(items.iter().map(|item| jid(item)));
        self
    }

    /// The session with this resource, to be changed.
    ///
    /// # Panics
    /// When there is none.
    #[track_caller]
    pub fn at(&mut self, resource: &str) -> &mut Session {
        let mut sessions = self.account.sessions.iter_mut();
        sessions.find(|session| session.jid.resource_str() == resource).expect("a session of that resource")
    }

    /// The name of the session with this resource.
    ///
    /// # Panics
    /// When there is none.
    #[track_caller]
    pub fn token(&self, resource: &str) -> Token {
        let mut sessions = self.account.sessions.iter();
        sessions
            .find(|session| session.jid.resource_str() == resource)
            .expect("a session of that resource")
            .token
    }

    /// The resources of these sessions.
    pub fn resources(&self, tokens: &[Token]) -> Vec<&str> {
        tokens
            .iter()
            .map(|token| self.account.session(*token).map_or("?", |session| session.jid.resource_str()))
            .collect()
    }

    /// The server, to be changed before anything happens.
    ///
    /// # Panics
    /// When something else holds on to it.
    pub fn server(&mut self) -> &mut Server {
        Arc::get_mut(&mut self.server).expect("only the bench holds it")
    }

    /// Writes an archived row to the account's log, at this position.
    pub fn log(&self, position: u64, direction: Direction, with: &str, xml: &str) {
        let row = LogRow {
            owner: self.account.jid.clone(),
            position: Position(position),
            origin: Origin::default(),
            origin_id: None,
            direction,
            with: bare(with),
            archived: true,
            offline: false,
            expires: None,
            stanza: stanza(xml).encode(),
        };
        self.write(Write::Append(Box::new(row)));
    }

    /// Writes to the store.
    ///
    /// # Panics
    /// Never: the store is in memory.
    pub fn write(&self, write: Write) {
        now(self.server.store.commit(Batch::of(Position(0), vec![write]))).expect("a store in memory");
    }

    /// A session sends this; `from` is stamped.
    #[track_caller]
    pub fn sent(&mut self, resource: &str, xml: &str) -> Seen {
        let token = self.token(resource);
        let mut shown = stanza(xml);
        shown.from = Some(self.at(resource).jid.clone().into());
        let mut fate = Fate::default();
        let hooks = std::mem::take(&mut self.hooks);
        let show = |cx: &mut Cx<'_>| run(hooks.on_sent(), |hook| hook.sent(cx, &mut shown, &mut fate));
        let (flow, effects) = self.decide(Some(token), show);
        self.hooks = hooks;
        Seen { flow, stanza: shown, fate, effects }
    }

    /// This arrives, for the sessions that the routing table names.
    #[track_caller]
    pub fn received(&mut self, xml: &str, recipients: &[&str]) -> Seen {
        let mut shown = stanza(xml);
        let mut fate =
            Fate { recipients: recipients.iter().map(|name| self.token(name)).collect(), ..Fate::default() };
        let hooks = std::mem::take(&mut self.hooks);
        let show =
            |cx: &mut Cx<'_>| run(hooks.on_received(), |hook| hook.received(cx, &mut shown, &mut fate));
        let (flow, effects) = self.decide(None, show);
        self.hooks = hooks;
        Seen { flow, stanza: shown, fate, effects }
    }

    /// This arrives and nobody takes it. What arrives goes through `received` first. `Flow::Next` at the end is what the home
    /// refuses with `service-unavailable`.
    #[track_caller]
    pub fn undelivered(&mut self, xml: &str) -> Seen {
        let mut seen = self.received(xml, &[]);
        if seen.flow == Flow::Next {
            let hooks = std::mem::take(&mut self.hooks);
            let fate = &mut seen.fate;
            let show = |cx: &mut Cx<'_>| {
                run(hooks.on_undelivered(), |hook| hook.undelivered(cx, &seen.stanza, fate))
            };
            let (flow, effects) = self.decide(None, show);
            self.hooks = hooks;
            seen.flow = flow;
            seen.effects.extend(effects);
        }
        seen
    }

    /// A session of the account asks.
    ///
    /// # Panics
    /// When the literal is no request that a module answers.
    #[track_caller]
    pub fn ask(&mut self, at: At, resource: &str, xml: &str) -> Asked {
        let token = self.token(resource);
        let mut request = stanza(xml);
        request.from = Some(self.at(resource).jid.clone().into());
        self.answer(at, Some(token), &request)
    }

    /// Somebody else asks; `from` is in the literal.
    ///
    /// # Panics
    /// When the literal is no request that a module answers.
    #[track_caller]
    pub fn stranger_asks(&mut self, at: At, xml: &str) -> Asked {
        self.answer(at, None, &stanza(xml))
    }

    /// A session's presence changes.
    #[track_caller]
    pub fn presence(&mut self, resource: &str, event: PresenceEvent) -> Vec<Effect> {
        let token = self.token(resource);
        let hooks = std::mem::take(&mut self.hooks);
        let show = |cx: &mut Cx<'_>| hooks.on_presence().for_each(|hook| hook.presence(cx, event));
        let ((), effects) = self.decide(Some(token), show);
        self.hooks = hooks;
        effects
    }

    /// When this goes to a session that nobody looks at: the slowest pace that a hook asks for.
    ///
    /// # Panics
    /// When there is no such session.
    #[track_caller]
    pub fn pace(&self, resource: &str, xml: &str) -> Pace {
        let session = self.account.session(self.token(resource)).expect("a session of that resource");
        let shown = stanza(xml);
        let paces = self.hooks.on_outgoing().map(|hook| hook.outgoing(session, &shown));
        let slowness =
            |pace: &Pace| [Pace::Now, Pace::Later, Pace::Never].iter().position(|other| other == pace);
        paces.max_by_key(slowness).unwrap_or(Pace::Now)
    }

    /// Runs a decision about a stanza of this session (`None`: of somebody else); its effects are applied.
    pub fn decide<T>(
        &mut self,
        token: Option<Token>,
        decide: impl FnOnce(&mut Cx<'_>) -> T,
    ) -> (T, Vec<Effect>) {
        let mut effects = Vec::new();
        let decided = decide(&mut Cx {
            account: &self.account,
            session: token.and_then(|token| self.account.session(token)),
            now: self.now,
            server: &self.server,
            effects: &mut effects,
            because: "",
            next_id: &mut self.next_id,
        });
        self.apply(&effects);
        (decided, effects)
    }

    #[track_caller]
    fn answer(&mut self, at: At, token: Option<Token>, request: &Stanza) -> Asked {
        let payload = request.payload.children().next().expect("a request has a payload").element();
        let hooks = std::mem::take(&mut self.hooks);
        let hook = hooks.answers(at, &payload).expect("somebody answers that");
        let (answer, mut effects) = self.decide(token, |cx| hook.answer(cx, request, &payload));
        self.hooks = hooks;
        let answer = match answer {
            Answer::Result(result) => Ok(result),
            Answer::Error(error) => Err(*error),
            Answer::Later(later) => {
                let later = now(later);
                self.apply(&later.effects);
                effects.extend(later.effects);
                later.answer.map_err(|error| *error)
            }
        };
        Asked { answer, effects }
    }

    /// Changes take effect after the decision, as in a home.
    pub fn apply(&mut self, effects: &[Effect]) {
        for effect in effects {
            let Effect::Change(change) = effect else { continue };
            let account = &mut self.account;
            let mut on = |token: &Token, set: &dyn Fn(&mut Session)| {
                account.sessions.iter_mut().filter(|session| session.token == *token).for_each(set);
            };
            match change {
                Change::Carbons(token, carbons) => on(token, &|session| session.carbons = *carbons),
                Change::Interested(token) => on(token, &|session| session.interested = true),
                Change::WatchesBlocks(token) => on(token, &|session| session.watches_blocks = true),
                Change::Presence(token, presence, priority) => on(token, &|session| {
                    session.presence = presence.as_deref().cloned();
                    session.priority = *priority;
                }),
                Change::Directed(token, to) => on(token, &|session| {
                    session.directed.insert(to.clone());
                }),
                Change::Undirected(token, to) => on(token, &|session| {
                    session.directed.remove(to);
                }),
                Change::RosterItem(item) => {
                    let version = account.roster.version + 1;
                    account.roster.put(RosterItem { version, ..RosterItem::clone(item) });
                }
                Change::RosterRemove(contact) => {
                    let version = account.roster.version + 1;
                    account.roster.remove(contact, version, Write::MAX_REMOVED);
                }
                Change::Blocked(list) => account.blocked = list.clone(),
                Change::Archive(preferences) => account.archive = preferences.clone(),
                Change::Credentials(_) => {}
            }
        }
    }
}

fn run<'a, T: ?Sized + 'a>(hooks: impl Iterator<Item = &'a T>, mut show: impl FnMut(&'a T) -> Flow) -> Flow {
    for hook in hooks {
        match show(hook) {
            Flow::Next => {}
            end => return end,
        }
    }
    Flow::Next
}

/// What a future brings: on a bench everything is done before it is polled.
fn now<T>(future: impl Future<Output = T>) -> T {
    future.now_or_never().expect("nothing waits on a bench")
}
