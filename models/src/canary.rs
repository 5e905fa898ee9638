//! The canary: a synthetic image every opened engine must embed as its card says.

use crate::batch::Batch;
use crate::card::{CanaryImage, ModelCard};
use crate::engine::Engine;
use crate::error::EngineError;

/// Least cosine between the canary's embedding and the card's. Rounding differences between engines in f32 stay
/// within 1e-6 of 1; a wrong padding, normalisation or layer costs far more than 1e-4.
const COSINE_BAR: f64 = 0.9999;

/// Largest relative difference of the norms, because a cosine does not see a wrong scale.
const NORM_TOLERANCE: f64 = 1e-3;

/// The same two for engines that compute in 16-bit floats, whose rounding is a thousandth of a value.
const HALF_BARS: (f64, f64) = (0.999, 1e-2);

impl CanaryImage {
    /// Channel `channel` of the image of this formula: `height` x `width` grey levels 0..255, whole numbers.
    pub fn render(self, height: usize, width: usize, channel: usize) -> Vec<f32> {
        match self {
            Self::BlobsOnARamp => (0..height * width)
                .map(|i| {
                    let (y, x) = ((i / width) as i64, (i % width) as i64);
                    let ramp = (x + y) * 40 / (height + width) as i64;
                    let x = x + 5 * channel as i64;
                    let (dx, dy) = (x % 32 - 16, y % 32 - 16);
                    let r2 = dx * dx + dy * dy;
                    let k = (x / 32 * 7 + y / 32 * 13) % 11;
                    let rim = (k + 4) * (k + 4);
                    let blob = if r2 < rim {
                        160 - 160 * r2 / rim + 5 * ((x * 31 + y * 17) % 8)
                    } else {
                        0
                    };
                    (ramp + blob) as f32
                })
                .collect(),
        }
    }
}

/// The canary of a card as a batch of one.
pub(crate) fn batch(card: &ModelCard) -> Result<Batch, EngineError> {
    let (h, w, channels) = (card.input.height, card.input.width, card.canary_channels());
    let image = (0..channels).flat_map(|channel| card.canary.image.render(h, w, channel));
    Ok(Batch::new(1, channels, h, w, image.collect())?)
}

/// Embeds the canary and compares it with the card.
pub(crate) fn check(engine: &mut dyn Engine) -> Result<(), EngineError> {
    let image = batch(engine.card())?;
    let (cosine_bar, norm_tolerance) = if engine.half_precision() {
        HALF_BARS
    } else {
        (COSINE_BAR, NORM_TOLERANCE)
    };
    let found = engine.embed(&image)?;
    let card = engine.card();
    let reference = &card.canary.embedding;
    if reference.len() != found.data.len() {
        return Err(EngineError::CanaryLength {
            model: card.name.clone(),
            found: found.data.len(),
            card: reference.len(),
        });
    }
    let (norm, reference_norm) = (norm(&found.data), norm(reference));
    let dot: f64 = found
        .data
        .iter()
        .zip(reference)
        .map(|(&a, &b)| f64::from(a) * f64::from(b))
        .sum();
    let cosine = dot / (norm * reference_norm);
    let norms_agree = (norm - reference_norm).abs() <= norm_tolerance * reference_norm;
    // Written so that a NaN (a zero norm) refuses too.
    if cosine >= cosine_bar && norms_agree {
        return Ok(());
    }
    Err(EngineError::Canary {
        model: card.name.clone(),
        device: engine.device().to_owned(),
        cosine,
        cosine_bar,
        norm,
        reference_norm,
    })
}

/// Euclidean norm.
fn norm(v: &[f32]) -> f64 {
    v.iter().map(|&x| f64::from(x) * f64::from(x)).sum::<f64>().sqrt()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_image_is_what_its_formula_says() {
        let image = CanaryImage::BlobsOnARamp.render(224, 224, 0);
        assert!(
            image
                .iter()
                .all(|v| (0.0..=255.0).contains(v) && v.fract() == 0.0)
        );
        // Corner: r2 = 512 is outside every blob, ramp 0. Centre of the first blob (16, 16): k = 0, r2 = 0,
        // ramp 32 * 40 / 448 = 2, texture 5 * (768 mod 8) = 0.
        assert_eq!(image[0], 0.0);
        assert_eq!(image[16 * 224 + 16], 162.0);
    }
}
