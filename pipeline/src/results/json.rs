//! `run.json` and `dead-letters.jsonl`: one JSON document, or one per line. Serialisable records enter, whole files
//! leave.

use std::io::{BufWriter, Write};
use std::path::{Path, PathBuf};

use serde::Serialize;

use super::atomic::AtomicFile;
use super::error::WriteError;

/// Writes `value` as the whole of `path`: indented JSON with a final newline.
///
/// # Errors
/// The value cannot be serialised, or the disk refuses; an older file then stays.
pub fn write_json<T: Serialize + ?Sized>(path: &Path, value: &T) -> Result<(), WriteError> {
    let json = |source| WriteError::Json {
        path: path.to_owned(),
        source,
    };
    let mut bytes = serde_json::to_vec_pretty(value).map_err(json)?;
    bytes.push(b'\n');
    AtomicFile::write(path, &bytes)
}

/// A file of one JSON document per line, written record by record.
///
/// A screen without records gives an empty file, so that "nothing failed" and "not finished" look different.
#[derive(Debug)]
pub struct JsonLines {
    file: BufWriter<AtomicFile>,
    path: PathBuf,
    lines: u64,
}

impl JsonLines {
    /// Opens the file.
    ///
    /// # Errors
    /// It cannot be created.
    pub fn create(path: &Path) -> Result<Self, WriteError> {
        Ok(Self {
            file: BufWriter::new(AtomicFile::create(path)?),
            path: path.to_owned(),
            lines: 0,
        })
    }

    /// Appends one record.
    ///
    /// # Errors
    /// It cannot be serialised, or the disk refuses.
    pub fn push<T: Serialize + ?Sized>(&mut self, record: &T) -> Result<(), WriteError> {
        let mut line = serde_json::to_vec(record).map_err(|source| WriteError::Json {
            path: self.path.clone(),
            source,
        })?;
        line.push(b'\n');
        self.file.write_all(&line).map_err(|source| self.io(source))?;
        self.lines += 1;
        Ok(())
    }

    /// Completes the file; gives the number of lines.
    ///
    /// # Errors
    /// The disk refuses.
    pub fn finish(self) -> Result<u64, WriteError> {
        let Self { file, path, lines } = self;
        let file = file.into_inner().map_err(|error| WriteError::Io {
            path,
            action: "write",
            source: error.into_error(),
        })?;
        file.commit()?;
        Ok(lines)
    }

    fn io(&self, source: std::io::Error) -> WriteError {
        WriteError::Io {
            path: self.path.clone(),
            action: "write",
            source,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::fs;

    #[test]
    fn lines_appear_only_when_finished() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("dead-letters.jsonl");
        let mut lines = JsonLines::create(&path).unwrap();
        lines
            .push(&serde_json::json!({"stage": "decode", "reason": "line\nbreak"}))
            .unwrap();
        lines.push(&serde_json::json!({"stage": "fetch"})).unwrap();
        assert!(!path.exists());
        assert_eq!(lines.finish().unwrap(), 2);
        let text = fs::read_to_string(&path).unwrap();
        assert_eq!(text.lines().count(), 2);
        for line in text.lines() {
            serde_json::from_str::<serde_json::Value>(line).unwrap();
        }
    }

    #[test]
    fn no_records_give_an_empty_file() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("dead-letters.jsonl");
        assert_eq!(JsonLines::create(&path).unwrap().finish().unwrap(), 0);
        assert_eq!(fs::read(&path).unwrap(), b"");
    }
}
