//! The listener of a router, for edges and other routers.

use super::dial::{FRAME, HEADERS, RAFT, Task};
use super::guard::Guarded;
use super::room::Room;
use super::services::{PeerService, UplinkService};
use super::{Hears, Options, Outlet, Peers, causes};
use crate::codec::MAX_MESSAGE;
use crate::frame::{EdgeHello, Leaving, RouterHello, RouterItem, TraceReport, UpBatch};
use crate::proto::peer_server::PeerServer;
use crate::proto::uplink_server::UplinkServer;
use crate::tls::{Identity, Tls};
use crate::{EdgeId, LinkError, Registration};
use futures::future::BoxFuture;
use hyper::service::service_fn;
use hyper_util::rt::{TokioExecutor, TokioIo, TokioTimer};
use rustls::server::Acceptor;
use starling_store::AccountRow;
use starling_xmpp::BareJid;
use starling_xmpp::sasl::Credentials;
use std::io;
use std::net::SocketAddr;
use std::sync::{Arc, OnceLock};
use std::time::Duration;
use tokio::io::AsyncReadExt;
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::{Notify, watch};
use tokio::task::JoinSet;
use tokio_rustls::TlsAcceptor;
use tonic::body::Body;
use tonic::codegen::Service;

/// What a router does with edges.
pub trait Edges: Send + Sync + 'static {
    /// An edge has begun a link. The one before it has ended.
    ///
    /// # Errors
    /// Why it must not; it is told.
    fn connected(
        &self,
        edge: EdgeHello,
        outlet: Outlet<RouterItem>,
    ) -> Result<(RouterHello, Box<dyn Hears<UpBatch>>), String>;

    /// An edge that is linked is leaving.
    fn leaves(&self, _edge: EdgeId, _how_far: Leaving) {}

    /// An edge has taken all that it was told before [`RouterItem::Ask`] of this number.
    fn heard(&self, _edge: EdgeId, _ask: u64) {}

    /// As [`RouterLink::account`](crate::RouterLink::account).
    fn account(&self, account: BareJid) -> BoxFuture<'static, Result<Option<AccountRow>, LinkError>>;

    /// As [`RouterLink::register`](crate::RouterLink::register).
    fn register(
        &self,
        account: BareJid,
        credentials: Credentials,
    ) -> BoxFuture<'static, Result<Registration, LinkError>>;

    /// An edge says how many traces it has begun by the rules that it was told.
    fn traced(&self, _report: TraceReport) {}
}

/// Listens while it lives.
#[derive(Debug)]
pub struct Server {
    addresses: Vec<SocketAddr>,
    _tasks: Vec<Task>,
}

impl Server {
    /// Begins to serve at one address. Must be called within a tokio runtime.
    ///
    /// # Errors
    /// The address cannot be listened on.
    pub async fn start(
        address: SocketAddr,
        tls: Arc<Tls>,
        options: Options,
        edges: Arc<dyn Edges>,
        peers: Arc<dyn Peers>,
    ) -> io::Result<Self> {
        Self::on(vec![TcpListener::bind(address).await?], tls, options, edges, peers)
    }

    /// The same on sockets that are open. A peer has one link, by whichever of them it comes.
    ///
    /// # Errors
    /// A socket does not know its address.
    pub fn on(
        listeners: Vec<TcpListener>,
        tls: Arc<Tls>,
        options: Options,
        edges: Arc<dyn Edges>,
        peers: Arc<dyn Peers>,
    ) -> io::Result<Self> {
        let addresses = listeners.iter().map(TcpListener::local_addr).collect::<io::Result<_>>()?;
        let uplink = UplinkServer::new(UplinkService::new(edges, Arc::clone(&peers), options.clone()))
            .max_decoding_message_size(MAX_MESSAGE)
            .max_encoding_message_size(MAX_MESSAGE);
        let peer = PeerServer::new(PeerService::new(peers, options.clone()))
            .max_decoding_message_size(MAX_MESSAGE)
            .max_encoding_message_size(MAX_MESSAGE);
        let services = Services { uplink, peer };
        let room = Room::new(options.connections, options.of_one_address);
        let mut tasks = vec![Task::spawn(watch(Arc::clone(&tls), options.clone()))];
        tasks.extend(listeners.into_iter().map(|listener| {
            let (tls, room) = (Arc::clone(&tls), Arc::clone(&room));
            Task::spawn(accept(listener, tls, options.clone(), services.clone(), room))
        }));
        Ok(Self { addresses, _tasks: tasks })
    }

    /// Where it listens first.
    pub fn address(&self) -> SocketAddr {
        self.addresses.first().copied().unwrap_or_else(|| SocketAddr::from(([0, 0, 0, 0], 0)))
    }

    /// Where it listens.
    pub fn addresses(&self) -> &[SocketAddr] {
        &self.addresses
    }
}

