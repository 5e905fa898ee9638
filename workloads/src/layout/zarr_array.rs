//! What the metadata document of a Zarr array says of its planes: version 2 (`.zarray`) and version 3 (`zarr.json`).
//!
//! Bytes enter, a [`ZarrDocument`] leaves, or why its planes are not read. Only what a plan needs is looked at here: axes,
//! pixels, and the names of the objects of a plane. What unpacks chunks reads the document again, and more strictly.

use serde_json::Value;

/// Pixels of one plane at most: 16384 x 16384, far above any camera of the field.
const MAX_PLANE_PIXELS: u64 = 1 << 28;
/// Planes of one array at most.
const MAX_PLANES: u64 = 1 << 20;
/// Objects of one plane at most.
const MAX_OBJECTS: u64 = 1 << 16;
/// More axes than any image of the field has.
const MAX_AXES: usize = 8;

/// An array of planes: the last two axes are height and width.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct ZarrDocument {
    /// Lengths of all axes.
    pub(super) shape: Vec<u64>,
    /// Bits of a pixel: 8 or 16, unsigned.
    pub(super) bits: u8,
    /// Lengths of what one object holds, along all axes.
    object: Vec<u64>,
    /// What stands before and between the numbers of an object's name, where that is known.
    names: Option<(&'static str, char)>,
}

fn numbers(value: &Value) -> Option<Vec<u64>> {
    value.as_array()?.iter().map(Value::as_u64).collect()
}

fn separator(value: &Value, default: char) -> Option<char> {
    match value.as_str() {
        None => Some(default),
        Some("/") => Some('/'),
        Some(".") => Some('.'),
        Some(_) => None,
    }
}

impl ZarrDocument {
    /// Reads a document of either version.
    ///
    /// # Errors
    /// No such document, or planes that are not read, in words.
    pub(super) fn parse(bytes: &[u8]) -> Result<Self, String> {
        let document: Value =
            serde_json::from_slice(bytes).map_err(|error| format!("it is no JSON: {error}"))?;
        let shape =
            numbers(&document["shape"]).ok_or("it has no shape: it is not the document of an array")?;
        let (kind, object, names) = if document["zarr_format"].as_u64() == Some(2) {
            let names = separator(&document["dimension_separator"], '.').map(|between| ("", between));
            (&document["dtype"], numbers(&document["chunks"]), names)
        } else {
            let encoding = &document["chunk_key_encoding"];
            let written = &encoding["configuration"]["separator"];
            let names = match encoding["name"].as_str() {
                Some("default") => separator(written, '/').map(|between| ("c", between)),
                Some("v2") => separator(written, '.').map(|between| ("", between)),
                _ => None,
            };
            let grid = numbers(&document["chunk_grid"]["configuration"]["chunk_shape"]);
            (&document["data_type"], grid, names)
        };
        let bits = match kind.as_str().unwrap_or_default() {
            "|u1" | "<u1" | ">u1" | "uint8" => 8,
            "<u2" | ">u2" | "uint16" => 16,
            _ => return Err(format!("its pixels are {kind}; unsigned 8 and 16 bits are read")),
        };
        let ([leading @ .., height, width], true) = (shape.as_slice(), shape.len() <= MAX_AXES) else {
            return Err(format!("it has {} axes; 2 to {MAX_AXES} are read", shape.len()));
        };
        if !(1..=MAX_PLANE_PIXELS).contains(&height.saturating_mul(*width)) {
            return Err(format!(
                "its planes are {width} x {height} pixels; between 1 and {MAX_PLANE_PIXELS} pixels are read"
            ));
        }
        let planes = leading
            .iter()
            .try_fold(1u64, |product, length| product.checked_mul(*length));
        if !planes.is_some_and(|planes| (1..=MAX_PLANES).contains(&planes)) {
            return Err(format!(
                "it has no plane, or more than {MAX_PLANES}: its shape is {shape:?}"
            ));
        }
        let object = object
            .filter(|object| object.len() == shape.len() && !object.contains(&0))
            .ok_or("its chunks do not fit its shape")?;
        Ok(Self {
            bits,
            object,
            names,
            shape,
        })
    }

    /// Bytes of one plane, unpacked.
    pub(super) fn plane_bytes(&self) -> u64 {
        let plane: u64 = self.shape.iter().rev().take(2).product();
        plane * u64::from(self.bits / 8)
    }

    /// The lengths of the axes before height and width.
    pub(super) fn leading(&self) -> &[u64] {
        let axes = self.shape.len().saturating_sub(2);
        self.shape.get(..axes).unwrap_or_default()
    }

