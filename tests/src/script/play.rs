//! Plays a script against a server.

use std::collections::BTreeMap;
use std::fmt::Write as _;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail, ensure};

use super::parse::{Action, ClientSpec, InOrder, Script, Step};
use super::pattern::{Captures, Pattern, resolve};
use crate::PATIENCE;
use crate::client::{Client, Detached, Incoming, Login, Received, Resumption, Stream, Transport};
use crate::server::{Kind, Server};
use crate::xml::{Node, STREAMS};

/// Makes the accounts of a script and the contacts among them.
pub async fn prepare(script: &Script, server: &Server) -> Result<()> {
    for user in &script.accounts {
        server.add_user(&script.account(user)).await?;
    }
    for (one, other) in &script.contacts {
        befriend(server, &script.account(one), &script.account(other))
            .await
            .with_context(|| format!("making {one} and {other} contacts"))?;
    }
    Ok(())
}

/// Plays all steps; an error tells the line, what was expected and what came, and what happened before.
pub async fn play(script: &Script, server: &Server) -> Result<()> {
    let mut stage = Stage {
        script,
        server,
        clients: BTreeMap::new(),
        captures: Captures::from([("domain".to_owned(), server.target().domain.clone())]),
        transcript: Vec::new(),
    };
    for step in &script.steps {
        let kind = server.kind();
        if step.unless.contains(&kind) || (!step.only.is_empty() && !step.only.contains(&kind)) {
            continue;
        }
        if let Err(error) = stage.step(step).await {
            let mut story = String::new();
            for line in stage.transcript.iter().rev().take(12).rev() {
                let _ = write!(story, "\n    {line}");
            }
            return Err(error.context(format!("line {}, after:{story}\n ", step.line)));
        }
    }
    Ok(())
}

struct Stage<'a> {
    script: &'a Script,
    server: &'a Server,
    clients: BTreeMap<String, Actor>,
    captures: Captures,
    transcript: Vec<String>,
}

struct Actor {
    state: State,
    features: Option<Node>,
    ignores_presence: bool,
}

enum State {
    /// Not bound yet.
    Early(Box<Stream>),
    /// A session.
    Bound(Box<Client>),
    /// Cut, may resume.
    Cut(Box<Detached>),
    /// Nothing.
    Gone,
}

