//! One test per row of the catalogue of hostile XML; the names carry the row.

use super::*;
use crate::{ErrorType, StanzaCondition};

const DECLARATION: &str = "<?xml version='1.0'?>";

#[track_caller]
fn fails(rest: impl AsRef<[u8]>, condition: StreamCondition) {
    let text = String::from_utf8_lossy(&rest.as_ref()[..rest.as_ref().len().min(200)]).into_owned();
    let (events, error) = stream_with(Limits::c2s(), HEADER, rest.as_ref());
    assert_eq!((events.len(), error), (0, Some(condition)), "{text}");
    // Before authentication it is the same, unless the stanza is too large for that.
    if rest.as_ref().len() < 8000 {
        assert_eq!(stream_with(Limits::pre_auth(), HEADER, rest.as_ref()).1, Some(condition), "{text}");
    }
}

/// An error in place of the header.
#[track_caller]
fn fails_at_start(input: impl AsRef<[u8]>, condition: StreamCondition) {
    let (_, error) = stream_with(Limits::pre_auth(), "", input.as_ref());
    assert_eq!(error, Some(condition), "{}", String::from_utf8_lossy(input.as_ref()));
}

#[test]
fn x01_internal_dtd() {
    let bomb = "<!DOCTYPE x [<!ENTITY a 'aaaaaaaa'><!ENTITY b '&a;&a;&a;&a;'>]>";
    fails_at_start(format!("{DECLARATION}{bomb}<stream:stream/>"), StreamCondition::RestrictedXml);
    fails_at_start(bomb, StreamCondition::RestrictedXml);
    fails(bomb, StreamCondition::RestrictedXml);
    fails(format!("<message><body>{bomb}</body></message>"), StreamCondition::RestrictedXml);
}

#[test]
fn x02_external_dtd() {
    for dtd in ["<!DOCTYPE x SYSTEM 'file:///etc/passwd'>", "<!ENTITY x SYSTEM 'http://example.org/'>"] {
        fails_at_start(format!("{DECLARATION}{dtd}"), StreamCondition::RestrictedXml);
        fails(dtd, StreamCondition::RestrictedXml);
    }
}

#[test]
fn x03_comments() {
    fails("<!-- x -->", StreamCondition::RestrictedXml);
    fails("<message><!-- x --></message>", StreamCondition::RestrictedXml);
    fails("<message><body>a<!---->b</body></message>", StreamCondition::RestrictedXml);
    fails_at_start(format!("{DECLARATION}<!-- x -->"), StreamCondition::RestrictedXml);
}

#[test]
fn x04_processing_instructions() {
    fails("<?php x?>", StreamCondition::RestrictedXml);
    fails("<?xml-stylesheet x?>", StreamCondition::RestrictedXml);
    fails("<message><?x?></message>", StreamCondition::RestrictedXml);
    fails_at_start("<?x y?><stream:stream/>", StreamCondition::RestrictedXml);
}

#[test]
fn x05_undefined_entities() {
    fails("<message><body>&foo;</body></message>", StreamCondition::RestrictedXml);
    fails("<message to='&foo;'/>", StreamCondition::RestrictedXml);
    fails("<message><body>& </body></message>", StreamCondition::NotWellFormed);
    fails("<message><body>&lt</body></message>", StreamCondition::NotWellFormed);
}

#[test]
fn x06_cdata_and_its_end() {
    let body = |xml: &str| stanza(xml).stanza.payload.get(ns::CLIENT, "body").unwrap().text();
    assert_eq!(body("<message><body>a<![CDATA[<b>&amp;]]]]>c</body></message>"), "a<b>&amp;]]c");
    assert_eq!(body("<message><body><![CDATA[]]></body></message>"), "");
    fails("<message><body>]]></body></message>", StreamCondition::NotWellFormed);
    fails("<message><body>]]]]]></body></message>", StreamCondition::NotWellFormed);
    fails("<![CDATA[ ]]>", StreamCondition::BadFormat);
    fails("<message><![CDAT[", StreamCondition::NotWellFormed);
    // Harmless when it is put together from pieces, and escaped on the way out.
    let split = stanza("<message><body>]]<![CDATA[>]]></body></message>");
    assert_eq!(split.stanza.payload.bytes().as_ref(), b"<body>]]&gt;</body>");
}

