//! Offline messages (XEP-0160): what is kept until a device has acknowledged it.
//!
//! The same mark does for both halves of the job: a message that goes out to sessions is kept until one of them has acknowledged
//! it, and a message that nobody takes is kept until somebody comes. Handing it out, the stamps and the bound on how much
//! is kept are the home's.

use crate::content;
use crate::hints::Hinted;
use starling_hooks::{About, Cx, Fate, Flow, Hooks, Received, Spec, Stage, Undelivered, Xep};
use starling_xmpp::{Kind, MessageType, Stanza, StanzaCondition, StanzaError, ns};
use std::sync::Arc;

/// Keeps what is worth keeping.
pub struct Offline;

static ABOUT: About = About {
    spec: Spec::Xep(160, "1.0.1"),
    name: "offline messages",
    server_features: &[ns::MSGOFFLINE],
    account_features: &[],
};

impl Xep for Offline {
    fn about(&self) -> &'static About {
        &ABOUT
    }

    fn install(self: Arc<Self>, on: &mut Hooks) {
        on.received(Stage::Watch, Arc::<Self>::clone(&self));
        on.undelivered(self);
    }
}

/// Whether a message is kept until a device has it (XEP-0160 §3, XEP-0334 §4).
pub fn is_worth_keeping(message: &Stanza) -> bool {
    let hinted = Hinted::of(message);
    content::is_personal(message) && !hinted.no_store && (hinted.store || content::is_lasting(message))
}

impl Received for Offline {
    fn received(&self, cx: &mut Cx<'_>, stanza: &mut Stanza, fate: &mut Fate) -> Flow {
        if !fate.recipients.is_empty() && is_worth_keeping(stanza) {
            keep(cx, fate);
        }
        Flow::Next
    }
}

impl Undelivered for Offline {
    fn undelivered(&self, cx: &mut Cx<'_>, stanza: &Stanza, fate: &mut Fate) -> Flow {
        let Kind::Message(kind) = stanza.kind else { return Flow::Next };
        // The rows of RFC 6121 §8.5 without a recipient. A `normal` message for a resource that is gone is not for
        // another one (§8.5.3.2.1): its sender can try again.
        let to_resource = stanza.to.as_ref().is_some_and(|to| !to.is_bare());
        if is_worth_keeping(stanza) && (kind == MessageType::Chat || !to_resource) {
            keep(cx, fate);
            cx.because = "kept";
            return Flow::Next;
        }
        // What the account does not take is not in its archive (XEP-0313 §6.1), and goes to none of its sessions.
        *fate = Fate::default();
        cx.because = "nobody takes it";
        match kind {
            MessageType::Headline | MessageType::Error => Flow::Drop,
            // The home answers, unless nobody would miss it.
            MessageType::Chat if !stanza.body() => Flow::Next,
            MessageType::Normal if !stanza.body() && !to_resource => Flow::Next,
            MessageType::Chat | MessageType::Normal | MessageType::Groupchat => {
                Flow::Refuse(Box::new(StanzaError::new(StanzaCondition::ServiceUnavailable)))
            }
        }
    }
}

/// A row that the archive does not show ends by itself.
fn keep(cx: &Cx<'_>, fate: &mut Fate) {
    fate.offline = true;
    if !fate.archived && fate.expires.is_none() {
        fate.expires = Some(cx.now.plus(cx.server.limits.offline_lifetime));
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::archive::Archive;
    use starling_hooks::bench::{Bench, NOW};
    use std::time::Duration;

    fn bench() -> Bench {
        let mut bench = Bench::new(vec![Arc::new(Archive), Arc::new(Offline)]).available("phone", 0);
        bench.server().limits.offline_lifetime = Duration::from_secs(60);
        bench
    }

    fn message(attributes: &str, payload: &str) -> String {
        format!("<message from='bob@localhost/x' to='alice@localhost' {attributes}>{payload}</message>")
    }

    const BODY: &str = "<body>hi</body>";
    const COMPOSING: &str = "<composing xmlns='http://jabber.org/protocol/chatstates'/>";

    #[test]
    fn keeps_what_is_delivered_until_it_is_acknowledged() {
        let mut bench = bench();
        let kept = |bench: &mut Bench, xml: &str| bench.received(xml, &["phone"]).fate.offline;
        assert!(kept(&mut bench, &message("type='chat'", BODY)));
        assert!(kept(&mut bench, &message("", BODY)));
        assert!(kept(&mut bench, &message("", "<received xmlns='urn:xmpp:receipts' id='1'/>")));
        assert!(!kept(&mut bench, &message("type='chat'", COMPOSING)));
        assert!(!kept(&mut bench, &message("type='headline'", BODY)));
        assert!(!kept(&mut bench, &message("type='groupchat'", BODY)));
        assert!(!kept(&mut bench, &message("", &format!("{BODY}<no-store xmlns='urn:xmpp:hints'/>"))));
        assert!(kept(&mut bench, &message("", &format!("{COMPOSING}<store xmlns='urn:xmpp:hints'/>"))));
    }

    #[test]
    fn keeps_what_nobody_takes() {
        let seen = bench().undelivered(&message("type='chat'", BODY));
        assert_eq!(
            (seen.flow, seen.fate.offline, seen.fate.archived, seen.fate.expires),
            (Flow::Next, true, true, None)
        );
    }

    #[test]
    fn what_must_not_be_archived_ends_by_itself() {
        let hinted = message("type='chat'", &format!("{BODY}<no-permanent-store xmlns='urn:xmpp:hints'/>"));
        let seen = bench().undelivered(&hinted);
        assert_eq!((seen.flow, seen.fate.offline, seen.fate.archived), (Flow::Next, true, false));
        assert_eq!(seen.fate.expires, Some(NOW.plus(Duration::from_secs(60))));
    }

    #[test]
    fn follows_the_table_for_what_is_not_kept() {
        let full = "to='alice@localhost/gone'";
        let bare = "to='alice@localhost'";
        let refused = || Flow::Refuse(Box::new(StanzaError::new(StanzaCondition::ServiceUnavailable)));
        for (address, attributes, payload, flow) in [
            (bare, "type='chat'", COMPOSING, Flow::Next),
            (bare, "type='chat'", "<body>hi</body><no-store xmlns='urn:xmpp:hints'/>", refused()),
            (bare, "type='groupchat'", BODY, refused()),
            (bare, "type='headline'", BODY, Flow::Drop),
            (bare, "type='error'", "<error type='cancel'/>", Flow::Drop),
            (full, "type='normal'", BODY, refused()),
        ] {
            let xml = format!("<message from='bob@localhost/x' {address} {attributes}>{payload}</message>");
            let seen = bench().undelivered(&xml);
            assert_eq!((seen.flow, seen.fate), (flow, Fate::default()), "{xml}");
        }
        let seen = bench().undelivered(&format!("<message from='b@x' {full} type='chat'>{BODY}</message>"));
        assert!(seen.fate.offline, "chat for a resource that is gone is kept");
    }
}
