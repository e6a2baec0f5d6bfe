//! The form over the network: one long-lived gRPC stream per pair of processes, over mutual TLS.
//!
//! A router has one [`Server`]; edges reach it by an [`EdgeClient`], other routers by a [`PeerClient`]. What a process
//! does with a link is a trait that it implements: [`Edges`] and [`Peers`] at a router, [`Routers`] at an edge, which [`Uplink`] does for it. All
//! calls are short and never wait: what is sent goes into an [`Outlet`], what comes is handed over in order.
//!
//! - A frame is what is ready; no timer makes it wait. TCP and HTTP/2 windows push back, and what then waits is bounded:
//!   beyond the bound the link ends, as if it were dead. No link ever waits for one session or account. What its sender keeps
//!   until the other side has it ends only the link of a peer that does not read.
//! - A link that is silent for three seconds is dead. Whatever was asked over it fails at once.
//! - A new stream of a peer ends the old one before it is answered: nothing of the old is handed over after that. So of two
//!   addresses that lead to one router only one is dialled.
//! - A peer that sends what cannot be is told so, and its link ends; nothing else does.

mod addresses;
mod dial;
mod edge;
mod guard;
mod outlet;
mod peer;
mod raft;
mod refused;
mod room;
mod server;
mod services;
mod slots;
mod uplink;
mod ways;

pub use addresses::{Addresses, Roll, Seeds};
pub use edge::{EdgeClient, LinkedRouter, Questions, Routers};
pub use outlet::{Outlet, Weigh};
pub use peer::{PeerClient, Peers};
pub use raft::{CallError, PeerState, RaftItem, RaftLinks};
pub use refused::Refused;
pub use server::{Edges, Server};
pub use uplink::{Own, Sockets, Uplink};

use futures::future::BoxFuture;
use std::time::Duration;

/// Bounds and times of links.
#[derive(Debug, Clone)]
pub struct Options {
    /// For TCP alone. A network that swallows what it is sent lets a connection try again ever more rarely; a new one is tried at
    /// once when it is back.
    pub reach: Duration,
    /// For TCP and TLS together.
    pub connect: Duration,
    /// From the connection to the answered hello. A server gives up a connection over which nothing is asked for so long.
    pub hello: Duration,
    /// How often a peer is asked for a sign of life.
    pub keep_alive: Duration,
    /// How long an answer to that may take; with `keep_alive` it makes the time after which a link is dead.
    pub keep_alive_answer: Duration,
    /// HTTP/2 window of a stream, in bytes.
    pub window: u32,
    /// What may wait to be sent over one link that nobody keeps, in bytes; beyond it the link ends.
    pub outlet: usize,
    /// First and longest pause between attempts to connect.
    pub pause: (Duration, Duration),
    /// How often addresses are looked up.
    pub lookup: Duration,
    /// How long a question about an account may take.
    pub question: Duration,
    /// How often Raft links exchange pulses.
    pub pulse: Duration,
    /// How often the files of TLS are looked at.
    pub certificates: Duration,
    /// The most connections at one server.
    pub connections: usize,
    /// The most of them of one address.
    pub of_one_address: usize,
    /// The most requests at a time on one connection.
    pub streams: u32,
    /// Threads of their own for the links that carry Raft. Without them these wait in one row with everything else, and on
    /// a machine that has too much to do a leader seems dead.
    pub raft: Option<tokio::runtime::Handle>,
    /// Counts whom a server refused.
    pub refused: Refused,
}

impl Options {
    /// After how long without a sign of life a link is dead.
    fn dead(&self) -> Duration {
        self.keep_alive + self.keep_alive_answer
    }
}

impl Default for Options {
    fn default() -> Self {
        Self {
            reach: Duration::from_secs(1),
            connect: Duration::from_secs(3),
            hello: Duration::from_secs(5),
            keep_alive: Duration::from_secs(1),
            keep_alive_answer: Duration::from_secs(2),
            window: 4 << 20,
            outlet: 64 << 20,
            pause: (Duration::from_millis(50), Duration::from_millis(500)),
            lookup: Duration::from_secs(5),
            question: Duration::from_secs(5),
            pulse: Duration::from_millis(500),
            certificates: Duration::from_secs(10),
            connections: 4096,
            of_one_address: 512,
            streams: 1024,
            raft: None,
            refused: Refused::default(),
        }
    }
}

