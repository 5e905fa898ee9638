//! `resize`: change of image size by separable weighted sums, rows first and then columns.
//!
//! With `s = in / out` per axis, output `o` weights input pixel `i` by
//! - `area`: the length of the overlap of `[i, i+1)` with `[o s, (o+1) s)`; the mean of the covered area;
//! - `bilinear`: `max(0, 1 - |i + 0.5 - (o + 0.5) s| / f)` with `f = max(s, 1)` if antialiased, else 1,
//!
//! normalised to sum 1; pixels outside the image have no weight. Weights are computed in f64 and used as f32.
//! Source: the area relation of OpenCV; the triangle filter of Pillow and torchvision (`antialias=True`).
//! Enters: f32 planes. Leaves: planes of `height` x `width`. Fails on a size of 0 or a result too large to address.

use serde::{Deserialize, Serialize};

use crate::error::KernelError;
use crate::kernel::{Kernel, Shape, Tolerance};
use crate::plan::{BufferId, Dispatch, Plan, float_words, groups_for};
use crate::rows::Rows;

mod cpu;

pub(crate) const NAME: &str = "resize";
pub(crate) const WGSL: &str = include_str!("kernel.wgsl");

/// The weighting.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case", deny_unknown_fields)]
pub enum ResizeFilter {
    /// Mean over the covered area.
    Area,
    /// Triangle filter.
    Bilinear {
        /// Widen the filter when shrinking; without it, small structure aliases.
        antialias: bool,
    },
}

/// Parameters of `resize`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Resize {
    /// Rows of the output.
    pub height: usize,
    /// Columns of the output.
    pub width: usize,
    /// The weighting.
    pub filter: ResizeFilter,
}

/// Weights of one axis: output `o` is the sum of `weights[first[o]..first[o + 1]]` times the inputs from `start[o]`.
#[derive(Debug, Clone)]
pub(crate) struct Axis {
    pub(crate) start: Vec<u32>,
    pub(crate) first: Vec<u32>,
    pub(crate) weights: Vec<f32>,
}

impl Axis {
    pub(crate) fn new(filter: ResizeFilter, input: usize, output: usize) -> Self {
        let scale = input as f64 / output as f64;
        let mut axis = Self {
            start: Vec::new(),
            first: vec![0],
            weights: Vec::new(),
        };
        for o in 0..output {
            let (lo, hi) = match filter {
                ResizeFilter::Area => (o as f64 * scale, (o + 1) as f64 * scale),
                ResizeFilter::Bilinear { antialias } => {
                    let half = if antialias { scale.max(1.0) } else { 1.0 };
                    let centre = (o as f64 + 0.5) * scale;
                    (centre - half, centre + half)
                }
            };
            let from = lo.floor().clamp(0.0, (input - 1) as f64) as usize;
            let to = hi.ceil().clamp(1.0, input as f64) as usize;
            let weight = |i: usize| match filter {
                ResizeFilter::Area => (hi.min((i + 1) as f64) - lo.max(i as f64)).max(0.0),
                ResizeFilter::Bilinear { .. } => {
                    (1.0 - (i as f64 + 0.5 - (lo + hi) / 2.0).abs() / ((hi - lo) / 2.0)).max(0.0)
                }
            };
            // Rounding can leave a sliver of weight beside an exact edge; it is noise, and would read one pixel more.
            let sum: f64 = (from..to).map(weight).sum();
            let kept: Vec<(usize, f64)> = (from..to)
                .map(|i| (i, weight(i)))
                .filter(|(_, w)| *w > sum * 1e-9)
                .collect();
            let sum: f64 = kept.iter().map(|(_, w)| w).sum();
            axis.start.push(kept.first().map_or(from, |(i, _)| *i) as u32);
            axis.weights.extend(kept.iter().map(|(_, w)| (w / sum) as f32));
            axis.first.push(axis.weights.len() as u32);
        }
        axis
    }

    /// First input and weights of output `o`.
    pub(crate) fn taps(&self, o: usize) -> (usize, &[f32]) {
        (
            self.start[o] as usize,
            &self.weights[self.first[o] as usize..self.first[o + 1] as usize],
        )
    }
}

impl Kernel for Resize {
    fn name(&self) -> &'static str {
        NAME
    }

    fn tolerance(&self) -> Tolerance {
        Tolerance {
            absolute: 1e-6,
            relative: 4e-6,
            why: "sums of non-negative products in f32 in the same order, but a driver may fuse multiply and add",
        }
    }

    fn output_shape(&self, input: Shape) -> Result<Shape, KernelError> {
        for (parameter, v) in [("height", self.height), ("width", self.width)] {
            if v == 0 || v > 1 << 20 {
                return Err(KernelError::Parameter {
                    kernel: NAME,
                    parameter,
                    value: v.to_string(),
                    expected: "a size lies in 1..=1048576 pixels",
                });
            }
        }
        Ok([input[0], input[1], self.height, self.width])
    }

    fn cpu<'a>(&'a self, input: Rows<'a>) -> Rows<'a> {
        cpu::resize(self, input)
    }

    fn plan(&self, plan: &mut Plan, input: BufferId, shape: Shape) -> BufferId {
        let [items, channels, height, width] = shape;
        let planes = items * channels;
        let vertical = Axis::new(self.filter, height, self.height);
        let horizontal = Axis::new(self.filter, width, self.width);
        let mut pass = |entry, input, axis: Axis, lines: usize, size: [usize; 2], count: usize| {
            let out = plan.buffer(NAME, count);
            let start = plan.constant(NAME, axis.start);
            let first = plan.constant(NAME, axis.first);
            let weights = plan.constant(NAME, float_words(axis.weights));
            plan.dispatch(Dispatch {
                kernel: NAME,
                source: WGSL,
                entry,
                params: [count, lines, size[0], size[1]].map(|v| v as u32).to_vec(),
                bindings: vec![(1, input), (2, start), (3, first), (4, weights), (5, out)],
                groups: [groups_for(count), 1, 1],
            });
            out
        };
        let tall = pass(
            "vertical",
            input,
            vertical,
            height,
            [self.height, width],
            planes * self.height * width,
        );
        let count = planes * self.height * self.width;
        pass(
            "horizontal",
            tall,
            horizontal,
            width,
            [self.height, self.width],
            count,
        )
    }
}
