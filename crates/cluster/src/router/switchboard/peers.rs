//! Links of other routers.

use super::{Linked, Switchboard};
use crate::router::asking;
use crate::router::questions::{Answer, Question};
use bytes::Bytes;
use futures::future::BoxFuture;
use starling_setup::Obstacle;
use starling_wire::chart::{Chart, Way};
use starling_wire::frame::{Forward, Home, MAX_HOPS, NotHome, PeerHello, PeerItem};
use starling_wire::net::{End, Hears, Outlet, Peers};
use starling_wire::{RouterId, Shard};
use std::collections::HashSet;
use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::task::Poll;
use std::time::Duration;
use tokio::sync::Semaphore;
use tokio::time::{sleep, timeout};

/// Questions of other routers that are worked on at a time.
const AT_ONCE: usize = 256;
/// Calls of Raft that are answered at a time, among them those whose link is gone.
const CALLS: usize = 8_192;
/// How long a router that has asked is given to be linked in the other direction, by which answers go, and how often it is
/// looked.
const LINKED_WITHIN: Duration = Duration::from_secs(2);
const LOOK_AGAIN: Duration = Duration::from_millis(20);

/// What a router does with others.
pub(in crate::router) struct Neighbours {
    board: Arc<Switchboard>,
    working: Arc<Semaphore>,
    answering: Arc<Semaphore>,
}

impl Neighbours {
    pub(in crate::router) fn new(board: Arc<Switchboard>) -> Self {
        let (working, answering) = (Semaphore::new(AT_ONCE), Semaphore::new(CALLS));
        Self { board, working: Arc::new(working), answering: Arc::new(answering) }
    }

    /// Whether a router is a member of the cluster, as far as is known here.
    fn has_place(&self, router: RouterId) -> bool {
        self.board.locations.get().is_some_and(|locations| locations.members().contains_key(&router))
    }

    /// What it says of its homes at the beginning. What was lost with a link of ours before goes again now.
    fn greet(&self, peer: &PeerHello) {
        for home in &peer.homes {
            self.board.chart.announced(peer.router, *home);
        }
        self.board.moved(&self.board.chart.of(peer.router));
    }
}

impl Peers for Neighbours {
    fn hello(&self) -> PeerHello {
        self.board.peer_hello()
    }

    fn answer(&self, to: RouterId) -> PeerHello {
        PeerHello { heard: self.board.heard.count(to), ..self.hello() }
    }

    fn admits(&self, peer: &PeerHello) -> Result<(), String> {
        let board = &self.board;
        let taken = |by: &str| {
            Err(format!(
                "another router is called {:?} already, {by}: each needs a `cluster.node` of its own",
                peer.name
            ))
        };
        if peer.router == board.own.router {
            return Ok(());
        }
        if peer.name == board.own.name {
            return taken("the one that is asked");
        }
        for (router, name) in board.peers() {
            match (router == peer.router, name == peer.name) {
                // It is back from a restart, and the other one has come for its place meanwhile: that one is refused now.
                (false, true) if self.has_place(peer.router) && !self.has_place(router) => {}
                (false, true) => return taken(&format!("with the identity {router}")),
                (true, false) => {
                    return Err(format!(
                        "the router {name:?} is linked with the identity {router} of {:?}: each needs a `data_dir` of its own",
                        peer.name
                    ));
                }
                _ => {}
            }
        }
        Ok(())
    }

    fn doubled(&self) {
        self.board.fail(
            Obstacle::new("another process has the identity of this router")
                .because("both have the same data directory, or one is a copy of the other: neither can be believed")
                .advise("stop both, start the one that is to stay, and give the other an empty `data_dir`"),
        );
    }

    fn failed(&self, address: SocketAddr, end: &End) {
        self.board.refusals.note(address, end, self.board.clock.monotonic());
    }

    fn connected(&self, peer: PeerHello) -> Result<Box<dyn Hears<PeerItem>>, String> {
        let (board, working) = (Arc::clone(&self.board), Arc::clone(&self.working));
        let heard = board.heard.of(&peer);
        let mut ear = Ear { board, working, from: peer.router, heard, answered: HashSet::new() };
        // Its homes cannot answer yet.
        for home in &peer.homes {
            ear.announced(*home, false);
        }
        Ok(Box::new(ear))
    }

