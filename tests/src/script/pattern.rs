//! What a script says it must receive: an element with holes.

use std::collections::BTreeMap;

use anyhow::Result;

use crate::xml::{Content, Node};

/// Values that earlier elements put under a `$name`.
pub type Captures = BTreeMap<String, String>;

/// An element with holes; see `tests/scripts/README.md` for what may stand where.
#[derive(Clone, Debug)]
pub struct Pattern {
    node: Node,
}

const MORE: &str = "_more";
const ORDER: &str = "_order";
const ERROR: &str = "error";

impl Pattern {
    /// Reads any number of patterns from a block of XML.
    pub fn parse_all(text: &str) -> Result<Vec<Self>> {
        Ok(Node::parse_all(&mark(text))?.into_iter().map(|node| Self { node }).collect())
    }

    /// Fills the pattern with `node`: the captures known before and those made here, or the first thing that differs.
    pub fn fill(&self, node: &Node, captures: &Captures) -> Result<Captures, String> {
        element(&self.node, node, captures)
    }

    /// The same pattern for ejabberd, which orders the children of a stanza as it likes and rewrites `to` when
    /// it delivers.
    pub fn loosened(&self) -> Self {
        fn shuffle(node: &mut Node) {
            node.attributes.insert((String::new(), ORDER.to_owned()), "any".to_owned());
            for piece in &mut node.content {
                if let Content::Node(node) = piece {
                    shuffle(node);
                }
            }
        }
        let mut node = self.node.clone();
        shuffle(&mut node);
        if let Some(to) = node.attributes.get_mut(&(String::new(), "to".to_owned())) {
            *to = "*".to_owned();
        }
        Self { node }
    }
}

/// Replaces the marker `...` inside tags by an attribute, so that the text is XML.
fn mark(text: &str) -> String {
    let mut out = String::with_capacity(text.len() + 32);
    let mut quote = None;
    let mut inside = false;
    let mut rest = text;
    while let Some(c) = rest.chars().next() {
        match (quote, c) {
            (Some(q), c) if c == q => quote = None,
            (None, '\'' | '"') if inside => quote = Some(c),
            (None, '<') => inside = true,
            (None, '>') => inside = false,
            (None, '.') if inside && rest.starts_with("...") => {
                out.push_str(&format!(" {MORE}='yes'"));
                rest = &rest[3..];
                continue;
            }
            _ => {}
        }
        out.push(c);
        rest = &rest[c.len_utf8()..];
    }
    out
}

fn element(pattern: &Node, node: &Node, captures: &Captures) -> Result<Captures, String> {
    if pattern.name != "_" && (pattern.name != node.name || pattern.ns != node.ns) {
        return Err(format!(
            "expected <{} xmlns='{}'>, got <{} xmlns='{}'>",
            pattern.name, pattern.ns, node.name, node.ns
        ));
    }
    let mut captures = captures.clone();
    attributes(pattern, node, &mut captures).map_err(|e| format!("in <{}>: {e}", node.name))?;
    if let Some(wanted) = own(pattern, ERROR) {
        let got = node.condition().unwrap_or_default();
        value(wanted, Some(&got), &mut captures).map_err(|e| format!("error of <{}>: {e}", node.name))?;
        return Ok(captures);
    }
    let parts = parts(&pattern.content);
    let actual = pieces(&node.content);
    let any_order = own(pattern, ORDER) == Some("any");
    let filled =
        if any_order { scattered(&parts, &actual, &captures) } else { row(&parts, &actual, &captures) };
    filled.map_err(|e| format!("in <{}>: {e}", node.name))
}

fn own<'a>(node: &'a Node, name: &str) -> Option<&'a str> {
    node.attribute(name)
}

fn attributes(pattern: &Node, node: &Node, captures: &mut Captures) -> Result<(), String> {
    let stanza = crate::client::is_stanza(node);
    for (key, wanted) in &pattern.attributes {
        if key.0.is_empty() && (matches!(key.1.as_str(), MORE | ORDER) || (key.1 == ERROR && stanza)) {
            continue;
        }
        let got = node.attributes.get(key).map(String::as_str);
        value(wanted, got, captures).map_err(|e| format!("attribute {}: {e}", key.1))?;
    }
    if own(pattern, MORE).is_some() {
        return Ok(());
    }
    for (key, got) in &node.attributes {
        // Servers are asked to add the language of the stream to what clients send (RFC 6120 section 8.1.5).
        let language = key.1 == "lang" && !key.0.is_empty();
        if !pattern.attributes.contains_key(key) && !language {
            return Err(format!("unexpected attribute {}='{got}'", key.1));
        }
    }
    Ok(())
}

