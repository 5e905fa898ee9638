//! The model card: everything that fixes the numbers a model gives, in one serialisable record.
//!
//! Enters: a JSON card (the built-in ones lie in `cards/`). Leaves: [`ModelCard`]. An unknown key or a missing
//! one is a parse error, never a default.

use std::sync::LazyLock;

use serde::{Deserialize, Serialize};
use sha2::{Digest, Sha256};

use crate::architecture::Architecture;

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
    /// Licence of the weights, SPDX (`LicenseRef-` and a name where SPDX has none).
    pub licence: String,
    /// What the licence asks of those who use the weights, where that is more than naming the authors.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub terms: Option<String>,
    /// What an image must be before it is embedded.
    pub input: InputContract,
    /// How a field of several channels becomes inputs.
    pub channel_policy: ChannelPolicy,
    /// How a field larger than the input becomes inputs.
    pub tiling: TilingPolicy,
    /// How the last feature map or the last tokens become the embedding.
    pub pooling: Pooling,
    /// Values per embedding; with [`Pooling::PatchMeanPerChannel`] per channel of the image.
    pub embedding_width: usize,
    /// The image an engine must embed correctly before it may serve.
    pub canary: Canary,
}

/// Where weights come from, and how they are recognised.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct WeightsSource {
    /// Where the authors publish them, for people.
    pub uri: String,
    /// Digest of the tensors (names, types, shapes and data; see [`crate::content_digest`]), lower-case hex. It does not
    /// depend on the order or the comments of the safetensors header, so that every faithful conversion has the same
    /// one. For an ONNX file or a TorchScript module the SHA-256 of the file.
    pub content_sha256: String,
    /// The public Python package that carries them; absent where the user supplies the file.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub package: Option<WeightsPackage>,
    /// Where the file's names differ from the network's; the first rule that fits a name counts, and a name that none
    /// fits is looked up as it is.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub keys: Vec<KeyRule>,
    /// Names in the file, one `*` standing for any text, that the network does not use and that may be there all the same:
    /// a classifier, a mask token. A tensor that is neither used nor listed makes the file another network's.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub ignore: Vec<String>,
}

/// A Python package that carries a checkpoint.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct WeightsPackage {
    /// Its name.
    pub name: String,
    /// Its version.
    pub version: String,
    /// The wheel's file name.
    pub file: String,
    /// SHA-256 of the wheel, lower-case hex.
    pub sha256: String,
    /// Path of the checkpoint inside the wheel.
    pub checkpoint: String,
    /// SHA-256 of the checkpoint, lower-case hex.
    pub checkpoint_sha256: String,
}

/// Under which names a file keeps what the network calls otherwise.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct KeyRule {
    /// The network's name; one `*` stands for any text.
    pub network: String,
    /// The file's names, with `*` for that text. Several tensors are joined along their first dimension, as where
    /// queries, keys and values are apart.
    pub file: Vec<String>,
}

/// What an image must be before it is embedded: grey levels 0..255, `height` x `width`.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct InputContract {
    /// Channels of the network's own input: those of its first convolution.
    pub channels: usize,
    /// Rows, pixels.
    pub height: usize,
    /// Columns, pixels.
    pub width: usize,
    /// Multiplies a grey level before the normalisation.
    pub scale: f32,
    /// What is done to scaled levels.
    pub normalisation: Normalisation,
    /// Padding rule of the convolutions.
    pub padding: Padding,
}

/// What is done to scaled grey levels `y` before the first layer.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case", deny_unknown_fields)]
#[non_exhaustive]
pub enum Normalisation {
    /// `(y - mean) / std`, with one value for all channels or one for each.
    Fixed {
        /// Subtracted.
        mean: Vec<f32>,
        /// Divides what is left.
        std: Vec<f32>,
    },
    /// Each channel of each image by its own mean and population variance. A constant channel becomes 0.
    Image {
        /// Keeps the division from 0.
        epsilon: f32,
        /// Where `epsilon` is added.
        added_to: EpsilonPlace,
    },
}

/// Where the small number that keeps a division from 0 is added.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
#[non_exhaustive]
pub enum EpsilonPlace {
    /// `(y - mean) / sqrt(variance + epsilon)`: instance norm, as in OpenPhenom.
    Variance,
    /// `(y - mean) / (deviation + epsilon)`: as in Cell-DINO.
    Deviation,
}

/// Padding rule of the convolutions.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
#[non_exhaustive]
pub enum Padding {
    /// TensorFlow's `SAME`: output `ceil(n / stride)`, the odd pixel of padding after the image.
    TfSame,
    /// None: patches that cover the image side by side.
    None,
}

