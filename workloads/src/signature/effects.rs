//! The effects of a screen: while plates add to them, and when all have.
//!
//! Wells less their origin enter, treatment by treatment; means leave in order. Names are kept once and effects are
//! numbers. Sums of complete effects lie in a spool, and those of open ones too where they are more than may be held: what
//! memory grows with, while plates pass, is treatments whose wells are still to come and names; in the end 20 bytes per
//! effect. Fails where the spool does, and beyond four billion names.

use std::collections::{BTreeMap, BTreeSet};
use std::ops::Range;
use std::sync::Arc;

use super::SignatureError;
use super::complete::{AT_ONCE, Complete, Key, Ordered, Written};
use super::gather::Origin;
use super::rows::{EffectVectors, Rows};
use super::vectors::dot;
use crate::compare::Spool;
use crate::names::{Names, NamesBuilder};

/// Values of means that are written together.
const MEANS_AT_ONCE: usize = 1 << 17;

/// The effect `e` of a compound at a dose: the mean over wells of (well − its plate's origin).
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Effect<'a> {
    /// The compound.
    pub compound: Option<&'a str>,
    /// Dose in the screen's unit.
    pub dose: Option<f64>,
    /// What it was measured from.
    pub origin: &'a Origin,
    /// Wells.
    pub wells: usize,
    /// Plates.
    pub plates: usize,
    /// Length of the mean vector, in the units of the features.
    pub length: f64,
}

/// All effects of a screen, in order of compound, dose and origin.
#[derive(Debug, Clone, PartialEq)]
pub struct Effects {
    names: Arc<Names>,
    origins: Vec<Origin>,
    /// The different doses in order, as [`Key`] has them.
    doses: Vec<u64>,
    /// The different classes and numbers of plates, as they came.
    kinds: Vec<Kind>,
    /// The first effect of each name, and where those of the last end.
    starts: Vec<u32>,
    records: Vec<Record>,
}

/// What an effect's null depends on: the number of its origin, and its wells.
pub(super) type Class = (u32, u32);

#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
struct Kind {
    class: Class,
    plates: u32,
}

/// An effect, in few bytes: a screen has a million.
#[derive(Debug, Clone, Copy, PartialEq)]
struct Record {
    /// Its place among the doses.
    dose: u32,
    /// Its place among the kinds.
    kind: u32,
    /// Square of the mean's length.
    square: f64,
}

fn coded(dose: Option<f64>) -> u64 {
    // Plus zero: -0 is the dose 0.
    dose.map_or(0, |dose| (dose + 0.0).to_bits() + 1)
}

fn decoded(dose: u64) -> Option<f64> {
    dose.checked_sub(1).map(f64::from_bits)
}

impl Effects {
    /// How many.
    pub fn len(&self) -> usize {
        self.records.len()
    }

    /// Whether there is none.
    pub fn is_empty(&self) -> bool {
        self.records.is_empty()
    }

    /// One of them; `None` beyond the last.
    pub fn get(&self, effect: usize) -> Option<Effect<'_>> {
        let record = self.records.get(effect)?;
        let ((origin, wells), plates) = self.kind(record);
        Some(Effect {
            compound: self.names.get(self.compound(effect)?),
            dose: decoded(self.doses[record.dose as usize]),
            origin: &self.origins[origin as usize],
            wells: wells as usize,
            plates: plates as usize,
            length: record.square.sqrt(),
        })
    }

    /// All of them.
    pub fn iter(&self) -> impl Iterator<Item = Effect<'_>> {
        (0..self.len()).filter_map(|effect| self.get(effect))
    }

    /// The place of an effect, by its compound, dose and origin.
    pub fn find(&self, compound: Option<&str>, dose: Option<f64>, origin: &Origin) -> Option<usize> {
        let compound = self.names.find(compound)? as usize;
        let dose = u32::try_from(self.doses.binary_search(&coded(dose)).ok()?).ok()?;
        let origin = u32::try_from(self.origins.binary_search(origin).ok()?).ok()?;
        let (start, end) = (
            *self.starts.get(compound)? as usize,
            *self.starts.get(compound + 1)? as usize,
        );
        let found = self.records[start..end].binary_search_by_key(&(dose, origin), |record| {
            let ((origin, _), _) = self.kind(record);
            (record.dose, origin)
        });
        found.ok().map(|at| start + at)
    }

    /// The number of an effect's compound: effects of one compound have one number, and lie together.
    pub(super) fn compound(&self, effect: usize) -> Option<u32> {
        let after = self.starts.partition_point(|&start| start as usize <= effect);
        (effect < self.len()).then(|| after.saturating_sub(1) as u32)
    }

    /// What the null of an effect depends on.
    pub(super) fn class(&self, effect: usize) -> Class {
        self.kind(&self.records[effect]).0
    }

    /// Squares of the lengths of a range of effects.
    pub(super) fn squares(&self, effects: Range<usize>) -> impl Iterator<Item = f64> {
        self.records[effects].iter().map(|record| record.square)
    }

    /// The origins that a [`Class`] counts.
    pub(super) fn origins(&self) -> &[Origin] {
        &self.origins
    }

    fn kind(&self, record: &Record) -> (Class, u32) {
        let Kind { class, plates } = self.kinds[record.kind as usize];
        (class, plates)
    }
}

