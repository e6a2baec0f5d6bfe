//! A stream: a socket, in clear or under TLS, and a reader of what comes.

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, anyhow, bail};
use rustls::ClientConfig;
use rustls_pki_types::ServerName;
use tokio::io::{AsyncReadExt, AsyncWriteExt, ReadHalf, WriteHalf};
use tokio::net::TcpStream;
use tokio::time::timeout;
use tokio_rustls::TlsConnector;
use tokio_rustls::client::TlsStream;

use crate::PATIENCE;
use crate::xml::{CLIENT, Item, Node, Reader, STREAMS};

/// What comes over a stream.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Incoming {
    /// The server's stream header.
    Header(Node),
    /// A first-level element.
    Node(Node),
    /// Character data where none belongs.
    Text(String),
    /// `</stream:stream>`
    End,
    /// End of file or a reset.
    Closed,
}

enum Socket {
    Plain(TcpStream),
    Tls(Box<TlsStream<TcpStream>>),
    /// Somebody else has the half that writes.
    Reading(ReadHalf<Box<TlsStream<TcpStream>>>),
    Gone,
}

/// The half of a stream that writes, without any patience.
pub type Writing = WriteHalf<Box<TlsStream<TcpStream>>>;

/// A connection and the XML on it.
pub struct Stream {
    socket: Socket,
    reader: Reader,
    buffer: Vec<u8>,
    peer: SocketAddr,
}

impl Stream {
    /// Connects in clear.
    pub async fn connect(address: SocketAddr) -> Result<Self> {
        let socket = timeout(PATIENCE, TcpStream::connect(address))
            .await
            .with_context(|| format!("connecting to {address} takes too long"))?
            .with_context(|| format!("cannot connect to {address}"))?;
        socket.set_nodelay(true)?;
        Ok(Self { socket: Socket::Plain(socket), reader: Reader::new(), buffer: Vec::new(), peer: address })
    }

    /// Connects with TLS from the first byte (XEP-0368).
    pub async fn connect_tls(address: SocketAddr, config: Arc<ClientConfig>, domain: &str) -> Result<Self> {
        let mut stream = Self::connect(address).await?;
        stream.handshake(config, domain).await?;
        Ok(stream)
    }

    /// Does the TLS handshake on a plain connection and starts a fresh reader.
    pub async fn handshake(&mut self, config: Arc<ClientConfig>, domain: &str) -> Result<()> {
        let Socket::Plain(socket) = std::mem::replace(&mut self.socket, Socket::Gone) else {
            bail!("no plain connection to make secure")
        };
        let name = ServerName::try_from(domain.to_owned())?;
        let secured = timeout(PATIENCE, TlsConnector::from(config).connect(name, socket))
            .await
            .context("the TLS handshake takes too long")?
            .context("the TLS handshake failed")?;
        self.socket = Socket::Tls(Box::new(secured));
        self.restart();
        Ok(())
    }

    /// The address of the server.
    pub fn peer(&self) -> SocketAddr {
        self.peer
    }

    /// The negotiated TLS version, if there is TLS.
    pub fn tls_version(&self) -> Option<rustls::ProtocolVersion> {
        match &self.socket {
            Socket::Tls(tls) => tls.get_ref().1.protocol_version(),
            _ => None,
        }
    }

    /// The `tls-exporter` channel binding of this connection (RFC 9266).
    pub fn exporter(&self) -> Result<Vec<u8>> {
        let Socket::Tls(tls) = &self.socket else { bail!("no TLS") };
        let label = b"EXPORTER-Channel-Binding";
        Ok(tls.get_ref().1.export_keying_material(vec![0; 32], label, Some(b""))?)
    }

    /// The TCP socket, to tune its buffers or linger.
    pub fn tcp(&self) -> Result<&TcpStream> {
        match &self.socket {
            Socket::Plain(tcp) => Ok(tcp),
            Socket::Tls(tls) => Ok(tls.get_ref().0),
            Socket::Reading(_) | Socket::Gone => Err(anyhow!("the connection is gone, or half of it")),
        }
    }

    /// Takes a stream under TLS apart, for a test that reads while it writes. What is left here reads only.
    pub fn split(&mut self) -> Result<Writing> {
        match std::mem::replace(&mut self.socket, Socket::Gone) {
            Socket::Tls(tls) => {
                let (reading, writing) = tokio::io::split(tls);
                self.socket = Socket::Reading(reading);
                Ok(writing)
            }
            other => {
                self.socket = other;
                bail!("no TLS")
            }
        }
    }

    /// Forgets what was read so far: a new stream header must come next.
    pub fn restart(&mut self) {
        self.reader = Reader::new();
    }

    /// Sends bytes as they are.
    pub async fn send(&mut self, bytes: &[u8]) -> Result<()> {
        let write = async {
            match &mut self.socket {
                Socket::Plain(socket) => socket.write_all(bytes).await,
                Socket::Tls(socket) => {
                    socket.write_all(bytes).await?;
                    socket.flush().await
                }
                Socket::Reading(_) | Socket::Gone => Err(std::io::ErrorKind::NotConnected.into()),
            }
        };
        timeout(PATIENCE, write)
            .await
            .context("the server does not take what is sent")?
            .context("cannot send")
    }

