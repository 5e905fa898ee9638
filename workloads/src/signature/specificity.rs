//! How far an effect is one on its own disease alone: rescue along the signature of the disease it was tested on, less the
//! largest along any other signature of the screen (SCIENCE 6.1, over all models and not only those it was tested on).
//!
//! Scores enter block by block, one number per effect leaves. Nothing fails; an effect on healthy cells, and every effect
//! of a screen with one signature, has none. Memory: two numbers per effect.

use std::sync::Arc;

use super::effects::Effects;
use super::gather::{Origin, SignatureScreen};
use super::score::SignatureColumn;

/// Own and rival rescue of every effect.
#[derive(Debug, Clone)]
pub struct Specificity {
    effects: Arc<Effects>,
    /// The signature of each origin.
    signatures: Vec<Option<usize>>,
    own: Vec<f64>,
    rival: Vec<f64>,
}

impl Specificity {
    /// Of no scores yet.
    pub fn new<S>(screen: &SignatureScreen<S>) -> Self {
        let signature = |origin: &Origin| match origin {
            Origin::Healthy => None,
            Origin::Disease(disease) => screen
                .signatures
                .binary_search_by(|signature| signature.disease.cmp(disease))
                .ok(),
        };
        Self {
            signatures: screen.effects.origins().iter().map(signature).collect(),
            own: vec![f64::NAN; screen.effects.len()],
            rival: vec![f64::NAN; screen.effects.len()],
            effects: Arc::clone(&screen.effects),
        }
    }

    /// Takes scores of the same screen into account.
    pub fn take(&mut self, column: &SignatureColumn) {
        for (effect, &rescue) in column.effects.clone().zip(&column.rescue) {
            let (origin, _) = self.effects.class(effect);
            if self.signatures[origin as usize] == Some(column.signature) {
                self.own[effect] = rescue;
            } else {
                // `max` passes over NaN.
                self.rival[effect] = self.rival[effect].max(rescue);
            }
        }
    }

    /// The `most` compounds that rescue furthest along any signature, each as its effect that does, furthest first, and how
    /// many compounds there are; after all scores. Of equals those that come first.
    pub fn furthest(&self, most: usize) -> (Vec<usize>, usize) {
        let mut best: Vec<(f64, usize)> = Vec::with_capacity(most + 1);
        let mut keep = |rescue: f64, effect: usize| {
            let place = best.partition_point(|&(other, _)| other >= rescue);
            if !rescue.is_nan() && place < most {
                best.truncate(most - 1);
                best.insert(place, (rescue, effect));
            }
        };
        let (mut compounds, mut last, mut own) = (0, None, (f64::NAN, 0));
        for effect in 0..self.effects.len() {
            // `max` passes over NaN.
            let rescue = self.own[effect].max(self.rival[effect]);
            let compound = self.effects.compound(effect);
            if compound != last || effect == 0 {
                keep(own.0, own.1);
                (compounds, last, own) = (compounds + 1, compound, (f64::NAN, effect));
            }
            if rescue > own.0 || own.0.is_nan() {
                own = (rescue, effect);
            }
        }
        keep(own.0, own.1);
        (best.into_iter().map(|(_, effect)| effect).collect(), compounds)
    }

    /// Of a compound at a dose on a disease, after all scores.
    pub fn of(&self, disease: Option<&str>, compound: Option<&str>, dose: Option<f64>) -> Option<f64> {
        let origin = Origin::Disease(disease.map(str::to_owned));
        let effect = self.effects.find(compound, dose, &origin)?;
        Some(self.own[effect] - self.rival[effect]).filter(|value| !value.is_nan())
    }
}
