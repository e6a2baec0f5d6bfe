//! Links of a router to all others: one for stanzas, one for Raft, each on a connection of its own.

use super::dial::{Connection, Outcome, RAFT, ROUTER, Task, connect, supervise};
use super::outlet::Frames;
use super::raft::{RaftLinks, converse};
use super::slots::{Entry, Held, Slots};
use super::ways::{Life, Ways};
use super::{Addresses, Coming, End, Hears, Options, Outlet, end_of};
use crate::codec::{self, MAX_MESSAGE, PeerPieces};
use crate::frame::{PeerHello, PeerItem};
use crate::proto::peer_client;
use crate::tls::Tls;
use crate::{RouterId, proto};
use bytes::Bytes;
use futures::future::BoxFuture;
use hyper::Uri;
use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

/// What a router does with other routers.
pub trait Peers: Send + Sync + 'static {
    /// How it begins and answers links.
    fn hello(&self) -> PeerHello;

    /// How it answers a link of that router, whose one before has ended.
    fn answer(&self, _to: RouterId) -> PeerHello {
        self.hello()
    }

    /// Whether links to a router may stand, whoever begins them.
    ///
    /// # Errors
    /// Why not; it is told.
    fn admits(&self, _peer: &PeerHello) -> Result<(), String> {
        Ok(())
    }

    /// Another process has the identity of this router's disk.
    fn doubled(&self) {}

    /// An attempt to link to whoever is there was in vain.
    fn failed(&self, _address: SocketAddr, _end: &End) {}

    /// A router has begun a link: it speaks, we hear. The one before it has ended.
    ///
    /// # Errors
    /// Why it must not; it is told.
    fn connected(&self, peer: PeerHello) -> Result<Box<dyn Hears<PeerItem>>, String>;

    /// A router has answered a link of ours: we speak. Nothing is heard over it but its end.
    fn linked(&self, peer: PeerHello, outlet: Outlet<PeerItem>) -> Box<dyn Hears<PeerItem>>;

    /// A Raft question of another router, which its certificate allows to call itself by this name. Its future is dropped
    /// when nobody waits any more.
    fn raft(
        &self,
        from: RouterId,
        name: &Arc<str>,
        group: u16,
        body: Bytes,
    ) -> BoxFuture<'static, Result<Bytes, String>>;

    /// What the pulses of Raft links carry, such as which groups' leaders this router hears.
    fn notes(&self) -> Bytes;
}

/// Keeps two links to every other router while it lives.
#[derive(Debug)]
pub struct PeerClient {
    raft: RaftLinks,
    _tasks: [Task; 2],
}

impl PeerClient {
    /// Begins to link. Must be called within a tokio runtime.
    pub fn start(
        addresses: Arc<dyn Addresses>,
        tls: Arc<Tls>,
        options: Options,
        peers: Arc<dyn Peers>,
    ) -> Self {
        let raft = RaftLinks::new(options.outlet);
        let threads = options.raft.clone();
        let shared = Arc::new(Shared {
            tls,
            options: options.clone(),
            peers,
            slots: Slots::default(),
            stanza_ways: Ways::default(),
            raft: raft.clone(),
            raft_ways: Ways::default(),
        });
        let stanzas = {
            let shared = Arc::clone(&shared);
            move |address, linked| attempt(Arc::clone(&shared), address, linked, Purpose::Stanzas)
        };
        let rafts = move |address, linked| attempt(Arc::clone(&shared), address, linked, Purpose::Raft);
        let tasks = [
            Task::spawn(supervise(Arc::clone(&addresses), options.clone(), stanzas)),
            Task::spawn_on(threads.as_ref(), supervise(addresses, options, rafts)),
        ];
        Self { raft, _tasks: tasks }
    }

    /// The links that carry Raft.
    pub fn raft(&self) -> &RaftLinks {
        &self.raft
    }
}

#[derive(Clone, Copy, PartialEq)]
enum Purpose {
    Stanzas,
    Raft,
}

pub(super) struct Shared {
    tls: Arc<Tls>,
    pub(super) options: Options,
    pub(super) peers: Arc<dyn Peers>,
    slots: Slots<RouterId, PeerItem>,
    stanza_ways: Ways,
    pub(super) raft: RaftLinks,
    pub(super) raft_ways: Ways,
}

async fn attempt(
    shared: Arc<Shared>,
    address: SocketAddr,
    linked: Arc<AtomicBool>,
    purpose: Purpose,
) -> Outcome {
    let (name, ways) = match purpose {
        Purpose::Stanzas => (ROUTER, &shared.stanza_ways),
        Purpose::Raft => (RAFT, &shared.raft_ways),
    };
    ways.rest(address).await;
    let connection = match connect(address, name, &shared.tls, &shared.options).await {
        Ok(connection) => connection,
        Err(end) => {
            shared.peers.failed(address, &end);
            return ended(&end);
        }
    };
    let mut router = None;
    let end = match purpose {
        Purpose::Stanzas => serve(&shared, address, &connection, &linked, &mut router).await,
        Purpose::Raft => converse(&shared, address, &connection, &linked, &mut router).await,
    };
    if let Some((router, life)) = router
        && ways.ended(address, router, life)
    {
        return Outcome::Superseded;
    }
    match end {
        Ok(end) => {
            let end = connection.why(end).await;
            if !linked.load(Ordering::Relaxed) {
                shared.peers.failed(address, &end);
            }
            ended(&end)
        }
        Err(Myself) => Outcome::Myself,
    }
}