#[test]
fn x07_misplaced_xml_declarations() {
    fails(DECLARATION, StreamCondition::NotWellFormed);
    fails(format!("<message>{DECLARATION}</message>"), StreamCondition::NotWellFormed);
    fails_at_start(format!(" {DECLARATION}{HEADER}"), StreamCondition::NotWellFormed);
    fails_at_start(format!("{DECLARATION}{DECLARATION}{HEADER}"), StreamCondition::NotWellFormed);
    for bad in [
        "<?xml?>",
        "<?xml ?>",
        "<?xml version='1.1'?>",
        "<?xml encoding='UTF-8'?>",
        "<?xml version='1.0' x='y'?>",
        "<?xml version='1.0' standalone='maybe'?>",
        "<?xml version='1.0' standalone='no' encoding='UTF-8'?>",
        "<?xml version='1.0' /?>",
    ] {
        fails_at_start(bad, StreamCondition::NotWellFormed);
    }
    for good in
        ["<?xml version=\"1.0\" encoding='utf-8'?>\n", "<?xml version='1.0' standalone='yes' ?>", "", "\n"]
    {
        let header = HEADER.replacen(DECLARATION, good, 1);
        let (events, error) = stream_with(Limits::c2s(), "", header.as_bytes());
        assert!(matches!(events.last(), Some(Event::Header(_))) && error.is_none(), "{good}");
    }
}

#[test]
fn x08_other_encodings() {
    for encoding in ["UTF-16", "ISO-8859-1", "UTF-7", ""] {
        let declaration = format!("<?xml version='1.0' encoding='{encoding}'?>");
        fails_at_start(declaration, StreamCondition::UnsupportedEncoding);
    }
    for mark in [&b"\xFE\xFF\0<"[..], b"\xFF\xFE<\0", b"\0\0\xFE\xFF", b"<\0?\0", b"\0<\0?"] {
        fails_at_start(mark, StreamCondition::UnsupportedEncoding);
    }
    let marked = [b"\xEF\xBB\xBF", HEADER.as_bytes()].concat();
    let (events, error) = stream_with(Limits::c2s(), "", &marked);
    assert_eq!((events.len(), error), (1, None));
}

#[test]
fn x09_invalid_utf8() {
    let invalid: [&[u8]; 9] = [
        b"\xC0\xAF",
        b"\xE0\x80\xAF",
        b"\xED\xA0\x80",
        b"\xF4\x90\x80\x80",
        b"\xF8\x88\x80\x80\x80",
        b"\xE2\x82",
        b"\x80",
        b"\xFF",
        b"\xC3",
    ];
    for bytes in invalid {
        fails([b"<message><body>", bytes, b"</body></message>"].concat(), StreamCondition::NotWellFormed);
        fails([b"<message to='", bytes, b"'/>"].concat(), StreamCondition::NotWellFormed);
        fails([b"<m", bytes, b"/>"].concat(), StreamCondition::NotWellFormed);
        fails([b"<message><![CDATA[", bytes, b"]]></message>"].concat(), StreamCondition::NotWellFormed);
    }
    // Split inside of a character (`stream_with` goes byte by byte).
    assert_eq!(stanza("<message><body>\u{20AC}\u{1F600}</body></message>").fault, None);
}

#[test]
fn x10_forbidden_characters() {
    let forbidden = (0..0x20_u32).filter(|value| ![9, 10, 13].contains(value)).chain([0xFFFE, 0xFFFF]);
    for value in forbidden {
        let raw = char::from_u32(value).unwrap();
        for character in [raw.to_string(), format!("&#{value};"), format!("&#x{value:X};")] {
            let body = format!("<message><body>{character}</body></message>");
            fails(body, StreamCondition::NotWellFormed);
            fails(format!("<message id='{character}'/>"), StreamCondition::NotWellFormed);
        }
        fails(format!("<message><![CDATA[{raw}]]></message>"), StreamCondition::NotWellFormed);
    }
    fails("\0", StreamCondition::NotWellFormed);
    for reference in ["&#xD800;", "&#x110000;"] {
        fails(format!("<message id='{reference}'/>"), StreamCondition::NotWellFormed);
    }
}

