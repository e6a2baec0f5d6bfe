//! What a client does in a session.

use super::{Client, End, Open, Session, WINDOW};
use crate::line::{FromClient, Line, ToClient};
use crate::speech;
use crate::stage::Phase;
use starling_tests::history::{Message, What, bare};
use starling_xmpp::{IqType, Kind, MessageType, Stanza};
use std::time::Duration;

/// When it does what next.
struct Times {
    mishap: Duration,
    write: Duration,
    ask: Duration,
    /// An acknowledgement that was asked for and is held back.
    held: Option<Duration>,
    heard: Duration,
    settled: bool,
    /// It reads nothing more, and forgets its session then.
    deaf: Option<Duration>,
}

impl Client {
    /// Writes and receives until something happens.
    pub(super) async fn work(&mut self, line: &mut Line, session: &mut Session) -> End {
        let now = self.stage.world.now();
        let most = u64::try_from(self.stage.plan.sessions.as_micros()).unwrap_or(u64::MAX);
        let mut times = Times {
            mishap: now + self.micros(50_000..most),
            write: now + self.micros(0..50_000),
            ask: now + Duration::from_millis(100),
            held: None,
            heard: now,
            settled: false,
            deaf: None,
        };
        let patience = self.stage.plan.patience;
        let silent = |now: Duration, times: &Times| now > times.heard + patience;
        loop {
            let phase = self.stage.phase();
            let now = self.stage.world.now();
            if phase == Phase::Over {
                line.up.send(FromClient::End);
                return End::Closed;
            }
            if times.deaf.is_some_and(|until| now >= until) {
                self.note(What::Remark("forgets its session, with what it has not read".to_owned()));
                return End::Forgotten;
            }
            if session.counted && !session.enabled {
                // What comes before it counts is lost with its connection: it is written, and so it has arrived.
                times.mishap = times.mishap.max(now + Duration::from_millis(5));
            }
            if phase == Phase::Storm && now >= times.mishap && times.deaf.is_none() {
                // What comes before it counts is lost with a connection that nobody reads.
                if !session.enabled || !self.dice.permille(100) {
                    return self.mishap(line);
                }
                (times.deaf, times.mishap) = (Some(now + self.micros(1_000..3_000_000)), Duration::MAX);
            }
            self.act(line, session, &mut times, phase);
            let waits = session.counted && !self.open.is_empty();
            let idle = if times.settled { 60_000 } else { 1_000 };
            let mut until = now + Duration::from_millis(if waits { 100 } else { idle });
            if phase == Phase::Storm {
                until = until.min(times.write).min(times.mishap);
            }
            until = until.min(times.held.unwrap_or(until));
            let within = until.saturating_sub(now).max(Duration::from_micros(100));
            if let Some(end) = times.deaf {
                self.stage.crowd.sleep(within.min(end.saturating_sub(now))).await;
                continue;
            }
            match self.hear(line, within).await {
                Some(heard) => {
                    times.heard = self.stage.world.now();
                    if let Some(end) = self.heard(line, session, &mut times, heard) {
                        return end;
                    }
                }
                None if session.counted && !self.open.is_empty() && silent(now, &times) => {
                    self.note(What::Remark("silence".to_owned()));
                    return End::Lost;
                }
                None => {}
            }
        }
    }

    /// Does what it is time for.
    fn act(&mut self, line: &Line, session: &mut Session, times: &mut Times, phase: Phase) {
        let now = self.stage.world.now();
        if phase == Phase::Storm && now >= times.write {
            self.write_burst(line, session);
            let pace = u64::try_from(self.stage.plan.pace.as_micros()).unwrap_or(u64::MAX);
            times.write = now + self.micros(1_000..pace);
        }
        if phase == Phase::Settled && !times.settled {
            times.settled = true;
            if session.enabled {
                line.up.send(FromClient::Acknowledge(session.seen));
            }
            self.has_answers();
            self.note(What::Settled);
        }
        if session.counted && !self.open.is_empty() && now >= times.ask {
            line.up.send(FromClient::Ask);
            times.ask = now + Duration::from_millis(200);
        }
        if times.held.is_some_and(|until| now >= until) {
            times.held = None;
            line.up.send(FromClient::Acknowledge(session.seen));
        }
    }

