use crate::archive::Archive;
use starling_hooks::bench::{Asked, Bench, element};
use starling_hooks::{At, Effect};
use starling_store::{Direction, Position};
use starling_xmpp::ns;
use std::sync::Arc;

/// Ten messages at seconds 1 to 10, turn by turn from bob's phone, to bob, from carol, and to oneself.
fn bench() -> Bench {
    let bench = Bench::new(vec![Arc::new(Archive)]).session("phone");
    for second in 1..=10 {
        let (direction, with, from, to) = match second % 4 {
            1 => (Direction::In, "bob@localhost", "bob@localhost/phone", "alice@localhost"),
            2 => (Direction::Out, "bob@localhost", "alice@localhost/phone", "bob@localhost"),
            3 => (Direction::In, "carol@localhost", "carol@localhost/x", "alice@localhost/phone"),
            _ => (Direction::Own, "alice@localhost", "alice@localhost/phone", "alice@localhost"),
        };
        let xml = format!("<message id='{second}' from='{from}' to='{to}'><body>{second}</body></message>");
        bench.log(second * 1_000_000, direction, with, &xml);
    }
    bench
}

fn id(bench: &Bench, second: u64) -> String {
    bench.server.archive_ids.encode(&bench.account.jid, Position(second * 1_000_000)).to_string()
}

/// The bodies of a page in the order they were sent, whether it is complete, and its ends.
#[derive(Debug, PartialEq)]
struct Page {
    bodies: Vec<u64>,
    complete: bool,
    first: Option<String>,
    last: Option<String>,
}

fn ask(bench: &mut Bench, fields: &str, set: &str, rest: &str) -> Asked {
    let form = format!(
        "<x xmlns='jabber:x:data' type='submit'><field var='FORM_TYPE'><value>urn:xmpp:mam:2</value></field>{fields}</x>"
    );
    let xml = format!(
        "<iq type='set' id='1'><query xmlns='urn:xmpp:mam:2' queryid='q'>{form}\
         <set xmlns='http://jabber.org/protocol/rsm'>{set}</set>{rest}</query></iq>"
    );
    bench.ask(At::Account, "phone", &xml)
}

fn page(asked: &Asked) -> Page {
    let fin = asked.result();
    let set = fin.find(ns::RSM, "set").expect("a page");
    let text = |name| set.find(ns::RSM, name).map(|child| child.content());
    let bodies = asked.effects.iter().map(|effect| match effect {
        Effect::Deliver(_, message) => {
            let result = message.payload.get(ns::MAM, "result").expect("a result").element();
            let inner = result
                .find(ns::FORWARD, "forwarded")
                .and_then(|f| f.find(ns::CLIENT, "message"))
                .expect("a message");
            inner.find(ns::CLIENT, "body").expect("a body").content().parse().unwrap()
        }
        other => panic!("{other:?}"),
    });
    Page {
        bodies: bodies.collect(),
        complete: fin.attribute("complete") == Some("true"),
        first: text("first"),
        last: text("last"),
    }
}

fn field(var: &str, values: &[&str]) -> String {
    let values: String = values.iter().map(|value| format!("<value>{value}</value>")).collect();
    format!("<field var='{var}'>{values}</field>")
}

fn bodies(fields: &str) -> Vec<u64> {
    page(&ask(&mut bench(), fields, "", "")).bodies
}

#[test]
fn shows_everything_in_order() {
    let mut bench = bench();
    let asked = bench.ask(At::Account, "phone", "<iq type='set' id='1'><query xmlns='urn:xmpp:mam:2'/></iq>");
    let expected = Page {
        bodies: (1..=10).collect(),
        complete: true,
        first: Some(id(&bench, 1)),
        last: Some(id(&bench, 10)),
    };
    assert_eq!(page(&asked), expected);
}

#[test]
fn a_result_is_the_message_as_it_was() {
    let mut bench = bench();
    let asked = ask(&mut bench, "", "<max>1</max>", "");
    let Effect::Deliver(token, message) = &asked.effects[0] else { panic!("no result") };
    assert_eq!(*token, bench.token("phone"));
    let expected = format!(
        "<message from='alice@localhost' to='alice@localhost/phone'>\
         <result xmlns='urn:xmpp:mam:2' queryid='q' id='{}'><forwarded xmlns='urn:xmpp:forward:0'>\
         <delay xmlns='urn:xmpp:delay' stamp='1970-01-01T00:00:01Z'/>\
         <message xmlns='jabber:client' id='1' from='bob@localhost/phone' to='alice@localhost'><body>1</body></message>\
         </forwarded></result></message>",
        id(&bench, 1)
    );
    assert_eq!(message.to_element(), element(&expected));
}