/// Reads the files of TLS again when they change, and says when they are to be made anew.
pub(super) async fn watch(tls: Arc<Tls>, options: Options) {
    let mut reminded = None;
    loop {
        if reminds(tls.left(), &mut reminded) {
            let (identity, days) = (tls.identity(), tls.left().as_secs() / DAY.as_secs());
            tracing::warn!(event = "certificate_ends", %identity, days, "the certificate for links ends: then no new link can be made");
        }
        tokio::time::sleep(options.certificates).await;
        if tls.changed() {
            match tls.reload() {
                Ok(()) => {
                    tracing::info!(event = "certificates_reloaded", identity = %tls.identity(), "new certificates are in use")
                }
                Err(error) => {
                    tracing::error!(event = "certificates_unusable", %error, "new certificates cannot be used: the old ones stay")
                }
            }
        }
    }
}

/// Whether it is time to say that a certificate ends: each day from two weeks before, when it has ended, and of each new one.
fn reminds(left: Duration, said: &mut Option<Duration>) -> bool {
    let is_news = |said: Duration| left > said || left + DAY <= said || left.is_zero() && !said.is_zero();
    let reminds = left < SOON && said.is_none_or(is_news);
    if reminds {
        *said = Some(left);
    }
    reminds
}

const DAY: Duration = Duration::from_secs(86_400);
const SOON: Duration = Duration::from_secs(14 * 86_400);

#[derive(Clone)]
struct Services {
    uplink: UplinkServer<UplinkService>,
    peer: PeerServer<PeerService>,
}

async fn accept(listener: TcpListener, tls: Arc<Tls>, options: Options, services: Services, room: Arc<Room>) {
    let mut connections = JoinSet::new();
    loop {
        let accepted = tokio::select! {
            accepted = listener.accept() => accepted,
            Some(_) = connections.join_next() => continue,
        };
        let (socket, address) = match accepted {
            Ok(accepted) => accepted,
            Err(error) => {
                tracing::warn!(event = "accept_failed", %error, "cannot accept a link");
                tokio::time::sleep(Duration::from_millis(50)).await;
                continue;
            }
        };
        let place = match room.enter(address.ip()) {
            Ok(place) => place,
            Err(why) => {
                options.refused.count("too_many");
                tracing::warn!(event = "link_refused", %address, why, "a link is turned away");
                continue;
            }
        };
        let (tls, options, services) = (Arc::clone(&tls), options.clone(), services.clone());
        connections.spawn(async move {
            let threads = match &options.raft {
                Some(threads) if wants_raft(&socket, &options).await => Some(threads.clone()),
                _ => None,
            };
            let Some(threads) = threads else {
                turn_away(address, serve(socket, &tls, &options, services).await, &options);
                return drop(place);
            };
            // Its events are to come to those threads as well, not only what is done about them.
            let Ok(socket) = socket.into_std() else { return };
            let serving = async move {
                let served = match TcpStream::from_std(socket) {
                    Ok(socket) => serve(socket, &tls, &options, services).await,
                    Err(error) => Err(Broken::Later(causes(&error))),
                };
                turn_away(address, served, &options);
                drop(place);
            };
            Task::spawn_on(Some(&threads), serving).ended().await;
        });
    }
}

fn turn_away(address: SocketAddr, served: Result<(), Broken>, options: &Options) {
    match served {
        Ok(()) => {}
        Err(Broken::Handshake(why)) => {
            options.refused.count("handshake");
            tracing::warn!(event = "link_refused", %address, %why, "a link is turned away");
        }
        Err(Broken::Later(why)) => tracing::warn!(event = "link_broken", %address, %why, "a link is broken"),
    }
}

/// Why a connection is over.
enum Broken {
    /// Its peer did not come as far as a request.
    Handshake(String),
    /// It was in use.
    Later(String),
}

/// Whether a connection is to carry nothing but Raft. Nothing is taken from the socket.
async fn wants_raft(socket: &TcpStream, options: &Options) -> bool {
    let mut bytes = vec![0; 16 << 10];
    let mut seen = 0;
    let look = async {
        loop {
            let length = socket.peek(&mut bytes).await.unwrap_or(0);
            let mut acceptor = Acceptor::default();
            if length == 0 || acceptor.read_tls(&mut &bytes[..length]).is_err() {
                return false;
            }
            match acceptor.accept() {
                Ok(Some(accepted)) => return accepted.client_hello().server_name() == Some(RAFT),
                Ok(None) if length < bytes.len() => {}
                Ok(None) | Err(_) => return false,
            }
            // What was seen stays, so that the socket does not say when there is more.
            if length == seen {
                tokio::time::sleep(PEEK_AGAIN).await;
            }
            seen = length;
        }
    };
    tokio::time::timeout(options.connect, look).await.unwrap_or(false)
}

/// How soon it is looked again for the rest of a greeting.
const PEEK_AGAIN: Duration = Duration::from_millis(5);

