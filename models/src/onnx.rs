//! The ONNX Runtime engine: any ONNX file with its card, on the execution provider the caller chose. The runtime is a
//! library that is loaded when the first such model opens.
//!
//! Enters: batches of grey images. Leaves: embeddings, as the graph gives them. The engine replicates and normalises as
//! the card says; the graph takes f32 `[items, channels, height, width]` and gives f32 `[items, values]`. Fails with
//! [`EngineError`]. A provider that is absent, or that does not take every node of the graph, is an error: the runtime's
//! own fallback to the CPU is switched off.

use std::path::{Path, PathBuf};
use std::sync::{Mutex, PoisonError};

use ort::environment::Environment;
use ort::ep::{self, ExecutionProviderDispatch};
use ort::session::Session;
use ort::session::builder::GraphOptimizationLevel;
use ort::value::TensorRef;

use crate::architecture::{Architecture, OnnxGraph};
use crate::batch::{Batch, Embeddings};
use crate::card::{ChannelPolicy, ModelCard};
use crate::choice::OnnxProvider;
use crate::engine::{Engine, check_batch, embeddings};
use crate::error::EngineError;
use crate::prepare::{BuildError, Preparation, check_input};

/// Most images per batch.
const MAX_ITEMS: usize = 256;

/// The library this process loaded, and its environment.
static RUNTIME: Mutex<Option<(PathBuf, Environment)>> = Mutex::new(None);

/// The ONNX Runtime engine.
pub(crate) struct OnnxEngine {
    card: ModelCard,
    device: String,
    graph: OnnxGraph,
    provider: OnnxProvider,
    preparation: Preparation,
    session: Session,
    /// Items the graph takes at once, where it takes a fixed number.
    fixed_items: Option<usize>,
    input: Vec<f32>,
}

/// The environment of `library`, which is loaded if none was.
fn environment(library: &Path) -> Result<Environment, EngineError> {
    let failed = |reason: String| EngineError::Runtime {
        library: library.to_owned(),
        reason,
    };
    let mut loaded = RUNTIME.lock().unwrap_or_else(PoisonError::into_inner);
    match &*loaded {
        Some((path, environment)) if path == library => Ok(environment.clone()),
        Some((path, _)) => Err(failed(format!(
            "this process has loaded {} already",
            path.display()
        ))),
        None => {
            if !library.is_file() {
                return Err(failed("there is no such file".to_owned()));
            }
            let environment = ort::init_from(library)
                .map_err(|error| failed(error.to_string()))?
                .with_name("wellspring")
                .with_telemetry(false)
                .build()
                .map_err(|error| failed(error.to_string()))?;
            *loaded = Some((library.to_owned(), environment.clone()));
            Ok(environment)
        }
    }
}

/// The runtime's own name for a provider; `None` for the processor, which needs none.
fn dispatch(provider: OnnxProvider) -> Option<ExecutionProviderDispatch> {
    let chosen = match provider {
        OnnxProvider::Cpu => return None,
        OnnxProvider::Cuda => ep::CUDA::default().build(),
        OnnxProvider::TensorRt => ep::TensorRT::default().build(),
        OnnxProvider::DirectMl => ep::DirectML::default().build(),
        OnnxProvider::CoreMl => ep::CoreML::default().build(),
        OnnxProvider::OpenVino => ep::OpenVINO::default().build(),
    };
    Some(chosen.error_on_failure())
}

