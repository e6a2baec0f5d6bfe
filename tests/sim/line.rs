//! A connection of a client to an edge: ordered both ways, slow at times, and gone at any moment with what was in it.

use crate::stage::Stage;
use futures::channel::mpsc;
use parking_lot::Mutex;
use starling_store_scylla::model::{Dice, World};
use starling_wire::Token;
use starling_xmpp::Stanza;
use std::collections::VecDeque;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

/// What a client says.
#[derive(Debug)]
pub(crate) enum FromClient {
    Bind(&'static str),
    Resume(Token, u32),
    Enable,
    Stanza(Stanza),
    /// `<a/>`
    Acknowledge(u32),
    /// `<r/>`
    Ask,
    /// The end tag.
    End,
}

/// What a client hears.
#[derive(Debug)]
pub(crate) enum ToClient {
    Bound(Token),
    Refused(String),
    Enabled(bool),
    Resumed(u32),
    NotResumed,
    Stanza(Stanza),
    /// `<a/>`
    Counted(u32),
    /// `<r/>`
    Asked,
    /// A stream error, or nothing but the end.
    End(Option<String>),
    /// The connection is gone.
    Lost,
}

/// One direction.
pub(crate) struct Pipe<T> {
    world: World,
    state: Arc<Mutex<State<T>>>,
}

struct State<T> {
    to: Option<Box<dyn FnMut(T) + Send>>,
    dice: Dice,
    slow: u16,
    /// When the last one arrives: none overtakes another.
    last: Duration,
    /// Nothing more is sent.
    ended: bool,
    /// Whoever is at the other end reads nothing while this is set.
    asleep: Option<Arc<AtomicBool>>,
    /// What has arrived and was not read.
    unread: VecDeque<T>,
    /// It is looked again whether they read.
    looking: bool,
}

/// How soon it is looked again whether somebody reads.
const LOOK: Duration = Duration::from_millis(5);

impl<T> Clone for Pipe<T> {
    fn clone(&self) -> Self {
        Self { world: self.world.clone(), state: self.state.clone() }
    }
}

impl<T: Send + 'static> Pipe<T> {
    pub(crate) fn new(stage: &Stage, to: impl FnMut(T) + Send + 'static) -> Self {
        Self::with(stage, None, Box::new(to))
    }

    /// To a process that may sleep.
    pub(crate) fn to_process(
        stage: &Stage,
        asleep: &Arc<AtomicBool>,
        to: impl FnMut(T) + Send + 'static,
    ) -> Self {
        Self::with(stage, Some(asleep.clone()), Box::new(to))
    }

    fn with(stage: &Stage, asleep: Option<Arc<AtomicBool>>, to: Box<dyn FnMut(T) + Send>) -> Self {
        let state = State {
            to: Some(to),
            dice: stage.world.dice(),
            slow: stage.plan.slow_lines,
            last: Duration::ZERO,
            ended: false,
            asleep,
            unread: VecDeque::new(),
            looking: false,
        };
        Self { world: stage.world.clone(), state: Arc::new(Mutex::new(state)) }
    }

    /// Sends something, which arrives after what was sent before, or never.
    pub(crate) fn send(&self, what: T) {
        let now = self.world.now();
        let wait = {
            let mut state = self.state.lock();
            if state.last == CUT || state.ended {
                return;
            }
            let slow = state.slow;
            let most = if state.dice.permille(slow) { 400_000 } else { 3_000 };
            let arrives = now + Duration::from_micros(state.dice.within(20..most));
            state.last = state.last.max(arrives);
            state.last - now
        };
        let pipe = self.clone();
        self.world.after(wait, move || {
            pipe.state.lock().unread.push_back(what);
            pipe.read();
        });
    }

    /// Hands over what has arrived.
    fn read(&self) {
        loop {
            // Taken out meanwhile: whoever gets it may cut the line.
            let (mut to, what) = {
                let mut state = self.state.lock();
                if state.asleep.as_ref().is_some_and(|asleep| asleep.load(Ordering::SeqCst)) {
                    if !state.looking {
                        state.looking = true;
                        let pipe = self.clone();
                        self.world.after(LOOK, move || {
                            pipe.state.lock().looking = false;
                            pipe.read();
                        });
                    }
                    return;
                }
                let Some(to) = state.to.take() else { return };
                let Some(what) = state.unread.pop_front() else {
                    state.to = Some(to);
                    return;
                };
                (to, what)
            };
            to(what);
            let mut state = self.state.lock();
            if state.last != CUT {
                state.to = Some(to);
            }
        }
    }

    /// Nothing more is sent; what is on its way arrives within this time or never.
    pub(crate) fn end(&self, within: Duration) {
        self.state.lock().ended = true;
        let pipe = self.clone();
        self.world.after(within, move || pipe.cut());
    }

    /// What has not arrived by now never does.
    pub(crate) fn cut(&self) {
        let (to, unread) = {
            let mut state = self.state.lock();
            state.last = CUT;
            (state.to.take(), std::mem::take(&mut state.unread))
        };
        drop((to, unread));
    }
}

/// No moment of a run.
const CUT: Duration = Duration::MAX;

/// A client's end of it.
pub(crate) struct Line {
    pub(crate) up: Pipe<FromClient>,
    pub(crate) down: Pipe<ToClient>,
    pub(crate) heard: mpsc::UnboundedReceiver<ToClient>,
    /// Tells the edge that the connection is gone.
    pub(crate) lost: Box<dyn Fn() + Send>,
}

impl Line {
    /// The connection is gone; the edge notices after a while.
    pub(crate) fn cut(self, stage: &Stage, notices: Duration) {
        self.up.cut();
        self.down.cut();
        let lost = self.lost;
        stage.world.after(notices, lost);
    }
}
