//! Who may connect: bounds on open connections, by address and in all (XEP-0205).

use crate::source::Source;
use parking_lot::Mutex;
use starling_node::config::ConnectionLimits;
use starling_node::telemetry::metrics::Limit;
use starling_node::{SharedClock, TokenBucket};
use std::collections::HashMap;
use std::sync::Arc;
use std::time::Duration;

/// Counts connections.
#[derive(Debug)]
pub(crate) struct Gate {
    clock: SharedClock,
    state: Mutex<State>,
}

#[derive(Debug)]
struct State {
    limits: Bounds,
    open: usize,
    unauthenticated: usize,
    sources: HashMap<Source, Entry>,
    sweep_at: usize,
}

#[derive(Debug)]
struct Entry {
    open: usize,
    unauthenticated: usize,
    rate: TokenBucket,
}

/// The limits with "auto" worked out.
#[derive(Debug)]
struct Bounds {
    conf: ConnectionLimits,
    unauthenticated: usize,
    total: usize,
}

/// Why a connection is not taken.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Refusal {
    Rate,
    PerAddress,
    UnauthenticatedPerAddress,
    Unauthenticated,
    Total,
}

impl Refusal {
    /// The limit it stands for.
    pub(crate) fn label(self) -> Limit {
        match self {
            Self::Rate => Limit::ConnRate,
            Self::PerAddress => Limit::ConnPerIp,
            Self::UnauthenticatedPerAddress => Limit::UnauthPerIp,
            Self::Unauthenticated => Limit::UnauthTotal,
            Self::Total => Limit::ConnTotal,
        }
    }
}

/// A connection's place; given back when dropped.
#[derive(Debug)]
pub(crate) struct Admission {
    gate: Arc<Gate>,
    source: Source,
    authenticated: bool,
}

impl Gate {
    /// `descriptors`: how many files the process may have open, from which "auto" limits follow.
    pub(crate) fn new(limits: &ConnectionLimits, descriptors: usize, clock: SharedClock) -> Arc<Self> {
        let state = State {
            limits: Bounds::new(limits, descriptors),
            open: 0,
            unauthenticated: 0,
            sources: HashMap::new(),
            sweep_at: SWEEP,
        };
        Arc::new(Self { clock, state: Mutex::new(state) })
    }

    /// New limits; connections that are there stay.
    pub(crate) fn configure(&self, limits: &ConnectionLimits, descriptors: usize) {
        self.state.lock().limits = Bounds::new(limits, descriptors);
    }

    /// Takes a new connection, or says why not.
    pub(crate) fn admit(self: &Arc<Self>, source: Source) -> Result<Admission, Refusal> {
        let now = self.clock.monotonic();
        let mut guard = self.state.lock();
        let state = &mut *guard;
        state.sweep(now);
        let conf = &state.limits.conf;
        let entry = state.sources.entry(source).or_insert_with(|| Entry {
            open: 0,
            unauthenticated: 0,
            rate: TokenBucket::new(conf.rate_per_ip, conf.rate_per_ip.burst(), now),
        });
        if !entry.rate.try_take(1, now) {
            return Err(Refusal::Rate);
        }
        if entry.open >= conf.per_ip {
            return Err(Refusal::PerAddress);
        }
        if entry.unauthenticated >= conf.unauth_per_ip {
            return Err(Refusal::UnauthenticatedPerAddress);
        }
        if state.unauthenticated >= state.limits.unauthenticated {
            return Err(Refusal::Unauthenticated);
        }
        if state.open >= state.limits.total {
            return Err(Refusal::Total);
        }
        entry.open += 1;
        entry.unauthenticated += 1;
        state.open += 1;
        state.unauthenticated += 1;
        Ok(Admission { gate: Arc::clone(self), source, authenticated: false })
    }
}

impl Admission {
    /// Counts as a known user's connection from now on.
    pub(crate) fn authenticated(&mut self) {
        if !std::mem::replace(&mut self.authenticated, true) {
            self.gate.state.lock().leave_unauthenticated(self.source);
        }
    }

