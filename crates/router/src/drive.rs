//! Between the parts that go in turns, which know no runtime, and the runtime.

use starling_node::SharedClock;
use std::future::poll_fn;
use std::pin::pin;
use std::task::{Context, Poll};
use std::time::Duration;

/// Turns in a row after which others are let go first.
const IN_A_ROW: usize = 32;

/// Something that goes in turns.
pub(crate) trait Turns {
    /// Does what there is to do. `Pending`: there was nothing, and the waker is called when there is.
    fn turn(&mut self, cx: &mut Context<'_>) -> Poll<()>;

    /// When there is something to do whether or not the waker is called, on monotonic time.
    fn deadline(&self) -> Option<Duration>;
}

/// Lets it go on for ever.
pub(crate) async fn drive(mut turns: impl Turns, clock: SharedClock) {
    let mut timer = pin!(tokio::time::sleep(Duration::ZERO));
    let mut set = None;
    poll_fn(move |cx| {
        for _ in 0..IN_A_ROW {
            if turns.turn(cx).is_ready() {
                continue;
            }
            let Some(deadline) = turns.deadline() else { return Poll::Pending };
            if set != Some(deadline) {
                set = Some(deadline);
                timer.set(tokio::time::sleep(deadline.saturating_sub(clock.monotonic())));
            }
            if timer.as_mut().poll(cx).is_pending() {
                return Poll::Pending;
            }
            set = None;
        }
        cx.waker().wake_by_ref();
        Poll::<()>::Pending
    })
    .await;
}
