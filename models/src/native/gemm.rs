//! The matrix product behind pointwise convolutions, linear layers and attention, with bias, activation and residual
//! fused into it.
//!
//! Enters: rows of values (the pixels of a feature map, or tokens) and packed weights. Leaves: rows of the output,
//! written at the places its own layout asks for. Every output value is one sum over the inputs in their order, so
//! the result does not depend on how the product is cut into blocks and tiles.

#![allow(
    clippy::needless_range_loop,
    reason = "rows and vectors index several arrays at once, as the formulas do"
)]

use std::ops::Range;

use super::elementwise::{Smooth, Smoothing};
use super::isa::Isa;
use super::layout::Map;
use super::simd::{Kernel, Simd};

/// Columns of a packed panel.
pub(crate) const PANEL_COLUMNS: usize = 16;

/// Rows handled before the next weights are taken up: their inputs stay in the second-level cache, the weights of a
/// tile in the first.
const BLOCK_ROWS: usize = 128;

/// Weights of one tile that fit in a first-level cache of 48 KiB beside the rows, as values: longer sums are cut and
/// kept in the output meanwhile.
const TILE_WEIGHTS: usize = 9216;

/// Inputs ahead for which weights are asked for: as many cycles as the third-level cache takes to answer.
const AHEAD: usize = 24;

/// What is applied to a sum before the residual is added.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Activation {
    /// Nothing.
    Linear,
    /// `min(max(x, 0), 6)`.
    Relu6,
    /// `x/2 (1 + erf(x / sqrt 2))` (Hendrycks and Gimpel 2016, arXiv:1606.08415), without approximation by tanh.
    Gelu,
    /// `x / (1 + e^-x)` (the same paper).
    Silu,
}

impl Activation {
    /// What is applied to the output once it is stored; the others are applied before.
    fn afterwards(self) -> Option<Smooth> {
        match self {
            Self::Linear | Self::Relu6 => None,
            Self::Gelu => Some(Smooth::Gelu),
            Self::Silu => Some(Smooth::Silu),
        }
    }

    /// Whether it is one that a depthwise convolution and a sum with a residual can follow with.
    pub(crate) fn is_clamp(self) -> bool {
        self.afterwards().is_none()
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
        let panel_count = outputs.div_ceil(PANEL_COLUMNS);
        let mut panels = vec![0.0; panel_count * inputs * PANEL_COLUMNS];
        if inputs > 0 {
            // Panel by panel, so that what is written stays in the cache until it is whole.
            for (panel, rows) in panels
                .chunks_exact_mut(inputs * PANEL_COLUMNS)
                .zip(weights.chunks(inputs * PANEL_COLUMNS))
            {
                for (lane, row) in rows.chunks_exact(inputs).enumerate() {
                    for (values, &w) in panel.chunks_exact_mut(PANEL_COLUMNS).zip(row) {
                        values[lane] = w;
                    }
                }
            }
        }
        let mut padded = bias.to_vec();
        padded.resize(panel_count * PANEL_COLUMNS, 0.0);
        Self {
            inputs,
            outputs,
            panels,
            bias: padded,
            activation,
        }
    }

    /// Input values per row.
    pub(crate) fn inputs(&self) -> usize {
        self.inputs
    }

    /// Output values per row.
    pub(crate) fn outputs(&self) -> usize {
        self.outputs
    }

    /// The weights of each output, and one bias for each, before they were packed.
    pub(crate) fn rows(&self) -> impl Iterator<Item = impl Iterator<Item = f32> + '_> + '_ {
        (0..self.outputs).map(move |output| {
            let panel = output / PANEL_COLUMNS * self.inputs;
            (0..self.inputs).map(move |k| self.panels[(panel + k) * PANEL_COLUMNS + output % PANEL_COLUMNS])
        })
    }

    /// The biases.
    pub(crate) fn bias(&self) -> &[f32] {
        &self.bias[..self.outputs]
    }

    /// What is applied to the sums.
    pub(crate) fn activation(&self) -> Activation {
        self.activation
    }

    /// See [`Product::apply`].
    pub(crate) fn apply(
        &self,
        isa: Isa,
        input: (&[f32], &Map),
        residual: Option<(&[f32], &Map)>,
        output: (&mut [f32], &Map),
    ) {
        self.product().apply(isa, input, residual, output);
    }