    /// The numbers of planes, each with its places on the leading axes; the last of these counts fastest.
    pub(super) fn planes(&self) -> impl Iterator<Item = (u32, Vec<u64>)> {
        let planes = u32::try_from(self.leading().iter().product::<u64>()).unwrap_or(0);
        (0..planes).map(|page| {
            let mut rest = u64::from(page);
            let mut place = vec![0; self.leading().len()];
            for (at, length) in place.iter_mut().zip(self.leading()).rev() {
                *at = rest % length.max(&1);
                rest /= length.max(&1);
            }
            (page, place)
        })
    }

    /// The objects of a plane, as paths below the array's folder; none where their names are not known here.
    pub(super) fn objects(&self, place: &[u64]) -> Vec<String> {
        let (Some((before, between)), [leading @ .., of_height, of_width], [.., height, width]) =
            (self.names, self.object.as_slice(), self.shape.as_slice())
        else {
            return Vec::new();
        };
        let (rows, columns) = (height.div_ceil(*of_height), width.div_ceil(*of_width));
        if rows.saturating_mul(columns) > MAX_OBJECTS {
            return Vec::new();
        }
        let leading: Vec<u64> = place
            .iter()
            .zip(leading)
            .map(|(at, length)| at / length)
            .collect();
        let name = |row, column| {
            let numbers = leading
                .iter()
                .copied()
                .chain([row, column])
                .map(|number| number.to_string());
            let before = Some(before.to_owned()).filter(|before| !before.is_empty());
            let parts: Vec<String> = before.into_iter().chain(numbers).collect();
            parts.join(&between.to_string())
        };
        (0..rows)
            .flat_map(|row| (0..columns).map(move |column| (row, column)))
            .map(|(row, column)| name(row, column))
            .collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn documents_of_both_versions_give_shape_pixels_and_objects() {
        let v2 = br#"{"zarr_format":2,"shape":[2,3,4,64,32],"chunks":[1,1,2,64,20],"dtype":"<u2"}"#;
        let array = ZarrDocument::parse(v2).unwrap();
        assert_eq!((array.bits, array.plane_bytes()), (16, 4096));
        let planes: Vec<_> = array.planes().collect();
        assert_eq!(planes.len(), 24);
        assert_eq!(
            (planes[0].clone(), planes[5].clone()),
            ((0, vec![0, 0, 0]), (5, vec![0, 1, 1]))
        );
        assert_eq!(array.objects(&planes[23].1), ["1.2.1.0.0", "1.2.1.0.1"]);
        let v3 = |names: &str| {
            let text = format!(
                r#"{{"zarr_format":3,"node_type":"array","shape":[64,32],"data_type":"uint8","chunk_key_encoding":{names},
                "chunk_grid":{{"name":"regular","configuration":{{"chunk_shape":[32,64]}}}},"codecs":[]}}"#
            );
            let array = ZarrDocument::parse(text.as_bytes()).unwrap();
            assert_eq!(
                (array.bits, array.leading(), array.planes().count()),
                (8, &[][..], 1)
            );
            array.objects(&[])
        };
        assert_eq!(v3(r#"{"name":"default"}"#), ["c/0/0", "c/1/0"]);
        assert_eq!(
            v3(r#"{"name":"default","configuration":{"separator":"."}}"#),
            ["c.0.0", "c.1.0"]
        );
        assert_eq!(v3(r#"{"name":"v2"}"#), ["0.0", "1.0"]);
        assert_eq!(v3(r#"{"name":"another"}"#), [""; 0]);
    }

    #[test]
    fn what_is_not_read_says_why() {
        let v2 = |shape: &str, chunks: &str, dtype: &str| {
            format!(r#"{{"zarr_format":2,"shape":{shape},"chunks":{chunks},"dtype":"{dtype}"}}"#)
        };
        for (document, reason) in [
            ("{".to_owned(), "no JSON"),
            ("{}".to_owned(), "no shape"),
            (v2("[4,4]", "[4,4]", "<f4"), "its pixels are \"<f4\""),
            (v2("[4]", "[4]", "<u2"), "1 axes"),
            (v2("[400000000000,4]", "[4,4]", "<u2"), "between 1 and"),
            (v2("[4,4]", "[4]", "<u2"), "do not fit"),
            (v2("[4,4]", "[4,0]", "<u2"), "do not fit"),
            (v2("[99999999999,4,4]", "[1,4,4]", "<u2"), "more than 1048576"),
            (v2("[0,4,4]", "[1,4,4]", "<u2"), "no plane"),
        ] {
            let said = ZarrDocument::parse(document.as_bytes()).unwrap_err();
            assert!(said.contains(reason), "{document}: {said}");
        }
    }
}
