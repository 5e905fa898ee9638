//! What several commands share: reaching Kafka, reading a screen file, opening device and engine.

use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use anyhow::{Context, bail};
use wellspring::clock::{now_ms, parse_moment};
use wellspring::embed::EngineSettings;
use wellspring::kafka::topics::{MAX_RETRIES, Urgency};
use wellspring::kafka::{Delivery, KafkaSettings};
use wellspring::memory::most_bytes;
use wellspring::model_cards;
use wellspring::pipelines::PipelineFiles;
use wellspring::plan;
use wellspring::runs::Run;
use wellspring::schemas::registry::{Credentials, RegistrySettings};
use wellspring::schemas::{Format, Schemas};
use wellspring::store::{ImageCache, USUAL_CACHE_BYTES};
use wellspring::topology::{Role, WorkerSettings};
use wellspring::transforms::read_transform;
use wellspring_kernels::{Device, DeviceChoice, DeviceOptions, PipelineStore};
use wellspring_models::{Architecture, EngineChoice, ModelCard, OnnxProvider, TorchDevice};
use wellspring_workloads::screen::{self, ResourceSettings, Screen};
use wellspring_workloads::words::Barcode;

/// A lane, as it is named on the command line.
#[derive(Debug, Clone, Copy, PartialEq, Eq, clap::ValueEnum)]
pub(crate) enum LaneName {
    /// Plates as they come from the microscope
    Live,
    /// What is worked on when no live plate waits, and a little beside it
    Batch,
}

impl LaneName {
    pub(crate) fn urgency(self) -> Urgency {
        match self {
            Self::Live => Urgency::Live,
            Self::Batch => Urgency::Batch,
        }
    }
}

/// Which lane plates go by.
#[derive(Debug, Clone, clap::Args)]
pub(crate) struct LaneArg {
    /// How urgent the plates are
    #[arg(long, value_name = "LANE", value_enum, default_value_t = LaneName::Live)]
    lane: LaneName,
}

impl LaneArg {
    pub(crate) fn urgency(&self) -> Urgency {
        self.lane.urgency()
    }
}

/// How to reach Kafka.
#[derive(Debug, Clone, clap::Args)]
pub(crate) struct KafkaArgs {
    /// Kafka's bootstrap servers, host:port[,host:port].
    #[arg(long = "kafka", value_name = "BOOTSTRAP", env = "WELLSPRING_KAFKA")]
    bootstrap: String,
    #[command(flatten)]
    client: ClientArgs,
}

/// What is said to Kafka, wherever it is.
#[derive(Debug, Clone, clap::Args)]
pub(crate) struct ClientArgs {
    #[command(flatten)]
    names: NameArgs,
    #[command(flatten)]
    schemas: SchemaArgs,
}

/// Names on Kafka.
#[derive(Debug, Clone, clap::Args)]
pub(crate) struct NameArgs {
    /// Prefix of topics and groups.
    #[arg(long, default_value = "wellspring", env = "WELLSPRING_PREFIX")]
    pub(crate) prefix: String,
    /// Name of this process; a process started again under its old name takes over what that left open.
    /// Default: host name and process id.
    #[arg(long, env = "WELLSPRING_INSTANCE")]
    pub(crate) instance: Option<String>,
    #[command(flatten)]
    pub(crate) delivery: DeliveryArgs,
}

/// What a crash may do to records.
#[derive(Debug, Clone, clap::Args)]
pub(crate) struct DeliveryArgs {
    /// exactly-once, or at-least-once for brokers without transactions: after a crash a record may then be seen
    /// again, under the same id. The same for every process of an installation.
    #[arg(
        long,
        value_name = "HOW",
        default_value = "exactly-once",
        env = "WELLSPRING_DELIVERY",
        value_parser = parse_delivery
    )]
    pub(crate) delivery: Delivery,
}

