//! A client's session: from the TCP connection to the bound resource, and what it reads and writes after that.

use std::time::Duration;

use anyhow::{Context, Result, anyhow, bail, ensure};
use memchr::memmem;
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt};
use tokio::net::{TcpSocket, TcpStream};
use tokio::time::timeout;
use tokio_rustls::TlsConnector;
use tokio_rustls::client::TlsStream;

use crate::framer::{self, Framer};
use crate::sasl::{self, Mechanism, Scram};
use crate::target::Target;

/// How long any answer may take while a session is set up.
const PATIENCE: Duration = Duration::from_secs(60);
/// How long a server may take to end a stream that we ended.
const FAREWELL: Duration = Duration::from_secs(2);

/// A bound session.
pub(crate) struct Session {
    stream: TlsStream<TcpStream>,
    framer: Framer,
    /// The full JID that the server gave.
    pub(crate) jid: String,
    /// With stream management: how many stanzas have come.
    handled: Option<u32>,
    /// The highest `h` that the server sent.
    acknowledged: u32,
    /// By which the session can be resumed, if the server gave a name for that.
    resumption: Option<String>,
}

/// What to ask for in a session.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Wish {
    /// Stream management (XEP-0198), with resumption.
    pub(crate) managed: bool,
    /// Initial presence.
    pub(crate) presence: bool,
}

impl Session {
    /// Stanzas that a session with presence has sent when it is open: presence and a ping.
    pub(crate) const SENT_AT_FIRST: u32 = 2;

    /// Connects, authenticates and binds.
    pub(crate) async fn open(target: &Target, user: &str, resource: &str, wish: Wish) -> Result<Self> {
        Self::open_with(target, user, resource, wish, |_| {}).await
    }

    /// As [`Session::open`]; shows stanzas that come before the session is open.
    pub(crate) async fn open_with(
        target: &Target,
        user: &str,
        resource: &str,
        wish: Wish,
        early: impl FnMut(&[u8]),
    ) -> Result<Self> {
        in_time(Self::set_up(target, user, resource, wish, early))
            .await
            .with_context(|| format!("cannot log in as {user}"))
    }

    /// Connects and authenticates: what is left is to bind, or to resume.
    pub(crate) async fn authenticated(target: &Target, user: &str) -> Result<Self> {
        in_time(Self::log_in(target, user)).await.with_context(|| format!("cannot log in as {user}"))
    }

    /// Continues a session that has lost its connection, on another one.
    pub(crate) async fn resume(target: &Target, user: &str, before: &Resumption) -> Result<Self> {
        in_time(async {
            let mut session = Self::log_in(target, user).await?;
            let Resumption { name, handled } = before;
            let resume = format!("<resume xmlns='urn:xmpp:sm:3' previd='{name}' h='{handled}'/>");
            session.write(resume.as_bytes()).await?;
            let answer = session.element().await?;
            ensure!(framer::name(&answer) == b"resumed", "not resumed: {}", show(&answer));
            session.handled = Some(*handled);
            session.resumption = Some(name.clone());
            Ok(session)
        })
        .await
        .with_context(|| format!("cannot resume as {user}"))
    }

    /// What is needed to resume the session.
    pub(crate) fn resumption(&self) -> Option<Resumption> {
        Some(Resumption { name: self.resumption.clone()?, handled: self.handled? })
    }

    async fn set_up(
        target: &Target,
        user: &str,
        resource: &str,
        wish: Wish,
        early: impl FnMut(&[u8]),
    ) -> Result<Self> {
        let mut session = Self::log_in(target, user).await?;
        session.bind(resource).await?;
        if wish.managed {
            session.manage().await?;
        }
        if wish.presence {
            session.write(b"<presence/>").await?;
            session.settle(early).await?;
        }
        Ok(session)
    }

    async fn log_in(target: &Target, user: &str) -> Result<Self> {
        let (number, stream) = connect(target).await?;
        let mut session = Self {
            stream,
            framer: Framer::default(),
            jid: String::new(),
            handled: None,
            acknowledged: 0,
            resumption: None,
        };
        let features = session.begin(&target.domain).await?;
        let offer = format!("<mechanism>{}</mechanism>", target.mechanism.name());
        ensure!(
            contains(&features, &offer),
            "the server does not offer {}: {}",
            target.mechanism.name(),
            show(&features)
        );
        session.authenticate(target, user, number).await?;
        session.framer.restart();
        session.begin(&target.domain).await?;
        Ok(session)
    }

