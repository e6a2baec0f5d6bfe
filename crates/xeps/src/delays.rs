//! Delayed delivery (XEP-0203): stamps that claim to be ours and are not.
//!
//! The home stamps what it held back ([`starling_hooks::delay`]). A stamp of our domain on anything that is sent or arrives is a
//! forgery and is discarded (XEP-0203 §5); stamps of others stay, true or not.

use starling_hooks::{About, Cx, Fate, Flow, Hooks, Received, Sent, Spec, Stage, Xep};
use starling_xmpp::{Jid, Kind, Stanza, ns};
use std::sync::Arc;

/// Keeps stamps of our domains true.
pub struct Delays;

static ABOUT: About = About {
    spec: Spec::Xep(203, "2.0"),
    name: "delayed delivery",
    server_features: &[],
    account_features: &[],
};

impl Xep for Delays {
    fn about(&self) -> &'static About {
        &ABOUT
    }

    fn install(self: Arc<Self>, on: &mut Hooks) {
        on.sent(Stage::Shape, Arc::<Self>::clone(&self));
        on.received(Stage::Shape, self);
    }
}

impl Sent for Delays {
    fn sent(&self, cx: &mut Cx<'_>, stanza: &mut Stanza, _: &mut Fate) -> Flow {
        strip(cx, stanza)
    }
}

impl Received for Delays {
    fn received(&self, cx: &mut Cx<'_>, stanza: &mut Stanza, _: &mut Fate) -> Flow {
        strip(cx, stanza)
    }
}

fn strip(cx: &Cx<'_>, stanza: &mut Stanza) -> Flow {
    if matches!(stanza.kind, Kind::Message(_) | Kind::Presence(_)) && stanza.payload.has_ns(ns::DELAY) {
        stanza.payload = stanza.payload.without(|child| {
            let ours = |from: &str| Jid::parse(from).is_ok_and(|from| is_us(cx, &from));
            child.ns() == ns::DELAY && child.attribute("from").is_some_and(|from| ours(from.as_ref()))
        });
    }
    Flow::Next
}

/// A domain that we serve, or the account itself, for which only we hold anything back.
fn is_us(cx: &Cx<'_>, from: &Jid) -> bool {
    from.as_str() == cx.account.jid.as_str() || (from.local().is_none() && cx.server.is_local(from))
}

#[cfg(test)]
mod tests {
    use super::*;
    use starling_hooks::bench::Bench;

    const FORGED: &str = "<delay xmlns='urn:xmpp:delay' from='localhost' stamp='2020-01-01T00:00:00Z'/>\
        <delay xmlns='urn:xmpp:delay' from='LocalHost/x' stamp='2020-01-01T00:00:00Z'/>\
        <delay xmlns='urn:xmpp:delay' from='Alice@localhost' stamp='2020-01-01T00:00:00Z'/>";
    const FOREIGN: &str = "<delay xmlns='urn:xmpp:delay' from='room@rooms.example' stamp='2020-01-01T00:00:00Z'/>\
        <delay xmlns='urn:xmpp:delay' stamp='2020-01-01T00:00:00Z'/>\
        <delay xmlns='urn:xmpp:delay' from='alice@localhost/phone' stamp='2020-01-01T00:00:00Z'/>";

    #[test]
    fn forged_stamps_go_and_those_of_others_stay() {
        let mut bench = Bench::new(vec![Arc::new(Delays)]).available("phone", 0);
        for stanza in ["message", "presence"] {
            let xml =
                format!("<{stanza} from='bob@localhost/x'>{FORGED}<show>away</show>{FOREIGN}</{stanza}>");
            for seen in [bench.received(&xml, &["phone"]), bench.sent("phone", &xml)] {
                assert_eq!(seen.flow, Flow::Next);
                let kept: Vec<_> =
                    seen.stanza.payload.children().map(|child| child.name().to_owned()).collect();
                assert_eq!(kept, ["show", "delay", "delay", "delay"]);
            }
        }
    }
}
