//! The way in: the program is started anew in namespaces of its own.

use std::io::Read as _;
use std::process::{Command, ExitStatus, Stdio};

use nix::unistd::{geteuid, setsid};

/// Says to a program that it is inside.
const INSIDE: &str = "STARLING_SANDBOX";
const TOOLS: [&str; 4] = ["ip", "nft", "unshare", "nsenter"];
/// Networks and process ids of its own; all processes end with the first.
const OWN: [&str; 5] = ["--net", "--pid", "--mount-proc", "--fork", "--kill-child=KILL"];
/// And to be allowed to.
const ROOT: [&str; 2] = ["--user", "--map-root-user"];

/// Whether there are namespaces.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Entered {
    /// The program is in namespaces of its own.
    Inside,
    /// There are none here, and why.
    Refused(String),
}

/// Starts this program anew in namespaces of its own, with the same arguments: returns only there, or where that is not
/// allowed. To be called before anything else is done.
pub fn enter() -> Entered {
    if std::env::var_os(INSIDE).is_none() {
        return match again() {
            Ok(status) => std::process::exit(status.code().unwrap_or(130)),
            Err(refused) => Entered::Refused(refused),
        };
    }
    // A session of its own has its share of a busy machine. It hears of no key at the terminal: the end of the input
    // says that whoever waits outside is gone.
    if setsid().is_ok() {
        precede(std::process::id());
    }
    std::thread::spawn(|| {
        let _ = std::io::stdin().read_to_end(&mut Vec::new());
        std::process::exit(130);
    });
    Entered::Inside
}

/// Gives a process that leads a session precedence over others on a busy machine, if this one may: times that are
/// measured are to be those of what is tested. Only the kernel's groups of sessions are used, `nice` is none of them.
pub(crate) fn precede(pid: u32) {
    let _ = std::fs::write(format!("/proc/{pid}/autogroup"), "-15");
}

/// A command that runs this program in namespaces of its own, inside of which [`enter`] returns at once.
pub fn own(program: &std::path::Path) -> Result<Command, String> {
    if let Some(tool) = TOOLS.iter().find(|tool| quiet(Command::new(tool).arg("-V")).is_err()) {
        return Err(format!("no `{tool}` here: tests/namespaces/install says what is needed"));
    }
    let root = geteuid().is_root();
    let ways: [&[&str]; 2] = if root { [&[], &ROOT] } else { [&ROOT, &[]] };
    // Some are allowed to have namespaces and not to make a link in them.
    let try_out = |way: &&&[&str]| {
        let mut command = Command::new("unshare");
        command.args(**way).args(OWN).args(["ip", "link", "add", "trial", "type", "bridge"]);
        runs(&mut command)
    };
    let way = ways
        .iter()
        .find(try_out)
        .ok_or("namespaces are not allowed here (`unshare --user --net --pid` fails)")?;
    let mut command = Command::new("unshare");
    command.args(*way).args(OWN).arg(program).env(INSIDE, "1");
    Ok(command)
}

fn again() -> Result<ExitStatus, String> {
    let program = std::env::current_exe().map_err(|error| format!("this program: {error}"))?;
    let mut command = own(&program)?;
    let spawned = command.args(std::env::args_os().skip(1)).stdin(Stdio::piped()).spawn();
    let mut child = spawned.map_err(|error| format!("cannot run unshare: {error}"))?;
    // Its input ends with this program, not before.
    let input = child.stdin.take();
    let ended = child.wait().map_err(|error| format!("cannot wait for unshare: {error}"));
    drop(input);
    ended
}

fn quiet(command: &mut Command) -> std::io::Result<ExitStatus> {
    command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::null()).status()
}

fn runs(command: &mut Command) -> bool {
    quiet(command).is_ok_and(|status| status.success())
}
