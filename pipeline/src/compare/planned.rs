//! What is known of the plates of a screen before any is compared: what their wells were given, and whether their
//! controls are those of accepted plates.
//!
//! Plates enter one after the other, a [`Design`] without quarantined plates leaves. Memory is that of the design, the
//! wells of the plates that a report draws, and, with monitoring on, the controls of every plate. Used by a run and by
//! `wellspring compare`. Fails where the watch does.

use std::collections::BTreeMap;

use wellspring_workloads::compare::{CompareError, Design, DesignBuilder};
use wellspring_workloads::monitor::{MonitorError, PlateControls};
use wellspring_workloads::profile::{Treatment, WellProfile};
use wellspring_workloads::screen::Screen;

use crate::drift::{DriftError, Watch, watch_plates};
use crate::report::PlateFacts;
use crate::results::Provenance;

/// Wells that the report may draw: it has no room for more.
const MOST_DRAWN: usize = 4_000;

/// Plates before they are compared.
#[derive(Debug)]
pub struct Planned {
    /// The first plates with what their wells were given.
    pub facts: Vec<PlateFacts>,
    /// Plates, compared or not.
    pub plates: usize,
    /// Wells that their plate map has.
    pub mapped_wells: usize,
    /// Wells that are compared.
    pub wells: usize,
    design: DesignBuilder,
    controls: Result<Vec<PlateControls>, MonitorError>,
}

impl Default for Planned {
    fn default() -> Self {
        Self {
            facts: Vec::new(),
            plates: 0,
            mapped_wells: 0,
            wells: 0,
            design: DesignBuilder::default(),
            controls: Ok(Vec::new()),
        }
    }
}

impl Planned {
    /// Takes a plate; `given`: of its wells that count, none where it is held back.
    pub fn add<'t>(&mut self, facts: PlateFacts, given: impl IntoIterator<Item = &'t Treatment>) {
        self.plates += 1;
        let before = self.mapped_wells;
        self.mapped_wells += facts.wells.len();
        for treatment in given {
            self.wells += 1;
            self.design.add(&facts.barcode, treatment);
        }
        if before < MOST_DRAWN {
            self.facts.push(facts);
        }
    }

    /// Takes the controls of a plate, where the screen asks for a watch; plates by barcode. `measured`: scalars that do
    /// not follow from the profiles.
    pub fn watch(&mut self, screen: &Screen, wells: &[WellProfile], measured: BTreeMap<String, f64>) {
        if !screen.monitor.enabled || wells.is_empty() {
            return;
        }
        let wells: Vec<&WellProfile> = wells.iter().collect();
        // The first plate that contradicts itself is the answer.
        if let Ok(plates) = &mut self.controls {
            match PlateControls::of(&wells, measured) {
                Ok(plate) => plates.push(plate),
                Err(error) => self.controls = Err(error),
            }
        }
    }

    /// Judges all plates by their controls; quarantined ones are not compared.
    ///
    /// # Errors
    /// A reference that the screen names cannot be read, or is of something else.
    pub fn judge(&mut self, screen: &Screen, provenance: &Provenance) -> Result<Watch, DriftError> {
        let controls = std::mem::replace(&mut self.controls, Ok(Vec::new()));
        let drift = watch_plates(controls, screen, provenance)?;
        for plate in &drift.quarantined {
            self.wells -= self.design.forget(plate);
        }
        Ok(drift)
    }

    /// The plates that are compared.
    ///
    /// # Errors
    /// [`CompareError::NoProfiles`] without wells, [`CompareError::TooLarge`] beyond four billion names.
    pub fn design(&mut self) -> Result<Design, CompareError> {
        std::mem::take(&mut self.design).finish()
    }
}
