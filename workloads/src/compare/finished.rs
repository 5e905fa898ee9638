//! Treatments that are complete, until the whole screen is: false discovery rates need every p-value of a disease,
//! ranks every score.
//!
//! Finished series enter in any order and wait in a spool; rows and compounds leave in the order of the result. Fails
//! where the spool or the sink does.

use std::collections::BTreeMap;

use rayon::prelude::*;
use serde::Serialize;
use serde::de::DeserializeOwned;

use super::activity::Support;
use super::call::{self, Standing};
use super::design::{Design, Kind};
use super::engine::{Sink, StreamError};
use super::multiple::{benjamini_hochberg, hierarchical};
use super::null::Null;
use super::pool::Sample;
use super::series::{Row, plan};
use super::spool::{self, Place, Shelf, Spool};
use super::tally::Tally;
use super::{CompareError, ComparisonSettings, CompoundSummary, Correction};

/// Series decoded, fitted and called at a time.
const CHUNK: usize = 512;

/// Where the rows of a series wait.
#[derive(Debug, Clone, Copy)]
struct Waiting {
    place: Place,
    /// Number of its first row.
    first: usize,
    rows: usize,
}

/// What is known of every row without reading it; NaN stands for nothing.
#[derive(Default)]
struct Numbers {
    p_value: Vec<f64>,
    p_off: Vec<f64>,
    /// Only where there is more than one disease.
    rescue: Vec<(u64, f64)>,
}

/// A row whose null is not known before the last plate.
struct Pooled {
    row: usize,
    disease: u32,
    counter: bool,
    wells: usize,
    effect: f64,
    off_axis: f64,
}

/// What a null from all plates says of rows of so many wells: disease, counter-screen, wells.
type PooledNulls = BTreeMap<(u32, bool, usize), Option<Null>>;

/// The finished series of a screen.
pub(super) struct Finished<'d, S> {
    design: &'d Design,
    settings: &'d ComparisonSettings,
    shelf: Shelf<S>,
    /// Per series of the design.
    waiting: Vec<Option<Waiting>>,
    numbers: Numbers,
    pooled: Vec<Pooled>,
    many_diseases: bool,
}

impl<'d, S: Spool> Finished<'d, S> {
    pub(super) fn new(
        design: &'d Design,
        settings: &'d ComparisonSettings,
        spool: S,
    ) -> Result<Self, CompareError> {
        let diseases = |pair: &[super::design::Series]| pair[0].key.disease != pair[1].key.disease;
        Ok(Self {
            design,
            settings,
            shelf: Shelf::new(spool)?,
            waiting: vec![None; design.series().len()],
            numbers: Numbers::default(),
            pooled: Vec::new(),
            many_diseases: design.series().windows(2).any(diseases),
        })
    }

