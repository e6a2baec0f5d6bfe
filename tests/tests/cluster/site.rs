//! A cluster: three routers and three edges on a CQL server, behind haproxy, each on a node of its own.

use std::ffi::OsString;
use std::fs;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::process::{Output, Stdio};
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail, ensure};
use starling_tests::Target;
use starling_tests::certificate::Certificate;
use starling_tests::cql::answers;
use starling_tests::sandbox::{
    Links, Place, Process, Sandbox, SlowLink, Tally, Weather, mount_memory, unmount,
};
use starling_tests::server::{PASSWORD, WIDE, binary};
use tempfile::TempDir;
use tokio::net::TcpStream;
use tokio::time::{sleep, timeout};

use crate::helper::HELPER;
use crate::states::http;

/// How many of each there are.
pub(crate) const ROUTERS: usize = 3;
pub(crate) const EDGES: usize = 3;
const DOMAIN: &str = "localhost";
const C2S: u16 = 5222;
const C2S_TLS: u16 = 5223;
const CLUSTER: u16 = 5270;
const ADMIN: u16 = 5290;
const CQL: u16 = 9042;
/// Room for the data of all processes, in MiB.
const DISKS: u32 = 3072;
/// Where haproxy says what it does.
pub(crate) const SOCKET: &str = "haproxy.sock";
/// Where a copy of a router is.
const COPY: u8 = 31;
/// How long anything may take to start, on a machine with much else to do.
const START: Duration = Duration::from_secs(150);

/// Which process.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Which {
    Router(usize),
    Edge(usize),
    Balancer,
    Store,
}

/// The cluster. All of it dies with this value.
pub(crate) struct Site {
    pub(crate) sandbox: Sandbox,
    pub(crate) target: Target,
    routers: Vec<Process>,
    edges: Vec<Process>,
    balancer: Process,
    store: Process,
    links: Links,
    /// Packets that links have not let through since the last mending.
    stopped: u64,
    slow: Vec<SlowLink>,
    /// Whether clocks can be set off.
    clocks: bool,
    binary: PathBuf,
    in_memory: bool,
    directory: TempDir,
}

