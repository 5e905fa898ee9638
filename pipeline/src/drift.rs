//! Drift: are the controls of the run's plates those of accepted plates, and which plates get no calls?
//!
//! The controls of all plates enter before any is compared; a [`Watch`] leaves, which names the quarantined plates. Used by a run and by `wellspring compare`, so that both hold back the same plates. What fails: a
//! reference that the screen names and that cannot be read or is of something else. What cannot be watched otherwise
//! is said in words.

use std::collections::BTreeSet;
use std::path::{Path, PathBuf};

use wellspring_workloads::monitor::{
    DriftAction, DriftReference, DriftReport, Identity, Level, MonitorError, MonitorSettings, PlateControls,
    PlateDrift, monitor,
};
use wellspring_workloads::screen::Screen;
use wellspring_workloads::words::Barcode;

use crate::results::{AtomicFile, DriftTable, Provenance, WriteError};

/// The file of the reference in an output folder.
pub const REFERENCE_FILE: &str = "drift-reference.json";

/// Most plates that a message names.
const NAMED_PLATES: usize = 12;

/// What was seen, and what follows.
#[derive(Debug, Clone, Default)]
pub struct Watch {
    /// Every statistic; `None` where nothing could be judged.
    pub report: Option<DriftReport>,
    /// What plates were judged by, with this run's plates remembered.
    pub reference: Option<DriftReference>,
    /// Plates that are out of the comparison.
    pub quarantined: BTreeSet<Barcode>,
    /// In words: plates that are out, and why.
    pub left_out: Vec<String>,
    /// In words: warnings, and why there is no watch where one was asked for.
    pub notes: Vec<String>,
}

