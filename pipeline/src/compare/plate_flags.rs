//! What is odd about a field beside the others of its plate: out of focus, wrongly exposed, covered with debris.
//!
//! The quality of a plate's fields enters; their rows leave for the table, with flags that only the whole plate can raise
//! (robust z-scores). These warn: no field is left out because others look different. Memory is one plate's measures.

use std::collections::{BTreeMap, BTreeSet};

use wellspring_kernels::{BatchMeasures, Defect, FlagLimits, QualityFlag, batch_flags};
use wellspring_workloads::words::{Channel, FieldId};

use crate::quality::MEASURES;
use crate::results::{FieldQuality, QualityRow, QualityTable, WriteError};

/// The quality of one field.
pub(super) struct FieldRow {
    pub(super) field: FieldId,
    pub(super) quality: FieldQuality,
    /// Channel after channel, each in the order of [`MEASURES`].
    pub(super) values: Vec<Option<f64>>,
    /// By channel, each in the order of [`OF_STACKS`](crate::quality::OF_STACKS).
    pub(super) stacks: Vec<[Option<f64>; 2]>,
    /// By channel, the address of its image.
    pub(super) uris: Vec<Option<String>>,
    pub(super) nuclei: Option<f64>,
}

/// Adds what the fields' plate says of them to their flags, and to `counts` of flags.
pub(super) fn flag(rows: &mut [FieldRow], channels: &[Channel], counts: &mut BTreeMap<String, (u64, u64)>) {
    let mut raised: Vec<BTreeSet<String>> = vec![BTreeSet::new(); rows.len()];
    for (c, channel) in channels.iter().enumerate() {
        let measures: Vec<BatchMeasures> = rows.iter().map(|row| measures(row, c)).collect();
        let flags = batch_flags(&measures, &FlagLimits::default());
        for ((row, flags), raised) in rows.iter_mut().zip(flags).zip(&mut raised) {
            for flag in flags {
                row.quality.flags.push(format!("{channel} {}", text(&flag)));
                raised.insert(format!("{}: {channel}", name(flag.defect)));
            }
        }
    }
    for name in raised.into_iter().flatten() {
        counts.entry(name).or_default().0 += 1;
    }
}

/// Writes the rows of a plate.
pub(super) fn write(rows: &[FieldRow], table: &mut QualityTable) -> Result<(), WriteError> {
    rows.iter().try_for_each(|row| {
        table.push(&QualityRow {
            field: &row.field,
            quality: &row.quality,
            values: &row.values,
            stacks: &row.stacks,
            uris: &row.uris,
            nuclei: row.nuclei,
        })
    })
}

fn measures(row: &FieldRow, channel: usize) -> BatchMeasures {
    let value = |name: &str| {
        let at = MEASURES.iter().position(|(measure, _)| *measure == name);
        let value = at.and_then(|at| row.values.get(channel * MEASURES.len() + at));
        value.copied().flatten().unwrap_or(f64::NAN)
    };
    BatchMeasures {
        power_log_log_slope: value("PowerLogLogSlope"),
        median: value("MedianIntensity"),
        mean: value("MeanIntensity"),
    }
}

/// What the report calls it.
fn name(defect: Defect) -> &'static str {
    match defect {
        Defect::Blur => "blurred beside its plate",
        Defect::Exposure => "exposed unlike its plate",
        Defect::Debris => "debris beside its plate",
    }
}

fn text(flag: &QualityFlag) -> String {
    let sign = if flag.value < flag.limit { '<' } else { '>' };
    format!(
        "{}: {} {:.3} {sign} {}",
        name(flag.defect),
        flag.metric,
        flag.value,
        flag.limit
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn one_field_of_a_plate_is_told_from_the_others() {
        let channels: Vec<Channel> = ["DNA", "ER"].map(|name| name.parse().unwrap()).to_vec();
        let row = |field: u32| {
            let mut values = vec![None; 2 * MEASURES.len()];
            for (i, (name, _)) in MEASURES.iter().enumerate() {
                let usual = 100.0 + f64::from(field * 7 % 5);
                values[i] = Some(usual);
                // Of the second channel nothing but the mean was measured.
                if *name == "MeanIntensity" {
                    values[MEASURES.len() + i] = Some(if field == 4 { 900.0 } else { usual });
                }
            }
            FieldRow {
                field: FieldId {
                    plate: "P1".parse().unwrap(),
                    well: "A01".parse().unwrap(),
                    field,
                },
                quality: FieldQuality {
                    passed: true,
                    flags: vec!["DNA nearly empty: contrast 7.000 < 8".to_owned()],
                },
                values,
                stacks: Vec::new(),
                uris: Vec::new(),
                nuclei: None,
            }
        };
        let mut rows: Vec<FieldRow> = (0..12).map(row).collect();
        let mut counts = BTreeMap::new();
        flag(&mut rows, &channels, &mut counts);
        for (i, row) in rows.iter().enumerate() {
            assert!(row.quality.passed);
            assert_eq!(
                row.quality.flags.len(),
                if i == 4 { 2 } else { 1 },
                "{:?}",
                row.quality
            );
        }
        let found = &rows[4].quality.flags[1];
        assert!(
            found.starts_with("ER debris beside its plate: z of MeanIntensity "),
            "{found}"
        );
        assert!(found.ends_with(" > 8"), "{found}");
        assert_eq!(
            counts,
            BTreeMap::from([("debris beside its plate: ER".to_owned(), (1, 0))])
        );
        // A few fields are no plate to judge by.
        let mut rows: Vec<FieldRow> = (0..6).map(row).collect();
        flag(&mut rows, &channels, &mut counts);
        assert!(rows.iter().all(|row| row.quality.flags.len() == 1));
    }
}
