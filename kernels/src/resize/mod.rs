//! `resize`: change of image size by separable weighted sums, rows first and then columns.
//!
//! With `s = in / out` per axis, output `o` weights input pixel `i` by
//! - `area`: the length of the overlap of `[i, i+1)` with `[o s, (o+1) s)`; the mean of the covered area;
//! - `bilinear`: `max(0, 1 - |d| / f)` with `d = i + 0.5 - (o + 0.5) s` and `f = max(s, 1)` if antialiased, else 1;
//! - `lanczos`: `sinc(d / f) sinc(d / 3 f)` for `|d| < 3 f`, `f = max(s, 1)`, `sinc(t) = sin(pi t) / (pi t)`; sharper than
//!   bilinear, and overshoots beside edges,
//!
//! normalised to sum 1; pixels outside the image have no weight. Weights are computed in f64 and used as f32.
//! Source: the area relation of OpenCV; the triangle and Lanczos filters of Pillow, the first also of
//! torchvision (`antialias=True`).
//! Enters: f32 planes. Leaves: planes of `height` x `width`. Fails on a size of 0 or a result too large to address.

use std::ops::Range;

use serde::{Deserialize, Serialize};

use crate::error::KernelError;
use crate::kernel::{Kernel, Shape, Tolerance};
use crate::pixels::Pixels;
use crate::plan::{Plan, WORKGROUP, groups_for};
use crate::registry::Step;
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
    /// Windowed sinc of three lobes, antialiased.
    Lanczos,
}

/// Weights per output pixel up to which a GPU takes both sums at once: the intermediate image, written and read again, costs
/// more than weighting some pixels twice.
const DIRECT_TAPS: usize = 150;

/// Lobes of the Lanczos filter.
const LOBES: f64 = 3.0;

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
                ResizeFilter::Lanczos => {
                    let half = LOBES * scale.max(1.0);
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
                ResizeFilter::Lanczos => {
                    let distance = (i as f64 + 0.5 - (lo + hi) / 2.0) / ((hi - lo) / 2.0);
                    if distance.abs() < 1.0 {
                        sinc(LOBES * distance) * sinc(distance)
                    } else {
                        0.0
                    }
                }
            };
            let mut weights: Vec<f64> = (from..to).map(weight).collect();
            let mut start = from;
            if filter != ResizeFilter::Lanczos {
                // Rounding can leave a sliver of weight beside an exact edge; it is noise, and would read one pixel more.
                let noise = weights.iter().sum::<f64>() * 1e-9;
                let kept = |w: &f64| *w > noise;
                let first = weights.iter().position(kept).unwrap_or(0);
                weights.truncate(weights.iter().rposition(kept).map_or(0, |last| last + 1));
                weights.drain(..first);
                start += first;
            }
            let sum: f64 = weights.iter().sum();
            axis.start.push(start as u32);
            axis.weights.extend(weights.iter().map(|w| (w / sum) as f32));
            axis.first.push(axis.weights.len() as u32);
        }
        axis
    }

    /// Weights of the output that has most.
    fn most_taps(&self) -> usize {
        self.first.windows(2).map(|w| w[1] - w[0]).max().unwrap_or(0) as usize
    }

    /// The inputs behind some outputs, which are not none.
    pub(crate) fn inputs(&self, outputs: Range<usize>) -> Range<usize> {
        let (start, _) = self.taps(outputs.start);
        let (last, weights) = self.taps(outputs.end - 1);
        start..last + weights.len()
    }

    /// The weights of some outputs, of inputs that begin at `from`.
    fn part(&self, outputs: Range<usize>, from: usize) -> Self {
        let first = self.first[outputs.start];
        Self {
            start: self.start[outputs.clone()]
                .iter()
                .map(|s| s - from as u32)
                .collect(),
            first: self.first[outputs.start..=outputs.end]
                .iter()
                .map(|f| f - first)
                .collect(),
            weights: self.weights[first as usize..self.first[outputs.end] as usize].to_vec(),
        }
    }

    /// What a shader reads: for each output the first input and where its weights begin and end in the table, then the
    /// weights.
    fn table(&self) -> Vec<u32> {
        let outputs = self.start.len();
        let weights = 3 * outputs as u32;
        let entries = (0..outputs).flat_map(|o| {
            [
                self.start[o],
                weights + self.first[o],
                weights + self.first[o + 1],
            ]
        });
        entries.chain(self.weights.iter().map(|w| w.to_bits())).collect()
    }

    /// First input and weights of output `o`.
    pub(crate) fn taps(&self, o: usize) -> (usize, &[f32]) {
        (
            self.start[o] as usize,
            &self.weights[self.first[o] as usize..self.first[o + 1] as usize],
        )
    }
}

