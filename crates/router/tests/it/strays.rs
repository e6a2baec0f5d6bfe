//! Sessions that are not where somebody believes, or not any more.

use crate::bench::{chat, jid};
use crate::site::{Mood, Site};
use starling_router::{RecordError, RouterConfig};
use starling_wire::{Down, Leave, Up};
use starling_xmpp::{PresenceType, Stanza, StreamCondition};
use std::time::Duration;

const SECOND: Duration = Duration::from_secs(1);

/// Without a lease nobody knows whether the session is elsewhere by now.
#[test]
fn a_home_that_has_been_succeeded_resumes_nothing() {
    let mut site = Site::new(2);
    let alice = site.managed(0, "alice", "phone");
    // Edge 0 has not heard of the next home.
    site.usurp("alice", &[0]);
    site.run();
    site.clock.advance(2 * SECOND);
    site.run();
    site.say(&alice, Up::Gone(Leave::Lost));
    let again = site.resume(&alice, 0, 0);
    site.run();
    let told = site.told(&again);
    assert!(!told.iter().any(|down| matches!(down, Down::Resumed { .. })), "{told:?}");
    assert!(told.iter().any(|down| matches!(down, Down::Close(_))), "it comes back: {told:?}");
    // Which it does, to the next home.
    site.bury();
    site.run();
    let again = site.resume(&again, 0, 0);
    site.advance(2 * SECOND);
    let told = site.told(&again);
    assert!(told.iter().any(|down| matches!(down, Down::Resumed { .. })), "{told:?}");
}

/// What was lost with the table is recorded anew, once: should nobody know whether it was, and the session have moved on, that
/// is where it is.
#[test]
fn what_is_recorded_anew_does_not_come_back_behind_a_move() {
    let mut site = Site::new(2);
    let alice = site.managed(0, "alice", "phone");
    let shard = usize::from(site.shard("alice").0);
    for book in &site.books {
        book.next(Mood::Unknown);
    }
    site.lose_table();
    site.run();
    site.lose(&alice);
    let alice = site.resume(&alice, 1, 0);
    site.run();
    site.advance(2 * SECOND);
    let told = site.told(&alice);
    assert!(told.iter().any(|down| matches!(down, Down::Resumed { .. })), "{told:?}");
    let edge = site.edge(1).0;
    assert_eq!(site.books[shard].edges(), [("alice@localhost/phone".to_owned(), edge)]);
}

/// The home has ended a session, and neither its edge nor the table has heard of that.
#[test]
fn nothing_stays_recorded_of_an_account_that_is_gone() {
    let mut site = Site::new(1);
    let gone = starling_xmpp::FullJid::parse("nobody@localhost/phone").unwrap();
    let book = site.books[usize::from(site.shard("nobody").0)].clone();
    // Its home was lost before it could take that out.
    book.bind(gone, starling_wire::Token(7), starling_wire::EdgeId(99));
    site.succeed("nobody");
    site.advance(Duration::from_secs(10));
    assert!(book.edges().is_empty(), "{:?}", book.edges());
}

#[test]
fn an_account_may_have_as_many_sessions_as_it_is_allowed() {
    let config = RouterConfig { max_resources: 100, ..RouterConfig::default() };
    let mut site = Site::with(1, config);
    let all: Vec<_> = (0..80).map(|n| site.managed(0, "bob", &format!("phone{n}"))).collect();
    let mut alice = site.client(0, "alice", "phone");
    site.succeed("bob");
    site.chat(&mut alice, "bob", "hello");
    for bob in &all {
        assert_eq!(site.messages(bob), ["hello"], "{bob:?}");
    }
}

#[test]
fn what_has_ended_does_not_come_to_life_again() {
    let mut site = Site::new(1);
    let alice = site.managed(0, "alice", "phone");
    let book = site.books[usize::from(site.shard("alice").0)].clone();
    *book.failing.lock() = Some(RecordError::Busy);
    site.say(&alice, Up::Acknowledged { handled: 99 });
    site.decide();
    site.cut(0);
    site.link(0);
    site.run();
    *book.failing.lock() = None;
    site.advance(SECOND);
    let told = site.told(&alice);
    assert!(told.iter().any(|down| matches!(down, Down::Close(_))), "{told:?}");
    assert_eq!((book.edges(), site.kept(0)), (Vec::new(), 0));
}

