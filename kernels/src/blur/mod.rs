//! `gaussian_blur`: Gaussian blur, separable, rows first.
//!
//! Weights `exp(-d^2 / (2 sigma^2))` for whole `d` up to `floor(4 sigma + 0.5)`, normalised to sum 1; computed in f64, used
//! as f32 (f64 for illumination functions). The filter is the whole truncated one at every sigma, so that numbers are
//! scipy's; wide vectors make it fast enough that no recursive approximation is needed. Outside the image pixels are mirrored with the
//! edge pixel repeated (scipy's default, `reflect`), or absent and the weights inside rescaled (`normalised`: no darker
//! borders). NaN and infinities count as 0.
//! Source: scipy.ndimage `gaussian_filter`, truncate 4; CellProfiler CorrectIlluminationCalculate for `normalised`.
//! Enters: f32 planes. Leaves: planes of the same shape. Fails on a sigma that is not above 0 and at most 1000 pixels.

use std::ops::Range;

use serde::{Deserialize, Serialize};

use crate::error::KernelError;
use crate::kernel::{Kernel, Shape, Tolerance};
use crate::pixels::Pixels;
use crate::plan::{Plan, float_words};
use crate::registry::Step;
use crate::rows::Rows;

mod cpu;

pub(crate) use cpu::{blurred, convolved, reflected};

pub(crate) const NAME: &str = "gaussian_blur";
pub(crate) const WGSL: &str = include_str!("kernel.wgsl");

/// Standard deviations at which the filter ends.
const TRUNCATE: f64 = 4.0;

/// What lies outside the image.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Border {
    /// The mirrored image, the edge pixel repeated.
    Reflect,
    /// Nothing: the weights inside sum to 1.
    Normalised,
}

/// Parameters of `gaussian_blur`.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct GaussianBlur {
    /// Standard deviation in pixels, above 0 and at most 1000.
    pub sigma: f64,
    /// What lies outside the image.
    pub border: Border,
}

/// Fails unless a filter of this width can be made.
pub(crate) fn check_sigma(kernel: &'static str, sigma: f64) -> Result<(), KernelError> {
    if sigma > 0.0 && sigma <= 1000.0 {
        return Ok(());
    }
    Err(KernelError::Parameter {
        kernel,
        parameter: "sigma",
        value: sigma.to_string(),
        expected: "a standard deviation is above 0 and at most 1000 pixels",
    })
}

/// Pixels on either side that a filter weights.
pub(crate) fn reach(sigma: f64) -> usize {
    (TRUNCATE * sigma + 0.5).floor() as usize
}

/// Weights of distances 0, 1, ..., the end of the filter.
pub(crate) fn weights(sigma: f64) -> Vec<f64> {
    let mut weights: Vec<f64> = (0..=reach(sigma) as i32)
        .map(|d| (-0.5 / (sigma * sigma) * f64::from(d * d)).exp())
        .collect();
    let sum = 2.0 * weights.iter().sum::<f64>() - weights[0];
    weights.iter_mut().for_each(|w| *w /= sum);
    weights
}

/// One over the weight inside an axis of `length` pixels, for each of them.
pub(crate) fn inverse_weight_inside(weights: &[f64], length: usize, border: Border) -> Vec<f64> {
    if border == Border::Reflect {
        return vec![1.0; length];
    }
    // Weight of distances 1 to d.
    let mut side = vec![0.0];
    for w in &weights[1..] {
        side.push(side[side.len() - 1] + w);
    }
    let up_to = |d: usize| side[d.min(side.len() - 1)];
    (0..length)
        .map(|x| 1.0 / (weights[0] + up_to(x) + up_to(length - 1 - x)))
        .collect()
}

impl Kernel for GaussianBlur {
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
        check_sigma(NAME, self.sigma)?;
        Ok(input)
    }

    fn cpu<'a>(&'a self, input: Rows<'a>) -> Rows<'a> {
        let data = blurred(&input, self.sigma, self.border);
        Rows::float(crate::image::Tensor::from_parts(input.shape(), data))
    }

    fn plan(&self, plan: &mut Plan, input: Pixels) -> Pixels {
        self::plan(plan, input, self.sigma, self.border)
    }
    fn channel(&self, _c: usize) -> Option<Step> {
        Some((*self).into())
    }

    fn strip(&self, _rows: Range<usize>) -> Option<(Step, usize)> {
        Some(((*self).into(), reach(self.sigma)))
    }
}

/// Two dispatches that leave the blurred pixels.
pub(crate) fn plan(plan: &mut Plan, input: Pixels, sigma: f64, border: Border) -> Pixels {
    let shape = input.shape();
    let weights = weights(sigma);
    let constant = plan.constant(NAME, float_words(weights.iter().map(|w| *w as f32)));
    // Pending operations would be repeated for every weight.
    let mut pixels = if input.ops().is_empty() {
        input
    } else {
        input.stored(plan)
    };
    for (entry, length) in [("vertical", shape[2]), ("horizontal", shape[3])] {
        let inside = inverse_weight_inside(&weights, length, border)
            .into_iter()
            .map(|v| v as f32);
        let inside = plan.constant(NAME, float_words(inside));
        let out = plan.buffer(NAME, shape.iter().product());
        let params = [
            shape[2],
            shape[3],
            weights.len() - 1,
            usize::from(border == Border::Reflect),
        ];
        let mut dispatch = pixels.dispatch(NAME, WGSL, entry, params.map(|v| v as u32).to_vec());
        dispatch.reads = vec![(1, constant), (2, inside)];
        dispatch.writes = vec![(3, out)];
        plan.dispatch(dispatch);
        pixels = Pixels::float(out, shape);
    }
    pixels
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn weights_sum_to_one_and_the_inside_is_what_is_left() {
        for sigma in [0.3, 1.0, 2.0, 17.02, 50.0] {
            let w = weights(sigma);
            assert!((2.0 * w.iter().sum::<f64>() - w[0] - 1.0).abs() < 1e-12);
            assert_eq!(w.len(), (4.0 * sigma + 0.5) as usize + 1);
            let inside = inverse_weight_inside(&w, 7, Border::Normalised);
            for (x, v) in inside.iter().enumerate() {
                let sum: f64 = (0..7usize)
                    .map(|i| w.get(i.abs_diff(x)).copied().unwrap_or(0.0))
                    .sum();
                assert!((v - 1.0 / sum).abs() < 1e-9, "{sigma} {x}");
            }
        }
    }
}
