//! Embed: the networks turn tiles into one embedding per field.
//!
//! [`Measured`] fields enter and [`Embedded`] ones leave, in the same order. The thread that runs this owns its
//! engines. Fields are put together into batches, one item per tile and channel; tiles are averaged and channels
//! concatenated, and so are networks. What fails: an embedding that is not finite (that field is a dead letter); a network that cannot
//! be opened, whose fields are tried again later; tiles that went with a graphics device (that field is tried again, the engine is
//! opened anew); an engine that fails otherwise stops the worker.

use std::collections::HashMap;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::{Duration, Instant};

use wellspring_kernels::{Device, DeviceTensor, Tensor};
use wellspring_models::{Batch, DeviceBatch, Embeddings, Engine, EngineChoice, EngineError, EngineKind};
use wellspring_workloads::screen;

use crate::error::{FailureClass, Stage, StageError, chain};
use crate::failpoint;
use crate::failures::settle_field;
use crate::fields::{Embedded, Measured};
use crate::gpu::{self, Tiles};
use crate::model_cards::{CardsError, open_model};
use crate::model_store::weights_path;
use crate::runs::{Network, Run};
use crate::track::Tracked;

/// How engines are opened.
#[derive(Debug, Clone)]
pub struct EngineSettings {
    /// Folder with the weights that `wellspring models pull` put there.
    pub models_folder: PathBuf,
    /// Which engine to open, whatever the screen says; `None`: the screen's choice.
    pub choice: Option<screen::EngineChoice>,
    /// The adapter of the wgpu engine where kernels run on the processor; see [`EngineChoice::Wgpu`].
    pub adapter: String,
    /// Whether the wgpu engine multiplies matrices in 16-bit floats.
    pub wgpu_half: bool,
    /// ONNX Runtime, for models that are ONNX files: where it is and what it runs them on.
    pub onnx: EngineChoice,
    /// libtorch, for models that are TorchScript modules: what it runs them on.
    pub libtorch: EngineChoice,
    /// Threads of an engine.
    pub threads: usize,
    /// Items in one batch, about: a field is never split to meet it.
    pub batch_items: usize,
    /// Whether a network that cannot be opened stops the process, which works for one run alone. Otherwise its fields wait to be
    /// tried again, here or where its weights are, and those of other runs go on.
    pub must_open: bool,
}

impl EngineSettings {
    /// Which engine runs a network.
    fn engine(&self, network: &Network) -> screen::EngineChoice {
        self.choice.unwrap_or(network.engine)
    }

    /// Whether a network runs on a graphics device through wgpu: on that of the kernels, where these run on one.
    pub fn is_wgpu(&self, network: &Network) -> bool {
        self.engine(network) == screen::EngineChoice::Wgpu
    }
}

/// Opens the engine of a network, on the device of the kernels if it is a graphics device and the engine is for such; refuses
/// weights that are not the card's.
pub fn open_engine(
    network: &Network,
    device: &Device,
    settings: &EngineSettings,
) -> Result<Box<dyn Engine>, CardsError> {
    let card = &*network.card;
    let half = settings.wgpu_half;
    let choice = match settings.engine(network) {
        screen::EngineChoice::Auto => EngineChoice::Auto,
        screen::EngineChoice::Native => EngineChoice::Native,
        screen::EngineChoice::Wgpu => match gpu::share(device)? {
            Some(gpu) => EngineChoice::Shared { gpu, half },
            None => EngineChoice::Wgpu {
                adapter: settings.adapter.clone(),
                half,
            },
        },
        screen::EngineChoice::Onnx => settings.onnx.clone(),
        screen::EngineChoice::Libtorch => settings.libtorch.clone(),
    };
    let folder = &settings.models_folder;
    let engine = open_model(
        folder,
        card,
        &weights_path(folder, card),
        choice,
        settings.threads,
    )?;
    tracing::info!(model = %card.name, device = engine.device(), "engine ready");
    Ok(engine)
}