fn parse_delivery(word: &str) -> Result<Delivery, String> {
    match word {
        "exactly-once" => Ok(Delivery::ExactlyOnce),
        "at-least-once" => Ok(Delivery::AtLeastOnce),
        _ => Err("it must be exactly-once or at-least-once".to_owned()),
    }
}

/// When failed work is tried again.
#[derive(Debug, Clone, clap::Args)]
pub(crate) struct RetryArgs {
    /// Seconds to wait before what failed for a reason that may pass (network, throttling, memory) is tried again:
    /// one number for each further attempt, at most 8; `none` for no further attempt.
    #[arg(long, value_name = "SECONDS,...", env = "WELLSPRING_RETRY_DELAYS", value_parser = parse_delays)]
    pub(crate) retry_delays: Option<Delays>,
}

/// Waiting times, in order.
#[derive(Debug, Clone)]
pub(crate) struct Delays(pub(crate) Vec<Duration>);

impl RetryArgs {
    /// The delays asked for, else `usual` seconds.
    pub(crate) fn delays(&self, usual: &[u64]) -> Vec<Duration> {
        match &self.retry_delays {
            Some(Delays(delays)) => delays.clone(),
            None => usual.iter().copied().map(Duration::from_secs).collect(),
        }
    }
}

/// Of processes that serve an installation: half an hour in all, so that a store may be away for a while.
pub(crate) const SERVICE_DELAYS: [u64; 4] = [10, 60, 300, 1_800];
/// Of a run that somebody waits for.
pub(crate) const RUN_DELAYS: [u64; 2] = [10, 60];

fn parse_delays(text: &str) -> Result<Delays, String> {
    if text == "none" {
        return Ok(Delays(Vec::new()));
    }
    let delays = text
        .split(',')
        .map(|seconds| match seconds.trim().parse::<f64>() {
            Ok(seconds) if (0.0..=86_400.0).contains(&seconds) => Ok(Duration::from_secs_f64(seconds)),
            _ => Err(format!("'{seconds}' is not a number of seconds from 0 to 86400")),
        })
        .collect::<Result<Vec<_>, _>>()?;
    if delays.len() > usize::from(MAX_RETRIES) {
        return Err(format!(
            "{} delays; at most {MAX_RETRIES} are possible",
            delays.len()
        ));
    }
    Ok(Delays(delays))
}

impl KafkaArgs {
    pub(crate) fn settings(&self) -> anyhow::Result<KafkaSettings> {
        self.client.settings(&self.bootstrap)
    }
}

impl ClientArgs {
    /// Of the Kafka at `bootstrap`.
    pub(crate) fn settings(&self, bootstrap: &str) -> anyhow::Result<KafkaSettings> {
        let instance = self.names.instance.clone().unwrap_or_else(default_instance);
        Ok(KafkaSettings {
            delivery: self.names.delivery.delivery,
            schemas: self.schemas.open()?,
            ..KafkaSettings::new(bootstrap, &self.names.prefix, instance)
        })
    }
}

/// How records are written.
#[derive(Debug, Clone, clap::Args)]
pub(crate) struct SchemaArgs {
    /// A schema registry that speaks Confluent's protocol: records carry its ids. Its account comes from
    /// WELLSPRING_SCHEMA_REGISTRY_USER and _PASSWORD, or _TOKEN.
    #[arg(long, value_name = "URL", env = "WELLSPRING_SCHEMA_REGISTRY")]
    schema_registry: Option<String>,
    /// Never register a schema there.
    #[arg(long, env = "WELLSPRING_SCHEMA_REGISTRY_LOOK_UP_ONLY")]
    schema_registry_look_up_only: bool,
    /// What records are written as: avro or json. Both are always read.
    #[arg(long, default_value = "avro", env = "WELLSPRING_FORMAT", value_parser = parse_format)]
    format: Format,
}

fn parse_format(word: &str) -> Result<Format, String> {
    match word {
        "avro" => Ok(Format::Avro),
        "json" => Ok(Format::Json),
        _ => Err("formats are avro and json".to_owned()),
    }
}