/// How a field of several channels becomes inputs.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
#[non_exhaustive]
pub enum ChannelPolicy {
    /// Each channel by itself, replicated to the network's channels; the embeddings are concatenated in channel
    /// order. A [`crate::Batch`] then has one channel.
    ReplicateAndConcatenate,
    /// All channels in one image, each in patches of its own through the same first convolution of one channel.
    ChannelAgnostic {
        /// Most channels of an image.
        most: usize,
    },
    /// All channels in one image, for a first convolution that was trained on `input.channels`: channel c of the image
    /// meets the weights of channel c mod `input.channels`, times `input.channels / channels` (as timm adapts them).
    FirstConvolution {
        /// Channels of an image.
        channels: usize,
    },
    /// All channels in one image, exactly those that a head was fitted on and in that order.
    Fitted {
        /// Channels of an image.
        channels: usize,
    },
}

/// How a field larger than the input becomes inputs.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
#[non_exhaustive]
pub enum TilingPolicy {
    /// A centred grid of non-overlapping crops of the input size, embedded each and averaged to the field.
    CentredGridMean,
}

/// How the last feature map or the last tokens become the embedding.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
#[non_exhaustive]
pub enum Pooling {
    /// The mean over all positions of the last feature map, one value per channel.
    GlobalMean,
    /// The class token.
    ClassToken,
    /// The mean of the tokens of all patches.
    PatchMean,
    /// The class token, then the mean of the tokens of all patches.
    ClassTokenAndPatchMean,
    /// The mean of the tokens of each image channel's patches, channel after channel.
    PatchMeanPerChannel,
    /// What a head makes of its base's embedding.
    Head,
}

impl ModelCard {
    /// SHA-256, in lower-case hex, of everything in the card that decides which embedding an image gets, besides the
    /// weights: not where they are published, their licence, or the canary.
    pub fn contract_sha256(&self) -> String {
        let contract = serde_json::to_string(&(
            &self.architecture,
            &self.weights.keys,
            &self.input,
            &self.channel_policy,
            &self.tiling,
            &self.pooling,
            &self.embedding_width,
        ));
        // Cards are read from JSON, so that they can be written; the fallback is never taken.
        let contract = contract.unwrap_or_else(|_| format!("{self:?}"));
        Sha256::digest(contract.as_bytes())
            .iter()
            .map(|byte| format!("{byte:02x}"))
            .collect()
    }

    /// The channels of a [`crate::Batch`] for an image of `channels`, and how many items of a batch such an image
    /// becomes: one with all channels, or one for each. `None` where the model does not take so many.
    pub fn items_for(&self, channels: usize) -> Option<(usize, usize)> {
        match self.channel_policy {
            ChannelPolicy::ReplicateAndConcatenate => (channels > 0).then_some((1, channels)),
            ChannelPolicy::ChannelAgnostic { most } => {
                (1..=most).contains(&channels).then_some((channels, 1))
            }
            ChannelPolicy::FirstConvolution { channels: own } | ChannelPolicy::Fitted { channels: own } => {
                (channels == own).then_some((channels, 1))
            }
        }
    }

    /// Values of the embedding of one batch item of `channels` channels.
    pub fn item_width(&self, channels: usize) -> usize {
        match self.pooling {
            Pooling::PatchMeanPerChannel => self.embedding_width.saturating_mul(channels),
            _ => self.embedding_width,
        }
    }

    /// Values of the embedding of an image of `channels`: what a field's profile has. `None` where the model does not
    /// take so many channels.
    pub fn image_width(&self, channels: usize) -> Option<usize> {
        let (per_item, items) = self.items_for(channels)?;
        self.item_width(per_item).checked_mul(items)
    }

    /// Names of the channels that a head was fitted on, in their order; empty for other models, and for a head whose
    /// features came without names of channels.
    pub fn fitted_channels(&self) -> &[String] {
        match &self.architecture {
            Architecture::Head(shape) => &shape.channels,
            _ => &[],
        }
    }

    /// The channels of the card's canary: one, or as many as the first convolution is adapted to, or two.
    pub(crate) fn canary_channels(&self) -> usize {
        match self.channel_policy {
            ChannelPolicy::ReplicateAndConcatenate => 1,
            // Two, so that an engine that confuses channels or their order fails.
            ChannelPolicy::ChannelAgnostic { most } => most.min(2),
            ChannelPolicy::FirstConvolution { channels } | ChannelPolicy::Fitted { channels } => channels,
        }
    }
}

/// A synthetic image and the embedding it must give.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Canary {
    /// The formula of the image.
    pub image: CanaryImage,
    /// Its embedding by the reference implementation: `embedding_width` values, for a model that gives so many for each
    /// channel those of all channels of the image.
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
    /// `160 - 160 * r2 / (k + 4)^2 + 5 * ((x * 31 + y * 17) mod 8)`, all divisions rounding down. Where an image has
    /// several channels, channel c has x + 5c in the place of x, except in the ramp.
    BlobsOnARamp,
}

/// A part of a card as the card has it, for messages.
pub(crate) fn as_written(part: &impl Serialize) -> String {
    // Parts of cards are read from JSON, so that they can be written.
    let text = serde_json::to_string(part).unwrap_or_default();
    text.trim_matches('"').to_owned()
}

