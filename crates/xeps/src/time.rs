//! Entity time (XEP-0202): the server's, which is always told in UTC.

use crate::answer;
use starling_hooks::{About, Answer, AnswerIq, At, Cx, Hooks, Spec, Xep};
use starling_xmpp::{Element, Stanza, Timestamp, ns};
use std::sync::Arc;

/// Tells the time.
pub struct Time;

static ABOUT: About = About {
    spec: Spec::Xep(202, "2.0"),
    name: "entity time",
    server_features: &[ns::TIME],
    account_features: &[],
};

impl Xep for Time {
    fn about(&self) -> &'static About {
        &ABOUT
    }

    fn install(self: Arc<Self>, on: &mut Hooks) {
        on.iq(At::Server, ns::TIME, "time", self);
    }
}

impl AnswerIq for Time {
    fn answer(&self, cx: &mut Cx<'_>, iq: &Stanza, _: &Element) -> Answer {
        if !answer::is_get(iq) {
            return answer::wrong_type();
        }
        let second = Timestamp::from_secs(cx.now.as_secs());
        let time = Element::new(ns::TIME, "time")
            .child(Element::new(ns::TIME, "tzo").text("+00:00"))
            .child(Element::new(ns::TIME, "utc").text(second.to_string()));
        Answer::Result(Some(time))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use starling_hooks::bench::{Bench, element};

    #[test]
    fn tells_the_time_in_utc() {
        let mut bench = Bench::new(vec![Arc::new(Time)]).session("phone");
        let asked =
            bench.ask(At::Server, "phone", "<iq type='get' id='1'><time xmlns='urn:xmpp:time'/></iq>");
        let expected = "<time xmlns='urn:xmpp:time'><tzo>+00:00</tzo><utc>2023-11-14T22:13:20Z</utc></time>";
        assert_eq!(asked.result(), &element(expected));
    }
}
