//! NumPy's `.npy` files: little-endian `f4` and `f8` arrays in C order, as illumination functions are kept.
//!
//! Bytes enter, shape and values leave, and the other way round. What fails: another magic, type or order, a length that does not fit.

/// An array.
#[derive(Debug, Clone, PartialEq)]
pub struct Array {
    /// Size of each dimension, the last varies fastest.
    pub shape: Vec<usize>,
    /// The values.
    pub values: Vec<f32>,
}

/// Why bytes are not such an array.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum NpyError {
    /// Not the format at all.
    #[error("the file is not a .npy file (its first bytes are not \\x93NUMPY)")]
    Magic,
    /// The header is cut off or not the usual dictionary.
    #[error("the .npy header is damaged: {header}")]
    Header {
        /// What was found.
        header: String,
    },
    /// A type or order that is not read.
    #[error("the array is {found}; save it with numpy as little-endian float32 or float64 in C order")]
    Type {
        /// What was found.
        found: String,
    },
    /// Too few or too many bytes.
    #[error("the array of shape {shape:?} needs {expected} bytes of data, but the file has {found}")]
    Length {
        /// From the header.
        shape: Vec<usize>,
        /// Bytes needed.
        expected: usize,
        /// Bytes there.
        found: usize,
    },
}

/// The bytes of a plane of `f4`; `values` has `height * width` of them.
pub fn plane([height, width]: [usize; 2], values: &[f32]) -> Vec<u8> {
    let dictionary = format!("{{'descr': '<f4', 'fortran_order': False, 'shape': ({height}, {width}), }}");
    // Magic, version and length take 10 bytes; values begin at a multiple of 64.
    let length = (10 + dictionary.len() + 1).next_multiple_of(64) - 10;
    let mut bytes = b"\x93NUMPY\x01\x00".to_vec();
    bytes.extend((length as u16).to_le_bytes());
    bytes.extend(format!("{dictionary:<width$}\n", width = length - 1).into_bytes());
    bytes.extend(values.iter().flat_map(|v| v.to_le_bytes()));
    bytes
}

/// Reads an array.
pub fn read(bytes: &[u8]) -> Result<Array, NpyError> {
    let rest = bytes.strip_prefix(b"\x93NUMPY").ok_or(NpyError::Magic)?;
    let damaged = || NpyError::Header {
        header: "cut off".to_owned(),
    };
    let (&major, rest) = rest.split_first().ok_or_else(damaged)?;
    let (_, rest) = rest.split_first().ok_or_else(damaged)?;
    let (length, rest) = if major == 1 {
        let (length, rest) = rest.split_first_chunk::<2>().ok_or_else(damaged)?;
        (usize::from(u16::from_le_bytes(*length)), rest)
    } else {
        let (length, rest) = rest.split_first_chunk::<4>().ok_or_else(damaged)?;
        (u32::from_le_bytes(*length) as usize, rest)
    };
    let (header, data) = rest.split_at_checked(length).ok_or_else(damaged)?;
    let header = String::from_utf8_lossy(header);
    let bad = || NpyError::Header {
        header: header.chars().take(200).collect(),
    };
    let value = |key: &str| {
        let (_, after) = header.split_once(&format!("'{key}':"))?;
        Some(after.trim_start())
    };
    let order = value("fortran_order").ok_or_else(bad)?;
    let kind = value("descr")
        .and_then(|text| text.split('\'').nth(1))
        .ok_or_else(bad)?;
    let size = match kind {
        "<f4" => 4,
        "<f8" => 8,
        _ => {
            return Err(NpyError::Type {
                found: format!("of type '{kind}'"),
            });
        }
    };
    if !order.starts_with("False") {
        return Err(NpyError::Type {
            found: "in Fortran order".to_owned(),
        });
    }
    let shape: Vec<usize> = value("shape")
        .and_then(|text| text.strip_prefix('(')?.split_once(')'))
        .ok_or_else(bad)?
        .0
        .split(',')
        .map(str::trim)
        .filter(|text| !text.is_empty())
        .map(str::parse)
        .collect::<Result<_, _>>()
        .map_err(|_| bad())?;
    let expected = shape
        .iter()
        .try_fold(size, |product: usize, n| product.checked_mul(*n))
        .ok_or_else(bad)?;
    if data.len() != expected {
        return Err(NpyError::Length {
            shape,
            expected,
            found: data.len(),
        });
    }
    let values = if size == 4 {
        data.as_chunks::<4>()
            .0
            .iter()
            .map(|bytes| f32::from_le_bytes(*bytes))
            .collect()
    } else {
        data.as_chunks::<8>()
            .0
            .iter()
            .map(|bytes| f64::from_le_bytes(*bytes) as f32)
            .collect()
    };
    Ok(Array { shape, values })
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn file(header: &str, data: &[u8]) -> Vec<u8> {
        let mut bytes = b"\x93NUMPY\x01\x00".to_vec();
        bytes.extend(u16::try_from(header.len()).unwrap().to_le_bytes());
        bytes.extend(header.as_bytes());
        bytes.extend(data);
        bytes
    }

    const HEADER: &str = "{'descr': '<f4', 'fortran_order': False, 'shape': (1, 2), }\n";

    #[test]
    fn a_float_array_is_read() {
        let data: Vec<u8> = [1.5f32, -2.0].iter().flat_map(|v| v.to_le_bytes()).collect();
        let array = read(&file(HEADER, &data)).unwrap();
        assert_eq!(
            array,
            Array {
                shape: vec![1, 2],
                values: vec![1.5, -2.0]
            }
        );
    }

    #[test]
    fn what_is_written_is_read() {
        for size in [[1, 3], [12345, 0], [2, 70_000]] {
            let values: Vec<f32> = (0..size[0] * size[1]).map(|i| i as f32 - 0.5).collect();
            let bytes = plane(size, &values);
            assert_eq!((bytes.len() - 4 * values.len()) % 64, 0);
            let shape = size.to_vec();
            assert_eq!(read(&bytes), Ok(Array { shape, values }));
        }
    }

    #[test]
    fn what_is_not_read_says_why() {
        assert_eq!(read(b"PK"), Err(NpyError::Magic));
        assert!(matches!(
            read(&file(HEADER, &[0; 7])),
            Err(NpyError::Length {
                expected: 8,
                found: 7,
                ..
            })
        ));
        let integers = HEADER.replace("<f4", "<i4");
        assert!(
            read(&file(&integers, &[0; 8]))
                .unwrap_err()
                .to_string()
                .contains("float32")
        );
    }

    proptest! {
        #[test]
        fn damaged_files_never_panic(mut bytes in Just(file(HEADER, &[0; 8])), at in 0usize..70, value: u8) {
            let at = at % bytes.len();
            bytes[at] = value;
            let _ = read(&bytes);
        }
    }
}
