//! A router is lost, and clients hardly notice.

use crate::people::{Client, Edge};
use crate::site::Site;
use starling_cluster::RouterNode;
use std::collections::BTreeMap;
use std::time::Duration;
use tokio::time::{Instant, sleep};

const PEOPLE: usize = 24;
/// What a client has under way at the most, as its edge would let it.
const CREDIT: u64 = 64;

/// Clients of two edges that write to one another in a ring.
struct Crowd {
    people: Vec<Client>,
    sent: usize,
    /// For each, since when it waits for an answer, and the longest that it did.
    waits: Vec<(Option<Instant>, Duration)>,
}

impl Crowd {
    async fn come(site: &Site, edges: &[std::sync::Arc<Edge>]) -> Self {
        let mut people = Vec::new();
        for one in 0..PEOPLE {
            site.account(&format!("user{one}")).await;
            people.push(Client::managed(&edges[one % edges.len()], &format!("user{one}"), "phone").await);
        }
        Self { people, sent: 0, waits: vec![(None, Duration::ZERO); PEOPLE] }
    }

    /// Everybody writes to the next one, as long as that.
    async fn chat(&mut self, time: Duration) {
        let end = Instant::now() + time;
        while Instant::now() < end {
            for one in 0..PEOPLE {
                self.look(one);
                let client = &mut self.people[one];
                if client.open() < CREDIT {
                    client.tell(&format!("user{}", (one + 1) % PEOPLE), &format!("{one} {}", self.sent));
                }
                client.acknowledge();
            }
            self.sent += 1;
            sleep(Duration::from_millis(5)).await;
        }
    }

    fn look(&mut self, one: usize) {
        let (client, (since, longest)) = (&self.people[one], &mut self.waits[one]);
        let handled = client.see(|seen| std::mem::take(&mut seen.news));
        let now = Instant::now();
        if let Some(began) = *since {
            *longest = (*longest).max(now - began);
        }
        if client.open() == 0 {
            *since = None;
        } else if handled || since.is_none() {
            *since = Some(now);
        }
    }

    /// How many messages of the one before each have not arrived, and were not refused.
    fn missing(&self) -> Vec<u64> {
        let missing = |one: usize| {
            let sender = &self.people[(one + PEOPLE - 1) % PEOPLE];
            let got = self.people[one].messages();
            let told = got.iter().filter(|body| !body.starts_with('!')).count();
            let answers = sender.messages();
            let errors = answers.iter().filter_map(|body| body.strip_prefix('!'));
            let lost = errors.filter(|error| !got.iter().any(|body| body == error)).count();
            (sender.sequence - 1).saturating_sub((told + lost) as u64)
        };
        (0..PEOPLE).map(missing).collect()
    }

    /// All that was sent has an answer and has arrived, once and in order.
    async fn settle(&mut self) {
        let end = Instant::now() + Duration::from_secs(8);
        while self.people.iter().any(|client| client.open() > 0)
            || self.missing().iter().any(|some| *some > 0)
        {
            assert!(
                Instant::now() < end,
                "unanswered: {:?}, on their way: {:?}",
                self.people.iter().map(Client::open).collect::<Vec<_>>(),
                self.missing()
            );
            for one in 0..PEOPLE {
                self.look(one);
                self.people[one].acknowledge();
            }
            sleep(Duration::from_millis(5)).await;
        }
        let mut refused = 0;
        for one in 0..PEOPLE {
            let before = (one + PEOPLE - 1) % PEOPLE;
            let sent = self.people[before].sequence - 1;
            let told = |client: &Client, error: bool| {
                client
                    .messages()
                    .into_iter()
                    .filter(|body| body.starts_with('!') == error)
                    .collect::<Vec<_>>()
            };
            let (got, errors) = (told(&self.people[one], false), told(&self.people[before], true));
            assert!(doubled(&got).is_empty(), "user{one}: {:?}", doubled(&got));
            // What its sender was told is not confirmed may have arrived.
            let lost = errors.iter().filter(|error| !got.contains(&error[1..].to_owned())).count();
            assert_eq!(
                (got.len() + lost) as u64,
                sent,
                "user{one} of user{before}, {} refused",
                errors.len()
            );
            refused += errors.len();
            let numbers: Vec<usize> =
                got.iter().map(|body| body.split_once(' ').unwrap().1.parse().unwrap()).collect();
            assert!(numbers.is_sorted(), "user{one}: out of order");
            assert!(self.people[one].see(|seen| !seen.closed), "user{one} was sent away");
        }
        assert!(refused * 20 < self.sent * PEOPLE, "{refused} were refused");
    }

