//! Lists whose commit is in doubt: contacts, blocked addresses, accounts.

use crate::bench::{account, jid};
use crate::doubts::{Fate, REFUSED, answers};
use crate::stage::{Client, Stage, condition, now};
use futures::FutureExt;
use starling_store::{AccountRow, Reign, Store};
use starling_wire::{Down, Leave, Up};
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
        let asked = if written { &["subscribe from alice@localhost"][..] } else { &[] };
        assert_eq!(presence(&stage.told(&bob)), asked, "asked when it is known, and once");
    }
}

/// The types of presence among what was said, and whose it is.
fn presence(downs: &[Down]) -> Vec<String> {
    let stanzas = downs.iter().filter_map(|down| match down {
        Down::Stanza { stanza, .. } => Some(stanza),
        _ => None,
    });
    let presence = stanzas.filter_map(|stanza| match stanza.kind {
        Kind::Presence(PresenceType::Error) => Some(condition(stanza)),
        Kind::Presence(kind) => {
            Some(format!("{kind:?} from {}", stanza.from.as_ref().unwrap().as_str()).to_lowercase())
        }
        _ => None,
    });
    presence.collect()
}

/// Alice, and bob who sees her presence.
fn watched() -> (Stage, Client, Client) {
    let mut stage = Stage::new();
    let (mut alice, mut bob) = (stage.client("alice"), stage.client("bob"));
    tells(&mut stage, &mut bob, PresenceType::Subscribe, "alice");
    tells(&mut stage, &mut alice, PresenceType::Subscribed, "bob");
    stage.told(&bob);
    (stage, alice, bob)
}

/// Says presence of this type to an account.
fn tells(stage: &mut Stage, client: &mut Client, kind: PresenceType, to: &str) {
    stage.send(client, Stanza::presence(kind).to(jid(to)));
    stage.run();
}

#[test]
fn whoever_asks_for_what_is_not_confirmed_is_told_so() {
    for written in [true, false] {
        let fate = if written { Fate::Written } else { Fate::Lost };
        let mut stage = Stage::new();
        let (mut alice, mut bob) = (stage.client("alice"), stage.client("bob"));
        interested(&mut stage, &mut alice);
        // At her own home.
        fate.befalls(&stage);
        tells(&mut stage, &mut alice, PresenceType::Subscribe, "bob");
        assert_eq!(presence(&stage.told(&alice)), [REFUSED]);
        stage.advance(Duration::from_secs(2));
        tells(&mut stage, &mut alice, PresenceType::Subscribe, "bob");
        // At the other one.
        stage.store.hold("alice");
        tells(&mut stage, &mut alice, PresenceType::Subscribe, "carol");
        fate.befalls(&stage);
        stage.store.release("alice");
        stage.run();
        assert_eq!(presence(&stage.told(&alice)), [REFUSED]);
        stage.advance(Duration::from_secs(2));
        let mut carol = stage.client("carol");
        tells(&mut stage, &mut carol, PresenceType::Subscribed, "alice");
        assert_eq!(
            presence(&stage.told(&alice)).contains(&"subscribed from carol@localhost".to_owned()),
            written
        );
        // Who did not ask is to hear of nothing that is not so.
        fate.befalls(&stage);
        tells(&mut stage, &mut bob, PresenceType::Subscribed, "alice");
        stage.advance(Duration::from_secs(2));
        let seen = ["subscribed from bob@localhost", "available from bob@localhost/phone"];
        assert_eq!(presence(&stage.told(&alice)), if written { &seen[..] } else { &[] });
    }
}

