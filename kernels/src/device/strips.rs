//! Planes that a device cannot bind at once, in strips of rows: each is uploaded with as many rows more as its steps reach
//! beyond it, so that it comes out as if it had not been cut. Enters: a recipe of one channel whose plan is too large. Leaves:
//! its tensor, or nothing where a step needs all rows. Fails if the device does.

use std::ops::Range;

use super::gpu::Gpu;
use super::submit::{Input, Job, Outputs};
use crate::convert;
use crate::error::KernelError;
use crate::image::{InputShape, Tensor};
use crate::pixels::Pixels;
use crate::plan::Plan;
use crate::recipe::Recipe;
use crate::registry::Step;
use crate::resize::{Axis, Resize};

/// The steps of a recipe by how they are run: the first ones on strips, with them perhaps a change of size, and the rest on
/// the whole, which that made smaller.
struct Cut<'r> {
    recipe: &'r Recipe,
    /// Steps that only need rows nearby, and how many of these.
    local: usize,
    reach: usize,
    resize: Option<(&'r Resize, Axis)>,
    rest: &'r [Step],
}

impl<'r> Cut<'r> {
    fn new(recipe: &'r Recipe) -> Option<Self> {
        let (local, reach) = recipe.local();
        let (resize, rest) = match &recipe.steps()[local..] {
            [] => (None, &[][..]),
            [Step::Resize(resize), rest @ ..] => {
                (Some((resize, resize.rows(recipe.input_shape().height))), rest)
            }
            _ => return None,
        };
        Some(Self {
            recipe,
            local,
            reach,
            resize,
            rest,
        })
    }

    /// Rows and columns of what the strips make up.
    fn size(&self) -> [usize; 2] {
        let InputShape { height, width, .. } = self.recipe.input_shape();
        match &self.resize {
            Some((resize, _)) => [resize.height, resize.width],
            None => [height, width],
        }
    }

    /// Input rows that some output rows need.
    fn rows(&self, outputs: Range<usize>) -> Range<usize> {
        let behind = match &self.resize {
            Some((_, axis)) => axis.inputs(outputs),
            None => outputs,
        };
        let end = (behind.end + self.reach).min(self.recipe.input_shape().height);
        behind.start.saturating_sub(self.reach)..end
    }

    /// The values of some output rows.
    fn run(&self, gpu: &Gpu, plane: &[u16], outputs: Range<usize>) -> Result<Vec<f32>, KernelError> {
        let rows = self.rows(outputs.clone());
        let strip = self.recipe.strip(self.local, rows.clone())?;
        let mut plan = Plan::default();
        let packed = convert::packed(&mut plan, strip.input_shape());
        let target = packed.buffer();
        let pixels = strip.plan_pending(&mut plan, packed);
        let output = match &self.resize {
            Some((resize, axis)) => resize.plan_strip(&mut plan, pixels, axis, rows.start, outputs.clone()),
            None => pixels.stored(&mut plan),
        };
        let width = self.recipe.input_shape().width;
        let bytes = bytemuck::cast_slice(&plane[rows.start * width..rows.end * width]);
        let values = floats(gpu.execute(Job {
            what: "a strip of a plane",
            plan: &plan,
            target,
            input: Input::Bytes(bytes),
            outputs: &[output.buffer()],
            result: Outputs::Read,
        })?);
        Ok(match self.resize {
            Some(_) => values,
            None => values[(outputs.start - rows.start) * width..(outputs.end - rows.start) * width].to_vec(),
        })
    }

    /// The steps that follow, on the whole.
    fn finish(&self, gpu: &Gpu, whole: Tensor) -> Result<Tensor, KernelError> {
        if self.rest.is_empty() {
            return Ok(whole);
        }
        let [height, width] = self.size();
        let rest = Recipe::new(
            self.rest.to_vec(),
            InputShape {
                channels: 1,
                height,
                width,
            },
        )?;
        let mut plan = Plan::default();
        let target = plan.buffer(convert::NAME, whole.data().len());
        let output = rest.plan_on(&mut plan, Pixels::float(target, whole.shape()));
        let bytes = bytemuck::cast_slice(whole.data());
        let words = gpu.execute(Job {
            what: "the end of a recipe",
            plan: &plan,
            target,
            input: Input::Bytes(bytes),
            outputs: &[output.buffer()],
            result: Outputs::Read,
        })?;
        Ok(Tensor::from_parts(rest.output_shape(), floats(words)))
    }
}

/// Runs a recipe of one channel on a plane, strip after strip; `None` if it cannot be cut so that each strip fits.
pub(super) fn run(gpu: &Gpu, recipe: &Recipe, plane: &[u16]) -> Result<Option<Tensor>, KernelError> {
    let Some(cut) = Cut::new(recipe).filter(|_| recipe.input_shape().channels == 1) else {
        return Ok(None);
    };
    let most = (gpu.limit / 4) as usize;
    let [height, width] = cut.size();
    let fits = |outputs: Range<usize>| {
        let input = cut.rows(outputs.clone()).len() * recipe.input_shape().width;
        input <= most && outputs.len() * width <= most
    };
    let mut values = Vec::with_capacity(height * width);
    let mut done = 0;
    while done < height {
        let ends: Vec<usize> = (done + 1..=height).collect();
        let strips = ends.partition_point(|end| fits(done..*end));
        if strips == 0 {
            return Ok(None);
        }
        values.extend(cut.run(gpu, plane, done..done + strips)?);
        done += strips;
    }
    let whole = Tensor::from_parts([1, 1, height, width], values);
    cut.finish(gpu, whole).map(Some)
}

/// The first output of a plan as floats.
fn floats(words: Vec<Vec<u32>>) -> Vec<f32> {
    bytemuck::allocation::cast_vec(words.into_iter().next().unwrap_or_default())
}
