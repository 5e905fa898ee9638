//! `composite`: channels rendered as one colour picture.
//!
//! `out[k] = round(255 min(1, sum over channels c of colour[c][k] clip(x_c, 0, 1)))` for red, green and blue, half to even: the
//! additive mixture of the field's viewers. The input is scaled to 0 to 1 first (see `percentile_scale`). NaN counts as 0.
//! Enters: items of n channels. Leaves: items of 3 channels, whole numbers from 0 to 255; [`rgb8`] makes bytes of them. Fails
//! if there is not one colour per channel, or a colour component is not in 0..=1.

use rayon::prelude::*;
use serde::{Deserialize, Serialize};

use crate::error::KernelError;
use crate::image::Tensor;
use crate::kernel::{Kernel, Shape, Tolerance};
use crate::pixels::Pixels;
use crate::plan::{Plan, float_words};
use crate::registry::Step;
use crate::rows::{RowAt, Rows};
use crate::simd::vectorised;

pub(crate) const NAME: &str = "composite";
pub(crate) const WGSL: &str = include_str!("kernel.wgsl");

/// A colour: red, green and blue, each from 0 to 1.
pub type Colour = [f32; 3];

/// Colours by the names that microscopists use; `None` for any other word.
pub fn colour(name: &str) -> Option<Colour> {
    Some(match name {
        "grey" | "gray" | "white" => [1.0, 1.0, 1.0],
        "red" => [1.0, 0.0, 0.0],
        "green" => [0.0, 1.0, 0.0],
        "blue" => [0.0, 0.0, 1.0],
        "cyan" => [0.0, 1.0, 1.0],
        "magenta" => [1.0, 0.0, 1.0],
        "yellow" => [1.0, 1.0, 0.0],
        "orange" => [1.0, 0.5, 0.0],
        _ => return None,
    })
}

/// Parameters of `composite`.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Composite {
    /// One colour per channel.
    pub colours: Vec<Colour>,
}

/// The bytes of item `n` of a composite: red, green, blue of each pixel, row by row. Another tensor, or an index past the
/// end, gives none.
pub fn rgb8(composite: &Tensor, n: usize) -> Vec<u8> {
    let [_, channels, ..] = composite.shape();
    if channels != 3 {
        return Vec::new();
    }
    let [red, green, blue] = [0, 1, 2].map(|c| composite.plane(n, c));
    red.iter()
        .zip(green)
        .zip(blue)
        .flat_map(|((r, g), b)| [*r as u8, *g as u8, *b as u8])
        .collect()
}

impl Kernel for Composite {
    fn name(&self) -> &'static str {
        NAME
    }

    fn tolerance(&self) -> Tolerance {
        Tolerance {
            absolute: 1.0,
            relative: 0.0,
            why: "a value at one half may round to the other side: one output level",
        }
    }

    fn output_shape(&self, [items, channels, height, width]: Shape) -> Result<Shape, KernelError> {
        if self.colours.len() != channels {
            return Err(KernelError::Parameter {
                kernel: NAME,
                parameter: "colours",
                value: format!("a list of {} for {channels} channels", self.colours.len()),
                expected: "give one colour per channel",
            });
        }
        for (c, colour) in self.colours.iter().enumerate() {
            if colour.iter().any(|v| !(0.0..=1.0).contains(v)) {
                return Err(KernelError::Parameter {
                    kernel: NAME,
                    parameter: "colours",
                    value: format!("{colour:?} for channel {c}"),
                    expected: "red, green and blue lie in 0..=1",
                });
            }
        }
        Ok([items, 3, height, width])
    }

    fn cpu<'a>(&'a self, input: Rows<'a>) -> Rows<'a> {
        let [items, _, height, width] = input.shape();
        let shape = [items, 3, height, width];
        let mut out = vec![0.0; shape.iter().product()];
        out.par_chunks_mut(width)
            .with_min_len(16)
            .enumerate()
            .for_each_init(
                || vec![0.0; width],
                |row, (line, out)| {
                    let (item, k, y) = (line / (3 * height), line / height % 3, line % height);
                    for (channel, colour) in self.colours.iter().enumerate() {
                        if colour[k] > 0.0 {
                            input.read(
                                RowAt {
                                    item,
                                    channel,
                                    y,
                                    x: 0,
                                },
                                row,
                            );
                            mix(out, row, colour[k]);
                        }
                    }
                    finish(out);
                },
            );
        Rows::float(Tensor::from_parts(shape, out))
    }

    fn plan(&self, plan: &mut Plan, input: Pixels) -> Pixels {
        let [items, channels, height, width] = input.shape();
        let shape = [items, 3, height, width];
        let colours = plan.constant(NAME, float_words(self.colours.concat()));
        let out = plan.buffer(NAME, shape.iter().product());
        let params = vec![(height * width) as u32, channels as u32];
        let mut dispatch = input.dispatch(NAME, WGSL, "composite", params);
        dispatch.reads = vec![(1, colours)];
        dispatch.writes = vec![(2, out)];
        dispatch.groups[1] = items as u32;
        plan.dispatch(dispatch);
        Pixels::float(out, shape)
    }

    fn channel(&self, _c: usize) -> Option<Step> {
        None
    }
}

vectorised! {
    fn mix(out: &mut [f32], row: &[f32], amount: f32) {
        for (o, &v) in out.iter_mut().zip(row) {
            let low = if v > 0.0 { v } else { 0.0 };
            *o += amount * if low < 1.0 { low } else { 1.0 };
        }
    }

    fn finish(out: &mut [f32]) {
        for o in out {
            *o = (if *o < 1.0 { *o } else { 1.0 } * 255.0).round_ties_even();
        }
    }
}