/// An effect that wells may still be added to.
#[derive(Debug, Clone, Copy, Default)]
struct Open {
    /// Where its sum is; `None` while it is in the spool only.
    slot: Option<u32>,
    /// Its place in the spool, once it has one.
    place: Option<u64>,
    wells: u32,
    plates: u32,
}

/// Writes a sum to its place, or behind all else; gives its place.
fn put<S: Spool>(spool: &mut Rows<S>, place: Option<u64>, sum: &[f64]) -> Result<u64, SignatureError> {
    match place {
        Some(place) => spool.write(place, sum).map(|()| place),
        None => spool.append(sum),
    }
}

/// The effects of a screen while its plates pass.
#[derive(Debug)]
pub(super) struct OpenEffects<S> {
    spool: Rows<S>,
    held_bytes: usize,
    width: usize,
    names: NamesBuilder,
    origins: BTreeMap<Origin, u32>,
    open: BTreeMap<Key, Open>,
    /// Sums in slots of `width` values.
    slots: Vec<f64>,
    free: Vec<u32>,
    doses: BTreeSet<u64>,
    /// Not yet in the spool.
    complete: Vec<Complete>,
    written: Written,
}

impl<S: Spool> OpenEffects<S> {
    /// `spool`: holds what is not in memory, behind what it has.
    pub(super) fn new(spool: S, held_bytes: usize) -> Result<Self, SignatureError> {
        Ok(Self {
            spool: Rows::new(spool)?,
            held_bytes,
            width: 0,
            names: NamesBuilder::default(),
            origins: BTreeMap::new(),
            open: BTreeMap::new(),
            slots: Vec::new(),
            free: Vec::new(),
            doses: BTreeSet::new(),
            complete: Vec::new(),
            written: Written::default(),
        })
    }

    /// Names of compounds that are held elsewhere already. Before the first well.
    pub(super) fn know(&mut self, compounds: Arc<Names>) {
        self.names = NamesBuilder::beyond(compounds);
    }

