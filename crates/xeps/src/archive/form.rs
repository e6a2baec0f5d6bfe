//! The form of an archive query (XEP-0313 §4.1): which rows are wanted, as the client says it.

use compact_str::CompactString;
use starling_xmpp::{Element, Jid, StanzaCondition, StanzaError, Timestamp, ns};

/// Feature: the field `include-groupchat` is understood (XEP-0313 §7).
pub const GROUPCHAT_FIELD: &str = "urn:xmpp:mam:2#groupchat-field";

/// Validation of form fields (XEP-0122).
const VALIDATE: &str = "http://jabber.org/protocol/xdata-validate";

/// What a submitted form says. Ids are not looked up yet.
#[derive(Debug, Default, PartialEq, Eq)]
pub struct Form {
    /// Messages with this address only.
    pub with: Option<Jid>,
    /// Not before.
    pub start: Option<Timestamp>,
    /// Not after.
    pub end: Option<Timestamp>,
    /// Before the row of this id.
    pub before_id: Option<CompactString>,
    /// After the row of this id.
    pub after_id: Option<CompactString>,
    /// The rows of these ids only.
    pub ids: Option<Vec<CompactString>>,
}

impl Form {
    /// Reads the form in a query; a query without one wants everything.
    ///
    /// # Errors
    /// `bad-request` for a form that is not one, or whose values are of the wrong type; `feature-not-implemented` for a field
    /// that is not known (XEP-0313 §4.1.5).
    pub fn of(query: &Element) -> Result<Self, StanzaError> {
        let mut form = Self::default();
        let Some(x) = query.find(ns::DATA, "x") else { return Ok(form) };
        if x.attribute("type") != Some("submit") {
            return Err(wrong("the form is not submitted"));
        }
        let mut seen = Vec::new();
        for field in x.children().filter(|child| child.is(ns::DATA, "field")) {
            let var = field.attribute("var").ok_or_else(|| wrong("a field has no name"))?;
            if seen.contains(&var) {
                return Err(wrong("a field appears twice"));
            }
            seen.push(var);
            form.take(var, field)?;
        }
        if !seen.contains(&"FORM_TYPE") {
            return Err(wrong("the form has no type"));
        }
        Ok(form)
    }

    fn take(&mut self, var: &str, field: &Element) -> Result<(), StanzaError> {
        match var {
            "FORM_TYPE" if single(field)?.as_deref() == Some(ns::MAM) => {}
            "FORM_TYPE" => return Err(wrong("the form is of another type")),
            "with" => self.with = typed(field, |text| Jid::parse(text).ok())?,
            "start" => self.start = typed(field, Timestamp::parse)?,
            "end" => self.end = typed(field, Timestamp::parse)?,
            "before-id" => self.before_id = single(field)?,
            "after-id" => self.after_id = single(field)?,
            "ids" => self.ids = Some(values(field).collect()),
            // There are no rooms' messages here, so both values mean the same.
            "include-groupchat" => {
                typed(field, |text| ["true", "1", "false", "0"].contains(&text).then_some(()))?;
            }
            _ => {
                let text = "the archive does not know one of the fields";
                return Err(StanzaError::new(StanzaCondition::FeatureNotImplemented).with_text(text));
            }
        }
        Ok(())
    }
}

fn values(field: &Element) -> impl Iterator<Item = CompactString> {
    let values = field.children().filter(|child| child.is(ns::DATA, "value"));
    values.map(|value| CompactString::from(value.content()))
}

/// The one value of a field; a field without one says nothing.
fn single(field: &Element) -> Result<Option<CompactString>, StanzaError> {
    let mut values = values(field);
    let value = values.next();
    if values.next().is_some() { Err(wrong("a field has two values")) } else { Ok(value) }
}

fn typed<T>(field: &Element, read: impl FnOnce(&str) -> Option<T>) -> Result<Option<T>, StanzaError> {
    single(field)?
        .map(|text| read(text.trim()).ok_or_else(|| wrong("a value is of the wrong type")))
        .transpose()
}

fn wrong(text: &'static str) -> StanzaError {
    StanzaError::new(StanzaCondition::BadRequest).with_text(text)
}