#[test]
fn pages_forwards_and_backwards() {
    let mut bench = bench();
    let mut seen = Vec::new();
    let mut after = String::new();
    loop {
        let page = page(&ask(&mut bench, "", &format!("<max>4</max>{after}"), ""));
        seen.push(page.bodies);
        if page.complete {
            break;
        }
        after = format!("<after>{}</after>", page.last.unwrap());
    }
    assert_eq!(seen, [vec![1, 2, 3, 4], vec![5, 6, 7, 8], vec![9, 10]]);

    let (mut seen, mut before) = (Vec::new(), "<before/>".to_owned());
    loop {
        let page = page(&ask(&mut bench, "", &format!("<max>4</max>{before}"), ""));
        seen.push(page.bodies);
        if page.complete {
            break;
        }
        before = format!("<before>{}</before>", page.first.unwrap());
    }
    assert_eq!(seen, [vec![7, 8, 9, 10], vec![3, 4, 5, 6], vec![1, 2]]);
}

#[test]
fn a_page_that_ends_with_the_last_row_is_complete() {
    let mut bench = bench();
    assert!(page(&ask(&mut bench, "", "<max>10</max>", "")).complete);
    assert!(!page(&ask(&mut bench, "", "<max>9</max>", "")).complete);
    let after = format!("<after>{}</after>", id(&bench, 10));
    let empty = Page { bodies: vec![], complete: true, first: None, last: None };
    assert_eq!(page(&ask(&mut bench, "", &after, "")), empty);
}

#[test]
fn a_page_of_none_tells_how_many_there_are() {
    let mut bench = bench();
    let none = || Page { bodies: vec![], complete: false, first: None, last: None };
    let named = field("ids", &[&id(&bench, 1), &id(&bench, 2)]);
    for (fields, count) in [
        (String::new(), "10"),
        (field("with", &["bob@localhost"]), "6"),
        (field("with", &["bob@localhost/phone"]), "3"),
        (field("with", &["nobody@localhost"]), "0"),
        (named, "2"),
    ] {
        let asked = ask(&mut bench, &fields, "<max>0</max>", "");
        let set = asked.result().find(ns::RSM, "set").unwrap();
        assert_eq!(set.find(ns::RSM, "count").unwrap().content(), count, "{fields}");
        assert_eq!(page(&asked), Page { complete: count == "0", ..none() }, "{fields}");
    }
}

#[test]
fn a_flipped_page_is_the_same_page() {
    let mut bench = bench();
    let asked = ask(&mut bench, "", "<max>3</max><before/>", "<flip-page/>");
    let expected = Page {
        bodies: vec![10, 9, 8],
        complete: false,
        first: Some(id(&bench, 8)),
        last: Some(id(&bench, 10)),
    };
    assert_eq!(page(&asked), expected);
}

#[test]
fn filters_by_whom_and_when() {
    assert_eq!(bodies(&field("with", &["bob@localhost"])), [1, 2, 5, 6, 9, 10]);
    assert_eq!(bodies(&field("with", &["bob@localhost/phone"])), [1, 5, 9]);
    assert_eq!(bodies(&field("with", &["bob@localhost/other"])), [0; 0]);
    assert_eq!(bodies(&field("with", &["alice@localhost"])), [4, 8], "to oneself");
    assert_eq!(bodies(&field("with", &["alice@localhost/phone"])), [2, 3, 4, 6, 7, 8, 10]);
    let from = field("start", &["1970-01-01T00:00:03Z"]);
    let to = field("end", &["1970-01-01T00:00:05Z"]);
    assert_eq!(bodies(&(from.clone() + &to)), [3, 4, 5], "both ends are within");
    assert_eq!(bodies(&from).len(), 8);
    assert_eq!(bodies(&(from + &field("end", &["1970-01-01T00:00:02Z"]))), [0; 0]);
}

#[test]
fn a_full_address_pages_like_any_other() {
    let mut bench = bench();
    let with = field("with", &["bob@localhost/phone"]);
    let first = page(&ask(&mut bench, &with, "<max>2</max>", ""));
    assert_eq!((first.bodies, first.complete), (vec![1, 5], false));
    let set = format!("<max>2</max><after>{}</after>", first.last.unwrap());
    let second = page(&ask(&mut bench, &with, &set, ""));
    assert_eq!((second.bodies, second.complete), (vec![9], true));
    let last = page(&ask(&mut bench, &with, "<max>2</max><before/>", ""));
    assert_eq!((last.bodies, last.complete), (vec![5, 9], false));
    let all = page(&ask(&mut bench, &with, "<max>3</max>", ""));
    assert_eq!((all.bodies, all.complete), (vec![1, 5, 9], true));
}

