//! Requests of a client that somebody has to answer (RFC 6120, 8.2.3): with what was asked for or with an error, and never
//! with silence, whatever became of the process that took them.

use std::time::Duration;

use crate::Node;

/// How long an answer may take while the session goes on.
pub(super) const PATIENCE: Duration = Duration::from_secs(20);

/// The requests of one client, one at a time.
#[derive(Default)]
pub(super) struct Questions {
    number: u32,
    /// The id of the one that is open, and since when.
    open: Option<(String, Duration)>,
}

impl Questions {
    /// The next request.
    pub(super) fn next(&mut self, now: Duration) -> String {
        self.number += 1;
        let id = format!("question-{}", self.number);
        let payload = match self.number % 3 {
            0 => "<ping xmlns='urn:xmpp:ping'/>",
            1 => "<query xmlns='jabber:iq:roster'/>",
            _ => {
                "<query xmlns='urn:xmpp:mam:2' queryid='q'><set xmlns='http://jabber.org/protocol/rsm'><max>0</max>\
                 </set></query>"
            }
        };
        let kind = if self.number % 3 == 2 { "set" } else { "get" };
        let xml = format!("<iq type='{kind}' id='{id}'>{payload}</iq>");
        self.open = Some((id, now));
        xml
    }

    /// Whether one waits for its answer.
    pub(super) fn is_open(&self) -> bool {
        self.open.is_some()
    }

    /// Takes an IQ that is no request: whether it answers the one that is open.
    pub(super) fn answered(&mut self, node: &Node) -> bool {
        let is = self.open.as_ref().is_some_and(|(id, _)| node.attribute("id") == Some(id));
        if is {
            self.open = None;
        }
        is
    }

    /// Gives up the one that has waited too long: how it was called, and how long it waited.
    pub(super) fn overdue(&mut self, now: Duration) -> Option<(String, Duration)> {
        let (_, since) = self.open.as_ref().filter(|(_, since)| now >= *since + PATIENCE)?;
        let waited = now - *since;
        self.open.take().map(|(id, _)| (id, waited))
    }

    /// The session is gone, and with it who waited.
    pub(super) fn forget(&mut self) {
        self.open = None;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn answer(id: &str) -> Node {
        Node::parse(&format!("<iq type='result' id='{id}'/>")).unwrap()
    }

    #[test]
    fn only_its_own_answer_is_one_and_silence_is_told_once() {
        let (mut questions, begun) = (Questions::default(), Duration::from_secs(1));
        assert!(questions.next(begun).contains("id='question-1'"));
        assert!(!questions.answered(&answer("question-2")) && questions.is_open());
        assert!(questions.answered(&answer("question-1")) && !questions.is_open());
        assert!(!questions.answered(&answer("question-1")), "an answer that nobody waits for");
        assert_eq!(questions.overdue(begun + 2 * PATIENCE), None);

        questions.next(begun);
        assert_eq!(questions.overdue(begun + PATIENCE - Duration::from_millis(1)), None);
        assert_eq!(questions.overdue(begun + PATIENCE), Some(("question-2".to_owned(), PATIENCE)));
        assert_eq!(questions.overdue(begun + 2 * PATIENCE), None);

        questions.next(begun);
        questions.forget();
        assert_eq!((questions.is_open(), questions.overdue(begun + PATIENCE)), (false, None));
    }
}
