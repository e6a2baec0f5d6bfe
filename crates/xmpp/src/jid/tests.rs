use super::*;
use proptest::prelude::*;
use std::collections::HashMap;
use std::hash::BuildHasher;

fn parsed(s: &str) -> String {
    Jid::parse(s).unwrap_or_else(|error| panic!("{s:?}: {error}")).to_string()
}

fn refused(s: &str) -> JidError {
    match Jid::parse(s) {
        Ok(jid) => panic!("{s:?} became {jid:?}"),
        Err(error) => error,
    }
}

#[test]
fn an_address_is_cut_at_the_first_separators() {
    let jid = Jid::parse("juliet@im.example.com/balcony/a@b").unwrap();
    assert_eq!(jid.local(), Some("juliet"));
    assert_eq!(jid.domain(), "im.example.com");
    assert_eq!(jid.resource(), Some("balcony/a@b"));
    assert_eq!(jid.bare_str(), "juliet@im.example.com");
    assert!(!jid.is_bare() && !jid.is_domain_only());
    assert_eq!(jid.to_bare(), "juliet@im.example.com");
    assert_eq!(jid.to_domain(), "im.example.com");

    let server = Jid::parse("im.example.com/a@b").unwrap();
    assert_eq!((server.local(), server.domain(), server.resource()), (None, "im.example.com", Some("a@b")));
    assert!(Jid::parse("im.example.com").unwrap().is_domain_only());
    assert!(!Jid::parse("a@im.example.com").unwrap().is_domain_only());
}

#[test]
fn kinds_of_address_ask_for_their_resource() {
    assert_eq!(BareJid::parse("a@b/c"), Err(JidError::Resource));
    assert_eq!(FullJid::parse("a@b"), Err(JidError::Resource));
    let full = BareJid::parse("A@b").unwrap().with_resource("C").unwrap();
    assert_eq!(full, "a@b/C");
    assert_eq!(full.resource_str(), "C");
    assert_eq!(full.bare(), BareJid::parse("a@b").unwrap());
    assert_eq!(full.to_full(), Some(full.clone()));
    assert_eq!(full.bare().to_full(), None);
    assert!(full.same_bare(&Jid::parse("a@b").unwrap()));
    assert!(!full.same_bare(&Jid::parse("b").unwrap()));
    assert_eq!(BareJid::parse("a@b").unwrap().with_resource(""), Err(JidError::EmptyResource));
}

#[test]
fn a_map_by_address_is_read_by_text() {
    let jid = Jid::parse("a@b/c").unwrap();
    let map = HashMap::from([(jid.to_bare(), 1)]);
    assert_eq!(map.get("a@b"), Some(&1));
    assert_eq!(map.get(jid.bare_str()), Some(&1));
    let state = std::hash::RandomState::new();
    assert_eq!(state.hash_one(&jid), state.hash_one("a@b/c"));
    assert_eq!(state.hash_one(jid.to_full().unwrap()), state.hash_one("a@b/c"));
}

#[test]
fn every_part_has_its_error() {
    assert_eq!(refused(""), JidError::EmptyDomain);
    assert_eq!(refused("@b"), JidError::EmptyLocal);
    assert_eq!(refused("a@"), JidError::EmptyDomain);
    assert_eq!(refused("a@/c"), JidError::EmptyDomain);
    assert_eq!(refused("/c"), JidError::EmptyDomain);
    assert_eq!(refused("a@b/"), JidError::EmptyResource);
    assert_eq!(refused("@@b"), JidError::EmptyLocal);
    assert_eq!(refused("a@@b"), JidError::Domain);
    assert_eq!(refused("a@b@c"), JidError::Domain);
    assert_eq!(parsed("a@b//"), "a@b//");
    assert_eq!(refused("."), JidError::EmptyDomain);
}

