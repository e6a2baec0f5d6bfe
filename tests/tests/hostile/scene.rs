//! What a hostile case has: a server, a name for accounts of its own, and a good client next to it.

use std::future::Future;
use std::pin::Pin;
use std::sync::Arc;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail, ensure};
use starling_tests::client::{Hash, Incoming, Received, Stream, header};
use starling_tests::xml::STREAMS;
use starling_tests::{Client, Login, Mechanism, Node, PATIENCE, Server};

/// A case in progress.
pub(crate) type Run = for<'a> fn(&'a mut Scene) -> Pin<Box<dyn Future<Output = Result<()>> + Send + 'a>>;

/// One hostile case.
#[derive(Clone, Copy)]
pub(crate) struct Case {
    pub name: &'static str,
    /// With any, the case has a server of its own.
    pub settings: &'static [(&'static str, &'static str)],
    pub run: Run,
}

/// Settings that change nothing, for a case that measures the server's memory and wants it for itself.
pub(crate) const ALONE: [(&str, &str); 1] = [("limits.sm.detached_per_account", "3")];

/// Names cases after their functions: `cases![a, b with [("key", "value")]]`.
macro_rules! cases {
    ($($name:ident $(with $settings:expr)?),* $(,)?) => {
        vec![$($crate::scene::Case {
            name: stringify!($name),
            settings: cases!(@settings $($settings)?),
            run: |scene| Box::pin($name(scene)),
        }),*]
    };
    (@settings) => { &[] };
    (@settings $settings:expr) => { &$settings };
}
pub(crate) use cases;

/// How far a stream got before the hostile bytes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Phase {
    /// In clear, after the stream headers.
    Clear,
    /// Under TLS, before authentication.
    Secure,
    /// A session.
    Bound,
}

/// A server, and a good client that must not notice anything.
pub(crate) struct Scene {
    pub server: Arc<Server>,
    number: usize,
    witness: Client,
}

impl Scene {
    pub(crate) async fn new(server: Arc<Server>, number: usize) -> Result<Self> {
        let user = format!("witness{number}");
        server.add_user(&user).await?;
        let mut witness = server.login(&user).connect(server.target()).await?;
        witness.come_online().await?;
        Ok(Self { server, number, witness })
    }

    /// The local part of an account of this case; the same name gives the same account.
    pub(crate) fn name(&self, user: &str) -> String {
        format!("{user}{}", self.number)
    }

    /// The bare JID of an account of this case.
    pub(crate) fn jid(&self, user: &str) -> String {
        format!("{}@localhost", self.name(user))
    }

    /// Makes an account of this case.
    pub(crate) async fn account(&self, user: &str) -> Result<Login> {
        let name = self.name(user);
        self.server.add_user(&name).await?;
        Ok(self.server.login(&name))
    }

    /// Makes an account and logs in, with a resource of the same name.
    pub(crate) async fn client(&self, user: &str) -> Result<Client> {
        self.account(user).await?.resource(user).connect(self.server.target()).await
    }

    /// A login to an account that exists.
    pub(crate) fn login(&self, user: &str) -> Login {
        self.server.login(&self.name(user))
    }

    /// A connection in clear, nothing sent.
    pub(crate) async fn raw(&self) -> Result<Stream> {
        Stream::connect(self.server.target().c2s).await
    }

    /// A stream that got as far as `phase`. The account is `user`, made before.
    pub(crate) async fn stream(&self, phase: Phase, user: &str) -> Result<Stream> {
        let target = self.server.target();
        match phase {
            Phase::Clear => {
                let mut stream = self.raw().await?;
                stream.open(&target.domain).await?;
                Ok(stream)
            }
            Phase::Secure => Ok(self.login(user).secure(target).await?.0),
            Phase::Bound => {
                let mut stream = self.login(user).authenticate(target).await?;
                let bind = "<iq type='set' id='b'><bind xmlns='urn:ietf:params:xml:ns:xmpp-bind'/></iq>";
                stream.send(bind.as_bytes()).await?;
                let answer = stream.node().await?;
                ensure!(answer.attribute("type") == Some("result"), "cannot bind: {answer}");
                Ok(stream)
            }
        }
    }

    /// Sends `bytes` in each of the phases, whole and byte by byte, and expects one of the stream errors.
    pub(crate) async fn ends_with(&self, phases: &[Phase], bytes: &[u8], conditions: &[&str]) -> Result<()> {
        for phase in phases {
            for split in [false, true] {
                if split && bytes.len() > 512 {
                    continue;
                }
                let mut stream = self.stream(*phase, "mallory").await?;
                let what = || {
                    let shown = String::from_utf8_lossy(&bytes[..bytes.len().min(80)]);
                    format!("{phase:?}, byte by byte: {split}, {shown:?}")
                };
                if split {
                    // The server may end it before the last byte.
                    let _ = stream.send_bytewise(bytes).await;
                } else {
                    stream.send(bytes).await.with_context(what)?;
                }
                let condition = stream.stream_error().await.with_context(what)?;
                ensure!(conditions.contains(&condition.as_str()), "{}: got {condition}", what());
            }
        }
        Ok(())
    }

