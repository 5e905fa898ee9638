//! Devices: where recipes run. Enters: a choice, then recipes and raw images. Leaves: tensors and quality measures.
//! Fails where the choice does not exist, an image is too large for the adapter, or the adapter fails. Nothing falls
//! back in silence: only `auto` chooses, and [`Device::describe`] says what and why.

use std::fmt;
use std::str::FromStr;

use rayon::prelude::*;

use crate::convert;
use crate::error::KernelError;
use crate::histogram::{Histogram, HistogramKernel};
use crate::image::{RawImage, Tensor};
use crate::kernel::{Kernel, Measure};
use crate::moments::MomentsKernel;
use crate::plan::Plan;
use crate::quality::{self, ChannelQuality};
use crate::recipe::Recipe;
use crate::registry::Step;
use crate::rows::Rows;
use gpu::Gpu;

mod buffers;
mod gpu;
mod pool;

/// Which device to use, as configuration writes it: `auto`, `cpu`, `gpu`, or part of an adapter name.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub enum DeviceChoice {
    /// A real GPU where there is one, else the CPU. Never a software adapter.
    #[default]
    Auto,
    /// The CPU path.
    Cpu,
    /// The best adapter, software included; an error where there is none.
    Gpu,
    /// The first adapter whose name contains this, ignoring case.
    Named(String),
}

impl FromStr for DeviceChoice {
    type Err = KernelError;
    fn from_str(s: &str) -> Result<Self, KernelError> {
        Ok(match s.trim().to_ascii_lowercase().as_str() {
            "" => return Err(KernelError::DeviceChoice),
            "auto" => Self::Auto,
            "cpu" => Self::Cpu,
            "gpu" => Self::Gpu,
            _ => Self::Named(s.trim().to_owned()),
        })
    }
}

impl fmt::Display for DeviceChoice {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Auto => f.write_str("auto"),
            Self::Cpu => f.write_str("cpu"),
            Self::Gpu => f.write_str("gpu"),
            Self::Named(name) => f.write_str(name),
        }
    }
}

/// Kind of a device.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[non_exhaustive]
pub enum DeviceKind {
    /// The CPU path of this crate.
    Cpu,
    /// A graphics card with its own memory.
    DiscreteGpu,
    /// A GPU that shares memory with the processor.
    IntegratedGpu,
    /// A GPU of a virtual machine.
    VirtualGpu,
    /// A driver that computes on the processor (lavapipe).
    Software,
    /// The driver does not say.
    Other,
}

impl fmt::Display for DeviceKind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Cpu => "cpu",
            Self::DiscreteGpu => "discrete gpu",
            Self::IntegratedGpu => "integrated gpu",
            Self::VirtualGpu => "virtual gpu",
            Self::Software => "software",
            Self::Other => "other",
        })
    }
}

/// A device that exists on this machine.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct DeviceInfo {
    /// Name by which it can be chosen.
    pub name: String,
    /// Kind.
    pub kind: DeviceKind,
    /// Backend: "vulkan", "metal", "dx12", or "rayon" for the CPU.
    pub backend: String,
    /// Driver and version, empty for the CPU.
    pub driver: String,
    /// Largest buffer a shader can bind, in bytes; `None` for the CPU.
    pub max_binding_bytes: Option<u64>,
}

impl fmt::Display for DeviceInfo {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} ({}, {}", self.name, self.kind, self.backend)?;
        if !self.driver.is_empty() {
            write!(f, ", {}", self.driver)?;
        }
        f.write_str(")")
    }
}

/// The CPU as a device.
fn cpu_info() -> DeviceInfo {
    DeviceInfo {
        name: format!("cpu, {} threads", rayon::current_num_threads()),
        kind: DeviceKind::Cpu,
        backend: "rayon".into(),
        driver: String::new(),
        max_binding_bytes: None,
    }
}

#[derive(Debug)]
enum Inner {
    Cpu,
    Gpu(Box<Gpu>),
}

/// An open device. Blocking; may be shared between threads.
#[derive(Debug)]
pub struct Device {
    inner: Inner,
    info: DeviceInfo,
    why: String,
}

impl Device {
    /// Opens the chosen device.
    ///
    /// # Errors
    /// No adapter suits an explicit choice, or its driver refuses. `auto` takes the CPU instead, and says so.
    pub fn open(choice: DeviceChoice) -> Result<Self, KernelError> {
        let cpu = |why: String| Self {
            inner: Inner::Cpu,
            info: cpu_info(),
            why,
        };
        if choice == DeviceChoice::Cpu {
            return Ok(cpu("chosen by `cpu`".into()));
        }
        let adapters = gpu::adapters();
        let found = || match adapters.len() {
            0 => "none".to_owned(),
            _ => adapters
                .iter()
                .map(|(info, _)| info.to_string())
                .collect::<Vec<_>>()
                .join("; "),
        };
        let wanted = |info: &DeviceInfo| match &choice {
            DeviceChoice::Auto => info.kind != DeviceKind::Software,
            DeviceChoice::Cpu => false,
            DeviceChoice::Gpu => true,
            DeviceChoice::Named(part) => info.name.to_lowercase().contains(&part.to_lowercase()),
        };
        let opened = adapters
            .iter()
            .find(|(info, _)| wanted(info))
            .map(|(info, adapter)| Gpu::open(info, adapter).map(|gpu| (info.clone(), gpu)));
        match (opened, &choice) {
            (Some(Ok((info, gpu))), DeviceChoice::Auto) => Ok(Self {
                inner: Inner::Gpu(Box::new(gpu)),
                info,
                why: "auto: the best GPU found".into(),
            }),
            (Some(Ok((info, gpu))), _) => {
                let why = format!("chosen by `{choice}`");
                Ok(Self {
                    inner: Inner::Gpu(Box::new(gpu)),
                    info,
                    why,
                })
            }
            (Some(Err(e)), DeviceChoice::Auto) => Ok(cpu(format!("auto: a GPU exists, but {e}"))),
            (None, DeviceChoice::Auto) => Ok(cpu(format!(
                "auto: no GPU (adapters found: {}; software adapters only run if chosen)",
                found()
            ))),
            (Some(Err(e)), _) => Err(e),
            (None, _) => Err(KernelError::NoAdapter {
                asked: choice.to_string(),
                found: found(),
            }),
        }
    }

