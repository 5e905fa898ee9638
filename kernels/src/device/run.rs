//! Recipes, steps and measures on an adapter: the plan is made, checked against the adapter's limits, and run.
//! Several images go through a ring: while one is read back, others are uploaded and computed.

use std::collections::VecDeque;
use std::sync::Arc;

use super::adapter::Adapter;
use super::clock::KernelTime;
use super::gpu::Gpu;
use super::resident::{DeviceImage, DeviceTensor};
use super::strips;
use super::submit::{Input, Job, Outputs};
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
struct Planned {
    plan: Plan,
    target: BufferId,
    output: BufferId,
}

impl Planned {
    fn of(recipe: &Recipe) -> Self {
        let mut plan = Plan::default();
        let packed = convert::packed(&mut plan, recipe.input_shape());
        let target = packed.buffer();
        let output = recipe.plan_on(&mut plan, packed).buffer();
        Self { plan, target, output }
    }

    fn job<'a>(&'a self, what: &'static str, input: Input<'a>) -> Job<'a> {
        Job {
            what,
            plan: &self.plan,
            target: self.target,
            input,
            outputs: std::slice::from_ref(&self.output),
            result: Outputs::Read,
        }
    }
}

/// The pixels of an image: on the device, if `there` has them for this one.
fn input<'a>(gpu: &Arc<Gpu>, image: &'a RawImage, there: Option<&'a DeviceImage>) -> Input<'a> {
    match there.and_then(|there| there.on(gpu, image.shape())) {
        Some(buffer) => Input::There(buffer),
        None => Input::Bytes(bytemuck::cast_slice(image.pixels())),
    }
}

/// Brings an image to the device; `None` if it is larger than what the device binds at once.
pub(super) fn load(adapter: &Adapter, image: &RawImage) -> Result<Option<DeviceImage>, KernelError> {
    let bytes: &[u8] = bytemuck::cast_slice(image.pixels());
    adapter.with(|gpu| {
        if bytes.len().next_multiple_of(4) as u64 > gpu.limit {
            return Ok(None);
        }
        let buffer = gpu.load("an upload", bytes)?;
        Ok(Some(DeviceImage::new(gpu, buffer, image.shape())))
    })
}

pub(super) fn recipe(
    adapter: &Adapter,
    recipe: &Recipe,
    images: &[&RawImage],
) -> Result<Vec<Tensor>, KernelError> {
    let planned = Planned::of(recipe);
    adapter.with(|gpu| {
        if let Some(parts) = apart(gpu, &planned, recipe)? {
            return images
                .iter()
                .map(|image| channels(gpu, recipe, &parts, image))
                .collect();
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
            waiting.push_back(gpu.start(planned.job("a recipe", input(gpu, image, None)))?);
        }
        for pending in waiting {
            tensors.push(tensor(shape, gpu.finish(pending)?));
        }
        Ok(tensors)
    })
}

/// One image, which may be on the device already.
pub(super) fn on_loaded(
    adapter: &Adapter,
    recipe: &Recipe,
    image: &RawImage,
    there: Option<&DeviceImage>,
) -> Result<Tensor, KernelError> {
    let planned = Planned::of(recipe);
    adapter.with(|gpu| {
        if let Some(parts) = apart(gpu, &planned, recipe)? {
            return channels(gpu, recipe, &parts, image);
        }
        let pending = gpu.start(planned.job("a recipe", input(gpu, image, there)))?;
        Ok(tensor(recipe.output_shape(), gpu.finish(pending)?))
    })
}

/// The same, and the result stays on the device.
pub(super) fn kept(
    adapter: &Adapter,
    recipe: &Recipe,
    image: &RawImage,
    there: Option<&DeviceImage>,
) -> Result<DeviceTensor, KernelError> {
    let planned = Planned::of(recipe);
    let shape = recipe.output_shape();
    adapter.with(|gpu| {
        let buffer = match apart(gpu, &planned, recipe)? {
            // Put together on the processor, as the whole does not fit.
            Some(parts) => {
                let whole = channels(gpu, recipe, &parts, image)?;
                gpu.load("an upload", bytemuck::cast_slice(whole.data()))?
            }
            None => gpu.keep(planned.job("a recipe", input(gpu, image, there)), planned.output)?,
        };
        Ok(DeviceTensor::new(gpu, buffer, shape))
    })
}

/// The recipes of single channels, where the whole is too large for the device and can be cut so.
fn apart(gpu: &Gpu, planned: &Planned, recipe: &Recipe) -> Result<Option<Vec<Recipe>>, KernelError> {
    match gpu.check(&planned.plan) {
        // The channels of a recipe have copies of its illumination functions.
        Err(error @ KernelError::TooLarge { .. }) => match recipe.channels() {
            None if recipe.input_shape().channels == 1 => Ok(Some(vec![recipe.clone()])),
            None => Err(error),
            parts => Ok(parts),
        },
        checked => checked.map(|()| None),
    }
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
    let planned = Planned::of(recipe);
    match gpu.check(&planned.plan) {
        Err(error @ KernelError::TooLarge { .. }) => strips::run(gpu, recipe, pixels)?.ok_or(error),
        Err(error) => Err(error),
        Ok(()) => {
            let bytes = Input::Bytes(bytemuck::cast_slice(pixels));
            let pending = gpu.start(planned.job("one channel of a recipe", bytes))?;
            Ok(tensor(recipe.output_shape(), gpu.finish(pending)?))
        }
    }
}

pub(super) fn timed(
    adapter: &Adapter,
    recipe: &Recipe,
    image: &RawImage,
) -> Result<(Tensor, Option<Vec<KernelTime>>), KernelError> {
    let planned = Planned::of(recipe);
    adapter.with(|gpu| {
        gpu.check(&planned.plan)?;
        let job = planned.job("a recipe", input(gpu, image, None));
        let result = Outputs::Timed;
        let (words, times) = gpu.finish_timed(gpu.start(Job { result, ..job })?)?;
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
    let job = Job {
        what: step.name(),
        plan: &plan,
        target,
        input: Input::Bytes(bytemuck::cast_slice(input.data())),
        outputs: &[output],
        result: Outputs::Read,
    };
    let words = adapter.with(|gpu| gpu.execute(job))?;
    Ok(tensor(shape, words))
}

pub(super) fn measures(
    adapter: &Adapter,
    measures: &[&dyn Measure],
    image: &RawImage,
    there: Option<&DeviceImage>,
) -> Result<Vec<Vec<u64>>, KernelError> {
    let mut plan = Plan::default();
    let packed = convert::packed(&mut plan, image.shape()).buffer();
    let outputs: Vec<_> = measures
        .iter()
        .map(|m| m.plan(&mut plan, packed, image))
        .collect();
    let words = adapter.with(|gpu| {
        gpu.execute(Job {
            what: "quality measures",
            plan: &plan,
            target: packed,
            input: input(gpu, image, there),
            outputs: &outputs,
            result: Outputs::Read,
        })
    })?;
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
