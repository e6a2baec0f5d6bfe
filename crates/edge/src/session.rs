//! A bound session: its socket, and what may not be lost while it lives.
//!
//! One task per session and nothing else: no channel, no timer of the runtime, no buffer while it is quiet. Each
//! time the task is woken it does all there is to do, in one order: what the home says, what the client says,
//! one write.

mod asks;
mod inbound;
mod meter;
mod outbound;
mod timers;

use crate::gate::Admission;
use crate::io::Io;
use crate::shared::{Settings, Shared};
use crate::tenancy::Tenancy;
use crate::wheel::Tick;
use asks::Asks;
use bytes::BytesMut;
use compact_str::CompactString;
use meter::Meter;
use outbound::Output;
pub(crate) use outbound::{resume_id, token_of};
use starling_node::telemetry::metrics::{Limit, SessionState, Transport};
use starling_wire::credit::Credit;
use starling_wire::{Leave, ToHome, Token, Up};
use starling_xmpp::stream::Reader;
use starling_xmpp::{FullJid, StreamCondition, StreamError};
use std::cell::RefCell;
use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::Duration;
use timers::{Due, Timers};

/// What negotiation hands over.
pub(crate) struct Beginning {
    pub(crate) io: Io,
    pub(crate) reader: Reader,
    pub(crate) tenancy: Tenancy,
    pub(crate) admission: Admission,
    pub(crate) shared: Arc<Shared>,
    /// Those that its stream began with.
    pub(crate) settings: Arc<Settings>,
    pub(crate) jid: FullJid,
    pub(crate) lang: Option<CompactString>,
    pub(crate) token: Token,
    pub(crate) transport: Transport,
    /// Sequence taken by the home, and base of `h`, of a session that goes on.
    pub(crate) resumed: Option<(u64, u64)>,
}

pub(crate) struct Session {
    io: Io,
    reader: Reader,
    tenancy: Tenancy,
    _admission: Admission,
    shared: Arc<Shared>,
    settings: Arc<Settings>,
    jid: FullJid,
    lang: Option<CompactString>,
    token: Token,
    credit: Credit,
    output: Output,
    asks: Asks,
    meter: Meter,
    timers: Timers,
    sm: Sm,
    /// The session may go on over another connection.
    resumable: bool,
    phase: Phase,
    gauge: Gauge,
    /// The last `h` of the client that was passed on.
    acknowledged: Option<u32>,
}

/// Stream management on this session (XEP-0198).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Sm {
    Off,
    /// `<enable/>` is on its way to the home.
    Asked,
    On {
        /// Sequence at which counting began.
        base: u64,
    },
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Phase {
    Open,
    /// The client has ended its stream; what it sent before is being handled.
    Draining,
    /// The last bytes are on their way.
    Closing,
    /// All is written; the client's end of the connection is awaited.
    Lingering,
    /// Nothing is left to do.
    Over,
}

/// Scratch of one thread: what a session has to say at one waking.
struct Work {
    up: Vec<ToHome>,
    out: BytesMut,
}

thread_local! {
    static WORK: RefCell<Work> = RefCell::new(Work { up: Vec::new(), out: BytesMut::new() });
}

impl Session {
    pub(crate) fn new(begin: Beginning) -> Self {
        let now = begin.shared.table.wheel.now();
        let settings = begin.shared.settings.load_full();
        if !Arc::ptr_eq(&settings, &begin.settings) {
            // They have changed since its stream began, before anybody could tell it.
            begin.tenancy.mailbox().reload();
        }
        let limits = &settings.limits;
        let mut credit = Credit::new(limits.session.credit_stanzas, limits.session.credit_bytes);
        if let Some((sequence, _)) = begin.resumed {
            credit.resume_at(sequence);
        }
        Self {
            credit,
            meter: Meter::new(&limits.rate, now),
            gauge: Gauge::new(&begin.shared, begin.transport),
            io: begin.io,
            reader: begin.reader,
            tenancy: begin.tenancy,
            _admission: begin.admission,
            shared: begin.shared,
            settings,
            jid: begin.jid,
            lang: begin.lang,
            token: begin.token,
            output: Output::default(),
            asks: Asks::default(),
            timers: Timers::new(now),
            resumable: begin.resumed.is_some(),
            sm: begin.resumed.map_or(Sm::Off, |(_, base)| Sm::On { base }),
            phase: Phase::Open,
            acknowledged: None,
        }
    }

    /// Lives until the connection has ended.
    pub(crate) async fn run(mut self: Box<Self>) {
        std::future::poll_fn(|cx| self.poll(cx)).await;
    }

