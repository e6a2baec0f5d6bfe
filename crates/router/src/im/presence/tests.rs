use super::*;
use starling_hooks::testing::{Bench, jid, stanza};
use starling_xmpp::{StanzaError, ns};

fn alice() -> Bench {
    Bench::new(Vec::new())
}

fn sends(bench: &mut Bench, resource: &str, xml: &str) -> (Flow, Vec<String>) {
    bench.run(Some(resource), |cx| sent(cx, &stanza(xml)))
}

fn gets(bench: &mut Bench, xml: &str) -> (Flow, Vec<String>) {
    bench.run(None, |cx| received(cx, &stanza(xml)))
}

fn refused(condition: StanzaCondition) -> Flow {
    Flow::Refuse(Box::new(StanzaError::new(condition)))
}

const STAMP: &str = "<delay xmlns='urn:xmpp:delay' from='localhost' stamp='2023-11-14T22:13:20Z'/>";

#[test]
fn first_presence_goes_both_ways() {
    let mut bench = alice()
        .session("phone")
        .available("tablet", 2)
        .session("idle")
        .item("both@x.example both")
        .item("from@localhost from pending")
        .item("to@localhost to")
        .item("none@localhost none ask")
        .item("stranger@localhost hidden pending");
    let (flow, lines) = sends(&mut bench, "phone", "<presence id='p'><status>up</status></presence>");
    assert_eq!(flow, Flow::Next);
    let body = "id='p'><status>up</status></presence>";
    assert_eq!(
        lines,
        [
            "presence phone 0",
            &format!("phone < <presence to='alice@localhost/phone' from='alice@localhost/phone' {body}"),
            &format!("tablet < <presence to='alice@localhost/tablet' from='alice@localhost/phone' {body}"),
            &format!("route <presence to='both@x.example' from='alice@localhost/phone' {body}"),
            &format!("route <presence to='from@localhost' from='alice@localhost/phone' {body}"),
            "route <presence to='both@x.example' from='alice@localhost/phone' type='probe'/>",
            "route <presence to='to@localhost' from='alice@localhost/phone' type='probe'/>",
            "phone < <presence to='alice@localhost/phone' from='alice@localhost/tablet'><priority>2</priority></presence>",
            "phone < <presence to='alice@localhost' from='from@localhost' type='subscribe'/>",
            "phone < <presence to='alice@localhost' from='stranger@localhost' type='subscribe'/>",
        ]
    );
}

#[test]
fn presence_that_is_too_large_goes_nowhere() {
    let mut bench = alice().available("phone", 0).item("bob@localhost both");
    let status = "x".repeat(32_768);
    for head in ["<presence>", "<presence type='unavailable'>", "<presence to='bob@localhost'>"] {
        let large = format!("{head}<status>{status}</status></presence>");
        assert_eq!(sends(&mut bench, "phone", &large), (refused(StanzaCondition::PolicyViolation), vec![]));
    }
}

#[test]
fn later_presence_goes_out_only() {
    let mut bench =
        alice().available("phone", 0).item("bob@localhost both").item("eve@localhost hidden pending");
    let (flow, lines) =
        sends(&mut bench, "phone", "<presence><priority> -7\n</priority><show>away</show></presence>");
    assert_eq!(flow, Flow::Next);
    let body = "><priority> -7\n</priority><show>away</show></presence>";
    assert_eq!(
        lines,
        [
            "presence phone -7",
            &format!("phone < <presence to='alice@localhost/phone' from='alice@localhost/phone'{body}"),
            &format!("route <presence to='bob@localhost' from='alice@localhost/phone'{body}"),
        ]
    );
    // Kept with the time from which it holds.
    let kept = bench.at("phone").presence.clone().unwrap();
    assert!(kept.to.is_none());
    assert!(kept.payload.has(ns::DELAY, "delay"));
}

