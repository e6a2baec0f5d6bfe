//! Readable dialogues between clients and a server, and the engine that plays them.
//!
//! The format is described in `tests/scripts/README.md`. A script names its clients, says what each sends and what
//! it must receive, in order; the same file runs against Starling and against the references.

mod parse;
mod pattern;
mod play;

pub use parse::{Action, ClientSpec, Script, Step};
pub use pattern::{Captures, Pattern};
pub use play::{play, prepare};
