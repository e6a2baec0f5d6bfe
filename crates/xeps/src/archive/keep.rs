//! What the archive keeps (XEP-0313 §6.1.1, XEP-0441, XEP-0334), and results that no archive has sent.

use crate::content;
use crate::hints::Hinted;
use starling_hooks::{ArchiveDefault, Cx, Fate, Flow, Received, Sent};
use starling_xmpp::{Jid, Stanza, ns};

/// Marks messages that the archive shows.
pub(super) struct Keep;

/// Takes out archive results that cannot be.
pub(super) struct NoForgedResults;

impl Sent for Keep {
    /// The other side of what goes out is its `to` (XEP-0441 §2.3.2); without one it goes to the account itself.
    fn sent(&self, cx: &mut Cx<'_>, stanza: &mut Stanza, fate: &mut Fate) -> Flow {
        let other = stanza.to.clone().unwrap_or_else(|| cx.account.jid.clone().into());
        fate.archived = is_archived(cx, stanza, &other);
        Flow::Next
    }
}

impl Received for Keep {
    /// The other side of what comes in is its `from` (XEP-0441 §2.3.3).
    fn received(&self, cx: &mut Cx<'_>, stanza: &mut Stanza, fate: &mut Fate) -> Flow {
        fate.archived = stanza.from.as_ref().is_some_and(|from| is_archived(cx, stanza, from));
        Flow::Next
    }
}

/// Whether the account's archive shows this message from or to `other`.
pub fn is_archived(cx: &Cx<'_>, message: &Stanza, other: &Jid) -> bool {
    if !content::is_personal(message) {
        return false;
    }
    let hinted = Hinted::of(message);
    hinted.allows_archive() && (hinted.store || content::is_lasting(message)) && is_wanted(cx, other)
}

/// What the preferences say of `other`; "never" wins over "always".
fn is_wanted(cx: &Cx<'_>, other: &Jid) -> bool {
    let preferences = &cx.account.archive;
    // An item with a resource means that one only (XEP-0441 §2.3.1).
    let listed = |list: &std::collections::BTreeSet<Jid>| {
        !list.is_empty() && (list.contains(other) || list.contains::<Jid>(&other.to_bare()))
    };
    if listed(&preferences.never) {
        return false;
    }
    listed(&preferences.always)
        || match preferences.default {
            ArchiveDefault::Always => true,
            ArchiveDefault::Never => false,
            ArchiveDefault::Roster => {
                cx.account.roster.items.get(&other.to_bare()).is_some_and(|contact| contact.visible)
            }
        }
}

impl Sent for NoForgedResults {
    /// No client is an archive.
    fn sent(&self, _: &mut Cx<'_>, stanza: &mut Stanza, _: &mut Fate) -> Flow {
        strip(stanza)
    }
}

impl Received for NoForgedResults {
    /// Archives of others answer from a bare address or a domain, and never from ours: our own archives do not send results this
    /// way.
    fn received(&self, cx: &mut Cx<'_>, stanza: &mut Stanza, _: &mut Fate) -> Flow {
        let elsewhere = |from: &Jid| from.is_bare() && !cx.server.is_local(from);
        if stanza.from.as_ref().is_some_and(elsewhere) { Flow::Next } else { strip(stanza) }
    }
}

fn strip(stanza: &mut Stanza) -> Flow {
    if stanza.is_message() && stanza.payload.has_ns(ns::MAM) {
        stanza.payload = stanza.payload.without(|child| child.ns() == ns::MAM);
    }
    Flow::Next
}

#[cfg(test)]
mod tests {
    use crate::archive::Archive;
    use starling_hooks::bench::{Bench, jid};
    use starling_hooks::{ArchiveDefault, ArchivePreferences};
    use starling_store::Subscription;
    use std::sync::Arc;

    fn bench() -> Bench {
        Bench::new(vec![Arc::new(Archive)]).available("phone", 0).contact("bob@localhost", Subscription::None)
    }

    const BODY: &str = "<body>hi</body>";

    fn both_ways(bench: &mut Bench, attributes: &str, other: &str, payload: &str) -> [bool; 2] {
        let sent = bench.sent("phone", &format!("<message {attributes} to='{other}'>{payload}</message>"));
        let received =
            format!("<message {attributes} from='{other}' to='alice@localhost'>{payload}</message>");
        [sent.fate.archived, bench.received(&received, &["phone"]).fate.archived]
    }

