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
    fields: u32,
    /// Whether only fields of wells in the plate map count.
    mapped: bool,
}

impl Expected {
    /// How many of them are worked on, where `left_out` are there of wells that the screen leaves out.
    pub(super) fn without(self, left_out: u32) -> u32 {
        match self.mapped {
            true => self.fields,
            false => self.fields.saturating_sub(left_out),
        }
    }

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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn wells_that_the_screen_leaves_out_are_imaged_but_not_missed() {
        // All of 24 fields are there, and six of them are of wells that the screen leaves out.
        let by_metadata = Expected {
            fields: 24,
            mapped: false,
        };
        assert!(by_metadata.arrived(24, 18) && !by_metadata.arrived(23, 18));
        assert_eq!(by_metadata.without(6), 18);
        let by_screen = Expected {
            fields: 18,
            mapped: true,
        };
        assert!(by_screen.arrived(24, 18) && !by_screen.arrived(24, 17));
        assert_eq!(by_screen.without(6), 18);
    }
}