#[test]
fn parts_end_at_1023_octets() {
    let (fits, over) = ("a".repeat(MAX_PART), "a".repeat(MAX_PART + 1));
    let labels = |total: usize| {
        let mut name = format!("{}.", "a".repeat(63)).repeat(15);
        name.push_str(&"b".repeat(total - name.len()));
        name
    };
    let domain = labels(MAX_PART);
    assert_eq!(domain.len(), MAX_PART);
    let whole = format!("{fits}@{domain}/{fits}");
    assert_eq!(whole.len(), MAX_JID);
    let jid = Jid::parse(&whole).unwrap();
    assert_eq!((jid.local(), jid.domain(), jid.resource()), (Some(&*fits), &*domain, Some(&*fits)));

    assert_eq!(refused(&format!("{over}@b")), JidError::TooLong);
    assert_eq!(refused(&format!("b/{over}")), JidError::TooLong);
    assert_eq!(refused(&format!("{}.{}", "a".repeat(63), domain)), JidError::TooLong);
    assert_eq!(refused(&"a".repeat(64)), JidError::Domain);
    assert_eq!(parsed(&"a".repeat(63)).len(), 63);

    // What counts is the canonical form.
    assert_eq!(parsed(&format!("{}@b", "ａ".repeat(MAX_PART))), format!("{fits}@b"));
    assert_eq!(refused(&format!("{}@b", "ａ".repeat(MAX_PART + 1))), JidError::TooLong);
    let umlauts = "ä".repeat(MAX_PART / 2);
    assert_eq!(parsed(&format!("{umlauts}@b")), format!("{umlauts}@b"));
    assert_eq!(refused(&format!("{umlauts}ä@b")), JidError::TooLong);
    assert_eq!(refused(&format!("b/{umlauts}ä")), JidError::TooLong);
}

#[test]
fn a_localpart_follows_username_case_mapped() {
    for (written, canonical) in [
        ("Juliet", "juliet"),
        ("a.b-c_d+e!#$%*=?^`{|}~\\;,[]()", "a.b-c_d+e!#$%*=?^`{|}~\\;,[]()"),
        ("Ｊuliet", "juliet"),
        ("ÄÖÜ", "äöü"),
        ("A\u{308}", "ä"),
        ("straße", "straße"),
        ("STRAẞE", "straße"),
        ("Σ", "σ"),
        ("foo\u{3c2}", "foo\u{3c2}"),
        ("İ", "i\u{307}"),
        ("I", "i"),
        ("ı", "ı"),
        ("Ж", "ж"),
        ("ᎠᎡ", "\u{ab70}\u{ab71}"),
        ("שלום", "שלום"),
        ("l·l", "l·l"),
        ("क्\u{200d}ष", "क्\u{200d}ष"),
        ("田中", "田中"),
    ] {
        assert_eq!(parsed(&format!("{written}@b")), format!("{canonical}@b"));
        assert_eq!(prepare_local(written).as_deref(), Ok(canonical));
    }
    for bad in [
        "a b",
        "a\"b",
        "a&b",
        "a'b",
        "a:b",
        "a<b",
        "a>b",
        "a\tb",
        "a\0b",
        "a\u{7f}b",
        "a\u{a0}b",
        "a\u{200d}b",
        "a\u{200c}b",
        "a＠b",
        "a：b",
        "a／b",
        "\u{fb01}",
        "Ⅳ",
        "♚",
        "🤖",
        "a\u{ad}b",
        "a\u{200b}b",
        "a\u{202e}b",
        "a\u{feff}b",
        "\u{378}",
        "\u{e000}",
        "\u{ffff}",
        "שa",
        "aש",
        "a·b",
        "·",
        "\u{640}",
        "٣۳",
        "\u{180f}a",
    ] {
        assert_eq!(prepare_local(bad), Err(JidError::Local), "{bad:?}");
    }
    assert_eq!(prepare_local("a@b"), Err(JidError::Local));
    assert_eq!(prepare_local("a/b"), Err(JidError::Local));
    assert_eq!(prepare_local(""), Err(JidError::EmptyLocal));
    // Look-alikes stay different accounts: that is for the registration to refuse.
    assert_ne!(parsed("a@b"), parsed("а@b"));
}

