//! `flat_field`: black level and illumination correction.
//!
//! Formula, per channel: divide `x' = max(x - b, 0) / L`, subtract `x' = max(x - b - L, 0)`, without an
//! illumination function `x' = max(x - b, 0)`. `b` is the black level in grey levels, `L` the illumination function
//! (dimensionless and about 1 or more for divide, grey levels for subtract). NaN becomes 0. Division is the product with the
//! reciprocal, rounded once more, which is kept beside the function: a division costs as much as all the rest.
//! Source: CellProfiler CorrectIlluminationApply; Singh et al., J. Microscopy 256 (2014) 231.
//! Enters: f32 planes. Leaves: planes of the same shape. Fails on a function of another size, or with zeros,
//! negative values or NaN.

use std::ops::Range;
use std::sync::{Arc, OnceLock};

use rayon::prelude::*;
use serde::{Deserialize, Serialize};

use crate::error::KernelError;
use crate::kernel::{Kernel, Shape, Tolerance, check_per_channel, of_channel, per_channel};
use crate::pixels::Pixels;
use crate::plan::Plan;
use crate::point::PointFn;
use crate::registry::Step;
use crate::rows::Rows;

mod cpu;

pub(crate) const NAME: &str = "flat_field";
pub(crate) const WGSL: &str = include_str!("kernel.wgsl");

/// How the illumination function is applied.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum FlatFieldMode {
    /// Divide by the function (uneven illumination).
    Divide,
    /// Subtract the function (additive background).
    Subtract,
}

#[derive(Clone, Serialize, Deserialize)]
struct IlluminationData {
    channels: usize,
    height: usize,
    width: usize,
    values: Vec<f32>,
}

/// An illumination function: one plane for all channels or one per channel, row-major. Cheap to clone.
#[derive(Clone, Serialize, Deserialize)]
#[serde(try_from = "IlluminationData", into = "IlluminationData")]
pub struct Illumination {
    channels: usize,
    height: usize,
    width: usize,
    values: Arc<Vec<f32>>,
    /// The least value and where it is.
    least: (usize, f32),
    /// One over each value, made when it is first needed.
    reciprocals: Arc<OnceLock<Arc<Vec<f32>>>>,
}

impl PartialEq for Illumination {
    fn eq(&self, other: &Self) -> bool {
        let shape = |l: &Self| (l.channels, l.height, l.width);
        shape(self) == shape(other) && self.values == other.values
    }
}

impl std::fmt::Debug for Illumination {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(
            f,
            "Illumination({} x {} x {})",
            self.channels, self.height, self.width
        )
    }
}

impl TryFrom<IlluminationData> for Illumination {
    type Error = KernelError;
    fn try_from(d: IlluminationData) -> Result<Self, KernelError> {
        Self::new(d.channels, d.height, d.width, d.values)
    }
}

impl From<Illumination> for IlluminationData {
    fn from(l: Illumination) -> Self {
        Self {
            channels: l.channels,
            height: l.height,
            width: l.width,
            values: l.values.to_vec(),
        }
    }
}

impl Illumination {
    /// A checked function of `channels * height * width` finite values, plane after plane.
    ///
    /// # Errors
    /// A zero dimension, a wrong count, a NaN or infinity.
    pub fn new(channels: usize, height: usize, width: usize, values: Vec<f32>) -> Result<Self, KernelError> {
        let tensor = crate::image::Tensor::new([1, channels, height, width], values)?;
        let values = tensor.into_data();
        if let Some((i, v)) = values.iter().enumerate().find(|(_, v)| !v.is_finite()) {
            return Err(bad_value(*v, i, "every value must be finite"));
        }
        Ok(Self {
            channels,
            height,
            width,
            least: least(&values),
            values: Arc::new(values),
            reciprocals: Arc::default(),
        })
    }

    /// Number of planes, and all values.
    pub(crate) fn content(&self) -> (usize, Arc<Vec<f32>>) {
        (self.channels, Arc::clone(&self.values))
    }

    /// The functions of all channels: channels, height, width, and the values plane after plane.
    pub fn parts(&self) -> ([usize; 3], &[f32]) {
        ([self.channels, self.height, self.width], &self.values)
    }

    /// The function of channel `c` alone.
    pub(crate) fn channel(&self, c: usize) -> Self {
        if self.channels == 1 {
            return self.clone();
        }
        Self {
            channels: 1,
            least: least(self.plane(c)),
            values: Arc::new(self.plane(c).to_vec()),
            reciprocals: Arc::default(),
            ..*self
        }
    }

    /// The functions of all channels in the rows `rows`.
    fn rows(&self, rows: Range<usize>) -> Self {
        let strip = rows.start * self.width..rows.end * self.width;
        let of = |c| self.plane(c)[strip.clone()].iter().copied();
        let values: Vec<f32> = (0..self.channels).flat_map(of).collect();
        Self {
            channels: self.channels,
            height: rows.len(),
            width: self.width,
            least: least(&values),
            values: Arc::new(values),
            reciprocals: Arc::default(),
        }
    }

    /// One over each value.
    fn reciprocal(&self) -> Self {
        let made = || {
            Arc::new(
                self.values
                    .par_iter()
                    .with_min_len(1 << 14)
                    .map(|v| 1.0 / v)
                    .collect(),
            )
        };
        Self {
            values: Arc::clone(self.reciprocals.get_or_init(made)),
            reciprocals: Arc::default(),
            ..*self
        }
    }

