//! HTTP/1.1 on whatever accepts connections, with every part of it bounded.

use std::{io, sync::Arc, time::Duration};

use axum::Router;
use hyper::server::conn::http1;
use hyper_util::{
    rt::{TokioIo, TokioTimer},
    service::TowerToHyperService,
};
use tokio::{
    io::{AsyncRead, AsyncWrite},
    sync::Semaphore,
    task::JoinSet,
    time,
};

/// Something that accepts connections.
pub(crate) trait Accept: Send + Sync {
    /// What it accepts.
    type Io: AsyncRead + AsyncWrite + Send + Unpin + 'static;

    /// The next connection. `None` for one that was refused.
    fn accept(&self) -> impl Future<Output = io::Result<Option<Self::Io>>> + Send;
}

impl Accept for tokio::net::TcpListener {
    type Io = tokio::net::TcpStream;

    async fn accept(&self) -> io::Result<Option<Self::Io>> {
        Self::accept(self).await.map(|(stream, _)| Some(stream))
    }
}

/// Serves for as long as it is polled; connections end with it.
pub(crate) async fn serve(listener: impl Accept, router: Router, connections: usize) {
    let room = Arc::new(Semaphore::new(connections));
    let mut open = JoinSet::new();
    loop {
        while open.try_join_next().is_some() {}
        // The semaphore is never closed, so the wait ends only with room.
        let Ok(permit) = Arc::clone(&room).acquire_owned().await else { return };
        match listener.accept().await {
            Ok(Some(stream)) => {
                let service = TowerToHyperService::new(router.clone());
                open.spawn(async move {
                    let _permit = permit;
                    let connection = http1::Builder::new()
                        .timer(TokioTimer::new())
                        .header_read_timeout(HEADER_TIME)
                        .max_buf_size(HEADER_BYTES)
                        .serve_connection(TokioIo::new(stream), service);
                    // A caller that is slow or breaks off costs its place for a while and nothing else.
                    if let Ok(Err(error)) = time::timeout(CONNECTION_TIME, connection).await {
                        tracing::debug!(%error, "an admin connection failed");
                    }
                });
            }
            Ok(None) => {}
            Err(error) => {
                // Out of file descriptors, most likely: accepting must go on when there are some again.
                tracing::warn!(event = "accept_failed", %error, "cannot accept an admin connection");
                time::sleep(ACCEPT_PAUSE).await;
            }
        }
    }
}

const HEADER_TIME: Duration = Duration::from_secs(10);
const HEADER_BYTES: usize = 16 * 1_024;
const CONNECTION_TIME: Duration = Duration::from_secs(600);
const ACCEPT_PAUSE: Duration = Duration::from_millis(100);