#[test]
fn x11_duplicate_attributes() {
    fails("<message id='1' id='2'/>", StreamCondition::NotWellFormed);
    fails("<message><a id='1' b='' id='1'/></message>", StreamCondition::NotWellFormed);
    fails("<message xmlns:p='u' xmlns:q='u' p:a='' q:a=''/>", StreamCondition::NotWellFormed);
    fails("<message xmlns:p='u'><a xmlns:q='u' p:a='' q:a=''/></message>", StreamCondition::NotWellFormed);
    fails("<message xmlns:p='u' xmlns:p='v'/>", StreamCondition::NotWellFormed);
}

#[test]
fn x12_undeclared_prefixes() {
    fails("<p:message/>", StreamCondition::NotWellFormed);
    fails("<message p:a=''/>", StreamCondition::NotWellFormed);
    fails("<message><p:a/></message>", StreamCondition::NotWellFormed);
    fails("<message><p:a xmlns:p='u'/><p:a/></message>", StreamCondition::NotWellFormed);
    fails_at_start("<stream:stream xmlns='jabber:client' to='a'>", StreamCondition::BadNamespacePrefix);
    fails_at_start("<foo:stream xmlns='jabber:client' to='a'>", StreamCondition::NotWellFormed);
}

#[test]
fn x13_rebinding_fixed_prefixes() {
    for declaration in [
        "xmlns:xml='u'",
        "xmlns:xmlns='u'",
        "xmlns:p=''",
        "xmlns='http://www.w3.org/2000/xmlns/'",
        "xmlns:p='http://www.w3.org/XML/1998/namespace'",
        "xmlns='http://www.w3.org/XML/1998/namespace'",
        "xmlns:xmlns='http://www.w3.org/2000/xmlns/'",
    ] {
        fails(format!("<message {declaration}/>"), StreamCondition::NotWellFormed);
        fails(format!("<message><a {declaration}/></message>"), StreamCondition::NotWellFormed);
    }
    fails("<message><xmlns:a/></message>", StreamCondition::NotWellFormed);
}

#[test]
fn x14_mismatched_end_tags() {
    // No need to wait for the end of the stanza.
    fails("<message><body></message>", StreamCondition::NotWellFormed);
    fails("<message></stream:stream>", StreamCondition::NotWellFormed);
    fails("<message></Message>", StreamCondition::NotWellFormed);
    fails("<message><p:a xmlns:p='u'></a>", StreamCondition::NotWellFormed);
    fails("<message></message x='y'>", StreamCondition::NotWellFormed);
    fails("<message></ message>", StreamCondition::NotWellFormed);
    fails("</message>", StreamCondition::NotWellFormed);
    fails("</stream>", StreamCondition::NotWellFormed);
    fails_at_start("</stream:stream>", StreamCondition::NotWellFormed);
}

#[test]
fn x15_depth() {
    let nested =
        |depth: usize| format!("<message>{}{}</message>", "<a>".repeat(depth - 1), "</a>".repeat(depth - 1));
    assert_eq!(stanza(&nested(32)).fault, None);
    fails(nested(33), StreamCondition::PolicyViolation);
    let (_, error) = read(Limits::c2s(), &[HEADER.as_bytes(), "<a xmlns='u'>".repeat(1_000_000).as_bytes()]);
    assert_eq!(error.unwrap().condition, StreamCondition::PolicyViolation);
}

#[test]
fn x16_attributes() {
    let tag = |count: usize| {
        let attributes: String = (0..count).map(|number| format!(" a{number}=''")).collect();
        format!("<message><x{attributes}/></message>")
    };
    assert_eq!(stanza(&tag(64)).fault, None);
    fails(tag(65), StreamCondition::PolicyViolation);
    let many = format!("<message{}", " a=''".repeat(800_000));
    let (_, error) = read(Limits::c2s(), &[HEADER.as_bytes(), many.as_bytes()]);
    assert_eq!(error.unwrap().condition, StreamCondition::PolicyViolation);
}

