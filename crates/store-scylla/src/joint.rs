//! One answer to a commit whose parts end on their own.

use crate::owners::Account;
use crate::retry::Outcome;
use futures::channel::oneshot;
use parking_lot::Mutex;
use starling_store::{Result, StoreError};
use std::sync::Arc;

/// Where the parts of a commit end.
pub(crate) struct Joint {
    state: Mutex<State>,
    /// All accounts that the commit touches.
    accounts: Vec<Arc<Account>>,
}

struct State {
    left: usize,
    written: bool,
    doubt: bool,
    failed: Option<StoreError>,
    answer: Option<oneshot::Sender<Result<()>>>,
}

impl Joint {
    /// Of so many parts, with what will be its answer.
    pub(crate) fn new(
        parts: usize,
        accounts: Vec<Arc<Account>>,
    ) -> (Arc<Self>, oneshot::Receiver<Result<()>>) {
        let (answer, answered) = oneshot::channel();
        let state = State { left: parts, written: false, doubt: false, failed: None, answer: Some(answer) };
        (Arc::new(Self { state: Mutex::new(state), accounts }), answered)
    }

    /// One part has ended. Holds no lane while it is called.
    pub(crate) fn end(&self, outcome: Outcome) {
        let mut state = self.state.lock();
        match outcome {
            Outcome::Written => state.written = true,
            Outcome::Nothing(error) => {
                let fenced = matches!(state.failed, Some(StoreError::Fenced));
                state.failed = if fenced { state.failed.take() } else { Some(error) };
            }
            Outcome::Doubt(error) => {
                state.doubt = true;
                state.failed.get_or_insert(error);
            }
        }
        state.left = state.left.saturating_sub(1);
        if state.left > 0 {
            return;
        }
        let Some(answer) = state.answer.take() else { return };
        let result = match state.failed.take() {
            None => Ok(()),
            Some(error) if !state.doubt && !state.written => Err(error),
            Some(error) => {
                for account in &self.accounts {
                    account.lane.lock().doubt();
                }
                Err(match error {
                    StoreError::Fenced => StoreError::Fenced,
                    StoreError::Unavailable(why) => StoreError::Unavailable(why),
                    other => StoreError::Unavailable(other.to_string()),
                })
            }
        };
        drop(state);
        // Whoever asked may have gone.
        drop(answer.send(result));
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use futures::FutureExt;
    use starling_store::testing::jid;

    fn answer(outcomes: Vec<Outcome>) -> (Result<()>, bool) {
        let account = Arc::new(Account::new(jid("a@x.org")));
        let (joint, mut answered) = Joint::new(outcomes.len(), vec![Arc::clone(&account)]);
        for outcome in outcomes {
            assert!((&mut answered).now_or_never().is_none());
            joint.end(outcome);
        }
        (answered.now_or_never().unwrap().unwrap(), account.lane.lock().is_uncertain())
    }

    #[test]
    fn nothing_is_nothing_only_when_no_part_was_written() {
        let nothing = || Outcome::Nothing(StoreError::Overloaded);
        let doubt = || Outcome::Doubt(StoreError::Unavailable("late".into()));
        assert!(matches!(answer(vec![Outcome::Written, Outcome::Written]), (Ok(()), false)));
        assert!(matches!(answer(vec![nothing(), nothing()]), (Err(StoreError::Overloaded), false)));
        assert!(matches!(answer(vec![Outcome::Written, nothing()]), (Err(StoreError::Unavailable(_)), true)));
        assert!(matches!(answer(vec![nothing(), doubt()]), (Err(StoreError::Unavailable(_)), true)));
        assert!(matches!(answer(vec![doubt(), Outcome::Written]), (Err(StoreError::Unavailable(_)), true)));
        let fenced = Outcome::Nothing(StoreError::Fenced);
        assert!(matches!(answer(vec![fenced, nothing()]), (Err(StoreError::Fenced), false)));
    }
}
