//! A process that writes is killed; what it had acknowledged must be there, and nothing may be there in part.

#![allow(clippy::unwrap_used, clippy::disallowed_methods)]

use futures::stream::{FuturesOrdered, StreamExt};
use starling_store::testing::{account, append, batch, jid, keys, reign, row};
use starling_store::{Batch, LogFilter, Page, Position, Store, Write};
use starling_store_embedded::{EmbeddedStore, Options};
use starling_xmpp::{BareJid, Timestamp};
use std::collections::HashMap;
use std::io::{BufRead, BufReader, Write as _};
use std::path::Path;
use std::process::{Command, Stdio};
use std::sync::Arc;
use std::time::Duration;

const DIRECTORY: &str = "STARLING_TEST_STORE_TO_WRITE_TO";
const TEST: &str = "acknowledged_commits_survive_a_kill";
const OWNERS: usize = 7;

fn owner(n: usize) -> BareJid {
    jid(&format!("user{n}@example.org"))
}

fn open(directory: &Path) -> EmbeddedStore {
    // Small buffers: flushes, compactions and journal changes happen under the kill too.
    let options = Options { write_buffer_bytes: 1 << 20, ..Options::at(directory) };
    EmbeddedStore::open(&options, Arc::new(|| Timestamp(0))).unwrap()
}

/// Commit `n` writes one row to each of two accounts at position `n`, and a document that holds `n`.
fn commit(n: u64) -> Batch {
    let owners = [owner(n as usize % OWNERS), owner((n as usize + 1) % OWNERS)];
    let mut writes: Vec<_> = owners.iter().map(|owner| append(row(owner, Position(n), &owners[1]))).collect();
    let body = n.to_string().into();
    writes.push(Write::Doc(owners[0].clone(), starling_store::DocKind::BlockList, body));
    batch(writes)
}

/// Writes from `first` on and says on the standard output what has been acknowledged. Never returns.
async fn write_until_killed(directory: &Path) {
    let store = open(directory);
    let mut last = 0;
    for n in 0..OWNERS {
        drop(store.create_account(&owner(n), account(n as u64, "p"), reign(1)).await);
        last = last.max(store.load(&owner(n), reign(1)).await.unwrap().unwrap().last.0);
    }
    println!("from {last}");
    let mut under_way = FuturesOrdered::new();
    for n in last + 1.. {
        under_way.push_back(store.commit(commit(n)));
        if n % 500 == 0 {
            drop(store.commit(batch(vec![Write::Credentials(owner(0), Box::new(keys("other")))])));
        }
        if under_way.len() == 100 {
            under_way.next().await.unwrap().unwrap();
            let mut out = std::io::stdout().lock();
            writeln!(out, "done {}", n - 99).unwrap();
            out.flush().unwrap();
        }
    }
}

#[tokio::test]
async fn acknowledged_commits_survive_a_kill() {
    if let Some(directory) = std::env::var_os(DIRECTORY) {
        write_until_killed(Path::new(&directory)).await;
    }
    let directory = tempfile::tempdir().unwrap();
    let mut grown = 0;
    for (round, millis) in [150, 300, 60, 200, 90].into_iter().enumerate() {
        let mut child = Command::new(std::env::current_exe().unwrap())
            .args(["--exact", TEST, "--nocapture"])
            .env(DIRECTORY, directory.path())
            .stdout(Stdio::piped())
            .spawn()
            .unwrap();
        let mut lines = BufReader::new(child.stdout.take().unwrap()).lines();
        // The clock starts when the child does its work, so that every round writes something.
        let began = lines.by_ref().map(Result::unwrap).find(|line| line.starts_with("done ")).unwrap();
        let killer = std::thread::spawn(move || {
            std::thread::sleep(Duration::from_millis(millis));
            child.kill().unwrap();
            child.wait().unwrap();
        });
        let mut acknowledged = number(&began);
        // The last line may be cut short.
        acknowledged = lines
            .map_while(Result::ok)
            .filter(|line| line.starts_with("done "))
            .fold(acknowledged, |last, line| last.max(number(&line)));
        killer.join().unwrap();

        let store = open(directory.path());
        let (written, docs) = read(&store).await;
        assert!(written >= acknowledged, "round {round}: {acknowledged} acknowledged, {written} found");
        assert!(acknowledged > grown, "round {round}: nothing was written");
        for n in written.saturating_sub(OWNERS as u64 - 1).max(1)..=written {
            assert_eq!(docs[&owner(n as usize % OWNERS)], n, "round {round}: document of commit {n}");
        }
        grown = written;
    }
}

fn number(line: &str) -> u64 {
    line.strip_prefix("done ").and_then(|number| number.trim().parse().ok()).unwrap_or_default()
}

/// Checks that the commits found are whole and without a gap; the last of them, and each account's document.
async fn read(store: &EmbeddedStore) -> (u64, HashMap<BareJid, u64>) {
    let mut found: HashMap<u64, usize> = HashMap::new();
    let mut docs = HashMap::new();
    for n in 0..OWNERS {
        let owner = owner(n);
        let page = store.log_page(&owner, LogFilter::default(), Page::First(usize::MAX)).await.unwrap();
        for got in &page.rows {
            let with = got.with.clone();
            assert_eq!(*got, row(&owner, got.position, &with), "a row is as it was written");
            *found.entry(got.position.0).or_default() += 1;
            let filter = LogFilter { with: Some(with), ..LogFilter::default() };
            if got.position.0.is_multiple_of(97) {
                let above = LogFilter { above: Some(Position(got.position.0 - 1)), ..filter };
                let first = store.log_page(&owner, above, Page::First(1)).await.unwrap();
                assert_eq!(first.rows.first(), Some(got), "the peer index has it too");
            }
        }
        let state = store.load(&owner, reign(1)).await.unwrap().unwrap();
        let doc = state.docs.get(&starling_store::DocKind::BlockList);
        docs.insert(owner, doc.map_or(0, |doc| std::str::from_utf8(doc).unwrap().parse().unwrap()));
    }
    let last = found.keys().copied().max().unwrap_or_default();
    for n in 1..=last {
        assert_eq!(found.get(&n), Some(&2), "commit {n} of {last} is not whole");
    }
    (last, docs)
}
