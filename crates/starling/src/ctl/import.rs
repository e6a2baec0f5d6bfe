//! `starling ctl user import`.

use std::{
    fs::File,
    io::{self, BufRead, BufReader},
    path::Path,
    process::ExitCode,
};

use starling_admin::{
    Client,
    api::{AddUser, Imported},
};

use super::{
    Server,
    csv::{LineError, Row, Rows},
};
use crate::{failure::Failure, print};

/// Sends a file in pieces. Lines that fail are told and do not keep the others back.
pub(super) async fn run(server: &Server<'_>, path: &Path) -> Result<ExitCode, Failure> {
    let (source, total): (Box<dyn BufRead>, _) = if path == Path::new("-") {
        (Box::new(BufReader::new(io::stdin())), None)
    } else {
        let unreadable = |error| Failure::new("the file cannot be read").at(path.display()).because(error);
        let file = File::open(path).map_err(unreadable)?;
        let size = file.metadata().map_err(unreadable)?.len();
        (Box::new(BufReader::new(file)), Some(size))
    };
    let mut import = Import {
        server,
        client: server.connect().await?,
        tally: Tally::default(),
        progress: print::Progress::new(),
    };
    let mut rows = Rows::new(source);
    let mut piece = Vec::with_capacity(PIECE);
    loop {
        match rows.next() {
            Some(Ok(row)) => piece.push(row),
            Some(Err(LineError::Wrong(line, why))) => import.tally.wrong(line, why),
            Some(Err(LineError::Io(error))) => {
                return Err(Failure::new("the file cannot be read to its end")
                    .at(path.display())
                    .because(error));
            }
            None => break,
        }
        if piece.len() == PIECE {
            import.send(&mut piece, rows.bytes(), total).await?;
        }
    }
    import.send(&mut piece, rows.bytes(), total).await?;
    drop(import.progress);
    Ok(import.tally.report())
}

struct Import<'a> {
    server: &'a Server<'a>,
    client: Client,
    tally: Tally,
    progress: print::Progress,
}

impl Import<'_> {
    async fn send(&mut self, piece: &mut Vec<Row>, bytes: u64, total: Option<u64>) -> Result<(), Failure> {
        if piece.is_empty() {
            return Ok(());
        }
        let lines: Vec<u64> = piece.iter().map(|row| row.line).collect();
        let users = piece.drain(..).map(|row| AddUser { jid: row.jid, password: row.password }).collect();
        let imported = self.client.user_import(users).await.map_err(|error| {
            self.server
                .failure("the import broke off", error)
                .at(format!("after line {}", lines.first().map_or(0, |line| line - 1)))
                .advise("import the same file again: what is there already is only set to the same password")
        })?;
        self.tally.add(&lines, &imported);
        self.progress.show(bytes, total, &format!("{} users", self.tally.done()));
        Ok(())
    }
}

#[derive(Debug, Default)]
struct Tally {
    added: usize,
    changed: usize,
    failed: Vec<(u64, String)>,
    more_failed: usize,
}

impl Tally {
    fn add(&mut self, lines: &[u64], imported: &Imported) {
        self.added += imported.added;
        self.changed += imported.changed;
        for failure in &imported.failed {
            self.wrong(lines.get(failure.index).copied().unwrap_or_default(), &failure.error.message);
        }
    }

    fn wrong(&mut self, line: u64, why: &str) {
        if self.failed.len() < TOLD {
            self.failed.push((line, why.to_owned()));
        } else {
            self.more_failed += 1;
        }
    }

    fn done(&self) -> usize {
        self.added + self.changed
    }

    /// Tells what was done; 1 when a line failed.
    fn report(mut self) -> ExitCode {
        self.failed.sort();
        for (line, why) in &self.failed {
            eprintln!("line {line}: {why}");
        }
        if self.more_failed > 0 {
            eprintln!("and {} more lines", self.more_failed);
        }
        let failed = self.failed.len() + self.more_failed;
        print::line(&format!("{} added, {} changed, {failed} failed", self.added, self.changed));
        if failed == 0 { ExitCode::SUCCESS } else { ExitCode::from(1) }
    }
}

/// Users in one call. Small, so that the bar moves: each costs the server three key derivations.
const PIECE: usize = 20;

/// Wrong lines that are told one by one.
const TOLD: usize = 1_000;

#[cfg(test)]
mod tests {
    use starling_admin::api::{ErrorBody, ImportFailure};

    use super::*;

    #[test]
    fn failures_are_told_by_their_line() {
        let mut tally = Tally::default();
        let error = ErrorBody { code: "invalid".to_owned(), message: "no".to_owned() };
        let imported = Imported { added: 2, changed: 1, failed: vec![ImportFailure { index: 1, error }] };
        tally.add(&[10, 12, 13, 14], &imported);
        assert_eq!((tally.done(), tally.failed.as_slice()), (3, &[(12, "no".to_owned())][..]));
        for line in 0..2_000 {
            tally.wrong(line, "bad");
        }
        assert_eq!((tally.failed.len(), tally.more_failed), (1_000, 1_001));
        assert_eq!(tally.report(), ExitCode::from(1));
    }
}
