//! What profiles must be before anything is computed from them. The profiles of a plate enter, the same profiles
//! leave by well. Fails on profiles that contradict each other, naming plate, well and column.

use std::borrow::Borrow;

use super::CompareError;
use crate::profile::WellProfile;
use crate::words::Barcode;

/// The profiles of one plate, by well.
///
/// `width`: features of a profile, known after the first one.
pub(super) fn checked<'w, W: Borrow<WellProfile>>(
    plate: &Barcode,
    wells: &'w [W],
    width: &mut Option<usize>,
) -> Result<Vec<&'w WellProfile>, CompareError> {
    let mut sorted: Vec<&WellProfile> = wells.iter().map(Borrow::borrow).collect();
    sorted.sort_by_key(|profile| profile.well);
    for pair in sorted.windows(2) {
        if let [a, b] = pair
            && a.well == b.well
        {
            return Err(CompareError::DuplicateWell {
                plate: a.plate.clone(),
                well: a.well,
            });
        }
    }
    for profile in &sorted {
        check(profile, plate, width)?;
    }
    Ok(sorted)
}

fn check(profile: &WellProfile, asked: &Barcode, width: &mut Option<usize>) -> Result<(), CompareError> {
    let (plate, well) = (profile.plate.clone(), profile.well);
    if plate != *asked {
        return Err(CompareError::Unplanned { plate, well });
    }
    let found = profile.values.len();
    let expected = *width.get_or_insert(found.max(1));
    if found != expected {
        return Err(CompareError::Width {
            plate,
            well,
            expected,
            found,
        });
    }
    if let Some((column, &value)) = profile.values.iter().enumerate().find(|(_, v)| !v.is_finite()) {
        return Err(CompareError::NotFinite {
            plate,
            well,
            column,
            value,
        });
    }
    let usable = |v: f64| v.is_finite() && v >= 0.0;
    if let Some(dose) = profile.treatment.dose.filter(|&dose| !usable(dose)) {
        return Err(CompareError::Dose { plate, well, dose });
    }
    if let Some(count) = profile.cell_count.filter(|&count| !usable(count)) {
        return Err(CompareError::CellCount { plate, well, count });
    }
    Ok(())
}