/// One value against its pattern: alternatives by `|`, each of them text with `*` for anything, `$name`, or `!`.
fn value(wanted: &str, got: Option<&str>, captures: &mut Captures) -> Result<(), String> {
    let fits = wanted.split('|').any(|wanted| match (wanted, got) {
        ("!", got) => got.is_none(),
        (_, None) => false,
        (wanted, Some(got)) => match (wanted.strip_prefix('!'), wanted.strip_prefix('$')) {
            (Some(forbidden), _) => resolve(forbidden, captures) != got,
            (None, Some(name)) if is_name(name) => match captures.get(name) {
                Some(known) => known == got,
                None => {
                    captures.insert(name.to_owned(), got.to_owned());
                    true
                }
            },
            _ => glob(&resolve(wanted, captures), got),
        },
    });
    if fits {
        return Ok(());
    }
    match got {
        Some(got) => Err(format!("expected '{}', got '{got}'", resolve(wanted, captures))),
        None => Err(format!("expected '{}', but there is none", resolve(wanted, captures))),
    }
}

fn is_name(text: &str) -> bool {
    !text.is_empty() && text.chars().all(|c| c.is_ascii_alphanumeric() || c == '_')
}

/// Puts known captures in place of `$name`.
pub(super) fn resolve(text: &str, captures: &Captures) -> String {
    let mut out = String::with_capacity(text.len());
    let mut rest = text;
    while let Some(at) = rest.find('$') {
        out.push_str(&rest[..at]);
        let after = &rest[at + 1..];
        let end = after.find(|c: char| !(c.is_ascii_alphanumeric() || c == '_')).unwrap_or(after.len());
        match captures.get(&after[..end]) {
            Some(known) => out.push_str(known),
            None => out.push_str(&rest[at..at + 1 + end]),
        }
        rest = &after[end..];
    }
    out.push_str(rest);
    out
}

fn glob(wanted: &str, got: &str) -> bool {
    let mut parts = wanted.split('*');
    let first = parts.next().unwrap_or_default();
    let Some(mut rest) = got.strip_prefix(first) else { return false };
    let mut parts: Vec<&str> = parts.collect();
    let Some(last) = parts.pop() else { return rest.is_empty() };
    for part in parts {
        match rest.find(part) {
            Some(at) => rest = &rest[at + part.len()..],
            None => return false,
        }
    }
    rest.ends_with(last)
}

enum Part<'a> {
    More,
    Text(&'a str),
    Node(&'a Node),
}

enum Piece<'a> {
    Text(&'a str),
    Node(&'a Node),
}

/// The content of a pattern: white space is layout, `...` stands for anything.
fn parts(content: &[Content]) -> Vec<Part<'_>> {
    let mut parts = Vec::new();
    for piece in content {
        match piece {
            Content::Node(node) => parts.push(Part::Node(node)),
            Content::Text(text) => match text.trim() {
                "" => {}
                "..." => parts.push(Part::More),
                text => parts.push(Part::Text(text)),
            },
        }
    }
    parts
}

fn pieces(content: &[Content]) -> Vec<Piece<'_>> {
    content
        .iter()
        .filter_map(|piece| match piece {
            Content::Node(node) => Some(Piece::Node(node)),
            Content::Text(text) if text.trim().is_empty() => None,
            Content::Text(text) => Some(Piece::Text(text.trim())),
        })
        .collect()
}

fn one(part: &Part<'_>, piece: &Piece<'_>, captures: &Captures) -> Result<Captures, String> {
    match (part, piece) {
        (Part::Node(pattern), Piece::Node(node)) => element(pattern, node, captures),
        (Part::Text(wanted), Piece::Text(got)) => {
            let mut captures = captures.clone();
            value(wanted, Some(got), &mut captures)?;
            Ok(captures)
        }
        (Part::Node(pattern), Piece::Text(got)) => {
            Err(format!("expected <{}>, got text {got:?}", pattern.name))
        }
        (Part::Text(wanted), Piece::Node(node)) => {
            Err(format!("expected text {wanted:?}, got <{}>", node.name))
        }
        (Part::More, _) => Ok(captures.clone()),
    }
}

/// Content in the order of the pattern.
fn row(parts: &[Part<'_>], pieces: &[Piece<'_>], captures: &Captures) -> Result<Captures, String> {
    match (parts, pieces) {
        ([], []) => Ok(captures.clone()),
        ([], [piece, ..]) => Err(format!("unexpected {}", show(piece))),
        ([Part::More], _) => Ok(captures.clone()),
        ([Part::More, rest @ ..], _) => {
            let mut reason = String::new();
            for skipped in 0..=pieces.len() {
                match row(rest, &pieces[skipped..], captures) {
                    Ok(captures) => return Ok(captures),
                    // The longest rest gives the most telling reason.
                    Err(error) if skipped == 0 => reason = error,
                    Err(_) => {}
                }
            }
            Err(reason)
        }
        ([part, ..], []) => Err(match part {
            Part::Node(pattern) => format!("<{} xmlns='{}'> is missing", pattern.name, pattern.ns),
            Part::Text(text) => format!("text {text:?} is missing"),
            Part::More => String::new(),
        }),
        ([part, parts @ ..], [piece, pieces @ ..]) => row(parts, pieces, &one(part, piece, captures)?),
    }
}