impl Stage<'_> {
    async fn step(&mut self, step: &Step) -> Result<()> {
        let name = step.client.as_str();
        match &step.action {
            Action::Wait(time) => tokio::time::sleep(*time).await,
            Action::Connect => {
                let spec = self.spec(name)?;
                let (stream, features) =
                    self.login(spec).authenticate_with_features(self.server.target()).await?;
                let client = self.login(spec).bind(stream).await?;
                self.enter(name, State::Bound(Box::new(client)), Some(features));
                let jid = self.session(name)?.jid().to_owned();
                self.captures.insert(format!("{name}_jid"), jid);
                let by_hand = self.spec(name)?.by_hand;
                self.session(name)?.answer_requests(!by_hand);
            }
            Action::Open => {
                let mut stream = Stream::connect(self.server.target().c2s).await?;
                let (_, features) = stream.open(&self.server.target().domain).await?;
                self.enter(name, State::Early(Box::new(stream)), Some(features));
            }
            Action::Secure => {
                let login = self.login(self.spec(name)?);
                let (stream, features) = login.secure(self.server.target()).await?;
                self.enter(name, State::Early(Box::new(stream)), Some(features));
            }
            Action::Authenticate => {
                let login = self.login(self.spec(name)?);
                let (stream, features) = login.authenticate_with_features(self.server.target()).await?;
                self.enter(name, State::Early(Box::new(stream)), Some(features));
            }
            Action::ComeOnline => self.session(name)?.come_online().await?,
            Action::Send(xml) => {
                let xml = resolve(xml, &self.captures);
                self.transcript.push(format!("{name} sent {}", one_line(&xml)));
                match &mut self.actor(name)?.state {
                    State::Bound(client) => client.send(&xml).await?,
                    State::Early(stream) => stream.send(xml.as_bytes()).await?,
                    _ => bail!("{name} is not connected"),
                }
            }
            Action::Receive(patterns, order) => self.receive(name, patterns, *order).await?,
            Action::ReceiveNothing(time) => {
                if let Some(node) = self.next(name, *time).await? {
                    bail!("{name} should receive nothing, but got {node}");
                }
            }
            Action::Offered(pattern) => {
                let features = self.actor(name)?.features.clone().context("no features were read")?;
                self.captures = fill(pattern, &features, &self.captures)?;
            }
            Action::IgnorePresence => self.actor(name)?.ignores_presence = true,
            Action::Ping => self.session(name)?.ping().await?,
            Action::Disconnect => {
                let actor = self.actor(name)?;
                match std::mem::replace(&mut actor.state, State::Gone) {
                    State::Bound(client) => drop(client.close().await?),
                    State::Early(mut stream) => {
                        stream.send(b"</stream:stream>").await?;
                        stream.closed(PATIENCE).await?;
                    }
                    _ => bail!("{name} is not connected"),
                }
            }
            Action::Drop => {
                let actor = self.actor(name)?;
                let State::Bound(client) = std::mem::replace(&mut actor.state, State::Gone) else {
                    bail!("{name} has no session")
                };
                actor.state = State::Cut(Box::new(client.cut()));
            }
            Action::Resume => match self.resume(name).await? {
                Resumption::Resumed(client) => {
                    self.actor(name)?.state = State::Bound(client);
                    let by_hand = self.spec(name)?.by_hand;
                    self.session(name)?.answer_requests(!by_hand);
                }
                Resumption::Failed { condition, .. } => bail!("{name} cannot resume: {condition}"),
            },
            Action::FailToResume(wanted) => match self.resume(name).await? {
                Resumption::Resumed(_) => bail!("{name} should not be able to resume"),
                Resumption::Failed { condition, .. } => {
                    ensure!(condition == *wanted, "{name} cannot resume, but with {condition}");
                }
            },
            Action::Closed(wanted) => self.closed(name, wanted.as_deref()).await?,
        }
        Ok(())
    }

    fn spec(&self, name: &str) -> Result<&ClientSpec> {
        self.script.clients.iter().find(|c| c.name == name).with_context(|| format!("no client {name}"))
    }

    fn login(&self, spec: &ClientSpec) -> Login {
        let mut login = self.server.login(&self.script.account(&spec.user));
        if let Some(resource) = &spec.resource {
            login = login.resource(resource);
        }
        if spec.managed {
            login = login.managed();
        }
        if spec.direct_tls {
            login = login.transport(Transport::DirectTls);
        }
        login
    }

    fn enter(&mut self, name: &str, state: State, features: Option<Node>) {
        self.clients.insert(name.to_owned(), Actor { state, features, ignores_presence: false });
    }

    fn actor(&mut self, name: &str) -> Result<&mut Actor> {
        self.clients.get_mut(name).with_context(|| format!("{name} never connected"))
    }

    fn session(&mut self, name: &str) -> Result<&mut Client> {
        match &mut self.actor(name)?.state {
            State::Bound(client) => Ok(client),
            _ => bail!("{name} has no session"),
        }
    }

    async fn resume(&mut self, name: &str) -> Result<Resumption> {
        let login = self.login(self.spec(name)?);
        let target = self.server.target();
        let actor = self.clients.get_mut(name).with_context(|| format!("{name} never connected"))?;
        match std::mem::replace(&mut actor.state, State::Gone) {
            State::Cut(detached) => detached.resume(target, &login).await,
            _ => bail!("{name} did not drop its connection"),
        }
    }

    /// The next element for this client that the script wants to see.
    async fn next(&mut self, name: &str, within: Duration) -> Result<Option<Node>> {
        let deadline = Instant::now() + within;
        let node = loop {
            let left = deadline.saturating_duration_since(Instant::now());
            let actor = self.actor(name)?;
            let node = match &mut actor.state {
                State::Bound(client) => match client.receive(left).await? {
                    None => return Ok(None),
                    Some(Received::Element(node)) => node,
                    Some(Received::Acknowledged(_)) => continue,
                    Some(end) => bail!("{name}: {end:?}"),
                },
                State::Early(stream) => match stream.receive(left).await? {
                    None => return Ok(None),
                    Some(Incoming::Node(node)) => node,
                    Some(other) => bail!("{name}: {other:?}"),
                },
                _ => bail!("{name} is not connected"),
            };
            let asked = node.is(crate::client::SM, "r");
            if asked || node.name == "presence" && (actor.ignores_presence || is_nobody_there(&node)) {
                continue;
            }
            break node;
        };
        self.transcript.push(format!("{name} got {node}"));
        Ok(Some(node))
    }

    async fn receive(&mut self, name: &str, patterns: &[Pattern], order: InOrder) -> Result<()> {
        let mut open: Vec<&Pattern> = patterns.iter().collect();
        while !open.is_empty() {
            let node = self.next(name, PATIENCE).await?.with_context(|| {
                format!("{name} received nothing within {PATIENCE:?}; {} expected still", open.len())
            })?;
            let candidates = if order == InOrder::Yes { &open[..1] } else { &open[..] };
            let mut reasons = Vec::new();
            let mut found = None;
            for (index, pattern) in candidates.iter().enumerate() {
                let filled = match self.server.kind() {
                    Kind::Ejabberd => pattern.loosened().fill(&node, &self.captures),
                    _ => pattern.fill(&node, &self.captures),
                };
                match filled {
                    Ok(captures) => {
                        found = Some((index, captures));
                        break;
                    }
                    Err(reason) => reasons.push(reason),
                }
            }
            let Some((index, captures)) = found else {
                bail!("{name} got {node}, which does not fit: {}", reasons.join("; or "))
            };
            self.captures = captures;
            open.remove(index);
        }
        Ok(())
    }

    async fn closed(&mut self, name: &str, wanted: Option<&str>) -> Result<()> {
        let actor = self.actor(name)?;
        let mut stream_error = None;
        let deadline = Instant::now() + PATIENCE;
        loop {
            let left = deadline.saturating_duration_since(Instant::now());
            let node = match &mut actor.state {
                State::Bound(client) => match client.receive(left).await? {
                    Some(Received::Element(node)) => node,
                    Some(Received::Closed) => break,
                    Some(_) => continue,
                    None => bail!("{name} is not closed"),
                },
                State::Early(stream) => match stream.receive(left).await? {
                    Some(Incoming::Node(node)) => node,
                    Some(Incoming::Closed) => break,
                    Some(_) => continue,
                    None => bail!("{name} is not closed"),
                },
                _ => bail!("{name} is not connected"),
            };
            if node.is(STREAMS, "error") {
                stream_error = node.children().next().map(|c| c.name.clone());
            }
        }
        actor.state = State::Gone;
        if let Some(wanted) = wanted {
            let got = stream_error.unwrap_or_else(|| "no error".to_owned());
            ensure!(wanted.split('|').any(|w| w == got), "{name} is closed with {got}, not {wanted}");
        }
        Ok(())
    }
}

