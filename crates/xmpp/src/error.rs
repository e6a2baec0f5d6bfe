//! Stanza errors (RFC 6120 section 8.3) and stream errors (section 4.9).

mod stanza_error;
mod stream_error;

pub use stanza_error::{ErrorType, StanzaCondition, StanzaError};
pub use stream_error::{StreamCondition, StreamError};
