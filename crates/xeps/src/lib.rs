//! The extensions, one file each: what it is, the hooks it wants, its decisions and their tests.
//!
//! A module sees stanzas and the facts on one account, and says what shall be done; it reaches no socket, no clock
//! and, but for answers that come later, no store. [`all`] is the one place that names them: the order of this list is the order on
//! the line within each stage, and disco, the table in the docs and the caps hash are derived from it.
//!
//! Not here: what needs no decision of a home. Stream management (XEP-0198) is counted in `xmpp` and kept by the
//! router; new accounts (XEP-0077 before authentication) are the edge's business.

#![forbid(unsafe_code)]

mod answer;
pub mod archive;
pub mod blocking;
pub mod carbons;
pub mod content;
pub mod csi;
pub mod delays;
pub mod disco;
pub mod forwarding;
pub mod hints;
pub mod offline;
pub mod ping;
pub mod registration;
pub mod result_sets;
pub mod roster;
pub mod session;
pub mod stanza_ids;
pub mod time;
pub mod version;

use starling_hooks::Xep;
use std::sync::Arc;

/// All modules, in order.
pub fn all() -> Vec<Arc<dyn Xep>> {
    vec![
        Arc::new(roster::Roster),
        Arc::new(session::Session),
        // Guards first: what is blocked is neither cleaned, kept nor copied.
        Arc::new(blocking::Blocking),
        // What only a server may say is taken out before anything is kept or copied.
        Arc::new(delays::Delays),
        Arc::new(stanza_ids::StanzaIds),
        Arc::new(hints::Hints),
        Arc::new(forwarding::Forwarding),
        Arc::new(result_sets::ResultSets),
        // The archive decides before offline storage: a row that nobody can ask for gets an end.
        Arc::new(archive::Archive),
        Arc::new(archive::Preferences),
        Arc::new(offline::Offline),
        Arc::new(carbons::Carbons),
        Arc::new(csi::ClientState),
        Arc::new(disco::Disco),
        Arc::new(disco::Caps),
        Arc::new(ping::Ping),
        Arc::new(version::Version),
        Arc::new(time::Time),
        Arc::new(registration::Registration),
    ]
}

#[cfg(test)]
mod tests {
    use super::*;
    use starling_hooks::{Hooks, Spec};
    use std::collections::BTreeSet;

    #[test]
    fn order_is_the_golden_one() {
        let order = Hooks::of(all()).order();
        assert_eq!(
            order,
            include_str!("order.golden"),
            "write the new order to order.golden if it is meant:\n{order}"
        );
    }

    #[test]
    fn every_document_is_told_once() {
        let hooks = Hooks::of(all());
        let mut seen = BTreeSet::new();
        for about in hooks.modules() {
            if let Spec::Xep(number, version) = about.spec {
                assert!(seen.insert(number), "XEP-{number:04} twice");
                assert!(version.split('.').count() >= 2, "XEP-{number:04} has no version");
            }
        }
    }

    #[test]
    fn nothing_is_advertised_that_is_not_here() {
        let features = Hooks::of(all()).features();
        let absent = ["pubsub", "muc", "upload", "vcard", "push", "bookmarks", "groupchat-available"];
        for feature in features.server.iter().chain(&features.account) {
            assert!(!absent.iter().any(|word| feature.contains(word)), "{feature}");
        }
    }

    /// What is spoken outside the modules of this crate.
    const ELSEWHERE: [(u16, &str, &str, &str); 5] = [
        (170, "1.0", "recommended order of stream feature negotiation", "`edge`"),
        (198, "1.6.3", "stream management", "`edge`, `router`; in a cluster resumption at any edge"),
        (205, "1.0.2", "best practices to discourage denial of service", "limits, see configuration.md"),
        (368, "1.1.0", "SRV records for XMPP over TLS", "`edge`: direct TLS, ALPN, SNI"),
        (440, "1.0.0", "SASL channel-binding type capability", "`edge`"),
    ];

    /// `docs/xeps.md`, from the modules' own words.
    fn table() -> String {
        use std::fmt::Write as _;
        let hooks = Hooks::of(all());
        let mut rows: Vec<_> = hooks
            .modules()
            .filter_map(|about| match about.spec {
                Spec::Xep(number, version) => Some((number, version, about.name, "`xeps`")),
                Spec::Rfc(_) => None,
            })
            .chain(ELSEWHERE)
            .collect();
        rows.sort_unstable();
        let mut out = String::from(
            "# Extensions\n\nMade from the modules' own descriptions; a test of `starling-xeps` says when it is stale.\n\n\
             | XEP | version | name | where |\n| --- | --- | --- | --- |\n",
        );
        for (number, version, name, place) in rows {
            let _ = writeln!(out, "| {number:04} | {version} | {name} | {place} |");
        }
        out
    }

    #[test]
    fn the_table_in_the_docs_is_up_to_date() {
        let table = table();
        assert_eq!(table, include_str!("../../../docs/xeps.md"), "docs/xeps.md should be:\n{table}");
    }
}
