//! The OpenTelemetry Collector, as others run it: it takes spans by OTLP over gRPC, and posts what it took as JSON to a sink in
//! this process.
//!
//! `tests/collector/install` builds it. What the sink has is what the Collector understood, not what a server meant to send.

use std::collections::BTreeMap;
use std::fs::{self, File};
use std::net::{SocketAddr, TcpListener};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::Arc;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail, ensure};
use parking_lot::Mutex;
use serde_json::Value;
use tempfile::TempDir;
use tokio::io::{AsyncBufRead, AsyncBufReadExt as _, AsyncReadExt as _, AsyncWriteExt as _, BufStream};
use tokio::net::TcpStream;
use tokio::sync::watch;
use tokio::task::{AbortHandle, JoinSet};

const START: Duration = Duration::from_secs(20);
/// More than any batch of spans takes.
const LONGEST: usize = 16 << 20;
const LONGEST_LINE: u64 = 16 << 10;

/// A running Collector. It dies with this value.
pub struct Collector {
    child: Child,
    address: SocketAddr,
    sink: Sink,
    directory: TempDir,
}

/// Why there is none here, if so: `tests/collector/install` has not run, or could not do it.
pub fn missing() -> Option<String> {
    let why = || "the OpenTelemetry Collector is not built: run `make collector`".to_owned();
    (!binary().exists()).then(why)
}

fn binary() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../.cache/collector-0.160.0/otelcol")
}

