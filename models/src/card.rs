//! The model card: everything that fixes the numbers a model gives, in one serialisable record.
//!
//! Enters: a JSON card (the built-in ones lie in `cards/`). Leaves: [`ModelCard`]. An unknown key or a missing
//! one is a parse error, never a default.

use std::sync::LazyLock;

use serde::{Deserialize, Serialize};

/// What a model is, where its weights come from, what it wants and what it gives.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct ModelCard {
    /// Name on the command line and in result files, for example `efficientnet-lite0`.
    pub name: String,
    /// Version of the card: it changes whenever the same image may give another embedding.
    pub version: String,
    /// The network.
    pub architecture: Architecture,
    /// Where the weights come from, and how they are recognised.
    pub weights: WeightsSource,
    /// Licence of the weights, SPDX.
    pub licence: String,
    /// What an image must be before it is embedded.
    pub input: InputContract,
    /// How a field of several channels becomes inputs.
    pub channel_policy: ChannelPolicy,
    /// How a field larger than the input becomes inputs.
    pub tiling: TilingPolicy,
    /// How the last feature map becomes the embedding.
    pub pooling: Pooling,
    /// Values per embedding.
    pub embedding_width: usize,
    /// The image an engine must embed correctly before it may serve.
    pub canary: Canary,
}

/// The networks the engines know.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
#[non_exhaustive]
pub enum Architecture {
    /// EfficientNet-Lite0: inverted residuals without squeeze-and-excitation, ReLU6 (Tan and Le 2019, Lite variant
    /// of 2020).
    EfficientnetLite0,
}

/// Where weights come from, and how they are recognised.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct WeightsSource {
    /// Python package that carries the published checkpoint.
    pub package: String,
    /// Its version.
    pub package_version: String,
    /// The wheel's file name.
    pub package_file: String,
    /// SHA-256 of the wheel, lower-case hex.
    pub package_sha256: String,
    /// Path of the checkpoint inside the wheel.
    pub checkpoint: String,
    /// SHA-256 of the checkpoint, lower-case hex.
    pub checkpoint_sha256: String,
    /// Digest of the converted tensors (names, types, shapes and data; see [`crate::content_digest`]), lower-case
    /// hex. It does not depend on the order or the comments of the safetensors header, so that every faithful
    /// conversion has the same one.
    pub content_sha256: String,
}

/// What an image must be before it is embedded: grey levels 0..255, `height` x `width`.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct InputContract {
    /// Channels of the network's own input.
    pub channels: usize,
    /// Rows, pixels.
    pub height: usize,
    /// Columns, pixels.
    pub width: usize,
    /// Multiplies a grey level before `mean` and `std` apply.
    pub scale: f32,
    /// Subtracted from the scaled level: the engine computes `(level * scale - mean) / std`.
    pub mean: f32,
    /// Divides what is left.
    pub std: f32,
    /// Padding rule of the convolutions.
    pub padding: Padding,
}

/// Padding rule of the convolutions.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
#[non_exhaustive]
pub enum Padding {
    /// TensorFlow's `SAME`: output `ceil(n / stride)`, the odd pixel of padding after the image.
    TfSame,
}

/// How a field of several channels becomes inputs.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
#[non_exhaustive]
pub enum ChannelPolicy {
    /// Each channel by itself, replicated to the network's channels; the embeddings are concatenated in channel
    /// order. A [`crate::Batch`] then has one channel.
    ReplicateAndConcatenate,
}

/// How a field larger than the input becomes inputs.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
#[non_exhaustive]
pub enum TilingPolicy {
    /// A centred grid of non-overlapping crops of the input size, embedded each and averaged to the field.
    CentredGridMean,
}

/// How the last feature map becomes the embedding.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
#[non_exhaustive]
pub enum Pooling {
    /// The mean over all positions, one value per channel.
    GlobalMean,
}

/// A synthetic image and the embedding it must give.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Canary {
    /// The formula of the image.
    pub image: CanaryImage,
    /// Its embedding by the reference implementation; `embedding_width` values.
    pub embedding: Vec<f32>,
}

/// Formulas of canary images, over the input size of the card.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
#[non_exhaustive]
pub enum CanaryImage {
    /// Round blobs on a ramp, in whole numbers so that every machine computes the same image: with
    /// `dx = x mod 32 - 16`, `dy = y mod 32 - 16`, `r2 = dx^2 + dy^2` and `k = (x / 32 * 7 + y / 32 * 13) mod 11`,
    /// the level is `(x + y) * 40 / (height + width)`, plus, where `r2 < (k + 4)^2`,
    /// `160 - 160 * r2 / (k + 4)^2 + 5 * ((x * 31 + y * 17) mod 8)`, all divisions rounding down.
    BlobsOnARamp,
}

/// The built-in cards.
static CARDS: LazyLock<Vec<ModelCard>> = LazyLock::new(|| {
    [include_str!("../cards/efficientnet-lite0.json")]
        .into_iter()
        .map(|text| match serde_json::from_str(text) {
            Ok(card) => card,
            // The text is part of the binary and a test parses it, so this is unreachable in a tested build.
            Err(error) => panic!("a built-in model card does not parse: {error}"),
        })
        .collect()
});

/// The models this build knows by name, in a fixed order.
pub fn cards() -> &'static [ModelCard] {
    &CARDS
}

/// The built-in card called `name`.
pub fn find_card(name: &str) -> Option<&'static ModelCard> {
    cards().iter().find(|card| card.name == name)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn built_in_cards_parse_and_hold_together() {
        for card in cards() {
            assert_eq!(card.canary.embedding.len(), card.embedding_width, "{}", card.name);
            for digest in [
                &card.weights.package_sha256,
                &card.weights.checkpoint_sha256,
                &card.weights.content_sha256,
            ] {
                assert_eq!(digest.len(), 64, "{}", card.name);
                assert!(
                    digest
                        .bytes()
                        .all(|b| b.is_ascii_digit() || (b'a'..=b'f').contains(&b))
                );
            }
            let text = serde_json::to_string(card).unwrap();
            assert_eq!(&serde_json::from_str::<ModelCard>(&text).unwrap(), card);
        }
        assert!(find_card("efficientnet-lite0").is_some());
        assert!(find_card("no-such-model").is_none());
    }

    #[test]
    fn an_unknown_key_is_refused() {
        let text = include_str!("../cards/efficientnet-lite0.json").replacen("\"licence\"", "\"license\"", 1);
        assert!(serde_json::from_str::<ModelCard>(&text).is_err());
    }
}