/// The engine that a word in a screen file stands for.
pub fn engine_kind(word: screen::EngineChoice) -> EngineKind {
    match word {
        screen::EngineChoice::Auto => EngineKind::Auto,
        screen::EngineChoice::Native => EngineKind::Native,
        screen::EngineChoice::Wgpu => EngineKind::Wgpu,
        screen::EngineChoice::Onnx => EngineKind::Onnx,
        screen::EngineChoice::Libtorch => EngineKind::Libtorch,
    }
}

/// A network and what is to open it.
type Key = (String, screen::EngineChoice);

/// How long an engine that could not be opened is not tried again.
const BROKEN: Duration = Duration::from_secs(10);

/// The engines of a worker.
struct Engines<'a> {
    device: &'a Device,
    settings: &'a EngineSettings,
    open: HashMap<Key, Box<dyn Engine>>,
    /// Those that could not be opened: when, and why.
    broken: HashMap<Key, (Instant, Arc<str>)>,
}

impl Engines<'_> {
    /// Opens those of a run that are not open; an error is remembered for a while, since to find it again may cost the reading
    /// of a large file.
    fn open(&mut self, run: &Run) -> Result<(), Arc<str>> {
        for network in &run.networks {
            let key = key(network);
            if self.open.contains_key(&key) {
                continue;
            }
            if let Some((since, error)) = self.broken.get(&key)
                && since.elapsed() < BROKEN
            {
                return Err(error.clone());
            }
            match open_engine(network, self.device, self.settings) {
                Ok(engine) => drop(self.open.insert(key, engine)),
                Err(error) => {
                    let error: Arc<str> = chain(&error).into();
                    tracing::error!(
                        model = network.card.name,
                        message = &*error,
                        "a network cannot be opened"
                    );
                    self.broken.insert(key, (Instant::now(), error.clone()));
                    return Err(error);
                }
            }
        }
        Ok(())
    }

    /// Closes those whose graphics device was lost. Whether there are such.
    fn close_lost(&mut self) -> bool {
        let before = self.open.len();
        self.open
            .retain(|_, engine| engine.gpu().is_none_or(|gpu| !gpu.is_lost()));
        self.open.len() < before
    }
}

fn key(network: &Network) -> Key {
    (network.card.name.clone(), network.engine)
}

/// Runs the stage until its input ends. Blocking; on a thread of its own.
pub fn run(
    input: &async_channel::Receiver<Tracked<Measured>>,
    output: &async_channel::Sender<Tracked<Embedded>>,
    device: &Device,
    settings: &EngineSettings,
) {
    let mut engines = Engines {
        device,
        settings,
        open: HashMap::new(),
        broken: HashMap::new(),
    };
    let mut next = None;
    while let Some(first) = next.take().or_else(|| input.recv_blocking().ok()) {
        let Some(first) = first.unless_stale() else {
            continue;
        };
        // Fields of the same networks that are waiting already; nothing waits for a batch to fill up.
        let run = first.value.field.run.clone();
        let mut items = items(&first.value);
        let mut group = vec![first];
        while items < settings.batch_items {
            let Ok(field) = input.try_recv() else { break };
            let Some(field) = field.unless_stale() else {
                continue;
            };
            if !same_networks(&field.value.field.run, &run) {
                next = Some(field);
                break;
            }
            items += self::items(&field.value);
            group.push(field);
        }
        // The kernels may have lost the device meanwhile.
        engines.close_lost();
        if !embed_group(&mut engines, &run, group, output, Loss::Recover) {
            return;
        }
    }
}

/// What is done if a device is lost during the work.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Loss {
    /// The engine is opened anew.
    Recover,
    /// It was opened anew for this work already.
    Stop,
}

fn same_networks(one: &Run, other: &Run) -> bool {
    one.networks.iter().map(key).eq(other.networks.iter().map(key))
}

fn items(field: &Measured) -> usize {
    let of = |tiles: &Tiles| {
        let [tiles, channels, ..] = tiles.shape();
        tiles * channels
    };
    field.tiles.iter().map(of).max().unwrap_or(0)
}

