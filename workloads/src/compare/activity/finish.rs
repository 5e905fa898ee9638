//! What needs the whole screen: measured treatments are read back, corrected and given their thresholds; rows leave in
//! the order of the result. Fails where the spool or the sink does.

use super::super::engine::{Sink, StreamError};
use super::super::finished::Finished;
use super::super::spool::Spool;
use super::super::{Correction, Note, NoteKind};
use super::open::{Activities, Waiting};
use super::{Activity, Level};
use crate::matrix::FeatureMatrix;
use crate::replicate::correlation::{ReplicatingSettings, threshold};
use crate::replicate::map::corrected;

/// Corrected p of the mean average precision of every compound at every dose, for calls.
#[derive(Debug, Default)]
pub(crate) struct Support {
    /// By series: number of its first row.
    first: Vec<Option<usize>>,
    q: Vec<Option<f64>>,
}

impl Support {
    /// Of the `dose`th dose of a series.
    pub(crate) fn q(&self, series: usize, dose: usize) -> Option<f64> {
        let first = (*self.first.get(series)?)?;
        *self.q.get(first + dose)?
    }
}

impl Activities<'_> {
    /// Sends every row, and says which treatments are supported by their replicates.
    pub(crate) fn finish<S: Spool, K: Sink>(
        mut self,
        aside: &mut Finished<'_, S>,
        sink: &mut K,
    ) -> Result<Support, StreamError<K::Error>> {
        let q = self.corrected_doses();
        let of_compounds = self.corrected_compounds();
        let thresholds = [self.threshold(Level::Dose), self.threshold(Level::Compound)];
        let mut support = Support {
            first: vec![None; self.design.series().len()],
            q,
        };
        let mut order: Vec<(Waiting, Option<f64>)> = std::mem::take(&mut self.waiting)
            .into_iter()
            .zip(of_compounds)
            .collect();
        order.sort_by_key(|(waiting, _)| waiting.series);
        let limit = self.settings.thresholds.q;
        let (mut single, mut sampled) = (0usize, 0usize);
        for (waiting, of_compound) in order {
            support.first[waiting.series] = Some(waiting.first);
            let rows: Vec<Activity> = aside.bring(waiting.place)?;
            for (number, mut row) in rows.into_iter().enumerate() {
                let (q, threshold) = match row.level {
                    Level::Dose => (
                        support.q.get(waiting.first + number).copied().flatten(),
                        thresholds[0],
                    ),
                    Level::Compound => (of_compound, thresholds[1]),
                };
                row.corrected_p_value = q;
                row.below_corrected_p = q.map(|q| q < limit);
                row.replicates = row
                    .median_replicate_correlation
                    .zip(threshold)
                    .map(|(correlation, threshold)| correlation > threshold);
                if row.level == Level::Dose {
                    single += usize::from(row.n_wells < 2);
                    sampled += usize::from(row.n_measured < row.n_wells);
                }
                sink.activity(row).map_err(StreamError::Caller)?;
            }
        }
        for (count, what) in [
            (
                single,
                "of a compound at a dose have one well only: there are no replicates to compare",
            ),
            (
                sampled,
                "of a compound at a dose have more than 64 wells: replicates were compared among 64 of them, chosen by \
                 the seed",
            ),
        ] {
            if count > 0 {
                let text = format!("{count} rows {what}");
                sink.note(note(text)).map_err(StreamError::Caller)?;
            }
        }
        Ok(support)
    }

    fn corrected_doses(&self) -> Vec<Option<f64>> {
        let p: Vec<Option<f64>> = self.p.iter().map(|&p| Some(p).filter(|p| !p.is_nan())).collect();
        let activity = &self.settings.activity;
        let families: Option<Vec<usize>> = (activity.correction == Correction::Hierarchical).then(|| {
            let of = self.waiting.iter().enumerate();
            of.flat_map(|(family, waiting)| std::iter::repeat_n(family, waiting.doses))
                .collect()
        });
        corrected(
            &p,
            families.as_deref(),
            activity.rule(),
            self.settings.thresholds.q,
        )
    }

    fn corrected_compounds(&self) -> Vec<Option<f64>> {
        let p = self
            .waiting
            .iter()
            .map(|waiting| Some(waiting.p).filter(|p| !p.is_nan()));
        let p: Vec<Option<f64>> = p.collect();
        let activity = &self.settings.activity;
        corrected(&p, None, activity.rule(), self.settings.thresholds.q)
    }

    /// The correlation that replicates must exceed; `None` where there is nothing to draw it from.
    fn threshold(&self, level: Level) -> Option<f64> {
        let mut wells: Vec<_> = self.pool.kept.iter().collect();
        wells.sort_by_key(|(priority, well)| (well.series, well.dose, **priority));
        let width = wells.first()?.1.row.len();
        let rows = FeatureMatrix::from_rows(width, wells.iter().map(|(_, well)| &*well.row)).ok()?;
        let mut groups: Vec<usize> = Vec::with_capacity(wells.len());
        let mut last = None;
        for (_, well) in &wells {
            let own = (well.series, well.dose.filter(|_| level == Level::Dose));
            let next = groups
                .last()
                .map_or(0, |group| group + usize::from(last != Some(own)));
            groups.push(next);
            last = Some(own);
        }
        let sizes = &self.sizes[usize::from(level == Level::Compound)];
        let settings = ReplicatingSettings {
            seed: self.settings.seed,
            ..ReplicatingSettings::default()
        };
        threshold(&rows, &groups, sizes, settings)
    }
}

fn note(text: String) -> Note {
    Note::of_screen(NoteKind::FewReplicates, text)
}