#[test]
fn what_follows_from_changes_comes_in_their_order() {
    let mut stage = Stage::new();
    let (mut alice, mut bob) = (stage.client("alice"), stage.client("bob"));
    interested(&mut stage, &mut bob);
    tells(&mut stage, &mut bob, PresenceType::Subscribe, "alice");
    stage.store.inner.hold();
    tells(&mut stage, &mut alice, PresenceType::Subscribed, "bob");
    tells(&mut stage, &mut alice, PresenceType::Unsubscribed, "bob");
    stage.store.inner.drop_next(1);
    stage.run();
    stage.store.inner.fail_next_reads(1);
    // The second is confirmed, and made of the first.
    stage.store.inner.release();
    stage.run();
    assert_eq!(presence(&stage.told(&bob)), [""; 0]);
    stage.advance(Duration::from_secs(2));
    let steps = ["subscribed from alice@localhost", "available from alice@localhost/phone"];
    let back = ["unsubscribed from alice@localhost", "unavailable from alice@localhost/phone"];
    assert_eq!(presence(&stage.told(&bob)), [steps, back].concat());
}

#[test]
fn whom_an_account_may_block_is_shown_nothing_new() {
    for written in [true, false] {
        let fate = if written { Fate::Written } else { Fate::Lost };
        let (mut stage, mut alice, bob) = watched();
        let carol = stage.client("carol");
        tells(&mut stage, &mut alice, PresenceType::Available, "carol");
        for (name, shown) in [("block", "unavailable"), ("unblock", "available")] {
            stage.told(&bob);
            stage.told(&carol);
            for fate in [Some(fate), None] {
                fate.into_iter().for_each(|fate| fate.befalls(&stage));
                stage.store.inner.fail_next_reads(2 * usize::from(fate.is_some()));
                let both = ["bob@localhost", "carol@localhost"];
                stage.send(&mut alice, blocking(IqType::Set, name, &both));
                stage.run();
                if fate.is_some() {
                    // What she shows now goes to all who may see her.
                    stage.send(&mut alice, Stanza::presence(PresenceType::Available));
                    stage.advance(Duration::from_millis(300));
                    assert_eq!(presence(&stage.told(&bob)), [""; 0], "{name} {written}: nobody knows yet");
                }
                stage.advance(Duration::from_secs(3));
                let shown = format!("{shown} from alice@localhost/phone");
                let is_new = fate.is_some() == written;
                let now = if is_new { vec![shown] } else { Vec::new() };
                let directed = if name == "block" { now.clone() } else { Vec::new() };
                assert_eq!(presence(&stage.told(&carol)), directed, "{name} {written}");
                // Not blocked after all, he sees what she showed meanwhile.
                let shown = "available from alice@localhost/phone".to_owned();
                let was_hidden = name == "block" && fate.is_some() && !written;
                let now = if was_hidden { vec![shown] } else { now };
                assert_eq!(presence(&stage.told(&bob)), now, "{name} {written}");
            }
        }
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

/// Nothing follows from blocking somebody who may see nothing, but what was blocked before that is there with it.
#[test]
fn what_follows_from_a_list_is_told_though_nothing_follows_from_the_next() {
    let (mut stage, mut alice, bob) = watched();
    // Both are decided together.
    for jid in ["bob@localhost", "eve@localhost"] {
        stage.send(&mut alice, blocking(IqType::Set, "block", &[jid]));
    }
    stage.store.inner.doubt_next(2);
    stage.run();
    stage.advance(Duration::from_secs(2));
    assert_eq!(presence(&stage.told(&bob)), ["unavailable from alice@localhost/phone"]);
}

/// Nobody knows yet whether the contact is blocked when the session ends.
#[test]
fn no_session_stays_that_ends_while_its_contact_may_be_blocked() {
    let (mut stage, mut alice, bob) = watched();
    Fate::Lost.befalls(&stage);
    stage.store.inner.fail_next_reads(2);
    stage.send(&mut alice, blocking(IqType::Set, "block", &["bob@localhost"]));
    stage.run();
    stage.say(&alice, Up::Gone(Leave::Closed));
    stage.advance(Duration::from_secs(20));
    assert_eq!(presence(&stage.told(&bob)), ["unavailable from alice@localhost/phone"]);
}

/// Both are decided at once; that he is unblocked is not confirmed, and not so.
#[test]
fn what_was_decided_behind_an_unblock_is_not_shown_either() {
    let (mut stage, mut alice, bob) = watched();
    for name in ["block", "unblock"] {
        stage.told(&bob);
        stage.store.hold("alice");
        if name == "unblock" {
            Fate::Lost.befalls(&stage);
        }
        stage.send(&mut alice, blocking(IqType::Set, name, &["bob@localhost"]));
        stage.run();
        stage.send(&mut alice, Stanza::presence(PresenceType::Available));
        stage.run();
        stage.store.release("alice");
        stage.advance(Duration::from_secs(3));
        let parts = ["unavailable from alice@localhost/phone"];
        assert_eq!(presence(&stage.told(&bob)), if name == "block" { &parts[..] } else { &[] });
    }
}

/// Nobody knows yet whether he is unblocked when the session comes up.
#[test]
fn who_came_up_while_a_contact_may_have_been_blocked_is_shown() {
    let (mut stage, mut alice, bob) = watched();
    stage.send(&mut alice, blocking(IqType::Set, "block", &["bob@localhost"]));
    stage.run();
    let mut tablet = stage.bound("alice", "tablet");
    stage.told(&bob);
    Fate::Written.befalls(&stage);
    stage.store.inner.fail_next_reads(2);
    stage.send(&mut alice, blocking(IqType::Set, "unblock", &["bob@localhost"]));
    stage.run();
    stage.send(&mut tablet, Stanza::presence(PresenceType::Available));
    stage.advance(Duration::from_millis(300));
    assert_eq!(presence(&stage.told(&bob)), [""; 0]);
    stage.advance(Duration::from_secs(3));
    let both = ["available from alice@localhost/phone", "available from alice@localhost/tablet"];
    assert_eq!(presence(&stage.told(&bob)), both);
}

/// The store fails again as soon as it is known that the first change is there.
#[test]
fn what_follows_is_not_lost_with_what_is_decided_next() {
    let mut stage = Stage::new();
    let (mut alice, mut bob) = (stage.client("alice"), stage.client("bob"));
    interested(&mut stage, &mut bob);
    tells(&mut stage, &mut bob, PresenceType::Subscribe, "alice");
    stage.told(&bob);
    Fate::Written.befalls(&stage);
    stage.store.inner.fail_next_reads(1);
    tells(&mut stage, &mut alice, PresenceType::Subscribed, "bob");
    // It waits until that is known, and is decided with what follows from it.
    stage.send(&mut alice, blocking(IqType::Set, "block", &["eve@localhost"]));
    Fate::Lost.befalls(&stage);
    stage.advance(Duration::from_secs(5));
    assert_eq!(answers(&stage.told(&alice)).last().map(String::as_str), Some(REFUSED));
    let seen = ["subscribed from alice@localhost", "available from alice@localhost/phone"];
    assert_eq!(presence(&stage.told(&bob)), seen);
}

/// All of it is decided at once: whom a session shows itself to in the end is told when it is over.
#[test]
fn who_is_shown_a_session_after_it_was_blocked_is_told_that_it_ended() {
    let mut stage = Stage::new();
    let mut alice = stage.client("alice");
    let carol = stage.client("carol");
    tells(&mut stage, &mut alice, PresenceType::Available, "carol");
    stage.told(&carol);
    stage.store.hold("alice");
    for name in ["block", "unblock"] {
        stage.send(&mut alice, blocking(IqType::Set, name, &["carol@localhost"]));
    }
    stage.send(&mut alice, Stanza::presence(PresenceType::Available).to(jid("carol")));
    stage.run();
    stage.store.release("alice");
    stage.run();
    let seen = ["unavailable from alice@localhost/phone", "available from alice@localhost/phone"];
    assert_eq!(presence(&stage.told(&carol)), seen);
    stage.say(&alice, Up::Gone(Leave::Closed));
    stage.run();
    assert_eq!(presence(&stage.told(&carol)), ["unavailable from alice@localhost/phone"]);
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
        let (mut alice, mut bob) = (stage.client("alice"), stage.client("bob"));
        interested(&mut stage, &mut alice);
        tells(&mut stage, &mut alice, PresenceType::Subscribe, "bob");
        tells(&mut stage, &mut bob, PresenceType::Subscribed, "alice");
        stage.told(&alice);
        (if removed { Fate::Written } else { Fate::Lost }).befalls(&stage);
        let report = stage.homes.delete_account(&jid("bob"));
        stage.run();
        assert!(now(report).is_err());
        let closed = stage.told(&bob).iter().any(|down| matches!(down, Down::Close(Some(_))));
        assert_eq!(closed, removed);
        let parts = ["unsubscribed from bob@localhost", "unavailable from bob@localhost/phone"];
        assert_eq!(presence(&stage.told(&alice)), if removed { &parts[..] } else { &[] });
        stage.chat(&mut alice, "bob", "hello");
        assert_eq!(stage.messages(&bob).len(), usize::from(!removed));
        assert_eq!(stage.messages(&alice).len(), usize::from(removed), "bounced");
    }
}

/// What came meanwhile for the name is for whoever has it by now; who was let in before that is not.
#[test]
fn what_waits_for_a_removal_in_doubt_is_for_the_account_that_is_there() {
    let mut stage = Stage::new();
    let (mut alice, mut bob) = (stage.client("alice"), stage.client("bob"));
    Fate::Written.befalls(&stage);
    stage.store.inner.fail_next_reads(1);
    let first = stage.homes.delete_account(&jid("bob"));
    stage.run();
    assert!(now(first).is_err());
    let anew = AccountRow { generation: 7, ..account() };
    now(stage.store.create_account(&jid("bob"), anew, Reign::NONE)).unwrap();
    stage.chat(&mut bob, "alice", "from nobody");
    stage.chat(&mut alice, "bob", "hello");
    let second = stage.homes.delete_account(&jid("bob"));
    stage.advance(Duration::from_secs(2));
    assert!(now(second).unwrap(), "one of that name was there");
    assert!(stage.told(&bob).iter().any(|down| matches!(down, Down::Close(Some(_)))));
    assert!(stage.messages(&alice).is_empty(), "neither refused nor from one who is no more");
}

/// Whom the account told last, in the same doubt, is told all the same.
#[test]
fn what_came_before_a_removal_in_doubt_is_told_as_well() {
    let mut stage = Stage::new();
    let (mut alice, mut bob) = (stage.client("alice"), stage.client("bob"));
    interested(&mut stage, &mut alice);
    tells(&mut stage, &mut alice, PresenceType::Subscribe, "bob");
    tells(&mut stage, &mut bob, PresenceType::Subscribed, "alice");
    stage.told(&alice);
    stage.store.inner.doubt_next(2);
    stage.send(&mut bob, Stanza::presence(PresenceType::Unsubscribed).to(jid("alice")));
    let report = stage.homes.delete_account(&jid("bob"));
    stage.run();
    assert!(now(report).is_err());
    let parts = ["unavailable from bob@localhost/phone", "unsubscribed from bob@localhost"];
    assert_eq!(presence(&stage.told(&alice)), parts);
}

/// Nobody else knows what is to be told.
#[test]
fn a_home_does_not_leave_before_it_has_told_what_follows() {
    let (mut stage, mut alice, bob) = watched();
    Fate::Written.befalls(&stage);
    stage.store.inner.fail_next_reads(1);
    stage.send(&mut alice, blocking(IqType::Set, "block", &["bob@localhost"]));
    stage.run();
    let mut quiet = stage.homes.door().quiet();
    stage.run();
    assert!((&mut quiet).now_or_never().is_none());
    // Sooner than it would have been.
    stage.advance(Duration::from_millis(300));
    assert_eq!(presence(&stage.told(&bob)), ["unavailable from alice@localhost/phone"]);
    assert!(quiet.now_or_never().is_some());
}

/// The removal itself is confirmed, behind something that is not.
#[test]
fn a_removal_behind_a_doubt_is_told() {
    let (mut stage, mut alice, bob) = watched();
    stage.store.hold("alice");
    stage.store.inner.overload_next(1);
    stage.send(&mut alice, blocking(IqType::Set, "block", &["eve@localhost"]));
    stage.run();
    let report = stage.homes.delete_account(&jid("alice"));
    stage.run();
    stage.store.release("alice");
    stage.run();
    assert!(now(report).unwrap());
    assert_eq!(presence(&stage.told(&bob)), ["unavailable from alice@localhost/phone"]);
}

/// Nothing of what waited is written, and that is certain: what is known to be there leaves all the same.
#[test]
fn what_follows_is_not_lost_with_what_is_turned_away() {
    let (mut stage, mut alice, mut bob) = watched();
    Fate::Written.befalls(&stage);
    stage.store.inner.fail_next_reads(1);
    stage.send(&mut alice, blocking(IqType::Set, "block", &["bob@localhost"]));
    stage.run();
    let mut carol = stage.client("carol");
    stage.chat(&mut carol, "alice", "hello");
    stage.store.inner.overload_next(1);
    stage.advance(Duration::from_secs(5));
    assert_eq!(stage.messages(&carol).len(), 1, "it was turned away");
    assert_eq!(presence(&stage.told(&bob)), ["unavailable from alice@localhost/phone"]);
    stage.chat(&mut bob, "alice", "blocked");
}

/// The session has ceased to show itself meanwhile.
#[test]
fn what_was_directed_is_not_put_back_for_who_is_not_available() {
    let mut stage = Stage::new();
    let mut alice = stage.client("alice");
    let carol = stage.client("carol");
    tells(&mut stage, &mut alice, PresenceType::Available, "carol");
    stage.told(&carol);
    Fate::Lost.befalls(&stage);
    stage.store.inner.fail_next_reads(2);
    stage.send(&mut alice, blocking(IqType::Set, "block", &["carol@localhost"]));
    stage.run();
    stage.send(&mut alice, Stanza::presence(PresenceType::Unavailable));
    stage.advance(Duration::from_secs(3));
    assert_eq!(presence(&stage.told(&carol)), ["unavailable from alice@localhost/phone"]);
    stage.say(&alice, Up::Gone(Leave::Closed));
    stage.advance(Duration::from_secs(3));
    assert_eq!(presence(&stage.told(&carol)), [""; 0], "once is enough");
}

/// What he showed meanwhile was not let in.
#[test]
fn a_contact_that_may_have_been_blocked_is_asked_what_he_shows() {
    let (mut stage, mut alice, mut bob) = watched();
    tells(&mut stage, &mut alice, PresenceType::Subscribe, "bob");
    tells(&mut stage, &mut bob, PresenceType::Subscribed, "alice");
    stage.told(&alice);
    Fate::Lost.befalls(&stage);
    stage.store.inner.fail_next_reads(2);
    stage.send(&mut alice, blocking(IqType::Set, "block", &["bob@localhost"]));
    stage.run();
    stage.send(&mut bob, Stanza::presence(PresenceType::Available));
    stage.advance(Duration::from_millis(300));
    assert_eq!(presence(&stage.told(&alice)), [""; 0]);
    stage.advance(Duration::from_secs(3));
    assert_eq!(presence(&stage.told(&alice)), ["available from bob@localhost/phone"]);
}

/// The session was not available when it was taken back, and is now.
#[test]
fn what_was_directed_is_put_back_for_who_has_come_since() {
    let mut stage = Stage::new();
    let mut alice = stage.bound("alice", "phone");
    let carol = stage.client("carol");
    tells(&mut stage, &mut alice, PresenceType::Available, "carol");
    stage.told(&carol);
    Fate::Lost.befalls(&stage);
    stage.store.inner.fail_next_reads(2);
    stage.send(&mut alice, blocking(IqType::Set, "block", &["carol@localhost"]));
    stage.run();
    stage.send(&mut alice, Stanza::presence(PresenceType::Available));
    stage.advance(Duration::from_secs(3));
    assert_eq!(presence(&stage.told(&carol)), [""; 0], "she sees what she saw");
    stage.say(&alice, Up::Gone(Leave::Closed));
    stage.advance(Duration::from_secs(3));
    assert_eq!(presence(&stage.told(&carol)), ["unavailable from alice@localhost/phone"]);
}
