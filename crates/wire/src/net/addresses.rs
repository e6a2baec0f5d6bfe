//! Where the routers are.

use crate::RouterId;
use futures::future::{BoxFuture, join_all};
use parking_lot::Mutex;
use std::collections::{BTreeMap, BTreeSet};
use std::io;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;
use tokio::sync::Notify;
use tokio::time::timeout;

/// Finds the addresses of a cluster's routers, again and again.
pub trait Addresses: Send + Sync + 'static {
    /// All addresses there are now. An empty answer or an error changes nothing: who is known stays known.
    fn find(&self) -> BoxFuture<'static, io::Result<Vec<SocketAddr>>>;

    /// Resolves when it is time to look again, before the usual time is over.
    fn changed(&self) -> BoxFuture<'static, ()> {
        Box::pin(std::future::pending())
    }

    /// A router that is linked says where those of its cluster are, each `host:port`.
    fn told(&self, _by: RouterId, _routers: Vec<String>) {}

    /// A router is not linked any more.
    fn lost(&self, _router: RouterId) {}
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
            // Side by side: one name that is not answered must not keep the others from being found.
            let looked = seeds.iter().map(|seed| timeout(WITHIN, tokio::net::lookup_host(seed)));
            for (seed, found) in seeds.iter().zip(join_all(looked).await) {
                let error = match found {
                    Ok(Ok(found)) => {
                        all.extend(found.take(MAX_PER_NAME));
                        continue;
                    }
                    Ok(Err(error)) => error,
                    Err(_) => io::ErrorKind::TimedOut.into(),
                };
                failed = Some(io::Error::new(error.kind(), format!("{seed}: {error}")));
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

/// Seeds, and beside them the routers of which those that are linked tell.
#[derive(Debug)]
pub struct Roll {
    seeds: Vec<String>,
    /// Who said what last.
    told: Mutex<BTreeMap<RouterId, Vec<String>>>,
    changed: Arc<Notify>,
}

impl Roll {
    /// Nobody has told anything yet.
    pub fn new(seeds: Vec<String>) -> Self {
        Self { seeds, told: Mutex::default(), changed: Arc::default() }
    }

    fn all(&self) -> Vec<String> {
        let told = self.told.lock();
        let all: BTreeSet<&String> = self.seeds.iter().chain(told.values().flatten()).collect();
        all.into_iter().cloned().collect()
    }
}

impl Addresses for Roll {
    fn find(&self) -> BoxFuture<'static, io::Result<Vec<SocketAddr>>> {
        Seeds(self.all()).find()
    }

    fn changed(&self) -> BoxFuture<'static, ()> {
        let changed = Arc::clone(&self.changed);
        Box::pin(async move { changed.notified().await })
    }

    fn told(&self, by: RouterId, routers: Vec<String>) {
        let before = self.all();
        // A router that belongs to no cluster yet says nothing of others.
        if !routers.is_empty() {
            self.told.lock().insert(by, routers);
        }
        if self.all() != before {
            self.changed.notify_one();
        }
    }

    /// What the others say holds; the last one is believed though it is gone.
    fn lost(&self, router: RouterId) {
        let mut told = self.told.lock();
        if told.len() > 1 {
            told.remove(&router);
        }
    }
}

/// How long one name may take.
const WITHIN: Duration = Duration::from_secs(3);
/// The most addresses that are taken from one name.
const MAX_PER_NAME: usize = 64;

#[cfg(test)]
mod tests {
    use super::*;
    use futures::FutureExt;

    #[test]
    fn what_linked_routers_say_is_believed_beside_the_seeds() {
        let roll = Roll::new(vec!["a:1".to_owned()]);
        let said =
            |addresses: &[&str]| addresses.iter().map(|address| (*address).to_owned()).collect::<Vec<_>>();
        assert_eq!(roll.all(), ["a:1"]);
        roll.told(RouterId(1), said(&["a:1", "b:1"]));
        assert!(roll.changed().now_or_never().is_some());
        roll.told(RouterId(2), said(&["a:1", "b:1"]));
        assert!(roll.changed().now_or_never().is_none(), "no news");
        roll.told(RouterId(2), said(&["b:1", "c:1"]));
        assert_eq!(roll.all(), ["a:1", "b:1", "c:1"]);
        roll.told(RouterId(3), Vec::new());
        roll.lost(RouterId(2));
        assert_eq!(roll.all(), ["a:1", "b:1"], "the others know better");
        roll.lost(RouterId(1));
        assert_eq!(roll.all(), ["a:1", "b:1"], "the last one is believed though it is gone");
    }

    #[tokio::test]
    async fn whose_look_up_failed_is_named() {
        // Refused before a name server is asked.
        let error = Seeds(vec!["nowhere".to_owned()]).find().await.unwrap_err();
        assert!(error.to_string().starts_with("nowhere: "), "{error}");
    }
}
