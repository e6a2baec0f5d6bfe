//! Spans of one stanza: `edge receive > home sent > store write > home received > store write > edge deliver`.
//!
//! Whether it is traced is decided once, where it is received; all others follow. A process that records nothing itself
//! hands on what it was given.

use std::{
    borrow::Cow,
    fmt,
    sync::Arc,
    time::{Duration, SystemTime, UNIX_EPOCH},
};

use opentelemetry::{
    InstrumentationScope, Key, KeyValue, SpanId, TraceFlags, TraceId, Value,
    trace::{Event, Link, SpanContext, SpanKind, Status, TraceState},
};
use opentelemetry_sdk::trace::{SpanData, SpanEvents, SpanLinks, SpanProcessor};

use super::{metrics::Metrics, sampler::Sampler, targets::Targets};
use crate::{clock::SharedClock, ids};

/// What a trace is begun for; each kind is sampled at its own rate.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum StanzaKind {
    /// `<message/>`.
    Message,
    /// `<iq/>`.
    Iq,
    /// `<presence/>`.
    Presence,
    /// A login: from the TCP connection to the bound session.
    Login,
}

impl StanzaKind {
    /// All kinds, in the order of their numbers.
    pub const ALL: [Self; 4] = [Self::Message, Self::Iq, Self::Presence, Self::Login];

    /// The value of `xmpp.stanza.kind`.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Message => "message",
            Self::Iq => "iq",
            Self::Presence => "presence",
            Self::Login => "login",
        }
    }
}

/// A step that a span covers. A closed list, so that span names stay few and mean one thing.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Step {
    /// The edge has a stanza from its client.
    EdgeReceive,
    /// The sender's home decides.
    HomeSent,
    /// The recipient's home decides.
    HomeReceived,
    /// A log commits.
    StoreWrite,
    /// A home gives a session what waited in its account's log.
    HomeFeed,
    /// The edge writes the stanza to its client.
    EdgeDeliver,
    /// A login, from its first step to the session or the end of the connection.
    Login,
    /// TLS handshake.
    TlsHandshake,
    /// SASL exchange.
    Authenticate,
    /// Binding of a resource.
    Bind,
    /// Resumption of a session (XEP-0198).
    Resume,
}

impl Step {
    /// The name of the span.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::EdgeReceive => "edge receive",
            Self::HomeSent => "home sent",
            Self::HomeReceived => "home received",
            Self::StoreWrite => "store write",
            Self::HomeFeed => "home feed",
            Self::EdgeDeliver => "edge deliver",
            Self::Login => "login",
            Self::TlsHandshake => "tls handshake",
            Self::Authenticate => "authenticate",
            Self::Bind => "bind",
            Self::Resume => "resume",
        }
    }

    fn kind(self) -> SpanKind {
        match self {
            Self::EdgeReceive | Self::HomeFeed => SpanKind::Producer,
            Self::EdgeDeliver => SpanKind::Consumer,
            Self::StoreWrite => SpanKind::Client,
            Self::HomeSent | Self::HomeReceived => SpanKind::Internal,
            Self::Login => SpanKind::Server,
            Self::TlsHandshake | Self::Authenticate | Self::Bind | Self::Resume => SpanKind::Internal,
        }
    }
}

/// The trace that a sampled stanza belongs to (W3C trace context). Travels with the stanza as
/// `Option<Trace>`; `None` is the common case and costs nothing.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct Trace {
    /// Trace id.
    pub trace_id: [u8; 16],
    /// The span that is the parent of what comes next; all zero at the head of a trace.
    pub span_id: [u8; 8],
    /// Trace flags; bit 0 is "sampled".
    pub flags: u8,
}

impl Trace {
    /// A new trace without spans, to be recorded.
    fn head() -> Self {
        Self { trace_id: ids::bytes(), span_id: [0; 8], flags: TraceFlags::SAMPLED.to_u8() }
    }

