//! Every layer, and a whole small network, against sums written the plain way in f64.

use std::collections::BTreeMap;

use proptest::prelude::*;
use safetensors::tensor::{Dtype, TensorView};

use super::depthwise::Depthwise;
use super::efficientnet::{Block, Sizes};
use super::gemm::{Activation, PackedMatrix};
use super::graph::GraphBuilder;
use super::isa::Isa;
use super::layout::{Border, Map};
use crate::weights::Weights;

/// Largest difference from f64 sums of up to 320 terms of order 1.
const TOLERANCE: f32 = 1e-4;

/// Numbers in -1..1, the same everywhere (a 64-bit linear congruence).
fn random(seed: u64) -> impl FnMut() -> f32 {
    let mut state = seed;
    move || {
        state = state
            .wrapping_mul(6_364_136_223_846_793_005)
            .wrapping_add(1_442_695_040_888_963_407);
        (state >> 40) as f32 / (1u64 << 23) as f32 - 1.0
    }
}

fn vector(seed: u64, n: usize) -> Vec<f32> {
    let mut next = random(seed);
    (0..n).map(|_| next()).collect()
}

/// A map with random values and a zero border.
fn filled(seed: u64, map: &Map) -> Vec<f32> {
    let mut data = vector(seed, map.len());
    map.clear_border(&mut data);
    data
}

fn border(n: usize) -> Border {
    Border {
        top: n,
        left: n + 1,
        bottom: n / 2,
        right: n,
    }
}

fn activate(activation: Activation, x: f64) -> f64 {
    match activation {
        Activation::Linear => x,
        Activation::Relu6 => x.clamp(0.0, 6.0),
        Activation::Gelu | Activation::Silu => unreachable!("tested in elementwise.rs"),
    }
}

