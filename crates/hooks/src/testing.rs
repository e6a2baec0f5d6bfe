//! Decisions that are no module's (those of RFC 6121) on the bench: contacts from a line of text, effects as lines of text.

pub use crate::bench::*;
use crate::{Change, Cx, Effect};
use starling_store::{RosterItem, Subscription};
use starling_wire::Token;
use starling_xmpp::{Jid, PresenceType, Stanza};

impl Bench {
    /// With an available session that has asked for the roster before.
    #[must_use]
    pub fn online(self, resource: &str, priority: i8) -> Self {
        let mut bench = self.available(resource, priority);
        bench.at(resource).interested = true;
        bench
    }

    /// With a contact: its JID, then any of `none`, `to`, `from`, `both`, `ask`, `approved`, `pending`, `hidden`,
    /// `name=...`, `group=...`.
    ///
    /// # Panics
    /// When it says anything else.
    #[must_use]
    pub fn item(mut self, literal: &str) -> Self {
        let mut words = literal.split(' ');
        let mut item = RosterItem::new(bare(words.next().unwrap_or_default()));
        item.visible = true;
        for word in words {
            match word {
                "none" => item.subscription = Subscription::None,
                "to" => item.subscription = Subscription::To,
                "from" => item.subscription = Subscription::From,
                "both" => item.subscription = Subscription::Both,
                "ask" => item.ask = true,
                "approved" => item.approved = true,
                "hidden" => item.visible = false,
                "pending" => {
                    let request = Stanza::presence(PresenceType::Subscribe);
                    let request = request.from(item.jid.clone()).to(self.account.jid.clone());
                    item.pending_in = Some(request.encode());
                }
                _ => match word.split_once('=') {
                    Some(("name", name)) => item.name = Some(name.into()),
                    Some(("group", group)) => item.groups.push(group.into()),
                    _ => panic!("{word} in {literal}"),
                },
            }
        }
        item.version = self.account.roster.version + 1;
        self.account.roster.put(item);
        self
    }

    /// Runs a decision about a stanza of this session (`None`: of somebody else). Returns what it said, and its effects as
    /// [lines](Self::lines).
    pub fn run<T>(
        &mut self,
        resource: Option<&str>,
        decide: impl FnOnce(&mut Cx<'_>) -> T,
    ) -> (T, Vec<String>) {
        let token = resource.map(|resource| self.token(resource));
        let (said, effects) = self.decide(token, decide);
        (said, self.lines(&effects))
    }

    /// Effects as text, a line each: `route XML`, `RESOURCE < XML`, `presence RESOURCE PRIORITY`,
    /// `roster JID SUBSCRIPTION FLAGS`, and so on.
    pub fn lines(&self, effects: &[Effect]) -> Vec<String> {
        effects.iter().map(|effect| self.line(effect)).collect()
    }

    fn line(&self, effect: &Effect) -> String {
        let change = match effect {
            Effect::Route(stanza) => return format!("route {}", xml(stanza)),
            Effect::Deliver(token, stanza) => return format!("{} < {}", self.name(*token), xml(stanza)),
            Effect::Close(token, error) => return format!("close {} {error:?}", self.name(*token)),
            Effect::Change(change) => change,
            other => return format!("{other:?}"),
        };
        match change {
            Change::RosterItem(item) => roster_line(item),
            Change::RosterRemove(contact) => format!("roster remove {}", contact.as_str()),
            Change::Presence(token, Some(_), priority) => {
                format!("presence {} {priority}", self.name(*token))
            }
            Change::Presence(token, None, _) => format!("presence {} none", self.name(*token)),
            Change::Directed(token, to) => format!("directed {} {to}", self.name(*token)),
            Change::Undirected(token, to) => format!("undirected {} {to}", self.name(*token)),
            Change::Interested(token) => format!("interested {}", self.name(*token)),
            Change::WatchesBlocks(token) => format!("watches blocks {}", self.name(*token)),
            Change::Carbons(token, on) => format!("carbons {} {on}", self.name(*token)),
            Change::Blocked(list) => {
                format!("blocked {}", list.iter().map(Jid::as_str).collect::<Vec<_>>().join(" "))
            }
            other => format!("{other:?}"),
        }
    }

    fn name(&self, token: Token) -> &str {
        self.account.session(token).map_or("?", |session| session.jid.resource_str())
    }
}

fn roster_line(item: &RosterItem) -> String {
    let mut line = format!("roster {} {}", item.jid.as_str(), item.subscription.as_str());
    let flags = [
        (item.ask, " ask"),
        (item.approved, " approved"),
        (item.pending_in.is_some(), " pending"),
        (!item.visible, " hidden"),
    ];
    flags.iter().filter(|(set, _)| *set).for_each(|(_, word)| line.push_str(word));
    line
}
