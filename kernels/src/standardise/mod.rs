//! `standardise`: every plane to mean 0, in the form that the network was trained with.
//!
//! With mean `m` and population variance `v` of the plane, in the units of the input:
//! - `z_score`: `(x - m) / sqrt(v)`;
//! - `open_phenom`: `(y - mean y) / sqrt(var y + 1e-5)` with `y = x / 255`;
//! - `cell_dino`: `(y - mean y) / (sd y + 1e-7)` with `y = x / 255`;
//! - `morph_em`: `(x - m) / sqrt(v + 1e-7)`.
//!
//! The input of all but `z_score` is grey levels from 0 to 255 (see `percentile_scale`). A constant plane gives 0 in every
//! form. NaN and infinities count as 0.
//! Source: the model cards of OpenPhenom, Cell-DINO (DINO4Cells) and MorphEm.
//! Enters: f32 planes. Leaves: planes of the same shape. Cannot fail.
//!
//! The mean is kept as a stored value plus a remainder, and squares are taken about it, so that a narrow range far from zero
//! loses nothing, on a GPU too, where sums are f32.

use serde::{Deserialize, Serialize};

use crate::error::KernelError;
use crate::kernel::{Kernel, Shape, Tolerance};
use crate::order_statistics::Split;
use crate::pixels::Pixels;
use crate::plan::{BufferId, Dispatch, Plan, groups_for};
use crate::point::PointFn;
use crate::registry::Step;
use crate::rows::Rows;

mod cpu;

pub(crate) const NAME: &str = "standardise";
pub(crate) const WGSL: &str = include_str!("kernel.wgsl");

/// Most workgroups that sum one plane.
const MAX_BLOCKS: usize = 1024;

/// Pixels that a workgroup sums at least.
const BLOCK: usize = 8192;

/// Which network's form.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Form {
    /// Mean 0 and standard deviation 1.
    ZScore,
    /// OpenPhenom.
    OpenPhenom,
    /// Cell-DINO and DINO4Cells.
    CellDino,
    /// MorphEm.
    MorphEm,
}

impl Form {
    /// What is added to the variance, and to the standard deviation, in the units of the input.
    fn epsilons(self) -> [f64; 2] {
        match self {
            Form::ZScore => [0.0, 0.0],
            Form::OpenPhenom => [1e-5 * 255.0 * 255.0, 0.0],
            Form::CellDino => [0.0, 1e-7 * 255.0],
            Form::MorphEm => [1e-7, 0.0],
        }
    }
}

/// Parameters of `standardise`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Standardise {
    /// Which network's form.
    pub form: Form,
}

impl Kernel for Standardise {
    fn name(&self) -> &'static str {
        NAME
    }

    fn tolerance(&self) -> Tolerance {
        Tolerance {
            absolute: 2e-5,
            relative: 1e-5,
            why: "a GPU sums in f32, by blocks; the mean and the deviation are known to some 1e-6 of the deviation",
        }
    }

    fn output_shape(&self, input: Shape) -> Result<Shape, KernelError> {
        Ok(input)
    }

    fn cpu<'a>(&'a self, input: Rows<'a>) -> Rows<'a> {
        let [inside, outside] = self.form.epsilons();
        let numbers = |(mean, variance): (f64, f64)| {
            let mean = Split::new(mean);
            let deviation = (variance + inside).sqrt() + outside;
            let inverse = if deviation > 0.0 { 1.0 / deviation } else { 0.0 };
            [mean.stored, mean.rest, inverse as f32, 0.0]
        };
        let levels = cpu::moments(&input).into_iter().map(numbers).collect();
        input.then(&STANDARDISE, levels, None)
    }

    fn plan(&self, plan: &mut Plan, input: Pixels) -> Pixels {
        input.then_computed(plan, &STANDARDISE, |plan, pixels, slots, slot| {
            moments(plan, pixels, self.form, slots, slot);
        })
    }
    fn channel(&self, _c: usize) -> Option<Step> {
        Some((*self).into())
    }
}

/// Dispatches that leave the numbers of each plane.
fn moments(plan: &mut Plan, pixels: &Pixels, form: Form, slots: BufferId, slot: usize) {
    let (planes, plane) = (pixels.planes(), pixels.plane_len());
    let blocks = plane.div_ceil(BLOCK).min(MAX_BLOCKS);
    let block = plane.div_ceil(blocks);
    let partial = plan.buffer(NAME, planes * blocks * 2);
    let means = plan.buffer(NAME, planes);
    let [inside, outside] = form.epsilons();
    let mut params = [plane, planes, blocks, block, slot].map(|v| v as u32).to_vec();
    params.extend([inside as f32, outside as f32].map(f32::to_bits));
    let summing = [blocks as u32, planes as u32, 1];
    let ending = [groups_for(planes), 1, 1];
    let step = |plan: &mut Plan, entry, pixels: Option<&Pixels>, reads, writes, groups| {
        plan.dispatch(Dispatch {
            kernel: NAME,
            source: WGSL,
            entry,
            params: params.clone(),
            pixels: pixels.cloned(),
            pixels_rarely: false,
            later: None,
            reads,
            writes,
            groups,
        });
    };
    step(plan, "sums", Some(pixels), vec![], vec![(1, partial)], summing);
    step(
        plan,
        "mean",
        Some(pixels),
        vec![],
        vec![(1, partial), (2, means)],
        ending,
    );
    step(
        plan,
        "squares",
        Some(pixels),
        vec![],
        vec![(1, partial), (2, means)],
        summing,
    );
    step(
        plan,
        "numbers",
        None,
        vec![],
        vec![(1, partial), (2, means), (3, slots)],
        ending,
    );
}

static STANDARDISE: PointFn = PointFn {
    kernel: NAME,
    function: "standardise",
    source: include_str!("point.wgsl"),
    map: false,
    // NaN, which ranks last, becomes 0 first.
    monotone: false,
    cpu: cpu::standardise,
    cpu_raw: None,
};