    /// The function of channel `c`.
    pub(crate) fn plane(&self, c: usize) -> &[f32] {
        let len = self.height * self.width;
        let at = if self.channels == 1 { 0 } else { c * len };
        &self.values[at..at + len]
    }
}

/// The place of the least value, the first of equals, and the value.
fn least(values: &[f32]) -> (usize, f32) {
    let mut least = (0, f32::INFINITY);
    for (i, &v) in values.iter().enumerate() {
        if v < least.1 {
            least = (i, v);
        }
    }
    least
}

fn bad_value(value: f32, index: usize, expected: &'static str) -> KernelError {
    KernelError::Parameter {
        kernel: NAME,
        parameter: "illumination",
        value: format!("{value} at pixel {index}"),
        expected,
    }
}

/// Parameters of `flat_field`.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct FlatField {
    /// Black level in grey levels, one value or one per channel; 0 or more.
    pub black_level: Vec<f32>,
    /// The illumination function; none applies only the black level.
    pub illumination: Option<Illumination>,
    /// Divide or subtract.
    pub mode: FlatFieldMode,
}

impl Kernel for FlatField {
    fn name(&self) -> &'static str {
        NAME
    }

    fn tolerance(&self) -> Tolerance {
        Tolerance {
            absolute: 0.0,
            relative: 4e-7,
            why: "one product; a driver may fuse it with the subtraction",
        }
    }

    fn output_shape(&self, input: Shape) -> Result<Shape, KernelError> {
        let [_, channels, height, width] = input;
        check_per_channel(
            NAME,
            "black_level",
            self.black_level.iter().map(|&v| f64::from(v)),
            channels,
            "it must be finite and 0 or more",
            |v| v.is_finite() && v >= 0.0,
        )?;
        if let Some(l) = &self.illumination {
            if (l.height, l.width) != (height, width) {
                return Err(KernelError::Shape {
                    kernel: NAME,
                    parameter: "illumination",
                    input,
                    needed: vec![l.height, l.width],
                });
            }
            if l.channels != 1 && l.channels != channels {
                return Err(KernelError::Channels {
                    kernel: NAME,
                    parameter: "illumination",
                    got: l.channels,
                    channels,
                });
            }
            if self.mode == FlatFieldMode::Divide && l.least.1 < f32::MIN_POSITIVE {
                return Err(bad_value(
                    l.least.1,
                    l.least.0,
                    "a divisor must be greater than 0 by more than 1e-38",
                ));
            }
        }
        Ok(input)
    }

    fn cpu<'a>(&'a self, input: Rows<'a>) -> Rows<'a> {
        let [items, channels, ..] = input.shape();
        let levels = (0..items * channels).map(|plane| self.levels(plane % channels));
        input.then(self.function(), levels.collect(), self.map().as_ref())
    }

    fn plan(&self, plan: &mut Plan, input: Pixels) -> Pixels {
        let channels = input.shape()[1];
        let levels = |plane| self.levels(plane % channels);
        input.then(plan, self.function(), levels, self.map().as_ref())
    }

    fn keeps_order(&self) -> bool {
        self.illumination.is_none()
    }
    fn channel(&self, c: usize) -> Option<Step> {
        let one = Self {
            black_level: of_channel(&self.black_level, c),
            illumination: self.illumination.as_ref().map(|l| l.channel(c)),
            mode: self.mode,
        };
        Some(one.into())
    }

    fn strip(&self, rows: Range<usize>) -> Option<(Step, usize)> {
        let strip = Self {
            black_level: self.black_level.clone(),
            illumination: self.illumination.as_ref().map(|l| l.rows(rows)),
            mode: self.mode,
        };
        Some((strip.into(), 0))
    }
}

impl FlatField {
    fn levels(&self, channel: usize) -> [f32; 4] {
        [per_channel(&self.black_level, channel), 0.0, 0.0, 0.0]
    }

    /// What a pixel is multiplied by, or what is subtracted from it.
    fn map(&self) -> Option<Illumination> {
        let function = self.illumination.as_ref()?;
        Some(match self.mode {
            FlatFieldMode::Divide => function.reciprocal(),
            FlatFieldMode::Subtract => function.clone(),
        })
    }

    fn function(&self) -> &'static PointFn {
        match (&self.illumination, self.mode) {
            (None, _) => &BLACK_LEVEL,
            (Some(_), FlatFieldMode::Divide) => &DIVIDE,
            (Some(_), FlatFieldMode::Subtract) => &SUBTRACT,
        }
    }
}

static BLACK_LEVEL: PointFn = PointFn {
    kernel: NAME,
    function: "black_level",
    source: WGSL,
    map: false,
    monotone: true,
    cpu: cpu::black_level,
    cpu_raw: Some(cpu::raw_black_level),
};

static DIVIDE: PointFn = PointFn {
    kernel: NAME,
    function: "flat_field_divide",
    source: WGSL,
    map: true,
    monotone: false,
    cpu: cpu::divide,
    cpu_raw: Some(cpu::raw_divide),
};

static SUBTRACT: PointFn = PointFn {
    kernel: NAME,
    function: "flat_field_subtract",
    source: WGSL,
    map: true,
    monotone: false,
    cpu: cpu::subtract,
    cpu_raw: Some(cpu::raw_subtract),
};
