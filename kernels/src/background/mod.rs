//! `background`: background subtraction.
//!
//! - `fixed`: `x' = max(x - b, 0)` with `b` in grey levels per channel;
//! - `percentile`: the same with `b` the percentile of the plane itself (type 7);
//! - `top_hat`: `x' = x - open(x)`, `open` the dilation of the erosion with a square of side `2 r + 1` or the disk
//!   `dx^2 + dy^2 <= r^2`, clipped at the border. `r` should be at least 1.5 times the largest object radius;
//! - `gaussian`: `x' = max(x - G(x), 0)` with `G` the Gaussian blur of `blur`;
//! - `rolling_ball`: `x' = x - min over d of (x(p + d) + r - sqrt(r^2 - |d|^2))` for `|d| <= r`, clipped at the border: the
//!   apex of a ball of radius `r` (pixels and grey levels alike) rolling below the surface.
//!
//! NaN becomes 0 and, inside a window, counts as absent (0 in a blur). Do not subtract per image where intensity is itself
//! a phenotype of the channel.
//! Source: Serra, Image Analysis and Mathematical Morphology (1982) and scikit-image `white_tophat`; Sternberg, Biomedical
//! Image Processing, Computer 16 (1983) 22 and scikit-image `rolling_ball`.
//! Enters: f32 planes. Leaves: planes of the same shape, 0 or more. Fails on levels or percentiles out of range, on
//! a radius of 0 or above 512, and on a sigma out of range.

use std::ops::Range;

use serde::{Deserialize, Serialize};

use crate::blur::{self, Border};
use crate::error::KernelError;
use crate::kernel::{Kernel, Shape, Tolerance, check_per_channel, of_channel, per_channel};
use crate::order_statistics::{self, Split};
use crate::pixels::Pixels;
use crate::plan::{Plan, float_words};
use crate::point::PointFn;
use crate::registry::Step;
use crate::rows::Rows;

mod ball;
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
    /// A strongly blurred image.
    Gaussian {
        /// Standard deviation in pixels, above 0 and at most 1000; 50 is usual.
        sigma: f64,
        /// What lies outside the image.
        border: Border,
    },
    /// Rolling ball.
    RollingBall {
        /// Radius in pixels and grey levels, 1 to 512; 25 to 50 is usual.
        radius: usize,
    },
}