impl Site {
    /// Starts everything and waits until haproxy has somebody to lead clients to.
    pub(crate) async fn start(mut sandbox: Sandbox) -> Result<Self> {
        let directory = TempDir::with_prefix("starling-cluster-")?;
        let at = directory.path();
        // Somebody may build while this runs; all processes are to be of one make.
        let binary = at.join("starling");
        let built = binary_under_test(&binary)?;
        ensure!(built.is_file(), "{} is no file", built.display());
        // A process that is killed loses nothing that it gave to the kernel, whatever is below; a disk that others are
        // busy with would make a test of the disk out of every test.
        let disks = at.join("disks");
        make_private(&disks)?;
        let in_memory = std::env::var_os("STARLING_KEEP").is_none();
        if in_memory {
            mount_memory(&disks, DISKS)?;
        }
        let certificate = Certificate::make(at, &[DOMAIN])?;
        let balancer = sandbox.node("haproxy", 5)?;
        let store = sandbox.node("cql", 9)?;
        let place = |kind: &str, base: u8, count: usize, sandbox: &mut Sandbox| {
            let number = |n: usize| u8::try_from(n).context("too many nodes");
            (0..count)
                .map(|n| sandbox.node(&format!("{kind}-{n}"), base + number(n)?))
                .collect::<Result<Vec<_>>>()
        };
        let routers = place("router", 11, ROUTERS, &mut sandbox)?;
        let edges = place("edge", 21, EDGES, &mut sandbox)?;
        let target = Target {
            c2s: (sandbox.address(balancer), C2S).into(),
            c2s_tls: Some((sandbox.address(balancer), C2S_TLS).into()),
            domain: DOMAIN.to_owned(),
            tls: certificate.client_config()?,
        };

        let library = at.join("clock.so");
        let clocks = make_clock(&library);
        for place in routers.iter().chain(&edges) {
            fs::write(at.join(format!("{}.clock", sandbox.name(*place))), [0; 16])?;
        }
        let process = |place: &Place, role: &str| {
            let name = sandbox.name(*place);
            let config = at.join(format!("{name}.toml"));
            let mut words: Vec<OsString> = Vec::new();
            if clocks {
                let off = at.join(format!("{name}.clock"));
                words.push("env".into());
                words.push(format!("LD_PRELOAD={}", library.display()).into());
                words.push(format!("STARLING_TEST_CLOCK={}", off.display()).into());
            }
            words.extend([binary.clone().into_os_string(), role.into(), "--config".into(), config.into()]);
            for (key, value) in WIDE {
                words.extend(["--set".into(), format!("{key}={value}").into()]);
            }
            Process::new(name, *place, words, &at.join(format!("{name}.log")))
        };
        let routers: Vec<Process> = routers.iter().map(|place| process(place, "router")).collect();
        let edges: Vec<Process> = edges.iter().map(|place| process(place, "edge")).collect();
        let haproxy = ["haproxy".into(), "-db".into(), "-f".into(), at.join("haproxy.cfg").into_os_string()];
        let balancer = Process::new("haproxy", balancer, haproxy, &at.join("haproxy.log"));
        let node = Path::new(env!("CARGO_MANIFEST_DIR")).join("cassandra/node");
        let address = sandbox.address(store).to_string();
        let words = [node.into_os_string(), "run".into(), disks.join("cql").into(), address.into()];
        let words = words.into_iter().chain(["--heap", "320"].map(Into::into));
        let store = Process::new("cql", store, words, &at.join("cql.log"));
        let (links, slow) = (Links::default(), Vec::new());
        let mut site = Self {
            sandbox,
            target,
            routers,
            edges,
            balancer,
            store,
            links,
            stopped: 0,
            slow,
            clocks,
            binary,
            in_memory,
            directory,
        };
        site.configure(&certificate)?;
        site.set_up().await?;
        Ok(site)
    }

    /// Starts one after the other, as who comes later needs those before.
    async fn set_up(&mut self) -> Result<()> {
        self.store.start(&self.sandbox)?;
        self.certify().await?;
        let address = SocketAddr::from((self.sandbox.address(self.store.place()), CQL));
        let end = Instant::now() + START;
        while !answers(address).await {
            self.store.check_alive()?;
            ensure!(Instant::now() < end, "the CQL server does not answer; {}", self.store.tail());
            sleep(Duration::from_millis(50)).await;
        }
        self.run("router-0", &["migrate", "apply"], "").await?;
        for process in self.routers.iter_mut().chain(&mut self.edges).chain([&mut self.balancer]) {
            process.start(&self.sandbox)?;
        }
        self.ready(START).await
    }

    /// Makes an account.
    pub(crate) async fn add_user(&self, user: &str) -> Result<()> {
        self.run("router-0", &["ctl", "user", "add", &format!("{user}@{DOMAIN}")], PASSWORD).await.map(|_| ())
    }