    fn longest(&self) -> Duration {
        self.waits.iter().map(|(_, longest)| *longest).max().unwrap()
    }
}

fn doubled(got: &[String]) -> Vec<&String> {
    let mut counts = BTreeMap::new();
    for body in got {
        *counts.entry(body).or_insert(0) += 1;
    }
    counts.into_iter().filter(|(_, count)| *count > 1).map(|(body, _)| body).collect()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn sessions_outlive_a_router() {
    let mut site = Site::start(3).await;
    let edges = [Edge::start(&site, 1).await, Edge::start(&site, 2).await];
    let mut crowd = Crowd::come(&site, &edges).await;
    crowd.chat(Duration::from_millis(1_000)).await;
    let calm = crowd.longest();

    let victim = (0..3).max_by_key(|one| site.routers[*one].as_ref().map_or(0, RouterNode::serves)).unwrap();
    let killed = Instant::now();
    site.kill(victim).await;
    crowd.chat(Duration::from_millis(2_000)).await;
    crowd.settle().await;
    site.settled(Duration::from_secs(2)).await;
    println!("at rest {calm:?}, longest {:?}, after {:?}", crowd.longest(), killed.elapsed());
    // What a machine that builds something else meanwhile makes of 5 ms, it makes of a second as well.
    let bound = Duration::from_secs(1) + 4 * calm;
    assert!(crowd.longest() < bound, "somebody waited {:?}, not {bound:?}", crowd.longest());
}

/// An edge is killed, its clients come back at another one; then the router of their homes stops in order.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn sessions_outlive_an_edge_and_a_router_that_leaves() {
    let mut site = Site::start(3).await;
    let edges = [Edge::start(&site, 1).await, Edge::start(&site, 2).await];
    for name in ["alice", "bob", "carol"] {
        site.account(name).await;
    }
    let alice = Client::managed(&edges[0], "alice", "phone").await;
    let mut bob = Client::managed(&edges[1], "bob", "phone").await;
    bob.tell("alice", "one");
    alice.until("it has one", |seen| seen.messages == ["one"]).await;
    // What was sent to it and not acknowledged comes again at the other edge, and once.
    edges[0].unplug();
    bob.tell("alice", "two");
    let alice = alice.resume(&edges[1]).await;
    alice.until("it has two", |seen| seen.messages == ["one", "two"]).await;

    let name = site.routers.iter().position(|router| router.as_ref().is_some_and(|one| one.serves() > 0));
    let leaving = site.routers[name.unwrap()].take().unwrap();
    let stopping = tokio::spawn(leaving.stop());
    for number in 0..40 {
        bob.tell("alice", &format!("m{number}"));
        sleep(Duration::from_millis(25)).await;
    }
    stopping.await.unwrap();
    let all: Vec<String> =
        ["one", "two"].map(str::to_owned).into_iter().chain((0..40).map(|n| format!("m{n}"))).collect();
    alice.until("it has all", |seen| seen.messages.len() >= all.len()).await;
    assert_eq!(alice.messages(), all);
    bob.until("all is handled", |seen| seen.handled == 43).await;
    assert!(bob.messages().is_empty(), "{:?}", bob.messages());
}
