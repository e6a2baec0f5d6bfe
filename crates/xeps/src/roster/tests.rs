use super::*;
use starling_hooks::testing::{Asked, Bench, stanza};

fn alice() -> Bench {
    Bench::new(vec![Arc::new(Roster)])
}

fn ask(bench: &mut Bench, kind: &str, query: &str) -> (Asked, Vec<String>) {
    let asked = bench.ask(At::Account, "phone", &format!("<iq type='{kind}' id='1'>{query}</iq>"));
    let lines = bench.lines(&asked.effects);
    (asked, lines)
}

fn get(bench: &mut Bench, ver: &str) -> (Option<String>, Vec<String>) {
    let (asked, lines) = ask(bench, "get", &format!("<query xmlns='jabber:iq:roster'{ver}/>"));
    (asked.answer.unwrap().map(|query| query.to_string()), lines)
}

fn set(bench: &mut Bench, item: &str) -> (Result<(), &'static str>, Vec<String>) {
    let (asked, lines) = ask(bench, "set", &format!("<query xmlns='jabber:iq:roster'>{item}</query>"));
    let answer =
        asked.answer.map(|payload| assert!(payload.is_none())).map_err(|error| error.condition.as_str());
    (answer, lines)
}

fn push(to: &str, id: u32, version: u64, item: &str) -> String {
    format!(
        "{to} < <iq to='alice@localhost/{to}' from='alice@localhost' id='s{id}' type='set'>\
         <query xmlns='jabber:iq:roster' ver='{version}'>{item}</query></iq>"
    )
}

#[test]
fn shows_all_but_what_waits_for_an_answer() {
    let mut bench = alice()
        .session("phone")
        .item("bob@localhost both name=Bob group=Friends group=Work")
        .item("carol@localhost none ask approved pending")
        .item("eve@localhost hidden pending");
    let (list, lines) = get(&mut bench, "");
    assert_eq!(
        list.unwrap(),
        "<query xmlns='jabber:iq:roster'>\
         <item jid='bob@localhost' name='Bob' subscription='both'><group>Friends</group><group>Work</group></item>\
         <item jid='carol@localhost' subscription='none' ask='subscribe' approved='true'/></query>"
    );
    assert_eq!(lines, ["interested phone"]);
    let (_, lines) = get(&mut bench, "");
    assert!(lines.is_empty());
}

#[test]
fn an_empty_roster_is_an_empty_query() {
    let mut bench = alice().session("phone");
    assert_eq!(get(&mut bench, "").0.unwrap(), "<query xmlns='jabber:iq:roster'/>");
    assert_eq!(get(&mut bench, " ver=''").0.unwrap(), "<query xmlns='jabber:iq:roster' ver='0'/>");
    assert_eq!(get(&mut bench, " ver='0'"), (None, vec![]));
}

#[test]
fn only_the_owner_may() {
    let mut bench = alice().session("phone").item("bob@localhost both");
    for kind in ["get", "set"] {
        let xml = format!(
            "<iq type='{kind}' id='1' from='bob@localhost/x' to='alice@localhost'><query xmlns='jabber:iq:roster'/></iq>"
        );
        let asked = bench.stranger_asks(At::Account, &xml);
        assert_eq!(asked.condition(), "forbidden");
        assert!(asked.effects.is_empty());
    }
}

