//! The layer graph: which convolution reads which map, and the buffers they share.
//!
//! Enters: layers, in the order they run. Leaves: a [`Graph`] that turns one image into one embedding in a
//! [`Scratch`] that is allocated once. A map's border is as wide as its widest reader needs.

use super::depthwise::Depthwise;
use super::gemm::PackedMatrix;
use super::isa::Isa;
use super::layout::{Border, Map, same_padding};

/// A map of the graph.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Value(usize);

impl Value {
    /// Its place among the maps.
    pub(crate) fn index(self) -> usize {
        self.0
    }
}

/// What a step computes.
#[derive(Debug, Clone)]
pub(crate) enum Layer {
    /// A matrix product over the channels of each pixel.
    Pointwise(PackedMatrix),
    /// A convolution over all channels: the patch around each output pixel, as a row of a matrix product.
    Dense {
        matrix: PackedMatrix,
        kernel: usize,
        stride: usize,
    },
    /// A convolution of each channel by itself.
    Depthwise(Depthwise),
    /// The mean over all pixels.
    MeanPool,
}

/// Values of a map from which on a block is run in bands, and values of such a band: a whole map of 640 KiB would not stay
/// in a second-level cache of 1 MiB beside the weights, a band of 256 KiB does.
const WHOLE_VALUES: usize = 160 * 1024;
const BAND_VALUES: usize = 64 * 1024;

/// One layer and the maps it reads and writes.
#[derive(Debug, Clone)]
pub(crate) struct Step {
    pub(crate) layer: Layer,
    pub(crate) input: Value,
    pub(crate) residual: Option<Value>,
    pub(crate) output: Value,
}

/// Collects layers.
#[derive(Debug)]
pub(crate) struct GraphBuilder {
    maps: Vec<Map>,
    steps: Vec<Step>,
}

/// A network ready to run.
#[derive(Debug)]
pub(crate) struct Graph {
    maps: Vec<Map>,
    steps: Vec<Step>,
    /// The first steps of blocks that are run in bands.
    bands: Vec<usize>,
    /// The buffer each map lives in.
    buffer_of: Vec<usize>,
    /// Values per buffer.
    buffer_values: Vec<usize>,
    /// Values of the largest matrix of patches.
    patch_values: usize,
    output: Value,
}

/// The memory one thread needs to run a graph.
#[derive(Debug)]
pub(crate) struct Scratch {
    buffers: Vec<Vec<f32>>,
    patches: Vec<f32>,
}

impl GraphBuilder {
    /// A graph whose input is `height` x `width` x `channels`.
    pub(crate) fn new(height: usize, width: usize, channels: usize) -> (Self, Value) {
        (
            Self {
                maps: vec![Map::new(height, width, channels)],
                steps: Vec::new(),
            },
            Value(0),
        )
    }

    /// The layout of a map so far.
    pub(crate) fn map(&self, value: Value) -> &Map {
        &self.maps[value.0]
    }

    fn push(&mut self, layer: Layer, input: Value, residual: Option<Value>, map: Map) -> Value {
        let output = Value(self.maps.len());
        self.maps.push(map);
        self.steps.push(Step {
            layer,
            input,
            residual,
            output,
        });
        output
    }

    /// `matrix` over the channels of each pixel, plus `residual`.
    pub(crate) fn pointwise(&mut self, matrix: PackedMatrix, input: Value, residual: Option<Value>) -> Value {
        let map = Map::new(self.map(input).height, self.map(input).width, matrix.outputs());
        self.push(Layer::Pointwise(matrix), input, residual, map)
    }

    /// `kernel` x `kernel` convolution with `SAME` padding over all channels; `matrix` takes the taps in row
    /// order, for each the input channels.
    pub(crate) fn dense(
        &mut self,
        matrix: PackedMatrix,
        kernel: usize,
        stride: usize,
        input: Value,
    ) -> Value {
        let from = *self.map(input);
        let (top, bottom, height) = same_padding(from.height, kernel, stride);
        let (left, right, width) = same_padding(from.width, kernel, stride);
        self.widen(
            input,
            Border {
                top,
                left,
                bottom,
                right,
            },
        );
        let map = Map::new(height, width, matrix.outputs());
        self.push(
            Layer::Dense {
                matrix,
                kernel,
                stride,
            },
            input,
            None,
            map,
        )
    }

    /// `weights` over each channel by itself, `SAME` padding.
    pub(crate) fn depthwise(&mut self, weights: Depthwise, input: Value) -> Value {
        let from = *self.map(input);
        let (padding, height, width) = weights.geometry(from.height, from.width);
        self.widen(input, padding);
        let map = Map::new(height, width, weights.channels());
        self.push(Layer::Depthwise(weights), input, None, map)
    }

    /// The mean over all pixels.
    pub(crate) fn mean_pool(&mut self, input: Value) -> Value {
        let map = Map::new(1, 1, self.map(input).channels);
        self.push(Layer::MeanPool, input, None, map)
    }

    fn widen(&mut self, value: Value, padding: Border) {
        let border = &mut self.maps[value.0].border;
        *border = border.union(padding);
    }

