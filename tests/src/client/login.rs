//! From a closed socket to a bound session.

use std::collections::VecDeque;

use anyhow::{Context, Result, bail, ensure};
use base64::{Engine, engine::general_purpose::STANDARD as BASE64};

use super::management::Management;
use super::scram::{Hash, Scram};
use super::stream::{Incoming, Stream};
use super::{Client, SM, Target, is_stanza};
use crate::xml::{Node, escape};

const SASL: &str = "urn:ietf:params:xml:ns:xmpp-sasl";
const BIND: &str = "urn:ietf:params:xml:ns:xmpp-bind";

/// How TLS is reached.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Transport {
    /// Plain TCP, then STARTTLS.
    #[default]
    StartTls,
    /// TLS from the first byte.
    DirectTls,
}

/// How to authenticate.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Mechanism {
    /// The password itself.
    Plain,
    /// SCRAM with this hash, without channel binding.
    Scram(Hash),
}

impl Mechanism {
    /// The registered name.
    pub fn name(self) -> &'static str {
        match self {
            Self::Plain => "PLAIN",
            Self::Scram(Hash::Sha1) => "SCRAM-SHA-1",
            Self::Scram(Hash::Sha256) => "SCRAM-SHA-256",
            Self::Scram(Hash::Sha512) => "SCRAM-SHA-512",
        }
    }
}

/// Who logs in and how. `Login::new("alice", "secret").resource("phone").managed().connect(&target)`.
#[derive(Clone, Debug)]
pub struct Login {
    user: String,
    password: String,
    resource: Option<String>,
    transport: Transport,
    mechanism: Mechanism,
    managed: bool,
}

impl Login {
    /// An account by its local part. STARTTLS, SCRAM-SHA-1, a resource that the server makes, no stream management.
    pub fn new(user: &str, password: &str) -> Self {
        Self {
            user: user.to_owned(),
            password: password.to_owned(),
            resource: None,
            transport: Transport::default(),
            mechanism: Mechanism::Scram(Hash::Sha1),
            managed: false,
        }
    }

    /// Asks for this resource.
    pub fn resource(mut self, resource: &str) -> Self {
        self.resource = Some(resource.to_owned());
        self
    }

    /// Connects this way.
    pub fn transport(mut self, transport: Transport) -> Self {
        self.transport = transport;
        self
    }

    /// Authenticates this way.
    pub fn mechanism(mut self, mechanism: Mechanism) -> Self {
        self.mechanism = mechanism;
        self
    }

    /// Enables stream management with resumption right after binding.
    pub fn managed(mut self) -> Self {
        self.managed = true;
        self
    }

    /// The local part of the account.
    pub fn user(&self) -> &str {
        &self.user
    }

    /// Connects up to TLS and reads the features: the state before authentication.
    pub async fn secure(&self, target: &Target) -> Result<(Stream, Node)> {
        let mut stream = match self.transport {
            Transport::StartTls => {
                let mut stream = Stream::connect(target.c2s).await?;
                stream.open(&target.domain).await?;
                stream.starttls(target.tls.clone(), &target.domain).await?;
                stream
            }
            Transport::DirectTls => {
                let address = target.c2s_tls.context("no direct TLS address")?;
                Stream::connect_tls(address, target.tls.clone(), &target.domain).await?
            }
        };
        let (_, features) = stream.open(&target.domain).await?;
        Ok((stream, features))
    }

    /// Connects and authenticates; the stream is restarted and its features are read.
    pub async fn authenticate(&self, target: &Target) -> Result<Stream> {
        Ok(self.authenticate_with_features(target).await?.0)
    }

    /// As [`Login::authenticate`], and gives the features after authentication too.
    pub async fn authenticate_with_features(&self, target: &Target) -> Result<(Stream, Node)> {
        let (mut stream, features) = self.secure(target).await?;
        let offered = features.find(SASL, "mechanisms").context("no SASL mechanisms offered")?;
        let name = self.mechanism.name();
        ensure!(offered.children().any(|m| m.text() == name), "{name} is not offered in {offered}");
        self.exchange(&mut stream).await?;
        stream.restart();
        let (_, features) = stream.open(&target.domain).await?;
        Ok((stream, features))
    }

    /// Does the SASL exchange on a stream that offered it. A refusal is an error with the failure's condition.
    pub async fn exchange(&self, stream: &mut Stream) -> Result<()> {
        match self.mechanism {
            Mechanism::Plain => {
                let message = format!("\0{}\0{}", self.user, self.password);
                let auth = auth_element("PLAIN", &message);
                stream.send(auth.as_bytes()).await?;
                success(stream.node().await?)?;
            }
            Mechanism::Scram(hash) => {
                let nonce = format!("{:032x}", rand::random::<u128>());
                let mut scram = Scram::new(hash, &self.user, &self.password, &nonce);
                let auth = auth_element(self.mechanism.name(), &scram.first());
                stream.send(auth.as_bytes()).await?;
                let challenge = stream.node().await?;
                if !challenge.is(SASL, "challenge") {
                    success(challenge)?;
                    bail!("success without a challenge");
                }
                let first = String::from_utf8(BASE64.decode(challenge.text())?)?;
                let answer = BASE64.encode(scram.answer(&first)?);
                stream.send(format!("<response xmlns='{SASL}'>{answer}</response>").as_bytes()).await?;
                let last = String::from_utf8(BASE64.decode(success(stream.node().await?)?.text())?)?;
                scram.check(&last)?;
            }
        }
        Ok(())
    }

    /// Logs in.
    pub async fn connect(&self, target: &Target) -> Result<Client> {
        let stream = self.authenticate(target).await?;
        self.bind(stream).await
    }

    /// Binds, and enables stream management if asked to, on an authenticated stream.
    pub async fn bind(&self, mut stream: Stream) -> Result<Client> {
        let jid = bind(&mut stream, self.resource.as_deref()).await?;
        // The resource is connected from binding on: what is sent to its full JID may come before the answer.
        let mut early = VecDeque::new();
        let management = if self.managed {
            stream.send(format!("<enable xmlns='{SM}' resume='true'/>").as_bytes()).await?;
            loop {
                let node = stream.node().await?;
                if is_stanza(&node) {
                    early.push_back(node);
                    continue;
                }
                break Some(Management::enabled(&node)?);
            }
        } else {
            None
        };
        Ok(Client::new(jid, stream, management).with_inbox(early))
    }
}

/// An `<auth/>` element with an initial response.
pub(crate) fn auth_element(mechanism: &str, message: &str) -> String {
    format!("<auth xmlns='{SASL}' mechanism='{mechanism}'>{}</auth>", BASE64.encode(message))
}

fn success(answer: Node) -> Result<Node> {
    if answer.is(SASL, "success") {
        return Ok(answer);
    }
    match answer.condition() {
        Some(condition) => bail!("authentication failed: {condition}"),
        None => bail!("authentication failed: {answer}"),
    }
}

/// Binds a resource and gives the full JID.
pub(crate) async fn bind(stream: &mut Stream, resource: Option<&str>) -> Result<String> {
    let wish = resource.map(|r| format!("<resource>{}</resource>", escape(r))).unwrap_or_default();
    let request = format!("<iq type='set' id='bind'><bind xmlns='{BIND}'>{wish}</bind></iq>");
    stream.send(request.as_bytes()).await?;
    let answer = match stream.next().await? {
        Incoming::Node(node) => node,
        other => bail!("no answer to bind but {other:?}"),
    };
    let jid = answer.find(BIND, "bind").and_then(|b| b.find(BIND, "jid")).map(Node::text);
    jid.with_context(|| format!("binding failed: {answer}"))
}
