//! What is known of a plate's wells besides their profiles: which fields counted, and whether the plate counts.
//!
//! Used by a run and by `wellspring compare`, so that both hold back the same plates and show the same wells.

mod gather;

pub use gather::{PlateFields, PlateWells, nuclei};

use std::collections::BTreeMap;

use wellspring_workloads::position::plate_format;
use wellspring_workloads::profile::{Role, Treatment};
use wellspring_workloads::screen::QualitySettings;
use wellspring_workloads::words::{Barcode, WellPosition};

use crate::report::{PlateFacts, WellFacts};

/// How many fields a well has, and how many of them passed quality control.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct FieldCount {
    /// All fields.
    pub fields: u32,
    /// Those that passed.
    pub passed: u32,
}

/// Wells of a plate that are named one by one where they have too few fields.
const NAMED_WELLS: usize = 3;

/// Wells of a plate with too few passing fields for a profile, in words: each by itself, or many in one line.
pub fn too_few_fields(plate: &Barcode, wells: &[(WellPosition, FieldCount)]) -> Vec<String> {
    if wells.len() > NAMED_WELLS {
        let named = wells.iter().take(NAMED_WELLS);
        let named: Vec<String> = named.map(|(well, _)| well.to_string()).collect();
        return vec![format!(
            "plate {plate}: {} wells have too few fields that passed quality control for a profile ({}, ...)",
            wells.len(),
            named.join(", ")
        )];
    }
    let line = |(well, count): &(WellPosition, FieldCount)| {
        format!(
            "plate {plate} well {well}: {} of {} fields passed quality control, too few for a profile",
            count.passed, count.fields
        )
    };
    wells.iter().map(line).collect()
}

/// Why too many fields failed for the plate to be compared; `None` where they did not.
pub fn held_back(
    settings: &QualitySettings,
    treatments: &BTreeMap<WellPosition, Treatment>,
    wells: &BTreeMap<WellPosition, FieldCount>,
) -> Option<String> {
    let percent_failed = |controls: bool| {
        let counted = wells.iter().filter(|(well, _)| {
            treatments
                .get(well)
                .is_some_and(|treatment| !controls || treatment.role != Role::Treated)
        });
        let (failed, all) = counted.fold((0, 0), |(failed, all), (_, count)| {
            (failed + (count.fields - count.passed), all + count.fields)
        });
        if all == 0 {
            0.0
        } else {
            100.0 * f64::from(failed) / f64::from(all)
        }
    };
    [
        ("fields", percent_failed(false), settings.plate_failed_percent),
        (
            "control fields",
            percent_failed(true),
            settings.control_failed_percent,
        ),
    ]
    .into_iter()
    .find(|(_, percent, limit)| settings.enabled && percent > limit)
    .map(|(what, percent, limit)| {
        format!(
            "{percent:.1} % of its {what} failed quality control, more than {limit} %; look at the quality flags, or \
             raise the limit in [quality]"
        )
    })
}

/// The plate as the report shows it: the smallest format that holds its wells, and what each was given.
pub fn plate_facts(
    barcode: &Barcode,
    treatments: &BTreeMap<WellPosition, Treatment>,
    wells: &BTreeMap<WellPosition, FieldCount>,
) -> PlateFacts {
    let facts = |(well, treatment): (&WellPosition, &Treatment)| {
        let count = wells.get(well).copied().unwrap_or_default();
        WellFacts {
            well: *well,
            role: treatment.role,
            disease: treatment.disease.clone(),
            compound: treatment.compound.clone(),
            dose: treatment.dose,
            fields_passed: count.passed,
            fields_expected: count.fields,
        }
    };
    PlateFacts {
        barcode: barcode.clone(),
        shape: plate_format(treatments.keys().copied()),
        wells: treatments.iter().map(facts).collect(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn plate(failed_controls: u32, failed_treated: u32, plate_limit: f64) -> Option<String> {
        let treatment = |role| Treatment {
            role,
            disease: None,
            compound: None,
            dose: None,
        };
        let wells: [WellPosition; 2] = ["A01".parse().unwrap(), "A02".parse().unwrap()];
        let treatments = BTreeMap::from([
            (wells[0], treatment(Role::Reference)),
            (wells[1], treatment(Role::Treated)),
        ]);
        let count = |failed| FieldCount {
            fields: 10,
            passed: 10 - failed,
        };
        let wells = BTreeMap::from([
            (wells[0], count(failed_controls)),
            (wells[1], count(failed_treated)),
        ]);
        let settings = QualitySettings {
            plate_failed_percent: plate_limit,
            ..QualitySettings::default()
        };
        held_back(&settings, &treatments, &wells)
    }

    #[test]
    fn many_wells_with_too_few_fields_are_one_line() {
        let plate: Barcode = "P1".parse().unwrap();
        let well = |column| {
            (
                WellPosition::new(1, column).unwrap(),
                FieldCount { fields: 4, passed: 1 },
            )
        };
        let wells: Vec<_> = (1..=40).map(well).collect();
        let few = too_few_fields(&plate, &wells[..2]);
        assert_eq!(few.len(), 2);
        assert!(
            few[1].starts_with("plate P1 well A02: 1 of 4 fields passed"),
            "{few:?}"
        );
        let many = too_few_fields(&plate, &wells);
        assert_eq!(many.len(), 1);
        assert!(
            many[0].contains("40 wells") && many[0].contains("(A01, A02, A03, ...)"),
            "{many:?}"
        );
    }

    #[test]
    fn a_plate_is_held_back_above_the_limits_and_not_at_them() {
        assert_eq!(plate(1, 1, 10.0), None);
        assert!(plate(0, 3, 10.0).is_some_and(|reason| reason.starts_with("15.0 % of its fields")));
        assert!(plate(3, 0, 50.0).is_some_and(|reason| reason.starts_with("30.0 % of its control fields")));
    }
}
