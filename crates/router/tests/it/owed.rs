//! What is covered by the count of a resumption has its answer, whoever is lost then.

use crate::bench::{body, chat};
use crate::site::{Client, Site};
use crate::stage::condition;
use starling_wire::{Down, Up};
use starling_xmpp::{Element, IqType, Kind, MessageType, PresenceType, Stanza};
use std::time::Duration;

const SECOND: Duration = Duration::from_secs(1);
const REFUSED: &str = "!resource-constraint wait";

/// How far a client was told that it was handled when it resumed, and the answers it got.
#[derive(Default)]
struct Got {
    covered: Option<u64>,
    answers: Vec<String>,
}

impl Got {
    fn more(&mut self, site: &mut Site, client: &Client) {
        for down in site.told(client) {
            match down {
                Down::Resumed { sequence, .. } => self.covered = Some(sequence),
                Down::Stanza { stanza, .. } => match stanza.kind {
                    Kind::Message(MessageType::Error) => self.answers.push(condition(&stanza)),
                    Kind::Iq(IqType::Result | IqType::Error) => self.answers.push("result".to_owned()),
                    _ => {}
                },
                _ => {}
            }
        }
    }
}

#[test]
fn what_was_answered_before_a_resumption_is_told_though_the_home_is_lost_right_after_it() {
    // Whether the edge where the session was is lost as well, how much arrives of what the first home says to the resumption, and of
    // what the next one says if that is lost, too.
    let all = [false, true].into_iter().flat_map(|dead| (0..7).map(move |count| (dead, count)));
    let all = all
        .flat_map(|(dead, count)| [None, Some(0), Some(1), Some(2), Some(3)].map(|next| (dead, count, next)));
    let mut covered = 0;
    for (dead, count, next) in all {
        let case = format!("dead {dead}, {count}, {next:?}");
        let mut site = Site::new(3);
        let mut alice = site.managed(0, "alice", "phone");
        let mut bob = site.client(2, "bob", "phone");
        // It cannot be written at this moment.
        site.grant("alice", false);
        site.post(&mut alice, "bob", "refused");
        site.decide();
        site.grant("alice", true);
        let mut ask = Stanza::iq(IqType::Get).child(Element::new("urn:xmpp:blocking", "blocklist"));
        ask.id = Some("q1".into());
        site.send(&mut alice, ask);
        for _ in 0..3 {
            site.decide();
        }
        // Its edge never hears of the answers.
        site.forget_downs();
        site.cut(0);
        let new = site.resume(&alice, 1, 0);
        for _ in 0..4 {
            site.decide();
        }
        site.deliver_only(count);
        let mut got = Got::default();
        got.more(&mut site, &new);
        if dead {
            site.kill_edge(0);
        }
        let shard = site.shard("alice");
        site.crash("alice");
        site.begin(shard);
        if !dead {
            site.link(0);
        }
        if let Some(count) = next {
            site.post(&mut bob, "alice", "");
            for _ in 0..4 {
                site.decide();
                let mail: Vec<_> = site.mail().drain(..).collect();
                mail.into_iter().for_each(|(shard, item)| site.hand_mail(shard, item));
            }
            site.deliver_only(count);
            site.crash("alice");
            site.begin(shard);
        }
        site.chat(&mut bob, "alice", "");
        site.advance(10 * SECOND);
        got.more(&mut site, &new);
        if got.covered == Some(3) {
            covered += 1;
            // A home that hears of it for the first time takes it.
            let rows = site.rows("alice").iter().filter(|body| *body == "refused").count();
            let answers = |is: &str| got.answers.iter().filter(|answer| *answer == is).count();
            let all = (rows + answers(REFUSED), answers("result"));
            assert_eq!(all, (1, 1), "{case}: {:?}", got.answers);
        }
    }
    assert!(covered > 30, "{covered}");
}

#[test]
fn what_was_not_acknowledged_comes_in_order_though_home_and_edge_are_lost_right_after_a_resumption() {
    // How much arrives of what the first home says to the resumption, and of what the next one says if that is lost, too.
    let all = (2..7).flat_map(|count| [None, Some(0), Some(1), Some(2), Some(3)].map(|next| (count, next)));
    for (count, next) in all {
        let case = format!("{count}, {next:?}");
        let mut site = Site::new(3);
        let mut alice = site.client(2, "alice", "phone");
        let mut tablet = site.client(2, "bob", "tablet");
        let old = site.managed(0, "bob", "phone");
        for text in ["one", "two", "three"] {
            site.send(&mut alice, chat("bob@localhost/phone", text));
        }
        site.advance(3 * SECOND);
        // Its edge is told now that it was given all that there is.
        site.say(&old, Up::EnableSm { resume: true, max: None });
        site.run();
        site.lose(&old);
        let new = site.resume(&old, 1, 1);
        for _ in 0..4 {
            site.decide();
        }
        site.deliver_only(count);
        let mut downs = site.told(&new);
        assert!(downs.iter().any(|down| matches!(down, Down::Resumed { .. })), "{case}: {downs:?}");
        site.kill_edge(0);
        let shard = site.shard("bob");
        site.crash("bob");
        site.begin(shard);
        if let Some(count) = next {
            site.post(&mut tablet, "alice", "");
            for _ in 0..5 {
                site.decide();
            }
            site.deliver_only(count);
            site.crash("bob");
            site.begin(shard);
        }
        site.chat(&mut tablet, "alice", "");
        site.advance(10 * SECOND);
        site.send(&mut alice, chat("bob@localhost/phone", "four"));
        site.advance(10 * SECOND);
        downs.extend(site.told(&new));
        let bodies = downs.iter().filter_map(|down| match down {
            Down::Stanza { stanza, .. } if stanza.kind != Kind::Presence(PresenceType::Available) => {
                Some(body(stanza))
            }
            _ => None,
        });
        assert_eq!(bodies.collect::<Vec<_>>(), ["two", "three", "four"], "{case}");
    }
}

#[test]
fn nobody_else_keeps_a_session_from_being_resumed() {
    let mut site = Site::new(3);
    let mut alice = site.managed(0, "alice", "phone");
    let mut bob = site.client(2, "bob", "phone");
    // It has an answer of its own to come, too.
    site.grant("alice", false);
    site.post(&mut alice, "bob", "refused");
    site.decide();
    site.grant("alice", true);
    site.forget_downs();
    site.cut(0);
    for size in [200 << 10, 200 << 10, 900, 900] {
        let mut large = chat("alice@localhost/phone", &"x".repeat(size));
        large.kind = Kind::Message(MessageType::Error);
        site.send(&mut bob, large);
    }
    site.run();
    let new = site.resume(&alice, 1, 0);
    for _ in 0..4 {
        site.decide();
    }
    site.deliver_only(3);
    let downs = site.told(&new);
    assert!(matches!(downs[..], [Down::Resumed { .. }]), "{downs:?}");
    // What it is owed itself is remembered, and told by the next home.
    site.succeed("alice");
    site.chat(&mut bob, "alice", "");
    site.advance(10 * SECOND);
    let mut got = Got::default();
    got.more(&mut site, &new);
    assert_eq!(got.answers.iter().filter(|answer| *answer == REFUSED).count(), 1, "{:?}", got.answers);
}
