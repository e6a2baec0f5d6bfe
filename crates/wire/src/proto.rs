//! The messages of `proto/`, as generated.
#![allow(
    missing_docs,
    unreachable_pub,
    unused_qualifications,
    dead_code,
    clippy::all,
    clippy::use_self,
    clippy::large_futures
)]

include!(concat!(env!("OUT_DIR"), "/starling.cluster.v1.rs"));
