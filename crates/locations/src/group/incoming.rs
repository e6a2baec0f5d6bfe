//! A snapshot that a leader sends, piece by piece.

use super::Core;
use crate::call::{Answer, Piece, Refusal};
use crate::image::{self, Description, Image, ImageError, Meta};
use crate::snapshots::SnapshotWriter;
use openraft::Snapshot;
use starling_wire::RouterId;
use tokio::task::spawn_blocking;

/// One that is not whole yet.
pub(crate) struct Incoming {
    from: RouterId,
    id: u64,
    next: u64,
    meta: Meta,
    writer: SnapshotWriter,
}

impl Core {
    /// Takes the next piece; with the last one the snapshot is installed.
    pub(super) async fn take_piece(&self, from: RouterId, piece: Piece) -> Answer {
        let Ok(mut slot) = self.incoming.try_lock() else { return Answer::Refused(Refusal::Busy) };
        let (vote, last) = (piece.vote, piece.last);
        let before = slot.take();
        let incoming = match self.put(from, piece, before).await {
            Ok(incoming) => incoming,
            Err(error) => {
                tracing::warn!(shard = self.shard.0, %error, "a piece of a snapshot was refused");
                return Answer::Refused(Refusal::Malformed);
            }
        };
        if !last {
            *slot = Some(incoming);
            return Answer::Piece(None);
        }
        let Incoming { meta, writer, .. } = incoming;
        let file = match spawn_blocking(move || writer.finish()).await {
            Ok(Ok(file)) => file,
            Ok(Err(error)) => {
                tracing::error!(shard = self.shard.0, %error, "a snapshot could not be kept");
                return Answer::Refused(Refusal::Stopped);
            }
            Err(_) => return Answer::Refused(Refusal::Stopped),
        };
        let snapshot = Snapshot { meta, snapshot: Box::new(Image(Some(file))) };
        match self.raft.install_full_snapshot(vote, snapshot).await {
            Ok(answer) => Answer::Piece(Some(answer.vote)),
            Err(_) => Answer::Refused(Refusal::Stopped),
        }
    }

    async fn put(
        &self,
        from: RouterId,
        piece: Piece,
        before: Option<Incoming>,
    ) -> Result<Incoming, ImageError> {
        let (snapshots, group) = (self.snapshots.clone(), self.shard.0);
        let put = spawn_blocking(move || -> Result<Incoming, ImageError> {
            if piece.number == 0 {
                // Whatever was begun before is given up: its writer takes the file away.
                drop(before);
                let meta = Description::decode(&piece.bytes)?.meta;
                let writer = snapshots.begin(group, image::last(&meta), &piece.bytes)?;
                return Ok(Incoming { from, id: piece.id, next: 1, meta, writer });
            }
            let mut incoming = before
                .filter(|one| (one.from, one.id, one.next) == (from, piece.id, piece.number))
                .ok_or(ImageError::None)?;
            incoming.writer.part(&piece.bytes)?;
            incoming.next += 1;
            Ok(incoming)
        });
        put.await.unwrap_or(Err(ImageError::GivenUp))
    }
}
