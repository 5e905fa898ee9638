//! Which plates carry which compounds, and the order in which plates are best read.
//!
//! Plate and treatment of every well enter (no features), a [`Design`] leaves. Plates that share compounds follow each
//! other, so that a compound is complete, and its wells forgotten, soon after its first plate. Nothing fails but a
//! screen with more than four billion plates or compounds, which is refused as a whole.

use std::collections::{BTreeMap, BTreeSet};
use std::ops::Range;
use std::sync::Arc;

use super::CompareError;
use crate::names::{Names, NamesBuilder, went};
use crate::profile::{Role, Treatment};
use crate::words::Barcode;

/// A series on more plates than this does not hold its plates together: its wells are summed as they pass, and its
/// null is drawn from a sample of all plates' controls. Replicates rarely exceed five; a positive control is on every
/// plate.
pub const WIDEST: usize = 16;

/// What the wells of a series are, in the order of the result rows.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub(super) enum Kind {
    Reference,
    Phenotype,
    Treated,
    /// Reference wells with a compound: what does it do to healthy cells?
    Counter,
}

/// A compound on a disease, over its doses and plates.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct SeriesKey {
    pub(super) disease: u32,
    pub(super) kind: Kind,
    pub(super) compound: u32,
}

/// Most diseases of a screen: a series has its disease, kind and width in one number.
const MOST_DISEASES: usize = 1 << 29;

/// There are as many of these as compounds on diseases, for as long as a comparison takes: eight bytes.
#[derive(Debug, Clone, Copy)]
pub(super) struct Series {
    /// Disease, two bits of kind, one of width.
    side: u32,
    compound: u32,
}

impl Series {
    /// `plates`: it lies on so many.
    fn new(key: SeriesKey, plates: usize) -> Self {
        let kind = match key.kind {
            Kind::Reference => 0,
            Kind::Phenotype => 1,
            Kind::Treated => 2,
            Kind::Counter => 3,
        };
        Self {
            side: key.disease << 3 | kind << 1 | u32::from(plates > WIDEST),
            compound: key.compound,
        }
    }

    pub(super) fn key(self) -> SeriesKey {
        SeriesKey {
            disease: self.side >> 3,
            kind: match (self.side >> 1) & 3 {
                0 => Kind::Reference,
                1 => Kind::Phenotype,
                2 => Kind::Treated,
                _ => Kind::Counter,
            },
            compound: self.compound,
        }
    }

    /// Whether it lies on more plates than are held at once.
    pub(super) fn wide(self) -> bool {
        self.side & 1 == 1
    }
}

/// The plates of a screen in the order in which they are read, and what is complete after each.
#[derive(Debug, Clone)]
pub struct Design {
    order: Vec<Barcode>,
    diseases: Arc<Names>,
    compounds: Arc<Names>,
    series: Vec<Series>,
    /// Series in the order in which they are complete; those complete at once in their own.
    completed: Vec<u32>,
    /// Per place in the order: how many series are complete after it.
    complete_after: Vec<u32>,
    /// Per place in the order: the last place at which the plate's null controls are needed.
    needed_until: Vec<u32>,
    /// Per place in the order: reference wells.
    reference: Vec<usize>,
    wells: usize,
    most_open: usize,
}

