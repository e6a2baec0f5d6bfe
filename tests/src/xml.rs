//! A small element tree and an incremental reader of XMPP streams, over `rxml`.

use std::collections::BTreeMap;
use std::fmt;

use anyhow::{Context, Result, anyhow, bail};
use rxml::error::EndOrError;
use rxml::{Event, Options, Parse, Parser, WithOptions};

/// The namespace of client stanzas, in force where a test's XML names none.
pub const CLIENT: &str = "jabber:client";
/// The namespace of `<stream:stream>`, `<stream:features>` and `<stream:error>`.
pub const STREAMS: &str = "http://etherx.jabber.org/streams";
const XML: &str = "http://www.w3.org/XML/1998/namespace";

/// An element: expanded name, attributes by expanded name, content.
#[derive(Clone, Debug, PartialEq, Eq, Default)]
pub struct Node {
    /// Namespace name.
    pub ns: String,
    /// Local name.
    pub name: String,
    /// Attributes by (namespace, name); the namespace is empty for a plain attribute.
    pub attributes: BTreeMap<(String, String), String>,
    /// Content in document order.
    pub content: Vec<Content>,
}

/// One piece of an element's content.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Content {
    /// A child element.
    Node(Node),
    /// Character data, never empty, never two in a row.
    Text(String),
}

impl Node {
    /// Parses one element whose default namespace is `jabber:client` unless it declares another.
    pub fn parse(xml: &str) -> Result<Self> {
        let mut nodes = Self::parse_all(xml)?;
        match (nodes.pop(), nodes.is_empty()) {
            (Some(node), true) => Ok(node),
            _ => bail!("expected exactly one element in {xml:?}"),
        }
    }

    /// Parses any number of sibling elements, with only white space between them.
    pub fn parse_all(xml: &str) -> Result<Vec<Self>> {
        let mut reader = Reader::new();
        let wrapped = format!("<fragment xmlns='{CLIENT}' xmlns:stream='{STREAMS}'>{xml}</fragment>");
        reader.feed(wrapped.as_bytes());
        let mut nodes = Vec::new();
        loop {
            match reader.read().with_context(|| format!("in {xml}"))? {
                Some(Item::Node(node)) => nodes.push(node),
                Some(Item::Header(_)) => {}
                Some(Item::Text(text)) => bail!("text {text:?} between elements in {xml}"),
                Some(Item::End) => return Ok(nodes),
                None => bail!("unfinished XML: {xml}"),
            }
        }
    }

    /// Whether the expanded name is this one.
    pub fn is(&self, ns: &str, name: &str) -> bool {
        self.ns == ns && self.name == name
    }

    /// The value of an attribute without namespace; `xml:lang` is reachable under that name.
    pub fn attribute(&self, name: &str) -> Option<&str> {
        let key = match name.strip_prefix("xml:") {
            Some(local) => (XML.to_owned(), local.to_owned()),
            None => (String::new(), name.to_owned()),
        };
        self.attributes.get(&key).map(String::as_str)
    }

    /// The child elements.
    pub fn children(&self) -> impl Iterator<Item = &Self> {
        self.content.iter().filter_map(|c| match c {
            Content::Node(node) => Some(node),
            Content::Text(_) => None,
        })
    }

    /// The first child of this expanded name.
    pub fn find(&self, ns: &str, name: &str) -> Option<&Self> {
        self.children().find(|c| c.is(ns, name))
    }

    /// The first child, at any depth below this element, of this expanded name, in document order.
    pub fn find_deep(&self, ns: &str, name: &str) -> Option<&Self> {
        self.children().find_map(|c| if c.is(ns, name) { Some(c) } else { c.find_deep(ns, name) })
    }

    /// The character data directly inside, joined.
    pub fn text(&self) -> String {
        self.content
            .iter()
            .map(|c| match c {
                Content::Text(text) => text.as_str(),
                Content::Node(_) => "",
            })
            .collect()
    }

    /// The text of `<body/>` of a message.
    pub fn body(&self) -> Option<String> {
        self.find(CLIENT, "body").map(Self::text)
    }

    /// The defined condition of a stanza error, stream error or SASL failure: the name of the first child of its
    /// `<error/>` or `<failure/>` that is not `<text/>`, with the error type before it where there is one
    /// (`cancel item-not-found`).
    pub fn condition(&self) -> Option<String> {
        let error = if matches!(self.name.as_str(), "error" | "failure" | "failed") {
            self
        } else {
            self.children().find(|c| c.name == "error" && c.ns == self.ns)?
        };
        let condition = error.children().find(|c| c.name != "text")?;
        Some(match error.attribute("type") {
            Some(kind) => format!("{kind} {}", condition.name),
            None => condition.name.clone(),
        })
    }

    fn push_text(&mut self, text: String) {
        if text.is_empty() {
            return;
        }
        match self.content.last_mut() {
            Some(Content::Text(last)) => last.push_str(&text),
            _ => self.content.push(Content::Text(text)),
        }
    }

    fn write(&self, out: &mut String, inherited: &str) {
        out.push('<');
        out.push_str(&self.name);
        if self.ns != inherited {
            out.push_str(&format!(" xmlns='{}'", escape(&self.ns)));
        }
        for (index, ((ns, name), value)) in self.attributes.iter().enumerate() {
            let value = escape(value);
            match ns.as_str() {
                "" => out.push_str(&format!(" {name}='{value}'")),
                XML => out.push_str(&format!(" xml:{name}='{value}'")),
                _ => out.push_str(&format!(" xmlns:p{index}='{}' p{index}:{name}='{value}'", escape(ns))),
            }
        }
        if self.content.is_empty() {
            out.push_str("/>");
            return;
        }
        out.push('>');
        for piece in &self.content {
            match piece {
                Content::Node(node) => node.write(out, &self.ns),
                Content::Text(text) => out.push_str(&escape(text)),
            }
        }
        out.push_str(&format!("</{}>", self.name));
    }
}