    /// Puts a series aside.
    pub(super) fn put(&mut self, series: usize, rows: &[Row]) -> Result<(), CompareError> {
        let key = self.design.series()[series].key;
        let first = self.numbers.p_value.len();
        for row in rows {
            if row.pooled {
                self.pooled.push(Pooled {
                    row: self.numbers.p_value.len(),
                    disease: key.disease,
                    counter: key.kind == Kind::Counter,
                    wells: row.row.n_wells,
                    effect: row.effect,
                    off_axis: row.row.off_axis,
                });
            }
            self.numbers.p_value.push(row.row.p_value.unwrap_or(f64::NAN));
            self.numbers.p_off.push(row.row.p_off.unwrap_or(f64::NAN));
            if self.many_diseases {
                let dose = row.row.dose.map_or(u64::MAX, f64::to_bits);
                self.numbers
                    .rescue
                    .push((dose, row.row.rescue.unwrap_or(f64::NAN)));
            }
        }
        self.waiting[series] = Some(Waiting {
            place: self.shelf.put(&rows)?,
            first,
            rows: rows.len(),
        });
        Ok(())
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
        let nulls = self.pooled_nulls(samples);
        let rivals = self.rivals();
        let keys: Vec<(u32, Kind)> = self
            .design
            .series()
            .iter()
            .map(|series| (series.key.disease, series.key.kind))
            .collect();
        let mut start = 0;
        for disease in keys.chunk_by(|a, b| a.0 == b.0) {
            let name = disease.first().and_then(|&(id, _)| self.design.disease(id));
            let mut tally = Tally::default();
            let mut compounds: Vec<(Standing, Place)> = Vec::new();
            for of_kind in disease.chunk_by(|a, b| a.1 == b.1) {
                let series: Vec<usize> = (start..start + of_kind.len())
                    .filter(|&series| self.waiting[series].is_some())
                    .collect();
                start += of_kind.len();
                let Some(&(_, kind)) = of_kind.first() else {
                    continue;
                };
                let q = self.corrected(&series, kind);
                let mut at = 0;
                for chunk in series.chunks(CHUNK) {
                    let chunk = self.load(chunk, kind, &q, &mut at, &nulls, &rivals, support)?;
                    let settings = self.settings;
                    let called: Vec<Result<Called, CompareError>> = chunk
                        .into_par_iter()
                        .map(|part| part.called(kind, settings))
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
            for note in tally.notes(name, &self.settings.thresholds) {
                sink.note(note).map_err(StreamError::Caller)?;
            }
        }
        Ok(())
    }

    /// The nulls of rows on too many plates to hold, and their p-values.
    fn pooled_nulls(&mut self, samples: &BTreeMap<(u32, bool), Sample>) -> PooledNulls {
        let mut nulls: PooledNulls = self
            .pooled
            .iter()
            .map(|row| ((row.disease, row.counter, row.wells), None))
            .collect();
        let (design, settings) = (self.design, self.settings);
        nulls
            .par_iter_mut()
            .for_each(|(&(disease, counter, wells), null)| {
                let name = design.disease(disease).unwrap_or_default();
                let size = (wells as u64).to_le_bytes();
                let side: &[u8] = if counter { b"counter" } else { b"treated" };
                let parts = [b"all plates".as_slice(), name.as_bytes(), size.as_slice(), side];
                let sample = samples.get(&(disease, counter));
                *null = sample.and_then(|sample| sample.null(wells, plan(settings, parts.into_iter())));
            });
        for row in std::mem::take(&mut self.pooled) {
            let null = nulls.get(&(row.disease, row.counter, row.wells));
            if let Some(null) = null.and_then(Option::as_ref) {
                let (p_value, p_off) = null.p_values(row.effect, row.off_axis, settings.question);
                self.numbers.p_value[row.row] = p_value;
                self.numbers.p_off[row.row] = p_off;
            }
        }
        nulls
    }

    /// q-values of series of one kind on one disease, row by row: of `p_value`, of `p_off`.
    fn corrected(&self, series: &[usize], kind: Kind) -> Vec<[Option<f64>; 2]> {
        if kind < Kind::Treated {
            let rows = series
                .iter()
                .filter_map(|&id| self.waiting[id])
                .map(|w| w.rows)
                .sum();
            return vec![[None; 2]; rows];
        }
        let rows = || {
            series
                .iter()
                .filter_map(|&id| self.waiting[id])
                .enumerate()
                .flat_map(|(number, waiting)| {
                    (waiting.first..waiting.first + waiting.rows).map(move |row| (number, row))
                })
        };
        let corrected = |p: &[f64]| {
            let p: Vec<Option<f64>> = rows()
                .map(|(_, row)| Some(p[row]).filter(|p| !p.is_nan()))
                .collect();
            match self.settings.correction {
                Correction::Bh => benjamini_hochberg(&p),
                Correction::Hierarchical => {
                    hierarchical(&p, &rows().map(|(number, _)| number).collect::<Vec<_>>())
                }
            }
        };
        let q = corrected(&self.numbers.p_value);
        let q_off = corrected(&self.numbers.p_off);
        q.into_iter().zip(q_off).map(|(q, off)| [q, off]).collect()
    }

    /// Rescue of every treated compound and dose, by compound, dose and disease; empty where there is one disease.
    fn rivals(&self) -> Vec<Rival> {
        if !self.many_diseases {
            return Vec::new();
        }
        let mut rivals = Vec::new();
        for (series, waiting) in self.design.series().iter().zip(&self.waiting) {
            let (Kind::Treated, Some(waiting)) = (series.key.kind, waiting) else {
                continue;
            };
            for &(dose, rescue) in &self.numbers.rescue[waiting.first..waiting.first + waiting.rows] {
                if !rescue.is_nan() {
                    rivals.push((series.key.compound, dose, series.key.disease, rescue));
                }
            }
        }
        rivals.sort_by_key(|&(compound, dose, disease, _)| (compound, dose, disease));
        rivals
    }

    /// Reads series back and gives their rows what the whole screen says of them.
    #[allow(
        clippy::too_many_arguments,
        reason = "each says one thing of the whole screen, and only here"
    )]
    fn load(
        &mut self,
        series: &[usize],
        kind: Kind,
        q: &[[Option<f64>; 2]],
        at: &mut usize,
        nulls: &PooledNulls,
        rivals: &[Rival],
        support: &Support,
    ) -> Result<Vec<Part>, CompareError> {
        let mut parts = Vec::with_capacity(series.len());
        for &id in series {
            let Some(waiting) = self.waiting[id] else {
                continue;
            };
            let key = self.design.series()[id].key;
            let phenotype = match kind {
                Kind::Treated => {
                    let compound = self.design.compound(key.compound);
                    let own = compound.and(self.design.find(key.disease, Kind::Phenotype, compound));
                    own.and_then(|own| self.waiting[own]).map(|own| own.place)
                }
                _ => None,
            };
            let mut part = Part {
                rows: self.shelf.get(waiting.place)?,
                phenotype: phenotype.map(|place| self.shelf.bytes(place)).transpose()?,
            };
            for (number, row) in part.rows.iter_mut().enumerate() {
                if row.pooled {
                    let null = nulls.get(&(key.disease, kind == Kind::Counter, row.row.n_wells));
                    if let Some(null) = null.and_then(Option::as_ref) {
                        row.judge(null, self.settings.question);
                    }
                }
                let [q, q_off] = q.get(*at).copied().unwrap_or_default();
                *at += 1;
                row.row.q_value = q;
                row.row.q_off = q_off;
                if kind == Kind::Treated {
                    row.row.map_q_value = support.q(id, number);
                    row.row.specificity = specificity(rivals, key.compound, key.disease, &row.row);
                }
            }
            parts.push(part);
        }
        Ok(parts)
    }
}

