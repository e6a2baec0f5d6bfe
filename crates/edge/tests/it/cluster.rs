//! An edge of a cluster: homes come and go, and sessions go on without it.

use crate::Site;
use crate::client::{Client, bind};
use starling_wire::net::Sockets;
use starling_wire::{ConnId, Down, EdgeId, Shard};
use std::time::{Duration, Instant};

const SHUTDOWN: &str = "<stream:error><system-shutdown xmlns='urn:ietf:params:xml:ns:xmpp-streams'/></stream:error></stream:stream>";

async fn managed(site: &Site, resume: bool) -> Client {
    let mut client = Client::bound(site.c2s(), "phone").await;
    client.send(&format!("<enable xmlns='urn:xmpp:sm:3' resume='{resume}'/>")).await;
    client.expect("<enabled xmlns='urn:xmpp:sm:3'").await;
    client.expect("/>").await;
    client
}

async fn gone_to(client: &mut Client, site: &Site, condition: &str, leave: &str) {
    let end = client.rest().await;
    assert!(end.contains(condition) && end.ends_with("</stream:stream>"), "{end}");
    assert_eq!(site.home.heard("gone").await, format!("gone {leave}"));
}

/// The edge has come to all that was there before: it has one thread here, and has answered strangers who came later.
async fn comes_round(site: &Site) {
    for _ in 0..5 {
        let mut stranger = Client::tcp(site.c2s()).await;
        stranger.open().await;
        stranger.expect("</stream:features>").await;
    }
}

#[tokio::test]
async fn without_a_home_nothing_is_read_and_nothing_is_lost() {
    let site = Site::of_cluster(|_| {}).await;
    let mut client = Client::bound(site.c2s(), "phone").await;
    client.send("<message><body>one</body></message>").await;
    client.expect("<body>one</body>").await;
    site.table.reading(Shard(0), false);
    // What is on its way into a read that has begun may still come.
    comes_round(&site).await;
    client.send("<message><body>two</body></message>").await;
    comes_round(&site).await;
    assert_eq!(site.home.count("stanza"), 1);
    // What the home of before has said goes out all the same.
    site.home.say(|| Down::RequestAck);
    site.table.reading(Shard(0), true);
    client.expect("<body>two</body>").await;
    assert_eq!(site.home.count("stanza"), 2);
    // A home that is behind is waited for in the same way.
    site.table.press(Shard(0), true);
    comes_round(&site).await;
    client.send("<message><body>three</body></message>").await;
    comes_round(&site).await;
    assert_eq!(site.home.count("stanza"), 2);
    site.table.press(Shard(0), false);
    client.expect("<body>three</body>").await;
}

/// A home that is away may answer after seconds, when its client has given up and has a session elsewhere: what it has bound
/// would take that one's place.
#[tokio::test]
async fn who_hangs_up_before_a_home_answers_asks_for_nothing_more() {
    let site = Site::of_cluster(|_| {}).await;
    let mut client = Client::authenticated(site.c2s()).await;
    client.send(&bind("unanswered")).await;
    site.home.heard("bind unanswered").await;
    // What else it said stays unread.
    client.send("<presence/>").await;
    let mut patient = Client::authenticated(site.c2s()).await;
    patient.send(&bind("unanswered")).await;
    while site.home.count("bind") < 2 {
        tokio::task::yield_now().await;
    }
    client.cut();
    assert_eq!(site.home.heard("gone").await, "gone Lost");
    assert_eq!(site.home.count("gone"), 1, "who stays is waited for");
    drop(patient);
}

#[tokio::test]
async fn who_is_cut_can_resume() {
    let site = Site::of_cluster(|_| {}).await;
    let mut client = managed(&site, true).await;
    site.table.cut(ConnId { edge: EdgeId(7), number: 1 });
    let end = client.rest().await;
    assert!(!end.contains("</stream:stream>"), "{end}");
    assert_eq!(site.home.heard("gone").await, "gone Lost");
}

#[tokio::test]
async fn a_session_that_is_elsewhere_ends_here_without_a_word_to_its_home() {
    let site = Site::of_cluster(|_| {}).await;
    let mut client = managed(&site, true).await;
    site.home.say(|| Down::Released);
    let end = client.rest().await;
    assert!(end.contains("<conflict ") && end.ends_with("</stream:stream>"), "{end}");
    drop(client);
    for _ in 0..1_500 {
        if site.edge.connections() == 0 {
            break;
        }
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
    assert_eq!((site.edge.connections(), site.home.count("gone")), (0, 0));
}

#[tokio::test]
async fn who_can_resume_does_so_elsewhere() {
    let site = Site::of_cluster(|_| {}).await;
    let mut client = managed(&site, true).await;
    let drained = async {
        site.edge.drain(Duration::ZERO, Duration::ZERO).await;
        site.edge.stop().await
    };
    let (drained, ()) = tokio::join!(drained, async {
        gone_to(&mut client, &site, SHUTDOWN, "Lost").await;
        drop(client);
    });
    assert!(drained);
}

#[tokio::test]
async fn who_cannot_ends_or_is_sent_to_another_host() {
    for (host, condition) in
        [(None, "<system-shutdown "), (Some("b.example:5222"), ">b.example:5222</see-other-host>")]
    {
        let site = Site::of_cluster(|config| config.drain.see_other_host = host.map(str::to_owned)).await;
        let mut client = managed(&site, false).await;
        let ((), ()) = tokio::join!(site.edge.drain(Duration::ZERO, Duration::ZERO), async {
            gone_to(&mut client, &site, condition, "Closed").await;
            drop(client);
        });
    }
}

#[tokio::test]
async fn an_edge_leaves_in_steps() {
    let site = Site::of_cluster(|_| {}).await;
    let mut here = managed(&site, true).await;
    let (settle, window) = (Duration::from_secs(4), Duration::from_millis(400));
    let began = Instant::now();
    let (_, ()) = tokio::join!(site.edge.drain(settle, window), async {
        // Load balancers are told first, and new clients are still served.
        while site.edge.ready() {
            assert!(began.elapsed() < settle, "nobody is told");
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
        let mut late = Client::bound(site.c2s(), "late").await;
        assert!(began.elapsed() < settle, "too slow to say");
        here.rest().await;
        assert!(began.elapsed() >= settle);
        late.rest().await;
        drop((here, late));
        assert!(tokio::net::TcpStream::connect(site.c2s()).await.is_err(), "nobody listens any more");
    });
    assert!(began.elapsed() < Duration::from_secs(30));
}
