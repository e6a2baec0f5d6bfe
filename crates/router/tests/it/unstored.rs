//! Messages that no log has, among others of their sender that one has: the order is that in which they were sent.

use crate::site::{Client, Site};
use starling_router::RouterConfig;
use starling_wire::{Down, Up};
use starling_xmpp::{Element, IqType, Jid, Kind, MessageType, PresenceType, Stanza, ns};

const BOB: &str = "bob@localhost";

/// A message of this id; with a body it is kept.
fn message(id: &str, kept: bool) -> Stanza {
    let payload = match kept {
        true => Element::new(ns::CLIENT, "body").text("hello"),
        false => Element::new("urn:example", "signal"),
    };
    Stanza::message(MessageType::Chat).id(id).to(Jid::parse(BOB).unwrap()).child(payload)
}

fn say(site: &mut Site, client: &mut Client, ids: &[&str]) {
    for id in ids {
        // Those in capitals are kept.
        site.send(client, message(id, id.chars().all(char::is_uppercase)));
        site.run();
    }
}

/// The message itself, or the one that was copied.
fn id(stanza: &Stanza) -> Option<String> {
    let Some(copy) = stanza.payload.get(ns::CARBONS, "received") else {
        return stanza.id.as_ref().map(ToString::to_string);
    };
    let copy = copy.element();
    let message = copy.find(ns::FORWARD, "forwarded")?.find(ns::CLIENT, "message")?;
    message.attribute("id").map(ToString::to_string)
}

/// The messages that a client was told.
fn told(site: &mut Site, client: &Client) -> Vec<String> {
    let message = |down| match down {
        Down::Stanza { stanza, .. } if matches!(stanza.kind, Kind::Message(_)) => id(&stanza),
        _ => None,
    };
    site.told(client).into_iter().filter_map(message).collect()
}

#[test]
fn what_is_not_kept_does_not_overtake_what_a_new_home_reads_from_the_log() {
    for (edge, copies) in [(1, false), (0, false), (1, true), (0, true)] {
        let mut site = Site::new(2);
        let mut alice = site.client(0, "alice", "phone");
        let mut bob = site.managed(1, "bob", "phone");
        let desk = site.managed(1, "bob", "desk");
        if copies {
            let priority = Element::new(ns::CLIENT, "priority").text("-1");
            site.send(&mut bob, Stanza::presence(PresenceType::Available).child(priority));
            site.run();
        }
        site.told(&bob);
        site.lose(&bob);
        say(&mut site, &mut alice, &["A", "B"]);
        site.succeed("bob");
        say(&mut site, &mut alice, &["c", "D", "e"]);
        let bob = site.resume(&bob, edge, 0);
        site.run();
        say(&mut site, &mut alice, &["f"]);
        let all = ["A", "B", "c", "D", "e", "f"];
        assert_eq!(told(&mut site, &bob), all, "edge {edge}, copies {copies}");
        assert_eq!(told(&mut site, &desk), all, "edge {edge}, copies {copies}");
    }
}

#[test]
fn what_is_not_kept_waits_behind_what_does_not_fit() {
    let mut site = Site::with(1, RouterConfig { window: 2, ..RouterConfig::default() });
    let mut alice = site.client(0, "alice", "phone");
    let bob = site.managed(0, "bob", "phone");
    say(&mut site, &mut alice, &["A", "B", "C", "d", "E", "f", "g"]);
    assert_eq!(told(&mut site, &bob), ["A", "B"]);
    site.say(&bob, Up::Acknowledged { handled: 2 });
    site.run();
    assert_eq!(told(&mut site, &bob), ["C", "d", "E", "f", "g"]);
}

#[test]
fn what_waited_while_nobody_was_there_comes_before_what_is_not_kept() {
    let mut site = Site::with(1, RouterConfig { window: 2, ..RouterConfig::default() });
    let mut alice = site.client(0, "alice", "phone");
    say(&mut site, &mut alice, &["A", "B", "C", "D"]);
    let mut bob = site.connect(0, "bob", "phone");
    site.say(&bob, Up::EnableSm { resume: true, max: None });
    site.send(&mut bob, Stanza::presence(PresenceType::Available));
    site.run();
    say(&mut site, &mut alice, &["e", "F", "g"]);
    assert_eq!(told(&mut site, &bob), ["A", "B"]);
    // Its own presence is counted, too.
    site.say(&bob, Up::Acknowledged { handled: 3 });
    site.run();
    assert_eq!(told(&mut site, &bob), ["C", "D", "e"]);
    site.say(&bob, Up::Acknowledged { handled: 6 });
    site.run();
    assert_eq!(told(&mut site, &bob), ["F", "g"]);
}

#[test]
fn what_waits_behind_rows_goes_to_the_edge_when_the_home_leaves() {
    let mut site = Site::new(2);
    let mut alice = site.client(0, "alice", "phone");
    let bob = site.managed(1, "bob", "phone");
    site.lose(&bob);
    say(&mut site, &mut alice, &["A"]);
    site.succeed("bob");
    say(&mut site, &mut alice, &["b"]);
    site.hand_on("bob");
    let bob = site.resume(&bob, 1, 0);
    site.run();
    let mut told = told(&mut site, &bob);
    told.sort();
    assert_eq!(told, ["A", "b"]);
}

#[test]
fn what_waits_behind_rows_is_bounded() {
    let mut site = Site::with(1, RouterConfig { max_unacked_bytes: 2_000, ..RouterConfig::default() });
    let mut alice = site.client(0, "alice", "phone");
    let bob = site.managed(0, "bob", "phone");
    site.lose(&bob);
    say(&mut site, &mut alice, &["A"]);
    site.succeed("bob");
    assert_eq!(site.kept(0), 2);
    for _ in 0..40 {
        say(&mut site, &mut alice, &["b"]);
    }
    assert_eq!(site.kept(0), 1, "the session is over");
}

#[test]
fn what_a_client_asks_for_does_not_wait_for_what_it_has_missed() {
    let mut site = Site::with(1, RouterConfig { window: 2, ..RouterConfig::default() });
    let mut alice = site.client(0, "alice", "phone");
    let mut bob = site.managed(0, "bob", "phone");
    say(&mut site, &mut alice, &["A", "B", "C"]);
    assert_eq!(told(&mut site, &bob), ["A", "B"]);
    let page = Element::new("test:pages", "page").attr("messages", "1").attr("bytes", "1");
    site.send(&mut bob, Stanza::iq(IqType::Get).id("page").child(page));
    site.run();
    let kinds = site.told(&bob).into_iter().filter_map(|down| match down {
        Down::Stanza { stanza, .. } => Some(stanza.kind),
        _ => None,
    });
    let kinds: Vec<_> = kinds.collect();
    assert_eq!(kinds, [Kind::Message(MessageType::Chat), Kind::Iq(IqType::Result)]);
}
