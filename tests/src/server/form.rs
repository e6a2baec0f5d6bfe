//! What a server under test is made of.

use std::net::SocketAddr;

use super::store::Store;

/// One process or many.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Form {
    /// `starling serve` on a store.
    Alone(Store),
    /// Routers and edges with a keyspace of their own, on the CQL server at these addresses.
    Cluster(Vec<SocketAddr>),
}

impl Form {
    /// A cluster on the node that all suites share, or why there is none.
    pub fn cluster() -> Result<Self, String> {
        crate::cassandra::shared().map(|address| Self::Cluster(vec![address]))
    }

    /// Every form that suites run on, with the prefix of the names of their cases, or why it is not there.
    pub fn all() -> Vec<(&'static str, Result<Self, String>)> {
        let alone = Store::all().map(|(name, store)| (name, store.map(Self::Alone)));
        alone.into_iter().chain([("starling-cluster", Self::cluster())]).collect()
    }
}
