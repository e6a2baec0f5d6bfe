//! The sandbox itself: cuts cut, slow links are slow, resets break connections, and nothing is left of it.

use std::io::{BufRead as _, BufReader, Write as _};
use std::process::{Child, ChildStdin, ChildStdout, Command, Stdio};
use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};
use starling_tests::sandbox::{Links, Place, Sandbox, SlowLink, Weather, own};

use crate::helper::HELPER;

const PORT: u16 = 7000;

/// Two nodes, of which each listens.
pub(crate) struct Trial {
    places: [Place; 2],
    echoes: Vec<Child>,
}

/// Asks from one node to another.
struct Dialer {
    child: Child,
    input: ChildStdin,
    output: BufReader<ChildStdout>,
}

/// What became of a question.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Answer {
    After(Duration),
    /// Nothing came.
    Lost,
    /// The connection was reset.
    Broken,
}

impl Trial {
    pub(crate) fn new(sandbox: &mut Sandbox) -> Result<Self> {
        let places = [sandbox.node("one", 200)?, sandbox.node("two", 201)?];
        let mut trial = Self { places, echoes: Vec::new() };
        for place in places {
            let address = sandbox.address(place);
            let mut command = sandbox.command(place, std::env::current_exe()?);
            command.env(HELPER, format!("echo {address}:{PORT}")).stdin(Stdio::null());
            trial.echoes.push(command.spawn()?);
        }
        Ok(trial)
    }

    fn dialers(&self, sandbox: &Sandbox) -> Result<[Dialer; 2]> {
        let [one, two] = self.places;
        Ok([Dialer::new(sandbox, one, two)?, Dialer::new(sandbox, two, one)?])
    }

    /// Both ways, one way (what is said comes, what is answered does not), and back.
    pub(crate) async fn cut(&self, sandbox: &Sandbox) -> Result<()> {
        let [one, two] = self.places;
        let mut dialers = self.dialers(sandbox)?;
        let [there, back] = &mut dialers;
        ensure!(there.reaches()? && back.reaches()?, "the nodes do not reach each other");
        sandbox.apply(Links::default().cut(one, two))?;
        ensure!(there.ask()? == Answer::Lost && back.ask()? == Answer::Lost, "a cut lets something through");
        sandbox.apply(&Links::default())?;
        ensure!(there.reaches()? && back.reaches()?, "the cut is not healed");
        sandbox.apply(Links::default().cut_one_way(one, two))?;
        ensure!(there.ask()? == Answer::Lost && back.ask()? == Answer::Lost, "no answer should come");
        sandbox.apply(Links::default().lose_among(&self.places, 20))?;
        let heard =
            (0..20).filter_map(|_| there.ask().ok()).filter(|a| matches!(a, Answer::After(_))).count();
        ensure!(heard >= 10, "{heard} of 20 answers came where a fifth of the packets is lost");
        sandbox.apply(&Links::default())?;
        ensure!(there.reaches()?, "the loss is not healed");
        Ok(())
    }

    /// Late by what was asked for, with the connection in use before, and fast again after.
    pub(crate) async fn slow(&self, sandbox: &Sandbox) -> Result<()> {
        let [mut there, _] = self.dialers(sandbox)?;
        ensure!(there.reaches()?, "the nodes do not reach each other");
        let delay = Duration::from_millis(60);
        let weather = Weather { delay, jitter: Duration::from_millis(20), doubled: 200, lost: 0 };
        let link = SlowLink::new(sandbox, self.places[1], weather, 1)?;
        for _ in 0..5 {
            let answer = there.ask()?;
            ensure!(matches!(answer, Answer::After(after) if after >= 2 * delay), "not late but {answer:?}");
        }
        drop(link);
        ensure!(there.reaches()?, "the link is gone with its weather");
        let answer = there.ask()?;
        ensure!(matches!(answer, Answer::After(after) if after < delay), "still late: {answer:?}");
        Ok(())
    }