    fn poll(&mut self, cx: &mut Context<'_>) -> Poll<()> {
        WORK.with_borrow_mut(|work| {
            let result = self.step(cx, work);
            self.hand_over(work);
            work.out.clear();
            if work.out.capacity() > KEPT {
                work.out = BytesMut::new();
            }
            result
        })
    }

    /// All there is to do at one waking.
    fn step(&mut self, cx: &mut Context<'_>, work: &mut Work) -> Poll<()> {
        loop {
            let now = self.shared.table.wheel.now();
            let flags = self.tenancy.mailbox().look(cx, self.wants_handled());
            self.credit.handled(flags.handled);
            if flags.fired {
                self.timers.fired(now);
            }
            if (flags.overflow || flags.cut) && self.is_alive() {
                self.lose(work);
            }
            if flags.reloaded {
                self.reload(work);
            }
            if flags.stopping && self.phase == Phase::Open {
                self.send_away(work);
            }
            self.deadlines(now, work);
            let rendered = !flags.items || self.render(cx, work, now);
            if self.phase == Phase::Open {
                self.read(cx, now, work);
            }
            // What was refused counts as handled: its error is in the mailbox by then, and goes first.
            if rendered {
                self.answer_asks(work);
                if self.phase == Phase::Draining && self.is_drained() {
                    self.finish(work);
                }
            }
            // The home goes to work while we write.
            self.hand_over(work);
            self.write(cx, work, now);
            if self.poll_end(cx).is_ready() {
                return Poll::Ready(());
            }
            if self.wants_handled() {
                let handled = self.tenancy.mailbox().want_handled().min(self.credit.spent_through());
                if handled > self.credit.handled_through() {
                    continue;
                }
            }
            if self.phase == Phase::Open && self.timers.take_report(now) {
                self.report(work);
            }
            self.timers.arm(&self.shared.table.wheel, self.tenancy.mailbox().conn, &self.settings.limits);
            return Poll::Pending;
        }
    }

    /// The edge is going down. In a cluster sessions go on without it: who can resume does so at another edge.
    fn send_away(&mut self, work: &mut Work) {
        let outlived = self.shared.table.outlived();
        let elsewhere = self.settings.see_other_host.clone().filter(|_| outlived);
        let (error, leave) = match elsewhere {
            _ if outlived && self.resumable => (StreamCondition::SystemShutdown.into(), Leave::Lost),
            Some(host) => (StreamError::new(StreamCondition::SeeOtherHost).with_text(host), Leave::Closed),
            None => (StreamCondition::SystemShutdown.into(), Leave::Closed),
        };
        self.fail(error, leave, work);
    }

    /// The session is elsewhere, or over: its home has no more to do with this connection.
    fn released(&mut self, work: &mut Work) {
        self.tenancy.released();
        let error = StreamError::new(StreamCondition::Conflict).with_text("the session is over or elsewhere");
        self.fail(error, Leave::Lost, work);
    }

    /// Takes over new settings; a domain that is not served any more ends its streams.
    fn reload(&mut self, work: &mut Work) {
        self.settings = self.shared.settings.load_full();
        self.reader.set_limits(self.settings.after_auth);
        if self.phase == Phase::Open && !self.settings.serves(self.jid.domain()) {
            self.fail(StreamError::new(StreamCondition::HostGone), Leave::Closed, work);
        }
    }

    /// Sends what there is for the home, with the count of what was written before.
    fn hand_over(&mut self, work: &mut Work) {
        if work.up.is_empty() {
            return;
        }
        if self.phase == Phase::Open {
            self.report(work);
        }
        self.tenancy.router().send(&mut work.up);
    }

    fn report(&mut self, work: &mut Work) {
        self.timers.reported();
        if let Some(count) = self.output.take_report() {
            work.up.push(self.tenancy.say(Up::Written { count }));
        }
    }

    fn deadlines(&mut self, now: Tick, work: &mut Work) {
        let reading = self.phase == Phase::Open
            && self.credit.is_open()
            && self.tenancy.is_read()
            && !self.timers.is_throttled(now);
        let Some(due) = self.timers.due(reading, &self.settings.limits, now) else { return };
        match due {
            Due::SendTimeout => {
                self.limit(Limit::SendTimeout);
                self.lose(work);
            }
            Due::SlowStanza | Due::Silent => {
                self.limit(Limit::Idle);
                self.fail(StreamError::new(StreamCondition::ConnectionTimeout), Leave::Lost, work);
            }
            Due::Ask if matches!(self.sm, Sm::On { .. }) => work.out.extend_from_slice(ASK),
            Due::Ask => work.up.push(self.tenancy.say(Up::Idle)),
            Due::End if self.phase == Phase::Draining => self.finish(work),
            Due::End => self.phase = Phase::Over,
        }
    }

