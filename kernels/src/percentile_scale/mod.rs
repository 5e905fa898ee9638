//! `percentile_scale`: intensity normalisation between two percentiles.
//!
//! Formula, per item and channel: `z = clip((x - lo) / max(hi - lo, tiny), 0, 1) * scale`, rounded half to even where
//! asked (8-bit grey levels: scale 255, round). `lo` and `hi` are given per channel (for example pooled over a
//! plate's controls) or are percentiles of the plane itself, by linear interpolation at position `(n - 1) q / 100`
//! (numpy's default, type 7). NaN becomes 0. A constant plane gives 0 everywhere.
//! Source: the percentile rescaling that deep-learning profiling uses before 8-bit networks (DeepProfiler).
//! Enters: f32 planes. Leaves: planes of the same shape in `0..=scale`. Fails on percentiles out of order.
//!
//! `lo` and `hi` are kept as a stored value plus a remainder: the difference `x - stored` is exact or nearly so,
//! which keeps the result exact for a narrow range far from zero.

use std::ops::Range;

use serde::{Deserialize, Serialize};

use crate::error::KernelError;
use crate::kernel::{Kernel, Shape, Tolerance, check_per_channel, of_channel, per_channel};
use crate::order_statistics::{self, Split};
use crate::pixels::Pixels;
use crate::plan::Plan;
use crate::point::PointFn;
use crate::registry::Step;
use crate::rows::Rows;

mod cpu;

pub(crate) const NAME: &str = "percentile_scale";
pub(crate) const WGSL: &str = include_str!("kernel.wgsl");

/// Smallest range divided by, in the units of the input.
pub(crate) const TINY: f32 = 1e-12;

/// Where `lo` and `hi` come from.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case", deny_unknown_fields)]
pub enum ScaleRange {
    /// Fixed grey levels, one value or one per channel; `lo <= hi`.
    Given {
        /// Level that becomes 0.
        lo: Vec<f64>,
        /// Level that becomes `scale`.
        hi: Vec<f64>,
    },
    /// Percentiles of each plane, `0 <= lo <= hi <= 100`; exact.
    PerImage {
        /// Lower percentile, usually 0.1.
        lo: f64,
        /// Upper percentile, usually 99.9.
        hi: f64,
    },
}

/// Parameters of `percentile_scale`.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct PercentileScale {
    /// Where the range comes from.
    pub range: ScaleRange,
    /// Largest output value: 1, or 255 for 8-bit grey levels. Greater than 0.
    pub scale: f32,
    /// Round to whole numbers, half to even.
    pub round: bool,
}

