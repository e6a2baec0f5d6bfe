//! TLS over a TCP socket without buffers: what is not a whole record, or does not fit the kernel, is all that is kept.
//!
//! The usual way of driving a TLS library holds 4 KiB of read buffer per connection for ever. Here records are
//! read into a buffer of the thread, decrypted there and handed on; most sessions are idle most of the time, so
//! this is nearly half of what a session costs.

use super::handshake::Notes;
use rustls::ServerConfig;
use rustls::server::UnbufferedServerConnection;
use rustls::unbuffered::{ConnectionState, EncodeError, EncryptError, InsufficientSizeError};
use std::cell::RefCell;
use std::io;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll, ready};
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::net::TcpStream;

/// A TLS connection as the server sees it.
pub(crate) struct TlsStream {
    tcp: TcpStream,
    connection: UnbufferedServerConnection,
    /// The beginning of a record.
    incoming: Vec<u8>,
    /// Records that the kernel did not take yet.
    outgoing: Vec<u8>,
    /// Plaintext that came together with the end of the handshake.
    early: Vec<u8>,
    /// The client has ended its direction.
    ended: bool,
    /// close_notify is in `outgoing` or beyond.
    said_goodbye: bool,
    /// The kernel has taken bytes since `take_progress`.
    progress: bool,
}

impl TlsStream {
    pub(super) fn new(tcp: TcpStream, config: Arc<ServerConfig>) -> Result<Self, rustls::Error> {
        Ok(Self {
            tcp,
            connection: UnbufferedServerConnection::new(config)?,
            incoming: Vec::new(),
            outgoing: Vec::new(),
            early: Vec::new(),
            ended: false,
            said_goodbye: false,
            progress: false,
        })
    }

    /// The socket below.
    pub(crate) fn tcp(&self) -> &TcpStream {
        &self.tcp
    }

    /// Does what there is to do for the handshake; ready when it is over and our part of it is written.
    pub(super) fn poll_handshake(&mut self, cx: &mut Context<'_>, notes: &mut Notes) -> Poll<io::Result<()>> {
        while self.connection.is_handshaking() {
            ready!(self.poll_outgoing(cx))?;
            let mut early = std::mem::take(&mut self.early);
            let read = notes.during(|| self.poll_records(cx, &mut |bytes| early.extend_from_slice(bytes)));
            self.early = early;
            match ready!(read) {
                Ok(()) if self.ended => return Poll::Ready(Err(io::ErrorKind::UnexpectedEof.into())),
                Ok(()) => {}
                Err(error) => {
                    // The alert says why; whether it arrives is not worth waiting for.
                    let _ = self.poll_outgoing(cx);
                    return Poll::Ready(Err(error));
                }
            }
        }
        self.poll_outgoing(cx)
    }

    /// Reads what is there and hands on what is in it, record by record; 0 is the end.
    pub(crate) fn poll_read(
        &mut self,
        cx: &mut Context<'_>,
        take: &mut dyn FnMut(&[u8]),
    ) -> Poll<io::Result<usize>> {
        let mut count = self.early.len();
        if count > 0 {
            take(&std::mem::take(&mut self.early));
            return Poll::Ready(Ok(count));
        }
        while count == 0 && !self.ended {
            let mut counted = |bytes: &[u8]| {
                count += bytes.len();
                take(bytes);
            };
            ready!(self.poll_records(cx, &mut counted))?;
            // Answers to key updates; if they do not fit now, the next write takes them along.
            if let Poll::Ready(Err(error)) = self.poll_outgoing(cx) {
                return Poll::Ready(Err(error));
            }
        }
        Poll::Ready(Ok(count))
    }

    /// Encrypts some of `bytes` and writes what the kernel takes. Pending while earlier records wait.
    pub(crate) fn poll_write(&mut self, cx: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        ready!(self.poll_outgoing(cx))?;
        let some = &bytes[..bytes.len().min(PIECE)];
        self.seal(cx, |connection, out| connection.encrypt(some, out))?;
        Poll::Ready(Ok(some.len()))
    }

