//! Which devices there are, and which one is wanted. Enters: a word of the configuration. Leaves: a choice. Fails on a word
//! that can be neither.

use std::fmt;
use std::str::FromStr;

use crate::error::KernelError;

/// Which device to use, as configuration writes it: `auto`, `cpu`, `gpu`, a kind of adapter (`discrete`, `integrated`,
/// `virtual`, `software`), its number in [`super::list_devices`] (`#1` is the first adapter), or part of its name.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
#[non_exhaustive]
pub enum DeviceChoice {
    /// A real GPU where there is one, else the CPU. Never a software adapter.
    #[default]
    Auto,
    /// The CPU path.
    Cpu,
    /// The best adapter, software included; an error where there is none.
    Gpu,
    /// The first adapter of this kind.
    Kind(DeviceKind),
    /// The device at this place of [`super::list_devices`]; 0 is the CPU.
    Index(usize),
    /// The first adapter whose name contains this, ignoring case.
    Named(String),
}

impl DeviceChoice {
    /// Whether an adapter suits, given its place in the list of devices.
    pub(super) fn suits(&self, index: usize, info: &DeviceInfo) -> bool {
        match self {
            Self::Auto => info.kind != DeviceKind::Software,
            Self::Cpu => false,
            Self::Gpu => true,
            Self::Kind(kind) => info.kind == *kind,
            Self::Index(wanted) => index == *wanted,
            Self::Named(part) => info.name.to_lowercase().contains(&part.to_lowercase()),
        }
    }
}

impl FromStr for DeviceChoice {
    type Err = KernelError;
    fn from_str(s: &str) -> Result<Self, KernelError> {
        Ok(match s.trim().to_ascii_lowercase().as_str() {
            "" => return Err(KernelError::DeviceChoice(s.to_owned())),
            "auto" => Self::Auto,
            "cpu" => Self::Cpu,
            "gpu" => Self::Gpu,
            "discrete" => Self::Kind(DeviceKind::DiscreteGpu),
            "integrated" => Self::Kind(DeviceKind::IntegratedGpu),
            "virtual" => Self::Kind(DeviceKind::VirtualGpu),
            "software" => Self::Kind(DeviceKind::Software),
            word => match word.strip_prefix('#').map(str::parse) {
                Some(Ok(0)) => Self::Cpu,
                Some(Ok(index)) => Self::Index(index),
                Some(Err(_)) => return Err(KernelError::DeviceChoice(s.to_owned())),
                None => Self::Named(s.trim().to_owned()),
            },
        })
    }
}

impl fmt::Display for DeviceChoice {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Auto => f.write_str("auto"),
            Self::Cpu => f.write_str("cpu"),
            Self::Gpu => f.write_str("gpu"),
            Self::Kind(DeviceKind::DiscreteGpu) => f.write_str("discrete"),
            Self::Kind(DeviceKind::IntegratedGpu) => f.write_str("integrated"),
            Self::Kind(DeviceKind::VirtualGpu) => f.write_str("virtual"),
            Self::Kind(kind) => write!(f, "{kind}"),
            Self::Index(index) => write!(f, "#{index}"),
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
pub(super) fn cpu_info() -> DeviceInfo {
    DeviceInfo {
        name: format!("cpu, {} threads", rayon::current_num_threads()),
        kind: DeviceKind::Cpu,
        backend: "rayon".into(),
        driver: String::new(),
        max_binding_bytes: None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn words_are_choices_and_back() {
        for word in [
            "auto",
            "cpu",
            "gpu",
            "discrete",
            "integrated",
            "virtual",
            "software",
            "#2",
            "GeForce",
        ] {
            let choice: DeviceChoice = word.parse().unwrap();
            assert_eq!(choice.to_string(), word);
        }
        assert_eq!("#0".parse::<DeviceChoice>().unwrap(), DeviceChoice::Cpu);
        for word in ["", " ", "#", "#x", "#-1"] {
            assert!(word.parse::<DeviceChoice>().is_err(), "{word}");
        }
        let info = DeviceInfo {
            kind: DeviceKind::Software,
            name: "llvmpipe (LLVM 15)".into(),
            ..cpu_info()
        };
        let suits = |word: &str| word.parse::<DeviceChoice>().unwrap().suits(3, &info);
        assert!(suits("gpu") && suits("software") && suits("#3") && suits("LLVMpipe"));
        assert!(!suits("auto") && !suits("discrete") && !suits("#1") && !suits("radeon"));
    }
}
