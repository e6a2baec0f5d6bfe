//! Message processing hints (XEP-0334): what a sender would like to happen to a message.

use starling_hooks::{About, Hooks, Spec, Xep};
use starling_xmpp::{Stanza, ns};
use std::sync::Arc;

/// Tells of the document; the hints are read by those whom they concern.
pub struct Hints;

static ABOUT: About = About {
    spec: Spec::Xep(334, "1.0.0"),
    name: "message processing hints",
    server_features: &[],
    account_features: &[],
};

impl Xep for Hints {
    fn about(&self) -> &'static About {
        &ABOUT
    }

    fn install(self: Arc<Self>, _: &mut Hooks) {}
}

/// What a message hints at. Hints in errors are those of another message and count for nothing (XEP-0334 §5).
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Hinted {
    /// Not to be stored at all, not even until it is delivered.
    pub no_store: bool,
    /// Not to be archived.
    pub no_permanent_store: bool,
    /// Not to be copied to addresses other than its own.
    pub no_copy: bool,
    /// To be stored though it may not look like it.
    pub store: bool,
}

impl Hinted {
    /// The hints of a message.
    pub fn of(message: &Stanza) -> Self {
        if message.is_error() || !message.payload.has_ns(ns::HINTS) {
            return Self::default();
        }
        let has = |name| message.payload.has(ns::HINTS, name);
        Self {
            no_store: has("no-store"),
            no_permanent_store: has("no-permanent-store"),
            no_copy: has("no-copy"),
            store: has("store"),
        }
    }

    /// Whether it may be archived as far as its sender is concerned. What forbids wins over what asks.
    pub fn allows_archive(self) -> bool {
        !self.no_store && !self.no_permanent_store
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use starling_hooks::bench::stanza;

    #[test]
    fn reads_hints_but_not_those_of_errors() {
        let hints =
            "<no-store xmlns='urn:xmpp:hints'/><store xmlns='urn:xmpp:hints'/><no-copy xmlns='urn:other'/>";
        let hinted = Hinted::of(&stanza(&format!("<message>{hints}</message>")));
        assert_eq!(hinted, Hinted { no_store: true, store: true, ..Hinted::default() });
        assert!(!hinted.allows_archive());
        let error = stanza(&format!("<message type='error'>{hints}<error type='cancel'/></message>"));
        assert_eq!(Hinted::of(&error), Hinted::default());
    }
}