    /// Whether whoever began it wants it recorded.
    pub fn is_sampled(&self) -> bool {
        self.flags & 1 == 1
    }

    fn context(&self, remote: bool) -> SpanContext {
        let (trace, span) = (TraceId::from_bytes(self.trace_id), SpanId::from_bytes(self.span_id));
        SpanContext::new(trace, span, TraceFlags::new(self.flags), remote, TraceState::NONE)
    }
}

/// Begins traces and spans. Clones are the same.
#[derive(Clone, Default)]
pub struct Tracer(Option<Arc<Inner>>);

struct Inner {
    processor: Box<dyn SpanProcessor>,
    sampler: Sampler,
    targets: Targets,
    clock: SharedClock,
    scope: InstrumentationScope,
    metrics: Arc<Metrics>,
}

impl Tracer {
    /// Traces nothing.
    pub fn off() -> Self {
        Self(None)
    }

    /// Hands ended spans to `processor`.
    pub fn new(
        processor: Box<dyn SpanProcessor>,
        sampler: Sampler,
        targets: Targets,
        clock: SharedClock,
        metrics: &Arc<Metrics>,
    ) -> Self {
        let scope = InstrumentationScope::builder("starling").with_version(env!("CARGO_PKG_VERSION")).build();
        let metrics = Arc::clone(metrics);
        Self(Some(Arc::new(Inner { processor, sampler, targets, clock, scope, metrics })))
    }

    /// Whether anything can be traced at all.
    pub fn is_on(&self) -> bool {
        self.0.is_some()
    }

    /// Begins a trace for this stanza, if it is one of the few that are sampled.
    #[inline]
    pub fn start(&self, kind: StanzaKind) -> Option<Trace> {
        let inner = self.0.as_ref()?;
        let sampled = inner.sampler.takes(kind, rand::random, || inner.clock.monotonic());
        sampled.then(Trace::head)
    }

    /// Begins a trace and its first span for a stanza that a client has sent, if it is sampled, or if there is a rule for one of
    /// the accounts that it is from or for: `is_meant` tells whether a bare JID is one of these.
    #[inline]
    pub fn receive(&self, kind: StanzaKind, is_meant: impl FnMut(&str) -> bool) -> Span {
        let Some(inner) = &self.0 else { return Span::default() };
        let rule = if inner.targets.is_empty() { None } else { inner.targets.takes(is_meant) };
        let trace = if rule.is_some() { Some(Trace::head()) } else { self.start(kind) };
        let mut span = self.span(trace, Step::EdgeReceive);
        span.set("xmpp.stanza.kind", kind.as_str());
        if let Some(rule) = rule {
            span.set("starling.trace.rule", format!("{rule:016x}"));
        }
        span
    }

    /// Begins a trace for the sake of others, which its first span is to be linked with; nothing without them.
    pub fn joins(&self, step: Step, others: &[Trace]) -> Span {
        let recorded = others.iter().any(|other| other.is_sampled());
        let mut span = self.span(recorded.then(Trace::head), step);
        others.iter().filter(|other| other.is_sampled()).for_each(|other| span.link(*other));
        span
    }

    /// Begins a span as a child of `trace`. It ends when it is dropped. Without a trace it is nothing.
    #[inline]
    pub fn span(&self, trace: Option<Trace>, step: Step) -> Span {
        match (&self.0, trace) {
            (_, None) => Span::default(),
            (Some(inner), Some(trace)) if trace.is_sampled() => {
                let name = Cow::Borrowed(step.as_str());
                Span(State::Recording(Recording::new(inner, &trace, name, step.kind())))
            }
            (_, Some(trace)) => Span(State::Passing(trace)),
        }
    }

    /// Begins a span of kind CLIENT for a call to another service. Names must be few: never with a value in them.
    #[inline]
    pub fn client(&self, trace: Option<Trace>, name: &str) -> Span {
        match (&self.0, trace) {
            (Some(inner), Some(trace)) if trace.is_sampled() => {
                let name = Cow::Owned(name.to_owned());
                Span(State::Recording(Recording::new(inner, &trace, name, SpanKind::Client)))
            }
            _ => Span::default(),
        }
    }

