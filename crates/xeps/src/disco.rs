//! Service discovery (XEP-0030) of the server and of accounts, and the server's own entity capabilities (XEP-0115).
//!
//! Features are data of the modules; what is told here is gathered from them, so nothing is advertised that is not installed.

mod caps;

use crate::answer;
pub use caps::{Caps, caps};
use starling_hooks::{About, Answer, AnswerIq, At, Cx, Hooks, Spec, Xep};
use starling_xmpp::{Element, Stanza, StanzaCondition, ns};
use std::sync::Arc;

/// Tells what there is.
pub struct Disco;

static ABOUT: About = About {
    spec: Spec::Xep(30, "2.5.0"),
    name: "service discovery",
    server_features: &[ns::DISCO_INFO, ns::DISCO_ITEMS],
    account_features: &[ns::DISCO_INFO, ns::DISCO_ITEMS],
};

impl Xep for Disco {
    fn about(&self) -> &'static About {
        &ABOUT
    }

    fn install(self: Arc<Self>, on: &mut Hooks) {
        on.iq(At::Server, ns::DISCO_INFO, "query", Arc::new(ServerInfo));
        on.iq(At::Server, ns::DISCO_ITEMS, "query", Arc::new(ServerItems));
        on.iq(At::Account, ns::DISCO_INFO, "query", Arc::new(AccountInfo));
        on.iq(At::Account, ns::DISCO_ITEMS, "query", Arc::new(AccountItems));
    }
}

struct ServerInfo;
struct ServerItems;
struct AccountInfo;
struct AccountItems;

/// What the server is (XEP-0030 §3.1, registered identities).
struct Identity<'a> {
    category: &'static str,
    kind: &'static str,
    name: Option<&'a str>,
}

impl Identity<'_> {
    const fn server(name: &str) -> Identity<'_> {
        Identity { category: "server", kind: "im", name: Some(name) }
    }

    fn element(&self) -> Element {
        Element::new(ns::DISCO_INFO, "identity")
            .attr("category", self.category)
            .attr("type", self.kind)
            .opt_attr("name", self.name)
    }
}

impl AnswerIq for ServerInfo {
    fn answer(&self, cx: &mut Cx<'_>, iq: &Stanza, payload: &Element) -> Answer {
        if !answer::is_get(iq) {
            return answer::wrong_type();
        }
        let (name, features) = (cx.server.software.0, &cx.server.features);
        // The capabilities' node is the server itself under another name (XEP-0115 §6.2).
        if payload.attribute("node").is_some_and(|node| node != caps::node(name, features)) {
            return answer::refused(StanzaCondition::ItemNotFound);
        }
        info(payload, &Identity::server(name), &features.server)
    }
}

impl AnswerIq for ServerItems {
    fn answer(&self, _: &mut Cx<'_>, iq: &Stanza, payload: &Element) -> Answer {
        if !answer::is_get(iq) {
            return answer::wrong_type();
        }
        match payload.attribute("node") {
            Some(_) => answer::refused(StanzaCondition::ItemNotFound),
            None => Answer::Result(Some(Element::new(ns::DISCO_ITEMS, "query"))),
        }
    }
}

impl AnswerIq for AccountInfo {
    fn answer(&self, cx: &mut Cx<'_>, iq: &Stanza, payload: &Element) -> Answer {
        if !is_trusted(cx, iq) {
            return answer::none_of_yours();
        }
        if !answer::is_get(iq) {
            return answer::wrong_type();
        }
        if payload.attribute("node").is_some() {
            return answer::refused(StanzaCondition::ItemNotFound);
        }
        let identity = Identity { category: "account", kind: "registered", name: None };
        info(payload, &identity, &cx.server.features.account)
    }
}

impl AnswerIq for AccountItems {
    /// Strangers get an empty list, as of an account that is not there (XEP-0030 §8); others see who is online.
    fn answer(&self, cx: &mut Cx<'_>, iq: &Stanza, payload: &Element) -> Answer {
        if !answer::is_get(iq) {
            return answer::wrong_type();
        }
        let node = payload.attribute("node");
        let mut query = Element::new(ns::DISCO_ITEMS, "query").opt_attr("node", node);
        if is_trusted(cx, iq) {
            if node.is_some() {
                return answer::refused(StanzaCondition::ItemNotFound);
            }
            let available = cx.account.available();
            query = query.children_of(
                available
                    .map(|session| Element::new(ns::DISCO_ITEMS, "item").attr("jid", session.jid.as_str())),
            );
        }
        Answer::Result(Some(query))
    }
}

/// Whether the asker may know of the account: its own session, or somebody who sees its presence (XEP-0030 §8).
fn is_trusted(cx: &Cx<'_>, iq: &Stanza) -> bool {
    cx.session.is_some()
        || iq.from.as_ref().is_some_and(|from| {
            let contact = cx.account.roster.items.get(&from.to_bare());
            contact.is_some_and(|contact| contact.subscription.is_from())
        })
}

