//! Recipes, steps and measures on an adapter: the plan is made, checked against the adapter's limits, and run.
//! Several images go through a ring: while one is read back, others are uploaded and computed.

use std::collections::VecDeque;

use super::adapter::Adapter;
use super::clock::KernelTime;
use super::gpu::Gpu;
use super::strips;
use crate::convert;
use crate::error::KernelError;
use crate::image::{RawImage, Tensor};
use crate::kernel::{Kernel, Measure, Shape};
use crate::pixels::Pixels;
use crate::plan::{BufferId, Plan};
use crate::recipe::Recipe;
use crate::registry::Step;

/// Images on the device at a time.
const RING: usize = 3;

/// The plan of a recipe, its input and its output.
fn plan(recipe: &Recipe) -> (Plan, BufferId, BufferId) {
    let mut plan = Plan::default();
    let packed = convert::packed(&mut plan, recipe.input_shape());
    let target = packed.buffer();
    let output = recipe.plan_on(&mut plan, packed).buffer();
    (plan, target, output)
}

pub(super) fn recipe(
    adapter: &Adapter,
    recipe: &Recipe,
    images: &[&RawImage],
) -> Result<Vec<Tensor>, KernelError> {
    let (plan, target, output) = plan(recipe);
    adapter.with(|gpu| {
        match gpu.check(&plan) {
            Ok(()) => {}
            Err(KernelError::TooLarge { .. }) => {
                // The channels of a recipe have copies of its illumination functions.
                return match recipe.channels() {
                    Some(parts) => images
                        .iter()
                        .map(|image| channels(gpu, recipe, &parts, image))
                        .collect(),
                    None => images
                        .iter()
                        .map(|image| one_channel(gpu, recipe, image.pixels()))
                        .collect(),
                };
            }
            Err(error) => return Err(error),
        }
        let mut tensors = Vec::with_capacity(images.len());
        let mut waiting = VecDeque::with_capacity(RING);
        let shape = recipe.output_shape();
        for image in images {
            if waiting.len() == RING
                && let Some(oldest) = waiting.pop_front()
            {
                tensors.push(tensor(shape, gpu.finish(oldest)?));
            }
            let bytes = bytemuck::cast_slice(image.pixels());
            waiting.push_back(gpu.start("a recipe", &plan, target, bytes, &[output], false)?);
        }
        for pending in waiting {
            tensors.push(tensor(shape, gpu.finish(pending)?));
        }
        Ok(tensors)
    })
}

/// An image that does not fit at once, one channel after the other, each by its recipe.
fn channels(gpu: &Gpu, whole: &Recipe, parts: &[Recipe], image: &RawImage) -> Result<Tensor, KernelError> {
    let [items, count, height, width] = whole.output_shape();
    let mut data = vec![0.0; items * count * height * width];
    for (c, recipe) in parts.iter().enumerate() {
        let one = one_channel(gpu, recipe, image.plane(c))?;
        let planes = data.chunks_exact_mut(height * width);
        for (to, from) in planes
            .skip(c)
            .step_by(count)
            .zip(one.data().chunks_exact(height * width))
        {
            to.copy_from_slice(from);
        }
    }
    Tensor::new([items, count, height, width], data)
}

/// One channel, in strips of rows if it does not fit at once.
fn one_channel(gpu: &Gpu, recipe: &Recipe, pixels: &[u16]) -> Result<Tensor, KernelError> {
    let (plan, target, output) = plan(recipe);
    match gpu.check(&plan) {
        Err(error @ KernelError::TooLarge { .. }) => strips::run(gpu, recipe, pixels)?.ok_or(error),
        Err(error) => Err(error),
        Ok(()) => {
            let bytes = bytemuck::cast_slice(pixels);
            let pending = gpu.start("one channel of a recipe", &plan, target, bytes, &[output], false)?;
            Ok(tensor(recipe.output_shape(), gpu.finish(pending)?))
        }
    }
}

pub(super) fn timed(
    adapter: &Adapter,
    recipe: &Recipe,
    image: &RawImage,
) -> Result<(Tensor, Option<Vec<KernelTime>>), KernelError> {
    let (plan, target, output) = plan(recipe);
    adapter.with(|gpu| {
        gpu.check(&plan)?;
        let bytes = bytemuck::cast_slice(image.pixels());
        let pending = gpu.start("a recipe", &plan, target, bytes, &[output], true)?;
        let (words, times) = gpu.finish_timed(pending)?;
        Ok((tensor(recipe.output_shape(), words), times))
    })
}

pub(super) fn step(
    adapter: &Adapter,
    step: &Step,
    input: &Tensor,
    shape: Shape,
) -> Result<Tensor, KernelError> {
    let mut plan = Plan::default();
    let target = plan.buffer(step.name(), input.data().len());
    let pixels = Pixels::float(target, input.shape());
    let output = step.plan(&mut plan, pixels).stored(&mut plan).buffer();
    let bytes = bytemuck::cast_slice(input.data());
    let words = adapter.with(|gpu| gpu.execute(step.name(), &plan, target, bytes, &[output]))?;
    Ok(tensor(shape, words))
}

pub(super) fn measures(
    adapter: &Adapter,
    measures: &[&dyn Measure],
    image: &RawImage,
) -> Result<Vec<Vec<u64>>, KernelError> {
    let mut plan = Plan::default();
    let packed = convert::packed(&mut plan, image.shape()).buffer();
    let outputs: Vec<_> = measures
        .iter()
        .map(|m| m.plan(&mut plan, packed, image))
        .collect();
    let bytes = bytemuck::cast_slice(image.pixels());
    let words = adapter.with(|gpu| gpu.execute("quality measures", &plan, packed, bytes, &outputs))?;
    Ok(measures
        .iter()
        .zip(words)
        .map(|(m, w)| m.finish(&w, image))
        .collect())
}

/// The first output of a plan as a tensor.
fn tensor(shape: Shape, words: Vec<Vec<u32>>) -> Tensor {
    let data = words.into_iter().next().unwrap_or_default();
    Tensor::from_parts(shape, bytemuck::allocation::cast_vec(data))
}