    /// Shares buffers between maps that are never alive together.
    pub(crate) fn finish(self, output: Value) -> Graph {
        let bands = self.bands();
        let mut last_use: Vec<usize> = (0..self.maps.len()).collect();
        for (index, step) in self.steps.iter().enumerate() {
            // A block in bands goes through its maps again and again until its last step.
            let end = bands
                .iter()
                .find(|&&first| (first..first + 3).contains(&index))
                .map_or(index, |first| first + 2);
            for value in [Some(step.input), step.residual, Some(step.output)]
                .into_iter()
                .flatten()
            {
                last_use[value.0] = last_use[value.0].max(end);
            }
        }
        last_use[output.0] = self.steps.len();
        let mut buffer_values: Vec<usize> = Vec::new();
        let mut free: Vec<usize> = Vec::new();
        let mut buffer_of = vec![0; self.maps.len()];
        let mut place = |map: usize, free: &mut Vec<usize>| {
            // The buffer freed last is the warmest.
            let buffer = free.pop().unwrap_or_else(|| {
                buffer_values.push(0);
                buffer_values.len() - 1
            });
            buffer_values[buffer] = buffer_values[buffer].max(self.maps[map].len());
            buffer
        };
        buffer_of[0] = place(0, &mut free);
        for (index, step) in self.steps.iter().enumerate() {
            buffer_of[step.output.0] = place(step.output.0, &mut free);
            let done = (0..=step.output.0).filter(|&map| last_use[map] == index);
            free.extend(done.map(|map| buffer_of[map]));
        }
        let patch_values = self
            .steps
            .iter()
            .map(|step| match &step.layer {
                Layer::Dense { matrix, .. } => self.maps[step.output.0].pixels() * matrix.inputs(),
                _ => 0,
            })
            .max()
            .unwrap_or(0);
        Graph {
            maps: self.maps,
            steps: self.steps,
            bands,
            buffer_of,
            buffer_values,
            patch_values,
            output,
        }
    }

    /// The first step of each block that is run in bands: a product, a depthwise convolution of a large map, a product.
    fn bands(&self) -> Vec<usize> {
        let mut found = Vec::new();
        for (index, steps) in self.steps.windows(3).enumerate() {
            if let [expand, depthwise, project] = steps
                && matches!(expand.layer, Layer::Pointwise(_))
                && matches!(depthwise.layer, Layer::Depthwise(_))
                && matches!(project.layer, Layer::Pointwise(_))
                && expand.output == depthwise.input
                && depthwise.output == project.input
                && expand.residual.is_none()
                && self.map(expand.output).len() > WHOLE_VALUES
            {
                found.push(index);
            }
        }
        found
    }
}

impl Graph {
    /// The layers in the order they run.
    pub(crate) fn steps(&self) -> &[Step] {
        &self.steps
    }

    /// All maps; the first is the image.
    pub(crate) fn maps(&self) -> &[Map] {
        &self.maps
    }

    /// The buffer that each map lives in: maps that are never alive together share one.
    pub(crate) fn buffers(&self) -> &[usize] {
        &self.buffer_of
    }

    /// The map that is the result.
    pub(crate) fn output(&self) -> Value {
        self.output
    }

    /// Memory for one thread.
    pub(crate) fn scratch(&self) -> Scratch {
        Scratch {
            buffers: self.buffer_values.iter().map(|&n| vec![0.0; n]).collect(),
            patches: vec![0.0; self.patch_values],
        }
    }

    /// Values of the result.
    pub(crate) fn output_values(&self) -> usize {
        self.maps[self.output.0].len()
    }

    /// Runs the network on one image. `fill` turns the caller's pixel `i` (row order, channels last) into the value
    /// the network sees; `result` takes the last map.
    pub(crate) fn run(
        &self,
        isa: Isa,
        scratch: &mut Scratch,
        fill: impl Fn(usize) -> f32,
        result: &mut [f32],
    ) {
        let map = &self.maps[0];
        let buffer = &mut scratch.buffers[self.buffer_of[0]];
        map.clear_border(buffer);
        let row_values = map.width * map.channels;
        for y in 0..map.height {
            let start = map.offset(y, 0);
            for (x, value) in buffer[start..start + row_values].iter_mut().enumerate() {
                *value = fill(y * row_values + x);
            }
        }
        let mut index = 0;
        while index < self.steps.len() {
            match &self.steps[index..] {
                [expand, depthwise, project, ..] if self.bands.contains(&index) => {
                    self.block(isa, scratch, [expand, depthwise, project]);
                    index += 3;
                }
                [step, ..] => {
                    self.step(isa, scratch, step);
                    index += 1;
                }
                [] => break,
            }
        }
        result.copy_from_slice(&scratch.buffers[self.buffer_of[self.output.0]][..self.output_values()]);
    }

