//! The commands that show and change the list (XEP-0191 §§3.2–3.5).

use super::presence;
use crate::answer;
use starling_hooks::{Answer, AnswerIq, BlockList, Change, Cx, Effect};
use starling_xmpp::{Element, IqType, Jid, Stanza, StanzaCondition, StanzaError, ns};

/// `<blocklist/>`
pub(super) struct Show;
/// `<block/>`
pub(super) struct Block;
/// `<unblock/>`
pub(super) struct Unblock;

impl AnswerIq for Show {
    fn answer(&self, cx: &mut Cx<'_>, iq: &Stanza, _: &Element) -> Answer {
        let Some(session) = cx.session else { return answer::none_of_yours() };
        if !answer::is_get(iq) {
            return answer::wrong_type();
        }
        let list = Element::new(ns::BLOCKING, "blocklist").children_of(items(cx.account.blocked.iter()));
        // Whoever has asked is told of changes (XEP-0191 §3.3).
        cx.change(Change::WatchesBlocks(session.token));
        Answer::Result(Some(list))
    }
}

impl AnswerIq for Block {
    fn answer(&self, cx: &mut Cx<'_>, iq: &Stanza, payload: &Element) -> Answer {
        change(cx, iq, payload, |list, named| {
            if named.is_empty() {
                return Err(StanzaError::new(StanzaCondition::BadRequest).with_text("nobody to block"));
            }
            named.iter().for_each(|item| {
                list.insert(item.clone());
            });
            Ok(())
        })
    }
}

impl AnswerIq for Unblock {
    /// Without items, everybody is unblocked (XEP-0191 §3.5).
    fn answer(&self, cx: &mut Cx<'_>, iq: &Stanza, payload: &Element) -> Answer {
        change(cx, iq, payload, |list, named| {
            if named.is_empty() {
                list.clear();
            }
            named.iter().for_each(|item| {
                list.remove(item);
            });
            Ok(())
        })
    }
}

fn change(
    cx: &mut Cx<'_>,
    iq: &Stanza,
    payload: &Element,
    change: impl FnOnce(&mut BlockList, &[Jid]) -> Result<(), StanzaError>,
) -> Answer {
    if cx.session.is_none() {
        return answer::none_of_yours();
    }
    if answer::is_get(iq) {
        return answer::wrong_type();
    }
    let mut list = cx.account.blocked.clone();
    let changed = named(payload).and_then(|named| change(&mut list, &named).map(|()| named));
    let named = match changed {
        Ok(named) => named,
        Err(error) => return Answer::error(error),
    };
    let most = cx.server.limits.blocked_items;
    if list.len() > most && list.len() > cx.account.blocked.len() {
        let text = format!("a block list holds at most {most} items");
        return Answer::error(StanzaError::new(StanzaCondition::ResourceConstraint).with_text(text));
    }
    presence::follow(cx, &list, &named);
    if list != cx.account.blocked {
        cx.change(Change::Blocked(list));
    }
    push(cx, payload.name(), &named);
    Answer::done()
}

/// The addresses named, each once.
fn named(payload: &Element) -> Result<Vec<Jid>, StanzaError> {
    let mut named = Vec::new();
    for item in payload.children().filter(|child| child.is(ns::BLOCKING, "item")) {
        let jid = item.attribute("jid").ok_or_else(|| StanzaError::new(StanzaCondition::BadRequest))?;
        named.push(Jid::parse(jid).map_err(|_| StanzaError::new(StanzaCondition::JidMalformed))?);
    }
    named.sort_unstable();
    named.dedup();
    Ok(named)
}

/// Tells all sessions that have asked for the list, the one that changed it too (XEP-0191 §3.3).
fn push(cx: &mut Cx<'_>, name: &str, named: &[Jid]) {
    let pushed = Element::new(ns::BLOCKING, name).children_of(items(named));
    let account = cx.account;
    for session in account.sessions.iter().filter(|session| session.watches_blocks) {
        let push = Stanza::iq(IqType::Set)
            .id(cx.fresh_id())
            .from(account.jid.clone())
            .to(session.jid.clone())
            .child(pushed.clone());
        cx.push(Effect::Deliver(session.token, push));
    }
}

fn items<'a>(jids: impl IntoIterator<Item = &'a Jid>) -> impl Iterator<Item = Element> {
    jids.into_iter().map(|jid| Element::new(ns::BLOCKING, "item").attr("jid", jid.as_str()))
}

#[cfg(test)]
mod tests {
    use crate::blocking::Blocking;
    use starling_hooks::At;
    use starling_hooks::bench::{Asked, Bench, element};
    use std::sync::Arc;

    fn bench() -> Bench {
        Bench::new(vec![Arc::new(Blocking)]).session("phone").session("tablet")
    }