impl Design {
    /// Reads what each well was given. Wells may come in any order; a plate's wells need not be together.
    ///
    /// # Errors
    /// [`CompareError::NoProfiles`] without wells, [`CompareError::TooLarge`] beyond four billion names, half a billion of them of diseases.
    pub fn of<'a>(
        wells: impl IntoIterator<Item = (&'a Barcode, &'a Treatment)>,
    ) -> Result<Self, CompareError> {
        let mut builder = DesignBuilder::default();
        for (plate, treatment) in wells {
            builder.add(plate, treatment);
        }
        builder.finish()
    }

    /// The plates in the order in which [`super::stream()`] asks for them.
    pub fn plates(&self) -> &[Barcode] {
        &self.order
    }

    /// The most treatments whose wells are incomplete at once: what memory grows with, besides names. Small where
    /// replicates lie on plates of the same layout, whatever the number of plates; as large as the screen where every
    /// compound lies on plates of its own choice.
    pub fn most_open(&self) -> usize {
        self.most_open
    }

    pub(super) fn series(&self) -> &[Series] {
        &self.series
    }

    /// Series whose last plate is at one of these places, in the order in which they are complete.
    pub(super) fn complete(&self, places: Range<usize>) -> &[u32] {
        let before = |place: usize| match place.checked_sub(1) {
            None => 0,
            Some(last) => self
                .complete_after
                .get(last)
                .map_or(self.completed.len(), |&complete| complete as usize),
        };
        &self.completed[before(places.start)..before(places.end)]
    }

    pub(super) fn needed_until(&self, place: usize) -> usize {
        self.needed_until.get(place).copied().unwrap_or(0) as usize
    }

    /// Wells of all plates.
    pub(super) fn wells(&self) -> usize {
        self.wells
    }

    /// Reference wells of each plate, in the order of the plates.
    pub(super) fn reference_wells(&self) -> &[usize] {
        &self.reference
    }

    pub(super) fn disease(&self, id: u32) -> Option<&str> {
        self.diseases.get(id)
    }

    pub(super) fn compound(&self, id: u32) -> Option<&str> {
        self.compounds.get(id)
    }

    /// Names of the compounds, for whoever numbers them as well.
    pub(crate) fn compounds(&self) -> Arc<Names> {
        Arc::clone(&self.compounds)
    }

    pub(super) fn disease_id(&self, disease: Option<&str>) -> Option<u32> {
        self.diseases.find(disease)
    }

    /// The place of a series in the order of the result rows.
    pub(super) fn find(&self, disease: u32, kind: Kind, compound: Option<&str>) -> Option<usize> {
        let compound = self.compounds.find(compound)?;
        let key = SeriesKey {
            disease,
            kind,
            compound,
        };
        self.series.binary_search_by(|series| series.key().cmp(&key)).ok()
    }
}

/// Collects what each well was given.
#[derive(Debug, Default)]
pub struct DesignBuilder {
    plates: BTreeMap<Barcode, Counted>,
    /// Plates numbered so far.
    numbered: usize,
    diseases: NamesBuilder,
    compounds: NamesBuilder,
    /// Plate, role, disease, compound; each once after [`DesignBuilder::compact`].
    seen: Vec<(u32, u8, u32, u32)>,
    distinct: usize,
}

/// A plate's number, and its wells.
#[derive(Debug, Clone, Copy)]
struct Counted {
    number: u32,
    wells: usize,
    reference: usize,
}

/// Entries after which repeated ones are taken out again.
const COMPACT_AT: usize = 1 << 16;

impl DesignBuilder {
    /// Adds one well.
    pub fn add(&mut self, plate: &Barcode, treatment: &Treatment) {
        let reference = usize::from(treatment.role == Role::Reference);
        let plate = match self.plates.get_mut(plate) {
            Some(known) => {
                known.wells += 1;
                known.reference += reference;
                known.number
            }
            None => {
                let number = number(self.numbered);
                self.numbered += 1;
                let counted = Counted {
                    number,
                    wells: 1,
                    reference,
                };
                self.plates.insert(plate.clone(), counted);
                number
            }
        };
        let disease = self.diseases.number(treatment.disease.as_deref());
        let compound = self.compounds.number(treatment.compound.as_deref());
        let role = match treatment.role {
            Role::Reference => 0,
            Role::Phenotype => 1,
            Role::Treated => 2,
        };
        let entry = (plate, role, disease, compound);
        // Replicates on a plate mostly follow each other.
        if self.seen.last() != Some(&entry) {
            self.seen.push(entry);
        }
        if self.seen.len() >= COMPACT_AT.max(2 * self.distinct) {
            self.compact();
        }
    }

    /// Forgets a plate; gives how many wells of it were added.
    pub fn forget(&mut self, plate: &Barcode) -> usize {
        let Some(forgotten) = self.plates.remove(plate) else {
            return 0;
        };
        self.seen.retain(|&(plate, ..)| plate != forgotten.number);
        forgotten.wells
    }