    #[test]
    fn keeps_conversations_and_not_what_passes() {
        let composing = "<composing xmlns='http://jabber.org/protocol/chatstates'/>";
        let hint = |name: &str| format!("<{name} xmlns='urn:xmpp:hints'/>");
        for (attributes, payload, kept) in [
            ("type='chat'", BODY.to_owned(), true),
            ("", BODY.to_owned(), true),
            ("type='chat'", composing.to_owned(), false),
            ("type='chat'", composing.to_owned() + &hint("store"), true),
            ("type='chat'", BODY.to_owned() + &hint("no-store"), false),
            ("type='chat'", BODY.to_owned() + &hint("no-permanent-store"), false),
            ("type='chat'", BODY.to_owned() + &hint("no-permanent-store") + &hint("store"), false),
            ("type='chat'", "<received xmlns='urn:xmpp:receipts' id='1'/>".to_owned(), true),
            ("type='chat'", "<displayed xmlns='urn:xmpp:chat-markers:0' id='1'/>".to_owned(), true),
            ("type='chat'", "<reactions xmlns='urn:xmpp:reactions:0' id='1'/>".to_owned(), true),
            ("type='chat'", "<retract xmlns='urn:xmpp:message-retract:1' id='1'/>".to_owned(), true),
            ("", "<x xmlns='urn:example:unknown'/>".to_owned(), true),
            ("type='groupchat'", BODY.to_owned(), false),
            ("type='headline'", BODY.to_owned(), false),
            ("type='error'", BODY.to_owned() + &hint("store"), false),
        ] {
            assert_eq!(
                both_ways(&mut bench(), attributes, "bob@localhost/x", &payload),
                [kept; 2],
                "{attributes} {payload}"
            );
        }
    }

    #[test]
    fn follows_the_preferences() {
        let mut bench = bench();
        bench.account.archive = ArchivePreferences {
            default: ArchiveDefault::Roster,
            always: [jid("carol@localhost"), jid("dave@localhost/x")].into(),
            never: [jid("bob@localhost/secret"), jid("mallory@localhost")].into(),
        };
        for (other, kept) in [
            ("bob@localhost/home", true),
            ("bob@localhost/secret", false),
            ("bob@localhost", true),
            ("carol@localhost/any", true),
            ("dave@localhost/x", true),
            ("dave@localhost/y", false),
            ("mallory@localhost/x", false),
            ("eve@localhost", false),
        ] {
            assert_eq!(both_ways(&mut bench, "type='chat'", other, BODY), [kept; 2], "{other}");
        }
        bench.account.archive.default = ArchiveDefault::Never;
        assert_eq!(both_ways(&mut bench, "type='chat'", "bob@localhost", BODY), [false; 2]);
        assert_eq!(both_ways(&mut bench, "type='chat'", "carol@localhost", BODY), [true; 2]);
        bench.account.archive.default = ArchiveDefault::Always;
        assert_eq!(both_ways(&mut bench, "type='chat'", "eve@localhost", BODY), [true; 2]);
        assert_eq!(both_ways(&mut bench, "type='chat'", "mallory@localhost", BODY), [false; 2]);
    }

    #[test]
    fn forged_results_are_taken_out() {
        let result = "<result xmlns='urn:xmpp:mam:2' id='1'><forwarded xmlns='urn:xmpp:forward:0'/></result>";
        let mut bench = bench();
        let seen = bench.sent("phone", &format!("<message to='bob@localhost'>{result}{BODY}</message>"));
        assert_eq!(seen.stanza.payload.len(), 1);
        for (from, left) in [
            ("bob@localhost/x", 1),
            ("bob@localhost", 1),
            ("alice@localhost", 1),
            ("eve@remote.example/x", 1),
            ("room@rooms.example", 2),
        ] {
            let xml = format!("<message from='{from}' to='alice@localhost/phone'>{result}{BODY}</message>");
            assert_eq!(bench.received(&xml, &["phone"]).stanza.payload.len(), left, "{from}");
        }
    }
}
