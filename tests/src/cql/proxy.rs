//! Stands between the server under test and a CQL node, frame by frame, and does what [`Faults`] say.
//!
//! The node must advertise the proxy's address, or drivers would find the way round it. What a request suffers is drawn
//! from a generator that is seeded per connection, so that a seed repeats a plan (the timing is never the same twice).

use std::collections::HashMap;
use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::Ordering::Relaxed;

use anyhow::{Result, bail};
use parking_lot::Mutex;
use rand::rngs::StdRng;
use rand::{RngExt, SeedableRng};
use tokio::io::{AsyncWriteExt, BufReader};
use tokio::net::tcp::{OwnedReadHalf, OwnedWriteHalf};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::{mpsc, watch};
use tokio::task::JoinHandle;
use tokio::time::{Duration, sleep};

use super::faults::{Counts, Faults, Refusal};
use super::frame::{Frame, opcode};
use super::statements::{Kind, Statements};

/// Frames that may wait for one side of a connection.
const ROOM: usize = 4096;

/// A proxy, while it is kept.
pub struct Proxy {
    shared: Arc<Shared>,
    listener: JoinHandle<()>,
}

struct Shared {
    address: SocketAddr,
    node: SocketAddr,
    seed: u64,
    faults: watch::Sender<Faults>,
    /// Counts the calls of [`Proxy::cut`]; connections end when it moves.
    cuts: watch::Sender<u64>,
    counts: Counts,
    statements: Statements,
}

impl Proxy {
    /// Listens here and passes everything on to the node, for a start without a fault.
    pub async fn start(listen: SocketAddr, node: SocketAddr, seed: u64) -> Result<Self> {
        let sockets = TcpListener::bind(listen).await?;
        let shared = Arc::new(Shared {
            address: sockets.local_addr()?,
            node,
            seed,
            faults: watch::Sender::default(),
            cuts: watch::Sender::default(),
            counts: Counts::default(),
            statements: Statements::default(),
        });
        let listener = tokio::spawn({
            let shared = shared.clone();
            async move {
                while let Ok((socket, _)) = sockets.accept().await {
                    let shared = shared.clone();
                    // A connection that fails is closed, which is all that the driver needs to know.
                    tokio::spawn(async move { shared.stand_between(socket).await.ok() });
                }
            }
        });
        Ok(Self { shared, listener })
    }

    /// Where it listens.
    pub fn address(&self) -> SocketAddr {
        self.shared.address
    }

    /// What is to be done wrong from now on.
    pub fn set(&self, faults: Faults) {
        self.shared.faults.send_replace(faults);
    }

    /// Nothing is to be done wrong any more.
    pub fn heal(&self) {
        self.set(Faults::default());
    }

    /// Cuts all connections that there are.
    pub fn cut(&self) {
        self.shared.cuts.send_modify(|cuts| *cuts += 1);
    }

    /// What it has seen since it was started.
    pub fn counts(&self) -> &Counts {
        &self.shared.counts
    }
}

impl Drop for Proxy {
    fn drop(&mut self) {
        self.listener.abort();
        self.cut();
    }
}

/// What happens to one request.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Fate {
    Pass,
    Refuse(Refusal),
    Lie,
    Lose,
    Swallow,
    Disown,
    Cut,
    Late(Duration),
    Slow(Duration),
}

/// What to do with the answer to a request that was passed on.
enum Answer {
    Pass(Kind),
    /// Throw it away.
    Swallow,
    /// Send this instead.
    Replace(Frame),
    /// Keep it back.
    Slow(Duration),
}

/// Requests that were passed on and are not answered.
type Open = Arc<Mutex<HashMap<i16, Answer>>>;

impl Shared {
    async fn stand_between(self: &Arc<Self>, driver: TcpStream) -> Result<()> {
        let number = self.counts.connections.fetch_add(1, Relaxed);
        let mut cuts = self.cuts.subscribe();
        cuts.mark_unchanged();
        let node = TcpStream::connect(self.node).await?;
        for socket in [&driver, &node] {
            socket.set_nodelay(true)?;
        }
        let ((from_driver, into_driver), (from_node, into_node)) = (driver.into_split(), node.into_split());
        let (up, up_queue) = mpsc::channel(ROOM);
        let (down, down_queue) = mpsc::channel(ROOM);
        let open = Open::default();
        let rng = StdRng::seed_from_u64(self.seed.wrapping_add(number));
        // Whichever ends first, the other side ends too.
        tokio::select! {
            done = self.take_requests(from_driver, rng, up, down.clone(), open.clone()) => done,
            done = self.take_answers(from_node, down, open) => done,
            done = self.write(up_queue, into_node) => done,
            done = self.write(down_queue, into_driver) => done,
            _ = cuts.changed() => Ok(()),
        }
    }

