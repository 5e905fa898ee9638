//! Pointwise convolution as a matrix product, with bias, ReLU6 and residual fused into the store.
//!
//! Enters: a feature map (rows = pixels, columns = input channels) and packed weights. Leaves: a feature map of the
//! output channels, written at the places its own layout asks for. Every output value is one sum over the input
//! channels in their order, so the result does not depend on how the rows are cut into tiles.

use super::isa::Isa;
use super::layout::Map;

/// Rows of a tile.
pub(crate) const TILE_ROWS: usize = 6;
/// Columns of a tile, and the width of a packed panel.
pub(crate) const TILE_COLUMNS: usize = 16;

/// Input values handled before the next panel of weights is taken up: 192 KiB, which stays in a second-level cache of
/// 512 KiB beside a panel, so each panel reads the rows from there.
const CHUNK_VALUES: usize = 48 * 1024;

/// What is applied to a sum before it is stored.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Activation {
    /// Nothing.
    Linear,
    /// `min(max(x, 0), 6)`.
    Relu6,
}

impl Activation {
    /// Applies it to one value.
    #[inline(always)]
    pub(crate) fn apply(self, x: f32) -> f32 {
        match self {
            Self::Linear => x,
            Self::Relu6 => x.clamp(0.0, 6.0),
        }
    }
}

/// `a * b + c`, fused where the target the compiler builds for has the instruction.
#[inline(always)]
pub(crate) fn multiply_add(a: f32, b: f32, c: f32) -> f32 {
    if cfg!(any(target_feature = "fma", target_arch = "aarch64")) {
        a.mul_add(b, c)
    } else {
        a * b + c
    }
}

/// A weight matrix `inputs` x `outputs`, packed in panels of 16 output columns: panel by panel, for each input the
/// 16 weights. The last panel is filled up with zeros.
#[derive(Debug, Clone)]
pub(crate) struct PackedMatrix {
    inputs: usize,
    outputs: usize,
    panels: Vec<f32>,
    bias: Vec<f32>,
    activation: Activation,
}

impl PackedMatrix {
    /// Packs `weights`, row-major `outputs` x `inputs`, with one bias per output.
    pub(crate) fn new(weights: &[f32], inputs: usize, bias: &[f32], activation: Activation) -> Self {
        let outputs = bias.len();
        assert_eq!(weights.len(), inputs * outputs, "one weight per input and output");
        let panel_count = outputs.div_ceil(TILE_COLUMNS);
        let mut panels = vec![0.0; panel_count * inputs * TILE_COLUMNS];
        for (output, row) in weights.chunks_exact(inputs.max(1)).enumerate() {
            let panel = &mut panels[output / TILE_COLUMNS * inputs * TILE_COLUMNS..];
            for (input, &w) in row.iter().enumerate() {
                panel[input * TILE_COLUMNS + output % TILE_COLUMNS] = w;
            }
        }
        let mut padded = bias.to_vec();
        padded.resize(panel_count * TILE_COLUMNS, 0.0);
        Self {
            inputs,
            outputs,
            panels,
            bias: padded,
            activation,
        }
    }

    /// Input channels.
    pub(crate) fn inputs(&self) -> usize {
        self.inputs
    }

    /// Output channels.
    pub(crate) fn outputs(&self) -> usize {
        self.outputs
    }

