//! Where finished series wait until the false discovery rate of the whole screen is known.
//!
//! Series enter one by one and leave in any order. What holds the bytes is the caller's: memory, or a file where a
//! screen is larger than memory. Fails where that does.

use std::io::{self, Read, Seek, SeekFrom, Write};

use serde::Serialize;
use serde::de::DeserializeOwned;

use super::CompareError;

/// Anything that can be written, sought and read again: a `Cursor<Vec<u8>>`, a temporary file.
pub trait Spool: Read + Write + Seek {}

impl<T: Read + Write + Seek> Spool for T {}

/// Bytes in a spool: appended, written over and read at any place.
#[derive(Debug, Clone)]
pub(crate) struct Tape<S> {
    spool: S,
    /// Where the next bytes go.
    end: u64,
    /// Where the spool stands; `None` after a fault.
    at: Option<u64>,
}

impl<S: Spool> Tape<S> {
    /// Behind what the spool holds.
    pub(crate) fn new(mut spool: S) -> io::Result<Self> {
        let end = spool.seek(SeekFrom::End(0))?;
        Ok(Self {
            spool,
            end,
            at: Some(end),
        })
    }

    /// Where the next bytes go.
    pub(crate) fn end(&self) -> u64 {
        self.end
    }

    /// Forgets what lies from `end` on: the next bytes go there.
    pub(crate) fn forget(&mut self, end: u64) {
        self.end = self.end.min(end);
    }

    /// Writes bytes behind all others; gives their place.
    pub(crate) fn append(&mut self, bytes: &[u8]) -> io::Result<u64> {
        let place = self.end;
        self.write(place, bytes)?;
        self.end += bytes.len() as u64;
        Ok(place)
    }

    /// Writes bytes over those at a place.
    pub(crate) fn write(&mut self, place: u64, bytes: &[u8]) -> io::Result<()> {
        self.stand(place)?;
        self.spool.write_all(bytes)?;
        self.at = Some(place + bytes.len() as u64);
        Ok(())
    }

    /// Reads as many bytes from a place as `into` holds.
    pub(crate) fn read(&mut self, place: u64, into: &mut [u8]) -> io::Result<()> {
        self.stand(place)?;
        self.spool.read_exact(into)?;
        self.at = Some(place + into.len() as u64);
        Ok(())
    }

    /// Goes to a place. Until the caller has read or written there, it is not known where the spool stands.
    fn stand(&mut self, place: u64) -> io::Result<()> {
        if self.at.take() != Some(place) {
            self.spool.seek(SeekFrom::Start(place))?;
        }
        Ok(())
    }
}

/// Values begin at multiples of so many bytes: 128 GiB of them have places.
const UNIT: u64 = 32;

/// Where a value lies in a spool, in units of [`UNIT`]. A screen has one for each of its series, so the length lies with the
/// value.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Place(u32);

impl Place {
    /// Where nothing lies: no spool reaches as far.
    pub(super) const NONE: Self = Self(u32::MAX);

    fn at(self) -> u64 {
        u64::from(self.0) * UNIT
    }
}

/// Appends values, and reads them back.
pub(super) struct Shelf<S>(Tape<S>);

impl<S: Spool> Shelf<S> {
    pub(super) fn new(spool: S) -> Result<Self, CompareError> {
        Ok(Self(Tape::new(spool).map_err(failed)?))
    }

    pub(super) fn put(&mut self, value: &impl Serialize) -> Result<Place, CompareError> {
        let mut bytes = vec![0; size_of::<u32>()];
        bytes = postcard::to_extend(value, bytes).map_err(coded)?;
        let length = bytes.len() - size_of::<u32>();
        let length = u32::try_from(length).map_err(|_| CompareError::TooLarge)?;
        bytes[..size_of::<u32>()].copy_from_slice(&length.to_le_bytes());
        let missing = self.0.end().next_multiple_of(UNIT) - self.0.end();
        self.0.append(&vec![0; missing as usize]).map_err(failed)?;
        let place = u32::try_from(self.0.end() / UNIT).map(Place);
        let place = place.ok().filter(|place| *place != Place::NONE);
        let place = place.ok_or(CompareError::TooLarge)?;
        self.0.append(&bytes).map_err(failed)?;
        Ok(place)
    }

    pub(super) fn get<T: DeserializeOwned>(&mut self, place: Place) -> Result<T, CompareError> {
        postcard::from_bytes(&self.bytes(place)?).map_err(coded)
    }

    /// The bytes of a value, for [`decoded`] elsewhere.
    pub(super) fn bytes(&mut self, place: Place) -> Result<Vec<u8>, CompareError> {
        let mut length = [0; size_of::<u32>()];
        self.0.read(place.at(), &mut length).map_err(failed)?;
        let mut bytes = vec![0; u32::from_le_bytes(length) as usize];
        let behind = place.at() + length.len() as u64;
        self.0.read(behind, &mut bytes).map_err(failed)?;
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
        assert!(shelf.get::<(f64, String)>(Place(1000)).is_err());
    }
}
