//! Who gets a message (RFC 6121 §8.5).

use starling_hooks::{Account, Session};
use starling_wire::Token;
use starling_xmpp::{Jid, MessageType};

/// The sessions that get a message.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Recipients {
    /// These, at least one.
    To(Vec<Token>),
    /// None.
    Nobody {
        /// Its sender is told, unless it is kept; else it is dropped in silence.
        bounce: bool,
        /// It may be kept for later instead (RFC 6121 §8.5.2.2.1).
        keep: bool,
    },
}

const REFUSED: Recipients = Recipients::Nobody { bounce: true, keep: false };
const KEPT: Recipients = Recipients::Nobody { bounce: true, keep: true };
const SILENCE: Recipients = Recipients::Nobody { bounce: false, keep: false };

/// Who gets a message of this type to this address of the account.
///
/// A full JID is matched by any connected session, available or not; the bare JID stands for the most available ones, and
/// never for a session of negative priority. Where the RFC leaves a choice: ties get it all, and what cannot be delivered
/// or kept is refused, except headlines.
pub fn recipients(account: &Account, to: &Jid, message: MessageType) -> Recipients {
    if to.resource().is_some() {
        if let Some(session) = account.resource(to) {
            return Recipients::To(vec![session.token]);
        }
        if message != MessageType::Chat {
            return without_session(message);
        }
    }
    match message {
        MessageType::Normal | MessageType::Chat => to_any(most_available(account), KEPT),
        MessageType::Headline => {
            to_any(account.sessions.iter().filter(|session| session.takes_bare()), SILENCE)
        }
        MessageType::Groupchat => REFUSED,
        MessageType::Error => SILENCE,
    }
}

/// What becomes of a message to an address of ours that is no account's (RFC 6121 §8.5.1): the same as for an account
/// that refuses it, so that nobody learns which accounts exist.
pub fn without_account(message: MessageType) -> Recipients {
    without_session(message)
}

fn without_session(message: MessageType) -> Recipients {
    match message {
        MessageType::Normal | MessageType::Chat | MessageType::Groupchat => REFUSED,
        MessageType::Headline | MessageType::Error => SILENCE,
    }
}

fn most_available(account: &Account) -> impl Iterator<Item = &Session> {
    let takers = || account.sessions.iter().filter(|session| session.takes_bare());
    let highest = takers().map(|session| session.priority).max();
    takers().filter(move |session| Some(session.priority) == highest)
}

fn to_any<'a>(sessions: impl Iterator<Item = &'a Session>, otherwise: Recipients) -> Recipients {
    let tokens: Vec<Token> = sessions.map(|session| session.token).collect();
    if tokens.is_empty() { otherwise } else { Recipients::To(tokens) }
}

#[cfg(test)]
mod tests {
    use super::*;
    use MessageType::{Chat, Error, Groupchat, Headline, Normal};
    use starling_hooks::testing::{Bench, jid};

    const TYPES: [MessageType; 5] = [Normal, Chat, Groupchat, Headline, Error];

    /// A row of the table: the cells in the order of `TYPES`. `E` refused, `S` silence, `O` kept, else the resources.
    #[track_caller]
    fn row(bench: &Bench, to: &str, cells: [&str; 5]) {
        for (message, cell) in TYPES.into_iter().zip(cells) {
            let seen = match recipients(&bench.account, &jid(to), message) {
                Recipients::To(tokens) => {
                    let name = |token| bench.account.session(token).unwrap().jid.resource_str();
                    tokens.into_iter().map(name).collect::<Vec<_>>().join("+")
                }
                other => outcome(&other).to_owned(),
            };
            assert_eq!(seen, cell, "{message:?} to {to}");
        }
    }

    fn outcome(recipients: &Recipients) -> &'static str {
        match recipients {
            Recipients::To(_) => "somebody",
            Recipients::Nobody { bounce: true, keep: false } => "E",
            Recipients::Nobody { bounce: true, keep: true } => "O",
            Recipients::Nobody { bounce: false, keep: false } => "S",
            Recipients::Nobody { bounce: false, keep: true } => "kept in silence",
        }
    }

    #[test]
    fn no_such_account() {
        let cells = TYPES.map(|message| outcome(&without_account(message)));
        assert_eq!(cells, ["E", "E", "E", "S", "S"]);
    }

    #[test]
    fn nobody_connected() {
        let bench = Bench::new(Vec::new());
        row(&bench, "alice@localhost", ["O", "O", "E", "S", "S"]);
        row(&bench, "alice@localhost/x", ["E", "O", "E", "S", "S"]);
    }

    #[test]
    fn connected_and_not_available() {
        let bench = Bench::new(Vec::new()).session("x");
        row(&bench, "alice@localhost", ["O", "O", "E", "S", "S"]);
        row(&bench, "alice@localhost/x", ["x"; 5]);
        row(&bench, "alice@localhost/y", ["E", "O", "E", "S", "S"]);
    }

    #[test]
    fn only_negative_priorities() {
        let bench = Bench::new(Vec::new()).available("x", -1).available("z", -128);
        row(&bench, "alice@localhost", ["O", "O", "E", "S", "S"]);
        row(&bench, "alice@localhost/x", ["x"; 5]);
        row(&bench, "alice@localhost/y", ["E", "O", "E", "S", "S"]);
    }

    #[test]
    fn one_non_negative() {
        let bench = Bench::new(Vec::new()).available("n", -1).available("x", 0).session("c");
        row(&bench, "alice@localhost", ["x", "x", "E", "x", "S"]);
        row(&bench, "alice@localhost/x", ["x"; 5]);
        row(&bench, "alice@localhost/n", ["n"; 5]);
        row(&bench, "alice@localhost/c", ["c"; 5]);
        row(&bench, "alice@localhost/y", ["E", "x", "E", "S", "S"]);
    }

    #[test]
    fn several_non_negative() {
        let bench =
            Bench::new(Vec::new()).available("low", 1).available("x", 7).available("z", 7).available("n", -1);
        row(&bench, "alice@localhost", ["x+z", "x+z", "E", "low+x+z", "S"]);
        row(&bench, "alice@localhost/low", ["low"; 5]);
        row(&bench, "alice@localhost/y", ["E", "x+z", "E", "S", "S"]);
    }

    #[test]
    fn resources_differ_in_case() {
        let bench = Bench::new(Vec::new()).available("x", 0);
        row(&bench, "alice@localhost/X", ["E", "x", "E", "S", "S"]);
    }
}
