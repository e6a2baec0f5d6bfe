//! Somebody who reads archives while others write.

use crate::audit::Reader;
use crate::client::account;
use crate::plan::Cast;
use crate::stage::{Phase, Stage};
use std::sync::Arc;
use std::time::Duration;

/// What was read of an archive at some time.
#[derive(Debug, Clone)]
pub(crate) struct Peek {
    pub(crate) account: String,
    /// When it was begun.
    pub(crate) at: Duration,
    pub(crate) ids: Vec<String>,
}

/// Reads now one archive, now another, until the storm is over.
pub(crate) async fn peek(stage: Arc<Stage>, casts: Vec<Cast>) {
    let mut dice = stage.dice();
    while stage.phase() == Phase::Storm {
        stage.crowd.sleep(Duration::from_micros(dice.within(10_000..6_000_000))).await;
        let owner = account(casts[dice.place(casts.len())].name);
        let at = stage.world.now();
        // What cannot be read now is read another time.
        let Ok(mut reader) = Reader::open(&stage, &owner).await else { continue };
        let Ok(rows) = reader.forward(None, dice.place(24) + 1).await else { continue };
        let ids: Vec<String> = rows.into_iter().map(|row| row.id).collect();
        stage.tell("peek", format!("{owner}: {} rows, up to {:?}", ids.len(), ids.last()));
        stage.peeked(Peek { account: owner.as_str().to_owned(), at, ids });
    }
}