/// An account waits for its log; the session that is to be resumed is named meanwhile.
#[test]
fn a_session_that_is_not_built_yet_is_not_called_lost() {
    let mut site = Site::new(2);
    let mut phone = site.managed(0, "alice", "phone");
    let desk = site.managed(1, "alice", "desk");
    site.chat(&mut phone, "bob", "a row that may have to be sent");
    site.cut(1);
    site.succeed("alice");
    let mut bob = site.client(0, "bob", "phone");
    site.post(&mut bob, "alice", "hello");
    site.run();
    site.store.fail_next_reads(1_000);
    site.advance(Duration::from_millis(400));
    site.link(1);
    site.run();
    site.lose(&desk);
    let desk = site.resume(&desk, 0, 0);
    site.advance(6 * SECOND);
    let told = site.told(&desk);
    assert!(!told.iter().any(|down| matches!(down, Down::NotResumed)), "{told:?}");
    assert!(told.iter().any(|down| matches!(down, Down::Close(_))), "it is to come back: {told:?}");
    site.store.fail_next_reads(0);
    site.advance(SECOND);
    let desk = site.resume(&desk, 0, 0);
    site.advance(SECOND);
    let told = site.told(&desk);
    assert!(told.iter().any(|down| matches!(down, Down::Resumed { .. })), "{told:?}");
}

/// What another session leaves behind is for the next one that begins, not for one that has seen newer ones.
#[test]
fn who_comes_back_to_its_session_is_sent_nothing_older() {
    let mut site = Site::new(2);
    let mut alice = site.client(0, "alice", "phone");
    let mut phone = site.managed(0, "bob", "phone");
    let desk = site.managed(1, "bob", "desk");
    site.send(&mut alice, chat("bob@localhost/desk", "old"));
    site.run();
    site.send(&mut alice, chat("bob@localhost/phone", "new"));
    site.run();
    site.say(&desk, Up::Gone(Leave::Closed));
    site.run();
    site.send(&mut phone, Stanza::presence(PresenceType::Unavailable));
    site.run();
    site.chat(&mut alice, "bob", "newest");
    site.send(&mut phone, Stanza::presence(PresenceType::Available));
    site.advance(SECOND);
    assert_eq!(site.messages(&phone), ["new", "newest"]);
    site.say(&phone, Up::Gone(Leave::Closed));
    site.run();
    let mut tablet = site.connect(0, "bob", "tablet");
    site.run();
    site.send(&mut tablet, Stanza::presence(PresenceType::Available));
    site.advance(SECOND);
    assert_eq!(site.messages(&tablet), ["old", "new", "newest"]);
}

/// The store is away when it is looked for sessions that nobody has.
#[test]
fn what_nobody_has_is_looked_for_until_the_store_answers() {
    let mut site = Site::new(2);
    let _bob = site.managed(1, "bob", "phone");
    site.kill_edge(1);
    site.succeed("bob");
    let book = site.books[usize::from(site.shard("bob").0)].clone();
    site.store.fail_next_reads(3);
    site.advance(5 * SECOND);
    assert_eq!(book.edges().len(), 1);
    site.advance(20 * SECOND);
    assert_eq!(book.edges(), []);
}

/// What a load that has failed wrote may have taken effect.
#[test]
fn no_two_loads_have_one_floor() {
    let mut site = Site::new(1);
    let mut alice = site.client(0, "alice", "phone");
    let before = site.store.floors(&jid("bob")).len();
    site.store.fail_next_reads(2);
    for n in 0..3 {
        // The clock stands still, and the reign's floor may be above it.
        site.chat(&mut alice, "bob", &n.to_string());
    }
    let floors = site.store.floors(&jid("bob")).split_off(before);
    assert!(floors.len() == 3 && floors.is_sorted_by(|one, next| one < next), "{floors:?}");
}