impl SchemaArgs {
    pub(crate) fn open(&self) -> anyhow::Result<Schemas> {
        let Some(url) = self.schema_registry.clone().filter(|url| !url.is_empty()) else {
            return Ok(Schemas::new(self.format, None)?);
        };
        if self.format == Format::Json {
            bail!("a schema registry is for Avro; leave out --format json, or --schema-registry");
        }
        let variable = |name: &str| {
            let value = std::env::var(format!("WELLSPRING_SCHEMA_REGISTRY_{name}")).ok();
            value.filter(|value| !value.is_empty())
        };
        let credentials = match (variable("TOKEN"), variable("USER"), variable("PASSWORD")) {
            (Some(token), None, None) => Credentials::Bearer { token },
            (None, Some(user), password) => Credentials::Basic {
                user,
                password: password.unwrap_or_default(),
            },
            (None, None, None) => Credentials::None,
            _ => bail!(
                "set WELLSPRING_SCHEMA_REGISTRY_USER and WELLSPRING_SCHEMA_REGISTRY_PASSWORD, or \
                 WELLSPRING_SCHEMA_REGISTRY_TOKEN, not both, and no password without a user"
            ),
        };
        let settings = RegistrySettings {
            url,
            credentials,
            look_up_only: self.schema_registry_look_up_only,
        };
        Ok(Schemas::new(self.format, Some(settings))?)
    }
}

fn default_instance() -> String {
    let host = std::fs::read_to_string("/etc/hostname").unwrap_or_default();
    format!("{}-{}", host.trim(), std::process::id())
}

/// Where kernels and networks run.
#[derive(Debug, Clone, clap::Args)]
pub(crate) struct ComputeArgs {
    /// Device of the kernels: auto, cpu, gpu, a kind of adapter (discrete, integrated, virtual, software), #N, or part
    /// of an adapter's name (`wellspring devices`).
    /// Default: the screen's.
    #[arg(long)]
    pub(crate) device: Option<String>,
    /// Engine of all networks, those of [[steps]] too: auto, native, wgpu, onnx or libtorch. Default: the screen's, for each.
    #[arg(long, value_parser = parse_engine)]
    pub(crate) engine: Option<screen::EngineChoice>,
    /// Folder of the networks' weights. Default: the user's cache folder.
    #[arg(long, value_name = "DIR", env = "WELLSPRING_MODELS")]
    pub(crate) models: Option<PathBuf>,
    /// MiB of image files kept in memory for who reads the same file next: files with several images, and images by which a
    /// plate is planned. 0 keeps none.
    #[arg(long, value_name = "MIB", env = "WELLSPRING_IMAGE_CACHE_MIB", default_value_t = USUAL_CACHE_BYTES >> 20,
          value_parser = clap::value_parser!(u64).range(0..=1 << 30))]
    image_cache_mib: u64,
    /// MiB of images in memory at once, over all stages. Default: the screen's (`run`), else 64 for each core, but no more than
    /// an eighth of the memory that there is.
    #[arg(long, value_name = "MIB", env = "WELLSPRING_IN_FLIGHT_MIB", value_parser = clap::value_parser!(u64).range(1..=1 << 20))]
    in_flight_mib: Option<u64>,
    #[command(flatten)]
    pub(crate) runtime: RuntimeArgs,
}

/// What engines are and run on, where there is a choice.
#[derive(Debug, Clone, clap::Args)]
pub(crate) struct RuntimeArgs {
    /// Library of ONNX Runtime. Default: where `scripts/onnxruntime` puts it.
    #[arg(long, value_name = "FILE", env = "WELLSPRING_ONNXRUNTIME")]
    onnx_library: Option<PathBuf>,
    /// What ONNX Runtime runs on: cpu, cuda, tensorrt, directml, coreml or openvino.
    #[arg(long, value_name = "PROVIDER", default_value = "cpu", value_parser = parse_provider)]
    onnx_provider: OnnxProvider,
    /// What libtorch runs on: cpu, cuda or cuda:N.
    #[arg(long, value_name = "DEVICE", default_value = "cpu", value_parser = parse_torch_device)]
    torch_device: TorchDevice,
    /// Compute in 16-bit floats in libtorch, on a GPU.
    #[arg(long)]
    torch_half: bool,
    /// Multiply matrices in 16-bit floats in the wgpu engine, on an adapter that has them in shaders. Embeddings are then off by
    /// about 0.5 %.
    #[arg(long)]
    wgpu_half: bool,
}