    /// Runs `starling` beside a process, with its configuration.
    pub(crate) async fn run(&self, name: &str, arguments: &[&str], input: &str) -> Result<String> {
        let place = self.all().find(|process| process.name() == name).context("no such process")?.place();
        let mut command = self.sandbox.command(place, &self.binary);
        command.args(arguments).arg("--config").arg(self.directory.path().join(format!("{name}.toml")));
        command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped());
        let input = input.to_owned();
        let run = tokio::task::spawn_blocking(move || {
            let mut child = command.spawn()?;
            if let Some(mut stdin) = child.stdin.take() {
                // A command that needs no input may have ended already.
                let _ = std::io::Write::write_all(&mut stdin, input.as_bytes());
            }
            anyhow::Ok(child.wait_with_output()?)
        });
        let shown = arguments.join(" ");
        let Ok(output) = timeout(START, run).await else { bail!("starling {shown} takes too long") };
        let Output { status, stdout, stderr } = output??;
        let printed = String::from_utf8_lossy(&stdout).into_owned();
        ensure!(
            status.success(),
            "starling {shown}: {status}; {printed}{}",
            String::from_utf8_lossy(&stderr)
        );
        Ok(printed)
    }

    /// All processes.
    pub(crate) fn all(&self) -> impl Iterator<Item = &Process> {
        self.routers.iter().chain(&self.edges).chain([&self.balancer, &self.store])
    }

    pub(crate) fn process(&mut self, which: Which) -> &mut Process {
        match which {
            Which::Router(n) => &mut self.routers[n],
            Which::Edge(n) => &mut self.edges[n],
            Which::Balancer => &mut self.balancer,
            Which::Store => &mut self.store,
        }
    }

    pub(crate) fn place(&self, which: Which) -> Place {
        match which {
            Which::Router(n) => self.routers[n].place(),
            Which::Edge(n) => self.edges[n].place(),
            Which::Balancer => self.balancer.place(),
            Which::Store => self.store.place(),
        }
    }

    pub(crate) fn router_places(&self) -> Vec<Place> {
        self.routers.iter().map(Process::place).collect()
    }

    pub(crate) fn edge_places(&self) -> Vec<Place> {
        self.edges.iter().map(Process::place).collect()
    }

    /// An edge, without what leads clients to all of them.
    pub(crate) fn at(&self, edge: usize) -> Target {
        let own = self.sandbox.address(self.place(Which::Edge(edge)));
        let (c2s, c2s_tls) = ((own, C2S).into(), Some((own, C2S_TLS).into()));
        Target { c2s, c2s_tls, ..self.target.clone() }
    }

    /// Where probes and metrics of a process are.
    pub(crate) fn admin(&self, which: Which) -> SocketAddr {
        (self.sandbox.address(self.place(which)), ADMIN).into()
    }

    /// The folder of a process's data.
    pub(crate) fn data(&mut self, which: Which) -> PathBuf {
        let name = self.process(which).name().to_owned();
        self.directory.path().join("disks").join(name)
    }

    pub(crate) fn kill(&mut self, which: Which) -> Result<()> {
        self.process(which).kill()
    }

    pub(crate) fn begin(&mut self, which: Which) -> Result<()> {
        let Self { routers, edges, balancer, store, sandbox, .. } = self;
        let process = match which {
            Which::Router(n) => &mut routers[n],
            Which::Edge(n) => &mut edges[n],
            Which::Balancer => balancer,
            Which::Store => store,
        };
        process.start(sandbox)
    }

    /// Changes what goes through between nodes.
    pub(crate) fn link(&mut self, change: impl FnOnce(&mut Links)) -> Result<()> {
        self.count()?;
        change(&mut self.links);
        self.sandbox.apply(&self.links)
    }

    /// Adds up what the present links have stopped; applying others forgets it.
    fn count(&mut self) -> Result<()> {
        if !self.links.are_good() {
            self.stopped += self.sandbox.stopped()?;
        }
        Ok(())
    }

    /// How many packets links have not let through since the last mending.
    pub(crate) fn stopped(&self) -> Result<u64> {
        Ok(self.stopped + if self.links.are_good() { 0 } else { self.sandbox.stopped()? })
    }

    /// Makes a process's link slow until all is mended. Whoever asks it something feels that.
    pub(crate) async fn slow(&mut self, which: Which, weather: Weather, seed: u64) -> Result<()> {
        let link = SlowLink::new(&self.sandbox, self.place(which), weather, seed)?;
        self.slow.push(link);
        for _ in 0..5 {
            let asked = Instant::now();
            let connected = timeout(Duration::from_secs(5), TcpStream::connect(self.admin(which))).await;
            if matches!(connected, Ok(Ok(_))) {
                let took = asked.elapsed();
                ensure!(took >= 2 * weather.delay, "{which:?} is reached in {took:?}, which is not slow");
                return Ok(());
            }
        }
        bail!("{which:?} is not reached at all")
    }

    /// What has become of packets on slow links.
    pub(crate) fn tallies(&mut self) -> Result<Vec<Tally>> {
        self.slow.iter_mut().map(SlowLink::tally).collect()
    }

    /// Whether a process can open a connection to another's probes.
    pub(crate) fn reaches(&self, from: Which, to: Which) -> Result<bool> {
        let address = self.admin(to);
        let mut command = self.sandbox.command(self.place(from), std::env::current_exe()?);
        command.env(HELPER, format!("knock {address}")).stdin(Stdio::null());
        Ok(command.status()?.success())
    }

    /// Whether [`off`](Self::off) does anything.
    pub(crate) fn has_clocks(&self) -> bool {
        self.clocks
    }

    /// Sets the wall clock of a router or an edge off by so many milliseconds, ahead or back, at once.
    pub(crate) fn off(&self, which: Which, milliseconds: i64) -> Result<()> {
        use std::os::unix::fs::FileExt as _;
        let process = match which {
            Which::Router(n) => &self.routers[n],
            Which::Edge(n) => &self.edges[n],
            Which::Balancer | Which::Store => bail!("{which:?} has the clock of this machine"),
        };
        let file = self.directory.path().join(format!("{}.clock", process.name()));
        let nanos = milliseconds.saturating_mul(1_000_000).to_ne_bytes();
        // In place and in one piece: processes look at it all the time.
        fs::File::options().write(true).open(&file)?.write_all_at(&nanos, 0).context("a clock")
    }

    /// How often a process was told a wrong time, in all its lives.
    pub(crate) fn wrong_times(&self, which: Which) -> Result<u64> {
        let file = self.directory.path().join(format!("{}.clock", self.sandbox.name(self.place(which))));
        let content = fs::read(&file)?;
        let count = content.get(8..16).context("a clock without a counter")?;
        Ok(u64::from_ne_bytes(count.try_into()?))
    }

    /// A process that has all that a router has, its disk and its name, at another address. It is not started.
    pub(crate) fn copy(&mut self, router: usize) -> Result<Process> {
        let (name, at) = (self.routers[router].name().to_owned(), self.directory.path().to_owned());
        let place = self.sandbox.node("copy", COPY)?;
        let (own, other) = (self.sandbox.address(self.routers[router].place()), self.sandbox.address(place));
        let disks = at.join("disks");
        copy_folder(&disks.join(&name), &disks.join("copy"))?;
        let text = |path: PathBuf| path.display().to_string();
        let config = fs::read_to_string(at.join(format!("{name}.toml")))?;
        let lines = config.lines().map(|line| {
            // The list of all routers stays as it is.
            if line.starts_with("routers") {
                return line.to_owned();
            }
            let line = line.replace(&own.to_string(), &other.to_string());
            line.replace(&text(disks.join(&name)), &text(disks.join("copy")))
        });
        let lines: Vec<String> = lines.collect();
        fs::write(at.join("copy.toml"), lines.join("\n"))?;
        let words =
            [self.binary.clone().into(), "router".into(), "--config".into(), at.join("copy.toml").into()];
        Ok(Process::new("copy", place, words.into_iter().map(|word: OsString| word), &at.join("copy.log")))
    }

    /// A file beside the configurations.
    pub(crate) fn file(&self, name: &str) -> PathBuf {
        self.directory.path().join(name)
    }

    /// Loses all that a process had on its disk.
    pub(crate) fn wipe(&mut self, which: Which) -> Result<()> {
        let data = self.data(which);
        ensure!(!self.process(which).runs(), "{which:?} has its disk in use");
        ensure!(fs::read_dir(&data)?.next().is_some(), "{} is empty already", data.display());
        fs::remove_dir_all(&data).with_context(|| format!("{}", data.display()))?;
        make_private(&data)
    }

    /// Undoes all that was done: links are good, who was stopped goes on, who was killed is started.
    pub(crate) fn mend(&mut self) -> Result<()> {
        self.links = Links::default();
        self.stopped = 0;
        self.sandbox.apply(&self.links)?;
        self.slow.clear();
        for which in (0..ROUTERS).map(Which::Router).chain((0..EDGES).map(Which::Edge)) {
            self.off(which, 0)?;
        }
        let Self { routers, edges, balancer, store, sandbox, .. } = self;
        for process in routers.iter_mut().chain(edges).chain([balancer, store]) {
            if !process.runs() {
                process.start(sandbox)?;
            } else if process.is_paused() {
                process.resume()?;
            }
        }
        Ok(())
    }

    /// Waits until all routers and edges say that they are ready.
    pub(crate) async fn ready(&mut self, within: Duration) -> Result<()> {
        let end = Instant::now() + within;
        let who = (0..ROUTERS).map(Which::Router).chain((0..EDGES).map(Which::Edge));
        for which in who {
            let address = self.admin(which);
            loop {
                let answer = http(address, "/readyz").await;
                if matches!(answer, Ok((200, _))) {
                    break;
                }
                self.process(which).check_alive()?;
                if Instant::now() >= end {
                    bail!("{which:?} is not ready: {answer:?}");
                }
                sleep(Duration::from_millis(50)).await;
            }
        }
        Ok(())
    }

    /// An error if a process that should run has ended.
    pub(crate) fn check_alive(&mut self) -> Result<()> {
        let all = self.routers.iter_mut().chain(&mut self.edges).chain([&mut self.balancer, &mut self.store]);
        all.filter(|process| process.runs()).try_for_each(Process::check_alive)
    }

    /// What a process printed about a panic, if one did.
    pub(crate) fn panic(&self) -> Option<String> {
        let found = |process: &Process| {
            let output = process.output();
            let line = output.lines().find(|line| line.contains("panicked"))?;
            Some(format!("{}: {line}", process.name()))
        };
        self.all().find_map(found)
    }

    /// Copies all logs into a folder that stays.
    pub(crate) fn keep_logs(&self, folder: &Path) -> Result<()> {
        for process in self.all() {
            fs::copy(process.log_file(), folder.join(format!("{}-output.log", process.name())))?;
        }
        Ok(())
    }

    async fn certify(&self) -> Result<()> {
        let at = self.directory.path();
        let ca = at.join("ca");
        let text = |path: &Path| path.display().to_string();
        self.run("router-0", &["cluster", "ca", "--out", &text(&ca), "--name", "sandbox"], "").await?;
        for (role, processes) in [("router", &self.routers), ("edge", &self.edges)] {
            for process in processes {
                let (ca, out) = (text(&ca), text(&at.join(format!("{}.tls", process.name()))));
                let whose = ["--role", role, "--node", process.name(), "--name", "sandbox"];
                let files = ["cluster", "certificate", "--ca", &ca, "--out", &out];
                self.run("router-0", &[files.as_slice(), &whose].concat(), "").await?;
            }
        }
        Ok(())
    }

    fn configure(&self, certificate: &Certificate) -> Result<()> {
        let at = self.directory.path();
        let address = |process: &Process| self.sandbox.address(process.place());
        let routers: Vec<String> = self.routers.iter().map(|r| format!("{}:{CLUSTER}", address(r))).collect();
        for process in self.routers.iter().chain(&self.edges) {
            let (own, name) = (address(process), process.name());
            let (data, tls) = (at.join("disks").join(name), at.join(format!("{name}.tls")));
            let mut config = format!(
                "domains = [\"{DOMAIN}\"]\ndata_dir = {data:?}\n\n[cluster]\nname = \"sandbox\"\nnode = {name:?}\n\
                 routers = {routers:?}\nadvertise = \"{own}:{CLUSTER}\"\ninitial_routers = {ROUTERS}\n\n\
                 [cluster.tls]\nca = {:?}\ncert = {:?}\nkey = {:?}\n\n[listen]\nadmin = \"{own}:{ADMIN}\"\n",
                tls.join("ca.pem"),
                tls.join("cert.pem"),
                tls.join("key.pem"),
            );
            config += &if name.starts_with("edge") {
                format!(
                    "c2s = \"{own}:{C2S}\"\nc2s_tls = \"{own}:{C2S_TLS}\"\n\n[tls]\ncert = {:?}\nkey = {:?}\n\n\
                     [drain]\nlb_settle = \"1s\"\nwindow = \"2s\"\n",
                    certificate.chain, certificate.key
                )
            } else {
                format!(
                    "cluster = \"{own}:{CLUSTER}\"\n\n[store]\nkind = \"scylla\"\nkeyspace = \"sandbox\"\n\
                     contact_points = [\"{}:{CQL}\"]\n",
                    address(&self.store)
                )
            };
            make_private(&data)?;
            fs::write(at.join(format!("{name}.toml")), config)?;
        }
        fs::write(at.join("haproxy.cfg"), self.haproxy())?;
        Ok(())
    }

    /// As an operator would have it: an edge that is not ready gets nobody new, and keeps whom it has.
    fn haproxy(&self) -> String {
        let mut config = format!("global\n  stats socket {}\n", self.file(SOCKET).display());
        config.push_str(
            "  maxconn 2000\ndefaults\n  mode tcp\n  timeout connect 1s\n  timeout check 1s\n  timeout client 1h\n  \
             timeout server 1h\n  retries 3\n  option redispatch 1\n  balance random\n  option httpchk GET /readyz\n  \
             default-server check inter 500ms fall 2 rise 1\n",
        );
        let own = self.sandbox.address(self.balancer.place());
        for (name, port) in [("c2s", C2S), ("c2s_tls", C2S_TLS)] {
            config += &format!("listen {name}\n  bind {own}:{port}\n");
            for edge in &self.edges {
                let address = self.sandbox.address(edge.place());
                config += &format!("  server {} {address}:{port} port {ADMIN}\n", edge.name());
            }
        }
        config
    }
}