/// Content in any order.
fn scattered(parts: &[Part<'_>], pieces: &[Piece<'_>], captures: &Captures) -> Result<Captures, String> {
    let mut captures = captures.clone();
    let mut left: Vec<&Piece<'_>> = pieces.iter().collect();
    let mut more = false;
    for part in parts {
        if matches!(part, Part::More) {
            more = true;
            continue;
        }
        let found =
            left.iter().enumerate().find_map(|(i, piece)| Some((i, one(part, piece, &captures).ok()?)));
        match (found, part) {
            (Some((index, filled)), _) => {
                captures = filled;
                left.remove(index);
            }
            (None, Part::Node(pattern)) => {
                let near = left.iter().find_map(|piece| match piece {
                    Piece::Node(node) if node.name == pattern.name => element(pattern, node, &captures).err(),
                    _ => None,
                });
                let near = near.map(|e| format!("; nearest: {e}")).unwrap_or_default();
                return Err(format!("<{} xmlns='{}'> is missing{near}", pattern.name, pattern.ns));
            }
            (None, _) => return Err("text is missing".to_owned()),
        }
    }
    match left.first() {
        Some(piece) if !more => Err(format!("unexpected {}", show(piece))),
        _ => Ok(captures),
    }
}

fn show(piece: &Piece<'_>) -> String {
    match piece {
        Piece::Node(node) => node.to_string(),
        Piece::Text(text) => format!("text {text:?}"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn fill(pattern: &str, node: &str) -> Result<Captures, String> {
        let pattern = Pattern::parse_all(pattern).unwrap().remove(0);
        pattern.fill(&Node::parse(node).unwrap(), &Captures::from([("x".into(), "1".into())]))
    }

    #[test]
    fn is_exact_unless_told() {
        assert!(fill("<a b='1'><c/></a>", "<a b='1'><c/></a>").is_ok());
        assert!(fill("<a b='1'><c/></a>", "<a b='1'> <c/> </a>").is_ok());
        for other in ["<a b='2'><c/></a>", "<a><c/></a>", "<a b='1' d='1'><c/></a>", "<a b='1'/>"] {
            assert!(fill("<a b='1'><c/></a>", other).is_err(), "{other}");
        }
        assert!(fill("<a><c/></a>", "<a><c/><d/></a>").is_err());
        assert!(fill("<a><c/></a>", "<a><c xmlns='urn:x'/></a>").is_err());
        assert!(fill("<a><c/></a>", "<a>text<c/></a>").is_err());
        assert!(fill("<a><c/><d/></a>", "<a><d/><c/></a>").is_err());
    }

    #[test]
    fn has_holes() {
        assert!(fill("<a ...><c/>...</a>", "<a b='1'><c/><d/></a>").is_ok());
        assert!(fill("<a ...>...<c/></a>", "<a b='1'><d/><d/><c/></a>").is_ok());
        assert!(fill("<a>...<c/></a>", "<a><d/></a>").is_err());
        assert!(fill("<_ b='*'/>", "<z b='7' xmlns='urn:y'/>").is_ok());
        assert!(fill("<_ b='*'/>", "<z/>").is_err());
        assert!(fill("<a b='!'/>", "<a/>").is_ok());
        assert!(fill("<a b='!'/>", "<a b='1'/>").is_err());
        assert!(fill("<a b='!2'/>", "<a b='1'/>").is_ok());
        assert!(fill("<a b='!1'/>", "<a b='1'/>").is_err());
        assert!(fill("<a b='20*-*Z'/>", "<a b='2026-01-01Z'/>").is_ok());
        assert!(fill("<a b='20*Z'/>", "<a b='2026-01-01'/>").is_err());
        assert!(fill("<a b='x|y'/>", "<a b='y'/>").is_ok());
        assert!(fill("<a _order='any'><c/><d/></a>", "<a><d/><c/></a>").is_ok());
        assert!(fill("<a _order='any'><c/><d/></a>", "<a><d/><c/><e/></a>").is_err());
        assert!(fill("<a _order='any'><c/>...</a>", "<a><d/><c/></a>").is_ok());
    }

    #[test]
    fn captures_and_compares() {
        let captures = fill("<a b='$n' c='$n'/>", "<a b='5' c='5'/>").unwrap();
        assert_eq!(captures["n"], "5");
        assert!(fill("<a b='$n' c='$n'/>", "<a b='5' c='6'/>").is_err());
        assert!(fill("<a b='$x'/>", "<a b='1'/>").is_ok());
        assert!(fill("<a b='$x'/>", "<a b='2'/>").is_err());
        assert!(fill("<a b='p-$x'/>", "<a b='p-1'/>").is_ok());
        assert_eq!(fill("<a>$t</a>", "<a>text</a>").unwrap()["t"], "text");
    }

    #[test]
    fn reads_stanza_errors() {
        let error = "<iq type='error'><query xmlns='urn:x'/><error type='cancel' by='a'><gone \
                     xmlns='urn:ietf:params:xml:ns:xmpp-stanzas'/></error></iq>";
        assert!(fill("<iq type='error' error='cancel gone'/>", error).is_ok());
        assert!(fill("<iq type='error' error='cancel gone|auth forbidden'/>", error).is_ok());
        assert!(fill("<iq type='error' error='modify gone'/>", error).is_err());
        assert!(fill("<iq type='result' error='cancel gone'/>", "<iq type='result'/>").is_err());
    }
}
