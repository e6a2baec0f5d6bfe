//! Machines for tests: network namespaces on a bridge, with addresses of their own, cut and slowed down at will.
//!
//! [`enter`] starts the test program anew in namespaces of users, processes and networks (as root without the first).
//! What the program sees then is empty: its own loopback, its own process ids. There a [`Sandbox`] makes a bridge, a
//! namespace for each node and a veth pair between them. Nothing of it has a name outside, and the program is process 1
//! of its namespace: when it ends, also by SIGKILL, the kernel ends all others and the networks are gone.
//!
//! Kernels of test machines seldom have `netem`. Loss and cuts are rules of nftables on the bridge; delay, disorder and
//! doubling are done by a program between two TAP devices (`tests/namespaces/slow-link`), which a node's link is led
//! through while they last.

mod enter;
mod links;
mod process;
mod slow;

use std::io::Write as _;
use std::net::{IpAddr, Ipv4Addr};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail, ensure};

pub(crate) use enter::precede;
pub use enter::{Entered, enter, own};
pub use links::Links;
pub use process::Process;
pub(crate) use process::leads_a_session;
pub use slow::{SlowLink, Tally, Weather};

/// The bridge between all nodes. The test program itself has the address that ends in 1.
const BRIDGE: &str = "bridge";
/// No route leads out of the namespaces, so that any addresses are free.
const NETWORK: [u8; 3] = [10, 77, 0];

/// Nodes on a bridge.
pub struct Sandbox {
    nodes: Vec<Node>,
}

/// A node: a network namespace with one link, kept by a process that does nothing.
struct Node {
    name: String,
    address: Ipv4Addr,
    holder: Child,
}

/// A node of a [`Sandbox`].
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Place(usize);

impl Sandbox {
    /// An empty one. The program must have [entered](enter) namespaces of its own.
    pub fn new() -> Result<Self> {
        let hub = address(1);
        ip(&format!(
            "link set lo up\nlink add {BRIDGE} type bridge\naddr add {hub}/24 dev {BRIDGE}\nlink set {BRIDGE} up\n"
        ))?;
        Ok(Self { nodes: Vec::new() })
    }

    /// Makes a node with this name, for messages only, and the address that ends in this number.
    pub fn node(&mut self, name: &str, number: u8) -> Result<Place> {
        let address = address(number);
        ensure!(number > 1 && self.nodes.iter().all(|n| n.address != address), "{address} is taken");
        let mut holder = Command::new("unshare");
        holder.args(["--net", "sleep", "infinity"]).stdin(Stdio::null());
        let node = Node { name: name.to_owned(), address, holder: holder.spawn().context("unshare")? };
        let pid = node.holder.id();
        self.nodes.push(node);
        let place = Place(self.nodes.len() - 1);
        wait_for_namespace(pid)?;
        let outside = port(place);
        ip(&format!(
            "link add {outside} type veth peer name eth0 netns {pid}\nlink set {outside} master {BRIDGE} up\n"
        ))?;
        let mut inside = self.command(place, "ip");
        inside.args(["-batch", "-"]);
        let lines = format!("link set lo up\naddr add {address}/24 dev eth0\nlink set eth0 up\n");
        feed(inside, &lines).with_context(|| format!("the link of {name}"))?;
        Ok(place)
    }

    /// All nodes.
    pub fn places(&self) -> impl Iterator<Item = Place> {
        (0..self.nodes.len()).map(Place)
    }

    /// The address of a node.
    pub fn address(&self, place: Place) -> IpAddr {
        self.nodes[place.0].address.into()
    }

    /// The name of a node.
    pub fn name(&self, place: Place) -> &str {
        &self.nodes[place.0].name
    }

    /// A command that runs on a node.
    pub fn command(&self, place: Place, program: impl AsRef<std::ffi::OsStr>) -> Command {
        let mut command = Command::new("nsenter");
        command.arg(format!("--net=/proc/{}/ns/net", self.nodes[place.0].holder.id())).arg("--").arg(program);
        command
    }

    /// Makes links as they are to be, all at once.
    pub fn apply(&self, links: &Links) -> Result<()> {
        nft(Command::new("nft"), &links.rules(self))
    }

    /// How many packets the links that were applied last have not let through.
    pub fn stopped(&self) -> Result<u64> {
        let mut command = Command::new("nft");
        command.args(["list", "table", "bridge", "links"]);
        Ok(counted(&feed(command, "")?))
    }