async fn serve(socket: TcpStream, tls: &Tls, options: &Options, services: Services) -> Result<(), Broken> {
    socket.set_nodelay(true).map_err(|error| Broken::Later(causes(&error)))?;
    let handshake = TlsAcceptor::from(tls.server()).accept(Guarded::new(socket, options.dead()));
    let stream = match tokio::time::timeout(options.connect, handshake.into_fallible()).await {
        Ok(Ok(stream)) => stream,
        Ok(Err((error, socket))) => {
            linger(socket).await;
            return Err(Broken::Handshake(causes(&error)));
        }
        Err(_) => return Err(Broken::Handshake("no TLS handshake in time".to_owned())),
    };
    let leaf = stream.get_ref().1.peer_certificates().and_then(|chain| chain.first());
    let identity = leaf.ok_or_else(|| "no certificate".to_owned()).and_then(|leaf| Identity::of(leaf));
    let caller = Caller::new(identity.map_err(Broken::Handshake)?);
    let (ending, unused) = (Arc::clone(&caller.ending), unused(caller.used.subscribe(), options.hello));
    let service = service_fn(move |mut request: hyper::Request<hyper::body::Incoming>| {
        request.extensions_mut().insert(caller.clone());
        let (mut services, using) = (services.clone(), caller.uses());
        async move {
            let _using = using;
            let path = request.uri().path();
            if path.starts_with("/starling.cluster.v1.Uplink/") {
                services.uplink.call(request).await
            } else if path.starts_with("/starling.cluster.v1.Peer/") {
                services.peer.call(request).await
            } else {
                Ok(tonic::Status::unimplemented("no such service").into_http::<Body>())
            }
        }
    });
    let mut builder = hyper::server::conn::http2::Builder::new(TokioExecutor::new());
    builder
        .timer(TokioTimer::new())
        .initial_stream_window_size(options.window)
        .initial_connection_window_size(options.window.saturating_mul(2))
        .max_frame_size(FRAME)
        .max_header_list_size(HEADERS)
        .max_concurrent_streams(options.streams)
        .keep_alive_interval(options.keep_alive)
        .keep_alive_timeout(options.keep_alive_answer);
    let connection = builder.serve_connection(TokioIo::new(stream), service);
    tokio::select! {
        result = connection => result.map_err(|error| Broken::Later(causes(&error))),
        () = unused => {
            options.refused.count("no_hello");
            Err(Broken::Later("nothing is asked for over it".to_owned()))
        }
        () = ending.notified() => Err(Broken::Later("the peer does not read what it is sent".to_owned())),
    }
}

/// Reads what a peer still sends after it was turned away: if the socket were closed at once, the reason might be lost.
async fn linger(mut socket: Guarded) {
    let drain = async {
        let mut bytes = [0; 1024];
        let mut left = 64;
        while left > 0 && matches!(socket.read(&mut bytes).await, Ok(1..)) {
            left -= 1;
        }
    };
    let _ = tokio::time::timeout(Duration::from_secs(1), drain).await;
}

/// Resolves when a connection was not used for so long.
async fn unused(mut used: watch::Receiver<usize>, patience: Duration) {
    loop {
        let _ = used.wait_for(|uses| *uses == 0).await; // or its service is gone
        let again = used.wait_for(|uses| *uses > 0);
        if !matches!(tokio::time::timeout(patience, again).await, Ok(Ok(_))) {
            return;
        }
    }
}

/// Who is at the other end of a request's connection.
#[derive(Debug, Clone)]
pub(super) struct Caller {
    /// Whom the certificate names.
    pub(super) identity: Arc<Identity>,
    /// Ends the connection, with all that waits on it.
    pub(super) ending: Arc<Notify>,
    /// How many requests and links there are over it.
    used: Arc<watch::Sender<usize>>,
    /// The process that has a link over it.
    process: Arc<OnceLock<u64>>,
}

impl Caller {
    fn new(identity: Identity) -> Self {
        let (identity, used) = (Arc::new(identity), Arc::new(watch::Sender::new(0)));
        Self { identity, ending: Arc::default(), used, process: Arc::default() }
    }

    /// The connection is used while this lives.
    fn uses(&self) -> Using {
        self.used.send_modify(|uses| *uses += 1);
        Using(Arc::clone(&self.used))
    }

    /// The same for a link of this process.
    pub(super) fn links(&self, process: u64) -> Result<Using, tonic::Status> {
        if *self.process.get_or_init(|| process) == process {
            return Ok(self.uses());
        }
        Err(tonic::Status::permission_denied("another process has a link over the same connection"))
    }
}

/// One use of a connection.
#[derive(Debug)]
pub(super) struct Using(Arc<watch::Sender<usize>>);

impl Drop for Using {
    fn drop(&mut self) {
        self.0.send_modify(|uses| *uses -= 1);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_certificate_that_ends_is_told_of_each_day() {
        let hours = |hours: u64| Duration::from_secs(hours * 3_600);
        let mut said = None;
        assert!(!reminds(hours(14 * 24), &mut said), "there is time");
        let rounds = (0..14 * 24 * 4).rev().map(|quarter: u32| hours(1) * quarter / 4);
        assert_eq!(rounds.filter(|left| reminds(*left, &mut said)).count(), 15, "each day, and at its end");
        assert!(!reminds(Duration::ZERO, &mut said));
        assert!(!reminds(hours(365 * 24), &mut said) && reminds(hours(10), &mut said), "another one");
    }
}
