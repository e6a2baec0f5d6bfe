//! An archive query (XEP-0313 §4): what is asked, then how it is answered.

mod read;
#[cfg(test)]
mod tests;

use super::form::{self, Form};
use crate::answer;
use crate::result_sets::{self, Wanted};
use compact_str::CompactString;
use read::Read;
use starling_hooks::{Answer, AnswerIq, Cx, Effect, Later, Server, forward, store_error};
use starling_store::{LogFilter, LogRow, Position};
use starling_wire::Token;
use starling_xmpp::{BareJid, Element, FullJid, Jid, MessageType, Stanza, StanzaCondition, StanzaError, ns};
use std::sync::Arc;

/// `<query/>`
pub(super) struct Query;

impl AnswerIq for Query {
    fn answer(&self, cx: &mut Cx<'_>, iq: &Stanza, payload: &Element) -> Answer {
        // XEP-0313 §8.1.
        let Some(session) = cx.session else { return answer::refused(StanzaCondition::Forbidden) };
        if payload.attribute("node").is_some() {
            return answer::refused(StanzaCondition::ItemNotFound);
        }
        if answer::is_get(iq) {
            return Answer::Result(Some(form::blank()));
        }
        let asked = match Asked::of(cx, payload) {
            Ok(asked) => asked,
            Err(error) => return Answer::error(error),
        };
        let asker = Asker {
            server: Arc::clone(cx.server),
            owner: cx.account.jid.clone(),
            token: session.token,
            to: session.jid.clone(),
            query_id: payload.attribute("queryid").map(CompactString::from),
        };
        Answer::Later(Box::pin(async move { asker.answer(asked).await }))
    }
}

/// The filter with archived rows only.
pub(super) fn archive_only(filter: LogFilter) -> LogFilter {
    LogFilter { archived: true, ..filter }
}

/// What a query asks for, ids read.
struct Asked {
    filter: LogFilter,
    /// A full address: the store finds rows by bare ones, so the rest is done here.
    with: Option<Jid>,
    /// Only these rows.
    ids: Option<Vec<Position>>,
    /// Rows that must be in the archive, or there is no page (XEP-0313 §§4.1.3, 4.3.2).
    known: Vec<Position>,
    limit: usize,
    from_the_end: bool,
    flipped: bool,
}

impl Asked {
    fn of(cx: &Cx<'_>, query: &Element) -> Result<Self, StanzaError> {
        let form = Form::of(query)?;
        let wanted = Wanted::of(query)?;
        let limits = &cx.server.limits;
        let owner = &cx.account.jid;
        let position = |id: &CompactString| {
            let position = cx.server.archive_ids.decode(owner, id);
            position.ok_or_else(|| StanzaError::new(StanzaCondition::ItemNotFound))
        };
        let ids = form
            .ids
            .as_ref()
            .map(|ids| ids.iter().map(position).collect::<Result<Vec<_>, _>>())
            .transpose()?;
        if ids.as_ref().is_some_and(|ids| ids.len() > limits.mam_page) {
            let text = format!("at most {} ids", limits.mam_page);
            return Err(StanzaError::new(StanzaCondition::PolicyViolation).with_text(text));
        }
        let read = |id: &Option<CompactString>| id.as_ref().map(position).transpose();
        let (after, after_id) = (read(&wanted.after)?, read(&form.after_id)?);
        let before = read(&wanted.before.clone().filter(|id| !id.is_empty()))?;
        let before_id = read(&form.before_id)?;
        let mut known: Vec<_> = [after, after_id, before, before_id].into_iter().flatten().collect();
        known.extend(ids.iter().flatten());
        let filter = LogFilter {
            start: form.start,
            end: form.end,
            above: after.max(after_id),
            below: before.into_iter().chain(before_id).min(),
            ..archive_only(LogFilter::default())
        };
        let limit = wanted.limit(limits.mam_page);
        let from_the_end = wanted.before.is_some();
        let flipped = query.find(ns::MAM, "flip-page").is_some();
        let mut asked = Self { filter, with: None, ids, known, limit, from_the_end, flipped };
        asked.only_with(form.with, owner);
        Ok(asked)
    }

    /// XEP-0313 §4.1.1. With the account's own bare address, messages to oneself are meant; with an own full one, what this
    /// resource sent or got.
    fn only_with(&mut self, with: Option<Jid>, owner: &BareJid) {
        let Some(with) = with else { return };
        let is_full = with.to_full().is_some();
        if !is_full || with.bare_str() != owner.as_str() {
            self.filter.with = Some(with.to_bare());
        }
        self.with = is_full.then_some(with);
    }
}

/// Who asks, and where the answer goes.
struct Asker {
    server: Arc<Server>,
    owner: BareJid,
    token: Token,
    to: FullJid,
    query_id: Option<CompactString>,
}

impl Asker {
    async fn answer(self, asked: Asked) -> Later {
        match self.page(&asked).await {
            Ok(found) => self.show(&asked, &found),
            Err(error) => Later { effects: Vec::new(), answer: Err(Box::new(error)) },
        }
    }

    async fn page(&self, asked: &Asked) -> Result<Read, StanzaError> {
        let store = &self.server.store;
        let rows = if asked.known.is_empty() {
            Vec::new()
        } else {
            let rows = store.log_rows(&self.owner, asked.known.clone()).await;
            rows.map_err(|error| store_error(&error))?
        };
        let known = |position| rows.iter().any(|row| row.archived && row.position == position);
        if !asked.known.iter().all(|position| known(*position)) {
            return Err(StanzaError::new(StanzaCondition::ItemNotFound));
        }
        match &asked.ids {
            Some(ids) => Ok(read::named(asked, rows, ids)),
            None if asked.limit == 0 => read::counted(store.as_ref(), &self.owner, asked).await,
            None => read::matching(store.as_ref(), &self.owner, asked).await,
        }
    }

    /// Results, then the page's ends: those of the page as it lies in the archive, whichever way it is sent (XEP-0313 §4.3.4).
    fn show(&self, asked: &Asked, found: &Read) -> Later {
        let ids: Vec<_> =
            found.rows.iter().map(|row| self.server.archive_ids.encode(&self.owner, row.position)).collect();
        let shown = found.rows.iter().zip(&ids).filter_map(|(row, id)| self.result(row, id));
        let mut effects: Vec<_> = shown.map(|result| Effect::Deliver(self.token, result)).collect();
        if asked.flipped {
            effects.reverse();
        }
        let ends = ids.first().zip(ids.last()).map(|(first, last)| (first.as_str(), last.as_str()));
        let fin = Element::new(ns::MAM, "fin")
            .opt_attr("complete", found.complete.then_some("true"))
            .child(result_sets::page(ends, found.count));
        Later { effects, answer: Ok(Some(fin)) }
    }

    /// XEP-0313 §4.2: from the archive's own address. A row that cannot be read back is left out, its place stays.
    fn result(&self, row: &LogRow, id: &str) -> Option<Stanza> {
        let wrapper =
            Element::new(ns::MAM, "result").opt_attr("queryid", self.query_id.as_deref()).attr("id", id);
        let payload = forward::payload(&wrapper, Some(row.position.timestamp()), &row.stanza).ok()?;
        let result = Stanza::message(MessageType::Normal).from(self.owner.clone()).to(self.to.clone());
        Some(result.payload(payload))
    }
}
