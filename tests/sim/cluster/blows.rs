//! What befalls a cluster.

use super::links::KEEP_ALIVE;
use super::{Cluster, Fall};
use crate::plan::Strike;
use starling_store_scylla::model::{Dice, Faults};
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

impl Cluster {
    /// One blow after the other.
    pub(super) async fn storm(self: &Arc<Self>) {
        let stage = self.stage.clone();
        stage.crowd.sleep(Duration::from_secs(1)).await;
        if stage.plan.steady {
            stage.set_faults(stage.plan.faults);
        }
        for _ in 0..stage.plan.blows {
            self.pause(stage.plan.calm).await;
            if !stage.plan.steady {
                stage.set_faults(if stage.dice().permille(500) { stage.plan.faults } else { Faults::NONE });
            }
            let mut dice = stage.dice();
            self.blow(&mut dice).await;
            self.recover().await;
        }
        self.pause(stage.plan.calm).await;
    }

    /// Who is dead begins anew. Others are not waited for.
    async fn recover(self: &Arc<Self>) {
        for index in 0..self.routers().len() {
            if !self.routers()[index].is_alive() {
                self.begin_router(index);
            }
        }
        for index in 0..self.tips().len() {
            if !self.tips()[index].process.is_alive() {
                self.begin_tip(index);
            }
        }
    }

    async fn blow(self: &Arc<Self>, dice: &mut Dice) {
        let (router, edge) = (dice.place(3), dice.place(self.tips().len()));
        let second = (router + 1) % 3;
        let strikes = &self.stage.plan.strikes;
        match strikes[dice.place(strikes.len())] {
            Strike::Router => {
                self.kill_router(router);
                self.pause(Duration::from_secs(2)).await;
            }
            Strike::Edge => {
                self.kill_tip(edge);
                self.pause(Duration::from_millis(1_500)).await;
            }
            Strike::Move => {
                for _ in 0..1 + dice.place(5) {
                    self.hand_over(dice.place(self.groups.len())).await;
                    self.pause(Duration::from_millis(400)).await;
                }
            }
            Strike::Chase => self.chase(dice).await,
            Strike::Sleep => self.stop_router(router, dice).await,
            Strike::Doze => self.stop_tip(edge, dice).await,
            Strike::Alone => self.isolate(router, dice).await,
            Strike::Apart => {
                let routers: Vec<usize> = (0..3).filter(|_| dice.permille(600)).collect();
                self.divide(edge, &routers, dice).await;
            }
            Strike::Split => self.split(router, dice).await,
            Strike::Links => {
                for _ in 0..1 + dice.place(6) {
                    self.break_links(dice);
                    self.pause(Duration::from_millis(600)).await;
                }
            }
            Strike::Quorum => {
                // No quorum.
                self.kill_router(router);
                self.pause(Duration::from_millis(300)).await;
                self.kill_router(second);
                self.pause(Duration::from_secs(if dice.permille(200) { 9 } else { 2 })).await;
            }
            Strike::Both => {
                // A home and an edge at once: some sessions are gone.
                self.kill_tip(edge);
                self.pause(Duration::from_millis(300)).await;
                self.kill_router(router);
                self.pause(Duration::from_secs(1)).await;
            }
            Strike::Orphan => {
                self.kill_tip(edge);
                self.pause(Duration::from_secs(3)).await;
                let shard = dice.place(self.groups.len());
                if let Some(term) = self.groups[shard].leader() {
                    self.kill_router(term.router);
                }
                self.pause(Duration::from_millis(1_500)).await;
            }
            Strike::Leave => {
                // Whoever leads goes away in order.
                for shard in 0..self.groups.len() {
                    if self.groups[shard].leader().is_some_and(|term| term.router == router) {
                        self.hand_over(shard).await;
                    }
                }
                self.kill_router(router);
                self.pause(Duration::from_secs(1)).await;
            }
        }
    }

    /// What has just been told a client is true in the next reign as well, however soon that begins.
    async fn chase(self: &Arc<Self>, dice: &mut Dice) {
        drop(self.stage.resumed());
        for _ in 0..1 + dice.place(5) {
            let mut patience = 2_000;
            let account = loop {
                patience -= 1;
                match self.stage.resumed() {
                    Some(account) => break account,
                    None if patience == 0 => return,
                    None => self.stage.crowd.sleep(Duration::from_millis(1)).await,
                }
            };
            self.pause(Duration::from_millis([3, 300][dice.place(2)])).await;
            let shard = usize::from(self.shards.of(&account).0);
            let leader = self.groups[shard].leader().map(|term| term.router);
            match leader.filter(|_| !self.stage.plan.gentle && dice.permille(300)) {
                Some(router) => {
                    self.kill_router(router);
                    self.pause(Duration::from_secs(2)).await;
                    return;
                }
                None => self.hand_over(shard).await,
            }
        }
    }

    fn kill_router(self: &Arc<Self>, index: usize) {
        let router = self.routers()[index].clone();
        if !router.is_alive() {
            return;
        }
        self.stage.tell("cluster", format!("router {index} is killed"));
        router.kill();
        self.sever_router(index, Fall::Soon);
    }

