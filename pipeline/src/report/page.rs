//! The page from top to bottom: sections in the order a scientist asks for them.

use super::{ReportError, ReportInput};

/// The page as text, to be written as `report.html`.
///
/// # Errors
/// The montage cannot be made.
pub fn render(_input: &ReportInput<'_>) -> Result<String, ReportError> {
    Ok(String::new())
}