    pub(super) fn stop(&self, timeout: Duration) {
        if let Some(inner) = &self.0
            && let Err(error) = inner.processor.shutdown_with_timeout(timeout)
        {
            tracing::warn!(event = "spans_lost", %error, "the last spans could not be exported");
        }
    }
}

impl fmt::Debug for Tracer {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(if self.is_on() { "Tracer(on)" } else { "Tracer(off)" })
    }
}

/// A step that is going on; ends when it is dropped. Nothing, for a stanza that is not traced.
#[must_use = "a span ends when it is dropped"]
#[derive(Default)]
pub struct Span(State);

#[derive(Default)]
enum State {
    /// Its stanza is not traced.
    #[default]
    Off,
    /// It is traced by others, or was decided not to be: what comes next is told so.
    Passing(Trace),
    /// It is recorded.
    Recording(Box<Recording>),
}

struct Recording {
    inner: Arc<Inner>,
    data: SpanData,
}

impl Recording {
    fn new(inner: &Arc<Inner>, trace: &Trace, name: Cow<'static, str>, kind: SpanKind) -> Box<Self> {
        let mine = Trace { span_id: ids::bytes(), ..*trace };
        let start = time(inner);
        let data = SpanData {
            span_context: mine.context(false),
            parent_span_id: SpanId::from_bytes(trace.span_id),
            parent_span_is_remote: false,
            span_kind: kind,
            name,
            start_time: start,
            end_time: start,
            attributes: Vec::new(),
            dropped_attributes_count: 0,
            events: SpanEvents::default(),
            links: SpanLinks::default(),
            status: Status::Unset,
            instrumentation_scope: inner.scope.clone(),
        };
        Box::new(Self { inner: Arc::clone(inner), data })
    }
}

impl Span {
    /// What the next step takes as its parent.
    pub fn context(&self) -> Option<Trace> {
        match &self.0 {
            State::Off => None,
            State::Passing(trace) => Some(*trace),
            State::Recording(recording) => {
                let context = &recording.data.span_context;
                Some(Trace {
                    trace_id: context.trace_id().to_bytes(),
                    span_id: context.span_id().to_bytes(),
                    flags: context.trace_flags().to_u8(),
                })
            }
        }
    }

    /// Whether anything is recorded: asks before an attribute that is dear to make.
    pub fn is_on(&self) -> bool {
        matches!(self.0, State::Recording(_))
    }

    /// Adds an attribute: a number or a word from a closed list. Never a JID, a body or a password.
    pub fn set(&mut self, key: &'static str, value: impl Into<Value>) {
        if let State::Recording(recording) = &mut self.0 {
            let data = &mut recording.data;
            if data.attributes.len() < MAX_ATTRIBUTES {
                data.attributes.push(KeyValue::new(Key::from_static_str(key), value));
            } else {
                data.dropped_attributes_count += 1;
            }
        }
    }

    /// Notes something that happened now, with a number that tells more of it, e.g. how many-th attempt it was.
    pub fn event(&mut self, name: &'static str, key: &'static str, value: i64) {
        if let State::Recording(recording) = &mut self.0 {
            let at = time(&recording.inner);
            let events = &mut recording.data.events;
            if events.events.len() < MAX_EVENTS {
                let attribute = KeyValue::new(Key::from_static_str(key), value);
                events.events.push(Event::new(name, at, vec![attribute], 0));
            } else {
                events.dropped_count += 1;
            }
        }
    }

    /// Joins another trace without being its child: fan-out, offline delivery, batched writes.
    pub fn link(&mut self, other: Trace) {
        if let State::Recording(recording) = &mut self.0 {
            let links = &mut recording.data.links;
            if links.links.len() < MAX_LINKS {
                links.links.push(Link::new(other.context(false), Vec::new(), 0));
            } else {
                links.dropped_count += 1;
            }
        }
    }

