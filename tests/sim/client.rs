//! A client that writes and receives through all that happens to it.
//!
//! It counts stanzas (XEP-0198), resumes, and in a new session sends again what was not acknowledged, with the same
//! `origin-id` (XEP-0359). A plain one does none of that.

mod begin;
mod duties;
mod work;

pub(crate) use duties::PEST;

use crate::line::{FromClient, Line, ToClient};
use crate::plan::{Cast, Device};
use crate::stage::{Life, Phase, Stage};
use futures::StreamExt;
use futures::future::{Either, select};
use starling_store_scylla::model::Dice;
use starling_tests::history::{Message, What};
use starling_wire::Token;
use starling_xmpp::{BareJid, Stanza};
use std::collections::{BTreeMap, VecDeque};
use std::sync::Arc;
use std::time::Duration;

/// The domain of all accounts.
pub(crate) const DOMAIN: &str = "localhost";

/// How many messages may be unacknowledged: above the credit of a session.
const WINDOW: usize = 90;

pub(crate) struct Client {
    stage: Arc<Stage>,
    device: Device,
    account: BareJid,
    /// The full JID.
    name: String,
    plain: bool,
    /// Who can be written to.
    addresses: Vec<String>,
    dice: Dice,
    written: u32,
    /// Messages that are not acknowledged.
    open: VecDeque<Open>,
    /// Messages that were refused for now, to be sent again in the same session.
    again: Vec<String>,
    /// All that were sent.
    messages: BTreeMap<String, Message>,
    /// The session it had when its connection went.
    left: Option<Session>,
    /// When it was left.
    left_at: Duration,
    /// When it asked last for a session and did not wait for the answer: that one may still begin, or the session go there.
    rival: Option<Duration>,
    /// When it did so for a new one, which may yet replace the one that it has.
    replaced: Option<Duration>,
    duties: duties::Duties,
}

struct Open {
    /// Its number in this session.
    number: u32,
    message: Message,
}

/// A session as its client knows it.
struct Session {
    token: Token,
    /// With what it may have been lost: the life of the server it was begun in, or edges that it may be at.
    lives: Vec<Life>,
    resumable: bool,
    /// It was taken from its client, as if another one had it or it were over: how that was said.
    denied: Option<String>,
    counted: bool,
    /// Stanzas written since `<enable/>`, and those of them that the server has not counted.
    sent: u32,
    unheard: VecDeque<(u32, Stanza)>,
    /// Stanzas that came since `<enabled/>`.
    seen: u32,
    enabled: bool,
}

/// Why a session does not go on.
enum End {
    /// The connection is gone.
    Lost,
    /// The client has forgotten its session, as after a crash of its own.
    Forgotten,
    /// It was closed.
    Closed,
}

impl Client {
    pub(crate) fn new(stage: &Arc<Stage>, cast: &Cast, device: Device, addresses: &[String]) -> Self {
        let name = format!("{}@{DOMAIN}/{}", cast.name, device.resource());
        Self {
            device,
            account: account(cast.name),
            duties: duties::Duties::new(&name),
            name,
            plain: cast.plain,
            addresses: addresses.to_vec(),
            dice: stage.dice(),
            written: 0,
            open: VecDeque::new(),
            again: Vec::new(),
            messages: BTreeMap::new(),
            left: None,
            left_at: Duration::ZERO,
            rival: None,
            replaced: None,
            stage: stage.clone(),
        }
    }

    /// Lives to the end of the run.
    pub(crate) async fn live(mut self) {
        while self.stage.phase() < Phase::Over {
            let Some(host) = self.stage.host() else {
                self.pause(5_000..60_000).await;
                continue;
            };
            let mut line = host.line(&self.stage, &self.account);
            let Some(mut session) = self.begin(&mut line, &*host).await else {
                self.rival = Some(self.stage.world.now());
                line.cut(&self.stage, Duration::from_millis(1));
                self.pause(5_000..300_000).await;
                continue;
            };
            let end = self.work(&mut line, &mut session).await;
            if let Some(condition) = session.denied.take() {
                let should = self.is_kept(&session, &*host);
                self.note(What::NotResumed { condition, should });
            }
            if matches!(end, End::Closed | End::Forgotten) {
                self.stage.forgets(&self.name, session.token);
            }
            match end {
                End::Closed => {
                    if self.stage.phase() < Phase::Over {
                        self.pause(0..2_000_000).await;
                    }
                }
                End::Lost | End::Forgotten => {
                    // Mostly the edge sees it at once; sometimes nobody tells it for long.
                    let notices = if self.dice.permille(800) { 2_000 } else { 20_000_000 };
                    let notices = self.dice.within(0..notices);
                    line.cut(&self.stage, Duration::from_micros(notices));
                    if matches!(end, End::Lost) && session.resumable {
                        self.left_at = self.stage.world.now();
                        self.left = Some(session);
                    }
                    let away = if self.dice.permille(900) { 60_000 } else { 4_000_000 };
                    self.pause(0..away).await;
                }
            }
        }
    }

    /// What it hears next, within this time.
    async fn hear(&self, line: &mut Line, within: Duration) -> Option<ToClient> {
        let timer = self.stage.crowd.sleep(within);
        match select(line.heard.next(), timer).await {
            Either::Left((heard, _)) => Some(heard.unwrap_or(ToClient::Lost)),
            Either::Right(_) => None,
        }
    }

    /// Sends a stanza and counts it.
    fn send(&mut self, line: &Line, session: &mut Session, stanza: Stanza) {
        if session.counted {
            session.sent += 1;
            session.unheard.push_back((session.sent, stanza.clone()));
        }
        line.up.send(FromClient::Stanza(stanza));
    }

    fn note(&self, what: What) {
        self.stage.note(&self.name, what);
    }

    fn micros(&mut self, range: std::ops::Range<u64>) -> Duration {
        Duration::from_micros(self.dice.within(range))
    }

    async fn pause(&mut self, micros: std::ops::Range<u64>) {
        let pause = self.micros(micros);
        self.stage.crowd.sleep(pause).await;
    }

    fn receives(&self) -> bool {
        self.device == Device::Phone
    }
}

impl Session {
    /// The server has counted so many of its stanzas.
    fn heard(&mut self, count: u32) {
        while self.unheard.pop_front_if(|(number, _)| *number <= count).is_some() {}
    }
}

/// The account of this name.
pub(crate) fn account(name: &str) -> BareJid {
    match BareJid::parse(&format!("{name}@{DOMAIN}")) {
        Ok(jid) => jid,
        Err(error) => panic!("{name}: {error}"),
    }
}
