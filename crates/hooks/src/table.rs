//! The table of hooks, and what it says of itself.

use crate::{AnswerIq, Outgoing, Presence, Received, Sent, Undelivered};
use starling_xmpp::Element;
use std::collections::HashMap;
use std::sync::Arc;

/// The document a module implements.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Spec {
    /// An RFC.
    Rfc(u16),
    /// An XEP and the version of it that the code follows.
    Xep(u16, &'static str),
}

/// What a module is: feeds disco, the docs table and the DOAP file.
#[derive(Debug)]
pub struct About {
    /// The document.
    pub spec: Spec,
    /// Its name.
    pub name: &'static str,
    /// Features of the server (disco of the domain).
    pub server_features: &'static [&'static str],
    /// Features of an account (disco of a bare JID).
    pub account_features: &'static [&'static str],
}

/// A module.
pub trait Xep: Send + Sync + 'static {
    /// What it is.
    fn about(&self) -> &'static About;

    /// Names the hooks it wants.
    fn install(self: Arc<Self>, on: &mut Hooks);
}

/// When a hook runs.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Stage {
    /// May stop the stanza.
    Guard,
    /// May change it.
    Shape,
    /// Only looks and copies.
    Watch,
}

/// Whom an IQ request is addressed to.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum At {
    /// A domain of ours.
    Server,
    /// An account: its bare JID, or no address at all.
    Account,
}

