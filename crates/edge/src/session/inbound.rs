//! From the socket to the home.

use super::{Phase, Session, Sm, Work};
use crate::wheel::Tick;
use starling_node::StanzaKind;
use starling_node::telemetry::metrics::{Direction, Kind as Label, Limit, SessionState, StanzaResult};
use starling_wire::{Leave, Up};
use starling_xmpp::stream::{Event, Incoming};
use starling_xmpp::{Element, Jid, Kind, StanzaCondition, StanzaError, StreamCondition, StreamError, ns};
use std::task::{Context, Poll};

impl Session {
    /// Reads while there is something and we may.
    pub(super) fn read(&mut self, cx: &mut Context<'_>, now: Tick, work: &mut Work) {
        for _ in 0..READS {
            self.events(now, work);
            if !self.may_read(now) {
                return;
            }
            let reader = &mut self.reader;
            match self.io.poll_read(cx, |bytes| reader.feed(bytes)) {
                Poll::Pending => return,
                Poll::Ready(Ok(0) | Err(_)) => return self.lose(work),
                Poll::Ready(Ok(count)) => {
                    self.timers.heard(now);
                    self.meter.bytes(count, &self.settings.limits.rate, now);
                }
            }
        }
        self.events(now, work);
        // There may be more; others of this thread come first.
        cx.waker().wake_by_ref();
    }

    fn may_read(&mut self, now: Tick) -> bool {
        self.phase == Phase::Open
            && self.credit.is_open()
            && self.tenancy.is_read()
            && !self.timers.is_throttled(now)
            && self.output.len() < UNWRITTEN
    }

    /// Takes what the reader has, as far as credit and rate allow.
    fn events(&mut self, now: Tick, work: &mut Work) {
        while self.phase == Phase::Open && self.credit.is_open() && !self.is_too_fast(now) {
            match self.reader.next() {
                Ok(Some(event)) => {
                    self.timers.partial(false, now);
                    self.event(event, now, work);
                }
                Ok(None) => return self.timers.partial(!self.reader.idle(), now),
                Err(error) => {
                    if error.condition == StreamCondition::PolicyViolation {
                        self.limit(Limit::XmlShape);
                    }
                    return self.fail(error, Leave::Closed, work);
                }
            }
        }
    }

    fn is_too_fast(&mut self, now: Tick) -> bool {
        if self.timers.is_throttled(now) {
            return true;
        }
        let wait = self.meter.wait(&self.settings.limits.rate, now);
        if wait.is_zero() {
            return false;
        }
        self.timers.throttle(wait, now);
        self.limit(if self.meter.is_out_of_bytes() { Limit::RateBytes } else { Limit::RateStanzas });
        true
    }

    fn event(&mut self, event: Event, now: Tick, work: &mut Work) {
        match event {
            Event::Stanza(incoming) => {
                self.meter.stanza(&self.settings.limits.rate, now);
                self.stanza(incoming, work);
            }
            Event::Nonza(element) => {
                self.meter.stanza(&self.settings.limits.rate, now);
                self.nonza(&element, work);
            }
            Event::Whitespace(_) => {}
            Event::End => self.drain(now),
            Event::Header(_) => self.refuse(StreamCondition::BadFormat, work),
        }
    }

    fn stanza(&mut self, incoming: Incoming, work: &mut Work) {
        let Incoming { mut stanza, size, mut fault } = incoming;
        if let Some(from) = &stanza.from
            && !self.may_call_itself(from)
        {
            return self.refuse(StreamCondition::InvalidFrom, work);
        }
        stanza.from = Some(self.jid.as_jid().clone());
        let (label, sampled) = match stanza.kind {
            Kind::Message(_) => (Label::Message, StanzaKind::Message),
            Kind::Presence(_) => (Label::Presence, StanzaKind::Presence),
            Kind::Iq(_) => (Label::Iq, StanzaKind::Iq),
        };
        match stanza.kind {
            // RFC 6120 §8.1.5: what has no language has that of the stream.
            Kind::Message(_) | Kind::Presence(_) if stanza.lang.is_none() => {
                stanza.lang.clone_from(&self.lang)
            }
            Kind::Iq(_) if fault.is_none() && stanza.payload.has(ns::BIND, "bind") => {
                fault = Some(
                    StanzaError::new(StanzaCondition::NotAllowed).with_text("a resource is bound already"),
                );
            }
            _ => {}
        }
        let metrics = &self.shared.telemetry.metrics;
        if fault.as_ref().is_some_and(|fault| fault.condition == StanzaCondition::PolicyViolation) {
            metrics.limits.at(Limit::StanzaSize).inc();
        }
        let result = if fault.is_some() { StanzaResult::Error } else { StanzaResult::Ok };
        metrics.stanzas.at(label, Direction::In, result).inc();
        metrics.stanza_size.at(label).observe(size as f64);
        let span = self.shared.telemetry.tracer.receive(sampled, |account| {
            let is_its = |jid: &Jid| jid.to_bare().as_str() == account;
            self.tenancy.account().as_str() == account || stanza.to.as_ref().is_some_and(is_its)
        });
        let sequence = self.credit.spend(size);
        let up =
            Up::Stanza { sequence, stanza, fault: fault.map(Box::new), trace: span.context(), again: false };
        work.up.push(self.tenancy.say(up));
        if !self.credit.is_open() {
            self.limit(Limit::Credit);
        }
    }

