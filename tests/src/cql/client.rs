//! A client that runs statements as text, one at a time: to make and drop keyspaces and to look into tables.

use std::net::SocketAddr;
use std::time::Duration;

use anyhow::{Context, Result, bail, ensure};
use tokio::io::AsyncWriteExt;
use tokio::net::TcpStream;
use tokio::time::timeout;

use super::frame::{Cursor, Frame, long_string, opcode, string};

/// Schema changes on a busy machine take their time.
const PATIENCE: Duration = Duration::from_secs(60);
const QUORUM: u16 = 0x0004;
const ALL: u16 = 0x0005;
const ROWS: i32 = 2;

/// A connection without a keyspace.
pub struct Connection(TcpStream);

/// What a statement gave: the bytes of each column of each row.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Rows(pub Vec<Vec<Option<Vec<u8>>>>);

impl Rows {
    /// A column of text of all rows; nothing for what is null.
    pub fn texts(&self, column: usize) -> Vec<String> {
        let cells = self.0.iter().filter_map(|row| row.get(column)?.as_deref());
        cells.map(|bytes| String::from_utf8_lossy(bytes).into_owned()).collect()
    }

    /// The number in the first column of the first row.
    pub fn number(&self) -> Result<i64> {
        let cell = self.0.first().and_then(|row| row.first()?.as_deref()).context("no number")?;
        Ok(i64::from_be_bytes(cell.try_into().context("not a bigint")?))
    }
}

impl Connection {
    /// Connects and starts up.
    pub async fn open(address: SocketAddr) -> Result<Self> {
        let mut connection = Self(timeout(PATIENCE, TcpStream::connect(address)).await??);
        let body = [1_u16.to_be_bytes().to_vec(), string("CQL_VERSION"), string("3.0.0")].concat();
        let answer = connection.ask(opcode::STARTUP, body).await?;
        ensure!(answer.opcode == opcode::READY, "not ready, but {:#x}", answer.opcode);
        Ok(connection)
    }

    /// Asks for the server's options, which it answers once it takes clients.
    pub(super) async fn options(address: SocketAddr) -> Result<()> {
        let asked = async {
            let mut connection = Self(TcpStream::connect(address).await?);
            connection.ask(opcode::OPTIONS, Vec::new()).await
        };
        let answer = timeout(Duration::from_secs(2), asked).await??;
        ensure!(answer.opcode == opcode::SUPPORTED, "not its options, but {:#x}", answer.opcode);
        Ok(())
    }

    /// Runs a statement at QUORUM. One page of rows at most.
    pub async fn run(&mut self, statement: &str) -> Result<Rows> {
        self.run_at(QUORUM, statement).await
    }

    /// The same with every node that has a copy.
    pub async fn run_on_all(&mut self, statement: &str) -> Result<Rows> {
        self.run_at(ALL, statement).await
    }

    async fn run_at(&mut self, consistency: u16, statement: &str) -> Result<Rows> {
        let mut body = long_string(statement);
        body.extend(consistency.to_be_bytes());
        body.push(0);
        let answer = self.ask(opcode::QUERY, body).await.with_context(|| statement.to_owned())?;
        rows(&answer.body).with_context(|| statement.to_owned())
    }

    async fn ask(&mut self, opcode: u8, body: Vec<u8>) -> Result<Frame> {
        let asked = async {
            self.0.write_all(&Frame::request(0, opcode, body).bytes()).await?;
            Frame::read(&mut self.0).await?.context("the server closed the connection")
        };
        let mut answer = timeout(PATIENCE, asked).await.context("no answer")??;
        if answer.flags & 0x08 != 0 {
            // Warnings come first. (section 2.2)
            let mut body = Cursor(&answer.body);
            for _ in 0..body.short()? {
                body.string()?;
            }
            answer.body = body.0.to_vec();
        }
        if answer.opcode == opcode::ERROR {
            let mut body = Cursor(&answer.body);
            bail!("error {:#x}: {}", body.int()?, body.string()?);
        }
        Ok(answer)
    }
}

/// The rows of a RESULT; none for results of other kinds. (section 4.2.5)
fn rows(body: &[u8]) -> Result<Rows> {
    let mut body = Cursor(body);
    if body.int()? != ROWS {
        return Ok(Rows::default());
    }
    let (flags, columns) = (body.int()?, body.int()?);
    if flags & 0x2 != 0 {
        body.bytes()?;
    }
    if flags & 0x4 == 0 {
        let global = flags & 0x1 != 0;
        if global {
            body.string()?;
            body.string()?;
        }
        for _ in 0..columns {
            if !global {
                body.string()?;
                body.string()?;
            }
            body.string()?;
            pass_type(&mut body, 0)?;
        }
    }
    let count = body.int()?;
    let row = |body: &mut Cursor<'_>| {
        (0..columns).map(|_| Ok(body.bytes()?.map(<[u8]>::to_vec))).collect::<Result<Vec<_>>>()
    };
    Ok(Rows((0..count).map(|_| row(&mut body)).collect::<Result<_>>()?))
}

/// Passes over a type in a result's metadata.
fn pass_type(body: &mut Cursor<'_>, depth: u8) -> Result<()> {
    ensure!(depth < 8, "a type nested too deeply");
    match body.short()? {
        0x0000 => drop(body.string()?),
        0x0020 | 0x0022 => pass_type(body, depth + 1)?,
        0x0021 => {
            pass_type(body, depth + 1)?;
            pass_type(body, depth + 1)?;
        }
        0x0031 => {
            for _ in 0..body.short()? {
                pass_type(body, depth + 1)?;
            }
        }
        0x0030 => bail!("a user-defined type"),
        _ => {}
    }
    Ok(())
}
