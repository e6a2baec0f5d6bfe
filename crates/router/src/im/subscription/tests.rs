use super::*;
use starling_hooks::testing::{Bench, stanza, xml};
use starling_xmpp::{StanzaError, ns};

fn alice() -> Bench {
    Bench::new(Vec::new())
}

fn sends(bench: &mut Bench, xml: &str) -> (Flow, Vec<String>) {
    bench.run(Some("phone"), |cx| sent(cx, &stanza(xml)))
}

fn gets(bench: &mut Bench, xml: &str) -> (Flow, Vec<String>) {
    bench.run(None, |cx| received(cx, &stanza(xml)))
}

fn push(to: &str, id: &str, version: u64, item: &str) -> String {
    format!(
        "{to} < <iq to='alice@localhost/{to}' from='alice@localhost' id='{id}' type='set'>\
         <query xmlns='jabber:iq:roster' ver='{version}'><item {item}/></query></iq>"
    )
}

#[test]
fn a_request_is_stored_routed_and_pushed() {
    let mut bench = alice().online("phone", 0).session("tablet");
    let (flow, lines) = sends(
        &mut bench,
        "<presence to='bob@example.org/x' id='1' type='subscribe'><status>hi</status></presence>",
    );
    assert_eq!(flow, Flow::Next);
    assert_eq!(
        lines,
        [
            "roster bob@example.org none ask",
            "route <presence to='bob@example.org' from='alice@localhost' id='1' type='subscribe'>\
             <status>hi</status></presence>",
            &push("phone", "s1", 1, "jid='bob@example.org' subscription='none' ask='subscribe'"),
        ]
    );
    // Again: it is routed in every state, and nothing else happens.
    let (_, lines) = sends(&mut bench, "<presence to='bob@example.org' type='subscribe'/>");
    assert_eq!(lines, ["route <presence to='bob@example.org' from='alice@localhost' type='subscribe'/>"]);
}

#[test]
fn an_answer_shows_presence_of_every_available_session() {
    let mut bench = alice()
        .online("phone", 0)
        .available("tablet", 3)
        .session("idle")
        .item("bob@localhost hidden pending");
    let (flow, lines) = sends(&mut bench, "<presence to='bob@localhost' type='subscribed'/>");
    assert_eq!(flow, Flow::Next);
    assert_eq!(
        lines,
        [
            "roster bob@localhost from",
            "route <presence to='bob@localhost' from='alice@localhost' type='subscribed'/>",
            &push("phone", "s1", 2, "jid='bob@localhost' subscription='from'"),
            "route <presence to='bob@localhost' from='alice@localhost/phone'/>",
            "route <presence to='bob@localhost' from='alice@localhost/tablet'><priority>3</priority></presence>",
        ]
    );
}

#[test]
fn a_refused_stranger_leaves_no_item() {
    let mut bench = alice().online("phone", 0).item("bob@localhost hidden pending");
    let (_, lines) = sends(&mut bench, "<presence to='bob@localhost' type='unsubscribed'/>");
    assert_eq!(
        lines,
        [
            "roster remove bob@localhost",
            "route <presence to='bob@localhost' from='alice@localhost' type='unsubscribed'/>",
        ]
    );
    assert!(bench.account.roster.items.is_empty());
}

#[test]
fn taking_a_subscription_away_hides_presence() {
    let mut bench = alice().online("phone", 0).item("bob@localhost both approved");
    let (_, lines) = sends(&mut bench, "<presence to='bob@localhost' type='unsubscribed'/>");
    assert_eq!(
        lines,
        [
            "roster bob@localhost to",
            "route <presence to='bob@localhost' from='alice@localhost' type='unsubscribed'/>",
            &push("phone", "s1", 2, "jid='bob@localhost' subscription='to'"),
            "route <presence to='bob@localhost' from='alice@localhost/phone' type='unavailable'/>",
        ]
    );
}

