//! The saved form of a transform: two lines of JSON. The first has format, version and the hash of the second, which is
//! the transform, vectors and matrices base64 of little-endian `f64`. The same transform gives the same bytes.
//!
//! Bytes enter or leave. It fails on other formats and versions, and on content that does not have its hash.

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use faer::Mat;
use serde::{Deserialize, Deserializer, Serialize, Serializer};
use sha2::{Digest, Sha256};

use super::transform::{FittedStep, FittedTransform};

const FORMAT: &str = "wellspring-alignment";
const VERSION: u32 = 1;

/// Why a saved transform could not be read.
#[derive(Debug, thiserror::Error)]
pub enum SavedError {
    /// Not JSON, or a field is missing or of another kind.
    #[error("this is not a saved alignment: {0}")]
    Json(#[from] serde_json::Error),
    /// Another kind of file.
    #[error("this is a file of format '{found}', expected '{FORMAT}'")]
    Format {
        /// Its format.
        found: String,
    },
    /// Written by another version of this program.
    #[error(
        "the alignment is of version {found}, this program reads version {VERSION}: fit it again, or use the program \
         that wrote it"
    )]
    Version {
        /// Its version.
        found: u32,
    },
    /// Changed after it was written, or not written to its end.
    #[error(
        "the alignment does not have its own hash (it says {expected}, its content has {found}): it was changed"
    )]
    Hash {
        /// As the file says.
        expected: String,
        /// Of the content.
        found: String,
    },
    /// Steps whose sizes do not follow one another.
    #[error("step {step} of the alignment takes {found} values where the step before leaves {expected}")]
    Shape {
        /// 1-based step.
        step: usize,
        /// Left by the step before.
        expected: usize,
        /// Taken.
        found: usize,
    },
}

/// The first line. Other versions may have more.
#[derive(Serialize, Deserialize)]
struct Header {
    format: String,
    version: u32,
    sha256: String,
}

impl FittedTransform {
    /// The bytes to save.
    ///
    /// # Errors
    /// [`SavedError::Json`], which a fitted transform does not cause.
    pub fn to_json(&self) -> Result<Vec<u8>, SavedError> {
        let content = serde_json::to_vec(self)?;
        let mut bytes = serde_json::to_vec(&Header {
            format: FORMAT.to_owned(),
            version: VERSION,
            sha256: sha256(&content),
        })?;
        bytes.push(b'\n');
        bytes.extend(content);
        bytes.push(b'\n');
        Ok(bytes)
    }

    /// Reads what [`FittedTransform::to_json`] wrote.
    ///
    /// # Errors
    /// [`SavedError`].
    pub fn from_json(bytes: &[u8]) -> Result<Self, SavedError> {
        let mut lines = bytes.splitn(2, |&byte| byte == b'\n');
        let header: Header = serde_json::from_slice(lines.next().unwrap_or_default())?;
        if header.format != FORMAT {
            return Err(SavedError::Format { found: header.format });
        }
        if header.version != VERSION {
            return Err(SavedError::Version {
                found: header.version,
            });
        }
        let content = lines.next().unwrap_or_default().trim_ascii_end();
        let found = sha256(content);
        if found != header.sha256 {
            return Err(SavedError::Hash {
                expected: header.sha256,
                found,
            });
        }
        let transform: Self = serde_json::from_slice(content)?;
        transform.check_shapes()?;
        Ok(transform)
    }

    /// SHA-256 of the transform, 64 hexadecimal digits: what results name it by.
    ///
    /// # Errors
    /// As [`FittedTransform::to_json`].
    pub fn sha256(&self) -> Result<String, SavedError> {
        Ok(sha256(&serde_json::to_vec(self)?))
    }

