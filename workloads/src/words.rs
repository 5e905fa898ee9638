//! The words of the field as types: well position, plate barcode, field of view, channel.
//!
//! Text enters, newtypes leave. Parsing fails with a [`WordError`] that quotes the text and says what is expected.

use std::fmt;
use std::str::FromStr;
use std::sync::Arc;

use serde::{Deserialize, Serialize};

/// Why a word of the field could not be read.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum WordError {
    /// The text is not a well name.
    #[error("'{text}' is not a well: expected a row letter and a column number, such as A01 or AF48")]
    Well {
        /// The text as it was given.
        text: String,
    },
    /// The row or column lies outside a 1536-well plate.
    #[error("well '{text}' lies outside a 1536-well plate (rows A to AF, columns 1 to 48)")]
    WellOutside {
        /// The text as it was given.
        text: String,
    },
    /// A barcode or channel name is empty, too long, or holds a character that cannot be part of a path or key.
    #[error(
        "{what} '{text}' is not usable: use 1 to 200 printable characters without '/', '\\' or control characters"
    )]
    Name {
        /// What the name was for: `plate barcode` or `channel`.
        what: &'static str,
        /// The text as it was given, cut to 200 characters.
        text: String,
    },
}

/// The place of a well on a plate. Written as `A01`; read as `a1`, `A1`, `A01` or `A001`.
///
/// Rows after Z are AA to AF (1536-well plates). Order is row by row, as plates are read.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct WellPosition {
    row: u8,
    column: u8,
}

impl WellPosition {
    /// Rows and columns of the largest plate (1536 wells).
    pub const MAX: (u8, u8) = (32, 48);

    /// From 1-based row and column; `None` outside a 1536-well plate.
    pub fn new(row: u8, column: u8) -> Option<Self> {
        ((1..=Self::MAX.0).contains(&row) && (1..=Self::MAX.1).contains(&column))
            .then_some(Self { row, column })
    }

    /// 1-based row: A is 1.
    pub fn row(self) -> u8 {
        self.row
    }

    /// 1-based column.
    pub fn column(self) -> u8 {
        self.column
    }

    /// The row's letters: `A` to `Z`, then `AA` to `AF`.
    pub fn row_letters(self) -> String {
        let mut buffer = [0; 4];
        let text = self.text(&mut buffer);
        text.get(..text.len() - 2).unwrap_or_default().to_owned()
    }

    /// The name, without memory of its own: wells are written a million times in a campaign.
    fn text(self, buffer: &mut [u8; 4]) -> &str {
        let (tens, ones) = (b'0' + self.column / 10, b'0' + self.column % 10);
        let length = match self.row - 1 {
            row @ 0..26 => {
                *buffer = [b'A' + row, tens, ones, 0];
                3
            }
            row => {
                *buffer = [b'A', b'A' + row - 26, tens, ones];
                4
            }
        };
        std::str::from_utf8(&buffer[..length]).unwrap_or_default()
    }
}

impl fmt::Display for WellPosition {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        // `pad` so that width and alignment in format strings work on the whole name.
        f.pad(self.text(&mut [0; 4]))
    }
}

impl FromStr for WellPosition {
    type Err = WordError;

    fn from_str(text: &str) -> Result<Self, WordError> {
        let not_a_well = || WordError::Well {
            text: text.chars().take(200).collect(),
        };
        let trimmed = text.trim();
        let digits_at = trimmed
            .find(|c: char| c.is_ascii_digit())
            .ok_or_else(not_a_well)?;
        let (letters, digits) = trimmed.split_at(digits_at);
        if letters.is_empty()
            || letters.len() > 2
            || digits.len() > 4
            || !letters.bytes().all(|b| b.is_ascii_alphabetic())
            || !digits.bytes().all(|b| b.is_ascii_digit())
        {
            return Err(not_a_well());
        }
        let row = letters.bytes().fold(0u32, |row, b| {
            row * 26 + u32::from(b.to_ascii_uppercase() - b'A') + 1
        });
        let column: u32 = digits.parse().map_err(|_| not_a_well())?;
        u8::try_from(row)
            .ok()
            .zip(u8::try_from(column).ok())
            .and_then(|(row, column)| Self::new(row, column))
            .ok_or_else(|| WordError::WellOutside {
                text: trimmed.to_owned(),
            })
    }
}

