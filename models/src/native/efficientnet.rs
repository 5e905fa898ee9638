//! EfficientNet-Lite as a layer graph: inverted residual blocks without squeeze-and-excitation, ReLU6, TensorFlow
//! `SAME` padding (Tan and Le 2019, arXiv:1905.11946; Lite variant 2020). Key names of the published PyTorch port.
//!
//! Enters: the tensors of a weights file. Leaves: a [`Graph`] from one grey image to the pooled features before the
//! classifier. Fails with [`WeightsError`] naming the tensor.

use super::depthwise::Depthwise;
use super::gemm::{Activation, PackedMatrix};
use super::graph::{Graph, GraphBuilder};
use crate::weights::{Tensors, WeightsError};

/// Added to the variance in batch normalisation.
const BATCH_NORM_EPSILON: f64 = 1e-3;

/// Sizes of one inverted residual block.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Block {
    /// Side of the depthwise kernel.
    pub(crate) kernel: usize,
    /// Stride of the depthwise convolution.
    pub(crate) stride: usize,
    /// Channels inside per channel outside; 1 means no expansion layer.
    pub(crate) expansion: usize,
    /// Channels in.
    pub(crate) input: usize,
    /// Channels out.
    pub(crate) output: usize,
}

/// Sizes of a whole network.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Sizes {
    /// Channels of the network's input.
    pub(crate) image_channels: usize,
    /// Channels after the first convolution (3 x 3, stride 2).
    pub(crate) stem: usize,
    /// The blocks in order.
    pub(crate) blocks: Vec<Block>,
    /// Channels after the last convolution: the width of the embedding.
    pub(crate) head: usize,
}

impl Sizes {
    /// EfficientNet-Lite0 with its channels times `width` and its repeats times `depth`. The first and the last stage
    /// keep their repeats, and the first and the last convolution their channels.
    pub(crate) fn lite(width: f64, depth: f64) -> Self {
        let stages = [
            // repeats, kernel, stride, expansion, channels out
            (1, 3, 1, 1, 16),
            (2, 3, 2, 6, 24),
            (2, 5, 2, 6, 40),
            (3, 3, 2, 6, 80),
            (3, 5, 1, 6, 112),
            (4, 5, 2, 6, 192),
            (1, 3, 1, 6, 320),
        ];
        let mut input = 32;
        let mut blocks = Vec::new();
        let last = stages.len() - 1;
        for (stage, (repeats, kernel, stride, expansion, output)) in stages.into_iter().enumerate() {
            let repeats = match stage {
                0 => repeats,
                stage if stage == last => repeats,
                _ => (repeats as f64 * depth).ceil() as usize,
            };
            let output = rounded_channels(output, width);
            for repeat in 0..repeats {
                let stride = if repeat == 0 { stride } else { 1 };
                blocks.push(Block {
                    kernel,
                    stride,
                    expansion,
                    input,
                    output,
                });
                input = output;
            }
        }
        Self {
            image_channels: 3,
            stem: 32,
            blocks,
            head: 1280,
        }
    }

