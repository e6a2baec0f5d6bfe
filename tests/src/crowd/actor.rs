//! A client that writes and receives through all that happens to it, and logs what it saw.

use std::collections::VecDeque;
use std::sync::Arc;
use std::time::{Duration, Instant};

use anyhow::{Result, bail};
use rand::rngs::StdRng;
use rand::{RngExt, SeedableRng};

use super::question::Questions;
use super::run::{Awaited, Life, Moment, Phase, Run};
use super::stanza::{self, CARBONS};
use crate::client::{Received, Resumption, SM, Stream};
use crate::history::{Log, Message, What, bare};
use crate::xml::escape;
use crate::{Client, Detached, Login, Node};

/// How many messages may be unacknowledged: above the server's credit for a session, so that it has to stop reading.
const WINDOW: usize = 90;
/// How long to wait before trying again what was refused.
const AGAIN: Duration = Duration::from_millis(200);
/// How long a client of a cluster waits on a connection over which nothing comes, though it asks, and for a new session.
const SILENCE: Duration = Duration::from_secs(4);
/// How often it asks when it waits for nothing else.
const HEARTBEAT: Duration = Duration::from_secs(1);

/// A client over all its sessions.
pub struct Actor {
    run: Arc<Run>,
    login: Login,
    /// Whether messages come to it. They come to one client of each account.
    receives: bool,
    /// Who can be written to.
    addresses: Arc<Vec<String>>,
    /// Whether its connections break.
    mishaps: bool,
    log: Log,
    rng: StdRng,
    written: u32,
    open: VecDeque<Open>,
    questions: Questions,
    /// Messages that were refused and are sent again, with the time for that.
    refused: VecDeque<(Instant, Message)>,
    /// Coming online was refused.
    offline_since: Option<Instant>,
    /// Connections that were left without a word.
    abandoned: Vec<Stream>,
}

/// A message that is not acknowledged.
struct Open {
    /// Its number in this session.
    number: u32,
    /// When it was sent, the last time.
    sent: Duration,
    /// When it was written; nothing if its client has left a connection since, which is no fault of the server's.
    since: Option<Duration>,
    message: Message,
}

/// Why a session does not go on.
enum End {
    /// The connection is gone, or the client has left it.
    Lost(Client),
    /// The client has forgotten its session, as after a crash of its own.
    Forgotten,
    /// The run is over.
    Over(Client),
}

impl Actor {
    /// A client with this full JID.
    pub fn new(run: Arc<Run>, login: Login, jid: &str, addresses: Arc<Vec<String>>, seed: u64) -> Self {
        Self {
            run,
            login,
            receives: jid.ends_with("/phone"),
            addresses,
            mishaps: true,
            log: Log::new(jid),
            rng: StdRng::seed_from_u64(seed),
            written: 0,
            open: VecDeque::new(),
            questions: Questions::default(),
            refused: VecDeque::new(),
            offline_since: None,
            abandoned: Vec::new(),
        }
    }

    /// A client that loses its connection only when the server goes.
    pub fn without_mishaps(self) -> Self {
        Self { mishaps: false, ..self }
    }

    /// Lives to the end of the run and gives the log.
    pub async fn live(mut self) -> Log {
        let mut left: Option<(Detached, Option<Life>)> = None;
        // Since when it tries to come back.
        let mut tries: Option<Duration> = None;
        while self.run.phase() != Phase::Over {
            let before = self.run.life();
            self.run.moment(Moment::Login);
            let since = *tries.get_or_insert_with(|| self.run.now());
            let client = match self.connect(&mut left).await {
                Ok((client, resumed)) => {
                    if resumed {
                        self.run.waited(Awaited::Resumption, since);
                    }
                    tries = None;
                    client
                }
                Err(error) => {
                    if Life::lasted(before, self.run.life()) {
                        let text = format!("cannot get a session: {error:#}");
                        let excused = self.run.in_trouble();
                        self.note(if excused { What::Remark(text) } else { What::Fault(text) });
                    }
                    self.pause(5..40).await;
                    continue;
                }
            };
            let life = Life::holder(before, self.run.life());
            match self.session(client, life).await {
                End::Over(client) => {
                    // All was at rest for seconds, and questions are asked before that.
                    if self.questions.is_open() {
                        self.run.keeps_silent();
                        self.note(What::Remark("a question got no answer to the end".to_owned()));
                    }
                    if let Err(error) = client.close().await {
                        self.note(What::Fault(format!("cannot close: {error:#}")));
                    }
                }
                End::Forgotten => {}
                End::Lost(client) => {
                    let detached = if self.rng.random_bool(0.2) {
                        let (detached, stream) = client.walk_away();
                        self.abandoned.push(stream);
                        self.abandoned.drain(..self.abandoned.len().saturating_sub(2));
                        detached
                    } else {
                        client.cut()
                    };
                    left = Some((detached, life));
                    self.pause(0..60).await;
                }
            }
        }
        self.log
    }

