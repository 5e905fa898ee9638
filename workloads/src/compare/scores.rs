//! Scores of a row's wells, of which mean and lower median are asked once all are there.
//!
//! Scores enter well by well, a [`Summary`] leaves. Vehicle wells lie on every plate of a screen: blocks of their scores
//! wait in the spool, and come back one row at a time. Fails where the spool does.

use super::CompareError;
use super::finished::Finished;
use super::spool::{Place, Spool};

/// Scores of a row that are held before they are put aside: treatments of usual replicates never are.
const HELD: usize = 4096;

/// The scores of a row, in the order in which they came.
#[derive(Debug, Default)]
pub(super) struct Scores {
    held: Vec<f64>,
    aside: Vec<Place>,
}

/// What is said of the scores of a row; nothing where it has none.
#[derive(Debug, Clone, Copy, PartialEq, Default)]
pub(super) struct Summary {
    pub(super) mean: Option<f64>,
    /// The value that at least half of them reach: the median, and the lower of the two middle ones.
    pub(super) lower_median: Option<f64>,
}

impl Scores {
    /// Takes the score of a well that has one.
    pub(super) fn add(&mut self, score: Option<f64>) {
        self.held.extend(score);
    }

    /// Puts scores aside where they have become many.
    pub(super) fn limit<S: Spool>(&mut self, aside: &mut Finished<'_, S>) -> Result<(), CompareError> {
        if self.held.len() >= HELD {
            self.aside.push(aside.aside(&self.held)?);
            self.held = Vec::new();
        }
        Ok(())
    }

    /// Of all scores.
    pub(super) fn summary<S: Spool>(self, aside: &mut Finished<'_, S>) -> Result<Summary, CompareError> {
        let mut all = Vec::new();
        for place in self.aside {
            all.extend(aside.bring::<Vec<f64>>(place)?);
        }
        all.extend(self.held);
        Ok(summary(all))
    }
}

fn summary(mut scores: Vec<f64>) -> Summary {
    let Some(middle) = scores.len().checked_sub(1).map(|last| last / 2) else {
        return Summary::default();
    };
    let mean = scores.iter().sum::<f64>() / scores.len() as f64;
    let (_, lower_median, _) = scores.select_nth_unstable_by(middle, f64::total_cmp);
    Summary {
        mean: Some(mean),
        lower_median: Some(*lower_median),
    }
}

#[cfg(test)]
mod tests {
    use std::io::Cursor;

    use super::*;
    use crate::compare::{ComparisonSettings, Design};
    use crate::profile::{Role, Treatment};

    #[test]
    fn scores_that_waited_in_the_spool_count_as_those_that_were_held() {
        let treatment = Treatment {
            role: Role::Reference,
            disease: None,
            compound: None,
            dose: None,
        };
        let plate = "P1".parse().unwrap();
        let design = Design::of([(&plate, &treatment)]).unwrap();
        let settings = ComparisonSettings::default();
        let mut aside = Finished::new(&design, &settings, Cursor::new(Vec::new())).unwrap();
        for n in [0, 1, 2, HELD - 1, HELD, 3 * HELD + 10] {
            let made: Vec<f64> = (0..n).map(|i| (i as f64 * 0.618_033_988).fract() - 0.3).collect();
            let mut scores = Scores::default();
            for &score in &made {
                scores.add(Some(score));
                scores.add(None);
                scores.limit(&mut aside).unwrap();
                assert!(scores.held.len() < HELD);
            }
            assert_eq!(scores.aside.len(), n / HELD);
            let found = scores.summary(&mut aside).unwrap();
            let mut sorted = made.clone();
            sorted.sort_by(f64::total_cmp);
            assert_eq!(found.mean, (n > 0).then(|| made.iter().sum::<f64>() / n as f64));
            assert_eq!(found.lower_median, sorted.get(n.saturating_sub(1) / 2).copied());
        }
    }
}
