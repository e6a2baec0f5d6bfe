//! A first-level element that is being read.

use std::cell::Cell;

use bytes::Bytes;

use super::{Event, Incoming, Limits, header::Root};
use crate::{
    Element, Payload, StanzaCondition, StreamCondition, StreamError, XmlError, ns,
    stanza::Head,
    xml::{
        Bounds, Index,
        canonical::{self, Canonical, Place},
        chars::{decode_text, is_space},
        scope::Scopes,
        tag::{Attribute, Tag, end_tag_name},
        token::{Scanner, Token, TokenKind},
    },
};

/// What is no stanza is negotiation: small, and it becomes a tree, so it is bounded more tightly. Bytes and elements.
const NONZA_BYTES: usize = 65_536;
const NONZA_ELEMENTS: u32 = 256;

/// How much longer than allowed for the input the canonical form may get, in bytes: it has each namespace name and some
/// characters written out, so that a short input could become thousands of times as long.
const LONGER: usize = 262_144;

/// A thread keeps an output buffer of at most this size between stanzas, in bytes.
const SCRATCH_BYTES: usize = 16_384;

thread_local! {
    /// Where stanzas are written before their size is known: they then need one allocation, of the right size.
    static SCRATCH: Cell<Vec<u8>> = const { Cell::new(Vec::new()) };
}

/// A first-level element whose start tag has been read.
#[derive(Debug)]
pub(super) struct Building {
    scopes: Scopes,
    canonical: Canonical,
    index: Index,
    /// `None` if it is no stanza.
    head: Option<Head>,
    elements: u32,
    /// Bytes read so far.
    size: usize,
    limit: usize,
}

/// How far [`Building::run`] came.
pub(super) enum Progress {
    /// The element is complete.
    Done,
    /// More input is needed.
    More,
    /// The element is over the limit of bytes, as it is read or as it is written.
    TooLarge,
}

impl Building {
    /// Begins with the first-level start tag, which has `size` bytes.
    pub(super) fn begin(
        tag: &Tag<'_>,
        root: &Root,
        limits: &Limits,
        size: usize,
    ) -> Result<Self, StreamError> {
        let bounds = limits.bounds();
        let mut scopes = root.scopes.inner();
        scopes.open(tag, &bounds)?;
        let head = judge(scopes.ns(), tag.name.local(), root.content)?;
        let limit = if head.is_some() { limits.stanza_bytes } else { limits.stanza_bytes.min(NONZA_BYTES) };
        let canonical = Canonical::new(SCRATCH.take(), root.content);
        let mut building =
            Self { scopes, canonical, index: Index::default(), head, elements: 1, size, limit };
        building.root(tag)?;
        Ok(building)
    }

    /// Takes tokens from `input` and gives how many bytes it took.
    pub(super) fn run(
        &mut self,
        input: &[u8],
        scanner: &mut Scanner,
        limits: &Limits,
    ) -> Result<(usize, Progress), StreamError> {
        let bounds = limits.bounds();
        let mut tag = Tag::default();
        let mut taken = 0;
        while self.scopes.depth() > 0 {
            if self.canonical.out.len() > written(self.limit) {
                return Ok((taken, Progress::TooLarge));
            }
            let rest = &input[taken..];
            let left = self.limit - self.size;
            match scanner.next(&rest[..rest.len().min(left)], &bounds)? {
                Some(token) => {
                    self.token(token, &rest[..token.len], &mut tag, limits, &bounds)?;
                    taken += token.len;
                    self.size += token.len;
                }
                None if rest.len() > left => return Ok((taken, Progress::TooLarge)),
                None => return Ok((taken, Progress::More)),
            }
        }
        Ok((taken, Progress::Done))
    }

    /// Gives the thread's buffer back before waiting for more input.
    pub(super) fn rest(&mut self) {
        let small = self.canonical.out.as_slice().to_vec();
        give_back(std::mem::replace(&mut self.canonical.out, small));
    }

    /// Lets go of room that growing has left over: while an element is incomplete nobody may make us hold much more than it
    /// has sent. Often enough to matter, seldom enough to cost nothing per byte.
    pub(super) fn trim(&mut self) {
        let out = &mut self.canonical.out;
        if out.capacity() > out.len() + out.len() / 4 + 64 {
            out.shrink_to(out.len() + out.len() / 8);
        }
    }

    /// Bytes held of what has been read.
    pub(super) fn held(&self) -> usize {
        self.canonical.out.len()
    }

    /// Bytes of heap held, as the tests see them.
    #[cfg(test)]
    pub(super) fn capacity(&self) -> usize {
        size_of::<Self>() + self.canonical.out.capacity() + self.index.heap() + self.scopes.heap()
    }

    /// The event, once complete.
    pub(super) fn finish(&mut self) -> Result<Event, StreamError> {
        let out = std::mem::take(&mut self.canonical.out);
        let Some(mut head) = self.head.take() else {
            let element = Element::parse(&out, "");
            give_back(out);
            return Ok(Event::Nonza(element?));
        };
        head.check_children(self.index.len());
        let index = std::mem::take(&mut self.index);
        head.stanza.payload = Payload::written(Bytes::copy_from_slice(&out), index)?;
        give_back(out);
        let Head { stanza, fault, .. } = head;
        Ok(Event::Stanza(Incoming { stanza, size: self.size, fault }))
    }

    /// What stays of a stanza that is too large: enough to count and answer it. `None` if it cannot be answered or is
    /// no stanza.
    pub(super) fn oversize(self) -> Option<Oversize> {
        let (depth, size, limit) = (self.scopes.depth(), self.size, self.limit);
        give_back(self.canonical.out);
        let head = self.head.filter(|head| head.stanza.id.is_some())?;
        Some(Oversize { head, depth, size, limit })
    }

