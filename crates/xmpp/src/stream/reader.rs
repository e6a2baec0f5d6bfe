//! Bytes in, events out.

use std::sync::Arc;

use super::{
    Event, Incoming, Limits,
    building::{Building, Oversize, Progress},
    header::Root,
    skip::Skip,
};
use crate::{
    Element, ErrorType, StanzaCondition, StanzaError, StreamCondition, StreamError, XmlError, ns,
    xml::{
        Bounds,
        chars::is_space,
        tag::{Tag, end_tag_name},
        token::{Scanner, Token, TokenKind},
    },
};

/// A stanza that is over the limit by this factor ends the stream after all.
const OVERSIZE_FACTOR: usize = 4;

/// Reads one direction of a stream; see [`super`].
///
/// While nothing is incomplete it holds no memory of its own, but for the bindings of a header that is not the usual
/// one.
#[derive(Debug)]
pub struct Reader {
    limits: Limits,
    /// Input; what stands before `start` has been taken.
    buffer: Vec<u8>,
    start: usize,
    /// White space that was counted when it came in.
    spaces: usize,
    scanner: Scanner,
    state: State,
    failed: Option<Box<StreamError>>,
}

#[derive(Debug)]
enum State {
    /// Before the header.
    Start(Prolog),
    /// Between first-level elements.
    Between(Arc<Root>),
    /// In a first-level element.
    Inside(Arc<Root>, Box<Building>),
    /// In a stanza that is too large.
    Skipping(Arc<Root>, Box<(Oversize, Skip)>),
    /// After a header that was an empty-element tag.
    Empty,
    /// After the end tag.
    Ended,
}

/// What has been read before the header.
#[derive(Clone, Copy, Debug, Default)]
struct Prolog {
    /// The old stream may have left white space behind.
    restarted: bool,
    spaces: bool,
    declared: bool,
    /// A byte order mark was looked for.
    marked: bool,
}

impl Reader {
    /// A reader that expects a stream header.
    pub fn new(limits: Limits) -> Self {
        Self {
            limits,
            buffer: Vec::new(),
            start: 0,
            spaces: 0,
            scanner: Scanner::default(),
            state: State::Start(Prolog::default()),
            failed: None,
        }
    }

    /// A reader for transports without a stream element, where every element stands alone (RFC 7395).
    pub fn framed(limits: Limits) -> Self {
        let mut reader = Self::new(limits);
        reader.state = State::Between(Root::framed());
        reader
    }

    /// Changes the limits from the next element on, as after authentication.
    pub const fn set_limits(&mut self, limits: Limits) {
        self.limits = limits;
    }

    /// Expects a new header, as after TLS and SASL (RFC 6120 section 4.3.3). Input that has not been taken stays: after
    /// SASL the peer may have sent its header already. After STARTTLS, call [`Self::clear`] too.
    pub fn restart(&mut self) {
        self.scanner = Scanner::default();
        self.state = State::Start(Prolog { restarted: true, ..Prolog::default() });
    }

    /// Drops input that has not been taken. What was sent in the clear must not be read inside of TLS.
    pub fn clear(&mut self) {
        self.buffer = Vec::new();
        self.start = 0;
        self.spaces = 0;
        self.scanner = Scanner::default();
    }

    /// Brings input.
    pub fn feed(&mut self, mut input: &[u8]) {
        if self.failed.is_some() || matches!(self.state, State::Ended) {
            return;
        }
        if self.buffer.is_empty() && matches!(self.state, State::Between(_)) {
            let spaces = leading_space(input);
            self.spaces += spaces;
            input = &input[spaces..];
        }
        self.buffer.extend_from_slice(input);
    }

    /// The next event, or `None` if more input is needed.
    ///
    /// # Errors
    /// The stream error that ends the stream; then always the same one.
    #[expect(clippy::should_implement_trait, reason = "not an iterator: it goes on after `None`")]
    pub fn next(&mut self) -> Result<Option<Event>, StreamError> {
        if let Some(error) = &self.failed {
            return Err(error.as_ref().clone());
        }
        let result = self.advance();
        match &result {
            Ok(None) => self.tidy(),
            Ok(Some(_)) if self.start == self.buffer.len() => self.tidy(),
            Ok(Some(_)) => {}
            Err(error) => {
                self.failed = Some(Box::new(error.clone()));
                self.clear();
                self.state = State::Ended;
            }
        }
        result
    }

    /// Bytes held of input that has not become an event.
    pub fn buffered(&self) -> usize {
        let building = match &self.state {
            State::Inside(_, building) => building.held(),
            _ => 0,
        };
        self.buffer.len() - self.start + building
    }

    /// Whether nothing is incomplete: no first-level element has begun, and no input waits.
    pub fn idle(&self) -> bool {
        let between = matches!(self.state, State::Start(_) | State::Between(_) | State::Empty | State::Ended);
        between && self.buffer.len() == self.start
    }

