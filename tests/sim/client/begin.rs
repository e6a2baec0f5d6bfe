//! How a client gets a session: the one it left, or a new one.

use super::{Client, Session};
use crate::line::{FromClient, Line, ToClient};
use crate::run::MAYFLY;
use crate::speech::{self, CARBONS};
use crate::stage::Host;
use starling_tests::history::What;
use starling_wire::Token;
use starling_xmpp::{Element, IqType};
use std::collections::VecDeque;
use std::time::Duration;

/// How long a client waits for an answer before it tries elsewhere.
const PATIENCE: Duration = Duration::from_secs(11);

impl Client {
    /// Resumes the session that was left, or begins a new one; `None` when the connection came to nothing.
    pub(super) async fn begin(&mut self, line: &mut Line, host: &dyn Host) -> Option<Session> {
        if let Some(mut session) = self.left.take() {
            match self.resume(line, &mut session).await {
                Some(true) => {
                    session.lives = vec![host.life()];
                    return Some(session);
                }
                Some(false) => {
                    let away = self.stage.world.now().saturating_sub(self.left_at);
                    let in_time = away + Duration::from_secs(1) < self.stage.plan.resume_timeout;
                    let kept = session.lives.iter().all(|life| host.keeps(*life, &self.account));
                    let should = kept && in_time && self.stage.is_smooth();
                    self.note(What::NotResumed { condition: "item-not-found".to_owned(), should });
                }
                None => {
                    // Not known: it tries again, as a client would.
                    session.lives.push(host.life());
                    self.left = Some(session);
                    return None;
                }
            }
        }
        line.up.send(FromClient::Bind(self.device.resource()));
        let token = match self.hear(line, PATIENCE).await? {
            ToClient::Bound(token) => token,
            ToClient::Refused(condition) => {
                self.note(What::Remark(format!("not bound: {condition}")));
                return None;
            }
            _ => return None,
        };
        self.note(What::Opened);
        let mut session = Session::new(token, host.life());
        if !self.plain {
            line.up.send(FromClient::Enable);
            session.counted = true;
        }
        self.come_in(line, &mut session);
        Some(session)
    }

    async fn resume(&mut self, line: &mut Line, session: &mut Session) -> Option<bool> {
        line.up.send(FromClient::Resume(session.token, session.seen));
        match self.hear(line, PATIENCE).await? {
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
        let enable = speech::request(IqType::Set, "copies", Element::new(CARBONS, "enable"));
        self.send(line, session, enable);
        self.send(line, session, speech::presence(-1));
    }
}

impl Session {
    fn new(token: Token, life: u64) -> Self {
        Self {
            token,
            lives: vec![life],
            resumable: false,
            counted: false,
            sent: 0,
            unheard: VecDeque::new(),
            seen: 0,
            enabled: false,
        }
    }
}
