//! `starling serve`, `starling edge`, `starling router`: a process, and what signals do to it.

use std::{
    io::{self, IsTerminal},
    net::SocketAddr,
    time::Duration,
};

use nix::sys::{
    resource::{Resource, getrlimit, setrlimit},
    stat::{Mode, umask},
};
use starling_edge::EdgeError;
use starling_node::{
    Config, Sources, Telemetry,
    config::Key,
    listen::ListenError,
    telemetry::{Identity, OtelEnvironment, metrics::Outcome},
};
use starling_setup::Obstacle;
use tokio::{
    runtime::Runtime,
    signal::unix::{Signal, SignalKind, signal},
};

use crate::{failure::Failure, node::Node, sources};

/// Runs until a signal ends it.
pub(crate) fn serve<N: Node>(sources: Sources) -> Result<(), Failure> {
    let config = sources::load(&sources)?;
    N::check(&config)?;
    // Keys and messages are nobody else's to read, whatever the shell says of new files.
    umask(Mode::from_bits_truncate(0o077));
    let runtime = Runtime::new().map_err(|error| Failure::new("no threads to run on").because(error))?;
    let done = runtime.block_on(run::<N>(config, sources));
    // A blocking call that hangs must not keep the process: what had to be written is written.
    runtime.shutdown_timeout(LAST_WAIT);
    done
}

async fn run<N: Node>(config: Config, sources: Sources) -> Result<(), Failure> {
    let untaken = |error| Failure::new("signals cannot be taken").because(error);
    let mut stop = StopSignals::new().map_err(untaken)?;
    let mut hangup = signal(SignalKind::hangup()).map_err(untaken)?;
    let otel = OtelEnvironment::read(&sources::environment());
    let identity = Identity {
        service: N::SERVICE,
        version: env!("CARGO_PKG_VERSION"),
        place: N::IN_CLUSTER.then(|| (config.cluster.name.clone(), config.cluster.node_name())),
    };
    let telemetry = Telemetry::start(&config.telemetry, &otel, &identity)
        .map_err(|error| Failure::new("logs and traces cannot be set up").because(error))?;
    tracing::info!(event = "starting", version = identity.version, pid = std::process::id(), "starting");
    raise_descriptors();

    let starting = N::start(config.clone(), telemetry.clone());
    let running = tokio::select! {
        running = starting => running.map_err(|error| not_started(&config, error))?,
        () = stop.received() => return Ok(()),
    };
    announce(&config, &running, &sources);

    let mut config = config;
    let mut ended = Ok(());
    loop {
        tokio::select! {
            () = stop.received() => break,
            () = running.leaving() => break,
            obstacle = running.failed() => {
                tracing::error!(event = "failed", reason = %obstacle, "stopping");
                ended = Err(Failure::from(obstacle));
                break;
            }
            _ = hangup.recv() => reload(&mut config, &running, &telemetry, &sources).await,
        }
    }
    tracing::info!(event = "stopping", "stopping; a second signal ends the process at once");
    tokio::select! {
        () = running.stop() => tracing::info!(event = "stopped", "stopped"),
        () = stop.received() => {
            tracing::warn!(event = "stopped_hard", "stopped before all was done");
            return Err(Failure::new("stopped by a second signal before all was done"));
        }
    }
    // The exporter blocks while it sends.
    let _ = tokio::task::spawn_blocking(move || telemetry.stop(LAST_WAIT)).await;
    ended
}

fn not_started(config: &Config, error: anyhow::Error) -> Failure {
    let error = match error.downcast::<Obstacle>() {
        Ok(obstacle) => return obstacle.into(),
        Err(error) => error,
    };
    // The edge's own error stands around it, and shows it as its own.
    let listen = error.downcast_ref::<ListenError>().or_else(|| match error.downcast_ref::<EdgeError>() {
        Some(EdgeError::Listen(listen)) => Some(listen),
        _ => None,
    });
    match listen {
        Some(listen) => Failure::new(format!("cannot listen on {}", listen.address))
            .at(key_of(config, listen.address))
            .because(&listen.source)
            .advise(listen.advice()),
        None => Failure::new("the server cannot start").because(format!("{error:#}")),
    }
}

