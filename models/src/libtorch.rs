//! The libtorch engine: TorchScript modules with their cards, on the processor or on an NVIDIA GPU.
//!
//! Enters: batches of grey images. Leaves: embeddings, as the module gives them. The module takes f32
//! `[items, channels, height, width]` and gives `[items, values]`; the engine replicates channels, and scales and
//! normalises where the card says so (a module that does this itself has scale 1, mean 0 and std 1 on its card, and is
//! given grey levels 0..255). Fails with [`EngineError`]. A device that is absent is an error, never the processor.

use std::sync::Once;

use tch::{CModule, Cuda, Device, Kind, TchError, Tensor};

use crate::architecture::Architecture;
use crate::batch::{Batch, Embeddings};
use crate::canary;
use crate::card::{ChannelPolicy, ModelCard, Normalisation};
use crate::choice::TorchDevice;
use crate::engine::{Engine, check_batch, embeddings};
use crate::error::EngineError;
use crate::prepare::{BuildError, Preparation, check_input};

/// Most images per batch.
const MAX_ITEMS: usize = 256;

/// Runs before the first batch.
const WARM_UP: usize = 2;

/// The libtorch engine.
pub(crate) struct LibtorchEngine {
    card: ModelCard,
    asked: TorchDevice,
    name: String,
    device: Device,
    kind: Kind,
    threads: i32,
    module: CModule,
    /// What is done to grey levels before the module; `None` where it takes them as they are.
    preparation: Option<Preparation>,
    input: Vec<f32>,
}

/// What libtorch was doing when it failed.
struct Failed(&'static str, String);

/// Puts a name to a failure.
fn at(action: &'static str) -> impl Fn(TchError) -> Failed {
    move |error| {
        let text = error.to_string();
        // What follows are addresses in libtorch.
        let said = text.split("\nException raised from").next().unwrap_or_default();
        Failed(action, said.trim().to_owned())
    }
}

/// glibc gives large blocks back to the system and asks for them again with every layer, which doubles libtorch's time.
fn keep_memory() {
    #[cfg(all(target_os = "linux", target_env = "gnu"))]
    {
        static KEPT: Once = Once::new();
        KEPT.call_once(|| {
            // SAFETY: mallopt may be called at any time; a value it refuses changes nothing.
            unsafe {
                libc::mallopt(libc::M_MMAP_THRESHOLD, 1 << 30);
                libc::mallopt(libc::M_TRIM_THRESHOLD, libc::c_int::MAX);
                libc::mallopt(libc::M_TOP_PAD, 64 << 20);
            }
        });
    }
}

/// The device, if this machine has it.
fn find_device(asked: TorchDevice) -> Result<Device, Failed> {
    let TorchDevice::Cuda(index) = asked else {
        return Ok(Device::Cpu);
    };
    load_cuda()?;
    let count = usize::try_from(Cuda::device_count()).unwrap_or_default();
    if index >= count {
        let reason = format!("there are {count} CUDA devices, counted from 0; is NVIDIA's driver installed?");
        return Err(Failed("find", reason));
    }
    Ok(Device::Cuda(index))
}

/// The linker leaves out a library that nothing calls by name, and libtorch's part for CUDA is one.
fn load_cuda() -> Result<(), Failed> {
    #[cfg(target_os = "linux")]
    {
        // SAFETY: the name ends with a zero byte, and libtorch's library may be loaded at any time. It stays loaded.
        let handle =
            unsafe { libc::dlopen(c"libtorch_cuda.so".as_ptr(), libc::RTLD_NOW | libc::RTLD_GLOBAL) };
        if handle.is_null() {
            // SAFETY: dlerror gives a text that ends with a zero byte, or null.
            let said = unsafe {
                let text = libc::dlerror();
                (!text.is_null()).then(|| std::ffi::CStr::from_ptr(text).to_string_lossy().into_owned())
            };
            let reason = format!(
                "{}; `scripts/libtorch --cuda` fetches what CUDA needs",
                said.unwrap_or_else(|| "libtorch_cuda.so cannot be loaded".to_owned())
            );
            return Err(Failed("load CUDA for", reason));
        }
    }
    Ok(())
}

/// Whether the card leaves grey levels as they are.
fn is_plain(card: &ModelCard) -> bool {
    match &card.input.normalisation {
        Normalisation::Fixed { mean, std } => {
            card.input.scale == 1.0 && mean.iter().all(|&v| v == 0.0) && std.iter().all(|&v| v == 1.0)
        }
        Normalisation::Image { .. } => false,
    }
}

impl LibtorchEngine {
    /// Opens the module of `card` with `threads` threads.
    pub(crate) fn new(
        card: &ModelCard,
        path: &std::path::Path,
        bytes: &[u8],
        asked: TorchDevice,
        half: bool,
        threads: usize,
    ) -> Result<Self, EngineError> {
        let refuse = |field, found: String, needs: &'static str| {
            let needs = needs.into();
            BuildError::Card { field, found, needs }.of(card, path)
        };
        check_input(card).map_err(|error| error.of(card, path))?;
        if card.architecture != Architecture::Torchscript {
            return Err(refuse(
                "architecture",
                "another".to_owned(),
                "this engine runs TorchScript modules",
            ));
        }
        match card.channel_policy {
            ChannelPolicy::FirstConvolution { channels } if channels != card.input.channels => {
                return Err(refuse(
                    "channel_policy",
                    channels.to_string(),
                    "a module's first convolution cannot be adapted: export it with input.channels channels",
                ));
            }
            _ => {}
        }
        let failed = |Failed(action, reason)| EngineError::Libtorch {
            model: card.name.clone(),
            device: asked.to_string(),
            action,
            reason,
        };
        if half && asked == TorchDevice::Cpu {
            let reason = "16 bits are for GPUs; leave --torch-half out".to_owned();
            return Err(failed(Failed("convert", reason)));
        }
        keep_memory();
        let device = find_device(asked).map_err(failed)?;
        let kind = if half { Kind::Half } else { Kind::Float };
        let module = load(bytes, device, kind).map_err(failed)?;
        let input = &card.input;
        let preparation = || Preparation::new(input.scale, &input.normalisation, input.channels);
        let mut engine = Self {
            card: card.clone(),
            asked,
            name: format!("{asked}, libtorch{}", if half { ", f16" } else { "" }),
            device,
            kind,
            threads: i32::try_from(threads).unwrap_or(i32::MAX).max(1),
            module,
            preparation: (!is_plain(card)).then(preparation),
            input: Vec::new(),
        };
        // libtorch watches the first run and optimises in the second: neither is to be in the middle of the stream.
        let batch = canary::batch(card)?;
        for _ in 0..WARM_UP {
            let _embedding = engine.run(&batch).map_err(failed)?;
        }
        Ok(engine)
    }

    /// The images as the module takes them, on its device. What is the same for all channels of an image crosses the
    /// bus once.
    fn images(&mut self, batch: &Batch) -> Result<Tensor, TchError> {
        let [items, given, height, width] =
            [batch.items(), batch.channels(), batch.height(), batch.width()].map(|n| n as i64);
        let replicated = self.card.channel_policy == ChannelPolicy::ReplicateAndConcatenate;
        let channels = if replicated {
            self.card.input.channels as i64
        } else {
            given
        };
        let tensor = match &self.preparation {
            None => Tensor::f_from_slice(batch.data())?.f_view([items, given, height, width])?,
            Some(preparation) => {
                self.input.clear();
                preparation.fill(batch, 0..batch.items(), channels as usize, &mut self.input);
                Tensor::f_from_slice(&self.input)?.f_view([items, channels, height, width])?
            }
        };
        tensor
            .f_to_device(self.device)?
            .f_to_kind(self.kind)?
            .f_expand([items, channels, height, width], false)?
            // A layer that met the same plane three times would write its result in another order of dimensions.
            .f_contiguous()
    }

    /// The module's output for a batch, on the processor.
    fn run(&mut self, batch: &Batch) -> Result<Tensor, Failed> {
        // Both hold for the thread that asks, and an engine may have come from another.
        let _guard = tch::no_grad_guard();
        if tch::get_num_threads() != self.threads {
            tch::set_num_threads(self.threads);
        }
        let images = self.images(batch).map_err(at("take the images of"))?;
        let output = self.module.forward_ts(&[images]).map_err(at("run"))?;
        output
            .f_to_kind(Kind::Float)
            .and_then(|output| output.f_to_device(Device::Cpu))
            .and_then(|output| output.f_contiguous())
            .map_err(at("run"))
    }
}

