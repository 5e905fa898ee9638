//! `pad`: pixels added around every plane. A copy, so it is exact.
//!
//! Enters: planes of H x W. Leaves: planes of `top + H + bottom` x `left + W + right`. Fails on a fill that is not finite and
//! on a result too large to address.

use rayon::prelude::*;
use serde::{Deserialize, Serialize};

use crate::blur::reflected;
use crate::error::KernelError;
use crate::image::Tensor;
use crate::kernel::{Kernel, Shape, Tolerance};
use crate::pixels::Pixels;
use crate::plan::{Plan, groups_for};
use crate::registry::Step;
use crate::rows::{RowAt, Rows};

pub(crate) const NAME: &str = "pad";
pub(crate) const WGSL: &str = include_str!("kernel.wgsl");

/// Largest border in pixels.
const MAX_BORDER: usize = 1 << 16;

/// What the new pixels hold.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case", deny_unknown_fields)]
pub enum Fill {
    /// A number, in the units of the pixels.
    Constant(f32),
    /// The nearest pixel of the image.
    Edge,
    /// The mirrored image, the edge pixel repeated.
    Reflect,
}

/// Parameters of `pad`.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Pad {
    /// Rows added above.
    pub top: usize,
    /// Rows added below.
    pub bottom: usize,
    /// Columns added on the left.
    pub left: usize,
    /// Columns added on the right.
    pub right: usize,
    /// What the new pixels hold.
    pub fill: Fill,
}

impl Pad {
    /// Source index of output index `at` on an axis, or none where the fill is a constant.
    fn source(&self, at: usize, before: usize, length: usize) -> Option<usize> {
        let at = at as isize - before as isize;
        let inside = (0..length as isize).contains(&at);
        match self.fill {
            Fill::Constant(_) => inside.then_some(at as usize),
            Fill::Edge => Some(at.clamp(0, length as isize - 1) as usize),
            Fill::Reflect => Some(reflected(at, length)),
        }
    }
}

impl Kernel for Pad {
    fn name(&self) -> &'static str {
        NAME
    }

    fn tolerance(&self) -> Tolerance {
        Tolerance::EXACT
    }

    fn output_shape(&self, [items, channels, height, width]: Shape) -> Result<Shape, KernelError> {
        let bad = |parameter, value: String, expected| KernelError::Parameter {
            kernel: NAME,
            parameter,
            value,
            expected,
        };
        let sides = [
            ("top", self.top),
            ("bottom", self.bottom),
            ("left", self.left),
            ("right", self.right),
        ];
        if let Some((side, size)) = sides.iter().find(|(_, size)| *size > MAX_BORDER) {
            return Err(bad(side, size.to_string(), "a border has at most 65536 pixels"));
        }
        if let Fill::Constant(value) = self.fill
            && !value.is_finite()
        {
            return Err(bad("fill", value.to_string(), "it must be finite"));
        }
        let (height, width) = (height + self.top + self.bottom, width + self.left + self.right);
        Ok([items, channels, height, width])
    }

    fn cpu<'a>(&'a self, input: Rows<'a>) -> Rows<'a> {
        let [items, channels, height, width] = input.shape();
        let rows = height + self.top + self.bottom;
        let columns = width + self.left + self.right;
        let constant = if let Fill::Constant(value) = self.fill {
            value
        } else {
            0.0
        };
        let mut out = vec![constant; items * channels * rows * columns];
        out.par_chunks_mut(columns)
            .with_min_len(16)
            .enumerate()
            .for_each(|(row, out)| {
                let (plane, y) = (row / rows, row % rows);
                let Some(y) = self.source(y, self.top, height) else {
                    return;
                };
                let at = RowAt {
                    item: plane / channels,
                    channel: plane % channels,
                    y,
                    x: 0,
                };
                input.read(at, &mut out[self.left..self.left + width]);
                for x in (0..self.left).chain(self.left + width..columns) {
                    if let Some(from) = self.source(x, self.left, width) {
                        out[x] = out[self.left + from];
                    }
                }
            });
        Rows::float(Tensor::from_parts([items, channels, rows, columns], out))
    }

    fn plan(&self, plan: &mut Plan, input: Pixels) -> Pixels {
        let [items, channels, height, width] = input.shape();
        let rows = height + self.top + self.bottom;
        let columns = width + self.left + self.right;
        let out = plan.buffer(NAME, items * channels * rows * columns);
        let (mode, value) = match self.fill {
            Fill::Constant(value) => (0, value),
            Fill::Edge => (1, 0.0),
            Fill::Reflect => (2, 0.0),
        };
        let mut params = [height, width, rows, columns, self.top, self.left]
            .map(|v| v as u32)
            .to_vec();
        params.extend([mode, value.to_bits()]);
        let mut dispatch = input.dispatch(NAME, WGSL, "pad", params);
        dispatch.writes = vec![(1, out)];
        dispatch.groups[0] = groups_for(rows * columns);
        plan.dispatch(dispatch);
        Pixels::float(out, [items, channels, rows, columns])
    }
    fn channel(&self, _c: usize) -> Option<Step> {
        Some((*self).into())
    }
}
