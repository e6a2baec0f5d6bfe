//! X01 to X14, X22, X24 to X26: XML that is none, or more than XMPP allows.

use anyhow::{Result, ensure};

use crate::scene::{ALONE, Case, Phase, Scene, cases, header_ends_with, usual_header};

use Phase::{Bound, Clear, Secure};

const RESTRICTED: &[&str] = &["restricted-xml"];
const NOT_WELL_FORMED: &[&str] = &["not-well-formed"];

pub(crate) fn cases() -> Vec<Case> {
    cases![
        x01_entity_expansion with ALONE,
        x02_external_entity,
        x03_comment,
        x04_processing_instruction,
        x05_undefined_entity,
        x06_cdata_is_text,
        x06_cdata_end_in_text,
        x07_second_declaration,
        x08_foreign_encoding,
        x09_broken_utf8,
        x10_forbidden_characters,
        x11_duplicate_attribute,
        x12_undeclared_prefix,
        x13_reserved_prefix_rebound,
        x14_mismatched_tags,
        x22_text_between_stanzas,
        x24_names_are_expanded,
        x24_default_namespace_reset,
        x25_server_namespace,
        x26_unknown_element,
    ]
}

async fn x01_entity_expansion(scene: &mut Scene) -> Result<()> {
    scene.account("mallory").await?;
    let mut dtd = String::from("<!DOCTYPE lolz [<!ENTITY a0 'ha'>");
    for level in 1..10 {
        let inner = format!("&a{};", level - 1).repeat(10);
        dtd.push_str(&format!("<!ENTITY a{level} '{inner}'>"));
    }
    dtd.push_str("]><x>&a9;</x>");
    let before = scene.server.resident()?;
    scene.ends_with(&[Clear, Secure, Bound], dtd.as_bytes(), RESTRICTED).await?;
    // Before the header of the stream, where a document type belongs in a document.
    let early = format!("<?xml version='1.0'?>{dtd}");
    header_ends_with(scene, early.as_bytes(), RESTRICTED).await?;
    let grown = scene.server.resident()?.saturating_sub(before);
    ensure!(grown < 32 << 20, "memory grew by {grown} bytes");
    Ok(())
}

async fn x02_external_entity(scene: &mut Scene) -> Result<()> {
    scene.account("mallory").await?;
    for dtd in [
        "<!DOCTYPE x SYSTEM 'file:///etc/passwd'><x/>",
        "<!DOCTYPE x [<!ENTITY e SYSTEM 'file:///etc/passwd'>]><x>&e;</x>",
        "<!DOCTYPE x PUBLIC '-//x' 'http://127.0.0.1:1/x.dtd'><x/>",
        "<!ENTITY e 'x'>",
        "<!ELEMENT e ANY>",
    ] {
        scene.ends_with(&[Clear, Bound], dtd.as_bytes(), RESTRICTED).await?;
        header_ends_with(scene, format!("<?xml version='1.0'?>{dtd}").as_bytes(), RESTRICTED).await?;
    }
    Ok(())
}

async fn x03_comment(scene: &mut Scene) -> Result<()> {
    scene.account("mallory").await?;
    for xml in [
        "<!-- between -->",
        "<message><!-- inside --></message>",
        "<message><body>a<!-- -->b</body></message>",
    ] {
        scene.ends_with(&[Clear, Secure, Bound], xml.as_bytes(), RESTRICTED).await?;
    }
    header_ends_with(scene, b"<?xml version='1.0'?><!-- early --><x/>", RESTRICTED).await
}

async fn x04_processing_instruction(scene: &mut Scene) -> Result<()> {
    scene.account("mallory").await?;
    for xml in ["<?php echo 1 ?>", "<message><?target data?></message>", "<?xml-stylesheet href='x'?>"] {
        scene.ends_with(&[Clear, Bound], xml.as_bytes(), RESTRICTED).await?;
    }
    header_ends_with(scene, b"<?xml version='1.0'?><?early pi?><x/>", RESTRICTED).await
}

async fn x05_undefined_entity(scene: &mut Scene) -> Result<()> {
    scene.account("mallory").await?;
    for xml in ["<message><body>&foo;</body></message>", "<message to='&foo;'/>", "<iq id='&nbsp;'/>"] {
        scene.ends_with(&[Clear, Bound], xml.as_bytes(), &["restricted-xml", "not-well-formed"]).await?;
    }
    scene.ends_with(&[Bound], b"<message><body>a & b</body></message>", NOT_WELL_FORMED).await?;
    scene.ends_with(&[Bound], b"<message><body>&amp</body></message>", NOT_WELL_FORMED).await
}

