//! What a message asks of the CQL server, counted by Starling's own metrics while real clients talk: requests by table,
//! for a message between two who are there, to one who is away, to oneself, without an archive, the first ones after a
//! start, and over a change of buckets. A batch is one request: it is of one partition.

use std::collections::BTreeMap;
use std::fmt::Write;
use std::net::SocketAddr;
use std::rc::Rc;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail, ensure};
use futures::future::select_all;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio::time::{sleep, timeout};

use super::peer::{Kind, Peer, Site};
use super::{SiteArguments, start_cql};
use crate::offline::{is_ours, store};
use crate::sasl::Mechanism;
use crate::session::{Session, Wish};
use crate::target::Target;

/// Statements by operation and table.
type Counts = BTreeMap<(String, String), u64>;

/// Starts Starling on a CQL server, lets clients talk, prints a table.
pub(crate) async fn run(arguments: &SiteArguments) -> Result<()> {
    let Some(cql) = start_cql(arguments).await? else { bail!("there is no CQL server") };
    let mut site = Site::new(ACCOUNTS, arguments, Some(cql))?;
    let mut scenes = Scenes { table: String::new(), admin: Kind::Cql.admin() };
    writeln!(scenes.table, "| what | messages | requests each | by table |\n| --- | --- | --- | --- |")?;
    eprintln!("starting {}", Kind::Cql.name());
    let mut peer = Peer::start(Kind::Cql, &site).await?;
    let target = peer.target(Mechanism::ScramSha1)?;

    let mut pair = scenes.first_of_a_reign(&target, "new accounts").await?;
    scenes.between(&mut pair, &target, "between two who are there", MANY, 1).await?;
    scenes.between(&mut pair, &target, "the same, 50 in flight", MANY, 50).await?;
    scenes.between(&mut pair, &target, "the same, over changes of buckets", 2 * BUCKET, 50).await?;
    let [_, receiver] = pair;
    receiver.close().await;
    scenes.away(&target).await?;
    scenes.oneself(&target).await?;

    site.settings.push("archive.default=never".to_owned());
    peer.restart(&site).await?;
    let target = peer.target(Mechanism::ScramSha1)?;
    let mut pair = scenes.first_of_a_reign(&target, "with a log, no archive").await?;
    scenes.between(&mut pair, &target, "no archive: between two who are there", MANY, 1).await?;
    scenes.between(&mut pair, &target, "no archive: 50 in flight", MANY, 50).await?;
    drop(pair);
    print!("{}", scenes.table);
    peer.stop().await;
    Ok(())
}

/// The table as it grows.
struct Scenes {
    table: String,
    admin: SocketAddr,
}

impl Scenes {
    async fn first_of_a_reign(&mut self, target: &Rc<Target>, who: &str) -> Result<[Session; 2]> {
        let before = self.settled().await?;
        let mut pair = open_pair(target).await?;
        self.add(&format!("first login after a start, {who}"), 2, &before).await?;
        let before = self.settled().await?;
        exchange(&mut pair, target, 1, 1).await?;
        self.add(&format!("first message after a start, {who}"), 1, &before).await?;
        Ok(pair)
    }

    async fn between(
        &mut self,
        pair: &mut [Session; 2],
        target: &Rc<Target>,
        name: &str,
        messages: usize,
        window: usize,
    ) -> Result<()> {
        let before = self.settled().await?;
        exchange(pair, target, messages, window).await?;
        self.add(name, messages, &before).await
    }

    async fn away(&mut self, target: &Rc<Target>) -> Result<()> {
        let wish = Wish { managed: true, presence: true };
        let session = Session::open(target, &target.user(0), "writer", wish).await?;
        let tag = tag()?;
        let before = self.settled().await?;
        let to = std::iter::repeat_n(target.user(1), MANY);
        store(session, to, &target.domain, &tag, 50, BODY).await?;
        self.add("to one who is away", MANY, &before).await?;

        let before = self.settled().await?;
        let mut left = MANY;
        let mut session = Session::open_with(target, &target.user(1), "back", wish, |stanza| {
            left -= usize::from(is_ours(stanza, &tag));
        })
        .await?;
        while left > 0 {
            left -= pump(std::slice::from_mut(&mut session), &tag).await?;
        }
        session.acknowledge().await?;
        self.add("delivered to one who comes back, login included", MANY, &before).await?;
        session.close().await;
        Ok(())
    }

    async fn oneself(&mut self, target: &Rc<Target>) -> Result<()> {
        let wish = Wish { managed: true, presence: true };
        let mut session = [Session::open(target, &target.user(2), "self", wish).await?];
        talk(&mut session, &target.user(2), &target.domain, 1, 1).await?;
        let before = self.settled().await?;
        talk(&mut session, &target.user(2), &target.domain, MANY, 1).await?;
        self.add("to oneself", MANY, &before).await
    }