impl Drop for Site {
    fn drop(&mut self) {
        let Self { routers, edges, balancer, store, .. } = self;
        for process in
            routers.iter_mut().chain(edges).chain([balancer, store]).filter(|process| process.runs())
        {
            // It ends with this program at the latest.
            let _ = process.kill();
        }
        if self.in_memory {
            let _ = unmount(&self.directory.path().join("disks"));
        }
        if std::env::var_os("STARLING_KEEP").is_some() {
            self.directory.disable_cleanup(true);
            eprintln!("kept {}", self.directory.path().display());
        }
    }
}

/// Builds what sets clocks off, where there is a C compiler.
fn make_clock(library: &Path) -> bool {
    let source = Path::new(env!("CARGO_MANIFEST_DIR")).join("namespaces/clock.c");
    let mut compiler = std::process::Command::new("cc");
    compiler.args(["-shared", "-fPIC", "-O1", "-o"]).arg(library).arg(source);
    compiler.stdin(Stdio::null()).status().is_ok_and(|status| status.success())
}

/// All that is in a folder.
fn copy_folder(from: &Path, to: &Path) -> Result<()> {
    make_private(to)?;
    for entry in fs::read_dir(from)? {
        let entry = entry?;
        let (kind, target) = (entry.file_type()?, to.join(entry.file_name()));
        if kind.is_dir() {
            copy_folder(&entry.path(), &target)?;
        } else if kind.is_file() {
            fs::copy(entry.path(), target)?;
        }
    }
    Ok(())
}

/// A folder for its owner alone.
fn make_private(path: &Path) -> Result<()> {
    use std::os::unix::fs::DirBuilderExt as _;
    fs::DirBuilder::new().recursive(true).mode(0o700).create(path)?;
    Ok(())
}

/// Puts the binary under test where nobody builds.
fn binary_under_test(at: &Path) -> Result<PathBuf> {
    let built = binary()?;
    if fs::hard_link(&built, at).is_err() {
        fs::copy(&built, at).with_context(|| format!("cannot copy {}", built.display()))?;
    }
    Ok(at.to_owned())
}