#[test]
fn a_resource_follows_opaque_string() {
    for (written, canonical) in [
        ("Balcony", "Balcony"),
        (" a  b ", " a  b "),
        ("a\u{a0}b\u{3000}c", "a b c"),
        ("A\u{308}", "Ä"),
        ("Ａ", "Ａ"),
        ("ﬁ", "ﬁ"),
        ("♚", "♚"),
        ("\u{1f914}", "\u{1f914}"),
        ("\u{1fae0}", "\u{1fae0}"),
        ("<&>'\"@/", "<&>'\"@/"),
        ("ß", "ß"),
        ("שa", "שa"),
    ] {
        assert_eq!(parsed(&format!("b/{written}")), format!("b/{canonical}"));
        assert_eq!(prepare_resource(written).as_deref(), Ok(canonical));
    }
    for bad in [
        "a\nb",
        "\0",
        "\u{1b}[1m",
        "\u{7f}",
        "\u{85}",
        "\u{ad}",
        "\u{200b}",
        "\u{202e}",
        "\u{378}",
        "\u{e000}",
        "a\u{200d}b",
        "\u{feff}",
        "\u{180f}",
        "\u{1100}",
    ] {
        assert_eq!(prepare_resource(bad), Err(JidError::Resource), "{bad:?}");
    }
    assert_eq!(prepare_resource(""), Err(JidError::EmptyResource));
}

#[test]
fn a_domain_has_one_spelling() {
    for (written, canonical) in [
        ("Example.COM", "example.com"),
        ("example.com.", "example.com"),
        ("example。com．", "example.com"),
        ("localhost", "localhost"),
        ("xn--mnchen-3ya.de", "münchen.de"),
        ("XN--MNCHEN-3YA.de", "münchen.de"),
        ("MÜNCHEN.de", "münchen.de"),
        ("mu\u{308}nchen.de", "münchen.de"),
        ("straße.de", "straße.de"),
        ("xn--strae-oqa.de", "straße.de"),
        ("βόλος.com", "βόλος.com"),
        ("ｅxample.com", "example.com"),
        ("exam\u{ad}ple.com", "example.com"),
        ("192.0.2.1", "192.0.2.1"),
        ("[2001:DB8:0:0::1]", "[2001:db8::1]"),
        ("[::ffff:192.0.2.1]", "[::ffff:192.0.2.1]"),
        ("a--b.c", "a--b.c"),
        ("r3---sn.example", "r3---sn.example"),
        ("1.2", "1.2"),
        ("l·l.cat", "l·l.cat"),
        ("שלום.net", "שלום.net"),
    ] {
        assert_eq!(domain(written).as_deref(), Ok(canonical), "{written}");
        assert_eq!(parsed(&format!("a@{written}/c")), format!("a@{canonical}/c"));
    }
    for bad in [
        "a..b",
        ".a",
        "a..",
        "-a.b",
        "a-.b",
        "a_b.c",
        "a b",
        "a\u{a0}b",
        "a\0b",
        "a:5222",
        "a&b",
        "a\u{200d}b",
        "xn--a",
        "xn--",
        "xn--abc-.de",
        "xn--example-.com",
        "[::1",
        "::1",
        "[::1%25eth0]",
        "[192.0.2.1]",
        "[v1.a]",
        "[]",
        "\u{202e}a",
        "a\u{fffd}",
        "\u{378}.de",
        "אa.com",
        "≠",
        "a\u{338}=.b",
        "[::1]x",
        "。",
        "☃.net",
        "🤖.net",
        "xn--n3h.net",
        "a·b",
    ] {
        assert!(matches!(domain(bad), Err(JidError::Domain)), "{bad:?} {:?}", domain(bad));
    }
    assert_eq!(domain(""), Err(JidError::EmptyDomain));
    // 63 octets are counted in the A-form.
    assert_eq!(domain(&"ä".repeat(60)), Err(JidError::Domain));
}

