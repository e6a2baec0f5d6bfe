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

    /// All that was sent has an answer and has arrived, once and in order.
    async fn settle(&mut self) {
        let end = Instant::now() + Duration::from_secs(8);
        while self.people.iter().any(|client| client.open() > 0) {
            assert!(
                Instant::now() < end,
                "unanswered: {:?}",
                self.people.iter().map(Client::open).collect::<Vec<_>>()
            );
            for one in 0..PEOPLE {
                self.look(one);
                self.people[one].acknowledge();
            }
            sleep(Duration::from_millis(5)).await;
        }
        sleep(Duration::from_millis(300)).await;
        for one in 0..PEOPLE {
            let before = (one + PEOPLE - 1) % PEOPLE;
            let sent = self.people[before].sequence - 1;
            let got = self.people[one].messages();
            let errors: Vec<_> = got.iter().filter(|body| body.starts_with('!')).collect();
            assert!(errors.is_empty(), "user{one} was told {errors:?}");
            assert_eq!(got.len() as u64, sent, "user{one} of user{before}: {:?}", doubled(&got));
            let numbers: Vec<usize> =
                got.iter().map(|body| body.split_once(' ').unwrap().1.parse().unwrap()).collect();
            assert!(numbers.is_sorted(), "user{one}: out of order");
            assert!(self.people[one].see(|seen| !seen.closed), "user{one} was sent away");
        }
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
