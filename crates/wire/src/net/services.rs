//! What a server answers.

use super::outlet::Frames;
use super::peer::DOUBLED;
use super::peer::{self, Peers};
use super::raft::{AT_ONCE, RaftItem, RaftPieces};
use super::server::{Caller, Edges};
use super::slots::{Entry, Held, Slots};
use super::{End, Options, Outlet, end_of, status_of};
use crate::codec::{self, PeerPieces, Reader, RouterPieces};
use crate::frame::{Leaving, PeerHello, PeerItem, RouterItem, UpBatch};
use crate::proto::peer_server::Peer;
use crate::proto::uplink_server::Uplink;
use crate::tls::{Identity, Role};
use crate::{EdgeId, LinkError, RouterId, proto};
use futures::stream::FuturesUnordered;
use futures::{Stream, StreamExt};
use std::pin::Pin;
use std::sync::Arc;
use std::time::Duration;
use tonic::{Request, Response, Status, Streaming};

type Answers<F> = Pin<Box<dyn Stream<Item = Result<F, Status>> + Send>>;

/// The frames of an outlet, and at the end why it ended.
fn answers<P>(hello: P::Frame, outlet: &Outlet<P::Item>) -> Answers<P::Frame>
where
    P: codec::Pieces + Unpin,
    P::Item: Unpin,
    P::Frame: Unpin,
{
    let last = {
        let outlet = outlet.clone();
        futures::stream::once(async move { Err(status_of(&outlet.ended().await)) })
    };
    Box::pin(Frames::<P>::new(hello, outlet).map(Ok).chain(last))
}

/// Whom the connection's certificate names, if it has this role in this cluster.
fn caller<T>(request: &Request<T>, role: Role, own: &PeerHello) -> Result<Caller, Status> {
    let known = request.extensions().get::<Caller>();
    let known = known.ok_or_else(|| Status::unauthenticated("no certificate"))?;
    let caller = &known.identity;
    if caller.cluster != own.version.cluster {
        return Err(Status::permission_denied(format!(
            "{caller} is of another cluster: {:?} is of {:?}",
            own.name, own.version.cluster
        )));
    }
    if caller.role != role {
        return Err(Status::permission_denied(format!("{caller} may not speak as {}", role.as_str())));
    }
    Ok(known.clone())
}

/// A peer that does not read does not read why either: all that waits for it is given back.
fn finish(caller: &Caller, end: &End) {
    if *end == End::Overflow {
        caller.ending.notify_one();
    }
}

fn called(caller: &Identity, name: &str) -> Result<(), Status> {
    if caller.allows(name) {
        return Ok(());
    }
    Err(Status::permission_denied(format!("{caller} may not call itself {name:?}")))
}

async fn first<F>(stream: &mut Streaming<F>, options: &Options) -> Result<F, Status> {
    match tokio::time::timeout(options.hello, stream.message()).await {
        Ok(Ok(Some(first))) => Ok(first),
        Ok(Ok(None)) => Err(Status::invalid_argument("no hello")),
        Ok(Err(status)) => Err(status),
        Err(_) => Err(Status::deadline_exceeded("no hello in time")),
    }
}

fn bad(malformed: codec::Malformed) -> Status {
    Status::invalid_argument(malformed.to_string())
}

fn no_hello() -> Status {
    Status::invalid_argument("no hello")
}

pub(super) struct UplinkService {
    edges: Arc<dyn Edges>,
    peers: Arc<dyn Peers>,
    options: Options,
    slots: Slots<EdgeId, UpBatch>,
}

impl UplinkService {
    pub(super) fn new(edges: Arc<dyn Edges>, peers: Arc<dyn Peers>, options: Options) -> Self {
        Self { edges, peers, options, slots: Slots::default() }
    }

    fn question<T>(&self, request: Request<T>) -> Result<T, Status> {
        let allowed = caller(&request, Role::Edge, &self.peers.hello());
        allowed.inspect_err(|status| self.options.refused.status(status))?;
        Ok(request.into_inner())
    }

