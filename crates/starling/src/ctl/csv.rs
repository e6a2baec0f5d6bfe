//! Lines of `jid,password`.

use std::io::{self, BufRead, Read};

/// One user of a file, with the line it is on.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Row {
    pub(super) line: u64,
    pub(super) jid: String,
    pub(super) password: String,
}

/// What a line can be instead.
#[derive(Debug)]
pub(super) enum LineError {
    /// The file cannot be read on.
    Io(io::Error),
    /// This line is wrong.
    Wrong(u64, &'static str),
}

/// Reads a file line by line, in constant memory.
pub(super) struct Rows<R> {
    source: R,
    line: u64,
    bytes: u64,
}

impl<R: BufRead> Rows<R> {
    pub(super) fn new(source: R) -> Self {
        Self { source, line: 0, bytes: 0 }
    }

    /// Bytes read so far.
    pub(super) fn bytes(&self) -> u64 {
        self.bytes
    }

    fn read(&mut self) -> Result<Option<Row>, LineError> {
        loop {
            let mut bytes = Vec::new();
            let read = self.source.by_ref().take(LONGEST_LINE).read_until(b'\n', &mut bytes);
            let read = read.map_err(LineError::Io)? as u64;
            if read == 0 {
                return Ok(None);
            }
            self.bytes += read;
            self.line += 1;
            let wrong = |why| LineError::Wrong(self.line, why);
            if read == LONGEST_LINE && bytes.last() != Some(&b'\n') {
                self.pass_over()?;
                return Err(LineError::Wrong(self.line, "the line is too long"));
            }
            let text = str::from_utf8(&bytes).map_err(|_| wrong("the line is not UTF-8 text"))?;
            let text = text.trim_end_matches(['\r', '\n']);
            let text = if self.line == 1 { text.trim_start_matches('\u{feff}') } else { text };
            let header =
                self.line == 1 && ["jid", "\"jid\""].contains(&text.split(',').next().unwrap_or_default());
            if text.trim().is_empty() || header {
                continue;
            }
            let fields = fields(text).map_err(wrong)?;
            let [jid, password] =
                <[String; 2]>::try_from(fields).map_err(|_| wrong("it is not jid,password"))?;
            return Ok(Some(Row { line: self.line, jid: jid.trim().to_owned(), password }));
        }
    }

    /// Goes on to the end of a line that is too long.
    fn pass_over(&mut self) -> Result<(), LineError> {
        loop {
            let mut bytes = Vec::new();
            let read = self
                .source
                .by_ref()
                .take(LONGEST_LINE)
                .read_until(b'\n', &mut bytes)
                .map_err(LineError::Io)?;
            self.bytes += read as u64;
            if read == 0 || bytes.last() == Some(&b'\n') {
                return Ok(());
            }
        }
    }
}

impl<R: BufRead> Iterator for Rows<R> {
    type Item = Result<Row, LineError>;

    fn next(&mut self) -> Option<Self::Item> {
        self.read().transpose()
    }
}

/// Fields by RFC 4180, within one line.
fn fields(line: &str) -> Result<Vec<String>, &'static str> {
    let (mut fields, mut letters) = (Vec::new(), line.chars().peekable());
    loop {
        let mut field = String::new();
        if letters.next_if_eq(&'"').is_some() {
            loop {
                match letters.next() {
                    Some('"') if letters.next_if_eq(&'"').is_some() => field.push('"'),
                    Some('"') => break,
                    Some(letter) => field.push(letter),
                    None => return Err("a quote is not closed"),
                }
            }
        } else {
            while let Some(letter) = letters.next_if(|letter| *letter != ',') {
                field.push(letter);
            }
        }
        fields.push(field);
        match letters.next() {
            Some(',') => {}
            Some(_) => return Err("there is text after a closing quote"),
            None => return Ok(fields),
        }
    }
}

const LONGEST_LINE: u64 = 8_192;

#[cfg(test)]
mod tests {
    use super::*;

    /// A row: its line, address and password; or its line and what is wrong with it.
    type Row = Result<(u64, String, String), (u64, &'static str)>;

    fn read(text: &str) -> Vec<Row> {
        let rows = Rows::new(text.as_bytes());
        rows.map(|row| match row {
            Ok(row) => Ok((row.line, row.jid, row.password)),
            Err(LineError::Wrong(line, why)) => Err((line, why)),
            Err(LineError::Io(error)) => panic!("{error}"),
        })
        .collect()
    }

    fn row(line: u64, jid: &str, password: &str) -> Result<(u64, String, String), (u64, &'static str)> {
        Ok((line, jid.to_owned(), password.to_owned()))
    }

    #[test]
    fn reads_users_with_and_without_quotes() {
        let text = "jid,password\na@x,secret\r\n\n\"b@x\",\"se,\"\"cret\"\n c@x , spaces \n";
        assert_eq!(
            read(text),
            [row(2, "a@x", "secret"), row(4, "b@x", "se,\"cret"), row(5, "c@x", " spaces ")]
        );
        assert_eq!(read("\u{feff}jid,password\na@x,b"), [row(2, "a@x", "b")]);
    }

    #[test]
    fn a_wrong_line_does_not_hide_the_next() {
        let long = format!("{},x\n", "a".repeat(20_000));
        let text = format!("a@x\n{long}\"b@x,y\n\"c\"@x,y\nd@x,1,2\ne@x,ok\n");
        assert_eq!(
            read(&text),
            [
                Err((1, "it is not jid,password")),
                Err((2, "the line is too long")),
                Err((3, "a quote is not closed")),
                Err((4, "there is text after a closing quote")),
                Err((5, "it is not jid,password")),
                row(6, "e@x", "ok"),
            ]
        );
    }

    #[test]
    fn counts_all_bytes() {
        let text = format!("a@x,b\n{}\nc@x,d", "z".repeat(30_000));
        let mut rows = Rows::new(text.as_bytes());
        while rows.next().is_some() {}
        assert_eq!(rows.bytes(), text.len() as u64);
    }
}