    /// Marks the step as failed, with a condition such as `remote-server-not-found`.
    pub fn fail(&mut self, condition: &'static str) {
        self.set("error.type", condition);
        if let State::Recording(recording) = &mut self.0 {
            recording.data.status = Status::Error { description: Cow::Borrowed(condition) };
        }
    }

    /// Ends the step now.
    pub fn end(self) {
        drop(self);
    }
}

impl Drop for Span {
    fn drop(&mut self) {
        if let State::Recording(recording) = std::mem::take(&mut self.0) {
            let Recording { inner, mut data } = *recording;
            data.end_time = time(&inner).max(data.start_time);
            inner.metrics.spans_ended.inc();
            inner.processor.on_end(data);
        }
    }
}

impl fmt::Debug for Span {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let name = match &self.0 {
            State::Recording(recording) => Some(&recording.data.name),
            State::Off | State::Passing(_) => None,
        };
        f.debug_tuple("Span").field(&name).finish()
    }
}

fn time(inner: &Inner) -> SystemTime {
    UNIX_EPOCH + Duration::from_micros(inner.clock.now_micros())
}

const MAX_ATTRIBUTES: usize = 32;
const MAX_LINKS: usize = 128;
const MAX_EVENTS: usize = 32;

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{ManualClock, Telemetry, config::TelemetrySettings};

    fn everything() -> TelemetrySettings {
        let mut settings = TelemetrySettings::default();
        settings.sample.message = 1.0;
        settings.traces_per_second = 1_000;
        settings
    }

    #[test]
    fn a_stanza_is_one_tree() {
        let clock = ManualClock::at_micros(1_000_000);
        let (telemetry, spans) = Telemetry::in_memory(&everything(), Arc::new(clock.clone()));
        let tracer = &telemetry.tracer;
        let head = tracer.start(StanzaKind::Message);
        let receive = tracer.span(head, Step::EdgeReceive);
        clock.advance(Duration::from_millis(1));
        let mut sent = tracer.span(receive.context(), Step::HomeSent);
        receive.end();
        sent.set("xmpp.stanza.kind", "message");
        sent.fail("service-unavailable");
        clock.advance(Duration::from_millis(2));
        let sent_context = sent.context();
        drop(sent);
        let mut deliver = tracer.span(head, Step::EdgeDeliver);
        deliver.link(sent_context.unwrap());
        drop(deliver);

        let spans = spans.all();
        let names: Vec<&str> = spans.iter().map(|span| span.name.as_ref()).collect();
        assert_eq!(names, ["edge receive", "home sent", "edge deliver"]);
        assert_eq!(spans[0].parent_span_id, SpanId::INVALID);
        assert_eq!(spans[1].parent_span_id, spans[0].span_context.span_id());
        assert!(spans.iter().all(|span| span.span_context.trace_id().to_bytes() == head.unwrap().trace_id));
        assert_eq!(spans[1].end_time.duration_since(spans[1].start_time).unwrap(), Duration::from_millis(2));
        assert!(matches!(spans[1].status, Status::Error { .. }));
        assert_eq!(spans[2].links.links.len(), 1);
        assert_eq!(telemetry.metrics.spans_ended.get(), 3);
    }

    #[test]
    fn a_call_to_another_service_is_a_client_span() {
        let (telemetry, spans) = Telemetry::in_memory(&everything(), Arc::new(ManualClock::at_micros(0)));
        let head = telemetry.tracer.start(StanzaKind::Message);
        let mut span = telemetry.tracer.client(head, "INSERT ks.log");
        assert!(span.is_on());
        span.event("retry", "attempt", 2);
        drop(span);
        assert!(!telemetry.tracer.client(None, "INSERT ks.log").is_on());
        let spans = spans.all();
        assert_eq!((spans[0].name.as_ref(), &spans[0].span_kind), ("INSERT ks.log", &SpanKind::Client));
        assert_eq!(spans[0].events.events[0].name, "retry");
    }

    #[test]
    fn what_is_not_sampled_leaves_nothing() {
        let mut settings = everything();
        settings.sample.message = 0.0;
        let (telemetry, spans) = Telemetry::in_memory(&settings, Arc::new(ManualClock::at_micros(0)));
        assert_eq!(telemetry.tracer.start(StanzaKind::Message), None);
        let span = telemetry.tracer.span(None, Step::HomeSent);
        assert_eq!(span.context(), None);
        drop(span);
        assert!(spans.all().is_empty());
        assert_eq!(Tracer::off().start(StanzaKind::Login), None);
    }

    #[test]
    fn who_records_nothing_hands_on_what_it_was_given() {
        let trace = Trace { trace_id: [1; 16], span_id: [2; 8], flags: 1 };
        let (off, unsampled) = (Tracer::off(), Trace { flags: 0, ..trace });
        assert_eq!(off.span(Some(trace), Step::HomeSent).context(), Some(trace));
        let (telemetry, spans) = Telemetry::in_memory(&everything(), Arc::new(ManualClock::at_micros(0)));
        let span = telemetry.tracer.span(Some(unsampled), Step::HomeSent);
        assert_eq!((span.context(), span.is_on()), (Some(unsampled), false));
        drop(span);
        assert!(spans.all().is_empty());
        assert!(!telemetry.tracer.joins(Step::HomeFeed, &[unsampled]).is_on());
        assert!(!telemetry.tracer.joins(Step::HomeFeed, &[]).is_on());
        drop(telemetry.tracer.joins(Step::HomeFeed, &[trace, unsampled]));
        let feed = &spans.all()[0];
        assert_eq!((feed.parent_span_id, feed.links.links.len()), (SpanId::INVALID, 1));
        assert_ne!(feed.span_context.trace_id().to_bytes(), trace.trace_id);
    }

    #[test]
    fn an_account_with_a_rule_is_traced_whatever_is_sampled() {
        let mut settings = everything();
        settings.sample.message = 0.0;
        let (telemetry, spans) = Telemetry::in_memory(&settings, Arc::new(ManualClock::at_micros(0)));
        let receive = |from: &str| telemetry.tracer.receive(StanzaKind::Message, |account| account == from);
        assert!(!receive("a@b").is_on());
        telemetry.targets.start("a@b", Duration::from_secs(60), 2).unwrap();
        let on: Vec<bool> = ["a@b", "c@b", "a@b", "a@b"].map(|from| receive(from).is_on()).into();
        assert_eq!(on, [true, false, true, false], "two at the most");
        let keys: Vec<_> = spans.all()[0].attributes.iter().map(|one| one.key.to_string()).collect();
        assert_eq!(keys, ["xmpp.stanza.kind", "starling.trace.rule"]);
        assert!(!Tracer::off().receive(StanzaKind::Message, |_| true).is_on());
    }

    #[test]
    fn a_span_does_not_grow_without_bound() {
        let (telemetry, spans) = Telemetry::in_memory(&everything(), Arc::new(ManualClock::at_micros(0)));
        let head = telemetry.tracer.start(StanzaKind::Message);
        let mut span = telemetry.tracer.span(head, Step::HomeSent);
        for number in 0..1_000_i64 {
            span.set("number", number);
            span.link(head.unwrap());
            span.event("again", "number", number);
        }
        drop(span);
        let spans = spans.all();
        assert_eq!((spans[0].events.events.len(), spans[0].events.dropped_count), (32, 968));
        assert_eq!((spans[0].attributes.len(), spans[0].dropped_attributes_count), (32, 968));
        assert_eq!((spans[0].links.links.len(), spans[0].links.dropped_count), (128, 872));
    }
}
