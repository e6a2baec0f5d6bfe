//! What every process of Starling needs before it speaks a word of XMPP: typed [configuration](config), a
//! [clock], [random names](ids), [shutdown], [health], [limits],
//! [sockets to listen on](listen) and [telemetry].
//!
//! The key decision: time, randomness and settings are *values handed in*. Nothing below this crate asks the
//! operating system what time it is or reads an environment variable, so that everything above can be run by a
//! test with a clock of its own. One list of keys (`config/`) is the source of the parser, of
//! `starling config show` and of the reference in the documentation.
//!
//! This crate knows nothing of XMPP: no JIDs, no stanzas. A domain is a string here.

#![forbid(unsafe_code)]

pub mod clock;
pub mod config;
pub mod health;
pub mod ids;
pub mod limits;
pub mod listen;
pub mod shutdown;
pub mod telemetry;

pub use clock::{Clock, ManualClock, SharedClock, SystemClock};
pub use config::{Config, ConfigErrors, Sources};
pub use health::{Check, Health, Probe};
pub use limits::{Rate, TokenBucket};
pub use shutdown::Shutdown;
pub use telemetry::{Metrics, Span, StanzaKind, Telemetry, Trace, Tracer};