async fn x06_cdata_is_text(scene: &mut Scene) -> Result<()> {
    let mut alice = scene.client("alice").await?;
    let jid = alice.jid().to_owned();
    let body = "<body>a<![CDATA[<b attr='&lt;'> & ]]]]><![CDATA[>c]]></body>";
    alice.send(&format!("<message to='{jid}' type='chat'>{body}</message>")).await?;
    let message = alice.next().await?;
    ensure!(message.body().as_deref() == Some("a<b attr='&lt;'> & ]]>c"), "{message}");
    Ok(())
}

async fn x06_cdata_end_in_text(scene: &mut Scene) -> Result<()> {
    scene.account("mallory").await?;
    scene.ends_with(&[Clear, Bound], b"<message><body>a ]]> b</body></message>", NOT_WELL_FORMED).await?;
    scene
        .ends_with(&[Clear, Bound], b"<![CDATA[between]]>", &["bad-format", "not-well-formed", "invalid-xml"])
        .await
}

async fn x07_second_declaration(scene: &mut Scene) -> Result<()> {
    scene.account("mallory").await?;
    scene.ends_with(&[Clear, Bound], b"<?xml version='1.0'?>", NOT_WELL_FORMED).await?;
    scene.ends_with(&[Bound], b"<message><?xml version='1.0'?></message>", NOT_WELL_FORMED).await?;
    // A declaration that is not the very first thing.
    header_ends_with(scene, format!(" {}", usual_header()).as_bytes(), NOT_WELL_FORMED).await?;
    let twice = format!("<?xml version='1.0'?>{}", usual_header());
    header_ends_with(scene, twice.as_bytes(), NOT_WELL_FORMED).await
}

async fn x08_foreign_encoding(scene: &mut Scene) -> Result<()> {
    let unsupported = &["unsupported-encoding"];
    for encoding in ["UTF-16", "ISO-8859-1", "UTF-7", "US-ASCII"] {
        let header =
            usual_header().replace("version='1.0'?>", &format!("version='1.0' encoding='{encoding}'?>"));
        header_ends_with(scene, header.as_bytes(), unsupported).await?;
    }
    let wide: Vec<u8> = usual_header().encode_utf16().flat_map(u16::to_le_bytes).collect();
    let marked = [&[0xFF, 0xFE][..], &wide].concat();
    header_ends_with(scene, &marked, &["unsupported-encoding", "not-well-formed"]).await?;
    header_ends_with(scene, &wide, &["unsupported-encoding", "not-well-formed"]).await?;
    let big: Vec<u8> = usual_header().encode_utf16().flat_map(u16::to_be_bytes).collect();
    header_ends_with(
        scene,
        &[&[0xFE, 0xFF][..], &big].concat(),
        &["unsupported-encoding", "not-well-formed"],
    )
    .await?;
    // UTF-8 itself, in either case, is fine.
    for encoding in ["UTF-8", "utf-8"] {
        let mut stream = scene.raw().await?;
        let header =
            usual_header().replace("version='1.0'?>", &format!("version='1.0' encoding='{encoding}'?>"));
        stream.send(header.as_bytes()).await?;
        stream.next().await?;
        ensure!(stream.node().await?.name == "features", "{encoding} is not taken");
    }
    Ok(())
}

