//! How a client gets a session: the one it left, or a new one.

use super::duties::COPIES;
use super::{Client, Session};
use crate::line::{FromClient, Line, ToClient};
use crate::run::MAYFLY;
use crate::speech::{self, CARBONS};
use crate::stage::{Host, Life, Phase};
use starling_tests::history::What;
use starling_wire::{EdgeId, Token};
use starling_xmpp::{Element, IqType};
use std::collections::VecDeque;
use std::time::Duration;

/// How long a client waits for an answer before it tries elsewhere.
const PATIENCE: Duration = Duration::from_secs(11);
/// For so long may something that a client did not wait for still come about.
const RIVALS: Duration = Duration::from_secs(30);
/// How long one that is in haste does, at most, in microseconds.
const HASTE: u64 = 1_500_000;

impl Client {
    /// Resumes the session that was left, or begins a new one; `None` when the connection came to nothing.
    pub(super) async fn begin(&mut self, line: &mut Line, host: &dyn Host) -> Option<Session> {
        let life = (host.life(), self.stage.world.now());
        if let Some(mut session) = self.left.take() {
            match self.resume(line, &mut session).await {
                Some(true) => {
                    session.lives = vec![life];
                    return Some(session);
                }
                Some(false) => {
                    if self.stage.records.was_at(session.token, EdgeId(life.0)) {
                        // Its home may have been lost right after that. If the next one hears nothing of this edge, nobody has it.
                        session.lives.push(life);
                    }
                    let away = self.stage.world.now().saturating_sub(self.left_at);
                    let in_time = away + Duration::from_secs(1) < self.stage.plan.resume_timeout;
                    let should = in_time && self.is_kept(&session, host);
                    self.note(What::NotResumed { condition: "item-not-found".to_owned(), should });
                    self.stage.forgets(&self.name, session.token);
                }
                None => {
                    // Not known: it tries again, as a client would.
                    session.lives.push(life);
                    self.left = Some(session);
                    return None;
                }
            }
        }
        line.up.send(FromClient::Bind(self.device.resource()));
        let (patience, before) = (self.patience(), self.replaced);
        self.replaced = Some(self.stage.world.now());
        let token = match self.hear(line, patience).await? {
            ToClient::Bound(token) => token,
            ToClient::Refused(condition) => {
                self.note(What::Remark(format!("not bound: {condition}")));
                return None;
            }
            _ => return None,
        };
        self.replaced = before;
        self.note(What::Opened);
        self.again.clear();
        self.begin_duties();
        let mut session = Session::new(token, life);
        if !self.plain {
            line.up.send(FromClient::Enable);
            session.counted = true;
        }
        self.come_in(line, &mut session);
        Some(session)
    }

    /// Whether somebody has the session in any case, wherever it may be.
    pub(super) fn is_kept(&self, session: &Session, host: &dyn Host) -> bool {
        let kept = session.lives.iter().all(|life| host.keeps(*life, &self.account));
        // Without a lease for long a server sends its clients away. A cluster gives the shard to another one.
        let smooth = self.stage.plan.shape.is_some() || self.stage.is_smooth();
        kept && smooth && !self.may_come(self.replaced) && !self.stage.records.has_strayed(session.token)
    }

    /// Whether what it asked for then may yet come about.
    pub(super) fn may_come(&self, asked: Option<Duration>) -> bool {
        asked.is_some_and(|asked| self.stage.world.now() < asked + RIVALS)
    }

    /// How long it waits this time.
    fn patience(&mut self) -> Duration {
        let hasty = self.dice.permille(self.stage.plan.hasty) && self.stage.phase() == Phase::Storm;
        if hasty { self.micros(1_000..HASTE) } else { PATIENCE }
    }

    async fn resume(&mut self, line: &mut Line, session: &mut Session) -> Option<bool> {
        line.up.send(FromClient::Resume(session.token, session.seen));
        let patience = self.patience();
        match self.hear(line, patience).await? {
            ToClient::Resumed(handled) => {
                self.note(What::Resumed);
                session.heard(handled);
                for open in self.open.iter().take_while(|open| open.number <= handled) {
                    self.stage.resumed_over(&self.name, session.token, &open.message.origin);
                }
                self.covered(handled);
                // XEP-0198 section 5: what was not handled is sent again, in order.
                for (_, stanza) in &session.unheard {
                    line.up.send(FromClient::Stanza(stanza.clone()));
                }
                Some(true)
            }
            ToClient::NotResumed => Some(false),
            _ => None,
        }
    }

    /// Comes online and sends what is open again, in either order; gives some of it up.
    fn come_in(&mut self, line: &Line, session: &mut Session) {
        let presence_first = self.dice.permille(700);
        // An account that may have been removed meanwhile does not say again what it said before.
        let forgetful = self.account.local() == Some(MAYFLY);
        if forgetful || self.dice.permille(80) {
            let keep = if forgetful { 0 } else { self.dice.place(self.open.len() + 1) };
            for open in self.open.split_off(keep) {
                self.note(What::GivenUp(open.message.origin));
            }
        }
        if presence_first {
            self.come_online(line, session);
        }
        for index in 0..self.open.len() {
            let message = self.open[index].message.clone();
            self.note(What::SentAgain(message.origin.clone()));
            self.send(line, session, speech::message(&message));
            self.open[index].number = session.sent;
        }
        if !presence_first {
            self.come_online(line, session);
        }
    }

    /// A phone receives; others have a negative priority and get copies only.
    fn come_online(&mut self, line: &Line, session: &mut Session) {
        if self.receives() {
            return self.send(line, session, speech::presence(0));
        }
        let enable = speech::request(IqType::Set, COPIES, Element::new(CARBONS, "enable"));
        self.send(line, session, enable);
        self.send(line, session, speech::presence(-1));
    }
}

impl Session {
    fn new(token: Token, life: Life) -> Self {
        Self {
            token,
            lives: vec![life],
            resumable: false,
            denied: None,
            counted: false,
            sent: 0,
            unheard: VecDeque::new(),
            seen: 0,
            enabled: false,
        }
    }
}
