//! The mark that says which version wrote a directory.

use std::fs::{self, File};
use std::io::{self, Write};
use std::path::Path;

/// The version of keys and records that this build writes, and the newest that it reads.
pub const FORMAT: u32 = 1;

const FILE: &str = "format";
const TITLE: &str = "starling embedded store, format ";

/// What a directory is.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum Found {
    /// Ours, of this version or older.
    Known(u32),
    /// Ours, of a version that this build does not know.
    Newer(u32),
    /// Nothing that this crate wrote.
    Foreign,
}

/// Reads the mark; puts one into a directory that has no data yet.
pub(crate) fn check(directory: &Path, data: &Path) -> io::Result<Found> {
    let path = directory.join(FILE);
    match fs::read_to_string(&path) {
        Ok(text) => Ok(match text.trim_end().strip_prefix(TITLE).and_then(|number| number.parse().ok()) {
            Some(format) if (1..=FORMAT).contains(&format) => Found::Known(format),
            Some(format) if format > FORMAT => Found::Newer(format),
            _ => Found::Foreign,
        }),
        Err(error) if error.kind() == io::ErrorKind::NotFound => {
            if data.try_exists()? {
                return Ok(Found::Foreign);
            }
            mark(directory, &path)?;
            Ok(Found::Known(FORMAT))
        }
        Err(error) if error.kind() == io::ErrorKind::InvalidData => Ok(Found::Foreign),
        Err(error) => Err(error),
    }
}

/// A crash leaves either no mark or a whole one.
fn mark(directory: &Path, path: &Path) -> io::Result<()> {
    let draft = directory.join("format.new");
    let mut file = File::create(&draft)?;
    writeln!(file, "{TITLE}{FORMAT}")?;
    file.sync_all()?;
    fs::rename(&draft, path)?;
    File::open(directory)?.sync_all()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn knows_its_own_and_refuses_the_rest() {
        let directory = tempfile::tempdir().unwrap();
        let (path, data) = (directory.path(), directory.path().join("data"));
        assert_eq!(check(path, &data).unwrap(), Found::Known(FORMAT));
        fs::create_dir(&data).unwrap();
        assert_eq!(check(path, &data).unwrap(), Found::Known(FORMAT));
        fs::write(path.join(FILE), format!("{TITLE}{}\n", FORMAT + 1)).unwrap();
        assert_eq!(check(path, &data).unwrap(), Found::Newer(FORMAT + 1));
        for other in
            ["", "something else", "starling embedded store, format 0", "starling embedded store, format x"]
        {
            fs::write(path.join(FILE), other).unwrap();
            assert_eq!(check(path, &data).unwrap(), Found::Foreign, "{other:?}");
        }
        fs::remove_file(path.join(FILE)).unwrap();
        assert_eq!(check(path, &data).unwrap(), Found::Foreign, "data without a mark");
    }
}