async fn x09_broken_utf8(scene: &mut Scene) -> Result<()> {
    scene.account("mallory").await?;
    let broken: [&[u8]; 10] = [
        b"\xC0\x80",         // overlong NUL
        b"\xC1\xBF",         // overlong
        b"\xE0\x80\xAF",     // overlong slash
        b"\xF0\x80\x80\xAF", // overlong
        b"\xED\xA0\x80",     // surrogate
        b"\xF4\x90\x80\x80", // beyond U+10FFFF
        b"\xFF",             // never valid
        b"\x80",             // continuation alone
        b"\xE2\x82",         // cut short
        b"\xF0\x9F\x98",     // cut short
    ];
    for bytes in broken {
        let text = [b"<message><body>".as_slice(), bytes, b"</body></message>"].concat();
        scene
            .ends_with(&[Clear, Bound], &text, &["bad-format", "not-well-formed", "unsupported-encoding"])
            .await?;
    }
    let name = [b"<message><".as_slice(), b"\xFF", b"/></message>"].concat();
    scene.ends_with(&[Bound], &name, &["bad-format", "not-well-formed", "unsupported-encoding"]).await?;
    let attribute = [b"<message to='".as_slice(), b"\xED\xA0\x80", b"'/>"].concat();
    scene.ends_with(&[Bound], &attribute, &["bad-format", "not-well-formed", "unsupported-encoding"]).await?;
    // Four good bytes, cut at every place by the network, are fine.
    let mut alice = scene.client("alice").await?;
    let jid = alice.jid().to_owned();
    let xml = format!("<message to='{jid}' type='chat'><body>\u{1F426}\u{20AC}\u{E9}</body></message>");
    alice.stream().send_bytewise(xml.as_bytes()).await?;
    let message = alice.next().await?;
    ensure!(message.body().as_deref() == Some("\u{1F426}\u{20AC}\u{E9}"), "{message}");
    Ok(())
}

async fn x10_forbidden_characters(scene: &mut Scene) -> Result<()> {
    scene.account("mallory").await?;
    for bad in [
        "\0",
        "\u{1}",
        "\u{8}",
        "\u{B}",
        "\u{1F}",
        "\u{FFFE}",
        "\u{FFFF}",
        "&#0;",
        "&#x1;",
        "&#x1F;",
        "&#xFFFE;",
        "&#xD800;",
        "&#x110000;",
        "&#99999999999;",
        "&#;",
        "&#x;",
    ] {
        let text = format!("<message><body>{bad}</body></message>");
        scene.ends_with(&[Bound], text.as_bytes(), NOT_WELL_FORMED).await?;
        let attribute = format!("<message id='{bad}'/>");
        scene.ends_with(&[Clear], attribute.as_bytes(), NOT_WELL_FORMED).await?;
    }
    Ok(())
}

async fn x11_duplicate_attribute(scene: &mut Scene) -> Result<()> {
    scene.account("mallory").await?;
    for xml in [
        "<message to='a@localhost' to='b@localhost'/>",
        "<message><x xmlns:p='urn:x' xmlns:q='urn:x' p:a='1' q:a='2'/></message>",
        "<message><x xmlns='urn:x' xmlns='urn:y'/></message>",
    ] {
        scene.ends_with(&[Clear, Bound], xml.as_bytes(), NOT_WELL_FORMED).await?;
    }
    Ok(())
}

async fn x12_undeclared_prefix(scene: &mut Scene) -> Result<()> {
    scene.account("mallory").await?;
    for xml in ["<p:message/>", "<message><p:x/></message>", "<message p:a='1'/>"] {
        scene
            .ends_with(&[Clear, Bound], xml.as_bytes(), &["not-well-formed", "bad-namespace-prefix"])
            .await?;
    }
    // The prefix of one stanza is not known in the next.
    let twice = b"<message><p:x xmlns:p='urn:x'/></message><message><p:x/></message>";
    scene.ends_with(&[Bound], twice, &["not-well-formed", "bad-namespace-prefix"]).await
}

async fn x13_reserved_prefix_rebound(scene: &mut Scene) -> Result<()> {
    scene.account("mallory").await?;
    for xml in [
        "<message xmlns:xml='urn:evil'/>",
        "<message xmlns:xmlns='urn:evil'/>",
        "<message xmlns:p=''/>",
        "<message xmlns:p='http://www.w3.org/XML/1998/namespace'/>",
        "<message xmlns:p='http://www.w3.org/2000/xmlns/'/>",
        "<message><x xmlns='http://www.w3.org/2000/xmlns/'/></message>",
    ] {
        scene.ends_with(&[Clear, Bound], xml.as_bytes(), NOT_WELL_FORMED).await?;
    }
    Ok(())
}

async fn x14_mismatched_tags(scene: &mut Scene) -> Result<()> {
    scene.account("mallory").await?;
    for xml in [
        "<message><body></message></body>",
        "<message><body>x</Body></message>",
        "<message></stream:stream>",
        "<message><body></stream:stream>",
        "</message>",
        "<message><x xmlns:p='urn:x'><p:y></p:z></x></message>",
        "<message><body/ ></message>",
        "<message to=unquoted/>",
        "<message to='a'id='b'/>",
        "<message <body/>",
        "<1message/>",
        "<message a<='1'/>",
    ] {
        scene.ends_with(&[Clear, Bound], xml.as_bytes(), NOT_WELL_FORMED).await?;
    }
    Ok(())
}

