//! The server's own entity capabilities (XEP-0115): what it tells of itself, as a hash in the stream features.

use super::Identity;
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use sha1::{Digest, Sha1};
use starling_hooks::{About, Features, Hooks, Server, Spec, Xep};
use starling_xmpp::{Element, ns};
use std::sync::Arc;

/// Tells of the document; hashes of clients are not looked at.
pub struct Caps;

static ABOUT: About = About {
    spec: Spec::Xep(115, "1.6.0"),
    name: "entity capabilities",
    server_features: &[ns::CAPS],
    account_features: &[],
};

impl Xep for Caps {
    fn about(&self) -> &'static About {
        &ABOUT
    }

    fn install(self: Arc<Self>, _: &mut Hooks) {}
}

/// Identifies the software (XEP-0115 §4).
const NODE: &str = "urn:x-starling:server";

/// The `<c/>` of the stream features (XEP-0115 §6.3): what disco of the server says, hashed.
pub fn caps(server: &Server) -> Element {
    Element::new(ns::CAPS, "c")
        .attr("hash", "sha-1")
        .attr("node", NODE)
        .attr("ver", verification(&Identity::server(server.software.0), &server.features.server))
}

/// The disco node of these capabilities.
pub(super) fn node(name: &str, features: &Features) -> String {
    format!("{NODE}#{}", verification(&Identity::server(name), &features.server))
}

/// XEP-0115 §5.1. Features come sorted by octets and without doubles.
fn verification(identity: &Identity<'_>, features: &[&str]) -> String {
    let name = identity.name.unwrap_or_default();
    let mut hash = Sha1::new_with_prefix(format!("{}/{}//{name}<", identity.category, identity.kind));
    for feature in features {
        hash.update(feature.as_bytes());
        hash.update(b"<");
    }
    STANDARD.encode(hash.finalize())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn hashes_the_example_of_the_document() {
        let identity = Identity { category: "client", kind: "pc", name: Some("Exodus 0.9.1") };
        let features = [
            "http://jabber.org/protocol/caps",
            "http://jabber.org/protocol/disco#info",
            "http://jabber.org/protocol/disco#items",
            "http://jabber.org/protocol/muc",
        ];
        assert_eq!(verification(&identity, &features), "QgayPKawpkPSDYmwT/WM94uAlu0=");
    }
}
