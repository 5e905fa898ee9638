//! Pixel kernels: raw microscope images in, network-ready tensors and quality measures out.
//!
//! Every kernel is a folder with its parameters, formula and source (`mod.rs`), a CPU form that is the specification
//! (`cpu.rs`) and a shader (`kernel.wgsl`), and one line in [`registry`]. One test runs every kernel on both devices
//! and compares. This crate knows nothing of files, clocks, networks or async.
//!
//! ```
//! use wellspring_kernels::{Device, DeviceChoice, PercentileScale, RawImage, Recipe, ScaleRange};
//!
//! # fn main() -> Result<(), wellspring_kernels::KernelError> {
//! let image = RawImage::new(1, 2, 2, vec![100, 200, 300, 400], 4095)?;
//! let scale = PercentileScale { range: ScaleRange::PerImage { lo: 0.0, hi: 100.0 }, scale: 255.0, round: true };
//! let recipe = Recipe::new(vec![scale.into()], image.shape())?;
//! let tensor = Device::open(DeviceChoice::Cpu)?.run(&recipe, &image)?;
//! assert_eq!(tensor.data(), &[0.0, 85.0, 170.0, 255.0]);
//! # Ok(())
//! # }
//! ```

pub mod background;
pub mod blur;
pub mod composite;
mod convert;
mod device;
mod error;
pub mod features;
pub mod flat_field;
mod focus;
pub mod histogram;
pub mod illumination;
mod image;
pub mod kernel;
pub mod median;
pub mod moments;
pub mod nuclei;
mod order_statistics;
pub mod orient;
pub mod pad;
pub mod percentile_scale;
pub mod pixels;
pub mod plan;
mod point;
mod power;
pub mod project;
mod quality;
mod recipe;
pub mod registration;
pub mod registry;
pub mod resize;
pub mod rows;
mod simd;
pub mod standardise;
pub mod tile;
pub mod translate;

pub use background::{Background, Footprint};
pub use blur::{Border, GaussianBlur};
pub use composite::Composite;
pub use device::{
    Bus, BusBytes, Device, DeviceChoice, DeviceImage, DeviceInfo, DeviceKind, DeviceOptions, DeviceTensor,
    KernelTime, PipelineStore, SharedDevice, list_devices,
};
pub use error::KernelError;
pub use flat_field::{FlatField, FlatFieldMode, Illumination};
pub use histogram::Histogram;
pub use illumination::{BasicSettings, BasicStack, IlluminationSettings, MeanImage, Shading, Smoothing};
pub use image::{InputShape, RawImage, Tensor};
pub use kernel::{Kernel, Measure, Tolerance};
pub use median::Median;
pub use orient::{Orient, Turn};
pub use pad::{Fill, Pad};
pub use percentile_scale::{PercentileScale, ScaleRange};
pub use power::{power_log_log_slope, radial_power};
pub use project::{Project, Projection, sharpness};
pub use quality::{
    BatchMeasures, ChannelQuality, Defect, EMPTY_CONTRAST, FlagLimits, LEAST_FIELDS, Limit, QualityFlag,
    batch_flags, illumination_cv,
};
pub use recipe::Recipe;
pub use registry::Step;
pub use resize::{Resize, ResizeFilter};
pub use standardise::{Form, Standardise};
pub use tile::{Placement, Tile};
pub use translate::Translate;
