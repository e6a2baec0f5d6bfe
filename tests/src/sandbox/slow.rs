//! A link that is slow, loses order and doubles: a program between two TAP devices.

use std::io::{Read as _, Write as _};
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail};

use super::{BRIDGE, Place, Sandbox, ip, port};

/// What packets to and from a node suffer.
#[derive(Clone, Copy, Debug, Default)]
pub struct Weather {
    /// How long each is kept back, each way.
    pub delay: Duration,
    /// How much longer it may be. What is kept back shorter than one before overtakes it.
    pub jitter: Duration,
    /// How many of a thousand come twice.
    pub doubled: u16,
    /// How many of a thousand do not come.
    pub lost: u16,
}

/// A node's link, led through that program while this value lives.
pub struct SlowLink {
    place: Place,
    child: Child,
}

/// What became of the packets that were led through.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Tally {
    /// Packets that came.
    pub came: u64,
    /// Those of them that were lost.
    pub lost: u64,
    /// Those that went on twice.
    pub doubled: u64,
    /// Those that went on before one that had come earlier.
    pub overtook: u64,
}

impl SlowLink {
    /// Why there cannot be one here, if so.
    pub fn missing() -> Option<String> {
        let usable = std::fs::File::options().read(true).write(true).open("/dev/net/tun").is_ok();
        (!usable).then(|| "no TAP devices here (/dev/net/tun)".to_owned())
    }

    /// Leads the link of a node through it. Connections go on.
    pub fn new(sandbox: &Sandbox, place: Place, weather: Weather, seed: u64) -> Result<Self> {
        let name = sandbox.name(place);
        let [outer, inner] = ["outer", "inner"].map(|side| format!("{side}{}", place.0));
        let program = Path::new(env!("CARGO_MANIFEST_DIR")).join("namespaces/slow-link");
        let milliseconds = |time: Duration| time.as_millis().to_string();
        let mut command = Command::new(program);
        command.args([&outer, &inner]).args(["--delay", &milliseconds(weather.delay)]);
        command.args(["--jitter", &milliseconds(weather.jitter), "--doubled", &weather.doubled.to_string()]);
        command.args(["--lost", &weather.lost.to_string(), "--seed", &seed.to_string()]);
        command.stdin(Stdio::piped()).stdout(Stdio::piped());
        let mut child = command.spawn().context("tests/namespaces/slow-link")?;
        let end = Instant::now() + Duration::from_secs(10);
        while ![&outer, &inner].into_iter().all(|device| is_there(device)) {
            if let Some(status) = child.try_wait()? {
                bail!("the slow link of {name} ended: {status}");
            }
            if Instant::now() > end {
                // Not needed any more, and it ends with this program at the latest.
                let _ = child.kill();
                bail!("the slow link of {name} is not there");
            }
            std::thread::sleep(Duration::from_millis(5));
        }
        let (link, bridge) = (Self { place, child }, format!("slow{}", place.0));
        let near = port(place);
        ip(&format!(
            "link add {bridge} type bridge\nlink set {bridge} up\nlink set {inner} master {bridge} up\n\
             link set {outer} master {BRIDGE} up\nlink set {near} master {bridge}\n"
        ))?;
        Ok(link)
    }
}

impl SlowLink {
    /// What has become of packets so far.
    pub fn tally(&mut self) -> Result<Tally> {
        let (input, output) = (self.child.stdin.as_mut(), self.child.stdout.as_mut());
        let (input, output) = (input.context("no input")?, output.context("no output")?);
        input.write_all(b"?")?;
        let mut line = Vec::new();
        while line.last() != Some(&b'\n') {
            let mut byte = [0];
            output.read_exact(&mut byte).context("the slow link has ended")?;
            line.push(byte[0]);
        }
        let numbers = String::from_utf8(line)?;
        let numbers: Vec<u64> = numbers.split_ascii_whitespace().map(str::parse).collect::<Result<_, _>>()?;
        let [came, lost, doubled, overtook] = numbers[..] else { bail!("no tally: {numbers:?}") };
        Ok(Tally { came, lost, doubled, overtook })
    }
}

impl Drop for SlowLink {
    fn drop(&mut self) {
        let near = port(self.place);
        // Nothing to be done about a failure here: whoever needs the link will notice.
        let _ = ip(&format!("link set {near} master {BRIDGE}\nlink del slow{}\n", self.place.0));
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// Whether a device of this name is in our network namespace.
fn is_there(device: &str) -> bool {
    let list = std::fs::read_to_string("/proc/self/net/dev").unwrap_or_default();
    list.lines().any(|line| line.trim_start().strip_prefix(device).is_some_and(|rest| rest.starts_with(':')))
}
