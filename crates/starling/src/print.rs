//! Lists, progress and colours.

use std::io::{self, IsTerminal, Write};

/// Colours of a stream: none unless it is a terminal, and none with `NO_COLOR`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Colours(bool);

impl Colours {
    /// For standard output.
    pub(crate) fn of_stdout() -> Self {
        let unwanted = std::env::var_os("NO_COLOR").is_some_and(|value| !value.is_empty());
        Self(io::stdout().is_terminal() && !unwanted)
    }

    #[cfg(test)]
    pub(crate) fn none() -> Self {
        Self(false)
    }

    pub(crate) fn green(self, text: &str) -> String {
        self.paint("32", text)
    }

    pub(crate) fn yellow(self, text: &str) -> String {
        self.paint("33", text)
    }

    pub(crate) fn red(self, text: &str) -> String {
        self.paint("31", text)
    }

    fn paint(self, code: &str, text: &str) -> String {
        if self.0 { format!("\x1b[{code}m{text}\x1b[0m") } else { text.to_owned() }
    }
}

/// Writes a line to standard output. A reader that has gone away (`| head`) ends the process quietly.
pub(crate) fn line(text: &str) {
    if writeln!(io::stdout(), "{text}").is_err() {
        std::process::exit(0);
    }
}

/// Columns under their names, as wide as they need to be.
pub(crate) fn table<const N: usize>(names: [&str; N], rows: &[[String; N]]) -> String {
    let mut widths = names.map(width);
    for row in rows {
        for (width_of, cell) in widths.iter_mut().zip(row) {
            *width_of = (*width_of).max(width(cell));
        }
    }
    let mut text = String::new();
    for row in std::iter::once(&names.map(str::to_owned)).chain(rows) {
        let mut line = String::new();
        for (wanted, cell) in widths.iter().zip(row) {
            line.push_str(cell);
            line.push_str(&" ".repeat(wanted - width(cell) + 2));
        }
        text.push_str(line.trim_end());
        text.push('\n');
    }
    text
}

fn width(text: &str) -> usize {
    text.chars().count()
}

/// A line on standard error that shows how far something is, if that is a terminal.
#[derive(Debug)]
pub(crate) struct Progress {
    shown: bool,
}

impl Progress {
    pub(crate) fn new() -> Self {
        Self { shown: io::stderr().is_terminal() }
    }

    /// Shows `done` of `total`, or `done` alone.
    pub(crate) fn show(&self, done: u64, total: Option<u64>, what: &str) {
        if self.shown {
            // Nobody is helped by an error about a progress bar.
            let _ = write!(io::stderr(), "\r\x1b[K{}", bar(done, total, what));
        }
    }
}

impl Drop for Progress {
    fn drop(&mut self) {
        if self.shown {
            let _ = write!(io::stderr(), "\r\x1b[K");
        }
    }
}

fn bar(done: u64, total: Option<u64>, what: &str) -> String {
    match total.filter(|total| *total > 0) {
        Some(total) => {
            let part = done.min(total) as f64 / total as f64;
            let full = (part * BAR as f64) as usize;
            format!("[{}{}] {:3.0} %  {what}", "=".repeat(full), " ".repeat(BAR - full), part * 100.0)
        }
        None => what.to_owned(),
    }
}

const BAR: usize = 30;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn columns_line_up() {
        let rows = [["a@b".to_owned(), "1".to_owned()], ["müller@example.org".to_owned(), "22".to_owned()]];
        assert_eq!(
            table(["JID", "N"], &rows),
            "JID                 N\na@b                 1\nmüller@example.org  22\n"
        );
    }

    #[test]
    fn a_bar_is_never_longer_than_it_is() {
        assert!(bar(0, Some(10), "x").starts_with("[   "));
        assert!(bar(20, Some(10), "x").contains("100 %"));
        assert_eq!(bar(5, None, "5 users"), "5 users");
        assert_eq!(bar(5, Some(0), "x"), "x");
    }

    #[test]
    fn without_colours_there_is_only_text() {
        assert_eq!(Colours::none().red("no"), "no");
        assert_eq!(Colours(true).green("yes"), "\x1b[32myes\x1b[0m");
    }
}