    fn heard(
        &mut self,
        line: &Line,
        session: &mut Session,
        times: &mut Times,
        heard: ToClient,
    ) -> Option<End> {
        match heard {
            ToClient::Stanza(stanza) => {
                // What came before `<enabled/>` is not counted (XEP-0198 section 4).
                session.seen += u32::from(session.enabled);
                self.take(line, session, stanza);
            }
            ToClient::Enabled(resumable) => {
                session.enabled = true;
                session.resumable = resumable;
            }
            ToClient::Counted(count) => {
                session.heard(count);
                self.covered(count);
            }
            ToClient::Asked => {
                // Most are answered at once, some late: then a crash finds unacknowledged messages.
                let wait = if self.dice.permille(600) { 1 } else { 300_000 };
                let until = times.heard + self.micros(0..wait);
                times.held = times.held.or(Some(until));
            }
            ToClient::End(error) => {
                self.note(What::Remark(format!("the stream ends: {error:?}")));
                let rival = self.may_come(self.rival);
                let ends = error.as_deref().is_some_and(|error| matches!(error, "conflict" | "reset"));
                session.denied = error.filter(|_| ends && session.resumable && !rival);
                session.resumable = false;
                return Some(End::Lost);
            }
            ToClient::Lost => {
                self.note(What::Remark("connection lost".to_owned()));
                return Some(End::Lost);
            }
            other => self.note(What::Fault(format!("unexpected: {other:?}"))),
        }
        None
    }

    /// Its connection ends, or the client.
    fn mishap(&mut self, line: &Line) -> End {
        if self.dice.permille(150) {
            self.note(What::Remark("forgets its session".to_owned()));
            return End::Forgotten;
        }
        if self.open.is_empty() && self.dice.permille(400) {
            self.note(What::Remark("goes offline".to_owned()));
            line.up.send(FromClient::End);
            return End::Closed;
        }
        self.note(What::Remark("leaves its connection".to_owned()));
        End::Lost
    }

    fn write_burst(&mut self, line: &Line, session: &mut Session) {
        for _ in 0..self.dice.within(1..self.stage.plan.burst) {
            if self.open.len() >= WINDOW || !self.stage.take_turn() {
                break;
            }
            let message = self.compose();
            self.note(What::Sent(message.clone()));
            self.messages.insert(message.origin.clone(), message.clone());
            self.send(line, session, speech::message(&message));
            if session.counted {
                self.open.push_back(Open { number: session.sent, message });
            } else {
                self.note(What::GivenUp(message.origin));
            }
        }
        for origin in std::mem::take(&mut self.again) {
            let is_open = self.open.iter().any(|open| open.message.origin == origin);
            match self.messages.get(&origin).cloned() {
                // The first time has to be counted before the second.
                _ if is_open => self.again.push(origin),
                Some(message) if session.counted => {
                    self.note(What::SentAgain(origin));
                    self.send(line, session, speech::message(&message));
                    self.open.push_back(Open { number: session.sent, message });
                }
                _ => {}
            }
        }
        if session.counted && self.dice.permille(300) {
            line.up.send(FromClient::Ask);
        }
        self.do_duties(line, session);
    }

    /// A message of its own to somebody.
    fn compose(&mut self) -> Message {
        self.written += 1;
        let to = self.addresses[self.dice.place(self.addresses.len())].clone();
        let origin = format!("{}-{}", self.name.replace("@localhost/", "."), self.written);
        Message { body: format!("{origin} <&>"), origin, to }
    }

    /// Logs what the server's `h` covers by now.
    pub(super) fn covered(&mut self, count: u32) {
        while let Some(open) = self.open.pop_front_if(|open| open.number <= count) {
            self.note(What::Acknowledged(open.message.origin));
        }
    }

    /// Takes a stanza.
    fn take(&mut self, line: &Line, session: &mut Session, stanza: Stanza) {
        match stanza.kind {
            Kind::Message(MessageType::Error) => {
                let origin = stanza.id.as_deref().unwrap_or_default().to_owned();
                let condition = speech::condition(&stanza);
                let stubborn = self.stage.plan.stubborn;
                if condition == "resource-constraint" && session.counted && self.dice.permille(stubborn) {
                    self.again.push(origin.clone());
                }
                self.note(What::Refused { origin, condition });
            }
            Kind::Message(_) => {
                let account = self.account.as_str().to_owned();
                let message = stanza.to_element();
                let what = match speech::copied(&message, &account) {
                    Some(original) => What::Copied(speech::sighting(original, &account)),
                    None => What::Seen(speech::sighting(&message, &account)),
                };
                self.note(what);
                if session.enabled && self.dice.permille(50) {
                    line.up.send(FromClient::Acknowledge(session.seen));
                }
            }
            Kind::Presence(_) => {
                let from = stanza.from.as_ref().map(|from| from.as_str().to_owned()).unwrap_or_default();
                if bare(&from) != self.account.as_str() {
                    self.note(What::Fault(format!("presence of a stranger: {from}")));
                } else if from == self.name {
                    self.is_available();
                }
            }
            Kind::Iq(IqType::Get) => {
                let answer = stanza.result();
                self.send(line, session, answer);
            }
            Kind::Iq(_) => self.answered(&stanza),
        }
    }
}