/// Compound, dose, disease, rescue.
type Rival = (u32, u64, u32, f64);

fn specificity(rivals: &[Rival], compound: u32, disease: u32, row: &super::Comparison) -> Option<f64> {
    let dose = row.dose.map_or(u64::MAX, f64::to_bits);
    let from = rivals.partition_point(|rival| (rival.0, rival.1) < (compound, dose));
    let best = rivals[from..]
        .iter()
        .take_while(|rival| (rival.0, rival.1) == (compound, dose))
        .filter(|rival| rival.2 != disease)
        .map(|rival| rival.3)
        .max_by(f64::total_cmp)?;
    Some(row.rescue? - best)
}

/// A series on its way out.
struct Part {
    rows: Vec<Row>,
    /// Rows of phenotype wells that carry the compound, as bytes.
    phenotype: Option<Vec<u8>>,
}

struct Called {
    rows: Vec<Row>,
    summary: Option<CompoundSummary>,
}

impl Part {
    fn called(mut self, kind: Kind, settings: &ComparisonSettings) -> Result<Called, CompareError> {
        let summary = match kind {
            Kind::Treated if !self.rows.is_empty() => {
                let phenotype: Vec<Row> = match &self.phenotype {
                    Some(bytes) => spool::decoded(bytes)?,
                    None => Vec::new(),
                };
                Some(call::summarise(&mut self.rows, &phenotype, settings))
            }
            Kind::Counter => {
                for row in &mut self.rows {
                    row.row.call = call::counter_call(row, settings);
                }
                None
            }
            _ => None,
        };
        Ok(Called {
            rows: self.rows,
            summary,
        })
    }
}
