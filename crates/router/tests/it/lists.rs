//! What clients were told of their rosters, when a home is lost with what it said last.

use crate::site::{Client, Site};
use starling_wire::{Down, Up};
use starling_xmpp::{Element, IqType, Jid, PresenceType, Stanza, ns};

/// A client that wants to be told.
fn interested(site: &mut Site, edge: usize, resource: &str) -> Client {
    let mut client = site.managed(edge, "alice", resource);
    asks(site, &mut client);
    site.told(&client);
    client
}

/// A new home looks at an account when somebody speaks of it.
fn asks(site: &mut Site, client: &mut Client) {
    site.send(client, Stanza::iq(IqType::Get).child(Element::new(ns::BLOCKING, "blocklist")));
    site.run();
}

/// It has asked this contact for something, and its other devices are told.
fn changes(site: &mut Site, client: &mut Client, contact: &str) {
    let to = Jid::parse(&format!("{contact}@localhost")).unwrap();
    site.send(client, Stanza::presence(PresenceType::Subscribe).to(to));
    site.run();
}

/// The contacts of which it was told.
fn pushes(site: &mut Site, client: &Client) -> Vec<String> {
    let contact = |down| {
        let Down::Stanza { stanza, .. } = down else { return None };
        let query = stanza.payload.get(ns::ROSTER, "query")?;
        let query = query.element();
        query.children().next()?.attribute("jid").map(ToString::to_string)
    };
    site.told(client).into_iter().filter_map(contact).collect()
}

#[test]
fn what_a_home_was_lost_with_is_told_by_the_next() {
    for case in ["its edge is cut off", "it is away", "it is away and comes to another edge"] {
        let mut site = Site::new(3);
        let mut phone = interested(&mut site, 0, "phone");
        let desk = interested(&mut site, 1, "desk");
        changes(&mut site, &mut phone, "bob");
        assert_eq!(pushes(&mut site, &desk), ["bob@localhost"]);
        let handled = match case {
            "its edge is cut off" => {
                site.cut(1);
                0
            }
            _ => {
                site.say(&desk, Up::Acknowledged { handled: 2 });
                site.lose(&desk);
                2
            }
        };
        changes(&mut site, &mut phone, "carol");
        site.crash("alice");
        if handled == 0 {
            site.link(1);
        }
        let shard = site.shard("alice");
        site.begin(shard);
        asks(&mut site, &mut phone);
        let desk = match case {
            "its edge is cut off" => desk,
            "it is away" => site.resume(&desk, 1, handled),
            _ => site.resume(&desk, 2, handled),
        };
        site.run();
        assert_eq!(pushes(&mut site, &desk), ["carol@localhost"], "{case}");
        for _ in 0..2 {
            pushes(&mut site, &phone);
            site.succeed("alice");
            asks(&mut site, &mut phone);
            assert_eq!(pushes(&mut site, &desk), [""; 0], "{case}");
            assert_eq!(pushes(&mut site, &phone), [""; 0], "{case}");
        }
        changes(&mut site, &mut phone, "dave");
        assert_eq!(pushes(&mut site, &desk), ["dave@localhost"], "{case}");
    }
}

/// It is in the queue that the edge keeps, or in what was acknowledged.
#[test]
fn what_goes_over_with_a_home_that_leaves_is_told_once() {
    let mut site = Site::new(2);
    let mut phone = interested(&mut site, 0, "phone");
    let desk = interested(&mut site, 1, "desk");
    site.lose(&desk);
    changes(&mut site, &mut phone, "bob");
    site.hand_on("alice");
    asks(&mut site, &mut phone);
    let desk = site.resume(&desk, 0, 1);
    site.run();
    assert_eq!(pushes(&mut site, &desk), ["bob@localhost"]);
    site.hand_on("alice");
    asks(&mut site, &mut phone);
    assert_eq!(pushes(&mut site, &desk), [""; 0]);
}
