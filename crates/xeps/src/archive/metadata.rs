//! Where an archive begins and ends (XEP-0313 §5).

use super::query::archive_only;
use crate::answer;
use starling_hooks::{Answer, AnswerIq, Cx, Later, Server, store_error};
use starling_store::{LogFilter, Page, Position, StoreError};
use starling_xmpp::{BareJid, Element, Stanza, StanzaCondition, ns};
use std::sync::Arc;

/// `<metadata/>`
pub(super) struct Metadata;

impl AnswerIq for Metadata {
    fn answer(&self, cx: &mut Cx<'_>, iq: &Stanza, _: &Element) -> Answer {
        if cx.session.is_none() {
            return answer::refused(StanzaCondition::Forbidden);
        }
        if !answer::is_get(iq) {
            return answer::wrong_type();
        }
        let (server, owner) = (Arc::clone(cx.server), cx.account.jid.clone());
        Answer::Later(Box::pin(async move {
            let answer = match ends(&server, &owner).await {
                Ok(ends) => Ok(Some(element(&server, &owner, ends))),
                Err(error) => Err(Box::new(store_error(&error))),
            };
            Later { effects: Vec::new(), answer }
        }))
    }
}

async fn ends(server: &Server, owner: &BareJid) -> Result<Option<(Position, Position)>, StoreError> {
    let end = async |page| {
        let page = server.store.log_page(owner, archive_only(LogFilter::default()), page).await?;
        // Nothing was found in time: that does not say that there is nothing.
        if page.reached.is_some() { Err(StoreError::Overloaded) } else { Ok(page) }
    };
    let first = end(Page::First(1)).await?;
    let last = end(Page::Last(1)).await?;
    Ok(first.rows.first().zip(last.rows.last()).map(|(first, last)| (first.position, last.position)))
}

fn element(server: &Server, owner: &BareJid, ends: Option<(Position, Position)>) -> Element {
    let end = |name, position: Position| {
        Element::new(ns::MAM, name)
            .attr("id", server.archive_ids.encode(owner, position))
            .attr("timestamp", position.timestamp().to_string())
    };
    let metadata = Element::new(ns::MAM, "metadata");
    match ends {
        Some((first, last)) => metadata.child(end("start", first)).child(end("end", last)),
        None => metadata,
    }
}

#[cfg(test)]
mod tests {
    use crate::archive::Archive;
    use starling_hooks::At;
    use starling_hooks::bench::{Bench, element};
    use starling_store::{Direction, Position};
    use std::sync::Arc;

    const GET: &str = "<iq type='get' id='1' from='bob@localhost/x'><metadata xmlns='urn:xmpp:mam:2'/></iq>";

    #[test]
    fn tells_both_ends() {
        let mut bench = Bench::new(vec![Arc::new(Archive)]).session("phone");
        assert_eq!(
            bench.ask(At::Account, "phone", GET).result(),
            &element("<metadata xmlns='urn:xmpp:mam:2'/>")
        );
        for second in 1..=3 {
            bench.log(
                second * 1_000_000,
                Direction::In,
                "bob@localhost",
                "<message><body>hi</body></message>",
            );
        }
        let id = |position| bench.server.archive_ids.encode(&bench.account.jid, Position(position));
        let expected = format!(
            "<metadata xmlns='urn:xmpp:mam:2'><start id='{}' timestamp='1970-01-01T00:00:01Z'/>\
             <end id='{}' timestamp='1970-01-01T00:00:03Z'/></metadata>",
            id(1_000_000),
            id(3_000_000)
        );
        assert_eq!(bench.ask(At::Account, "phone", GET).result(), &element(&expected));
    }

    #[test]
    fn is_for_the_owner_to_get() {
        let mut bench = Bench::new(vec![Arc::new(Archive)]).session("phone");
        assert_eq!(bench.stranger_asks(At::Account, GET).condition(), "forbidden");
        assert_eq!(bench.ask(At::Account, "phone", &GET.replace("get", "set")).condition(), "not-allowed");
    }
}