    /// The end of each case: the good client still has its session, talks to itself, and a newcomer is served in time.
    pub(crate) async fn all_is_well(&mut self) -> Result<()> {
        let start = Instant::now();
        self.witness.ping().await.context("the good client's session")?;
        let jid = self.witness.jid().to_owned();
        self.witness.send(&format!("<message to='{jid}' id='well' type='headline'/>")).await?;
        let note = self.witness.next().await.context("the good client's message")?;
        ensure!(note.attribute("id") == Some("well"), "the good client got {note}");
        let login = self.login("witness").mechanism(Mechanism::Scram(Hash::Sha256));
        login.connect(self.server.target()).await.context("a new login of the good client")?.close().await?;
        let took = start.elapsed();
        ensure!(took < Duration::from_secs(10), "the good client waited {took:?}");
        Ok(())
    }
}

/// A panic ends one task and hides well: the log has it.
pub(crate) fn nothing_panicked(server: &Server) -> Result<()> {
    let log = server.log();
    if let Some(at) = log.lines().position(|line| line.contains("panicked at")) {
        let lines: Vec<&str> = log.lines().skip(at).take(2).collect();
        bail!("the server panicked: {}", lines.join(" "));
    }
    Ok(())
}

/// Sends more than a server should take, `chunk` again and again up to `total` bytes, while reading what it says.
/// Gives the stream error, if the connection ended with one that could be read.
pub(crate) async fn flood(stream: &mut Stream, chunk: &[u8], total: usize) -> Result<Option<String>> {
    let mut sent = 0;
    while sent < total {
        if stream.send(chunk).await.is_err() {
            break;
        }
        sent += chunk.len();
        if let Some(condition) = look(stream, Duration::ZERO).await? {
            return Ok(condition);
        }
    }
    let deadline = Instant::now() + PATIENCE;
    while Instant::now() < deadline {
        if let Some(condition) = look(stream, Duration::from_millis(100)).await? {
            return Ok(condition);
        }
    }
    bail!("the connection is still open after {sent} bytes")
}

/// One look at what came: the outer option is whether the connection ended, the inner one with which error.
async fn look(stream: &mut Stream, within: Duration) -> Result<Option<Option<String>>> {
    match stream.receive(within).await? {
        Some(Incoming::Node(node)) if node.is(STREAMS, "error") => {
            Ok(Some(node.children().next().map(|c| c.name.clone())))
        }
        // A reset may take the error with it when much was unread on the other side.
        Some(Incoming::Closed) => Ok(Some(None)),
        _ => Ok(None),
    }
}

/// The header of a client with attributes and namespaces of the test's choice.
pub(crate) fn odd_header(attributes: &str) -> String {
    format!("<?xml version='1.0'?><stream:stream {attributes}>")
}

/// The usual header.
pub(crate) fn usual_header() -> String {
    header("localhost")
}

/// Opens a plain connection, sends a header as given and expects one of the stream errors, after a header of the server.
pub(crate) async fn header_ends_with(scene: &Scene, bytes: &[u8], conditions: &[&str]) -> Result<()> {
    for split in [false, true] {
        let mut stream = scene.raw().await?;
        if split {
            let _ = stream.send_bytewise(bytes).await;
        } else {
            stream.send(bytes).await?;
        }
        let shown = String::from_utf8_lossy(&bytes[..bytes.len().min(120)]).into_owned();
        let condition = stream.stream_error().await.with_context(|| shown.clone())?;
        ensure!(conditions.contains(&condition.as_str()), "{shown}: got {condition}");
    }
    Ok(())
}

/// Sends an IQ and expects this error (`cancel item-not-found`), or one of them.
pub(crate) async fn refused(client: &mut Client, iq: &str, errors: &[&str]) -> Result<()> {
    let answer = client.iq(iq).await?;
    let got = answer.condition().unwrap_or_else(|| "no error".to_owned());
    ensure!(errors.contains(&got.as_str()), "{}: got {got} in {answer}", shorten(iq));
    Ok(())
}

/// Expects the next element to be an error for the stanza with this id.
pub(crate) async fn bounced(client: &mut Client, id: &str, errors: &[&str]) -> Result<Node> {
    let answer = client.next().await?;
    ensure!(answer.attribute("id") == Some(id), "not the answer to {id}: {answer}");
    let got = answer.condition().unwrap_or_else(|| "no error".to_owned());
    ensure!(errors.contains(&got.as_str()), "{id}: got {got} in {answer}");
    Ok(answer)
}

/// Sends a message and gives it as it arrives. A server whose store is slow may refuse it with an error of type
/// `wait`: then it is said again. One that neither arrives nor is refused is an error.
pub(crate) async fn say(from: &mut Client, xml: &str, to: &mut Client) -> Result<Node> {
    let deadline = Instant::now() + PATIENCE;
    from.send(xml).await?;
    while Instant::now() < deadline {
        if let Some(Received::Element(arrived)) = to.receive(Duration::from_millis(100)).await? {
            return Ok(arrived);
        }
        if let Some(Received::Element(answer)) = from.receive(Duration::ZERO).await? {
            let condition = answer.condition().unwrap_or_default();
            ensure!(condition.starts_with("wait "), "the sender of {} got {answer}", shorten(xml));
            from.send(xml).await?;
        }
    }
    bail!("{}: neither arrived nor refused within {PATIENCE:?}: {}", to.jid(), shorten(xml))
}

/// The beginning of a text that may be huge.
pub(crate) fn shorten(text: &str) -> String {
    text.chars().take(200).collect()
}
