//! From the home to the socket.

use super::inbound::sm_failed;
use super::{ASK, Session, Sm, Work};
use crate::wheel::Tick;
use base64::Engine;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use starling_node::telemetry::Step;
use starling_node::telemetry::metrics::{Direction, Kind as Label, StanzaResult};
use starling_wire::{Down, Leave, Token, Trace};
use starling_xmpp::{Element, Kind, Stanza, ns};
use std::task::{Context, Poll};

/// What is on its way out, and how far it is.
#[derive(Debug, Default)]
pub(super) struct Output {
    /// What the socket did not take yet; empty, without a buffer, nearly always.
    left: Vec<u8>,
    /// The transport holds bytes that it could not pass on.
    unflushed: bool,
    /// Stanzas rendered, written to the kernel, and told to the home; since the connection was bound.
    rendered: u64,
    written: u64,
    reported: u64,
}

impl Output {
    /// Bytes that wait here.
    pub(super) fn len(&self) -> usize {
        self.left.len()
    }

    /// Whether the socket takes no more for now.
    pub(super) fn is_stuck(&self) -> bool {
        self.unflushed || !self.left.is_empty()
    }

    /// The count for the home, if it does not know it.
    pub(super) fn take_report(&mut self) -> Option<u64> {
        let news = self.written > self.reported;
        self.reported = self.written;
        news.then_some(self.written)
    }
}

impl Session {
    /// Renders what the home has sent, piece by piece while the socket takes it; whether nothing of it is left.
    pub(super) fn render(&mut self, cx: &mut Context<'_>, work: &mut Work, now: Tick) -> bool {
        let mut more = true;
        while more && self.is_alive() && !self.output.is_stuck() {
            let items;
            (items, more) = self.tenancy.mailbox().take(PIECE);
            for down in items {
                if self.is_alive() {
                    self.down(down, work);
                }
            }
            if work.out.len() >= PIECE {
                self.write(cx, work, now);
            }
        }
        !more
    }

    fn down(&mut self, down: Down, work: &mut Work) {
        match down {
            Down::Stanza { stanza, trace, .. } => self.deliver(&stanza, trace, work),
            Down::RequestAck if matches!(self.sm, Sm::On { .. }) => work.out.extend_from_slice(ASK),
            Down::SmEnabled { resume, base } => {
                self.sm = Sm::On { base };
                self.resumable = resume.is_some();
                enabled(self.token, resume).write(&mut work.out, ns::CLIENT);
            }
            Down::SmFailed => {
                self.sm = Sm::Off;
                sm_failed(work);
            }
            Down::Close(None) => self.finish(work),
            Down::Close(Some(error)) => self.fail(*error, Leave::Closed, work),
            Down::Handled { .. } | Down::RequestAck => {}
            // For what stands between a session and its home.
            Down::Remember(_) | Down::Saved { .. } | Down::Decided { .. } => {}
            Down::Released => self.released(work),
            Down::Bound { .. } | Down::Refused(_) | Down::Resumed { .. } | Down::NotResumed => {
                tracing::warn!(event = "answer_unasked", "a home answers what was not asked");
            }
        }
    }

    fn deliver(&mut self, stanza: &Stanza, trace: Option<Trace>, work: &mut Work) {
        let span = self.shared.telemetry.tracer.span(trace, Step::EdgeDeliver);
        stanza.write(&mut work.out);
        self.output.rendered += 1;
        let label = match stanza.kind {
            Kind::Message(_) => Label::Message,
            Kind::Presence(_) => Label::Presence,
            Kind::Iq(_) => Label::Iq,
        };
        let result = if stanza.is_error() { StanzaResult::Error } else { StanzaResult::Ok };
        self.shared.telemetry.metrics.stanzas.at(label, Direction::Out, result).inc();
        span.end();
    }

    /// Answers each `<r/>` whose stanzas the home has handled: never an `h` that it has not recorded.
    pub(super) fn answer_asks(&mut self, work: &mut Work) {
        let Sm::On { base } = self.sm else { return };
        if self.asks.is_empty() || !self.is_alive() {
            return;
        }
        let handled = self.credit.handled_through();
        let h = handled.saturating_sub(base) as u32;
        for _ in 0..self.asks.answerable(handled) {
            work.out.extend_from_slice(b"<a xmlns='urn:xmpp:sm:3' h='");
            work.out.extend_from_slice(h.to_string().as_bytes());
            work.out.extend_from_slice(b"'/>");
        }
    }