/// The answer mirrors the node of the request (XEP-0030 §3.2).
fn info(payload: &Element, identity: &Identity<'_>, features: &[&str]) -> Answer {
    let query = Element::new(ns::DISCO_INFO, "query")
        .opt_attr("node", payload.attribute("node"))
        .child(identity.element())
        .children_of(features.iter().map(|var| Element::new(ns::DISCO_INFO, "feature").attr("var", var)));
    Answer::Result(Some(query))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::ping::Ping;
    use starling_hooks::bench::{Bench, element};
    use starling_store::Subscription;

    fn bench() -> Bench {
        Bench::new(vec![Arc::new(Disco), Arc::new(Ping), Arc::new(Caps)])
            .available("phone", 0)
            .session("tablet")
            .contact("bob@localhost", Subscription::From)
            .contact("carol@localhost", Subscription::To)
    }

    fn query(what: &str, attributes: &str) -> String {
        format!(
            "<iq type='get' id='1' {attributes}><query xmlns='http://jabber.org/protocol/disco#{what}'/></iq>"
        )
    }

    #[test]
    fn tells_what_the_server_is() {
        let asked = bench().ask(At::Server, "phone", &query("info", ""));
        let expected = "<query xmlns='http://jabber.org/protocol/disco#info'>\
            <identity category='server' type='im' name='Starling'/>\
            <feature var='http://jabber.org/protocol/caps'/>\
            <feature var='http://jabber.org/protocol/disco#info'/>\
            <feature var='http://jabber.org/protocol/disco#items'/>\
            <feature var='urn:xmpp:ping'/></query>";
        assert_eq!(asked.result(), &element(expected));
        assert_eq!(bench().ask(At::Server, "phone", &query("items", "")).result().child_count(), 0);
    }

    #[test]
    fn the_hash_in_the_stream_features_names_this_very_answer() {
        let mut bench = bench();
        let c = caps(&bench.server);
        let node = format!("{}#{}", c.attribute("node").unwrap(), c.attribute("ver").unwrap());
        let xml = format!(
            "<iq type='get' id='1'><query xmlns='http://jabber.org/protocol/disco#info' node='{node}'/></iq>"
        );
        let asked = bench.ask(At::Server, "phone", &xml);
        assert_eq!(asked.result().attribute("node"), Some(node.as_str()));
        let plain = bench.ask(At::Server, "phone", &query("info", ""));
        assert!(plain.result().children().eq(asked.result().children()));
        let other = bench.ask(At::Server, "phone", &xml.replace(&node, "urn:x-starling:server#old"));
        assert_eq!(other.condition(), "item-not-found");
    }

    #[test]
    fn an_account_is_told_of_to_itself_and_to_those_who_see_it() {
        let mut bench = bench();
        let expected = "<query xmlns='http://jabber.org/protocol/disco#info'>\
            <identity category='account' type='registered'/>\
            <feature var='http://jabber.org/protocol/disco#info'/>\
            <feature var='http://jabber.org/protocol/disco#items'/>\
            <feature var='urn:xmpp:ping'/></query>";
        assert_eq!(bench.ask(At::Account, "phone", &query("info", "")).result(), &element(expected));
        let bob = bench.stranger_asks(At::Account, &query("info", "from='bob@localhost/x'"));
        assert_eq!(bob.result(), &element(expected));
        for stranger in ["from='carol@localhost/x'", "from='eve@x.example'"] {
            assert_eq!(
                bench.stranger_asks(At::Account, &query("info", stranger)).condition(),
                "service-unavailable"
            );
        }
        let node =
            "<iq type='get' id='1'><query xmlns='http://jabber.org/protocol/disco#info' node='x'/></iq>";
        assert_eq!(bench.ask(At::Account, "phone", node).condition(), "item-not-found");
    }

    #[test]
    fn resources_are_shown_to_those_who_see_them() {
        let mut bench = bench();
        let bob = bench.stranger_asks(At::Account, &query("items", "from='bob@localhost/x'"));
        let expected = "<query xmlns='http://jabber.org/protocol/disco#items'><item jid='alice@localhost/phone'/></query>";
        assert_eq!(bob.result(), &element(expected));
        let carol = bench.stranger_asks(At::Account, &query("items", "from='carol@localhost/x'"));
        assert_eq!(carol.result().child_count(), 0);
    }

    #[test]
    fn nothing_can_be_set() {
        for what in ["info", "items"] {
            for at in [At::Server, At::Account] {
                assert_eq!(
                    bench().ask(at, "phone", &query(what, "").replace("get", "set")).condition(),
                    "not-allowed"
                );
            }
        }
    }
}
