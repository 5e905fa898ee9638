//! Which feature columns a screen is compared on (SCIENCE 5.5), judged in one pass over its plates.
//!
//! Plates' scaled rows enter, a [`Selection`] leaves. Plates are read once and forgotten. What stays is the value of
//! greatest magnitude of every column, over all wells, and a sample of the wells for all else: every well up to 16 Mi
//! values (4,793 wells of 3,500 features), beyond it as many drawn with the screen's seed, and never fewer than 1,024.
//! Fails where a plate cannot be read, profiles contradict each other, or no column is left.

use std::borrow::Borrow;

use rayon::prelude::*;

use super::design::Design;
use super::engine::{StreamError, batches, checked};
use super::frames::Frame;
use super::{CompareError, ComparisonSettings, Normalise, Note, NoteKind, Question};
use crate::matrix::FeatureMatrix;
use crate::profile::WellProfile;
use crate::random::Random;
use crate::select::{Operation, SelectError, Selection, select};
use crate::words::Barcode;

/// Values of the sample: 64 MiB.
const SAMPLE_VALUES: usize = 1 << 24;
/// Fewest wells of the sample: the correlation of independent columns of as many has an SD of 0.03.
const FEWEST_SAMPLED: usize = 1024;
/// Sets this stream of random numbers apart from those of nulls.
const STREAM: u64 = 0x5E1E_C7ED;

/// The recommended operations on the wells of a design, scaled as `frame` and `settings` say. Plates that cannot be
/// scaled are not scored, and not looked at.
pub(super) fn recommended<W, E>(
    frame: &Frame,
    design: &Design,
    settings: &ComparisonSettings,
    features: &[String],
    read: &mut (impl FnMut(&Barcode) -> Result<Vec<W>, E> + Send),
) -> Result<Selection, StreamError<E>>
where
    W: Borrow<WellProfile> + Send + Sync,
    E: Send,
{
    // Control wells need not be held out of their own scaling here: nothing is compared with them.
    let settings = ComparisonSettings {
        question: Question::Rescue,
        ..settings.clone()
    };
    let mut width = Some(features.len());
    let mut sample = Sample::new(design.wells(), features.len(), settings.seed);
    batches(design, read, |places, plates| {
        let sorted = checked(plates, &mut width)?;
        let framed: Vec<_> = sorted
            .par_iter()
            .zip(places)
            .map(|(wells, place)| frame.frame(place, wells, &settings))
            .collect();
        for framed in framed.into_iter().flatten() {
            if settings.normalise != Normalise::None && framed.scaling.is_none() {
                continue;
            }
            for row in &framed.rows {
                sample.add(row)?;
            }
        }
        Ok(())
    })?;
    Ok(sample.select(features).map_err(CompareError::from)?)
}

/// What a reader must know of a selection.
pub(super) fn note(selection: &Selection, features: usize) -> Note {
    let mut counts: Vec<(&str, usize)> = Vec::new();
    for dropped in &selection.dropped {
        match counts
            .iter_mut()
            .find(|(operation, _)| *operation == dropped.operation)
        {
            Some((_, count)) => *count += 1,
            None => counts.push((&dropped.operation, 1)),
        }
    }
    let counts: Vec<String> = counts
        .into_iter()
        .map(|(operation, count)| format!("{operation} dropped {count}"))
        .collect();
    let kept = selection.names().len();
    let text = if counts.is_empty() {
        format!("feature selection kept all {features} feature columns")
    } else {
        format!(
            "feature selection kept {kept} of {features} feature columns ({}); features-dropped.csv says why",
            counts.join(", ")
        )
    };
    Note::of_screen(NoteKind::Selection, text)
}

/// Wells that columns are judged by.
struct Sample {
    rows: FeatureMatrix,
    /// Of all wells, the value of greatest magnitude of each column.
    largest: Vec<f32>,
    random: Random,
    /// Wells still to come and those of them to take.
    left: (usize, usize),
}

