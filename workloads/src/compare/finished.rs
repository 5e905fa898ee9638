//! Treatments that are complete, until the whole screen is: false discovery rates need every p-value of a disease,
//! ranks every score.
//!
//! Finished series enter in any order and wait in a spool; rows and compounds leave in the order of the result. Memory
//! is two numbers per series, and the different p-values. Fails where the spool or the sink does.

use std::collections::BTreeMap;

use rayon::prelude::*;
use serde::Serialize;
use serde::de::DeserializeOwned;

use super::activity::Support;
use super::call::{self, Standing};
use super::design::{Design, Kind, SeriesKey};
use super::engine::{Sink, StreamError};
use super::multiple::{Corrected, Counts, Stages};
use super::null::Null;
use super::pool::{Lie, Sample};
use super::series::{Row, plan};
use super::spool::{self, Place, Shelf, Spool};
use super::tally::Tally;
use super::{CompareError, ComparisonSettings, CompoundSummary, Correction, NullFrom};

/// Series decoded, fitted and called at a time.
const CHUNK: usize = 512;

/// p-values of the rows of one kind on one disease; with a hierarchical correction, of its series.
#[derive(Default)]
struct Tests {
    p_value: Counts,
    p_off: Counts,
}

/// Dose as bits, and a rescue.
type Rescue = (u64, f64);

/// What a null from all plates says of rows of one disease, of the counter-screen or not, whose wells lie alike.
type PooledNulls = BTreeMap<(u32, bool, Lie), Option<Null>>;

/// The finished series of a screen.
pub(super) struct Finished<'d, S> {
    design: &'d Design,
    settings: &'d ComparisonSettings,
    shelf: Shelf<S>,
    /// Per series of the design, its rows; no place where it has none.
    waiting: Vec<Place>,
    /// Where there is more than one disease: per series, the rescue of its rows, and in the end the best rescue of the
    /// same compound and dose on another disease.
    rescues: Vec<Place>,
    tests: BTreeMap<(u32, Kind), Tests>,
    pooled: PooledNulls,
}

impl<'d, S: Spool> Finished<'d, S> {
    pub(super) fn new(
        design: &'d Design,
        settings: &'d ComparisonSettings,
        spool: S,
    ) -> Result<Self, CompareError> {
        let series = design.series();
        let many_diseases = series
            .windows(2)
            .any(|pair| pair[0].key().disease != pair[1].key().disease);
        let rescues = if many_diseases { series.len() } else { 0 };
        Ok(Self {
            design,
            settings,
            shelf: Shelf::new(spool)?,
            waiting: vec![Place::NONE; series.len()],
            rescues: vec![Place::NONE; rescues],
            tests: BTreeMap::new(),
            pooled: PooledNulls::new(),
        })
    }

    /// Puts a series aside.
    pub(super) fn put(&mut self, series: usize, rows: &[Row]) -> Result<(), CompareError> {
        let key = self.design.series()[series].key();
        self.waiting[series] = self.shelf.put(&rows)?;
        for row in rows.iter().filter(|row| row.pooled) {
            let counter = key.kind == Kind::Counter;
            self.pooled.insert((key.disease, counter, row.lie()), None);
        }
        if !rows.iter().any(|row| row.pooled) {
            self.count(key, rows);
        }
        if key.kind == Kind::Treated && !self.rescues.is_empty() {
            let rescues = rows.iter().filter_map(|row| Some((dose(row), row.row.rescue?)));
            self.rescues[series] = self.shelf.put(&rescues.collect::<Vec<Rescue>>())?;
        }
        Ok(())
    }

    /// Counts the p-values of a series.
    fn count(&mut self, key: SeriesKey, rows: &[Row]) {
        if key.kind < Kind::Treated {
            return;
        }
        let tests = self.tests.entry((key.disease, key.kind)).or_default();
        let stages = stages(self.settings.correction);
        stages.count(&p_values(rows, |row| row.row.p_value), &mut tests.p_value);
        stages.count(&p_values(rows, |row| row.row.p_off), &mut tests.p_off);
    }

    /// Puts anything else aside, until it is brought back.
    pub(super) fn aside(&mut self, value: &impl Serialize) -> Result<Place, CompareError> {
        self.shelf.put(value)
    }

    /// What was put aside.
    pub(super) fn bring<T: DeserializeOwned>(&mut self, place: Place) -> Result<T, CompareError> {
        self.shelf.get(place)
    }