/// What it says then is not to be overtaken by what was decided for its last session and has not left yet.
#[test]
fn nothing_of_a_session_leaves_behind_what_was_lost_when_its_client_is_back() {
    let named = |n: &str| {
        let id = starling_xmpp::Element::new("urn:xmpp:sid:0", "origin-id").attr("id", n);
        chat("bob@localhost", n).child(id)
    };
    for lost in [false, true] {
        let mut site = Site::new(1);
        let bob = site.client(0, "bob", "phone");
        let mut alice = site.managed(0, "alice", "phone");
        site.send(&mut alice, named("1"));
        site.decide();
        site.decide();
        if lost {
            assert_eq!(site.lose_mail(), 1);
        }
        // Both are decided before the second one leaves.
        site.send(&mut alice, named("2"));
        let mut again = site.connect(0, "alice", "phone");
        site.run();
        site.send(&mut again, Stanza::presence(PresenceType::Available));
        site.send(&mut again, named("1"));
        site.send(&mut again, named("2"));
        site.advance(SECOND);
        assert_eq!(
            (site.rows("alice"), site.rows("bob")),
            (vec!["1".into(), "2".into()], vec!["1".into(), "2".into()])
        );
        assert_eq!(site.messages(&bob), ["1", "2"], "{lost}");
        assert_eq!(site.handled(&again), 3);
        let book = &site.books[usize::from(site.shard("alice").0)];
        assert_eq!(book.edges().len(), 1, "the last one is not recorded any more");
        assert_eq!(site.kept(0), 2);
    }
}

/// It was refused first, and its edge, which was cut off, asks again at that moment.
#[test]
fn who_is_bound_the_second_time_stays_recorded() {
    for mood in [Mood::Not(RecordError::Busy), Mood::Unknown] {
        let mut site = Site::new(2);
        let mut alice = site.client(0, "alice", "phone");
        site.post(&mut alice, "bob", "hello");
        site.decide();
        site.decide();
        let book = site.books[usize::from(site.shard("bob").0)].clone();
        book.next(mood);
        // The answer waits for a row.
        site.store.hold();
        let bob = site.connect(1, "bob", "phone");
        let mail: Vec<_> = site.mail().drain(..).collect();
        for (shard, item) in mail {
            site.hand_mail(shard, item);
        }
        site.decide();
        site.cut(1);
        site.link(1);
        site.store.release();
        site.advance(2 * SECOND);
        let downs = site.told(&bob);
        assert!(downs.iter().any(|down| matches!(down, Down::Bound { .. })), "{downs:?}");
        assert_eq!(book.edges().len(), 1);
    }
}

/// Nor when what is before it has its receipt by then.
#[test]
fn nothing_of_a_session_leaves_behind_what_was_left_out_when_its_client_is_back() {
    let named = |n: &str| {
        let id = starling_xmpp::Element::new("urn:xmpp:sid:0", "origin-id").attr("id", n);
        chat("bob@localhost", n).child(id)
    };
    let mut site = Site::new(1);
    let bob = site.client(0, "bob", "phone");
    let mut alice = site.managed(0, "alice", "phone");
    let hand = |site: &mut Site| {
        let mail: Vec<_> = site.mail().drain(..).collect();
        assert_eq!(mail.len(), 1);
        mail.into_iter().for_each(|(shard, item)| site.hand_mail(shard, item));
        site.decide();
        site.decide();
    };
    site.send(&mut alice, named("1"));
    site.decide();
    site.decide();
    // It is taken; its receipt is on its way.
    hand(&mut site);
    site.store.hold();
    for n in ["2", "3"] {
        site.send(&mut alice, named(n));
        site.decide();
    }
    let mut again = site.connect(0, "alice", "phone");
    site.decide();
    // The second one leaves, or would.
    site.store.release_next(1);
    site.decide();
    site.decide();
    hand(&mut site);
    site.store.release();
    site.run();
    assert_eq!(site.rows("bob"), ["1"], "the third one would overtake it");
    site.send(&mut again, Stanza::presence(PresenceType::Available));
    for n in ["1", "2", "3"] {
        site.send(&mut again, named(n));
    }
    site.advance(SECOND);
    assert_eq!((site.rows("alice").len(), site.rows("bob")), (3, vec!["1".into(), "2".into(), "3".into()]));
    assert_eq!(site.messages(&bob), ["1", "2", "3"]);
    assert_eq!(site.handled(&again), 4);
}