    /// A connection in use breaks, and a new one is made.
    pub(crate) async fn reset(&self, sandbox: &Sandbox) -> Result<()> {
        let [mut there, _] = self.dialers(sandbox)?;
        ensure!(there.reaches()?, "the nodes do not reach each other");
        let [one, two] = self.places;
        let sources = [one];
        let (done, answer) = tokio::join!(sandbox.reset(two, &sources, Duration::from_millis(300)), async {
            tokio::time::sleep(Duration::from_millis(50)).await;
            tokio::task::block_in_place(|| there.ask())
        });
        done?;
        ensure!(answer? == Answer::Broken, "the connection was not reset");
        ensure!(there.reaches()?, "the resets do not end");
        Ok(())
    }
}

impl Drop for Trial {
    fn drop(&mut self) {
        for echo in &mut self.echoes {
            // It ends with this program at the latest.
            let _ = echo.kill();
            let _ = echo.wait();
        }
    }
}

impl Dialer {
    fn new(sandbox: &Sandbox, from: Place, to: Place) -> Result<Self> {
        let address = sandbox.address(to);
        let mut command = sandbox.command(from, std::env::current_exe()?);
        command.env(HELPER, format!("dial {address}:{PORT}")).stdin(Stdio::piped()).stdout(Stdio::piped());
        let mut child = command.spawn()?;
        let input = child.stdin.take().context("no input")?;
        let output = BufReader::new(child.stdout.take().context("no output")?);
        Ok(Self { child, input, output })
    }

    fn ask(&mut self) -> Result<Answer> {
        self.input.write_all(b".")?;
        let mut line = String::new();
        self.output.read_line(&mut line)?;
        Ok(match line.trim() {
            "lost" => Answer::Lost,
            "broken" => Answer::Broken,
            milliseconds => Answer::After(Duration::from_millis(milliseconds.parse().context("no answer")?)),
        })
    }

    /// Whether an answer comes, at the latest after some tries.
    fn reaches(&mut self) -> Result<bool> {
        for _ in 0..20 {
            if matches!(self.ask()?, Answer::After(_)) {
                return Ok(true);
            }
            std::thread::sleep(Duration::from_millis(50));
        }
        Ok(false)
    }
}

impl Drop for Dialer {
    fn drop(&mut self) {
        // It ends with this program at the latest.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// A sandbox inside this one is made by a program that is then killed: all its processes, with their networks, are gone.
pub(crate) async fn vanish() -> Result<()> {
    let mark = format!("{}", 1_000_000 + rand::random::<u32>() / 2);
    let mut command = own(&std::env::current_exe()?).map_err(anyhow::Error::msg)?;
    command.env(HELPER, format!("hold {mark}")).stdin(Stdio::null()).stdout(Stdio::piped());
    let mut outer = command.spawn()?;
    let mut said = String::new();
    BufReader::new(outer.stdout.take().context("no output")?).read_line(&mut said)?;
    // They may not be what they are to become yet.
    let begun = Instant::now();
    let mut there = marked(&mark)?;
    while there < 4 && begun.elapsed() < Duration::from_secs(5) {
        tokio::time::sleep(Duration::from_millis(10)).await;
        there = marked(&mark)?;
    }
    // Whatever it is, the program must not stay.
    outer.kill()?;
    outer.wait()?;
    ensure!(
        said.trim() == "held" && there == 4,
        "{there} processes in the other sandbox, which says {said:?}"
    );
    let end = Instant::now() + Duration::from_secs(5);
    while marked(&mark)? > 0 {
        ensure!(
            Instant::now() < end,
            "{} processes are left of a sandbox whose program was killed",
            marked(&mark)?
        );
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
    Ok(())
}

/// How many processes of any namespace below ours are `sleep MARK`.
fn marked(mark: &str) -> Result<usize> {
    let output = Command::new("pgrep").args(["-c", "-x", "-f", &format!("sleep {mark}")]).output()?;
    Ok(String::from_utf8_lossy(&output.stdout).trim().parse()?)
}
