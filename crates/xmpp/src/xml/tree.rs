//! Builds an [`Element`] from input that is there as a whole.

use super::{
    Bounds, Element, XmlError,
    chars::decode_text,
    scope::Scopes,
    tag::{Tag, end_tag_name},
    token::{Scanner, TokenKind},
};

/// Reads exactly one element; white space around it is allowed, and so is an XML declaration before it.
pub(super) fn parse(mut input: &[u8], context_ns: &str) -> Result<Element, XmlError> {
    let bounds = Bounds::TREE;
    let mut scopes = Scopes::with_default(context_ns);
    let mut open: Vec<Element> = Vec::new();
    let mut root = None;
    let mut first = true;
    while !input.is_empty() {
        let token = Scanner::default().next(input, &bounds)?.or_else(|| trailing_text(input));
        let Some(token) = token else { return Err(XmlError::Truncated) };
        let (raw, rest) = input.split_at(token.len);
        input = rest;
        match token.kind {
            TokenKind::Start => {
                if root.is_some() {
                    return Err(XmlError::NotWellFormed);
                }
                let tag = Tag::parse(raw, &bounds)?;
                scopes.open(&tag, &bounds)?;
                open.push(element(&tag, &scopes)?);
                if tag.empty {
                    close(&mut scopes, &mut open, &mut root);
                }
            }
            TokenKind::End => {
                if !scopes.is_closed_by(end_tag_name(raw)) {
                    return Err(XmlError::NotWellFormed);
                }
                close(&mut scopes, &mut open, &mut root);
            }
            TokenKind::Text | TokenKind::CData => {
                let cdata = token.kind == TokenKind::CData;
                let text = if cdata { &raw[9..raw.len() - 3] } else { raw };
                let text = std::str::from_utf8(text).map_err(|_| XmlError::NotWellFormed)?;
                match open.last_mut() {
                    Some(element) => decode_text(text, cdata, |piece, _| element.push_text(piece))?,
                    None if !cdata && text.bytes().all(super::chars::is_space) => {}
                    None => return Err(XmlError::NotWellFormed),
                }
            }
            TokenKind::Declaration if first => {}
            TokenKind::Declaration => return Err(XmlError::NotWellFormed),
        }
        first = false;
    }
    root.ok_or(XmlError::Truncated)
}

/// White space after the element, which no tag ends.
fn trailing_text(input: &[u8]) -> Option<super::token::Token> {
    let len = input.len();
    (input[0] != b'<').then_some(super::token::Token { kind: TokenKind::Text, len })
}

fn element(tag: &Tag<'_>, scopes: &Scopes) -> Result<Element, XmlError> {
    let mut element = Element::new(scopes.ns(), tag.name.local());
    for attribute in &tag.attributes {
        let ns = match attribute.name.prefix() {
            "" => "",
            prefix => scopes.attribute_ns(prefix)?,
        };
        element.push_attribute(ns, attribute.name.local(), &attribute.value);
    }
    Ok(element)
}

fn close(scopes: &mut Scopes, open: &mut Vec<Element>, root: &mut Option<Element>) {
    scopes.close();
    let Some(element) = open.pop() else { return };
    match open.last_mut() {
        Some(parent) => parent.push(element),
        None => *root = Some(element),
    }
}
