//! What an account wants archived (XEP-0441).

use super::Preferences;
use crate::answer;
use starling_hooks::{Answer, AnswerIq, ArchiveDefault, ArchivePreferences, Change, Cx};
use starling_xmpp::{Element, Jid, Stanza, StanzaCondition, StanzaError, ns};
use std::collections::BTreeSet;

impl AnswerIq for Preferences {
    fn answer(&self, cx: &mut Cx<'_>, iq: &Stanza, payload: &Element) -> Answer {
        if cx.session.is_none() {
            return answer::refused(StanzaCondition::Forbidden);
        }
        if answer::is_get(iq) {
            return Answer::Result(Some(element(&cx.account.archive)));
        }
        let preferences = match read(payload) {
            Ok(preferences) => preferences,
            Err(condition) => return answer::refused(condition),
        };
        let most = cx.server.limits.mam_preferences;
        if preferences.always.len() + preferences.never.len() > most {
            let text = format!("archive preferences hold at most {most} addresses");
            return Answer::error(StanzaError::new(StanzaCondition::ResourceConstraint).with_text(text));
        }
        let applied = element(&preferences);
        if preferences != cx.account.archive {
            cx.change(Change::Archive(preferences));
        }
        Answer::Result(Some(applied))
    }
}

/// Both lists are there, empty or not (XEP-0441 §2.1).
fn element(preferences: &ArchivePreferences) -> Element {
    let list = |name, jids: &BTreeSet<Jid>| {
        let jids = jids.iter().map(|jid| Element::new(ns::MAM, "jid").text(jid.as_str()));
        Element::new(ns::MAM, name).children_of(jids)
    };
    Element::new(ns::MAM, "prefs")
        .attr("default", preferences.default.as_str())
        .child(list("always", &preferences.always))
        .child(list("never", &preferences.never))
}

/// A list that is missing is empty; the default must be said (XEP-0441 §§2.1.1–2.1.3).
fn read(prefs: &Element) -> Result<ArchivePreferences, StanzaCondition> {
    let default =
        prefs.attribute("default").and_then(ArchiveDefault::parse).ok_or(StanzaCondition::BadRequest)?;
    let list = |name| -> Result<BTreeSet<Jid>, StanzaCondition> {
        let jids = prefs.find(ns::MAM, name).into_iter().flat_map(Element::children);
        let jids = jids.filter(|child| child.is(ns::MAM, "jid"));
        jids.map(|jid| Jid::parse(jid.content().trim()).map_err(|_| StanzaCondition::JidMalformed)).collect()
    };
    Ok(ArchivePreferences { default, always: list("always")?, never: list("never")? })
}

#[cfg(test)]
mod tests {
    use super::*;
    use starling_hooks::At;
    use starling_hooks::bench::{Bench, element as xml};
    use std::sync::Arc;

    fn bench() -> Bench {
        Bench::new(vec![Arc::new(Preferences)]).session("phone")
    }

    fn set(prefs: &str) -> String {
        format!("<iq type='set' id='1'>{prefs}</iq>")
    }

    const GET: &str = "<iq type='get' id='1' from='bob@localhost/x'><prefs xmlns='urn:xmpp:mam:2'/></iq>";

    #[test]
    fn are_shown_and_changed() {
        let mut bench = bench();
        let shown = "<prefs xmlns='urn:xmpp:mam:2' default='always'><always/><never/></prefs>";
        assert_eq!(bench.ask(At::Account, "phone", GET).result(), &xml(shown));
        let wanted = "<prefs xmlns='urn:xmpp:mam:2' default='roster'><always><jid>romeo@montague.lit</jid></always>\
            <never><jid>montague@montague.lit/x</jid></never></prefs>";
        let asked = bench.ask(At::Account, "phone", &set(wanted));
        assert_eq!(asked.result(), &xml(wanted));
        assert_eq!(asked.effects.len(), 1);
        assert_eq!(bench.ask(At::Account, "phone", GET).result(), &xml(wanted));
        assert!(bench.ask(At::Account, "phone", &set(wanted)).effects.is_empty(), "nothing new");
        let short = "<prefs xmlns='urn:xmpp:mam:2' default='never'/>";
        let shown = "<prefs xmlns='urn:xmpp:mam:2' default='never'><always/><never/></prefs>";
        assert_eq!(bench.ask(At::Account, "phone", &set(short)).result(), &xml(shown));
    }

    #[test]
    fn refuse_what_is_wrong() {
        let mut bench = bench();
        bench.server().limits.mam_preferences = 1;
        for (prefs, condition) in [
            ("<prefs xmlns='urn:xmpp:mam:2'/>", "bad-request"),
            ("<prefs xmlns='urn:xmpp:mam:2' default='sometimes'/>", "bad-request"),
            (
                "<prefs xmlns='urn:xmpp:mam:2' default='never'><never><jid>a@@b</jid></never></prefs>",
                "jid-malformed",
            ),
            (
                "<prefs xmlns='urn:xmpp:mam:2' default='never'><never><jid>a</jid></never><always><jid>b</jid></always></prefs>",
                "resource-constraint",
            ),
        ] {
            let asked = bench.ask(At::Account, "phone", &set(prefs));
            assert_eq!(asked.condition(), condition, "{prefs}");
            assert!(asked.effects.is_empty());
        }
        assert_eq!(bench.stranger_asks(At::Account, GET).condition(), "forbidden");
    }
}
