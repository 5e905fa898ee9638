//! From aligned wells, plate by plate, to disease signatures, compound effects and the control wells of their nulls.
//!
//! A plate's treatments and feature rows enter; means leave. Sums of effects that are complete
//! ([`SignatureGatherer::settle`]) wait in a spool, and others where they are more than
//! [`SignatureSettings::held_bytes`]. Memory grows with the names of compounds and with diseases, not with wells: control wells are kept up to a limit for each origin, chosen by a hash of plate and well.
//!
//! Frame (SCIENCE 6.2): the origin of every effect is the plate's own controls, since a cosine depends on the origin:
//! the disease controls for a compound on a disease model, the healthy ones for a compound on healthy cells.
//!
//! Fails on a plate that contradicts the others, and where the spool does. Wells without an origin on their plate are left out and named.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use super::effects::{Effects, OpenEffects};
use super::reservoir::Reservoir;
use super::rows::EffectVectors;
use super::vectors::Vectors;
use super::{SignatureError, SignatureSettings, TreatedCells};
use crate::compare::axis::Centre;
use crate::compare::null::seed_for;
use crate::compare::{Design, Spool};
use crate::matrix::FeatureMatrix;
use crate::profile::{Role, Treatment};
use crate::words::{Barcode, WellPosition};

/// What an effect is measured from.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub enum Origin {
    /// The plate's healthy controls: the compound was given to healthy cells.
    Healthy,
    /// The plate's controls of this disease model; `None` is the only, unnamed one.
    Disease(Option<String>),
}

/// A disease signature `v`: the mean over plates of (disease controls − healthy controls).
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Signature {
    /// The disease model; `None` is the only, unnamed one.
    pub disease: Option<String>,
    /// Plates it was measured on.
    pub plates: usize,
    /// Disease control wells.
    pub wells: usize,
}

/// Wells that could not be used.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct LeftOut {
    /// The plate.
    pub plate: Barcode,
    /// Their disease model.
    pub disease: Option<String>,
    /// How many.
    pub wells: usize,
    /// For people: why, and what would help.
    pub reason: String,
}

/// Signatures, effects and control wells of a screen.
#[derive(Debug, Clone)]
pub struct SignatureScreen<S> {
    /// In order of their names.
    pub signatures: Vec<Signature>,
    /// Row `k` is the vector of signature `k`.
    pub signature_vectors: Vectors,
    /// In order of compound, dose and origin.
    pub effects: Arc<Effects>,
    /// Vector `g` is that of effect `g`.
    pub effect_vectors: EffectVectors<S>,
    /// What could not be used.
    pub left_out: Vec<LeftOut>,
    pub(super) pools: BTreeMap<Origin, ControlPool>,
}

/// Control wells of one origin: `r_i = c_i − mean of the plate's other controls`.
#[derive(Debug, Clone)]
pub(super) struct ControlPool {
    /// Row `i` is `r_i`.
    pub(super) rows: FeatureMatrix,
    /// `1 / n` of each well's plate.
    pub(super) share: Vec<f64>,
    /// By signature: what leaving the wells out of the controls takes from it, as a factor of `Σ r_i / n_i`; 0
    /// for signatures that the wells have no part in.
    pub(super) moves: Vec<f64>,
}

#[derive(Debug, Default)]
struct SignatureSum {
    sum: Vec<f64>,
    plates: usize,
    wells: usize,
    /// Control wells on the plates that count, by side; see [`ControlPool::moves`].
    healthy_wells: usize,
}

/// Gathers a screen plate by plate.
#[derive(Debug)]
pub struct SignatureGatherer<S> {
    settings: SignatureSettings,
    width: Option<usize>,
    seen: BTreeSet<Barcode>,
    signatures: BTreeMap<Option<String>, SignatureSum>,
    effects: OpenEffects<S>,
    reservoirs: BTreeMap<Origin, Reservoir>,
    left_out: Vec<LeftOut>,
}

