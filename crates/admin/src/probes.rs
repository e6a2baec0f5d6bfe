//! `/livez`, `/readyz`, `/startupz` and `/metrics` on TCP.

use std::{io, net::TcpListener, sync::Arc};

use axum::{
    Router,
    extract::State,
    http::{StatusCode, header},
    response::{IntoResponse, Response},
    routing::get,
};
use starling_node::{Health, Metrics, Probe, telemetry::metrics::CONTENT_TYPE};

use crate::serve::serve;

/// What the probes look at.
#[derive(Debug, Clone)]
pub struct Probes {
    /// Checks.
    pub health: Health,
    /// Metrics.
    pub metrics: Arc<Metrics>,
}

impl Probes {
    /// Answers on a listener from [`starling_node::listen::Listen::open`], for as long as the future is polled.
    ///
    /// # Errors
    /// When the listener cannot be registered with the runtime.
    pub async fn serve(self, listener: TcpListener) -> io::Result<()> {
        let listener = tokio::net::TcpListener::from_std(listener)?;
        serve(listener, self.router(), CONNECTIONS).await;
        Ok(())
    }

    fn router(self) -> Router {
        Router::new()
            .route("/livez", get(|State(probes): State<Self>| async move { probes.answer(Probe::Live) }))
            .route("/readyz", get(|State(probes): State<Self>| async move { probes.answer(Probe::Ready) }))
            .route(
                "/startupz",
                get(|State(probes): State<Self>| async move { probes.answer(Probe::Startup) }),
            )
            .route("/metrics", get(metrics))
            .with_state(self)
    }

    /// 200 and `ok`, or 503 and what is wrong, one check a line.
    fn answer(&self, probe: Probe) -> Response {
        let report = self.health.report(probe);
        let status = if report.is_ok() { StatusCode::OK } else { StatusCode::SERVICE_UNAVAILABLE };
        let mut text = if report.is_ok() { "ok\n".to_owned() } else { "not ok\n".to_owned() };
        for (name, verdict) in &report.checks {
            match verdict {
                Ok(()) => text.push_str(&format!("[+] {name}\n")),
                Err(reason) => text.push_str(&format!("[-] {name}: {reason}\n")),
            }
        }
        (status, [(header::CACHE_CONTROL, "no-store")], text).into_response()
    }
}

async fn metrics(State(probes): State<Probes>) -> impl IntoResponse {
    ([(header::CONTENT_TYPE, CONTENT_TYPE)], probes.metrics.encode())
}

/// At a time; a scraper and a few probes need less.
const CONNECTIONS: usize = 64;

#[cfg(test)]
mod tests {
    use std::net::SocketAddr;

    use starling_node::listen::Listen;
    use tokio::io::{AsyncReadExt, AsyncWriteExt};

    use super::*;

    async fn ask(address: SocketAddr, path: &str) -> String {
        let mut stream = tokio::net::TcpStream::connect(address).await.unwrap();
        let request = format!("GET {path} HTTP/1.1\r\nhost: x\r\nconnection: close\r\n\r\n");
        stream.write_all(request.as_bytes()).await.unwrap();
        let mut answer = String::new();
        stream.read_to_string(&mut answer).await.unwrap();
        answer
    }

    #[tokio::test]
    async fn probes_follow_the_checks_and_metrics_are_there() {
        let listen = Listen(vec!["127.0.0.1:0".parse().unwrap()]);
        let listener = listen.open().unwrap().remove(0);
        let address = listener.local_addr().unwrap();
        let probes = Probes { health: Health::default(), metrics: Arc::new(Metrics::new()) };
        let store = probes.health.check("store", &[Probe::Startup, Probe::Ready]);
        let server = tokio::spawn(probes.serve(listener));

        assert!(ask(address, "/livez").await.starts_with("HTTP/1.1 200"));
        let starting = ask(address, "/readyz").await;
        assert!(
            starting.starts_with("HTTP/1.1 503") && starting.contains("[-] store: starting"),
            "{starting}"
        );
        store.pass();
        assert!(ask(address, "/readyz").await.contains("[+] store"));
        assert!(ask(address, "/startupz").await.starts_with("HTTP/1.1 200"));
        let metrics = ask(address, "/metrics").await;
        assert!(metrics.contains("application/openmetrics-text"), "{metrics}");
        assert!(metrics.contains("xmpp_server_sessions{") && metrics.contains("# EOF"));
        assert!(ask(address, "/v1/users").await.starts_with("HTTP/1.1 404"));
        server.abort();
    }

    #[tokio::test]
    async fn a_caller_that_says_nothing_does_not_keep_others_out() {
        let listen = Listen(vec!["127.0.0.1:0".parse().unwrap()]);
        let listener = listen.open().unwrap().remove(0);
        let address = listener.local_addr().unwrap();
        let probes = Probes { health: Health::default(), metrics: Arc::new(Metrics::new()) };
        let server = tokio::spawn(probes.serve(listener));
        let mut silent = Vec::new();
        for _ in 0..CONNECTIONS / 2 {
            silent.push(tokio::net::TcpStream::connect(address).await.unwrap());
        }
        assert!(ask(address, "/livez").await.starts_with("HTTP/1.1 200"));
        server.abort();
    }
}