    async fn take_requests(
        &self,
        from: OwnedReadHalf,
        mut rng: StdRng,
        up: mpsc::Sender<Vec<u8>>,
        down: mpsc::Sender<Vec<u8>>,
        open: Open,
    ) -> Result<()> {
        let mut from = BufReader::new(from);
        while let Some(request) = Frame::read(&mut from).await? {
            let kind = self.statements.kind(&request)?;
            let fate = self.decide(&request, kind, &mut rng);
            let id = request.stream;
            let note = |answer| drop(open.lock().insert(id, answer));
            match fate {
                Fate::Refuse(refusal) => {
                    down.send(refusal.answer(&request, kind == Kind::Write).bytes()).await?;
                    continue;
                }
                Fate::Lie => {
                    const VOID: [u8; 4] = 1_i32.to_be_bytes();
                    down.send(request.answer(opcode::RESULT, VOID.to_vec()).bytes()).await?;
                    continue;
                }
                Fate::Lose => continue,
                Fate::Cut => {
                    let bytes = request.bytes();
                    let end = rng.random_range(0..bytes.len());
                    up.send(bytes[..end].to_vec()).await?;
                    // Enough for the node to have read it.
                    sleep(Duration::from_millis(5)).await;
                    bail!("cut after {end} bytes");
                }
                Fate::Late(delay) => {
                    note(Answer::Pass(kind));
                    send_later(delay, request.bytes(), &up);
                    continue;
                }
                Fate::Swallow => note(Answer::Swallow),
                Fate::Disown => {
                    note(Answer::Replace(Refusal::Timeout.answer(&request, kind == Kind::Write)));
                }
                Fate::Slow(delay) => note(Answer::Slow(delay)),
                Fate::Pass => {
                    note(Answer::Pass(if request.opcode == opcode::PREPARE { kind } else { Kind::Other }))
                }
            }
            up.send(request.bytes()).await?;
        }
        Ok(())
    }

    async fn take_answers(&self, from: OwnedReadHalf, down: mpsc::Sender<Vec<u8>>, open: Open) -> Result<()> {
        let mut from = BufReader::new(from);
        while let Some(answer) = Frame::read(&mut from).await? {
            let fate = open.lock().remove(&answer.stream);
            match fate {
                Some(Answer::Swallow) => {}
                Some(Answer::Replace(other)) => down.send(other.bytes()).await?,
                Some(Answer::Slow(delay)) => send_later(delay, answer.bytes(), &down),
                Some(Answer::Pass(kind)) => {
                    if kind != Kind::Other {
                        self.statements.learn(&answer, kind)?;
                    }
                    down.send(answer.bytes()).await?;
                }
                // An event.
                None => down.send(answer.bytes()).await?,
            }
        }
        Ok(())
    }

    /// Counts a request and draws its fate.
    fn decide(&self, request: &Frame, kind: Kind, rng: &mut StdRng) -> Fate {
        if kind == Kind::Other || request.opcode == opcode::PREPARE {
            return Fate::Pass;
        }
        let writes = kind == Kind::Write;
        Counts::add(if writes { &self.counts.writes } else { &self.counts.reads });
        if writes && self.statements.repeats(request) {
            Counts::add(&self.counts.repeated);
        }
        let faults = self.faults.borrow();
        if (writes && !faults.writes) || (!writes && !faults.reads) {
            return Fate::Pass;
        }
        let shortest = faults.delay / 2;
        let delay = shortest + shortest.mul_f64(rng.random());
        let choices = [
            (faults.refused, Fate::Refuse(faults.refusal)),
            (faults.lied, Fate::Lie),
            (faults.lost, Fate::Lose),
            (faults.swallowed, Fate::Swallow),
            (faults.disowned, Fate::Disown),
            (faults.cut, Fate::Cut),
            (faults.late, Fate::Late(delay)),
            (faults.slow, Fate::Slow(delay)),
        ];
        let mut draw: f64 = rng.random();
        for (share, fate) in choices {
            if draw < share {
                Counts::add(&self.counts.harmed);
                return fate;
            }
            draw -= share;
        }
        Fate::Pass
    }