#[test]
fn filters_by_ids() {
    let mut bench = bench();
    let (two, five, eight) = (id(&bench, 2), id(&bench, 5), id(&bench, 8));
    let range = field("after-id", &[&two]) + &field("before-id", &[&eight]);
    assert_eq!(page(&ask(&mut bench, &range, "", "")).bodies, [3, 4, 5, 6, 7]);
    let set = format!("<max>2</max><after>{five}</after>");
    assert_eq!(page(&ask(&mut bench, &range, &set, "")).bodies, [6, 7]);
    assert_eq!(page(&ask(&mut bench, &range, "<max>2</max><before/>", "")).bodies, [6, 7]);
    let named = field("ids", &[&eight, &two, &two]);
    let found = page(&ask(&mut bench, &named, "", ""));
    assert_eq!((found.bodies, found.complete), (vec![2, 8], true));
    let found = page(&ask(&mut bench, &named, "<max>1</max>", ""));
    assert_eq!((found.bodies, found.complete), (vec![2], false));
    let with = named + &field("with", &["alice@localhost"]);
    assert_eq!(page(&ask(&mut bench, &with, "", "")).bodies, [8]);
}

#[test]
fn an_id_that_is_not_there_is_noticed() {
    let mut bench = bench();
    let (never, gone) = ("0".repeat(32), id(&bench, 11));
    for id in [never.as_str(), gone.as_str(), "x", "1"] {
        for fields in ["before-id", "after-id", "ids"] {
            assert_eq!(
                ask(&mut bench, &field(fields, &[id]), "", "").condition(),
                "item-not-found",
                "{fields} {id}"
            );
        }
        for set in ["before", "after"] {
            let set = format!("<{set}>{id}</{set}>");
            assert_eq!(ask(&mut bench, "", &set, "").condition(), "item-not-found", "{set}");
        }
    }
}

#[test]
fn refuses_what_is_wrong() {
    let mut bench = bench();
    assert_eq!(ask(&mut bench, &field("start", &["today"]), "", "").condition(), "bad-request");
    assert_eq!(ask(&mut bench, &field("what", &["x"]), "", "").condition(), "feature-not-implemented");
    assert_eq!(ask(&mut bench, "", "<max>many</max>", "").condition(), "bad-request");
    let node = "<iq type='set' id='1'><query xmlns='urn:xmpp:mam:2' node='n'/></iq>";
    assert_eq!(bench.ask(At::Account, "phone", node).condition(), "item-not-found");
    let other = "<iq type='set' id='1' from='bob@localhost/x'><query xmlns='urn:xmpp:mam:2'/></iq>";
    let asked = bench.stranger_asks(At::Account, other);
    assert_eq!(asked.condition(), "forbidden");
    assert!(asked.effects.is_empty());
}

#[test]
fn a_page_is_bounded_in_rows_and_bytes() {
    let mut bench = bench();
    bench.server().limits.mam_page = 3;
    for max in ["<max>1000000000</max>", "", "<max>4</max>"] {
        assert_eq!(page(&ask(&mut bench, "", max, "")).bodies, [1, 2, 3]);
    }
    let (a, b) = (id(&bench, 1), id(&bench, 2));
    let many = field("ids", &[&a, &b, &a, &b]);
    assert_eq!(ask(&mut bench, &many, "", "").condition(), "policy-violation");

    let mut bench = Bench::new(vec![Arc::new(Archive)]).session("phone");
    let text = format!("<subject>{}</subject>", "x".repeat(400_000));
    for second in 1..=5 {
        let xml = format!("<message from='bob@localhost/x'><body>{second}</body>{text}</message>");
        bench.log(second * 1_000_000, Direction::In, "bob@localhost", &xml);
    }
    let first = page(&ask(&mut bench, "", "", ""));
    assert_eq!((first.bodies, first.complete), (vec![1, 2], false));
    let next = page(&ask(&mut bench, "", &format!("<after>{}</after>", first.last.unwrap()), ""));
    assert_eq!((next.bodies, next.complete), (vec![3, 4], false));
    let last = page(&ask(&mut bench, "", "<before/>", ""));
    assert_eq!((last.bodies, last.complete), (vec![4, 5], false));
}

#[test]
fn shows_which_fields_there_are() {
    let asked =
        bench().ask(At::Account, "phone", "<iq type='get' id='1'><query xmlns='urn:xmpp:mam:2'/></iq>");
    assert_eq!(asked.result().find(ns::DATA, "x").unwrap().attribute("type"), Some("form"));
}
