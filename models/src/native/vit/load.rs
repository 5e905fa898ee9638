//! Builds a vision transformer from its tensors, under the names that timm and DINO give them.
//!
//! Enters: a card and the tensors of a weights file. Leaves: a [`Vit`]. Fails with [`BuildError`]: a card that asks for
//! what the network does not do, or a tensor that is missing or wrong. All folding is in f64 and rounds once.

use rayon::prelude::*;

use super::Vit;
use super::check::check;
use super::positions;
use crate::architecture::{MlpActivation, MlpBias, Positions, VitBlock, VitShape};
use crate::card::{ChannelPolicy, ModelCard, Normalisation};
use crate::native::attention::Attention;
use crate::native::gemm::{Activation, PackedMatrix};
use crate::prepare::{BuildError, Preparation};
use crate::weights::{Tensors, WeightsError};

/// One block. The layer norms before the matrices have their gains and shifts folded into these.
#[derive(Debug)]
pub(crate) enum Block {
    /// Attention, then the perceptron.
    Sequential {
        qkv: PackedMatrix,
        proj: PackedMatrix,
        fc1: PackedMatrix,
        fc2: PackedMatrix,
    },
    /// Both on one layer norm.
    ParallelScaling {
        mlp_in: PackedMatrix,
        qkv: PackedMatrix,
        /// Gain and shift, for each channel of a head.
        query_norm: (Vec<f32>, Vec<f32>),
        key_norm: (Vec<f32>, Vec<f32>),
        proj: PackedMatrix,
        mlp_out: PackedMatrix,
    },
}

/// A linear layer in f64, before it is packed: `outputs` x `inputs`, row-major.
struct Linear {
    weights: Vec<f64>,
    bias: Vec<f64>,
    inputs: usize,
}

impl Linear {
    /// Reads `{name}.weight` and, where `biased`, `{name}.bias`.
    fn read(
        tensors: &Tensors<'_>,
        name: &str,
        outputs: usize,
        inputs: usize,
        biased: bool,
    ) -> Result<Self, WeightsError> {
        let weights = tensors.f32(&format!("{name}.weight"), &[outputs, inputs])?;
        let bias = if biased {
            tensors.f32(&format!("{name}.bias"), &[outputs])?
        } else {
            vec![0.0; outputs]
        };
        Ok(Self {
            weights: widen(&weights),
            bias: widen(&bias),
            inputs,
        })
    }

    /// Takes in the gain and shift of the layer norm before it: `W (g n + s) + b = (W g) n + (W s + b)`.
    fn after_norm(mut self, (gain, shift): &(Vec<f32>, Vec<f32>)) -> Self {
        for (row, bias) in self.weights.chunks_exact_mut(self.inputs).zip(&mut self.bias) {
            for ((w, &g), &s) in row.iter_mut().zip(gain).zip(shift) {
                *bias += *w * f64::from(s);
                *w *= f64::from(g);
            }
        }
        self
    }

    /// Multiplies outputs `range` by `factor`.
    fn scale(mut self, range: std::ops::Range<usize>, factor: impl Fn(usize) -> f64) -> Self {
        for output in range {
            let factor = factor(output);
            self.bias[output] *= factor;
            for w in &mut self.weights[output * self.inputs..(output + 1) * self.inputs] {
                *w *= factor;
            }
        }
        self
    }

    /// Outputs `range`, packed.
    fn pack(&self, range: std::ops::Range<usize>, activation: Activation) -> PackedMatrix {
        let narrow = |values: &[f64]| values.iter().map(|&v| v as f32).collect::<Vec<f32>>();
        let weights = narrow(&self.weights[range.start * self.inputs..range.end * self.inputs]);
        PackedMatrix::new(&weights, self.inputs, &narrow(&self.bias[range]), activation)
    }
}

fn widen(values: &[f32]) -> Vec<f64> {
    values.iter().map(|&v| f64::from(v)).collect()
}

/// Gain and shift of a layer norm.
fn norm(tensors: &Tensors<'_>, name: &str, width: usize) -> Result<(Vec<f32>, Vec<f32>), WeightsError> {
    Ok((
        tensors.f32(&format!("{name}.weight"), &[width])?,
        tensors.f32(&format!("{name}.bias"), &[width])?,
    ))
}