    /// Turns stream management on.
    async fn manage(&mut self) -> Result<()> {
        self.write(b"<enable xmlns='urn:xmpp:sm:3' resume='true'/>").await?;
        let answer = self.element().await?;
        ensure!(framer::name(&answer) == b"enabled", "no stream management: {}", show(&answer));
        self.handled = Some(0);
        let name = framer::attribute(&answer, "id").map(|name| name.to_vec());
        self.resumption = name.map(String::from_utf8).transpose()?;
        Ok(())
    }

    /// Waits for the answer to a ping (XEP-0199): the server has taken all that was sent before.
    async fn settle(&mut self, mut early: impl FnMut(&[u8])) -> Result<()> {
        self.write(b"<iq type='get' id='settle'><ping xmlns='urn:xmpp:ping'/></iq>").await?;
        let mut answers = Vec::new();
        loop {
            while let Some(stanza) = self.next(&mut answers)? {
                if framer::name(stanza) == b"iq" && framer::attribute(stanza, "id") == Some(b"settle") {
                    return self.write(&answers).await;
                }
                early(stanza);
            }
            self.write(&answers).await?;
            answers.clear();
            self.read().await?;
        }
    }

    async fn authenticate(&mut self, target: &Target, user: &str, number: u64) -> Result<()> {
        let mechanism = target.mechanism.name();
        let auth = |initial: &str| {
            format!("<auth xmlns='urn:ietf:params:xml:ns:xmpp-sasl' mechanism='{mechanism}'>{initial}</auth>")
        };
        match target.mechanism {
            Mechanism::Plain => {
                self.write(auth(&sasl::plain(user, &target.password)).as_bytes()).await?;
                self.expect("success").await?;
            }
            Mechanism::ScramSha1 => {
                let scram = Scram::new(user, number);
                self.write(auth(&scram.first()).as_bytes()).await?;
                let challenge = self.expect("challenge").await?;
                let (last, signature) =
                    scram.last(framer::text(&challenge), &target.password, &target.keys)?;
                let response =
                    format!("<response xmlns='urn:ietf:params:xml:ns:xmpp-sasl'>{last}</response>");
                self.write(response.as_bytes()).await?;
                let success = self.expect("success").await?;
                ensure!(
                    framer::text(&success) == signature.as_bytes(),
                    "the server does not know the password"
                );
            }
        }
        Ok(())
    }

    /// Binds a resource.
    pub(crate) async fn bind(&mut self, resource: &str) -> Result<()> {
        let bind = format!(
            "<iq type='set' id='bind'><bind xmlns='urn:ietf:params:xml:ns:xmpp-bind'>\
             <resource>{resource}</resource></bind></iq>"
        );
        self.write(bind.as_bytes()).await?;
        let answer = self.expect("iq").await?;
        let begin = memmem::find(&answer, b"<jid>").with_context(|| format!("no bind: {}", show(&answer)))?;
        self.jid = String::from_utf8(framer::text(&answer[begin..]).to_vec())?;
        Ok(())
    }

    /// Sends a stream header and gives the features.
    async fn begin(&mut self, domain: &str) -> Result<Vec<u8>> {
        begin(&mut self.stream, &mut self.framer, domain).await
    }

    /// Waits for an element of this name.
    async fn expect(&mut self, name: &str) -> Result<Vec<u8>> {
        expect(&mut self.stream, &mut self.framer, name).await
    }

    async fn element(&mut self) -> Result<Vec<u8>> {
        element(&mut self.stream, &mut self.framer).await
    }

    /// Sends these bytes.
    pub(crate) async fn write(&mut self, bytes: &[u8]) -> Result<()> {
        send(&mut self.stream, bytes).await
    }

    /// Waits for more bytes; dropping the future loses none. An error is the end of the connection.
    pub(crate) async fn read(&mut self) -> Result<()> {
        read(&mut self.stream, &mut self.framer).await
    }

    /// The next stanza among the bytes read; requests for acknowledgements add their answer to `answers`.
    pub(crate) fn next(&mut self, answers: &mut Vec<u8>) -> Result<Option<&[u8]>> {
        loop {
            let Some(range) = self.framer.next_range() else { return Ok(None) };
            let element = self.framer.at(&range);
            match framer::name(element) {
                b"message" | b"iq" | b"presence" => {
                    if let Some(handled) = &mut self.handled {
                        *handled = handled.wrapping_add(1);
                    }
                    return Ok(Some(self.framer.at(&range)));
                }
                b"r" => answers.extend_from_slice(acknowledgement(self.handled).as_bytes()),
                b"a" => self.acknowledged = number(framer::attribute(element, "h"))?,
                b"/stream:stream" => bail!("the server ends the stream"),
                b"stream:error" => bail!("the server ends the stream: {}", show(element)),
                _ => {}
            }
        }
    }

    /// Acknowledges all that has come, unasked.
    pub(crate) async fn acknowledge(&mut self) -> Result<()> {
        self.write(acknowledgement(self.handled).as_bytes()).await
    }

