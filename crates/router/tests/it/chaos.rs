//! Homes move, links break and clients come back in any order: whatever happens, each message is there once and in order.
//! `CHAOS=5000` runs so many seeds, `CHAOS=7-7 CHAOS_ALOUD=1` tells the story of one.

use crate::site::{Client, Site};
use starling_node::Clock;
use starling_wire::{Down, Leave, Up};
use starling_xmpp::Kind;
use std::time::Duration;

/// A client as XEP-0198 has it: it counts what it gets, and says again what it does not know to be handled.
struct Phone {
    client: Client,
    /// Waits for its resumption.
    coming: bool,
    counted: u32,
    got: Vec<String>,
    errors: usize,
    said: Vec<(u64, String)>,
}

impl Phone {
    fn new(site: &mut Site, edge: usize, account: &str) -> Self {
        let client = site.managed(edge, account, "phone");
        Self { client, coming: false, counted: 0, got: Vec::new(), errors: 0, said: Vec::new() }
    }

    /// Reads what there is; comes back over that edge if its connection is gone.
    fn look(&mut self, site: &mut Site, edge: usize) {
        let mut closed = false;
        for down in site.told(&self.client) {
            match down {
                Down::Stanza { stanza, counts, .. } => {
                    self.counted += u32::from(counts);
                    match stanza.kind {
                        Kind::Message(starling_xmpp::MessageType::Error) => self.errors += 1,
                        Kind::Message(_) => self.got.push(crate::bench::body(&stanza)),
                        _ => {}
                    }
                }
                Down::Resumed { sequence, .. } => {
                    self.coming = false;
                    self.client.sequence = sequence;
                    let again: Vec<_> =
                        self.said.iter().filter(|(own, _)| *own > sequence).cloned().collect();
                    self.said.retain(|(own, _)| *own <= sequence);
                    for (_, body) in again {
                        self.say(site, &body);
                    }
                }
                Down::Close(_) | Down::Released => closed = true,
                Down::NotResumed => panic!("its session is lost"),
                _ => {}
            }
        }
        if closed {
            self.come_back(site, edge);
        }
    }

    fn say(&mut self, site: &mut Site, body: &str) {
        site.post(&mut self.client, "bob", body);
        self.said.push((self.client.sequence, body.to_owned()));
    }

    fn come_back(&mut self, site: &mut Site, edge: usize) {
        self.client = site.resume(&self.client, edge, self.counted);
        self.coming = true;
    }
}

/// Numbers that follow from a seed.
pub(crate) struct Dice(pub(crate) u64);

impl Dice {
    pub(crate) fn roll(&mut self, sides: u64) -> u64 {
        self.0 = self.0.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        (self.0 >> 33) % sides
    }
}

fn story(seed: u64) {
    let mut dice = Dice(seed);
    let mut site = Site::new(3);
    site.aloud = std::env::var_os("CHAOS_ALOUD").is_some();
    let mut alice = Phone::new(&mut site, 0, "alice");
    let mut bob = Phone::new(&mut site, 1, "bob");
    let mut linked = [true; 3];
    let mut cut = [site.clock.monotonic(); 3];
    let mut sent = 0;
    for _ in 0..80 {
        let edge = dice.roll(3) as usize;
        let what = dice.roll(16);
        for edge in 0..3 {
            // An edge that is away for longer is taken for dead.
            if !linked[edge] && site.clock.monotonic() > cut[edge] + Duration::from_secs(2) {
                site.link(edge);
                linked[edge] = true;
            }
        }
        if site.aloud {
            eprintln!("step {what} edge {edge} at {:?}", site.clock.monotonic());
        }
        match what {
            0..=4 if !alice.coming => {
                alice.say(&mut site, &sent.to_string());
                sent += 1;
            }
            5 | 6 => site.run(),
            7 => site.decide(),
            8 if linked[edge] => {
                site.cut(edge);
                (linked[edge], cut[edge]) = (false, site.clock.monotonic());
            }
            8 | 9 if !linked[edge] => {
                site.link(edge);
                linked[edge] = true;
            }
            10 => site.succeed(if dice.roll(2) == 0 { "alice" } else { "bob" }),
            11 => drop(site.lose_mail()),
            12 if !bob.coming => {
                let handled = bob.counted;
                site.say(&bob.client, Up::Acknowledged { handled });
            }
            13 | 14 => {
                let phone = if dice.roll(2) == 0 { &mut alice } else { &mut bob };
                if !phone.coming {
                    site.say(&phone.client, Up::Gone(Leave::Lost));
                    phone.come_back(&mut site, edge);
                }
            }
            _ => site.advance(Duration::from_millis(dice.roll(300))),
        }
        alice.look(&mut site, edge);
        bob.look(&mut site, edge);
    }
    for (edge, linked) in linked.into_iter().enumerate() {
        if !linked {
            site.link(edge);
        }
    }
    for _ in 0..30 {
        site.advance(Duration::from_secs(1));
        alice.look(&mut site, 0);
        bob.look(&mut site, 0);
    }
    let all: Vec<String> = (0..sent).map(|n: usize| n.to_string()).collect();
    let numbers: Vec<usize> = bob.got.iter().map(|body| body.parse().unwrap()).collect();
    assert!(numbers.is_sorted_by(|a, b| a < b), "seed {seed}: {numbers:?}");
    for owner in ["alice", "bob"] {
        let rows: Vec<usize> = site.rows(owner).iter().map(|body| body.parse().unwrap()).collect();
        assert!(rows.is_sorted_by(|a, b| a < b), "seed {seed}, {owner}: {rows:?}");
    }
    if alice.errors == 0 {
        assert!(!alice.coming && !bob.coming, "seed {seed}: not resumed");
        assert_eq!(bob.got, all, "seed {seed}");
        assert_eq!((site.rows("alice"), site.rows("bob")), (all.clone(), all), "seed {seed}");
    }
}

/// Those that a variable names: how many, or from which to which.
pub(crate) fn seeds(variable: &str, most: u64) -> std::ops::RangeInclusive<u64> {
    let named = std::env::var(variable).unwrap_or_default();
    let (from, to) = named.split_once('-').unwrap_or(("1", &named));
    from.parse().unwrap_or(1)..=to.parse().unwrap_or(most)
}

#[test]
fn each_message_is_there_once_and_in_order() {
    let failed: Vec<_> =
        seeds("CHAOS", 60).filter(|seed| std::panic::catch_unwind(|| story(*seed)).is_err()).collect();
    assert!(failed.is_empty(), "seeds {failed:?}");
}
