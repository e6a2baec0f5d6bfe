//! A socket, in clear or under TLS, read and written without a buffer of its own.

use crate::tls::TlsStream;
use futures::FutureExt as _;
use std::cell::RefCell;
use std::io;
use std::pin::Pin;
use std::task::{Context, Poll, ready};
use tokio::io::{AsyncRead, AsyncWrite, Interest, ReadBuf};
use tokio::net::TcpStream;

/// The transport of one connection.
pub(crate) enum Io {
    Plain(TcpStream),
    Tls(Box<TlsStream>),
}

impl Io {
    /// Reads what is there into a buffer of the thread and hands it to `take`; 0 is the end.
    pub(crate) fn poll_read(
        &mut self,
        cx: &mut Context<'_>,
        mut take: impl FnMut(&[u8]),
    ) -> Poll<io::Result<usize>> {
        let tcp = match self {
            Self::Plain(tcp) => tcp,
            Self::Tls(tls) => return tls.poll_read(cx, &mut take),
        };
        SCRATCH.with_borrow_mut(|scratch| {
            let mut buffer = ReadBuf::new(scratch);
            ready!(Pin::new(tcp).poll_read(cx, &mut buffer))?;
            let filled = buffer.filled();
            if !filled.is_empty() {
                take(filled);
            }
            Poll::Ready(Ok(filled.len()))
        })
    }

    /// Writes as much of `bytes` as goes, and removes it from the front by returning its length.
    pub(crate) fn poll_write(&mut self, cx: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        match self {
            Self::Plain(tcp) => Pin::new(tcp).poll_write(cx, bytes),
            Self::Tls(tls) => tls.poll_write(cx, bytes),
        }
    }

    /// Ready when all that was written has gone to the kernel.
    pub(crate) fn poll_flush(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        match self {
            Self::Plain(tcp) => Pin::new(tcp).poll_flush(cx),
            Self::Tls(tls) => tls.poll_flush(cx),
        }
    }

    /// Whether the kernel has taken anything since the last call.
    pub(crate) fn take_progress(&mut self) -> bool {
        match self {
            Self::Plain(_) => true,
            Self::Tls(tls) => tls.take_progress(),
        }
    }

    /// Whether the client has ended its direction or the connection is gone, while nobody reads: what came before that may
    /// still be unread. The end of a TLS session alone is not seen.
    pub(crate) fn is_hung_up(&self) -> bool {
        let tcp = match self {
            Self::Plain(tcp) => tcp,
            Self::Tls(tls) => tls.tcp(),
        };
        tcp.ready(Interest::READABLE)
            .now_or_never()
            .is_some_and(|ready| ready.map_or(true, |ready| ready.is_read_closed()))
    }

    /// Ends our direction: close_notify where there is TLS, then FIN.
    pub(crate) fn poll_shutdown(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        match self {
            Self::Plain(tcp) => Pin::new(tcp).poll_shutdown(cx),
            Self::Tls(tls) => tls.poll_shutdown(cx),
        }
    }
}

/// Only what comes before TLS is read through it.
const CHUNK: usize = 4 * 1024;

thread_local! {
    static SCRATCH: RefCell<Vec<u8>> = RefCell::new(vec![0; CHUNK]);
}