/// The built-in cards.
static CARDS: LazyLock<Vec<ModelCard>> = LazyLock::new(|| {
    parse(&[
        include_str!("../cards/efficientnet-lite0.json"),
        include_str!("../cards/efficientnet-lite1.json"),
        include_str!("../cards/efficientnet-lite2.json"),
    ])
});

/// The built-in templates.
static TEMPLATES: LazyLock<Vec<ModelCard>> = LazyLock::new(|| {
    parse(&[
        include_str!("../cards/templates/timm-vit-s16.json"),
        include_str!("../cards/templates/timm-vit-b16.json"),
        include_str!("../cards/templates/dino-vit-s16.json"),
        include_str!("../cards/templates/dino-vit-b16.json"),
        include_str!("../cards/templates/dinov2-vit-s14.json"),
        include_str!("../cards/templates/dinov2-vit-b14.json"),
        include_str!("../cards/templates/dinov2-vit-s14-registers.json"),
        include_str!("../cards/templates/dinov2-vit-b14-registers.json"),
        include_str!("../cards/templates/openphenom.json"),
        include_str!("../cards/templates/openphenom-timm-0.9.json"),
    ])
});

fn parse(texts: &[&str]) -> Vec<ModelCard> {
    let card = |text: &&str| match serde_json::from_str(text) {
        Ok(card) => card,
        // The text is part of the binary and a test parses it, so this is unreachable in a tested build.
        Err(error) => panic!("a built-in model card does not parse: {error}"),
    };
    texts.iter().map(card).collect()
}

/// The models this build knows by name, in a fixed order.
pub fn cards() -> &'static [ModelCard] {
    &CARDS
}

/// The built-in card called `name`.
pub fn find_card(name: &str) -> Option<&'static ModelCard> {
    cards().iter().find(|card| card.name == name)
}

/// Cards of published networks whose weights the user brings: all but the digest and the canary's embedding, which
/// [`crate::complete`] fills in.
pub fn templates() -> &'static [ModelCard] {
    &TEMPLATES
}

/// The template called `name`.
pub fn find_template(name: &str) -> Option<&'static ModelCard> {
    templates().iter().find(|card| card.name == name)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::architecture::{MlpBias, VitBlock};

    #[test]
    fn built_in_cards_parse_and_hold_together() {
        for card in cards() {
            let width = card.item_width(card.canary_channels());
            assert_eq!(card.canary.embedding.len(), width, "{}", card.name);
            let package = card.weights.package.iter();
            let digests = package.flat_map(|p| [&p.sha256, &p.checkpoint_sha256]);
            for digest in digests.chain([&card.weights.content_sha256]) {
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
    fn templates_parse_and_are_no_models_yet() {
        for card in templates() {
            assert!(find_card(&card.name).is_none(), "{}", card.name);
            assert!(card.weights.content_sha256.is_empty() && card.canary.embedding.is_empty());
            assert!(card.weights.package.is_none(), "{} would be fetched", card.name);
        }
        let openphenom = find_template("openphenom").unwrap();
        assert!(openphenom.terms.as_ref().unwrap().contains("non-commercial"));
        assert_eq!(openphenom.image_width(5), Some(384));
        assert_eq!(openphenom.items_for(12), None);
        // The two readings of where the perceptron's bias goes, and nothing else.
        let mut other = find_template("openphenom-timm-0.9").unwrap().clone();
        other.name.clone_from(&openphenom.name);
        let bias = |card: &ModelCard| match &card.architecture {
            Architecture::Vit(shape) => shape.block,
            other => panic!("{other:?}"),
        };
        assert_eq!(bias(openphenom), VitBlock::ParallelScaling(MlpBias::First));
        assert_eq!(bias(&other), VitBlock::ParallelScaling(MlpBias::Last));
        other.architecture.clone_from(&openphenom.architecture);
        assert_eq!(&other, openphenom);
        assert_eq!(
            find_template("dino-vit-s16").unwrap().image_width(5),
            Some(5 * 384)
        );
    }

    #[test]
    fn the_contract_is_what_decides_the_embedding_and_nothing_else() {
        let card = find_card("efficientnet-lite0").unwrap();
        let digest = card.contract_sha256();
        assert_eq!(digest.len(), 64);
        let mut told = card.clone();
        told.weights.uri = "elsewhere".to_owned();
        told.licence = "MIT".to_owned();
        told.canary.embedding.clear();
        assert_eq!(told.contract_sha256(), digest);
        let mut scaled = card.clone();
        scaled.input.scale *= 2.0;
        assert_ne!(scaled.contract_sha256(), digest);
        let others = cards().iter().filter(|other| other.name != card.name);
        for other in others {
            assert_ne!(other.contract_sha256(), digest, "{}", other.name);
        }
    }

    #[test]
    fn an_unknown_key_is_refused() {
        let text = include_str!("../cards/efficientnet-lite0.json").replacen("\"licence\"", "\"license\"", 1);
        assert!(serde_json::from_str::<ModelCard>(&text).is_err());
    }
}
