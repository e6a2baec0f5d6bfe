//! Refusals that several modules give.

use starling_hooks::Answer;
use starling_xmpp::{IqType, Kind, Stanza, StanzaCondition, StanzaError};

/// An error of this condition.
pub(crate) fn refused(condition: StanzaCondition) -> Answer {
    Answer::error(StanzaError::new(condition))
}

/// What a request that only its opposite makes sense of gets (a `set` where there is nothing to set).
pub(crate) fn wrong_type() -> Answer {
    refused(StanzaCondition::NotAllowed)
}

/// What somebody else gets who asks for an account's own business: the answer of an account that does not exist
/// (RFC 6120 §13.11).
pub(crate) fn none_of_yours() -> Answer {
    refused(StanzaCondition::ServiceUnavailable)
}

/// Whether it is a `get`.
pub(crate) fn is_get(iq: &Stanza) -> bool {
    iq.kind == Kind::Iq(IqType::Get)
}