    /// Bytes of heap held, as the tests see them.
    #[cfg(test)]
    pub(super) fn capacity(&self) -> usize {
        let state = match &self.state {
            State::Inside(_, building) => building.capacity(),
            State::Skipping(_, skipping) => size_of_val(skipping.as_ref()),
            _ => 0,
        };
        self.buffer.capacity() + state
    }

    fn advance(&mut self) -> Result<Option<Event>, StreamError> {
        if self.spaces > 0 {
            return Ok(Some(Event::Whitespace(std::mem::take(&mut self.spaces))));
        }
        match std::mem::replace(&mut self.state, State::Ended) {
            State::Start(prolog) => self.prolog(prolog),
            State::Between(root) => self.between(root),
            State::Inside(root, building) => self.inside(root, building),
            State::Skipping(root, skipping) => self.skipping(root, skipping),
            State::Empty => Ok(Some(Event::End)),
            State::Ended => Ok(None),
        }
    }

    fn input(&self) -> &[u8] {
        &self.buffer[self.start..]
    }

    /// Takes white space and gives the event for it.
    fn whitespace(&mut self) -> Option<Event> {
        let spaces = leading_space(self.input());
        self.start += spaces;
        (spaces > 0).then_some(Event::Whitespace(spaces))
    }

    /// The next token of a first-level start tag; `None` if it is not complete.
    fn token(&mut self, bounds: &Bounds) -> Result<Option<Token>, XmlError> {
        let input = &self.buffer[self.start..];
        let limit = self.limits.stanza_bytes;
        let token = self.scanner.next(&input[..input.len().min(limit)], bounds)?;
        if token.is_none() && input.len() > limit { Err(TOO_LONG) } else { Ok(token) }
    }

    fn prolog(&mut self, mut prolog: Prolog) -> Result<Option<Event>, StreamError> {
        let bounds = self.limits.bounds();
        loop {
            if !prolog.marked {
                match byte_order_mark(self.input())? {
                    Some(length) => self.start += length,
                    None => {
                        self.state = State::Start(prolog);
                        return Ok(None);
                    }
                }
                prolog.marked = true;
            }
            if let Some(event) = self.whitespace() {
                prolog.spaces = true;
                self.state = State::Start(prolog);
                return Ok(Some(event));
            }
            match self.input() {
                // UTF-16 without a mark.
                [0, ..] | [b'<', 0, ..] => return Err(XmlError::Encoding.into()),
                [] | [b'<', ..] => {}
                _ => return Err(XmlError::NotWellFormed.into()),
            }
            let Some(token) = self.token(&bounds)? else {
                self.state = State::Start(prolog);
                return Ok(None);
            };
            let raw = &self.buffer[self.start..self.start + token.len];
            self.start += token.len;
            match token.kind {
                TokenKind::Declaration if prolog.declared || (prolog.spaces && !prolog.restarted) => {
                    return Err(XmlError::NotWellFormed.into());
                }
                TokenKind::Declaration => {
                    check_declaration(raw)?;
                    prolog.declared = true;
                }
                TokenKind::Start => {
                    let tag = Tag::parse(raw, &bounds)?;
                    let (header, root) = Root::parse(&tag, &bounds)?;
                    self.state = if tag.empty { State::Empty } else { State::Between(root) };
                    return Ok(Some(Event::Header(header)));
                }
                _ => return Err(XmlError::NotWellFormed.into()),
            }
        }
    }

    fn between(&mut self, root: Arc<Root>) -> Result<Option<Event>, StreamError> {
        if let Some(event) = self.whitespace() {
            self.state = State::Between(root);
            return Ok(Some(event));
        }
        match self.input() {
            [] | [b'<', ..] => {}
            [0..0x20, ..] => return Err(XmlError::NotWellFormed.into()),
            // Character data right under the root.
            _ => return Err(StreamCondition::BadFormat.into()),
        }
        let bounds = self.limits.bounds();
        let Some(token) = self.token(&bounds)? else {
            self.state = State::Between(root);
            return Ok(None);
        };
        let raw = &self.buffer[self.start..self.start + token.len];
        self.start += token.len;
        match token.kind {
            TokenKind::Start => {
                let building = Building::begin(&Tag::parse(raw, &bounds)?, &root, &self.limits, token.len)?;
                self.begun(root, building)
            }
            TokenKind::End if !root.name.is_empty() && end_tag_name(raw) == root.name.as_bytes() => {
                Ok(Some(Event::End))
            }
            TokenKind::CData => Err(StreamCondition::BadFormat.into()),
            _ => Err(XmlError::NotWellFormed.into()),
        }
    }

    /// Goes on with a start tag just read, in place: elements are small and mostly there as a whole.
    fn begun(&mut self, root: Arc<Root>, mut building: Building) -> Result<Option<Event>, StreamError> {
        match self.run(&mut building)? {
            Progress::Done => self.complete(root, &mut building),
            Progress::TooLarge => self.too_large(root, building),
            Progress::More => {
                building.rest();
                self.state = State::Inside(root, Box::new(building));
                Ok(None)
            }
        }
    }

