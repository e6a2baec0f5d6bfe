//! What a link costs: `cargo test --release -p starling-wire --test cost -- --ignored --nocapture`.
//!
//! Both ends are in this process, so the figures are for an edge and a router together: making the messages, TLS, TCP,
//! reading them. Envelopes carry a chat message of about 250 bytes.
#![allow(clippy::disallowed_methods, clippy::unwrap_used, missing_docs)]

use bytes::Bytes;
use futures::future::BoxFuture;
use nix::sys::resource::{UsageWho, getrusage};
use starling_node::SystemClock;
use starling_store::AccountRow;
use starling_wire::frame::{
    EdgeHello, EdgeItem, Home, PeerHello, PeerItem, RouterHello, RouterItem, RouterNews, UpBatch, Version,
};
use starling_wire::net::{
    EdgeClient, Edges, End, Hears, LinkedRouter, Options, Outlet, Peers, Routers, Seeds, Server,
};
use starling_wire::tls::{Authority, Files, Identity, Role, Tls};
use starling_wire::{
    ConnId, Down, EdgeId, Epoch, Incarnation, LinkError, Registration, RouterId, Shard, Shards, ToEdge,
    ToHome, Up,
};
use starling_xmpp::sasl::Credentials;
use starling_xmpp::{BareJid, Element, Jid, MessageType, Stanza, ns};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, OnceLock};
use std::time::{Duration, Instant};

const HOME: Home = Home { shard: Shard(3), epoch: Epoch(1) };

#[derive(Default)]
struct Ends {
    heard_up: AtomicU64,
    heard_down: AtomicU64,
    up: OnceLock<Outlet<EdgeItem>>,
    down: OnceLock<Outlet<RouterItem>>,
}

struct Host(Arc<Ends>);
struct Ear(Arc<Ends>);

impl Hears<UpBatch> for Ear {
    fn hear(&mut self, items: Vec<UpBatch>) {
        let count: usize = items.iter().map(|batch| batch.ups.len()).sum();
        self.0.heard_up.fetch_add(count as u64, Ordering::Relaxed);
    }
    fn ended(&mut self, _end: &End) {}
}

impl Hears<RouterNews> for Ear {
    fn hear(&mut self, items: Vec<RouterNews>) {
        let count = |news: &RouterNews| if let RouterNews::Downs(_, downs) = news { downs.len() } else { 0 };
        let count: usize = items.iter().map(count).sum();
        self.0.heard_down.fetch_add(count as u64, Ordering::Relaxed);
    }
    fn ended(&mut self, _end: &End) {}
}

impl Hears<PeerItem> for Ear {
    fn hear(&mut self, _items: Vec<PeerItem>) {}
    fn ended(&mut self, _end: &End) {}
}

fn version() -> Version {
    Version::own("one", Shards::default())
}

impl Edges for Host {
    fn connected(
        &self,
        _edge: EdgeHello,
        outlet: Outlet<RouterItem>,
    ) -> Result<(RouterHello, Box<dyn Hears<UpBatch>>), String> {
        let _ = self.0.down.set(outlet);
        let hello = RouterHello {
            version: version(),
            router: RouterId(1),
            name: "r".to_owned(),
            incarnation: Incarnation(1),
            homes: vec![HOME],
            decoy_secret: Bytes::new(),
            features: Vec::new(),
            routers: Vec::new(),
        };
        Ok((hello, Box::new(Ear(Arc::clone(&self.0)))))
    }
    fn account(&self, _account: BareJid) -> BoxFuture<'static, Result<Option<AccountRow>, LinkError>> {
        Box::pin(async { Ok(None) })
    }
    fn register(
        &self,
        _account: BareJid,
        _credentials: Credentials,
    ) -> BoxFuture<'static, Result<Registration, LinkError>> {
        Box::pin(async { Ok(Registration::Created) })
    }
}

impl Peers for Host {
    fn hello(&self) -> PeerHello {
        PeerHello {
            version: version(),
            router: RouterId(1),
            name: "r".to_owned(),
            incarnation: Incarnation(1),
            homes: Vec::new(),
            notes: Bytes::new(),
            heard: None,
        }
    }
    fn connected(&self, _peer: PeerHello) -> Result<Box<dyn Hears<PeerItem>>, String> {
        Ok(Box::new(Ear(Arc::clone(&self.0))))
    }
    fn linked(&self, _peer: PeerHello, _outlet: Outlet<PeerItem>) -> Box<dyn Hears<PeerItem>> {
        Box::new(Ear(Arc::clone(&self.0)))
    }
    fn raft(
        &self,
        _from: RouterId,
        _name: &Arc<str>,
        _group: u16,
        body: Bytes,
    ) -> BoxFuture<'static, Result<Bytes, String>> {
        Box::pin(async { Ok(body) })
    }
    fn notes(&self) -> Bytes {
        Bytes::new()
    }
}

