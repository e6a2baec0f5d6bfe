//! In-band registration (XEP-0077) for those who have authenticated: a new password, and removing the account.
//!
//! New accounts are made before authentication, at the edge, if the operator allows it.

use crate::answer;
use starling_hooks::{
    About, Answer, AnswerIq, At, Change, Cx, Effect, Hooks, Later, NewCredentials, Spec, Xep,
};
use starling_xmpp::{BareJid, Element, Stanza, StanzaCondition, StanzaError, jid, ns};
use std::sync::Arc;

/// Changes passwords and removes accounts.
pub struct Registration;

static ABOUT: About = About {
    spec: Spec::Xep(77, "2.4"),
    name: "in-band registration",
    server_features: &[ns::REGISTER],
    account_features: &[],
};

impl Xep for Registration {
    fn about(&self) -> &'static About {
        &ABOUT
    }

    fn install(self: Arc<Self>, on: &mut Hooks) {
        // Addressed to the server or to nobody (XEP-0077 §§3.2–3.3).
        on.iq(At::Account, ns::REGISTER, "query", Arc::<Self>::clone(&self));
        on.iq(At::Server, ns::REGISTER, "query", self);
    }
}

impl AnswerIq for Registration {
    fn answer(&self, cx: &mut Cx<'_>, iq: &Stanza, payload: &Element) -> Answer {
        if cx.session.is_none() {
            return answer::none_of_yours();
        }
        if answer::is_get(iq) {
            return shown(&cx.account.jid);
        }
        if payload.find(ns::REGISTER, "remove").is_some() {
            return remove(cx, payload);
        }
        change_password(cx, payload)
    }
}

/// XEP-0077 §3.1: what is on file. A password is not.
fn shown(account: &BareJid) -> Answer {
    let field = |name| Element::new(ns::REGISTER, name);
    let query = field("query")
        .child(field("registered"))
        .child(field("username").text(account.local().unwrap_or_default()))
        .child(field("password"));
    Answer::Result(Some(query))
}

/// XEP-0077 §3.3. An empty password changes nothing.
fn change_password(cx: &mut Cx<'_>, payload: &Element) -> Answer {
    let field = |name| payload.find(ns::REGISTER, name).map(Element::content).filter(|text| !text.is_empty());
    let (Some(username), Some(password)) = (field("username"), field("password")) else {
        return answer::refused(StanzaCondition::BadRequest);
    };
    match jid::prepare_local(&username) {
        Ok(name) if Some(name.as_str()) == cx.account.jid.local() => {}
        _ => return answer::refused(StanzaCondition::Forbidden),
    }
    let derived = cx.server.passwords.derive(password);
    Answer::Later(Box::pin(async move {
        match derived.await {
            Ok(credentials) => {
                let change = Change::Credentials(Box::new(NewCredentials(credentials)));
                Later { effects: vec![Effect::Change(change)], answer: Ok(None) }
            }
            Err(error) => Later { effects: Vec::new(), answer: Err(Box::new(error)) },
        }
    }))
}

/// XEP-0077 §3.2. The home takes subscriptions back and ends all sessions when it removes an account, whoever asked for it.
fn remove(cx: &mut Cx<'_>, payload: &Element) -> Answer {
    if payload.child_count() != 1 {
        let error = StanzaError::new(StanzaCondition::BadRequest).with_text("remove stands alone");
        return Answer::error(error);
    }
    cx.push(Effect::DeleteAccount);
    Answer::done()
}

#[cfg(test)]
mod tests {
    use super::*;
    use starling_hooks::bench::{Bench, element};

    fn bench() -> Bench {
        Bench::new(vec![Arc::new(Registration)]).available("phone", 0)
    }

    fn set(payload: &str) -> String {
        format!("<iq type='set' id='1'><query xmlns='jabber:iq:register'>{payload}</query></iq>")
    }

    #[test]
    fn shows_who_is_registered() {
        for at in [At::Account, At::Server] {
            let asked =
                bench().ask(at, "phone", "<iq type='get' id='1'><query xmlns='jabber:iq:register'/></iq>");
            let expected = "<query xmlns='jabber:iq:register'><registered/><username>alice</username><password/></query>";
            assert_eq!(asked.result(), &element(expected));
        }
    }

    #[test]
    fn changes_the_own_password_and_no_other() {
        let mut bench = bench();
        let asked =
            bench.ask(At::Server, "phone", &set("<username>Alice</username><password>new</password>"));
        assert!(matches!(asked.answer, Ok(None)));
        assert!(matches!(asked.effects[..], [Effect::Change(Change::Credentials(_))]), "{:?}", asked.effects);
        for (payload, condition) in [
            ("<username>bob</username><password>new</password>", "forbidden"),
            ("<username>a@b</username><password>new</password>", "forbidden"),
            ("<username>alice</username><password/>", "bad-request"),
            ("<username>alice</username>", "bad-request"),
            ("<password>new</password>", "bad-request"),
            ("", "bad-request"),
            ("<username>alice</username><password>refused</password>", "not-acceptable"),
        ] {
            let asked = bench.ask(At::Account, "phone", &set(payload));
            assert_eq!(asked.condition(), condition, "{payload}");
            assert!(asked.effects.is_empty());
        }
    }

    #[test]
    fn removes_the_account() {
        let mut bench = bench();
        let crowded = set("<remove/><username>alice</username>");
        assert_eq!(bench.ask(At::Account, "phone", &crowded).condition(), "bad-request");
        for at in [At::Account, At::Server] {
            let asked = bench.ask(at, "phone", &set("<remove/>"));
            assert!(matches!(asked.answer, Ok(None)));
            assert_eq!(asked.effects, [Effect::DeleteAccount]);
        }
    }

    #[test]
    fn strangers_change_nothing() {
        let remove = set("<remove/>").replace("<iq", "<iq from='bob@localhost/x'");
        for at in [At::Account, At::Server] {
            let asked = bench().stranger_asks(at, &remove);
            assert_eq!(asked.condition(), "service-unavailable");
            assert!(asked.effects.is_empty());
        }
    }
}