#[test]
fn going_away_is_told_once_to_whoever_saw_it() {
    let mut bench = alice()
        .available("phone", 0)
        .available("tablet", 0)
        .item("bob@localhost from")
        .item("to@localhost to")
        .item("foe@localhost both")
        .blocked(&["foe@localhost", "room@blocked.example"]);
    bench.at("phone").directed =
        ["room@muc.example/alice", "bob@localhost/x", "alice@localhost/tablet", "room@blocked.example"]
            .iter()
            .map(|to| jid(to))
            .collect();
    let (flow, lines) =
        sends(&mut bench, "phone", "<presence type='unavailable' id='u'><status>bye</status></presence>");
    assert_eq!(flow, Flow::Next);
    let body = "from='alice@localhost/phone' id='u' type='unavailable'><status>bye</status></presence>";
    assert_eq!(
        lines,
        [
            "presence phone none",
            &format!("phone < <presence to='alice@localhost/phone' {body}"),
            &format!("tablet < <presence to='alice@localhost/tablet' {body}"),
            &format!("route <presence to='bob@localhost' {body}"),
            "undirected phone alice@localhost/tablet",
            "undirected phone bob@localhost/x",
            "undirected phone room@blocked.example",
            "undirected phone room@muc.example/alice",
            &format!("route <presence to='room@muc.example/alice' {body}"),
        ]
    );
    // Nobody is left to be told.
    let (_, lines) = sends(&mut bench, "phone", "<presence type='unavailable'/>");
    assert!(lines.is_empty());
}

#[test]
fn a_session_that_ends_is_made_to_leave() {
    let mut bench =
        alice().available("phone", 0).available("tablet", 0).session("idle").item("bob@localhost both");
    bench.at("phone").directed.insert(jid("room@muc.example/a"));
    let ((), lines) = bench.run(Some("phone"), session_ended);
    let gone = "from='alice@localhost/phone' type='unavailable'/>";
    assert_eq!(
        lines,
        [
            "presence phone none",
            &format!("tablet < <presence to='alice@localhost/tablet' {gone}"),
            &format!("route <presence to='bob@localhost' {gone}"),
            &format!("route <presence to='room@muc.example/a' {gone}"),
        ]
    );
    // Directed presence is taken back even from a session that was never available.
    bench.at("idle").directed.insert(jid("bob@localhost"));
    let ((), lines) = bench.run(Some("idle"), session_ended);
    assert_eq!(
        lines,
        ["route <presence to='bob@localhost' from='alice@localhost/idle' type='unavailable'/>"]
    );
    bench.at("idle").directed.clear();
    let ((), lines) = bench.run(Some("idle"), session_ended);
    assert!(lines.is_empty());
}

#[test]
fn priorities_and_shows_are_checked() {
    for (children, good) in [
        ("", true),
        ("<priority>127</priority>", true),
        ("<priority>-128</priority>", true),
        ("<priority>+1</priority>", true),
        ("<priority xmlns='urn:other'>x</priority><priority>1</priority>", true),
        ("<show>anything</show>", true),
        ("<priority>128</priority>", false),
        ("<priority>-129</priority>", false),
        ("<priority>1000000000</priority>", false),
        ("<priority>NaN</priority>", false),
        ("<priority>1.0</priority>", false),
        ("<priority/>", false),
        ("<priority>1</priority><priority>1</priority>", false),
        ("<show>away</show><show>away</show>", false),
    ] {
        for to in ["", " to='bob@localhost'"] {
            let mut bench = alice().session("phone");
            let (flow, lines) = sends(&mut bench, "phone", &format!("<presence{to}>{children}</presence>"));
            let expected = if good { Flow::Next } else { refused(StanzaCondition::BadRequest) };
            assert_eq!(flow, expected, "{to} {children}");
            assert_eq!(lines.is_empty(), !good, "{to} {children}");
        }
    }
}