/// `sin(pi t) / (pi t)`.
fn sinc(t: f64) -> f64 {
    let t = t * std::f64::consts::PI;
    if t == 0.0 { 1.0 } else { t.sin() / t }
}

impl Kernel for Resize {
    fn name(&self) -> &'static str {
        NAME
    }

    fn tolerance(&self) -> Tolerance {
        if self.filter == ResizeFilter::Lanczos {
            return Tolerance {
                absolute: 0.3,
                relative: 4e-6,
                why: "products of both signs may cancel: 4e-6 of the largest grey level",
            };
        }
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

    fn plan(&self, plan: &mut Plan, input: Pixels) -> Pixels {
        let rows = self.rows(input.shape()[2]);
        self.plan_rows(plan, input, &rows)
    }

    fn channel(&self, _c: usize) -> Option<Step> {
        Some((*self).into())
    }
}

impl Resize {
    /// The weights of the rows of an image of `height` rows.
    pub(crate) fn rows(&self, height: usize) -> Axis {
        Axis::new(self.filter, height, self.height)
    }

    /// Some output rows, from those input rows that are behind them (and perhaps others): `input` begins at row `from`.
    pub(crate) fn plan_strip(
        &self,
        plan: &mut Plan,
        input: Pixels,
        rows: &Axis,
        from: usize,
        outputs: Range<usize>,
    ) -> Pixels {
        self.plan_rows(plan, input, &rows.part(outputs, from))
    }

    /// The output rows whose weights `rows` has.
    fn plan_rows(&self, plan: &mut Plan, input: Pixels, rows: &Axis) -> Pixels {
        let [items, channels, _, width] = input.shape();
        let columns = Axis::new(self.filter, width, self.width);
        let direct = rows.most_taps() * columns.most_taps() <= DIRECT_TAPS;
        let mut table = rows.table();
        let horizontal = table.len();
        table.extend(columns.table());
        let table = plan.constant(NAME, table);
        let mut pass = |entry, pixels: Pixels, [height, width]: [usize; 2]| {
            let shape = [items, channels, height, width];
            let columns = pixels.shape()[3];
            let out = plan.buffer(NAME, shape.iter().product());
            let params = [columns, height, width, horizontal].map(|v| v as u32).to_vec();
            let mut dispatch = pixels.dispatch(NAME, WGSL, entry, params);
            dispatch.reads = vec![(1, table)];
            dispatch.writes = vec![(2, out)];
            // `direct` begins each row with a workgroup of its own.
            dispatch.groups[0] = groups_for(height * width.next_multiple_of(WORKGROUP as usize));
            plan.dispatch(dispatch);
            Pixels::float(out, shape)
        };
        let outputs = rows.start.len();
        if direct {
            return pass("direct", input, [outputs, self.width]);
        }
        let tall = pass("vertical", input, [outputs, width]);
        pass("horizontal", tall, [outputs, self.width])
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The filter's zero crossings lie on pixels here: their weights are 0, but they are there.
    #[test]
    fn lanczos_weights_stay_with_their_pixels() {
        let axis = Axis::new(ResizeFilter::Lanczos, 7, 3);
        let weights: Vec<_> = (0..3).map(|o| axis.taps(o)).collect();
        assert!(weights.iter().all(|(start, w)| *start == 0 && w.len() == 7));
        let (left, right) = (weights[0].1, weights[2].1);
        assert!(left[3].abs() < 1e-7, "{left:?}");
        assert!(
            (0..7).all(|i| (left[i] - right[6 - i]).abs() < 1e-7),
            "{left:?} {right:?}"
        );
    }

    #[test]
    fn area_weights_end_at_exact_edges() {
        let axis = Axis::new(ResizeFilter::Area, 300, 100);
        assert!((0..100).all(|o| axis.taps(o) == (3 * o, &[1.0 / 3.0; 3][..])));
    }
}