#[test]
fn an_old_version_gets_what_it_missed_in_order() {
    let mut bench =
        alice().session("phone").item("a@localhost none").item("b@localhost none").item("c@localhost none");
    bench.run(None, |cx| {
        roster_push::remove(cx, &starling_hooks::testing::bare("b@localhost"));
        roster_push::put(
            cx,
            RosterItem { visible: true, ..RosterItem::new(starling_hooks::testing::bare("a@localhost")) },
        )
    });
    assert_eq!(bench.account.roster.version, 5);
    let (answer, lines) = get(&mut bench, " ver='2'");
    assert_eq!(answer, None);
    assert_eq!(
        lines,
        [
            "interested phone",
            &push("phone", 1, 3, "<item jid='c@localhost' subscription='none'/>"),
            &push("phone", 2, 4, "<item jid='b@localhost' subscription='remove'/>"),
            &push("phone", 3, 5, "<item jid='a@localhost' subscription='none'/>"),
        ]
    );
    assert_eq!(get(&mut bench, " ver='5'"), (None, vec![]));
    let all = "<query xmlns='jabber:iq:roster' ver='5'><item jid='a@localhost' subscription='none'/>\
               <item jid='c@localhost' subscription='none'/></query>";
    for unknown in ["", "6", "05", "+5", "-1", "nonsense", "99999999999999999999999"] {
        assert_eq!(
            get(&mut bench, &format!(" ver='{unknown}'")),
            (Some(all.to_owned()), vec![]),
            "{unknown}"
        );
    }
    bench.account.roster.removed_since = 3;
    assert_eq!(get(&mut bench, " ver='2'").0.as_deref(), Some(all));
    assert_eq!(get(&mut bench, " ver='3'").0, None);
}

#[test]
fn who_missed_much_gets_all() {
    let mut bench = alice().session("phone");
    for number in 0..=MISSED {
        bench = bench.item(&format!("c{number}@localhost none"));
    }
    assert_eq!(get(&mut bench, " ver='1'").1.len(), 1 + MISSED);
    assert!(get(&mut bench, " ver='0'").0.is_some());
}

#[test]
fn a_set_is_stored_and_pushed_to_all_who_asked() {
    let mut bench = alice()
        .online("phone", 0)
        .session("idle")
        .session("tablet")
        .item("bob@localhost both approved name=Old");
    bench.at("tablet").interested = true;
    let item = "<item jid='bob@localhost' name='Bob' subscription='none' ask='subscribe' approved='false'>\
                <group>A</group><group>a</group></item>";
    let shown = "<item jid='bob@localhost' name='Bob' subscription='both' approved='true'>\
                 <group>A</group><group>a</group></item>";
    let expected = [
        "roster bob@localhost both approved".to_owned(),
        push("phone", 1, 2, shown),
        push("tablet", 2, 2, shown),
    ];
    assert_eq!(set(&mut bench, item), (Ok(()), expected.to_vec()));
    // Name and groups are replaced as a whole.
    let (_, lines) = set(&mut bench, "<item jid='BOB@localhost' name=''/>");
    let shown = "<item jid='bob@localhost' subscription='both' approved='true'/>";
    assert_eq!(lines[1], push("phone", 3, 3, shown));
}

#[test]
fn a_waiting_request_stays_when_its_sender_is_added() {
    let mut bench = alice().online("phone", 0).item("eve@localhost hidden pending");
    let (_, lines) = set(&mut bench, "<item jid='eve@localhost'/>");
    let shown = push("phone", 1, 2, "<item jid='eve@localhost' subscription='none'/>");
    assert_eq!(lines, ["roster eve@localhost none pending".to_owned(), shown]);
}

