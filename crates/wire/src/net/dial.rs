//! Connections to routers: found, made, and made again.

use super::guard::Guarded;
use super::{Addresses, End, Options, causes, find_tls};
use crate::tls::{Identity, Tls};
use futures::future::BoxFuture;
use hyper::client::conn::http2::{self, SendRequest};
use hyper_util::rt::{TokioExecutor, TokioIo, TokioTimer};
use parking_lot::Mutex;
use rustls_pki_types::ServerName;
use std::collections::HashMap;
use std::future::Future;
use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::task::{Context, Poll};
use std::time::Duration;
use tokio::net::TcpStream;
use tokio::runtime::Handle;
use tokio::task::JoinHandle;
use tokio::time::Instant;
use tonic::body::Body;

/// A task that ends with its owner.
#[derive(Debug)]
pub(super) struct Task(JoinHandle<()>);

impl Task {
    pub(super) fn spawn(future: impl Future<Output = ()> + Send + 'static) -> Self {
        Self(tokio::spawn(future))
    }

    /// On these threads, if there are any.
    pub(super) fn spawn_on(
        threads: Option<&Handle>,
        future: impl Future<Output = ()> + Send + 'static,
    ) -> Self {
        match threads {
            Some(threads) => Self(threads.spawn(future)),
            None => Self::spawn(future),
        }
    }

    /// Resolves when it has ended.
    pub(super) async fn ended(mut self) {
        let _ = (&mut self.0).await; // a panic ends one link
    }
}

impl Drop for Task {
    fn drop(&mut self) {
        self.0.abort();
    }
}

/// One HTTP/2 connection to a router; requests over it fail as soon as it is gone.
#[derive(Clone)]
pub(super) struct Channel(SendRequest<Body>);

impl tonic::codegen::Service<hyper::Request<Body>> for Channel {
    type Response = hyper::Response<hyper::body::Incoming>;
    type Error = hyper::Error;
    type Future = BoxFuture<'static, Result<Self::Response, Self::Error>>;

    fn poll_ready(&mut self, cx: &mut Context<'_>) -> Poll<Result<(), Self::Error>> {
        self.0.poll_ready(cx)
    }

    fn call(&mut self, request: hyper::Request<Body>) -> Self::Future {
        Box::pin(self.0.send_request(request))
    }
}

/// A connection while its owner lives.
pub(super) struct Connection {
    pub(super) channel: Channel,
    /// Whom the certificate at the other end names.
    pub(super) identity: Identity,
    cause: Arc<Mutex<Option<End>>>,
    _driver: Task,
}

