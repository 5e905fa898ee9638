//! `median`: median of the 3 x 3 or 5 x 5 neighbours, against single wrong pixels.
//!
//! Outside the image pixels are mirrored with the edge pixel repeated (scipy's default, `reflect`). NaN counts as 0. The
//! median is an input value, so both forms give the same bits.
//! Source: scipy.ndimage `median_filter`; the selection that forgets the extremes is Devillard's.
//! Enters: f32 planes. Leaves: planes of the same shape. Fails on a size other than 3 and 5. Wide medians are for
//! illumination functions: see [`crate::illumination`].

use std::ops::Range;

use serde::{Deserialize, Serialize};

use crate::error::KernelError;
use crate::kernel::{Kernel, Shape, Tolerance};
use crate::pixels::Pixels;
use crate::plan::Plan;
use crate::registry::Step;
use crate::rows::Rows;

mod cpu;

pub(crate) const NAME: &str = "median";
pub(crate) const WGSL: &str = include_str!("kernel.wgsl");

/// Parameters of `median`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Median {
    /// Rows and columns of the neighbourhood: 3 or 5.
    pub size: usize,
}

impl Kernel for Median {
    fn name(&self) -> &'static str {
        NAME
    }

    fn tolerance(&self) -> Tolerance {
        Tolerance::EXACT
    }

    fn output_shape(&self, input: Shape) -> Result<Shape, KernelError> {
        if self.size == 3 || self.size == 5 {
            return Ok(input);
        }
        Err(KernelError::Parameter {
            kernel: NAME,
            parameter: "size",
            value: self.size.to_string(),
            expected: "a median takes 3 x 3 or 5 x 5 pixels",
        })
    }

    fn cpu<'a>(&'a self, input: Rows<'a>) -> Rows<'a> {
        cpu::median(self.size, input)
    }

    fn plan(&self, plan: &mut Plan, input: Pixels) -> Pixels {
        let shape = input.shape();
        let input = if input.ops().is_empty() {
            input
        } else {
            input.stored(plan)
        };
        let out = plan.buffer(NAME, shape.iter().product());
        let entry = if self.size == 3 { "median3" } else { "median5" };
        let mut dispatch = input.dispatch(NAME, WGSL, entry, vec![shape[2] as u32, shape[3] as u32]);
        dispatch.writes = vec![(1, out)];
        plan.dispatch(dispatch);
        Pixels::float(out, shape)
    }
    fn channel(&self, _c: usize) -> Option<Step> {
        Some((*self).into())
    }

    fn strip(&self, _rows: Range<usize>) -> Option<(Step, usize)> {
        Some(((*self).into(), self.size / 2))
    }
}
