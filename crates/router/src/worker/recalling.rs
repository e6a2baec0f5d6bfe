//! The tail of an account's log has been read, and decisions that waited for it go on.

use super::*;

impl Worker {
    /// The tail of the log has been read, to recognise resent messages.
    pub(super) fn tail_read(&mut self, turn: &mut Turn, account: &BareJid, tail: Result<Recent, StoreError>) {
        let Some(Slot::Ready(home)) = self.homes.get_mut(account) else { return };
        let recent = match tail {
            Ok(recent) => recent,
            Err(error @ (StoreError::Unavailable(_) | StoreError::Overloaded)) => {
                // What was sent before may not get a second row: it waits, as it would for a commit.
                if let Some(times) = self.complaints.tails.made(turn.monotonic) {
                    tracing::warn!(event = "tail_failed", %error, times, "resent messages cannot be recognised yet");
                }
                if std::mem::replace(&mut home.rereading, true) {
                    (home.rereading, home.reading) = (false, false);
                    return self.refuse_held(turn, account);
                }
                return self.timers.set(turn.monotonic + REREAD_AFTER, account.clone(), Why::Tail);
            }
            Err(error) => {
                // It would be the same the next time.
                tracing::error!(event = "tail_failed", %error, "resent messages cannot be recognised");
                Recent::empty(turn.monotonic)
            }
        };
        (home.rereading, home.reading) = (false, false);
        home.since.ends();
        home.recent = Some(recent);
        self.go_on(turn, account);
        self.touch(account);
    }
}
