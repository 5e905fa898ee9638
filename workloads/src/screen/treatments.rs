//! From a plate map and a screen's selectors to what each well was given, with its role.
//!
//! The rows of one plate enter, a treatment per well leaves. Fails with every problem at once.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt;

use super::nearest::nearest;
use super::{Controls, Selector};
use crate::plate_map::{PlateMap, Row};
use crate::profile::{Role, Treatment};
use crate::words::{Barcode, WellPosition};

/// Why the wells of a plate could not be given roles.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum TreatmentError {
    /// The map has no row for the plate.
    #[error("{file}: no row for plate {plate}: the map has plates {}", known.join(", "))]
    UnknownPlate {
        /// The plate map.
        file: String,
        /// The plate.
        plate: Barcode,
        /// Plates of the map, at most 10.
        known: Vec<String>,
    },
    /// A selector names a column the map does not have.
    #[error("controls.{selector} names column '{column}', which {file} does not have{}", match nearest { Some(name) => format!(": did you mean '{name}'?"), None => format!(": it has {}", known.join(", ")) })]
    UnknownColumn {
        /// `reference`, `phenotype` or `exclude`.
        selector: &'static str,
        /// The plate map.
        file: String,
        /// The column.
        column: String,
        /// The nearest column of the map, where one is near.
        nearest: Option<String>,
        /// The columns of the map.
        known: Vec<String>,
    },
    /// A selector that must select wells selects none.
    #[error("controls.{selector} ({wanted}) selects no well of plate {plate} in {file}; {}", values.join("; "))]
    NoWell {
        /// `reference` or `phenotype`.
        selector: &'static str,
        /// The selector in words.
        wanted: String,
        /// The plate map.
        file: String,
        /// The plate.
        plate: Barcode,
        /// Per column of the selector: the values that exist on the plate, at most 12 of each.
        values: Vec<String>,
    },
    /// Wells that are both reference and phenotype.
    #[error("controls.reference and controls.phenotype both select {} of plate {plate}: they define the two ends of one axis", wells.join(", "))]
    BothControls {
        /// The plate.
        plate: Barcode,
        /// The wells.
        wells: Vec<String>,
    },
    /// Wells that are neither control nor have a compound.
    #[error("plate {plate}: {} are neither reference nor phenotype and have no compound: give them one in {file}, set plate_map.compound, or select them in controls.exclude", wells.join(", "))]
    NoCompound {
        /// The plate map.
        file: String,
        /// The plate.
        plate: Barcode,
        /// The wells.
        wells: Vec<String>,
    },
}

/// Every problem with the roles of one plate; at least one.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct TreatmentErrors(pub Vec<TreatmentError>);

impl fmt::Display for TreatmentErrors {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (index, error) in self.0.iter().enumerate() {
            if index > 0 {
                f.write_str("\n")?;
            }
            error.fmt(f)?;
        }
        Ok(())
    }
}

impl std::error::Error for TreatmentErrors {}

pub(super) fn treatments(
    controls: &Controls,
    map: &PlateMap,
    plate: &Barcode,
) -> Result<BTreeMap<WellPosition, Treatment>, TreatmentErrors> {
    let (treatments, bare) = of_known_wells(controls, map, plate)?;
    if bare.is_empty() {
        return Ok(treatments);
    }
    Err(TreatmentErrors(vec![TreatmentError::NoCompound {
        file: map.file().to_owned(),
        plate: plate.clone(),
        wells: bare.iter().map(WellPosition::to_string).collect(),
    }]))
}