impl Vit {
    /// Builds the network.
    pub(crate) fn build(
        card: &ModelCard,
        shape: &VitShape,
        tensors: &Tensors<'_>,
    ) -> Result<Self, BuildError> {
        check(card, shape)?;
        let d = shape.width;
        let grid = (card.input.height / shape.patch, card.input.width / shape.patch);
        let (planes_per_token, most_channels) = match card.channel_policy {
            ChannelPolicy::ReplicateAndConcatenate => (1, 1),
            ChannelPolicy::FirstConvolution { channels } | ChannelPolicy::Fitted { channels } => {
                (channels, channels)
            }
            ChannelPolicy::ChannelAgnostic { most } => (1, most),
        };
        let learned = match shape.positions {
            Positions::SinCos => None,
            Positions::Learned(interpolation) => Some((interpolation, learned(tensors, shape)?)),
        };
        let prefix = prefix(
            tensors,
            shape,
            learned.as_ref().map_or(&[][..], |(_, l)| &l.prefix),
        )?;
        let positions = match &learned {
            None => positions::sin_cos(grid, d),
            Some((interpolation, l)) => positions::resample(&l.patches, l.side, d, grid, *interpolation),
        };
        let (preparation, embed) = embedding(card, shape, tensors, planes_per_token)?;
        let blocks = (0..shape.depth)
            .into_par_iter()
            .map(|index| block(tensors, shape, index))
            .collect::<Vec<_>>()
            // Of several errors that of the first block, whichever thread was quicker.
            .into_iter()
            .collect::<Result<_, _>>()?;
        let final_norm = if shape.final_norm {
            Some(norm(tensors, "norm", d)?)
        } else {
            None
        };
        let tokens = prefix.len() / d + grid.0 * grid.1 * (most_channels / planes_per_token);
        Ok(Self {
            width: d,
            mlp_width: shape.mlp_width,
            patch: shape.patch,
            grid,
            planes_per_token,
            most_channels,
            preparation,
            embed,
            prefix,
            positions,
            blocks,
            attention: Attention {
                heads: shape.heads,
                head_width: d / shape.heads,
                tokens,
            },
            norm_epsilon: shape.norm_epsilon,
            final_norm,
            pooling: card.pooling,
        })
    }
}

/// Learned positions.
struct Learned {
    side: usize,
    /// Of the tokens before the patches that have one.
    prefix: Vec<f32>,
    patches: Vec<f32>,
}

/// Reads `pos_embed`: a square of patches, after none, one (the class token) or all of the tokens before them.
fn learned(tensors: &Tensors<'_>, shape: &VitShape) -> Result<Learned, WeightsError> {
    let (values, found) = tensors.read("pos_embed", &[1, 0, shape.width])?;
    let rows = found[1];
    let class = usize::from(shape.class_token);
    for before in [class, class + shape.registers, 0] {
        let side = rows.saturating_sub(before).isqrt();
        if side > 0 && side * side + before == rows {
            let (prefix, patches) = values.split_at(before * shape.width);
            return Ok(Learned {
                side,
                prefix: prefix.to_vec(),
                patches: patches.to_vec(),
            });
        }
    }
    Err(WeightsError::WrongShape {
        tensor: "pos_embed".to_owned(),
        found,
        expected: vec![1, 0, shape.width],
    })
}

/// The class token and the registers, with the positions of those that have one.
fn prefix(tensors: &Tensors<'_>, shape: &VitShape, positions: &[f32]) -> Result<Vec<f32>, WeightsError> {
    let d = shape.width;
    let mut prefix = Vec::new();
    if shape.class_token {
        prefix.extend(tensors.f32("cls_token", &[1, 1, d])?);
    }
    if shape.registers > 0 {
        prefix.extend(tensors.f32("reg_token", &[1, shape.registers, d])?);
    }
    for (value, position) in prefix.iter_mut().zip(positions) {
        *value += position;
    }
    Ok(prefix)
}

