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

use serde::{Deserialize, Serialize};

use crate::error::KernelError;
use crate::kernel::{Kernel, Shape, Tolerance, check_per_channel, per_channel};
use crate::order_statistics::{self, Position, Split};
use crate::plan::{BufferId, Dispatch, Plan, float_words, groups_for};
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

    fn cpu<'a>(&'a self, input: Rows<'a>) -> Rows<'a> {
        cpu::percentile_scale(self, input)
    }

    fn plan(&self, plan: &mut Plan, input: BufferId, shape: Shape) -> BufferId {
        let [items, channels, height, width] = shape;
        let (planes, plane) = (items * channels, height * width);
        let count = planes * plane;
        let out = plan.buffer(NAME, count);
        // Per plane: lo stored, lo remainder, hi stored, hi remainder.
        let range = match &self.range {
            ScaleRange::Given { lo, hi } => {
                let words = (0..planes).flat_map(|p| {
                    let c = p % channels;
                    let (lo, hi) = (Split::new(per_channel(lo, c)), Split::new(per_channel(hi, c)));
                    [lo.stored, lo.rest, hi.stored, hi.rest]
                });
                plan.constant(NAME, float_words(words))
            }
            ScaleRange::PerImage { lo, hi } => {
                let at = [Position::of(*lo, plane), Position::of(*hi, plane)];
                order_statistics::plan(plan, input, planes, plane, at)
            }
        };
        plan.dispatch(Dispatch {
            kernel: NAME,
            source: WGSL,
            entry: "percentile_scale",
            params: vec![
                count as u32,
                plane as u32,
                u32::from(self.round),
                self.scale.to_bits(),
                TINY.to_bits(),
            ],
            bindings: vec![(1, input), (2, range), (3, out)],
            groups: [groups_for(count), 1, 1],
        });
        out
    }
}
