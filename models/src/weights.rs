//! A safetensors file: read whole, checked, and looked up by tensor name.
//!
//! Enters: a path or bytes. Leaves: f32 tensors of an expected shape, and the digest of the content. Fails with
//! [`WeightsError`]. Nothing is allocated on the word of the header: the file is bounded before it is read, and a
//! tensor is copied only once its bytes are known to be there.

use std::borrow::Cow;
use std::collections::BTreeSet;
use std::fs::File;
use std::io::Read;
use std::path::{Path, PathBuf};
use std::sync::{Mutex, MutexGuard, PoisonError};

use safetensors::tensor::TensorView;
use safetensors::{Dtype, SafeTensors};
use sha2::{Digest, Sha256};
use thiserror::Error;

use crate::card::{KeyRule, ModelCard, WeightsSource};
use crate::error::EngineError;

/// The largest weights file accepted, bytes: far above any network here, far below what exhausts a machine.
const MAX_FILE_BYTES: u64 = 4 << 30;

/// What is wrong with a weights file.
#[derive(Debug, Clone, PartialEq, Eq, Error)]
#[non_exhaustive]
pub enum WeightsError {
    /// The file is larger than any model here.
    #[error("the file has {bytes} bytes, more than the {limit} a weights file may have")]
    TooLarge {
        /// Size of the file.
        bytes: u64,
        /// The limit.
        limit: u64,
    },
    /// The header or the layout is not that of safetensors.
    #[error(
        "not a whole safetensors file ({reason}): it is truncated, damaged or of another format; fetch it again"
    )]
    Malformed {
        /// What the parser said.
        reason: String,
        /// Bytes in the file.
        bytes: usize,
    },
    /// A tensor the network needs is absent.
    #[error("tensor {tensor} is missing{}", elsewhere(prefixes))]
    Missing {
        /// Its name.
        tensor: String,
        /// What stands before it in names of the file.
        prefixes: Vec<String>,
    },
    /// Tensors that the network has no use for.
    #[error(
        "the network of the card does not use {} of the file's tensors ({}): the file is of another network (more blocks, \
         registers, a layer scale, another norm), whose card or template to choose; or else name on the card what may be left \
         out, weights.ignore = [{}]",
        tensors.len(), first(tensors), pattern(tensors)
    )]
    Unused {
        /// Their names.
        tensors: Vec<String>,
    },
    /// A rule of the card leads to no tensor.
    #[error(
        "no name that the network looks up comes to the rule for '{network}' in weights.keys of the card: correct the rule, \
         put it before one that takes its names, or take it off the card"
    )]
    UnusedRule {
        /// The name in the rule.
        network: String,
    },
    /// A tensor has another shape than the network needs.
    #[error("tensor {tensor} has shape {found:?}, the network needs {expected:?} (0: any)")]
    WrongShape {
        /// Its name.
        tensor: String,
        /// Shape in the file.
        found: Vec<usize>,
        /// Shape of the network; 0 where any length will do.
        expected: Vec<usize>,
    },
    /// A tensor is of another type than the network needs.
    #[error("tensor {tensor} holds {found}, the network needs {needs}")]
    WrongType {
        /// Its name.
        tensor: String,
        /// Type in the file.
        found: String,
        /// Types of the network.
        needs: &'static str,
    },
    /// A head's file is of other channels or classes than its card.
    #[error(
        "its {tensor} are {file:?}, but the card has {card:?}: card and weights are not of one head; fit it again"
    )]
    OtherNames {
        /// Channels, or classes.
        tensor: &'static str,
        /// Those of the card.
        card: String,
        /// Those of the file.
        file: String,
    },
    /// A tensor holds NaN or infinity, or a batch norm's variance is negative.
    #[error("tensor {tensor} holds {value} at position {offset}, which no trained network can")]
    BadValue {
        /// Its name.
        tensor: String,
        /// Index in the tensor.
        offset: usize,
        /// The value, as text.
        value: String,
    },
}

/// Where else the file has a tensor that is missing, and how the card says so.
fn elsewhere(prefixes: &[String]) -> String {
    let Some(first) = prefixes.first() else {
        return String::new();
    };
    format!(
        ": names in the file begin with '{}', so say on the card \"keys\": [{{\"network\": \"*\", \"file\": [\"{first}*\"]}}] \
         under weights",
        prefixes.join("' or '")
    )
}

/// Names that a message has room for.
const NAMED: usize = 4;

