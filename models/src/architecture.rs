//! The networks a card can ask for: what a file of weights does not say about itself.

use serde::{Deserialize, Serialize};

/// The networks the engines know.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
#[non_exhaustive]
pub enum Architecture {
    /// EfficientNet-Lite0: inverted residuals without squeeze-and-excitation, ReLU6 (Tan and Le 2019, Lite variant
    /// of 2020).
    EfficientnetLite0,
    /// EfficientNet-Lite1: as Lite0, 1.1 times as deep.
    EfficientnetLite1,
    /// EfficientNet-Lite2: as Lite0, 1.1 times as wide and 1.2 times as deep.
    EfficientnetLite2,
    /// A vision transformer (Dosovitskiy et al. 2020, arXiv:2010.11929) of any size, with tensors named as timm and
    /// DINO name them; see [`crate::WeightsSource::keys`] for others.
    Vit(VitShape),
    /// A graph in an ONNX file, for the ONNX Runtime engine.
    Onnx(OnnxGraph),
    /// A TorchScript module in a file of PyTorch's, for the libtorch engine: traced, in evaluation mode, not frozen. Its
    /// `forward` takes `[items, channels, height, width]`, f32, and gives `[items, values]`.
    Torchscript,
    /// A map that was fitted on another model's embeddings (`wellspring models fit-head`), served by that model's engine.
    Head(Box<HeadShape>),
}

/// A head: the model it stands on, what it makes of that model's embedding, and how it was fitted.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct HeadShape {
    /// The model it stands on, and no other.
    pub base: BaseModel,
    /// The channels it was fitted on, in their order; empty where nothing named them.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub channels: Vec<String>,
    /// What leaves it.
    pub map: HeadMap,
    /// How it came about.
    pub fit: HeadFit,
}

/// The model that a head stands on.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct BaseModel {
    /// Its name.
    pub name: String,
    /// The version of its card.
    pub version: String,
    /// The digest of its weights, as on its card.
    pub content_sha256: String,
}

/// What leaves a head.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
#[non_exhaustive]
pub enum HeadMap {
    /// Principal components of the controls, each divided by its SD.
    WhitenedComponents {
        /// How many.
        components: usize,
    },
    /// As many features as the base has, whitened.
    WhitenedFeatures {
        /// Directions in which the controls' variance is known.
        components: usize,
    },
    /// A score for each class of controls: a linear probe.
    Classes {
        /// Their names, in the order of the scores.
        names: Vec<String>,
    },
}

/// How a head was fitted, for people and for the record.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct HeadFit {
    /// What the profiles are of: the run, or the screen and its tables.
    pub from: String,
    /// The method, for example `zca-cor`.
    pub method: String,
    /// Which control wells.
    pub controls: String,
    /// Plates.
    pub plates: usize,
    /// Wells.
    pub wells: usize,
    /// Share of the identity in the covariance, of a whitening.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub shrinkage: Option<f64>,
    /// Ridge of a probe, as a share of the mean squared singular value.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub ridge: Option<f64>,
    /// How a probe's wells were held out.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub held_out: Option<String>,
    /// Mean over a probe's classes of the share of held-out wells that it finds again.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub balanced_accuracy: Option<f64>,
}

/// The shape of a vision transformer.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct VitShape {
    /// Side of a patch, pixels.
    pub patch: usize,
    /// Channels of a token.
    pub width: usize,
    /// Number of blocks.
    pub depth: usize,
    /// Attention heads; divides `width`.
    pub heads: usize,
    /// Channels inside the perceptrons.
    pub mlp_width: usize,
    /// What the perceptrons apply between their two matrices.
    #[serde(default, skip_serializing_if = "MlpActivation::is_gelu")]
    pub activation: MlpActivation,
    /// Added to the variance in layer norms.
    pub norm_epsilon: f32,
    /// Whether a class token stands before the others.
    pub class_token: bool,
    /// Register tokens (Darcet et al. 2023, arXiv:2309.16588) after the class token.
    pub registers: usize,
    /// Where tokens learn their place from.
    pub positions: Positions,
    /// How a block is built.
    pub block: VitBlock,
    /// Whether a learned scale per channel is multiplied into what a block adds (LayerScale, Touvron et al. 2021,
    /// arXiv:2103.17239).
    pub layer_scale: bool,
    /// Whether the last tokens pass a layer norm before they are pooled.
    pub final_norm: bool,
}

/// What a perceptron applies between its two matrices.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
#[non_exhaustive]
pub enum MlpActivation {
    /// `x/2 (1 + erf(x / sqrt 2))` (Hendrycks and Gimpel 2016, arXiv:1606.08415).
    #[default]
    Gelu,
    /// `x / (1 + e^-x)` (the same paper; Ramachandran et al. 2017, arXiv:1710.05941, call it swish).
    Silu,
}

impl MlpActivation {
    fn is_gelu(&self) -> bool {
        *self == Self::Gelu
    }
}

/// Where tokens learn their place from.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
#[non_exhaustive]
pub enum Positions {
    /// Learned, and resampled where the input is not of the size that was trained on.
    Learned(Interpolation),
    /// Fixed: `[sin h, cos h, sin w, cos w]`, a quarter of the channels each, frequency i being `10000^(-4i/width)`;
    /// the same for every channel of the image, none for the class token.
    SinCos,
}

/// How learned positions are resampled. All are bicubic, without aligned corners, as PyTorch does it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
#[non_exhaustive]
pub enum Interpolation {
    /// timm, DINOv2 with registers: with antialiasing (cubic with a = -0.5).
    Antialiased,
    /// Without antialiasing (cubic with a = -0.75).
    Plain,
    /// DINO and DINOv2 without registers: as `plain`, with the scale computed for 0.1 patches more.
    PlainOffset,
}

/// How a block of a vision transformer is built.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
#[non_exhaustive]
pub enum VitBlock {
    /// Attention, then the perceptron, each on a layer norm and added to what came in.
    Sequential,
    /// Both at once on one layer norm (timm's `ParallelScalingBlock`, after Dehghani et al. 2023, arXiv:2302.05442).
    /// One matrix gives, in this order, the perceptron's channels, queries, keys and values; queries and keys pass a
    /// layer norm for each head; only the perceptron's channels have a bias, `mlp_bias`.
    ParallelScaling(MlpBias),
}

/// Which outputs of a parallel block's one matrix `mlp_bias` is added to.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
#[non_exhaustive]
pub enum MlpBias {
    /// The first ones: those of the perceptron, as the paper has it, and timm since it was put right there.
    First,
    /// The last ones. timm long put the zeros of queries, keys and values before `mlp_bias` although the perceptron's
    /// outputs come first: networks trained with it so (OpenPhenom's authors pin timm 0.9.7, which does) need this to give
    /// the embeddings of their own code.
    Last,
}

/// The ends of an ONNX graph. The input is `[items, channels, height, width]`, the output `[items, values]`, both f32.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct OnnxGraph {
    /// Name of the input.
    pub input: String,
    /// Name of the output with the embeddings.
    pub output: String,
}