    /// Three steps in bands of rows, so that what one writes is in the cache when the next reads it.
    fn block(&self, isa: Isa, scratch: &mut Scratch, [expand, depthwise, project]: [&Step; 3]) {
        let (Layer::Pointwise(expansion), Layer::Depthwise(weights), Layer::Pointwise(projection)) =
            (&expand.layer, &depthwise.layer, &project.layer)
        else {
            unreachable!("`bands` names such blocks only");
        };
        // Each map has a buffer of its own until the block's end, so all can be taken out and lent.
        let mut take = |value: Value| std::mem::take(&mut scratch.buffers[self.buffer_of[value.0]]);
        let (mut wide, mut filtered, mut narrow) =
            (take(expand.output), take(depthwise.output), take(project.output));
        let [wide_map, filtered_map, narrow_map] =
            [expand.output, depthwise.output, project.output].map(|value| &self.maps[value.0]);
        wide_map.clear_border(&mut wide);
        filtered_map.clear_border(&mut filtered);
        narrow_map.clear_border(&mut narrow);
        let of = |value: Value| (&scratch.buffers[self.buffer_of[value.0]][..], &self.maps[value.0]);
        let per_row = wide_map.row_stride() * wide_map.height.div_ceil(filtered_map.height);
        let band = (BAND_VALUES / per_row).max(1);
        let (mut start, mut expanded) = (0, 0);
        while start < filtered_map.height {
            let end = (start + band).min(filtered_map.height);
            let needed = weights.reads_up_to(end, wide_map.height).max(expanded);
            expansion.apply_rows(
                isa,
                expanded * wide_map.width..needed * wide_map.width,
                of(expand.input),
                None,
                (&mut wide, wide_map),
            );
            expanded = needed;
            weights.apply(isa, start..end, (&wide, wide_map), (&mut filtered, filtered_map));
            projection.apply_rows(
                isa,
                start * narrow_map.width..end * narrow_map.width,
                (&filtered, filtered_map),
                project.residual.map(of),
                (&mut narrow, narrow_map),
            );
            start = end;
        }
        for (value, buffer) in [
            (expand.output, wide),
            (depthwise.output, filtered),
            (project.output, narrow),
        ] {
            scratch.buffers[self.buffer_of[value.0]] = buffer;
        }
    }

    fn step(&self, isa: Isa, scratch: &mut Scratch, step: &Step) {
        let target = self.buffer_of[step.output.0];
        // The output has a buffer of its own while the step runs, so it can be taken out and lent mutably.
        let mut output = std::mem::take(&mut scratch.buffers[target]);
        let out_map = &self.maps[step.output.0];
        out_map.clear_border(&mut output);
        let of = |value: Value| (&scratch.buffers[self.buffer_of[value.0]][..], &self.maps[value.0]);
        let (input, in_map) = of(step.input);
        match &step.layer {
            Layer::Pointwise(matrix) => {
                matrix.apply(
                    isa,
                    (input, in_map),
                    step.residual.map(of),
                    (&mut output, out_map),
                );
            }
            Layer::Dense {
                matrix,
                kernel,
                stride,
            } => {
                let patch_map = Map::new(out_map.height, out_map.width, matrix.inputs());
                gather_patches(
                    (input, in_map),
                    (*kernel, *stride),
                    &patch_map,
                    &mut scratch.patches,
                );
                matrix.apply(isa, (&scratch.patches, &patch_map), None, (&mut output, out_map));
            }
            Layer::Depthwise(weights) => {
                weights.apply(isa, 0..out_map.height, (input, in_map), (&mut output, out_map));
            }
            Layer::MeanPool => mean_pool(input, in_map, &mut output[..in_map.channels]),
        }
        scratch.buffers[target] = output;
    }
}

/// Writes the patch around each output pixel as one row: taps in row order, for each the channels.
fn gather_patches(
    (input, map): (&[f32], &Map),
    (kernel, stride): (usize, usize),
    patch_map: &Map,
    patches: &mut [f32],
) {
    let padding = (
        same_padding(map.height, kernel, stride).0,
        same_padding(map.width, kernel, stride).0,
    );
    let first = (map.border.top - padding.0, map.border.left - padding.1);
    let run = kernel * map.channels;
    for y in 0..patch_map.height {
        for x in 0..patch_map.width {
            let at = patch_map.offset(y, x);
            for ky in 0..kernel {
                let from =
                    (first.0 + y * stride + ky) * map.row_stride() + (first.1 + x * stride) * map.channels;
                let (to, from) = (&mut patches[at + ky * run..][..run], &input[from..from + run]);
                // Three values, as those of a grey image, are copied faster than a copy is called.
                match (to, from) {
                    ([a, b, c], &[x, y, z]) => (*a, *b, *c) = (x, y, z),
                    (to, from) => to.copy_from_slice(from),
                }
            }
        }
    }
}

/// The mean over all pixels, channel by channel, summed in row order.
fn mean_pool(input: &[f32], map: &Map, output: &mut [f32]) {
    output.fill(0.0);
    let mut walk = map.walk(0);
    for _ in 0..map.pixels() {
        let at = walk.step();
        for (sum, value) in output.iter_mut().zip(&input[at..at + map.channels]) {
            *sum += value;
        }
    }
    let pixels = map.pixels().max(1) as f32;
    for sum in output {
        *sum /= pixels;
    }
}