    async fn write(&self, mut queue: mpsc::Receiver<Vec<u8>>, mut into: OwnedWriteHalf) -> Result<()> {
        let mut faults = self.faults.subscribe();
        while let Some(bytes) = queue.recv().await {
            faults.wait_for(|faults| !faults.stalled).await?;
            into.write_all(&bytes).await?;
        }
        Ok(())
    }
}

/// As many of these may run as a driver has requests open on its connections; each ends with its delay.
fn send_later(delay: Duration, bytes: Vec<u8>, to: &mpsc::Sender<Vec<u8>>) {
    let to = to.clone();
    tokio::spawn(async move {
        sleep(delay).await;
        // The connection may have ended in the meantime.
        let _ = to.send(bytes).await;
    });
}

#[cfg(test)]
mod tests {
    use super::super::frame::long_string;
    use super::*;

    const INSERT: &str = "INSERT INTO k.log (a) VALUES (1)";

    /// A node that answers every request with a RESULT and tells how many it got.
    async fn node() -> (SocketAddr, watch::Receiver<u64>) {
        let listener = TcpListener::bind(("127.0.0.1", 0)).await.unwrap();
        let address = listener.local_addr().unwrap();
        let (count, seen) = watch::channel(0);
        tokio::spawn(async move {
            while let Ok((mut socket, _)) = listener.accept().await {
                let count = count.clone();
                tokio::spawn(async move {
                    while let Ok(Some(request)) = Frame::read(&mut socket).await {
                        count.send_modify(|n| *n += 1);
                        let answer = request.answer(opcode::RESULT, vec![0, 0, 0, 1, 9]);
                        socket.write_all(&answer.bytes()).await.unwrap();
                    }
                });
            }
        });
        (address, seen)
    }

    /// What a driver gets for an INSERT under these faults, and how many requests the node got.
    async fn insert(faults: Faults) -> (Option<Frame>, u64) {
        let (address, seen) = node().await;
        let proxy = Proxy::start(([127, 0, 0, 1], 0).into(), address, 1).await.unwrap();
        proxy.set(faults);
        let mut socket = TcpStream::connect(proxy.address()).await.unwrap();
        let request = Frame::request(5, opcode::QUERY, long_string(INSERT));
        socket.write_all(&request.bytes()).await.unwrap();
        let read = tokio::time::timeout(Duration::from_millis(300), Frame::read(&mut socket)).await;
        let answer = read.ok().and_then(|read| read.ok().flatten());
        (answer, *seen.borrow())
    }

    #[tokio::test]
    async fn each_fault_does_what_it_says() {
        let none = Faults::default;
        let (answer, reached) = insert(none()).await;
        assert_eq!((answer.unwrap().body.last(), reached), (Some(&9), 1));
        let (answer, reached) = insert(Faults { swallowed: 1.0, ..none() }).await;
        assert_eq!((answer, reached), (None, 1));
        let (answer, reached) = insert(Faults { lost: 1.0, ..none() }).await;
        assert_eq!((answer, reached), (None, 0));
        let (answer, reached) = insert(Faults { lied: 1.0, ..none() }).await;
        assert_eq!((answer.unwrap().opcode, reached), (opcode::RESULT, 0));
        let (answer, reached) = insert(Faults { disowned: 1.0, ..none() }).await;
        let answer = answer.unwrap();
        assert_eq!(
            (answer.opcode, answer.stream, &answer.body[..4], reached),
            (opcode::ERROR, 5, &[0, 0, 0x11, 0][..], 1)
        );
        let (answer, reached) = insert(Faults { refused: 1.0, ..none() }).await;
        assert_eq!((&answer.unwrap().body[..4], reached), (&[0, 0, 0x10, 1][..], 0));
        let (answer, reached) = insert(Faults { cut: 1.0, ..none() }).await;
        assert_eq!((answer, reached), (None, 0));
        let (answer, _) = insert(Faults { stalled: true, ..none() }).await;
        assert_eq!(answer, None);
        let slow = Faults { slow: 1.0, delay: Duration::from_secs(1), ..none() };
        let (answer, reached) = insert(slow.clone()).await;
        assert_eq!((answer, reached), (None, 1));
        let (answer, reached) = insert(Faults { writes: false, ..slow }).await;
        assert!(answer.is_some() && reached == 1, "only reads are touched");
    }
}
