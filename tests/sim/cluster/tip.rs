//! An edge of a cluster: sockets, and what it keeps of sessions ([`Seat`]), with a link to each router.

use super::Cluster;
use super::planted::Break;
use crate::edge::Edge;
use crate::line::{FromClient, Line, Pipe, ToClient};
use crate::stage::{Host, Life, Stage};
use futures::FutureExt;
use futures::channel::mpsc;
use futures::future::BoxFuture;
use parking_lot::Mutex;
use starling_store::{AccountRow, SharedStore};
use starling_store_scylla::model::Process;
use starling_wire::frame::{EdgeItem, RouterItem};
use starling_wire::uplink::{LinkId, Output, Patience, Seat};
use starling_wire::{Down, EdgeId, EdgeLink, LinkError, Registration, RouterLink, ToHome};
use starling_xmpp::BareJid;
use starling_xmpp::sasl::Credentials;
use std::collections::BTreeMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

/// How often seats are told that time passes, and after how many times without a home no socket is left.
const TICK: Duration = Duration::from_millis(100);
const GONE_BY: u32 = 65;

type Socket = (Pipe<FromClient>, Pipe<ToClient>, mpsc::UnboundedSender<ToClient>);

/// A process.
pub(super) struct Tip {
    pub(super) id: EdgeId,
    pub(super) process: Process,
    pub(super) asleep: Arc<AtomicBool>,
    cluster: Arc<Cluster>,
    edge: Edge,
    told: Arc<dyn EdgeLink>,
    inner: Mutex<Inner>,
    lines: Mutex<Vec<Socket>>,
}

struct Inner {
    seats: Vec<Seat>,
    /// Of each seat, as its sockets were last told.
    reading: Vec<bool>,
    /// How many times it was looked since each had a home.
    homeless: Vec<u32>,
    links: BTreeMap<LinkId, Pipe<EdgeItem>>,
}

struct Uplink(Arc<Tip>);

impl RouterLink for Uplink {
    fn send(&self, batch: &mut Vec<ToHome>) {
        for message in batch.drain(..) {
            let shard = self.0.cluster.shards.of(&message.account);
            self.0.with(|inner, now, out| inner.seats[usize::from(shard.0)].up(message, now, out));
        }
    }

    fn account(&self, _: &BareJid) -> BoxFuture<'static, Result<Option<AccountRow>, LinkError>> {
        async { Err(LinkError::NoHome) }.boxed()
    }

    fn register(&self, _: &BareJid, _: Credentials) -> BoxFuture<'static, Result<Registration, LinkError>> {
        async { Err(LinkError::NoHome) }.boxed()
    }

    fn ready(&self) -> bool {
        true
    }
}

impl Tip {
    pub(super) fn start(cluster: &Arc<Cluster>, id: EdgeId) -> Arc<Self> {
        let stage = &cluster.stage;
        let process = stage.world.process();
        let (edge, inside) = Edge::new(stage, &process, id, Some(cluster.shards));
        let now = stage.world.now();
        let seats = cluster.shards.all().map(|shard| Seat::new(id, shard, Patience::default(), now));
        let tip = Arc::new(Self {
            id,
            process: process.clone(),
            asleep: Arc::default(),
            cluster: cluster.clone(),
            told: edge.told(),
            edge,
            inner: Mutex::new(Inner {
                seats: seats.collect(),
                reading: cluster.shards.all().map(|_| false).collect(),
                homeless: cluster.shards.all().map(|_| 0).collect(),
                links: BTreeMap::new(),
            }),
            lines: Mutex::default(),
        });
        stage.tell("cluster", format!("edge {} begins", id.0));
        process.spawn(inside.serve(Arc::new(Uplink(tip.clone()))).boxed());
        let ticking = tip.clone();
        process.spawn(
            async move {
                loop {
                    ticking.process.sleep(TICK).await;
                    ticking.look_for_homeless();
                    ticking.with(|inner, now, out| {
                        inner.seats.iter_mut().for_each(|seat| seat.tick(now, out));
                    });
                }
            }
            .boxed(),
        );
        tip
    }

    /// It is neither dead nor asleep.
    pub(super) fn runs(&self) -> bool {
        self.process.is_alive() && !self.asleep.load(Ordering::SeqCst)
    }