/// A session is named that has ended here. What waits goes to another one, but not before what is under way is there.
#[test]
fn nothing_is_read_past_what_is_under_way() {
    let mut site = Site::new(2);
    let mut alice = site.client(0, "alice", "phone");
    let (_old, tablet) = (site.managed(1, "bob", "phone"), site.managed(0, "bob", "tablet"));
    for (to, body) in [("phone", "older"), ("tablet", "newer")] {
        site.send(&mut alice, chat(&format!("bob@localhost/{to}"), body));
        site.run();
    }
    site.told(&tablet);
    site.cut(1);
    let again = site.connect(0, "bob", "phone");
    site.run();
    site.store.hold();
    site.send(&mut alice, chat("bob@localhost/phone", "under way"));
    site.run();
    // Her own row; that of his waits.
    site.store.release_next(1);
    site.run();
    assert_eq!(site.store.held(), 1);
    site.say(&again, Up::Gone(Leave::Closed));
    let pages = site.store.pages();
    site.link(1);
    site.run();
    assert_eq!(site.store.pages(), pages);
    site.store.release();
    site.run();
    assert_eq!(site.messages(&tablet), ["under way"]);
}

/// It never came to the edge where it is recorded, which has said so and is lost before the account can be read. Of one that has
/// said nothing nobody knows.
#[test]
fn what_an_edge_has_said_counts_when_it_is_gone() {
    for (spoke, again) in [(true, false), (true, true), (false, false)] {
        let mut site = Site::new(3);
        site.lively = true;
        let mut alice = site.client(2, "alice", "phone");
        let bob = site.managed(0, "bob", "phone");
        site.chat(&mut alice, "bob", "one");
        assert_eq!(site.messages(&bob), ["one"]);
        site.lose(&bob);
        // It is recorded there, and nobody is told.
        site.resume(&bob, 1, 0);
        for _ in 0..6 {
            site.decide();
        }
        site.forget_downs();
        let book = site.books[usize::from(site.shard("bob").0)].clone();
        assert_eq!(book.edges()[0].1, site.edge(1).0);
        site.store.fail_next_reads(100_000);
        if spoke {
            site.succeed("bob");
            site.advance(2 * SECOND);
        }
        if again {
            site.cut(1);
            site.begin_to_link(1);
        }
        site.kill_edge(1);
        if !spoke {
            site.succeed("bob");
        }
        site.advance(8 * SECOND);
        site.store.fail_next_reads(0);
        site.advance(SECOND);
        let bob = site.resume(&bob, 2, 0);
        site.advance(2 * SECOND);
        let told = site.told(&bob);
        let resumed = told.iter().any(|down| matches!(down, Down::Resumed { .. }));
        assert_eq!(resumed, spoke, "again: {again}, {told:?}");
    }
}

/// Its account waits for its log for longer than it is looked for sessions that nobody has.
#[test]
fn what_nobody_has_is_looked_for_when_its_account_is_open() {
    let mut site = Site::new(2);
    let mut phone = site.managed(0, "alice", "phone");
    let _desk = site.managed(1, "alice", "desk");
    site.chat(&mut phone, "bob", "a row that may have to be sent");
    let book = site.books[usize::from(site.shard("alice").0)].clone();
    // Only who looks at all accounts finds the desk.
    site.kill_edge(1);
    // The last home has recorded this one, and nobody was answered: its edge does not name it.
    let tablet = starling_xmpp::FullJid::parse("alice@localhost/tablet").unwrap();
    book.bind(tablet, starling_wire::Token(7), site.edge(0));
    site.succeed("alice");
    let mut bob = site.client(0, "bob", "phone");
    site.post(&mut bob, "alice", "hello");
    site.run();
    site.store.fail_next_reads(1_000);
    site.advance(10 * SECOND);
    assert_eq!(book.edges().len(), 3, "the account is not open");
    site.store.fail_next_reads(0);
    site.advance(5 * SECOND);
    assert_eq!(book.edges(), [("alice@localhost/phone".to_owned(), site.edge(0).0)]);
}

/// It is said to a home that cannot be loaded in time. What follows is not to be taken as if it had not been said.
#[test]
fn who_cannot_be_answered_that_stanzas_are_counted_comes_back() {
    let mut site = Site::new(1);
    let mut bob = site.client(0, "bob", "phone");
    site.store.fail_next_reads(1_000);
    site.succeed("bob");
    site.say(&bob, Up::EnableSm { resume: true, max: None });
    site.run();
    site.store.fail_next_reads(0);
    site.send(&mut bob, chat("alice@localhost", "behind it"));
    site.advance(6 * SECOND);
    let told = site.told(&bob);
    assert!(told.iter().any(|down| matches!(down, Down::Close(_))), "{told:?}");
}