    fn unreadable(&self, malformed: codec::Malformed) -> Status {
        let status = bad(malformed);
        self.options.refused.status(&status);
        status
    }

    async fn begin(
        &self,
        request: Request<Streaming<proto::EdgeFrame>>,
    ) -> Result<Response<Answers<proto::RouterFrame>>, Status> {
        let own = self.peers.hello();
        let caller = caller(&request, Role::Edge, &own)?;
        let mut stream = request.into_inner();
        let hello = first(&mut stream, &self.options).await?.hello.ok_or_else(no_hello)?;
        let hello = codec::read_edge_hello(hello).map_err(bad)?;
        if let Some(why) = own.version.refuses(&own.name, &hello.version, &hello.name) {
            return Err(Status::failed_precondition(why));
        }
        called(&caller.identity, &hello.name)?;
        let edge = hello.edge;
        let using = caller.links(edge.0)?;
        let outlet = Outlet::new(self.options.outlet);
        let (held, answer) = self.slots.take_over(edge, || {
            let (answer, hears) =
                self.edges.connected(hello, outlet.clone()).map_err(Status::failed_precondition)?;
            let shut = outlet.clone();
            Ok::<_, Status>((Entry { hears, shut: Box::new(move |end| shut.close(end)) }, answer))
        })?;
        let hello = Some(codec::router_hello(&answer));
        let first = proto::RouterFrame { hello, ..proto::RouterFrame::default() };
        let answers = answers::<RouterPieces>(first, &outlet);
        let (edges, refused) = (Arc::clone(&self.edges), self.options.refused.clone());
        tokio::spawn(async move {
            let end = hear_edge(&mut stream, &held, &outlet, edge, &*edges).await;
            tracing::info!(event = "link_over", edge = %edge, %end, "the link of an edge is over");
            refused.ended(&end);
            finish(&caller, &end);
            held.end(end);
            drop(using);
        });
        Ok(Response::new(answers))
    }
}

fn refused(error: LinkError) -> Status {
    match error {
        LinkError::NoHome => Status::unavailable("not the home of this account"),
        LinkError::Busy => Status::resource_exhausted("busy"),
    }
}

#[tonic::async_trait]
impl Uplink for UplinkService {
    type ConnectStream = Answers<proto::RouterFrame>;

    async fn connect(
        &self,
        request: Request<Streaming<proto::EdgeFrame>>,
    ) -> Result<Response<Self::ConnectStream>, Status> {
        self.begin(request).await.inspect_err(|status| self.options.refused.status(status))
    }

    async fn account(
        &self,
        request: Request<proto::AccountQuestion>,
    ) -> Result<Response<proto::AccountAnswer>, Status> {
        let question = self.question(request)?;
        let account =
            codec::read_account_question(&question).map_err(|malformed| self.unreadable(malformed))?;
        let row = self.edges.account(account).await.map_err(refused)?;
        Ok(Response::new(codec::account_answer(row.as_ref())))
    }

    async fn register(
        &self,
        request: Request<proto::RegisterQuestion>,
    ) -> Result<Response<proto::RegisterAnswer>, Status> {
        let question = self.question(request)?;
        let (account, credentials) =
            codec::read_register(&question).map_err(|malformed| self.unreadable(malformed))?;
        let registration = self.edges.register(account, credentials).await.map_err(refused)?;
        Ok(Response::new(codec::register_answer(registration)))
    }

    async fn traced(&self, request: Request<proto::TraceReport>) -> Result<Response<proto::Empty>, Status> {
        let report = codec::read_report(self.question(request)?).map_err(bad)?;
        self.edges.traced(report);
        Ok(Response::new(proto::Empty {}))
    }
}