    /// See [`Product::apply_rows`].
    pub(crate) fn apply_rows(
        &self,
        isa: Isa,
        rows: Range<usize>,
        input: (&[f32], &Map),
        residual: Option<(&[f32], &Map)>,
        output: (&mut [f32], &Map),
    ) {
        self.product().apply_rows(isa, rows, input, residual, output);
    }

    fn product(&self) -> Product<'_> {
        Product {
            inputs: self.inputs,
            outputs: self.outputs,
            panels: &self.panels,
            bias: &self.bias,
            activation: self.activation,
        }
    }
}

/// Packed weights, wherever they are kept; see [`PackedMatrix`].
#[derive(Debug, Clone, Copy)]
pub(crate) struct Product<'a> {
    /// Input values per row.
    pub(crate) inputs: usize,
    /// Output values per row.
    pub(crate) outputs: usize,
    /// `outputs` rounded up to 16, times `inputs` values.
    pub(crate) panels: &'a [f32],
    /// `outputs` rounded up to 16 values.
    pub(crate) bias: &'a [f32],
    /// Applied before the residual.
    pub(crate) activation: Activation,
}

/// Whether every row of `values` values lies inside `data`. The last pixel may be cut short, so that the slice may
/// begin in the middle of a wider row.
fn fits(data: &[f32], map: &Map, values: usize) -> bool {
    map.channels >= values && data.len() + (map.channels - values) >= map.len()
}

impl Product<'_> {
    /// `output = activation(input * weights + bias) + residual`, row by row. A map may have more channels than the
    /// product has values: the others are left alone, as is the border of `output`.
    pub(crate) fn apply(
        &self,
        isa: Isa,
        input: (&[f32], &Map),
        residual: Option<(&[f32], &Map)>,
        output: (&mut [f32], &Map),
    ) {
        let rows = 0..output.1.pixels();
        self.apply_rows(isa, rows, input, residual, output);
    }

    /// As [`Product::apply`], for some of the rows only.
    pub(crate) fn apply_rows(
        &self,
        isa: Isa,
        rows: Range<usize>,
        (input, in_map): (&[f32], &Map),
        residual: Option<(&[f32], &Map)>,
        (output, out_map): (&mut [f32], &Map),
    ) {
        // The tiles address memory by these layouts, so their agreement is what makes the unsafe kernel sound.
        let padded = self.outputs.next_multiple_of(PANEL_COLUMNS);
        assert!(self.panels.len() >= padded * self.inputs, "packed weights");
        assert!(self.bias.len() >= padded, "one bias per column");
        assert!(fits(input, in_map, self.inputs), "input layout");
        assert!(fits(output, out_map, self.outputs), "output layout");
        assert!(
            in_map.pixels() == out_map.pixels(),
            "one output row per input row"
        );
        if let Some((data, map)) = residual {
            assert!(fits(data, map, self.outputs), "residual layout");
            // A smooth function comes after the store, so it would take the residual in.
            assert!(
                self.activation.is_clamp(),
                "no network here adds a residual after a GELU or SiLU"
            );
            assert!(
                map.pixels() == out_map.pixels(),
                "one residual row per output row"
            );
        }
        assert!(rows.end <= out_map.pixels(), "rows of the map");
        assert!(isa.runs_here(), "the instruction set was detected");

        if rows.is_empty() || self.outputs == 0 {
            return;
        }
        let (tile_rows, tile_panels) = isa.tile();
        let added = residual.map_or(&[][..], |(data, _)| data);
        let mut start = rows.start;
        for block_rows in even_parts(rows.len(), BLOCK_ROWS) {
            let mut offsets = Offsets::default();
            let (mut from, mut to) = (in_map.walk(start), out_map.walk(start));
            let mut add = residual.map(|(_, map)| map.walk(start));
            for row in 0..block_rows {
                offsets.from[row] = from.step();
                offsets.to[row] = to.step();
                if let Some(walk) = &mut add {
                    offsets.add[row] = walk.step();
                }
            }
            start += block_rows;
            self.block(
                isa,
                (tile_rows, tile_panels),
                &offsets,
                block_rows,
                input,
                residual.is_some().then_some(added),
                output,
            );
        }
    }

    /// The product of one block of rows.
    #[allow(
        clippy::too_many_arguments,
        reason = "the parts of one product, named where it begins"
    )]
    fn block(
        &self,
        isa: Isa,
        (tile_rows, tile_panels): (usize, usize),
        offsets: &Offsets,
        rows: usize,
        input: &[f32],
        residual: Option<&[f32]>,
        output: &mut [f32],
    ) {
        let panels = self.outputs.div_ceil(PANEL_COLUMNS);
        let longest = TILE_WEIGHTS / (tile_panels * PANEL_COLUMNS);
        let mut input_start = 0;
        // A product without inputs still writes its bias.
        for inputs in even_parts(self.inputs.max(1), longest) {
            let inputs = inputs.min(self.inputs);
            let ends = input_start + inputs == self.inputs;
            let mut panel = 0;
            for group in even_parts(panels, tile_panels) {
                let column = panel * PANEL_COLUMNS;
                let columns = (group * PANEL_COLUMNS).min(self.outputs - column);
                let strip = Strip {
                    inputs,
                    columns,
                    panel_stride: self.inputs * PANEL_COLUMNS,
                    starts: input_start == 0,
                    relu6: ends && self.activation == Activation::Relu6,
                    tile_rows,
                    from: &offsets.from[..rows],
                    to: &offsets.to[..rows],
                    add: if ends && residual.is_some() {
                        &offsets.add[..rows]
                    } else {
                        &[]
                    },
                    input: &input[input_start..],
                    panels: &self.panels[(panel * self.inputs + input_start) * PANEL_COLUMNS..],
                    bias: &self.bias[column..],
                    residual: residual.unwrap_or_default(),
                    column,
                    output: &mut *output,
                };
                // SAFETY: `apply` checked that the instructions run here, that the rows lie inside their slices, and
                // that panels and bias are whole.
                unsafe { isa.run(strip) };
                if let Some(function) = self.activation.afterwards().filter(|_| ends) {
                    let smoothing = Smoothing {
                        function,
                        rows: &offsets.to[..rows],
                        column,
                        columns,
                        values: &mut *output,
                    };
                    // SAFETY: the instructions run here.
                    unsafe { isa.run(smoothing) };
                }
                panel += group;
            }
            input_start += inputs;
        }
    }
}

