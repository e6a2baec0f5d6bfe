//! What is asked of the store. A mistake on the way to an answer costs that answer, not the home that waits for it.

use futures::FutureExt;
use starling_store::StoreError;
use std::panic::AssertUnwindSafe;

/// What comes of it; a panic is as good as a store that cannot be reached.
pub(crate) async fn caught<T>(read: impl Future<Output = Result<T, StoreError>>) -> Result<T, StoreError> {
    AssertUnwindSafe(read).catch_unwind().await.unwrap_or_else(|_| {
        tracing::error!(event = "read_panicked", "a read has panicked and is given up");
        Err(panicked())
    })
}

/// What is said of a call that has panicked.
pub(crate) fn panicked() -> StoreError {
    StoreError::Unavailable("the call has panicked".to_owned())
}