    /// Sends bytes one by one, each in a segment (and TLS record) of its own.
    pub async fn send_bytewise(&mut self, bytes: &[u8]) -> Result<()> {
        for byte in bytes {
            self.send(std::slice::from_ref(byte)).await?;
        }
        Ok(())
    }

    /// What comes next, or `None` if nothing does in time.
    pub async fn receive(&mut self, within: Duration) -> Result<Option<Incoming>> {
        let deadline = Instant::now() + within;
        loop {
            if let Some(item) = self.reader.read()? {
                return Ok(Some(match item {
                    Item::Header(node) => Incoming::Header(node),
                    Item::Node(node) => Incoming::Node(node),
                    Item::Text(text) => Incoming::Text(text),
                    Item::End => Incoming::End,
                }));
            }
            self.buffer.clear();
            let left = deadline.saturating_duration_since(Instant::now());
            let read = match &mut self.socket {
                Socket::Plain(socket) => timeout(left, socket.read_buf(&mut self.buffer)).await,
                Socket::Tls(socket) => timeout(left, socket.read_buf(&mut self.buffer)).await,
                Socket::Reading(socket) => timeout(left, socket.read_buf(&mut self.buffer)).await,
                Socket::Gone => return Ok(Some(Incoming::Closed)),
            };
            match read {
                Err(_) => return Ok(None),
                // A reset, or a TLS end without close_notify: gone either way.
                Ok(Ok(0) | Err(_)) => {
                    self.socket = Socket::Gone;
                    return Ok(Some(Incoming::Closed));
                }
                Ok(Ok(_)) => self.reader.feed(&self.buffer),
            }
        }
    }

    /// What comes next; an error if nothing does.
    pub async fn next(&mut self) -> Result<Incoming> {
        self.receive(PATIENCE).await?.with_context(|| format!("nothing came within {PATIENCE:?}"))
    }

    /// The next thing, which must be an element.
    pub async fn node(&mut self) -> Result<Node> {
        match self.next().await? {
            Incoming::Node(node) => Ok(node),
            other => bail!("expected an element, got {other:?}"),
        }
    }

    /// Sends a stream header and reads the server's header and features.
    pub async fn open(&mut self, domain: &str) -> Result<(Node, Node)> {
        self.send(header(domain).as_bytes()).await?;
        let header = match self.next().await? {
            Incoming::Header(node) => node,
            other => bail!("expected a stream header, got {other:?}"),
        };
        let features = self.node().await?;
        if !features.is(STREAMS, "features") {
            bail!("expected stream features, got {features}");
        }
        Ok((header, features))
    }

    /// Negotiates STARTTLS on an opened stream and does the handshake. The stream must then be opened anew.
    pub async fn starttls(&mut self, config: Arc<ClientConfig>, domain: &str) -> Result<()> {
        self.send(b"<starttls xmlns='urn:ietf:params:xml:ns:xmpp-tls'/>").await?;
        let answer = self.node().await?;
        if answer.name != "proceed" {
            bail!("STARTTLS was refused: {answer}");
        }
        self.handshake(config, domain).await
    }

    /// Waits for a stream error and then for the end of the connection; gives the condition. What comes before the
    /// error is passed over.
    pub async fn stream_error(&mut self) -> Result<String> {
        let deadline = Instant::now() + PATIENCE;
        let mut condition = None;
        loop {
            let left = deadline.saturating_duration_since(Instant::now());
            match self.receive(left).await? {
                Some(Incoming::Node(node)) if node.is(STREAMS, "error") => {
                    let child = node.children().next().context("a stream error without condition")?;
                    condition = Some(child.name.clone());
                }
                Some(Incoming::Closed) => {
                    return condition.context("the connection ended without a stream error");
                }
                Some(_) => {}
                None => match condition {
                    Some(condition) => bail!("{condition} came, but the connection stays open"),
                    None => bail!("no stream error came within {PATIENCE:?}"),
                },
            }
        }
    }

    /// Waits for the end of the connection, whatever comes before it.
    pub async fn closed(&mut self, within: Duration) -> Result<()> {
        let deadline = Instant::now() + within;
        loop {
            let left = deadline.saturating_duration_since(Instant::now());
            match self.receive(left).await {
                Ok(Some(Incoming::Closed)) => return Ok(()),
                Ok(None) => bail!("the connection is still open after {within:?}"),
                Ok(Some(_)) => {}
                // The peer sent something that is not XML, as in a refused handshake: only the end counts here.
                Err(_) => self.restart(),
            }
        }
    }
}

/// A client's stream header.
pub fn header(domain: &str) -> String {
    format!(
        "<?xml version='1.0'?><stream:stream to='{domain}' version='1.0' xml:lang='en' xmlns='{CLIENT}' \
         xmlns:stream='{STREAMS}'>"
    )
}
