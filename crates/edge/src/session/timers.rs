//! The deadlines of one session, all in one small value.

use crate::wheel::{Tick, Wheel};
use starling_node::config::Limits;
use starling_wire::ConnId;
use std::time::Duration;

/// Since when each thing goes on; `Tick::NEVER` for what does not.
#[derive(Debug)]
pub(crate) struct Timers {
    /// The last byte of the client.
    heard: Tick,
    /// We have asked whether it is there.
    asked: Tick,
    /// A stanza has begun that is not complete.
    partial: Tick,
    /// A write makes no progress.
    blocked: Tick,
    /// When reading goes on after the client was too fast.
    throttled: Tick,
    /// When to tell the home what has been written.
    report: Tick,
    /// When the phase of closing ends.
    end: Tick,
    /// Entries of the wheel that are still to come.
    near: Tick,
    far: Tick,
}

/// What has become due.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Due {
    /// A write made no progress for too long.
    SendTimeout,
    /// A stanza takes too long to arrive.
    SlowStanza,
    /// The client did not answer our question.
    Silent,
    /// Nothing was heard for long: ask.
    Ask,
    /// The phase of closing is over.
    End,
}

impl Timers {
    pub(crate) fn new(now: Tick) -> Self {
        let never = Tick::NEVER;
        Self {
            heard: now,
            asked: never,
            partial: never,
            blocked: never,
            throttled: never,
            report: never,
            end: never,
            near: never,
            far: never,
        }
    }

    /// The client has sent something.
    pub(crate) fn heard(&mut self, now: Tick) {
        self.heard = now;
        self.asked = Tick::NEVER;
    }

    /// An incomplete stanza waits, or does not.
    pub(crate) fn partial(&mut self, waits: bool, now: Tick) {
        match waits {
            true if self.partial == Tick::NEVER => self.partial = now,
            true => {}
            false => self.partial = Tick::NEVER,
        }
    }

    /// Whether a write is stuck; `progress` begins the time anew.
    pub(crate) fn blocked(&mut self, stuck: bool, progress: bool, now: Tick) {
        match stuck {
            true if self.blocked == Tick::NEVER || progress => self.blocked = now,
            true => {}
            false => self.blocked = Tick::NEVER,
        }
    }

    /// No reading for so long.
    pub(crate) fn throttle(&mut self, wait: Duration, now: Tick) {
        self.throttled = now.after(wait);
    }

    /// Whether reading waits for its time.
    pub(crate) fn is_throttled(&mut self, now: Tick) -> bool {
        if self.throttled <= now {
            self.throttled = Tick::NEVER;
        }
        self.throttled != Tick::NEVER
    }

    /// A report to the home is to be made soon.
    pub(crate) fn report(&mut self, now: Tick) {
        if self.report == Tick::NEVER {
            self.report = now.after(REPORT);
        }
    }

    /// Whether the report is due; it is taken as made.
    pub(crate) fn take_report(&mut self, now: Tick) -> bool {
        let due = self.report <= now;
        if due {
            self.report = Tick::NEVER;
        }
        due
    }

    /// The report has been made with something else.
    pub(crate) fn reported(&mut self) {
        self.report = Tick::NEVER;
    }

    /// The phase that begins now ends after so long.
    pub(crate) fn end_after(&mut self, wait: Duration, now: Tick) {
        self.end = now.after(wait);
    }

    /// What has become due. `reading`: silence counts only while we listen.
    pub(crate) fn due(&mut self, reading: bool, limits: &Limits, now: Tick) -> Option<Due> {
        let stream = &limits.stream;
        if past(self.end, Duration::ZERO, now) {
            return Some(Due::End);
        }
        if past(self.blocked, stream.send_timeout, now) {
            return Some(Due::SendTimeout);
        }
        if !reading || self.end != Tick::NEVER {
            return None;
        }
        if past(self.partial, stream.stanza, now) {
            return Some(Due::SlowStanza);
        }
        if past(self.asked, limits.sm.ack_timeout, now) {
            return Some(Due::Silent);
        }
        if self.asked == Tick::NEVER && past(self.heard, stream.idle, now) {
            self.asked = now;
            return Some(Due::Ask);
        }
        None
    }

