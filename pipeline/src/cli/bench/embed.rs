//! `bench embed`: milliseconds per image of the network, by batch and threads.

use std::path::PathBuf;

use anyhow::Context;
use wellspring::model_cards;
use wellspring::model_store::{models_folder, weights_path};
use wellspring_models::Batch;
use wellspring_workloads::screen;

use super::{Line, Printer, Random, between, seconds};
use crate::cli::common::{RuntimeArgs, parse_engine};
use crate::cli::simulate::cores;

#[derive(Debug, clap::Args)]
pub(crate) struct Args {
    /// The network.
    #[arg(default_value = "efficientnet-lite0", value_name = "NAME")]
    model: String,
    /// Its weights file. Default: the one that `wellspring models` keeps.
    #[arg(long, value_name = "FILE")]
    weights: Option<PathBuf>,
    /// Images per batch.
    #[arg(long, value_name = "N,..", value_delimiter = ',', default_value = "1,8,32", value_parser = between(1, MOST))]
    batches: Vec<usize>,
    /// Threads of the engine. Default: 1 and one per core.
    #[arg(long, value_name = "N,..", value_delimiter = ',', value_parser = between(1, MOST))]
    threads: Vec<usize>,
    /// Engine: auto, native, wgpu, onnx or libtorch. Default: the one that runs the network.
    #[arg(long, value_parser = parse_engine)]
    engine: Option<screen::EngineChoice>,
    /// Device of the wgpu engine: gpu, a kind of adapter, #N, or part of an adapter's name.
    #[arg(long, default_value = "gpu")]
    device: String,
    #[command(flatten)]
    runtime: RuntimeArgs,
}

/// Most images or threads: far beyond what an engine takes.
const MOST: usize = 4096;

pub(super) fn execute(args: &Args, printer: &mut Printer) -> anyhow::Result<()> {
    let folder = models_folder()?;
    let card = model_cards::find(&folder, &args.model)?;
    let weights = match &args.weights {
        Some(path) => path.clone(),
        None => weights_path(&folder, &card),
    };
    let choice = match args.engine {
        Some(word) => args.runtime.engine(word, &args.device)?,
        None => args.runtime.engine_for(&folder, &card)?,
    };
    // A model of several channels is measured with an image of five, or of as many as it takes.
    let channels = (1..=5)
        .rev()
        .chain(6..=card.input.channels.max(64))
        .find_map(|n| card.items_for(n))
        .map_or(1, |(per_item, _)| per_item);
    let mut threads = args.threads.clone();
    if threads.is_empty() {
        threads = vec![1, cores()];
        threads.dedup();
    }
    for threads in threads {
        let mut engine = model_cards::open_model(&folder, &card, &weights, choice.clone(), threads)
            .with_context(|| match &args.weights {
                Some(path) => format!("{} cannot be measured with '{}'", card.name, path.display()),
                None => format!("{} cannot be measured", card.name),
            })?;
        for &items in &args.batches {
            let (height, width) = (card.input.height, card.input.width);
            let mut random = Random(7);
            let data = (0..items * channels * height * width)
                .map(|_| (random.unit() * 255.0) as f32)
                .collect();
            let batch = Batch::new(items, channels, height, width, data)?;
            let time = seconds(|| engine.embed(&batch).map(drop))?;
            let plural = if threads == 1 { "" } else { "s" };
            let work = format!(
                "{}, batch of {items}, {threads} thread{plural}, {}",
                card.name,
                engine.device()
            );
            printer.push(Line::new(
                "embed",
                work,
                1e3 * time / items.max(1) as f64,
                "ms/image",
            ))?;
        }
    }
    Ok(())
}
