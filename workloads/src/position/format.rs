//! Which plate wells lie on. Wells enter, rows and columns of the smallest plate in use that holds them leave.

use crate::words::WellPosition;

/// Rows and columns of the plates in use: 6, 24, 96, 384 and 1536 wells.
const FORMATS: [(u8, u8); 5] = [(2, 3), (4, 6), (8, 12), (16, 24), (32, 48)];

/// Rows and columns of the smallest plate in use that holds all `wells`: 6, 24, 96, 384 or 1536 wells. A larger plate
/// of which only the corner at A01 is used looks like a smaller one.
pub fn plate_format(wells: impl Iterator<Item = WellPosition> + Clone) -> (u8, u8) {
    let fits = |(rows, columns): &(u8, u8)| {
        wells
            .clone()
            .all(|well| well.row() <= *rows && well.column() <= *columns)
    };
    FORMATS.into_iter().find(fits).unwrap_or(WellPosition::MAX)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_row_or_a_column_too_many_is_the_next_format() {
        let of = |wells: &[&str]| plate_format(wells.iter().map(|well| well.parse().unwrap()));
        assert_eq!(of(&["A01", "H12"]), (8, 12));
        assert_eq!(of(&["I01"]), (16, 24));
        assert_eq!(of(&["A13"]), (16, 24));
        assert_eq!(of(&["AF48"]), (32, 48));
    }
}