/// Where each row of a block begins.
struct Offsets {
    from: [usize; BLOCK_ROWS],
    to: [usize; BLOCK_ROWS],
    add: [usize; BLOCK_ROWS],
}

impl Default for Offsets {
    fn default() -> Self {
        Self {
            from: [0; BLOCK_ROWS],
            to: [0; BLOCK_ROWS],
            add: [0; BLOCK_ROWS],
        }
    }
}

/// Cuts `n` into the fewest parts of at most `most`, as even as they can be.
fn even_parts(n: usize, most: usize) -> impl Iterator<Item = usize> {
    let count = n.div_ceil(most.max(1));
    (0..count).map(move |part| n / count + usize::from(part < n % count))
}

/// A block of rows times a few panels: the work of one call of a kernel.
struct Strip<'a> {
    /// Length of the sums.
    inputs: usize,
    /// Columns in use.
    columns: usize,
    /// Values from one panel to the next.
    panel_stride: usize,
    /// Whether the sums begin here, with the bias; else they go on from the output.
    starts: bool,
    /// Whether ReLU6 is applied.
    relu6: bool,
    /// Most rows of a tile.
    tile_rows: usize,
    /// Where each row of the input begins.
    from: &'a [usize],
    /// Where each row of the output begins.
    to: &'a [usize],
    /// Where each row of the residual begins; empty where none is added.
    add: &'a [usize],
    input: &'a [f32],
    panels: &'a [f32],
    bias: &'a [f32],
    residual: &'a [f32],
    /// The first column, in the output and the residual.
    column: usize,
    output: &'a mut [f32],
}

impl Kernel for Strip<'_> {
    #[inline(always)]
    unsafe fn run<S: Simd>(mut self) {
        let vectors = self.columns.div_ceil(S::LANES);
        let mut row = 0;
        for rows in even_parts(self.to.len(), self.tile_rows) {
            // SAFETY: passed on from the caller; the tiles cover the rows once each.
            unsafe { self.tile::<S>(row, rows, vectors) };
            row += rows;
        }
    }
}