#[test]
fn types_that_need_an_address() {
    let mut bench = alice().available("phone", 0);
    for kind in ["subscribe", "subscribed", "unsubscribe", "unsubscribed", "probe"] {
        let (flow, lines) = sends(&mut bench, "phone", &format!("<presence type='{kind}'/>"));
        assert_eq!((flow, lines.len()), (refused(StanzaCondition::BadRequest), 0));
    }
    let (flow, lines) = sends(&mut bench, "phone", "<presence type='error'/>");
    assert_eq!((flow, lines.len()), (Flow::Drop, 0));
    let (flow, lines) = sends(&mut bench, "phone", "<presence type='error' to='bob@localhost/x'/>");
    assert_eq!(flow, Flow::Next);
    assert_eq!(lines, ["route <presence to='bob@localhost/x' from='alice@localhost/phone' type='error'/>"]);
    let (flow, lines) = sends(&mut bench, "phone", "<presence type='probe' to='bob@localhost'/>");
    assert_eq!(flow, Flow::Next);
    assert_eq!(lines, ["route <presence to='bob@localhost' from='alice@localhost/phone' type='probe'/>"]);
}

#[test]
fn directed_presence_is_remembered_where_leaving_would_not_tell() {
    let mut bench = alice().available("phone", 0).session("idle").item("bob@localhost both");
    let room = "<presence to='room@muc.example/Alice'/>";
    let (_, lines) = sends(&mut bench, "phone", room);
    let routed = "route <presence to='room@muc.example/Alice' from='alice@localhost/phone'/>";
    assert_eq!(lines, ["directed phone room@muc.example/Alice", routed]);
    let (_, lines) = sends(&mut bench, "phone", room);
    assert_eq!(lines, [routed]);
    let (_, lines) = sends(&mut bench, "phone", "<presence to='bob@localhost/x'/>");
    assert_eq!(lines, ["route <presence to='bob@localhost/x' from='alice@localhost/phone'/>"]);
    let (_, lines) = sends(&mut bench, "idle", "<presence to='bob@localhost/x'/>");
    assert_eq!(
        lines,
        [
            "directed idle bob@localhost/x",
            "route <presence to='bob@localhost/x' from='alice@localhost/idle'/>"
        ]
    );
    let (_, lines) = sends(&mut bench, "phone", "<presence to='alice@localhost'/>");
    assert_eq!(lines, ["route <presence to='alice@localhost' from='alice@localhost/phone'/>"]);
    let (_, lines) = sends(&mut bench, "phone", "<presence type='unavailable' to='room@muc.example/Alice'/>");
    assert_eq!(
        lines,
        [
            "undirected phone room@muc.example/Alice",
            "route <presence to='room@muc.example/Alice' from='alice@localhost/phone' type='unavailable'/>",
        ]
    );
    assert!(bench.at("phone").directed.is_empty());
}

#[test]
fn directed_presence_is_bounded() {
    let mut bench = alice().available("phone", 0);
    bench.server().limits.directed = 2;
    for to in ["a@x.example", "b@x.example"] {
        assert_eq!(sends(&mut bench, "phone", &format!("<presence to='{to}'/>")).0, Flow::Next);
    }
    let (flow, lines) = sends(&mut bench, "phone", "<presence to='c@x.example'/>");
    assert_eq!((flow, lines.len()), (refused(StanzaCondition::ResourceConstraint), 0));
    assert_eq!(sends(&mut bench, "phone", "<presence to='a@x.example'/>").0, Flow::Next);
    assert_eq!(sends(&mut bench, "phone", "<presence to='a@x.example' type='unavailable'/>").0, Flow::Next);
    assert_eq!(sends(&mut bench, "phone", "<presence to='c@x.example'/>").0, Flow::Next);
}

#[test]
fn so_is_what_its_addresses_take() {
    let mut bench = alice().available("phone", 0);
    bench.server().limits.directed_bytes = 30;
    for (to, taken) in [("a@x.example", true), ("b@x.example", true), ("c@x.example", false)] {
        let (flow, _) = sends(&mut bench, "phone", &format!("<presence to='{to}'/>"));
        assert_eq!(flow == Flow::Next, taken, "{to}");
    }
}