    /// Every row and compound, with all that needed the whole screen. `samples`: null controls of all plates; `support`:
    /// what replicate retrieval says of the rows.
    pub(super) fn leave<K: Sink>(
        mut self,
        samples: &BTreeMap<(u32, bool), Sample>,
        support: &Support,
        sink: &mut K,
    ) -> Result<(), StreamError<K::Error>> {
        self.judge_pooled(samples)?;
        self.compare_diseases()?;
        let tests: BTreeMap<(u32, Kind), [Corrected; 2]> = std::mem::take(&mut self.tests)
            .into_iter()
            .map(|(key, tests)| (key, [tests.p_value.corrected(), tests.p_off.corrected()]))
            .collect();
        let (design, settings) = (self.design, self.settings);
        let mut start = 0;
        for of_disease in design
            .series()
            .chunk_by(|a, b| a.key().disease == b.key().disease)
        {
            let name = of_disease
                .first()
                .and_then(|series| design.disease(series.key().disease));
            let mut tally = Tally::default();
            let mut compounds: Vec<(Standing, Place)> = Vec::new();
            for of_kind in of_disease.chunk_by(|a, b| a.key().kind == b.key().kind) {
                let Some(SeriesKey { disease, kind, .. }) = of_kind.first().map(|series| series.key()) else {
                    continue;
                };
                let tests = tests.get(&(disease, kind));
                for chunk in of_kind.chunks(CHUNK) {
                    let parts = self.load(start..start + chunk.len(), support)?;
                    start += chunk.len();
                    let called: Vec<Result<Called, CompareError>> = parts
                        .into_par_iter()
                        .map(|part| part.called(tests, settings))
                        .collect();
                    for called in called {
                        let called = called?;
                        if let Some(summary) = called.summary {
                            tally.add(&called.rows, &summary, &settings.thresholds);
                            compounds.push((Standing::of(&summary), self.shelf.put(&summary)?));
                        }
                        for row in called.rows {
                            sink.row(row.row).map_err(StreamError::Caller)?;
                        }
                    }
                }
            }
            compounds.sort_by(|a, b| a.0.by_rank(&b.0));
            for (rank, (_, place)) in compounds.into_iter().enumerate() {
                let mut summary: CompoundSummary = self.shelf.get(place)?;
                summary.rank = rank + 1;
                sink.compound(summary).map_err(StreamError::Caller)?;
            }
            for note in tally.notes(name, &settings.thresholds) {
                sink.note(note).map_err(StreamError::Caller)?;
            }
        }
        Ok(())
    }

    /// The nulls of rows on too many plates to hold; counts their p-values.
    fn judge_pooled(&mut self, samples: &BTreeMap<(u32, bool), Sample>) -> Result<(), CompareError> {
        let (design, settings) = (self.design, self.settings);
        self.pooled
            .par_iter_mut()
            .for_each(|(&(disease, counter, lie), null)| {
                let name = design.disease(disease).unwrap_or_default();
                let size = (lie.wells as u64).to_le_bytes();
                let side: &[u8] = if counter { b"counter" } else { b"treated" };
                let parts = [b"all plates".as_slice(), name.as_bytes(), size.as_slice(), side];
                let sample = samples.get(&(disease, counter));
                *null = sample.and_then(|sample| sample.null(lie, plan(settings, parts.into_iter())));
            });
        if self.pooled.is_empty() {
            return Ok(());
        }
        let waits = |&series: &usize| {
            let series = &design.series()[series];
            series.key().kind >= Kind::Treated && (settings.null_from == NullFrom::Screen || series.wide())
        };
        for start in (0..design.series().len()).step_by(CHUNK) {
            let chunk = start..(start + CHUNK).min(design.series().len());
            let parts = self.load(chunk.filter(waits), &Support::default())?;
            let judged = parts
                .into_par_iter()
                .map(|part| Ok((part.key, part.judged(settings)?)))
                .collect::<Result<Vec<_>, CompareError>>()?;
            for (key, rows) in judged {
                self.count(key, &rows);
            }
        }
        Ok(())
    }

    /// Gives every series the best rescue of its compound and doses on other diseases.
    fn compare_diseases(&mut self) -> Result<(), CompareError> {
        let design = self.design;
        let compound = |&series: &u32| design.series()[series as usize].key().compound;
        let mut by_compound: Vec<u32> = (0u32..)
            .zip(&self.rescues)
            .filter(|(_, place)| **place != Place::NONE)
            .map(|(series, _)| series)
            .collect();
        by_compound.sort_by_key(compound);
        for series in by_compound.chunk_by(|a, b| compound(a) == compound(b)) {
            let rescues = series
                .iter()
                .map(|&series| self.shelf.get(self.rescues[series as usize]))
                .collect::<Result<Vec<Vec<Rescue>>, _>>()?;
            for (at, (&series, own)) in series.iter().zip(&rescues).enumerate() {
                let others = || rescues.iter().enumerate().filter(|(other, _)| *other != at);
                let best: Vec<Rescue> = own
                    .iter()
                    .filter_map(|&(dose, _)| {
                        let same_dose = others().flat_map(|(_, rescues)| rescues);
                        let same_dose = same_dose.filter(|rescue| rescue.0 == dose);
                        let best = same_dose.map(|rescue| rescue.1).max_by(f64::total_cmp)?;
                        Some((dose, best))
                    })
                    .collect();
                self.rescues[series as usize] = self.shelf.put(&best)?;
            }
        }
        Ok(())
    }