async fn hear_edge(
    stream: &mut Streaming<proto::EdgeFrame>,
    held: &Held<EdgeId, UpBatch>,
    outlet: &Outlet<RouterItem>,
    edge: EdgeId,
    edges: &dyn Edges,
) -> End {
    let mut reader = Reader::new(edge);
    let ended = outlet.ended();
    tokio::pin!(ended);
    loop {
        let frame = tokio::select! {
            biased;
            end = &mut ended => return end,
            frame = stream.message() => frame,
        };
        match frame {
            Ok(Some(mut frame)) => {
                let (how_far, heard) = (frame.leaving.take(), frame.heard);
                if let Err(end) = held.hear(reader.read(frame)) {
                    return end;
                }
                if let Some(proto::Leaving { phase, left }) = how_far {
                    edges.leaves(edge, Leaving { phase, left });
                }
                if heard > 0 {
                    edges.heard(edge, heard);
                }
            }
            Ok(None) => return End::Lost("ended by the edge".to_owned()),
            Err(status) => return end_of(&status),
        }
    }
}

pub(super) struct PeerService {
    peers: Arc<dyn Peers>,
    options: Options,
    stanzas: Slots<RouterId, PeerItem>,
    rafts: Slots<RouterId, ()>,
}

/// How long an answer may take to be sent.
const ANSWERED: Duration = Duration::from_secs(1);

impl PeerService {
    pub(super) fn new(peers: Arc<dyn Peers>, options: Options) -> Self {
        Self { peers, options, stanzas: Slots::default(), rafts: Slots::default() }
    }

    fn judge(
        &self,
        caller: &Identity,
        own: &PeerHello,
        hello: Option<proto::PeerHello>,
    ) -> Result<PeerHello, Status> {
        let hello = codec::read_peer_hello(hello.ok_or_else(no_hello)?).map_err(bad)?;
        if let Some(why) = own.version.refuses(&own.name, &hello.version, &hello.name) {
            return Err(Status::failed_precondition(why));
        }
        called(caller, &hello.name)?;
        if hello.router == own.router {
            if hello.incarnation == own.incarnation {
                return Err(Status::already_exists("this is the same router"));
            }
            tracing::error!(
                event = "identity_taken",
                name = hello.name,
                "another process has the identity of this router"
            );
            // The other one has to hear it, too, or it is the one that is left: this one ends when the answer is on its way.
            let peers = Arc::clone(&self.peers);
            tokio::spawn(async move {
                tokio::time::sleep(ANSWERED).await;
                peers.doubled();
            });
            return Err(Status::new(
                DOUBLED,
                "two processes have one router's identity: its data directory was copied",
            ));
        }
        self.peers.admits(&hello).map_err(Status::failed_precondition)?;
        Ok(hello)
    }

    async fn begin_stanzas(
        &self,
        request: Request<Streaming<proto::PeerFrame>>,
    ) -> Result<Response<Answers<proto::PeerFrame>>, Status> {
        let own = self.peers.hello();
        let caller = caller(&request, Role::Router, &own)?;
        let mut stream = request.into_inner();
        let first = first(&mut stream, &self.options).await?;
        let hello = self.judge(&caller.identity, &own, first.hello)?;
        let id = hello.router;
        let using = caller.links(id.0)?;
        let outlet = Outlet::new(self.options.outlet);
        let (held, ()) = self.stanzas.take_over(id, || {
            let hears = self.peers.connected(hello).map_err(Status::failed_precondition)?;
            let shut = outlet.clone();
            Ok::<_, Status>((Entry { hears, shut: Box::new(move |end| shut.close(end)) }, ()))
        })?;
        // Asked again: what the old link brought may have changed it.
        let hello = Some(codec::peer_hello(&self.peers.answer(id)));
        let answers = answers::<PeerPieces>(proto::PeerFrame { hello, items: Vec::new() }, &outlet);
        let refused = self.options.refused.clone();
        tokio::spawn(async move {
            let end = peer::read(&mut stream, &held, &outlet).await;
            tracing::info!(event = "link_over", router = %id, %end, "the link of a peer is over");
            refused.ended(&end);
            finish(&caller, &end);
            held.end(end);
            drop(using);
        });
        Ok(Response::new(answers))
    }

