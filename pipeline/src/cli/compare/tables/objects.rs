//! Whether a column of object numbers makes a table one of cells.
//!
//! The columns of a table and its blocks enter. CellProfiler numbers the objects of a field 1, 2, ...; profiles that were
//! aggregated, with pycytominer or else, keep columns of the same names, which hold means or what scaling made of them.
//! So the numbers of cells are whole, and one that is not makes the table one of fields or wells. Fails where a table
//! begins as the one and goes on as the other.

use anyhow::bail;
use wellspring::results::{Block, ColumnRole};
use wellspring_workloads::columns::{is_missing, plain};

use super::layout::Layout;

/// Where DeepProfiler's cells are: no number of theirs, and rarely whole.
const PLACE: &str = "location_center_x";

/// Looks at the object numbers of a block. In the first block of a table they decide: afterwards the role is gone from
/// the layout where they number no objects.
pub(super) fn check(layout: &mut Layout<'_>, block: &Block, first: bool) -> anyhow::Result<()> {
    let Some(at) = layout.roles.column(ColumnRole::Object) else {
        return Ok(());
    };
    // A column of the file that is joined holds for whole wells, or names cells.
    let Some(slot) = layout.slots.get(at).copied().flatten() else {
        return Ok(());
    };
    let name = &layout.own[at];
    if plain(name).0 == PLACE {
        return Ok(());
    }
    let broken = |text: &str| {
        let number = text.trim().parse::<f64>();
        !is_missing(text) && number.is_ok_and(|number| number.fract() != 0.0 || number < 0.0)
    };
    let cells = block.metadata[slot].iter();
    let Some((row, text)) = cells
        .enumerate()
        .find_map(|(row, cell)| Some((row, cell.as_deref().filter(|text| broken(text))?)))
    else {
        return Ok(());
    };
    if !first {
        bail!(
            "column {name} numbers objects in the first rows, and row {} has {text}: rows of cells and averages do not go \
             together in one table",
            block.first_row + row as u64
        );
    }
    layout.roles.forget(ColumnRole::Object);
    Ok(())
}