/// The first of many names.
fn first(names: &[String]) -> String {
    let more = if names.len() > NAMED { ", ..." } else { "" };
    format!("{}{more}", names[..names.len().min(NAMED)].join(", "))
}

/// A pattern that the first of several names fits.
fn pattern(names: &[String]) -> String {
    let name = names.first().map_or("", String::as_str);
    match name.rsplit_once('.') {
        Some((before, _)) => format!("\"{before}.*\""),
        None => format!("\"{name}\""),
    }
}

/// Batch norms count their training batches under this name; inference has no use for it.
pub(crate) const TRAINING_COUNTER: &str = "num_batches_tracked";

/// The bytes of a safetensors file whose header has been checked.
pub(crate) struct Weights<'a> {
    path: PathBuf,
    bytes: Cow<'a, [u8]>,
    used: Mutex<Used>,
}

/// What a network has looked up.
#[derive(Debug, Default)]
struct Used {
    /// The file's names.
    tensors: BTreeSet<String>,
    /// Places of the rules that led there.
    rules: BTreeSet<usize>,
}

/// A poisoned lock belongs to a thread whose panic is the one to report.
fn lock(used: &Mutex<Used>) -> MutexGuard<'_, Used> {
    used.lock().unwrap_or_else(PoisonError::into_inner)
}

impl<'a> Weights<'a> {
    /// Reads and checks the file.
    pub(crate) fn read(card: &ModelCard, path: &Path) -> Result<Weights<'static>, EngineError> {
        Weights::checked(card, path, Cow::Owned(read_file(card, path)?))
    }

    /// Checks the bytes of the file at `path`.
    pub(crate) fn of(card: &ModelCard, path: &Path, bytes: &'a [u8]) -> Result<Self, EngineError> {
        Self::checked(card, path, Cow::Borrowed(bytes))
    }

    fn checked(card: &ModelCard, path: &Path, bytes: Cow<'a, [u8]>) -> Result<Self, EngineError> {
        let wrap = |source| EngineError::Weights {
            model: card.name.clone(),
            path: path.to_owned(),
            source,
        };
        parse(&bytes).map_err(wrap)?;
        Ok(Self {
            path: path.to_owned(),
            bytes,
            used: Mutex::default(),
        })
    }

    /// Refuses tensors that the network built from this file did not look up and that the card does not list, and rules of
    /// the card that led nowhere: what is left over makes the file another network's.
    pub(crate) fn check_used(&self, source: &WeightsSource) -> Result<(), WeightsError> {
        let used = lock(&self.used);
        let mut rules = source.keys.iter().enumerate();
        if let Some((_, rule)) = rules.find(|(place, _)| !used.rules.contains(place)) {
            return Err(WeightsError::UnusedRule {
                network: rule.network.clone(),
            });
        }
        let counter = |name: &str| name.rsplit('.').next() == Some(TRAINING_COUNTER);
        let listed = |name: &str| source.ignore.iter().any(|p| wildcard(p, name).is_some());
        let mut tensors: Vec<String> = parse(&self.bytes)?
            .names()
            .into_iter()
            .filter(|&name| !used.tensors.contains(name) && !counter(name) && !listed(name))
            .map(ToOwned::to_owned)
            .collect();
        if tensors.is_empty() {
            return Ok(());
        }
        tensors.sort_unstable();
        Err(WeightsError::Unused { tensors })
    }

    /// The content digest; see [`content_digest`].
    pub(crate) fn digest(&self) -> String {
        // The header parsed when the file was read, so the error cannot occur; an empty digest matches no card.
        content_digest(&self.bytes).unwrap_or_default()
    }

    /// The tensors by the network's names, which `rules` lead to the file's.
    pub(crate) fn tensors<'t>(&'t self, rules: &'t [KeyRule]) -> Result<Tensors<'t>, WeightsError> {
        Ok(Tensors {
            file: parse(&self.bytes)?,
            rules,
            used: &self.used,
        })
    }

    /// Where the bytes came from.
    pub(crate) fn path(&self) -> &Path {
        &self.path
    }
}

