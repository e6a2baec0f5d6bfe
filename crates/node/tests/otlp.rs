//! Spans reach a collector by OTLP over gRPC, with what they may say and nothing else.
//!
//! The collector is a few lines of HTTP/2 of our own: it needs no service and shows the very bytes that leave.

#![allow(clippy::unwrap_used)]

use std::time::Duration;

use starling_node::{
    Config, Sources, StanzaKind, Telemetry,
    telemetry::{Identity, OtelEnvironment, Step},
};
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::{TcpListener, TcpStream},
    sync::mpsc,
};

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn spans_reach_a_collector() {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let endpoint = format!("http://{}", listener.local_addr().unwrap());
    let (send, mut received) = mpsc::channel(16);
    let collector = tokio::spawn(async move {
        let (stream, _) = listener.accept().await.unwrap();
        collect(stream, send).await;
    });

    let sets = ["telemetry.sample.message=1.0".to_owned(), format!("telemetry.otlp_endpoint={endpoint}")];
    let config = Config::load(&Sources { sets: sets.into(), ..Sources::default() }).unwrap();
    let identity = Identity {
        service: "starling-test",
        version: "9.9.9",
        place: Some(("chat".into(), "edge-7".into())),
    };
    let telemetry = Telemetry::start(&config.telemetry, &OtelEnvironment::default(), &identity).unwrap();
    let head = telemetry.tracer.start(StanzaKind::Message);
    assert!(head.is_some());
    let receive = telemetry.tracer.span(head, Step::EdgeReceive);
    telemetry.tracer.span(receive.context(), Step::HomeSent).end();
    receive.end();

    let metrics = telemetry.metrics.clone();
    tokio::task::spawn_blocking(move || telemetry.stop(Duration::from_secs(10))).await.unwrap();
    let body = tokio::time::timeout(Duration::from_secs(10), received.recv()).await.unwrap().unwrap();
    let text = String::from_utf8_lossy(&body);
    for word in ["edge receive", "home sent", "starling-test", "9.9.9", "service.instance.id", "edge-7"] {
        assert!(text.contains(word), "{word} is not in what was sent");
    }
    assert_eq!(
        (metrics.spans_ended.get(), metrics.spans_exported.get(), metrics.spans_failed.get()),
        (2, 2, 0)
    );
    collector.abort();
}

/// Answers every call with success, and passes on its body.
async fn collect(mut stream: TcpStream, bodies: mpsc::Sender<Vec<u8>>) {
    let mut preface = [0; 24];
    stream.read_exact(&mut preface).await.unwrap();
    assert_eq!(&preface, b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n");
    frame(&mut stream, SETTINGS, 0, 0, &[]).await;
    let mut body = Vec::new();
    loop {
        let mut head = [0; 9];
        if stream.read_exact(&mut head).await.is_err() {
            return;
        }
        let length = u32::from_be_bytes([0, head[0], head[1], head[2]]) as usize;
        let (kind, flags) = (head[3], head[4]);
        let id = u32::from_be_bytes([head[5], head[6], head[7], head[8]]);
        let mut payload = vec![0; length];
        stream.read_exact(&mut payload).await.unwrap();
        match kind {
            SETTINGS if flags & ACK == 0 => frame(&mut stream, SETTINGS, ACK, 0, &[]).await,
            PING if flags & ACK == 0 => frame(&mut stream, PING, ACK, 0, &payload).await,
            DATA => body.extend_from_slice(&payload),
            _ => {}
        }
        if matches!(kind, DATA | HEADERS) && flags & END_STREAM != 0 {
            // :status 200 from the static table; the rest as plain literals (RFC 7541 §6.2.2).
            frame(&mut stream, HEADERS, END_HEADERS, id, b"\x88\x00\x0ccontent-type\x10application/grpc")
                .await;
            frame(&mut stream, DATA, 0, id, &[0; 5]).await;
            frame(&mut stream, HEADERS, END_HEADERS | END_STREAM, id, b"\x00\x0bgrpc-status\x010").await;
            bodies.send(std::mem::take(&mut body)).await.unwrap();
        }
    }
}

async fn frame(stream: &mut TcpStream, kind: u8, flags: u8, id: u32, payload: &[u8]) {
    let length = u32::try_from(payload.len()).unwrap().to_be_bytes();
    let mut bytes = vec![length[1], length[2], length[3], kind, flags];
    bytes.extend_from_slice(&id.to_be_bytes());
    bytes.extend_from_slice(payload);
    stream.write_all(&bytes).await.unwrap();
}

const DATA: u8 = 0;
const HEADERS: u8 = 1;
const SETTINGS: u8 = 4;
const PING: u8 = 6;
const ACK: u8 = 1;
const END_STREAM: u8 = 1;
const END_HEADERS: u8 = 4;
