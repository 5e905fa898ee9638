//! `orient`: flips, quarter turns and transposition of every plane. A copy, so it is exact.
//!
//! Cameras are mounted in any direction; and a network that should not care for direction is shown all eight.
//! Enters: planes of H x W. Leaves: planes of H x W, or W x H for quarter turns and transposition. Cannot fail.

use rayon::prelude::*;
use serde::{Deserialize, Serialize};

use crate::error::KernelError;
use crate::image::Tensor;
use crate::kernel::{Kernel, Shape, Tolerance};
use crate::pixels::Pixels;
use crate::plan::{Plan, groups_for};
use crate::registry::Step;
use crate::rows::Rows;

pub(crate) const NAME: &str = "orient";
pub(crate) const WGSL: &str = include_str!("kernel.wgsl");

/// What happens to each plane.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Turn {
    /// Left becomes right.
    FlipHorizontal,
    /// Top becomes bottom.
    FlipVertical,
    /// A quarter turn counterclockwise (numpy's `rot90`).
    Rotate90,
    /// A half turn.
    Rotate180,
    /// A quarter turn clockwise.
    Rotate270,
    /// Rows become columns.
    Transpose,
    /// Rows become columns, from the last to the first.
    Transverse,
}

impl Turn {
    /// Whether height and width change places; whether the source row and the source column run backwards.
    fn parts(self) -> (bool, bool, bool) {
        match self {
            Turn::FlipHorizontal => (false, false, true),
            Turn::FlipVertical => (false, true, false),
            Turn::Rotate180 => (false, true, true),
            Turn::Transpose => (true, false, false),
            // out[y, x] = in[x, W - 1 - y]
            Turn::Rotate90 => (true, false, true),
            // out[y, x] = in[H - 1 - x, y]
            Turn::Rotate270 => (true, true, false),
            Turn::Transverse => (true, true, true),
        }
    }
}

/// Parameters of `orient`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Orient {
    /// What happens to each plane.
    pub turn: Turn,
}

impl Kernel for Orient {
    fn name(&self) -> &'static str {
        NAME
    }

    fn tolerance(&self) -> Tolerance {
        Tolerance::EXACT
    }

    fn output_shape(&self, [items, channels, height, width]: Shape) -> Result<Shape, KernelError> {
        Ok(if self.turn.parts().0 {
            [items, channels, width, height]
        } else {
            [items, channels, height, width]
        })
    }

    fn cpu<'a>(&'a self, input: Rows<'a>) -> Rows<'a> {
        let (swap, up, left) = self.turn.parts();
        let tensor = input.materialise();
        let [items, channels, height, width] = tensor.shape();
        let [rows, columns] = if swap { [width, height] } else { [height, width] };
        let mut out = vec![0.0; tensor.data().len()];
        out.par_chunks_mut(columns)
            .with_min_len(16)
            .enumerate()
            .for_each(|(row, out)| {
                let (plane, y) = (row / rows, row % rows);
                let source = &tensor.data()[plane * height * width..(plane + 1) * height * width];
                let back = |backwards, at: usize, length: usize| if backwards { length - 1 - at } else { at };
                if swap {
                    let x = back(left, y, width);
                    for (i, o) in out.iter_mut().enumerate() {
                        *o = source[back(up, i, height) * width + x];
                    }
                } else {
                    let y = back(up, y, height);
                    out.copy_from_slice(&source[y * width..(y + 1) * width]);
                    if left {
                        out.reverse();
                    }
                }
            });
        Rows::float(Tensor::from_parts([items, channels, rows, columns], out))
    }

    fn plan(&self, plan: &mut Plan, input: Pixels) -> Pixels {
        let [items, channels, height, width] = input.shape();
        let (swap, up, left) = self.turn.parts();
        let shape = if swap {
            [items, channels, width, height]
        } else {
            [items, channels, height, width]
        };
        let out = plan.buffer(NAME, shape.iter().product());
        let params = vec![
            height as u32,
            width as u32,
            u32::from(swap),
            u32::from(up),
            u32::from(left),
        ];
        let mut dispatch = input.dispatch(NAME, WGSL, "orient", params);
        dispatch.writes = vec![(1, out)];
        dispatch.groups[0] = groups_for(height * width);
        plan.dispatch(dispatch);
        Pixels::float(out, shape)
    }
    fn channel(&self, _c: usize) -> Option<Step> {
        Some((*self).into())
    }
}