    /// Promise 8: clients whose home is away for long are sent elsewhere.
    fn look_for_homeless(&self) {
        let mut inner = self.inner.lock();
        let Inner { seats, homeless, .. } = &mut *inner;
        for (seat, looks) in seats.iter().zip(homeless) {
            *looks += 1;
            let (shards, stage) = (self.cluster.shards, &self.cluster.stage);
            if *looks == GONE_BY && stage.has_socket(self.id, |account| shards.of(account) == seat.shard()) {
                let text = format!("edge {} keeps sockets without a home for long", self.id.0);
                stage.wrong("liveness", None, text);
            }
        }
    }

    /// Does something with its seats, and what comes of it.
    fn with(&self, act: impl FnOnce(&mut Inner, Duration, &mut Vec<Output>)) {
        let now = self.cluster.stage.world.now();
        let mut inner = self.inner.lock();
        let mut out = Vec::new();
        act(&mut inner, now, &mut out);
        for output in out {
            match output {
                Output::Send(link, item) => {
                    if let Some(up) = inner.links.get(&link) {
                        up.send(item);
                    }
                }
                Output::Deliver(message) => self.told.deliver(&mut vec![message]),
                Output::Reading(_) => {}
                Output::Cut(conn) => self.edge.close(conn),
                Output::Break(link) => {
                    self.cluster.stage.wrong("sessions", None, format!("edge {} breaks {link:?}", self.id.0));
                }
            }
        }
        let Inner { seats, reading, homeless, .. } = &mut *inner;
        for ((seat, reading), looks) in seats.iter().zip(reading).zip(homeless) {
            if seat.reading() {
                *looks = 0;
            }
            if seat.reading() != *reading {
                *reading = seat.reading();
                self.edge.reading(seat.shard(), *reading);
            }
        }
    }

    /// How many sessions it keeps.
    pub(super) fn keeps(&self) -> usize {
        self.inner.lock().seats.iter().map(|seat| seat.load().sessions).sum()
    }

    /// It has a link from now on.
    pub(super) fn linked(&self, link: LinkId, up: Pipe<EdgeItem>) {
        self.inner.lock().links.insert(link, up);
    }

    pub(super) fn unlinked(&self, link: LinkId) {
        self.with(|inner, now, out| {
            inner.links.remove(&link);
            inner.seats.iter_mut().for_each(|seat| seat.unlinked(link, now, out));
        });
    }

    /// Something came of a router.
    pub(super) fn hear(&self, link: LinkId, item: RouterItem) {
        let broken = self.cluster.stage.breaks();
        self.cluster.stage.whisper(|| format!("edge {} < router {} {item:?}", self.id.0, link.router.0 - 1));
        self.with(|inner, now, out| match item {
            RouterItem::Home(home) => {
                inner.seats[usize::from(home.shard.0)].announced(link, home.epoch, now, out);
            }
            RouterItem::NotHome(not) => {
                inner.seats[usize::from(not.shard.0)].not_home(link, not.epoch, not.hint, now, out);
            }
            RouterItem::Down(home, message) => {
                let seat = &mut inner.seats[usize::from(home.shard.0)];
                if broken == Some(Break::ForgetReleased) && matches!(message.down, Down::Released) {
                    return;
                }
                let (link, epoch) = match (broken, seat.home()) {
                    (Some(Break::AcceptOldEpoch), Some(home)) => home,
                    _ => (link, home.epoch),
                };
                seat.down(link, epoch, message, out);
            }
            _ => {}
        });
    }

    /// Dies with all its sockets.
    pub(super) fn kill(&self) {
        self.process.kill();
        self.cluster.stage.no_sockets(self.id);
        self.disconnect();
    }

    /// All that it has of links and sockets is gone.
    pub(super) fn disconnect(&self) {
        self.inner.lock().links.clear();
        let mut dice = self.cluster.stage.dice();
        for (up, down, end) in std::mem::take(&mut *self.lines.lock()) {
            up.cut();
            down.cut();
            let after = Duration::from_micros(dice.within(0..100_000));
            self.cluster.stage.world.after(after, move || drop(end.unbounded_send(ToClient::Lost)));
        }
    }
}

impl Host for Tip {
    fn life(&self) -> u64 {
        self.id.0
    }

    fn keeps(&self, (life, since): Life, account: &BareJid) -> bool {
        self.cluster.keeps(EdgeId(life), since, account)
    }

    fn line(&self, stage: &Stage, account: &BareJid) -> Line {
        let (line, end) = self.edge.connect(stage, account);
        let mut lines = self.lines.lock();
        lines.retain(|(_, _, end)| !end.is_closed());
        lines.push((line.up.clone(), line.down.clone(), end));
        line
    }

    fn store(&self) -> Option<SharedStore> {
        Some(self.cluster.store())
    }
}