impl Strip<'_> {
    /// One tile.
    ///
    /// # Safety
    /// As [`Kernel::run`].
    #[inline(always)]
    unsafe fn tile<S: Simd>(&mut self, row: usize, rows: usize, vectors: usize) {
        macro_rules! cases {
            ($($r:literal)*) => {
                match (rows, vectors) {
                    $(
                        ($r, 1) => self.sums::<S, $r, 1>(row),
                        ($r, 2) => self.sums::<S, $r, 2>(row),
                        ($r, 3) => self.sums::<S, $r, 3>(row),
                        ($r, 4) => self.sums::<S, $r, 4>(row),
                    )*
                    _ => unreachable!("a tile has 1 to 8 rows and 1 to 4 vectors"),
                }
            };
        }
        // SAFETY: passed on from the caller.
        unsafe { cases!(1 2 3 4 5 6 7 8) }
    }

    /// `R` rows and `V` vectors of columns, all sums in registers.
    ///
    /// # Safety
    /// As [`Kernel::run`]; the columns in use need `V` vectors.
    #[inline(always)]
    unsafe fn sums<S: Simd, const R: usize, const V: usize>(&mut self, row: usize) {
        // Never called; spares the compiler the tiles that do not fit in the registers.
        if R > S::ROWS || V * S::LANES > S::PANELS * PANEL_COLUMNS {
            return;
        }
        // SAFETY: the caller vouches for rows, panels and bias; the last vector is masked where it is not full.
        unsafe {
            let last = self.columns - (V - 1) * S::LANES;
            let whole = last == S::LANES;
            let output = self.output.as_mut_ptr().add(self.column);
            let to: [*mut f32; R] = std::array::from_fn(|r| output.add(*self.to.get_unchecked(row + r)));
            let mut sums = [[S::splat(0.0); V]; R];
            for r in 0..R {
                for v in 0..V {
                    sums[r][v] = if self.starts {
                        S::load(self.bias.as_ptr().add(v * S::LANES))
                    } else if v + 1 < V || whole {
                        S::load(to[r].add(v * S::LANES))
                    } else {
                        S::load_first(to[r].add(v * S::LANES), last)
                    };
                }
            }
            let from: [*const f32; R] =
                std::array::from_fn(|r| self.input.as_ptr().add(*self.from.get_unchecked(row + r)));
            let weights: [*const f32; V] = std::array::from_fn(|v| {
                let at = v * S::LANES;
                let panel = at / PANEL_COLUMNS * self.panel_stride;
                self.panels.as_ptr().add(panel + at % PANEL_COLUMNS)
            });
            for k in 0..self.inputs {
                let w: [S; V] = std::array::from_fn(|v| {
                    let at = weights[v].add(k * PANEL_COLUMNS);
                    // Each panel is one stream of cache lines.
                    if v * S::LANES % PANEL_COLUMNS == 0 {
                        S::prefetch(at.wrapping_add(AHEAD * PANEL_COLUMNS));
                    }
                    S::load(at)
                });
                for r in 0..R {
                    let value = S::splat(*from[r].add(k));
                    for v in 0..V {
                        sums[r][v] = value.mul_add(w[v], sums[r][v]);
                    }
                }
            }
            if self.relu6 {
                for r in 0..R {
                    for v in 0..V {
                        sums[r][v] = sums[r][v].relu6();
                    }
                }
            }
            if !self.add.is_empty() {
                let residual = self.residual.as_ptr().add(self.column);
                for r in 0..R {
                    let add = residual.add(*self.add.get_unchecked(row + r));
                    for v in 0..V {
                        let added = if v + 1 < V || whole {
                            S::load(add.add(v * S::LANES))
                        } else {
                            S::load_first(add.add(v * S::LANES), last)
                        };
                        sums[r][v] = sums[r][v].add(added);
                    }
                }
            }
            for r in 0..R {
                for v in 0..V {
                    if v + 1 < V || whole {
                        sums[r][v].store(to[r].add(v * S::LANES));
                    } else {
                        sums[r][v].store_first(to[r].add(v * S::LANES), last);
                    }
                }
            }
        }
    }
}
