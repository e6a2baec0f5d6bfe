//! Blocking (XEP-0191): the list, and what it does to stanzas.
//!
//! Who is blocked sees an account that is offline and takes nothing: the answers are those of an account that does not exist.
//! An account's own sessions and its own server are never blocked, whatever the list says (XEP-0191 §5).

mod list;
mod presence;

use starling_hooks::{About, At, Cx, Fate, Flow, Hooks, Received, Sent, Spec, Stage, Xep};
use starling_xmpp::{
    Element, ErrorType, IqType, Jid, Kind, MessageType, Stanza, StanzaCondition, StanzaError, ns,
};
use std::sync::Arc;

/// Stops what goes to, and comes from, whom the account blocks.
pub struct Blocking;

static ABOUT: About = About {
    spec: Spec::Xep(191, "1.3"),
    name: "blocking command",
    server_features: &[ns::BLOCKING],
    account_features: &[],
};

impl Xep for Blocking {
    fn about(&self) -> &'static About {
        &ABOUT
    }

    fn install(self: Arc<Self>, on: &mut Hooks) {
        on.sent(Stage::Guard, Arc::<Self>::clone(&self));
        on.received(Stage::Guard, self);
        on.iq(At::Account, ns::BLOCKING, "blocklist", Arc::new(list::Show));
        on.iq(At::Account, ns::BLOCKING, "block", Arc::new(list::Block));
        on.iq(At::Account, ns::BLOCKING, "unblock", Arc::new(list::Unblock));
    }
}

/// Whether the account blocks this address.
pub fn is_blocked(cx: &Cx<'_>, jid: &Jid) -> bool {
    let account = cx.account;
    account.blocked.blocks(jid)
        && jid.bare_str() != account.jid.as_str()
        && jid.as_str() != account.jid.domain()
}

impl Sent for Blocking {
    /// XEP-0191 §3.3: "MUST return a not-acceptable error" with the application's own condition. What must never be answered
    /// is dropped by the home.
    fn sent(&self, cx: &mut Cx<'_>, stanza: &mut Stanza, _: &mut Fate) -> Flow {
        if !stanza.to.as_ref().is_some_and(|to| is_blocked(cx, to)) {
            return Flow::Next;
        }
        cx.because = "blocked";
        let error = StanzaError::new(StanzaCondition::NotAcceptable)
            .with_type(ErrorType::Cancel)
            .with_app(Element::new(ns::BLOCKING_ERRORS, "blocked"));
        Flow::Refuse(Box::new(error))
    }
}

impl Received for Blocking {
    /// XEP-0191 §3.3, and within it the row of RFC 6121 §8.5 for an account that does not exist.
    fn received(&self, cx: &mut Cx<'_>, stanza: &mut Stanza, _: &mut Fate) -> Flow {
        if !stanza.from.as_ref().is_some_and(|from| is_blocked(cx, from)) {
            return Flow::Next;
        }
        cx.because = "blocked";
        match stanza.kind {
            Kind::Message(MessageType::Chat | MessageType::Normal | MessageType::Groupchat)
            | Kind::Iq(IqType::Get | IqType::Set) => {
                Flow::Refuse(Box::new(StanzaError::new(StanzaCondition::ServiceUnavailable)))
            }
            Kind::Message(MessageType::Headline | MessageType::Error) | Kind::Iq(_) | Kind::Presence(_) => {
                Flow::Drop
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use starling_hooks::bench::{Bench, element};

    fn bench() -> Bench {
        Bench::new(vec![Arc::new(Blocking)]).available("phone", 0).blocked(&[
            "bob@localhost",
            "evil.example",
            "eve@x.example/home",
            "alice@localhost",
            "localhost",
        ])
    }

    fn refused(flow: Flow) -> StanzaError {
        match flow {
            Flow::Refuse(error) => *error,
            other => panic!("not refused but {other:?}"),
        }
    }

    #[test]
    fn nothing_goes_to_whom_is_blocked() {
        for to in
            ["bob@localhost", "bob@localhost/x", "evil.example", "any@evil.example/x", "eve@x.example/home"]
        {
            for stanza in
                ["message type='chat'", "presence", "presence type='subscribe'", "iq type='get' id='1'"]
            {
                let name = stanza.split(' ').next().unwrap();
                let error = refused(
                    bench().sent("phone", &format!("<{stanza} to='{to}'><a xmlns='urn:t'/></{name}>")).flow,
                );
                let expected = "<error type='cancel'><not-acceptable xmlns='urn:ietf:params:xml:ns:xmpp-stanzas'/>\
                    <blocked xmlns='urn:xmpp:blocking:errors'/></error>";
                assert_eq!(error.to_element(), element(expected), "{stanza} to {to}");
            }
        }
        for to in [
            "eve@x.example",
            "eve@x.example/work",
            "alice@localhost/phone",
            "alice@localhost",
            "localhost",
            "carol@y.example",
        ] {
            assert_eq!(bench().sent("phone", &format!("<message to='{to}'/>")).flow, Flow::Next, "{to}");
        }
        assert_eq!(bench().sent("phone", "<presence/>").flow, Flow::Next);
    }

    #[test]
    fn whom_is_blocked_gets_the_answers_of_an_account_that_is_not_there() {
        for (stanza, answered) in [
            ("message type='chat'", true),
            ("message", true),
            ("message type='groupchat'", true),
            ("message type='headline'", false),
            ("message type='error'", false),
            ("presence", false),
            ("presence type='subscribe'", false),
            ("presence type='probe'", false),
            ("iq type='get' id='1'", true),
            ("iq type='set' id='1'", true),
            ("iq type='result' id='1'", false),
        ] {
            let name = stanza.split(' ').next().unwrap();
            let xml = format!(
                "<{stanza} from='bob@localhost/x' to='alice@localhost/phone'><a xmlns='urn:t'/></{name}>"
            );
            let seen = bench().received(&xml, &["phone"]);
            if answered {
                assert_eq!(
                    refused(seen.flow),
                    StanzaError::new(StanzaCondition::ServiceUnavailable),
                    "{stanza}"
                );
            } else {
                assert_eq!(seen.flow, Flow::Drop, "{stanza}");
            }
        }
        for from in ["eve@x.example/work", "alice@localhost/tablet", "localhost"] {
            let xml = format!("<message from='{from}' to='alice@localhost'/>");
            assert_eq!(bench().received(&xml, &["phone"]).flow, Flow::Next, "{from}");
        }
    }
}