    /// Resumes the session that was left, or begins a new one; whether it was the first.
    async fn connect(&mut self, left: &mut Option<(Detached, Option<Life>)>) -> Result<(Client, bool)> {
        if let Some((detached, held_by)) = left.clone() {
            match self.within(detached.resume(&self.run.target, &self.login)).await? {
                Resumption::Resumed(client) => {
                    self.note(What::Resumed);
                    *left = None;
                    return Ok((*client, true));
                }
                Resumption::Failed { condition, .. } => {
                    let should = held_by == Some(self.run.life());
                    self.note(What::NotResumed { condition, should });
                    *left = None;
                }
            }
        }
        let mut client = self.within(self.login.connect(&self.run.target)).await?;
        self.note(What::Opened);
        self.questions.forget();
        self.offline_since = None;
        let management = client.management();
        if management.and_then(|m| m.id()).is_none() {
            self.note(What::Fault("the session cannot be resumed".to_owned()));
        }
        if let Err(error) = self.begin(&mut client).await {
            // The session exists: it is to be resumed, if its server lives.
            self.note(What::Remark(format!("lost at the start of a session: {error:#}")));
        }
        Ok((client, false))
    }

    /// Waits for a session, in a cluster no longer than for anything else: another node may give one.
    async fn within<T>(&self, work: impl Future<Output = Result<T>>) -> Result<T> {
        if !self.run.is_on_cluster() {
            return work.await;
        }
        match tokio::time::timeout(SILENCE, work).await {
            Ok(done) => done,
            Err(_) => bail!("no session within {SILENCE:?}"),
        }
    }

    /// Comes online and sends what is open again, in either order; gives some of it up.
    async fn begin(&mut self, client: &mut Client) -> Result<()> {
        let presence_first = self.rng.random_bool(0.7);
        if self.rng.random_bool(0.08) {
            let keep = self.rng.random_range(0..=self.open.len());
            for open in self.open.split_off(keep) {
                self.run.waits(-1);
                self.note(What::GivenUp(open.message.origin));
            }
        }
        let mut sent = Ok(());
        if presence_first {
            sent = self.come_online(client).await;
        }
        for index in 0..self.open.len() {
            let message = self.open[index].message.clone();
            self.note(What::SentAgain(message.origin.clone()));
            // Every message gets its number, whether the connection still takes it or not.
            sent = sent.and(client.send_stanza(stanza::write(&message)).await);
            self.open[index].number = client.management().map_or(0, |m| m.sent_total());
            self.open[index].sent = self.run.now();
        }
        if !presence_first {
            sent = sent.and(self.come_online(client).await);
        }
        sent
    }

    /// A phone receives; a desk has a negative priority and gets copies only.
    async fn come_online(&self, client: &mut Client) -> Result<()> {
        if self.receives {
            return client.send_stanza("<presence/>".to_owned()).await;
        }
        client.send_stanza(format!("<iq type='set' id='copies'><enable xmlns='{CARBONS}'/></iq>")).await?;
        client.send_stanza("<presence><priority>-1</priority></presence>".to_owned()).await
    }

    async fn session(&mut self, mut client: Client, life: Option<Life>) -> End {
        let mishap = Instant::now() + Duration::from_millis(self.rng.random_range(50..3000));
        let over = client.stream().tcp().and_then(|tcp| Ok(tcp.local_addr()?)).ok();
        self.run.works(&self.log.client, over);
        let ended = self.work(&mut client, mishap).await;
        self.run.works(&self.log.client, None);
        if matches!(ended, Ok(Why::Mishap)) {
            self.open.iter_mut().for_each(|open| open.since = None);
        }
        match ended {
            Ok(end) => match end {
                Why::Over => End::Over(client),
                Why::Mishap if self.rng.random_bool(0.15) => {
                    self.note(What::Remark("forgets its session".to_owned()));
                    End::Forgotten
                }
                Why::Mishap => {
                    self.note(What::Remark("leaves its connection".to_owned()));
                    if self.rng.random_bool(0.5)
                        && let Ok(tcp) = client.stream().tcp()
                    {
                        // A reset instead of an end: what is on the way is thrown away.
                        let _ = tcp.set_zero_linger();
                    }
                    End::Lost(client)
                }
            },
            Err(error) => {
                let lived =
                    life == Some(self.run.life()) && !(self.run.is_on_cluster() && self.run.in_trouble());
                let text = format!("the session ends: {error:#}");
                self.note(if lived { What::Fault(text) } else { What::Remark(text) });
                End::Lost(client)
            }
        }
    }

