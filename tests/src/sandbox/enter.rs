//! The way in: the program is started anew in namespaces of its own.

use std::os::unix::process::CommandExt as _;
use std::process::{Command, ExitStatus, Stdio};

use nix::unistd::geteuid;

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
    if std::env::var_os(INSIDE).is_some() {
        return Entered::Inside;
    }
    match again() {
        Ok(refused) | Err(refused) => Entered::Refused(refused),
    }
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

fn again() -> Result<String, String> {
    let program = std::env::current_exe().map_err(|error| format!("this program: {error}"))?;
    let mut command = own(&program)?;
    // Only a failure comes back.
    Ok(command.args(std::env::args_os().skip(1)).exec().to_string())
}

fn quiet(command: &mut Command) -> std::io::Result<ExitStatus> {
    command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::null()).status()
}

fn runs(command: &mut Command) -> bool {
    quiet(command).is_ok_and(|status| status.success())
}
