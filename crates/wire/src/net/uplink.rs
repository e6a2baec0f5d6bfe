//! An edge's way to the homes of a cluster: seats, links and time put together.

use super::{End, Hears, LinkedRouter, Routers};
use crate::frame::{EdgeHello, EdgeItem, Leaving, RouterHello, RouterNews, Version};
use crate::uplink::{LinkId, Load, Output, Patience, Seat};
use crate::{
    ConnId, EdgeId, EdgeLink, LinkError, Registration, RouterLink, Shard, Shards, ToHome, TraceRule,
};
use futures::future::BoxFuture;
use parking_lot::{Mutex, RwLock};
use starling_node::SharedClock;
use starling_store::AccountRow;
use starling_xmpp::BareJid;
use starling_xmpp::sasl::Credentials;
use std::collections::HashMap;
use std::sync::{Arc, Weak};
use std::time::Duration;

/// What an edge does with its sockets when homes come and go. Must not wait, and must not call the uplink.
pub trait Sockets: Send + Sync + 'static {
    /// Whether sockets of this shard's sessions may be read.
    fn reading(&self, shard: Shard, on: bool);

    /// Close this one so that its session can be resumed elsewhere: no end of the stream, and then `Gone(Lost)`.
    fn cut(&self, conn: ConnId);

    /// The stanzas of these accounts are to be traced, or no longer.
    fn traces(&self, _rules: &[TraceRule]) {}
}

/// Which edge this is.
#[derive(Debug, Clone)]
pub struct Own {
    /// One life of its process.
    pub edge: EdgeId,
    /// For people; its certificate must allow it.
    pub name: String,
    /// Name of the cluster.
    pub cluster: String,
    /// How many shards that has.
    pub shards: Shards,
}

/// The edge's end of all its links. It is what sessions speak to, and what [`EdgeClient`](super::EdgeClient) feeds.
pub struct Uplink {
    me: Weak<Self>,
    own: Own,
    seats: Vec<Mutex<Seat>>,
    links: RwLock<HashMap<LinkId, Arc<LinkedRouter>>>,
    /// The answer of the router that was linked last.
    hello: RwLock<Option<RouterHello>>,
    table: Arc<dyn EdgeLink>,
    sockets: Arc<dyn Sockets>,
    clock: SharedClock,
}

impl std::fmt::Debug for Uplink {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Uplink").field("own", &self.own).finish_non_exhaustive()
    }
}

/// How often seats look at the time.
const TICK: Duration = Duration::from_millis(100);
/// How long a question waits for a home: as long as one may be away when its router is lost, or its shard is moved.
const HOMELESS: Duration = Duration::from_secs(2);
/// How often it looks for one.
const LOOK: Duration = Duration::from_millis(20);

impl Uplink {
    /// Nobody is linked yet. `table` takes what homes say. Must be called within a tokio runtime.
    pub fn start(
        own: Own,
        patience: Patience,
        table: Arc<dyn EdgeLink>,
        sockets: Arc<dyn Sockets>,
        clock: SharedClock,
    ) -> Arc<Self> {
        let now = clock.monotonic();
        let seat = |shard| Mutex::new(Seat::new(own.edge, shard, patience, now));
        let seats = own.shards.all().map(seat).collect();
        let (links, hello) = (RwLock::default(), RwLock::default());
        let whole =
            |me: &Weak<Self>| Self { me: me.clone(), own, seats, links, hello, table, sockets, clock };
        let uplink = Arc::new_cyclic(whole);
        let ticking = Arc::downgrade(&uplink);
        tokio::spawn(tick(ticking));
        uplink
    }

    /// What routers say that an edge cannot know by itself; `None` until the first is linked.
    pub fn router_hello(&self) -> Option<RouterHello> {
        self.hello.read().clone()
    }

    /// The routers that are linked.
    pub fn routers(&self) -> Vec<Arc<LinkedRouter>> {
        self.links.read().values().cloned().collect()
    }

    /// Whether so much waits for the shard's home that the sockets of its accounts should not be read.
    pub fn is_behind(&self, shard: Shard) -> bool {
        let home = self.of(shard).and_then(|seat| seat.lock().home());
        let link = home.and_then(|(link, _)| self.links.read().get(&link).cloned());
        link.is_some_and(|link| link.outlet.is_pressed())
    }