impl<S: Spool> SignatureGatherer<S> {
    /// `spool`: holds effects and what is computed from them, behind what it has.
    ///
    /// # Errors
    /// A setting is out of range, or the spool cannot be used.
    pub fn new(settings: &SignatureSettings, spool: S) -> Result<Self, SignatureError> {
        settings.check()?;
        Ok(Self {
            settings: *settings,
            width: None,
            seen: BTreeSet::new(),
            signatures: BTreeMap::new(),
            effects: OpenEffects::new(spool, settings.held_bytes)?,
            reservoirs: BTreeMap::new(),
            left_out: Vec::new(),
        })
    }

    /// Shares the names of the compounds of `design`, where memory holds it anyway. Before the first plate.
    #[must_use]
    pub fn of_design(mut self, design: &Design) -> Self {
        self.effects.know(design.compounds());
        self
    }

    /// Adds a plate: `wells[i]` was given what it says and has features `rows.row(i)`, in the aligned frame.
    ///
    /// Wells may come in any order; plates must come in one order where bytes must not differ.
    ///
    /// # Errors
    /// The plate came before, its rows are not as many as its wells, have another width than before, or hold a value
    /// that is not finite; or the spool fails, after which nothing more is to be gathered.
    pub fn plate(
        &mut self,
        plate: &Barcode,
        wells: &[(WellPosition, &Treatment)],
        rows: &FeatureMatrix,
    ) -> Result<(), SignatureError> {
        self.plate_with_outliers(plate, wells, rows, &[])
    }

    /// As [`SignatureGatherer::plate`]; `outliers[i]`: whether well `i` lies far from the other controls of its kind. The
    /// mean of controls with too many of them is trimmed ([`Centre::with`]). Without entries there are none.
    ///
    /// # Errors
    /// As [`SignatureGatherer::plate`].
    pub fn plate_with_outliers(
        &mut self,
        plate: &Barcode,
        wells: &[(WellPosition, &Treatment)],
        rows: &FeatureMatrix,
        outliers: &[bool],
    ) -> Result<(), SignatureError> {
        let order = self.checked(plate, wells, rows)?;
        let mean = |rows: &FeatureMatrix, of: &[usize]| -> Option<Vec<f64>> {
            let far = of.iter().filter(|&&i| outliers.get(i) == Some(&true)).count();
            match Centre::with(far, of.len()) {
                Centre::Mean => mean(rows, of),
                trimmed => {
                    let wide = |&i: &usize| rows.row(i).iter().map(|&v| f64::from(v)).collect();
                    let wide: Vec<Vec<f64>> = of.iter().map(wide).collect();
                    trimmed.of(&wide.iter().map(Vec::as_slice).collect::<Vec<_>>())
                }
            }
        };
        let side = |role: Role, wanted: &dyn Fn(Option<&str>) -> bool| -> Vec<usize> {
            let of = |i: &usize| {
                let treatment = wells[*i].1;
                treatment.role == role && wanted(treatment.disease.as_deref())
            };
            order.iter().copied().filter(of).collect()
        };
        let diseases: BTreeSet<Option<&str>> = wells
            .iter()
            .filter(|(_, treatment)| treatment.role != Role::Reference)
            .map(|(_, treatment)| treatment.disease.as_deref())
            .collect();
        let shared = side(Role::Reference, &|own| own.is_none());
        if let Some(healthy) = mean(rows, &shared) {
            self.reservoir(Origin::Healthy, plate, &shared, &healthy, wells, rows);
        }
        for disease in diseases {
            let reference = side(Role::Reference, &|own| own.is_none() || own == disease);
            let own = side(Role::Reference, &|own| own.is_some() && own == disease);
            let phenotype = side(Role::Phenotype, &|own| own == disease);
            let treated = side(Role::Treated, &|own| own == disease);
            let name = disease.map(str::to_owned);
            let diseased = mean(rows, &phenotype);
            let healthy = mean(rows, &reference);
            let on_healthy_cells = self.settings.treated == TreatedCells::Healthy;
            if let (Some(healthy), true, false) = (&healthy, on_healthy_cells, own.is_empty()) {
                self.reservoir(Origin::Healthy, plate, &own, healthy, wells, rows);
            }
            if let Some(diseased) = &diseased {
                let origin = Origin::Disease(name.clone());
                self.reservoir(origin, plate, &phenotype, diseased, wells, rows);
            }
            if let (Some(diseased), Some(healthy)) = (&diseased, &healthy) {
                let signature = self.signatures.entry(name.clone()).or_default();
                signature.sum.resize(rows.width(), 0.0);
                for ((sum, d), h) in signature.sum.iter_mut().zip(diseased).zip(healthy) {
                    *sum += d - h;
                }
                signature.plates += 1;
                signature.wells += phenotype.len();
                signature.healthy_wells += shared.len() + if on_healthy_cells { own.len() } else { 0 };
            }
            if treated.is_empty() {
                continue;
            }
            // Without a disease and without its controls, the compound was given to healthy cells.
            let origin = match (diseased, disease) {
                _ if on_healthy_cells => healthy.map(|mean| (Origin::Healthy, mean)),
                (Some(mean), _) => Some((Origin::Disease(name.clone()), mean)),
                (None, None) => mean(rows, &shared).map(|mean| (Origin::Healthy, mean)),
                (None, Some(_)) => None,
            };
            match origin {
                Some((origin, mean)) => {
                    let treated = treated.iter().map(|&i| {
                        let treatment = wells[i].1;
                        (treatment.compound.as_deref(), treatment.dose, rows.row(i))
                    });
                    self.effects.add(&origin, &mean, treated)?;
                }
                None => self.left_out.push(LeftOut {
                    plate: plate.clone(),
                    wells: treated.len(),
                    reason: match disease {
                        _ if on_healthy_cells => "the plate has no reference well for them".to_owned(),
                        Some(disease) => format!("the plate has no phenotype well of disease {disease}"),
                        None => "the plate has no reference well".to_owned(),
                    },
                    disease: name,
                }),
            }
        }
        self.effects.limit()
    }

