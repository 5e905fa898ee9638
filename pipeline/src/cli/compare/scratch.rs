//! What was read from tables, on disk in the order in which it was read, to be read again in any other.
//!
//! A comparison goes plate by plate, and tables hold their rows in any order: what was decoded once is kept here, so
//! that memory does not grow with the rows. The file has no name and ends with the process. Fails where the disk does.

use std::fs::File;
use std::io::{BufWriter, Write};
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};

use anyhow::Context;

/// Bytes gathered before they are written.
const BUFFER_BYTES: usize = 1 << 20;

/// Where something lies in a scratch file.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Place {
    at: u64,
    length: u32,
}

/// A file being written.
#[derive(Debug)]
pub(super) struct ScratchWriter {
    file: BufWriter<File>,
    folder: PathBuf,
    end: u64,
}

/// A file that can be read.
#[derive(Debug)]
pub(super) struct Scratch {
    file: File,
    folder: PathBuf,
}

impl ScratchWriter {
    /// In a folder with room for all of it.
    pub(super) fn create(folder: &Path) -> anyhow::Result<Self> {
        let file = tempfile::tempfile_in(folder)
            .with_context(|| format!("no temporary file can be made in '{}'", folder.display()))?;
        Ok(Self {
            file: BufWriter::with_capacity(BUFFER_BYTES, file),
            folder: folder.to_owned(),
            end: 0,
        })
    }

    /// Appends bytes.
    pub(super) fn push(&mut self, bytes: &[u8]) -> anyhow::Result<Place> {
        let place = Place {
            at: self.end,
            length: u32::try_from(bytes.len()).context("a plate has too many rows")?,
        };
        self.file
            .write_all(bytes)
            .with_context(|| format!("rows cannot be kept in '{}'", self.folder.display()))?;
        self.end += bytes.len() as u64;
        Ok(place)
    }

    /// Appends a row of features; all rows of a file have one width. Gives its number.
    pub(super) fn push_row(&mut self, row: &[f32]) -> anyhow::Result<u64> {
        let bytes: Vec<u8> = row.iter().flat_map(|value| value.to_le_bytes()).collect();
        let place = self.push(&bytes)?;
        Ok(place.at / u64::from(place.length.max(1)))
    }

    /// Ends the writing.
    pub(super) fn finish(self) -> anyhow::Result<Scratch> {
        let file = self
            .file
            .into_inner()
            .map_err(std::io::IntoInnerError::into_error)
            .with_context(|| format!("rows cannot be kept in '{}'", self.folder.display()))?;
        Ok(Scratch {
            file,
            folder: self.folder,
        })
    }
}

impl Scratch {
    pub(super) fn read(&self, place: Place) -> anyhow::Result<Vec<u8>> {
        let mut bytes = vec![0; place.length as usize];
        self.file
            .read_exact_at(&mut bytes, place.at)
            .with_context(|| format!("rows kept in '{}' cannot be read", self.folder.display()))?;
        Ok(bytes)
    }

    /// Reads a row of `width` features into `row`, which keeps its allocation.
    pub(super) fn read_row(&self, number: u64, width: usize, row: &mut Vec<f32>) -> anyhow::Result<()> {
        let length = width * size_of::<f32>();
        let bytes = self.read(Place {
            at: number * length as u64,
            length: length as u32,
        })?;
        row.clear();
        row.extend(
            bytes
                .as_chunks::<4>()
                .0
                .iter()
                .map(|bytes| f32::from_le_bytes(*bytes)),
        );
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn rows_come_back_in_any_order() {
        let folder = tempfile::tempdir().unwrap();
        let mut writer = ScratchWriter::create(folder.path()).unwrap();
        for i in 0..1000u16 {
            let row = [f32::from(i), -f32::from(i), f32::NAN];
            assert_eq!(writer.push_row(&row).unwrap(), u64::from(i));
        }
        let scratch = writer.finish().unwrap();
        let mut row = Vec::new();
        for i in [999u16, 0, 500, 1] {
            scratch.read_row(u64::from(i), 3, &mut row).unwrap();
            assert_eq!(row[..2], [f32::from(i), -f32::from(i)]);
            assert!(row[2].is_nan());
        }
        assert!(scratch.read_row(1000, 3, &mut row).is_err());
        assert_eq!(std::fs::read_dir(folder.path()).unwrap().count(), 0);
    }
}