    /// How many shards have a home.
    pub fn homes(&self) -> usize {
        self.seats.iter().filter(|seat| seat.lock().reading()).count()
    }

    /// Tells all routers how far this edge is with leaving.
    pub fn leaves(&self, how_far: Leaving) {
        for linked in self.links.read().values() {
            linked.outlet.push(EdgeItem::Leaving(how_far));
        }
    }

    /// How many shards have a home, and how much is kept for sessions; it counts, so for metrics only.
    pub fn load(&self) -> (usize, Load) {
        let mut homes = 0;
        let mut sum = Load::default();
        for seat in &self.seats {
            let seat = seat.lock();
            homes += usize::from(seat.home().is_some());
            let load = seat.load();
            sum.sessions += load.sessions;
            sum.detached += load.detached;
            sum.ups += load.ups;
            sum.downs += load.downs;
        }
        (homes, sum)
    }

    fn seat(&self, account: &BareJid) -> &Mutex<Seat> {
        // There is a seat for every shard.
        &self.seats[usize::from(self.own.shards.of(account).0) % self.seats.len()]
    }

    fn of(&self, shard: Shard) -> Option<&Mutex<Seat>> {
        self.seats.get(usize::from(shard.0))
    }

    /// Carries out what a seat returned. The seat is still locked: what it says over a link keeps its order.
    fn act(&self, seat: &Seat, out: &mut Vec<Output>) {
        // It says again what it keeps. However much that is, it has to fit the link: a home that cannot be told all of it cannot be
        // told anything.
        let kept = out.iter().any(|output| matches!(output, Output::Send(_, EdgeItem::AttachBegin(_))));
        let mut told = Vec::new();
        for output in out.drain(..) {
            match output {
                Output::Deliver(message) => {
                    told.push(message);
                    continue;
                }
                // In the order in which they were put out.
                _ if !told.is_empty() => self.table.deliver(&mut told),
                _ => {}
            }
            match output {
                Output::Send(link, item) => self.say(link, item, kept),
                Output::Reading(on) => self.sockets.reading(seat.shard(), on),
                Output::Cut(conn) => self.sockets.cut(conn),
                Output::Break(link) => {
                    if let Some(linked) = self.links.read().get(&link) {
                        linked.outlet.close(End::Malformed("a number was left out".to_owned()));
                    }
                }
                Output::Deliver(_) => {}
            }
        }
        if !told.is_empty() {
            self.table.deliver(&mut told);
        }
    }

    fn say(&self, link: LinkId, item: EdgeItem, kept: bool) {
        if let Some(linked) = self.links.read().get(&link) {
            // If it is over, its end will be heard.
            let outlet = &linked.outlet;
            let _ = if kept { outlet.push_kept(item) } else { outlet.push(item) };
        }
    }

    fn news(&self, link: LinkId, news: RouterNews) {
        let now = self.clock.monotonic();
        let mut out = Vec::new();
        let shard = match &news {
            RouterNews::Home(home) | RouterNews::Downs(home, _) => home.shard,
            RouterNews::NotHome(not) => not.shard,
        };
        let Some(seat) = self.of(shard) else { return };
        let mut seat = seat.lock();
        match news {
            RouterNews::Home(home) => seat.announced(link, home.epoch, now, &mut out),
            RouterNews::NotHome(not) => seat.not_home(link, not.epoch, not.hint, now, &mut out),
            RouterNews::Downs(home, downs) => {
                for message in downs {
                    seat.down(link, home.epoch, message, &mut out);
                }
            }
        }
        self.act(&seat, &mut out);
    }

    fn tick(&self) {
        let now = self.clock.monotonic();
        let mut out = Vec::new();
        for seat in &self.seats {
            let mut seat = seat.lock();
            seat.tick(now, &mut out);
            self.act(&seat, &mut out);
        }
    }

    /// The link to the account's home.
    fn home(&self, account: &BareJid) -> Option<Arc<LinkedRouter>> {
        let (link, _) = self.seat(account).lock().home()?;
        self.links.read().get(&link).cloned()
    }

