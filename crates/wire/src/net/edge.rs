//! Links of an edge to all routers.

use super::dial::{Channel, Connection, Outcome, ROUTER, Task, connect, supervise};
use super::outlet::Frames;
use super::server::watch;
use super::slots::{Entry, Held, Slots};
use super::ways::{Life, Ways};
use super::{Addresses, Coming, End, Hears, Options, Outlet, end_of};
use crate::codec::{self, EdgePieces, MAX_MESSAGE};
use crate::frame::{EdgeHello, EdgeItem, RouterHello, RouterNews, TraceReport};
use crate::proto::uplink_client::UplinkClient;
use crate::tls::Tls;
use crate::uplink::LinkId;
use crate::{LinkError, Registration, RouterId, TraceRule, proto};
use futures::future::BoxFuture;
use hyper::Uri;
use starling_store::AccountRow;
use starling_xmpp::BareJid;
use starling_xmpp::sasl::Credentials;
use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::Duration;

/// What an edge does with routers.
pub trait Routers: Send + Sync + 'static {
    /// How it begins a link.
    fn hello(&self) -> EdgeHello;

    /// A link stands. The one before it to the same router has ended.
    fn linked(&self, router: LinkedRouter) -> Box<dyn Hears<RouterNews>>;

    /// A router says which accounts are to be traced.
    fn traces(&self, _rules: &[TraceRule]) {}

    /// An attempt to link to whoever is there was in vain.
    fn failed(&self, _address: SocketAddr, _end: &End) {}

    /// Administration, asked at a router, wants this edge to leave.
    fn leave(&self) {}
}

/// A router that has answered.
#[derive(Debug)]
pub struct LinkedRouter {
    /// Names the link.
    pub link: LinkId,
    /// Its answer.
    pub hello: RouterHello,
    /// What is said to it.
    pub outlet: Outlet<EdgeItem>,
    /// What it is asked.
    pub questions: Questions,
}

/// Asks a router about accounts, while its link lives.
#[derive(Clone)]
pub struct Questions {
    client: UplinkClient<Channel>,
    deadline: Duration,
}

impl std::fmt::Debug for Questions {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Questions").finish_non_exhaustive()
    }
}

impl Questions {
    /// The account's row. `NoHome`: the router is not the account's home, or is gone.
    pub fn account(&self, account: &BareJid) -> BoxFuture<'static, Result<Option<AccountRow>, LinkError>> {
        let mut client = self.client.clone();
        let question = codec::account_question(account);
        let deadline = self.deadline;
        Box::pin(async move {
            let answer = in_time(deadline, client.account(question)).await?;
            codec::read_account(answer).map_err(|_| LinkError::Busy)
        })
    }

    /// Says how many traces were begun by rules. An older router does not know what to do with it.
    pub fn traced(&self, report: &TraceReport) -> BoxFuture<'static, Result<(), LinkError>> {
        let mut client = self.client.clone();
        let report = codec::report(report);
        let deadline = self.deadline;
        Box::pin(async move { in_time(deadline, client.traced(report)).await.map(drop) })
    }

    /// Creates an account.
    pub fn register(
        &self,
        account: &BareJid,
        credentials: &Credentials,
    ) -> BoxFuture<'static, Result<Registration, LinkError>> {
        let mut client = self.client.clone();
        let question = codec::register_question(account, credentials);
        let deadline = self.deadline;
        Box::pin(async move {
            let answer = in_time(deadline, client.register(question)).await?;
            codec::read_registration(&answer).map_err(|_| LinkError::Busy)
        })
    }
}

async fn in_time<T>(
    deadline: Duration,
    answer: impl Future<Output = Result<tonic::Response<T>, tonic::Status>>,
) -> Result<T, LinkError> {
    match tokio::time::timeout(deadline, answer).await {
        Ok(Ok(answer)) => Ok(answer.into_inner()),
        Ok(Err(status)) if status.code() == tonic::Code::ResourceExhausted => Err(LinkError::Busy),
        Ok(Err(_)) => Err(LinkError::NoHome),
        Err(_) => Err(LinkError::Busy),
    }
}

/// Keeps a link to every router while it lives.
#[derive(Debug)]
pub struct EdgeClient {
    _tasks: [Task; 2],
}

impl EdgeClient {
    /// Begins to link. Must be called within a tokio runtime.
    pub fn start(
        addresses: Arc<dyn Addresses>,
        tls: Arc<Tls>,
        options: Options,
        routers: Arc<dyn Routers>,
    ) -> Self {
        let watch = Task::spawn(watch(Arc::clone(&tls), options.clone()));
        let shared = Arc::new(Shared {
            addresses: Arc::clone(&addresses),
            tls,
            options: options.clone(),
            routers,
            slots: Slots::default(),
            number: AtomicU64::new(1),
            ways: Ways::default(),
        });
        let attempt = move |address, linked| attempt(Arc::clone(&shared), address, linked);
        Self { _tasks: [watch, Task::spawn(supervise(addresses, options, attempt))] }
    }
}

