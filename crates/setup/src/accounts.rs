//! What administration does with accounts before their homes are asked, and beside them.

use futures::future::join_all;
use starling_admin::{ControlError, Password, User, UserPage, UserQuery};
use starling_hooks::Server;
use starling_store::{AccountRow, StoreError};
use starling_xmpp::sasl::Credentials;
use starling_xmpp::{BareJid, StanzaCondition};

/// The keys of a new password.
///
/// # Errors
/// When it is none, or when there is too much to do.
pub async fn keys(server: &Server, password: &Password) -> Result<Credentials, ControlError> {
    let derived = server.passwords.derive(password.expose().to_owned()).await;
    derived.map_err(|error| {
        let text = error.text.map_or_else(|| "try again later".to_owned(), |text| text.to_string());
        match error.condition {
            StanzaCondition::NotAcceptable => ControlError::Invalid(text),
            _ => ControlError::Unavailable(text),
        }
    })
}

/// Whether there can be such an account.
///
/// # Errors
/// When it has no name, or is of a domain that is not served.
pub fn local(server: &Server, jid: &BareJid) -> Result<(), ControlError> {
    if jid.local().is_none() {
        return Err(ControlError::Invalid("an account is name@domain".to_owned()));
    }
    if server.is_local(jid) { Ok(()) } else { Err(ControlError::UnknownDomain) }
}

/// A page of accounts in order, as the store has them.
///
/// # Errors
/// When the domain is not served, or the store does not answer.
pub async fn page(server: &Server, query: UserQuery) -> Result<UserPage, ControlError> {
    let mut domains: Vec<String> = match query.domain {
        Some(domain) if server.domains.contains(&domain) => vec![domain],
        Some(_) => return Err(ControlError::UnknownDomain),
        None => server.domains.all().to_vec(),
    };
    domains.sort_unstable();
    let mut users = Vec::new();
    for domain in domains {
        let after = match &query.after {
            Some(after) if after.domain() > domain.as_str() => continue,
            Some(after) if after.domain() == domain => Some(after.clone()),
            _ => None,
        };
        // One more than asked for tells whether there are more.
        let room = query.limit + 1 - users.len();
        users.extend(server.store.accounts(&domain, after, room).await.map_err(unavailable)?);
        if users.len() > query.limit {
            break;
        }
    }
    let more = users.len() > query.limit;
    users.truncate(query.limit);
    let rows = join_all(users.iter().map(|jid| server.store.account(jid))).await;
    let rows = rows.into_iter().collect::<Result<Vec<_>, _>>().map_err(unavailable)?;
    let user = |(jid, row): (_, Option<AccountRow>)| User { jid, created: row.map(|row| row.created.0) };
    Ok(UserPage { users: users.into_iter().zip(rows).map(user).collect(), more })
}

/// Why the store did not do it.
pub fn unavailable(error: StoreError) -> ControlError {
    match error {
        StoreError::Exists => ControlError::Exists,
        other => ControlError::Unavailable(other.to_string()),
    }
}

/// Whether there was an account to do it with.
///
/// # Errors
/// When there was none.
pub fn found(there: bool) -> Result<(), ControlError> {
    if there { Ok(()) } else { Err(ControlError::NotFound) }
}
