//! What blocking does to presence (XEP-0191 §§3.3–3.4): who is blocked sees the user leave, and come back later.

use starling_hooks::{BlockList, Change, Cx};
use starling_xmpp::{Jid, PresenceType, Stanza};

/// Tells contacts that `list` begins or ceases to block; `named` are the addresses that the user named.
pub(super) fn follow(cx: &mut Cx<'_>, list: &BlockList, named: &[Jid]) {
    let account = cx.account;
    let before = &account.blocked;
    for contact in account.roster.items.values() {
        let jid: &Jid = &contact.jid;
        let (was, is) = (before.blocks(jid), list.blocks(jid));
        if contact.subscription.is_from() {
            match (was, is) {
                (false, true) => leave(cx, jid),
                (true, false) => come(cx, jid),
                // Only one resource of the contact is concerned.
                (false, false) => {
                    for resource in named.iter().filter(|item| !item.is_bare() && item.same_bare(jid)) {
                        match (before.contains(resource), list.contains(resource)) {
                            (false, true) => leave(cx, resource),
                            (true, false) => come(cx, resource),
                            _ => {}
                        }
                    }
                }
                (true, true) => {}
            }
        }
        // The contact's presence was dropped meanwhile; a probe brings it (RFC 6121 §4.3).
        if contact.subscription.is_to() && was && !is {
            let probe = Stanza::presence(PresenceType::Probe).from(account.jid.clone()).to(jid.clone());
            cx.route(probe);
        }
    }
    take_back(cx, list);
}

fn leave(cx: &mut Cx<'_>, to: &Jid) {
    let account = cx.account;
    for session in account.available() {
        cx.route(Stanza::presence(PresenceType::Unavailable).from(session.jid.clone()).to(to.clone()));
    }
}

fn come(cx: &mut Cx<'_>, to: &Jid) {
    let account = cx.account;
    for session in account.available() {
        if let Some(presence) = &session.presence {
            cx.route(presence.clone().from(session.jid.clone()).to(to.clone()));
        }
    }
}

/// Directed presence allows its target to see the user, until it is blocked.
fn take_back(cx: &mut Cx<'_>, list: &BlockList) {
    let account = cx.account;
    for session in &account.sessions {
        for to in session.directed.iter().filter(|to| list.blocks(to) && !account.blocked.blocks(to)) {
            let told = account.roster.items.values().any(|contact| {
                contact.subscription.is_from()
                    && session.is_available()
                    && contact.jid.as_str() == to.bare_str()
            });
            if !told {
                cx.route(
                    Stanza::presence(PresenceType::Unavailable).from(session.jid.clone()).to(to.clone()),
                );
            }
            cx.change(Change::Undirected(session.token, to.clone()));
        }
    }
}

#[cfg(test)]
mod tests {
    use crate::blocking::Blocking;
    use starling_hooks::At;
    use starling_hooks::bench::{Bench, jid};
    use starling_store::Subscription;
    use std::sync::Arc;

    fn bench() -> Bench {
        Bench::new(vec![Arc::new(Blocking)])
            .available("phone", 0)
            .session("idle")
            .contact("both@x.example", Subscription::Both)
            .contact("from@x.example", Subscription::From)
            .contact("to@x.example", Subscription::To)
            .contact("both@y.example", Subscription::Both)
    }

    fn routed(bench: &mut Bench, command: &str, items: &[&str]) -> Vec<String> {
        let items: String = items.iter().map(|item| format!("<item jid='{item}'/>")).collect();
        let xml =
            format!("<iq type='set' id='1'><{command} xmlns='urn:xmpp:blocking'>{items}</{command}></iq>");
        let asked = bench.ask(At::Account, "phone", &xml);
        assert!(asked.answer.is_ok());
        let mut lines = bench.lines(&asked.effects);
        lines.retain(|line| line.starts_with("route"));
        lines
    }

    fn says(line: &str, words: &[&str]) -> bool {
        words.iter().all(|word| line.contains(word))
    }

    #[test]
    fn whom_is_blocked_sees_the_user_leave_and_come_back() {
        let mut bench = bench();
        let lines = routed(&mut bench, "block", &["both@x.example", "nobody@x.example"]);
        assert_eq!(lines.len(), 1, "{lines:?}");
        assert!(
            says(&lines[0], &["type='unavailable'", "from='alice@localhost/phone'", "to='both@x.example'"]),
            "{lines:?}"
        );
        assert!(routed(&mut bench, "block", &["both@x.example"]).is_empty(), "only once");
        let lines = routed(&mut bench, "unblock", &["both@x.example"]);
        assert_eq!(lines.len(), 2, "{lines:?}");
        assert!(
            says(&lines[0], &["from='alice@localhost/phone'", "to='both@x.example'"])
                && !lines[0].contains("type="),
            "{lines:?}"
        );
        assert!(
            says(&lines[1], &["type='probe'", "from='alice@localhost'", "to='both@x.example'"]),
            "{lines:?}"
        );
    }

    #[test]
    fn a_domain_is_all_contacts_in_it() {
        let mut bench = bench();
        let lines = routed(&mut bench, "block", &["x.example"]);
        assert_eq!(lines.len(), 2, "{lines:?}");
        assert!(lines.iter().all(|line| line.contains("type='unavailable'")));
        assert!(routed(&mut bench, "block", &["both@x.example"]).is_empty(), "blocked already");
        assert!(
            routed(&mut bench, "unblock", &["x.example"]).iter().all(|line| !line.contains("both@x.example")),
            "still blocked"
        );
        let lines = routed(&mut bench, "unblock", &[]);
        assert_eq!(lines.len(), 2, "{lines:?}");
    }

    #[test]
    fn one_resource_alone_can_be_blocked() {
        let mut bench = bench();
        let lines = routed(&mut bench, "block", &["both@x.example/home"]);
        assert_eq!(lines.len(), 1);
        assert!(says(&lines[0], &["type='unavailable'", "to='both@x.example/home'"]), "{lines:?}");
        let lines = routed(&mut bench, "unblock", &["both@x.example/home"]);
        assert!(lines.len() == 1 && says(&lines[0], &["to='both@x.example/home'"]), "{lines:?}");
    }

    #[test]
    fn directed_presence_is_taken_back() {
        let mut bench = bench();
        bench.at("idle").directed.insert(jid("eve@z.example/x"));
        bench.at("phone").directed.insert(jid("both@x.example/x"));
        let lines = routed(&mut bench, "block", &["z.example", "x.example"]);
        let unavailable: Vec<_> =
            lines.iter().filter(|line| line.contains("from='alice@localhost/idle'")).collect();
        assert_eq!(unavailable.len(), 1, "{lines:?}");
        assert!(says(unavailable[0], &["type='unavailable'", "to='eve@z.example/x'"]));
        assert_eq!(
            lines.iter().filter(|line| line.contains("to='both@x.example")).count(),
            1,
            "told once: {lines:?}"
        );
        assert!(bench.at("idle").directed.is_empty() && bench.at("phone").directed.is_empty());
    }
}