/// The reference cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum DriftError {
    /// It cannot be read.
    #[error(
        "the drift reference '{}' cannot be read: {source}; name another in monitor.reference, or leave it out", .path.display()
    )]
    Read {
        /// The file.
        path: PathBuf,
        /// Why.
        source: std::io::Error,
    },
    /// It is of something else, or broken.
    #[error("'{}': {source}", .path.display())]
    Reference {
        /// The file.
        path: PathBuf,
        /// Why.
        source: MonitorError,
    },
    /// It cannot be written.
    #[error(transparent)]
    Write(#[from] WriteError),
    /// Plates cannot be judged by it.
    #[error("control drift cannot be judged: {0}")]
    Judge(#[from] MonitorError),
}

/// What a screen's plates and their reference share.
pub fn identity(screen: &Screen, provenance: &Provenance) -> Identity {
    let settings = &screen.monitor;
    Identity {
        assay: if settings.assay.is_empty() {
            screen.name.to_string()
        } else {
            settings.assay.clone()
        },
        microscope: settings.microscope.clone(),
        model: provenance.model.clone(),
        model_sha256: provenance.model_sha256.clone(),
    }
}

/// Reads a reference.
///
/// # Errors
/// [`DriftError::Read`] or [`DriftError::Reference`].
pub fn read_reference(path: &Path) -> Result<DriftReference, DriftError> {
    let path = path.to_owned();
    let text = match std::fs::read_to_string(&path) {
        Ok(text) => text,
        Err(source) => return Err(DriftError::Read { path, source }),
    };
    DriftReference::from_json(&text).map_err(|source| DriftError::Reference { path, source })
}

/// Writes a reference.
///
/// # Errors
/// [`DriftError::Write`].
pub fn write_reference(path: &Path, reference: &DriftReference) -> Result<(), DriftError> {
    let text = reference.to_json()?;
    Ok(AtomicFile::write(path, text.as_bytes())?)
}

/// Judges plates by their controls, given by barcode; nothing where the screen asks for no watch.
///
/// # Errors
/// A reference that the screen names cannot be read, or is of another assay, microscope, model or width.
pub fn watch_plates(
    controls: Result<Vec<PlateControls>, MonitorError>,
    screen: &Screen,
    provenance: &Provenance,
) -> Result<Watch, DriftError> {
    let settings = &screen.monitor;
    let mut watch = Watch::default();
    if !settings.enabled {
        return Ok(watch);
    }
    let plates = match controls {
        Ok(plates) => plates,
        Err(error) => {
            // Profiles that contradict each other: the comparison says so, and fails.
            watch.notes.push(format!("control drift was not judged: {error}"));
            return Ok(watch);
        }
    };
    let identity = identity(screen, provenance);
    let reference = if settings.reference.is_empty() {
        match first_plates(&plates, identity, settings) {
            Ok(reference) => reference,
            Err(error) => {
                // Small screens are the rule: nothing to say unless the screen asks for a watch.
                if *settings != MonitorSettings::default() {
                    watch.notes.push(format!("control drift was not judged: {error}"));
                }
                return Ok(watch);
            }
        }
    } else {
        let path = Path::new(&settings.reference);
        let reference = read_reference(path)?;
        if let Err(source) = reference.check_identity(&identity) {
            let path = path.to_owned();
            return Err(DriftError::Reference { path, source });
        }
        reference
    };
    let report = monitor(&reference, &plates, settings, screen.comparison.seed)?;
    let mut remembered = reference;
    remembered.remember(&plates, &report, settings)?;
    watch.act(&report, settings.action);
    watch.report = Some(report);
    watch.reference = Some(remembered);
    Ok(watch)
}

impl Watch {
    fn act(&mut self, report: &DriftReport, action: DriftAction) {
        let names: Vec<String> = report.reference_plates.iter().map(ToString::to_string).collect();
        let shown = names[..names.len().min(NAMED_PLATES)].join(", ");
        let more = names.len().saturating_sub(NAMED_PLATES);
        let more = if more > 0 {
            format!(" and {more} more")
        } else {
            String::new()
        };
        for PlateDrift {
            plate, level, reason, ..
        } in &report.plates
        {
            let judged = format!("{reason}; judged by plates {shown}{more}");
            match (level, action) {
                (Level::Alert, DriftAction::Quarantine) => {
                    self.quarantined.insert(plate.clone());
                    self.left_out.push(format!(
                        "plate {plate} is quarantined and gets no calls: its controls drifted: {judged}"
                    ));
                }
                (Level::Alert, DriftAction::Note) => self.notes.push(format!(
                    "plate {plate}: drift alert, and its wells are compared all the same (monitor.action = \"note\"): \
                     {judged}"
                )),
                (Level::Warn, _) => self.notes.push(format!("plate {plate}: drift warning: {judged}")),
                (Level::NotMonitored, _) => {
                    self.notes
                        .push(format!("plate {plate}: control drift was not judged: {reason}"));
                }
                (Level::Reference | Level::InControl | Level::Info, _) => {}
            }
        }
    }

    /// Writes `drift.parquet` and the reference into an output folder; nothing where nothing was judged.
    ///
    /// # Errors
    /// The disk refuses.
    pub fn write(&self, out: &Path, provenance: &Provenance) -> Result<(), DriftError> {
        if let Some(report) = &self.report {
            let mut table = DriftTable::create(out, provenance, report)?;
            for plate in &report.plates {
                table.push(plate, self.quarantined.contains(&plate.plate))?;
            }
            table.finish()?;
        }
        if let Some(reference) = &self.reference {
            write_reference(&out.join(REFERENCE_FILE), reference)?;
        }
        Ok(())
    }
}

/// The first plates of the screen as reference.
fn first_plates(
    plates: &[PlateControls],
    identity: Identity,
    settings: &MonitorSettings,
) -> Result<DriftReference, MonitorError> {
    let chosen = DriftReference::choose(plates, settings)?;
    let chosen: Vec<&PlateControls> = chosen.into_iter().map(|i| &plates[i]).collect();
    DriftReference::fit(&chosen, identity, settings)
}
