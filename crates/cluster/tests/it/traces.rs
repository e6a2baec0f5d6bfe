//! One trace per stanza over edges, homes of several routers and the store, with real sockets at both ends; and accounts that
//! are traced by hand, wherever their clients are.

use crate::site::{Site, jid, until};
use starling_cluster::{EdgeNode, RouterNode};
use starling_node::config::TelemetrySettings;
use starling_node::telemetry::EndedSpans;
use starling_node::{SystemClock, Telemetry};
use starling_tests::certificate::Certificate;
use starling_tests::{Client, Login, Target};
use std::collections::BTreeMap;
use std::time::Duration;
use tempfile::TempDir;

const BODY: &str = "marker-body";
const SOON: Duration = Duration::from_secs(30);

/// A process, and what it has recorded.
struct Recorder {
    name: String,
    telemetry: Telemetry,
    spans: EndedSpans,
}

impl Recorder {
    fn new(name: String, messages: f64) -> Self {
        let mut settings = TelemetrySettings::default();
        settings.sample.message = messages;
        (settings.sample.iq, settings.sample.presence, settings.sample.login) = (0.0, 0.0, 0.0);
        settings.traces_per_second = 1_000;
        let (telemetry, spans) = Telemetry::in_memory(&settings, SystemClock::shared());
        Self { name, telemetry, spans }
    }
}

/// A span of any process.
#[derive(Debug, Clone)]
struct Seen {
    process: String,
    name: String,
    trace: [u8; 16],
    id: [u8; 8],
    parent: [u8; 8],
    links: Vec<[u8; 16]>,
    text: String,
}

/// Routers and edges with real clients, of which everything is recorded.
struct World {
    site: Site,
    recorders: Vec<Recorder>,
    edges: Vec<EdgeNode>,
    dir: TempDir,
    certificate: Certificate,
}

impl World {
    /// Three routers and two edges; this part of the messages is sampled.
    async fn start(messages: f64) -> Self {
        let mut site = Site::empty(3).await;
        let recorders: Vec<_> =
            (0..3).map(|number| Recorder::new(format!("router-{number}"), messages)).collect();
        for (number, recorder) in recorders.iter().enumerate() {
            site.run_with(number, recorder.telemetry.clone()).await;
        }
        site.settled(SOON).await;
        let dir = TempDir::new().unwrap();
        let certificate = Certificate::make(dir.path(), &["localhost"]).unwrap();
        let mut world = Self { site, recorders, edges: Vec::new(), dir, certificate };
        for _ in 0..2 {
            world.edge(messages).await;
        }
        world
    }

    /// One more edge.
    async fn edge(&mut self, messages: f64) {
        let name = format!("edge-{}", self.edges.len());
        let recorder = Recorder::new(name.clone(), messages);
        let mut config = self.site.edge_config(&name);
        config.tls.cert = Some(self.certificate.chain.clone());
        config.tls.key = Some(self.certificate.key.clone());
        self.edges.push(EdgeNode::start(config, recorder.telemetry.clone()).await.unwrap());
        self.recorders.push(recorder);
    }

    fn target(&self, edge: usize) -> Target {
        let listeners = self.edges[edge].listeners();
        let address = |name: &str| listeners.iter().find(|one| one.name == name).unwrap().address;
        Target {
            c2s: address("c2s"),
            c2s_tls: Some(address("c2s_tls")),
            domain: "localhost".to_owned(),
            tls: self.certificate.client_config().unwrap(),
        }
    }

    /// A client of an account at an edge.
    async fn client(&self, account: &str, resource: &str, edge: usize) -> Client {
        let target = self.target(edge);
        for _ in 0..300 {
            let login = Login::new(account, "secret").resource(resource).managed();
            if let Ok(mut client) = login.connect(&target).await {
                client.come_online().await.unwrap();
                return client;
            }
            tokio::time::sleep(Duration::from_millis(100)).await;
        }
        panic!("{account} cannot log in");
    }