impl OnnxEngine {
    /// Opens the graph of `card` with `threads` threads.
    pub(crate) fn new(
        card: &ModelCard,
        path: &Path,
        bytes: &[u8],
        library: &Path,
        provider: OnnxProvider,
        threads: usize,
    ) -> Result<Self, EngineError> {
        let refuse = |field, found: String, needs: &'static str| {
            let needs = needs.into();
            BuildError::Card { field, found, needs }.of(card, path)
        };
        check_input(card).map_err(|error| error.of(card, path))?;
        let Architecture::Onnx(graph) = &card.architecture else {
            return Err(refuse(
                "architecture",
                "another".to_owned(),
                "this engine runs ONNX files",
            ));
        };
        match card.channel_policy {
            ChannelPolicy::FirstConvolution { channels } if channels != card.input.channels => {
                return Err(refuse(
                    "channel_policy",
                    channels.to_string(),
                    "a graph's first convolution cannot be adapted: export it with input.channels channels",
                ));
            }
            _ => {}
        }
        let environment = environment(library)?;
        let session =
            session(&environment, bytes, provider, threads).map_err(|reason| EngineError::Onnx {
                model: card.name.clone(),
                provider: provider.name(),
                action: "open",
                reason,
            })?;
        let outlet = session.inputs().iter().find(|input| input.name() == graph.input);
        let Some(shape) = outlet.and_then(|input| input.dtype().tensor_shape()) else {
            let names: Vec<&str> = session.inputs().iter().map(|input| input.name()).collect();
            return Err(refuse(
                "architecture.input",
                format!("{} (the graph has {})", graph.input, names.join(", ")),
                "it must name an input tensor of the graph",
            ));
        };
        if shape.len() != 4 {
            return Err(refuse(
                "architecture.input",
                format!("{} of shape {:?}", graph.input, &shape[..]),
                "it must have items, channels, rows and columns",
            ));
        }
        let fixed_items = usize::try_from(shape[0]).ok().filter(|&n| n > 0);
        if !session
            .outputs()
            .iter()
            .any(|output| output.name() == graph.output)
        {
            let names: Vec<&str> = session.outputs().iter().map(|output| output.name()).collect();
            return Err(refuse(
                "architecture.output",
                format!("{} (the graph has {})", graph.output, names.join(", ")),
                "it must name an output of the graph",
            ));
        }
        Ok(Self {
            card: card.clone(),
            device: format!("{}, onnxruntime", provider.name()),
            graph: graph.clone(),
            provider,
            preparation: Preparation::new(card.input.scale, &card.input.normalisation, card.input.channels),
            session,
            fixed_items,
            input: Vec::new(),
        })
    }

    /// Fills the graph's input with items `range` of the batch, and with zeros up to `items`. Returns the channels.
    fn fill(&mut self, batch: &Batch, range: std::ops::Range<usize>, items: usize) -> usize {
        let channels = match self.card.channel_policy {
            ChannelPolicy::ReplicateAndConcatenate => self.card.input.channels,
            _ => batch.channels(),
        };
        self.input.clear();
        self.preparation.fill(batch, range, channels, &mut self.input);
        self.input
            .resize(items * channels * batch.height() * batch.width(), 0.0);
        channels
    }
}

/// Opens a session; the runtime's words where it fails.
fn session(
    environment: &Environment,
    bytes: &[u8],
    provider: OnnxProvider,
    threads: usize,
) -> Result<Session, String> {
    let text = |error: ort::Error<_>| error.to_string();
    let mut builder = Session::builder(environment)
        .map_err(|error| error.to_string())?
        .with_optimization_level(GraphOptimizationLevel::All)
        .map_err(text)?
        .with_intra_threads(threads)
        .map_err(text)?
        .with_inter_threads(1)
        .map_err(text)?;
    if let Some(dispatch) = dispatch(provider) {
        builder = builder
            .with_execution_providers([dispatch])
            .map_err(text)?
            .with_disable_cpu_fallback()
            .map_err(text)?;
    }
    builder
        .commit_from_memory(bytes)
        .map_err(|error| error.to_string())
}

impl Engine for OnnxEngine {
    fn card(&self) -> &ModelCard {
        &self.card
    }

    fn device(&self) -> &str {
        &self.device
    }

    fn max_items(&self) -> usize {
        MAX_ITEMS
    }

    fn embed(&mut self, batch: &Batch) -> Result<Embeddings, EngineError> {
        check_batch(&self.card, MAX_ITEMS, batch.into())?;
        let width = self.card.item_width(batch.channels());
        let mut data = Vec::with_capacity(batch.items() * width);
        let at_once = self.fixed_items.unwrap_or(MAX_ITEMS);
        let mut start = 0;
        while start < batch.items() {
            let used = at_once.min(batch.items() - start);
            let items = self.fixed_items.unwrap_or(used);
            let channels = self.fill(batch, start..start + used, items);
            let shape = [items, channels, batch.height(), batch.width()];
            let (model, provider) = (self.card.name.clone(), self.provider.name());
            let failed = |error: ort::Error| EngineError::Onnx {
                model: model.clone(),
                provider,
                action: "run",
                reason: error.to_string(),
            };
            let tensor = TensorRef::from_array_view((shape, &self.input[..])).map_err(failed)?;
            let outputs = self
                .session
                .run(ort::inputs![self.graph.input.as_str() => tensor])
                .map_err(failed)?;
            let wrong = |found: Vec<i64>| EngineError::WrongOutput {
                model: model.clone(),
                found,
                expected: [items, width],
            };
            let output = outputs.get(&self.graph.output).ok_or_else(|| wrong(Vec::new()))?;
            let (found, values) = output.try_extract_tensor::<f32>().map_err(failed)?;
            if found[..] != [items as i64, width as i64] {
                return Err(wrong(found.to_vec()));
            }
            data.extend_from_slice(&values[..used * width]);
            start += used;
        }
        embeddings(&self.card, batch.items(), width, data)
    }
}
