//! Back-pressure in both directions (rows T18 and X21 of the hostile inputs).

use crate::Site;
use crate::client::Client;
use starling_node::Rate;
use starling_wire::Down;
use starling_xmpp::{Element, MessageType, Stanza, ns};
use std::time::{Duration, Instant};

/// Waits until the home has so many.
async fn stanzas(site: &Site, count: usize) {
    for _ in 0..1_000 {
        if site.home.count("stanza") >= count {
            return;
        }
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
    panic!("{} of {count} have come", site.home.count("stanza"));
}

/// What does not happen cannot be waited for: a moment in which it would, on a machine that is not too busy.
async fn more_do_not_come(site: &Site, than: usize) {
    tokio::time::sleep(Duration::from_millis(100)).await;
    assert_eq!(site.home.count("stanza"), than, "no more than the credit");
}

#[tokio::test]
async fn a_home_that_handles_nothing_stops_the_reading() {
    let site = Site::with(|config| {
        config.limits.rate.c2s_stanzas_burst = 100_000;
        config.limits.rate.c2s_bytes_burst = 100_000_000;
    })
    .await;
    let mut client = Client::bound(site.c2s(), "phone").await;
    site.home.hold();
    let many = "<presence/>".repeat(500);
    client.send(&many).await;
    stanzas(&site, 64).await;
    more_do_not_come(&site, 64).await;
    site.home.release();
    stanzas(&site, 500).await;
}

#[tokio::test]
async fn bytes_use_up_the_credit_too() {
    let site = Site::with(|config| config.limits.rate.c2s_bytes_burst = 100_000_000).await;
    let mut client = Client::bound(site.c2s(), "phone").await;
    site.home.hold();
    let large = format!("<presence><status>{}</status></presence>", "x".repeat(50_000));
    client.send(&large.repeat(20)).await;
    stanzas(&site, 6).await;
    more_do_not_come(&site, 6).await;
}

#[tokio::test]
async fn a_client_that_is_too_fast_is_read_slower_and_loses_nothing() {
    let site = Site::with(|config| {
        config.limits.rate.c2s_stanzas = Rate::per_second(50);
        config.limits.rate.c2s_stanzas_burst = 50;
    })
    .await;
    let mut client = Client::bound(site.c2s(), "phone").await;
    let began = Instant::now();
    client.send(&"<presence/>".repeat(100)).await;
    client.send("<iq type='get' id='last'><ping xmlns='urn:xmpp:ping'/></iq>").await;
    client.expect("id='last'").await;
    assert!(began.elapsed() >= Duration::from_millis(800), "{:?}", began.elapsed());
    assert_eq!(site.home.count("stanza"), 101);
}

pub(crate) fn large() -> Down {
    let body = Element::new(ns::CLIENT, "body").text("x".repeat(60_000));
    Down::Stanza {
        number: 0,
        position: None,
        waits: false,
        counts: false,
        stanza: Stanza::message(MessageType::Chat).child(body),
        answers: 0,
        trace: None,
    }
}

#[tokio::test]
async fn t18_a_client_that_never_reads_is_let_go_and_others_are_not_concerned() {
    let site = Site::with(|config| {
        config.limits.stream.send_timeout = Duration::from_millis(800);
        config.limits.sm.max_unacked_bytes = 100_000_000;
    })
    .await;
    let stuck = Client::bound(site.c2s(), "stuck").await;
    for _ in 0..400 {
        site.home.say(large);
    }
    let mut good = Client::bound(site.c2s(), "good").await;
    good.send("<message><body>hi</body></message>").await;
    good.expect("<body>hi</body>").await;
    assert_eq!(site.home.heard("gone").await, "gone Lost");
    assert!(site.telemetry.metrics.encode().contains("reason=\"send_timeout\"} 1"));
    drop(stuck);
}

#[tokio::test]
async fn what_waits_for_one_connection_is_bounded() {
    let site = Site::with(|config| config.limits.sm.max_unacked_bytes = 65_536).await;
    let stuck = Client::bound(site.c2s(), "stuck").await;
    for _ in 0..400 {
        site.home.say(large);
    }
    assert_eq!(site.home.heard("gone").await, "gone Lost");
    drop(stuck);
}

#[tokio::test]
async fn a_slow_reader_gets_everything_in_order() {
    let site = Site::with(|config| config.limits.sm.max_unacked_bytes = 100_000_000).await;
    let mut client = Client::bound(site.c2s(), "slow").await;
    for number in 0..300 {
        let body = format!("{number} {}", "x".repeat(20_000));
        site.home.say(|| {
            let body = Element::new(ns::CLIENT, "body").text(&body);
            Down::Stanza {
                number: 0,
                position: None,
                waits: false,
                counts: false,
                stanza: Stanza::message(MessageType::Chat).child(body),
                answers: 0,
                trace: None,
            }
        });
    }
    for number in 0..300 {
        client.expect(&format!("<body>{number} ")).await;
    }
    site.home.heard("written 300").await;
}

/// Promise 1: a client that reads `<a/>` and then is cut off has read what of it was refused.
#[tokio::test]
async fn an_acknowledgement_stands_behind_the_errors_of_what_it_covers() {
    let site = Site::with(|config| config.limits.sm.max_unacked_bytes = 100_000_000).await;
    let mut client = Client::bound(site.c2s(), "slow").await;
    client.send("<enable xmlns='urn:xmpp:sm:3'/>").await;
    client.expect("<enabled xmlns='urn:xmpp:sm:3'/>").await;
    site.home.hold();
    client.send("<message><body>hi</body></message><r xmlns='urn:xmpp:sm:3'/>").await;
    stanzas(&site, 1).await;
    // More than sockets hold.
    (0..400).for_each(|_| site.home.say(large));
    site.home.say(|| Down::Stanza {
        number: 0,
        position: None,
        waits: false,
        counts: false,
        stanza: Stanza::message(MessageType::Error).id("refused"),
        answers: 1,
        trace: None,
    });
    site.home.release();
    let before = client.expect("id='refused'").await;
    assert!(!before.contains("<a "), "acknowledged before it was refused");
    client.expect("h='1'/>").await;
}

#[tokio::test]
async fn x21_white_space_is_kept_alive_by_and_not_kept() {
    let site = Site::start().await;
    let mut client = Client::bound(site.c2s(), "phone").await;
    client.send(&" ".repeat(200_000)).await;
    client.send("<iq type='get' id='1'><ping xmlns='urn:xmpp:ping'/></iq>").await;
    client.expect("id='1'").await;
    assert_eq!(site.home.count("stanza"), 1);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn a_storm_on_many_threads_loses_nothing_and_keeps_order() {
    let site = Site::with(|config| {
        config.limits.rate.c2s_stanzas_burst = 1_000_000;
        config.limits.rate.c2s_bytes_burst = 1_000_000_000;
    })
    .await;
    site.home.be_late();
    let mut tasks = Vec::new();
    for number in 0..16 {
        let mut client = Client::bound(site.c2s(), &format!("r{number}")).await;
        tasks.push(tokio::spawn(async move {
            client.send("<enable xmlns='urn:xmpp:sm:3'/>").await;
            client.expect("<enabled xmlns='urn:xmpp:sm:3'/>").await;
            let mut next = 0;
            for round in 0..60 {
                // From one message alone to more than the credit.
                let count = 1 + (round * 37 + number * 11) % 90;
                let text: String =
                    (next..next + count).map(|at| format!("<message><body>{at}.</body></message>")).collect();
                client.send(&(text + "<r xmlns='urn:xmpp:sm:3'/>")).await;
                for at in next..next + count {
                    let said = client.expect("</body></message>").await;
                    assert!(said.ends_with(&format!("<body>{at}.</body></message>")), "{at}: {said}");
                }
                next += count;
                client.expect(&format!("h='{next}'/>")).await;
            }
            client.send("</stream:stream>").await;
            client.rest().await;
            next
        }));
    }
    let mut sent = 0;
    for task in tasks {
        sent += task.await.unwrap();
    }
    assert_eq!(site.home.count("stanza"), sent);
    assert_eq!(site.home.count("gone"), 16);
}
