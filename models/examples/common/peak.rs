//! How much work an image is, and how much a core can do at most.

use std::time::Instant;

use wellspring_models::{Architecture, ChannelPolicy, ModelCard};

/// Multiplications and additions of the convolutions and matrix products of one image, in 10^9, where they are known.
pub(crate) fn gigaflop(card: &ModelCard, channels: usize) -> Option<f64> {
    Some(match &card.architecture {
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
        _ => return None,
    })
}

/// The multiply-adds one core does when nothing else holds it up: twelve independent chains.
pub(crate) fn peak_gigaflops() -> f64 {
    #[cfg(target_arch = "x86_64")]
    if is_x86_feature_detected!("avx512f") {
        // SAFETY: the processor has it, as just asked.
        return (0..RUNS).map(|_| unsafe { chains_avx512() }).fold(0.0, f64::max);
    }
    #[cfg(target_arch = "x86_64")]
    if is_x86_feature_detected!("avx2") && is_x86_feature_detected!("fma") {
        // SAFETY: the processor has both, as just asked.
        return (0..RUNS).map(|_| unsafe { chains_avx2() }).fold(0.0, f64::max);
    }
    f64::NAN
}

/// Runs of which the best counts, so that one of them has the core to itself.
#[cfg(target_arch = "x86_64")]
const RUNS: usize = 200;

/// Rounds of the chains.
#[cfg(target_arch = "x86_64")]
const ROUNDS: usize = 500_000;

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
