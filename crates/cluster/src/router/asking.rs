//! Questions about accounts, asked of their homes: in this process, or over the link to the router that has them.

use super::desk::Unanswered;
use super::questions::{Answer, MOST_SESSIONS, Question};
use super::raft;
use super::switchboard::Switchboard;
use futures::future::join_all;
use starling_router::Door;
use starling_store::{AccountRow, StoreError};
use starling_wire::chart::Way;
use starling_wire::{LinkError, Registration, SessionInfo};
use starling_xmpp::BareJid;
use starling_xmpp::sasl::Credentials;
use std::time::Duration;
use tokio::time::{Instant, sleep, timeout};

/// How long a home is looked for: as long as a failover may take.
const LOOK: Duration = Duration::from_secs(1);
/// How soon again.
const AGAIN: Duration = Duration::from_millis(20);
/// How long an answer may take.
const WITHIN: Duration = Duration::from_secs(5);

/// For SASL: the account's row.
pub(super) async fn account(board: &Switchboard, account: BareJid) -> Result<Option<AccountRow>, LinkError> {
    match ask(board, Question::Account(account)).await {
        Answer::Account(row) => Ok(row),
        Answer::NotHome => Err(LinkError::NoHome),
        _ => Err(LinkError::Busy),
    }
}

/// In-band registration.
pub(super) async fn register(
    board: &Switchboard,
    account: BareJid,
    credentials: Credentials,
) -> Result<Registration, LinkError> {
    match ask(board, Question::Create(account, credentials)).await {
        Answer::Done(true) => Ok(Registration::Created),
        Answer::Done(false) => Ok(Registration::Conflict),
        Answer::NotHome => Err(LinkError::NoHome),
        _ => Err(LinkError::Busy),
    }
}

/// Asks the home of the account that the question is about, wherever that is, and looks for it for a while.
#[allow(clippy::disallowed_methods)] // only how long it takes
pub(super) async fn ask(board: &Switchboard, question: Question) -> Answer {
    let Some(account) = question.account() else { return Answer::NotHome };
    let shard = board.own.shards.of(account);
    let until = Instant::now() + LOOK;
    loop {
        let answer = match board.chart.way(shard) {
            Way::Here(_, gate) => at(&gate.door, question.clone()).await,
            Way::There(_, router) => match board.peer(router) {
                Some(outlet) => match board.desk.ask(router, &outlet, &question, WITHIN).await {
                    Ok(answer) => answer,
                    // What only reads may be asked again.
                    Err(Unanswered::NotLinked) => Answer::NotHome,
                    Err(Unanswered::Lost) if matches!(question, Question::Account(_)) => Answer::NotHome,
                    Err(error) => Answer::Unavailable(error.to_string()),
                },
                None => Answer::NotHome,
            },
            Way::Nowhere => Answer::NotHome,
        };
        if !matches!(answer, Answer::NotHome) || Instant::now() >= until {
            return answer;
        }
        sleep(AGAIN).await;
    }
}

/// Answers another router, from what is here.
pub(super) async fn answer(board: &Switchboard, question: Question) -> Answer {
    match (&question, question.account()) {
        (_, Some(account)) => match board.chart.here(board.own.shards.of(account)) {
            Some(gate) => at(&gate.door, question).await,
            None => Answer::NotHome,
        },
        (Question::Sessions(_, limit), None) => {
            let limit = usize::try_from(*limit).unwrap_or(MOST_SESSIONS);
            Answer::Sessions(sessions(board, None, limit).await)
        }
        (Question::Give(shard, to), None) => raft::give(board, *shard, *to).await,
        (_, None) => {
            let sessions = sessions(board, None, usize::MAX).await;
            let detached = sessions.iter().filter(|session| session.detached).count();
            Answer::Count(sessions.len() as u64, detached as u64)
        }
    }
}

/// Asks a home of this process.
async fn at(door: &Door, question: Question) -> Answer {
    let answer = async {
        match question {
            Question::Account(account) => match door.account(&account).await {
                Ok(row) => Answer::Account(row),
                Err(LinkError::NoHome) => Answer::NotHome,
                Err(error) => Answer::Unavailable(error.to_string()),
            },
            _ if !door.holds() => Answer::NotHome,
            Question::Create(account, keys) => done(door.create_account(&account, keys).await),
            Question::SetKeys(account, keys) => done(door.set_credentials(&account, keys).await),
            Question::Delete(account) => done(door.delete_account(&account).await),
            Question::Sessions(of, limit) => {
                let mut sessions = door.sessions().await;
                sessions.retain(|session| of.as_ref().is_none_or(|of| session.jid.same_bare(of)));
                sessions.truncate(usize::try_from(limit).unwrap_or(MOST_SESSIONS));
                Answer::Sessions(sessions)
            }
            Question::Count | Question::Give(..) => Answer::NotHome,
        }
    };
    // A home that has ended answers nothing.
    let late = |_| Answer::Unavailable("the home does not answer in time".to_owned());
    timeout(WITHIN, answer).await.unwrap_or_else(late)
}

fn done(result: Result<bool, StoreError>) -> Answer {
    match result {
        Ok(done) => Answer::Done(done),
        Err(error) => Answer::Unavailable(error.to_string()),
    }
}

/// Sessions of the homes of this process, in the order of their addresses.
async fn sessions(board: &Switchboard, of: Option<&BareJid>, limit: usize) -> Vec<SessionInfo> {
    let gates = board.chart.doors();
    let asked = gates.iter().map(|gate| timeout(WITHIN, gate.door.sessions()));
    let mut all: Vec<SessionInfo> = join_all(asked).await.into_iter().flatten().flatten().collect();
    all.retain(|session| of.is_none_or(|of| session.jid.same_bare(of)));
    all.sort_unstable_by(|one, other| one.jid.as_str().cmp(other.jid.as_str()));
    all.truncate(limit);
    all
}

/// Asks all routers there are, this one too.
///
/// # Errors
/// A router that does not answer, or an answer that is none.
pub(super) async fn ask_all(board: &Switchboard, question: Question) -> Result<Vec<Answer>, String> {
    let peers = board.peers();
    let asked = peers.iter().map(|(router, name)| {
        let question = &question;
        async move {
            let outlet = board.peer(*router).ok_or_else(|| format!("router {name} is away"))?;
            let answer = board.desk.ask(*router, &outlet, question, WITHIN).await;
            answer.map_err(|error| format!("router {name}: {error}"))
        }
    });
    let mut answers: Vec<Answer> = join_all(asked).await.into_iter().collect::<Result<_, _>>()?;
    answers.push(answer(board, question.clone()).await);
    Ok(answers)
}
