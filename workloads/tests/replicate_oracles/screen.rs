//! The aligned oracle screen (`efaar_tvn.npy`), in the healthy frame it comes in and in the disease frame.

use wellspring_workloads::matrix::FeatureMatrix;
use wellspring_workloads::replicate::centre_on;

use crate::files::{Row, matrix, own_disease, table};

pub(crate) struct Screen {
    pub(crate) wells: Vec<Row>,
    /// Plate of each well, from 0.
    pub(crate) plates: Vec<usize>,
    /// Untreated wells of their plate's own disease.
    pub(crate) untreated: Vec<bool>,
    pub(crate) in_healthy_frame: FeatureMatrix,
    pub(crate) in_disease_frame: FeatureMatrix,
}

impl Screen {
    pub(crate) fn treated(&self, well: usize) -> bool {
        self.wells[well]["role"] == "treated"
    }

    /// Treated wells of each group of a name, by name.
    pub(crate) fn groups(
        &self,
        name: impl Fn(&Row) -> String,
    ) -> std::collections::BTreeMap<String, Vec<usize>> {
        let mut groups: std::collections::BTreeMap<String, Vec<usize>> = std::collections::BTreeMap::new();
        for i in (0..self.wells.len()).filter(|&i| self.treated(i)) {
            groups.entry(name(&self.wells[i])).or_default().push(i);
        }
        groups
    }
}

/// `state_compound_dose`, as the files write groups.
pub(crate) fn group_name(row: &Row) -> String {
    format!("{}_{}_{}", row["state"], row["compound"], row["dose_um"])
}

pub(crate) fn features(name: &str) -> Option<FeatureMatrix> {
    let rows = matrix(name)?;
    let values = rows.iter().flatten().map(|&v| v as f32).collect();
    Some(FeatureMatrix::from_values(rows[0].len(), values).unwrap())
}

pub(crate) fn aligned() -> Option<Screen> {
    let (wells, in_healthy_frame) = (table("wells.csv")?, features("efaar_tvn.npy")?);
    let plates: Vec<usize> = wells
        .iter()
        .map(|row| row["plate"][1..].parse::<usize>().unwrap() - 1)
        .collect();
    let untreated: Vec<bool> = wells
        .iter()
        .map(|row| row["role"] == "disease" && row["state"] == own_disease(&row["plate"]))
        .collect();
    let mut in_disease_frame = in_healthy_frame.clone();
    assert!(centre_on(&mut in_disease_frame, &plates, &untreated).is_empty());
    Some(Screen {
        wells,
        plates,
        untreated,
        in_healthy_frame,
        in_disease_frame,
    })
}
