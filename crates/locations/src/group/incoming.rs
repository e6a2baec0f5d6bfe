//! A snapshot that a leader sends, piece by piece.

use super::Core;
use crate::call::{Answer, Piece, Refusal};
use crate::image::{self, Description, Image, ImageError, Meta};
use crate::machine::Restore;
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
    /// It is read as it comes: one that has got its name is what this router starts with, so it must make sense.
    restore: Restore,
    writer: SnapshotWriter,
}

impl Core {
    /// Takes the next piece; with the last one the snapshot is installed.
    pub(super) async fn take_piece(&self, from: RouterId, piece: Piece) -> Answer {
        let Ok(mut slot) = self.incoming.try_lock() else { return Answer::Refused(Refusal::Busy) };
        let (vote, last) = (piece.vote, piece.last);
        let before = slot.take();
        let known = self.server.borrow().vote;
        if known > vote {
            // Of a leader that is none any more: nothing of it is kept.
            return Answer::Piece(Some(known));
        }
        let incoming = match self.put(from, piece, before).await {
            Ok(incoming) => incoming,
            Err(error) => {
                tracing::warn!(event = "snapshot_refused", shard = self.shard.0, %error, "a piece of a snapshot was refused");
                return Answer::Refused(Refusal::Malformed);
            }
        };
        if !last {
            *slot = Some(incoming);
            return Answer::Piece(None);
        }
        let Incoming { meta, restore, writer, .. } = incoming;
        let finished = spawn_blocking(move || {
            // It is read once more when it is installed, from the disk.
            restore.finish()?;
            Ok(writer.finish()?)
        });
        let file = match finished.await {
            Ok(Ok(file)) => file,
            Ok(Err(error @ ImageError::Machine(_))) => {
                tracing::warn!(event = "snapshot_refused", shard = self.shard.0, %error, "a snapshot was refused");
                return Answer::Refused(Refusal::Malformed);
            }
            Ok(Err(error)) => {
                tracing::error!(event = "snapshot_failed", shard = self.shard.0, %error, "a snapshot could not be kept");
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
                let description = Description::decode(&piece.bytes)?;
                let (restore, meta) = (description.restore()?, description.meta);
                let writer = snapshots.begin(group, image::last(&meta), &piece.bytes)?;
                return Ok(Incoming { from, id: piece.id, next: 1, meta, restore, writer });
            }
            let mut incoming = before
                .filter(|one| (one.from, one.id, one.next) == (from, piece.id, piece.number))
                .ok_or(ImageError::None)?;
            incoming.restore.push(&piece.bytes)?;
            incoming.writer.part(&piece.bytes)?;
            incoming.next += 1;
            Ok(incoming)
        });
        put.await.unwrap_or(Err(ImageError::GivenUp))
    }
}
