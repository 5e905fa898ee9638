//! Where the bytes of a file are: all in memory, or those that were fetched.

use std::collections::BTreeMap;
use std::ops::Range;

use crate::error::ImageError;

/// The bytes of a file, by offset.
pub trait Source: Sync {
    /// Bytes of the whole file.
    fn length(&self) -> u64;

    /// The bytes of `range`, which is `what` in messages.
    ///
    /// # Errors
    /// [`ImageError::Truncated`] where the file ends before; [`ImageError::NotFetched`] where the bytes are not here.
    fn bytes(&self, range: Range<u64>, what: &'static str) -> Result<&[u8], ImageError>;
}

fn truncated(range: &Range<u64>, what: &'static str, length: u64) -> ImageError {
    ImageError::Truncated {
        what,
        start: range.start,
        end: range.end,
        length,
    }
}

impl Source for [u8] {
    fn length(&self) -> u64 {
        self.len() as u64
    }

    fn bytes(&self, range: Range<u64>, what: &'static str) -> Result<&[u8], ImageError> {
        let error = || truncated(&range, what, self.length());
        let start = usize::try_from(range.start).map_err(|_| error())?;
        let end = usize::try_from(range.end).map_err(|_| error())?;
        self.get(start..end).ok_or_else(error)
    }
}

/// Parts of a file, for readers that fetch only what they need.
///
/// Whatever finds bytes missing fails with [`ImageError::NotFetched`] and their range; fetch at least these,
/// [`insert`](Self::insert) them, and ask again. Reading a directory asks for a few short ranges one after the other, so
/// fetching some KiB more than asked for spares round trips; [`crate::tiff::Page::ranges`] then names all strips or tiles at once.
#[derive(Debug, Clone)]
pub struct Sparse<B> {
    length: u64,
    parts: BTreeMap<u64, B>,
}

impl<B: AsRef<[u8]> + Sync> Sparse<B> {
    /// A file of `length` bytes, of which none are here.
    pub fn new(length: u64) -> Self {
        Self {
            length,
            parts: BTreeMap::new(),
        }
    }

    /// Adds the bytes from `start` on. A part that is shorter than one already known at the same place is not kept.
    pub fn insert(&mut self, start: u64, bytes: B) {
        let known = self.parts.get(&start).map_or(0, |part| part.as_ref().len());
        if bytes.as_ref().len() > known {
            self.parts.insert(start, bytes);
        }
    }
}

impl<B: AsRef<[u8]> + Sync> Source for Sparse<B> {
    fn length(&self) -> u64 {
        self.length
    }

    fn bytes(&self, range: Range<u64>, what: &'static str) -> Result<&[u8], ImageError> {
        if range.end > self.length || range.start > range.end {
            return Err(truncated(&range, what, self.length));
        }
        self.parts
            .range(..=range.start)
            .rev()
            .find_map(|(start, part)| {
                let from = usize::try_from(range.start - start).ok()?;
                let to = usize::try_from(range.end - start).ok()?;
                part.as_ref().get(from..to)
            })
            .ok_or(ImageError::NotFetched {
                start: range.start,
                end: range.end,
            })
    }
}