/// The setting that names an address to listen on.
fn key_of(config: &Config, address: SocketAddr) -> &'static str {
    let listen = &config.listen;
    let keys =
        [("listen.c2s", &listen.c2s), ("listen.c2s_tls", &listen.c2s_tls), ("listen.admin", &listen.admin)];
    let key = keys.into_iter().find(|(_, addresses)| addresses.0.contains(&address));
    key.map_or("listen.cluster", |(key, _)| key)
}

/// Reads the settings again. What is wrong changes nothing.
async fn reload<N: Node>(config: &mut Config, running: &N, telemetry: &Telemetry, sources: &Sources) {
    let outcome = match read_again(sources.clone())
        .await
        .and_then(|new| apply(config, new, running, telemetry))
    {
        Ok(()) => Outcome::Ok,
        Err(error) => {
            tracing::error!(event = "reload_failed", %error, "the new settings are wrong, the old ones stay");
            Outcome::Error
        }
    };
    telemetry.metrics.reloads.at(outcome).inc();
}

async fn read_again(sources: Sources) -> Result<Config, String> {
    let read = tokio::task::spawn_blocking(move || Config::load(&sources)).await;
    read.map_err(|error| error.to_string())?.map_err(|errors| errors.to_string())
}

fn apply<N: Node>(
    config: &mut Config,
    new: Config,
    running: &N,
    telemetry: &Telemetry,
) -> Result<(), String> {
    let (now, later): (Vec<_>, Vec<_>) =
        config.changed(&new).into_iter().partition(|key| Key::reloadable(key));
    // Certificates are read again even when their paths are the same.
    N::check(&new).map_err(|errors| errors.to_string())?;
    running.reload(&new).map_err(|error| format!("{error:#}"))?;
    telemetry.reload(&new.telemetry).map_err(|error| error.to_string())?;
    tracing::info!(event = "reloaded", keys = now.join(" "), "settings and certificates were read again");
    if !later.is_empty() {
        tracing::warn!(event = "restart_needed", keys = later.join(" "), "these keys wait for a restart");
    }
    *config = new;
    Ok(())
}

/// Says where the server is and what to do next, on standard error: standard output is the log.
fn announce<N: Node>(config: &Config, running: &N, sources: &Sources) {
    for listener in running.listeners() {
        eprintln!("listening {} {}", listener.name, listener.address);
        // On a terminal both would be seen.
        if !io::stdout().is_terminal() {
            let (listener, address) = (&listener.name, listener.address);
            tracing::info!(event = "listening", listener, %address, "listening");
        }
    }
    if let Some(fingerprint) = running.fingerprint() {
        eprintln!("certificate SHA-256 {fingerprint}");
    }
    let domain = config.domains.first().map_or("localhost", String::as_str);
    let (program, options) = (sources::program(), sources::options(sources));
    if N::ACCOUNTS {
        eprintln!("make an account: {program} ctl{options} user add alice@{domain}");
    }
    tracing::info!(event = "started", domains = config.domains.join(" "), "started");
}

/// Every connection takes a file descriptor: takes as many as the process may have.
fn raise_descriptors() {
    let raised = getrlimit(Resource::RLIMIT_NOFILE).and_then(|(soft, hard)| {
        if soft < hard { setrlimit(Resource::RLIMIT_NOFILE, hard, hard) } else { Ok(()) }
    });
    if let Err(error) = raised {
        tracing::warn!(event = "descriptors_not_raised", %error, "there may be few connections");
    }
}

/// SIGTERM and SIGINT.
struct StopSignals {
    terminate: Signal,
    interrupt: Signal,
}

impl StopSignals {
    fn new() -> io::Result<Self> {
        Ok(Self { terminate: signal(SignalKind::terminate())?, interrupt: signal(SignalKind::interrupt())? })
    }

    /// Waits for either. Cancel-safe.
    async fn received(&mut self) {
        tokio::select! {
            _ = self.terminate.recv() => {}
            _ = self.interrupt.recv() => {}
        }
    }
}

const LAST_WAIT: Duration = Duration::from_secs(5);
