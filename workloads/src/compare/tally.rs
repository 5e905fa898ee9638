//! What a reader of a disease's rows must know, counted as they pass. Rows and summaries enter, notes leave.

use super::series::Row;
use super::{CompoundSummary, DoseCurve, Note, NoteKind, Thresholds};

/// Counts of one disease.
#[derive(Debug, Default)]
pub(super) struct Tally {
    treated: usize,
    weak: usize,
    best: Option<f64>,
    compounds: usize,
    few: usize,
    open: usize,
}

impl Tally {
    /// Counts a compound.
    pub(super) fn add(&mut self, treated: &[Row], summary: &CompoundSummary, limits: &Thresholds) {
        self.treated += treated.len();
        for p in treated.iter().filter_map(|row| row.smallest_p) {
            self.weak += usize::from(p >= limits.q);
            self.best = Some(self.best.map_or(p, |best| best.min(p)));
        }
        self.compounds += 1;
        self.few += usize::from(summary.curve.is_none());
        self.open += usize::from(summary.curve.as_ref().is_some_and(DoseCurve::is_open));
    }

    /// The notes of the disease.
    pub(super) fn notes(&self, disease: Option<&str>, limits: &Thresholds) -> Vec<Note> {
        let mut notes = Vec::new();
        let mut add = |kind, text: String| {
            let name = disease.map(|d| format!("disease {d}: ")).unwrap_or_default();
            notes.push(Note {
                disease: disease.map(str::to_owned),
                ..Note::of_screen(kind, format!("{name}{text}"))
            });
        };
        if let Some(best) = self.best.filter(|_| self.weak > 0) {
            add(
                NoteKind::Underpowered,
                format!(
                    "{} of {} treatments have too few control wells for a p-value below {} (the smallest possible \
                     is {best:.3}): read the scores, not the calls",
                    self.weak, self.treated, limits.q
                ),
            );
        }
        if self.few > 0 {
            add(
                NoteKind::FewDoses,
                format!(
                    "{} of {} compounds have fewer than {} doses: no curve was fitted, the largest effect is reported",
                    self.few,
                    self.compounds,
                    super::curve::FEWEST_DOSES
                ),
            );
        }
        if self.open > 0 {
            add(
                NoteKind::OpenCurves,
                format!(
                    "{} of {} compounds have too few wells to tell a dose curve from a constant, and are ranked by their \
                     mean effect at the highest third of the doses",
                    self.open, self.compounds
                ),
            );
        }
        notes
    }
}
