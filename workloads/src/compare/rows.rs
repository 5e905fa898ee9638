//! Compound x dose x disease rows: scored wells of all plates enter, one [`Comparison`] per group leaves, with
//! p-values against groups of as many controls, corrected within the disease. Calls follow in `call`.

use std::collections::BTreeMap;

use rayon::prelude::*;

use super::axis::{self, Position};
use super::multiple::{benjamini_hochberg, hierarchical};
use super::null::{self, Null, Plan, Pool};
use super::plates::{ScoredPlate, ScoredWell};
use super::{Call, Comparison, ComparisonSettings, Correction, Question};

/// What a group is, in the order of the result rows.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Kind {
    Reference,
    Phenotype,
    Treated,
}

/// Disease, kind, compound, dose (as bits, which order like the numbers they are: no dose is negative).
type Key<'a> = (Option<&'a str>, Kind, Option<&'a str>, Option<u64>);

/// The wells of one row.
pub(super) struct Group<'s, 'a> {
    pub(super) kind: Kind,
    /// Plate number and well, by plate and well.
    pub(super) wells: Vec<(usize, &'s ScoredWell<'a>)>,
    /// Smallest p-value the group's null can give; `None` without a null.
    pub(super) smallest_p: Option<f64>,
}

/// Wells on each plate: what a null depends on.
type Shape = Vec<(usize, usize)>;

/// One row per group. Calls are [`Call::Reference`] and [`Call::Phenotype`] for controls and still
/// [`Call::Untested`] for treated rows.
pub(super) fn rows<'s, 'a>(
    plates: &'s [ScoredPlate<'a>],
    settings: &ComparisonSettings,
) -> (Vec<Comparison>, Vec<Group<'s, 'a>>) {
    let mut groups: BTreeMap<Key<'a>, Vec<(usize, &'s ScoredWell<'a>)>> = BTreeMap::new();
    for (number, plate) in plates.iter().enumerate() {
        let sides = [
            (Kind::Reference, &plate.reference),
            (Kind::Phenotype, &plate.phenotype),
            (Kind::Treated, &plate.treated),
        ];
        for (kind, wells) in sides {
            for well in wells {
                let treatment = &well.profile.treatment;
                // Adding 0 turns -0 into 0, whose bits differ.
                let dose = treatment.dose.map(|dose| (dose + 0.0).to_bits());
                let key = (plate.disease, kind, treatment.compound.as_deref(), dose);
                groups.entry(key).or_default().push((number, well));
            }
        }
    }
    let groups: Vec<(Key<'a>, Vec<(usize, &ScoredWell<'a>)>)> = groups.into_iter().collect();
    let mut nulls: BTreeMap<Shape, Option<Null>> = BTreeMap::new();
    for (key, wells) in &groups {
        if key.1 == Kind::Treated {
            nulls.insert(shape(wells), None);
        }
    }
    nulls
        .par_iter_mut()
        .for_each(|(shape, null)| *null = null_of(shape, plates, settings));

    let mut rows = Vec::with_capacity(groups.len());
    let mut out = Vec::with_capacity(groups.len());
    for (key, wells) in groups {
        let null = if key.1 == Kind::Treated {
            nulls.get(&shape(&wells)).and_then(Option::as_ref)
        } else {
            None
        };
        rows.push(row(key, &wells, plates, null, settings));
        out.push(Group {
            kind: key.1,
            wells,
            smallest_p: null.map(Null::smallest_p),
        });
    }
    correct(&mut rows, &out, settings.correction);
    (rows, out)
}