#[test]
fn x17_namespace_declarations() {
    let tag = |count: usize| {
        let declarations: String = (0..count).map(|number| format!(" xmlns:p{number}='u'")).collect();
        format!("<message><x{declarations}/></message>")
    };
    assert_eq!(stanza(&tag(32)).fault, None);
    fails(tag(33), StreamCondition::PolicyViolation);
    // In scope, not in all: siblings may declare again and again.
    assert_eq!(stanza(&format!("<message>{}</message>", "<x xmlns='u'/>".repeat(500))).fault, None);
    let nested: String =
        (0..17).map(|number| format!("<x xmlns:a{number}='u' xmlns:b{number}='u'>")).collect();
    fails(format!("<message>{nested}"), StreamCondition::PolicyViolation);
    let many = format!("<message{}", " xmlns:p='u'".repeat(800_000));
    let (_, error) = read(Limits::c2s(), &[HEADER.as_bytes(), many.as_bytes()]);
    assert_eq!(error.unwrap().condition, StreamCondition::PolicyViolation);
}

#[test]
fn x18_endless_names_values_and_text() {
    let megabyte = "x".repeat(1 << 20);
    for endless in [
        format!("<{megabyte}"),
        format!("<message {megabyte}"),
        format!("<message id='{megabyte}"),
        format!("<message><body>{megabyte}"),
        format!("<message><![CDATA[{megabyte}"),
        format!("</{megabyte}"),
        format!("<message{}", " ".repeat(1 << 20)),
    ] {
        let mut reader = Reader::new(Limits::c2s());
        reader.feed(HEADER.as_bytes());
        assert!(matches!(reader.next(), Ok(Some(Event::Header(_)))));
        let mut most = 0;
        let mut error = None;
        for piece in endless.as_bytes().chunks(4096) {
            reader.feed(piece);
            match reader.next() {
                Ok(event) => assert_eq!(event, None),
                Err(found) => error = Some(found.condition),
            }
            most = most.max(reader.buffered());
        }
        assert_eq!(error, Some(StreamCondition::PolicyViolation), "{}", &endless[..20]);
        assert!(most <= 262_144 + 4096, "{most} bytes held");
    }
}

#[test]
fn x19_elements() {
    let many = |count: usize| format!("<message>{}</message>", "<a/>".repeat(count - 1));
    assert_eq!(stanza(&many(4_096)).stanza.payload.len(), 4_095);
    fails(many(4_097), StreamCondition::PolicyViolation);
    let small = many(33);
    assert_eq!(
        stream_with(Limits::pre_auth(), HEADER, small.as_bytes()).1,
        Some(StreamCondition::PolicyViolation)
    );
    assert_eq!(stream_with(Limits::pre_auth(), HEADER, many(32).as_bytes()).1, None);
    fails(format!("<x xmlns='u'>{}</x>", "<a/>".repeat(256)), StreamCondition::PolicyViolation);
}

/// A message of exactly `size` bytes.
fn message(id: &str, size: usize) -> String {
    let frame = format!("<message{id}><body></body></message>").len();
    format!("<message{id}><body>{}</body></message>", "x".repeat(size - frame))
}

#[test]
fn x20_stanza_at_the_limit_and_over() {
    let limits = Limits { stanza_bytes: 10_000, ..Limits::c2s() };
    let run = |limits: Limits, rest: &str| stream_with(limits, HEADER, rest.as_bytes());
    let (events, error) = run(limits, &message(" id='1'", 10_000));
    assert!(
        matches!(&events[..], [Event::Stanza(Incoming { fault: None, size: 10_000, .. })]) && error.is_none()
    );

    for size in [10_001, 20_000, 40_000] {
        let (events, error) = run(limits, &(message(" id='1' to='a@b' type='chat'", size) + "<presence/>"));
        let [Event::Stanza(large), Event::Stanza(next)] = &events[..] else { panic!("{events:?} {error:?}") };
        let fault = large.fault.as_ref().unwrap();
        assert_eq!(
            (fault.condition, fault.error_type),
            (StanzaCondition::PolicyViolation, ErrorType::Modify)
        );
        assert!(fault.app.as_ref().unwrap().is(ns::ERRORS, "stanza-too-big"));
        assert_eq!((large.size, large.stanza.id.as_deref()), (size, Some("1")));
        assert_eq!(large.stanza.to.as_ref().unwrap().as_str(), "a@b");
        assert!(large.stanza.payload.is_empty() && next.stanza.is_presence());
    }
    // Far over the limit, without an id, before authentication, or no stanza: the stream ends.
    let violation = (vec![], Some(StreamCondition::PolicyViolation));
    assert_eq!(run(limits, &message(" id='1'", 40_001)), violation);
    assert_eq!(run(limits, &message("", 10_001)), violation);
    assert_eq!(run(Limits { answer_oversize: false, ..limits }, &message(" id='1'", 10_001)), violation);
    let nonza = format!("<x xmlns='u' id='1'>{}</x>", "x".repeat(70_000));
    assert_eq!(run(Limits::c2s(), &nonza), violation);
    // What is forbidden stays forbidden in what is skipped.
    let hidden = message(" id='1'", 12_000).replace("</body>", "<!-- --></body>");
    assert_eq!(run(limits, &hidden), (vec![], Some(StreamCondition::RestrictedXml)));
}

