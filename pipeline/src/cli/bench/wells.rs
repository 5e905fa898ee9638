//! Wells of made-up plates: where each is, and what it was given. Fails where a plate has no such well.

use anyhow::Context;
use wellspring_workloads::words::WellPosition;

/// The well of this number, row by row.
pub(super) fn position(well: u32, columns: u32) -> anyhow::Result<WellPosition> {
    let (row, column) = (u8::try_from(well / columns)?, u8::try_from(well % columns)?);
    WellPosition::new(row + 1, column + 1).context("a plate has no such well")
}

/// Controls are in the first two columns.
pub(super) fn role(well: u32, columns: u32) -> &'static str {
    match well % columns {
        0 => "healthy",
        1 => "disease",
        _ => "treated",
    }
}
