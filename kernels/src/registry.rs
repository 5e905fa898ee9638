//! The registry: one line per kernel. A kernel is in the crate if and only if it is here, and the twin test runs
//! everything that is here.

use std::ops::Range;

use serde::{Deserialize, Serialize};

use crate::background::Background;
use crate::blur::GaussianBlur;
use crate::composite::Composite;
use crate::error::KernelError;
use crate::flat_field::FlatField;
use crate::histogram::HistogramKernel;
use crate::kernel::{Kernel, Measure, Shape, Tolerance};
use crate::median::Median;
use crate::moments::MomentsKernel;
use crate::orient::Orient;
use crate::pad::Pad;
use crate::percentile_scale::PercentileScale;
use crate::pixels::Pixels;
use crate::plan::Plan;
use crate::project::Project;
use crate::resize::Resize;
use crate::rows::Rows;
use crate::standardise::Standardise;
use crate::tile::Tile;
use crate::translate::Translate;

macro_rules! steps {
    ($($(#[$doc:meta])* $kernel:ident),* $(,)?) => {
        /// One step of a recipe: a kernel with its parameters. Serialised as a table with the key `kernel`.
        #[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
        #[serde(tag = "kernel", rename_all = "snake_case")]
        pub enum Step { $($(#[$doc])* $kernel($kernel),)* }

        impl Step {
            /// The kernel behind the step.
            pub fn kernel(&self) -> &dyn Kernel {
                match self { $(Step::$kernel(k) => k,)* }
            }
        }

        $(impl From<$kernel> for Step {
            fn from(kernel: $kernel) -> Self { Step::$kernel(kernel) }
        })*

        /// Names of the variants of [`Step`], as recipes write them, for the twin test's completeness check.
        pub const STEP_TYPES: &[&str] = &[$(stringify!($kernel)),*];
    };
}

steps! {
    /// Black level and illumination correction.
    FlatField,
    /// Background subtraction.
    Background,
    /// Scaling between two percentiles.
    PercentileScale,
    /// Change of size.
    Resize,
    /// Crops.
    Tile,
    /// Gaussian blur.
    GaussianBlur,
    /// Median of small neighbourhoods.
    Median,
    /// Flips and turns.
    Orient,
    /// Pixels added around.
    Pad,
    /// Mean 0 per plane, in the form of a network.
    Standardise,
    /// A stack of focal planes becomes one.
    Project,
    /// Channels moved against each other.
    Translate,
    /// Channels rendered as one colour picture.
    Composite,
}

/// Kernels that reduce a raw image to exact tallies.
pub const MEASURES: &[&dyn Measure] = &[&HistogramKernel, &MomentsKernel];

impl Kernel for Step {
    fn name(&self) -> &'static str {
        self.kernel().name()
    }
    fn tolerance(&self) -> Tolerance {
        self.kernel().tolerance()
    }
    fn output_shape(&self, input: Shape) -> Result<Shape, KernelError> {
        self.kernel().output_shape(input)
    }
    fn cpu<'a>(&'a self, input: Rows<'a>) -> Rows<'a> {
        self.kernel().cpu(input)
    }
    fn plan(&self, plan: &mut Plan, input: Pixels) -> Pixels {
        self.kernel().plan(plan, input)
    }
    fn percentiles(&self) -> Vec<f64> {
        self.kernel().percentiles()
    }
    fn keeps_order(&self) -> bool {
        self.kernel().keeps_order()
    }
    fn channel(&self, c: usize) -> Option<Step> {
        self.kernel().channel(c)
    }
    fn strip(&self, rows: Range<usize>) -> Option<(Step, usize)> {
        self.kernel().strip(rows)
    }
}