fn shape(wells: &[(usize, &ScoredWell<'_>)]) -> Shape {
    wells
        .chunk_by(|a, b| a.0 == b.0)
        .filter_map(|same| same.first().map(|first| (first.0, same.len())))
        .collect()
}

/// How much of the effect in question a position shows: rescue, or position on the axis.
pub(super) fn effect(on_axis: f64, question: Question) -> f64 {
    match question {
        Question::Rescue => 1.0 - on_axis,
        Question::Response => on_axis,
    }
}

fn null_of(shape: &Shape, plates: &[ScoredPlate<'_>], settings: &ComparisonSettings) -> Option<Null> {
    let usable = |number: usize| {
        plates[number]
            .null_wells(settings.question)
            .iter()
            .filter(|well| well.leave_one_out)
    };
    let effects: Vec<Vec<f64>> = shape
        .iter()
        .map(|&(number, _)| {
            usable(number)
                .map(|w| effect(w.position.on_axis, settings.question))
                .collect()
        })
        .collect();
    let scaled: Vec<Vec<&[f64]>> = shape
        .iter()
        .map(|&(number, _)| usable(number).map(|w| w.scaled.as_slice()).collect())
        .collect();
    let pools: Vec<Pool<'_>> = shape
        .iter()
        .zip(effects.iter().zip(&scaled))
        .map(|(&(number, wells), (effects, scaled))| Pool {
            effects,
            scaled,
            unit: plates[number].axis.unit(),
            wells,
        })
        .collect();
    let counts: Vec<[u8; 8]> = shape
        .iter()
        .map(|&(_, wells)| (wells as u64).to_le_bytes())
        .collect();
    let parts = shape.iter().zip(&counts).flat_map(|(&(number, _), count)| {
        let plate = &plates[number];
        [
            plate.plate.as_str().as_bytes(),
            plate.disease.unwrap_or_default().as_bytes(),
            count.as_slice(),
        ]
    });
    let plan = Plan {
        exact_combinations: settings.thresholds.exact_combinations,
        draws: settings.thresholds.draws,
        seed: null::seed_for(settings.seed, parts),
    };
    null::build(&pools, plan)
}

fn row(
    (disease, kind, compound, dose): Key<'_>,
    wells: &[(usize, &ScoredWell<'_>)],
    plates: &[ScoredPlate<'_>],
    null: Option<&Null>,
    settings: &ComparisonSettings,
) -> Comparison {
    let mean = |values: &mut dyn Iterator<Item = f64>| {
        let (sum, n) = values.fold((0.0, 0.0), |(sum, n), v| (sum + v, n + 1.0));
        (n > 0.0).then_some(sum / n)
    };
    let on_axis = mean(&mut wells.iter().map(|(_, w)| w.position.on_axis)).unwrap_or(0.0);
    let mean_off = mean(&mut wells.iter().map(|(_, w)| w.position.off_axis)).unwrap_or(0.0);
    let off_axis = match kind {
        Kind::Treated => vector_off_axis(wells, plates).unwrap_or(mean_off),
        Kind::Reference | Kind::Phenotype => mean_off,
    };
    let position = Position { on_axis, off_axis };
    Comparison {
        disease: disease.map(str::to_owned),
        compound: compound.map(str::to_owned),
        dose: dose.map(f64::from_bits),
        dose_unit: settings.dose_unit.clone(),
        n_wells: wells.len(),
        n_plates: shape(&wells.iter().map(|&(p, w)| (p, w)).collect::<Vec<_>>()).len(),
        on_axis,
        off_axis,
        off_z: mean(&mut wells.iter().filter_map(|(_, w)| w.off_z)),
        off_z_support: lower_median(wells.iter().filter_map(|(_, w)| w.off_z).collect()),
        effect_z: mean(&mut wells.iter().filter_map(|(_, w)| w.effect_z)),
        effect_z_support: lower_median(wells.iter().filter_map(|(_, w)| w.effect_z).collect()),
        rescue: position.rescue(),
        distance: position.distance(),
        direction_cosine: match settings.question {
            Question::Rescue => position.cos_to_rescue(),
            Question::Response => position.cos_to_phenotype(),
        },
        cell_ratio: mean(&mut wells.iter().filter_map(|(_, w)| w.cell_ratio)),
        p_value: null.map(|null| null::p_at_least(&null.effects, effect(on_axis, settings.question))),
        q_value: None,
        p_off: null.map(|null| null::p_at_least(&null.off_axis, off_axis)),
        q_off: None,
        call: match kind {
            Kind::Reference => Call::Reference,
            Kind::Phenotype => Call::Phenotype,
            Kind::Treated => Call::Untested,
        },
    }
}

/// Off-axis length of the mean vector over wells, against the common direction of their plates' axes. Averaging
/// before taking the length lowers the noise floor by the root of the replicates (SCIENCE 6.1).
fn vector_off_axis(wells: &[(usize, &ScoredWell<'_>)], plates: &[ScoredPlate<'_>]) -> Option<f64> {
    let rows: Vec<&[f64]> = wells.iter().map(|(_, w)| w.scaled.as_slice()).collect();
    let shape = shape(wells);
    let unit = null::common_unit(shape.iter().map(|&(number, n)| (n, plates[number].axis.unit())))?;
    Some(axis::position(&axis::mean(&rows)?, &unit).off_axis)
}

/// q-values over the treated rows of each disease; rows are in order of disease.
fn correct(rows: &mut [Comparison], groups: &[Group<'_, '_>], correction: Correction) {
    let mut start = 0;
    let ends: Vec<usize> = rows
        .chunk_by(|a, b| a.disease == b.disease)
        .map(<[Comparison]>::len)
        .collect();
    for length in ends {
        let tested: Vec<usize> = (start..start + length)
            .filter(|&i| groups[i].kind == Kind::Treated)
            .collect();
        start += length;
        let mut compound = Vec::with_capacity(tested.len());
        for (place, &i) in tested.iter().enumerate() {
            let number = match place.checked_sub(1) {
                None => 0,
                Some(last) => compound[last] + usize::from(rows[tested[last]].compound != rows[i].compound),
            };
            compound.push(number);
        }
        let corrected = |p: Vec<Option<f64>>| match correction {
            Correction::Bh => benjamini_hochberg(&p),
            Correction::Hierarchical => hierarchical(&p, &compound),
        };
        let q = corrected(tested.iter().map(|&i| rows[i].p_value).collect());
        let q_off = corrected(tested.iter().map(|&i| rows[i].p_off).collect());
        for (&i, (q, q_off)) in tested.iter().zip(q.into_iter().zip(q_off)) {
            rows[i].q_value = q;
            rows[i].q_off = q_off;
        }
    }
}

/// The value that at least half of `values` reach: the median, and the lower of the two middle ones.
fn lower_median(mut values: Vec<f64>) -> Option<f64> {
    values.sort_by(f64::total_cmp);
    values.get(values.len().checked_sub(1)? / 2).copied()
}
