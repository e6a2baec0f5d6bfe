//! Ping (XEP-0199), as the server and as an account answer it. The home itself pings clients that fall silent.

use crate::answer;
use starling_hooks::{About, Answer, AnswerIq, At, Cx, Hooks, Spec, Xep};
use starling_xmpp::{Element, Stanza, ns};
use std::sync::Arc;

/// Says that it is there.
pub struct Ping;

static ABOUT: About = About {
    spec: Spec::Xep(199, "2.0.1"),
    name: "ping",
    server_features: &[ns::PING],
    account_features: &[ns::PING],
};

impl Xep for Ping {
    fn about(&self) -> &'static About {
        &ABOUT
    }

    fn install(self: Arc<Self>, on: &mut Hooks) {
        on.iq(At::Server, ns::PING, "ping", Arc::new(ServerPing));
        on.iq(At::Account, ns::PING, "ping", self);
    }
}

struct ServerPing;

impl AnswerIq for ServerPing {
    fn answer(&self, _: &mut Cx<'_>, iq: &Stanza, _: &Element) -> Answer {
        if answer::is_get(iq) { Answer::done() } else { answer::wrong_type() }
    }
}

impl AnswerIq for Ping {
    /// XEP-0199 §4.2: for one's own account the server answers. An answer to others would tell them that the account exists.
    fn answer(&self, cx: &mut Cx<'_>, iq: &Stanza, payload: &Element) -> Answer {
        match cx.session {
            Some(_) => ServerPing.answer(cx, iq, payload),
            None => answer::none_of_yours(),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use starling_hooks::bench::Bench;

    #[test]
    fn answers_at_the_server_and_at_the_own_account() {
        let mut bench = Bench::new(vec![Arc::new(Ping)]).session("phone");
        let ping = "<iq type='get' id='1' from='bob@localhost/x'><ping xmlns='urn:xmpp:ping'/></iq>";
        for at in [At::Account, At::Server] {
            assert!(matches!(bench.ask(at, "phone", ping).answer, Ok(None)));
            assert_eq!(bench.ask(at, "phone", &ping.replace("get", "set")).condition(), "not-allowed");
        }
        assert!(bench.stranger_asks(At::Server, ping).answer.is_ok());
        assert_eq!(bench.stranger_asks(At::Account, ping).condition(), "service-unavailable");
    }
}