    fn linked(&self, peer: PeerHello, outlet: Outlet<PeerItem>) -> Box<dyn Hears<PeerItem>> {
        let (board, router, number) = (Arc::clone(&self.board), peer.router, self.board.number());
        let linked = Linked { number, name: peer.name.clone(), outlet: outlet.clone(), silent: false };
        // Before anybody else has it.
        board.figures.dropped("link", board.sent.again(&peer, &outlet, board.clock.monotonic()));
        board.peers.write().insert(router, linked);
        // The hello that it had may be older than this.
        for home in board.chart.homes() {
            outlet.push(PeerItem::Home(home));
        }
        self.greet(&peer);
        tokio::spawn(Arc::clone(&board).introduce_traces(router, outlet));
        Box::new(Farewell { board, router, number })
    }

    fn raft(
        &self,
        from: RouterId,
        name: &Arc<str>,
        group: u16,
        body: Bytes,
    ) -> BoxFuture<'static, Result<Bytes, String>> {
        let Some(locations) = self.board.locations.get().cloned() else {
            return Box::pin(async { Err("starting".to_owned()) });
        };
        let (name, permit) = (Arc::clone(name), Arc::clone(&self.answering).try_acquire_owned());
        Box::pin(async move {
            let permit = permit.map_err(|_| "busy".to_owned())?;
            let mut answer = Box::pin(async move {
                let answer = locations.answer(from, &name, group, body).await;
                drop(permit);
                answer
            });
            // A ping is answered at once: no other thread needs to wake for it.
            if let Poll::Ready(answer) = futures::poll!(&mut answer) {
                return Ok(answer);
            }
            // Who has begun to answer ends it, though nobody may wait any more.
            tokio::spawn(answer).await.map_err(|_| "stopping".to_owned())
        })
    }

    fn notes(&self) -> Bytes {
        self.board.own.address.clone()
    }
}

/// Waits for the end of a link of ours.
struct Farewell {
    board: Arc<Switchboard>,
    router: RouterId,
    number: u64,
}

impl Hears<PeerItem> for Farewell {
    fn hear(&mut self, _items: Vec<PeerItem>) {}

    fn ended(&mut self, _end: &End) {
        let mut peers = self.board.peers.write();
        if peers.get(&self.router).is_none_or(|peer| peer.number != self.number) {
            // What was asked since goes over a later link.
            return;
        }
        peers.remove(&self.router);
        drop(peers);
        self.board.sent.lost(self.router, self.board.clock.monotonic());
        // A question may have been lost with it.
        self.board.desk.lost(self.router);
    }
}

/// Listens to one router.
struct Ear {
    board: Arc<Switchboard>,
    working: Arc<Semaphore>,
    from: RouterId,
    /// How much has come that its sender does not keep.
    heard: Arc<AtomicU64>,
    /// Shards whose homes have spoken over this link.
    answered: HashSet<Shard>,
}

impl Hears<PeerItem> for Ear {
    fn hear(&mut self, items: Vec<PeerItem>) {
        for item in items {
            self.take(item);
        }
    }

    fn ended(&mut self, _end: &End) {
        // Its answers would have come over this link.
        self.board.desk.lost(self.from);
    }
}

/// Tells a router what was found out a moment ago; a reign that began here since once more, for that is to hold.
fn deny<D: Clone>(chart: &Chart<D>, outlet: &Outlet<PeerItem>, not: NotHome) {
    outlet.push(PeerItem::NotHome(not));
    if let Some(home) = chart.reign(not.shard) {
        outlet.push(PeerItem::Home(home));
    }
}

impl Ear {
    /// A home is there; `answers`: it has the link by which it does, too. What it said before may have been lost with an earlier
    /// one, so it is asked again, news or not.
    fn announced(&mut self, home: Home, answers: bool) {
        let news = self.board.chart.announced(self.from, home);
        if news || answers && self.answered.insert(home.shard) {
            self.board.moved(&[home.shard]);
        }
    }

