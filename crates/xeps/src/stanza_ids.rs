//! Unique and stable stanza ids (XEP-0359).
//!
//! The id of a row in its owner's archive is added by the home when it delivers the message. Here, every `stanza-id`
//! goes that claims to have been given by this account or by us, whatever its spelling and however many there are (XEP-0359 §3):
//! clients use the id to find the message again.

use starling_hooks::{About, Cx, Fate, Flow, Hooks, Received, Sent, Spec, Stage, Xep};
use starling_xmpp::{Jid, Stanza, ns};
use std::sync::Arc;

/// Keeps the ids of this account true.
pub struct StanzaIds;

static ABOUT: About = About {
    spec: Spec::Xep(359, "0.7.0"),
    name: "unique and stable stanza ids",
    server_features: &[],
    account_features: &[ns::SID],
};

impl Xep for StanzaIds {
    fn about(&self) -> &'static About {
        &ABOUT
    }

    fn install(self: Arc<Self>, on: &mut Hooks) {
        on.sent(Stage::Shape, Arc::<Self>::clone(&self));
        on.received(Stage::Shape, self);
    }
}

impl Sent for StanzaIds {
    fn sent(&self, cx: &mut Cx<'_>, stanza: &mut Stanza, _: &mut Fate) -> Flow {
        strip(cx, stanza)
    }
}

impl Received for StanzaIds {
    fn received(&self, cx: &mut Cx<'_>, stanza: &mut Stanza, _: &mut Fate) -> Flow {
        strip(cx, stanza)
    }
}

fn strip(cx: &Cx<'_>, stanza: &mut Stanza) -> Flow {
    if stanza.is_message() && stanza.payload.has_ns(ns::SID) {
        stanza.payload = stanza.payload.without(|child| {
            child.is(ns::SID, "stanza-id")
                && child
                    .attribute("by")
                    .is_some_and(|by| Jid::parse(by.as_ref()).is_ok_and(|by| is_us(cx, &by)))
        });
    }
    Flow::Next
}

fn is_us(cx: &Cx<'_>, by: &Jid) -> bool {
    by.bare_str() == cx.account.jid.as_str() || (by.local().is_none() && cx.server.is_local(by))
}

#[cfg(test)]
mod tests {
    use super::*;
    use starling_hooks::bench::Bench;

    #[test]
    fn forged_ids_go_and_all_others_stay() {
        let mut bench = Bench::new(vec![Arc::new(StanzaIds)]).available("phone", 0);
        let xml = "<message from='bob@localhost/x'>\
            <stanza-id xmlns='urn:xmpp:sid:0' by='alice@localhost' id='1'/>\
            <stanza-id xmlns='urn:xmpp:sid:0' by='ALICE@localhost' id='2'/><body>hi</body>\
            <stanza-id xmlns='urn:xmpp:sid:0' by='alice@localhost/phone' id='3'/>\
            <stanza-id xmlns='urn:xmpp:sid:0' by='localhost' id='4'/>\
            <stanza-id xmlns='urn:xmpp:sid:0' by='room@rooms.example' id='5'/>\
            <stanza-id xmlns='urn:xmpp:sid:0' id='6'/>\
            <origin-id xmlns='urn:xmpp:sid:0' by='alice@localhost' id='7'/></message>";
        for seen in [bench.received(xml, &["phone"]), bench.sent("phone", xml)] {
            let ids: Vec<_> = seen
                .stanza
                .payload
                .children()
                .filter_map(|child| child.element().attribute("id").map(str::to_owned))
                .collect();
            assert_eq!(ids, ["5", "6", "7"]);
            assert!(seen.stanza.body());
        }
    }
}
