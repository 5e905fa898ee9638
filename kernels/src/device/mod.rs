//! Devices: where recipes run. Enters: a choice, then recipes and raw images. Leaves: tensors and quality measures.
//! Fails where the choice does not exist, an image is too large for the adapter, or the adapter fails. Nothing falls
//! back in silence: only `auto` chooses, and [`Device::describe`] says what and why.

use std::sync::Arc;

use rayon::prelude::*;

use crate::error::KernelError;
use crate::histogram::{Histogram, HistogramKernel};
use crate::image::{RawImage, Tensor};
use crate::kernel::{Kernel, Measure};
use crate::moments::MomentsKernel;
use crate::quality::{self, ChannelQuality};
use crate::recipe::Recipe;
use crate::registry::Step;
use crate::rows::Rows;

mod adapter;
mod buffers;
mod choice;
mod clock;
mod gpu;
mod pipelines;
mod pool;
mod resident;
mod run;
mod shared;
mod strips;
mod submit;

use adapter::Adapter;
use choice::cpu_info;
pub use choice::{DeviceChoice, DeviceInfo, DeviceKind};
pub use clock::KernelTime;
pub use pipelines::PipelineStore;
pub use resident::{DeviceImage, DeviceTensor};
pub use shared::{Bus, BusBytes, SharedDevice};

/// How an adapter is used.
#[derive(Debug, Clone, Default)]
pub struct DeviceOptions {
    /// Where compiled pipelines are kept between processes; the driver's own way where there is none, or where the adapter
    /// cannot give them (only Vulkan can).
    pub pipelines: Option<Arc<dyn PipelineStore>>,
    /// Largest buffer in bytes, where it shall be smaller than the adapter's limit.
    pub binding_bytes: Option<u64>,
}

