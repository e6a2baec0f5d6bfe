//! A router leaves in order, and nobody is told so: no answer is an error, and nothing comes twice or not at all.

use crate::people::{Client, Edge};
use crate::site::{Site, jid};
use starling_cluster::RouterNode;
use starling_xmpp::{Element, IqType, Jid, PresenceType, Stanza};
use std::time::Duration;
use tokio::time::{Instant, sleep};

/// A request of its account's home, and one of somebody's device.
fn asks(client: &mut Client, number: u64, device: &Jid) {
    let list = Stanza::iq(IqType::Get).child(Element::new("urn:xmpp:blocking", "blocklist"));
    client.send(list.id(format!("own {number}")));
    let ask = Stanza::iq(IqType::Get).child(Element::new("urn:example:ask", "ask"));
    client.send(ask.id(format!("device {number}")).to(device.clone()));
}

/// Answers what it was asked, once for each time that it was.
fn answers(client: &mut Client, answered: &mut usize) {
    let asked: Vec<Stanza> = client.see(|seen| seen.requests[*answered..].to_vec());
    *answered += asked.len();
    for request in asked {
        client.send(request.result());
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn requests_have_one_answer_each_while_a_router_leaves() {
    let mut site = Site::start(3).await;
    let edges = [Edge::start(&site, 1).await, Edge::start(&site, 2).await];
    for name in ["alice", "bob"] {
        site.account(name).await;
    }
    let mut alice = Client::managed(&edges[0], "alice", "phone").await;
    let mut bob = Client::managed(&edges[1], "bob", "phone").await;
    let device: Jid = bob.see(|seen| seen.jid.clone()).unwrap().into();
    let (mut number, mut answered) = (0, 0);
    let who = (0..3).max_by_key(|one| site.routers[*one].as_ref().map_or(0, RouterNode::serves)).unwrap();
    let stopping = tokio::spawn(site.routers[who].take().unwrap().stop());
    let mut rest = 50;
    while rest > 0 {
        rest -= usize::from(stopping.is_finished());
        if alice.open() < 32 {
            asks(&mut alice, number, &device);
            let mut presence = Stanza::presence(PresenceType::Unavailable).id(number.to_string());
            presence.to = Some(jid("bob").into());
            alice.send(presence);
            number += 1;
        }
        for client in [&mut alice, &mut bob] {
            client.acknowledge();
        }
        answers(&mut bob, &mut answered);
        sleep(Duration::from_millis(2)).await;
    }
    stopping.await.unwrap();
    let end = Instant::now() + Duration::from_secs(10);
    while alice.see(|seen| seen.answers.len()) < 2 * usize::try_from(number).unwrap() && Instant::now() < end
    {
        answers(&mut bob, &mut answered);
        sleep(Duration::from_millis(5)).await;
    }
    let mut got = alice.see(|seen| seen.answers.clone());
    let mut all: Vec<String> =
        (0..number).flat_map(|n| [format!("own {n}"), format!("device {n}")]).collect();
    got.sort();
    all.sort();
    assert_eq!(got, all);
    // One that is passed on does not follow a newer one.
    let presences: Vec<u64> = bob.see(|seen| seen.presences.iter().map(|id| id.parse().unwrap()).collect());
    assert!(presences.is_sorted() && presences.last() == Some(&(number - 1)), "{presences:?}");
}