    fn inside(&mut self, root: Arc<Root>, mut building: Box<Building>) -> Result<Option<Event>, StreamError> {
        match self.run(&mut building)? {
            Progress::Done => self.complete(root, &mut building),
            Progress::TooLarge => self.too_large(root, *building),
            Progress::More => {
                building.trim();
                self.state = State::Inside(root, building);
                Ok(None)
            }
        }
    }

    fn run(&mut self, building: &mut Building) -> Result<Progress, StreamError> {
        let input = &self.buffer[self.start..];
        let (taken, progress) = building.run(input, &mut self.scanner, &self.limits)?;
        self.start += taken;
        Ok(progress)
    }

    fn complete(&mut self, root: Arc<Root>, building: &mut Building) -> Result<Option<Event>, StreamError> {
        self.state = State::Between(root);
        building.finish().map(Some)
    }

    fn too_large(&mut self, root: Arc<Root>, building: Building) -> Result<Option<Event>, StreamError> {
        let oversize = building.oversize().filter(|_| self.limits.answer_oversize).ok_or(TOO_LONG)?;
        self.scanner = Scanner::default();
        let skip = Skip::new(oversize.depth);
        self.skipping(root, Box::new((oversize, skip)))
    }

    fn skipping(
        &mut self,
        root: Arc<Root>,
        mut skipping: Box<(Oversize, Skip)>,
    ) -> Result<Option<Event>, StreamError> {
        let (oversize, skip) = skipping.as_mut();
        let input = &self.buffer[self.start..];
        let left = oversize.limit.saturating_mul(OVERSIZE_FACTOR) - oversize.size;
        let window = &input[..input.len().min(left)];
        let found = skip.run(window)?;
        let taken = found.unwrap_or(window.len());
        oversize.size += taken;
        self.start += taken;
        if found.is_none() {
            if input.len() > left {
                return Err(TOO_LONG.into());
            }
            self.state = State::Skipping(root, skipping);
            return Ok(None);
        }
        self.state = State::Between(root);
        // XEP-0205 section 3.5: an application condition says why.
        let fault = StanzaError::new(StanzaCondition::PolicyViolation)
            .with_type(ErrorType::Modify)
            .with_app(Element::new(ns::ERRORS, "stanza-too-big"));
        let (oversize, _) = *skipping;
        let size = oversize.size;
        Ok(Some(Event::Stanza(Incoming { stanza: oversize.head.stanza, size, fault: Some(fault) })))
    }

    /// Frees what has been taken.
    fn tidy(&mut self) {
        if self.start == self.buffer.len() {
            self.buffer = Vec::new();
        } else if self.start > 0 {
            self.buffer.drain(..self.start);
            self.buffer.shrink_to(2 * self.buffer.len());
        }
        self.start = 0;
    }
}

const TOO_LONG: XmlError = XmlError::Limit("stanza too long");

fn leading_space(input: &[u8]) -> usize {
    input.iter().position(|byte| !is_space(*byte)).unwrap_or(input.len())
}

/// The length of a UTF-8 byte order mark at the start of a stream; other marks are of other encodings. `None` if more
/// input is needed to tell.
fn byte_order_mark(input: &[u8]) -> Result<Option<usize>, XmlError> {
    match input {
        [] | [0xEF] | [0xEF, 0xBB] => Ok(None),
        [0xEF, 0xBB, 0xBF, ..] => Ok(Some(3)),
        [0xFE | 0xFF, ..] => Err(XmlError::Encoding),
        _ => Ok(Some(0)),
    }
}

/// Checks an XML declaration (XML 1.0 section 2.8). Only UTF-8 is XMPP (RFC 6120 section 11.6).
fn check_declaration(raw: &[u8]) -> Result<(), XmlError> {
    // It is written as a tag is, but for its ends.
    let mut tag = raw[..raw.len() - 2].to_vec();
    tag.push(b'>');
    tag.remove(1);
    let tag = Tag::parse(&tag, &Bounds::TREE)?;
    let mut attributes = tag.attributes.iter().peekable();
    let version = attributes.next().filter(|version| version.name.full == "version");
    if tag.empty || !tag.declarations.is_empty() || version.is_none_or(|version| version.value != "1.0") {
        return Err(XmlError::NotWellFormed);
    }
    if let Some(encoding) = attributes.next_if(|attribute| attribute.name.full == "encoding")
        && !encoding.value.eq_ignore_ascii_case("utf-8")
    {
        return Err(XmlError::Encoding);
    }
    attributes.next_if(|attribute| {
        attribute.name.full == "standalone" && matches!(attribute.value.as_ref(), "yes" | "no")
    });
    if attributes.next().is_some() { Err(XmlError::NotWellFormed) } else { Ok(()) }
}