impl Connection {
    /// What the connection itself says of its end, if it has ended.
    pub(super) async fn cause(&self) -> Option<End> {
        // The request that failed is told a little before the task that drives the connection ends.
        for _ in 0..20 {
            if let Some(cause) = self.cause.lock().clone() {
                return Some(cause);
            }
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
        None
    }

    /// Why a link over it is over: where that was lost, the connection knows better.
    pub(super) async fn why(&self, end: End) -> End {
        match end {
            End::Lost(_) => self.cause().await.unwrap_or(end),
            end => end,
        }
    }
}

/// Why a connection is over. A certificate that one side does not take is a refusal.
fn end_of_connection(error: &(dyn std::error::Error + 'static)) -> End {
    let mut next = Some(error);
    while let Some(error) = next {
        let tls = find_tls(error);
        if tls.is_some_and(|tls| {
            use rustls::Error::{AlertReceived, General, InvalidCertificate};
            matches!(tls, AlertReceived(_) | General(_) | InvalidCertificate(_))
        }) {
            return End::Refused(causes(error));
        }
        next = error.source();
    }
    End::Lost(causes(error))
}

/// What a router is asked for; its certificate is not judged by it.
pub(super) const ROUTER: &str = "router.invalid";
/// The same for a connection that is to carry nothing but Raft.
pub(super) const RAFT: &str = "raft.invalid";

/// Connects to a router, asking for that name; the error is for the operator.
pub(super) async fn connect(
    address: SocketAddr,
    name: &'static str,
    tls: &Tls,
    options: &Options,
) -> Result<Connection, End> {
    let late = || End::Lost("no answer in time".to_owned());
    let attempt = async {
        let reached = tokio::time::timeout(options.reach, TcpStream::connect(address)).await;
        let socket = reached.map_err(|_| late())?.map_err(|error| end_of_connection(&error))?;
        socket.set_nodelay(true).map_err(|error| end_of_connection(&error))?;
        let name = ServerName::try_from(name).map_err(|error| end_of_connection(&error))?;
        let connector = tokio_rustls::TlsConnector::from(tls.client());
        let connecting = connector.connect(name, Guarded::new(socket, options.dead()));
        connecting.await.map_err(|error| end_of_connection(&error))
    };
    let stream = tokio::time::timeout(options.connect, attempt).await.map_err(|_| late())??;
    let leaf = stream.get_ref().1.peer_certificates().and_then(|chain| chain.first());
    let identity = leaf.ok_or_else(|| "no certificate".to_owned()).and_then(|leaf| Identity::of(leaf));
    let identity = identity.map_err(End::Refused)?;
    let (send, connection) = http2::Builder::new(TokioExecutor::new())
        .timer(TokioTimer::new())
        .initial_stream_window_size(options.window)
        .initial_connection_window_size(options.window.saturating_mul(2))
        .max_frame_size(FRAME)
        .max_header_list_size(HEADERS)
        .keep_alive_interval(options.keep_alive)
        .keep_alive_timeout(options.keep_alive_answer)
        .keep_alive_while_idle(true)
        .handshake(TokioIo::new(stream))
        .await
        .map_err(|error| end_of_connection(&error))?;
    let cause = Arc::new(Mutex::new(None));
    let driver = {
        let cause = Arc::clone(&cause);
        Task::spawn(async move {
            let end = match connection.await {
                Ok(()) => End::Lost("closed by the peer".to_owned()),
                Err(error) => end_of_connection(&error),
            };
            *cause.lock() = Some(end);
        })
    };
    Ok(Connection { channel: Channel(send), identity, cause, _driver: driver })
}

/// The largest HTTP/2 frame, and the most of headers, in bytes.
pub(super) const FRAME: u32 = 256 << 10;
pub(super) const HEADERS: u32 = 16 << 10;

/// What became of an attempt.
pub(super) enum Outcome {
    /// It could not be made, or it is over; why.
    Ended(String),
    /// Whoever is there will not have it, or is not to be had; why. That does not pass in a moment.
    Refused(String),
    /// At this address is this process itself.
    Myself,
    /// A link by another address to the same router has taken its place.
    Superseded,
}

/// How long the address of this process itself rests.
const REST: Duration = Duration::from_secs(30);
/// How long a look-up may take.
const LOOKUP: Duration = Duration::from_secs(5);
/// After a link that lived so long the next attempt comes soon.
const LIVED: Duration = Duration::from_secs(1);
/// The longest pause after a refusal.
const REFUSED: Duration = Duration::from_secs(2);

/// Keeps a link to every address there is. `attempt` makes one and lives as long as that; it says when it is linked.
pub(super) async fn supervise<F, A>(addresses: Arc<dyn Addresses>, options: Options, attempt: F)
where
    F: Fn(SocketAddr, Arc<AtomicBool>) -> A + Clone + Send + 'static,
    A: Future<Output = Outcome> + Send + 'static,
{
    let mut dialled: HashMap<SocketAddr, (Task, Arc<AtomicBool>)> = HashMap::new();
    let mut known = Vec::new();
    let mut told = String::new();
    loop {
        let why = match tokio::time::timeout(LOOKUP, addresses.find()).await {
            Ok(Ok(found)) if !found.is_empty() => {
                known = found;
                String::new()
            }
            Ok(Ok(_)) => "there is no address".to_owned(),
            Ok(Err(error)) => error.to_string(),
            Err(_) => format!("no answer within {LOOKUP:?}"),
        };
        // The same again and again is said once.
        if why != told {
            if !why.is_empty() {
                tracing::warn!(
                    event = "lookup_failed",
                    error = why,
                    "cannot look up the routers: those known before are kept"
                );
            }
            told = why;
        }
        // Who is linked stays, whatever a directory says.
        dialled.retain(|address, (_, linked)| known.contains(address) || linked.load(Ordering::Relaxed));
        for address in &known {
            dialled.entry(*address).or_insert_with(|| {
                let linked = Arc::new(AtomicBool::new(false));
                let task = Task::spawn(dial(*address, options.clone(), attempt.clone(), Arc::clone(&linked)));
                (task, linked)
            });
        }
        let pause = if known.is_empty() { options.lookup / 10 } else { options.lookup };
        tokio::select! {
            () = tokio::time::sleep(pause) => {}
            () = addresses.changed() => {}
        }
    }
}

async fn dial<F, A>(address: SocketAddr, options: Options, attempt: F, linked: Arc<AtomicBool>)
where
    F: Fn(SocketAddr, Arc<AtomicBool>) -> A,
    A: Future<Output = Outcome>,
{
    let mut failures = 0u32;
    let mut told = String::new();
    loop {
        let began = Instant::now();
        let outcome = attempt(address, Arc::clone(&linked)).await;
        linked.store(false, Ordering::Relaxed);
        let (first, mut longest) = options.pause;
        match outcome {
            Outcome::Myself => {
                tokio::time::sleep(REST).await;
                continue;
            }
            // The next attempt waits until that one is over.
            Outcome::Superseded => continue,
            Outcome::Ended(why) => tell(address, why, &mut told),
            Outcome::Refused(why) => {
                longest = longest.max(REFUSED);
                tell(address, why, &mut told);
            }
        }
        failures = if began.elapsed() >= LIVED { 0 } else { failures.saturating_add(1) };
        let pause = first.saturating_mul(1 << failures.min(10)).min(longest);
        tokio::time::sleep(pause.mul_f64(rand::random_range(0.5..1.0))).await;
    }
}

/// The same again and again is said once.
fn tell(address: SocketAddr, why: String, told: &mut String) {
    if why != *told {
        tracing::warn!(event = "link_failed", %address, %why, "no link to a router");
        *told = why;
    }
}
