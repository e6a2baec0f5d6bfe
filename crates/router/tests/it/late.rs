//! What waits for a session that its edge has yet to name.

use crate::moves::error;
use crate::site::{Client, Site};
use starling_wire::{Down, Token};
use starling_xmpp::{Element, FullJid, IqType, Jid, Kind, PresenceType, Stanza};
use std::time::Duration;

const SECOND: Duration = Duration::from_secs(1);

/// Its sender has said something newer by the time at which it is clear that nobody will name the session.
#[test]
fn presence_that_waited_is_not_the_last_word() {
    use PresenceType::{Available, Unavailable};
    let mut site = Site::new(2);
    let mut alice = site.client(0, "alice", "phone");
    let desk = site.managed(0, "bob", "desk");
    // A session that has ended where it was, and is still recorded.
    let (phone, shard) = (FullJid::parse("bob@localhost/phone").unwrap(), site.shard("bob"));
    site.cut(1);
    site.books[usize::from(shard.0)].bind(phone, Token(99), site.edge(1));
    site.succeed("bob");
    site.advance(Duration::from_millis(400));
    let mut say = |site: &mut Site, kind| {
        let mut presence = Stanza::presence(kind);
        presence.to = Some(Jid::parse("bob@localhost").unwrap());
        site.send(&mut alice, presence);
        site.run();
    };
    site.told(&desk);
    say(&mut site, Available);
    site.link(1);
    site.run();
    say(&mut site, Unavailable);
    site.advance(Duration::from_secs(7));
    let kind = |down| match down {
        Down::Stanza { stanza, .. } if stanza.from.as_ref().and_then(Jid::local) == Some("alice") => {
            Some(stanza.kind)
        }
        _ => None,
    };
    let kinds: Vec<_> = site.told(&desk).into_iter().filter_map(kind).collect();
    assert_eq!(kinds, [Kind::Presence(Available), Kind::Presence(Unavailable)]);
}

/// Who asks hears that there is no such session when the account has been removed meanwhile.
#[test]
fn what_waits_for_a_session_of_an_account_that_goes_is_answered() {
    let mut site = Site::new(2);
    let mut alice = site.client(0, "alice", "phone");
    let _bob = site.managed(1, "bob", "phone");
    site.cut(1);
    site.succeed("bob");
    site.advance(Duration::from_millis(400));
    let mut question = Stanza::iq(IqType::Get).id("question").child(Element::new("urn:xmpp:ping", "ping"));
    question.to = Some(Jid::parse("bob@localhost/phone").unwrap());
    site.send(&mut alice, question);
    site.advance(SECOND);
    assert!(site.told(&alice).into_iter().filter_map(error).next().is_none(), "it waits");
    site.remove("bob");
    site.advance(6 * SECOND);
    assert_eq!(site.told(&alice).into_iter().filter_map(error).count(), 1);
}

/// An account does not wait for an edge that is silent for long; what nobody says again does, where it is for a session there.
#[test]
fn what_comes_for_a_session_that_is_not_named_yet_is_not_lost() {
    for named in [true, false] {
        let mut site = Site::new(2);
        let mut alice = site.client(0, "alice", "phone");
        let (desk, bob) = (site.managed(0, "bob", "desk"), site.managed(1, "bob", "phone"));
        site.cut(1);
        site.succeed("bob");
        site.advance(Duration::from_millis(400));
        site.told(&desk);
        let states = [PresenceType::Unavailable, PresenceType::Available];
        for (kind, to) in states.map(|kind| (kind, "bob@localhost")) {
            let mut presence = Stanza::presence(kind);
            presence.to = Some(Jid::parse(to).unwrap());
            site.send(&mut alice, presence);
        }
        let mut question = Stanza::iq(IqType::Get).id("question");
        question = question.child(Element::new("urn:xmpp:ping", "ping"));
        question.to = Some(Jid::parse("bob@localhost/phone").unwrap());
        site.send(&mut alice, question);
        site.advance(SECOND);
        let stanzas = |site: &mut Site, client: &Client| {
            let name = |down| match down {
                Down::Stanza { stanza, .. } => Some(format!("{:?}", stanza.kind)),
                _ => None,
            };
            site.told(client).into_iter().filter_map(name).collect::<Vec<_>>()
        };
        assert_eq!(stanzas(&mut site, &alice), [""; 0], "nobody knows yet");
        assert_eq!(stanzas(&mut site, &desk).len(), 2, "who is here is told at once");
        if named {
            site.link(1);
            site.run();
            assert_eq!(stanzas(&mut site, &bob), ["Presence(Available)", "Iq(Get)"]);
        }
        site.advance(6 * SECOND);
        let answer = if named { vec![] } else { vec!["Iq(Error)"] };
        assert_eq!(stanzas(&mut site, &alice), answer);
    }
}