    /// Ready when the kernel has everything.
    pub(crate) fn poll_flush(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        self.poll_outgoing(cx)
    }

    /// Says close_notify, then FIN.
    pub(crate) fn poll_shutdown(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        if !self.said_goodbye {
            self.said_goodbye = true;
            self.seal(cx, |connection, out| connection.queue_close_notify(out))?;
        }
        ready!(self.poll_outgoing(cx))?;
        Pin::new(&mut self.tcp).poll_shutdown(cx)
    }

    /// Whether the kernel has taken anything since the last call.
    pub(crate) fn take_progress(&mut self) -> bool {
        std::mem::take(&mut self.progress)
    }

    pub(super) fn connection(&self) -> &UnbufferedServerConnection {
        &self.connection
    }

    /// Reads once from the socket and processes all whole records.
    fn poll_records(&mut self, cx: &mut Context<'_>, take: &mut dyn FnMut(&[u8])) -> Poll<io::Result<()>> {
        RECORDS.with_borrow_mut(|records| {
            let held = self.incoming.len();
            records[..held].copy_from_slice(&self.incoming);
            let mut buffer = ReadBuf::new(&mut records[held..]);
            ready!(Pin::new(&mut self.tcp).poll_read(cx, &mut buffer))?;
            let count = buffer.filled().len();
            if count == 0 {
                // With or without close_notify: the stream's own end tag is what tells a whole stream from a cut one.
                self.ended = true;
                return Poll::Ready(Ok(()));
            }
            Poll::Ready(self.process(&mut records[..held + count], take))
        })
    }

    /// Processes records in place; what is not a whole one is kept.
    fn process(&mut self, records: &mut [u8], take: &mut dyn FnMut(&[u8])) -> io::Result<()> {
        let mut done = 0;
        loop {
            let status = self.connection.process_tls_records(&mut records[done..]);
            let mut discard = status.discard;
            let mut more = true;
            match status.state {
                Ok(ConnectionState::ReadTraffic(mut traffic)) => {
                    while let Some(record) = traffic.next_record() {
                        let record = record.map_err(broken)?;
                        discard += record.discard;
                        take(record.payload);
                    }
                }
                Ok(ConnectionState::EncodeTlsData(mut data)) => {
                    append(&mut self.outgoing, |out| data.encode(out)).map_err(broken)?;
                }
                Ok(ConnectionState::TransmitTlsData(data)) => data.done(),
                Ok(ConnectionState::PeerClosed) => self.ended = true,
                Ok(ConnectionState::WriteTraffic(_) | ConnectionState::BlockedHandshake) => more = false,
                Ok(ConnectionState::Closed) => {
                    self.ended = true;
                    more = false;
                }
                // No early data is accepted, so there is none.
                Ok(_) => return Err(io::ErrorKind::InvalidData.into()),
                Err(error) => {
                    self.collect_alert(&mut records[done..]);
                    return Err(broken(error));
                }
            }
            done += discard;
            if !more {
                break;
            }
        }
        let rest = &records[done..];
        if rest.len() >= HELD {
            return Err(broken("a message that does not end"));
        }
        self.incoming.clear();
        self.incoming.extend_from_slice(rest);
        self.incoming.shrink_to(rest.len());
        Ok(())
    }

    /// After an error the connection has one more thing to say. The library counts from the beginning of what it was given
    /// last, so it is given the same again; asked twice it would trip over the same error once more.
    fn collect_alert(&mut self, records: &mut [u8]) {
        if let Ok(ConnectionState::EncodeTlsData(mut data)) =
            self.connection.process_tls_records(records).state
        {
            // An alert that does not fit is not worth more trouble.
            let _ = append(&mut self.outgoing, |out| data.encode(out));
        }
    }