#[test]
fn the_blocked_see_and_say_nothing() {
    let mut bench = alice().session("phone").item("foe@localhost both").item("foe2@bad.example both pending");
    bench = bench.blocked(&["foe@localhost", "bad.example"]);
    let (_, lines) = sends(&mut bench, "phone", "<presence/>");
    assert_eq!(
        lines,
        ["presence phone 0", "phone < <presence to='alice@localhost/phone' from='alice@localhost/phone'/>"]
    );
    for kind in ["", "type='unavailable'", "type='probe'"] {
        let (flow, lines) = sends(&mut bench, "phone", &format!("<presence to='foe@localhost/x' {kind}/>"));
        let Flow::Refuse(error) = flow else { panic!("{flow:?}") };
        assert_eq!((error.condition, lines.len()), (StanzaCondition::NotAcceptable, 0));
    }
    for kind in ["", "type='unavailable'", "type='probe'", "type='error'", "type='subscribe'"] {
        for from in ["foe@localhost/x", "bad.example", "foe2@bad.example"] {
            let (flow, lines) =
                gets(&mut bench, &format!("<presence from='{from}' to='alice@localhost/phone' {kind}/>"));
            assert_eq!((flow, lines.len()), (Flow::Drop, 0), "{from} {kind}");
        }
    }
}

#[test]
fn blocking_the_own_domain_leaves_the_own_devices() {
    let mut bench = alice().available("phone", 0).available("tablet", 0).blocked(&["localhost"]);
    let (flow, lines) = sends(&mut bench, "phone", "<presence to='alice@localhost/tablet'/>");
    assert_eq!((flow, lines.len()), (Flow::Next, 1));
    let (_, lines) = gets(&mut bench, "<presence to='alice@localhost/tablet' from='alice@localhost/phone'/>");
    assert_eq!(lines, ["tablet < <presence to='alice@localhost/tablet' from='alice@localhost/phone'/>"]);
}

#[test]
fn presence_comes_in() {
    let mut bench = alice().available("phone", -1).session("idle");
    for kind in ["", " type='unavailable'", " type='error'"] {
        let (flow, lines) =
            gets(&mut bench, &format!("<presence to='alice@localhost' from='x@y.example/z'{kind}/>"));
        assert_eq!(flow, Flow::Next);
        assert_eq!(lines, [format!("phone < <presence to='alice@localhost' from='x@y.example/z'{kind}/>")]);
        let (_, lines) =
            gets(&mut bench, &format!("<presence to='alice@localhost/idle' from='x@y.example/z'{kind}/>"));
        assert_eq!(
            lines,
            [format!("idle < <presence to='alice@localhost/idle' from='x@y.example/z'{kind}/>")]
        );
        let (flow, lines) =
            gets(&mut bench, &format!("<presence to='alice@localhost/gone' from='x@y.example/z'{kind}/>"));
        assert_eq!((flow, lines.len()), (Flow::Drop, 0));
    }
    let (flow, lines) =
        gets(&mut alice().session("idle"), "<presence to='alice@localhost' from='x@y.example/z'/>");
    assert_eq!((flow, lines.len()), (Flow::Drop, 0));
}

#[test]
fn a_target_that_answers_with_an_error_is_forgotten() {
    let mut bench = alice().available("phone", 0).available("tablet", 0);
    for resource in ["phone", "tablet"] {
        bench.at(resource).directed.insert(jid("room@muc.example/a"));
    }
    let (_, lines) =
        gets(&mut bench, "<presence type='error' to='alice@localhost/phone' from='room@muc.example/a'/>");
    assert_eq!(
        lines,
        [
            "undirected phone room@muc.example/a",
            "phone < <presence to='alice@localhost/phone' from='room@muc.example/a' type='error'/>",
        ]
    );
    let (_, lines) =
        gets(&mut bench, "<presence type='error' to='alice@localhost' from='room@muc.example/a'/>");
    assert_eq!(lines[0], "undirected tablet room@muc.example/a");
}