fn ended(end: &End) -> Outcome {
    match end {
        End::Refused(_) => Outcome::Refused(end.to_string()),
        end => Outcome::Ended(end.to_string()),
    }
}

/// The router at the other end is this one.
pub(super) struct Myself;

/// Says to a router that somebody else has its identity.
pub(super) const DOUBLED: tonic::Code = tonic::Code::DataLoss;

/// What it means that a router does not take our hello.
pub(super) fn declined(peers: &Arc<dyn Peers>, status: &tonic::Status) -> Result<End, Myself> {
    match status.code() {
        tonic::Code::AlreadyExists => Err(Myself),
        DOUBLED => {
            peers.doubled();
            Ok(End::Refused(status.message().to_owned()))
        }
        _ => Ok(end_of(status)),
    }
}

/// Judges the answer of a router.
pub(super) fn judge(
    peers: &Arc<dyn Peers>,
    own: &PeerHello,
    connection: &Connection,
    hello: Option<proto::PeerHello>,
) -> Result<PeerHello, End> {
    let hello = match hello.map(codec::read_peer_hello) {
        Some(Ok(hello)) => hello,
        Some(Err(bad)) => return Err(End::Malformed(bad.to_string())),
        None => return Err(End::Malformed("no hello".to_owned())),
    };
    if let Some(why) = own.version.refuses(&own.name, &hello.version, &hello.name) {
        return Err(End::Refused(why));
    }
    if !connection.identity.allows(&hello.name) {
        return Err(End::Refused(format!("{} calls itself {:?}", connection.identity, hello.name)));
    }
    peers.admits(&hello).map_err(End::Refused)?;
    Ok(hello)
}

pub(super) fn client(connection: &Connection) -> peer_client::PeerClient<super::dial::Channel> {
    peer_client::PeerClient::with_origin(connection.channel.clone(), Uri::from_static("https://router"))
        .max_decoding_message_size(MAX_MESSAGE)
        .max_encoding_message_size(MAX_MESSAGE)
}

async fn serve(
    shared: &Arc<Shared>,
    address: SocketAddr,
    connection: &Connection,
    linked: &AtomicBool,
    router: &mut Option<Life>,
) -> Result<End, Myself> {
    let own = shared.peers.hello();
    let outlet = Outlet::new(shared.options.outlet);
    let first = proto::PeerFrame { hello: Some(codec::peer_hello(&own)), items: Vec::new() };
    let frames = Frames::<PeerPieces>::new(first, &outlet);
    let mut client = client(connection);
    let opened = async {
        let mut stream = client.stanzas(frames).await?.into_inner();
        let first = stream.message().await?;
        Ok::<_, tonic::Status>((stream, first))
    };
    let (mut stream, first) = match tokio::time::timeout(shared.options.hello, opened).await {
        Ok(Ok(opened)) => opened,
        Ok(Err(status)) => return declined(&shared.peers, &status),
        Err(_) => return Ok(End::Lost("no hello in time".to_owned())),
    };
    let hello = match judge(&shared.peers, &own, connection, first.and_then(|frame| frame.hello)) {
        Ok(hello) => hello,
        Err(end) => return Ok(end),
    };
    let (id, life) = (hello.router, hello.incarnation);
    *router = Some((id, life));
    let held = shared.slots.take_over(id, || {
        shared.stanza_ways.linked(address, id, life);
        let hears = shared.peers.linked(hello, outlet.clone());
        let shut = outlet.clone();
        Ok::<_, std::convert::Infallible>((Entry { hears, shut: Box::new(move |end| shut.close(end)) }, ()))
    });
    let Ok((held, ())) = held;
    linked.store(true, Ordering::Relaxed);
    tracing::info!(event = "linked", %address, router = %id, "linked to a peer");
    let end = read(&mut stream, &held, &outlet).await;
    held.end(end.clone());
    tracing::info!(event = "link_over", %address, router = %id, %end, "a link to a peer is over");
    Ok(end)
}

/// Hands over what comes of a peer until the link ends.
pub(super) async fn read(
    stream: &mut tonic::Streaming<proto::PeerFrame>,
    held: &Held<RouterId, PeerItem>,
    outlet: &Outlet<PeerItem>,
) -> End {
    let mut coming = Coming::new(stream, outlet);
    loop {
        let heard = match coming.next().await {
            Ok(frame) => held.hear(codec::read_peer_frame(frame)),
            Err(end) => return end,
        };
        if let Err(end) = heard {
            return end;
        }
    }
}
