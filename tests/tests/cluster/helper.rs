//! What this program does when it is started for one thing by a test of its own.

use std::io::{Read as _, Write as _};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::process::{Command, ExitCode};
use std::time::{Duration, Instant};

use anyhow::{Context, Result};
use starling_tests::sandbox::Sandbox;

/// Names what it is to do: `echo ADDRESS`, `dial ADDRESS`, `knock ADDRESS`, `hold MARK`.
pub(crate) const HELPER: &str = "STARLING_TEST_HELPER";

/// How long `dial` waits for each answer.
const PATIENCE: Duration = Duration::from_millis(700);

/// Does what it is to do, if it is a helper.
pub(crate) fn run() -> Option<Result<ExitCode>> {
    let task = std::env::var(HELPER).ok()?;
    Some(match task.split_once(' ') {
        Some(("echo", address)) => echo(address),
        Some(("dial", address)) => dial(address),
        Some(("knock", address)) => knock(address),
        Some(("hold", mark)) => hold(mark),
        _ => Err(anyhow::anyhow!("{HELPER}={task}")),
    })
}

/// Ends well if a connection can be opened.
fn knock(address: &str) -> Result<ExitCode> {
    let opened = TcpStream::connect_timeout(&address.parse()?, PATIENCE).is_ok();
    Ok(if opened { ExitCode::SUCCESS } else { ExitCode::FAILURE })
}

/// Gives back what comes, for ever.
fn echo(address: &str) -> Result<ExitCode> {
    let listener = TcpListener::bind(address.parse::<SocketAddr>()?)?;
    loop {
        let (mut socket, _) = listener.accept()?;
        std::thread::spawn(move || {
            let mut byte = [0];
            while socket.read_exact(&mut byte).is_ok() && socket.write_all(&byte).is_ok() {}
        });
    }
}

/// Sends a byte each time one comes on the standard input and says how long the answer took, in milliseconds, or `lost`
/// when none came (over a connection that stays) or the connection broke (then over a new one).
fn dial(address: &str) -> Result<ExitCode> {
    let address: SocketAddr = address.parse()?;
    let mut socket: Option<TcpStream> = None;
    for byte in std::io::stdin().lock().bytes() {
        byte?;
        let begin = Instant::now();
        let answer = ask(&mut socket, address);
        match answer {
            Ok(()) => println!("{}", begin.elapsed().as_millis()),
            Err(error) => {
                let silent =
                    matches!(error.kind(), std::io::ErrorKind::WouldBlock | std::io::ErrorKind::TimedOut);
                println!("{}", if silent { "lost" } else { "broken" });
                socket = None;
            }
        }
    }
    Ok(ExitCode::SUCCESS)
}

fn ask(kept: &mut Option<TcpStream>, address: SocketAddr) -> std::io::Result<()> {
    let socket = match kept {
        Some(socket) => socket,
        None => {
            let socket = TcpStream::connect_timeout(&address, PATIENCE)?;
            socket.set_nodelay(true)?;
            socket.set_read_timeout(Some(PATIENCE))?;
            kept.insert(socket)
        }
    };
    socket.write_all(&[7])?;
    socket.read_exact(&mut [0])
}

/// Makes a sandbox with processes on its nodes, says that it is there, and stays.
fn hold(mark: &str) -> Result<ExitCode> {
    let mut sandbox = Sandbox::new()?;
    for number in 2..4 {
        let place = sandbox.node("held", number)?;
        sandbox.command(place, "sleep").arg(mark).spawn()?;
        // One that has lost its parent, as a daemon would.
        let mut shell = sandbox.command(place, "sh");
        shell.args(["-c", &format!("setsid sleep {mark} &")]).status()?;
    }
    Command::new("echo").arg("held").status().context("echo")?;
    loop {
        std::thread::park();
    }
}