    /// Makes records by `make` and writes what the kernel takes of them.
    fn seal(
        &mut self,
        cx: &mut Context<'_>,
        make: impl Fn(&mut Sealer<'_>, &mut [u8]) -> Result<usize, EncryptError>,
    ) -> io::Result<()> {
        SEALED.with_borrow_mut(|sealed| {
            let count = loop {
                // What is held of an incomplete message goes along: the library has counted it already.
                let state = self.connection.process_tls_records(&mut self.incoming).state.map_err(broken)?;
                match state {
                    ConnectionState::WriteTraffic(mut sealer) => match make(&mut sealer, sealed) {
                        Ok(count) => break count,
                        Err(EncryptError::InsufficientSize(InsufficientSizeError { required_size })) => {
                            sealed.resize(required_size, 0);
                        }
                        Err(error) => return Err(broken(error)),
                    },
                    ConnectionState::EncodeTlsData(mut data) => {
                        append(&mut self.outgoing, |out| data.encode(out)).map_err(broken)?;
                    }
                    ConnectionState::TransmitTlsData(data) => data.done(),
                    ConnectionState::PeerClosed => self.ended = true,
                    _ => return Err(io::ErrorKind::NotConnected.into()),
                }
            };
            let records = &sealed[..count];
            if self.outgoing.is_empty() {
                let done = self.push(cx, records)?;
                self.outgoing.extend_from_slice(&records[done..]);
            } else {
                self.outgoing.extend_from_slice(records);
            }
            Ok(())
        })
    }

    fn poll_outgoing(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        if self.outgoing.is_empty() {
            return Poll::Ready(Ok(()));
        }
        let mut outgoing = std::mem::take(&mut self.outgoing);
        let done = self.push(cx, &outgoing)?;
        if done == outgoing.len() {
            return Poll::Ready(Ok(()));
        }
        outgoing.drain(..done);
        self.outgoing = outgoing;
        Poll::Pending
    }

    /// Writes until the kernel takes no more; returns how much it took.
    fn push(&mut self, cx: &mut Context<'_>, bytes: &[u8]) -> io::Result<usize> {
        let mut done = 0;
        while done < bytes.len() {
            match Pin::new(&mut self.tcp).poll_write(cx, &bytes[done..]) {
                Poll::Pending => break,
                Poll::Ready(Ok(0)) => return Err(io::ErrorKind::WriteZero.into()),
                Poll::Ready(Ok(count)) => done += count,
                Poll::Ready(Err(error)) => return Err(error),
            }
        }
        self.progress |= done > 0;
        Ok(done)
    }
}

type Sealer<'a> = rustls::unbuffered::WriteTraffic<'a, rustls::server::ServerConnectionData>;

/// Lets `write` add to a vector; it says how much room it needs.
fn append(
    out: &mut Vec<u8>,
    mut write: impl FnMut(&mut [u8]) -> Result<usize, EncodeError>,
) -> Result<(), EncodeError> {
    let end = out.len();
    let count = match write(&mut []) {
        Err(EncodeError::InsufficientSize(InsufficientSizeError { required_size })) => {
            out.resize(end + required_size, 0);
            write(&mut out[end..])?
        }
        other => other?,
    };
    out.truncate(end + count);
    Ok(())
}

fn broken(error: impl Into<Box<dyn std::error::Error + Send + Sync>>) -> io::Error {
    io::Error::new(io::ErrorKind::InvalidData, error)
}

/// Plaintext that is sealed at a time: so much a stuck connection holds as records.
const PIECE: usize = 32 * 1024;
/// Bytes read at a time, with what is held of an incomplete record or handshake message before them.
const READ: usize = 32 * 1024;
/// The most that is held: a record has at most 16 KiB and some, a handshake message that is larger is an attack.
const HELD: usize = 20 * 1024;

thread_local! {
    static RECORDS: RefCell<Vec<u8>> = RefCell::new(vec![0; HELD + READ]);
    static SEALED: RefCell<Vec<u8>> = const { RefCell::new(Vec::new()) };
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn keeps_little_beside_the_library() {
        let own = size_of::<TlsStream>() - size_of::<UnbufferedServerConnection>();
        assert!(own <= 128, "{own}");
    }
}