/// Reads a model's file, if it is not too large.
pub(crate) fn read_file(card: &ModelCard, path: &Path) -> Result<Vec<u8>, EngineError> {
    let unreadable = |source| EngineError::Unreadable {
        model: card.name.clone(),
        path: path.to_owned(),
        packaged: card.weights.package.is_some(),
        source,
    };
    let file = File::open(path).map_err(unreadable)?;
    let length = file.metadata().map_err(unreadable)?.len();
    if length > MAX_FILE_BYTES {
        return Err(EngineError::Weights {
            model: card.name.clone(),
            path: path.to_owned(),
            source: WeightsError::TooLarge {
                bytes: length,
                limit: MAX_FILE_BYTES,
            },
        });
    }
    let mut bytes = Vec::with_capacity(length as usize);
    // The limit holds even for a file that grows while it is read.
    file.take(MAX_FILE_BYTES)
        .read_to_end(&mut bytes)
        .map_err(unreadable)?;
    Ok(bytes)
}

/// SHA-256 of bytes, lower-case hex.
pub(crate) fn sha256(bytes: &[u8]) -> String {
    hex(&Sha256::digest(bytes))
}

/// Checked access to f32 tensors by the network's names.
pub(crate) struct Tensors<'a> {
    file: SafeTensors<'a>,
    rules: &'a [KeyRule],
    used: &'a Mutex<Used>,
}

impl Tensors<'_> {
    /// The names under which the file keeps `tensor`.
    fn stored(&self, tensor: &str) -> Vec<String> {
        let fit = |(place, rule): (usize, &KeyRule)| {
            let any = wildcard(&rule.network, tensor)?;
            lock(self.used).rules.insert(place);
            Some(rule.file.iter().map(|name| name.replacen('*', any, 1)).collect())
        };
        self.rules
            .iter()
            .enumerate()
            .find_map(fit)
            .unwrap_or_else(|| vec![tensor.to_owned()])
    }

    fn view(&self, stored: &str) -> Result<TensorView<'_>, WeightsError> {
        let Ok(view) = self.file.tensor(stored) else {
            let mut prefixes: Vec<String> = self
                .file
                .names()
                .into_iter()
                .filter_map(|name| name.strip_suffix(stored))
                .filter(|prefix| prefix.ends_with('.'))
                .map(ToOwned::to_owned)
                .collect();
            prefixes.sort_unstable();
            prefixes.truncate(NAMED);
            return Err(WeightsError::Missing {
                tensor: stored.to_owned(),
                prefixes,
            });
        };
        lock(self.used).tensors.insert(stored.to_owned());
        Ok(view)
    }

    /// The words that `tensor` holds as a JSON list, byte by byte; none where there is no such tensor.
    pub(crate) fn words(&self, tensor: &str) -> Result<Vec<String>, WeightsError> {
        if self.file.tensor(tensor).is_err() {
            return Ok(Vec::new());
        }
        let view = self.view(tensor)?;
        if view.dtype() != Dtype::U8 {
            return Err(WeightsError::WrongType {
                tensor: tensor.to_owned(),
                found: format!("{:?}", view.dtype()),
                needs: "U8",
            });
        }
        serde_json::from_slice(view.data()).map_err(|error| WeightsError::Malformed {
            reason: format!("tensor {tensor}: {error}"),
            bytes: view.data().len(),
        })
    }

    /// The values of `tensor`, row-major, all finite, if it holds floats and has exactly `shape`.
    pub(crate) fn f32(&self, tensor: &str, shape: &[usize]) -> Result<Vec<f32>, WeightsError> {
        self.read(tensor, shape).map(|(values, _)| values)
    }

    /// The values and the shape of `tensor`; where `shape` is 0, any length will do.
    pub(crate) fn read(&self, tensor: &str, shape: &[usize]) -> Result<(Vec<f32>, Vec<usize>), WeightsError> {
        let names = self.stored(tensor);
        let mut views = Vec::with_capacity(names.len());
        let mut found: Vec<usize> = Vec::new();
        for name in &names {
            let view = self.view(name)?;
            match (found.split_first_mut(), view.shape().split_first()) {
                (None, _) if views.is_empty() => found = view.shape().to_vec(),
                // A tensor without values may say it has any length.
                (Some((first, rest)), Some((more, other))) if rest == other => {
                    *first = first.saturating_add(*more)
                }
                _ => {
                    return Err(WeightsError::WrongShape {
                        tensor: name.clone(),
                        found: view.shape().to_vec(),
                        expected: found,
                    });
                }
            }
            views.push((name, view));
        }
        let agrees = found.len() == shape.len() && found.iter().zip(shape).all(|(f, s)| *s == 0 || f == s);
        if !agrees {
            return Err(WeightsError::WrongShape {
                tensor: names.join(" + "),
                found,
                expected: shape.to_vec(),
            });
        }
        let mut values = Vec::with_capacity(found.iter().product());
        for (name, view) in views {
            let before = values.len();
            floats(name, &view, &mut values)?;
            if let Some(offset) = values[before..].iter().position(|v| !v.is_finite()) {
                return Err(WeightsError::BadValue {
                    tensor: name.clone(),
                    offset,
                    value: values[before + offset].to_string(),
                });
            }
        }
        Ok((values, found))
    }
}