impl Sample {
    fn new(wells: usize, width: usize, seed: u64) -> Self {
        let most = (SAMPLE_VALUES / width.max(1)).max(FEWEST_SAMPLED);
        Self {
            rows: FeatureMatrix::new(width),
            largest: vec![0.0; width],
            random: Random::keyed(&[seed, STREAM]),
            left: (wells, most.min(wells)),
        }
    }

    /// Knuth (1997), The Art of Computer Programming 2, 3.4.2, algorithm S: as many wells as were asked for, each
    /// as likely as any other.
    fn add(&mut self, row: &[f64]) -> Result<(), CompareError> {
        // Columns too large for f32 are dropped as outliers.
        let row: Vec<f32> = row
            .iter()
            .map(|value| value.clamp(f64::from(f32::MIN), f64::from(f32::MAX)) as f32)
            .collect();
        for (largest, &value) in self.largest.iter_mut().zip(&row) {
            if value.abs() > largest.abs() {
                *largest = value;
            }
        }
        let (to_come, to_take) = self.left;
        let taken = self.random.index(to_come.max(1)) < to_take;
        self.left = (
            to_come.saturating_sub(1),
            to_take.saturating_sub(usize::from(taken)),
        );
        if taken {
            self.rows.push(&row).map_err(|error| SelectError::Names {
                names: error.expected,
                width: error.found,
            })?;
        }
        Ok(())
    }

    fn select(self, features: &[String]) -> Result<Selection, SelectError> {
        let (mut by_sample, mut cutoff) = (Vec::new(), f64::INFINITY);
        for operation in Operation::recommended(Vec::new()) {
            match operation {
                Operation::DropOutliers { cutoff: found } => cutoff = found,
                other => by_sample.push(other),
            }
        }
        let mut selection = select(&self.rows, features, &by_sample)?;
        selection.drop_outliers(&self.largest, cutoff)?;
        Ok(selection)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn sampled(wells: usize, most_values: usize) -> Vec<f32> {
        let mut sample = Sample::new(wells, 1, 3);
        sample.left.1 = sample.left.1.min(most_values);
        for i in 0..wells {
            sample.add(&[i as f64]).unwrap();
        }
        assert_eq!(sample.largest, [(wells - 1) as f32]);
        sample.rows.as_slice().to_vec()
    }

    #[test]
    fn every_well_is_taken_up_to_the_bound_and_beyond_it_as_many_from_all_over() {
        assert_eq!(sampled(50, 50), (0..50).map(|i| i as f32).collect::<Vec<_>>());
        let some = sampled(38_400, 1000);
        assert_eq!(some.len(), 1000);
        // Wells of a 384-well plate by column: a step would take the same columns of every plate.
        let columns: std::collections::BTreeSet<u32> = some.iter().map(|well| *well as u32 % 24).collect();
        assert_eq!(columns.len(), 24);
        let later = some.iter().filter(|well| **well >= 19_200.0).count();
        assert!((400..600).contains(&later), "{later}");
    }

    #[test]
    fn an_outlier_that_is_not_in_the_sample_is_found() {
        let mut sample = Sample::new(4000, 2, 1);
        sample.left.1 = 1024;
        let mut noise = Random::seeded(5);
        for i in 0..4000 {
            let wild = if i == 3999 && sample.left.1 == 0 || i == 17 {
                501.0
            } else {
                noise.uniform()
            };
            sample.add(&[noise.uniform(), wild]).unwrap();
        }
        let names = ["steady".to_owned(), "wild".to_owned()];
        let selection = sample.select(&names).unwrap();
        assert_eq!(selection.names(), ["steady"]);
        assert_eq!(selection.dropped[0].operation, "drop_outliers");
    }

    #[test]
    fn what_is_too_large_for_single_precision_is_an_outlier_too() {
        let mut sample = Sample::new(100, 2, 1);
        let mut noise = Random::seeded(5);
        for i in 0..100 {
            let wild = if i == 50 { 1e300 } else { noise.uniform() };
            sample.add(&[noise.uniform(), wild]).unwrap();
        }
        let names = ["steady".to_owned(), "wild".to_owned()];
        assert_eq!(sample.select(&names).unwrap().names(), ["steady"]);
    }
}