    fn compact(&mut self) {
        self.seen.sort_unstable();
        self.seen.dedup();
        self.distinct = self.seen.len();
    }

    /// The design of all wells added.
    ///
    /// # Errors
    /// [`CompareError::NoProfiles`] without wells, [`CompareError::TooLarge`] beyond four billion names, half a billion of them of diseases.
    pub fn finish(mut self) -> Result<Design, CompareError> {
        if self.plates.is_empty() {
            return Err(CompareError::NoProfiles);
        }
        let too_many_plates = u32::try_from(self.numbered).is_err();
        if too_many_plates || self.diseases.too_large() || self.compounds.too_large() {
            return Err(CompareError::TooLarge);
        }
        self.compact();
        let wells = self.plates.values().map(|plate| plate.wells).sum();
        let reference: Vec<usize> = self.plates.values().map(|plate| plate.reference).collect();
        let plates = self.plates.into_iter();
        let (plates, plate_ids) = sorted(plates.map(|(name, plate)| (name, plate.number)), self.numbered);
        let (diseases, disease_ids) = self.diseases.finish();
        if diseases.len() > MOST_DISEASES {
            return Err(CompareError::TooLarge);
        }
        let (compounds, compound_ids) = self.compounds.finish();
        let mut seen = self.seen;
        for (plate, _, disease, compound) in &mut seen {
            *plate = plate_ids[*plate as usize];
            *disease = went(disease_ids.as_deref(), *disease);
            *compound = went(compound_ids.as_deref(), *compound);
        }
        drop((disease_ids, compound_ids));
        seen.sort_unstable();
        // (series, plate) pairs, by series then plate.
        let mut lies_on: Vec<(SeriesKey, u32)> = Vec::with_capacity(seen.len());
        for wells in seen.chunk_by(|a, b| a.0 == b.0) {
            lies_on.extend(series_of_plate(wells));
        }
        drop(seen);
        lies_on.sort_unstable();
        lies_on.dedup();
        let spans = || lies_on.chunk_by(|a, b| a.0 == b.0);
        let order = reading_order(plates.len(), spans());
        let mut place = vec![0u32; plates.len()];
        for (at, &plate) in order.iter().enumerate() {
            place[plate as usize] = number(at);
        }
        let mut needed_until: Vec<u32> = (0..number(plates.len())).collect();
        let mut opens = vec![0i64; plates.len() + 1];
        let mut series = Vec::with_capacity(spans().count());
        let mut lasts = Vec::with_capacity(series.capacity());
        for span in spans() {
            let places = || span.iter().map(|(_, plate)| place[*plate as usize]);
            let (Some((key, _)), Some(first), Some(last)) = (span.first(), places().min(), places().max())
            else {
                continue;
            };
            let of = Series::new(*key, span.len());
            opens[first as usize] += 1;
            opens[last as usize + 1] -= 1;
            if key.kind >= Kind::Treated && !of.wide() {
                for at in places() {
                    let until = &mut needed_until[at as usize];
                    *until = (*until).max(last);
                }
            }
            series.push(of);
            lasts.push(last);
        }
        let (completed, complete_after) = in_order_of(&lasts, plates.len());
        let mut open = 0;
        let most_open = opens.iter().fold(0, |most, change| {
            open += change;
            most.max(open)
        });
        Ok(Design {
            wells,
            reference: order.iter().map(|&plate| reference[plate as usize]).collect(),
            order: order
                .iter()
                .map(|&plate| plates[plate as usize].clone())
                .collect(),
            diseases,
            compounds,
            series,
            completed,
            complete_after,
            needed_until,
            most_open: usize::try_from(most_open).unwrap_or(0),
        })
    }
}

/// The numbers of `lasts` in the order of their places, and how many have a place up to each of `places`.
fn in_order_of(lasts: &[u32], places: usize) -> (Vec<u32>, Vec<u32>) {
    let mut ends = vec![0u32; places];
    lasts.iter().for_each(|&last| ends[last as usize] += 1);
    let mut start = 0;
    for end in &mut ends {
        // Where the first of the place goes; it moves on with every one that is put there.
        start += std::mem::replace(end, start);
    }
    let mut order = vec![0; lasts.len()];
    for (series, &last) in (0u32..).zip(lasts) {
        let end = &mut ends[last as usize];
        order[*end as usize] = series;
        *end += 1;
    }
    (order, ends)
}