    /// The router that is the home of an account.
    fn home(&self, account: &str) -> Option<usize> {
        let shard = self.site.shards().of(&jid(account));
        self.site.routers.iter().position(|router| {
            let group = router.as_ref().and_then(|node| node.locations().group(shard));
            group.is_some_and(|group| group.leader() == router.as_ref().map(RouterNode::id))
        })
    }

    /// So many accounts whose homes are at different routers.
    async fn apart(&self, count: usize) -> Vec<String> {
        for _ in 0..600 {
            let mut found: BTreeMap<usize, String> = BTreeMap::new();
            for number in 0..64 {
                let name = format!("marker-{number}");
                if let Some(home) = self.home(&name) {
                    found.entry(home).or_insert(name);
                }
            }
            if found.len() >= count {
                return found.into_values().take(count).collect();
            }
            tokio::time::sleep(Duration::from_millis(50)).await;
        }
        panic!("one router leads all shards");
    }

    fn all(&self) -> Vec<Seen> {
        let of = |recorder: &Recorder| {
            let spans = recorder.spans.all().into_iter();
            let seen = spans.map(|span| Seen {
                process: recorder.name.clone(),
                name: span.name.to_string(),
                trace: span.span_context.trace_id().to_bytes(),
                id: span.span_context.span_id().to_bytes(),
                parent: span.parent_span_id.to_bytes(),
                links: span.links.links.iter().map(|link| link.span_context.trace_id().to_bytes()).collect(),
                text: format!("{span:?}"),
            });
            seen.collect::<Vec<_>>()
        };
        self.recorders.iter().flat_map(of).collect()
    }

    /// All traces as trees: names with the process, children in parentheses.
    fn trees(&self) -> Vec<String> {
        let all = self.all();
        let roots = all.iter().filter(|span| span.parent == [0; 8]);
        roots.map(|root| tree(root, &all)).collect()
    }

    /// No address, body or password is in spans or metrics.
    fn is_discreet(&self) {
        for span in self.all() {
            for marker in ["marker", "localhost", BODY, "secret"] {
                assert!(!span.text.contains(marker), "{marker} is in {}", span.text);
            }
        }
        for recorder in &self.recorders {
            let metrics = recorder.telemetry.metrics.encode();
            assert!(!metrics.contains("marker") && !metrics.contains(BODY), "{metrics}");
        }
    }

    async fn stop(self) {
        for edge in self.edges {
            tokio::time::timeout(SOON, edge.stop()).await.unwrap();
        }
        drop(self.dir);
    }
}

fn tree(span: &Seen, all: &[Seen]) -> String {
    let children = all.iter().filter(|other| other.trace == span.trace && other.parent == span.id);
    let mut children: Vec<_> = children.map(|child| tree(child, all)).collect();
    children.sort();
    let below = if children.is_empty() { String::new() } else { format!(" ({})", children.join(", ")) };
    format!("{} {}{below}", span.process, span.name)
}

/// Whichever routers they are.
fn plain(trees: &[String]) -> Vec<String> {
    let plain = |tree: &String| {
        (0..3).fold(tree.clone(), |tree, number| tree.replace(&format!("router-{number}"), "router"))
    };
    trees.iter().map(plain).collect()
}

async fn say(from: &mut Client, to: &str) {
    let message = format!("<message to='{to}@localhost' type='chat'><body>{BODY}</body></message>");
    from.send_stanza(message).await.unwrap();
}