    /// The same; it is waited for until then.
    async fn home_until(
        me: &Weak<Self>,
        account: &BareJid,
        until: Duration,
    ) -> Result<Arc<LinkedRouter>, LinkError> {
        loop {
            {
                let uplink = me.upgrade().ok_or(LinkError::NoHome)?;
                if let Some(link) = uplink.home(account) {
                    return Ok(link);
                }
                if uplink.clock.monotonic() >= until {
                    return Err(LinkError::NoHome);
                }
            }
            tokio::time::sleep(LOOK).await;
        }
    }

    /// The account's row, from whoever is its home by then.
    async fn account_until(
        me: Weak<Self>,
        account: BareJid,
        until: Duration,
    ) -> Result<Option<AccountRow>, LinkError> {
        loop {
            let link = Self::home_until(&me, &account, until).await?;
            // What only reads may be asked again.
            match link.questions.account(&account).await {
                Err(LinkError::NoHome)
                    if me.upgrade().is_some_and(|uplink| uplink.clock.monotonic() < until) =>
                {
                    tokio::time::sleep(LOOK).await;
                }
                answer => return answer,
            }
        }
    }
}

async fn tick(uplink: Weak<Uplink>) {
    loop {
        tokio::time::sleep(TICK).await;
        let Some(uplink) = uplink.upgrade() else { return };
        uplink.tick();
    }
}

impl RouterLink for Uplink {
    fn send(&self, batch: &mut Vec<ToHome>) {
        let now = self.clock.monotonic();
        let mut out = Vec::new();
        for message in batch.drain(..) {
            let mut seat = self.seat(&message.account).lock();
            seat.up(message, now, &mut out);
            self.act(&seat, &mut out);
        }
    }

    fn account(&self, account: &BareJid) -> BoxFuture<'static, Result<Option<AccountRow>, LinkError>> {
        let until = self.clock.monotonic() + HOMELESS;
        Box::pin(Self::account_until(self.me.clone(), account.clone(), until))
    }

    fn register(
        &self,
        account: &BareJid,
        credentials: Credentials,
    ) -> BoxFuture<'static, Result<Registration, LinkError>> {
        let until = self.clock.monotonic() + HOMELESS;
        let (me, account) = (self.me.clone(), account.clone());
        Box::pin(async move {
            let link = Self::home_until(&me, &account, until).await?;
            link.questions.register(&account, &credentials).await
        })
    }

    /// Some shard has a home: without any this edge is of no use to anybody.
    fn ready(&self) -> bool {
        self.seats.iter().any(|seat| seat.lock().reading())
    }
}

impl Routers for Arc<Uplink> {
    fn hello(&self) -> EdgeHello {
        let Own { edge, name, cluster, shards } = &self.own;
        EdgeHello { version: Version::own(cluster, *shards), edge: *edge, name: name.clone() }
    }

    fn linked(&self, router: LinkedRouter) -> Box<dyn Hears<RouterNews>> {
        let link = router.link;
        let homes = router.hello.homes.clone();
        *self.hello.write() = Some(router.hello.clone());
        self.links.write().insert(link, Arc::new(router));
        for home in homes {
            self.news(link, RouterNews::Home(home));
        }
        Box::new(Ear { uplink: Self::downgrade(self), link })
    }

    fn traces(&self, rules: &[TraceRule]) {
        self.sockets.traces(rules);
    }
}

/// Listens to one router.
struct Ear {
    uplink: Weak<Uplink>,
    link: LinkId,
}

impl Hears<RouterNews> for Ear {
    fn hear(&mut self, items: Vec<RouterNews>) {
        let Some(uplink) = self.uplink.upgrade() else { return };
        for news in items {
            uplink.news(self.link, news);
        }
    }

    fn ended(&mut self, _end: &End) {
        let Some(uplink) = self.uplink.upgrade() else { return };
        uplink.links.write().remove(&self.link);
        let now = uplink.clock.monotonic();
        let mut out = Vec::new();
        for seat in &uplink.seats {
            let mut seat = seat.lock();
            seat.unlinked(self.link, now, &mut out);
            uplink.act(&seat, &mut out);
        }
    }
}
