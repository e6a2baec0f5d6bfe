//! The archive (XEP-0313) and its preferences (XEP-0441).
//!
//! A hook marks what the archive of this account shows ([`keep`]); the home writes it to the log, where offline messages are too. A
//! query (`query`) reads pages of the log while the account goes on, and its results are delivered before its answer.
//! Ids are the keyed form of positions: an id that was never given, or not for this archive, is noticed.

pub mod form;
pub mod keep;
mod metadata;
mod preferences;
mod query;

use starling_hooks::{About, At, Hooks, Spec, Stage, Xep};
use starling_xmpp::ns;
use std::sync::Arc;

/// Keeps and shows history.
pub struct Archive;

/// Archive preferences: part of the archive's namespace, and a document of their own.
pub struct Preferences;

static ABOUT: About = About {
    spec: Spec::Xep(313, "1.1.3"),
    name: "message archive",
    server_features: &[],
    account_features: &[ns::MAM, ns::MAM_EXTENDED, form::GROUPCHAT_FIELD],
};

static PREFERENCES: About = About {
    spec: Spec::Xep(441, "0.2.0"),
    name: "archive preferences",
    server_features: &[],
    account_features: &[],
};

impl Xep for Archive {
    fn about(&self) -> &'static About {
        &ABOUT
    }

    fn install(self: Arc<Self>, on: &mut Hooks) {
        on.sent(Stage::Shape, Arc::new(keep::NoForgedResults));
        on.received(Stage::Shape, Arc::new(keep::NoForgedResults));
        on.sent(Stage::Watch, Arc::new(keep::Keep));
        on.received(Stage::Watch, Arc::new(keep::Keep));
        on.iq(At::Account, ns::MAM, "query", Arc::new(query::Query));
        on.iq(At::Account, ns::MAM, "metadata", Arc::new(metadata::Metadata));
    }
}

impl Xep for Preferences {
    fn about(&self) -> &'static About {
        &PREFERENCES
    }

    fn install(self: Arc<Self>, on: &mut Hooks) {
        on.iq(At::Account, ns::MAM, "prefs", self);
    }
}