/// Largest difference between a map and the expected pixels (row order, channels last).
fn difference(data: &[f32], map: &Map, expected: &[f64]) -> f32 {
    let mut worst = 0f32;
    for (pixel, want) in expected.chunks_exact(map.channels).enumerate() {
        let at = map.offset(pixel / map.width, pixel % map.width);
        for (have, want) in data[at..at + map.channels].iter().zip(want) {
            worst = worst.max((have - *want as f32).abs());
        }
    }
    worst
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 64, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn pointwise_is_the_plain_sum(
        (height, width) in (1usize..9, 1usize..9),
        inputs in 1usize..70,
        outputs in 1usize..50,
        borders in (0usize..3, 0usize..3, 0usize..3),
        relu6 in any::<bool>(),
        with_residual in any::<bool>(),
        seed in any::<u64>(),
    ) {
        let activation = if relu6 { Activation::Relu6 } else { Activation::Linear };
        let map = |channels, n| Map { border: border(n), ..Map::new(height, width, channels) };
        let (from, to, add) = (map(inputs, borders.0), map(outputs, borders.1), map(outputs, borders.2));
        let (weights, bias) = (vector(seed ^ 1, inputs * outputs), vector(seed ^ 2, outputs));
        let (input, residual) = (filled(seed ^ 3, &from), filled(seed ^ 4, &add));
        let matrix = PackedMatrix::new(&weights, inputs, &bias, activation);
        let mut expected = Vec::new();
        for pixel in 0..height * width {
            let (y, x) = (pixel / width, pixel % width);
            let (a, r) = (from.offset(y, x), add.offset(y, x));
            for o in 0..outputs {
                let sum: f64 = (0..inputs)
                    .map(|i| f64::from(input[a + i]) * f64::from(weights[o * inputs + i]))
                    .sum::<f64>() + f64::from(bias[o]);
                let added = if with_residual { f64::from(residual[r + o]) } else { 0.0 };
                expected.push(activate(activation, sum) + added);
            }
        }
        for isa in Isa::available() {
            let mut output = vec![77.0; to.len()];
            let added = with_residual.then_some((&residual[..], &add));
            matrix.apply(isa, (&input, &from), added, (&mut output, &to));
            let worst = difference(&output, &to, &expected);
            prop_assert!(worst < TOLERANCE, "{isa:?}: {worst}");
            let untouched = output.iter().filter(|&&v| v == 77.0).count();
            prop_assert_eq!(untouched, to.len() - height * width * outputs, "{:?} wrote into the border", isa);
        }
    }

    #[test]
    fn depthwise_is_the_plain_sum(
        (height, width) in (1usize..12, 1usize..12),
        channels in 1usize..45,
        (kernel, stride) in (1usize..6, 1usize..4),
        extra in 0usize..2,
        seed in any::<u64>(),
    ) {
        let activation = Activation::Relu6;
        let (weights, bias) = (vector(seed ^ 1, channels * kernel * kernel), vector(seed ^ 2, channels));
        let depthwise = Depthwise::new(&weights, kernel, stride, &bias, activation);
        let (padding, out_height, out_width) = depthwise.geometry(height, width);
        let from = Map { border: padding.union(border(extra)), ..Map::new(height, width, channels) };
        let to = Map { border: border(extra), ..Map::new(out_height, out_width, channels) };
        let input = filled(seed ^ 3, &from);
        let mut expected = Vec::new();
        for y in 0..out_height {
            for x in 0..out_width {
                for c in 0..channels {
                    let mut sum = f64::from(bias[c]);
                    for (ky, kx) in (0..kernel).flat_map(|ky| (0..kernel).map(move |kx| (ky, kx))) {
                        let sy = (y * stride + ky).checked_sub(padding.top).filter(|&v| v < height);
                        let sx = (x * stride + kx).checked_sub(padding.left).filter(|&v| v < width);
                        if let (Some(sy), Some(sx)) = (sy, sx) {
                            let w = weights[(c * kernel + ky) * kernel + kx];
                            sum += f64::from(w) * f64::from(input[from.offset(sy, sx) + c]);
                        }
                    }
                    expected.push(activate(activation, sum));
                }
            }
        }
        for isa in Isa::available() {
            let mut output = vec![0.0; to.len()];
            depthwise.apply(isa, 0..to.height, (&input, &from), (&mut output, &to));
            let worst = difference(&output, &to, &expected);
            prop_assert!(worst < TOLERANCE, "{isa:?}: {worst}");
        }
    }

    #[test]
    fn dense_is_the_plain_sum(
        (height, width) in (1usize..12, 1usize..12),
        (inputs, outputs) in (1usize..5, 1usize..20),
        (kernel, stride) in (1usize..6, 1usize..4),
        seed in any::<u64>(),
    ) {
        // Taps in row order, for each the input channels.
        let weights = vector(seed ^ 1, outputs * kernel * kernel * inputs);
        let bias = vector(seed ^ 2, outputs);
        let image = vector(seed ^ 3, height * width * inputs);
        let matrix = PackedMatrix::new(&weights, kernel * kernel * inputs, &bias, Activation::Linear);
        let (mut builder, entry) = GraphBuilder::new(height, width, inputs);
        let value = builder.dense(matrix, kernel, stride, entry);
        let to = *builder.map(value);
        let graph = builder.finish(value);
        let padding = (
            ((to.height - 1) * stride + kernel).saturating_sub(height) / 2,
            ((to.width - 1) * stride + kernel).saturating_sub(width) / 2,
        );
        let mut expected = Vec::new();
        for (y, x) in (0..to.height).flat_map(|y| (0..to.width).map(move |x| (y, x))) {
            for o in 0..outputs {
                let mut sum = f64::from(bias[o]);
                for (ky, kx) in (0..kernel).flat_map(|ky| (0..kernel).map(move |kx| (ky, kx))) {
                    let sy = (y * stride + ky).checked_sub(padding.0).filter(|&v| v < height);
                    let sx = (x * stride + kx).checked_sub(padding.1).filter(|&v| v < width);
                    if let (Some(sy), Some(sx)) = (sy, sx) {
                        for i in 0..inputs {
                            let w = weights[((o * kernel + ky) * kernel + kx) * inputs + i];
                            sum += f64::from(w) * f64::from(image[(sy * width + sx) * inputs + i]);
                        }
                    }
                }
                expected.push(sum);
            }
        }
        for isa in Isa::available() {
            let mut found = vec![0.0; graph.output_values()];
            graph.run(isa, &mut graph.scratch(), |i| image[i], &mut found);
            let worst = difference(&found, &to, &expected);
            prop_assert!(worst < TOLERANCE, "{isa:?}: {worst}");
        }
    }
}

#[test]
fn the_mean_is_over_all_pixels() {
    let (mut builder, entry) = GraphBuilder::new(3, 5, 2);
    let value = builder.mean_pool(entry);
    let graph = builder.finish(value);
    let mut found = vec![0.0; 2];
    graph.run(Isa::best(), &mut graph.scratch(), |i| i as f32, &mut found);
    assert_eq!(found, [14.0, 15.0]);
}

