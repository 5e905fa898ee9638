//! Sites to wells, with quality control applied and counted (SCIENCE 1.4, 4). Sites with their verdicts enter; one row
//! per well that has enough of them leaves, and a record of every site and well that does not take part.
//!
//! A well without enough passing sites is missing, never zero. It fails on a site that occurs twice and on sites of
//! differing width.

use std::fmt;

use super::{Method, aggregate};
use crate::matrix::FeatureMatrix;
use crate::words::{Barcode, WellPosition};

/// One field of view's features.
#[derive(Debug, Clone)]
pub struct Site<'a> {
    /// The plate.
    pub plate: &'a Barcode,
    /// The well.
    pub well: WellPosition,
    /// The site (field of view) in its well.
    pub site: u32,
    /// Why quality control failed it; `None` where it passed.
    pub failed: Option<&'a str>,
    /// Cells, where they were counted.
    pub cell_count: Option<f64>,
    /// Features; every site of a screen has as many.
    pub values: &'a [f32],
}

/// How many passing sites make a well.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct EnoughSites {
    /// This many are enough,
    pub sites: u32,
    /// and so is this share of the well's sites, in (0, 1]; at least one in any case.
    pub share: f64,
}

impl Default for EnoughSites {
    /// Two, or half of them.
    fn default() -> Self {
        Self { sites: 2, share: 0.5 }
    }
}

impl EnoughSites {
    /// One passing site makes a well, as in pycytominer.
    pub const ONE: Self = Self { sites: 1, share: 1.0 };

    /// Whether `passed` of `all` make a well.
    pub fn are(self, passed: u32, all: u32) -> bool {
        passed > 0 && (passed >= self.sites || f64::from(passed) >= self.share * f64::from(all))
    }
}

/// A well's row.
#[derive(Debug, Clone, PartialEq)]
pub struct AggregatedWell {
    /// The plate.
    pub plate: Barcode,
    /// The well.
    pub well: WellPosition,
    /// Sites averaged; at least 1.
    pub sites: u32,
    /// Cells in these sites, where all of them were counted.
    pub cell_count: Option<f64>,
}

/// What was left out, and why.
#[derive(Debug, Clone, PartialEq)]
pub enum Audit {
    /// A site.
    Site {
        /// The plate.
        plate: Barcode,
        /// The well.
        well: WellPosition,
        /// The site.
        site: u32,
        /// Why.
        reason: SiteReason,
    },
    /// A whole well: it has no row.
    Well {
        /// The plate.
        plate: Barcode,
        /// The well.
        well: WellPosition,
        /// Sites that passed.
        passed: u32,
        /// Sites there are.
        sites: u32,
    },
}

/// Why a site was left out.
#[derive(Debug, Clone, PartialEq)]
pub enum SiteReason {
    /// Quality control failed it.
    Quality {
        /// What it said.
        reason: String,
    },
    /// A value is NaN or infinite.
    NotFinite {
        /// 0-based feature column: the first one.
        column: usize,
        /// The value.
        value: f32,
    },
}

impl fmt::Display for Audit {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Site {
                plate,
                well,
                site,
                reason: SiteReason::Quality { reason },
            } => write!(
                f,
                "plate {plate} well {well} site {site} failed quality control: {reason}"
            ),
            Self::Site {
                plate,
                well,
                site,
                reason: SiteReason::NotFinite { column, value },
            } => write!(
                f,
                "plate {plate} well {well} site {site} has {value} in feature column {column}"
            ),
            Self::Well {
                plate,
                well,
                passed,
                sites,
            } => write!(
                f,
                "plate {plate} well {well}: {passed} of {sites} sites passed quality control, too few for a profile"
            ),
        }
    }
}

/// Wells, and what is not in them.
#[derive(Debug, Clone, PartialEq)]
pub struct AggregatedWells {
    /// By plate, then well.
    pub wells: Vec<AggregatedWell>,
    /// Row `i` belongs to `wells[i]`.
    pub rows: FeatureMatrix,
    /// By plate, well and site; a well after its sites.
    pub audit: Vec<Audit>,
}

/// Why sites could not be put together.
#[derive(Debug, Clone, PartialEq, thiserror::Error)]
pub enum SiteError {
    /// A site occurs twice.
    #[error(
        "plate {plate} well {well} site {site} occurs twice: two plates share a barcode, or a file was read twice"
    )]
    Duplicate {
        /// The plate.
        plate: Barcode,
        /// The well.
        well: WellPosition,
        /// The site.
        site: u32,
    },
    /// A site has another width than the first one.
    #[error(
        "plate {plate} well {well} site {site} has {found} feature columns where {expected} are expected"
    )]
    Width {
        /// The plate.
        plate: Barcode,
        /// The well.
        well: WellPosition,
        /// The site.
        site: u32,
        /// Columns of the first site by plate, well and site.
        expected: usize,
        /// Columns of this one.
        found: usize,
    },
    /// They could not be averaged.
    #[error(transparent)]
    Aggregate(#[from] super::AggregateError),
}

