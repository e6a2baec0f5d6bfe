//! `starling ctl user`.

use std::io::{self, BufRead, IsTerminal, Write};

use starling_admin::{
    Client, ClientError,
    api::{PAGE_MAX, UserRow, code},
};
use starling_xmpp::{BareJid, Timestamp};

use super::{Server, password};
use crate::{
    cli::{Credentials, Output},
    failure::Failure,
    print, sources,
};

pub(super) async fn add(server: &Server<'_>, credentials: &Credentials) -> Result<(), Failure> {
    let jid = account(&credentials.jid)?;
    let mut client = server.connect().await?;
    let password = password::read(&jid, credentials.password_file.as_deref()).await?;
    let added = client.user_add(&jid, password.expose()).await;
    added.map_err(|error| refused(server, &format!("{jid} was not added"), error, &jid))?;
    print::line(&format!("added {jid}"));
    Ok(())
}

pub(super) async fn delete(server: &Server<'_>, jid: &str, yes: bool) -> Result<(), Failure> {
    let jid = account(jid)?;
    let mut client = server.connect().await?;
    if !yes && !confirmed(&format!("Remove {jid} with its contacts and all its messages?"))? {
        return Err(Failure::new(format!("{jid} was not removed")).because("it was not confirmed"));
    }
    let deleted = client.user_delete(&jid).await;
    deleted.map_err(|error| refused(server, &format!("{jid} was not removed"), error, &jid))?;
    print::line(&format!("removed {jid}"));
    Ok(())
}

pub(super) async fn set_password(server: &Server<'_>, credentials: &Credentials) -> Result<(), Failure> {
    let jid = account(&credentials.jid)?;
    let mut client = server.connect().await?;
    let password = password::read(&jid, credentials.password_file.as_deref()).await?;
    let set = client.user_passwd(&jid, password.expose()).await;
    set.map_err(|error| refused(server, &format!("the password of {jid} was not set"), error, &jid))?;
    print::line(&format!("the password of {jid} is set"));
    Ok(())
}

/// Fetches page after page, so that any number of accounts can be listed.
pub(super) async fn list(
    server: &Server<'_>,
    domain: Option<&str>,
    limit: Option<usize>,
    output: Output,
) -> Result<(), Failure> {
    let mut client = server.connect().await?;
    let rows = all(&mut client, domain, limit.unwrap_or(usize::MAX)).await;
    let rows = rows.map_err(|error| server.failure("accounts cannot be listed", error))?;
    match output {
        Output::Json => print::line(&serde_json::to_string_pretty(&rows).unwrap_or_default()),
        Output::Table => {
            let rows: Vec<_> = rows.iter().map(|row| [row.jid.clone(), moment(row.created)]).collect();
            print::line(print::table(["JID", "CREATED"], &rows).trim_end());
        }
    }
    Ok(())
}

async fn all(client: &mut Client, domain: Option<&str>, limit: usize) -> Result<Vec<UserRow>, ClientError> {
    let (mut rows, mut after) = (Vec::new(), None::<String>);
    while rows.len() < limit {
        let page = client.users(domain, after.as_deref(), (limit - rows.len()).min(PAGE_MAX)).await?;
        rows.extend(page.users);
        match page.next {
            Some(next) => after = Some(next),
            None => break,
        }
    }
    Ok(rows)
}

/// An address that can be an account, as the server writes it.
pub(super) fn account(text: &str) -> Result<String, Failure> {
    let wrong = |why: &str| {
        Failure::new(format!("{text:?} is not an account"))
            .because(why)
            .advise("give an address such as alice@localhost")
            .usage()
    };
    let jid = BareJid::parse(text).map_err(|error| wrong(&error.to_string()))?;
    if jid.local().is_none() {
        return Err(wrong("it has no part before an @"));
    }
    Ok(jid.as_str().to_owned())
}

/// When, in UTC, to the second.
pub(super) fn moment(micros: Option<u64>) -> String {
    micros.map_or_else(|| "-".to_owned(), |micros| Timestamp(micros / 1_000_000 * 1_000_000).to_string())
}

fn refused(server: &Server<'_>, what: &str, error: ClientError, jid: &str) -> Failure {
    let program = sources::program();
    let options = sources::options(server.sources);
    let advice = match &error {
        ClientError::Refused(body) => match body.code.as_str() {
            code::EXISTS => format!("give it a new password with `{program} ctl{options} user passwd {jid}`"),
            code::NOT_FOUND => format!("`{program} ctl{options} user list` shows all accounts"),
            code::UNKNOWN_DOMAIN => format!("the domains are: {}", server.config.domains.join(", ")),
            code::INVALID => "give another value".to_owned(),
            _ => "try again later".to_owned(),
        },
        _ => return server.failure(what, error),
    };
    server.failure(what, error).advise(advice)
}

pub(super) fn confirmed(question: &str) -> Result<bool, Failure> {
    if !io::stdin().is_terminal() {
        return Err(Failure::new("this cannot be undone, so it has to be confirmed")
            .because("there is no terminal to ask on")
            .advise("add --yes")
            .usage());
    }
    let failed = |error: io::Error| Failure::new("the terminal cannot be read").because(error);
    write!(io::stderr(), "{question} [y/N] ").map_err(failed)?;
    let mut answer = String::new();
    io::stdin().lock().read_line(&mut answer).map_err(failed)?;
    Ok(matches!(answer.trim().to_lowercase().as_str(), "y" | "yes"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_account_has_a_name_and_a_domain() {
        assert_eq!(account("Alice@Example.org").unwrap(), "alice@example.org");
        for wrong in
            ["", "example.org", "alice@", "@example.org", "alice@example.org/phone", "a b@example.org"]
        {
            assert_eq!(account(wrong).unwrap_err().code, 2, "{wrong}");
        }
    }

    #[test]
    fn moments_are_shown_to_the_second() {
        assert_eq!(moment(Some(1_700_000_000_123_456)), "2023-11-14T22:13:20Z");
        assert_eq!(moment(None), "-");
    }
}
