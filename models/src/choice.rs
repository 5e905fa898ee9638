//! The engines there are, and which of them runs a model.
//!
//! Enters: an engine and what it is to run on, as words or types. Leaves: whether this build has it, and whether it runs models
//! of an architecture. Fails with [`EngineError`]; there is no fallback from one engine to another.

use std::path::PathBuf;

use crate::architecture::Architecture;
use crate::error::EngineError;
use crate::gpu::SharedGpu;

/// Which engine to open.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
#[non_exhaustive]
pub enum EngineChoice {
    /// The best engine of this build for this machine; today that is always the native one.
    #[default]
    Auto,
    /// The native engine on the CPU.
    Native,
    /// The native engine on a graphics device, through wgpu: Vulkan, Metal or Direct3D 12.
    Wgpu {
        /// The adapter: `gpu` (the best one, software included), a kind (`discrete`, `integrated`, `virtual`, `software`),
        /// its number (`#1`, as `wellspring devices` counts), or part of its name.
        adapter: String,
        /// Whether matrices are multiplied in 16-bit floats, on adapters that can.
        half: bool,
    },
    /// The same on a device that is open already, for instance because it prepares the images.
    Shared {
        /// The device.
        gpu: SharedGpu,
        /// As in [`EngineChoice::Wgpu`].
        half: bool,
    },
    /// ONNX Runtime, for models that are ONNX files. Needs a build with the feature `onnx`.
    OnnxRuntime {
        /// The library, for example `libonnxruntime.so`. A process loads one only.
        library: PathBuf,
        /// What the graph runs on. There is no fallback to another.
        provider: OnnxProvider,
    },
    /// libtorch, for models that are TorchScript modules. Needs a build with the feature `libtorch`.
    Libtorch {
        /// What the module runs on. There is no fallback to another.
        device: TorchDevice,
        /// Whether to compute in 16-bit floats, on a GPU only.
        half: bool,
    },
}

impl EngineChoice {
    /// Which engine it is, whatever it runs on.
    pub fn kind(&self) -> EngineKind {
        match self {
            Self::Auto => EngineKind::Auto,
            Self::Native => EngineKind::Native,
            Self::Wgpu { .. } | Self::Shared { .. } => EngineKind::Wgpu,
            Self::OnnxRuntime { .. } => EngineKind::Onnx,
            Self::Libtorch { .. } => EngineKind::Libtorch,
        }
    }
}

/// An engine, whatever it runs on.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum EngineKind {
    /// The native one.
    Auto,
    /// The native engine on the CPU.
    Native,
    /// The native engine on a graphics device.
    Wgpu,
    /// ONNX Runtime.
    Onnx,
    /// libtorch.
    Libtorch,
}

impl EngineKind {
    /// For messages.
    pub(crate) fn what_it_runs(self) -> &'static str {
        match self {
            Self::Auto => "auto stands for native, which runs networks of Wellspring's own layers",
            Self::Native => "native runs networks of Wellspring's own layers",
            Self::Wgpu => "wgpu runs networks of Wellspring's own layers",
            Self::Onnx => "onnx runs ONNX files",
            Self::Libtorch => "libtorch runs TorchScript modules",
        }
    }
}

/// Whether an engine of this build runs models of an architecture, which takes no weights to know. A head is run by what
/// runs its base.
///
/// # Errors
/// [`EngineError::WrongEngine`], [`EngineError::NotBuilt`].
pub fn check_engine(model: &str, architecture: &Architecture, engine: EngineKind) -> Result<(), EngineError> {
    let fits = match architecture {
        Architecture::Head(_) => return Ok(()),
        Architecture::Onnx(_) => engine == EngineKind::Onnx,
        Architecture::Torchscript => engine == EngineKind::Libtorch,
        _ => matches!(engine, EngineKind::Auto | EngineKind::Native | EngineKind::Wgpu),
    };
    if !fits {
        return Err(wrong_engine(model, architecture, engine));
    }
    let (built, feature) = match engine {
        EngineKind::Onnx => (cfg!(feature = "onnx"), "onnx"),
        EngineKind::Libtorch => (cfg!(feature = "libtorch"), "libtorch"),
        _ => (true, ""),
    };
    if built {
        Ok(())
    } else {
        let model = model.to_owned();
        Err(EngineError::NotBuilt { model, feature })
    }
}

pub(crate) fn wrong_engine(model: &str, architecture: &Architecture, engine: EngineKind) -> EngineError {
    let (kind, runs) = match architecture {
        Architecture::Onnx(_) => ("an ONNX file", "the engine onnx runs it"),
        Architecture::Torchscript => ("a TorchScript module", "the engine libtorch runs it"),
        _ => (
            "a network of Wellspring's own layers",
            "the engines native and wgpu run it",
        ),
    };
    EngineError::WrongEngine {
        model: model.to_owned(),
        kind,
        runs,
        engine,
    }
}

/// What libtorch runs a module on.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
#[non_exhaustive]
pub enum TorchDevice {
    /// The processor.
    #[default]
    Cpu,
    /// The NVIDIA GPU of this number, counted from 0.
    Cuda(usize),
}

impl std::fmt::Display for TorchDevice {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::Cpu => f.write_str("cpu"),
            Self::Cuda(index) => write!(f, "cuda:{index}"),
        }
    }
}

impl std::str::FromStr for TorchDevice {
    type Err = ();

    /// `cpu`, `cuda` (the first GPU) or `cuda:N`.
    fn from_str(word: &str) -> Result<Self, Self::Err> {
        match word {
            "cpu" => Ok(Self::Cpu),
            "cuda" => Ok(Self::Cuda(0)),
            _ => {
                let index = word.strip_prefix("cuda:").and_then(|index| index.parse().ok());
                index.map(Self::Cuda).ok_or(())
            }
        }
    }
}

/// What ONNX Runtime runs a graph on: its execution providers.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
#[non_exhaustive]
pub enum OnnxProvider {
    /// The processor.
    #[default]
    Cpu,
    /// NVIDIA GPUs.
    Cuda,
    /// NVIDIA GPUs, by TensorRT.
    TensorRt,
    /// Direct3D 12 GPUs.
    DirectMl,
    /// Apple's accelerators.
    CoreMl,
    /// Intel's processors and GPUs.
    OpenVino,
}

impl OnnxProvider {
    /// All of them.
    pub const ALL: [Self; 6] = [
        Self::Cpu,
        Self::Cuda,
        Self::TensorRt,
        Self::DirectMl,
        Self::CoreMl,
        Self::OpenVino,
    ];

    /// The name on the command line and in logs.
    pub fn name(self) -> &'static str {
        match self {
            Self::Cpu => "cpu",
            Self::Cuda => "cuda",
            Self::TensorRt => "tensorrt",
            Self::DirectMl => "directml",
            Self::CoreMl => "coreml",
            Self::OpenVino => "openvino",
        }
    }
}