/// Why a link is over.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum End {
    /// This side has closed it.
    Closed,
    /// The same peer has another one.
    Superseded,
    /// More waited to be sent than may.
    Overflow,
    /// The peer sent what cannot be.
    Malformed(String),
    /// One side will not speak with the other; why.
    Refused(String),
    /// The connection broke or fell silent; what is known of it.
    Lost(String),
}

impl std::fmt::Display for End {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::Closed => f.write_str("closed"),
            Self::Superseded => f.write_str("superseded by a new link of the same peer"),
            Self::Overflow => f.write_str("too much waited to be sent"),
            Self::Malformed(why) => write!(f, "bad message: {why}"),
            Self::Refused(why) => write!(f, "refused: {why}"),
            Self::Lost(why) => write!(f, "lost: {why}"),
        }
    }
}

/// What comes over one link.
pub trait Hears<T>: Send + 'static {
    /// As much as came at once, in order. Must not wait.
    fn hear(&mut self, items: Vec<T>);

    /// It is over: nothing comes any more. Called once.
    fn ended(&mut self, end: &End);
}

/// An error with what caused it, in one line.
fn causes(error: &(dyn std::error::Error + 'static)) -> String {
    let mut text = String::new();
    let mut next = Some(error);
    while let Some(error) = next {
        let own = match find_tls(error) {
            Some(tls) => crate::tls::reason(tls),
            None => error.to_string(),
        };
        if !text.contains(&own) {
            if !text.is_empty() {
                text.push_str(": ");
            }
            text.push_str(&own);
        }
        next = error.source();
    }
    text
}

fn find_tls<'a>(error: &'a (dyn std::error::Error + 'static)) -> Option<&'a rustls::Error> {
    let inner = error.downcast_ref::<std::io::Error>().and_then(std::io::Error::get_ref);
    inner.and_then(|inner| inner.downcast_ref()).or_else(|| error.downcast_ref())
}

/// Why a stream ended, from its status.
fn end_of(status: &tonic::Status) -> End {
    let why = || status.message().to_owned();
    match status.code() {
        tonic::Code::Aborted => End::Superseded,
        tonic::Code::InvalidArgument | tonic::Code::OutOfRange => End::Malformed(why()),
        tonic::Code::FailedPrecondition | tonic::Code::PermissionDenied | tonic::Code::Unauthenticated => {
            End::Refused(why())
        }
        tonic::Code::ResourceExhausted => End::Overflow,
        _ => End::Lost(causes(status)),
    }
}

/// How long a peer that has ended a stream may take to say why.
const REASON_WITHIN: Duration = Duration::from_millis(100);

/// What comes of a peer over a link that we have begun, until it ends. When its peer ends the stream, what we say is dropped, at
/// times before all is read that was said before, and the status that says why.
struct Coming<'a, F> {
    stream: &'a mut tonic::Streaming<F>,
    ended: BoxFuture<'a, End>,
    /// Ours is over, and this is waited for.
    over: Option<(End, tokio::time::Instant)>,
}

impl<'a, F> Coming<'a, F> {
    fn new<T: Send + Sync>(stream: &'a mut tonic::Streaming<F>, outlet: &'a Outlet<T>) -> Self {
        Self { stream, ended: Box::pin(outlet.ended()), over: None }
    }

    /// The next frame, or why there is none.
    async fn next(&mut self) -> Result<F, End> {
        let frame = loop {
            match &self.over {
                None => tokio::select! {
                    biased;
                    end = &mut self.ended => match end {
                        End::Lost(_) => self.over = Some((end, tokio::time::Instant::now() + REASON_WITHIN)),
                        end => return Err(end),
                    },
                    frame = self.stream.message() => break frame,
                },
                Some((end, until)) => match tokio::time::timeout_at(*until, self.stream.message()).await {
                    Ok(frame) => break frame,
                    Err(_) => return Err(end.clone()),
                },
            }
        };
        match frame {
            Ok(Some(frame)) => Ok(frame),
            Ok(None) => Err(match self.over.take() {
                Some((end, _)) => end,
                None => End::Lost("ended by the peer".to_owned()),
            }),
            Err(status) => Err(end_of(&status)),
        }
    }
}

/// The status that tells the peer why.
fn status_of(end: &End) -> tonic::Status {
    let text = end.to_string();
    match end {
        End::Closed | End::Lost(_) => tonic::Status::unavailable(text),
        End::Superseded => tonic::Status::aborted(text),
        End::Overflow => tonic::Status::resource_exhausted(text),
        End::Malformed(_) => tonic::Status::invalid_argument(text),
        End::Refused(_) => tonic::Status::failed_precondition(text),
    }
}

#[cfg(test)]
mod tests;
