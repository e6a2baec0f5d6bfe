//! Where the routers are.

use crate::RouterId;
use futures::future::{BoxFuture, join_all};
use parking_lot::Mutex;
use std::collections::{BTreeMap, BTreeSet};
use std::io;
use std::net::{SocketAddr, ToSocketAddrs};
use std::sync::Arc;
use std::time::Duration;
use tokio::sync::{Notify, watch};
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
            let looked = seeds.iter().map(|seed| timeout(WITHIN, NAMES.look_up(seed)));
            for (seed, found) in seeds.iter().zip(join_all(looked).await) {
                let error = match found {
                    Ok(Ok(found)) => {
                        all.extend(found.into_iter().take(MAX_PER_NAME));
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

/// So many names are looked up at the same time. Each takes a thread.
const MOST: usize = 64;

type Found = Result<Vec<SocketAddr>, Arc<io::Error>>;

/// The names that are being looked up. The system's call cannot be given up: while a name server does not answer it takes a
/// minute, whoever waits for it. So it has no thread that others need, and there is never a second one for the same name.
struct Names {
    resolve: fn(&str) -> io::Result<Vec<SocketAddr>>,
    under_way: Mutex<BTreeMap<String, watch::Receiver<Option<Found>>>>,
}

static NAMES: Names = Names::new(|name| name.to_socket_addrs().map(Iterator::collect));

impl Names {
    const fn new(resolve: fn(&str) -> io::Result<Vec<SocketAddr>>) -> Self {
        Self { resolve, under_way: Mutex::new(BTreeMap::new()) }
    }

    async fn look_up(&'static self, name: &str) -> io::Result<Vec<SocketAddr>> {
        if let Ok(address) = name.parse() {
            return Ok(vec![address]);
        }
        let mut told = self.begin(name)?;
        let found = told.wait_for(Option::is_some).await.ok().and_then(|found| found.clone());
        let found = found.ok_or_else(|| io::Error::other("the look-up has ended without an answer"))?;
        found.map_err(|error| io::Error::new(error.kind(), error))
    }

    fn begin(&'static self, name: &str) -> io::Result<watch::Receiver<Option<Found>>> {
        let mut under_way = self.under_way.lock();
        if let Some(told) = under_way.get(name) {
            return Ok(told.clone());
        }
        if under_way.len() >= MOST {
            return Err(io::Error::other("too many names are being looked up"));
        }
        let (found, told) = watch::channel(None);
        let wanted = name.to_owned();
        std::thread::Builder::new().name("names".to_owned()).spawn(move || {
            let answer = (self.resolve)(&wanted).map_err(Arc::new);
            self.under_way.lock().remove(&wanted);
            found.send_replace(Some(answer));
        })?;
        under_way.insert(name.to_owned(), told.clone());
        Ok(told)
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
    use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};

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
    async fn a_name_that_is_not_answered_is_asked_for_once_and_holds_nobody_up() {
        static ASKED: AtomicUsize = AtomicUsize::new(0);
        static ANSWERED: AtomicBool = AtomicBool::new(false);
        static ASKED_FOR: Names = Names::new(|name| {
            if name == "silent:1" {
                ASKED.fetch_add(1, Ordering::AcqRel);
                while !ANSWERED.load(Ordering::Acquire) {
                    std::thread::sleep(Duration::from_millis(1));
                }
            }
            Ok(vec![SocketAddr::from(([127, 0, 0, 1], 1))])
        });
        for _ in 0..20 {
            let asked = timeout(Duration::from_millis(5), ASKED_FOR.look_up("silent:1"));
            assert!(asked.await.is_err(), "nobody answers");
        }
        assert_eq!(ASKED_FOR.look_up("other:1").await.unwrap().len(), 1);
        assert_eq!(ASKED_FOR.look_up("127.0.0.2:7").await.unwrap(), [SocketAddr::from(([127, 0, 0, 2], 7))]);
        let mut waits = std::pin::pin!(ASKED_FOR.look_up("silent:1"));
        assert!(waits.as_mut().now_or_never().is_none());
        ANSWERED.store(true, Ordering::Release);
        assert_eq!(waits.await.unwrap().len(), 1);
        assert_eq!(ASKED.load(Ordering::Acquire), 1);
        assert!(ASKED_FOR.under_way.lock().is_empty());
    }

    #[tokio::test]
    async fn whose_look_up_failed_is_named() {
        // Refused before a name server is asked.
        let error = Seeds(vec!["nowhere".to_owned()]).find().await.unwrap_err();
        assert!(error.to_string().starts_with("nowhere: "), "{error}");
    }
}
