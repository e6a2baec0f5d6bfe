//! The session request of RFC 3921: asks for what binding has given already. Old clients insist on it.

use crate::answer;
use starling_hooks::{About, Answer, AnswerIq, At, Cx, Hooks, Spec, Xep};
use starling_xmpp::{Element, Stanza, ns};
use std::sync::Arc;

/// Says yes.
pub struct Session;

static ABOUT: About =
    About { spec: Spec::Rfc(3921), name: "session", server_features: &[], account_features: &[] };

impl Xep for Session {
    fn about(&self) -> &'static About {
        &ABOUT
    }

    fn install(self: Arc<Self>, on: &mut Hooks) {
        // Clients address it to nobody or to the server.
        on.iq(At::Account, ns::SESSION, "session", Arc::<Self>::clone(&self));
        on.iq(At::Server, ns::SESSION, "session", self);
    }
}

impl AnswerIq for Session {
    fn answer(&self, cx: &mut Cx<'_>, iq: &Stanza, _: &Element) -> Answer {
        match cx.session {
            None => answer::none_of_yours(),
            Some(_) if answer::is_get(iq) => answer::wrong_type(),
            Some(_) => Answer::done(),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use starling_hooks::bench::Bench;

    #[test]
    fn says_yes_to_its_own_sessions() {
        let mut bench = Bench::new(vec![Arc::new(Session)]).session("phone");
        let xml = "<iq type='set' id='1'><session xmlns='urn:ietf:params:xml:ns:xmpp-session'/></iq>";
        for at in [At::Account, At::Server] {
            assert!(matches!(bench.ask(at, "phone", xml).answer, Ok(None)));
        }
        assert_eq!(bench.ask(At::Account, "phone", &xml.replace("set", "get")).condition(), "not-allowed");
        let stranger = xml.replace("<iq", "<iq from='bob@localhost/x' to='alice@localhost'");
        assert_eq!(bench.stranger_asks(At::Account, &stranger).condition(), "service-unavailable");
    }
}