    pub(crate) fn source(&self) -> Source {
        self.source
    }
}

impl Drop for Admission {
    fn drop(&mut self) {
        let mut state = self.gate.state.lock();
        if !self.authenticated {
            state.leave_unauthenticated(self.source);
        }
        state.open -= 1;
        if let Some(entry) = state.sources.get_mut(&self.source) {
            entry.open -= 1;
        }
    }
}

impl State {
    fn leave_unauthenticated(&mut self, source: Source) {
        self.unauthenticated -= 1;
        if let Some(entry) = self.sources.get_mut(&source) {
            entry.unauthenticated -= 1;
        }
    }

    /// Forgets addresses that nothing is known of, once there are many.
    fn sweep(&mut self, now: Duration) {
        if self.sources.len() >= self.sweep_at {
            self.sources.retain(|_, entry| entry.open > 0 || !entry.rate.is_full(now));
            self.sweep_at = (self.sources.len() * 2).max(SWEEP);
        }
    }
}

impl Bounds {
    fn new(conf: &ConnectionLimits, descriptors: usize) -> Self {
        Self {
            unauthenticated: conf.unauth_total.unwrap_or(descriptors / 10).max(1),
            total: conf.total.unwrap_or(descriptors / 10 * 9).max(1),
            conf: conf.clone(),
        }
    }
}

const SWEEP: usize = 4_096;

#[cfg(test)]
mod tests {
    use super::*;
    use starling_node::{ManualClock, Rate};

    fn gate(change: impl FnOnce(&mut ConnectionLimits)) -> (Arc<Gate>, ManualClock) {
        let clock = ManualClock::at_micros(0);
        let mut limits = ConnectionLimits::default();
        change(&mut limits);
        (Gate::new(&limits, 1_000, Arc::new(clock.clone())), clock)
    }

    fn from(number: u32) -> Source {
        Source::V4(number)
    }

    #[test]
    fn holds_one_address_to_its_rate() {
        let (gate, clock) = gate(|limits| limits.rate_per_ip = Rate::per_second(2));
        assert!(gate.admit(from(1)).is_ok() && gate.admit(from(1)).is_ok());
        assert_eq!(gate.admit(from(1)).unwrap_err(), Refusal::Rate);
        assert!(gate.admit(from(2)).is_ok(), "others are not concerned");
        clock.advance(Duration::from_secs(1));
        assert!(gate.admit(from(1)).is_ok());
    }

    #[test]
    fn a_place_comes_back_when_its_connection_ends() {
        let (gate, _) = gate(|limits| (limits.per_ip, limits.unauth_per_ip) = (2, 1));
        let mut first = gate.admit(from(1)).unwrap();
        assert_eq!(gate.admit(from(1)).unwrap_err(), Refusal::UnauthenticatedPerAddress);
        first.authenticated();
        first.authenticated();
        let second = gate.admit(from(1)).unwrap();
        assert_eq!(gate.admit(from(1)).unwrap_err(), Refusal::PerAddress);
        drop(first);
        drop(second);
        assert_eq!(gate.state.lock().unauthenticated, 0);
        assert!(gate.admit(from(1)).is_ok());
    }

    #[test]
    fn all_addresses_together_are_bounded() {
        let (gate, _) = gate(|limits| (limits.unauth_total, limits.total) = (Some(1), Some(2)));
        let mut first = gate.admit(from(1)).unwrap();
        assert_eq!(gate.admit(from(2)).unwrap_err(), Refusal::Unauthenticated);
        first.authenticated();
        let mut second = gate.admit(from(2)).unwrap();
        second.authenticated();
        assert_eq!(gate.admit(from(3)).unwrap_err(), Refusal::Total);
    }

    #[test]
    fn forgets_addresses_that_are_quiet() {
        let (gate, clock) = gate(|_| {});
        for number in 0..SWEEP as u32 {
            drop(gate.admit(from(number)).unwrap());
        }
        clock.advance(Duration::from_secs(5));
        let _one = gate.admit(from(0)).unwrap();
        assert!(gate.state.lock().sources.len() < 10);
    }
}
