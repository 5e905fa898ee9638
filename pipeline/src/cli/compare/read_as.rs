//! What the columns of the tables were taken for, in words: the first thing to look at where results surprise.
//!
//! The tables and where treatments come from enter; one line and a part of `run.json` leave.

use std::collections::BTreeMap;

use serde::Serialize;
use wellspring_workloads::columns::plain;
use wellspring_workloads::plate_map::GivenColumns;
use wellspring_workloads::screen::Screen;

use super::tables::Tables;
use super::treatments::Treatments;

/// Columns by what they were taken for.
#[derive(Debug, Serialize)]
pub(super) struct ReadAs {
    features: usize,
    first_feature: String,
    last_feature: String,
    /// Plate, well, field and so on.
    places: BTreeMap<&'static str, String>,
    given: GivenColumns,
    dose_unit: String,
    /// Columns that look like doses, where none was recognised.
    #[serde(skip)]
    like_doses: Vec<String>,
}

impl ReadAs {
    pub(super) fn new(screen: &Screen, tables: &Tables, treatments: &Treatments) -> Self {
        let given = treatments.given(tables);
        let like_doses = match &given.dose {
            Some(_) => Vec::new(),
            None => {
                let names = treatments.columns_of(tables).iter();
                names.filter(|name| looks_like_a_dose(name)).cloned().collect()
            }
        };
        Self {
            features: tables.features.len(),
            first_feature: tables.features.first().cloned().unwrap_or_default(),
            last_feature: tables.features.last().cloned().unwrap_or_default(),
            places: tables.places.iter().cloned().collect(),
            given,
            dose_unit: screen.plate_map.dose_unit.clone(),
            like_doses,
        }
    }

    /// One line for people.
    pub(super) fn line(&self) -> String {
        let mut parts = vec![format!(
            "{} features {} to {}",
            self.features, self.first_feature, self.last_feature
        )];
        parts.extend(
            self.places
                .iter()
                .map(|(role, column)| format!("{role} {column}")),
        );
        let Self { given, dose_unit, .. } = self;
        let or_none = |column: &Option<String>| column.clone().unwrap_or_else(|| "none".to_owned());
        parts.push(format!("compound {}", or_none(&given.compound)));
        parts.push(match &given.dose {
            Some(column) => format!("dose {column} in {dose_unit}"),
            None => "dose none".to_owned(),
        });
        parts.push(format!("disease {}", or_none(&given.disease)));
        format!("columns read: {}", parts.join(", "))
    }

    /// What a person should look at.
    pub(super) fn doubts(&self) -> Vec<String> {
        let names = self.like_doses.join(", ");
        let mut doubts = Vec::new();
        if !names.is_empty() {
            doubts.push(format!(
                "no column of doses is recognised, so that all wells of a compound count as replicates; {names} may be \
                 one: say so with [plate_map] columns = {{ dose = \"...\" }}"
            ));
        }
        if let Some(column) = &self.given.dose
            && plain(column).0 == "mmoles_per_liter"
        {
            doubts.push(format!(
                "the numbers of {column} are read in {} (plate_map.dose_unit): published tables hold micromoles there, \
                 whatever the name says",
                self.dose_unit
            ));
        }
        doubts
    }
}

fn looks_like_a_dose(column: &str) -> bool {
    const WORDS: [&str; 5] = ["dose", "conc", "molar", "moles_per", "mg_per_ml"];
    let (name, _) = plain(column);
    WORDS.iter().any(|word| name.contains(word)) && !name.contains("unit")
}

#[cfg(test)]
mod tests {
    use super::looks_like_a_dose;

    #[test]
    fn columns_that_may_hold_doses() {
        for (column, expected) in [
            ("Metadata_mg_per_ml", true),
            ("final_conc_nanomolar", true),
            ("Metadata_dose_recode", true),
            ("dose_unit", false),
            ("Metadata_Well", false),
        ] {
            assert_eq!(looks_like_a_dose(column), expected, "{column}");
        }
    }
}
