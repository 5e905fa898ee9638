//! A file that several threads read at once: every read says where, and none moves a position that others share.

use std::fs::File;
use std::io::{self, BufReader, Read};
use std::os::unix::fs::FileExt;
use std::sync::Arc;

use bytes::Bytes;
use parquet::errors::ParquetError;
use parquet::file::reader::{ChunkReader, Length};

/// Page headers are read through a buffer of this size; pages are read whole.
const BUFFER_BYTES: usize = 4096;

#[derive(Debug, Clone)]
pub(super) struct Shared {
    file: Arc<File>,
    length: u64,
}

impl Shared {
    pub(super) fn new(file: File) -> io::Result<Self> {
        let length = file.metadata()?.len();
        Ok(Self {
            file: Arc::new(file),
            length,
        })
    }
}

impl Length for Shared {
    fn len(&self) -> u64 {
        self.length
    }
}

impl ChunkReader for Shared {
    type T = BufReader<From>;

    fn get_read(&self, start: u64) -> Result<Self::T, ParquetError> {
        let from = From {
            file: Arc::clone(&self.file),
            at: start,
        };
        Ok(BufReader::with_capacity(BUFFER_BYTES, from))
    }

    fn get_bytes(&self, start: u64, length: usize) -> Result<Bytes, ParquetError> {
        // A damaged footer must not make us reserve more than the file can hold.
        if start.saturating_add(length as u64) > self.length {
            let text = format!("a page of {length} bytes at {start} lies outside the file");
            return Err(ParquetError::EOF(text));
        }
        let mut bytes = vec![0; length];
        self.file.read_exact_at(&mut bytes, start)?;
        Ok(bytes.into())
    }
}

/// The bytes of a file from a place on.
#[derive(Debug)]
pub(super) struct From {
    file: Arc<File>,
    at: u64,
}

impl Read for From {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let read = self.file.read_at(buffer, self.at)?;
        self.at += read as u64;
        Ok(read)
    }
}
