//! Times the native engine: `cargo run --release --example embed_time -- WEIGHTS.safetensors [THREADS]`
//!
//! Prints the time to open the model, milliseconds per image for batches of 1, 8 and 32 (median of runs), and the
//! fraction of the processor's measured multiply-add peak that is.

#![allow(clippy::print_stdout, reason = "an example for the terminal")]

use std::error::Error;
use std::time::Instant;

use wellspring_models::{Batch, EngineChoice, find_card, open};

/// Multiplications and additions of one EfficientNet-Lite0 image without its classifier.
const GIGAFLOP_PER_IMAGE: f64 = 0.768;

fn main() -> Result<(), Box<dyn Error>> {
    let mut arguments = std::env::args().skip(1);
    let weights = arguments
        .next()
        .ok_or("usage: embed_time WEIGHTS.safetensors [THREADS]")?;
    let threads: usize = arguments.next().map_or(Ok(1), |text| text.parse())?;
    let card = find_card("efficientnet-lite0").ok_or("no such card")?;
    let start = Instant::now();
    let mut engine = open(card, &weights, EngineChoice::Native, threads)?;
    println!(
        "{}; {threads} threads; opened in {:.0} ms",
        engine.device(),
        start.elapsed().as_secs_f64() * 1e3
    );

    let peak = peak_gigaflops();
    println!("measured multiply-add peak of one core: {peak:.1} GFLOP/s");
    let image = card.canary.image.render(card.input.height, card.input.width);
    for items in [1, 8, 32] {
        let batch = Batch::new(items, 1, card.input.height, card.input.width, image.repeat(items))?;
        let mut runs = Vec::new();
        for _ in 0..(96 / items).max(9) {
            let start = Instant::now();
            engine.embed(&batch)?;
            runs.push(start.elapsed().as_secs_f64() / items as f64);
        }
        runs.sort_by(f64::total_cmp);
        let (least, median) = (runs[0], runs[runs.len() / 2]);
        let busy = threads.min(items) as f64;
        println!(
            "batch {items}: {:.2} ms per image (least {:.2}), {:.0}% of peak",
            median * 1e3,
            least * 1e3,
            100.0 * GIGAFLOP_PER_IMAGE / (median * busy) / peak
        );
    }
    Ok(())
}

/// The multiply-adds one core does when nothing else holds it up: twelve independent chains.
fn peak_gigaflops() -> f64 {
    #[cfg(target_arch = "x86_64")]
    if is_x86_feature_detected!("avx2") && is_x86_feature_detected!("fma") {
        // SAFETY: the processor has both, as just asked.
        return (0..5).map(|_| unsafe { chains_avx2() }).fold(0.0, f64::max);
    }
    f64::NAN
}

#[cfg(target_arch = "x86_64")]
#[target_feature(enable = "avx2,fma")]
fn chains_avx2() -> f64 {
    use std::arch::x86_64::*;
    const ROUNDS: usize = 5_000_000;
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