/// The form with all fields that may be asked for (XEP-0313 §4.1.5).
pub fn blank() -> Element {
    let field = |kind, var| Element::new(ns::DATA, "field").attr("type", kind).attr("var", var);
    let any = Element::new(VALIDATE, "validate")
        .attr("datatype", "xs:string")
        .child(Element::new(VALIDATE, "open"));
    let form = Element::new(ns::DATA, "x")
        .attr("type", "form")
        .child(field("hidden", "FORM_TYPE").child(Element::new(ns::DATA, "value").text(ns::MAM)))
        .child(field("jid-single", "with"))
        .child(field("text-single", "start"))
        .child(field("text-single", "end"))
        .child(field("text-single", "before-id"))
        .child(field("text-single", "after-id"))
        .child(field("list-multi", "ids").child(any))
        .child(field("boolean", "include-groupchat"));
    Element::new(ns::MAM, "query").child(form)
}

#[cfg(test)]
mod tests {
    use super::*;
    use starling_hooks::bench::{element, jid};

    const TYPE: &str = "<field var='FORM_TYPE' type='hidden'><value>urn:xmpp:mam:2</value></field>";

    fn read(fields: &str) -> Result<Form, &'static str> {
        let xml = format!(
            "<query xmlns='urn:xmpp:mam:2'><x xmlns='jabber:x:data' type='submit'>{fields}</x></query>"
        );
        Form::of(&element(&xml)).map_err(|error| error.condition.as_str())
    }

    fn field(var: &str, values: &[&str]) -> String {
        let values: String = values.iter().map(|value| format!("<value>{value}</value>")).collect();
        format!("<field var='{var}'>{values}</field>")
    }

    #[test]
    fn reads_what_is_wanted() {
        assert_eq!(Form::of(&element("<query xmlns='urn:xmpp:mam:2'/>")), Ok(Form::default()));
        assert_eq!(read(TYPE), Ok(Form::default()));
        let fields = [
            field("with", &["Bob@localhost"]),
            field("start", &["2010-06-07T00:00:00Z"]),
            field("end", &["2010-06-07T02:00:00+01:00"]),
            field("before-id", &["b"]),
            field("after-id", &["a"]),
            field("ids", &["1", "2"]),
            field("include-groupchat", &["false"]),
        ];
        let form = read(&(TYPE.to_owned() + &fields.concat())).unwrap();
        let expected = Form {
            with: Some(jid("bob@localhost")),
            start: Timestamp::parse("2010-06-07T00:00:00Z"),
            end: Timestamp::parse("2010-06-07T01:00:00Z"),
            before_id: Some("b".into()),
            after_id: Some("a".into()),
            ids: Some(vec!["1".into(), "2".into()]),
        };
        assert_eq!(form, expected);
        assert_eq!(read(&(TYPE.to_owned() + &field("with", &[]))), Ok(Form::default()));
    }

    #[test]
    fn refuses_what_is_wrong() {
        for (bad, condition) in [
            (field("with", &["a@@b"]), "bad-request"),
            (field("with", &["a@b", "c@d"]), "bad-request"),
            (field("start", &["yesterday"]), "bad-request"),
            (field("end", &[""]), "bad-request"),
            (field("start", &["2010-06-07T00:00:00Z"]).repeat(2), "bad-request"),
            (field("include-groupchat", &["maybe"]), "bad-request"),
            ("<field><value>x</value></field>".to_owned(), "bad-request"),
            (field("FORM_TYPE", &["urn:xmpp:mam:2"]), "bad-request"),
            (field("{http://example.com/}free-text-search", &["x"]), "feature-not-implemented"),
            (field("withtext", &["x"]), "feature-not-implemented"),
        ] {
            assert_eq!(read(&(TYPE.to_owned() + &bad)), Err(condition), "{bad}");
        }
        assert_eq!(read(""), Err("bad-request"));
        assert_eq!(read(&field("FORM_TYPE", &["urn:xmpp:mam:1"])), Err("bad-request"));
        let cancelled =
            element("<query xmlns='urn:xmpp:mam:2'><x xmlns='jabber:x:data' type='cancel'/></query>");
        assert_eq!(Form::of(&cancelled).unwrap_err().condition, StanzaCondition::BadRequest);
    }

    #[test]
    fn shows_every_field_that_it_reads() {
        let blank = blank();
        let x = blank.find(ns::DATA, "x").unwrap();
        for field in x.children() {
            let var = field.attribute("var").unwrap();
            assert_ne!(
                Form::default().take(var, field).map_err(|error| error.condition),
                Err(StanzaCondition::FeatureNotImplemented),
                "{var}"
            );
        }
        assert_eq!(x.child_count(), 8);
    }
}
