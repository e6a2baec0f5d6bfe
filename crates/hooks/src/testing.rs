//! A bench for decisions: an account from short literals, a hook run on it, its effects as lines of text.
//!
//! ```text
//! let mut bench = Bench::new("alice@localhost").available("phone", 5).item("bob@localhost both");
//! let (flow, lines) = bench.run(Some("phone"), |cx| hook(cx, &stanza("<presence/>")));
//! assert_eq!(lines, ["presence phone 0", "phone < <presence .../>", "route <presence .../>"]);
//! ```
//! The effects are applied to the account as a home applies them, so that runs can follow each other.

use crate::{Account, ArchiveDefault, ArchiveIds, BlockList, Change, Cx, Effect, Features, Limits, Server, Session};
use bytes::BytesMut;
use starling_store::memory::MemoryStore;
use starling_store::{Roster, RosterItem, Subscription};
use starling_wire::Token;
use starling_xmpp::{BareJid, Element, Jid, PresenceType, Stanza, Timestamp};
use std::sync::Arc;

/// A stanza from its XML; the namespace is `jabber:client`.
///
/// # Panics
/// When it is not one.
#[track_caller]
pub fn stanza(xml: &str) -> Stanza {
    Stanza::from_element(&element(xml)).unwrap_or_else(|error| panic!("{xml}: {error}"))
}

/// An element from its XML; the namespace is `jabber:client` unless it says otherwise.
///
/// # Panics
/// When it is not one.
#[track_caller]
pub fn element(xml: &str) -> Element {
    Element::parse(xml.as_bytes(), starling_xmpp::ns::CLIENT).unwrap_or_else(|error| panic!("{xml}: {error}"))
}

/// A JID.
///
/// # Panics
/// When it is not one.
#[track_caller]
pub fn jid(jid: &str) -> Jid {
    Jid::parse(jid).unwrap_or_else(|error| panic!("{jid}: {error}"))
}

/// A bare JID.
///
/// # Panics
/// When it is not one.
#[track_caller]
pub fn bare(jid: &str) -> BareJid {
    BareJid::parse(jid).unwrap_or_else(|error| panic!("{jid}: {error}"))
}

/// The XML of a stanza, without `xmlns` of `jabber:client`.
pub fn xml(stanza: &Stanza) -> String {
    let mut bytes = BytesMut::new();
    stanza.write(&mut bytes);
    String::from_utf8_lossy(&bytes).into_owned()
}

/// An account to run hooks on.
pub struct Bench {
    /// The account.
    pub account: Account,
    /// The server it is on: serves `localhost`, keeps everything in memory. `Arc::get_mut` changes it.
    pub server: Arc<Server>,
    /// The time of the next decision; 2026-01-02T03:04:05Z at first.
    pub now: Timestamp,
    /// How many stanza ids were made up.
    pub next_id: u64,
}

impl Bench {
    /// An account without sessions or contacts.
    pub fn new(account: &str) -> Self {
        let server = Server {
            domains: crate::cx::arc_domains::Domains::new(vec!["localhost".to_owned()]),
            software: ("Starling", "0"),
            store: Arc::new(MemoryStore::new()),
            archive_ids: ArchiveIds::new(&[7; 32]),
            features: Features::default(),
            limits: Limits::default(),
            registration: false,
            iterations: 1,
            archive_default: ArchiveDefault::Always,
        };
        let account = Account {
            jid: bare(account),
            roster: Roster::default(),
            blocked: BlockList::default(),
            archive: crate::ArchivePreferences::default(),
            sessions: Vec::new(),
        };
        Self { account, server: Arc::new(server), now: Timestamp::from_secs(1_767_323_045), next_id: 0 }
    }

    /// With a session that has sent nothing yet.
    pub fn session(mut self, resource: &str) -> Self {
        let token = Token(self.account.sessions.len() as u128 + 1);
        let jid = self.account.jid.with_resource(resource).expect("a resource");
        self.account.sessions.push(Session::new(token, jid));
        self
    }

    /// With a session that has asked for the roster.
    pub fn interested(self, resource: &str) -> Self {
        let mut bench = self.session(resource);
        bench.last().interested = true;
        bench
    }

    /// With a session that has asked for the roster and then sent presence.
    pub fn available(self, resource: &str, priority: i8) -> Self {
        let mut bench = self.interested(resource);
        let mut presence = Stanza::presence(PresenceType::Available);
        if priority != 0 {
            let priority = priority.to_string();
            presence = presence.child(Element::new(starling_xmpp::ns::CLIENT, "priority").text(&priority));
        }
        let session = bench.last();
        session.presence = Some(presence.from(Jid::from(session.jid.clone())));
        session.priority = priority;
        bench
    }

    /// The session added last.
    ///
    /// # Panics
    /// When there is none.
    pub fn last(&mut self) -> &mut Session {
        self.account.sessions.last_mut().expect("a session")
    }

    /// With a contact: its JID, then any of `none`, `to`, `from`, `both`, `ask`, `approved`, `pending`, `hidden`,
    /// `name=...`, `group=...`.
    ///
    /// # Panics
    /// When it says anything else.
    #[track_caller]
    pub fn item(mut self, literal: &str) -> Self {
        let mut words = literal.split(' ');
        let mut item = RosterItem::new(bare(words.next().unwrap_or_default()));
        item.visible = true;
        for word in words {
            match word.split_once('=') {
                Some(("name", name)) => item.name = Some(name.into()),
                Some(("group", group)) => item.groups.push(group.into()),
                _ => match word {
                    "none" => item.subscription = Subscription::None,
                    "to" => item.subscription = Subscription::To,
                    "from" => item.subscription = Subscription::From,
                    "both" => item.subscription = Subscription::Both,
                    "ask" => item.ask = true,
                    "approved" => item.approved = true,
                    "hidden" => item.visible = false,
                    "pending" => {
                        let request = Stanza::presence(PresenceType::Subscribe)
                            .from(Jid::from(item.jid.clone()))
                            .to(Jid::from(self.account.jid.clone()));
                        item.pending_in = Some(request.encode());
                    }
                    other => panic!("{other} in {literal}"),
                },
            }
        }
        item.version = self.account.roster.version + 1;
        self.account.roster.put(item);
        self
    }