struct Shared {
    addresses: Arc<dyn Addresses>,
    tls: Arc<Tls>,
    options: Options,
    routers: Arc<dyn Routers>,
    slots: Slots<RouterId, RouterNews>,
    number: AtomicU64,
    ways: Ways,
}

async fn attempt(shared: Arc<Shared>, address: SocketAddr, linked: Arc<AtomicBool>) -> Outcome {
    shared.ways.rest(address).await;
    let connection = match connect(address, ROUTER, &shared.tls, &shared.options).await {
        Ok(connection) => connection,
        Err(end) => {
            shared.routers.failed(address, &end);
            return Outcome::Ended(end.to_string());
        }
    };
    let mut router = None;
    let end = serve(&shared, address, &connection, &linked, &mut router).await;
    if let Some((router, life)) = router {
        if shared.ways.ended(address, router, life) {
            return Outcome::Superseded;
        }
        shared.addresses.lost(router);
    }
    let end = connection.why(end).await;
    if router.is_none() {
        shared.routers.failed(address, &end);
    }
    Outcome::Ended(end.to_string())
}

async fn serve(
    shared: &Arc<Shared>,
    address: SocketAddr,
    connection: &Connection,
    linked: &AtomicBool,
    router: &mut Option<Life>,
) -> End {
    let client = UplinkClient::with_origin(connection.channel.clone(), Uri::from_static("https://router"))
        .max_decoding_message_size(MAX_MESSAGE)
        .max_encoding_message_size(MAX_MESSAGE);
    let own = shared.routers.hello();
    let outlet = Outlet::new(shared.options.outlet);
    let first = proto::EdgeFrame { hello: Some(codec::edge_hello(&own)), ..Default::default() };
    let frames = Frames::<EdgePieces>::new(first, &outlet);
    let opened = async {
        let mut stream = client.clone().connect(frames).await?.into_inner();
        let first = stream.message().await?;
        Ok::<_, tonic::Status>((stream, first))
    };
    let (mut stream, first) = match tokio::time::timeout(shared.options.hello, opened).await {
        Ok(Ok(opened)) => opened,
        Ok(Err(status)) => return end_of(&status),
        Err(_) => return End::Lost("no hello in time".to_owned()),
    };
    let hello = match first.and_then(|frame| frame.hello).map(codec::read_router_hello) {
        Some(Ok(hello)) => hello,
        Some(Err(bad)) => return End::Malformed(bad.to_string()),
        None => return End::Malformed("no hello".to_owned()),
    };
    if let Some(why) = own.version.refuses(&own.name, &hello.version, &hello.name) {
        return End::Refused(why);
    }
    if !connection.identity.allows(&hello.name) {
        return End::Refused(format!("{} calls itself {:?}", connection.identity, hello.name));
    }
    let id = hello.router;
    let life = hello.incarnation;
    *router = Some((id, life));
    shared.addresses.told(id, hello.routers.clone());
    let link = LinkId { router: id, number: shared.number.fetch_add(1, Ordering::Relaxed) };
    let held = shared.slots.take_over(id, || {
        shared.ways.linked(address, id, life);
        let questions = Questions { client, deadline: shared.options.question };
        let hears = shared.routers.linked(LinkedRouter { link, hello, outlet: outlet.clone(), questions });
        let shut = outlet.clone();
        Ok::<_, std::convert::Infallible>((Entry { hears, shut: Box::new(move |end| shut.close(end)) }, ()))
    });
    let Ok((held, ())) = held;
    linked.store(true, Ordering::Relaxed);
    tracing::info!(event = "linked", %address, router = %id, "linked to a router");
    let beside = |frame: &mut proto::RouterFrame| {
        if let Some(routers) = frame.routers.take() {
            shared.addresses.told(id, codec::read_routers(routers.addresses)?);
        }
        if frame.leave {
            shared.routers.leave();
        }
        Ok(())
    };
    let traced = |rules: &[TraceRule]| shared.routers.traces(rules);
    let end = read(&mut stream, &held, &outlet, own.edge, beside, traced).await;
    held.end(end.clone());
    tracing::info!(event = "link_over", %address, router = %id, %end, "a link to a router is over");
    end
}

async fn read(
    stream: &mut tonic::Streaming<proto::RouterFrame>,
    held: &Held<RouterId, RouterNews>,
    outlet: &Outlet<EdgeItem>,
    edge: crate::EdgeId,
    beside: impl Fn(&mut proto::RouterFrame) -> Result<(), codec::Malformed>,
    traced: impl Fn(&[TraceRule]),
) -> End {
    let mut coming = Coming::new(stream, outlet);
    loop {
        let mut frame = match coming.next().await {
            Ok(frame) => frame,
            Err(end) => return end,
        };
        if let Err(bad) = beside(&mut frame) {
            return End::Malformed(bad.to_string());
        }
        match frame.traces.take().map(codec::read_rules) {
            Some(Ok(rules)) => traced(&rules),
            Some(Err(bad)) => return End::Malformed(bad.to_string()),
            None => {}
        }
        let ask = frame.ask;
        if let Err(end) = held.hear(codec::read_router_frame(edge, frame)) {
            return end;
        }
        if ask > 0 {
            outlet.push(EdgeItem::Heard(ask));
        }
    }
}