    /// The highest count that the server has acknowledged.
    pub(crate) fn acknowledged(&self) -> u32 {
        self.acknowledged
    }

    /// Reads and answers until the stream ends or the future is dropped, holding no buffer in between.
    pub(crate) async fn idle(&mut self) -> Result<()> {
        let mut answers = Vec::new();
        loop {
            self.framer.shrink();
            self.read().await?;
            while self.next(&mut answers)?.is_some() {}
            if !answers.is_empty() {
                self.write(&answers).await?;
                answers = Vec::new();
            }
        }
    }

    /// Ends the stream in order and waits for the server to do so too.
    pub(crate) async fn close(mut self) {
        // With the session over, nothing depends on how the connection ends.
        let _ = timeout(FAREWELL, async {
            self.write(b"</stream:stream>").await?;
            let mut answers = Vec::new();
            loop {
                while self.next(&mut answers)?.is_some() {}
                self.read().await?;
            }
            #[expect(unreachable_code, reason = "names the type of the block")]
            anyhow::Ok(())
        })
        .await;
        let _ = timeout(FAREWELL, self.stream.shutdown()).await;
    }
}

/// What resuming a session takes.
#[derive(Clone, Debug)]
pub(crate) struct Resumption {
    name: String,
    handled: u32,
}

async fn in_time<T>(what: impl Future<Output = Result<T>>) -> Result<T> {
    timeout(PATIENCE, what).await.unwrap_or_else(|_| Err(anyhow!("it takes longer than {PATIENCE:?}")))
}

async fn connect(target: &Target) -> Result<(u64, TlsStream<TcpStream>)> {
    let (number, source) = target.source();
    let socket = if target.address.is_ipv4() { TcpSocket::new_v4()? } else { TcpSocket::new_v6()? };
    if let Some(source) = source {
        socket.bind(source)?;
    }
    let mut tcp = socket.connect(target.address).await?;
    tcp.set_nodelay(true)?;
    if target.starttls {
        let mut framer = Framer::default();
        begin(&mut tcp, &mut framer, &target.domain).await?;
        send(&mut tcp, b"<starttls xmlns='urn:ietf:params:xml:ns:xmpp-tls'/>").await?;
        expect(&mut tcp, &mut framer, "proceed").await?;
    }
    let tls = TlsConnector::from(target.tls.clone()).connect(target.name.clone(), tcp).await?;
    Ok((number, tls))
}

async fn begin<S: AsyncRead + AsyncWrite + Unpin>(
    stream: &mut S,
    framer: &mut Framer,
    domain: &str,
) -> Result<Vec<u8>> {
    let header = format!(
        "<?xml version='1.0'?><stream:stream to='{domain}' version='1.0' xmlns='jabber:client' \
         xmlns:stream='http://etherx.jabber.org/streams'>"
    );
    send(stream, header.as_bytes()).await?;
    expect(stream, framer, "stream:stream").await?;
    expect(stream, framer, "stream:features").await
}

async fn expect<S: AsyncRead + Unpin>(stream: &mut S, framer: &mut Framer, name: &str) -> Result<Vec<u8>> {
    let element = element(stream, framer).await?;
    ensure!(framer::name(&element) == name.as_bytes(), "<{name}/> was due, not {}", show(&element));
    Ok(element)
}

async fn element<S: AsyncRead + Unpin>(stream: &mut S, framer: &mut Framer) -> Result<Vec<u8>> {
    loop {
        if let Some(element) = framer.next() {
            return Ok(element.to_vec());
        }
        read(stream, framer).await?;
    }
}

async fn read<S: AsyncRead + Unpin>(stream: &mut S, framer: &mut Framer) -> Result<()> {
    ensure!(stream.read_buf(framer.space()).await? > 0, "the server closed the connection");
    Ok(())
}

async fn send<S: AsyncWrite + Unpin>(stream: &mut S, bytes: &[u8]) -> Result<()> {
    stream.write_all(bytes).await?;
    Ok(stream.flush().await?)
}

fn acknowledgement(handled: Option<u32>) -> String {
    format!("<a xmlns='urn:xmpp:sm:3' h='{}'/>", handled.unwrap_or_default())
}

fn number(digits: Option<&[u8]>) -> Result<u32> {
    let digits = digits.context("<a/> without h")?;
    Ok(std::str::from_utf8(digits)?.parse()?)
}

fn contains(bytes: &[u8], text: &str) -> bool {
    memmem::find(bytes, text.as_bytes()).is_some()
}

fn show(bytes: &[u8]) -> String {
    String::from_utf8_lossy(&bytes[..bytes.len().min(600)]).into_owned()
}