/// What the `*` of `pattern` stands for in `name`, if the pattern fits: empty where it has none.
fn wildcard<'n>(pattern: &str, name: &'n str) -> Option<&'n str> {
    match pattern.split_once('*') {
        None => (pattern == name).then_some(""),
        Some((before, after)) => name.strip_prefix(before)?.strip_suffix(after),
    }
}

/// Appends the values of a tensor of floats.
fn floats(name: &str, view: &TensorView<'_>, to: &mut Vec<f32>) -> Result<(), WeightsError> {
    let halves = || view.data().as_chunks::<2>().0.iter();
    match view.dtype() {
        Dtype::F32 => to.extend(
            view.data()
                .as_chunks::<4>()
                .0
                .iter()
                .map(|&b| f32::from_le_bytes(b)),
        ),
        Dtype::BF16 => to.extend(halves().map(|&b| f32::from_bits(u32::from(u16::from_le_bytes(b)) << 16))),
        Dtype::F16 => to.extend(halves().map(|&b| half(u16::from_le_bytes(b)))),
        other => {
            return Err(WeightsError::WrongType {
                tensor: name.to_owned(),
                found: format!("{other:?}"),
                needs: "F32, F16 or BF16",
            });
        }
    }
    Ok(())
}

/// An IEEE 754 half as a single; exact.
fn half(bits: u16) -> f32 {
    let (sign, exponent, fraction) = (bits >> 15, (bits >> 10) & 31, f32::from(bits & 1023));
    let size = match exponent {
        0 => fraction * 2f32.powi(-24),
        31 if fraction == 0.0 => f32::INFINITY,
        31 => f32::NAN,
        _ => (1024.0 + fraction) * 2f32.powi(i32::from(exponent) - 25),
    };
    if sign == 1 { -size } else { size }
}

/// The nearest IEEE 754 half, of two as near the even one; infinite beyond 65504.
pub(crate) fn to_half(value: f32) -> u16 {
    let bits = value.to_bits();
    let sign = (bits >> 16 & 0x8000) as u16;
    let size = f32::from_bits(bits & 0x7fff_ffff);
    if size.is_nan() {
        return sign | 0x7e00;
    }
    // 65520 lies half way between the largest half and the next power of two.
    if size >= 65_520.0 {
        return sign | 0x7c00;
    }
    if size < 6.103_515_6e-5 {
        // Below the smallest normal half, halves are 2^-24 apart; adding 2^23 rounds to a whole number of them.
        let steps = size * 16_777_216.0 + 8_388_608.0;
        return sign | (steps.to_bits() & 0x7fff) as u16;
    }
    // 13 bits of the fraction go; ties go to the even neighbour. A carry raises the exponent, as it should.
    let bits = size.to_bits() - (112 << 23);
    let rounded = bits + 0xfff + (bits >> 13 & 1);
    sign | (rounded >> 13) as u16
}

/// Parses the header and checks that it covers the data exactly.
fn parse(bytes: &[u8]) -> Result<SafeTensors<'_>, WeightsError> {
    SafeTensors::deserialize(bytes).map_err(|error| WeightsError::Malformed {
        reason: error.to_string(),
        bytes: bytes.len(),
    })
}

/// SHA-256 of the content of a safetensors file, lower-case hex: over the tensors in the order of their names, for
/// each the name, the type, the shape and the data, every text and every block preceded by its length and every
/// number as 64 bits, little-endian. Comments and order of the header do not enter.
///
/// # Errors
/// [`WeightsError::Malformed`] where `bytes` is no safetensors file.
pub fn content_digest(bytes: &[u8]) -> Result<String, WeightsError> {
    let file = parse(bytes)?;
    let mut tensors: Vec<_> = file.iter().collect();
    tensors.sort_by_key(|(name, _)| *name);
    let mut hash = Sha256::new();
    let number = |hash: &mut Sha256, n: usize| hash.update((n as u64).to_le_bytes());
    for (name, view) in tensors {
        let dtype = format!("{:?}", view.dtype());
        for text in [name, &dtype] {
            number(&mut hash, text.len());
            hash.update(text.as_bytes());
        }
        number(&mut hash, view.shape().len());
        for &dimension in view.shape() {
            number(&mut hash, dimension);
        }
        number(&mut hash, view.data().len());
        hash.update(view.data());
    }
    Ok(hex(&hash.finalize()))
}

