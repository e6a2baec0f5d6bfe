//! Leaving without a storm: who comes back elsewhere does so at a time of its own.

use crate::table::EdgeTable;
use starling_node::ids;
use std::time::Duration;
use tokio::time::Instant;

/// Ends all streams within `window`, each at a random time.
pub(crate) async fn send_away(table: &EdgeTable, window: Duration) {
    let mut due: Vec<(Duration, u64)> =
        table.numbers().into_iter().map(|number| (window.mul_f64(random()), number)).collect();
    // The last ones first, so that the next is at the end.
    due.sort_unstable_by(|a, b| b.cmp(a));
    let began = Instant::now();
    while !due.is_empty() && !table.is_empty() {
        let passed = began.elapsed();
        while let Some((_, number)) = due.pop_if(|(when, _)| *when <= passed) {
            table.stop(number);
        }
        if !due.is_empty() {
            tokio::time::sleep(STEP).await;
        }
    }
}

/// From 0 to 1.
fn random() -> f64 {
    let bits = u32::from_le_bytes(ids::bytes());
    f64::from(bits) / f64::from(u32::MAX)
}

const STEP: Duration = Duration::from_millis(20);

#[cfg(test)]
mod tests {
    use super::*;
    use starling_wire::{EdgeId, Shards};
    use starling_xmpp::BareJid;
    use std::task::{Context, Waker};

    #[tokio::test(start_paused = true)]
    async fn all_are_told_each_at_its_time() {
        let table = EdgeTable::of_cluster(EdgeId(1), Shards::new(4).unwrap());
        let account = BareJid::parse("a@example.org").unwrap();
        let here: Vec<_> = (0..200).map(|_| table.register(&account)).collect();
        let cx = Context::from_waker(Waker::noop());
        let told = || here.iter().filter(|one| one.mailbox.look(&cx, false).stopping).count();
        let window = Duration::from_secs(10);
        let began = Instant::now();
        let away = send_away(&table, window);
        tokio::pin!(away);
        for (seconds, least, most) in [(1, 2, 60), (5, 50, 150), (9, 140, 198)] {
            let until = tokio::time::sleep_until(began + Duration::from_secs(seconds));
            tokio::select! {
                () = &mut away => panic!("too early"),
                () = until => {}
            }
            assert!((least..=most).contains(&told()), "{} after {seconds} s", told());
        }
        away.await;
        assert_eq!(told(), 200);
        assert!(began.elapsed() <= window + STEP);
    }

    #[tokio::test(start_paused = true)]
    async fn nobody_is_waited_for() {
        let began = Instant::now();
        send_away(&EdgeTable::new(), Duration::from_secs(30)).await;
        assert_eq!(began.elapsed(), Duration::ZERO);
    }
}