/// The convolution that turns patches into tokens, made for the planes the network gets, and what is done to these.
fn embedding(
    card: &ModelCard,
    shape: &VitShape,
    tensors: &Tensors<'_>,
    planes: usize,
) -> Result<(Preparation, PackedMatrix), WeightsError> {
    let (d, taps, own) = (shape.width, shape.patch * shape.patch, card.input.channels);
    let weights = tensors.f32("patch_embed.proj.weight", &[d, own, shape.patch, shape.patch])?;
    let mut bias = widen(&tensors.f32("patch_embed.proj.bias", &[d])?);
    let mut normalisation = card.input.normalisation.clone();
    let mut folded = Vec::with_capacity(d * planes * taps);
    match card.channel_policy {
        // The image is one plane y, normalised as the first channel is. A replicated channel c would be
        // `y s0/sc + (m0 - mc)/sc`, so its weights add up to one channel's and to the bias.
        ChannelPolicy::ReplicateAndConcatenate => {
            let first = |values: &[f32], c: usize| f64::from(values[c % values.len()]);
            let of = |c: usize| match &card.input.normalisation {
                Normalisation::Fixed { mean, std } => {
                    let (m, s) = (first(mean, c), first(std, c));
                    (first(std, 0) / s, (first(mean, 0) - m) / s)
                }
                Normalisation::Image { .. } => (1.0, 0.0),
            };
            for (output, kernel) in weights.chunks_exact(own * taps).enumerate() {
                for tap in 0..taps {
                    let channels = (0..own).map(|c| f64::from(kernel[c * taps + tap]) * of(c).0);
                    folded.push(channels.sum::<f64>() as f32);
                }
                for (c, channel) in kernel.chunks_exact(taps).enumerate() {
                    bias[output] += widen(channel).iter().sum::<f64>() * of(c).1;
                }
            }
            if let Normalisation::Fixed { mean, std } = &mut normalisation {
                mean.truncate(1);
                std.truncate(1);
            }
        }
        // `check` has refused the policy of heads.
        ChannelPolicy::FirstConvolution { channels } | ChannelPolicy::Fitted { channels } => {
            let share = own as f64 / channels as f64;
            for kernel in weights.chunks_exact(own * taps) {
                for c in 0..channels {
                    let channel = &kernel[c % own * taps..][..taps];
                    folded.extend(channel.iter().map(|&w| (f64::from(w) * share) as f32));
                }
            }
        }
        ChannelPolicy::ChannelAgnostic { .. } => folded = weights,
    }
    let bias: Vec<f32> = bias.iter().map(|&b| b as f32).collect();
    let preparation = Preparation::new(card.input.scale, &normalisation, planes.max(own));
    let matrix = PackedMatrix::new(&folded, planes * taps, &bias, Activation::Linear);
    Ok((preparation, matrix))
}

/// Reads block `index`.
fn block(tensors: &Tensors<'_>, shape: &VitShape, index: usize) -> Result<Block, WeightsError> {
    let (d, mlp) = (shape.width, shape.mlp_width);
    let head_width = d / shape.heads;
    let root = (head_width as f64).sqrt();
    let key = |part: &str| format!("blocks.{index}.{part}");
    let layer_scale = |part: &str| -> Result<Vec<f32>, WeightsError> {
        if shape.layer_scale {
            tensors.f32(&key(part), &[d])
        } else {
            Ok(vec![1.0; d])
        }
    };
    let scaled = |name: &str, inputs: usize, scales: &[f32]| -> Result<PackedMatrix, WeightsError> {
        let linear = Linear::read(tensors, &key(name), d, inputs, true)?;
        let linear = linear.scale(0..d, |output| f64::from(scales[output]));
        Ok(linear.pack(0..d, Activation::Linear))
    };
    let activation = match shape.activation {
        MlpActivation::Gelu => Activation::Gelu,
        MlpActivation::Silu => Activation::Silu,
    };
    match shape.block {
        VitBlock::Sequential => {
            let (norm1, norm2) = (norm(tensors, &key("norm1"), d)?, norm(tensors, &key("norm2"), d)?);
            let qkv = Linear::read(tensors, &key("attn.qkv"), 3 * d, d, true)?;
            let qkv = qkv.after_norm(&norm1).scale(0..d, |_| 1.0 / root);
            let fc1 = Linear::read(tensors, &key("mlp.fc1"), mlp, d, true)?.after_norm(&norm2);
            Ok(Block::Sequential {
                qkv: qkv.pack(0..3 * d, Activation::Linear),
                proj: scaled("attn.proj", d, &layer_scale("ls1.gamma")?)?,
                fc1: fc1.pack(0..mlp, activation),
                fc2: scaled("mlp.fc2", mlp, &layer_scale("ls2.gamma")?)?,
            })
        }
        VitBlock::ParallelScaling(place) => {
            let in_norm = norm(tensors, &key("in_norm"), d)?;
            let mut all = Linear::read(tensors, &key("in_proj"), mlp + 3 * d, d, false)?;
            let bias = tensors.f32(&key("mlp_bias"), &[mlp])?;
            let start = match place {
                MlpBias::First => 0,
                MlpBias::Last => 3 * d,
            };
            all.bias[start..start + mlp].copy_from_slice(&widen(&bias));
            let all = all.after_norm(&in_norm);
            let (gain, shift) = norm(tensors, &key("q_norm"), head_width)?;
            let divided = |values: Vec<f32>| values.iter().map(|&v| (f64::from(v) / root) as f32).collect();
            let scales = layer_scale("ls.gamma")?;
            Ok(Block::ParallelScaling {
                mlp_in: all.pack(0..mlp, activation),
                qkv: all.pack(mlp..mlp + 3 * d, Activation::Linear),
                query_norm: (divided(gain), divided(shift)),
                key_norm: norm(tensors, &key("k_norm"), head_width)?,
                proj: scaled("attn_out_proj", d, &scales)?,
                mlp_out: scaled("mlp_out_proj", mlp, &scales)?,
            })
        }
    }
}
