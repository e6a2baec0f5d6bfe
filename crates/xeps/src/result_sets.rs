//! Result set management (XEP-0059): which page of a long result is wanted, and which one this is.

use compact_str::CompactString;
use starling_hooks::{About, Hooks, Spec, Xep};
use starling_xmpp::{Element, StanzaCondition, StanzaError, ns};
use std::sync::Arc;

/// Tells of the document; whoever has long results reads and writes pages with what is here.
pub struct ResultSets;

static ABOUT: About = About {
    spec: Spec::Xep(59, "1.0"),
    name: "result set management",
    server_features: &[],
    account_features: &[ns::RSM],
};

impl Xep for ResultSets {
    fn about(&self) -> &'static About {
        &ABOUT
    }

    fn install(self: Arc<Self>, _: &mut Hooks) {}
}

/// The page that a request asks for.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Wanted {
    /// At most this many items; `Some(0)` wants none (XEP-0059 §2.7).
    pub max: Option<u64>,
    /// Items after this one.
    pub after: Option<CompactString>,
    /// The last items before this one; an empty one wants the last page (XEP-0059 §2.5).
    pub before: Option<CompactString>,
}

impl Wanted {
    /// Reads the `<set/>` of a request; a request without one wants the first page.
    ///
    /// # Errors
    /// `bad-request` for a `max` that is no whole number or below zero, `feature-not-implemented` for a page by index:
    /// results that have no `<count/>` have none (XEP-0059 §2.6).
    pub fn of(request: &Element) -> Result<Self, StanzaError> {
        let Some(set) = request.find(ns::RSM, "set") else { return Ok(Self::default()) };
        if set.find(ns::RSM, "index").is_some() {
            return Err(
                StanzaError::new(StanzaCondition::FeatureNotImplemented).with_text("no page by index")
            );
        }
        let text = |name| set.find(ns::RSM, name).map(|child| CompactString::from(child.content()));
        let max = text("max").map(|max| whole_number(max.trim())).transpose()?;
        Ok(Self { max, after: text("after").filter(|id| !id.is_empty()), before: text("before") })
    }

    /// How many items to return, where the server returns at most `limit`.
    pub fn limit(&self, limit: usize) -> usize {
        self.max.map_or(limit, |max| usize::try_from(max).map_or(limit, |max| max.min(limit)))
    }
}

/// A number of items: digits only. One beyond any bound is clamped: it is a number.
fn whole_number(text: &str) -> Result<u64, StanzaError> {
    if text.is_empty() || !text.bytes().all(|byte| byte.is_ascii_digit()) {
        return Err(StanzaError::new(StanzaCondition::BadRequest).with_text("max is not a whole number"));
    }
    Ok(text.parse().unwrap_or(u64::MAX))
}

/// The `<set/>` of a result: its first and last item, if it has any (XEP-0059 §2.2), and the number of all if that is known.
pub fn page(ends: Option<(&str, &str)>, count: Option<usize>) -> Element {
    let mut set = Element::new(ns::RSM, "set");
    if let Some((first, last)) = ends {
        set.push(Element::new(ns::RSM, "first").text(first));
        set.push(Element::new(ns::RSM, "last").text(last));
    }
    if let Some(count) = count {
        set.push(Element::new(ns::RSM, "count").text(count.to_string()));
    }
    set
}

#[cfg(test)]
mod tests {
    use super::*;
    use starling_hooks::bench::element;

    fn wanted(set: &str) -> Result<Wanted, &'static str> {
        let xml =
            format!("<query xmlns='urn:t'><set xmlns='http://jabber.org/protocol/rsm'>{set}</set></query>");
        Wanted::of(&element(&xml)).map_err(|error| error.condition.as_str())
    }

    #[test]
    fn reads_which_page_is_wanted() {
        assert_eq!(Wanted::of(&element("<query xmlns='urn:t'/>")), Ok(Wanted::default()));
        assert_eq!(wanted(""), Ok(Wanted::default()));
        assert_eq!(wanted("<before/>").unwrap().before.as_deref(), Some(""));
        assert_eq!(
            wanted("<max>10</max><after>x</after>").unwrap(),
            Wanted { max: Some(10), after: Some("x".into()), before: None }
        );
        assert_eq!(wanted("<after/>"), Ok(Wanted::default()));
    }

    #[test]
    fn refuses_what_is_no_number_and_clamps_what_is_too_large() {
        for bad in ["-", "-1", "-0", "+1", "", "1.5", "1e9", "1 0", "ten", "0x10", "\u{0663}"] {
            assert_eq!(wanted(&format!("<max>{bad}</max>")), Err("bad-request"), "{bad}");
        }
        assert_eq!(wanted("<max>1000000000</max>").unwrap().limit(250), 250);
        assert_eq!(wanted("<max>99999999999999999999999</max>").unwrap().limit(250), 250);
        assert_eq!(wanted("<max>0</max>").unwrap().limit(250), 0);
        assert_eq!(wanted("<index>3</index>"), Err("feature-not-implemented"));
    }
}
