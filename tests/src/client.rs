//! A raw XMPP client: it sends what a test tells it to and shows what comes, and does the dull parts by itself.
//!
//! [`Stream`] is a socket with a reader; everything can be sent on it, whole or in pieces. [`Client`] is a bound
//! session: it counts stanzas for stream management, answers `<r/>` and leaves everything else to the test.
//! Reading is cancel-safe: a `receive` that is dropped loses nothing.

mod login;
mod management;
mod scram;
mod stream;

use std::collections::VecDeque;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail, ensure};
use rustls::ClientConfig;

pub use login::{Login, Mechanism, Transport};
pub use management::{Detached, Management, Resumption};
pub use scram::{Hash, Scram};
pub use stream::{Incoming, Stream, Writing, header};

use crate::PATIENCE;
use crate::xml::Node;

/// The namespace of stream management (XEP-0198).
pub const SM: &str = "urn:xmpp:sm:3";

/// Where and how to reach a server.
#[derive(Clone, Debug)]
pub struct Target {
    /// Address that speaks plain text first and STARTTLS then.
    pub c2s: SocketAddr,
    /// Address that speaks TLS from the first byte.
    pub c2s_tls: Option<SocketAddr>,
    /// The served domain, also the name that the certificate must prove.
    pub domain: String,
    /// Trusts the test authority only.
    pub tls: Arc<ClientConfig>,
}

/// What a session gave to its test.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Received {
    /// A stanza or another element.
    Element(Node),
    /// The server acknowledged: this many stanzas in all are now known to be handled.
    Acknowledged(u32),
    /// The server ended the stream properly.
    End,
    /// The connection is gone.
    Closed,
}

/// A session: authenticated, bound, and with stream management if it was asked for.
pub struct Client {
    jid: String,
    stream: Stream,
    management: Option<Management>,
    answer_requests: bool,
    inbox: VecDeque<Node>,
    next_id: u64,
}

impl Client {
    fn new(jid: String, stream: Stream, management: Option<Management>) -> Self {
        Self { jid, stream, management, answer_requests: true, inbox: VecDeque::new(), next_id: 0 }
    }

    /// With stanzas that came before the session was ready; they come first.
    fn with_inbox(self, inbox: VecDeque<Node>) -> Self {
        Self { inbox, ..self }
    }

    /// The full JID that the server bound.
    pub fn jid(&self) -> &str {
        &self.jid
    }

    /// The bare JID of the account.
    pub fn bare(&self) -> &str {
        self.jid.split('/').next().unwrap_or(&self.jid)
    }

    /// The stream below, for sending what no client should.
    pub fn stream(&mut self) -> &mut Stream {
        &mut self.stream
    }

    /// The stream-management state, if it is on.
    pub fn management(&self) -> Option<&Management> {
        self.management.as_ref()
    }

    /// Turns the automatic answer to `<r/>` on or off (on at first). While it is off, `<r/>` and `<a/>` come to the
    /// test as elements; `<a/>` is still counted.
    pub fn answer_requests(&mut self, on: bool) {
        self.answer_requests = on;
    }

    /// Sends XML. A stanza is counted and kept for resumption when stream management is on.
    pub async fn send(&mut self, xml: &str) -> Result<()> {
        if let Some(management) = &mut self.management {
            for node in Node::parse_all(xml).unwrap_or_default() {
                if is_stanza(&node) {
                    management.sent(node.to_string());
                }
            }
        }
        self.stream.send(xml.as_bytes()).await
    }

    /// Sends one stanza without looking at it; counted like any other. The fast way for load.
    pub async fn send_stanza(&mut self, xml: String) -> Result<()> {
        let stream = &mut self.stream;
        let Some(management) = &mut self.management else { return stream.send(xml.as_bytes()).await };
        // In the queue before it is on the wire: a connection that breaks now may have taken it or not.
        let sent = stream.send(xml.as_bytes()).await;
        management.sent(xml);
        sent
    }