    /// Builds the graph for grey images of `height` x `width`. The first convolution is folded to one channel: every
    /// channel of a replicated grey image is the same after the common normalisation, so its weights add up.
    pub(crate) fn build(
        &self,
        tensors: &Tensors<'_>,
        height: usize,
        width: usize,
    ) -> Result<Graph, WeightsError> {
        let (mut graph, image) = GraphBuilder::new(height, width, 1);
        let colours = self.image_channels;
        let stem = Folded::read(tensors, "_conv_stem", "_bn0", &[self.stem, colours, 3, 3])?;
        let grey: Vec<f32> = stem
            .weights
            .chunks_exact(colours * 9)
            .flat_map(|w| (0..9).map(move |tap| (0..colours).map(|c| w[c * 9 + tap]).sum::<f64>() as f32))
            .collect();
        let stem = PackedMatrix::new(&grey, 9, &stem.bias, Activation::Relu6);
        let mut map = graph.dense(stem, 3, 2, image);

        for (index, block) in self.blocks.iter().enumerate() {
            let key = |layer: &str| format!("_blocks.{index}.{layer}");
            let inner = block.input * block.expansion;
            let entry = map;
            if block.expansion != 1 {
                let expand = Folded::read(
                    tensors,
                    &key("_expand_conv"),
                    &key("_bn0"),
                    &[inner, block.input, 1, 1],
                )?;
                map = graph.pointwise(expand.pack(block.input, Activation::Relu6), map, None);
            }
            let taps = [inner, 1, block.kernel, block.kernel];
            let depthwise = Folded::read(tensors, &key("_depthwise_conv"), &key("_bn1"), &taps)?;
            let weights = depthwise.weights_f32();
            let depthwise = Depthwise::new(
                &weights,
                block.kernel,
                block.stride,
                &depthwise.bias,
                Activation::Relu6,
            );
            map = graph.depthwise(depthwise, map);
            let project = Folded::read(
                tensors,
                &key("_project_conv"),
                &key("_bn2"),
                &[block.output, inner, 1, 1],
            )?;
            let keeps_shape = block.stride == 1 && block.input == block.output;
            map = graph.pointwise(
                project.pack(inner, Activation::Linear),
                map,
                keeps_shape.then_some(entry),
            );
        }

        let last = graph.map(map).channels;
        let head = Folded::read(tensors, "_conv_head", "_bn1", &[self.head, last, 1, 1])?;
        map = graph.pointwise(head.pack(last, Activation::Relu6), map, None);
        map = graph.mean_pool(map);
        Ok(graph.finish(map))
    }
}

/// `channels * width` in multiples of 8, rounded to the nearest, but not below nine tenths.
fn rounded_channels(channels: usize, width: f64) -> usize {
    let wanted = channels as f64 * width;
    let rounded = (((wanted + 4.0) / 8.0).floor() * 8.0).max(8.0);
    let rounded = if rounded < 0.9 * wanted {
        rounded + 8.0
    } else {
        rounded
    };
    rounded as usize
}

/// A convolution with its batch normalisation folded in: `w * g / sqrt(v + e)` and `b - m * g / sqrt(v + e)` for
/// scale g, shift b, mean m, variance v. Kept in f64 until packed, so that folding costs one rounding.
struct Folded {
    weights: Vec<f64>,
    bias: Vec<f32>,
}

impl Folded {
    /// Reads convolution `conv` of `shape` (outputs first) and batch norm `norm`.
    fn read(tensors: &Tensors<'_>, conv: &str, norm: &str, shape: &[usize]) -> Result<Self, WeightsError> {
        let raw = tensors.f32(&format!("{conv}.weight"), shape)?;
        let outputs = [shape[0]];
        let gain = tensors.f32(&format!("{norm}.weight"), &outputs)?;
        let shift = tensors.f32(&format!("{norm}.bias"), &outputs)?;
        let mean = tensors.f32(&format!("{norm}.running_mean"), &outputs)?;
        let variance_key = format!("{norm}.running_var");
        let variance = tensors.f32(&variance_key, &outputs)?;
        if let Some(offset) = variance.iter().position(|&v| v < 0.0) {
            let value = variance[offset].to_string();
            return Err(WeightsError::BadValue {
                tensor: variance_key,
                offset,
                value,
            });
        }
        let scale: Vec<f64> = gain
            .iter()
            .zip(&variance)
            .map(|(&g, &v)| f64::from(g) / (f64::from(v) + BATCH_NORM_EPSILON).sqrt())
            .collect();
        let per_output = raw.len() / shape[0].max(1);
        let weights = raw
            .iter()
            .enumerate()
            .map(|(i, &w)| f64::from(w) * scale[i / per_output])
            .collect();
        let bias = scale
            .iter()
            .zip(shift.iter().zip(&mean))
            .map(|(&s, (&b, &m))| (f64::from(b) - f64::from(m) * s) as f32)
            .collect();
        Ok(Self { weights, bias })
    }

    fn weights_f32(&self) -> Vec<f32> {
        self.weights.iter().map(|&w| w as f32).collect()
    }

    fn pack(&self, inputs: usize, activation: Activation) -> PackedMatrix {
        PackedMatrix::new(&self.weights_f32(), inputs, &self.bias, activation)
    }
}