    /// No more wells of a compound at a dose will come: what is kept of it goes to the spool. Where it is never said,
    /// memory grows with the treatments; where wells come all the same, they count.
    ///
    /// # Errors
    /// The spool fails.
    pub fn settle(&mut self, compound: Option<&str>, dose: Option<f64>) -> Result<(), SignatureError> {
        self.effects.settle(compound, dose)
    }

    /// Indices of the wells, by position.
    fn checked(
        &mut self,
        plate: &Barcode,
        wells: &[(WellPosition, &Treatment)],
        rows: &FeatureMatrix,
    ) -> Result<Vec<usize>, SignatureError> {
        let expected = *self.width.get_or_insert(rows.width());
        if rows.width() != expected || expected == 0 {
            return Err(SignatureError::Width {
                plate: plate.clone(),
                expected: expected.max(1),
                found: rows.width(),
            });
        }
        if rows.len() != wells.len() {
            return Err(SignatureError::Rows {
                plate: plate.clone(),
                wells: wells.len(),
                rows: rows.len(),
            });
        }
        for (row, (well, _)) in rows.rows().zip(wells) {
            if let Some((column, &value)) = row.iter().enumerate().find(|(_, value)| !value.is_finite()) {
                return Err(SignatureError::NotFinite {
                    plate: plate.clone(),
                    well: *well,
                    column,
                    value,
                });
            }
        }
        if !self.seen.insert(plate.clone()) {
            return Err(SignatureError::PlateTwice { plate: plate.clone() });
        }
        let mut order: Vec<usize> = (0..wells.len()).collect();
        order.sort_by_key(|&i| wells[i].0);
        Ok(order)
    }

