//! What needs the whole screen: measured treatments are read back, corrected and given their thresholds; rows leave in
//! the order of the result. Fails where the spool or the sink does.

use super::super::engine::{Sink, StreamError};
use super::super::finished::Finished;
use super::super::multiple::{Counts, Stages};
use super::super::spool::{Place, Spool};
use super::super::{ComparisonSettings, Correction, Note, NoteKind};
use super::open::{Activities, Pooled};
use super::{Activity, Level};
use crate::matrix::FeatureMatrix;
use crate::replicate::correlation::{ReplicatingSettings, threshold};
use crate::replicate::map::NullRule;

/// Where the corrected p of the mean average precision of every dose of a series lie, for calls.
#[derive(Debug, Default)]
pub(crate) struct Support(Vec<Place>);

impl Support {
    /// Of a series.
    pub(crate) fn place(&self, series: usize) -> Option<&Place> {
        self.0.get(series)
    }
}

impl Activities<'_> {
    /// Sends every row, and says which treatments are supported by their replicates.
    pub(crate) fn finish<S: Spool, K: Sink>(
        mut self,
        aside: &mut Finished<'_, S>,
        sink: &mut K,
    ) -> Result<Support, StreamError<K::Error>> {
        let corrected = std::mem::take(&mut self.tests).map(Counts::corrected);
        let thresholds = [self.threshold(Level::Dose), self.threshold(Level::Compound)];
        let mut places = std::mem::take(&mut self.waiting);
        let limit = self.settings.thresholds.q;
        let (mut single, mut sampled) = (0usize, 0usize);
        for place in places.iter_mut().filter(|place| **place != Place::NONE) {
            let rows: Vec<Activity> = aside.bring(*place)?;
            let (doses, of_compound) = p_by_level(&rows);
            let doses = stages(self.settings).q(&doses, &corrected[0]);
            *place = aside.aside(&doses)?;
            let q = doses
                .into_iter()
                .chain(Stages::One.q(&of_compound, &corrected[1]));
            for (mut row, q) in rows.into_iter().zip(q) {
                let threshold = thresholds[usize::from(row.level == Level::Compound)];
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
        Ok(Support(places))
    }

    /// The correlation that replicates must exceed; `None` where there is nothing to draw it from.
    fn threshold(&self, level: Level) -> Option<f64> {
        let mut wells: Vec<_> = self.pool.kept.iter().collect();
        wells.sort_by_key(|(priority, well)| (well.series, well.dose, **priority));
        let row = |well: &Pooled| self.pool_rows.row(well.row);
        let width = row(wells.first()?.1).len();
        let rows = FeatureMatrix::from_rows(width, wells.iter().map(|(_, well)| row(well))).ok()?;
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

/// p of the mean average precision of a treatment's rows of one dose, and of the row of the compound behind them.
pub(super) fn p_by_level(rows: &[Activity]) -> (Vec<Option<f64>>, Vec<Option<f64>>) {
    let mut doses: Vec<Option<f64>> = rows.iter().map(|row| row.p_value).collect();
    let of_compound = doses.split_off(rows.iter().filter(|row| row.level == Level::Dose).count());
    (doses, of_compound)
}

/// How the rows of one dose are corrected.
pub(super) fn stages(settings: &ComparisonSettings) -> Stages {
    let activity = &settings.activity;
    match (activity.correction, activity.rule()) {
        (Correction::Bh, _) => Stages::One,
        (Correction::Hierarchical, NullRule::Independent) => Stages::Two,
        (Correction::Hierarchical, NullRule::Copairs) => Stages::Copairs {
            level: settings.thresholds.q,
        },
    }
}

fn note(text: String) -> Note {
    Note::of_screen(NoteKind::FewReplicates, text)
}
