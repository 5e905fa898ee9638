//! Profiles without what follows the number of cells (SCIENCE 4), where a screen asks for them.
//!
//! Plates in the space of the comparison enter; `residuals.parquet` leaves. On every plate a line on the logarithm of the
//! cell count is fitted to the reference wells, feature by feature, and taken out of all wells. A plate that cannot carry
//! a line and wells without cells have no rows, and notes say which. Memory is a plate and a row group. Fails where the
//! disk refuses.

use std::path::Path;

use wellspring_workloads::aggregate::cell_count::CellCountFit;
use wellspring_workloads::compare::{Note, NoteKind, PlateRows};
use wellspring_workloads::profile::Role;

use super::signatures::{MatrixError, values_of};
use crate::results::{Provenance, ResidualTable, WriteError, WrittenTable};

/// Most plates that notes name.
const MOST_NOTES: usize = 20;

/// `residuals.parquet` while plates pass.
#[derive(Debug, Default)]
pub(super) struct Residuals {
    table: Option<ResidualTable>,
    notes: Vec<Note>,
    /// Plates that lost wells, named or not.
    incomplete: usize,
}

impl Residuals {
    /// Takes a plate. `columns` names the columns of its rows.
    pub(super) fn plate(
        &mut self,
        plate: &PlateRows<'_>,
        columns: impl FnOnce(usize) -> Vec<String>,
        provenance: &Provenance,
        out: &Path,
    ) -> Result<(), MatrixError> {
        let mut rows = values_of(plate)?;
        let counts: Vec<f64> = plate
            .wells
            .iter()
            .map(|well| well.cell_count.unwrap_or(f64::NAN))
            .collect();
        let controls: Vec<usize> = (0..plate.wells.len())
            .filter(|&i| plate.wells[i].treatment.role == Role::Reference)
            .collect();
        let fit = match CellCountFit::fit(&rows, &counts, &controls) {
            Ok(fit) => fit,
            Err(error) => {
                self.note(plate, format!("of its reference wells, {error}"));
                return Ok(());
            }
        };
        let table = match &mut self.table {
            Some(table) => table,
            None => self
                .table
                .insert(ResidualTable::create(out, &columns(rows.width()), provenance)?),
        };
        let mut without = Vec::new();
        for (i, (well, &count)) in plate.wells.iter().zip(&counts).enumerate() {
            if fit.residual(rows.row_mut(i), count) {
                table.push(well, count, rows.row(i))?;
            } else {
                without.push(well.well);
            }
        }
        if let Some(first) = without.first() {
            let n = without.len();
            self.note(
                plate,
                format!("{n} wells have no cells or no cell count, the first is {first}"),
            );
        }
        Ok(())
    }

    fn note(&mut self, plate: &PlateRows<'_>, why: String) {
        self.incomplete += 1;
        if self.notes.len() < MOST_NOTES {
            let text = format!(
                "plate {}: without rows in {}: {why}",
                plate.plate,
                ResidualTable::FILE
            );
            self.notes.push(Note {
                plate: Some(plate.plate.clone()),
                ..Note::of_screen(NoteKind::NoResiduals, text)
            });
        }
    }

    /// Completes the table, which gets its name later and is absent without a row; gives what a reader must know.
    pub(super) fn close(mut self) -> Result<(Option<WrittenTable>, Vec<Note>), WriteError> {
        let more = self.incomplete - self.notes.len();
        if more > 0 {
            let text = format!(
                "and wells of {more} more plates have no rows in {}",
                ResidualTable::FILE
            );
            self.notes.push(Note::of_screen(NoteKind::NoResiduals, text));
        }
        if self.table.is_none() {
            let text = format!(
                "{} was asked for and is not there: no plate has reference wells with cell counts that differ; name their \
                 column with [profiles] cell_count, or count nuclei with [nuclei]",
                ResidualTable::FILE
            );
            self.notes = vec![Note::of_screen(NoteKind::NoResiduals, text)];
        }
        if self.table.is_some() {
            let text = format!(
                "{} has the wells' profiles without what follows the number of cells; what of the calls is left there says \
                 a comparison of it with reference = {{ role = \"reference\" }}, phenotype = {{ role = \"phenotype\" }}, \
                 no plate_map.columns, and normalise and align = \"none\"",
                ResidualTable::FILE
            );
            self.notes.insert(0, Note::of_screen(NoteKind::Residuals, text));
        }
        Ok((self.table.map(ResidualTable::close).transpose()?, self.notes))
    }
}