impl Serialize for WellPosition {
    fn serialize<S: serde::Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_str(self.text(&mut [0; 4]))
    }
}

impl<'de> Deserialize<'de> for WellPosition {
    fn deserialize<D: serde::Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let text = String::deserialize(deserializer)?;
        text.parse().map_err(serde::de::Error::custom)
    }
}

fn checked_name(what: &'static str, text: &str) -> Result<Arc<str>, WordError> {
    let text = text.trim();
    let usable = !text.is_empty()
        && text.chars().count() <= 200
        && text != "."
        && text != ".."
        && !text.chars().any(|c| c.is_control() || c == '/' || c == '\\');
    if usable {
        Ok(text.into())
    } else {
        Err(WordError::Name {
            what,
            text: text.chars().take(200).collect(),
        })
    }
}

macro_rules! name_type {
    ($(#[$doc:meta])* $name:ident, $what:literal) => {
        $(#[$doc])*
        #[derive(Debug, Clone, PartialEq, Eq, Hash, PartialOrd, Ord, Deserialize)]
        #[serde(try_from = "String")]
        pub struct $name(Arc<str>);

        impl $name {
            /// The text.
            pub fn as_str(&self) -> &str {
                &self.0
            }
        }

        impl FromStr for $name {
            type Err = WordError;
            fn from_str(text: &str) -> Result<Self, WordError> {
                checked_name($what, text).map(Self)
            }
        }

        impl TryFrom<String> for $name {
            type Error = WordError;
            fn try_from(text: String) -> Result<Self, WordError> {
                text.parse()
            }
        }

        impl From<$name> for String {
            fn from(name: $name) -> String {
                name.0.as_ref().to_owned()
            }
        }

        impl Serialize for $name {
            fn serialize<S: serde::Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
                serializer.serialize_str(&self.0)
            }
        }

        impl fmt::Display for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.pad(&self.0)
            }
        }
    };
}

name_type!(
    /// A plate's barcode: what the label says. Safe as a path segment and a Kafka key.
    Barcode,
    "plate barcode"
);
name_type!(
    /// A channel's name, such as `DNA`, `ER`, `RNA`, `AGP`, `Mito`, `Brightfield` or `GFP`.
    Channel,
    "channel"
);

/// One field of view: plate, well and the field's number as the microscope wrote it.
///
/// Orders by plate, then well row by row, then field: the row order of every result file.
#[derive(Debug, Clone, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
pub struct FieldId {
    /// The plate's barcode.
    pub plate: Barcode,
    /// The well.
    pub well: WellPosition,
    /// The field of view (site) within the well, as numbered in the file names.
    pub field: u32,
}

impl fmt::Display for FieldId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "plate {} well {} field {}", self.plate, self.well, self.field)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn wells_are_read_in_every_usual_spelling_and_written_padded() {
        for text in ["a1", "A1", "A01", "A001", " A01 "] {
            assert_eq!(text.parse::<WellPosition>().unwrap().to_string(), "A01");
        }
        assert_eq!(
            "af48".parse::<WellPosition>().unwrap(),
            WellPosition::new(32, 48).unwrap()
        );
        assert_eq!(WellPosition::new(27, 1).unwrap().to_string(), "AA01");
    }

    #[test]
    fn every_well_of_a_1536_plate_survives_a_round_trip() {
        for row in 1..=32 {
            for column in 1..=48 {
                let well = WellPosition::new(row, column).unwrap();
                assert_eq!(well.to_string().parse::<WellPosition>().unwrap(), well);
            }
        }
    }

    #[test]
    fn what_is_not_a_well_is_refused_with_the_text_quoted() {
        for text in [
            "", "A", "1", "1A", "A-1", "A1b", "ABC1", "A12345", "é1", "A0", "AG01", "A49",
        ] {
            let error = text.parse::<WellPosition>().unwrap_err();
            assert!(error.to_string().contains(text), "{error}");
        }
    }

    #[test]
    fn names_that_would_break_a_path_are_refused() {
        assert!("P 1".parse::<Barcode>().is_ok());
        for text in ["", " ", "..", "a/b", "a\\b", "a\nb"] {
            assert!(text.parse::<Barcode>().is_err());
        }
    }
}
