//! Questions of edges about accounts.

use super::{Malformed, Result, bare};
use crate::{Registration, proto};
use starling_store::AccountRow;
use starling_xmpp::sasl::Credentials;
use starling_xmpp::{BareJid, Timestamp};

pub(crate) fn account_question(account: &BareJid) -> proto::AccountQuestion {
    proto::AccountQuestion { account: account.as_str().to_owned() }
}

pub(crate) fn read_account_question(question: &proto::AccountQuestion) -> Result<BareJid> {
    bare(&question.account)
}

pub(crate) fn account_answer(row: Option<&AccountRow>) -> proto::AccountAnswer {
    let row = row.map(|row| proto::AccountRow {
        generation: row.generation,
        credentials: row.credentials.encode(),
        created: row.created.0,
        disabled: row.disabled,
    });
    proto::AccountAnswer { row }
}

pub(crate) fn read_account(answer: proto::AccountAnswer) -> Result<Option<AccountRow>> {
    let Some(row) = answer.row else { return Ok(None) };
    Ok(Some(AccountRow {
        generation: row.generation,
        credentials: read_credentials(&row.credentials)?,
        created: Timestamp(row.created),
        disabled: row.disabled,
    }))
}

pub(crate) fn register_question(account: &BareJid, credentials: &Credentials) -> proto::RegisterQuestion {
    proto::RegisterQuestion { account: account.as_str().to_owned(), credentials: credentials.encode() }
}

pub(crate) fn read_register(question: &proto::RegisterQuestion) -> Result<(BareJid, Credentials)> {
    Ok((bare(&question.account)?, read_credentials(&question.credentials)?))
}

pub(crate) fn register_answer(registration: Registration) -> proto::RegisterAnswer {
    let registration = match registration {
        Registration::Created => proto::Registration::Created,
        Registration::Conflict => proto::Registration::Conflict,
    };
    proto::RegisterAnswer { registration: registration.into() }
}

pub(crate) fn read_registration(answer: &proto::RegisterAnswer) -> Result<Registration> {
    match proto::Registration::try_from(answer.registration) {
        Ok(proto::Registration::Created) => Ok(Registration::Created),
        Ok(proto::Registration::Conflict) => Ok(Registration::Conflict),
        _ => Err(Malformed("registration")),
    }
}

fn read_credentials(bytes: &[u8]) -> Result<Credentials> {
    Credentials::decode(bytes).map_err(|_| Malformed("credentials"))
}