#[test]
fn x21_white_space_between_stanzas() {
    let mut reader = Reader::new(Limits::c2s());
    reader.feed(HEADER.as_bytes());
    assert!(matches!(reader.next(), Ok(Some(Event::Header(_)))));
    let spaces = vec![b' '; 1 << 20];
    for _ in 0..64 {
        reader.feed(&spaces);
        assert_eq!(reader.buffered(), 0);
        assert_eq!(reader.next(), Ok(Some(Event::Whitespace(1 << 20))));
        assert_eq!(reader.next(), Ok(None));
        assert!(reader.idle());
    }
}

#[test]
fn x22_text_under_the_root() {
    fails("hello", StreamCondition::BadFormat);
    fails("&#32;", StreamCondition::BadFormat);
    fails("\u{a0}", StreamCondition::BadFormat);
    fails_at_start("GET / HTTP/1.1\r\n", StreamCondition::NotWellFormed);
    fails_at_start("\x16\x03\x01\x02\x00", StreamCondition::NotWellFormed);
    fails_at_start(format!("{DECLARATION}text"), StreamCondition::NotWellFormed);
}

#[test]
fn x23_slow_input_is_seen_as_incomplete() {
    let mut reader = Reader::new(Limits::pre_auth());
    assert!(reader.idle());
    for byte in HEADER.bytes().chain("<message to='a@b'><bo".bytes()) {
        reader.feed(&[byte]);
        let _ = reader.next().unwrap();
    }
    assert!(!reader.idle() && reader.buffered() >= 3);
    reader.feed(b"dy/></message>");
    assert!(matches!(reader.next(), Ok(Some(Event::Stanza(_)))));
    assert!(reader.idle() && reader.buffered() == 0);
}

#[test]
fn x24_names_are_expanded_names() {
    let payload = |xml: &str| stanza(xml).stanza.payload;
    assert!(!payload("<message><body xmlns='u'/></message>").has(ns::CLIENT, "body"));
    assert!(!payload("<message><body xmlns=''/></message>").has(ns::CLIENT, "body"));
    assert!(payload("<message><p:body xmlns:p='jabber:client'/></message>").has(ns::CLIENT, "body"));
    assert!(payload("<message><body xmlns='jabber&#58;client'/></message>").has(ns::CLIENT, "body"));
    assert!(payload("<message><body xmlns='\u{F8FF}'/></message>").has("\u{F8FF}", "body"));
    assert!(payload("<message xmlns:stream='u'><stream:a/></message>").has("u", "a"));
    // The prefix of the header is in force, and so is what an outer element says.
    assert!(payload("<message><stream:a/></message>").has(ns::STREAMS, "a"));
    assert_eq!(
        payload("<p:message xmlns:p='jabber:client' xmlns='u'><x><p:y xmlns=''><z/></p:y></x></p:message>")
            .bytes()
            .as_ref(),
        b"<x xmlns='u'><y xmlns='jabber:client'><z xmlns=''/></y></x>"
    );
    fails("<message xmlns='u'><x/></p>", StreamCondition::NotWellFormed);
}

#[test]
fn x25_the_other_content_namespace() {
    fails("<message xmlns='jabber:server'/>", StreamCondition::InvalidNamespace);
    fails("<iq xmlns='' id='1'/>", StreamCondition::InvalidNamespace);
    let server = HEADER.replace("jabber:client", "jabber:server");
    let run = |rest: &str| stream_with(Limits::s2s(), &server, rest.as_bytes());
    assert_eq!(run("<message xmlns='jabber:client'/>").1, Some(StreamCondition::InvalidNamespace));
    let (events, _) = run("<message><body/><f xmlns='u'><body xmlns='jabber:server'/></f></message>");
    let [Event::Stanza(incoming)] = &events[..] else { panic!() };
    // The same bytes serve in both kinds of stream.
    let expected = b"<body/><f xmlns='u'><body xmlns='jabber:client'/></f>";
    assert_eq!(incoming.stanza.payload.bytes().as_ref(), expected);
}

