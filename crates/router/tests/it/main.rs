//! Homes from outside: a router on a store that can be held, and an edge that only listens.

#![allow(clippy::unwrap_used, clippy::expect_used)] // helpers of tests, not only tests

mod again;
mod answered;
mod answers;
mod apart;
mod behind;
mod bench;
mod between;
mod chaos;
mod clocks;
mod copies;
mod counting;
mod doubted_lists;
mod doubts;
mod ended;
mod fanout;
mod instead;
mod late;
mod leases;
mod lists;
mod messages;
mod moves;
mod notes;
mod owed;
mod panics;
mod patience;
mod planned;
mod pressed;
mod races;
mod refusals;
mod resuming;
mod room;
mod sessions;
mod site;
mod stage;
mod strays;
mod swarm;
mod table;
mod toil;
mod unstored;