#[test]
fn hostile_parts_cost_little() {
    // Each of these asks for a look at the whole part per character.
    for unit in ["l·", "・", "٣", "۳", "क्\u{200d}", "א׳"] {
        let part = unit.repeat(MAX_RAW_PART / unit.len());
        let _ = Jid::parse(&format!("{part}@b/{part}"));
        let huge = unit.repeat(1 << 16);
        assert_eq!(prepare_local(&huge), Err(JidError::TooLong));
        assert_eq!(prepare_resource(&huge), Err(JidError::TooLong));
        assert_eq!(domain(&huge), Err(JidError::TooLong));
    }
    assert_eq!(prepare_resource("l·".repeat(65).trim_end_matches('·')), Ok("l·".repeat(64) + "l"));
    assert_eq!(prepare_resource(&("l·".repeat(65) + "l")), Err(JidError::Resource));
    let dots = format!("{}あ", "・".repeat(300));
    assert_eq!(prepare_resource(&dots), Ok(dots));
}

/// Both paths by hand, so that the fast one cannot hide the slow one.
fn slowly(s: &str) -> Result<Jid, JidError> {
    let (local, domain, resource) = parts::split(s);
    let local = local.map(precis::slow_local).transpose()?;
    let domain = domain::slow(domain)?;
    let resource = resource.map(precis::slow_resource).transpose()?;
    Ok(Jid::assemble(local.as_deref(), &domain, resource.as_deref()))
}

fn same_structure(a: &Jid, b: &Jid) -> bool {
    (a.local(), a.domain(), a.resource(), a.as_str()) == (b.local(), b.domain(), b.resource(), b.as_str())
}

/// Text that is likely to hit a rule: ASCII, separators, and characters with a story.
fn tricky() -> impl Strategy<Value = String> {
    prop_oneof![
        "[ -~]{0,40}",
        "[a-zA-Z0-9.-]{1,20}",
        "([a-zA-Z.+]{1,8}@)?(xn--|XN--)?[a-zA-Z0-9-]{1,8}(\\.[a-z-]{1,5})?\\.?(/[ -~]{0,8})?",
        "[aAlX@/.nN\\-·・٣۳あäÄ\u{308}ａＡｘ＠／。．ßẞΣςİᎠꭰ\u{200c}\u{200d}क\u{94d}ש\u{ad}🤔\u{a0}]{0,14}",
        "\\PC{0,12}",
        any::<String>(),
    ]
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(4096))]

    #[test]
    fn the_fast_path_agrees_with_the_slow_one(s in tricky()) {
        let (one, other) = (Jid::parse(&s), slowly(&s));
        prop_assert_eq!(&one, &other);
        if let (Ok(one), Ok(other)) = (one, other) {
            prop_assert!(same_structure(&one, &other));
        }
    }

    #[test]
    fn a_canonical_address_is_its_own_canonical_form(s in tricky()) {
        if let Ok(jid) = Jid::parse(&s) {
            let again = Jid::parse(jid.as_str());
            prop_assert_eq!(again.as_ref(), Ok(&jid));
            prop_assert!(same_structure(&again.unwrap(), &jid));
            let parts = Jid::new(jid.local(), jid.domain(), jid.resource());
            prop_assert_eq!(parts, Ok(jid));
        }
    }

    #[test]
    fn ascii_case_makes_no_other_account(local in "[a-z0-9._+-]{1,20}", domain in "[a-z]{1,9}(\\.[a-z]{2,5}){0,2}") {
        let jid = Jid::parse(&format!("{local}@{domain}"));
        prop_assert_eq!(&Jid::parse(&format!("{}@{domain}.", local.to_uppercase())), &jid);
        prop_assert_eq!(&Jid::parse(&format!("{local}@{}", domain.to_uppercase())), &jid);
    }

    #[test]
    fn a_single_character_is_stable_or_refused(c in any::<char>()) {
        let text = c.to_string();
        for enforce in [prepare_local, prepare_resource, domain] {
            if let Ok(once) = enforce(&text) {
                prop_assert_eq!(enforce(&once), Ok(once));
            }
        }
    }
}