#[test]
fn x26_unknown_first_level_elements() {
    fails("<stream:foo/>", StreamCondition::UnsupportedStanzaType);
    fails("<foo/>", StreamCondition::UnsupportedStanzaType);
    fails("<foo xmlns='jabber:server'/>", StreamCondition::UnsupportedStanzaType);
    fails("<foo xmlns=''/>", StreamCondition::UnsupportedStanzaType);
    // Those of other namespaces are for the negotiation to judge.
    let (events, error) = stream("<foo xmlns='urn:foo' a='1'>x<bar/></foo>");
    assert_eq!(error, None);
    let expected: Element = "<foo xmlns='urn:foo' a='1'>x<bar/></foo>".parse().unwrap();
    assert_eq!(events, [Event::Nonza(expected)]);
}

#[test]
fn t16_a_second_header() {
    fails(&HEADER[DECLARATION.len()..], StreamCondition::BadFormat);
    fails(HEADER, StreamCondition::NotWellFormed);
}

#[test]
fn t09_what_was_sent_before_tls_is_dropped() {
    let mut reader = Reader::new(Limits::pre_auth());
    reader.feed(HEADER.as_bytes());
    reader.feed(b"<starttls xmlns='urn:ietf:params:xml:ns:xmpp-tls'/><auth xmlns='urn:ietf:params:xml:ns:xmpp-sasl'/>");
    assert!(matches!(reader.next(), Ok(Some(Event::Header(_)))));
    assert!(matches!(reader.next(), Ok(Some(Event::Nonza(_)))));
    reader.restart();
    reader.clear();
    assert_eq!((reader.next(), reader.buffered()), (Ok(None), 0));
    reader.feed(HEADER.as_bytes());
    assert!(matches!(reader.next(), Ok(Some(Event::Header(_)))));
}

#[test]
fn a_pipelined_header_is_read_after_sasl() {
    let mut reader = Reader::new(Limits::pre_auth());
    let auth = "<auth xmlns='urn:ietf:params:xml:ns:xmpp-sasl' mechanism='PLAIN'>AGE=</auth>\n";
    reader.feed([HEADER, auth, HEADER, "<presence/>"].concat().as_bytes());
    assert!(matches!(reader.next(), Ok(Some(Event::Header(_)))));
    let Ok(Some(Event::Nonza(nonza))) = reader.next() else { panic!() };
    assert_eq!((nonza.attribute("mechanism"), nonza.content()), (Some("PLAIN"), "AGE=".to_owned()));
    reader.restart();
    reader.set_limits(Limits::c2s());
    assert_eq!(reader.next(), Ok(Some(Event::Whitespace(1))));
    assert!(matches!(reader.next(), Ok(Some(Event::Header(_)))));
    assert!(matches!(reader.next(), Ok(Some(Event::Stanza(_)))));
}

#[test]
fn frames_stand_alone() {
    let mut reader = Reader::framed(Limits::c2s());
    reader.feed(b"<open xmlns='urn:ietf:params:xml:ns:xmpp-framing' to='a'/>");
    assert!(matches!(reader.next(), Ok(Some(Event::Nonza(open))) if open.is(ns::FRAMING, "open")));
    reader.feed(b"<message xmlns='jabber:client'><body>x</body></message>");
    let Ok(Some(Event::Stanza(incoming))) = reader.next() else { panic!() };
    assert_eq!(incoming.stanza.payload.bytes().as_ref(), b"<body>x</body>");
    reader.feed(b"<message/>");
    assert_eq!(reader.next().unwrap_err().condition, StreamCondition::InvalidNamespace);
    let mut reader = Reader::framed(Limits::c2s());
    reader.feed(b"</>");
    assert_eq!(reader.next().unwrap_err().condition, StreamCondition::NotWellFormed);
}

#[test]
fn an_empty_root_ends_the_stream() {
    let header = HEADER.replace("'>", "'/>");
    let (events, error) = stream_with(Limits::c2s(), &header, b"<message/>");
    assert_eq!((events, error), (vec![Event::End], None));
}
