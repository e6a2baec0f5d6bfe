//! A planted fault on the wire: a man in the middle who acknowledges what the server has not got yet.
//!
//! It shows that the clients of this test and the judge together find the worst bug there is, an acknowledgement before
//! the write. It takes TLS streams with the server's own certificate and passes everything on, messages only after a
//! while; `<r/>` it answers itself, at once, for all that the client has sent.

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use anyhow::{Context, Result};
use rustls::ServerConfig;
use rustls_pki_types::pem::PemObject;
use rustls_pki_types::{CertificateDer, PrivateKeyDer, ServerName};
use starling_tests::client::{SM, header, is_stanza};
use starling_tests::xml::{Item, Reader};
use starling_tests::{Server, Target};
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::mpsc;
use tokio::task::JoinHandle;
use tokio::time::{Instant, sleep_until};
use tokio_rustls::{TlsAcceptor, TlsConnector};

/// How long messages are kept back: long enough for the client to be told that they are safe.
const DELAY: Duration = Duration::from_millis(40);
/// How many pieces may wait for the other side.
const ROOM: usize = 1024;

/// The liar, while it is kept.
pub(crate) struct Liar {
    address: SocketAddr,
    task: JoinHandle<()>,
}

impl Liar {
    /// Stands before a server's TLS port.
    pub(crate) async fn start(server: &Server) -> Result<Self> {
        let certificate = server.certificate();
        let chain = CertificateDer::pem_file_iter(&certificate.chain)?.collect::<Result<Vec<_>, _>>()?;
        let key = PrivateKeyDer::from_pem_file(&certificate.key)?;
        let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
        let config = ServerConfig::builder_with_provider(provider)
            .with_safe_default_protocol_versions()?
            .with_no_client_auth()
            .with_single_cert(chain, key)?;
        let acceptor = TlsAcceptor::from(Arc::new(config));
        let target = server.target().clone();
        let listener = TcpListener::bind(("127.0.0.1", 0)).await?;
        let address = listener.local_addr()?;
        let task = tokio::spawn(async move {
            while let Ok((socket, _)) = listener.accept().await {
                let (acceptor, target) = (acceptor.clone(), target.clone());
                // A stream that fails is closed, which is all that the client needs to know.
                tokio::spawn(async move { stand_between(socket, acceptor, target).await.ok() });
            }
        });
        Ok(Self { address, task })
    }

    /// Where it listens.
    pub(crate) fn address(&self) -> SocketAddr {
        self.address
    }
}

impl Drop for Liar {
    fn drop(&mut self) {
        self.task.abort();
    }
}

async fn stand_between(socket: TcpStream, acceptor: TlsAcceptor, target: Target) -> Result<()> {
    let upstream = TcpStream::connect(target.c2s_tls.context("no TLS port")?).await?;
    let name = ServerName::try_from(target.domain.clone())?;
    let (to_server, to_client) =
        tokio::try_join!(TlsConnector::from(target.tls).connect(name, upstream), acceptor.accept(socket))?;
    let (from_server, into_server) = tokio::io::split(to_server);
    let (from_client, into_client) = tokio::io::split(to_client);
    let (up, up_queue) = mpsc::channel(ROOM);
    let (down, down_queue) = mpsc::channel(ROOM);
    // Whichever ends first, the other connection ends too.
    tokio::select! {
        done = lie(from_client, up, down.clone()) => done,
        done = relay(from_server, down) => done,
        done = write(up_queue, into_server) => done,
        done = write(down_queue, into_client) => done,
    }
}

/// A piece and when it may go.
type Piece = (Instant, Vec<u8>);

/// The client's side: counts its stanzas from `<enable/>` on and vouches for them.
async fn lie(
    mut client: impl AsyncRead + Unpin,
    server: mpsc::Sender<Piece>,
    back: mpsc::Sender<Piece>,
) -> Result<()> {
    let mut reader: Option<Reader> = None;
    let mut count = 0_u32;
    let mut buffer = vec![0; 16 * 1024];
    loop {
        let read = client.read(&mut buffer).await?;
        anyhow::ensure!(read > 0, "the client is gone");
        let bytes = &buffer[..read];
        let Some(reader) = &mut reader else {
            server.send((Instant::now(), bytes.to_vec())).await?;
            // The test client sends it alone and waits for the answer.
            if bytes.starts_with(b"<enable") {
                reader = Some(at_the_start()?);
            }
            continue;
        };
        reader.feed(bytes);
        while let Some(item) = reader.read()? {
            let node = match item {
                Item::Node(node) => node,
                Item::End => {
                    server.send((Instant::now() + DELAY, b"</stream:stream>".to_vec())).await?;
                    continue;
                }
                Item::Header(_) | Item::Text(_) => continue,
            };
            count = count.wrapping_add(u32::from(is_stanza(&node)));
            if node.is(SM, "r") {
                back.send((Instant::now(), format!("<a xmlns='{SM}' h='{count}'/>").into_bytes())).await?;
            } else {
                server.send((Instant::now() + DELAY, node.to_string().into_bytes())).await?;
            }
        }
    }
}

/// The server's side, without a change: it is never asked, so it acknowledges nothing by itself.
async fn relay(mut server: impl AsyncRead + Unpin, client: mpsc::Sender<Piece>) -> Result<()> {
    let mut buffer = vec![0; 16 * 1024];
    loop {
        let read = server.read(&mut buffer).await?;
        anyhow::ensure!(read > 0, "the server is gone");
        client.send((Instant::now(), buffer[..read].to_vec())).await?;
    }
}

async fn write(mut queue: mpsc::Receiver<Piece>, mut to: impl AsyncWrite + Unpin) -> Result<()> {
    while let Some((due, bytes)) = queue.recv().await {
        sleep_until(due).await;
        to.write_all(&bytes).await?;
        to.flush().await?;
    }
    Ok(())
}

/// A reader that takes what follows for the content of a stream.
fn at_the_start() -> Result<Reader> {
    let mut reader = Reader::new();
    reader.feed(header("localhost").as_bytes());
    reader.read()?.context("no header")?;
    Ok(reader)
}