    /// Reads series back, with what the whole screen says of them.
    fn load(
        &mut self,
        series: impl Iterator<Item = usize>,
        support: &Support,
    ) -> Result<Vec<Part<'_>>, CompareError> {
        let Self {
            design,
            shelf,
            waiting,
            rescues,
            pooled,
            ..
        } = self;
        let mut parts = Vec::new();
        for id in series.filter(|&id| waiting[id] != Place::NONE) {
            let key = design.series()[id].key();
            let phenotype = match key.kind {
                Kind::Treated => {
                    let compound = design.compound(key.compound);
                    compound.and(design.find(key.disease, Kind::Phenotype, compound))
                }
                _ => None,
            };
            let mut bytes = |place: Option<&Place>| match place {
                Some(&place) if place != Place::NONE => shelf.bytes(place).map(Some),
                _ => Ok(None),
            };
            parts.push(Part {
                key,
                rows: bytes(waiting.get(id))?.unwrap_or_default(),
                phenotype: bytes(phenotype.and_then(|own| waiting.get(own)))?,
                elsewhere: bytes(rescues.get(id))?,
                support: bytes(support.place(id))?,
                pooled,
            });
        }
        Ok(parts)
    }
}

fn dose(row: &Row) -> u64 {
    row.row.dose.map_or(u64::MAX, f64::to_bits)
}

/// A series on its way out, as bytes.
struct Part<'p> {
    key: SeriesKey,
    rows: Vec<u8>,
    /// Rows of phenotype wells that carry the compound.
    phenotype: Option<Vec<u8>>,
    /// The best rescues on other diseases.
    elsewhere: Option<Vec<u8>>,
    /// What replicate retrieval says of each row.
    support: Option<Vec<u8>>,
    pooled: &'p PooledNulls,
}

struct Called {
    rows: Vec<Row>,
    summary: Option<CompoundSummary>,
}

impl Part<'_> {
    /// The rows, all with the p-values that their nulls give.
    fn judged(&self, settings: &ComparisonSettings) -> Result<Vec<Row>, CompareError> {
        let mut rows: Vec<Row> = spool::decoded(&self.rows)?;
        for row in rows.iter_mut().filter(|row| row.pooled) {
            let counter = self.key.kind == Kind::Counter;
            let null = self.pooled.get(&(self.key.disease, counter, row.lie()));
            if let Some(null) = null.and_then(Option::as_ref) {
                row.judge(null, settings.question);
            }
        }
        Ok(rows)
    }

    fn called(
        self,
        tests: Option<&[Corrected; 2]>,
        settings: &ComparisonSettings,
    ) -> Result<Called, CompareError> {
        let mut rows = self.judged(settings)?;
        if let Some([p_value, p_off]) = tests {
            let stages = stages(settings.correction);
            let q = stages.q(&p_values(&rows, |row| row.row.p_value), p_value);
            let q_off = stages.q(&p_values(&rows, |row| row.row.p_off), p_off);
            for ((row, q), q_off) in rows.iter_mut().zip(q).zip(q_off) {
                (row.row.q_value, row.row.q_off) = (q, q_off);
            }
        }
        if let Some(elsewhere) = &self.elsewhere {
            let elsewhere: Vec<Rescue> = spool::decoded(elsewhere)?;
            for row in &mut rows {
                let best = elsewhere.iter().find(|best| best.0 == dose(row));
                row.row.specificity = row.row.rescue.zip(best).map(|(rescue, best)| rescue - best.1);
            }
        }
        if self.key.kind == Kind::Treated {
            let support: Vec<Option<f64>> = match &self.support {
                Some(bytes) => spool::decoded(bytes)?,
                None => Vec::new(),
            };
            for (row, q) in rows.iter_mut().zip(support) {
                row.row.map_q_value = q;
            }
        }
        let summary = match self.key.kind {
            Kind::Treated if !rows.is_empty() => {
                let phenotype: Vec<Row> = match &self.phenotype {
                    Some(bytes) => spool::decoded(bytes)?,
                    None => Vec::new(),
                };
                Some(call::summarise(&mut rows, &phenotype, settings))
            }
            Kind::Counter => {
                for row in &mut rows {
                    row.row.call = call::counter_call(row, settings);
                }
                None
            }
            _ => None,
        };
        Ok(Called { rows, summary })
    }
}

fn p_values(rows: &[Row], p: impl Fn(&Row) -> Option<f64>) -> Vec<Option<f64>> {
    rows.iter().map(p).collect()
}

fn stages(correction: Correction) -> Stages {
    match correction {
        Correction::Bh => Stages::One,
        Correction::Hierarchical => Stages::Two,
    }
}
