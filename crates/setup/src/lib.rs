//! What every role is put together from: the configuration as each part wants it, the store, the modules, the probes.
//!
//! Nothing here serves anybody; `starling-all-in-one` and `starling-cluster` do, with what they find here. It is the one
//! place that knows which store it is, and the only one that names a back end.

#![forbid(unsafe_code)]

pub mod accounts;
mod back_end;
mod core;
mod cql;
mod instance;
mod obstacle;
mod passwords;
pub mod probes;
pub mod settings;
mod tasks;

pub use self::core::Core;
pub use back_end::BackEnd;
pub use cql::{obstacle as cql_obstacle, options as cql_options};
pub use instance::{Instance, process_name};
pub use obstacle::{Obstacle, store_obstacle};
pub use passwords::Derivations;
pub use tasks::end;
