//! A proxy before the server: nodes are found by address, so it listens at the server's with another port.

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpSocket, TcpStream};
use tokio::sync::watch;

/// What goes through.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Flow {
    /// Everything.
    Open,
    /// Requests, but no answers.
    Mute,
    /// Nothing, and connections stay.
    Still,
    /// Connections end, and none is taken.
    Gone,
}

pub(crate) struct Proxy {
    pub(crate) address: SocketAddr,
    flow: Arc<watch::Sender<Flow>>,
}

impl Proxy {
    pub(crate) async fn before(server: &str) -> Self {
        let server: SocketAddr = server.parse().unwrap();
        let listener = TcpListener::bind((server.ip(), 0)).await.unwrap();
        let address = listener.local_addr().unwrap();
        let (flow, seen) = watch::channel(Flow::Open);
        tokio::spawn(listen(listener, address, server, seen));
        Self { address, flow: Arc::new(flow) }
    }

    pub(crate) fn set(&self, flow: Flow) {
        self.flow.send_replace(flow);
    }
}

async fn listen(
    listener: TcpListener,
    address: SocketAddr,
    server: SocketAddr,
    mut flow: watch::Receiver<Flow>,
) {
    let mut listener = Some(listener);
    loop {
        let now = *flow.borrow_and_update();
        if now == Flow::Gone {
            listener = None;
        } else if listener.is_none() {
            let socket = TcpSocket::new_v4().unwrap();
            socket.set_reuseaddr(true).unwrap();
            match socket.bind(address) {
                Ok(()) => listener = Some(socket.listen(64).unwrap()),
                Err(_) => tokio::time::sleep(Duration::from_millis(5)).await,
            }
            continue;
        }
        match &listener {
            None => {
                if flow.changed().await.is_err() {
                    return;
                }
            }
            Some(listening) => tokio::select! {
                changed = flow.changed() => if changed.is_err() { return },
                taken = listening.accept() => if let Ok((client, _)) = taken {
                    tokio::spawn(pass(client, server, flow.clone()));
                },
            },
        }
    }
}

async fn pass(client: TcpStream, server: SocketAddr, flow: watch::Receiver<Flow>) {
    let Ok(server) = TcpStream::connect(server).await else { return };
    let (from_client, to_client) = client.into_split();
    let (from_server, to_server) = server.into_split();
    let mut ends = flow.clone();
    let there = copy(from_client, to_server, flow.clone(), [Flow::Open, Flow::Mute].to_vec());
    let back = copy(from_server, to_client, flow, [Flow::Open].to_vec());
    tokio::select! {
        () = there => {}
        () = back => {}
        _ = ends.wait_for(|flow| *flow == Flow::Gone) => {}
    }
}

async fn copy(
    mut from: tokio::net::tcp::OwnedReadHalf,
    mut to: tokio::net::tcp::OwnedWriteHalf,
    mut flow: watch::Receiver<Flow>,
    passing: Vec<Flow>,
) {
    let mut buffer = vec![0; 64 * 1_024];
    loop {
        let Ok(read) = from.read(&mut buffer).await else { return };
        let now = *flow.borrow_and_update();
        if read == 0 {
            return;
        }
        if now == Flow::Mute && !passing.contains(&now) {
            continue; // swallowed
        }
        if flow.wait_for(|flow| passing.contains(flow) || *flow == Flow::Gone).await.is_err() {
            return;
        }
        if to.write_all(&buffer[..read]).await.is_err() {
            return;
        }
    }
}