    /// Writes and receives until something happens.
    async fn work(&mut self, client: &mut Client, mishap: Instant) -> Result<Why> {
        client.answer_requests(false);
        let mut next_write = Instant::now() + self.milliseconds(0..30);
        let mut next_request = Instant::now() + Duration::from_millis(100);
        let mut next_question = Instant::now() + self.milliseconds(0..1000);
        let mut held: Option<Instant> = None;
        let mut settled = false;
        let mut heard = Instant::now();
        self.take_acknowledgements(client);
        loop {
            let phase = self.run.phase();
            let now = Instant::now();
            match phase {
                Phase::Over => return Ok(Why::Over),
                Phase::Storm if self.mishaps && now >= mishap => return Ok(Why::Mishap),
                Phase::Storm if now >= next_write => {
                    self.write_burst(client).await?;
                    next_write = Instant::now() + self.milliseconds(0..40);
                }
                Phase::Storm | Phase::Calm => {}
                Phase::Settled => {
                    if !settled {
                        client.acknowledge().await?;
                        self.note(What::Settled);
                        settled = true;
                    }
                }
            }
            let asks = !self.open.is_empty() || (self.run.is_on_cluster() && now >= next_request + HEARTBEAT);
            if asks && now >= next_request {
                client.request_acknowledgement().await?;
                next_request = now + Duration::from_millis(100);
            }
            if self.run.is_on_cluster()
                && phase == Phase::Storm
                && now >= next_question
                && !self.questions.is_open()
            {
                let question = self.questions.next(self.run.now());
                client.send_stanza(question).await?;
                next_question = Instant::now() + self.milliseconds(300..1500);
            }
            if let Some((id, waited)) = self.questions.overdue(self.run.now()) {
                self.run.keeps_silent();
                self.note(What::Remark(format!("{id} got no answer within {waited:.1?}")));
            }
            if self.run.is_on_cluster() && now >= heard + SILENCE {
                bail!("nothing came for {SILENCE:?}");
            }
            if phase == Phase::Storm
                && self.open.len() < WINDOW
                && let Some((_, message)) = self.refused.pop_front_if(|(due, _)| now >= *due)
            {
                self.send_refused(client, message).await?;
            }
            if self.offline_since.is_some_and(|since| now >= since + AGAIN) {
                self.offline_since = None;
                self.come_online(client).await?;
            }
            if held.is_some_and(|until| now >= until) {
                held = None;
                client.acknowledge().await?;
                self.run.moment(Moment::Confirmed);
            }
            let Some(received) = client.receive(Duration::from_millis(5)).await? else { continue };
            heard = Instant::now();
            match received {
                Received::Element(node) if node.is(SM, "r") => {
                    // Most are answered at once, some late: then a crash finds unacknowledged messages.
                    let wait = if self.rng.random_bool(0.6) { 0..1 } else { 1..200 };
                    let until = now + self.milliseconds(wait);
                    held = held.or(Some(until));
                }
                Received::Element(node) if node.is(SM, "a") => self.take_acknowledgements(client),
                Received::Element(node) => self.take(client, &node).await?,
                Received::Acknowledged(_) => self.take_acknowledgements(client),
                Received::End => bail!("the server ended the stream"),
                Received::Closed => bail!("the connection is closed"),
            }
        }
    }

    async fn write_burst(&mut self, client: &mut Client) -> Result<()> {
        for _ in 0..self.rng.random_range(1..16) {
            if self.open.len() >= WINDOW || !self.run.take_turn() {
                break;
            }
            self.written += 1;
            let to = self.addresses[self.rng.random_range(0..self.addresses.len())].clone();
            let writer = self.log.client.replace(['@', '/'], ".");
            let origin = format!("{}-{writer}-{}", self.run.name, self.written);
            let body = stanza::body(&mut self.rng, &origin);
            let message = Message { origin, to, body };
            self.note(What::Sent(message.clone()));
            let xml = stanza::write(&message);
            let number = client.management().map_or(0, |m| m.sent_total()) + 1;
            let sent = self.run.now();
            self.open.push_back(Open { number, sent, since: Some(sent), message });
            self.run.waits(1);
            client.send_stanza(xml).await?;
            self.run.moment(Moment::Sent);
        }
        if self.rng.random_bool(0.3) {
            client.request_acknowledgement().await?;
        }
        Ok(())
    }

