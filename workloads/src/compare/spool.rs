//! Where finished series wait until the false discovery rate of the whole screen is known.
//!
//! Series enter one by one and leave in any order. What holds the bytes is the caller's: memory, or a file where a
//! screen is larger than memory. Fails where that does.

use std::io::{Read, Seek, SeekFrom, Write};

use serde::Serialize;
use serde::de::DeserializeOwned;

use super::CompareError;

/// Anything that can be written, sought and read again: a `Cursor<Vec<u8>>`, a temporary file.
pub trait Spool: Read + Write + Seek {}

impl<T: Read + Write + Seek> Spool for T {}

/// Where a value lies in a spool.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Place {
    at: u64,
    length: u32,
}

impl Place {
    /// Where nothing lies: every value has a length.
    pub(super) const NONE: Self = Self { at: 0, length: 0 };
}

/// Appends values, and reads them back.
pub(super) struct Shelf<S> {
    spool: S,
    end: u64,
    /// Whether the spool stands at `end`.
    at_end: bool,
}

impl<S: Spool> Shelf<S> {
    pub(super) fn new(mut spool: S) -> Result<Self, CompareError> {
        let end = spool.seek(SeekFrom::End(0)).map_err(failed)?;
        Ok(Self {
            spool,
            end,
            at_end: true,
        })
    }

    pub(super) fn put(&mut self, value: &impl Serialize) -> Result<Place, CompareError> {
        let bytes = postcard::to_allocvec(value).map_err(coded)?;
        let length = u32::try_from(bytes.len()).map_err(|_| CompareError::TooLarge)?;
        if !self.at_end {
            self.spool.seek(SeekFrom::Start(self.end)).map_err(failed)?;
            self.at_end = true;
        }
        self.spool.write_all(&bytes).map_err(failed)?;
        let at = self.end;
        self.end += u64::from(length);
        Ok(Place { at, length })
    }

    pub(super) fn get<T: DeserializeOwned>(&mut self, place: Place) -> Result<T, CompareError> {
        postcard::from_bytes(&self.bytes(place)?).map_err(coded)
    }

    /// The bytes of a value, for [`decoded`] elsewhere.
    pub(super) fn bytes(&mut self, place: Place) -> Result<Vec<u8>, CompareError> {
        self.at_end = false;
        self.spool.seek(SeekFrom::Start(place.at)).map_err(failed)?;
        let mut bytes = vec![0; place.length as usize];
        self.spool.read_exact(&mut bytes).map_err(failed)?;
        Ok(bytes)
    }
}

/// A value from its bytes.
pub(super) fn decoded<T: DeserializeOwned>(bytes: &[u8]) -> Result<T, CompareError> {
    postcard::from_bytes(bytes).map_err(coded)
}

fn failed(error: std::io::Error) -> CompareError {
    CompareError::Spool {
        kind: error.kind(),
        message: error.to_string(),
    }
}

fn coded(error: postcard::Error) -> CompareError {
    CompareError::Spool {
        kind: std::io::ErrorKind::InvalidData,
        message: error.to_string(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::io::Cursor;

    #[test]
    fn values_come_back_bit_for_bit_in_any_order() {
        let mut shelf = Shelf::new(Cursor::new(vec![7u8; 3])).unwrap();
        let values = [0.1 + 0.2, f64::MIN_POSITIVE, -0.0, 1.0 / 3.0];
        let mut places = Vec::new();
        for value in values {
            places.push(shelf.put(&(value, "x")).unwrap());
            // Reading in between must not disturb what is written next.
            let (first, _): (f64, String) = shelf.get(places[0]).unwrap();
            assert_eq!(first.to_bits(), values[0].to_bits());
        }
        for (place, value) in places.iter().zip(values).rev() {
            let (read, _): (f64, String) = shelf.get(*place).unwrap();
            assert_eq!(read.to_bits(), value.to_bits());
        }
        assert!(shelf.get::<(f64, String)>(Place { at: 1000, length: 9 }).is_err());
    }
}
