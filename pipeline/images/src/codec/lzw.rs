//! LZW as TIFF has it: codes of 9 to 12 bits, most significant first, that grow one code early.
//!
//! Every string of the table is the string of the code before and one more byte, so it lies in the output already: the table
//! holds where, and how long. Most strings of microscope images are short. Those of up to 7 bytes are in the table
//! themselves, in one word with their length, and are written with one store of 8 bytes, which waits for nothing that was
//! written before; what it writes too much, the next string overwrites.
//! Source: TIFF 6.0, section 13.

use crate::error::CodecError;

const CLEAR: usize = 256;
/// Code 257 is the end.
const FIRST: usize = 258;
const CODES: usize = 4096;
/// Strings of up to so many bytes are in the table.
const SHORT: usize = 7;
/// In the place of the length: the string is longer than [`SHORT`].
const LONG: u64 = 8 << 56;
const BYTES: u64 = (1 << 56) - 1;

/// The table, used again for every strip.
pub(crate) struct Lzw {
    /// For each code, the first bytes of its string from the lowest byte up, zeros after it, and in the highest byte its
    /// length, or that of [`LONG`]; 0 for [`CLEAR`] and the end, which have no string.
    strings: Box<[u64; CODES]>,
    /// For each code, where in the output its string is (low half), and its length.
    places: Box<[u64; CODES]>,
}

impl Default for Lzw {
    fn default() -> Self {
        let mut strings = Box::new([0; CODES]);
        for (byte, string) in (0..256).zip(strings.iter_mut()) {
            *string = byte | 1 << 56;
        }
        Self {
            strings,
            places: Box::new([0; CODES]),
        }
    }
}

/// The word of a string with one byte more.
#[inline(always)]
fn longer(string: u64, length: usize, byte: u64) -> u64 {
    if length < SHORT {
        (string | byte << (8 * length)) + (1 << 56)
    } else {
        string & BYTES | LONG
    }
}

impl Lzw {
    /// Fills `out` from `input`; what follows is not looked at.
    pub(crate) fn decode(&mut self, input: &[u8], out: &mut [u8]) -> Result<(), CodecError> {
        if let [0, second, ..] = input
            && second & 1 == 1
        {
            return Err(CodecError::LzwReversed);
        }
        let expected = out.len();
        let (strings, places) = (&mut *self.strings, &mut *self.places);
        let (mut bit, mut written) = (0, 0);
        // The next code to get a meaning, bits of a code, and the next code at which these grow.
        let (mut next, mut width, mut grow) = (FIRST, 9, (1 << 9) - 1);
        // The string before: its word, place and length; the length is 0 after a clear code.
        let (mut string, mut place, mut length) = (0, 0, 0);
        while written < expected {
            let at = bit >> 3;
            let word = match input.get(at..at + 8) {
                Some(bytes) => bytes.first_chunk().map_or(0, |bytes| u64::from_be_bytes(*bytes)),
                None if bit + width > 8 * input.len() => return Err(CodecError::Short { written, expected }),
                None => last_word(input, at),
            };
            let code = (word << (bit & 7) >> (64 - width)) as usize;
            bit += width;

            let now = if code < next {
                strings[code % CODES]
            } else if code == next && length > 0 {
                longer(string, length, string & 0xff)
            } else {
                return Err(CodecError::LzwCode { code, written });
            };
            if now >> 56 == 0 {
                if code != CLEAR {
                    return Err(CodecError::Short { written, expected });
                }
                (next, width, grow, length) = (FIRST, 9, (1 << 9) - 1, 0);
                continue;
            }
            if length > 0 && next < CODES {
                strings[next % CODES] = longer(string, length, now & 0xff);
                places[next % CODES] = place as u64 | (length as u64 + 1) << 32;
                next += 1;
                if next == grow && width < 12 {
                    width += 1;
                    grow = (1 << width) - 1;
                }
            }
            (string, place) = (now, written);
            if now < LONG {
                length = (now >> 56) as usize;
                match out.get_mut(written..written + 8) {
                    Some(room) => room.copy_from_slice(&now.to_le_bytes()),
                    None => {
                        let room = out.get_mut(written..).unwrap_or_default();
                        for (to, from) in room.iter_mut().zip(now.to_le_bytes()).take(length) {
                            *to = from;
                        }
                    }
                }
            } else {
                let (from, wanted) = (
                    places[code % CODES] as u32 as usize,
                    (places[code % CODES] >> 32) as usize,
                );
                length = wanted;
                copy(out, from, written, wanted, now as u8);
            }
            written += length;
        }
        Ok(())
    }
}

/// Copies `length` bytes of the output to its end, or as many as fit. The last byte may be the first one copied.
#[inline(always)]
fn copy(out: &mut [u8], from: usize, to: usize, length: usize, first: u8) {
    if let Some(byte) = out.get_mut(to) {
        *byte = first;
    }
    if length <= 16
        && let Some(&block) = out.get(from..).and_then(|rest| rest.first_chunk::<16>())
        && let Some(room) = out.get_mut(to..).and_then(|rest| rest.first_chunk_mut::<16>())
    {
        *room = block;
        return;
    }
    let length = length.min(out.len().saturating_sub(to));
    if from + length <= out.len() {
        out.copy_within(from..from + length, to);
    }
}

/// The bytes from `at` to the end, and zeros.
#[cold]
fn last_word(input: &[u8], at: usize) -> u64 {
    let mut bytes = [0; 8];
    for (to, from) in bytes.iter_mut().zip(input.get(at..).unwrap_or_default()) {
        *to = *from;
    }
    u64::from_be_bytes(bytes)
}