fn fill(pattern: &Pattern, node: &Node, captures: &Captures) -> Result<Captures> {
    pattern.fill(node, captures).map_err(|reason| anyhow::anyhow!("{node} does not fit: {reason}"))
}

/// The optional answer to a probe for a contact without available resources (RFC 6121 section 4.3.2).
fn is_nobody_there(presence: &Node) -> bool {
    let bare = presence.attribute("from").is_some_and(|from| !from.contains('/'));
    bare && presence.attribute("type") == Some("unavailable")
}

fn one_line(xml: &str) -> String {
    xml.split_whitespace().collect::<Vec<_>>().join(" ")
}

/// Makes two accounts see each other's presence.
async fn befriend(server: &Server, one: &str, other: &str) -> Result<()> {
    let domain = &server.target().domain;
    let mut first = server.login(one).connect(server.target()).await?;
    let mut second = server.login(other).connect(server.target()).await?;
    for client in [&mut first, &mut second] {
        client.iq("<iq type='get' id='{id}'><query xmlns='jabber:iq:roster'/></iq>").await?;
        client.come_online().await?;
    }
    let is = |kind: &'static str| move |n: &Node| n.name == "presence" && n.attribute("type") == Some(kind);
    let both = |n: &Node| {
        n.find_deep("jabber:iq:roster", "item").and_then(|i| i.attribute("subscription")) == Some("both")
    };
    first.send(&format!("<presence type='subscribe' to='{other}@{domain}'/>")).await?;
    second.next_that(is("subscribe")).await?;
    second.send(&format!("<presence type='subscribed' to='{one}@{domain}'/>")).await?;
    second.send(&format!("<presence type='subscribe' to='{one}@{domain}'/>")).await?;
    first.next_that(is("subscribe")).await?;
    first.send(&format!("<presence type='subscribed' to='{other}@{domain}'/>")).await?;
    first.next_that(both).await?;
    second.next_that(both).await?;
    first.close().await?;
    second.close().await?;
    Ok(())
}
