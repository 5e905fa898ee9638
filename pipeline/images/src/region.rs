//! A rectangle of a page.

use std::ops::Range;

/// A rectangle of a page, in pixels.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Region {
    /// Rows, from 0.
    pub rows: Range<u32>,
    /// Columns, from 0.
    pub columns: Range<u32>,
}

impl Region {
    /// Its height in pixels.
    pub fn height(&self) -> usize {
        self.rows.len()
    }

    /// Its width in pixels.
    pub fn width(&self) -> usize {
        self.columns.len()
    }

    /// Its pixels.
    pub fn pixels(&self) -> usize {
        self.height().saturating_mul(self.width())
    }
}