    fn token<'i>(
        &mut self,
        token: Token,
        raw: &'i [u8],
        tag: &mut Tag<'i>,
        limits: &Limits,
        bounds: &Bounds,
    ) -> Result<(), StreamError> {
        match token.kind {
            TokenKind::Start => {
                tag.read(raw, bounds)?;
                self.scopes.open(tag, bounds)?;
                self.elements += 1;
                let most =
                    if self.head.is_some() { limits.elements } else { limits.elements.min(NONZA_ELEMENTS) };
                if self.elements > most {
                    return Err(XmlError::Limit("too many elements").into());
                }
                self.start(tag)?;
                if tag.empty {
                    self.end();
                }
            }
            TokenKind::End => {
                if !self.scopes.is_closed_by(end_tag_name(raw)) {
                    return Err(XmlError::NotWellFormed.into());
                }
                self.end();
            }
            TokenKind::Text => self.text(raw, false)?,
            TokenKind::CData => self.text(&raw[9..raw.len() - 3], true)?,
            // Only the stream may begin with a declaration.
            TokenKind::Declaration => return Err(XmlError::NotWellFormed.into()),
        }
        Ok(())
    }

    /// Takes the root's attributes.
    fn root(&mut self, tag: &Tag<'_>) -> Result<(), StreamError> {
        match &mut self.head {
            None => self.canonical.start(tag, &self.scopes, Place::Alone)?,
            Some(head) => {
                let mut rest = false;
                for attribute in &tag.attributes {
                    match attribute.name.full {
                        "xml:lang" => head.lang(&attribute.value),
                        _ if attribute.name.prefix_len() == 0 => {
                            rest |= !head.attribute(attribute.name.full, &attribute.value);
                        }
                        _ => rest = true,
                    }
                }
                if head.bad_from {
                    return Err(StreamCondition::InvalidFrom.into());
                }
                if rest {
                    let mut extra = Vec::new();
                    let others = tag.attributes.iter().filter(|attribute| is_extra(attribute));
                    canonical::attributes(others, &self.scopes, &mut extra)?;
                    if extra.len() > written(self.limit) {
                        head.fail(StanzaCondition::PolicyViolation);
                    } else {
                        head.stanza.extra = Some(Bytes::from(extra));
                    }
                }
                head.complete();
            }
        }
        if tag.empty {
            self.end();
        }
        Ok(())
    }

    fn start(&mut self, tag: &Tag<'_>) -> Result<(), StreamError> {
        if self.head.is_some() && self.scopes.depth() == 2 {
            self.canonical.child(tag, &self.scopes, &mut self.index)?;
        } else {
            self.canonical.start(tag, &self.scopes, Place::Inside)?;
        }
        Ok(())
    }

    fn end(&mut self) {
        if self.head.is_none() || self.scopes.depth() > 1 {
            self.canonical.end(&self.scopes);
        }
        self.scopes.close();
    }

    fn text(&mut self, raw: &[u8], cdata: bool) -> Result<(), StreamError> {
        let text = std::str::from_utf8(raw).map_err(|_| XmlError::NotWellFormed)?;
        match &mut self.head {
            Some(head) if self.scopes.depth() == 1 => {
                // Stanzas have no text of their own: white space between children is dropped, and anything else would
                // be lost in silence.
                let mut blank = true;
                decode_text(text, cdata, |piece, _| blank &= piece.bytes().all(is_space))?;
                if !blank {
                    head.fail(StanzaCondition::BadRequest);
                }
            }
            _ => self.canonical.text(text, cdata)?,
        }
        Ok(())
    }
}

/// What stays of a stanza that is too large.
#[derive(Debug)]
pub(super) struct Oversize {
    pub(super) head: Head,
    /// Elements open where reading stopped.
    pub(super) depth: usize,
    /// Bytes read.
    pub(super) size: usize,
    /// The limit that it is over.
    pub(super) limit: usize,
}

/// What a first-level element is: the head of a stanza, or nothing for other elements that may be known.
fn judge(ns: &str, name: &str, content: &str) -> Result<Option<Head>, StreamError> {
    let head = Head::new(name);
    if ns == content && !content.is_empty() {
        return head.map(Some).ok_or_else(|| StreamCondition::UnsupportedStanzaType.into());
    }
    match (ns, name) {
        (ns::STREAMS, "error" | "features") => Ok(None),
        // A second header where none is expected.
        (ns::STREAMS, "stream") => Err(StreamCondition::BadFormat.into()),
        (ns::STREAMS, _) => Err(StreamCondition::UnsupportedStanzaType.into()),
        ("" | ns::CLIENT | ns::SERVER | ns::COMPONENT, _) if head.is_some() => {
            Err(StreamCondition::InvalidNamespace.into())
        }
        ("" | ns::CLIENT | ns::SERVER | ns::COMPONENT, _) => {
            Err(StreamCondition::UnsupportedStanzaType.into())
        }
        _ => Ok(None),
    }
}

/// How long the canonical form of an element may get.
fn written(limit: usize) -> usize {
    limit + limit.min(LONGER)
}

fn is_extra(attribute: &Attribute<'_>) -> bool {
    !matches!(attribute.name.full, "to" | "from" | "id" | "type" | "xml:lang")
}

fn give_back(mut out: Vec<u8>) {
    if out.capacity() <= SCRATCH_BYTES {
        out.clear();
        SCRATCH.set(out);
    }
}
