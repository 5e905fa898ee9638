//! Values on disk that need not lie in memory: put aside in any order, read again in any other.
//!
//! Bytes, rows of features and values of any kind enter, a [`Place`] for each leaves, and with it they can be read
//! back, after [`ScratchWriter::finish`] or, once flushed, while more is written. The file has no name and ends with the
//! process. Fails where the disk does.

use std::fs::File;
use std::io::{self, BufWriter, Seek, SeekFrom, Write};
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};

use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};

/// Bytes gathered before they are written.
const BUFFER_BYTES: usize = 1 << 20;

/// A temporary file cannot be used.
#[derive(Debug, thiserror::Error)]
#[error("a temporary file in '{}' cannot be {doing}; check its space and permissions", .folder.display())]
pub struct ScratchError {
    /// The folder it is in.
    pub folder: PathBuf,
    /// What was tried, such as `written`.
    pub doing: &'static str,
    /// The system's reason.
    pub source: io::Error,
}

/// A file without a name in a folder with room for it.
///
/// # Errors
/// No file can be made there.
pub fn unnamed_file(folder: &Path) -> Result<File, ScratchError> {
    tempfile::tempfile_in(folder).map_err(|source| ScratchError {
        folder: folder.to_owned(),
        doing: "made",
        source,
    })
}

/// Where something lies in a scratch file.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct Place {
    at: u64,
    length: u32,
}

/// A file being written.
#[derive(Debug)]
pub struct ScratchWriter {
    file: BufWriter<File>,
    folder: PathBuf,
    end: u64,
}

/// A file that can be read.
#[derive(Debug)]
pub struct Scratch {
    file: File,
    folder: PathBuf,
}

impl ScratchWriter {
    /// In a folder with room for all of it.
    ///
    /// # Errors
    /// No file can be made there.
    pub fn create(folder: &Path) -> Result<Self, ScratchError> {
        Ok(Self {
            file: BufWriter::with_capacity(BUFFER_BYTES, unnamed_file(folder)?),
            folder: folder.to_owned(),
            end: 0,
        })
    }

    /// Appends bytes.
    ///
    /// # Errors
    /// The disk refuses, or they are more than 4 GB.
    pub fn push(&mut self, bytes: &[u8]) -> Result<Place, ScratchError> {
        let place = Place {
            at: self.end,
            length: u32::try_from(bytes.len()).map_err(|error| self.failed(io::Error::other(error)))?,
        };
        if let Err(source) = self.file.write_all(bytes) {
            // Part of the bytes may have been written; the next ones start where these did.
            let back = self.file.seek(SeekFrom::Start(self.end));
            back.map_err(|source| self.failed(source))?;
            return Err(self.failed(source));
        }
        self.end += bytes.len() as u64;
        Ok(place)
    }

    /// Makes all that was appended readable by [`ScratchWriter::read`].
    ///
    /// # Errors
    /// The disk refuses.
    pub fn flush(&mut self) -> Result<(), ScratchError> {
        self.file.flush().map_err(|source| self.failed(source))
    }

    /// The bytes at a place, flushed before.
    ///
    /// # Errors
    /// The disk refuses, or nothing was put there.
    pub fn read(&self, place: Place) -> Result<Vec<u8>, ScratchError> {
        bytes_at(self.file.get_ref(), &self.folder, place)
    }

    /// Appends a value, which comes back bit for bit.
    ///
    /// # Errors
    /// As [`ScratchWriter::push`].
    pub fn put(&mut self, value: &impl Serialize) -> Result<Place, ScratchError> {
        let bytes = postcard::to_allocvec(value).map_err(|error| self.failed(coded(&error)))?;
        self.push(&bytes)
    }

    /// Gives back a value that was put there, while more is written.
    ///
    /// # Errors
    /// The disk refuses.
    pub fn get<T: DeserializeOwned>(&mut self, place: Place) -> Result<T, ScratchError> {
        self.flush()?;
        postcard::from_bytes(&self.read(place)?).map_err(|error| unreadable(&self.folder, coded(&error)))
    }

    /// Appends a row of features; all rows of a file have one width. Gives its number.
    ///
    /// # Errors
    /// As [`ScratchWriter::push`].
    pub fn push_row(&mut self, row: &[f32]) -> Result<u64, ScratchError> {
        let place = self.push_values(row.iter().copied())?;
        Ok(place.at / u64::from(place.length.max(1)))
    }