#[test]
fn approval_in_advance_is_pushed_and_not_routed() {
    let mut bench = alice().online("phone", 0);
    let (_, lines) = sends(&mut bench, "<presence to='bob@localhost' type='subscribed'/>");
    assert_eq!(
        lines,
        [
            "roster bob@localhost none approved",
            &push("phone", "s1", 1, "jid='bob@localhost' subscription='none' approved='true'"),
        ]
    );
    let (_, lines) =
        gets(&mut bench, "<presence to='alice@localhost' from='bob@localhost' type='subscribe'/>");
    assert_eq!(
        lines,
        [
            "roster bob@localhost from approved",
            "route <presence to='bob@localhost' from='alice@localhost' type='subscribed'/>",
            &push("phone", "s2", 2, "jid='bob@localhost' subscription='from' approved='true'"),
            "route <presence to='bob@localhost' from='alice@localhost/phone'/>",
        ]
    );
}

#[test]
fn oneself_and_our_domain() {
    let mut bench = alice().online("phone", 0);
    let (flow, lines) = sends(&mut bench, "<presence to='alice@localhost/x' type='subscribe'/>");
    assert_eq!((flow, lines.len()), (Flow::Drop, 0));
    let (flow, lines) = sends(&mut bench, "<presence to='localhost' id='7' type='subscribe'/>");
    assert_eq!(flow, Flow::Next);
    assert_eq!(
        lines,
        ["phone < <presence to='alice@localhost' from='localhost' id='7' type='unsubscribed'/>"]
    );
    let (flow, lines) = sends(&mut bench, "<presence to='localhost' type='unsubscribed'/>");
    assert_eq!((flow, lines.len()), (Flow::Drop, 0));
    // A domain that is not ours may be a gateway with a presence of its own.
    let (flow, lines) = sends(&mut bench, "<presence to='gateway.example' type='subscribe'/>");
    assert_eq!((flow, lines.len()), (Flow::Next, 3));
}

#[test]
fn blocked_contacts_are_refused_and_ignored() {
    let mut bench = alice().online("phone", 0).item("bob@localhost both").blocked(&["localhost"]);
    let (flow, lines) = sends(&mut bench, "<presence to='bob@localhost' type='unsubscribed'/>");
    let Flow::Refuse(error) = flow else { panic!("{flow:?}") };
    assert_eq!(error.condition, StanzaCondition::NotAcceptable);
    assert!(error.app.as_ref().is_some_and(|app| app.is(ns::BLOCKING_ERRORS, "blocked")));
    assert!(lines.is_empty());
    let (flow, lines) =
        gets(&mut bench, "<presence to='alice@localhost' from='bob@localhost' type='unsubscribe'/>");
    assert_eq!((flow, lines.len()), (Flow::Drop, 0));
}

#[test]
fn a_full_roster_takes_no_more() {
    let mut bench =
        alice().online("phone", 0).item("bob@localhost none").item("eve@localhost hidden pending");
    bench.server().limits.roster_items = 1;
    let refused = Flow::Refuse(Box::new(StanzaError::new(StanzaCondition::ResourceConstraint)));
    for verb in ["subscribe", "subscribed"] {
        let (flow, lines) = sends(&mut bench, &format!("<presence to='new@localhost' type='{verb}'/>"));
        assert_eq!((flow, lines.len()), (refused.clone(), 0));
    }
    let (flow, _) = sends(&mut bench, "<presence to='eve@localhost' type='subscribed'/>");
    assert_eq!(flow, refused);
    let (flow, _) = sends(&mut bench, "<presence to='bob@localhost' type='subscribe'/>");
    assert_eq!(flow, Flow::Next);
    let (flow, _) = sends(&mut bench, "<presence to='eve@localhost' type='unsubscribed'/>");
    assert_eq!(flow, Flow::Next);
}