    fn kill_tip(self: &Arc<Self>, index: usize) {
        let tip = self.tips()[index].clone();
        if !tip.process.is_alive() {
            return;
        }
        self.stage.tell("cluster", format!("edge {} is killed", tip.id.0));
        tip.kill();
        self.sever_tip(tip.id, Fall::Soon);
    }

    async fn stop_router(self: &Arc<Self>, index: usize, dice: &mut Dice) {
        let router = self.routers()[index].clone();
        self.stage.tell("cluster", format!("router {index} is stopped"));
        router.asleep.store(true, Ordering::SeqCst);
        router.process.stop();
        let long = nap(dice);
        self.stage.crowd.sleep(long.min(KEEP_ALIVE)).await;
        if long > KEEP_ALIVE {
            self.sever_router(index, Fall::Soon);
            self.stage.crowd.sleep(long - KEEP_ALIVE).await;
        }
        self.stage.tell("cluster", format!("router {index} goes on"));
        router.process.go_on();
        router.asleep.store(false, Ordering::SeqCst);
    }

    async fn stop_tip(self: &Arc<Self>, index: usize, dice: &mut Dice) {
        let tip = self.tips()[index].clone();
        self.stage.tell("cluster", format!("edge {} is stopped", tip.id.0));
        tip.asleep.store(true, Ordering::SeqCst);
        tip.process.stop();
        let long = nap(dice);
        self.stage.crowd.sleep(long.min(KEEP_ALIVE)).await;
        if long > KEEP_ALIVE {
            self.sever_tip(tip.id, Fall::Soon);
            self.stage.crowd.sleep(long - KEEP_ALIVE).await;
        }
        self.stage.tell("cluster", format!("edge {} goes on", tip.id.0));
        tip.process.go_on();
        tip.asleep.store(false, Ordering::SeqCst);
    }

    /// No other router hears this one; edges do.
    async fn isolate(self: &Arc<Self>, router: usize, dice: &mut Dice) {
        self.stage.tell("cluster", format!("router {router} is alone"));
        self.state.lock().alone.insert(router);
        for other in (0..3).filter(|other| *other != router) {
            self.part(router, other, Fall::Silent);
            self.part(other, router, Fall::Silent);
        }
        self.stage.crowd.sleep(nap(dice)).await;
        self.stage.tell("cluster", format!("router {router} is heard again"));
        self.state.lock().alone.remove(&router);
    }

    /// Nothing goes between an edge and some routers.
    async fn divide(self: &Arc<Self>, edge: usize, routers: &[usize], dice: &mut Dice) {
        let id = self.tips()[edge].id;
        self.stage.tell("cluster", format!("edge {} and routers {routers:?} are apart", id.0));
        self.state.lock().apart.extend(routers.iter().map(|router| (edge, *router)));
        for router in routers {
            self.unlink(id, *router, Fall::Silent);
        }
        self.stage.crowd.sleep(nap(dice)).await;
        self.stage.tell("cluster", format!("edge {} and routers {routers:?} are together", id.0));
        self.state.lock().apart.retain(|(own, _)| *own != edge);
    }

    /// A router and some edges are on one side, all others on the other.
    async fn split(self: &Arc<Self>, router: usize, dice: &mut Dice) {
        let tips = self.tips();
        let near: Vec<usize> = (0..tips.len()).filter(|_| dice.permille(500)).collect();
        let whole = dice.permille(700);
        self.stage
            .tell("cluster", format!("router {router} and edges at {near:?} are on a side of their own"));
        let others: Vec<usize> = (0..3).filter(|other| *other != router).collect();
        self.state.lock().alone.insert(router);
        for other in &others {
            self.part(router, *other, Fall::Silent);
            self.part(*other, router, Fall::Silent);
        }
        for (place, tip) in tips.iter().enumerate() {
            let beyond = match near.contains(&place) {
                true => others.clone(),
                // Or there is a way to the other side that routers do not have.
                false if whole => vec![router],
                false => continue,
            };
            self.state.lock().apart.extend(beyond.iter().map(|router| (place, *router)));
            for router in beyond {
                self.unlink(tip.id, router, Fall::Silent);
            }
        }
        self.stage.crowd.sleep(nap(dice)).await;
        self.stage.tell("cluster", format!("router {router} is together with all"));
        let mut state = self.state.lock();
        state.alone.remove(&router);
        state.apart.clear();
    }

    /// Some links break and are made again.
    fn break_links(self: &Arc<Self>, dice: &mut Dice) {
        for tip in self.tips() {
            for router in 0..3 {
                if dice.permille(300) {
                    self.unlink(tip.id, router, Fall::Soon);
                }
            }
        }
        for from in 0..3 {
            for to in (0..3).filter(|to| *to != from) {
                if dice.permille(300) {
                    self.part(from, to, Fall::Soon);
                }
            }
        }
    }
}

/// How long something is away.
fn nap(dice: &mut Dice) -> Duration {
    let most = [300, 1_500, 4_000, 9_000][dice.place(4)];
    Duration::from_millis(dice.within(1..most))
}