impl Collector {
    /// Starts one and waits until it takes spans.
    pub async fn start() -> Result<Self> {
        let directory = TempDir::with_prefix("starling-collector-")?;
        let sink = Sink::open().await?;
        let address = TcpListener::bind(("127.0.0.1", 0))?.local_addr()?;
        let config = directory.path().join("collector.yaml");
        fs::write(&config, configuration(address, sink.address))?;
        let log = File::create(directory.path().join("collector.log"))?;
        let mut command = Command::new("setpriv");
        command.args(["--pdeathsig", "KILL"]).arg(binary()).arg("--config").arg(config);
        command.stdin(Stdio::null()).stdout(log.try_clone()?).stderr(log);
        let child = command.spawn().with_context(|| format!("cannot run {command:?}"))?;
        let mut collector = Self { child, address, sink, directory };
        let deadline = Instant::now() + START;
        while TcpStream::connect(address).await.is_err() {
            let ended = collector.child.try_wait()?;
            if ended.is_some() || Instant::now() > deadline {
                bail!("the Collector takes no spans ({ended:?}): {}", collector.log());
            }
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
        Ok(collector)
    }

    /// Where it takes spans, as `telemetry.otlp_endpoint` names it.
    pub fn endpoint(&self) -> String {
        format!("http://{}", self.address)
    }

    /// The documents that it has posted, as they are.
    pub fn documents(&self) -> Vec<String> {
        self.sink.documents.lock().clone()
    }

    /// All spans that it has posted.
    pub fn spans(&self) -> Result<Vec<Span>> {
        let mut spans = Vec::new();
        for document in self.documents() {
            read(&document, &mut spans).with_context(|| format!("in {document}"))?;
        }
        Ok(spans)
    }

    /// Waits until it has posted spans that are as they should be.
    pub async fn until(&self, within: Duration, enough: impl Fn(&[Span]) -> bool) -> Result<()> {
        let mut posted = self.sink.posted.subscribe();
        let wait = async {
            while !enough(&self.spans()?) {
                posted.changed().await?;
            }
            anyhow::Ok(())
        };
        match tokio::time::timeout(within, wait).await {
            Ok(done) => done,
            Err(_) => bail!(
                "not after {within:?}; there are {:#?}; the Collector said: {}",
                trees(&self.spans()?),
                self.log()
            ),
        }
    }

    /// What it has written itself.
    pub fn log(&self) -> String {
        fs::read_to_string(self.directory.path().join("collector.log")).unwrap_or_default()
    }
}

impl Drop for Collector {
    fn drop(&mut self) {
        // Nothing to be done about a failure here.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// Without a queue: whoever sends to it hears of success when the sink has the spans.
fn configuration(receiver: SocketAddr, sink: SocketAddr) -> String {
    format!(
        "receivers:\n  otlp: {{protocols: {{grpc: {{endpoint: \"{receiver}\"}}}}}}\n\
         exporters:\n  otlp_http:\n    endpoint: \"http://{sink}\"\n    encoding: json\n    compression: none\n    \
         sending_queue: {{enabled: false}}\n    retry_on_failure: {{enabled: false}}\n\
         service:\n  telemetry: {{metrics: {{level: none}}}}\n  \
         pipelines:\n    traces: {{receivers: [otlp], exporters: [otlp_http]}}\n"
    )
}

/// Takes what is posted to it. It ends with its value.
struct Sink {
    address: SocketAddr,
    documents: Arc<Mutex<Vec<String>>>,
    posted: watch::Sender<()>,
    task: AbortHandle,
}

impl Sink {
    async fn open() -> Result<Self> {
        let listener = tokio::net::TcpListener::bind(("127.0.0.1", 0)).await?;
        let address = listener.local_addr()?;
        let documents: Arc<Mutex<Vec<String>>> = Arc::default();
        let posted = watch::Sender::new(());
        let (kept, told) = (documents.clone(), posted.clone());
        let task = tokio::spawn(async move {
            let mut connections = JoinSet::new();
            while let Ok((stream, _)) = listener.accept().await {
                let (kept, told) = (kept.clone(), told.clone());
                connections.spawn(async move {
                    let mut stream = BufStream::new(stream);
                    while let Ok(document) = posted_document(&mut stream).await {
                        kept.lock().push(document);
                        told.send_replace(());
                    }
                });
            }
        });
        Ok(Self { address, documents, posted, task: task.abort_handle() })
    }
}

impl Drop for Sink {
    fn drop(&mut self) {
        self.task.abort();
    }
}

/// The body of the next request, which is answered.
async fn posted_document(stream: &mut BufStream<TcpStream>) -> Result<String> {
    let request = line(stream).await?;
    ensure!(request.starts_with("POST /v1/traces "), "{request}");
    let mut length = None;
    loop {
        let header = line(stream).await?;
        match header.split_once(':') {
            Some((name, value)) if name.eq_ignore_ascii_case("content-length") => {
                length = Some(value.trim().parse::<usize>()?);
            }
            Some((name, value)) if name.eq_ignore_ascii_case("content-type") => {
                ensure!(value.trim() == "application/json", "{header}");
            }
            Some(_) => {}
            None => break,
        }
    }
    let length = length.filter(|length| *length <= LONGEST).context("no length, or too long")?;
    let mut body = vec![0; length];
    stream.read_exact(&mut body).await?;
    let answer = b"HTTP/1.1 200 OK\r\nContent-Type: application/json\r\nContent-Length: 2\r\n\r\n{}";
    stream.write_all(answer).await?;
    stream.flush().await?;
    Ok(String::from_utf8(body)?)
}

async fn line(stream: &mut (impl AsyncBufRead + Unpin)) -> Result<String> {
    let mut line = String::new();
    stream.take(LONGEST_LINE).read_line(&mut line).await?;
    ensure!(line.ends_with('\n'), "the connection has ended");
    Ok(line.trim_end().to_owned())
}

/// A span as the Collector tells it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Span {
    /// The trace.
    pub trace: String,
    /// The span itself.
    pub id: String,
    /// The span above it; empty at the head of a trace.
    pub parent: String,
    /// What it is called.
    pub name: String,
    /// `service.name` of its process.
    pub service: String,
    /// `starling.node` of its process; empty of one that is no cluster.
    pub node: String,
    /// Its own attributes that are words.
    pub attributes: BTreeMap<String, String>,
}

/// Adds the spans of an `ExportTraceServiceRequest` in the JSON form of OTLP.
fn read(document: &str, spans: &mut Vec<Span>) -> Result<()> {
    let document: Value = serde_json::from_str(document)?;
    for resource in list(&document, "resourceSpans") {
        let about = attributes(&resource["resource"]);
        let of = |key: &str| about.get(key).cloned().unwrap_or_default();
        for scope in list(resource, "scopeSpans") {
            for span in list(scope, "spans") {
                let text = |key: &str| span[key].as_str().unwrap_or_default().to_owned();
                spans.push(Span {
                    trace: text("traceId"),
                    id: text("spanId"),
                    parent: text("parentSpanId"),
                    name: text("name"),
                    service: of("service.name"),
                    node: of("starling.node"),
                    attributes: attributes(span),
                });
            }
        }
    }
    Ok(())
}

fn list<'a>(value: &'a Value, key: &str) -> impl Iterator<Item = &'a Value> {
    value[key].as_array().into_iter().flatten()
}