    /// RFC 6120 §8.1.2.1: a client's `from` is its own full or bare JID, or absent.
    fn may_call_itself(&self, from: &Jid) -> bool {
        from == self.jid.as_jid() || from == self.tenancy.account().as_jid()
    }

    fn nonza(&mut self, element: &Element, work: &mut Work) {
        match (element.ns(), element.name()) {
            (ns::SM, "r") => match self.sm {
                Sm::Off => sm_failed(work),
                Sm::Asked | Sm::On { .. } => self.asks.ask(self.credit.spent_through()),
            },
            (ns::SM, "a") => self.acknowledged(element, work),
            (ns::SM, "enable") => self.enable(element, work),
            (ns::SM, "resume") => sm_failed(work),
            (ns::CSI, "active") => self.client_state(true, work),
            (ns::CSI, "inactive") => self.client_state(false, work),
            (ns::SASL, "auth" | "response" | "abort") => self.refuse(StreamCondition::PolicyViolation, work),
            (ns::TLS, "starttls") => {
                work.out.extend_from_slice(b"<failure xmlns='urn:ietf:params:xml:ns:xmpp-tls'/>");
                self.finish(work);
            }
            (ns::STREAMS, "error") => self.finish(work),
            _ => self.refuse(StreamCondition::UnsupportedStanzaType, work),
        }
    }

    fn enable(&mut self, element: &Element, work: &mut Work) {
        if self.sm != Sm::Off {
            return sm_failed(work);
        }
        self.sm = Sm::Asked;
        let resume = matches!(element.attribute("resume"), Some("true" | "1"));
        let max = element.attribute("max").and_then(|max| max.parse().ok());
        work.up.push(self.tenancy.say(Up::EnableSm { resume, max }));
    }

    fn acknowledged(&mut self, element: &Element, work: &mut Work) {
        if self.sm == Sm::Off {
            return sm_failed(work);
        }
        let Some(h) = element.attribute("h") else { return self.refuse(StreamCondition::BadFormat, work) };
        match h.trim().parse::<u32>() {
            Ok(handled) if self.acknowledged == Some(handled) => {}
            Ok(handled) => {
                self.acknowledged = Some(handled);
                work.up.push(self.tenancy.say(Up::Acknowledged { handled }));
            }
            // A number beyond any count is too high like one beyond ours; the home is not needed to see it.
            Err(_) if is_whole(h.trim()) => {
                let app = Element::new(ns::SM, "handled-count-too-high");
                let error = StreamError::new(StreamCondition::UndefinedCondition).with_app(app);
                self.fail(error, Leave::Closed, work);
            }
            Err(_) => self.refuse(StreamCondition::BadFormat, work),
        }
    }

    fn client_state(&mut self, active: bool, work: &mut Work) {
        if self.gauge.is_active() == active {
            return;
        }
        self.gauge.change(if active { SessionState::Active } else { SessionState::CsiInactive });
        work.up.push(self.tenancy.say(Up::ClientState { active }));
    }

    fn refuse(&mut self, condition: StreamCondition, work: &mut Work) {
        self.fail(StreamError::new(condition), Leave::Closed, work);
    }
}

/// XEP-0198 §6: in the wrong state.
pub(super) fn sm_failed(work: &mut Work) {
    work.out.extend_from_slice(
        b"<failed xmlns='urn:xmpp:sm:3'><unexpected-request xmlns='urn:ietf:params:xml:ns:xmpp-stanzas'/></failed>",
    );
}

/// A whole number in decimal digits, of any size and sign.
fn is_whole(text: &str) -> bool {
    let digits = text.strip_prefix('-').unwrap_or(text);
    !digits.is_empty() && digits.bytes().all(|byte| byte.is_ascii_digit())
}

/// Reads of one waking; each is up to a TLS record.
const READS: usize = 4;
/// Unwritten bytes beyond which a client is not heard either.
const UNWRITTEN: usize = 64 * 1024;
