use super::*;

fn payload(xml: &str) -> Payload {
    let element: Element = format!("<x>{xml}</x>").parse().unwrap();
    Payload::from_elements(element.children().cloned())
}

#[test]
fn children_are_found_by_expanded_name() {
    let all = payload(
        "<body>hi &amp; bye</body><active xmlns='urn:a'/><x xmlns='urn:b?p=1&amp;q'><y/></x><z xmlns=''/>",
    );
    assert_eq!(all.len(), 4);
    assert_eq!(all.get(ns::CLIENT, "body").unwrap().text(), "hi & bye");
    assert!(all.has("urn:a", "active") && !all.has(ns::CLIENT, "active"));
    assert!(all.has("urn:b?p=1&q", "x") && all.has_ns("urn:a") && !all.has_ns("urn:c"));
    assert!(all.has("", "z"));
    assert_eq!(
        all.bytes().as_ref(),
        b"<body>hi &amp; bye</body><active xmlns='urn:a'/><x xmlns='urn:b?p=1&amp;q'><y/></x><z xmlns=''/>"
    );
    assert_eq!(format!("{all:?}"), "[{jabber:client}body, {urn:a}active, {urn:b?p=1&q}x, {}z]");
}

#[test]
fn a_child_shows_its_attributes_and_text() {
    let all =
        payload("<a xmlns='u' id='1&apos;2' xml:lang='de' xmlns:p='q' p:id='no'>x<b>y</b>z<c/>&lt;</a>");
    let child = all.get("u", "a").unwrap();
    assert_eq!(child.attribute("id").as_deref(), Some("1'2"));
    assert_eq!(child.lang().as_deref(), Some("de"));
    assert_eq!(child.attribute("xmlns"), None);
    assert_eq!(child.attribute("d"), None);
    assert_eq!(child.text(), "xz<");
    let element = child.element();
    assert_eq!(element.attribute("id"), Some("1'2"));
    assert_eq!(element.attribute_ns("q", "id"), Some("no"));
    assert_eq!(element.content(), "xz<");
    assert_eq!(element.to_string().as_bytes(), child.bytes());
}

#[test]
fn children_are_added_and_removed() {
    let all = payload("<body>1</body>").with(&Element::new("urn:x", "y")).with(&Element::new("", "n"));
    assert_eq!(all.len(), 3);
    assert!(all.has("urn:x", "y") && all.has("", "n"));
    let rest = all.without(|child| child.ns() == "urn:x");
    assert_eq!(rest.bytes().as_ref(), b"<body>1</body><n xmlns=''/>");
    let same = rest.without(|_| false);
    assert_eq!(same.bytes().as_ptr(), rest.bytes().as_ptr());
    assert!(all.without(|_| true).is_empty());
    assert_eq!(all.without(|_| true).bytes().len(), 0);
}

#[test]
fn damaged_bytes_are_refused_or_harmless() {
    for bad in ["x", "<a", "<a>", "<a></a", "</a>", "<a/>x", "<>", "< a/>", "<a><b></a>"] {
        assert!(Payload::parse(Bytes::from_static(bad.as_bytes())).is_err(), "{bad}");
    }
    assert!(Payload::parse(Bytes::new()).unwrap().is_empty());
    let odd = Payload::parse(Bytes::from_static(b"<a b='&x;'>&y;</a>")).unwrap();
    let child = odd.children().next().unwrap();
    assert_eq!(child.attribute("b").as_deref(), Some("&x;"));
    assert_eq!(child.text(), "");
    assert!(child.element().is(ns::CLIENT, "a"));
}

#[test]
fn names_that_no_index_can_hold_leave_the_payload_empty() {
    let long = "u".repeat(65_533);
    assert!(Payload::from(Element::new(&long, "a")).has(&long, "a"));
    assert!(Payload::from(Element::new(&(long + "u"), "a")).is_empty());
}