fn attributes(value: &Value) -> BTreeMap<String, String> {
    let pairs = list(value, "attributes").filter_map(|one| Some((one["key"].as_str()?, &one["value"])));
    let words =
        pairs.filter_map(|(key, value)| Some((key.to_owned(), value["stringValue"].as_str()?.to_owned())));
    words.collect()
}

/// A trace as one value.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Tree {
    /// The span at its head, or one whose parent is not there.
    pub span: Span,
    /// What is below it, by name.
    pub below: Vec<Self>,
}

impl Tree {
    /// Itself and all below, from the head downwards.
    pub fn all(&self) -> Vec<&Span> {
        std::iter::once(&self.span).chain(self.below.iter().flat_map(Self::all)).collect()
    }
}

/// All spans as trees. Every span is in one of them: what has lost its parent is the head of a tree with a parent.
pub fn trees(spans: &[Span]) -> Vec<Tree> {
    let there =
        |span: &Span| spans.iter().any(|other| (&other.trace, &other.id) == (&span.trace, &span.parent));
    spans.iter().filter(|span| !there(span)).map(|span| tree(span, spans)).collect()
}

fn tree(span: &Span, spans: &[Span]) -> Tree {
    let children = spans.iter().filter(|other| other.trace == span.trace && other.parent == span.id);
    let mut below: Vec<Tree> = children.map(|child| tree(child, spans)).collect();
    below.sort_by(|a, b| a.span.name.cmp(&b.span.name));
    Tree { span: span.clone(), below }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_document_becomes_trees() {
        let span = |id: &str, parent: &str, name: &str| {
            format!(
                "{{\"traceId\":\"t\",\"spanId\":\"{id}\",\"parentSpanId\":\"{parent}\",\"name\":\"{name}\",\
                 \"attributes\":[{{\"key\":\"xmpp.stanza.kind\",\"value\":{{\"stringValue\":\"message\"}}}},\
                 {{\"key\":\"again\",\"value\":{{\"boolValue\":true}}}}]}}"
            )
        };
        let document = format!(
            "{{\"resourceSpans\":[{{\"resource\":{{\"attributes\":[{{\"key\":\"service.name\",\
             \"value\":{{\"stringValue\":\"s\"}}}}]}},\"scopeSpans\":[{{\"spans\":[{},{},{}]}}]}}]}}",
            span("2", "1", "child"),
            span("1", "", "head"),
            span("4", "3", "orphan"),
        );
        let mut spans = Vec::new();
        read(&document, &mut spans).unwrap();
        assert_eq!(spans[0].attributes, BTreeMap::from([("xmpp.stanza.kind".into(), "message".into())]));
        let trees = trees(&spans);
        let names: Vec<Vec<&str>> =
            trees.iter().map(|tree| tree.all().iter().map(|span| span.name.as_str()).collect()).collect();
        assert_eq!(names, [vec!["head", "child"], vec!["orphan"]]);
        assert_eq!((spans[1].service.as_str(), trees[1].span.parent.as_str()), ("s", "3"));
        assert!(read("{", &mut spans).is_err());
    }
}
