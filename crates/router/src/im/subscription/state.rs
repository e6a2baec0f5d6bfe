//! The states of a subscription and what moves them (RFC 6121 appendix A), as a function of nothing else.
//!
//! The nine states of the RFC are four facts: each direction of the subscription and a request waiting in each. The
//! approval in advance (§3.4) is a fifth: it stays until it is taken back by `unsubscribed` or the contact is removed.

use starling_store::{RosterItem, Subscription};
use starling_xmpp::PresenceType;

/// How a user and a contact stand.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct State {
    /// Who sees whom.
    pub subscription: Subscription,
    /// The user has asked and waits.
    pub ask: bool,
    /// The contact has asked and waits.
    pub pending_in: bool,
    /// The user will say yes when the contact asks.
    pub approved: bool,
}

impl State {
    /// Of a roster item.
    pub fn of(item: &RosterItem) -> Self {
        Self {
            subscription: item.subscription,
            ask: item.ask,
            pending_in: item.pending_in.is_some(),
            approved: item.approved,
        }
    }

    fn is_to(self) -> bool {
        self.subscription.is_to()
    }

    fn is_from(self) -> bool {
        self.subscription.is_from()
    }

    fn with_to(self, to: bool) -> Self {
        Self { subscription: Subscription::of(to, self.is_from()), ..self }
    }

    fn with_from(self, from: bool) -> Self {
        Self { subscription: Subscription::of(self.is_to(), from), ..self }
    }
}

/// The four kinds of stanza that move it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Verb {
    /// May I see you?
    Subscribe,
    /// You may see me.
    Subscribed,
    /// I no longer want to see you.
    Unsubscribe,
    /// You may not, or no longer, see me.
    Unsubscribed,
}

impl Verb {
    /// Of a presence type, if it is one of the four.
    pub fn of(kind: PresenceType) -> Option<Self> {
        match kind {
            PresenceType::Subscribe => Some(Self::Subscribe),
            PresenceType::Subscribed => Some(Self::Subscribed),
            PresenceType::Unsubscribe => Some(Self::Unsubscribe),
            PresenceType::Unsubscribed => Some(Self::Unsubscribed),
            PresenceType::Available
            | PresenceType::Unavailable
            | PresenceType::Probe
            | PresenceType::Error => None,
        }
    }
}

/// What the contact sees of the user after a step.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Shown {
    /// Each available resource's presence.
    Current,
    /// Each available resource going away.
    Gone,
}

/// What a stanza does.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Step {
    /// The state after it.
    pub next: State,
    /// The stanza goes on: outbound to the contact, inbound to the user's sessions.
    pub passes: bool,
    /// The user's clients are told of the new state.
    pub pushes: bool,
    /// Inbound only: `subscribed` is answered in the user's name.
    pub approves: bool,
    /// What the contact is shown of the user's presence.
    pub shows: Option<Shown>,
}

impl Step {
    fn to(next: State) -> Self {
        Self { next, passes: false, pushes: false, approves: false, shows: None }
    }

    fn pass(self) -> Self {
        Self { passes: true, ..self }
    }

    fn push(self) -> Self {
        Self { pushes: true, ..self }
    }

    fn approve(self) -> Self {
        Self { approves: true, ..self }
    }

    fn show(self, shown: Shown) -> Self {
        Self { shows: Some(shown), ..self }
    }
}

/// The user sends one (RFC 6121 appendix A.2).
pub fn outbound(state: State, verb: Verb) -> Step {
    match verb {
        Verb::Subscribe if state.is_to() || state.ask => Step::to(state).pass(),
        Verb::Subscribe => Step::to(State { ask: true, ..state }).pass().push(),

        Verb::Unsubscribe if state.is_to() || state.ask => {
            Step::to(State { ask: false, ..state.with_to(false) }).pass().push()
        }
        Verb::Unsubscribe => Step::to(state).pass(),

        Verb::Subscribed if state.pending_in => {
            let next = State { pending_in: false, ..state.with_from(true) };
            Step::to(next).pass().push().show(Shown::Current)
        }
        Verb::Subscribed if state.is_from() || state.approved => Step::to(state),
        Verb::Subscribed => Step::to(State { approved: true, ..state }).push(),

        Verb::Unsubscribed if state.is_from() => {
            let next = State { approved: false, pending_in: false, ..state.with_from(false) };
            Step::to(next).pass().push().show(Shown::Gone)
        }
        Verb::Unsubscribed => {
            let step = Step::to(State { approved: false, pending_in: false, ..state });
            let step = if state.pending_in { step.pass() } else { step };
            if state.approved { step.push() } else { step }
        }
    }
}

/// One arrives from the contact (RFC 6121 appendix A.3).
pub fn inbound(state: State, verb: Verb) -> Step {
    match verb {
        // Said again with the present state, so that a contact whose server has lost it is whole again.
        Verb::Subscribe if state.is_from() => Step::to(state).approve().show(Shown::Current),
        Verb::Subscribe if state.approved => {
            let next = State { pending_in: false, ..state.with_from(true) };
            Step::to(next).approve().push().show(Shown::Current)
        }
        Verb::Subscribe if state.pending_in => Step::to(state),
        Verb::Subscribe => Step::to(State { pending_in: true, ..state }).pass(),

        Verb::Unsubscribe if state.is_from() => {
            let next = State { pending_in: false, ..state.with_from(false) };
            Step::to(next).pass().push().show(Shown::Gone)
        }
        Verb::Unsubscribe if state.pending_in => Step::to(State { pending_in: false, ..state }).pass(),
        Verb::Unsubscribe => Step::to(state),

        Verb::Subscribed if state.ask && !state.is_to() => {
            Step::to(State { ask: false, ..state.with_to(true) }).pass().push()
        }
        Verb::Subscribed => Step::to(state),

        Verb::Unsubscribed if state.is_to() || state.ask => {
            Step::to(State { ask: false, ..state.with_to(false) }).pass().push()
        }
        Verb::Unsubscribed => Step::to(state),
    }
}

#[cfg(test)]
mod tests;
