//! How many fields a plate should have, and whether they are there.
//!
//! What the microscope wrote before it began, the screen and the plate map enter; a number leaves. Cannot fail.

use wellspring_workloads::layout::PlateFiles;
use wellspring_workloads::screen::Screen;
use wellspring_workloads::words::Barcode;

use super::count;

/// How many fields a plate should have.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Expected {
    pub(super) fields: u32,
    /// Whether only fields of wells in the plate map count.
    mapped: bool,
}

impl Expected {
    /// Whether they are there: `all` fields, and those of wells in the plate map.
    pub(super) fn arrived(self, all: usize, mapped: usize) -> bool {
        let there = if self.mapped { mapped } else { all };
        there >= self.fields as usize
    }
}

/// What a plate should have by metadata that were there before it was imaged, else by the screen for its `wells` in the plate
/// map; `None` where neither says.
pub(super) fn expected_fields(
    found: &PlateFiles,
    screen: &Screen,
    plate: &Barcode,
    wells: usize,
) -> Option<Expected> {
    let by_metadata = found.to_be_imaged.get(plate).map(|&fields| Expected {
        fields,
        mapped: false,
    });
    by_metadata.or_else(|| {
        let fields = screen.images.fields_per_well?.saturating_mul(count(wells));
        Some(Expected { fields, mapped: true })
    })
}