/// Aggregates the passing sites of each well. Sites may come in any order.
///
/// A site with a value that is not finite fails, whatever its verdict: values are never imputed.
///
/// # Errors
/// [`SiteError`] for a site that occurs twice or has another width.
pub fn wells(sites: &[Site<'_>], enough: EnoughSites, method: Method) -> Result<AggregatedWells, SiteError> {
    let mut sorted: Vec<&Site<'_>> = sites.iter().collect();
    sorted.sort_by_key(|site| (site.plate, site.well, site.site));
    check(&sorted)?;
    let width = sorted.first().map_or(0, |site| site.values.len());
    let mut passing = FeatureMatrix::new(width);
    let (mut wells, mut groups, mut audit) = (Vec::new(), Vec::new(), Vec::new());
    for of_well in sorted.chunk_by(|a, b| (a.plate, a.well) == (b.plate, b.well)) {
        let mut passed: Vec<&Site<'_>> = Vec::new();
        for &site in of_well {
            match reason(site) {
                None => passed.push(site),
                Some(reason) => audit.push(Audit::Site {
                    plate: site.plate.clone(),
                    well: site.well,
                    site: site.site,
                    reason,
                }),
            }
        }
        let (plate, well) = (of_well[0].plate.clone(), of_well[0].well);
        let (passed_sites, all) = (passed.len() as u32, of_well.len() as u32);
        if !enough.are(passed_sites, all) {
            audit.push(Audit::Well {
                plate,
                well,
                passed: passed_sites,
                sites: all,
            });
            continue;
        }
        let first = passing.len();
        for site in &passed {
            passing.push(site.values).map_err(|error| SiteError::Width {
                plate: plate.clone(),
                well,
                site: site.site,
                expected: error.expected,
                found: error.found,
            })?;
        }
        groups.push((first..first + passed.len()).collect());
        wells.push(AggregatedWell {
            plate,
            well,
            sites: passed_sites,
            cell_count: passed.iter().map(|site| site.cell_count).sum(),
        });
    }
    let rows = aggregate(&passing, &groups, method)?.rows;
    Ok(AggregatedWells { wells, rows, audit })
}

fn check(sorted: &[&Site<'_>]) -> Result<(), SiteError> {
    for pair in sorted.windows(2) {
        let (a, b) = (pair[0], pair[1]);
        if (a.plate, a.well, a.site) == (b.plate, b.well, b.site) {
            return Err(SiteError::Duplicate {
                plate: a.plate.clone(),
                well: a.well,
                site: a.site,
            });
        }
    }
    let expected = sorted.first().map_or(0, |site| site.values.len());
    match sorted.iter().find(|site| site.values.len() != expected) {
        Some(site) => Err(SiteError::Width {
            plate: site.plate.clone(),
            well: site.well,
            site: site.site,
            expected,
            found: site.values.len(),
        }),
        None => Ok(()),
    }
}

fn reason(site: &Site<'_>) -> Option<SiteReason> {
    if let Some(reason) = site.failed {
        return Some(SiteReason::Quality {
            reason: reason.to_owned(),
        });
    }
    let column = site.values.iter().position(|v| !v.is_finite())?;
    let value = site.values[column];
    Some(SiteReason::NotFinite { column, value })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn site<'a>(plate: &'a Barcode, well: &str, site: u32, values: &'a [f32]) -> Site<'a> {
        Site {
            plate,
            well: well.parse().unwrap(),
            site,
            failed: None,
            cell_count: Some(10.0),
            values,
        }
    }

    #[test]
    fn a_well_without_enough_passing_sites_is_missing_and_recorded() {
        let plate: Barcode = "P1".parse().unwrap();
        let mut sites = vec![
            site(&plate, "A02", 2, &[4.0, 2.0]),
            site(&plate, "A01", 1, &[1.0, f32::INFINITY]),
            site(&plate, "A01", 3, &[1.0, 1.0]),
            site(&plate, "A02", 1, &[2.0, 0.0]),
            site(&plate, "A01", 2, &[1.0, 1.0]),
        ];
        sites[4].failed = Some("blurred");
        let result = wells(&sites, EnoughSites::default(), Method::Mean).unwrap();
        assert_eq!(result.wells.len(), 1);
        assert_eq!(
            (result.wells[0].sites, result.wells[0].cell_count),
            (2, Some(20.0))
        );
        assert_eq!(result.rows.row(0), [3.0, 1.0]);
        let audit: Vec<String> = result.audit.iter().map(ToString::to_string).collect();
        assert_eq!(
            audit,
            [
                "plate P1 well A01 site 1 has inf in feature column 1",
                "plate P1 well A01 site 2 failed quality control: blurred",
                "plate P1 well A01: 1 of 3 sites passed quality control, too few for a profile",
            ]
        );
        let lenient = wells(&sites, EnoughSites::ONE, Method::Mean).unwrap();
        assert_eq!(lenient.wells.len(), 2);
        sites.reverse();
        assert_eq!(
            wells(&sites, EnoughSites::default(), Method::Mean).unwrap(),
            result
        );
    }

    #[test]
    fn sites_that_contradict_each_other_are_an_error() {
        let plate: Barcode = "P1".parse().unwrap();
        let twice = [site(&plate, "A01", 1, &[1.0]), site(&plate, "A01", 1, &[2.0])];
        let error = wells(&twice, EnoughSites::ONE, Method::Mean).unwrap_err();
        assert!(
            error
                .to_string()
                .contains("plate P1 well A01 site 1 occurs twice"),
            "{error}"
        );
        let wide = [
            site(&plate, "A01", 1, &[1.0]),
            site(&plate, "A01", 2, &[2.0, 1.0]),
        ];
        let error = wells(&wide, EnoughSites::ONE, Method::Mean).unwrap_err();
        assert!(
            error
                .to_string()
                .contains("has 2 feature columns where 1 are expected"),
            "{error}"
        );
    }
}
