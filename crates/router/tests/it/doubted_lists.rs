//! Lists whose commit is in doubt: contacts, blocked addresses, accounts.

use crate::bench::jid;
use crate::doubts::{Fate, REFUSED, answers};
use crate::stage::{Client, Stage, now};
use starling_wire::Down;
use starling_xmpp::{Element, IqType, Kind, PresenceType, Stanza, ns};
use std::time::Duration;

#[test]
fn a_contact_in_doubt_is_told_of_when_it_is_known() {
    for written in [true, false] {
        let mut stage = Stage::new();
        let mut alice = stage.client("alice");
        let bob = stage.client("bob");
        interested(&mut stage, &mut alice);
        (if written { Fate::Written } else { Fate::Lost }).befalls(&stage);
        stage.store.hold("alice");
        let mut subscribe = Stanza::presence(PresenceType::Subscribe);
        subscribe.to = Some(jid("bob").into());
        stage.send(&mut alice, subscribe);
        stage.run();
        assert!(pushes(&stage.told(&alice)).is_empty(), "told of what is not confirmed");
        stage.store.release("alice");
        stage.run();
        let pushes = pushes(&stage.told(&alice));
        assert_eq!(pushes.len(), 1, "{pushes:?}");
        assert_eq!(
            pushes[0].contains("subscribe'") || pushes[0].contains("subscribe\""),
            written,
            "{pushes:?}"
        );
        assert!(stage.told(&bob).is_empty(), "asked though it was not confirmed");
    }
}

#[test]
fn whom_an_account_blocks_is_told_of_when_it_is_known() {
    for fate in [Fate::Written, Fate::Lost] {
        let mut stage = Stage::new();
        let (mut phone, mut tablet) = (stage.client("alice"), stage.device("alice", "tablet"));
        for client in [&mut phone, &mut tablet] {
            stage.send(client, blocking(IqType::Get, "blocklist", &[]));
        }
        stage.send(&mut phone, blocking(IqType::Set, "block", &["bob@localhost", "eve@localhost"]));
        stage.run();
        stage.told(&phone);
        assert!(pushes(&stage.told(&tablet)).is_empty());
        // Two changes: the first is in doubt, the second cannot be made after it.
        fate.befalls(&stage);
        stage.store.hold("alice");
        stage.send(&mut phone, blocking(IqType::Set, "block", &["carol@localhost"]));
        stage.run();
        stage.send(&mut phone, blocking(IqType::Set, "unblock", &["bob@localhost"]));
        stage.run();
        stage.store.release("alice");
        stage.advance(Duration::from_secs(1));
        assert_eq!(answers(&stage.told(&phone)), [REFUSED; 2]);
        let pushes = pushes(&stage.told(&tablet));
        assert_eq!(pushes.len(), usize::from(fate == Fate::Written), "{pushes:?}");
        for push in pushes {
            assert!(push.contains("<block") && push.contains("carol"), "{push}");
            assert!(!push.contains("bob") && !push.contains("eve"), "{push}");
        }
        // The other way round.
        fate.befalls(&stage);
        stage.send(&mut phone, blocking(IqType::Set, "unblock", &["eve@localhost"]));
        stage.advance(Duration::from_secs(1));
        let pushes = self::pushes(&stage.told(&tablet));
        assert_eq!(pushes.len(), usize::from(fate == Fate::Written), "{pushes:?}");
        assert!(pushes.iter().all(|push| push.contains("<unblock") && push.contains("eve")), "{pushes:?}");
    }
}

fn blocking(kind: IqType, name: &str, jids: &[&str]) -> Stanza {
    let items = jids.iter().map(|jid| Element::new(ns::BLOCKING, "item").attr("jid", jid));
    let mut iq = Stanza::iq(kind).child(Element::new(ns::BLOCKING, name).children_of(items));
    iq.id = Some(name.into());
    iq
}

#[test]
fn what_follows_from_a_contact_in_doubt_is_not_told_before() {
    let mut stage = Stage::new();
    let mut alice = stage.client("alice");
    interested(&mut stage, &mut alice);
    stage.store.inner.hold();
    for contact in ["bob", "carol"] {
        let mut subscribe = Stanza::presence(PresenceType::Subscribe);
        subscribe.to = Some(jid(contact).into());
        stage.send(&mut alice, subscribe);
        stage.run();
    }
    stage.store.inner.drop_next(1);
    stage.run();
    stage.store.inner.fail_next_reads(1);
    // The second is confirmed. Its version is one too high as long as nobody knows of the first.
    stage.store.inner.release();
    stage.run();
    assert!(pushes(&stage.told(&alice)).is_empty());
    stage.advance(Duration::from_secs(2));
    let pushes = pushes(&stage.told(&alice));
    assert_eq!(pushes.len(), 2, "{pushes:?}");
    assert!(pushes[0].contains("remove") && pushes[1].contains("carol"), "{pushes:?}");
}

/// Makes a session one that gets pushes.
fn interested(stage: &mut Stage, client: &mut Client) {
    let mut get = Stanza::iq(IqType::Get).child(Element::new(ns::ROSTER, "query"));
    get.id = Some("roster".into());
    stage.send(client, get);
    stage.run();
    stage.told(client);
}

fn pushes(downs: &[Down]) -> Vec<String> {
    let stanzas = downs.iter().filter_map(|down| match down {
        Down::Stanza { stanza, .. } if stanza.kind == Kind::Iq(IqType::Set) => Some(stanza),
        _ => None,
    });
    stanzas.map(|stanza| stanza.to_element().to_string()).collect()
}

#[test]
fn a_removal_in_doubt_that_took_place_ends_the_sessions() {
    for removed in [true, false] {
        let mut stage = Stage::new();
        let mut alice = stage.client("alice");
        let bob = stage.client("bob");
        (if removed { Fate::Written } else { Fate::Lost }).befalls(&stage);
        let report = stage.homes.delete_account(&jid("bob"));
        stage.run();
        assert!(now(report).is_err());
        let closed = stage.told(&bob).iter().any(|down| matches!(down, Down::Close(Some(_))));
        assert_eq!(closed, removed);
        stage.chat(&mut alice, "bob", "hello");
        assert_eq!(stage.messages(&bob).len(), usize::from(!removed));
        assert_eq!(stage.messages(&alice).len(), usize::from(removed), "bounced");
    }
}
