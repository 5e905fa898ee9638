//! The fields of a well becoming its profile, one after the other. Fields that passed quality control enter, one row
//! leaves; a well without any has none, never zeros. Nothing fails.

use serde::{Deserialize, Serialize};

/// `[comparison] aggregate`: how the fields of a well become its profile (SCIENCE 4).
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Aggregate {
    /// Mean of each feature, which commutes with rotations: for embeddings.
    #[default]
    Mean,
    /// Median of each feature, pycytominer's default: for measured features, where a field may be an outlier.
    Median,
}

/// The fields of one well.
#[derive(Debug, Clone)]
pub struct WellFields {
    how: Aggregate,
    width: usize,
    /// Of means: sums, and what they are divided by.
    sums: Vec<f64>,
    weight: f64,
    /// Of medians: the fields, field after field.
    values: Vec<f32>,
}

impl WellFields {
    /// No field yet; each has `width` features.
    pub fn new(how: Aggregate, width: usize) -> Self {
        Self {
            how,
            width,
            sums: Vec::new(),
            weight: 0.0,
            values: Vec::new(),
        }
    }

    /// Takes a field of `width` finite values. `weight`: rows that it stands for, such as cells; a mean is of these, a
    /// median of the fields.
    pub fn add(&mut self, values: impl Iterator<Item = f32>, weight: f64) {
        match self.how {
            Aggregate::Mean => {
                self.sums.resize(self.width, 0.0);
                self.weight += weight;
                for (sum, value) in self.sums.iter_mut().zip(values) {
                    *sum += weight * f64::from(value);
                }
            }
            Aggregate::Median => self.values.extend(values.take(self.width)),
        }
    }

    /// The well's profile; `None` without a field.
    pub fn profile(&self) -> Option<Vec<f32>> {
        match self.how {
            Aggregate::Mean => {
                let of_mean = self.sums.iter().map(|sum| (sum / self.weight) as f32);
                (self.weight > 0.0).then(|| of_mean.collect())
            }
            Aggregate::Median if self.values.is_empty() => None,
            Aggregate::Median => {
                let mut out = vec![0.0; self.width];
                super::median(self.values.chunks_exact(self.width), &mut out);
                Some(out)
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn fields_become_their_mean_or_median_and_no_field_is_nothing() {
        let fields = [[1.0, 5.0], [2.0, 5.0], [9.0, 2.0]];
        let of = |how| {
            let mut well = WellFields::new(how, 2);
            assert_eq!(well.profile(), None, "missing, never zero");
            fields
                .iter()
                .for_each(|field| well.add(field.iter().copied(), 1.0));
            well.profile().unwrap()
        };
        assert_eq!(of(Aggregate::Mean), [4.0, 4.0]);
        assert_eq!(of(Aggregate::Median), [2.0, 5.0]);
        let mut weighted = WellFields::new(Aggregate::Mean, 1);
        weighted.add([1.0].into_iter(), 3.0);
        weighted.add([5.0].into_iter(), 1.0);
        assert_eq!(
            weighted.profile().unwrap(),
            [2.0],
            "a field of three cells counts three times"
        );
    }
}