/// Who answers a payload, by its namespace and name.
type Answers = HashMap<(String, String), (&'static About, Arc<dyn AnswerIq>)>;
type Staged<T> = Vec<(Stage, &'static About, Arc<T>)>;

/// All hooks of a home, in order.
#[derive(Default)]
pub struct Hooks {
    modules: Vec<Arc<dyn Xep>>,
    sent: Staged<dyn Sent>,
    received: Staged<dyn Received>,
    undelivered: Staged<dyn Undelivered>,
    outgoing: Staged<dyn Outgoing>,
    presence: Staged<dyn Presence>,
    iq: HashMap<At, Answers>,
    installing: Option<&'static About>,
}

impl Hooks {
    /// Installs the modules in this order.
    ///
    /// # Panics
    /// When two modules claim one IQ: a mistake of the list, found at start-up and by a unit test.
    pub fn of(modules: Vec<Arc<dyn Xep>>) -> Self {
        let mut hooks = Self::default();
        for module in &modules {
            hooks.installing = Some(module.about());
            Arc::clone(module).install(&mut hooks);
        }
        hooks.installing = None;
        hooks.sent.sort_by_key(|(stage, ..)| *stage);
        hooks.received.sort_by_key(|(stage, ..)| *stage);
        hooks.modules = modules;
        hooks
    }

    fn installer(&self) -> &'static About {
        self.installing.expect("hooks are added inside `install` only")
    }

    /// Wants stanzas that leave.
    pub fn sent(&mut self, stage: Stage, hook: Arc<dyn Sent>) {
        self.sent.push((stage, self.installer(), hook));
    }

    /// Wants stanzas that arrive.
    pub fn received(&mut self, stage: Stage, hook: Arc<dyn Received>) {
        self.received.push((stage, self.installer(), hook));
    }

    /// Wants messages that nobody takes.
    pub fn undelivered(&mut self, hook: Arc<dyn Undelivered>) {
        self.undelivered.push((Stage::Shape, self.installer(), hook));
    }

    /// Wants stanzas on their way to an inactive client.
    pub fn outgoing(&mut self, hook: Arc<dyn Outgoing>) {
        self.outgoing.push((Stage::Shape, self.installer(), hook));
    }

    /// Wants changes of presence.
    pub fn presence(&mut self, hook: Arc<dyn Presence>) {
        self.presence.push((Stage::Watch, self.installer(), hook));
    }

    /// Answers IQ requests with this payload.
    ///
    /// # Panics
    /// When somebody else does already.
    pub fn iq(&mut self, at: At, ns: &str, name: &str, hook: Arc<dyn AnswerIq>) {
        let about = self.installer();
        let before = self.iq.entry(at).or_default().insert((ns.to_owned(), name.to_owned()), (about, hook));
        if let Some((other, _)) = before {
            panic!("{{{ns}}}{name} at {at:?} is claimed by {} and {}", other.name, about.name);
        }
    }

    /// Hooks for stanzas that leave.
    pub fn on_sent(&self) -> impl Iterator<Item = &dyn Sent> {
        self.sent.iter().map(|(_, _, hook)| hook.as_ref())
    }

    /// Hooks for stanzas that arrive.
    pub fn on_received(&self) -> impl Iterator<Item = &dyn Received> {
        self.received.iter().map(|(_, _, hook)| hook.as_ref())
    }

    /// Hooks for messages that nobody takes.
    pub fn on_undelivered(&self) -> impl Iterator<Item = &dyn Undelivered> {
        self.undelivered.iter().map(|(_, _, hook)| hook.as_ref())
    }

    /// Hooks for stanzas to inactive clients.
    pub fn on_outgoing(&self) -> impl Iterator<Item = &dyn Outgoing> {
        self.outgoing.iter().map(|(_, _, hook)| hook.as_ref())
    }

    /// Hooks for changes of presence.
    pub fn on_presence(&self) -> impl Iterator<Item = &dyn Presence> {
        self.presence.iter().map(|(_, _, hook)| hook.as_ref())
    }

    /// Who answers this payload; `Err` tells whether the namespace is known at all.
    pub fn answers(&self, at: At, payload: &Element) -> Option<&dyn AnswerIq> {
        let table = self.iq.get(&at)?;
        table.get(&(payload.ns().to_owned(), payload.name().to_owned())).map(|(_, hook)| hook.as_ref())
    }

    /// Whether anybody answers payloads of this namespace there.
    pub fn knows(&self, at: At, ns: &str) -> bool {
        self.iq.get(&at).is_some_and(|table| table.keys().any(|(known, _)| known == ns))
    }

    /// What is advertised.
    pub fn features(&self) -> Features {
        let gather = |of: fn(&About) -> &'static [&'static str]| {
            let mut all: Vec<&'static str> =
                self.modules.iter().flat_map(|module| of(module.about()).iter().copied()).collect();
            all.sort_unstable();
            all.dedup();
            all
        };
        Features {
            server: gather(|about| about.server_features),
            account: gather(|about| about.account_features),
        }
    }

    /// The modules in order.
    pub fn modules(&self) -> impl Iterator<Item = &'static About> + '_ {
        self.modules.iter().map(|module| module.about())
    }

    /// The resolved order, a line each: kept as a golden file so that a change of order shows in review.
    pub fn order(&self) -> String {
        use std::fmt::Write as _;
        let mut out = String::new();
        let mut list = |hook: &str, entries: Vec<(Stage, &'static About)>| {
            for (stage, about) in entries {
                let _ = writeln!(out, "{hook} {stage:?} {}", about.name);
            }
        };
        list("sent", self.sent.iter().map(|(stage, about, _)| (*stage, *about)).collect());
        list("received", self.received.iter().map(|(stage, about, _)| (*stage, *about)).collect());
        list("undelivered", self.undelivered.iter().map(|(stage, about, _)| (*stage, *about)).collect());
        list("outgoing", self.outgoing.iter().map(|(stage, about, _)| (*stage, *about)).collect());
        list("presence", self.presence.iter().map(|(stage, about, _)| (*stage, *about)).collect());
        let mut iqs: Vec<_> = self
            .iq
            .iter()
            .flat_map(|(at, table)| {
                table.iter().map(move |((ns, name), (about, _))| (*at, ns, name, about.name))
            })
            .collect();
        iqs.sort_unstable();
        for (at, ns, name, module) in iqs {
            let _ = writeln!(out, "iq {at:?} {{{ns}}}{name} {module}");
        }
        out
    }
}

/// Features told by disco, sorted, without doubles.
#[derive(Debug, Clone, Default)]
pub struct Features {
    /// Of a domain.
    pub server: Vec<&'static str>,
    /// Of an account.
    pub account: Vec<&'static str>,
}
