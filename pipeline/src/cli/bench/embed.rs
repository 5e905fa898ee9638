//! `bench embed`: milliseconds per image of the network, by batch and threads.

use std::path::PathBuf;

use anyhow::Context;
use wellspring::model_store::{models_folder, weights_path};
use wellspring_models::{Batch, EngineChoice, cards, find_card, open};

use super::{Line, Printer, Random, seconds};
use crate::cli::simulate::cores;

#[derive(Debug, clap::Args)]
pub(crate) struct Args {
    /// The network.
    #[arg(long, default_value = "efficientnet-lite0")]
    model: String,
    /// Its weights file. Default: the one that `wellspring models pull` keeps.
    #[arg(long, value_name = "FILE")]
    weights: Option<PathBuf>,
    /// Images per batch.
    #[arg(long, value_name = "N,..", value_delimiter = ',', default_value = "1,8,32")]
    batches: Vec<usize>,
    /// Threads of the engine. Default: 1 and one per core.
    #[arg(long, value_name = "N,..", value_delimiter = ',')]
    threads: Vec<usize>,
}

pub(super) fn execute(args: &Args, printer: &mut Printer) -> anyhow::Result<()> {
    let card = find_card(&args.model).with_context(|| {
        let names: Vec<&str> = cards().iter().map(|card| card.name.as_str()).collect();
        format!(
            "no model is called '{}'; this build knows {}",
            args.model,
            names.join(", ")
        )
    })?;
    let weights = match &args.weights {
        Some(path) => path.clone(),
        None => weights_path(&models_folder()?, card),
    };
    let mut threads = args.threads.clone();
    if threads.is_empty() {
        threads = vec![1, cores()];
        threads.dedup();
    }
    for threads in threads {
        let mut engine = open(card, &weights, EngineChoice::Auto, threads).with_context(|| {
            format!(
                "no engine without weights: run `wellspring models pull {}`, or give --weights FILE",
                card.name
            )
        })?;
        for &items in &args.batches {
            let (height, width) = (card.input.height, card.input.width);
            let mut random = Random(7);
            let data = (0..items * height * width)
                .map(|_| (random.unit() * 255.0) as f32)
                .collect();
            let batch = Batch::new(items, 1, height, width, data)?;
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
