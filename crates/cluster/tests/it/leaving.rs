//! A router leaves in order, and nobody is told so: no answer is an error, and nothing comes twice or not at all.

use crate::people::{Client, Edge};
use crate::site::{Site, jid, until};
use starling_cluster::RouterNode;
use starling_node::Telemetry;
use starling_store::SharedStore;
use starling_wire::RouterLink;
use starling_xmpp::{Element, IqType, Jid, PresenceType, Stanza};
use std::sync::Arc;
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

/// A router that edges cannot reach leads the fewest shards of all, and gets none.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn who_leaves_gives_nothing_to_where_edges_are_not() {
    const SOON: Duration = Duration::from_secs(30);
    let mut site = Site::empty(4).await;
    for number in 0..3 {
        site.run(number).await;
    }
    site.settled(SOON).await;
    let edge = Edge::with_seeds(&site, 1, site.addresses()[..3].to_vec()).await;
    // The others have its address in their settings.
    let mut config = site.config(3);
    config.cluster.advertise = Some("127.0.0.1:1".to_owned());
    let store: SharedStore = Arc::new(site.store.clone());
    let last = Box::pin(RouterNode::start_on(store, config, Telemetry::off())).await.unwrap();
    until(SOON, "it votes", || last.is_ready() && last.locations().has_its_part()).await;
    let id = last.locations().members().into_iter().find(|(_, (member, _))| member.name == "router-3");
    let id = id.expect("it is a member").0;
    until(SOON, "that is known", || site.running().all(|node| node.locations().edges(id) == Some((0, 1))))
        .await;

    let serves = |one: &usize| site.routers[*one].as_ref().map_or(0, RouterNode::serves);
    let most = (0..3).max_by_key(serves).unwrap();
    let other = (most + 1) % 3;
    let mut admin = starling_admin::Client::connect(&site.data_dir(other)).await.unwrap();
    let status = admin.status().await.unwrap();
    let said = |name: &str| {
        let detail = status.details.iter().find(|detail| detail.name == name);
        detail.map(|detail| detail.value.clone()).unwrap_or_default()
    };
    assert!(
        said("router router-3")
            .ends_with("0 edges: 1 of those that are linked to this router are not linked to it"),
        "{status:?}"
    );
    assert!(said(&format!("router router-{other}")).ends_with("1 edges"), "{status:?}");

    site.routers[most].take().unwrap().stop().await;
    until(SOON, "all shards have a home", || {
        site.running().chain([&last]).map(RouterNode::serves).sum::<usize>() == 16
    })
    .await;
    assert_eq!(last.serves(), 0);
    assert!(edge.uplink.account(&jid("nobody")).await.is_ok());
    last.abort().await;
}
