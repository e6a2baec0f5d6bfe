//! Properties over generated input.

use proptest::{collection::vec, prelude::*, sample::select};

use super::*;

/// Pieces that make up well-formed and ill-formed input alike.
const PIECES: &[&str] = &[
    "<message to='a@b' id='1'>",
    "</message>",
    "<body>",
    "</body>",
    "<a xmlns='u'>",
    "</a>",
    "<p:b xmlns:p='v'>",
    "</p:b>",
    "<c/>",
    "<c p='1' q=\"2>'\"/>",
    "text",
    "&amp;",
    "&#65;",
    "&lt;",
    "]]",
    "<![CDATA[<x>]]>",
    " ",
    "\r\n",
    "<presence/>",
    "<iq id='1' type='get'>",
    "</iq>",
    "\u{20AC}",
    "<r xmlns='urn:xmpp:sm:3'/>",
    "<e a='\n'/>",
    "xml:lang='de'",
    "<!-- -->",
    "<?p?>",
    "&x;",
    "]]>",
    "<f",
    ">",
    "'",
    "=",
    "</stream:stream>",
    "\0",
];

fn input() -> impl Strategy<Value = String> {
    vec(select(PIECES), 0..40).prop_map(|pieces| pieces.concat())
}

/// A stanza that is well-formed by construction.
pub(super) fn element(depth: u32) -> BoxedStrategy<String> {
    let name = select(&["a", "b", "p:c", "d", "body", "\u{E9}"][..]);
    let attribute = select(
        &[
            "",
            " x='1'",
            " x='&lt;&amp;&quot;'",
            " y=\"'&gt;'\"",
            " p:z='1'",
            " p:z='1' q:z='2' z='3'",
            " xml:lang='de'",
            " w='a\nb&#10;'",
            " xmlns='u'",
            " xmlns=''",
            " xmlns:p='w' p:v='>'",
            " xmlns='jabber:client'",
            " xmlns='u&amp;v'",
            " xmlns='jabber:server'",
        ][..],
    );
    let text = select(
        &[
            "",
            "t",
            "&lt;&amp;&gt;&apos;&quot;",
            "<![CDATA[<&>]]]>",
            "a\r\nb\rc&#13;",
            "\u{1F600}",
            "]>",
            "'\"",
            "&#x9;",
        ][..],
    );
    let children = match depth {
        0 => Just(String::new()).boxed(),
        _ => vec(element(depth - 1), 0..4).prop_map(|children| children.concat()).boxed(),
    };
    (name, attribute, text, children, text_after())
        .prop_map(|(name, attribute, text, children, after)| {
            if text.is_empty() && children.is_empty() && after.is_empty() {
                format!("<{name}{attribute}/>")
            } else {
                format!("<{name}{attribute} >{text}{children}{after}</{name}\n>")
            }
        })
        .boxed()
}

fn text_after() -> impl Strategy<Value = &'static str> {
    select(&["", "", "x", "<![CDATA[]]>"][..])
}

fn message() -> impl Strategy<Value = String> {
    vec(element(3), 0..4).prop_map(|children| {
        format!("<message xmlns:p='urn:p' xmlns:q='urn:q' id='1'>{}</message>", children.concat())
    })
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(400))]

    #[test]
    fn any_split_gives_the_same_events(rest in input(), cuts in vec(0.0..1.0_f64, 0..12)) {
        let all = [HEADER.as_bytes(), rest.as_bytes()].concat();
        let mut cuts: Vec<_> = cuts.into_iter().map(|cut| (cut * all.len() as f64) as usize).collect();
        cuts.sort_unstable();
        let mut pieces = Vec::new();
        let mut from = 0;
        for cut in cuts.into_iter().chain([all.len()]) {
            pieces.push(&all[from..cut]);
            from = cut;
        }
        let limits = Limits { stanza_bytes: 200, attribute_bytes: 12, ..Limits::c2s() };
        for limits in [limits, Limits::c2s()] {
            let whole = read(limits, &[&all]);
            prop_assert_eq!(&read(limits, &pieces), &whole);
            let bytes: Vec<_> = all.chunks(1).collect();
            prop_assert_eq!(&read(limits, &bytes), &whole);
        }
    }

    #[test]
    fn what_is_written_is_read_back_the_same(message in message()) {
        let first = stanza(&message).stanza;
        let mut out = Vec::new();
        first.write(&mut out);
        let second = stanza(std::str::from_utf8(&out).unwrap()).stanza;
        prop_assert_eq!(&second, &first);
        let mut again = Vec::new();
        second.write(&mut again);
        prop_assert_eq!(&again, &out);
        // The tree, the encoding and the index agree with it.
        prop_assert_eq!(&Stanza::decode(first.encode()).unwrap(), &first);
        prop_assert_eq!(&Stanza::from_element(&first.to_element()).unwrap(), &first);
        let parsed = crate::Payload::parse(first.payload.bytes().clone()).unwrap();
        for (left, right) in parsed.children().zip(first.payload.children()) {
            prop_assert_eq!((left.ns(), left.name(), left.bytes()), (right.ns(), right.name(), right.bytes()));
            let element = right.element();
            let written = element.to_string();
            prop_assert_eq!(written.as_bytes(), right.bytes());
            prop_assert_eq!((element.ns(), element.name(), element.content()), (right.ns(), right.name(), right.text()));
            for (ns, name, value) in element.attributes().filter(|(ns, ..)| ns.is_empty()) {
                let found = right.attribute(name);
                prop_assert_eq!(found.as_deref(), Some(value), "{}{}", ns, name);
            }
        }
        prop_assert_eq!(parsed.len(), first.payload.len());
    }

    #[test]
    fn no_input_panics(bytes in vec(any::<u8>(), 0..200), rest in input()) {
        let _ = read(Limits::c2s(), &[&bytes]);
        let _ = read(Limits::c2s(), &[HEADER.as_bytes(), &bytes]);
        let _ = read(Limits::pre_auth(), &[HEADER.as_bytes(), rest.as_bytes(), &bytes]);
        let _ = Element::parse(&bytes, ns::CLIENT);
        let _ = Stanza::decode(bytes.clone().into());
        if let Ok(payload) = crate::Payload::parse(bytes.into()) {
            for child in payload.children() {
                let _ = (child.text(), child.attribute("x"), child.element());
            }
        }
    }
}
