//! `translate`: channels moved against each other, to undo chromatic shift.
//!
//! `out(y, x) = in(y - dy, x - dx)` with `(dy, dx)` of the channel in pixels, bilinear between pixels; outside the image the
//! nearest pixel. Whole offsets copy. NaN and infinities count as 0. [`crate::registration::phase_correlation`] finds the
//! offsets.
//! Enters: f32 planes. Leaves: planes of the same shape. Fails on offsets that are not finite or beyond the image, and unless
//! there is one for all channels or one per channel.

use rayon::prelude::*;
use serde::{Deserialize, Serialize};

use crate::error::KernelError;
use crate::image::Tensor;
use crate::kernel::{Kernel, Shape, Tolerance, of_channel, per_channel};
use crate::pixels::Pixels;
use crate::plan::Plan;
use crate::point::finite;
use crate::registry::Step;
use crate::rows::{RowAt, Rows};

pub(crate) const NAME: &str = "translate";
pub(crate) const WGSL: &str = include_str!("kernel.wgsl");

/// Parameters of `translate`.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Translate {
    /// Pixels down and to the right, one pair or one per channel.
    pub offsets: Vec<[f64; 2]>,
}

/// An offset on one axis: the source index is `at - whole - 1` with weight `fraction` and `at - whole` with the rest.
#[derive(Debug, Clone, Copy)]
struct Offset {
    whole: i32,
    fraction: f32,
}

impl Offset {
    fn new(by: f64) -> Self {
        let fraction = (by - by.floor()) as f32;
        if fraction >= 1.0 {
            return Self {
                whole: by.floor() as i32 + 1,
                fraction: 0.0,
            };
        }
        Self {
            whole: by.floor() as i32,
            fraction,
        }
    }
}

impl Translate {
    fn offset(&self, c: usize) -> [Offset; 2] {
        per_channel(&self.offsets, c).map(Offset::new)
    }
}

impl Kernel for Translate {
    fn name(&self) -> &'static str {
        NAME
    }

    fn tolerance(&self) -> Tolerance {
        Tolerance {
            absolute: 1e-6,
            relative: 1e-6,
            why: "weighted sums of four pixels of f32; a driver may fuse multiply and add",
        }
    }

    fn output_shape(&self, input: Shape) -> Result<Shape, KernelError> {
        let [_, channels, height, width] = input;
        if self.offsets.len() != 1 && self.offsets.len() != channels {
            return Err(KernelError::Channels {
                kernel: NAME,
                parameter: "offsets",
                got: self.offsets.len(),
                channels,
            });
        }
        for (c, offset) in self.offsets.iter().enumerate() {
            let fits = |by: f64, length: usize| by.is_finite() && by.abs() <= length as f64;
            if !fits(offset[0], height) || !fits(offset[1], width) {
                return Err(KernelError::Parameter {
                    kernel: NAME,
                    parameter: "offsets",
                    value: format!("{offset:?} (entry {c})"),
                    expected: "an offset is finite and no larger than the image",
                });
            }
        }
        Ok(input)
    }

    fn cpu<'a>(&'a self, input: Rows<'a>) -> Rows<'a> {
        let shape = input.shape();
        let [_, channels, height, width] = shape;
        let mut out = vec![0.0; shape.iter().product()];
        out.par_chunks_mut(width)
            .with_min_len(16)
            .enumerate()
            .for_each_init(
                || (vec![0.0; width], vec![0.0; width]),
                |(near, far), (line, out)| {
                    let (plane, y) = (line / height, line % height);
                    let (item, channel) = (plane / channels, plane % channels);
                    let [down, right] = self.offset(channel);
                    let clamped = |at: usize, back: i32, length: usize| {
                        (at as i64 - i64::from(back)).clamp(0, length as i64 - 1) as usize
                    };
                    let read = |back, row: &mut [f32]| {
                        input.read(
                            RowAt {
                                item,
                                channel,
                                y: clamped(y, back, height),
                                x: 0,
                            },
                            row,
                        );
                    };
                    read(down.whole, near);
                    read(down.whole + 1, far);
                    let mix =
                        |a: f32, b: f32, fraction: f32| (1.0 - fraction) * finite(a) + fraction * finite(b);
                    for (a, b) in near.iter_mut().zip(far.iter()) {
                        *a = mix(*a, *b, down.fraction);
                    }
                    for (x, o) in out.iter_mut().enumerate() {
                        let [a, b] = [right.whole, right.whole + 1].map(|back| near[clamped(x, back, width)]);
                        *o = mix(a, b, right.fraction);
                    }
                },
            );
        Rows::float(Tensor::from_parts(shape, out))
    }

    fn plan(&self, plan: &mut Plan, input: Pixels) -> Pixels {
        let shape = input.shape();
        let offsets = (0..shape[1]).flat_map(|c| {
            let [down, right] = self.offset(c);
            [
                down.whole as u32,
                right.whole as u32,
                down.fraction.to_bits(),
                right.fraction.to_bits(),
            ]
        });
        let offsets = plan.constant(NAME, offsets.collect());
        let out = plan.buffer(NAME, shape.iter().product());
        let params = [shape[2], shape[3], shape[1]].map(|v| v as u32).to_vec();
        let mut dispatch = input.dispatch(NAME, WGSL, "translate", params);
        dispatch.reads = vec![(1, offsets)];
        dispatch.writes = vec![(2, out)];
        plan.dispatch(dispatch);
        Pixels::float(out, shape)
    }
    fn channel(&self, c: usize) -> Option<Step> {
        Some(
            Self {
                offsets: of_channel(&self.offsets, c),
            }
            .into(),
        )
    }
}
