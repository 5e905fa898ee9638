//! Where a TIFF's description lies: the least that has to be read of a file to know what its first image says of itself.
//!
//! Ranges of a file enter as they are asked for, the bytes of tag 270 (ImageDescription) of the first directory leave;
//! none where the file is no TIFF or has none. Classic and BigTIFF, both byte orders. Pixels are read elsewhere.

use std::ops::Range;

use super::metadata::MAX_METADATA_BYTES;

/// What is read first: header, directory and description of most files.
const FIRST_READ: u64 = 16 << 10;
/// Directories with more entries than any writer makes are forged.
const MAX_ENTRIES: u64 = 4096;
const DESCRIPTION: u16 = 270;

/// Finds the description of one file.
#[derive(Debug)]
pub struct DescriptionReader {
    size: u64,
    parts: Vec<(u64, Vec<u8>)>,
}

/// What a [`DescriptionReader`] needs or found.
#[derive(Debug, PartialEq, Eq)]
pub enum Description {
    /// This range of the file, which lies within it.
    Read(Range<u64>),
    /// Here it is; empty where there is none.
    Found(Vec<u8>),
    /// The file is broken.
    Broken(String),
}

enum Missing {
    Range(Range<u64>),
    Broken(String),
}

impl DescriptionReader {
    /// Of a file of `size` bytes.
    pub fn new(size: u64) -> Self {
        Self {
            size,
            parts: Vec::new(),
        }
    }

    /// Bytes that [`Description::Read`] asked for, from their first position.
    pub fn give(&mut self, from: u64, bytes: Vec<u8>) {
        self.parts.push((from, bytes));
    }

    /// What is needed next, or what was found.
    pub fn needs(&self) -> Description {
        match self.find() {
            Ok(found) => Description::Found(found),
            Err(Missing::Broken(reason)) => Description::Broken(reason),
            // A range that was given shorter than it was asked for would be asked for without end.
            Err(Missing::Range(range))
                if self.parts.iter().any(|(from, _)| *from == range.start) && self.parts.len() > 4 =>
            {
                Description::Broken("it is shorter than it was listed".to_owned())
            }
            Err(Missing::Range(range)) => Description::Read(range),
        }
    }

    fn bytes(&self, from: u64, length: u64) -> Result<&[u8], Missing> {
        let end = from.checked_add(length).filter(|end| *end <= self.size);
        let Some(end) = end else {
            let reason = format!(
                "its directory points at byte {from}, behind its end at {}",
                self.size
            );
            return Err(Missing::Broken(reason));
        };
        let held = self.parts.iter().find_map(|(at, bytes)| {
            let start = usize::try_from(from.checked_sub(*at)?).ok()?;
            bytes.get(start..start.checked_add(usize::try_from(length).ok()?)?)
        });
        held.ok_or_else(|| Missing::Range(from..end.max((from + FIRST_READ).min(self.size))))
    }

    fn find(&self) -> Result<Vec<u8>, Missing> {
        if self.size < 16 {
            return Ok(Vec::new());
        }
        let header = self.bytes(0, 16)?;
        let little = header.starts_with(b"II");
        let number = |bytes: &[u8]| {
            let add = |value: u64, byte: &u8| value << 8 | u64::from(*byte);
            if little {
                bytes.iter().rev().fold(0, add)
            } else {
                bytes.iter().fold(0, add)
            }
        };
        let part =
            |bytes: &[u8], at: usize, length: usize| number(bytes.get(at..at + length).unwrap_or_default());
        let big = match (header.get(..2), part(header, 2, 2)) {
            (Some(b"II" | b"MM"), 42) => false,
            (Some(b"II" | b"MM"), 43) => true,
            _ => return Ok(Vec::new()),
        };
        let (directory, counted, entry, value) = if big {
            (part(header, 8, 8), 8u64, 20u64, 12usize)
        } else {
            (part(header, 4, 4), 2, 12, 8)
        };
        let entries = number(self.bytes(directory, counted)?);
        if entries > MAX_ENTRIES {
            return Err(Missing::Broken(format!("its directory claims {entries} entries")));
        }
        let table = self.bytes(directory + counted, entries * entry)?;
        let width = usize::try_from(entry).unwrap_or(usize::MAX);
        let Some(found) = table
            .chunks_exact(width)
            .find(|entry| part(entry, 0, 2) == u64::from(DESCRIPTION))
        else {
            return Ok(Vec::new());
        };
        let (count, room) = if big {
            (part(found, 4, 8), 8)
        } else {
            (part(found, 4, 4), 4)
        };
        if count > MAX_METADATA_BYTES {
            return Err(Missing::Broken(format!("its description claims {count} bytes")));
        }
        let bytes = match usize::try_from(count).ok().filter(|count| *count <= room) {
            Some(count) => found.get(value..value + count).unwrap_or_default(),
            None => self.bytes(part(found, value, room), count)?,
        };
        let end = bytes
            .iter()
            .rposition(|byte| *byte != 0)
            .map_or(0, |last| last + 1);
        Ok(bytes.get(..end).unwrap_or_default().to_vec())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A TIFF with one directory at its end, whose only entry is a description.
    fn file(big: bool, little: bool, text: &[u8]) -> Vec<u8> {
        let number = |value: u64, length: usize| {
            let bytes = value.to_le_bytes();
            let mut bytes = bytes[..length].to_vec();
            if !little {
                bytes.reverse();
            }
            bytes
        };
        let mut file = if little { b"II".to_vec() } else { b"MM".to_vec() };
        let start = 40_000u64;
        let directory = start + text.len() as u64;
        if big {
            file.extend([number(43, 2), number(8, 2), number(0, 2), number(directory, 8)].concat());
        } else {
            file.extend([number(42, 2), number(directory, 4)].concat());
        }
        file.resize(start as usize, 7);
        file.extend(text);
        file.extend(number(1, if big { 8 } else { 2 }));
        let wide = if big { 8 } else { 4 };
        file.extend(
            [
                number(270, 2),
                number(2, 2),
                number(text.len() as u64, wide),
                number(start, wide),
            ]
            .concat(),
        );
        file
    }

    fn read(file: &[u8]) -> Description {
        let mut reader = DescriptionReader::new(file.len() as u64);
        for _ in 0..10 {
            match reader.needs() {
                Description::Read(range) => {
                    let bytes = file.get(range.start as usize..range.end as usize).unwrap();
                    reader.give(range.start, bytes.to_vec());
                }
                done => return done,
            }
        }
        panic!("asks without end");
    }

    #[test]
    fn descriptions_of_every_kind_of_tiff_are_found() {
        for (big, little) in [(false, true), (false, false), (true, true), (true, false)] {
            let found = read(&file(big, little, b"what it says\0"));
            assert_eq!(
                found,
                Description::Found(b"what it says".to_vec()),
                "{big} {little}"
            );
        }
        assert_eq!(read(b"\x89PNG, and then some"), Description::Found(Vec::new()));
        assert_eq!(read(b""), Description::Found(Vec::new()));
    }

    #[test]
    fn a_file_cut_short_is_broken() {
        let whole = file(false, true, b"what it says\0");
        assert!(matches!(read(&whole[..30_000]), Description::Broken(_)));
        assert!(matches!(read(&whole[..whole.len() - 3]), Description::Broken(_)));
    }

    proptest::proptest! {
        #[test]
        fn no_damage_panics_or_asks_without_end(at in 0usize..40_060, value: u8) {
            let mut bytes = file(true, true, b"what it says\0");
            let at = at % bytes.len();
            bytes[at] = value;
            read(&bytes);
        }
    }
}