impl Kernel for Background {
    fn name(&self) -> &'static str {
        NAME
    }

    fn tolerance(&self) -> Tolerance {
        match self {
            Background::Gaussian { .. } => Tolerance {
                absolute: 0.05,
                relative: 4e-7,
                why: "a blurred grey level is known to 1e-6 of its size, at most 65535, and the difference may be small",
            },
            Background::RollingBall { .. } => Tolerance {
                absolute: 0.02,
                relative: 4e-7,
                why: "a grey level below 65536 plus a height rounds to 2^-8, and the two heights may differ by one rounding",
            },
            _ => Tolerance {
                absolute: 0.0,
                relative: 4e-7,
                why: "the percentile is exact up to one product; differences are single roundings",
            },
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
            Background::TopHat { radius, .. } | Background::RollingBall { radius }
                if *radius == 0 || *radius > MAX_RADIUS =>
            {
                return Err(bad(
                    "radius",
                    radius.to_string(),
                    "a radius lies in 1..=512 pixels",
                ));
            }
            Background::Gaussian { sigma, .. } => blur::check_sigma(NAME, *sigma)?,
            Background::Percentile { .. } | Background::TopHat { .. } | Background::RollingBall { .. } => {}
        }
        Ok(input)
    }

    fn cpu<'a>(&'a self, mut input: Rows<'a>) -> Rows<'a> {
        let [items, channels, ..] = input.shape();
        let level = |b: Split| [b.stored, b.rest, 0.0, 0.0];
        match self {
            Background::Fixed { levels } => {
                let of = |p| level(Split::new(per_channel(levels, p % channels)));
                input.then(&LEVEL, (0..items * channels).map(of).collect(), None)
            }
            Background::Percentile { q } => {
                order_statistics::prepare_rows(&mut input, &[*q], &[]);
                let levels = order_statistics::percentile(&input, *q).into_iter().map(level);
                let levels = levels.collect();
                input.then(&LEVEL, levels, None)
            }
            Background::TopHat { footprint, radius } => cpu::top_hat(*footprint, *radius, input),
            Background::Gaussian { sigma, border } => cpu::gaussian(*sigma, *border, input),
            Background::RollingBall { radius } => ball::rolling_ball(*radius, input),
        }
    }

    fn plan(&self, plan: &mut Plan, mut input: Pixels) -> Pixels {
        let shape = input.shape();
        match self {
            Background::Fixed { levels } => {
                let of = |p: usize| Split::new(per_channel(levels, p % shape[1]));
                input.then(plan, &LEVEL, |p| [of(p).stored, of(p).rest, 0.0, 0.0], None)
            }
            Background::Percentile { q } => {
                order_statistics::prepare(plan, &mut input, &[*q], &[]);
                input.then_computed(plan, &LEVEL, |plan, pixels, slots, slot| {
                    order_statistics::levels(plan, pixels, ("one_level", [*q, *q]), [0.0; 2], (slots, slot));
                })
            }
            Background::TopHat { footprint, radius } => {
                let chords = footprint.chords(*radius).into_iter().map(|c| c as u32).collect();
                let chords = plan.constant(NAME, chords);
                let input = input.stored(plan);
                let eroded = windowed(plan, "erode", &input, *radius, vec![(2, chords)]);
                windowed(
                    plan,
                    "top_hat",
                    &input,
                    *radius,
                    vec![(2, chords), (3, eroded.buffer())],
                )
            }
            Background::Gaussian { sigma, border } => {
                let input = input.stored(plan);
                let blurred = blur::plan(plan, input.clone(), *sigma, *border);
                windowed(plan, "subtract", &input, 0, vec![(3, blurred.buffer())])
            }
            Background::RollingBall { radius } => {
                let chords = Footprint::Disk
                    .chords(*radius)
                    .into_iter()
                    .map(|c| c as u32)
                    .collect();
                let chords = plan.constant(NAME, chords);
                let heights = plan.constant(NAME, float_words(ball::heights(*radius).concat()));
                let input = input.stored(plan);
                windowed(
                    plan,
                    "rolling_ball",
                    &input,
                    *radius,
                    vec![(2, chords), (3, heights)],
                )
            }
        }
    }

    fn percentiles(&self) -> Vec<f64> {
        match self {
            Background::Percentile { q } => vec![*q],
            _ => Vec::new(),
        }
    }

    fn keeps_order(&self) -> bool {
        matches!(self, Background::Fixed { .. } | Background::Percentile { .. })
    }
    fn channel(&self, c: usize) -> Option<Step> {
        let one = match self {
            Background::Fixed { levels } => Background::Fixed {
                levels: of_channel(levels, c),
            },
            other => other.clone(),
        };
        Some(one.into())
    }

    fn strip(&self, _rows: Range<usize>) -> Option<(Step, usize)> {
        let reach = match self {
            Background::Fixed { .. } => 0,
            Background::Percentile { .. } => return None,
            // An erosion and a dilation.
            Background::TopHat { radius, .. } => 2 * radius,
            Background::Gaussian { sigma, .. } => blur::reach(*sigma),
            Background::RollingBall { radius } => *radius,
        };
        Some((self.clone().into(), reach))
    }
}

/// One dispatch from stored pixels to stored pixels of the same shape.
fn windowed(
    plan: &mut Plan,
    entry: &'static str,
    input: &Pixels,
    radius: usize,
    reads: Vec<(u32, crate::plan::BufferId)>,
) -> Pixels {
    let shape = input.shape();
    let out = plan.buffer(NAME, shape.iter().product());
    let params = [shape[2], shape[3], radius].map(|v| v as u32).to_vec();
    let mut dispatch = input.clone().dispatch(NAME, WGSL, entry, params);
    dispatch.reads = reads;
    dispatch.writes = vec![(4, out)];
    plan.dispatch(dispatch);
    Pixels::float(out, shape)
}

static LEVEL: PointFn = PointFn {
    kernel: NAME,
    function: "background_level",
    source: include_str!("level.wgsl"),
    map: false,
    monotone: true,
    cpu: cpu::subtract_level,
    cpu_raw: None,
};