/// Clients that are told of a conflict may not come back by themselves.
#[test]
fn who_was_away_for_too_long_with_its_edge_is_told_of_a_conflict_only_if_there_is_one() {
    for (replaced, open) in [(false, false), (false, true), (true, false)] {
        let mut site = Site::with(2, RouterConfig { resume_timeout: 2 * SECOND, ..RouterConfig::default() });
        let mut bob = site.managed(1, "bob", "phone");
        if open {
            // It has no answer when the session ends.
            site.close_post("alice", true);
            site.chat(&mut bob, "alice", "under way");
        }
        site.cut(1);
        site.declare_dead(1);
        site.advance(3 * SECOND);
        let next = replaced.then(|| site.managed(0, "bob", "phone"));
        site.link(1);
        site.run();
        let told = site.told(&bob);
        let Some(Down::Close(Some(error))) = told.first() else { panic!("{told:?}") };
        // The next home is to hear of what is under way.
        assert_eq!(site.kept(1), usize::from(open), "replaced: {replaced}");
        let expected = if replaced { StreamCondition::Conflict } else { StreamCondition::Reset };
        assert_eq!(error.condition, expected);
        assert!(next.is_none_or(|next| site.is_there(&next)));
    }
}

/// Without a lease no edge can come to a home: none is taken for dead for that.
#[test]
fn an_edge_that_could_not_come_is_waited_for() {
    for (lapses, asleep) in [(true, false), (true, true), (false, false)] {
        let mut site = Site::new(2);
        let bob = site.managed(0, "bob", "phone");
        site.lose(&bob);
        site.cut(0);
        site.succeed("bob");
        site.advance(SECOND);
        if lapses {
            site.end_lease("bob");
        }
        if asleep {
            // Nobody looks before it has been over for long.
            site.clock.advance(8 * SECOND);
            site.run();
        } else {
            site.advance(8 * SECOND);
        }
        site.renew_lease("bob");
        site.advance(4 * SECOND);
        site.link(0);
        site.run();
        let bob = site.resume(&bob, 1, 0);
        site.advance(2 * SECOND);
        let told = site.told(&bob);
        let resumed = told.iter().any(|down| matches!(down, Down::Resumed { .. }));
        assert_eq!(resumed, lapses, "asleep: {asleep}, {told:?}");
    }
}

/// A session that may have gone on at an edge that is silent is known a while after the lease is back.
#[test]
fn what_is_unsure_while_there_is_no_lease_is_known_later() {
    let mut site = Site::new(3);
    let bob = site.managed(0, "bob", "phone");
    site.lose(&bob);
    // It is recorded there, and nobody is told.
    site.resume(&bob, 1, 0);
    for _ in 0..6 {
        site.decide();
    }
    site.forget_downs();
    site.kill_edge(1);
    site.succeed("bob");
    let mut alice = site.client(2, "alice", "phone");
    site.chat(&mut alice, "bob", "opens it");
    site.advance(SECOND);
    site.end_lease("bob");
    site.advance(8 * SECOND);
    site.renew_lease("bob");
    assert_ne!(site.kept(0), 0);
    site.advance(8 * SECOND);
    assert_eq!(site.kept(0), 0, "nobody has said that it did not come there");
}

/// Its edge alone knows of that, and is told to forget the session when its last message has its answer.
#[test]
fn what_was_acknowledged_at_an_edge_that_was_away_for_too_long_does_not_come_again() {
    let mut site = Site::with(2, RouterConfig { resume_timeout: 2 * SECOND, ..RouterConfig::default() });
    let mut alice = site.client(0, "alice", "phone");
    let mut bob = site.managed(1, "bob", "phone");
    site.chat(&mut alice, "bob", "one");
    site.close_post("alice", true);
    site.chat(&mut bob, "alice", "under way");
    site.cut(1);
    site.say(&bob, Up::Acknowledged { handled: 1 });
    site.declare_dead(1);
    site.advance(3 * SECOND);
    site.link(1);
    site.run();
    site.close_post("alice", false);
    let shard = site.shard("alice");
    site.begin(shard);
    site.run();
    assert_eq!(site.messages(&alice), ["under way"]);
    assert_eq!(site.kept(1), 0, "its messages have their answers");
    site.succeed("bob");
    let mut bob = site.connect(0, "bob", "desk");
    site.send(&mut bob, Stanza::presence(PresenceType::Available));
    site.run();
    assert_eq!(site.messages(&bob), [""; 0]);
}