/// Lower-case hex.
fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|b| format!("{b:02x}")).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn halves_are_exact() {
        for (bits, value) in [
            (0x0000, 0.0),
            (0x3c00, 1.0),
            (0xc000, -2.0),
            (0x7bff, 65504.0),
            (0x0001, 5.960_464_5e-8),
            (0x0400, 6.103_515_6e-5),
            (0xfc00, f32::NEG_INFINITY),
        ] {
            assert_eq!(half(bits), value, "{bits:04x}");
        }
        assert!(half(0x7e00).is_nan());
    }

    #[test]
    fn the_nearest_half_is_found() {
        for bits in 0..=u16::MAX {
            let value = half(bits);
            if !value.is_nan() {
                assert_eq!(to_half(value), bits, "{value}");
            }
            // Between two neighbours of one sign: just below, at and just above the middle.
            let next = half(bits.wrapping_add(1));
            if value.is_finite() && next.is_finite() && bits & 0x7fff != 0x7fff {
                let middle = (value + next) / 2.0;
                let even = if bits & 1 == 0 { bits } else { bits + 1 };
                assert_eq!(to_half(middle), even, "{middle}");
                let (towards_zero, away) = (middle.abs().next_down(), middle.abs().next_up());
                let sign = bits & 0x8000;
                assert_eq!(to_half(towards_zero) | sign, bits, "{towards_zero}");
                assert_eq!(to_half(away) | sign, bits + 1, "{away}");
            }
        }
        assert!(half(to_half(f32::NAN)).is_nan());
        for (value, bits) in [
            (65_519.9, 0x7bff),
            (65_520.0, 0x7c00),
            (f32::NEG_INFINITY, 0xfc00),
            (1e-9, 0),
        ] {
            assert_eq!(to_half(value), bits, "{value}");
        }
    }

    #[test]
    fn a_rule_fits_what_its_star_allows() {
        assert_eq!(wildcard("blocks.*.qkv", "blocks.11.qkv"), Some("11"));
        assert_eq!(wildcard("*", "norm.weight"), Some("norm.weight"));
        assert_eq!(wildcard("norm.weight", "norm.weight"), Some(""));
        assert_eq!(wildcard("norm.weight", "norm.bias"), None);
        assert_eq!(wildcard("ab*ba", "aba"), None);
    }

    #[test]
    fn names_lead_to_the_file_and_parts_are_joined() {
        let part = |values: &[f32]| values.iter().flat_map(|v| v.to_le_bytes()).collect::<Vec<u8>>();
        let (q, k) = (part(&[1.0, 2.0]), part(&[3.0, 4.0, 5.0, 6.0]));
        let views = [
            ("layer.3.q", TensorView::new(Dtype::F32, vec![1, 2], &q).unwrap()),
            ("layer.3.k", TensorView::new(Dtype::F32, vec![2, 2], &k).unwrap()),
        ];
        let bytes = safetensors::serialize(views, None).unwrap();
        let rules = [KeyRule {
            network: "blocks.*.qkv".into(),
            file: vec!["layer.*.q".into(), "layer.*.k".into()],
        }];
        let tensors = Tensors {
            file: parse(&bytes).unwrap(),
            rules: &rules,
            used: &Mutex::default(),
        };
        assert_eq!(
            tensors.f32("blocks.3.qkv", &[3, 2]).unwrap(),
            [1., 2., 3., 4., 5., 6.]
        );
        let (_, shape) = tensors.read("blocks.3.qkv", &[0, 2]).unwrap();
        assert_eq!(shape, [3, 2]);
        let wrong = tensors.f32("blocks.3.qkv", &[2, 2]).unwrap_err();
        assert!(matches!(wrong, WeightsError::WrongShape { .. }), "{wrong}");
        let missing = tensors.f32("blocks.4.qkv", &[3, 2]).unwrap_err();
        assert!(
            matches!(&missing, WeightsError::Missing { tensor, .. } if tensor == "layer.4.q"),
            "{missing}"
        );
        assert_eq!(tensors.f32("layer.3.q", &[1, 2]).unwrap(), [1.0, 2.0]);
    }
}
