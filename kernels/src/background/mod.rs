//! `background`: background subtraction.
//!
//! - `fixed`: `x' = max(x - b, 0)` with `b` in grey levels per channel;
//! - `percentile`: the same with `b` the percentile of the plane itself (type 7);
//! - `top_hat`: `x' = x - open(x)`, `open` the dilation of the erosion with a square of side `2 r + 1` or the disk
//!   `dx^2 + dy^2 <= r^2`, clipped at the border. `r` should be at least 1.5 times the largest object radius.
//!
//! NaN becomes 0 and, inside a top-hat window, counts as absent. Do not subtract per image where intensity is itself a
//! phenotype of the channel.
//! Source: Serra, Image Analysis and Mathematical Morphology (1982); scikit-image `white_tophat`.
//! Enters: f32 planes. Leaves: planes of the same shape, 0 or more. Fails on levels or percentiles out of range and on
//! a radius of 0 or above 512.

use serde::{Deserialize, Serialize};

use crate::error::KernelError;
use crate::kernel::{Kernel, Shape, Tolerance, check_per_channel, per_channel};
use crate::order_statistics::{self, Position, Split};
use crate::plan::{BufferId, Dispatch, Plan, float_words, groups_for};
use crate::rows::Rows;

mod cpu;

pub(crate) const NAME: &str = "background";
pub(crate) const WGSL: &str = include_str!("kernel.wgsl");

/// Largest radius accepted, in pixels.
const MAX_RADIUS: usize = 512;

/// Shape of the structuring element.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Footprint {
    /// Side `2 r + 1`.
    Square,
    /// `dx^2 + dy^2 <= r^2`.
    Disk,
}

impl Footprint {
    /// Half width of the element at each row offset from `-radius` to `radius`.
    pub(crate) fn chords(self, radius: usize) -> Vec<usize> {
        (0..=2 * radius)
            .map(|i| {
                let dy = i.abs_diff(radius);
                match self {
                    Footprint::Square => radius,
                    Footprint::Disk => (radius * radius - dy * dy).isqrt(),
                }
            })
            .collect()
    }
}

/// Parameters of `background`.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(tag = "method", rename_all = "snake_case", deny_unknown_fields)]
pub enum Background {
    /// A constant per channel.
    Fixed {
        /// Grey levels, one value or one per channel; finite.
        levels: Vec<f64>,
    },
    /// A percentile of the plane itself.
    Percentile {
        /// 0 to 100; 1 is usual.
        q: f64,
    },
    /// White top-hat.
    TopHat {
        /// Shape of the structuring element.
        footprint: Footprint,
        /// Radius in pixels, 1 to 512.
        radius: usize,
    },
}

impl Kernel for Background {
    fn name(&self) -> &'static str {
        NAME
    }

    fn tolerance(&self) -> Tolerance {
        Tolerance {
            absolute: 0.0,
            relative: 4e-7,
            why: "the percentile is exact up to one product; differences are single roundings",
        }
    }

    fn output_shape(&self, input: Shape) -> Result<Shape, KernelError> {
        let bad = |parameter, value: String, expected| KernelError::Parameter {
            kernel: NAME,
            parameter,
            value,
            expected,
        };
        match self {
            Background::Fixed { levels } => check_per_channel(
                NAME,
                "levels",
                levels.iter().copied(),
                input[1],
                "it must be finite",
                f64::is_finite,
            )?,
            Background::Percentile { q } if !(0.0..=100.0).contains(q) => {
                return Err(bad("q", q.to_string(), "a percentile lies in 0..=100"));
            }
            Background::TopHat { radius, .. } if *radius == 0 || *radius > MAX_RADIUS => {
                return Err(bad(
                    "radius",
                    radius.to_string(),
                    "a radius lies in 1..=512 pixels",
                ));
            }
            Background::Percentile { .. } | Background::TopHat { .. } => {}
        }
        Ok(input)
    }

    fn cpu<'a>(&'a self, input: Rows<'a>) -> Rows<'a> {
        cpu::background(self, input)
    }

    fn plan(&self, plan: &mut Plan, input: BufferId, shape: Shape) -> BufferId {
        let [items, channels, height, width] = shape;
        let (planes, plane) = (items * channels, height * width);
        let count = planes * plane;
        let groups = [groups_for(count), 1, 1];
        let levels = match self {
            Background::Fixed { levels } => {
                let words = (0..planes).flat_map(|p| {
                    let level = Split::new(per_channel(levels, p % channels));
                    [level.stored, level.rest, 0.0, 0.0]
                });
                plan.constant(NAME, float_words(words))
            }
            Background::Percentile { q } => {
                let at = Position::of(*q, plane);
                order_statistics::plan(plan, input, planes, plane, [at, at])
            }
            Background::TopHat { footprint, radius } => {
                let chords = footprint.chords(*radius).into_iter().map(|c| c as u32).collect();
                let chords = plan.constant(NAME, chords);
                let params = [count, height, width, *radius].map(|v| v as u32).to_vec();
                let eroded = plan.buffer(NAME, count);
                let out = plan.buffer(NAME, count);
                for (entry, bindings) in [
                    ("erode", vec![(1, input), (2, chords), (4, eroded)]),
                    ("top_hat", vec![(1, input), (2, chords), (3, eroded), (4, out)]),
                ] {
                    let params = params.clone();
                    plan.dispatch(Dispatch {
                        kernel: NAME,
                        source: WGSL,
                        entry,
                        params,
                        bindings,
                        groups,
                    });
                }
                return out;
            }
        };
        let out = plan.buffer(NAME, count);
        plan.dispatch(Dispatch {
            kernel: NAME,
            source: WGSL,
            entry: "subtract",
            params: [count, height, width, 0].map(|v| v as u32).to_vec(),
            bindings: vec![(1, input), (5, levels), (4, out)],
            groups,
        });
        out
    }
}