impl Routers for Host {
    fn hello(&self) -> EdgeHello {
        EdgeHello { version: version(), edge: EdgeId(7), name: "e".to_owned() }
    }
    fn linked(&self, router: LinkedRouter) -> Box<dyn Hears<RouterNews>> {
        let _ = self.0.up.set(router.outlet);
        Box::new(Ear(Arc::clone(&self.0)))
    }
}

fn tls(dir: &std::path::Path, authority: &Authority, role: Role, now: u64) -> Arc<Tls> {
    let identity = Identity::new("one", role, "*").unwrap();
    let pair = authority.issue(&identity, &[], now, Duration::from_secs(3600)).unwrap();
    let path = |what: &str| dir.join(format!("{}-{what}.pem", role.as_str()));
    std::fs::write(path("ca"), &authority.pair().cert).unwrap();
    std::fs::write(path("cert"), pair.cert).unwrap();
    std::fs::write(path("key"), pair.key).unwrap();
    let files = Files { ca: path("ca"), cert: path("cert"), key: path("key") };
    Tls::load(files, "one", role, SystemClock::shared()).unwrap()
}

fn cpu() -> Duration {
    let usage = getrusage(UsageWho::RUSAGE_SELF).unwrap();
    let of = |time: nix::sys::time::TimeVal| {
        Duration::new(time.tv_sec() as u64, 0) + Duration::from_micros(time.tv_usec() as u64)
    };
    of(usage.user_time()) + of(usage.system_time())
}

fn stanza() -> Stanza {
    let text = "a message of usual length, as people write them to one another all day";
    Stanza::message(MessageType::Chat)
        .to(Jid::parse("bob@example.org").unwrap())
        .from(Jid::parse("alice@example.org/a-phone").unwrap())
        .id("f8e2c1f0-7d0c-4c80")
        .child(Element::new(ns::CLIENT, "body").text(text))
}

#[test]
#[ignore = "a measurement for an idle machine: run it by name, with --release"]
fn cost_of_an_envelope() {
    let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build().unwrap();
    runtime.block_on(async {
        let dir = tempfile::tempdir().unwrap();
        let now = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH).unwrap().as_secs();
        let authority = Authority::create("one", now, Duration::from_secs(3600)).unwrap();
        let ends = Arc::new(Ends::default());
        let host = || Arc::new(Host(Arc::clone(&ends)));
        let server_tls = tls(dir.path(), &authority, Role::Router, now);
        let address = "127.0.0.1:0".parse().unwrap();
        let server = Server::start(address, server_tls, Options::default(), host(), host()).await.unwrap();
        let seeds = Arc::new(Seeds(vec![server.address().to_string()]));
        let edge_tls = tls(dir.path(), &authority, Role::Edge, now);
        let _client = EdgeClient::start(seeds, edge_tls, Options::default(), host());
        while ends.up.get().is_none() {
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
        let (up, down) = (ends.up.get().unwrap(), ends.down.get().unwrap());
        let stanza = stanza();
        let account = BareJid::parse("alice@example.org").unwrap();
        let conn = ConnId { edge: EdgeId(7), number: 5 };
        println!("stanza of {} bytes", stanza.encode().len());
        let mut sequence = 0;
        for (name, rate, seconds) in
            [("1,000/s", 1_000u64, 4u64), ("10,000/s", 10_000, 4), ("all it can", 0, 4)]
        {
            let (began, cpu_began) = (Instant::now(), cpu());
            let heard = || ends.heard_up.load(Ordering::Relaxed) + ends.heard_down.load(Ordering::Relaxed);
            let first = heard();
            let mut sent = 0u64;
            while began.elapsed() < Duration::from_secs(seconds) {
                let due = match rate {
                    0 if heard() - first + 4_000 > sent => 500,
                    0 => 0,
                    rate => (began.elapsed().as_micros() as u64 * rate / 1_000_000).saturating_sub(sent) / 2,
                };
                for _ in 0..due {
                    sequence += 1;
                    let said = Up::Stanza {
                        sequence,
                        stanza: stanza.clone(),
                        fault: None,
                        trace: None,
                        again: false,
                    };
                    up.push(EdgeItem::Up(HOME, ToHome { account: account.clone(), conn, up: said }));
                    let told = Down::Stanza {
                        number: sequence,
                        position: None,
                        waits: false,
                        counts: true,
                        stanza: stanza.clone(),
                        answers: 0,
                        trace: None,
                    };
                    down.push(RouterItem::Down(HOME, ToEdge { conn, down: told }));
                    sent += 2;
                }
                match rate {
                    0 => tokio::task::yield_now().await,
                    _ => tokio::time::sleep(Duration::from_millis(1)).await,
                }
            }
            while heard() - first < sent {
                tokio::time::sleep(Duration::from_millis(1)).await;
            }
            let (took, used) = (began.elapsed(), cpu() - cpu_began);
            println!(
                "{name}: {:.0} envelopes a second, {:.2} us of CPU each, both ends together",
                sent as f64 / took.as_secs_f64(),
                used.as_secs_f64() * 1e6 / sent as f64
            );
        }
    });
}
