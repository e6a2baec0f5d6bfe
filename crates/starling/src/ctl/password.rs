//! Passwords come from a prompt, a pipe or a file; never from the command line, where others can see them.

use std::{
    fs::File,
    io::{self, BufRead, BufReader, IsTerminal, Read, Write},
    path::Path,
};

use nix::sys::termios::{LocalFlags, SetArg, Termios, tcgetattr, tcsetattr};
use starling_admin::{Password, api::PASSWORD_MAX};

use crate::failure::Failure;

/// Reads the password of `jid`.
pub(super) async fn read(jid: &str, file: Option<&Path>) -> Result<Password, Failure> {
    let password = match file {
        Some(path) => {
            let open = File::open(path).map_err(|error| unreadable(&path.display().to_string(), &error))?;
            first_line(open).map_err(|problem| problem.failure(&path.display().to_string()))?
        }
        None if io::stdin().is_terminal() => ask(jid).await?,
        None => first_line(io::stdin()).map_err(|problem| problem.failure("standard input"))?,
    };
    Ok(Password::new(password))
}

/// Asks twice, without showing what is typed.
async fn ask(jid: &str) -> Result<String, Failure> {
    let quiet =
        Quiet::new().map_err(|error| Failure::new("the terminal cannot be made quiet").because(error))?;
    let first = prompt(format!("Password for {jid}: ")).await?;
    let second = prompt("Once more: ".to_owned()).await?;
    drop(quiet);
    if first == second {
        Ok(first)
    } else {
        Err(Failure::new("the two passwords differ").advise("try again"))
    }
}

/// One line of the terminal; Ctrl-C ends the command, so that the terminal is put right again first.
async fn prompt(question: String) -> Result<String, Failure> {
    let typed = tokio::task::spawn_blocking(move || {
        let _ = write!(io::stderr(), "{question}");
        let line = one_line(io::stdin().lock());
        let _ = writeln!(io::stderr());
        line
    });
    tokio::select! {
        line = typed => match line {
            Ok(line) => line.map_err(|problem| problem.failure("the terminal")),
            Err(error) => Err(Failure::new("the terminal cannot be read").because(error)),
        },
        _ = tokio::signal::ctrl_c() => Err(Failure::new("broken off")),
    }
}

/// The terminal without echo, until this is dropped.
struct Quiet(Termios);

impl Quiet {
    fn new() -> nix::Result<Self> {
        let before = tcgetattr(io::stdin())?;
        let mut quiet = before.clone();
        quiet.local_flags.remove(LocalFlags::ECHO);
        tcsetattr(io::stdin(), SetArg::TCSAFLUSH, &quiet)?;
        Ok(Self(before))
    }
}

impl Drop for Quiet {
    fn drop(&mut self) {
        let _ = tcsetattr(io::stdin(), SetArg::TCSAFLUSH, &self.0);
    }
}

/// What is wrong with where a password should be.
#[derive(Debug)]
enum Problem {
    Io(io::Error),
    Empty,
    Long,
    NotText,
    Several,
}

impl Problem {
    fn failure(self, place: &str) -> Failure {
        let why = match self {
            Self::Io(error) => return unreadable(place, &error),
            Self::Empty => "it is empty".to_owned(),
            Self::Long => format!("it is longer than {PASSWORD_MAX} bytes"),
            Self::NotText => "it is not UTF-8 text".to_owned(),
            Self::Several => "there is more than one line".to_owned(),
        };
        Failure::new("the password cannot be used")
            .at(place)
            .because(why)
            .advise("give the password alone, on one line")
    }
}

fn unreadable(place: &str, error: &io::Error) -> Failure {
    Failure::new("the password cannot be read").at(place).because(error).advise("name a readable file")
}

/// The only line of a source.
fn first_line(source: impl Read) -> Result<String, Problem> {
    let mut source = BufReader::new(source);
    let line = one_line(&mut source)?;
    let mut rest = [0; 1];
    match source.read(&mut rest).map_err(Problem::Io)? {
        0 => Ok(line),
        _ => Err(Problem::Several),
    }
}

fn one_line(mut source: impl BufRead) -> Result<String, Problem> {
    let mut bytes = Vec::new();
    let most = PASSWORD_MAX as u64 + 2;
    source.by_ref().take(most).read_until(b'\n', &mut bytes).map_err(Problem::Io)?;
    if bytes.last() == Some(&b'\n') {
        bytes.pop();
        if bytes.last() == Some(&b'\r') {
            bytes.pop();
        }
    }
    if bytes.is_empty() {
        return Err(Problem::Empty);
    }
    if bytes.len() > PASSWORD_MAX {
        return Err(Problem::Long);
    }
    String::from_utf8(bytes).map_err(|_| Problem::NotText)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_password_is_one_line_as_it_stands() {
        assert_eq!(first_line(&b"secret"[..]).unwrap(), "secret");
        assert_eq!(first_line(&b"secret\n"[..]).unwrap(), "secret");
        assert_eq!(first_line(&b" se cret \r\n"[..]).unwrap(), " se cret ");
    }

    #[test]
    fn what_is_not_a_password_is_refused() {
        assert!(matches!(first_line(&b""[..]), Err(Problem::Empty)));
        assert!(matches!(first_line(&b"\n"[..]), Err(Problem::Empty)));
        assert!(matches!(first_line(&b"a\nb\n"[..]), Err(Problem::Several)));
        assert!(matches!(first_line(&b"a\xff\n"[..]), Err(Problem::NotText)));
        let long = "x".repeat(PASSWORD_MAX + 1);
        assert!(matches!(first_line(long.as_bytes()), Err(Problem::Long)));
        assert!(first_line(&long.as_bytes()[1..]).is_ok());
    }
}