    fn check_shapes(&self) -> Result<(), SavedError> {
        let mut width = self.features.len();
        for (index, step) in self.steps.iter().enumerate() {
            let takes = |found: usize| {
                let (step, expected) = (index + 1, width);
                match found == expected {
                    true => Ok(()),
                    false => Err(SavedError::Shape {
                        step,
                        expected,
                        found,
                    }),
                }
            };
            match step {
                FittedStep::Project { centre, map, .. } => {
                    takes(centre.len())?;
                    takes(map.nrows())?;
                    width = map.ncols();
                }
                FittedStep::Coral {
                    colouring: Some(colouring),
                    ..
                } => {
                    takes(colouring.nrows())?;
                    takes(colouring.ncols())?;
                }
                FittedStep::Scale { .. } | FittedStep::Coral { .. } => {}
            }
        }
        Ok(())
    }
}

fn sha256(bytes: &[u8]) -> String {
    Sha256::digest(bytes)
        .iter()
        .map(|byte| format!("{byte:02x}"))
        .collect()
}

fn encode(values: impl Iterator<Item = f64>) -> String {
    STANDARD.encode(values.flat_map(f64::to_le_bytes).collect::<Vec<u8>>())
}

fn decode<E: serde::de::Error>(text: &str) -> Result<Vec<f64>, E> {
    let bytes = STANDARD.decode(text).map_err(E::custom)?;
    let (values, rest) = bytes.as_chunks::<8>();
    if !rest.is_empty() {
        return Err(E::custom(format!("{} bytes are not f64 values", bytes.len())));
    }
    Ok(values.iter().map(|bytes| f64::from_le_bytes(*bytes)).collect())
}

pub(super) mod vector_base64 {
    use super::{Deserialize, Deserializer, Serializer, decode, encode};

    pub(crate) fn serialize<S: Serializer>(values: &[f64], serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_str(&encode(values.iter().copied()))
    }

    pub(crate) fn deserialize<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Vec<f64>, D::Error> {
        decode(&String::deserialize(deserializer)?)
    }
}

/// Row after row.
#[derive(Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct SavedMatrix {
    rows: usize,
    columns: usize,
    values: String,
}

impl SavedMatrix {
    fn of(matrix: &Mat<f64>) -> Self {
        let (rows, columns) = (matrix.nrows(), matrix.ncols());
        Self {
            rows,
            columns,
            values: encode((0..rows * columns).map(|i| matrix[(i / columns, i % columns)])),
        }
    }

    fn matrix<E: serde::de::Error>(&self) -> Result<Mat<f64>, E> {
        let values = decode(&self.values)?;
        if self.rows.checked_mul(self.columns) != Some(values.len()) {
            return Err(E::custom(format!(
                "{} values are not a matrix of {} x {}",
                values.len(),
                self.rows,
                self.columns
            )));
        }
        Ok(Mat::from_fn(self.rows, self.columns, |i, j| {
            values[i * self.columns + j]
        }))
    }
}

pub(super) mod matrix_base64 {
    use super::{Deserialize, Deserializer, Mat, SavedMatrix, Serialize, Serializer};

    pub(crate) fn serialize<S: Serializer>(matrix: &Mat<f64>, serializer: S) -> Result<S::Ok, S::Error> {
        SavedMatrix::of(matrix).serialize(serializer)
    }

    pub(crate) fn deserialize<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Mat<f64>, D::Error> {
        SavedMatrix::deserialize(deserializer)?.matrix()
    }
}

pub(super) mod optional_matrix_base64 {
    use super::{Deserialize, Deserializer, Mat, SavedMatrix, Serialize, Serializer};

    pub(crate) fn serialize<S: Serializer>(
        matrix: &Option<Mat<f64>>,
        serializer: S,
    ) -> Result<S::Ok, S::Error> {
        matrix.as_ref().map(SavedMatrix::of).serialize(serializer)
    }

    pub(crate) fn deserialize<'de, D: Deserializer<'de>>(
        deserializer: D,
    ) -> Result<Option<Mat<f64>>, D::Error> {
        let saved: Option<SavedMatrix> = Option::deserialize(deserializer)?;
        saved.map(|saved| saved.matrix()).transpose()
    }
}