#[test]
fn a_request_goes_to_available_sessions_and_waits_whole() {
    let mut bench = alice().available("phone", -5).session("idle");
    let request = "<presence to='alice@localhost/phone' from='bob@example.org/x' id='r1' type='subscribe'>\
                   <status>let me in</status><nick xmlns='http://jabber.org/protocol/nick'>Bob</nick></presence>";
    let (_, lines) = gets(&mut bench, request);
    let shown = "phone < <presence to='alice@localhost' from='bob@example.org' id='r1' type='subscribe'>\
                 <status>let me in</status><nick xmlns='http://jabber.org/protocol/nick'>Bob</nick></presence>";
    assert_eq!(lines, ["roster bob@example.org none pending hidden", shown]);
    // The same again: nothing, not even a write.
    let (_, lines) = gets(&mut bench, request);
    assert!(lines.is_empty());
    // Another one: kept in place of the first, not shown now.
    let (_, lines) =
        gets(&mut bench, "<presence to='alice@localhost' from='bob@example.org' type='subscribe'/>");
    assert_eq!(lines, ["roster bob@example.org none pending hidden"]);
    let token = bench.token("idle");
    let ((), lines) = bench.run(Some("idle"), |cx| deliver_waiting(cx, token));
    assert_eq!(lines, ["idle < <presence to='alice@localhost' from='bob@example.org' type='subscribe'/>"]);
    let (_, lines) =
        gets(&mut bench, "<presence to='alice@localhost' from='bob@example.org' type='unsubscribe'/>");
    assert_eq!(lines, ["roster remove bob@example.org"]);
}

#[test]
fn waiting_requests_are_bounded_in_number_and_size() {
    let mut bench = alice().item("bob@localhost hidden pending").item("carol@localhost from");
    bench.server().limits.pending_in = 1;
    let (flow, lines) =
        gets(&mut bench, "<presence to='alice@localhost' from='eve@localhost' type='subscribe'/>");
    assert_eq!((flow, lines.len()), (Flow::Drop, 0));
    let (_, lines) =
        gets(&mut bench, "<presence to='alice@localhost' from='carol@localhost' type='subscribe'/>");
    assert_eq!(lines, ["route <presence to='carol@localhost' from='alice@localhost' type='subscribed'/>"]);
    let long = format!(
        "<presence to='alice@localhost' from='bob@localhost' type='subscribe'><status>{}</status></presence>",
        "x".repeat(KEPT_WHOLE)
    );
    gets(&mut bench, &long);
    let kept = bench.account.roster.items.values().find_map(|item| item.pending_in.clone()).unwrap();
    let kept = Stanza::decode(kept).unwrap();
    assert_eq!(xml(&kept), "<presence to='alice@localhost' from='bob@localhost' type='subscribe'/>");
}

#[test]
fn an_approval_reaches_interested_sessions_before_the_push() {
    let mut bench = alice().online("phone", 0).available("tablet", 0).item("bob@localhost none ask");
    let (_, lines) =
        gets(&mut bench, "<presence to='alice@localhost/phone' from='bob@localhost' type='subscribed'/>");
    assert_eq!(
        lines,
        [
            "roster bob@localhost to",
            "phone < <presence to='alice@localhost' from='bob@localhost' type='subscribed'/>",
            &push("phone", "s1", 2, "jid='bob@localhost' subscription='to'"),
        ]
    );
    // Nobody has asked for that: nothing.
    let (_, lines) =
        gets(&mut bench, "<presence to='alice@localhost' from='bob@localhost' type='subscribed'/>");
    assert!(lines.is_empty());
}

#[test]
fn a_contact_that_no_longer_wants_to_see_sees_us_go() {
    let mut bench = alice().online("phone", 0).item("bob@localhost both");
    let (_, lines) =
        gets(&mut bench, "<presence to='alice@localhost' from='bob@localhost' type='unsubscribe'/>");
    assert_eq!(
        lines,
        [
            "roster bob@localhost to",
            "phone < <presence to='alice@localhost' from='bob@localhost' type='unsubscribe'/>",
            &push("phone", "s1", 2, "jid='bob@localhost' subscription='to'"),
            "route <presence to='bob@localhost' from='alice@localhost/phone' type='unavailable'/>",
        ]
    );
}

#[test]
fn nothing_from_oneself_or_from_nobody() {
    let mut bench = alice().online("phone", 0);
    for from in ["from='alice@localhost'", "from='alice@localhost/phone'", ""] {
        let (flow, lines) =
            gets(&mut bench, &format!("<presence type='subscribe' {from} to='alice@localhost'/>"));
        assert_eq!((flow, lines.len()), (Flow::Drop, 0));
    }
}