    /// Sends bytes that are counted nowhere.
    pub async fn send_raw(&mut self, bytes: &[u8]) -> Result<()> {
        self.stream.send(bytes).await
    }

    /// Asks for an acknowledgement.
    pub async fn request_acknowledgement(&mut self) -> Result<()> {
        self.stream.send(format!("<r xmlns='{SM}'/>").as_bytes()).await
    }

    /// Acknowledges all that was received.
    pub async fn acknowledge(&mut self) -> Result<()> {
        let h = self.management.as_ref().context("stream management is off")?.received();
        self.stream.send(format!("<a xmlns='{SM}' h='{h}'/>").as_bytes()).await
    }

    /// The next thing that happens, or `None` if nothing does in time.
    pub async fn receive(&mut self, within: Duration) -> Result<Option<Received>> {
        if let Some(node) = self.inbox.pop_front() {
            return Ok(Some(Received::Element(node)));
        }
        let deadline = Instant::now() + within;
        loop {
            let left = deadline.saturating_duration_since(Instant::now());
            let node = match self.stream.receive(left).await? {
                None => return Ok(None),
                Some(Incoming::Node(node)) => node,
                Some(Incoming::End) => return Ok(Some(Received::End)),
                Some(Incoming::Closed) => return Ok(Some(Received::Closed)),
                Some(other) => bail!("{} got {other:?} in the middle of a stream", self.jid),
            };
            let Some(management) = &mut self.management else { return Ok(Some(Received::Element(node))) };
            if is_stanza(&node) {
                management.count_received();
            } else if node.is(SM, "a") {
                let h = node.attribute("h").context("<a/> without h")?.parse()?;
                management.acknowledged(h)?;
                if self.answer_requests {
                    return Ok(Some(Received::Acknowledged(management.acknowledged_total())));
                }
            } else if node.is(SM, "r") && self.answer_requests {
                self.acknowledge().await?;
                continue;
            }
            return Ok(Some(Received::Element(node)));
        }
    }

    /// The next element; acknowledgements are taken on the way. An error if the stream ends or time is up.
    pub async fn next(&mut self) -> Result<Node> {
        let deadline = Instant::now() + PATIENCE;
        loop {
            let left = deadline.saturating_duration_since(Instant::now());
            match self.receive(left).await? {
                Some(Received::Element(node)) => return Ok(node),
                Some(Received::Acknowledged(_)) => {}
                Some(end) => bail!("{}: {end:?} instead of an element", self.jid),
                None => bail!("{}: no element came within {PATIENCE:?}", self.jid),
            }
        }
    }

    /// The first element that `wanted` accepts; what comes before it is given up.
    pub async fn next_that(&mut self, wanted: impl Fn(&Node) -> bool) -> Result<Node> {
        let deadline = Instant::now() + PATIENCE;
        let mut passed = Vec::new();
        while Instant::now() < deadline {
            let node = self.next().await.with_context(|| format!("passed over {passed:?}"))?;
            if wanted(&node) {
                return Ok(node);
            }
            passed.push(node.to_string());
        }
        bail!("{}: the wanted element did not come; passed over {passed:?}", self.jid)
    }

    /// Checks that no element comes for a while.
    pub async fn silence(&mut self, during: Duration) -> Result<()> {
        let deadline = Instant::now() + during;
        loop {
            let left = deadline.saturating_duration_since(Instant::now());
            match self.receive(left).await? {
                None => return Ok(()),
                Some(Received::Acknowledged(_)) => {}
                Some(Received::Element(node)) => bail!("{}: nothing should come, but {node}", self.jid),
                Some(end) => bail!("{}: nothing should come, but {end:?}", self.jid),
            }
        }
    }