    /// Whether progress of the home alone is worth waking for.
    fn wants_handled(&self) -> bool {
        !self.asks.is_empty() || !self.credit.is_open() || self.phase == Phase::Draining
    }

    fn is_alive(&self) -> bool {
        matches!(self.phase, Phase::Open | Phase::Draining)
    }

    fn is_drained(&self) -> bool {
        self.credit.handled_through() >= self.credit.spent_through()
    }

    /// The client has ended its stream: answered after what it sent has been handled.
    fn drain(&mut self, now: Tick) {
        self.phase = Phase::Draining;
        self.timers.end_after(DRAIN, now);
    }

    /// Ends the stream in order.
    fn finish(&mut self, work: &mut Work) {
        self.close(None, Leave::Closed, work);
    }

    /// Ends the stream with an error.
    fn fail(&mut self, error: StreamError, leave: Leave, work: &mut Work) {
        self.close(Some(&error), leave, work);
    }

    fn close(&mut self, error: Option<&StreamError>, leave: Leave, work: &mut Work) {
        if !self.is_alive() {
            return;
        }
        if let Some(error) = error {
            tracing::debug!(condition = error.condition.as_str(), "stream ends");
            error.write(&mut work.out);
        }
        work.out.extend_from_slice(END);
        if leave == Leave::Closed {
            // What was written counts as taken, or the home would hand it to the next session as well. Of a broken
            // transport nobody knows: better twice than never.
            self.report(work);
        }
        work.up.extend(self.tenancy.leave(leave));
        self.phase = Phase::Closing;
        self.timers.end_after(self.settings.limits.stream.close, self.shared.table.wheel.now());
    }

    /// The transport is of no use any more.
    fn lose(&mut self, work: &mut Work) {
        work.up.extend(self.tenancy.leave(Leave::Lost));
        self.phase = Phase::Over;
    }

    /// What is left after the session: the end of the connection.
    fn poll_end(&mut self, cx: &mut Context<'_>) -> Poll<()> {
        if self.phase == Phase::Closing && !self.output.is_stuck() {
            match self.io.poll_shutdown(cx) {
                Poll::Pending => {}
                Poll::Ready(Ok(())) => self.phase = Phase::Lingering,
                Poll::Ready(Err(_)) => self.phase = Phase::Over,
            }
        }
        // Closing a socket with unread input would reset it and take our last words along.
        let mut rounds = 0;
        while self.phase == Phase::Lingering {
            match self.io.poll_read(cx, |_| {}) {
                Poll::Pending => break,
                Poll::Ready(Ok(0) | Err(_)) => self.phase = Phase::Over,
                Poll::Ready(Ok(_)) => rounds += 1,
            }
            if rounds >= LINGER {
                self.phase = Phase::Over;
            }
        }
        if self.phase == Phase::Over { Poll::Ready(()) } else { Poll::Pending }
    }

    fn limit(&self, limit: Limit) {
        self.shared.telemetry.metrics.limits.at(limit).inc();
    }
}

/// Counts a session while it lives.
struct Gauge {
    shared: Arc<Shared>,
    transport: Transport,
    state: SessionState,
}

impl Gauge {
    fn new(shared: &Arc<Shared>, transport: Transport) -> Self {
        let gauge = Self { shared: Arc::clone(shared), transport, state: SessionState::Active };
        gauge.series().inc();
        gauge
    }

    fn change(&mut self, state: SessionState) {
        self.series().dec();
        self.state = state;
        self.series().inc();
    }

    fn is_active(&self) -> bool {
        self.state == SessionState::Active
    }

    fn series(&self) -> &prometheus_client::metrics::gauge::Gauge {
        self.shared.telemetry.metrics.sessions.at(self.transport, self.state)
    }
}

impl Drop for Gauge {
    fn drop(&mut self) {
        self.series().dec();
    }
}

const END: &[u8] = b"</stream:stream>";
const ASK: &[u8] = b"<r xmlns='urn:xmpp:sm:3'/>";
/// How long the end of a stream waits for the home to handle what came before it.
const DRAIN: Duration = Duration::from_secs(2);
/// Output buffer that a thread keeps.
const KEPT: usize = 256 * 1024;
/// Reads of what nobody looks at, before the connection is cut.
const LINGER: usize = 64;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn is_small() {
        assert!(size_of::<Session>() <= 640, "{}", size_of::<Session>());
    }
}