#[test]
fn bad_sets_are_refused() {
    let long = "x".repeat(1_024);
    let fits = "x".repeat(1_023);
    let many: String = (0..33).map(|number| format!("<group>{number}</group>")).collect();
    for (item, condition) in [
        ("", "bad-request"),
        ("<item jid='b@localhost'/><item jid='c@localhost'/>", "bad-request"),
        ("<thing jid='b@localhost'/>", "bad-request"),
        ("<item xmlns='urn:other' jid='b@localhost'/>", "bad-request"),
        ("<item/>", "bad-request"),
        ("<item jid='b@localhost/x'/>", "bad-request"),
        ("<item jid=''/>", "jid-malformed"),
        ("<item jid='@localhost'/>", "jid-malformed"),
        ("<item jid='alice@localhost'/>", "not-allowed"),
        ("<item jid='alice@localhost' subscription='remove'/>", "not-allowed"),
        ("<item jid='b@localhost'><group>A</group><group>A</group></item>", "bad-request"),
        ("<item jid='b@localhost'><group/></item>", "not-acceptable"),
        (&format!("<item jid='b@localhost'><group>{long}</group></item>"), "not-acceptable"),
        (&format!("<item jid='b@localhost' name='{long}'/>"), "not-acceptable"),
        (&format!("<item jid='b@localhost'>{many}</item>"), "not-acceptable"),
        ("<item jid='b@localhost' subscription='remove'/>", "item-not-found"),
        ("<item jid='eve@localhost' subscription='remove'/>", "item-not-found"),
        ("<item jid='new@localhost'/>", "resource-constraint"),
        ("<item jid='eve@localhost'/>", "resource-constraint"),
    ] {
        let mut bench =
            alice().online("phone", 0).item("eve@localhost hidden pending").item("full@localhost none");
        if condition == "resource-constraint" {
            bench.server().limits.roster_items = 1;
        }
        assert_eq!(set(&mut bench, item), (Err(condition), vec![]), "{item}");
    }
    let mut bench = alice().online("phone", 0).item("full@localhost none");
    bench.server().limits.roster_items = 1;
    let (answer, _) =
        set(&mut bench, &format!("<item jid='full@localhost' name='{fits}'><group>{fits}</group></item>"));
    assert_eq!(answer, Ok(()));
    let (asked, _) =
        ask(&mut bench, "get", "<query xmlns='jabber:iq:roster'><item jid='b@localhost'/></query>");
    assert_eq!(asked.condition(), "bad-request");
}

#[test]
fn removing_a_contact_ends_what_there_was() {
    let unsubscribe = "route <presence to='bob@localhost' from='alice@localhost' type='unsubscribe'/>";
    let unsubscribed = "route <presence to='bob@localhost' from='alice@localhost' type='unsubscribed'/>";
    let gone = "route <presence to='bob@localhost' from='alice@localhost/phone' type='unavailable'/>";
    for (state, told) in [
        ("none", vec![]),
        ("none approved", vec![]),
        ("none ask", vec![unsubscribe]),
        ("none pending", vec![unsubscribed]),
        ("none ask pending", vec![unsubscribe, unsubscribed]),
        ("to", vec![unsubscribe]),
        ("to pending", vec![unsubscribe, unsubscribed]),
        ("from", vec![unsubscribed, gone]),
        ("from ask", vec![unsubscribe, unsubscribed, gone]),
        ("both", vec![unsubscribe, unsubscribed, gone]),
    ] {
        let mut bench = alice().online("phone", 0).session("idle").item(&format!("bob@localhost {state}"));
        let (answer, lines) = set(&mut bench, "<item jid='bob@localhost' subscription='remove'/>");
        assert_eq!(answer, Ok(()));
        let removed = push("phone", 1, 2, "<item jid='bob@localhost' subscription='remove'/>");
        assert_eq!(lines[..2], ["roster remove bob@localhost".to_owned(), removed], "{state}");
        assert_eq!(lines[2..], told, "{state}");
        assert!(bench.account.roster.items.is_empty());
    }
}

#[test]
fn the_blocked_are_not_told_that_they_are_removed() {
    let mut bench = alice().online("phone", 0).item("bob@localhost both").blocked(&["bob@localhost"]);
    let (answer, lines) = set(&mut bench, "<item jid='bob@localhost' subscription='remove'/>");
    assert_eq!((answer, lines.len()), (Ok(()), 2));
}

#[test]
fn what_a_push_carries_can_be_read_back() {
    let mut bench = alice().online("phone", 0);
    let asked = bench.ask(
        At::Account,
        "phone",
        "<iq type='set' id='1'><query xmlns='jabber:iq:roster'><item jid='b@localhost' name='&lt;&amp;&apos;'/></query></iq>",
    );
    let lines = bench.lines(&asked.effects);
    let push = stanza(lines[1].strip_prefix("phone < ").unwrap());
    let query = push.payload.children().next().unwrap().element();
    assert_eq!(query.first().unwrap().attribute("name"), Some("<&'"));
}
