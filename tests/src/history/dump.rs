//! Histories as text: for files, and for the part that concerns one message.

use std::fmt;
use std::fs;
use std::io::Write as _;
use std::path::Path;

use super::{Archive, Event, History, Log, Row, Sighting, What, bare};

/// How much of a body is shown.
const BODY_SHOWN: usize = 60;
/// How many lines of a story are shown at most; a story is long when a message came again in many sessions.
const STORY_LINES: usize = 80;

impl History {
    /// Writes one file for each log and each archive into a folder that exists.
    pub fn write(&self, folder: &Path) -> std::io::Result<()> {
        for log in &self.logs {
            let mut file = create(folder, &log.client, "log")?;
            for event in &log.events {
                writeln!(file, "{event}")?;
            }
            file.flush()?;
        }
        for archive in &self.archives {
            let mut file = create(folder, &archive.owner, "archive")?;
            for row in &archive.rows {
                writeln!(file, "{row}")?;
            }
            file.flush()?;
        }
        Ok(())
    }

    /// All that is known of one message: every line about it from every log, with the sessions of its sender and
    /// recipient and the fate of the server in between, by time; then its rows.
    pub fn story(&self, origin: &str) -> String {
        let about = |event: &Event| event.what.origin() == Some(origin);
        let mentions: Vec<&Log> = self.logs.iter().filter(|l| l.events.iter().any(about)).collect();
        let times = || mentions.iter().flat_map(|l| l.events.iter().filter(|e| about(e)).map(|e| e.at));
        let (first, last) = (times().min().unwrap_or_default(), times().max().unwrap_or_default());
        let mut people: Vec<&str> = mentions.iter().map(|l| bare(&l.client)).collect();
        people.extend(self.messages().filter(|(_, m)| m.origin == origin).map(|(_, m)| bare(&m.to)));

        let mut lines: Vec<(&Event, &str)> = Vec::new();
        for log in &self.logs {
            let involved = log.client == "server" || people.contains(&bare(&log.client));
            let between = |e: &Event| first <= e.at && e.at <= last && e.what.is_turn();
            let wanted = log.events.iter().filter(|e| about(e) || (involved && between(e)));
            lines.extend(wanted.map(|e| (e, log.client.as_str())));
        }
        lines.sort_by_key(|(event, _)| event.at);
        let left_out = lines.len().saturating_sub(STORY_LINES);
        lines.truncate(STORY_LINES);
        let mut story: String = lines.iter().map(|(event, client)| format!("{client}: {event}\n")).collect();
        if left_out > 0 {
            story.push_str(&format!("… and {left_out} lines more\n"));
        }
        for archive in &self.archives {
            for (place, row) in archive.rows.iter().enumerate() {
                if row.origin.as_deref() == Some(origin) {
                    story.push_str(&format!("archive of {}, row {place}: {row}\n", archive.owner));
                }
            }
        }
        story
    }
}

fn create(folder: &Path, name: &str, ending: &str) -> std::io::Result<std::io::BufWriter<fs::File>> {
    let name = name.replace('/', "_");
    Ok(std::io::BufWriter::new(fs::File::create(folder.join(format!("{name}.{ending}")))?))
}

/// A body on one line, cut off where it gets long.
fn shown(body: &str) -> String {
    match body.char_indices().nth(BODY_SHOWN) {
        Some((end, _)) => format!("{:?}… {} bytes", &body[..end], body.len()),
        None => format!("{body:?}"),
    }
}

impl What {
    /// The message it is about.
    pub fn origin(&self) -> Option<&str> {
        match self {
            Self::Sent(message) => Some(&message.origin),
            Self::SentAgain(origin)
            | Self::Acknowledged(origin)
            | Self::Refused { origin, .. }
            | Self::GivenUp(origin) => Some(origin),
            Self::Seen(sighting) | Self::Copied(sighting) => sighting.origin.as_deref(),
            Self::Opened
            | Self::Resumed
            | Self::NotResumed { .. }
            | Self::Copying
            | Self::Settled
            | Self::Fault(_)
            | Self::Remark(_) => None,
        }
    }

    /// Whether it concerns every message of its time.
    fn is_turn(&self) -> bool {
        self.origin().is_none() && !matches!(self, Self::Seen(_) | Self::Copied(_))
    }
}

impl fmt::Display for Event {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:>12.6} ", self.at.as_secs_f64())?;
        match &self.what {
            What::Opened => write!(f, "new session"),
            What::Resumed => write!(f, "resumed"),
            What::NotResumed { condition, should } => {
                write!(
                    f,
                    "not resumed: {condition}{}",
                    if *should { ", although the server lived on" } else { "" }
                )
            }
            What::Sent(m) => write!(f, "sent {} to {}: {}", m.origin, m.to, shown(&m.body)),
            What::SentAgain(origin) => write!(f, "sent again {origin}"),
            What::Acknowledged(origin) => write!(f, "acknowledged {origin}"),
            What::Refused { origin, condition } => write!(f, "refused {origin}: {condition}"),
            What::GivenUp(origin) => write!(f, "given up {origin}"),
            What::Seen(sighting) => write!(f, "saw {sighting}"),
            What::Copied(sighting) => write!(f, "got a copy of {sighting}"),
            What::Copying => write!(f, "gets copies"),
            What::Settled => write!(f, "settled"),
            What::Fault(fault) => write!(f, "fault: {fault}"),
            What::Remark(remark) => write!(f, "{remark}"),
        }
    }
}

impl fmt::Display for Sighting {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(
            f,
            "{} with id {} from {}{}: {}",
            self.origin.as_deref().unwrap_or("(no origin)"),
            self.id.as_deref().unwrap_or("(none)"),
            self.from,
            if self.delayed { ", delayed" } else { "" },
            shown(&self.body)
        )
    }
}

impl fmt::Display for Row {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let origin = self.origin.as_deref().unwrap_or("(no origin)");
        write!(
            f,
            "{} {} {origin} from {} to {}: {}",
            self.id,
            self.stamp,
            self.from,
            self.to,
            shown(&self.body)
        )
    }
}

impl fmt::Display for Archive {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "archive of {}, {} rows", self.owner, self.rows.len())
    }
}