/// The module on its device, in evaluation mode.
fn load(mut bytes: &[u8], device: Device, kind: Kind) -> Result<CModule, Failed> {
    let mut module = CModule::load_data_on_device(&mut bytes, device).map_err(at("open"))?;
    module.f_set_eval().map_err(at("open"))?;
    if kind != Kind::Float {
        // The bindings have no form of this that returns its error.
        let moved = std::panic::AssertUnwindSafe(|| module.to(device, kind, false));
        std::panic::catch_unwind(moved)
            .map_err(|_| Failed("convert", "the module does not take 16-bit floats".to_owned()))?;
    }
    Ok(module)
}

impl Engine for LibtorchEngine {
    fn card(&self) -> &ModelCard {
        &self.card
    }

    fn device(&self) -> &str {
        &self.name
    }

    fn max_items(&self) -> usize {
        MAX_ITEMS
    }

    fn half_precision(&self) -> bool {
        self.kind == Kind::Half
    }

    fn embed(&mut self, batch: &Batch) -> Result<Embeddings, EngineError> {
        check_batch(&self.card, MAX_ITEMS, batch.into())?;
        let (items, width) = (batch.items(), self.card.item_width(batch.channels()));
        let mut data = vec![0.0; items * width];
        // A module need not know what to do with nothing.
        if items > 0 {
            let failed = |Failed(action, reason), engine: &Self| EngineError::Libtorch {
                model: engine.card.name.clone(),
                device: engine.asked.to_string(),
                action,
                reason,
            };
            let output = self.run(batch).map_err(|error| failed(error, self))?;
            let found = output.size();
            if found != [items as i64, width as i64] {
                return Err(EngineError::WrongOutput {
                    model: self.card.name.clone(),
                    found,
                    expected: [items, width],
                });
            }
            output
                .f_copy_data(&mut data, items * width)
                .map_err(|error| failed(at("run")(error), self))?;
        }
        embeddings(&self.card, items, width, data)
    }
}