impl fmt::Display for Node {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mut out = String::new();
        self.write(&mut out, CLIENT);
        f.write_str(&out)
    }
}

/// Escapes text for use in content or in an attribute value.
pub fn escape(text: &str) -> String {
    let mut out = String::with_capacity(text.len());
    for c in text.chars() {
        match c {
            '&' => out.push_str("&amp;"),
            '<' => out.push_str("&lt;"),
            '>' => out.push_str("&gt;"),
            '"' => out.push_str("&quot;"),
            '\'' => out.push_str("&apos;"),
            c => out.push(c),
        }
    }
    out
}

/// One thing read from a stream.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Item {
    /// The start tag of the root element, without content.
    Header(Node),
    /// A whole child of the root.
    Node(Node),
    /// Character data between the children of the root that is not just white space.
    Text(String),
    /// The end tag of the root.
    End,
}

/// Reads a stream piece by piece.
pub struct Reader {
    parser: Parser,
    buffer: Vec<u8>,
    open: Vec<Node>,
    started: bool,
}

impl Default for Reader {
    fn default() -> Self {
        Self::new()
    }
}

impl Reader {
    /// A reader at the start of a stream.
    pub fn new() -> Self {
        let options = Options { max_token_length: 16 * 1024 * 1024, ..Options::default() };
        let mut parser = Parser::with_options(options);
        parser.set_text_buffering(true);
        Self { parser, buffer: Vec::new(), open: Vec::new(), started: false }
    }

    /// Adds bytes as they came.
    pub fn feed(&mut self, bytes: &[u8]) {
        self.buffer.extend_from_slice(bytes);
    }

    /// The next complete item, or `None` if more bytes are needed. An error means that the bytes are not
    /// well-formed XML: nothing sensible follows.
    pub fn read(&mut self) -> Result<Option<Item>> {
        loop {
            let mut rest = &self.buffer[..];
            let before = rest.len();
            let outcome = self.parser.parse(&mut rest, false);
            let used = before - rest.len();
            self.buffer.drain(..used);
            let event = match outcome {
                Ok(Some(event)) => event,
                Ok(None) => return Ok(None),
                Err(EndOrError::NeedMoreData) => return Ok(None),
                Err(EndOrError::Error(error)) => return Err(anyhow!("not well-formed: {error}")),
            };
            if let Some(item) = self.take(event) {
                return Ok(Some(item));
            }
        }
    }

    fn take(&mut self, event: Event) -> Option<Item> {
        match event {
            Event::XmlDeclaration(..) => None,
            Event::StartElement(_, (ns, name), attributes) => {
                let node = Node {
                    ns: ns.as_str().to_owned(),
                    name: name.as_str().to_owned(),
                    attributes: attributes
                        .into_iter()
                        .map(|((ns, name), value)| {
                            ((ns.as_str().to_owned(), name.as_str().to_owned()), value)
                        })
                        .collect(),
                    content: Vec::new(),
                };
                if self.started {
                    self.open.push(node);
                    return None;
                }
                self.started = true;
                Some(Item::Header(node))
            }
            Event::EndElement(_) => match self.open.pop() {
                None => Some(Item::End),
                Some(node) => match self.open.last_mut() {
                    None => Some(Item::Node(node)),
                    Some(parent) => {
                        parent.content.push(Content::Node(node));
                        None
                    }
                },
            },
            Event::Text(_, text) => match self.open.last_mut() {
                Some(node) => {
                    node.push_text(text);
                    None
                }
                None if text.trim().is_empty() => None,
                None => Some(Item::Text(text)),
            },
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn reads_a_stream_at_any_split() {
        let xml = format!(
            "<?xml version='1.0'?><stream:stream xmlns='{CLIENT}' xmlns:stream='{STREAMS}' id='1'> <message \
             to='a@b'><body>a &lt;<![CDATA[ b]]></body><x xmlns='urn:x'/></message> </stream:stream>"
        );
        for step in [1, 2, 7, xml.len()] {
            let mut reader = Reader::new();
            let mut items = Vec::new();
            for chunk in xml.as_bytes().chunks(step) {
                reader.feed(chunk);
                while let Some(item) = reader.read().unwrap() {
                    items.push(item);
                    if items.last() == Some(&Item::End) {
                        break;
                    }
                }
            }
            assert_eq!(items.len(), 3, "step {step}: {items:?}");
            let Item::Node(message) = &items[1] else { panic!("{items:?}") };
            assert_eq!(message.body().as_deref(), Some("a < b"));
            assert_eq!(
                message.to_string(),
                "<message to='a@b'><body>a &lt; b</body><x xmlns='urn:x'/></message>"
            );
        }
    }

    #[test]
    fn refuses_what_is_not_well_formed() {
        for bad in ["<a><b></a>", "<a x='1' x='2'/>", "<p:a/>", "<a>&foo;</a>", "<a/>text"] {
            assert!(Node::parse(bad).is_err(), "{bad}");
        }
    }

    #[test]
    fn names_conditions() {
        let error = Node::parse(
            "<iq type='error'><error type='cancel'><item-not-found \
             xmlns='urn:ietf:params:xml:ns:xmpp-stanzas'/></error></iq>",
        );
        assert_eq!(error.unwrap().condition().as_deref(), Some("cancel item-not-found"));
    }
}
