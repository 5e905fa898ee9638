//! Files that people have profiles in and that are no tables here: the first bytes enter, what the file is and how to make
//! a table of it leave.

/// Bytes that tell all of them.
pub(super) const TELLING: usize = 8;

/// What a file that is read as text cannot be.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Foreign {
    pub(super) format: &'static str,
    pub(super) advice: &'static str,
}

const PANDAS: &str = "write it as Parquet, in Python with `pandas` and `to_parquet`";

/// Beginning, format, advice.
const FORMATS: [(&[u8], &str, &str); 8] = [
    (
        b"SQLite f",
        "an SQLite database",
        "write its tables as Parquet or CSV, one row per well, field or cell; pycytominer's `collate` and `SingleCells` \
         do so for CellProfiler's",
    ),
    (b"\x89HDF\r\n\x1a\n", "an HDF5 file", PANDAS),
    (b"ARROW1", "an Arrow or Feather file", PANDAS),
    (
        b"\x93NUMPY",
        "a NumPy array without names of plates and wells",
        "write it as Parquet with a column for each feature and columns Metadata_Plate and Metadata_Well",
    ),
    (
        b"PK\x03\x04",
        "a ZIP archive, such as a workbook or NumPy's .npz",
        "write a workbook's sheet as CSV; of DeepProfiler's .npz files pycytominer's `DeepProfilerData` makes a table",
    ),
    (
        b"BZh",
        "compressed with bzip2",
        "unpack it, or compress it with gzip",
    ),
    (
        b"\xfd7zXZ",
        "compressed with xz",
        "unpack it, or compress it with gzip",
    ),
    (
        b"\x28\xb5\x2f\xfd",
        "compressed with zstd",
        "unpack it, or compress it with gzip",
    ),
];

/// What begins so and is no table.
pub(super) fn foreign(beginning: &[u8]) -> Option<Foreign> {
    let of = |(start, ..): &&(&[u8], &str, &str)| beginning.starts_with(start);
    let &(_, format, advice) = FORMATS.iter().find(of)?;
    Some(Foreign { format, advice })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn formats_are_told_by_their_first_bytes_and_text_is_not_one() {
        for (start, format, _) in FORMATS {
            assert!(start.len() <= TELLING);
            assert_eq!(foreign(start).unwrap().format, format);
        }
        for text in [&b""[..], b"Metadata", b"PK", b"plate,we", b"BZ"] {
            assert_eq!(foreign(text), None);
        }
    }
}
