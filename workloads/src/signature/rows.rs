//! Rows of numbers that wait in a spool: the sums of effects, their means, and products with signatures.
//!
//! Values enter at a place and leave bit for bit. What holds the bytes is the caller's: memory, or a file where a screen
//! is larger than memory. Fails where that does.

use std::ops::Range;

use super::{SignatureError, Vectors};
use crate::compare::{Spool, Tape};

const VALUE_BYTES: usize = size_of::<f64>();

/// A spool, and a buffer to use again.
#[derive(Debug, Clone)]
pub(super) struct Rows<S> {
    tape: Tape<S>,
    bytes: Vec<u8>,
}

impl<S: Spool> Rows<S> {
    /// Behind what the spool holds.
    pub(super) fn new(spool: S) -> Result<Self, SignatureError> {
        Ok(Self {
            tape: Tape::new(spool).map_err(failed)?,
            bytes: Vec::new(),
        })
    }

    /// Where the next values go.
    pub(super) fn end(&self) -> u64 {
        self.tape.end()
    }

    /// Forgets the values from `end` on: the next ones go there.
    pub(super) fn forget(&mut self, end: u64) {
        self.tape.forget(end);
    }

    /// Writes values behind all others; gives their place.
    pub(super) fn append(&mut self, values: &[f64]) -> Result<u64, SignatureError> {
        self.encode(values);
        self.tape.append(&self.bytes).map_err(failed)
    }

    /// Writes values over those at a place.
    pub(super) fn write(&mut self, place: u64, values: &[f64]) -> Result<(), SignatureError> {
        self.encode(values);
        self.tape.write(place, &self.bytes).map_err(failed)
    }

    /// Reads as many values from a place as `into` holds.
    pub(super) fn read(&mut self, place: u64, into: &mut [f64]) -> Result<(), SignatureError> {
        self.bytes.resize(into.len() * VALUE_BYTES, 0);
        self.tape.read(place, &mut self.bytes).map_err(failed)?;
        let (values, _) = self.bytes.as_chunks();
        for (into, bytes) in into.iter_mut().zip(values) {
            *into = f64::from_le_bytes(*bytes);
        }
        Ok(())
    }

    /// As [`Rows::append`], of whole numbers.
    pub(super) fn append_words(&mut self, words: &[u64]) -> Result<u64, SignatureError> {
        self.bytes.clear();
        self.bytes
            .extend(words.iter().flat_map(|word| word.to_le_bytes()));
        self.tape.append(&self.bytes).map_err(failed)
    }

    /// As [`Rows::read`], of whole numbers.
    pub(super) fn read_words(&mut self, place: u64, into: &mut [u64]) -> Result<(), SignatureError> {
        self.bytes.resize(into.len() * VALUE_BYTES, 0);
        self.tape.read(place, &mut self.bytes).map_err(failed)?;
        let (words, _) = self.bytes.as_chunks();
        for (into, bytes) in into.iter_mut().zip(words) {
            *into = u64::from_le_bytes(*bytes);
        }
        Ok(())
    }

    fn encode(&mut self, values: &[f64]) {
        self.bytes.clear();
        self.bytes
            .extend(values.iter().flat_map(|value| value.to_le_bytes()));
    }
}

/// Bytes of so many values.
pub(super) fn bytes_of(values: usize) -> u64 {
    values as u64 * VALUE_BYTES as u64
}

fn failed(error: std::io::Error) -> SignatureError {
    SignatureError::Spool {
        kind: error.kind(),
        message: error.to_string(),
    }
}

/// The mean vectors of all effects, in a spool.
#[derive(Debug, Clone)]
pub struct EffectVectors<S> {
    pub(super) rows: Rows<S>,
    /// Of the first vector; the others follow.
    pub(super) place: u64,
    pub(super) width: usize,
    /// Number of vectors.
    pub(super) len: usize,
}

impl<S: Spool> EffectVectors<S> {
    /// Number of vectors.
    pub fn len(&self) -> usize {
        self.len
    }

    /// Whether there is none.
    pub fn is_empty(&self) -> bool {
        self.len == 0
    }

    /// Values of a vector.
    pub fn width(&self) -> usize {
        self.width
    }

    /// The vectors of a range of effects; the range ends with the last effect.
    ///
    /// # Errors
    /// The spool cannot be read.
    pub fn read(&mut self, effects: Range<usize>) -> Result<Vectors, SignatureError> {
        let effects = effects.start.min(self.len())..effects.end.min(self.len());
        let mut values = vec![0.0; effects.len() * self.width];
        self.rows
            .read(self.place + bytes_of(effects.start * self.width), &mut values)?;
        Ok(Vectors::from_values(values, self.width))
    }
}

#[cfg(test)]
mod tests {
    use std::io::Cursor;

    use super::*;

    #[test]
    fn values_come_back_bit_for_bit_and_can_be_written_over() {
        let mut rows = Rows::new(Cursor::new(vec![7u8; 3])).unwrap();
        let first = rows.append(&[0.1 + 0.2, -0.0]).unwrap();
        let second = rows.append(&[f64::MIN_POSITIVE, 1.0 / 3.0]).unwrap();
        assert_eq!((first, second, rows.end()), (3, 19, 35));
        rows.write(first, &[5.0, f64::NAN]).unwrap();
        let third = rows.append(&[9.0]).unwrap();
        let mut read = [0.0; 5];
        rows.read(first, &mut read).unwrap();
        let expected = [5.0, f64::NAN, f64::MIN_POSITIVE, 1.0 / 3.0, 9.0];
        assert_eq!(read.map(f64::to_bits), expected.map(f64::to_bits));
        rows.forget(third);
        assert_eq!(rows.append(&[8.0]).unwrap(), third);
        assert!(matches!(
            rows.read(third, &mut [0.0; 2]),
            Err(SignatureError::Spool { .. })
        ));
        // A fault does not move what comes after.
        assert_eq!(rows.append(&[7.0]).unwrap(), third + 8);
        rows.read(third, &mut read[..2]).unwrap();
        assert_eq!(read[..2], [8.0, 7.0]);
    }
}
