//! Software version (XEP-0092). The operating system is not told (XEP-0092 §5).

use crate::answer;
use starling_hooks::{About, Answer, AnswerIq, At, Cx, Hooks, Spec, Xep};
use starling_xmpp::{Element, Stanza, ns};
use std::sync::Arc;

/// Tells name and version of the server.
pub struct Version;

static ABOUT: About = About {
    spec: Spec::Xep(92, "1.1"),
    name: "software version",
    server_features: &[ns::VERSION],
    account_features: &[],
};

impl Xep for Version {
    fn about(&self) -> &'static About {
        &ABOUT
    }

    fn install(self: Arc<Self>, on: &mut Hooks) {
        on.iq(At::Server, ns::VERSION, "query", self);
    }
}

impl AnswerIq for Version {
    fn answer(&self, cx: &mut Cx<'_>, iq: &Stanza, _: &Element) -> Answer {
        if !answer::is_get(iq) {
            return answer::wrong_type();
        }
        let (name, version) = cx.server.software;
        let text = |element, text| Element::new(ns::VERSION, element).text(text);
        let query =
            Element::new(ns::VERSION, "query").child(text("name", name)).child(text("version", version));
        Answer::Result(Some(query))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use starling_hooks::bench::{Bench, element};

    #[test]
    fn tells_name_and_version() {
        let mut bench = Bench::new(vec![Arc::new(Version)]).session("phone");
        let asked =
            bench.ask(At::Server, "phone", "<iq type='get' id='1'><query xmlns='jabber:iq:version'/></iq>");
        let expected =
            "<query xmlns='jabber:iq:version'><name>Starling</name><version>1.2.3</version></query>";
        assert_eq!(asked.result(), &element(expected));
    }
}