async fn hears(client: &mut Client) {
    client.next_that(|node| node.name == "message").await.unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn a_message_is_one_tree_over_all_processes() {
    let world = World::start(1.0).await;
    let names = world.apart(2).await;
    let [alice, bob] = [names[0].as_str(), names[1].as_str()];
    for name in &names {
        world.site.account(name).await;
    }
    let mut sender = world.client(alice, "phone", 0).await;
    let mut other = world.client(alice, "tablet", 1).await;
    other.iq("<iq type='set' id='{id}'><enable xmlns='urn:xmpp:carbons:2'/></iq>").await.unwrap();
    let mut phone = world.client(bob, "phone", 1).await;
    let mut laptop = world.client(bob, "laptop", 0).await;

    let wanted = "edge-0 edge receive (router home sent (router store write (edge-1 edge deliver, router home received \
                  (router store write (edge-0 edge deliver, edge-1 edge deliver)))))";
    // A home that moves meanwhile may be at the same router, or be asked twice.
    let mut attempts = 0;
    loop {
        let before = world.trees().len();
        say(&mut sender, bob).await;
        hears(&mut phone).await;
        hears(&mut laptop).await;
        hears(&mut other).await;
        sender.settle().await.unwrap();
        let delivers = || world.all().iter().filter(|span| span.name == "edge deliver").count();
        until(SOON, "all is delivered", || delivers() >= 3 * (attempts + 1)).await;
        let trees = world.trees();
        assert_eq!(trees.len(), before + 1, "one root for each message: {trees:?}");
        let routers = |tree: &str| (0..3).filter(|number| tree.contains(&format!("router-{number}"))).count();
        if trees.iter().zip(plain(&trees)).any(|(tree, plain)| plain == wanted && routers(tree) == 2) {
            break;
        }
        attempts += 1;
        assert!(attempts < 5, "{trees:?}");
    }
    world.is_discreet();
    world.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn what_waits_is_a_trace_of_its_own_that_is_linked() {
    let world = World::start(1.0).await;
    let names = world.apart(2).await;
    let [alice, bob] = [names[0].as_str(), names[1].as_str()];
    for name in &names {
        world.site.account(name).await;
    }
    let mut sender = world.client(alice, "phone", 0).await;
    say(&mut sender, bob).await;
    say(&mut sender, bob).await;
    sender.settle().await.unwrap();
    let mut phone = world.client(bob, "phone", 1).await;
    hears(&mut phone).await;
    hears(&mut phone).await;

    let sent = "edge-0 edge receive (router home sent (router store write (router home received (router store write))))";
    let fed = "router home feed (edge-1 edge deliver, edge-1 edge deliver)";
    until(SOON, "all is there", || plain(&world.trees()).iter().any(|tree| tree == fed)).await;
    let mut trees = plain(&world.trees());
    trees.sort();
    assert_eq!(trees, [sent, sent, fed]);
    let all = world.all();
    let feed = all.iter().find(|span| span.name == "home feed").unwrap();
    let messages: Vec<_> =
        all.iter().filter(|span| span.name == "edge receive").map(|span| span.trace).collect();
    assert_eq!(feed.links, messages, "{feed:?}");
    world.is_discreet();
    world.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_trace_goes_on_with_the_next_home() {
    let mut world = World::start(1.0).await;
    let names = world.apart(2).await;
    let [alice, bob] = [names[0].as_str(), names[1].as_str()];
    for name in &names {
        world.site.account(name).await;
    }
    let mut sender = world.client(alice, "phone", 0).await;
    let mut phone = world.client(bob, "phone", 1).await;
    let lost = world.home(bob).unwrap();
    world.site.kill(lost).await;
    say(&mut sender, bob).await;
    hears(&mut phone).await;

    let delivered = |world: &World| {
        let all = world.all();
        let delivered = all.iter().filter(|span| span.name == "edge deliver");
        delivered
            .filter(|span| all.iter().any(|root| root.trace == span.trace && root.name == "edge receive"))
            .count()
    };
    until(SOON, "it is delivered within its trace", || delivered(&world) == 1).await;
    let all = world.all();
    let received = all.iter().find(|span| span.name == "home received").unwrap();
    assert_ne!(received.process, format!("router-{lost}"), "{:?}", world.trees());
    assert_eq!(all.iter().filter(|span| span.parent == [0; 8]).count(), 1, "{:?}", world.trees());
    world.is_discreet();
    world.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn an_account_is_traced_at_all_edges_by_a_word_to_one_router() {
    let mut world = World::start(0.0).await;
    let names = ["marker-a", "marker-b", "marker-c", "marker-d"];
    for name in names {
        world.site.account(name).await;
    }
    let [mut alice, mut bob] =
        [world.client("marker-a", "x", 0).await, world.client("marker-b", "x", 1).await];
    let [mut carol, mut dave] =
        [world.client("marker-c", "x", 0).await, world.client("marker-d", "x", 1).await];
    say(&mut alice, "marker-b").await;
    hears(&mut bob).await;
    assert!(world.trees().is_empty(), "nothing is sampled");

    let mut first = starling_admin::Client::connect(&world.site.data_dir(0)).await.unwrap();
    let mut last = starling_admin::Client::connect(&world.site.data_dir(2)).await.unwrap();
    let started = first.trace_start("marker-a@localhost", 60, 3).await.unwrap();
    assert_eq!((started.rules[0].state.as_str(), started.warnings.as_slice()), ("on", &[][..]));
    // Who comes later is told, too.
    world.edge(0.0).await;
    let told = |world: &World| world.recorders[3..].iter().all(|edge| !edge.telemetry.targets.is_empty());
    until(SOON, "all edges are told", || told(&world)).await;

    say(&mut alice, "marker-b").await;
    hears(&mut bob).await;
    say(&mut bob, "marker-a").await;
    hears(&mut alice).await;
    say(&mut carol, "marker-d").await;
    hears(&mut dave).await;
    let roots = |world: &World| {
        let roots = world.all().into_iter().filter(|span| span.parent == [0; 8]);
        roots.map(|root| root.process).collect::<Vec<_>>()
    };
    until(SOON, "both are recorded", || roots(&world).len() >= 2).await;
    let mut at = roots(&world);
    at.sort();
    assert_eq!(at, ["edge-0", "edge-1"], "what it sends and what is sent to it, and nothing else");
    let delivers = |world: &World| world.all().iter().filter(|span| span.name == "edge deliver").count();
    until(SOON, "up to the other edge", || delivers(&world) == 2).await;

    // It is used up, over all edges; every router knows.
    for _ in 0..4 {
        say(&mut alice, "marker-b").await;
        hears(&mut bob).await;
    }
    until(SOON, "no edge traces", || {
        world.recorders[3..].iter().all(|edge| edge.telemetry.targets.is_empty())
    })
    .await;
    // Edges say once a second what they have begun.
    let mut rows = last.traces().await.unwrap().rules;
    for _ in 0..600 {
        if rows.iter().map(|row| row.traces).sum::<u64>() == roots(&world).len() as u64 {
            break;
        }
        tokio::time::sleep(Duration::from_millis(100)).await;
        rows = last.traces().await.unwrap().rules;
    }
    assert_eq!((rows.len(), rows[0].state.as_str()), (1, "used up"));
    assert_eq!((rows[0].traces, roots(&world).len() as u64), (rows[0].traces.clamp(3, 6), rows[0].traces));

    // Any router ends it.
    first.trace_start("marker-c@localhost", 60, 100).await.unwrap();
    until(SOON, "all edges are told again", || told(&world)).await;
    let stopped = last.trace_stop("marker-c@localhost").await.unwrap();
    assert_eq!(stopped.rules[0].state, "stopped");
    until(SOON, "all edges have stopped", || {
        world.recorders[3..].iter().all(|edge| edge.telemetry.targets.is_empty())
    })
    .await;
    assert!(last.trace_stop("marker-c@localhost").await.is_err());
    assert!(first.trace_start("marker-a@elsewhere.example", 60, 3).await.is_err());

    let mut edge = starling_admin::Client::connect(&world.site.edge_config("edge-0").data_dir).await.unwrap();
    let error = edge.trace_start("marker-a@localhost", 60, 3).await.unwrap_err().to_string();
    assert!(error.contains("settings of a router"), "{error}");
    world.is_discreet();
    world.stop().await;
}
