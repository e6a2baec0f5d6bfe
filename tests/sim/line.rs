//! A connection of a client to an edge: ordered both ways, slow at times, and gone at any moment with what was in it.

use crate::stage::Stage;
use futures::channel::mpsc;
use parking_lot::Mutex;
use starling_store_scylla::model::{Dice, World};
use starling_wire::Token;
use starling_xmpp::Stanza;
use std::sync::Arc;
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
}

impl<T> Clone for Pipe<T> {
    fn clone(&self) -> Self {
        Self { world: self.world.clone(), state: self.state.clone() }
    }
}

impl<T: Send + 'static> Pipe<T> {
    pub(crate) fn new(stage: &Stage, to: impl FnMut(T) + Send + 'static) -> Self {
        let state = State {
            to: Some(Box::new(to)),
            dice: stage.world.dice(),
            slow: stage.plan.slow_lines,
            last: Duration::ZERO,
        };
        Self { world: stage.world.clone(), state: Arc::new(Mutex::new(state)) }
    }

    /// Sends something, which arrives after what was sent before, or never.
    pub(crate) fn send(&self, what: T) {
        let now = self.world.now();
        let wait = {
            let mut state = self.state.lock();
            if state.last == CUT {
                return;
            }
            let slow = state.slow;
            let most = if state.dice.permille(slow) { 400_000 } else { 3_000 };
            let arrives = now + Duration::from_micros(state.dice.within(20..most));
            state.last = state.last.max(arrives);
            state.last - now
        };
        let state = self.state.clone();
        self.world.after(wait, move || {
            // Taken out meanwhile: whoever gets it may cut the line.
            let Some(mut to) = state.lock().to.take() else { return };
            to(what);
            let mut state = state.lock();
            if state.last != CUT {
                state.to = Some(to);
            }
        });
    }

    /// What has not arrived by now never does.
    pub(crate) fn cut(&self) {
        let to = {
            let mut state = self.state.lock();
            state.last = CUT;
            state.to.take()
        };
        drop(to);
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