/// The series of one plate. Reference wells without a disease belong to each disease of the plate, and so do reference
/// wells with a compound (see [`counter_screen`]).
fn series_of_plate(wells: &[(u32, u8, u32, u32)]) -> Vec<(SeriesKey, u32)> {
    // The absence of a name comes before all names.
    let none = 0;
    let disease = |id: u32| (id != none).then_some(id);
    let counters = counter_screen(wells.iter().map(|&(_, role, id, _)| (role == 1, disease(id))));
    let targets: BTreeSet<u32> = wells
        .iter()
        .filter(|&&(_, role, disease, _)| role != 0 && !(role == 2 && disease == none && counters))
        .map(|&(_, _, disease, _)| disease)
        .collect();
    let mut found = Vec::with_capacity(wells.len());
    for &(plate, role, disease, compound) in wells {
        let kind = match role {
            0 => Kind::Reference,
            1 => Kind::Phenotype,
            _ if disease == none && counters => Kind::Counter,
            _ => Kind::Treated,
        };
        let shared = disease == none && matches!(kind, Kind::Reference | Kind::Counter);
        let mut push = |disease| {
            let key = SeriesKey {
                disease,
                kind,
                compound,
            };
            found.push((key, plate));
        };
        if shared {
            targets.iter().for_each(|&disease| push(disease));
        } else {
            push(disease);
        }
    }
    found
}

/// Whether the treated wells of a plate that name no disease are reference wells with a compound: they are where every
/// phenotype well names one. `wells`: whether a well is a phenotype well, and its disease.
pub(super) fn counter_screen<D>(wells: impl Iterator<Item = (bool, Option<D>)>) -> bool {
    let mut named = false;
    for (phenotype, disease) in wells {
        match (phenotype, disease) {
            (true, None) => return false,
            (true, Some(_)) => named = true,
            (false, _) => {}
        }
    }
    named
}

/// Plates that share a series of at most [`WIDEST`] plates stand together, by barcode; such clusters follow each other
/// by their first barcode.
fn reading_order<'s>(plates: usize, spans: impl Iterator<Item = &'s [(SeriesKey, u32)]>) -> Vec<u32> {
    let mut parent: Vec<u32> = (0..number(plates)).collect();
    fn root(parent: &mut [u32], mut at: u32) -> u32 {
        while parent[at as usize] != at {
            parent[at as usize] = parent[parent[at as usize] as usize];
            at = parent[at as usize];
        }
        at
    }
    for span in spans {
        let binding = span.len() <= WIDEST && span.first().is_some_and(|(key, _)| key.kind >= Kind::Treated);
        if !binding {
            continue;
        }
        for pair in span.windows(2) {
            let (a, b) = (root(&mut parent, pair[0].1), root(&mut parent, pair[1].1));
            // The smaller becomes the root, so that a cluster's root is its first barcode.
            parent[a.max(b) as usize] = a.min(b);
        }
    }
    let mut order: Vec<(u32, u32)> = (0..number(plates))
        .map(|plate| (root(&mut parent, plate), plate))
        .collect();
    order.sort_unstable();
    order.into_iter().map(|(_, plate)| plate).collect()
}

/// A number that fits, because [`DesignBuilder::finish`] refuses what does not.
fn number(n: usize) -> u32 {
    u32::try_from(n).unwrap_or(u32::MAX)
}

/// Names in order, and where each of the numbers below `numbered` went.
fn sorted<K>(names: impl IntoIterator<Item = (K, u32)>, numbered: usize) -> (Vec<K>, Vec<u32>) {
    let mut to = vec![0; numbered];
    let mut list = Vec::with_capacity(numbered);
    for (at, (name, id)) in names.into_iter().enumerate() {
        to[id as usize] = number(at);
        list.push(name);
    }
    (list, to)
}
