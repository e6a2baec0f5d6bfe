//! What an append costs: rows per second and processor time per row, for several numbers of commits under way.
//!
//! ```text
//! cargo run --release -p starling-store-embedded --example append_cost [rows [accounts]]
//! ```
//! A commit is one row of about 300 bytes, as the router writes it. The time of the whole process is counted: the
//! caller's side, the writer, flushes and compactions. What follows are reads of the log that was written.

#![allow(clippy::unwrap_used, clippy::disallowed_methods)]

use bytes::Bytes;
use futures::stream::{FuturesUnordered, StreamExt};
use starling_store::{
    AccountRow, Batch, Direction, LogFilter, LogRow, Origin, Page, Position, Reign, SharedStore, Store,
    StoredCredentials, Write,
};
use starling_store_embedded::{EmbeddedStore, Options};
use starling_xmpp::{BareJid, Timestamp};
use std::sync::Arc;
use std::time::{Duration, Instant};

#[tokio::main(flavor = "current_thread")]
async fn main() {
    let mut arguments = std::env::args().skip(1).map(|argument| argument.parse::<u64>().unwrap());
    let rows = arguments.next().unwrap_or(200_000);
    let accounts = arguments.next().unwrap_or(1_000);
    println!("{rows} rows, {accounts} accounts");
    println!(
        "{:>10} {:>10} {:>12} {:>12} {:>10} {:>8}",
        "under way", "rows/s", "user us/row", "sys us/row", "rows/sync", "MiB rss"
    );
    for (under_way, share) in [(1, 20), (32, 2), (256, 1), (1024, 1)] {
        let directory = tempfile::tempdir_in(".").unwrap();
        let store =
            Arc::new(EmbeddedStore::open(&Options::at(directory.path()), Arc::new(|| Timestamp(0))).unwrap());
        let jids = create(&store, accounts).await;
        let rows = rows / share;
        let (figures, before, clock) = (store.figures(), cpu(), Instant::now());
        append(&store, &jids, rows, under_way).await;
        let (took, after) = (clock.elapsed(), cpu());
        let [user, system] = [0, 1].map(|at| (after[at] - before[at]).as_secs_f64() * 1e6 / rows as f64);
        let syncs = store.figures().syncs - figures.syncs;
        println!(
            "{:>10} {:>10.0} {:>12.2} {:>12.2} {:>10.1} {:>8}",
            under_way,
            rows as f64 / took.as_secs_f64(),
            user,
            system,
            rows as f64 / syncs as f64,
            resident_mib(),
        );
        if under_way == 256 {
            reads(&store, &jids).await;
        }
    }
}

async fn create(store: &Arc<EmbeddedStore>, accounts: u64) -> Vec<BareJid> {
    let credentials = StoredCredentials::derive("secret", [1; 16], 16).unwrap();
    let jids: Vec<_> =
        (0..accounts).map(|n| BareJid::parse(&format!("user{n}@example.org")).unwrap()).collect();
    let mut creations = FuturesUnordered::new();
    for (n, jid) in jids.iter().enumerate() {
        let row = AccountRow {
            generation: n as u64,
            credentials: credentials.clone(),
            created: Timestamp(0),
            disabled: false,
        };
        creations.push(store.create_account(jid, row));
    }
    while let Some(done) = creations.next().await {
        done.unwrap();
    }
    jids
}

async fn append(store: &Arc<EmbeddedStore>, jids: &[BareJid], rows: u64, under_way: usize) {
    let body = "x".repeat(120);
    let mut commits = FuturesUnordered::new();
    for n in 0..rows {
        if commits.len() == under_way {
            let done: Option<Result<_, _>> = commits.next().await;
            done.unwrap().unwrap();
        }
        let owner = &jids[(n as usize * 7) % jids.len()];
        let with = &jids[(n as usize * 7 / 10 + 3) % jids.len()];
        let stanza = format!(
            "<message xmlns='jabber:client' type='chat' id='message-{n}' from='{with}/phone' to='{owner}'><body>{body}</body>\
             <origin-id xmlns='urn:xmpp:sid:0' id='message-{n}'/><active xmlns='http://jabber.org/protocol/chatstates'/></message>"
        );
        let row = LogRow {
            owner: owner.clone(),
            position: Position(1_700_000_000_000_000 + n),
            origin: Origin { session: 0x1234_5678_9abc_def0_1234_5678_9abc_def0, sequence: n },
            origin_id: Some(format!("message-{n}").into()),
            direction: Direction::In,
            with: with.clone(),
            archived: true,
            offline: true,
            expires: None,
            stanza: Bytes::from(stanza),
        };
        commits.push(store.commit(Batch::of(row.position, vec![Write::Append(Box::new(row))])));
    }
    while let Some(done) = commits.next().await {
        done.unwrap();
    }
}

async fn reads(store: &Arc<EmbeddedStore>, jids: &[BareJid]) {
    let store: SharedStore = store.clone();
    let peer =
        store.log_page(&jids[0], LogFilter::default(), Page::Last(1)).await.unwrap().rows[0].with.clone();
    let archive = LogFilter { archived: true, ..LogFilter::default() };
    let with = LogFilter { with: Some(peer), ..archive.clone() };
    let waiting = LogFilter { offline: true, ..LogFilter::default() };
    for (name, filter, page) in [
        ("newest page of 50", archive, Page::Last(50)),
        ("newest page of 50 with a peer", with, Page::Last(50)),
        ("first 50 waiting", waiting, Page::First(50)),
    ] {
        let (before, mut found) = (total(), 0);
        let calls = 2_000;
        for n in 0..calls {
            let owner = if filter.with.is_some() { &jids[0] } else { &jids[n % jids.len()] };
            found += store.log_page(owner, filter.clone(), page).await.unwrap().rows.len();
        }
        let spent = (total() - before) / calls as f64;
        println!("{name}: {spent:.0} us, {:.1} rows", found as f64 / calls as f64);
    }
    let before = total();
    for jid in jids {
        store.load(jid, Reign { epoch: 1, floor: Position(1 << 60) }).await.unwrap().unwrap();
    }
    println!("load: {:.0} us", (total() - before) / jids.len() as f64);
    let before = total();
    for jid in jids {
        store.account(jid).await.unwrap().unwrap();
    }
    println!("account: {:.0} us", (total() - before) / jids.len() as f64);
}

/// User and system time of this process, all threads.
fn cpu() -> [Duration; 2] {
    let usage = nix::sys::resource::getrusage(nix::sys::resource::UsageWho::RUSAGE_SELF).unwrap();
    [usage.user_time(), usage.system_time()]
        .map(|time| Duration::new(time.tv_sec() as u64, time.tv_usec() as u32 * 1_000))
}

fn total() -> f64 {
    cpu().iter().sum::<Duration>().as_secs_f64() * 1e6
}

fn resident_mib() -> u64 {
    let pages: u64 =
        std::fs::read_to_string("/proc/self/statm").unwrap().split(' ').nth(1).unwrap().parse().unwrap();
    (pages * 4_096) >> 20
}