#[test]
fn probes_are_answered_with_all_that_is_known() {
    let mut bench = alice().session("phone").session("tablet").item("bob@x.example from");
    sends(&mut bench, "phone", "<presence><status>here</status></presence>");
    sends(&mut bench, "tablet", "<presence/>");
    let (flow, lines) =
        gets(&mut bench, "<presence type='probe' from='bob@x.example/home' to='alice@localhost'/>");
    assert_eq!(flow, Flow::Next);
    let phone = format!(
        "route <presence to='bob@x.example/home' from='alice@localhost/phone'><status>here</status>{STAMP}</presence>"
    );
    let tablet =
        format!("route <presence to='bob@x.example/home' from='alice@localhost/tablet'>{STAMP}</presence>");
    assert_eq!(lines, [phone.clone(), tablet]);
    let (_, lines) =
        gets(&mut bench, "<presence type='probe' from='bob@x.example/home' to='alice@localhost/phone'/>");
    assert_eq!(lines, [phone]);
    let (_, lines) =
        gets(&mut bench, "<presence type='probe' from='bob@x.example/home' to='alice@localhost/gone'/>");
    assert_eq!(
        lines,
        ["route <presence to='bob@x.example/home' from='alice@localhost/gone' type='unavailable'/>"]
    );
}

#[test]
fn probes_find_nobody_or_are_not_allowed() {
    let mut bench = alice().session("idle").item("bob@x.example both").item("to@x.example to pending");
    let (_, lines) = gets(&mut bench, "<presence type='probe' from='bob@x.example' to='alice@localhost'/>");
    assert_eq!(lines, ["route <presence to='bob@x.example' from='alice@localhost' type='unavailable'/>"]);
    for from in ["to@x.example", "stranger@x.example"] {
        let probe = format!("<presence type='probe' from='{from}/home' to='alice@localhost'/>");
        let no = format!("<presence to='{from}' from='alice@localhost' type='unsubscribed'/>");
        let (_, lines) = gets(&mut bench, &probe);
        assert_eq!(lines, [format!("route {no}")]);
        // The same as where there is no such account.
        let absent = without_account(&stanza(&probe)).unwrap();
        assert_eq!(starling_hooks::testing::xml(&absent), no);
    }
    assert!(without_account(&stanza("<presence from='x@y.example' to='nobody@localhost'/>")).is_none());
}

#[test]
fn whoever_got_directed_presence_may_probe_it() {
    let mut bench = alice().session("phone").available("tablet", 0);
    bench.at("phone").directed.insert(jid("eve@x.example"));
    let (_, lines) = gets(&mut bench, "<presence type='probe' from='eve@x.example/y' to='alice@localhost'/>");
    assert_eq!(lines, ["route <presence to='eve@x.example/y' from='alice@localhost/phone'/>"]);
    let (_, lines) =
        gets(&mut bench, "<presence type='probe' from='eve@x.example/y' to='alice@localhost/tablet'/>");
    assert_eq!(lines, ["route <presence to='eve@x.example' from='alice@localhost' type='unsubscribed'/>"]);
}

#[test]
fn own_devices_may_probe_without_hearing_themselves() {
    let mut bench = alice().available("phone", 0).available("tablet", 0);
    let (_, lines) =
        gets(&mut bench, "<presence type='probe' from='alice@localhost/phone' to='alice@localhost'/>");
    assert_eq!(lines, ["route <presence to='alice@localhost/phone' from='alice@localhost/tablet'/>"]);
    let (_, lines) = gets(
        &mut alice().available("phone", 0),
        "<presence type='probe' from='alice@localhost/phone' to='alice@localhost'/>",
    );
    assert!(lines.is_empty());
}
