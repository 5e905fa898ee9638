//! Embed: the networks turn tiles into one embedding per field.
//!
//! [`Measured`] fields enter and [`Embedded`] ones leave, in the same order. The thread that runs this owns its
//! engines. Fields are put together into batches, one item per tile and channel; tiles are averaged and channels
//! concatenated, and so are networks. What fails: an embedding that is not finite (that field is a dead letter); a network that cannot be
//! opened, whose fields are tried again later; an engine that fails otherwise stops the worker.

use std::collections::HashMap;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::{Duration, Instant};

use wellspring_kernels::Tensor;
use wellspring_models::{Batch, Engine, EngineChoice, EngineError};
use wellspring_workloads::screen;

use crate::error::{FailureClass, Stage, StageError, chain};
use crate::failpoint;
use crate::failures::settle_field;
use crate::fields::{Embedded, Measured};
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
    /// The adapter of the wgpu engine; see [`EngineChoice::Wgpu`].
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

/// Opens the engine of a network; refuses weights that are not the card's.
pub fn open_engine(network: &Network, settings: &EngineSettings) -> Result<Box<dyn Engine>, CardsError> {
    let card = &*network.card;
    let choice = match settings.choice.unwrap_or(network.engine) {
        screen::EngineChoice::Auto => EngineChoice::Auto,
        screen::EngineChoice::Native => EngineChoice::Native,
        screen::EngineChoice::Wgpu => EngineChoice::Wgpu {
            adapter: settings.adapter.clone(),
            half: settings.wgpu_half,
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

/// Engines by their models, and by what was to open them.
type Engines = HashMap<(String, screen::EngineChoice), Box<dyn Engine>>;

/// Engines that could not be opened: when, and why.
type Broken = HashMap<(String, screen::EngineChoice), (Instant, Arc<str>)>;

/// How long an engine that could not be opened is not tried again.
const BROKEN: Duration = Duration::from_secs(10);

fn key(network: &Network) -> (String, screen::EngineChoice) {
    (network.card.name.clone(), network.engine)
}

/// Runs the stage until its input ends. Blocking; on a thread of its own.
pub fn run(
    input: &async_channel::Receiver<Tracked<Measured>>,
    output: &async_channel::Sender<Tracked<Embedded>>,
    settings: &EngineSettings,
) {
    let mut engines = Engines::new();
    let mut broken = Broken::new();
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
        if let Err(error) = open_engines(&run, settings, &mut engines, &mut broken) {
            if settings.must_open {
                stop(group, &StageError::internal(Stage::Embed, &*error));
                return;
            }
            for field in group {
                let error = StageError::external(Stage::Embed, FailureClass::Model, &*error);
                settle_field(field.ticket, &field.value.field.task, error);
            }
            continue;
        }
        if !embed_group(&mut engines, &run, group, output) {
            return;
        }
    }
}

/// Opens those engines of a run that are not open yet; an error is remembered for a while, since to find it again may cost the
/// reading of a large file.
fn open_engines(
    run: &Run,
    settings: &EngineSettings,
    engines: &mut Engines,
    broken: &mut Broken,
) -> Result<(), Arc<str>> {
    for network in &run.networks {
        let key = key(network);
        if engines.contains_key(&key) {
            continue;
        }
        if let Some((since, error)) = broken.get(&key)
            && since.elapsed() < BROKEN
        {
            return Err(error.clone());
        }
        match open_engine(network, settings) {
            Ok(engine) => drop(engines.insert(key, engine)),
            Err(error) => {
                let error: Arc<str> = chain(&error).into();
                tracing::error!(
                    model = network.card.name,
                    message = &*error,
                    "a network cannot be opened"
                );
                broken.insert(key, (Instant::now(), error.clone()));
                return Err(error);
            }
        }
    }
    Ok(())
}

fn same_networks(one: &Run, other: &Run) -> bool {
    one.networks.iter().map(key).eq(other.networks.iter().map(key))
}

fn items(field: &Measured) -> usize {
    let of = |tiles: &Tensor| {
        let [tiles, channels, ..] = tiles.shape();
        tiles * channels
    };
    field.tiles.iter().map(of).max().unwrap_or(0)
}

/// `false` when the worker must stop.
fn embed_group(
    engines: &mut Engines,
    run: &Run,
    group: Vec<Tracked<Measured>>,
    output: &async_channel::Sender<Tracked<Embedded>>,
) -> bool {
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
            .all(|field| embed_group(engines, run, vec![field], output)),
        Err(error @ EngineError::NotFinite { .. }) => {
            for field in group {
                let task = field.value.field.task;
                let error = StageError::input(Stage::Embed, FailureClass::Model, error.to_string());
                settle_field(field.ticket, &task, error);
            }
            true
        }
        Err(error) => {
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
    engines: &mut Engines,
    run: &Run,
    fields: &[&Measured],
) -> Result<Vec<Vec<f32>>, EngineError> {
    let mut embeddings = vec![Vec::new(); fields.len()];
    for network in &run.networks {
        // Opened before; without one its columns would be missing, which the tables refuse.
        let Some(engine) = engines.get_mut(&key(network)) else {
            continue;
        };
        let tiles: Vec<&Tensor> = fields
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
pub fn embed_tiles(engine: &mut dyn Engine, fields: &[&Tensor]) -> Result<Vec<Vec<f32>>, EngineError> {
    let card = engine.card().clone();
    let (height, width) = (card.input.height, card.input.width);
    let plane = height * width;
    let mut embeddings = Vec::with_capacity(fields.len());
    // Fields of as many channels share batches.
    for group in fields.chunk_by(|a, b| a.shape()[1] == b.shape()[1]) {
        let channels = group[0].shape()[1];
        // A count that the model does not take goes to the engine as it is, which says what it wants.
        let (per_item, items_per_tile) = card.items_for(channels).unwrap_or((channels, 1));
        let data: Vec<f32> = group
            .iter()
            .flat_map(|field| field.data().iter().copied())
            .collect();
        let mut rows: Vec<f32> = Vec::new();
        let per_batch = engine.max_items().max(1);
        for chunk in data.chunks((per_batch * per_item * plane).max(1)) {
            let items = chunk.len() / (per_item * plane).max(1);
            let batch = Batch::new(items, per_item, height, width, chunk.to_vec())?;
            rows.extend_from_slice(&engine.embed(&batch)?.data);
        }
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