    /// Answers all that comes to a node from these others with resets, for as long as one needs to notice: connections
    /// that were in use are gone, also when no side has closed them. How many packets were answered so.
    pub async fn reset(&self, place: Place, from: &[Place], during: Duration) -> Result<u64> {
        let sources: Vec<String> = from.iter().map(|other| self.address(*other).to_string()).collect();
        ensure!(!sources.is_empty(), "resets for nobody");
        let rules = format!(
            "table inet resets {{\n chain input {{\n  type filter hook input priority 0\n  ip saddr {{ {} }} meta l4proto tcp \
             counter reject with tcp reset\n }}\n}}\n",
            sources.join(", ")
        );
        nft(self.command(place, "nft"), &rules)?;
        tokio::time::sleep(during).await;
        let mut command = self.command(place, "nft");
        command.args(["list", "table", "inet", "resets"]);
        let count = counted(&feed(command, "")?);
        nft(self.command(place, "nft"), "delete table inet resets\n")?;
        Ok(count)
    }
}

/// Puts a file system in memory over a folder. It is gone with the program; only the program and what it starts see it.
pub fn mount_memory(folder: &Path, mebibytes: u32) -> Result<()> {
    let mut command = Command::new("mount");
    command.args(["-t", "tmpfs", "-o", &format!("size={mebibytes}m,mode=0700"), "tmpfs"]).arg(folder);
    feed(command, "").map(drop)
}

/// Takes such a file system away again, when nothing uses it any more.
pub fn unmount(folder: &Path) -> Result<()> {
    let mut command = Command::new("umount");
    command.arg(folder);
    feed(command, "").map(drop)
}

impl Drop for Sandbox {
    fn drop(&mut self) {
        for node in &mut self.nodes {
            // Nothing to be done about a failure here: it ends with this program at the latest.
            let _ = node.holder.kill();
            let _ = node.holder.wait();
        }
        // The links would go with the namespaces they lead to, but later: their names are free from here on.
        for place in self.places() {
            let _ = ip(&format!("link del {}\n", port(place)));
        }
        let _ = ip(&format!("link del {BRIDGE}\n"));
    }
}

fn address(number: u8) -> Ipv4Addr {
    let [a, b, c] = NETWORK;
    Ipv4Addr::new(a, b, c, number)
}

/// The bridge's end of a node's link.
fn port(place: Place) -> String {
    format!("port{}", place.0)
}

/// A process is in its new namespace a moment after it was started.
fn wait_for_namespace(pid: u32) -> Result<()> {
    let own = std::fs::read_link("/proc/self/ns/net")?;
    let namespace = PathBuf::from(format!("/proc/{pid}/ns/net"));
    let end = Instant::now() + Duration::from_secs(10);
    loop {
        match std::fs::read_link(&namespace) {
            Ok(other) if other != own => return Ok(()),
            Err(error) if Instant::now() > end => return Err(error).context("a network namespace"),
            _ if Instant::now() > end => bail!("no new network namespace"),
            _ => std::thread::sleep(Duration::from_millis(2)),
        }
    }
}

/// Runs lines of `ip`.
fn ip(lines: &str) -> Result<()> {
    let mut command = Command::new("ip");
    command.args(["-batch", "-"]);
    feed(command, lines).map(drop)
}

/// Runs rules of nftables, all or none.
fn nft(mut command: Command, rules: &str) -> Result<()> {
    command.args(["-f", "-"]);
    feed(command, rules).map(drop)
}

/// The packets that all rules of a table have counted, as `nft list` prints them.
fn counted(table: &str) -> u64 {
    let mut words = table.split_ascii_whitespace();
    let mut sum = 0;
    while words.any(|word| word == "packets") {
        sum += words.next().and_then(|count| count.parse::<u64>().ok()).unwrap_or(0);
    }
    sum
}

/// Runs a command with this input; what it prints is the answer, or the error.
fn feed(mut command: Command, input: &str) -> Result<String> {
    command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped());
    let mut child = command.spawn().with_context(|| format!("cannot run {command:?}"))?;
    let mut stdin = child.stdin.take().context("no input")?;
    // A command that has ended says why below.
    let _ = stdin.write_all(input.as_bytes());
    drop(stdin);
    let output = child.wait_with_output()?;
    ensure!(
        output.status.success(),
        "{command:?}: {}{} (input: {input})",
        String::from_utf8_lossy(&output.stdout),
        String::from_utf8_lossy(&output.stderr)
    );
    Ok(String::from_utf8_lossy(&output.stdout).into_owned())
}

#[cfg(test)]
mod tests {
    use super::counted;

    #[test]
    fn counters_are_added_up() {
        let table = "table bridge links {\n chain forward {\n  type filter hook forward priority filter; policy accept;\n  \
                     ip saddr 10.77.0.11 ip daddr 10.77.0.12 counter packets 12 bytes 3456 drop\n  \
                     ip saddr 10.77.0.12 ip daddr 10.77.0.11 counter packets 30 bytes 1 drop\n }\n}\n";
        assert_eq!((counted(table), counted("table bridge links {\n}\n")), (42, 0));
    }
}
