//! Several routers in one process, with a time of their own and links that are slow, lose and break.

mod bridges;
mod cluster;
mod disk;
mod failover;
mod founding;
mod joint;
mod leases;
mod membership;
mod moving;
mod narrow;
mod pieces;
mod reached;
mod readiness;
mod room;
mod stopped;
mod storage;
mod strangers;
mod stuck;
mod voters;