/// Gives back the fields whose tiles went with a lost device: only their task can make them again.
fn without_lost(group: Vec<Tracked<Measured>>) -> Vec<Tracked<Measured>> {
    let (lost, group): (Vec<_>, Vec<_>) = group
        .into_iter()
        .partition(|field| field.value.tiles.iter().any(Tiles::are_lost));
    for field in lost {
        let text = "the graphics device was lost with the field's tiles in its memory";
        let error = StageError::external(Stage::Embed, FailureClass::Device, text);
        settle_field(field.ticket, &field.value.field.task, error);
    }
    group
}

/// `false` when the worker must stop.
fn embed_group(
    engines: &mut Engines<'_>,
    run: &Run,
    group: Vec<Tracked<Measured>>,
    output: &async_channel::Sender<Tracked<Embedded>>,
    loss: Loss,
) -> bool {
    let group = without_lost(group);
    if group.is_empty() {
        return true;
    }
    if let Err(error) = engines.open(run) {
        if engines.settings.must_open {
            stop(group, &StageError::internal(Stage::Embed, &*error));
            return false;
        }
        for field in group {
            let error = StageError::external(Stage::Embed, FailureClass::Model, &*error);
            settle_field(field.ticket, &field.value.field.task, error);
        }
        return true;
    }
    let fields: Vec<&Measured> = group.iter().map(|field| &field.value).collect();
    match embed_with_all(engines, run, &fields) {
        Ok(embeddings) => {
            let model = run.models();
            for (field, embedding) in group.into_iter().zip(embeddings) {
                let Measured {
                    field: done,
                    tiles,
                    quality,
                    passed,
                } = field.value;
                if let Err(error) = failpoint::after(Stage::Embed, &done.task.field) {
                    settle_field(field.ticket, &done.task, error);
                    continue;
                }
                let tiles = tiles.first().map_or(0, |tiles| tiles.shape()[0]);
                let tiles = u32::try_from(tiles).unwrap_or(u32::MAX);
                let embedded = Embedded {
                    task: done.task,
                    run: done.run,
                    model: model.clone(),
                    tiles,
                    quality,
                    passed,
                    embedding,
                };
                if output
                    .send_blocking(Tracked {
                        value: embedded,
                        ticket: field.ticket,
                    })
                    .is_err()
                {
                    return false;
                }
            }
            true
        }
        // One bad field must not take its neighbours along: each goes alone.
        Err(EngineError::NotFinite { .. }) if group.len() > 1 => group
            .into_iter()
            .all(|field| embed_group(engines, run, vec![field], output, loss)),
        Err(error @ EngineError::NotFinite { .. }) => {
            for field in group {
                let task = field.value.field.task;
                let error = StageError::input(Stage::Embed, FailureClass::Model, error.to_string());
                settle_field(field.ticket, &task, error);
            }
            true
        }
        Err(error) => {
            if loss == Loss::Recover && engines.close_lost() {
                tracing::warn!(
                    error = crate::error::chain(&error),
                    "a graphics device was lost; it is opened anew"
                );
                return embed_group(engines, run, group, output, Loss::Stop);
            }
            stop(group, &StageError::internal(Stage::Embed, error));
            false
        }
    }
}

fn stop(group: Vec<Tracked<Measured>>, error: &StageError) {
    for field in group {
        let error = StageError::internal(Stage::Embed, error.chain());
        field.ticket.settle(crate::track::Outcome::Stop(error));
    }
}

/// One embedding per field: those of the run's networks one after the other.
fn embed_with_all(
    engines: &mut Engines<'_>,
    run: &Run,
    fields: &[&Measured],
) -> Result<Vec<Vec<f32>>, EngineError> {
    let mut embeddings = vec![Vec::new(); fields.len()];
    for network in &run.networks {
        // Opened before; without one its columns would be missing, which the tables refuse.
        let Some(engine) = engines.open.get_mut(&key(network)) else {
            continue;
        };
        let tiles: Vec<&Tiles> = fields
            .iter()
            .filter_map(|field| field.tiles.get(network.tiles))
            .collect();
        for (whole, own) in embeddings.iter_mut().zip(embed_tiles(engine.as_mut(), &tiles)?) {
            whole.extend(own);
        }
    }
    Ok(embeddings)
}

