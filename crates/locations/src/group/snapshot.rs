//! Having a snapshot of a group made.

use super::Core;
use crate::image;
use tokio::task::spawn_blocking;

/// Why no snapshot is made.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum NoSnapshot {
    /// Nothing is done in this group any more.
    #[error("the group has stopped")]
    Stopped,
    /// The disk is too full. The log goes on, and keeps what the snapshot would have freed.
    #[error("there is no room on the disk of the Raft log for a snapshot")]
    NoRoom,
}

impl Core {
    /// Has a snapshot made soon, if there is room: with one that cannot be written openraft ends, for good and again after each
    /// start, though the log could go on.
    pub(crate) async fn snapshot(&self) -> Result<(), NoSnapshot> {
        let (view, snapshots, group) =
            (self.state.machine.lock().view(), self.snapshots.clone(), self.shard.0);
        let room = spawn_blocking(move || snapshots.has_room(group, image::size(&view)));
        if matches!(room.await, Ok(false)) {
            return Err(NoSnapshot::NoRoom);
        }
        self.raft.trigger().snapshot().await.map_err(|_| NoSnapshot::Stopped)
    }
}