    async fn begin_raft(
        &self,
        request: Request<Streaming<proto::RaftFrame>>,
    ) -> Result<Response<Answers<proto::RaftFrame>>, Status> {
        let own = self.peers.hello();
        let caller = caller(&request, Role::Router, &own)?;
        let mut stream = request.into_inner();
        let first = first(&mut stream, &self.options).await?;
        let hello = self.judge(&caller.identity, &own, first.hello)?;
        let (id, name) = (hello.router, Arc::from(hello.name));
        let using = caller.links(id.0)?;
        let outlet = Outlet::new(self.options.outlet);
        let Ok((held, ())) = self.rafts.take_over(id, || {
            let shut = outlet.clone();
            let entry = Entry { hears: Box::new(Nobody), shut: Box::new(move |end| shut.close(end)) };
            Ok::<_, std::convert::Infallible>((entry, ()))
        });
        let hello = Some(codec::peer_hello(&self.peers.hello()));
        let first = proto::RaftFrame { hello, ..proto::RaftFrame::default() };
        let answers = answers::<RaftPieces>(first, &outlet);
        let (peers, refused) = (Arc::clone(&self.peers), self.options.refused.clone());
        tokio::spawn(async move {
            let end = answer_raft(&mut stream, &held, &outlet, &peers, (id, &name)).await;
            refused.ended(&end);
            finish(&caller, &end);
            held.end(end);
            drop(using);
        });
        Ok(Response::new(answers))
    }
}

#[tonic::async_trait]
impl Peer for PeerService {
    type StanzasStream = Answers<proto::PeerFrame>;
    type RaftStream = Answers<proto::RaftFrame>;

    async fn stanzas(
        &self,
        request: Request<Streaming<proto::PeerFrame>>,
    ) -> Result<Response<Self::StanzasStream>, Status> {
        self.begin_stanzas(request).await.inspect_err(|status| self.options.refused.status(status))
    }

    async fn raft(
        &self,
        request: Request<Streaming<proto::RaftFrame>>,
    ) -> Result<Response<Self::RaftStream>, Status> {
        self.begin_raft(request).await.inspect_err(|status| self.options.refused.status(status))
    }
}

/// Raft's questions are answered where they are read.
struct Nobody;

impl super::Hears<()> for Nobody {
    fn hear(&mut self, _items: Vec<()>) {}
    fn ended(&mut self, _end: &End) {}
}

async fn answer_raft(
    stream: &mut Streaming<proto::RaftFrame>,
    held: &Held<RouterId, ()>,
    outlet: &Outlet<RaftItem>,
    peers: &Arc<dyn Peers>,
    (from, name): (RouterId, &Arc<str>),
) -> End {
    let mut working = FuturesUnordered::new();
    let ended = outlet.ended();
    tokio::pin!(ended);
    loop {
        let frame = tokio::select! {
            biased;
            end = &mut ended => return end,
            Some((id, result)) = working.next() => {
                outlet.push(RaftItem::Answer { id, result });
                continue;
            }
            frame = stream.message() => frame,
        };
        let frame = match frame {
            Ok(Some(frame)) if frame.hello.is_some() => return End::Malformed("second hello".to_owned()),
            Ok(Some(frame)) => frame,
            Ok(None) => return End::Lost("ended by the peer".to_owned()),
            Err(status) => return end_of(&status),
        };
        if !held.is_current() {
            return End::Superseded;
        }
        if let Some(proto::Pulse { number, .. }) = frame.pulse {
            outlet.push(RaftItem::Pulse { number, notes: peers.notes() });
        }
        for proto::RaftCall { id, group, body } in frame.calls {
            let Ok(group) = u16::try_from(group) else { return End::Malformed("group".to_owned()) };
            if working.len() >= AT_ONCE {
                outlet.push(RaftItem::Answer { id, result: Err("busy".to_owned()) });
                continue;
            }
            let answer = peers.raft(from, name, group, body);
            working.push(async move { (id, answer.await) });
        }
    }
}
