//! The stream under negotiation: events in, bytes out, one deadline.

use super::{End, timed_out};
use crate::io::Io;
use crate::shared::{Settings, Shared};
use bytes::BytesMut;
use compact_str::CompactString;
use starling_node::telemetry::Step;
use starling_node::{Span, StanzaKind, Trace, ids};
use starling_xmpp::stream::{Event, Reader, write_header};
use starling_xmpp::{Element, StreamCondition, ns};
use std::future::poll_fn;
use std::sync::Arc;
use std::task::Poll;
use std::time::Duration;
use tokio::net::TcpStream;
use tokio::time::{Instant, timeout, timeout_at};

/// A connection before it is a session.
pub(super) struct Wire {
    /// `None` only while TLS is being set up.
    pub(super) io: Option<Io>,
    pub(super) reader: Reader,
    pub(super) shared: Arc<Shared>,
    pub(super) settings: Arc<Settings>,
    /// When the present step must be done.
    pub(super) deadline: Option<Instant>,
    /// The served domain that the client asked for.
    pub(super) domain: Option<String>,
    pub(super) lang: Option<CompactString>,
    /// The trace of this login, if it is one of the few, until its first step.
    trace: Option<Trace>,
    /// The span over all its steps. It ends with this value.
    login: Span,
    /// Our header for the present stream is out.
    pub(super) answered: bool,
    out: BytesMut,
}

/// What of it a session takes over.
pub(super) struct Parts {
    pub(super) io: Io,
    pub(super) reader: Reader,
    pub(super) settings: Arc<Settings>,
    pub(super) lang: Option<CompactString>,
}

impl Wire {
    pub(super) fn new(tcp: TcpStream, shared: &Arc<Shared>, settings: Arc<Settings>) -> Self {
        Self {
            io: Some(Io::Plain(tcp)),
            reader: Reader::new(settings.before_auth),
            shared: Arc::clone(shared),
            settings,
            deadline: None,
            domain: None,
            lang: None,
            trace: shared.telemetry.tracer.start(StanzaKind::Login),
            login: Span::default(),
            answered: false,
            out: BytesMut::new(),
        }
    }

    /// The next event; white space is passed over.
    pub(super) async fn event(&mut self) -> Result<Event, End> {
        self.flush().await?;
        loop {
            match self.reader.next()? {
                Some(Event::Whitespace(_)) => {}
                Some(Event::End) => return Err(End::Closed),
                Some(event) => return Ok(event),
                None => self.fill().await?,
            }
        }
    }

    /// Reads once.
    async fn fill(&mut self) -> Result<(), End> {
        let deadline = self.deadline;
        let (io, reader) = (self.io.as_mut().ok_or(End::Silent)?, &mut self.reader);
        let read = poll_fn(|cx| io.poll_read(cx, |bytes| reader.feed(bytes)));
        let shutdown = self.shared.shutdown.clone();
        let read = async {
            tokio::select! {
                biased;
                read = read => Some(read),
                () = shutdown.requested() => None,
            }
        };
        let read = match deadline {
            Some(deadline) => timeout_at(deadline, read).await,
            None => Ok(read.await),
        };
        match read {
            Err(_) => Err(timed_out(&self.shared)),
            Ok(None) => Err(StreamCondition::SystemShutdown.into()),
            Ok(Some(Ok(0) | Err(_))) => Err(End::Silent),
            Ok(Some(Ok(_))) => Ok(()),
        }
    }

    /// Begins a step of the login.
    pub(super) fn span(&mut self, step: Step) -> Span {
        let tracer = &self.shared.telemetry.tracer;
        // Not before: who connects and says nothing, as probes do, is no login.
        if let Some(head) = self.trace.take() {
            self.login = tracer.span(Some(head), Step::Login);
        }
        tracer.span(self.login.context(), step)
    }

    /// Queues an element.
    pub(super) fn say(&mut self, element: &Element) {
        element.write(&mut self.out, ns::CLIENT);
    }

    /// Queues bytes that are right as they are.
    pub(super) fn say_raw(&mut self, bytes: &[u8]) {
        self.out.extend_from_slice(bytes);
    }

    /// Queues our header, new id and all.
    pub(super) fn say_header(&mut self, to: Option<&str>) {
        let domain = self.domain.as_deref().or_else(|| self.settings.domains.first().map(String::as_str));
        let lang = self.lang.as_deref().unwrap_or("en");
        write_header(&mut self.out, domain.unwrap_or_default(), to, &ids::short(), lang);
        self.answered = true;
    }

    /// Gives up the buffer of what is queued.
    pub(super) fn queue(&mut self) -> &mut BytesMut {
        &mut self.out
    }

    /// Writes all that is queued.
    pub(super) async fn flush(&mut self) -> Result<(), End> {
        if self.out.is_empty() {
            return Ok(());
        }
        let out = std::mem::take(&mut self.out);
        let io = self.io.as_mut().ok_or(End::Silent)?;
        let mut done = 0;
        let write = poll_fn(|cx| {
            while done < out.len() {
                match io.poll_write(cx, &out[done..]) {
                    Poll::Pending => return Poll::Pending,
                    Poll::Ready(Ok(0)) => return Poll::Ready(Err(std::io::ErrorKind::WriteZero.into())),
                    Poll::Ready(Ok(count)) => done += count,
                    Poll::Ready(Err(error)) => return Poll::Ready(Err(error)),
                }
            }
            io.poll_flush(cx)
        });
        match timeout(self.settings.limits.stream.send_timeout, write).await {
            Ok(Ok(())) => Ok(()),
            _ => Err(End::Silent),
        }
    }

    /// The last bytes of a connection that does not become a session.
    pub(super) async fn end(mut self, end: End) {
        if self.io.is_none() {
            return;
        }
        match end {
            End::Silent => return,
            End::Closed => {}
            End::Fault(error) => {
                tracing::debug!(condition = error.condition.as_str(), "stream ends before a session");
                self.login.fail(error.condition.as_str());
                if !self.answered {
                    self.say_header(None);
                }
                error.write(&mut self.out);
            }
        }
        if self.answered {
            self.out.extend_from_slice(b"</stream:stream>");
        }
        if self.flush().await.is_err() {
            return;
        }
        // That the client takes its time to go is no part of it.
        std::mem::take(&mut self.login).end();
        let Some(io) = &mut self.io else { return };
        // Closing a socket with unread input would reset it and take our last words along.
        let linger = async {
            if poll_fn(|cx| io.poll_shutdown(cx)).await.is_err() {
                return;
            }
            for _ in 0..LINGER {
                match poll_fn(|cx| io.poll_read(cx, |_| {})).await {
                    Ok(0) | Err(_) => return,
                    Ok(_) => {}
                }
            }
        };
        let _ = timeout(self.settings.limits.stream.close.min(LINGER_TIME), linger).await;
    }

    pub(super) fn into_parts(self) -> Option<Parts> {
        Some(Parts { io: self.io?, reader: self.reader, settings: self.settings, lang: self.lang })
    }
}

/// Reads of what nobody looks at, before the connection is cut.
const LINGER: usize = 64;
const LINGER_TIME: Duration = Duration::from_secs(2);