impl RuntimeArgs {
    /// ONNX Runtime as asked for; its library, where none was named, is the one in the cache beside the models.
    pub(crate) fn onnx(&self) -> anyhow::Result<EngineChoice> {
        let library = match &self.onnx_library {
            Some(library) => library.clone(),
            None => wellspring::model_store::cache_folder()?.join("onnxruntime/libonnxruntime.so"),
        };
        Ok(EngineChoice::OnnxRuntime {
            library,
            provider: self.onnx_provider,
        })
    }

    /// libtorch as asked for.
    pub(crate) fn libtorch(&self) -> EngineChoice {
        EngineChoice::Libtorch {
            device: self.torch_device,
            half: self.torch_half,
        }
    }

    /// The engine called `word`, with `device` as its adapter.
    pub(crate) fn engine(&self, word: screen::EngineChoice, device: &str) -> anyhow::Result<EngineChoice> {
        Ok(match word {
            screen::EngineChoice::Auto => EngineChoice::Auto,
            screen::EngineChoice::Native => EngineChoice::Native,
            screen::EngineChoice::Wgpu => EngineChoice::Wgpu {
                adapter: adapter_of(device),
                half: self.wgpu_half,
            },
            screen::EngineChoice::Onnx => self.onnx()?,
            screen::EngineChoice::Libtorch => self.libtorch(),
        })
    }

    /// The engine that runs a model, or the model that it stands on.
    pub(crate) fn engine_for(&self, folder: &Path, card: &ModelCard) -> anyhow::Result<EngineChoice> {
        let base = model_cards::base_of(folder, card)?;
        self.engine_of(&base.as_deref().unwrap_or(card).architecture)
    }

    /// The engine that runs a model of `architecture`.
    pub(crate) fn engine_of(&self, architecture: &Architecture) -> anyhow::Result<EngineChoice> {
        match architecture {
            Architecture::Onnx(_) => self.onnx(),
            Architecture::Torchscript => Ok(self.libtorch()),
            _ => Ok(EngineChoice::Auto),
        }
    }
}

fn parse_provider(word: &str) -> Result<OnnxProvider, String> {
    OnnxProvider::ALL
        .into_iter()
        .find(|provider| provider.name() == word)
        .ok_or_else(|| {
            format!(
                "providers are {}",
                OnnxProvider::ALL.map(OnnxProvider::name).join(", ")
            )
        })
}

fn parse_torch_device(word: &str) -> Result<TorchDevice, String> {
    word.parse()
        .map_err(|()| "devices of libtorch are cpu, cuda and cuda:N".to_owned())
}

/// The adapter of the wgpu engine: that of the kernels, or, where these run on the processor or where they like, the best.
pub(crate) fn adapter_of(device: &str) -> String {
    match device {
        "auto" | "cpu" => "gpu".to_owned(),
        word => word.to_owned(),
    }
}

pub(crate) fn parse_engine(word: &str) -> Result<screen::EngineChoice, String> {
    screen::EngineChoice::from_word(word)
        .ok_or_else(|| format!("engines are {}", screen::EngineChoice::WORDS.join(", ")))
}

impl ComputeArgs {
    pub(crate) fn models_folder(&self) -> anyhow::Result<PathBuf> {
        if let Some(folder) = &self.models {
            wellspring::model_store::choose_models_folder(folder);
        }
        Ok(wellspring::model_store::models_folder()?)
    }