    /// With somebody blocked.
    #[track_caller]
    pub fn blocks(mut self, item: &str) -> Self {
        self.account.blocked.insert(jid(item));
        self
    }

    /// Runs a decision about a stanza of this session (`None`: of somebody else), applies its effects and returns
    /// what it said and the effects as [lines](Self::lines).
    #[track_caller]
    pub fn run<T>(&mut self, session: Option<&str>, decide: impl FnOnce(&mut Cx<'_>) -> T) -> (T, Vec<String>) {
        let (said, effects) = self.effects(session, decide);
        let lines = self.lines(&effects);
        for effect in &effects {
            self.apply(effect);
        }
        (said, lines)
    }

    /// Runs a decision and returns what it said and its effects, without applying them.
    ///
    /// # Panics
    /// When there is no such session.
    #[track_caller]
    pub fn effects<T>(
        &mut self,
        session: Option<&str>,
        decide: impl FnOnce(&mut Cx<'_>) -> T,
    ) -> (T, Vec<Effect>) {
        let mut effects = Vec::new();
        let session = session.map(|resource| {
            let found = self.account.sessions.iter().find(|session| session.jid.resource() == Some(resource));
            found.unwrap_or_else(|| panic!("no session {resource}"))
        });
        let mut cx = Cx {
            account: &self.account,
            session,
            now: self.now,
            server: &self.server,
            effects: &mut effects,
            because: "",
            next_id: &mut self.next_id,
        };
        let said = decide(&mut cx);
        (said, effects)
    }

    /// Effects as text, a line each: `route XML`, `RESOURCE < XML`, `presence RESOURCE PRIORITY`,
    /// `roster JID subscription flags`, other changes in debug form.
    pub fn lines(&self, effects: &[Effect]) -> Vec<String> {
        effects.iter().map(|effect| self.line(effect)).collect()
    }

    fn line(&self, effect: &Effect) -> String {
        match effect {
            Effect::Route(stanza) => format!("route {}", xml(stanza)),
            Effect::Deliver(token, stanza) => format!("{} < {}", self.resource(*token), xml(stanza)),
            Effect::Change(Change::RosterItem(item)) => {
                let mut line = format!("roster {} {}", item.jid.as_str(), item.subscription.as_str());
                for (set, word) in [
                    (item.ask, " ask"),
                    (item.approved, " approved"),
                    (item.pending_in.is_some(), " pending"),
                    (!item.visible, " hidden"),
                ] {
                    if set {
                        line.push_str(word);
                    }
                }
                line
            }
            Effect::Change(Change::RosterRemove(contact)) => format!("roster remove {}", contact.as_str()),
            Effect::Change(Change::Presence(token, Some(_), priority)) => {
                format!("presence {} {priority}", self.resource(*token))
            }
            Effect::Change(Change::Presence(token, None, _)) => format!("presence {} none", self.resource(*token)),
            Effect::Change(Change::Directed(token, to)) => format!("directed {} {to}", self.resource(*token)),
            Effect::Change(Change::Undirected(token, to)) => format!("undirected {} {to}", self.resource(*token)),
            Effect::Change(Change::Interested(token)) => format!("interested {}", self.resource(*token)),
            Effect::Change(Change::WatchesBlocks(token)) => format!("watches blocks {}", self.resource(*token)),
            Effect::Change(Change::Carbons(token, on)) => format!("carbons {} {on}", self.resource(*token)),
            Effect::Change(Change::Blocked(list)) => {
                let items: Vec<&str> = list.iter().map(Jid::as_str).collect();
                format!("blocked {}", items.join(" "))
            }
            Effect::Close(token, error) => format!("close {} {error:?}", self.resource(*token)),
            other => format!("{other:?}"),
        }
    }

    fn resource(&self, token: Token) -> &str {
        self.account.session(token).map_or("?", |session| session.jid.resource_str())
    }

    /// Changes the account as a home does.
    pub fn apply(&mut self, effect: &Effect) {
        let Effect::Change(change) = effect else { return };
        let account = &mut self.account;
        let version = account.roster.version + 1;
        match change {
            Change::RosterItem(item) => account.roster.put(RosterItem { version, ..(**item).clone() }),
            Change::RosterRemove(contact) => {
                account.roster.remove(contact, version, 256);
            }
            Change::Blocked(list) => account.blocked = list.clone(),
            Change::Archive(preferences) => account.archive = preferences.clone(),
            Change::Carbons(token, _)
            | Change::Interested(token)
            | Change::WatchesBlocks(token)
            | Change::Presence(token, ..)
            | Change::Directed(token, _)
            | Change::Undirected(token, _) => {
                let Some(session) = account.sessions.iter_mut().find(|session| session.token == *token) else { return };
                match change.clone() {
                    Change::Carbons(_, on) => session.carbons = on,
                    Change::Interested(_) => session.interested = true,
                    Change::WatchesBlocks(_) => session.watches_blocks = true,
                    Change::Presence(_, presence, priority) => {
                        session.presence = presence.map(|presence| *presence);
                        session.priority = priority;
                    }
                    Change::Directed(_, to) => {
                        session.directed.insert(to);
                    }
                    Change::Undirected(_, to) => {
                        session.directed.remove(&to);
                    }
                    _ => {}
                }
            }
        }
    }
}
