//! Times the native engine: `cargo run --release --example embed_time -- MODEL WEIGHTS.safetensors [THREADS [BATCH..]]`
//!
//! MODEL is the name of a built-in card or the path of a card. Prints the time to open the model, milliseconds per image
//! for batches of 1, 8 and 32 (least and median of runs), and the fraction of the processor's measured multiply-add peak
//! that is.

#![allow(clippy::print_stdout, reason = "an example for the terminal")]

#[path = "common/peak.rs"]
mod peak;

use std::error::Error;
use std::time::Instant;

use peak::{gigaflop, peak_gigaflops};
use wellspring_models::{Batch, ChannelPolicy, EngineChoice, ModelCard, find_card, open};

fn main() -> Result<(), Box<dyn Error>> {
    let mut arguments = std::env::args().skip(1);
    let usage = "usage: embed_time MODEL WEIGHTS.safetensors [THREADS [BATCH..]]";
    let (model, weights) = (arguments.next().ok_or(usage)?, arguments.next().ok_or(usage)?);
    let threads: usize = arguments.next().map_or(Ok(1), |text| text.parse())?;
    let mut batches = arguments
        .map(|text| text.parse())
        .collect::<Result<Vec<usize>, _>>()?;
    if batches.is_empty() {
        batches = vec![1, 8, 32];
    }
    let card: ModelCard = match find_card(&model) {
        Some(card) => card.clone(),
        None => serde_json::from_slice(&std::fs::read(&model)?)?,
    };
    let start = Instant::now();
    let mut engine = open(&card, &weights, EngineChoice::Native, threads)?;
    println!(
        "{} on {}; {threads} threads; opened in {:.0} ms",
        card.name,
        engine.device(),
        start.elapsed().as_secs_f64() * 1e3
    );

    let peak = peak_gigaflops();
    println!("measured multiply-add peak of one core: {peak:.1} GFLOP/s");
    let channels = match card.channel_policy {
        ChannelPolicy::ChannelAgnostic { most } => most.min(5),
        ChannelPolicy::FirstConvolution { channels } => channels,
        _ => 1,
    };
    let (height, width) = (card.input.height, card.input.width);
    let image: Vec<f32> = (0..channels)
        .flat_map(|channel| card.canary.image.render(height, width, channel))
        .collect();
    for items in batches {
        let batch = Batch::new(items, channels, height, width, image.repeat(items))?;
        let mut runs = Vec::new();
        for _ in 0..(96 / items).max(9) {
            let start = Instant::now();
            engine.embed(&batch)?;
            runs.push(start.elapsed().as_secs_f64() / items as f64);
        }
        runs.sort_by(f64::total_cmp);
        let (least, median) = (runs[0], runs[runs.len() / 2]);
        let busy = threads.min(items) as f64;
        // Nothing where the work of an image is not known.
        let fraction = |time: f64| {
            let percent = 100.0 * gigaflop(&card, channels)? / (time * busy) / peak;
            Some(format!(" ({percent:.0}% of peak)"))
        };
        println!(
            "batch {items}, {channels} channels: {:.2} ms per image{}, least {:.2}{}",
            median * 1e3,
            fraction(median).unwrap_or_default(),
            least * 1e3,
            fraction(least).unwrap_or_default()
        );
    }
    Ok(())
}