    /// Writes what is left from before and what is new, as far as the socket takes it.
    pub(super) fn write(&mut self, cx: &mut Context<'_>, work: &mut Work, now: Tick) {
        if work.out.is_empty() && !self.output.is_stuck() {
            return;
        }
        let mut progress = false;
        let result = if self.output.left.is_empty() {
            let result = self.push(cx, &work.out, &mut progress);
            if let Ok(done) = result {
                self.output.left.extend_from_slice(&work.out[done..]);
            }
            result
        } else {
            let mut left = std::mem::take(&mut self.output.left);
            left.extend_from_slice(&work.out);
            let result = self.push(cx, &left, &mut progress);
            if let Ok(done) = result
                && done < left.len()
            {
                left.drain(..done);
                self.output.left = left;
            }
            result
        };
        work.out.clear();
        if result.is_err() {
            self.output.left = Vec::new();
            self.output.unflushed = false;
            return self.lose(work);
        }
        self.timers.blocked(self.output.is_stuck(), progress, now);
        if !self.output.is_stuck() {
            self.output.written = self.output.rendered;
            if self.output.written > self.output.reported {
                self.wrote(now, work);
            }
        }
    }

    /// The home hears of it with the next word, after some stanzas, or soon.
    fn wrote(&mut self, now: Tick, work: &mut Work) {
        if self.output.written - self.output.reported >= REPORT_EVERY {
            self.report(work);
        } else {
            self.timers.report(now);
        }
    }

    fn push(&mut self, cx: &mut Context<'_>, bytes: &[u8], progress: &mut bool) -> std::io::Result<usize> {
        let mut done = 0;
        while done < bytes.len() {
            match self.io.poll_write(cx, &bytes[done..]) {
                Poll::Pending => break,
                Poll::Ready(Ok(0)) => return Err(std::io::ErrorKind::WriteZero.into()),
                Poll::Ready(Ok(count)) => done += count,
                Poll::Ready(Err(error)) => return Err(error),
            }
        }
        self.output.unflushed = match self.io.poll_flush(cx) {
            Poll::Pending => true,
            Poll::Ready(Ok(())) => false,
            Poll::Ready(Err(error)) => return Err(error),
        };
        *progress = self.io.take_progress();
        Ok(done)
    }
}

/// `<enabled/>` (XEP-0198 §3, §5).
fn enabled(token: Token, resume: Option<u32>) -> Element {
    let enabled = Element::new(ns::SM, "enabled");
    match resume {
        None => enabled,
        Some(max) => enabled.attr("id", resume_id(token)).attr("resume", "true").attr("max", max.to_string()),
    }
}

/// The SM-ID of a session: its token and nothing else.
pub(crate) fn resume_id(token: Token) -> String {
    URL_SAFE_NO_PAD.encode(token.0.to_be_bytes())
}

/// The session that an SM-ID names, if it can be one of ours.
pub(crate) fn token_of(resume_id: &str) -> Option<Token> {
    let bytes = URL_SAFE_NO_PAD.decode(resume_id).ok()?;
    Some(Token(u128::from_be_bytes(bytes.try_into().ok()?)))
}

/// What is rendered before it is written: a few TLS records.
const PIECE: usize = 64 * 1024;
/// Written stanzas that the home hears of at once.
const REPORT_EVERY: u64 = 32;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_resume_id_names_its_session() {
        let token = Token(0x0123_4567_89ab_cdef_0123_4567_89ab_cdef);
        assert_eq!(resume_id(token).len(), 22);
        assert_eq!(token_of(&resume_id(token)), Some(token));
        assert_eq!(token_of("short"), None);
        assert_eq!(token_of("not/base64url/not/base"), None);
    }

    #[test]
    fn enabled_says_what_can_be_resumed() {
        assert_eq!(enabled(Token(1), None).to_string(), "<enabled xmlns='urn:xmpp:sm:3'/>");
        let text = enabled(Token(0), Some(300)).to_string();
        assert!(
            text.contains("id='AAAAAAAAAAAAAAAAAAAAAA'")
                && text.contains("resume='true'")
                && text.contains("max='300'")
        );
    }
}