    fn take(&mut self, item: PeerItem) {
        let board = &self.board;
        if Switchboard::waits(&item) {
            self.heard.fetch_add(1, Ordering::Relaxed);
        }
        match &item {
            PeerItem::Home(home) => self.announced(*home, true),
            PeerItem::NotHome(not) => {
                if board.chart.denied(self.from, *not) {
                    board.moved(&[not.shard]);
                }
            }
            PeerItem::Forward(forward) => {
                if self.is_proper(forward) {
                    match board.chart.take(forward.home) {
                        Ok((gate, _)) => board.enter(&gate, item),
                        Err(_) => self.misled(item),
                    }
                }
            }
            PeerItem::Receipt(receipt) => self.of_sender(receipt.pair.shard, item),
            PeerItem::Missing(pair, _) | PeerItem::Busy(pair, _) => self.of_sender(pair.shard, item),
            PeerItem::Question { id, body } => self.asked(*id, body.clone()),
            PeerItem::Answer { id, body } => match Answer::decode(body.clone()) {
                Ok(answer) => board.desk.answered(self.from, *id, answer),
                Err(error) => {
                    tracing::warn!(event = "answer_dropped", router = %self.from, %error, "an answer is dropped")
                }
            },
        }
    }

    /// A stanza for a shard whose home is not here, or not any more. Its sender's home learns that, and sends again what it keeps.
    fn misled(&self, item: PeerItem) {
        let PeerItem::Forward(forward) = &item else { return };
        let shard = forward.home.shard;
        self.deny(shard);
        if !Switchboard::waits(&item) {
            return;
        }
        let mut item = item;
        if let PeerItem::Forward(forward) = &mut item {
            forward.hops += 1;
            forward.passed = true;
        }
        // Whoever sent it here is not the home either, whatever it said before.
        let back = matches!(self.board.chart.way(shard), Way::There(_, router) if router == self.from);
        let kept = if back { self.board.wait(shard, item) } else { self.board.post(shard, item) };
        if !kept {
            tracing::warn!(
                event = "forward_dropped",
                shard = shard.0,
                "too much waits for shards without a home"
            );
        }
    }

    /// For the home of a sender, whichever reign that is: what it knows of the sequence it takes. One that takes nothing new for a
    /// while goes on with that afterwards.
    fn of_sender(&self, shard: Shard, item: PeerItem) {
        if self.board.chart.reign(shard).is_none() {
            self.deny(shard);
        }
        if let Some(gate) = self.board.chart.door(shard) {
            self.board.enter(&gate, item);
        }
    }

    fn is_proper(&self, forward: &Forward) -> bool {
        let own = self.board.own.shards.of(&forward.account) == forward.home.shard;
        if !own || forward.hops > MAX_HOPS {
            tracing::warn!(
                event = "forward_dropped",
                router = %self.from,
                hops = forward.hops,
                "a stanza is not for this shard or has passed too many homes"
            );
            return false;
        }
        true
    }

    fn deny(&self, shard: Shard) {
        self.board.figures.not_home.inc();
        if let Some(outlet) = self.board.peer(self.from) {
            deny(&self.board.chart, &outlet, self.board.chart.not_home(shard));
        }
    }

    fn asked(&self, id: u64, body: Bytes) {
        let (board, from) = (Arc::clone(&self.board), self.from);
        let now = |answer: Answer| {
            if let Some(outlet) = self.board.peer(from) {
                outlet.push(PeerItem::Answer { id, body: answer.encode() });
            }
        };
        let Ok(permit) = Arc::clone(&self.working).try_acquire_owned() else {
            return now(Answer::Unavailable("too many questions at a time".to_owned()));
        };
        let Ok(question) = Question::decode(body) else {
            return now(Answer::Unavailable("the question cannot be read".to_owned()));
        };
        tokio::spawn(async move {
            let leave = matches!(question, Question::Leave);
            let answer = asking::answer(&board, question).await;
            // A router that has just come may have asked before there is a link to it.
            let linked = async {
                loop {
                    match board.peer(from) {
                        Some(outlet) => return outlet,
                        None => sleep(LOOK_AGAIN).await,
                    }
                }
            };
            // Should the link be gone, whoever asked knows that.
            if let Ok(outlet) = timeout(LINKED_WITHIN, linked).await {
                let told = outlet.push(PeerItem::Answer { id, body: answer.encode() });
                if told && leave {
                    board.leaving.ask();
                }
            }
            drop(permit);
        });
    }
}

#[cfg(test)]
mod tests;
