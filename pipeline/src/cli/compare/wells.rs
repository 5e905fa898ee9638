//! From the rows of tables to wells: which count, what they were given, and their profiles.
//!
//! The index of the tables and the screen enter; the wells of one plate leave, and on demand their profiles. The
//! rules are those of a run: rows that failed quality control do not count, a well needs enough that passed, and a
//! plate with too many failures is held back.

use std::collections::BTreeMap;
use std::ops::Range;

use anyhow::Context;
use wellspring::report::PlateFacts;
use wellspring::wells::{FieldCount, held_back, plate_facts};
use wellspring_workloads::aggregate::Aggregate;
use wellspring_workloads::profile::{Treatment, WellProfile};
use wellspring_workloads::screen::Screen;
use wellspring_workloads::words::{Barcode, WellPosition};

use super::left_out::{Kind, LeftOut};
use super::tables::{PlateRows, Row, Tables};
use super::treatments::Treatments;

/// The wells of one plate that count.
#[derive(Debug)]
pub(super) struct PlateWells {
    pub(super) wells: Vec<(Treatment, WellRows)>,
    pub(super) facts: PlateFacts,
    /// Rows that could not be used.
    pub(super) rows_left_out: u64,
    aggregate: Aggregate,
    rows: PlateRows,
}

/// The rows of a well among those of its plate.
#[derive(Debug, Clone)]
pub(super) struct WellRows {
    pub(super) well: WellPosition,
    rows: Range<usize>,
}

impl PlateWells {
    /// Which wells of a plate count; what does not is told to `left_out`.
    pub(super) fn plan(
        screen: &Screen,
        tables: &Tables,
        treatments: &Treatments,
        plate: &Barcode,
        left_out: &mut LeftOut,
    ) -> anyhow::Result<Self> {
        let (all, rows_left_out) = tables.plate(plate, left_out)?;
        let treatments = treatments.of_plate(screen, tables, plate, &all, left_out);
        let rows = &all.rows;
        let mut wells: Vec<WellRows> = Vec::new();
        let mut start = 0;
        for rows in rows.chunk_by(|a, b| a.well == b.well) {
            let well = rows[0].well;
            wells.push(WellRows {
                well,
                rows: start..start + rows.len(),
            });
            start += rows.len();
        }
        let counts: BTreeMap<WellPosition, FieldCount> = wells
            .iter()
            .map(|well| (well.well, count(&rows[well.rows.clone()])))
            .collect();
        let facts = plate_facts(plate, &treatments, &counts);
        let mut kept = Vec::new();
        if let Some(reason) = held_back(&screen.quality, &treatments, &counts) {
            left_out.push(Kind::Plates, || {
                format!("plate {plate} is held back from the comparison: {reason}")
            });
        } else {
            for well in wells {
                let Some(treatment) = treatments.get(&well.well) else {
                    continue;
                };
                let count = counts.get(&well.well).copied().unwrap_or_default();
                if !screen.quality.well_counts(count.passed, count.fields) {
                    left_out.push(Kind::Wells, || {
                        format!(
                            "plate {plate} well {}: {} of {} fields passed quality control, too few for a profile",
                            well.well, count.passed, count.fields
                        )
                    });
                    continue;
                }
                kept.push((treatment.clone(), well));
            }
        }
        Ok(Self {
            wells: kept,
            facts,
            rows_left_out,
            aggregate: screen.comparison.aggregate,
            rows: all,
        })
    }

    /// The profiles of the wells that count: their rows as one.
    pub(super) fn profiles(&self, tables: &Tables) -> anyhow::Result<Vec<WellProfile>> {
        let plate = &self.facts.barcode;
        let profile = |(treatment, well): &(Treatment, WellRows)| {
            let rows = &self.rows.rows[well.rows.clone()];
            let values = tables.profile(rows, self.aggregate)?;
            Ok(WellProfile {
                plate: plate.clone(),
                well: well.well,
                treatment: treatment.clone(),
                fields: fields(rows),
                cell_count: cells(rows),
                values: values.with_context(|| {
                    format!(
                        "plate {plate} well {}: no field passed quality control",
                        well.well
                    )
                })?,
            })
        };
        self.wells.iter().map(profile).collect()
    }
}

fn count(rows: &[Row]) -> FieldCount {
    let passed = rows.iter().filter(|row| row.passed).count();
    FieldCount {
        fields: rows.len() as u32,
        passed: passed as u32,
    }
}

/// Fields that the passing rows stand for; at least 1.
fn fields(rows: &[Row]) -> u32 {
    let passed = rows.iter().filter(|row| row.passed);
    passed.map(|row| u32::from(row.fields)).sum::<u32>().max(1)
}

/// Cells per row, where any of them counts its cells. Those that failed count too: an empty field is a loss of cells, and
/// one that is blurred in one channel is none.
fn cells(rows: &[Row]) -> Option<f64> {
    let counted = || rows.iter().filter_map(|row| row.cells);
    let sum = counted().map(f64::from).reduce(|a, b| a + b)?;
    Some(sum / counted().count() as f64)
}