    pub(crate) fn open_device(&self, resources: &ResourceSettings) -> anyhow::Result<Arc<Device>> {
        let word = self.device.as_deref().unwrap_or_else(|| resources.device.word());
        let folder = wellspring::model_store::cache_folder();
        let options = DeviceOptions {
            // Without a cache folder they are compiled anew in every process.
            pipelines: folder.ok().map(|folder| {
                Arc::new(PipelineFiles::new(folder.join("pipelines"))) as Arc<dyn PipelineStore>
            }),
            ..Default::default()
        };
        let device = Device::open_with(word.parse::<DeviceChoice>()?, &options)?;
        tracing::info!("kernels run on {}", device.describe());
        Ok(Arc::new(device))
    }

    pub(crate) fn worker_settings(
        &self,
        resources: &ResourceSettings,
        until_drained: bool,
    ) -> anyhow::Result<WorkerSettings> {
        ImageCache::of_process().set_limit(self.image_cache_mib << 20);
        let cores = std::thread::available_parallelism().map_or(1, usize::from);
        let threads = |asked: Option<u32>, default: usize| asked.map_or(default, |n| n as usize).max(1);
        let decode_threads = threads(resources.decode_threads, cores.div_ceil(4));
        let asked = self
            .in_flight_mib
            .map(|mib| mib << 20)
            .or(resources.in_flight_bytes);
        Ok(WorkerSettings {
            decode_threads,
            preprocess_threads: decode_threads,
            engine: EngineSettings {
                models_folder: self.models_folder()?,
                choice: self.engine,
                adapter: adapter_of(self.device.as_deref().unwrap_or_else(|| resources.device.word())),
                wgpu_half: self.runtime.wgpu_half,
                onnx: self.runtime.onnx()?,
                libtorch: self.runtime.libtorch(),
                threads: threads(resources.engine_threads, cores),
                batch_items: resources.batch_size.max(1) as usize,
                must_open: false,
            },
            // Enough to keep every stage busy; what it holds in bytes is bounded besides.
            in_flight_fields: 64,
            lanes: Urgency::ALL.to_vec(),
            in_flight_bytes: asked.unwrap_or_else(|| in_flight_bytes(cores, most_bytes())),
            until_drained,
            // Of a screen that its own user runs; services for others ask to be told (`--allow-commands`).
            commands: true,
            callbacks: None,
        })
    }
}

/// Bytes of images in memory, as suits a machine: a field or two of five large images for each core.
fn in_flight_bytes(cores: usize, memory: Option<u64>) -> u64 {
    const OF_CORE: u64 = 64 << 20;
    const LEAST: u64 = 128 << 20;
    let of_cores = OF_CORE.saturating_mul(cores as u64);
    of_cores.min(memory.unwrap_or(u64::MAX) / 8).max(LEAST)
}

/// Refuses a run whose stored alignment cannot be read or is of other features. It is read again where plates are compared: here
/// only so that a wrong file is an error now and not after the last field.
pub(crate) fn check_transform(run: &Run) -> anyhow::Result<()> {
    if let Some(transform) = read_transform(&run.screen.comparison.transform)? {
        transform.check_features(run.feature_names())?;
    }
    Ok(())
}

/// Reads and checks a screen file; its relative paths become absolute.
pub(crate) fn read_screen(path: &Path) -> anyhow::Result<Screen> {
    let shown = path.display().to_string();
    let mut screen = parse_screen(&screen_text(path)?, &shown)??;
    let absolute = std::path::absolute(path).with_context(|| format!("'{shown}' has no absolute path"))?;
    let folder = absolute.parent().unwrap_or(Path::new("/"));
    screen.resolve_paths(&folder.to_string_lossy());
    Ok(screen)
}

