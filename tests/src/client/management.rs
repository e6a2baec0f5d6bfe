//! Stream management (XEP-0198) as a client does it: counters, the queue of what is not acknowledged, resumption.

use std::collections::VecDeque;

use anyhow::{Context, Result, bail, ensure};

use super::login::Login;
use super::{Client, SM, Target};
use crate::xml::Node;

/// The client's half of an XEP-0198 session.
#[derive(Clone, Debug, Default)]
pub struct Management {
    id: Option<String>,
    received: u32,
    sent: u32,
    unacknowledged: VecDeque<(u32, String)>,
}

impl Management {
    pub(crate) fn enabled(answer: &Node) -> Result<Self> {
        ensure!(answer.is(SM, "enabled"), "stream management was not enabled: {answer}");
        let resumable = matches!(answer.attribute("resume"), Some("true" | "1"));
        let id = answer.attribute("id").filter(|_| resumable).map(str::to_owned);
        Ok(Self { id, ..Self::default() })
    }

    /// The id to resume with, if the server allows it.
    pub fn id(&self) -> Option<&str> {
        self.id.as_deref()
    }

    /// How many stanzas came: our `h`.
    pub fn received(&self) -> u32 {
        self.received
    }

    /// How many stanzas were sent.
    pub fn sent_total(&self) -> u32 {
        self.sent
    }

    /// The last `h` of the server.
    pub fn acknowledged_total(&self) -> u32 {
        self.sent.wrapping_sub(u32::try_from(self.unacknowledged.len()).unwrap_or(u32::MAX))
    }

    /// What the server has not acknowledged: number (from 1) and stanza.
    pub fn unacknowledged(&self) -> &VecDeque<(u32, String)> {
        &self.unacknowledged
    }

    pub(crate) fn sent(&mut self, xml: String) {
        self.sent = self.sent.wrapping_add(1);
        self.unacknowledged.push_back((self.sent, xml));
    }

    pub(crate) fn count_received(&mut self) {
        self.received = self.received.wrapping_add(1);
    }

    pub(crate) fn acknowledged(&mut self, h: u32) -> Result<()> {
        let open = u32::try_from(self.unacknowledged.len())?;
        let before = self.sent.wrapping_sub(open);
        let newly = h.wrapping_sub(before);
        ensure!(newly <= open, "the server acknowledged {h} when {} were sent and {before} known", self.sent);
        self.unacknowledged.drain(..newly as usize);
        Ok(())
    }
}

/// What is left of a session whose connection was cut.
#[derive(Clone, Debug)]
pub struct Detached {
    jid: String,
    management: Option<Management>,
    inbox: VecDeque<Node>,
}

/// How an attempt to resume went.
pub enum Resumption {
    /// The session lives; what the server had not acknowledged was sent again.
    Resumed(Box<Client>),
    /// The server does not know the session: the condition, and its `h` if it told one. A login is needed.
    Failed {
        /// The error condition, `item-not-found` mostly.
        condition: String,
        /// What the server handled before, if it still knows.
        h: Option<u32>,
    },
}

impl Detached {
    pub(crate) fn new(jid: String, management: Option<Management>, inbox: VecDeque<Node>) -> Self {
        Self { jid, management, inbox }
    }

    /// The full JID the session had.
    pub fn jid(&self) -> &str {
        &self.jid
    }

    /// The counters and the queue.
    pub fn management(&self) -> Option<&Management> {
        self.management.as_ref()
    }

    /// Stanzas that were not acknowledged, for sending again in a new session.
    pub fn unacknowledged(&self) -> impl Iterator<Item = &str> {
        self.management.iter().flat_map(|m| m.unacknowledged.iter().map(|(_, xml)| xml.as_str()))
    }

    /// The `<resume/>` element for this session.
    pub fn request(&self) -> Result<String> {
        let management = self.management.as_ref().context("stream management was off")?;
        let id = management.id().context("the session is not resumable")?;
        Ok(format!("<resume xmlns='{SM}' h='{}' previd='{}'/>", management.received, crate::xml::escape(id)))
    }

    /// Connects and authenticates as `login` says and tries to resume. On success everything that the server had not
    /// handled is sent again, in order.
    pub async fn resume(self, target: &Target, login: &Login) -> Result<Resumption> {
        let request = self.request()?;
        let mut management = self.management.context("stream management was off")?;
        let mut stream = login.authenticate(target).await?;
        stream.send(request.as_bytes()).await?;
        let answer = stream.node().await?;
        if answer.is(SM, "failed") {
            return Ok(Resumption::Failed {
                condition: answer.condition().context("<failed/> without condition")?,
                h: answer.attribute("h").map(str::parse).transpose()?,
            });
        }
        if !answer.is(SM, "resumed") {
            bail!("neither resumed nor failed: {answer}");
        }
        let h = answer.attribute("h").context("<resumed/> without h")?.parse()?;
        management.acknowledged(h)?;
        for (_, xml) in management.unacknowledged() {
            stream.send(xml.as_bytes()).await?;
        }
        let client = Client::new(self.jid, stream, Some(management)).with_inbox(self.inbox);
        Ok(Resumption::Resumed(Box::new(client)))
    }
}

impl Resumption {
    /// The session, or an error that tells why there is none.
    pub fn resumed(self) -> Result<Client> {
        match self {
            Self::Resumed(client) => Ok(*client),
            Self::Failed { condition, h } => bail!("resumption failed with {condition}, h={h:?}"),
        }
    }
}