    /// Keeps the plate's controls for the null: each less the mean of the others. One control has no others.
    fn reservoir(
        &mut self,
        origin: Origin,
        plate: &Barcode,
        controls: &[usize],
        mean: &[f64],
        wells: &[(WellPosition, &Treatment)],
        rows: &FeatureMatrix,
    ) {
        let n = controls.len() as f64;
        let (seed, most) = (self.settings.seed, self.settings.pool_wells);
        let reservoir = self.reservoirs.entry(origin).or_default();
        reservoir.offered += controls.len();
        if controls.len() < 2 {
            return;
        }
        for &i in controls {
            let (well, name) = (wells[i].0, wells[i].0.to_string());
            let parts = [plate.as_str().as_bytes(), name.as_bytes()];
            let hash = seed_for(seed, parts.into_iter());
            let row = rows.row(i).iter().zip(mean);
            let row = row.map(|(&value, mean)| ((f64::from(value) - mean) * n / (n - 1.0)) as f32);
            reservoir.offer(most, hash, plate, well, row, 1.0 / n);
        }
    }

    /// Means of all that was gathered.
    ///
    /// # Errors
    /// No disease has a signature, or the spool fails.
    pub fn finish(mut self) -> Result<SignatureScreen<S>, SignatureError> {
        let width = self.width.unwrap_or(0);
        if self.signatures.is_empty() {
            return Err(SignatureError::NoSignature);
        }
        let mut signature_vectors = Vectors::new(width);
        let mut signatures = Vec::with_capacity(self.signatures.len());
        let mut healthy_wells = Vec::with_capacity(self.signatures.len());
        while let Some((disease, sum)) = self.signatures.pop_first() {
            push_mean(&mut signature_vectors, sum.sum, sum.plates);
            healthy_wells.push(sum.healthy_wells);
            signatures.push(Signature {
                disease,
                plates: sum.plates,
                wells: sum.wells,
            });
        }
        let (effects, effect_vectors) = self.effects.finish()?;
        let mut pools = BTreeMap::new();
        while let Some((origin, reservoir)) = self.reservoirs.pop_first() {
            let moves = moves(&origin, reservoir.offered, &signatures, &healthy_wells);
            pools.insert(origin, reservoir.pool(width, moves));
        }
        Ok(SignatureScreen {
            signatures,
            signature_vectors,
            effects: Arc::new(effects),
            effect_vectors,
            left_out: self.left_out,
            pools,
        })
    }
}

/// A signature is the mean over its plates of `d − h`; a control left out of its plate's `d` moves `d` by `−r / n`,
/// out of `h` likewise, so that the signature moves by `∓r / (n plates)`. Healthy controls that a signature has no
/// part in move it by nothing: their share scales the factor, which is exact where every plate carries the disease.
fn moves(origin: &Origin, offered: usize, signatures: &[Signature], healthy_wells: &[usize]) -> Vec<f64> {
    let part = |wells: usize, plates: usize| wells as f64 / offered.max(1) as f64 / plates as f64;
    signatures
        .iter()
        .zip(healthy_wells)
        .map(|(signature, &healthy)| match origin {
            Origin::Healthy => part(healthy, signature.plates),
            Origin::Disease(disease) if *disease == signature.disease => {
                -part(signature.wells, signature.plates)
            }
            Origin::Disease(_) => 0.0,
        })
        .collect()
}

fn push_mean(into: &mut Vectors, mut sum: Vec<f64>, n: usize) {
    sum.iter_mut().for_each(|value| *value /= n as f64);
    // Every sum was made at the width of the screen.
    let pushed = into.push(&sum);
    debug_assert!(pushed.is_ok(), "means of one screen have one width");
}

/// Mean of the named rows; `None` without rows.
fn mean(rows: &FeatureMatrix, of: &[usize]) -> Option<Vec<f64>> {
    if of.is_empty() {
        return None;
    }
    let mut sum = vec![0.0; rows.width()];
    for &i in of {
        for (sum, &value) in sum.iter_mut().zip(rows.row(i)) {
            *sum += f64::from(value);
        }
    }
    sum.iter_mut().for_each(|sum| *sum /= of.len() as f64);
    Some(sum)
}