    /// `output = activation(input * weights + bias) + residual`, pixel by pixel. The border of `output` is left alone.
    pub(crate) fn apply(
        &self,
        isa: Isa,
        (input, in_map): (&[f32], &Map),
        residual: Option<(&[f32], &Map)>,
        (output, out_map): (&mut [f32], &Map),
    ) {
        // The tiles address memory by these layouts, so their agreement is what makes the unsafe kernel sound.
        assert!(
            input.len() >= in_map.len() && in_map.channels == self.inputs,
            "input layout"
        );
        assert!(
            output.len() >= out_map.len() && out_map.channels == self.outputs,
            "output layout"
        );
        assert!(
            in_map.pixels() == out_map.pixels(),
            "one output pixel per input pixel"
        );
        if let Some((data, map)) = residual {
            assert!(
                data.len() >= map.len() && map.channels == self.outputs,
                "residual layout"
            );
            assert!(
                map.pixels() == out_map.pixels(),
                "one residual pixel per output pixel"
            );
        }
        assert!(isa.runs_here(), "the instruction set was detected");

        let rows = out_map.pixels();
        let chunk = (CHUNK_VALUES / self.inputs.max(1))
            .max(1)
            .next_multiple_of(TILE_ROWS);
        for chunk_start in (0..rows).step_by(chunk) {
            let chunk_rows = chunk.min(rows - chunk_start);
            for (panel_index, bias) in self.bias.as_chunks::<TILE_COLUMNS>().0.iter().enumerate() {
                let column = panel_index * TILE_COLUMNS;
                let columns = TILE_COLUMNS.min(self.outputs - column);
                let panel_values = self.inputs * TILE_COLUMNS;
                let panel = &self.panels[panel_index * panel_values..(panel_index + 1) * panel_values];
                let mut from = in_map.walk(chunk_start);
                let mut to = out_map.walk(chunk_start);
                let mut add = residual.map(|(_, map)| map.walk(chunk_start));
                for tile_start in (0..chunk_rows).step_by(TILE_ROWS) {
                    let mut tile = Tile {
                        rows: TILE_ROWS.min(chunk_rows - tile_start),
                        columns,
                        inputs: self.inputs,
                        activation: self.activation,
                        from: [0; TILE_ROWS],
                        to: [0; TILE_ROWS],
                        add: add.is_some().then_some([0; TILE_ROWS]),
                    };
                    for row in 0..tile.rows {
                        tile.from[row] = from.step();
                        tile.to[row] = to.step() + column;
                        if let (Some(at), Some(walk)) = (&mut tile.add, &mut add) {
                            at[row] = walk.step() + column;
                        }
                    }
                    let added = residual.map_or(&[][..], |(data, _)| data);
                    match isa {
                        Isa::Portable => tile.portable(input, panel, bias, added, output),
                        #[cfg(target_arch = "x86_64")]
                        Isa::Avx2 if columns.is_multiple_of(8) => {
                            // SAFETY: the asserts above hold: the processor has AVX2 and FMA, and every offset of
                            // the tile was walked over a layout that fits in the slice it belongs to.
                            unsafe { super::avx2::gemm_tile(&tile, input, panel, bias, added, output) }
                        }
                        #[cfg(target_arch = "x86_64")]
                        Isa::Avx2 => tile.portable(input, panel, bias, added, output),
                    }
                }
            }
        }
    }
}

/// One tile of the product: which rows of which slices take part.
pub(crate) struct Tile {
    /// Rows in use, 1 to 6.
    pub(crate) rows: usize,
    /// Columns in use, 1 to 16.
    pub(crate) columns: usize,
    /// Length of the sums.
    pub(crate) inputs: usize,
    /// Applied before the residual.
    pub(crate) activation: Activation,
    /// Where each row of the input begins.
    pub(crate) from: [usize; TILE_ROWS],
    /// Where each row of the output begins.
    pub(crate) to: [usize; TILE_ROWS],
    /// Where each row of the residual begins.
    pub(crate) add: Option<[usize; TILE_ROWS]>,
}

impl Tile {
    /// The tile in plain Rust: the specification of the vector kernels.
    fn portable(
        &self,
        input: &[f32],
        panel: &[f32],
        bias: &[f32; TILE_COLUMNS],
        residual: &[f32],
        output: &mut [f32],
    ) {
        for row in 0..self.rows {
            let mut sums = *bias;
            let values = &input[self.from[row]..self.from[row] + self.inputs];
            for (&value, weights) in values.iter().zip(panel.as_chunks::<TILE_COLUMNS>().0) {
                for (sum, &weight) in sums.iter_mut().zip(weights) {
                    *sum = multiply_add(value, weight, *sum);
                }
            }
            for (column, sum) in sums.iter().enumerate().take(self.columns) {
                let added = self.add.map_or(0.0, |at| residual[at[row] + column]);
                output[self.to[row] + column] = self.activation.apply(*sum) + added;
            }
        }
    }
}