    /// Entries that have fired are no more.
    pub(crate) fn fired(&mut self, now: Tick) {
        if self.near <= now {
            self.near = Tick::NEVER;
        }
        if self.far <= now {
            self.far = Tick::NEVER;
        }
    }

    /// Sees to it that the wheel fires at the next deadline or before.
    pub(crate) fn arm(&mut self, wheel: &Wheel, conn: ConnId, limits: &Limits) {
        let stream = &limits.stream;
        let quiet = if self.asked == Tick::NEVER {
            plus(self.heard, stream.idle)
        } else {
            plus(self.asked, limits.sm.ack_timeout)
        };
        let next = [
            quiet,
            plus(self.partial, stream.stanza),
            plus(self.blocked, stream.send_timeout),
            self.throttled,
            self.report,
            self.end,
        ]
        .into_iter()
        .fold(Tick::NEVER, Tick::min);
        if next >= self.near.min(self.far) {
            return;
        }
        let slot = if self.far == Tick::NEVER { &mut self.far } else { &mut self.near };
        *slot = next;
        wheel.arm(conn, next);
    }
}

fn plus(since: Tick, wait: Duration) -> Tick {
    if since == Tick::NEVER { Tick::NEVER } else { since.after(wait) }
}

fn past(since: Tick, wait: Duration, now: Tick) -> bool {
    since != Tick::NEVER && (wait.is_zero() && since <= now || !wait.is_zero() && plus(since, wait) <= now)
}

/// What was written is told to the home after this long, if nothing else is told before.
const REPORT: Duration = Duration::from_millis(400);

#[cfg(test)]
mod tests {
    use super::*;

    fn seconds(count: u32) -> Tick {
        Tick(count * 10)
    }

    #[test]
    fn asks_after_silence_and_gives_up_without_an_answer() {
        let limits = Limits::default();
        let mut timers = Timers::new(Tick(0));
        assert_eq!(timers.due(true, &limits, seconds(899)), None);
        assert_eq!(
            timers.due(false, &limits, seconds(901)),
            None,
            "silence is not the client's while we do not read"
        );
        assert_eq!(timers.due(true, &limits, seconds(901)), Some(Due::Ask));
        assert_eq!(timers.due(true, &limits, seconds(950)), None);
        assert_eq!(timers.due(true, &limits, seconds(962)), Some(Due::Silent));
        timers.heard(seconds(963));
        assert_eq!(timers.due(true, &limits, seconds(963)), None);
    }

    #[test]
    fn a_slow_stanza_and_a_stuck_write_have_their_own_time() {
        let limits = Limits::default();
        let mut timers = Timers::new(Tick(0));
        timers.partial(true, seconds(1));
        timers.partial(true, seconds(40));
        timers.blocked(true, false, seconds(60));
        assert_eq!(timers.due(true, &limits, seconds(62)), Some(Due::SlowStanza));
        timers.partial(false, seconds(62));
        timers.blocked(true, true, seconds(62));
        assert_eq!(timers.due(true, &limits, seconds(76)), None);
        assert_eq!(timers.due(true, &limits, seconds(78)), Some(Due::SendTimeout));
    }

    #[test]
    fn a_busy_session_has_two_entries_at_most() {
        let limits = Limits::default();
        let wheel = Wheel::default();
        let mut timers = Timers::new(Tick(0));
        let mut fired = 0;
        for now in 0..20_000 {
            let now = Tick(now);
            let mut due = Vec::new();
            wheel.advance(now, &mut due);
            if !due.is_empty() {
                timers.fired(now);
                fired += due.len();
            }
            timers.heard(now);
            timers.take_report(now);
            timers.report(now);
            timers.arm(&wheel, ConnId::local(1), &limits);
        }
        // One report in six steps (0.4 s rounded up, and the step after), and the far entry now and then.
        assert!((3_000..4_100).contains(&fired), "{fired}");
    }

    #[test]
    fn is_small() {
        assert!(size_of::<Timers>() <= 36);
    }
}