async fn x22_text_between_stanzas(scene: &mut Scene) -> Result<()> {
    scene.account("mallory").await?;
    let conditions = &["bad-format", "invalid-xml", "not-well-formed"];
    scene.ends_with(&[Clear, Secure, Bound], b" text ", conditions).await?;
    scene.ends_with(&[Bound], b"&amp;", conditions).await
}

async fn x24_names_are_expanded(scene: &mut Scene) -> Result<()> {
    let mut alice = scene.client("alice").await?;
    let mut bob = scene.client("bob").await?;
    bob.come_online().await?;
    let to = bob.jid().to_owned();

    // A prefix for what we know, a foreign `to`, a body of somebody else, a private-use character in a namespace.
    let xml = format!(
        "<c:message xmlns:c='jabber:client' xmlns:o='urn:other' to='{to}' o:to='nobody@localhost' o:from='x' \
         id='x24' type='chat'><body xmlns='urn:other'>false</body><c:body>true</c:body>\
         <x xmlns='urn:\u{F8FF}x' o:a='1'><y xmlns='jabber:client'/></x></c:message>"
    );
    alice.send_raw(xml.as_bytes()).await?;
    let message = bob.next().await?;
    ensure!(message.body().as_deref() == Some("true"), "{message}");
    ensure!(message.attribute("from") == Some(alice.jid()), "{message}");
    let foreign =
        |name: &str| message.attributes.get(&("urn:other".to_owned(), name.to_owned())).map(String::as_str);
    ensure!(foreign("to") == Some("nobody@localhost") && foreign("from") == Some("x"), "{message}");
    ensure!(message.find("urn:other", "body").is_some_and(|b| b.text() == "false"), "{message}");
    let private = message.find("urn:\u{F8FF}x", "x");
    ensure!(private.is_some_and(|x| x.find("jabber:client", "y").is_some()), "{message}");

    // A stanza's name in another namespace is no stanza.
    scene.account("mallory").await?;
    let evil = format!("<message xmlns='urn:evil' to='{to}'><body>x</body></message>");
    scene.ends_with(&[Bound], evil.as_bytes(), &["unsupported-stanza-type"]).await?;
    bob.silence(starling_tests::SILENCE).await
}

async fn x24_default_namespace_reset(scene: &mut Scene) -> Result<()> {
    let mut alice = scene.client("alice").await?;
    let mut bob = scene.client("bob").await?;
    let to = bob.jid().to_owned();
    let xml = format!(
        "<message to='{to}' type='chat' id='r'><x xmlns='urn:x'><body xmlns=''>n</body></x></message>"
    );
    alice.send_raw(xml.as_bytes()).await?;
    let message = bob.next().await?;
    let x = message.find("urn:x", "x");
    ensure!(x.is_some_and(|x| x.find("", "body").is_some_and(|b| b.text() == "n")), "{message}");
    ensure!(message.body().is_none(), "{message}");
    Ok(())
}

async fn x25_server_namespace(scene: &mut Scene) -> Result<()> {
    scene.account("mallory").await?;
    let stanza = b"<message xmlns='jabber:server' from='a@localhost' to='b@localhost'/>";
    scene.ends_with(&[Bound], stanza, &["invalid-namespace"]).await?;
    let header = usual_header().replace("jabber:client", "jabber:server");
    header_ends_with(scene, header.as_bytes(), &["invalid-namespace"]).await
}

async fn x26_unknown_element(scene: &mut Scene) -> Result<()> {
    scene.account("mallory").await?;
    for xml in ["<foo/>", "<foo xmlns='urn:example:foo'/>", "<stream:foo/>", "<stream:features/>"] {
        scene.ends_with(&[Bound], xml.as_bytes(), &["unsupported-stanza-type"]).await?;
    }
    for xml in ["<foo/>", "<foo xmlns='urn:example:foo'/>", "<stream:foo/>"] {
        let conditions = &["unsupported-stanza-type", "not-authorized"];
        scene.ends_with(&[Clear, Secure], xml.as_bytes(), conditions).await?;
    }
    Ok(())
}
