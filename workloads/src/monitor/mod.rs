//! Control drift: are the controls of today's plates those of accepted ones (SCIENCE 8)?
//!
//! The wells of each plate and a [`DriftReference`] made from accepted plates enter; a [`DriftReport`] with every
//! statistic, its limit and a level per plate leaves. It works on profiles as they are, before any scaling per plate
//! or alignment, which would hide drift. Pure; the same wells in any order, on any number of threads, give the same
//! bytes. The order of the plates is the order of the charts.
//!
//! The flow is the file list: `plate` takes the controls and scalars out of a plate's wells, `reference` keeps accepted
//! plates and the components they are seen in, `gaussian`, `hotelling`, `samples`, `stability` and `chart` are the
//! detectors, `baseline` says what accepted plates reach in each, `charts` follows plates in time, `judge` brings all to a
//! level.
//!
//! It fails on profiles that contradict each other, on values that are not finite, and where a reference belongs to
//! another model, assay or microscope. A plate with too few controls is a row that says so.

mod baseline;
mod chart;
mod charts;
mod error;
mod gaussian;
mod hotelling;
mod judge;
mod plate;
mod reference;
mod report;
mod samples;
mod settings;
mod space;
mod stability;

pub use chart::{Chart, Standing, cusum_limit, standing, width};
pub use error::MonitorError;
pub use gaussian::{Gaussian, chi_squared_limit};
pub use hotelling::{Between, Within, within};
pub use judge::monitor;
pub use plate::PlateControls;
pub use reference::{DriftReference, Identity};
pub use report::{Detector, DriftReport, DriftRow, Level, PlateDrift, Severity};
pub use samples::{SampleTest, TwoSamples, gamma_of, median_distance};
pub use settings::{DriftAction, MonitorLimits, MonitorSettings, SettingRange};
pub use stability::stability_index;