impl Kernel for PercentileScale {
    fn name(&self) -> &'static str {
        NAME
    }

    fn tolerance(&self) -> Tolerance {
        if self.round {
            return Tolerance {
                absolute: 1.0,
                relative: 0.0,
                why: "a value at one half may round to the other side: one output level",
            };
        }
        Tolerance {
            absolute: 1e-6 * self.scale,
            relative: 0.0,
            why: "one reciprocal and two products in f32; 1e-6 of the output range",
        }
    }

    fn output_shape(&self, input: Shape) -> Result<Shape, KernelError> {
        let parameter = |parameter, value: String, expected| KernelError::Parameter {
            kernel: NAME,
            parameter,
            value,
            expected,
        };
        if !(self.scale.is_finite() && self.scale > 0.0) {
            return Err(parameter(
                "scale",
                self.scale.to_string(),
                "it must be finite and greater than 0",
            ));
        }
        match &self.range {
            ScaleRange::Given { lo, hi } => {
                let finite = "it must be finite";
                let channels = input[1];
                check_per_channel(NAME, "lo", lo.iter().copied(), channels, finite, f64::is_finite)?;
                check_per_channel(NAME, "hi", hi.iter().copied(), channels, finite, f64::is_finite)?;
                for c in 0..channels {
                    let (lo, hi) = (per_channel(lo, c), per_channel(hi, c));
                    if lo > hi {
                        let value = format!("{lo}, above hi = {hi} in channel {c}");
                        return Err(parameter("lo", value, "lo must not be above hi"));
                    }
                }
            }
            ScaleRange::PerImage { lo, hi } => {
                for (name, q) in [("lo", *lo), ("hi", *hi)] {
                    if !(0.0..=100.0).contains(&q) {
                        return Err(parameter(name, q.to_string(), "a percentile lies in 0..=100"));
                    }
                }
                if lo > hi {
                    let value = format!("{lo}, above hi = {hi}");
                    return Err(parameter("lo", value, "lo must not be above hi"));
                }
            }
        }
        Ok(input)
    }

    fn cpu<'a>(&'a self, mut input: Rows<'a>) -> Rows<'a> {
        let [items, channels, ..] = input.shape();
        let levels = match &self.range {
            ScaleRange::Given { .. } => (0..items * channels).map(|p| self.given(p % channels)).collect(),
            ScaleRange::PerImage { lo, hi } => {
                order_statistics::prepare_rows(&mut input, &[*lo, *hi], &[]);
                let [lo, hi] = [lo, hi].map(|q| order_statistics::percentile(&input, *q));
                lo.into_iter()
                    .zip(hi)
                    .map(|(lo, hi)| self.levels(lo, hi))
                    .collect()
            }
        };
        input.then(self.function(), levels, None)
    }

    fn plan(&self, plan: &mut Plan, mut input: Pixels) -> Pixels {
        let channels = input.shape()[1];
        match &self.range {
            ScaleRange::Given { .. } => input.then(plan, self.function(), |p| self.given(p % channels), None),
            ScaleRange::PerImage { lo, hi } => {
                let percentiles = [*lo, *hi];
                order_statistics::prepare(plan, &mut input, &percentiles, &[]);
                input.then_computed(plan, self.function(), |plan, pixels, slots, slot| {
                    let numbers = [self.scale, TINY];
                    order_statistics::levels(
                        plan,
                        pixels,
                        ("range_levels", percentiles),
                        numbers,
                        (slots, slot),
                    );
                })
            }
        }
    }

    fn percentiles(&self) -> Vec<f64> {
        match self.range {
            ScaleRange::Given { .. } => Vec::new(),
            ScaleRange::PerImage { lo, hi } => vec![lo, hi],
        }
    }

    fn keeps_order(&self) -> bool {
        true
    }
    fn channel(&self, c: usize) -> Option<Step> {
        let range = match &self.range {
            ScaleRange::Given { lo, hi } => ScaleRange::Given {
                lo: of_channel(lo, c),
                hi: of_channel(hi, c),
            },
            per_image => per_image.clone(),
        };
        Some(Self { range, ..*self }.into())
    }

    fn strip(&self, _rows: Range<usize>) -> Option<(Step, usize)> {
        match self.range {
            ScaleRange::Given { .. } => Some((self.clone().into(), 0)),
            ScaleRange::PerImage { .. } => None,
        }
    }
}

impl PercentileScale {
    /// The numbers of a plane: the lower end as stored value and remainder, one over the span, the scale.
    fn levels(&self, lo: Split, hi: Split) -> [f32; 4] {
        let span = (hi.stored - lo.stored) + (hi.rest - lo.rest);
        let inverse = 1.0 / if span > TINY { span } else { TINY };
        [lo.stored, lo.rest, inverse, self.scale]
    }

    fn given(&self, channel: usize) -> [f32; 4] {
        match &self.range {
            ScaleRange::Given { lo, hi } => {
                let [lo, hi] = [lo, hi].map(|v| Split::new(per_channel(v, channel)));
                self.levels(lo, hi)
            }
            ScaleRange::PerImage { .. } => [0.0; 4],
        }
    }

    fn function(&self) -> &'static PointFn {
        if self.round { &ROUNDED } else { &SCALED }
    }
}

static SCALED: PointFn = PointFn {
    kernel: NAME,
    function: "percentile_scale",
    source: WGSL,
    map: false,
    monotone: true,
    cpu: cpu::scale,
    cpu_raw: None,
};

static ROUNDED: PointFn = PointFn {
    kernel: NAME,
    function: "percentile_scale_rounded",
    source: WGSL,
    map: false,
    monotone: true,
    cpu: cpu::scale_and_round,
    cpu_raw: None,
};
