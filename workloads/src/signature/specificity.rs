//! How far an effect is one on its own disease alone: rescue along the signature of the disease it was tested on, less the
//! largest along any other signature of the screen (SCIENCE 6.1, over all models and not only those it was tested on).
//!
//! Columns of scores enter one by one, one number per effect leaves. Nothing fails; an effect on healthy cells, and every
//! effect of a screen with one signature, has none. Memory: two numbers per effect.

use super::gather::{Effect, Origin, SignatureScreen};
use super::score::SignatureColumn;

/// Own and rival rescue of every effect, column by column.
#[derive(Debug, Clone, Default)]
pub struct Specificity {
    /// Keys of the effects in their order, and the signature of the disease each was tested on.
    effects: Vec<(Effect, Option<usize>)>,
    own: Vec<f64>,
    rival: Vec<f64>,
}

impl Specificity {
    /// Of no column yet.
    pub fn new<S>(screen: &SignatureScreen<S>) -> Self {
        let own = |effect: &Effect| match &effect.origin {
            Origin::Healthy => None,
            Origin::Disease(disease) => screen
                .signatures
                .binary_search_by(|signature| signature.disease.cmp(disease))
                .ok(),
        };
        let effects: Vec<_> = screen
            .effects
            .iter()
            .map(|effect| (effect.clone(), own(effect)))
            .collect();
        Self {
            own: vec![f64::NAN; effects.len()],
            rival: vec![f64::NAN; effects.len()],
            effects,
        }
    }

    /// Takes a column of the same screen into account.
    pub fn take(&mut self, column: &SignatureColumn) {
        for (g, (_, own)) in self.effects.iter().enumerate() {
            let rescue = column.rescue[g];
            if *own == Some(column.signature) {
                self.own[g] = rescue;
            } else {
                // `max` passes over NaN.
                self.rival[g] = self.rival[g].max(rescue);
            }
        }
    }

    /// Of a compound at a dose on a disease, after all columns.
    pub fn of(&self, disease: Option<&str>, compound: Option<&str>, dose: Option<f64>) -> Option<f64> {
        // The effects' own order: compound, dose, origin. Doses are not negative, so that their bits sort as they do.
        let bits = |dose: Option<f64>| dose.map(|dose| (dose + 0.0).to_bits());
        let g = self
            .effects
            .binary_search_by(|(effect, _)| {
                let of_disease = match &effect.origin {
                    Origin::Healthy => std::cmp::Ordering::Less,
                    Origin::Disease(own) => own.as_deref().cmp(&disease),
                };
                effect
                    .compound
                    .as_deref()
                    .cmp(&compound)
                    .then(bits(effect.dose).cmp(&bits(dose)))
                    .then(of_disease)
            })
            .ok()?;
        Some(self.own[g] - self.rival[g]).filter(|value| !value.is_nan())
    }
}
