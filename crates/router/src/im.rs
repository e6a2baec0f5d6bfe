//! The decisions of RFC 6121: who gets a message, who sees whose presence, who is subscribed to whom.
//!
//! All of it is synchronous: facts in through `Cx`, effects out. A local contact and a remote one are the same here: a
//! stanza is routed, and the home of the contact does its part. Presence to or from somebody whom the user blocks ends
//! here, in silence when it comes in (XEP-0191 §3.2).

pub mod presence;
pub mod recipients;
pub mod subscription;

use starling_hooks::{Account, Cx, Flow};
use starling_xmpp::{Element, Jid, StanzaCondition, StanzaError, ns};

pub use recipients::{Recipients, recipients, without_account};

/// Whether presence to or from there ends here. Nobody can block their own devices.
pub(crate) fn is_blocked(account: &Account, other: &Jid) -> bool {
    account.blocked.blocks(other) && !other.same_bare(&account.jid)
}

fn refuse(condition: StanzaCondition) -> Flow {
    Flow::Refuse(Box::new(StanzaError::new(condition)))
}

/// The answer to whoever sends to one they block (XEP-0191 §3.2).
fn refuse_blocked(cx: &mut Cx<'_>) -> Flow {
    cx.because = "blocked";
    let error = StanzaError::new(StanzaCondition::NotAcceptable)
        .with_type(starling_xmpp::ErrorType::Cancel)
        .with_app(Element::new(ns::BLOCKING_ERRORS, "blocked"));
    Flow::Refuse(Box::new(error))
}