    /// Sends a message again that was refused, as a new stanza of this session.
    async fn send_refused(&mut self, client: &mut Client, message: Message) -> Result<()> {
        self.note(What::SentAgain(message.origin.clone()));
        let xml = stanza::write(&message);
        let number = client.management().map_or(0, |m| m.sent_total()) + 1;
        self.open.push_back(Open { number, sent: self.run.now(), since: None, message });
        self.run.waits(1);
        client.send_stanza(xml).await
    }

    /// Logs what the server's `h` covers by now.
    fn take_acknowledgements(&mut self, client: &Client) {
        let Some(management) = client.management() else { return };
        let covered = management.acknowledged_total();
        let mut any = false;
        while let Some(open) = self.open.pop_front_if(|open| open.number <= covered) {
            self.run.serves(&self.log.client, open.sent);
            if let Some(since) = open.since {
                self.run.waited(Awaited::Answer, since);
            }
            self.note(What::Acknowledged(open.message.origin));
            self.run.waits(-1);
            any = true;
        }
        if any {
            self.run.stir();
            self.run.moment(Moment::Acknowledged);
        }
    }

    /// Takes a stanza or a stream error.
    async fn take(&mut self, client: &mut Client, node: &Node) -> Result<()> {
        match (node.name.as_str(), node.attribute("type")) {
            ("message", Some("error")) => {
                let origin = node.attribute("id").unwrap_or_default().to_owned();
                let condition = node.condition().unwrap_or_default();
                // It was answered: a client tells its user and does not send it again by itself.
                let place = self.open.iter().position(|open| open.message.origin == origin);
                let was_open = place.and_then(|place| self.open.remove(place));
                self.run.waits(-i64::from(was_open.is_some()));
                // Some users tell their client to try again: whatever became of it, it must not be there twice then.
                if let Some(open) = was_open
                    && self.run.is_on_cluster()
                    && condition.starts_with("wait")
                    && self.rng.random_bool(0.4)
                {
                    let due = Instant::now() + self.milliseconds(0..1500);
                    self.refused.push_back((due, open.message));
                }
                self.note(What::Refused { origin, condition });
                self.run.stir();
            }
            ("iq", Some(kind @ ("result" | "error"))) if self.questions.answered(node) => {
                self.run.answers(kind == "error");
            }
            ("presence" | "iq", Some("error")) if self.run.in_trouble() => {
                let condition = node.condition().unwrap_or_default();
                self.note(What::Remark(format!("{} refused: {condition}", node.name)));
                self.offline_since.get_or_insert_with(Instant::now);
            }
            ("message", _) => {
                self.run.stir();
                let what = match stanza::copied(node, client.bare()) {
                    Some(original) => What::Copied(stanza::sighting(original, client.bare())),
                    None => What::Seen(stanza::sighting(node, client.bare())),
                };
                self.note(what);
                self.run.moment(Moment::Seen);
                if self.rng.random_bool(0.05) {
                    client.acknowledge().await?;
                    self.run.moment(Moment::Confirmed);
                }
            }
            ("presence", _) => {
                let from = node.attribute("from").unwrap_or_default();
                if bare(from) != client.bare() {
                    self.note(What::Fault(format!("presence of a stranger: {node}")));
                }
            }
            ("iq", Some("get")) => {
                let [from, id] = ["from", "id"].map(|a| escape(node.attribute(a).unwrap_or_default()));
                client.send_stanza(format!("<iq type='result' to='{from}' id='{id}'/>")).await?;
            }
            ("iq", Some("result")) => {}
            _ => bail!("the server says {node}"),
        }
        Ok(())
    }

    fn note(&mut self, what: What) {
        self.log.note(self.run.now(), what);
    }

    fn milliseconds(&mut self, range: std::ops::Range<u64>) -> Duration {
        Duration::from_millis(self.rng.random_range(range))
    }

    async fn pause(&mut self, range: std::ops::Range<u64>) {
        let pause = self.milliseconds(range);
        tokio::time::sleep(pause).await;
    }
}

/// Why a client stops working.
enum Why {
    Over,
    Mishap,
}