/// The treatments, and the wells left out of them because they are no control and have no compound.
pub(super) fn of_known_wells(
    controls: &Controls,
    map: &PlateMap,
    plate: &Barcode,
) -> Result<(BTreeMap<WellPosition, Treatment>, Vec<WellPosition>), TreatmentErrors> {
    let Some(rows) = map.plate(plate) else {
        return Err(TreatmentErrors(vec![TreatmentError::UnknownPlate {
            file: map.file().to_owned(),
            plate: plate.clone(),
            known: map.plates().take(10).map(Barcode::to_string).collect(),
        }]));
    };
    let wanted = || {
        let phenotype = controls.phenotype.iter().map(|selector| ("phenotype", selector));
        std::iter::once(("reference", &controls.reference)).chain(phenotype)
    };
    let named = wanted().chain(controls.exclude.iter().map(|selector| ("exclude", selector)));
    let mut errors: Vec<TreatmentError> = named
        .flat_map(|(name, selector)| unknown_columns(name, selector, map))
        .collect();
    if !errors.is_empty() {
        return Err(TreatmentErrors(errors));
    }

    let selects = |selector: &Selector, row: &Row| selector.matches(|column| map.cell(row, column));
    let kept: Vec<(WellPosition, &Row)> = rows
        .iter()
        .filter(|(_, row)| !controls.exclude.iter().any(|selector| selects(selector, row)))
        .map(|(well, row)| (*well, row))
        .collect();
    let is_reference = |row: &Row| selects(&controls.reference, row);
    let is_phenotype = |row: &Row| {
        let selector = controls.phenotype.as_ref();
        selector.is_some_and(|selector| selects(selector, row))
    };

    for (name, selector) in wanted() {
        if !kept.iter().any(|(_, row)| selects(selector, row)) {
            errors.push(TreatmentError::NoWell {
                selector: name,
                wanted: selector.to_string(),
                file: map.file().to_owned(),
                plate: plate.clone(),
                values: selector
                    .0
                    .keys()
                    .map(|column| existing(map, &kept, column))
                    .collect(),
            });
        }
    }
    let both: Vec<String> = kept
        .iter()
        .filter(|(_, row)| is_reference(row) && is_phenotype(row))
        .map(|(well, _)| well.to_string())
        .collect();
    if !both.is_empty() {
        errors.push(TreatmentError::BothControls {
            plate: plate.clone(),
            wells: both,
        });
    }
    if !errors.is_empty() {
        return Err(TreatmentErrors(errors));
    }

    // "healthy" in a disease column names no disease model: only what phenotype wells carry is one.
    let diseases: BTreeSet<&str> = kept
        .iter()
        .filter(|(_, row)| is_phenotype(row))
        .filter_map(|(_, row)| row.disease.as_deref())
        .collect();
    // What reference wells are called instead: with a compound they are a counter-screen, and name no disease either.
    let healthy: BTreeSet<&str> = kept
        .iter()
        .filter(|(_, row)| is_reference(row))
        .filter_map(|(_, row)| row.disease.as_deref())
        .filter(|name| !diseases.contains(name))
        .collect();
    let (known, bare): (Vec<_>, Vec<_>) = kept
        .into_iter()
        .partition(|(_, row)| is_reference(row) || is_phenotype(row) || row.compound.is_some());
    let treatments = known
        .into_iter()
        .map(|(well, row)| {
            let role = match (is_reference(row), is_phenotype(row)) {
                (true, _) => Role::Reference,
                (_, true) => Role::Phenotype,
                _ => Role::Treated,
            };
            let reference = role == Role::Reference;
            // Constants of the screen speak of treated wells, not of the reference they are compared with.
            let disease = match &row.disease {
                Some(_) if reference && !map.has_disease_column() => None,
                Some(name) if reference && !diseases.contains(name.as_str()) => None,
                Some(name) if map.has_disease_column() && healthy.contains(name.as_str()) => None,
                other => other.clone(),
            };
            let compound = match &row.compound {
                Some(_) if reference && !map.has_compound_column() => None,
                other => other.clone(),
            };
            let treatment = Treatment {
                role,
                disease,
                compound,
                dose: row.dose,
            };
            (well, treatment)
        })
        .collect();
    Ok((treatments, bare.into_iter().map(|(well, _)| well).collect()))
}

fn unknown_columns(name: &'static str, selector: &Selector, map: &PlateMap) -> Vec<TreatmentError> {
    let unknown = selector.0.keys().filter(|column| !map.columns().contains(column));
    unknown
        .map(|column| TreatmentError::UnknownColumn {
            selector: name,
            file: map.file().to_owned(),
            column: column.clone(),
            nearest: nearest(column, map.columns().iter().map(String::as_str)).map(str::to_owned),
            known: map.columns().to_vec(),
        })
        .collect()
}

/// "role is one of compound, dmso": the values a column has among the plate's wells, at most 12.
fn existing(map: &PlateMap, rows: &[(WellPosition, &Row)], column: &str) -> String {
    let values: BTreeSet<&str> = rows.iter().filter_map(|(_, row)| map.cell(row, column)).collect();
    let more = if values.len() > 12 { ", ..." } else { "" };
    let shown: Vec<String> = values.iter().take(12).map(|value| format!("'{value}'")).collect();
    format!("its column '{column}' holds {}{more}", shown.join(", "))
}
