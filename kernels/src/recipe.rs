//! A recipe: a shape-checked list of steps from a raw image to a tensor.
//! Enters: steps and the shape of the images they are for. Leaves: a recipe that cannot fail on shapes any more.
//! Fails with the kernel, the parameter and the value, before any pixel is touched.

use std::ops::Range;

use crate::convert;
use crate::error::KernelError;
use crate::image::{InputShape, RawImage, Tensor};
use crate::kernel::{Kernel, Shape};
use crate::order_statistics;
use crate::pixels::Pixels;
use crate::plan::{Plan, Shader, Traffic};
use crate::registry::Step;
use crate::rows::Rows;

/// A checked list of steps. An empty list converts to f32.
#[derive(Debug, Clone, PartialEq)]
pub struct Recipe {
    steps: Vec<Step>,
    input: InputShape,
    /// Shape before each step, and the output shape last.
    shapes: Vec<Shape>,
}

impl Recipe {
    /// Checks every step against the shape that reaches it.
    ///
    /// # Errors
    /// The first parameter or shape that does not fit; an input with a zero dimension; a result too large to address.
    pub fn new(steps: Vec<Step>, input: InputShape) -> Result<Self, KernelError> {
        let mut shape = [1, input.channels, input.height, input.width];
        check_volume(shape)?;
        let mut shapes = vec![shape];
        for step in &steps {
            shape = step.output_shape(shape)?;
            check_volume(shape)?;
            shapes.push(shape);
        }
        Ok(Self { steps, input, shapes })
    }

    /// The steps, in order.
    pub fn steps(&self) -> &[Step] {
        &self.steps
    }

    /// The image shape the recipe is for.
    pub fn input_shape(&self) -> InputShape {
        self.input
    }

    /// Items, channels, height and width of the result.
    pub fn output_shape(&self) -> [usize; 4] {
        self.shapes.last().copied().unwrap_or_default()
    }

    /// Fails unless `image` has the shape the recipe is for.
    pub(crate) fn check(&self, image: &RawImage) -> Result<(), KernelError> {
        if image.shape() != self.input {
            return Err(KernelError::Input {
                expected: self.input,
                got: image.shape(),
            });
        }
        Ok(())
    }

    /// Runs on the CPU, neighbouring point-wise steps fused into the reads of the next.
    pub(crate) fn cpu(&self, image: &RawImage) -> Tensor {
        let mut rows = Rows::raw(image);
        for (at, step) in self.steps.iter().enumerate() {
            let wanted = step.percentiles();
            if !wanted.is_empty() {
                order_statistics::prepare_rows(&mut rows, &wanted, &self.wanted_after(at));
            }
            rows = step.cpu(rows);
        }
        rows.materialise()
    }

    /// Appends the dispatches of all steps and leaves stored floats.
    pub(crate) fn plan_on(&self, plan: &mut Plan, pixels: Pixels) -> Pixels {
        self.plan_pending(plan, pixels).stored(plan)
    }

    /// The same, but what is pending at the end is not stored.
    pub(crate) fn plan_pending(&self, plan: &mut Plan, mut pixels: Pixels) -> Pixels {
        for (at, step) in self.steps.iter().enumerate() {
            let wanted = step.percentiles();
            if !wanted.is_empty() {
                order_statistics::prepare(plan, &mut pixels, &wanted, &self.wanted_after(at));
            }
            pixels = step.plan(plan, pixels);
        }
        pixels
    }

    /// What a GPU runs for this recipe: the dispatches in order, and what each moves at least.
    pub fn traffic(&self) -> Vec<Traffic> {
        self.whole_plan().traffic()
    }

    /// The WGSL that a GPU runs for this recipe, one module per dispatch.
    pub fn shaders(&self) -> Vec<Shader> {
        self.whole_plan().shaders()
    }

    fn whole_plan(&self) -> Plan {
        let mut plan = Plan::default();
        let input = convert::packed(&mut plan, self.input);
        self.plan_on(&mut plan, input);
        plan
    }

    /// Percentiles that later steps want of the same ranking: those after `at`, as long as every step in between keeps
    /// the order of pixels.
    fn wanted_after(&self, at: usize) -> Vec<f64> {
        let mut wanted = Vec::new();
        for pair in self.steps[at..].windows(2) {
            if !pair[0].keeps_order() {
                break;
            }
            wanted.extend(pair[1].percentiles());
        }
        wanted
    }

    /// The first steps that can be run on strips of rows, as many as there are, and the rows beside a cut that they get wrong.
    pub(crate) fn local(&self) -> (usize, usize) {
        let reaches = self.steps.iter().map_while(|step| Some(step.strip(0..1)?.1));
        reaches.fold((0, 0), |(steps, reach), more| (steps + 1, reach + more))
    }

    /// The first `count` steps for the rows `rows` alone.
    pub(crate) fn strip(&self, count: usize, rows: Range<usize>) -> Result<Self, KernelError> {
        let steps = self.steps[..count].iter();
        let steps = steps.filter_map(|step| Some(step.strip(rows.clone())?.0));
        let input = InputShape {
            height: rows.len(),
            ..self.input
        };
        Self::new(steps.collect(), input)
    }

    /// The same recipe for each channel alone; `None` where a step needs several, or there is only one.
    pub(crate) fn channels(&self) -> Option<Vec<Self>> {
        let input = InputShape {
            channels: 1,
            ..self.input
        };
        let one = |c| -> Option<Self> {
            let steps: Option<Vec<Step>> = self.steps.iter().map(|step| step.channel(c)).collect();
            Self::new(steps?, input).ok()
        };
        (self.input.channels > 1).then(|| (0..self.input.channels).map(one).collect())?
    }
}

fn check_volume(shape: Shape) -> Result<(), KernelError> {
    if shape.contains(&0) {
        return Err(KernelError::Empty {
            what: "image",
            shape: shape.to_vec(),
        });
    }
    // Shaders count elements in 32 bits; the same bound on both devices keeps recipes portable.
    shape
        .iter()
        .try_fold(1usize, |product, &d| product.checked_mul(d))
        .filter(|v| *v <= (u32::MAX / 2) as usize)
        .map(|_| ())
        .ok_or(KernelError::Overflow {
            what: "image",
            shape: shape.to_vec(),
        })
}
