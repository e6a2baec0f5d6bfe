//! Stanza forwarding (XEP-0297). The wrapping itself is [`starling_hooks::forward`]; carbons and the archive use it.

use starling_hooks::{About, Hooks, Spec, Xep};
use std::sync::Arc;

/// Tells of the document.
pub struct Forwarding;

static ABOUT: About = About {
    spec: Spec::Xep(297, "1.0"),
    name: "stanza forwarding",
    server_features: &[],
    account_features: &[],
};

impl Xep for Forwarding {
    fn about(&self) -> &'static About {
        &ABOUT
    }

    fn install(self: Arc<Self>, _: &mut Hooks) {}
}