    fn set(bench: &mut Bench, payload: &str) -> Asked {
        let xml = payload.replacen(['/', '>'], " xmlns='urn:xmpp:blocking'$", 1);
        let at = payload.find(['/', '>']).unwrap();
        let xml = xml.replacen('$', &payload[at..=at], 1);
        bench.ask(At::Account, "phone", &format!("<iq type='set' id='1'>{xml}</iq>"))
    }

    fn shown(bench: &mut Bench, resource: &str) -> Vec<String> {
        let asked = bench.ask(
            At::Account,
            resource,
            "<iq type='get' id='1'><blocklist xmlns='urn:xmpp:blocking'/></iq>",
        );
        asked.result().children().map(|item| item.attribute("jid").unwrap().to_owned()).collect()
    }

    #[test]
    fn shows_blocks_and_unblocks() {
        let mut bench = bench();
        assert!(shown(&mut bench, "phone").is_empty());
        assert!(
            set(
                &mut bench,
                "<block><item jid='Bob@localhost'/><item jid='bob@localhost'/><item jid='x.example'/></block>"
            )
            .answer
            .is_ok()
        );
        assert_eq!(shown(&mut bench, "phone"), ["bob@localhost", "x.example"]);
        assert!(
            set(&mut bench, "<unblock><item jid='bob@localhost'/><item jid='who@localhost'/></unblock>")
                .answer
                .is_ok()
        );
        assert_eq!(shown(&mut bench, "tablet"), ["x.example"]);
        assert!(set(&mut bench, "<unblock/>").answer.is_ok());
        assert!(shown(&mut bench, "phone").is_empty());
    }

    #[test]
    fn tells_the_sessions_that_have_asked() {
        let mut bench = bench();
        assert!(
            set(&mut bench, "<block><item jid='a@x'/></block>").effects.len() == 1,
            "the change and no push"
        );
        shown(&mut bench, "tablet");
        let asked = set(&mut bench, "<block><item jid='b@x'/></block>");
        let lines = bench.lines(&asked.effects);
        assert_eq!(lines[0], "blocked a@x b@x");
        assert_eq!(lines.len(), 2);
        assert!(lines[1].starts_with("tablet < <iq"), "{}", lines[1]);
        assert!(
            lines[1].contains("<block xmlns='urn:xmpp:blocking'><item jid='b@x'/></block>"),
            "{}",
            lines[1]
        );
        let lines = set(&mut bench, "<unblock/>").effects;
        let lines = bench.lines(&lines);
        assert!(lines[1].contains("<unblock xmlns='urn:xmpp:blocking'/>"), "{}", lines[1]);
    }

    #[test]
    fn refuses_what_makes_no_sense() {
        let mut bench = bench();
        assert_eq!(set(&mut bench, "<block/>").condition(), "bad-request");
        assert_eq!(set(&mut bench, "<block><item/></block>").condition(), "bad-request");
        assert_eq!(set(&mut bench, "<block><item jid='a@@x'/></block>").condition(), "jid-malformed");
        assert_eq!(set(&mut bench, "<blocklist/>").condition(), "not-allowed");
        let stranger =
            "<iq type='get' id='1' from='bob@localhost/x'><blocklist xmlns='urn:xmpp:blocking'/></iq>";
        assert_eq!(bench.stranger_asks(At::Account, stranger).condition(), "service-unavailable");
        let stranger =
            "<iq type='set' id='1' from='bob@localhost/x'><unblock xmlns='urn:xmpp:blocking'/></iq>";
        assert_eq!(bench.stranger_asks(At::Account, stranger).condition(), "service-unavailable");
        assert!(bench.account.blocked.is_empty());
    }

    #[test]
    fn a_list_is_bounded_but_can_always_shrink() {
        let mut bench = bench().blocked(&["a@x", "b@x", "c@x"]);
        bench.server().limits.blocked_items = 2;
        assert_eq!(set(&mut bench, "<block><item jid='d@x'/></block>").condition(), "resource-constraint");
        assert!(set(&mut bench, "<block><item jid='a@x'/></block>").answer.is_ok());
        assert!(set(&mut bench, "<unblock><item jid='a@x'/></unblock>").answer.is_ok());
        assert_eq!(bench.account.blocked.len(), 2);
    }

    #[test]
    fn the_answer_follows_the_schema() {
        let mut bench = bench().blocked(&["a@x"]);
        let asked = bench.ask(
            At::Account,
            "phone",
            "<iq type='get' id='1'><blocklist xmlns='urn:xmpp:blocking'/></iq>",
        );
        assert_eq!(
            asked.result(),
            &element("<blocklist xmlns='urn:xmpp:blocking'><item jid='a@x'/></blocklist>")
        );
        assert!(bench.at("phone").watches_blocks);
    }
}
