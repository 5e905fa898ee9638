//! Times the native engine: `cargo run --release --example embed_time -- MODEL WEIGHTS.safetensors [THREADS [BATCH..]]`
//!
//! MODEL is the name of a built-in card or the path of a card. Prints the time to open the model, milliseconds per image
//! for batches of 1, 8 and 32 (least and median of runs), and the fraction of the processor's measured multiply-add peak
//! that is.

#![allow(clippy::print_stdout, reason = "an example for the terminal")]

use std::error::Error;
use std::time::Instant;

use wellspring_models::{Architecture, Batch, ChannelPolicy, EngineChoice, ModelCard, find_card, open};

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
        let fraction = |time: f64| 100.0 * gigaflop(&card, channels) / (time * busy) / peak;
        println!(
            "batch {items}, {channels} channels: {:.2} ms per image ({:.0}% of peak), least {:.2} ({:.0}%)",
            median * 1e3,
            fraction(median),
            least * 1e3,
            fraction(least)
        );
    }
    Ok(())
}

/// Multiplications and additions of the matrix products of one image, in 10^9.
fn gigaflop(card: &ModelCard, channels: usize) -> f64 {
    match &card.architecture {
        // Without its classifier.
        Architecture::EfficientnetLite0 => 0.768,
        Architecture::Vit(shape) => {
            let groups = match card.channel_policy {
                ChannelPolicy::ChannelAgnostic { .. } => channels,
                _ => 1,
            };
            let patches = groups * (card.input.height / shape.patch) * (card.input.width / shape.patch);
            let tokens = (patches + shape.registers + usize::from(shape.class_token)) as f64;
            let (d, mlp) = (shape.width as f64, shape.mlp_width as f64);
            let block = tokens * (4.0 * d * d + 2.0 * d * mlp) + 2.0 * tokens * tokens * d;
            let taps = (channels / groups * shape.patch * shape.patch) as f64;
            2e-9 * (shape.depth as f64 * block + patches as f64 * taps * d)
        }
        _ => f64::NAN,
    }
}

/// The multiply-adds one core does when nothing else holds it up: twelve independent chains.
fn peak_gigaflops() -> f64 {
    #[cfg(target_arch = "x86_64")]
    if is_x86_feature_detected!("avx512f") {
        // SAFETY: the processor has it, as just asked.
        return (0..5).map(|_| unsafe { chains_avx512() }).fold(0.0, f64::max);
    }
    #[cfg(target_arch = "x86_64")]
    if is_x86_feature_detected!("avx2") && is_x86_feature_detected!("fma") {
        // SAFETY: the processor has both, as just asked.
        return (0..5).map(|_| unsafe { chains_avx2() }).fold(0.0, f64::max);
    }
    f64::NAN
}

/// Rounds of the chains.
#[cfg(target_arch = "x86_64")]
const ROUNDS: usize = 5_000_000;

#[cfg(target_arch = "x86_64")]
#[target_feature(enable = "avx512f")]
fn chains_avx512() -> f64 {
    use std::arch::x86_64::*;
    let factor = _mm512_set1_ps(std::hint::black_box(0.999));
    let mut chains = [_mm512_set1_ps(std::hint::black_box(1.0)); 12];
    let start = Instant::now();
    for _ in 0..ROUNDS {
        for chain in &mut chains {
            *chain = _mm512_fmadd_ps(*chain, factor, factor);
        }
    }
    let seconds = start.elapsed().as_secs_f64();
    std::hint::black_box(chains);
    (ROUNDS * chains.len() * 32) as f64 / seconds / 1e9
}

#[cfg(target_arch = "x86_64")]
#[target_feature(enable = "avx2,fma")]
fn chains_avx2() -> f64 {
    use std::arch::x86_64::*;
    let factor = _mm256_set1_ps(std::hint::black_box(0.999));
    let mut chains = [_mm256_set1_ps(std::hint::black_box(1.0)); 12];
    let start = Instant::now();
    for _ in 0..ROUNDS {
        for chain in &mut chains {
            *chain = _mm256_fmadd_ps(*chain, factor, factor);
        }
    }
    let seconds = start.elapsed().as_secs_f64();
    std::hint::black_box(chains);
    (ROUNDS * chains.len() * 16) as f64 / seconds / 1e9
}
