//! Where the routers are.

use futures::future::BoxFuture;
use std::io;
use std::net::SocketAddr;

/// Finds the addresses of a cluster's routers, again and again.
pub trait Addresses: Send + Sync + 'static {
    /// All addresses there are now. An empty answer or an error changes nothing: who is known stays known.
    fn find(&self) -> BoxFuture<'static, io::Result<Vec<SocketAddr>>>;
}

/// A list of `host:port`; each host may have many addresses.
#[derive(Debug, Clone)]
pub struct Seeds(pub Vec<String>);

impl Addresses for Seeds {
    fn find(&self) -> BoxFuture<'static, io::Result<Vec<SocketAddr>>> {
        let seeds = self.0.clone();
        Box::pin(async move {
            let mut all = Vec::new();
            let mut failed = None;
            for seed in seeds {
                match tokio::net::lookup_host(seed).await {
                    Ok(found) => all.extend(found.take(MAX_PER_NAME)),
                    Err(error) => failed = Some(error),
                }
            }
            all.sort();
            all.dedup();
            match failed {
                Some(error) if all.is_empty() => Err(error),
                _ => Ok(all),
            }
        })
    }
}

/// The most addresses that are taken from one name.
const MAX_PER_NAME: usize = 64;