    /// What was chosen and why, for the log.
    pub fn describe(&self) -> String {
        format!("{}: {}", self.info, self.why)
    }

    /// The device.
    pub fn info(&self) -> &DeviceInfo {
        &self.info
    }

    /// Runs `recipe` on `image`. On a GPU everything between upload and readback stays in device memory.
    ///
    /// # Errors
    /// The image is not the one the recipe was made for, is too large for the device, or the device fails.
    pub fn run(&self, recipe: &Recipe, image: &RawImage) -> Result<Tensor, KernelError> {
        recipe.check(image)?;
        match &self.inner {
            Inner::Cpu => Ok(recipe.cpu(image)),
            Inner::Gpu(gpu) => {
                let mut plan = Plan::default();
                let packed = plan.buffer(convert::NAME, convert::packed_words(image));
                let pixels = convert::plan(&mut plan, packed, image.pixels().len());
                let output = recipe.plan(&mut plan, pixels);
                let bytes = bytemuck::cast_slice(image.pixels());
                let words = gpu.execute("a recipe", &plan, packed, bytes, &[output])?;
                Ok(tensor(recipe.output_shape(), words))
            }
        }
    }

    /// Runs one step on float input. Recipes start from raw images; this is for tests and for looking at one step.
    ///
    /// # Errors
    /// The step does not fit the tensor, the tensor is too large for the device, or the device fails.
    pub fn run_step(&self, step: &Step, input: &Tensor) -> Result<Tensor, KernelError> {
        let shape = step.output_shape(input.shape())?;
        match &self.inner {
            Inner::Cpu => Ok(step.cpu(Rows::float(input.clone())).materialise()),
            Inner::Gpu(gpu) => {
                let mut plan = Plan::default();
                let target = plan.buffer(step.name(), input.data().len());
                let output = step.plan(&mut plan, target, input.shape());
                let bytes = bytemuck::cast_slice(input.data());
                let words = gpu.execute(step.name(), &plan, target, bytes, &[output])?;
                Ok(tensor(shape, words))
            }
        }
    }

    /// Runs one measure of the registry and gives its exact tallies.
    ///
    /// # Errors
    /// The image is too large for the device, or the device fails.
    pub fn measure(&self, measure: &dyn Measure, image: &RawImage) -> Result<Vec<u64>, KernelError> {
        Ok(self.measures(&[measure], image)?.pop().unwrap_or_default())
    }

    fn measures(&self, measures: &[&dyn Measure], image: &RawImage) -> Result<Vec<Vec<u64>>, KernelError> {
        match &self.inner {
            Inner::Cpu => Ok(measures.iter().map(|m| m.cpu(image)).collect()),
            Inner::Gpu(gpu) => {
                let mut plan = Plan::default();
                let packed = plan.buffer(convert::NAME, convert::packed_words(image));
                let outputs: Vec<_> = measures
                    .iter()
                    .map(|m| m.plan(&mut plan, packed, image))
                    .collect();
                let bytes = bytemuck::cast_slice(image.pixels());
                let words = gpu.execute("quality measures", &plan, packed, bytes, &outputs)?;
                Ok(measures
                    .iter()
                    .zip(words)
                    .map(|(m, w)| m.finish(&w, image))
                    .collect())
            }
        }
    }

    /// Quality measures of every channel of `image`. On a GPU the counting runs there; the power slope and the local
    /// focus scores, which need double precision, always run on the CPU.
    ///
    /// # Errors
    /// The image is too large for the device, or the device fails.
    pub fn quality(&self, image: &RawImage) -> Result<Vec<ChannelQuality>, KernelError> {
        if matches!(self.inner, Inner::Cpu) {
            return Ok(quality::cpu(image));
        }
        let tallies = self.measures(&[&HistogramKernel, &MomentsKernel], image)?;
        let [counts, laplacian] = tallies.as_slice() else {
            return Ok(Vec::new());
        };
        let bins = counts.len() / image.channels();
        let measured = (0..image.channels()).into_par_iter().map(|c| {
            let histogram = Histogram::from_tallies(&counts[c * bins..(c + 1) * bins]);
            quality::channel(image, c, &histogram, laplacian.get(2 * c..2 * c + 2))
        });
        Ok(measured.collect())
    }
}

/// The first output of a plan as a tensor.
fn tensor(shape: [usize; 4], words: Vec<Vec<u32>>) -> Tensor {
    let data = words.into_iter().next().unwrap_or_default();
    Tensor::from_parts(shape, bytemuck::allocation::cast_vec(data))
}

/// All devices of this machine; the CPU comes first, then adapters, best first.
pub fn list_devices() -> Vec<DeviceInfo> {
    std::iter::once(cpu_info())
        .chain(gpu::adapters().into_iter().map(|(info, _)| info))
        .collect()
}