/// One embedding per field: the mean over its tiles. The card says whether the channels of a tile are embedded one by
/// one, and the embeddings concatenated, or all together.
pub fn embed_tiles(engine: &mut dyn Engine, fields: &[&Tiles]) -> Result<Vec<Vec<f32>>, EngineError> {
    let card = engine.card().clone();
    let mut embeddings = Vec::with_capacity(fields.len());
    // Fields of as many channels share batches.
    let alike = |a: &&Tiles, b: &&Tiles| {
        let place = |tiles: &Tiles| std::mem::discriminant(tiles);
        a.shape()[1] == b.shape()[1] && place(a) == place(b)
    };
    for group in fields.chunk_by(alike) {
        let channels = group[0].shape()[1];
        // A count that the model does not take goes to the engine as it is, which says what it wants.
        let (per_item, items_per_tile) = card.items_for(channels).unwrap_or((channels, 1));
        let rows = match group[0] {
            Tiles::Here(_) => {
                let here = group.iter().filter_map(|tiles| match tiles {
                    Tiles::Here(tensor) => Some(tensor),
                    Tiles::OnDevice(_) => None,
                });
                embed_here(engine, here, per_item)?
            }
            Tiles::OnDevice(_) => {
                let there = group.iter().filter_map(|tiles| match tiles {
                    Tiles::OnDevice(tensor) => Some(tensor),
                    Tiles::Here(_) => None,
                });
                embed_there(engine, there, (per_item, items_per_tile))?
            }
        };
        let per_tile = card.item_width(per_item) * items_per_tile;
        let mut rest = &rows[..];
        for field in group {
            let tiles = field.shape()[0];
            let (own, others) = rest.split_at(tiles * per_tile);
            embeddings.push(mean_over_tiles(own, tiles, per_tile));
            rest = others;
        }
    }
    Ok(embeddings)
}

/// One row per item, of tiles that go to the engine.
fn embed_here<'a>(
    engine: &mut dyn Engine,
    fields: impl Iterator<Item = &'a Tensor>,
    per_item: usize,
) -> Result<Vec<f32>, EngineError> {
    let (height, width) = (engine.card().input.height, engine.card().input.width);
    let plane = height * width;
    let data: Vec<f32> = fields.flat_map(|field| field.data().iter().copied()).collect();
    let per_batch = engine.max_items().max(1);
    let mut rows = Vec::new();
    for chunk in data.chunks((per_batch * per_item * plane).max(1)) {
        let items = chunk.len() / (per_item * plane).max(1);
        let batch = Batch::new(items, per_item, height, width, chunk.to_vec())?;
        rows.extend_from_slice(&engine.embed(&batch)?.data);
    }
    Ok(rows)
}

/// One row per item, of tiles in the memory of the engine's device.
fn embed_there<'a>(
    engine: &mut dyn Engine,
    fields: impl Iterator<Item = &'a DeviceTensor>,
    (per_item, items_per_tile): (usize, usize),
) -> Result<Vec<f32>, EngineError> {
    let buffers: Vec<_> = fields
        .map(|field| (field.buffer(), field.shape()[0] * items_per_tile))
        .collect();
    let (height, width) = (engine.card().input.height, engine.card().input.width);
    let all = DeviceBatch::new(per_item, height, width, &buffers)?;
    let per_batch = engine.max_items().max(1);
    let mut rows = Vec::new();
    for first in (0..all.items()).step_by(per_batch) {
        let Embeddings { data, .. } = engine.embed_there(&all.part(first, per_batch))?;
        rows.extend(data);
    }
    Ok(rows)
}

/// Mean of `tiles` rows of `width` values, summed in `f64`.
fn mean_over_tiles(rows: &[f32], tiles: usize, width: usize) -> Vec<f32> {
    (0..width)
        .map(|i| {
            let sum: f64 = (0..tiles).map(|tile| f64::from(rows[tile * width + i])).sum();
            (sum / tiles as f64) as f32
        })
        .collect()
}

#[cfg(test)]
mod tests {
    #[test]
    fn tiles_are_averaged_per_channel() {
        // Two tiles of two channels with embeddings of width one: channel order is kept, tiles are averaged.
        assert_eq!(
            super::mean_over_tiles(&[1.0, 10.0, 3.0, 30.0], 2, 2),
            vec![2.0, 20.0]
        );
    }
}