/// Two blocks: one that expands and keeps its shape (so it adds its input), one that strides.
fn small() -> Sizes {
    Sizes {
        image_channels: 3,
        stem: 8,
        blocks: vec![
            Block {
                kernel: 3,
                stride: 1,
                expansion: 1,
                input: 8,
                output: 12,
            },
            Block {
                kernel: 5,
                stride: 1,
                expansion: 3,
                input: 12,
                output: 12,
            },
            Block {
                kernel: 5,
                stride: 2,
                expansion: 2,
                input: 12,
                output: 20,
            },
        ],
        head: 24,
    }
}

/// Random weights of `sizes` as a safetensors file.
fn weights_of(sizes: &Sizes) -> Weights<'static> {
    let mut tensors: BTreeMap<String, (Vec<usize>, Vec<u8>)> = BTreeMap::new();
    let mut next = random(99);
    let mut add = |name: String, shape: Vec<usize>, centre: f32, spread: f32| {
        let n: usize = shape.iter().product();
        let data = (0..n)
            .flat_map(|_| (centre + spread * next()).to_le_bytes())
            .collect();
        tensors.insert(name, (shape, data));
    };
    let mut layer = |conv: String, norm: String, shape: [usize; 4]| {
        let outputs = vec![shape[0]];
        let spread = (3.0 / shape[1..].iter().product::<usize>() as f32).sqrt();
        add(format!("{conv}.weight"), shape.to_vec(), 0.0, spread);
        add(format!("{norm}.weight"), outputs.clone(), 1.0, 0.3);
        add(format!("{norm}.bias"), outputs.clone(), 0.3, 0.3);
        add(format!("{norm}.running_mean"), outputs.clone(), 0.0, 0.3);
        add(format!("{norm}.running_var"), outputs, 1.0, 0.3);
    };
    layer("_conv_stem".into(), "_bn0".into(), [sizes.stem, 3, 3, 3]);
    for (i, b) in sizes.blocks.iter().enumerate() {
        let (inner, at) = (b.input * b.expansion, |part: &str| format!("_blocks.{i}.{part}"));
        if b.expansion != 1 {
            layer(at("_expand_conv"), at("_bn0"), [inner, b.input, 1, 1]);
        }
        layer(at("_depthwise_conv"), at("_bn1"), [inner, 1, b.kernel, b.kernel]);
        layer(at("_project_conv"), at("_bn2"), [b.output, inner, 1, 1]);
    }
    layer(
        "_conv_head".into(),
        "_bn1".into(),
        [sizes.head, sizes.blocks[2].output, 1, 1],
    );
    let views = tensors
        .iter()
        .map(|(k, (shape, data))| (k, TensorView::new(Dtype::F32, shape.clone(), data).unwrap()));
    let file = tempfile::NamedTempFile::new().unwrap();
    std::fs::write(file.path(), safetensors::serialize(views, None).unwrap()).unwrap();
    Weights::read(&crate::cards()[0], file.path()).unwrap()
}

#[test]
fn every_instruction_set_gives_the_same_network() {
    // The network itself is held against a plain forward pass by the conformance suite, with the best instructions of
    // the machine; here the others are held against those, at an odd size and on scratch memory used before.
    let weights = weights_of(&small());
    let graph = small().build(&weights.tensors(&[]).unwrap(), 37, 45).unwrap();
    let image = vector(5, 37 * 45);
    let run = |isa| {
        let mut scratch = graph.scratch();
        let mut first = vec![0.0; graph.output_values()];
        graph.run(isa, &mut scratch, |i| image[i] * 3.0, &mut first);
        let mut again = first.clone();
        graph.run(isa, &mut scratch, |i| -image[i], &mut again);
        assert_ne!(first, again);
        graph.run(isa, &mut scratch, |i| image[i] * 3.0, &mut again);
        assert_eq!(first, again, "{isa:?}: what a scratch held before shows through");
        first
    };
    let reference = run(Isa::Portable);
    assert!(reference.iter().any(|&v| v > 0.01));
    for isa in Isa::available() {
        let found = run(isa);
        let worst = found
            .iter()
            .zip(&reference)
            .map(|(a, b)| (a - b).abs())
            .fold(0.0, f32::max);
        assert!(worst < TOLERANCE, "{isa:?}: {worst}");
    }
}