    /// Appends numbers.
    ///
    /// # Errors
    /// As [`ScratchWriter::push`].
    pub fn push_values(&mut self, values: impl Iterator<Item = f32>) -> Result<Place, ScratchError> {
        let bytes: Vec<u8> = values.flat_map(f32::to_le_bytes).collect();
        self.push(&bytes)
    }

    /// Ends the writing.
    ///
    /// # Errors
    /// The disk refuses.
    pub fn finish(self) -> Result<Scratch, ScratchError> {
        let Self { file, folder, .. } = self;
        match file.into_inner() {
            Ok(file) => Ok(Scratch { file, folder }),
            Err(error) => Err(ScratchError {
                folder,
                doing: "written",
                source: error.into_error(),
            }),
        }
    }

    fn failed(&self, source: io::Error) -> ScratchError {
        ScratchError {
            folder: self.folder.clone(),
            doing: "written",
            source,
        }
    }
}

impl Scratch {
    /// The bytes at a place.
    ///
    /// # Errors
    /// The disk refuses, or nothing was put there.
    pub fn read(&self, place: Place) -> Result<Vec<u8>, ScratchError> {
        bytes_at(&self.file, &self.folder, place)
    }

    /// The value that [`ScratchWriter::put`] put there.
    ///
    /// # Errors
    /// As [`Scratch::read`].
    pub fn get<T: DeserializeOwned>(&self, place: Place) -> Result<T, ScratchError> {
        postcard::from_bytes(&self.read(place)?).map_err(|error| unreadable(&self.folder, coded(&error)))
    }

    /// Reads a row of `width` features into `row`, which keeps its allocation.
    ///
    /// # Errors
    /// As [`Scratch::read`].
    pub fn read_row(&self, number: u64, width: usize, row: &mut Vec<f32>) -> Result<(), ScratchError> {
        let length = width * size_of::<f32>();
        let place = Place {
            at: number * length as u64,
            length: length as u32,
        };
        row.clear();
        self.read_values(place, row)
    }

    /// Appends the numbers at a place to `values`.
    ///
    /// # Errors
    /// As [`Scratch::read`].
    pub fn read_values(&self, place: Place, values: &mut Vec<f32>) -> Result<(), ScratchError> {
        let bytes = self.read(place)?;
        let numbers = bytes.as_chunks::<4>().0.iter();
        values.extend(numbers.map(|bytes| f32::from_le_bytes(*bytes)));
        Ok(())
    }
}

fn bytes_at(file: &File, folder: &Path, place: Place) -> Result<Vec<u8>, ScratchError> {
    let mut bytes = vec![0; place.length as usize];
    file.read_exact_at(&mut bytes, place.at)
        .map_err(|source| unreadable(folder, source))?;
    Ok(bytes)
}

fn unreadable(folder: &Path, source: io::Error) -> ScratchError {
    ScratchError {
        folder: folder.to_owned(),
        doing: "read",
        source,
    }
}

fn coded(error: &postcard::Error) -> io::Error {
    io::Error::new(io::ErrorKind::InvalidData, error.to_string())
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
        let beyond = scratch.read_row(1000, 3, &mut row).unwrap_err();
        assert!(beyond.to_string().contains("cannot be read"), "{beyond}");
        assert_eq!(std::fs::read_dir(folder.path()).unwrap().count(), 0);
    }

    #[test]
    fn what_was_flushed_is_read_while_more_is_written() {
        let folder = tempfile::tempdir().unwrap();
        let mut writer = ScratchWriter::create(folder.path()).unwrap();
        let first = writer.push(b"first").unwrap();
        writer.flush().unwrap();
        let second = writer.push(b"second").unwrap();
        assert_eq!(writer.read(first).unwrap(), b"first");
        assert!(writer.read(second).is_err());
        writer.flush().unwrap();
        assert_eq!(writer.read(second).unwrap(), b"second");
    }

    #[test]
    fn values_come_back_bit_for_bit() {
        let folder = tempfile::tempdir().unwrap();
        let mut writer = ScratchWriter::create(folder.path()).unwrap();
        let values = [0.1 + 0.2, f64::MIN_POSITIVE, -0.0, 1.0 / 3.0];
        let places = values.map(|value| writer.put(&(value, Some("x"))).unwrap());
        let scratch = writer.finish().unwrap();
        for (place, value) in places.into_iter().zip(values).rev() {
            let (read, text): (f64, Option<String>) = scratch.get(place).unwrap();
            assert_eq!((read.to_bits(), text.as_deref()), (value.to_bits(), Some("x")));
        }
    }
}