    /// Adds wells of one plate: of each its compound, its dose and its row, less `mean`. All rows have one width.
    pub(super) fn add<'a>(
        &mut self,
        origin: &Origin,
        mean: &[f64],
        wells: impl Iterator<Item = (Option<&'a str>, Option<f64>, &'a [f32])>,
    ) -> Result<(), SignatureError> {
        self.width = mean.len();
        let next = u32::try_from(self.origins.len()).unwrap_or(u32::MAX);
        let origin = *self.origins.entry(origin.clone()).or_insert(next);
        let mut here = BTreeSet::new();
        for (compound, dose, row) in wells {
            let key = Key {
                compound: self.names.number(compound),
                origin,
                dose: coded(dose),
            };
            let sum = self.sum(key)?;
            for ((sum, &value), origin) in sum.iter_mut().zip(row).zip(mean) {
                *sum += f64::from(value) - origin;
            }
            let new_here = here.insert(key);
            if let Some(open) = self.open.get_mut(&key) {
                open.wells += 1;
                open.plates += u32::from(new_here);
            }
        }
        if self.names.too_large() {
            return Err(SignatureError::TooLarge);
        }
        Ok(())
    }

    /// The sum of an effect, in memory.
    fn sum(&mut self, key: Key) -> Result<&mut [f64], SignatureError> {
        let mut open = self.open.get(&key).copied().unwrap_or_default();
        let slot = match open.slot {
            Some(slot) => slot,
            None => {
                let slot = self.free.pop().unwrap_or_else(|| {
                    let slot = self.slots.len() / self.width.max(1);
                    self.slots.resize(self.slots.len() + self.width, 0.0);
                    u32::try_from(slot).unwrap_or(u32::MAX)
                });
                let range = self.range(slot);
                match open.place {
                    Some(place) => self.spool.read(place, &mut self.slots[range])?,
                    None => self.slots[range].fill(0.0),
                }
                open.slot = Some(slot);
                self.open.insert(key, open);
                slot
            }
        };
        let range = self.range(slot);
        Ok(&mut self.slots[range])
    }

    fn range(&self, slot: u32) -> std::ops::Range<usize> {
        let from = slot as usize * self.width;
        from..from + self.width
    }

    /// Puts sums into the spool where more are in memory than may be.
    pub(super) fn limit(&mut self) -> Result<(), SignatureError> {
        if self.slots.len() * size_of::<f64>() <= self.held_bytes {
            return Ok(());
        }
        for open in self.open.values_mut() {
            if let Some(slot) = open.slot.take() {
                let from = slot as usize * self.width;
                open.place = Some(put(
                    &mut self.spool,
                    open.place,
                    &self.slots[from..from + self.width],
                )?);
            }
        }
        self.slots.clear();
        self.free.clear();
        Ok(())
    }

    /// No more wells of a compound at a dose will come: what is kept of its effects is in the spool alone. Where wells
    /// come all the same, they are added in the end.
    pub(super) fn settle(&mut self, compound: Option<&str>, dose: Option<f64>) -> Result<(), SignatureError> {
        let (compound, dose) = (self.names.number(compound), coded(dose));
        let key = |origin| Key {
            compound,
            origin,
            dose,
        };
        while let Some((&key, &open)) = self.open.range(key(0)..=key(u32::MAX)).next() {
            self.open.remove(&key);
            self.put_complete(key, open)?;
        }
        Ok(())
    }

    fn put_complete(&mut self, key: Key, open: Open) -> Result<(), SignatureError> {
        let place = match open.slot {
            None => open.place,
            Some(slot) => {
                let range = self.range(slot);
                self.free.push(slot);
                Some(put(&mut self.spool, open.place, &self.slots[range])?)
            }
        };
        self.doses.insert(key.dose);
        self.complete.push(Complete {
            key,
            // An effect that wells were added to is in one or the other.
            place: place.unwrap_or_default(),
            wells: open.wells,
            plates: open.plates,
        });
        if self.complete.len() >= AT_ONCE {
            self.written.append(&mut self.spool, &mut self.complete)?;
        }
        Ok(())
    }

    /// Means of all that was added.
    pub(super) fn finish(mut self) -> Result<(Effects, EffectVectors<S>), SignatureError> {
        while let Some((key, open)) = self.open.pop_first() {
            self.put_complete(key, open)?;
        }
        self.written.append(&mut self.spool, &mut self.complete)?;
        let Self {
            mut spool,
            width,
            names,
            origins,
            doses,
            written,
            ..
        } = self;
        let doses: Vec<u64> = doses.into_iter().collect();
        let (names, ranks) = names.finish();
        let mut origin_ranks = vec![0u32; origins.len()];
        for (rank, &number) in (0u32..).zip(origins.values()) {
            origin_ranks[number as usize] = rank;
        }
        let Ordered { order, ends } = Ordered::new(&written, &mut spool, names.len(), ranks.as_deref())?;
        let place = spool.end();
        let mut effects = Effects {
            names,
            origins: origins.into_keys().collect(),
            doses,
            kinds: Vec::new(),
            starts: Vec::with_capacity(ends.len() + 1),
            records: Vec::with_capacity(written.len),
        };
        let mut kinds = BTreeMap::new();
        let mut means: Vec<f64> = Vec::new();
        let mut part = vec![0.0; width];
        let mut of_compound = Vec::new();
        let mut from = 0;
        for end in ends {
            effects.starts.push(effects.records.len() as u32);
            for &number in &order[from..end as usize] {
                let mut complete = written.read(&mut spool, number as usize)?;
                complete.key.origin = origin_ranks[complete.key.origin as usize];
                of_compound.push(complete);
            }
            from = end as usize;
            // By place last: parts of one effect are added in the order in which they were put aside.
            of_compound.sort_unstable_by_key(|complete| (complete.key, complete.place));
            for parts in of_compound.chunk_by(|a, b| a.key == b.key) {
                let from = means.len();
                means.resize(from + width, 0.0);
                let mean = &mut means[from..];
                let (mut wells, mut plates) = (0, 0);
                for complete in parts {
                    spool.read(complete.place, &mut part)?;
                    mean.iter_mut().zip(&part).for_each(|(sum, part)| *sum += part);
                    wells += complete.wells;
                    plates += complete.plates;
                }
                mean.iter_mut().for_each(|value| *value /= f64::from(wells));
                let square = dot(mean, mean);
                if let Some(Complete { key, .. }) = parts.first() {
                    let kind = Kind {
                        class: (key.origin, wells),
                        plates,
                    };
                    let kind = *kinds.entry(kind).or_insert_with(|| {
                        effects.kinds.push(kind);
                        effects.kinds.len() as u32 - 1
                    });
                    effects.records.push(Record {
                        dose: effects.doses.partition_point(|&dose| dose < key.dose) as u32,
                        kind,
                        square,
                    });
                }
                if means.len() >= MEANS_AT_ONCE {
                    spool.append(&means)?;
                    means.clear();
                }
            }
            of_compound.clear();
        }
        effects.starts.push(effects.records.len() as u32);
        spool.append(&means)?;
        let vectors = EffectVectors {
            rows: spool,
            place,
            width,
            len: effects.len(),
        };
        Ok((effects, vectors))
    }
}