/// The text of a screen file. No more of a file is read than a screen may have: the rest of a larger one is told by its
/// first part.
pub(crate) fn screen_text(path: &Path) -> anyhow::Result<String> {
    use std::io::Read as _;
    let shown = path.display().to_string();
    let cannot = || format!("screen file '{shown}' cannot be read");
    let file = std::fs::File::open(path).with_context(cannot)?;
    let limit = screen::MAX_SCREEN_BYTES as u64;
    let bytes = file.metadata().with_context(cannot)?.len();
    let mut text = String::new();
    file.take(limit + 1)
        .read_to_string(&mut text)
        .with_context(cannot)?;
    if text.len() as u64 > limit {
        let bytes = bytes.max(text.len() as u64);
        bail!(
            "screen file '{shown}' holds {bytes} bytes: a screen file holds at most {limit}; is it the right file?"
        );
    }
    Ok(text)
}

/// A screen file's text checked, the name of its model too.
pub(crate) fn parse_screen(text: &str, shown: &str) -> anyhow::Result<Result<Screen, screen::ScreenErrors>> {
    let known = model_cards::all(&wellspring::model_store::models_folder()?)?;
    Ok(Screen::parse_with_models(text, shown, &known.names()))
}

/// The async runtime of a command.
pub(crate) fn runtime() -> anyhow::Result<tokio::runtime::Runtime> {
    tokio::runtime::Builder::new_multi_thread()
        .worker_threads(2)
        .enable_all()
        .build()
        .context("the async runtime cannot be started")
}

/// The screen's plates: those it names, else all that are found.
pub(crate) async fn plates_of(run: &Run) -> anyhow::Result<Vec<Barcode>> {
    if !run.screen.images.plates.is_empty() {
        return Ok(run.screen.images.plates.clone());
    }
    if let Some(plates) = plan::plates_by_name(&run.store, &run.screen).await?
        && !plates.is_empty()
    {
        return Ok(plates);
    }
    let found = plan::list_screen(&run.store, &run.screen).await?;
    if found.plates.is_empty() {
        bail!(
            "no plate was found in '{}' (layout {}: {}); check images.store, images.layout and images.pattern, or, where the \
             plates are still to come, announce each when it does (`wellspring plates announce PLATE --screen SCREEN.toml`)",
            run.store.uri(),
            found.layout,
            found.why
        );
    }
    Ok(found.plates.into_keys().collect())
}

/// A task that ends when the process is asked to: SIGTERM or ctrl-c.
pub(crate) fn end_requested(
    runtime: &tokio::runtime::Runtime,
) -> anyhow::Result<tokio::task::JoinHandle<()>> {
    let _inside = runtime.enter();
    let mut terminate = tokio::signal::unix::signal(tokio::signal::unix::SignalKind::terminate())
        .context("SIGTERM cannot be listened for")?;
    let mut interrupt = tokio::signal::unix::signal(tokio::signal::unix::SignalKind::interrupt())
        .context("ctrl-c cannot be listened for")?;
    Ok(runtime.spawn(async move {
        tokio::select! {
            _ = terminate.recv() => {}
            _ = interrupt.recv() => {}
        }
    }))
}

/// Waits until the process is asked to `end` ([`end_requested`]), or a role ends by itself.
pub(crate) fn wait_for_end(end: &tokio::task::JoinHandle<()>, roles: &[&Role]) {
    while !end.is_finished() && !roles.iter().any(|role| role.ended()) {
        std::thread::sleep(Duration::from_millis(100));
    }
}

/// A moment on the command line, in milliseconds since 1970.
pub(super) fn parse_time(text: &str) -> Result<u64, String> {
    parse_moment(text, now_ms()).ok_or_else(|| {
        format!("'{text}' is neither a time in UTC, such as 2026-11-22T23:15:04Z, nor a time ago, such as 2h or 3d")
    })
}

/// `PARTITION:OFFSET` on the command line.
pub(super) fn parse_offset(text: &str) -> Result<(i32, i64), String> {
    let parts = text.split_once(':');
    let numbers = parts.and_then(|(partition, offset)| Some((partition.parse().ok()?, offset.parse().ok()?)));
    numbers
        .filter(|(partition, offset)| *partition >= 0 && *offset >= 0)
        .ok_or_else(|| format!("'{text}' is not PARTITION:OFFSET, such as 3:1500"))
}
