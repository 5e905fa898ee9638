//! Embed: the network turns tiles into one embedding per field.
//!
//! [`Measured`] fields enter and [`Embedded`] ones leave, in the same order. The thread that runs this owns its
//! engines. Fields are put together into batches, one item per tile and channel; tiles are averaged and channels
//! concatenated. What fails: an embedding that is not finite (that field is a dead letter); an engine that fails
//! otherwise stops the worker.

use std::collections::HashMap;
use std::path::PathBuf;

use wellspring_models::{Batch, Engine, EngineChoice, EngineError};
use wellspring_workloads::screen;

use crate::error::{FailureClass, Stage, StageError};
use crate::failpoint;
use crate::failures::settle_field;
use crate::fields::{Embedded, Measured};
use crate::model_cards::{CardsError, open_model};
use crate::model_store::weights_path;
use crate::runs::Run;
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
}

/// Opens the engine of a model; refuses weights that are not the card's.
pub fn open_engine(run: &Run, settings: &EngineSettings) -> Result<Box<dyn Engine>, CardsError> {
    let card = &*run.card;
    let choice = match settings.choice.unwrap_or(run.screen.model.engine) {
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

/// Runs the stage until its input ends. Blocking; on a thread of its own.
pub fn run(
    input: &async_channel::Receiver<Tracked<Measured>>,
    output: &async_channel::Sender<Tracked<Embedded>>,
    settings: &EngineSettings,
) {
    let mut engines: HashMap<String, Box<dyn Engine>> = HashMap::new();
    let mut next = None;
    while let Some(first) = next.take().or_else(|| input.recv_blocking().ok()) {
        // Fields of one model that are waiting already; nothing waits for a batch to fill up.
        let model = first.value.field.run.card.name.clone();
        let mut items = items(&first.value);
        let mut group = vec![first];
        while items < settings.batch_items {
            let Ok(field) = input.try_recv() else { break };
            if field.value.field.run.card.name != model {
                next = Some(field);
                break;
            }
            items += self::items(&field.value);
            group.push(field);
        }
        let run = group[0].value.field.run.clone();
        let engine = match engines.entry(model) {
            std::collections::hash_map::Entry::Occupied(entry) => entry.into_mut(),
            std::collections::hash_map::Entry::Vacant(entry) => match open_engine(&run, settings) {
                Ok(engine) => entry.insert(engine),
                Err(error) => {
                    stop(group, &StageError::internal(Stage::Embed, error));
                    return;
                }
            },
        };
        if !embed_group(engine.as_mut(), group, output) {
            return;
        }
    }
}

fn items(field: &Measured) -> usize {
    let [tiles, channels, ..] = field.tiles.shape();
    tiles * channels
}

/// `false` when the worker must stop.
fn embed_group(
    engine: &mut dyn Engine,
    group: Vec<Tracked<Measured>>,
    output: &async_channel::Sender<Tracked<Embedded>>,
) -> bool {
    let fields: Vec<&Measured> = group.iter().map(|field| &field.value).collect();
    match embed_fields(engine, &fields) {
        Ok(embeddings) => {
            let model = format!("{} {}", engine.card().name, engine.card().version);
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
                let tiles = u32::try_from(tiles.shape()[0]).unwrap_or(u32::MAX);
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
            .all(|field| embed_group(engine, vec![field], output)),
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

/// One embedding per field: the mean over its tiles. The card says whether the channels of a tile are embedded one by
/// one, and the embeddings concatenated, or all together.
pub fn embed_fields(engine: &mut dyn Engine, fields: &[&Measured]) -> Result<Vec<Vec<f32>>, EngineError> {
    let card = engine.card().clone();
    let (height, width) = (card.input.height, card.input.width);
    let plane = height * width;
    let mut embeddings = Vec::with_capacity(fields.len());
    // Fields of as many channels share batches.
    for group in fields.chunk_by(|a, b| a.tiles.shape()[1] == b.tiles.shape()[1]) {
        let channels = group[0].tiles.shape()[1];
        // A count that the model does not take goes to the engine as it is, which says what it wants.
        let (per_item, items_per_tile) = card.items_for(channels).unwrap_or((channels, 1));
        let data: Vec<f32> = group
            .iter()
            .flat_map(|field| field.tiles.data().iter().copied())
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
            let tiles = field.tiles.shape()[0];
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
