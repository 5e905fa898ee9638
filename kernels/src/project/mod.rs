//! `project`: a stack of focal planes becomes one plane.
//!
//! The slices of a channel follow one another: planes 0 to `slices - 1` are channel 0. `maximum` keeps the brightest value of
//! each pixel (what two-dimensional networks are usually given), `mean` the average (it blurs), `best_focus` the slice with
//! the largest variance of the Laplacian, the first of equals. For focus, pixels are rounded to whole grey levels from 0 to
//! 65535, so that both forms compare whole numbers and choose the same slice. NaN counts as 0.
//! Source: variance of the Laplacian, Pech-Pacheco et al. 2000.
//! Enters: items of `slices * n` channels. Leaves: items of `n` channels. Fails if the channels are not whole stacks.

use serde::{Deserialize, Serialize};

use crate::error::KernelError;
use crate::kernel::{Kernel, Shape, Tolerance};
use crate::pixels::Pixels;
use crate::plan::{Dispatch, Plan, groups_for};
use crate::registry::Step;
use crate::rows::Rows;

mod cpu;

/// What `best_focus` compares: the variance of a slice's Laplacian, exact, times the square of its pixels' count. `levels` are
/// `height * width` grey levels, row by row, at most 2^28.
pub fn sharpness(levels: &[u16], height: usize, width: usize) -> u128 {
    crate::moments::spread(levels, height, width)
}

pub(crate) const NAME: &str = "project";
pub(crate) const WGSL: &str = include_str!("kernel.wgsl");

/// Pixels that one workgroup sums: 2^13 parts below 2^18 stay below 2^31.
const BLOCK: usize = 1 << 13;

/// How a stack becomes a plane.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Projection {
    /// The brightest value of each pixel.
    Maximum,
    /// The average of each pixel.
    Mean,
    /// The sharpest slice.
    BestFocus,
}

/// Parameters of `project`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Project {
    /// Focal planes of each channel, 1 or more.
    pub slices: usize,
    /// How a stack becomes a plane.
    pub projection: Projection,
}

impl Kernel for Project {
    fn name(&self) -> &'static str {
        NAME
    }

    fn tolerance(&self) -> Tolerance {
        match self.projection {
            Projection::Mean => Tolerance {
                absolute: 1e-6,
                relative: 1e-6,
                why: "a sum and a division in f32",
            },
            _ => Tolerance::EXACT,
        }
    }

    fn output_shape(&self, [items, channels, height, width]: Shape) -> Result<Shape, KernelError> {
        let bad = |value: String, expected| KernelError::Parameter {
            kernel: NAME,
            parameter: "slices",
            value,
            expected,
        };
        if self.slices == 0 || !channels.is_multiple_of(self.slices) {
            let value = format!("{} for {channels} planes", self.slices);
            return Err(bad(value, "the planes must be whole stacks of this many slices"));
        }
        if self.projection == Projection::BestFocus && height * width > 1 << 28 {
            let value = format!("{} of {height} x {width} pixels", self.slices);
            return Err(bad(
                value,
                "focus is judged on slices of at most 268435456 pixels; cut tiles first",
            ));
        }
        Ok([items, channels / self.slices, height, width])
    }

    fn cpu<'a>(&'a self, input: Rows<'a>) -> Rows<'a> {
        cpu::project(*self, input)
    }

    fn plan(&self, plan: &mut Plan, input: Pixels) -> Pixels {
        let [items, channels, height, width] = input.shape();
        let shape = [items, channels / self.slices, height, width];
        let (planes, plane) = (items * channels / self.slices, height * width);
        let blocks = plane.div_ceil(BLOCK);
        let params = [height, width, self.slices, planes, blocks]
            .map(|v| v as u32)
            .to_vec();
        let out = plan.buffer(NAME, planes * plane);
        let step = |plan: &mut Plan, entry, pixels: Option<&Pixels>, writes, groups| {
            plan.dispatch(Dispatch {
                kernel: NAME,
                source: WGSL,
                entry,
                params: params.clone(),
                pixels: pixels.cloned(),
                pixels_rarely: false,
                later: None,
                reads: Vec::new(),
                writes,
                groups,
            });
        };
        let each = [groups_for(plane), planes as u32, 1];
        match self.projection {
            Projection::Maximum => step(plan, "maximum", Some(&input), vec![(1, out)], each),
            Projection::Mean => step(plan, "mean", Some(&input), vec![(1, out)], each),
            Projection::BestFocus => {
                let parts = plan.buffer(NAME, planes * self.slices * blocks * 4);
                let chosen = plan.buffer(NAME, planes);
                let summing = [blocks as u32, (planes * self.slices) as u32, 1];
                step(plan, "sharpness", Some(&input), vec![(2, parts)], summing);
                let choosing = [groups_for(planes), 1, 1];
                step(plan, "choose", None, vec![(2, parts), (3, chosen)], choosing);
                step(plan, "best", Some(&input), vec![(1, out), (3, chosen)], each);
            }
        }
        Pixels::float(out, shape)
    }

    fn channel(&self, _c: usize) -> Option<Step> {
        (self.slices == 1).then(|| (*self).into())
    }
}