    /// Sends an IQ request with a fresh `id` (`{id}` in the XML is replaced by it) and waits for its answer. What
    /// else comes in between is kept and comes next.
    pub async fn iq(&mut self, xml: &str) -> Result<Node> {
        self.next_id += 1;
        let id = format!("iq-{}", self.next_id);
        self.send(&xml.replace("{id}", &id)).await?;
        let mut others = VecDeque::new();
        let answer = loop {
            let node = self.next().await.with_context(|| format!("waiting for the answer to {xml}"))?;
            let answers = matches!(node.attribute("type"), Some("result" | "error"));
            if node.name == "iq" && answers && node.attribute("id") == Some(&id) {
                break node;
            }
            others.push_back(node);
        };
        others.append(&mut self.inbox);
        self.inbox = others;
        Ok(answer)
    }

    /// Shows that the server lives and has handled all that was sent before: an XEP-0199 ping that must be answered
    /// (a result, or an error from a server that does not know it).
    pub async fn ping(&mut self) -> Result<()> {
        self.iq("<iq type='get' id='{id}'><ping xmlns='urn:xmpp:ping'/></iq>").await.map(|_| ())
    }

    /// Comes online and waits for its own presence, which the server must reflect (RFC 6121 section 4.2.2). Presence
    /// of others and offline messages that come first are kept.
    pub async fn come_online(&mut self) -> Result<()> {
        self.send("<presence/>").await?;
        let mut others = VecDeque::new();
        loop {
            let node = self.next().await.context("waiting for our own presence")?;
            if node.name == "presence" && node.attribute("from") == Some(&self.jid) {
                break;
            }
            others.push_back(node);
        }
        others.append(&mut self.inbox);
        self.inbox = others;
        Ok(())
    }

    /// Waits for a stream error and the end of the stream after it, and gives the error's condition. What else comes
    /// before is passed over.
    pub async fn stream_error(&mut self) -> Result<String> {
        self.inbox.clear();
        self.stream.stream_error().await
    }

    /// Ends the stream as one should and waits for the server to do the same. What still comes is given back.
    pub async fn close(mut self) -> Result<Vec<Node>> {
        let mut rest: Vec<Node> = self.inbox.drain(..).collect();
        self.stream.send(b"</stream:stream>").await?;
        loop {
            match self.stream.receive(PATIENCE).await? {
                Some(Incoming::Node(node)) => rest.push(node),
                Some(Incoming::End | Incoming::Closed) => return Ok(rest),
                other => bail!("{}: {other:?} instead of the end of the stream", self.jid),
            }
        }
    }

    /// Cuts the TCP connection without a word and keeps what is needed to resume.
    pub fn cut(self) -> Detached {
        Detached::new(self.jid, self.management, self.inbox)
    }

    /// Leaves the connection as it is, open and unread, and keeps what is needed to resume over another: what a server
    /// sees when a phone changes its network.
    pub fn walk_away(self) -> (Detached, Stream) {
        (Detached::new(self.jid, self.management, self.inbox), self.stream)
    }

    /// Ensures that stream management is on and that all that was sent is acknowledged.
    pub async fn settle(&mut self) -> Result<()> {
        ensure!(self.management.is_some(), "stream management is off");
        self.request_acknowledgement().await?;
        let deadline = Instant::now() + PATIENCE;
        let mut others = VecDeque::new();
        while self.management.as_ref().is_some_and(|m| !m.unacknowledged().is_empty()) {
            let left = deadline.saturating_duration_since(Instant::now());
            match self.receive(left).await? {
                Some(Received::Element(node)) => others.push_back(node),
                Some(Received::Acknowledged(_)) => {}
                other => bail!("{}: {other:?} while stanzas wait for acknowledgement", self.jid),
            }
        }
        others.append(&mut self.inbox);
        self.inbox = others;
        Ok(())
    }
}

/// Whether this element is counted by stream management.
pub fn is_stanza(node: &Node) -> bool {
    node.ns == crate::xml::CLIENT && matches!(node.name.as_str(), "message" | "presence" | "iq")
}