    /// Adds a line: what was asked since then.
    async fn add(&mut self, name: &str, messages: usize, before: &Counts) -> Result<()> {
        let mut asked = self.settled().await?;
        for (key, count) in &mut asked {
            *count -= before.get(key).copied().unwrap_or_default();
        }
        let each = |count: u64| match count as f64 / messages as f64 {
            each if each < 0.095 => format!("{each:.4}"),
            each => format!("{each:.2}"),
        };
        let by_table: Vec<String> = asked
            .iter()
            .filter(|(_, count)| **count > 0)
            .map(|((operation, table), count)| format!("{table} {operation} {}", each(*count)))
            .collect();
        let line =
            format!("| {name} | {messages} | {} | {} |", each(asked.values().sum()), by_table.join(", "));
        eprintln!("{line}");
        writeln!(self.table, "{line}")?;
        Ok(())
    }

    /// The counts when nothing more is asked.
    async fn settled(&self) -> Result<Counts> {
        let begin = Instant::now();
        let (mut counts, mut since) = (self.counts().await?, Instant::now());
        while since.elapsed() < QUIET {
            ensure!(begin.elapsed() < PATIENCE, "the server does not come to rest");
            sleep(Duration::from_millis(200)).await;
            let now = self.counts().await?;
            if now != counts {
                (counts, since) = (now, Instant::now());
            }
        }
        Ok(counts)
    }

    /// All statements that have to do with accounts; leases and the like go on all the time.
    async fn counts(&self) -> Result<Counts> {
        let text = timeout(PATIENCE, get(self.admin, "/metrics")).await.context("no metrics")??;
        let mut counts = Counts::new();
        for line in text.lines() {
            let Some(rest) = line.strip_prefix("db_client_operation_duration_seconds_count{") else {
                continue;
            };
            let (labels, value) = rest.split_once("} ").context("a metric without a value")?;
            let label = |name: &str| {
                let value = labels.split(',').find_map(|label| label.strip_prefix(name)?.strip_prefix("=\""));
                value.and_then(|value| value.strip_suffix('"')).unwrap_or_default().to_owned()
            };
            let (operation, table) = (label("db_operation_name"), label("db_collection_name"));
            if !["reigns", "cluster", "purges"].contains(&table.as_str()) {
                *counts.entry((operation, table)).or_default() += value.trim().parse::<f64>()? as u64;
            }
        }
        Ok(counts)
    }
}

async fn open_pair(target: &Rc<Target>) -> Result<[Session; 2]> {
    let wish = Wish { managed: true, presence: true };
    let open = async |number| Session::open(target, &target.user(number), "talk", wish).await;
    Ok([open(0).await?, open(1).await?])
}

/// The first writes to the second, who acknowledges when asked and at the end.
async fn exchange(
    pair: &mut [Session; 2],
    target: &Rc<Target>,
    messages: usize,
    window: usize,
) -> Result<()> {
    talk(pair, &target.user(1), &target.domain, messages, window).await?;
    pair[1].acknowledge().await
}

/// The first of the sessions writes to an account, so many messages being under way.
async fn talk(
    sessions: &mut [Session],
    to: &str,
    domain: &str,
    messages: usize,
    window: usize,
) -> Result<()> {
    let tag = tag()?;
    let (mut sent, mut arrived) = (0, 0);
    while arrived < messages {
        let mut out = String::new();
        while sent < messages && sent < arrived + window {
            sent += 1;
            write!(
                out,
                "<message to='{to}@{domain}' type='chat' id='{tag}-{sent:015}'><body>{BODY}</body></message>"
            )?;
        }
        sessions[0].write(out.as_bytes()).await?;
        arrived += pump(sessions, &tag).await?;
    }
    Ok(())
}

/// Reads from whichever session has something, answers requests, and gives how many messages of ours came.
async fn pump(sessions: &mut [Session], tag: &str) -> Result<usize> {
    let reads = select_all(sessions.iter_mut().map(|session| Box::pin(session.read())));
    timeout(PATIENCE, reads).await.context("no message comes")?.0?;
    let mut arrived = 0;
    let mut answers = Vec::new();
    for session in sessions {
        while let Some(stanza) = session.next(&mut answers)? {
            arrived += usize::from(is_ours(stanza, tag));
        }
        session.write(&answers).await?;
        answers.clear();
    }
    Ok(arrived)
}

/// The body of an HTTP answer.
pub(crate) async fn get(address: SocketAddr, path: &str) -> Result<String> {
    let mut stream = TcpStream::connect(address).await?;
    let request = format!("GET {path} HTTP/1.1\r\nHost: {address}\r\nConnection: close\r\n\r\n");
    stream.write_all(request.as_bytes()).await?;
    let mut answer = String::new();
    stream.read_to_string(&mut answer).await?;
    let (head, body) = answer.split_once("\r\n\r\n").context("not HTTP")?;
    ensure!(head.starts_with("HTTP/1.1 200"), "{path}: {head}");
    Ok(body.to_owned())
}

/// Marks the messages of one exchange.
fn tag() -> Result<String> {
    Ok(format!("count{:016x}", std::time::UNIX_EPOCH.elapsed()?.as_nanos() as u64))
}

const ACCOUNTS: usize = 10;
const MANY: usize = 200;
/// Rows after which a bucket is closed.
const BUCKET: usize = 5_000;
const BODY: &str = "Shall we meet at the station at six, or is that too early???";
/// When nothing was asked for so long, nothing more comes.
const QUIET: Duration = Duration::from_secs(2);
const PATIENCE: Duration = Duration::from_secs(60);