#[derive(Debug)]
enum Inner {
    Cpu,
    Gpu(Box<Adapter>),
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
        Self::open_with(choice, &DeviceOptions::default())
    }

    /// As [`Device::open`], with options for adapters.
    ///
    /// # Errors
    /// As [`Device::open`].
    pub fn open_with(choice: DeviceChoice, options: &DeviceOptions) -> Result<Self, KernelError> {
        let cpu = |why: String| Self {
            inner: Inner::Cpu,
            info: cpu_info(),
            why,
        };
        if choice == DeviceChoice::Cpu {
            return Ok(cpu("chosen by `cpu`".into()));
        }
        let adapters = gpu::adapters(options);
        let found = || -> Vec<String> {
            let numbered = (1..).zip(&adapters);
            numbered
                .map(|(index, (info, _))| format!("#{index} {info}"))
                .collect()
        };
        let opened = (1..)
            .zip(&adapters)
            .find(|(index, (info, _))| choice.suits(*index, info))
            .map(|(index, (info, adapter))| {
                Adapter::open(info, adapter, options).map(|opened| (index, opened))
            });
        let gpu = |adapter: Adapter, why: String| Self {
            info: adapter.info().clone(),
            inner: Inner::Gpu(Box::new(adapter)),
            why,
        };
        match (opened, &choice) {
            (Some(Ok((_, adapter))), DeviceChoice::Auto) => Ok(gpu(adapter, "auto: the best GPU found".into())),
            (Some(Ok((_, adapter))), DeviceChoice::Gpu) if adapter.info().kind == DeviceKind::Software => Ok(gpu(
                adapter,
                "chosen by `gpu`, since there is no real one; the processor does the work, faster by `cpu`".into(),
            )),
            (Some(Ok((index, adapter))), _) => Ok(gpu(adapter, format!("#{index}, chosen by `{choice}`"))),
            (Some(Err(e)), DeviceChoice::Auto) => Ok(cpu(format!("auto: a GPU exists, but {e}"))),
            (None, DeviceChoice::Auto) => Ok(cpu(match found().as_slice() {
                [] => "auto: no GPU (no adapter found)".into(),
                found => format!(
                    "auto: no GPU (adapters found: {}; software adapters only run if chosen)",
                    found.join("; ")
                ),
            })),
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
        Ok(self
            .run_all(recipe, std::slice::from_ref(&image))?
            .pop()
            .unwrap_or_else(Tensor::nothing))
    }

    /// Brings `image` to the device's memory, so that several recipes and measures can read it there and its pixels cross the
    /// bus once. `None` on the CPU, and for an image larger than what the device binds at once.
    ///
    /// # Errors
    /// The device fails.
    pub fn load(&self, image: &RawImage) -> Result<Option<DeviceImage>, KernelError> {
        match &self.inner {
            Inner::Cpu => Ok(None),
            Inner::Gpu(adapter) => run::load(adapter, image),
        }
    }

    /// As [`Device::run`], on pixels that [`Device::load`] brought to the device; `loaded` is of this `image`. Where there are
    /// none, or they were lost with the device, they are brought up again.
    ///
    /// # Errors
    /// As [`Device::run`].
    pub fn run_loaded(
        &self,
        recipe: &Recipe,
        image: &RawImage,
        loaded: Option<&DeviceImage>,
    ) -> Result<Tensor, KernelError> {
        recipe.check(image)?;
        match &self.inner {
            Inner::Cpu => Ok(recipe.cpu(image)),
            Inner::Gpu(adapter) => run::on_loaded(adapter, recipe, image, loaded),
        }
    }

    /// As [`Device::run_loaded`], and the result stays in the device's memory, for who shares it. `None` on the CPU.
    ///
    /// # Errors
    /// As [`Device::run`].
    pub fn run_kept(
        &self,
        recipe: &Recipe,
        image: &RawImage,
        loaded: Option<&DeviceImage>,
    ) -> Result<Option<DeviceTensor>, KernelError> {
        recipe.check(image)?;
        match &self.inner {
            Inner::Cpu => Ok(None),
            Inner::Gpu(adapter) => run::kept(adapter, recipe, image, loaded).map(Some),
        }
    }

    /// The open device, for a network on the same adapter; it is opened anew if it was lost. `None` on the CPU.
    ///
    /// # Errors
    /// The adapter is not there any more.
    pub fn share(&self) -> Result<Option<SharedDevice>, KernelError> {
        match &self.inner {
            Inner::Cpu => Ok(None),
            Inner::Gpu(adapter) => {
                let gpu = adapter.healthy()?;
                Ok(Some(SharedDevice::of(&gpu)))
            }
        }
    }

    /// What crossed the device's bus so far, by kernels and all who share it. `None` on the CPU.
    pub fn bus(&self) -> Option<BusBytes> {
        match &self.inner {
            Inner::Cpu => None,
            Inner::Gpu(adapter) => Some(adapter.current().bus.bytes()),
        }
    }

    /// Runs `recipe` on several images, in order. On a GPU the upload of one image, the work on another and the readback of
    /// a third overlap. Images that need a larger buffer than the device binds are run channel by channel, and planes that do
    /// in strips of rows, if the recipe allows: only percentiles and other numbers of a whole plane, and changes of its shape
    /// other than a new size, do not.
    ///
    /// # Errors
    /// As [`Device::run`]; nothing runs if an image does not fit the recipe.
    pub fn run_all(&self, recipe: &Recipe, images: &[&RawImage]) -> Result<Vec<Tensor>, KernelError> {
        images.iter().try_for_each(|image| recipe.check(image))?;
        match &self.inner {
            Inner::Cpu => Ok(images.iter().map(|image| recipe.cpu(image)).collect()),
            Inner::Gpu(adapter) => run::recipe(adapter, recipe, images),
        }
    }

    /// Runs `recipe` and measures each dispatch by the device's own clock: kernel, entry point and time. `None` on the CPU and
    /// on adapters without such a clock.
    ///
    /// # Errors
    /// As [`Device::run`].
    pub fn run_timed(
        &self,
        recipe: &Recipe,
        image: &RawImage,
    ) -> Result<(Tensor, Option<Vec<KernelTime>>), KernelError> {
        recipe.check(image)?;
        match &self.inner {
            Inner::Cpu => Ok((recipe.cpu(image), None)),
            Inner::Gpu(adapter) => run::timed(adapter, recipe, image),
        }
    }

    /// Ends the adapter's device as a driver's reset does, so that tests and operators can see the recovery: the next run
    /// opens the adapter again and repeats its work.
    pub fn lose(&self) {
        if let Inner::Gpu(adapter) = &self.inner {
            adapter.lose();
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
            Inner::Gpu(adapter) => run::step(adapter, step, input, shape),
        }
    }

    /// Runs one measure of the registry and gives its exact tallies.
    ///
    /// # Errors
    /// The image is too large for the device, or the device fails.
    pub fn measure(&self, measure: &dyn Measure, image: &RawImage) -> Result<Vec<u64>, KernelError> {
        Ok(self.measures(&[measure], image, None)?.pop().unwrap_or_default())
    }

    /// The exact counts of every channel, for percentiles, and to be pooled over images.
    ///
    /// # Errors
    /// The image is too large for the device, or the device fails.
    pub fn histograms(&self, image: &RawImage) -> Result<Vec<Histogram>, KernelError> {
        if matches!(self.inner, Inner::Cpu) {
            let planes = (0..image.channels()).into_par_iter();
            return Ok(planes.map(|c| Histogram::of(image.plane(c))).collect());
        }
        let counts = self.measure(&HistogramKernel, image)?;
        Ok(counts
            .chunks(counts.len() / image.channels())
            .map(Histogram::from_tallies)
            .collect())
    }

    fn measures(
        &self,
        measures: &[&dyn Measure],
        image: &RawImage,
        loaded: Option<&DeviceImage>,
    ) -> Result<Vec<Vec<u64>>, KernelError> {
        match &self.inner {
            Inner::Cpu => Ok(measures.iter().map(|m| m.cpu(image)).collect()),
            Inner::Gpu(adapter) => run::measures(adapter, measures, image, loaded),
        }
    }

    /// Quality measures of every channel of `image`. On a GPU the counting runs there; the power slope and the local
    /// focus scores, which need double precision, always run on the CPU.
    ///
    /// # Errors
    /// The image is too large for the device, or the device fails.
    pub fn quality(&self, image: &RawImage) -> Result<Vec<ChannelQuality>, KernelError> {
        self.quality_loaded(image, None)
    }

    /// As [`Device::quality`], on pixels that [`Device::load`] brought to the device; `loaded` is of this `image`.
    ///
    /// # Errors
    /// As [`Device::quality`].
    pub fn quality_loaded(
        &self,
        image: &RawImage,
        loaded: Option<&DeviceImage>,
    ) -> Result<Vec<ChannelQuality>, KernelError> {
        if matches!(self.inner, Inner::Cpu) {
            return Ok(quality::cpu(image));
        }
        let tallies = self.measures(&[&HistogramKernel, &MomentsKernel], image, loaded)?;
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

/// All devices of this machine; the CPU comes first, then adapters, best first.
pub fn list_devices() -> Vec<DeviceInfo> {
    std::iter::once(cpu_info())
        .chain(
            gpu::adapters(&DeviceOptions::default())
                .into_iter()
                .map(|(info, _)| info),
        )
        .collect()
}
