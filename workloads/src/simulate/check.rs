//! The check that a simulation can be built.
//!
//! [`SimulationSettings`] enter; nothing leaves but a [`SimulateError`] that names the first setting that cannot be
//! used, its value and what is allowed.

use std::collections::BTreeSet;

use crate::words::Barcode;

use super::error::SimulateError;
use super::settings::{CompoundClass, SimulationSettings};

impl SimulationSettings {
    /// Checks every setting on its own and that the plates have room for the design.
    ///
    /// # Errors
    /// The first setting that cannot be used.
    pub fn check(&self) -> Result<(), SimulateError> {
        one_of("wells", self.wells, &[96, 384])?;
        one_of("bit_depth", self.bit_depth, &[12, 16])?;
        for (setting, value, min, max) in [
            ("plates", f64::from(self.plates), 1.0, 9999.0),
            ("fields", f64::from(self.fields), 1.0, 100.0),
            ("height", f64::from(self.height), 32.0, 4096.0),
            ("width", f64::from(self.width), 32.0, 4096.0),
            ("cells_per_field", self.cells_per_field, 0.0, 5000.0),
            ("cell_diameter", self.cell_diameter, 12.0, 400.0),
            ("cell_variability", self.cell_variability, 0.0, 1.0),
            ("well_variability", self.well_variability, 0.0, 1.0),
            ("replicates", f64::from(self.replicates), 1.0, 10_000.0),
            ("generated.rescue", f64::from(self.generated.rescue), 0.0, 1e6),
            ("generated.toxic", f64::from(self.generated.toxic), 0.0, 1e6),
            ("generated.inactive", f64::from(self.generated.inactive), 0.0, 1e6),
            ("artefacts.vignetting", self.artefacts.vignetting, 0.0, 0.9),
            ("artefacts.noise", self.artefacts.noise, 0.0, 10.0),
            ("artefacts.blur", self.artefacts.blur, 0.0, 1.0),
            ("artefacts.debris", self.artefacts.debris, 0.0, 1.0),
            ("artefacts.empty_fields", self.artefacts.empty_fields, 0.0, 1.0),
            ("artefacts.plate_effect", self.artefacts.plate_effect, 0.0, 5.0),
            ("artefacts.edge_effect", self.artefacts.edge_effect, 0.0, 3.0),
        ] {
            within(setting, value, min, max)?;
        }
        usable("name", &self.name)?;
        if self.channels.is_empty() {
            return Err(SimulateError::Empty {
                setting: "channels",
                remedy: "name at least one of DNA, ER, RNA, AGP, Mito, Brightfield",
            });
        }
        different(
            "channels",
            self.channels.iter().map(|stain| stain.name().to_owned()),
        )?;
        self.check_room()?;
        self.check_diseases()?;
        self.check_compounds()?;
        self.check_design()
    }

    /// Cells keep three quarters of a radius apart, so a field has room for a limited number.
    fn check_room(&self) -> Result<(), SimulateError> {
        let area = f64::from(self.height) * f64::from(self.width);
        let most = (area * 1.1 / (self.cell_diameter * self.cell_diameter)).floor();
        if self.cells_per_field > most {
            return Err(SimulateError::TooCrowded {
                cells: self.cells_per_field,
                diameter: self.cell_diameter,
                height: self.height,
                width: self.width,
                most,
            });
        }
        Ok(())
    }

    fn check_diseases(&self) -> Result<(), SimulateError> {
        if self.diseases.is_empty() {
            return Err(SimulateError::Empty {
                setting: "diseases",
                remedy: "name at least one disease model",
            });
        }
        different(
            "diseases",
            self.diseases.iter().map(|disease| disease.name.clone()),
        )?;
        for disease in &self.diseases {
            usable("diseases.name", &disease.name)?;
            if disease.name == "healthy" {
                return Err(SimulateError::Reserved {
                    setting: "diseases.name",
                    name: disease.name.clone(),
                });
            }
            within("diseases.effect", disease.effect, 0.0, 2.0)?;
        }
        Ok(())
    }

    fn check_compounds(&self) -> Result<(), SimulateError> {
        for compound in &self.compounds {
            usable("compounds.name", &compound.name)?;
            if compound.name == "DMSO" {
                return Err(SimulateError::Reserved {
                    setting: "compounds.name",
                    name: compound.name.clone(),
                });
            }
            let rescue = compound.class == CompoundClass::Rescue;
            let inactive = compound.class == CompoundClass::Inactive;
            within(
                "compounds.emax",
                compound.emax,
                0.0,
                if rescue { 1.0 } else { 0.0 },
            )?;
            within("compounds.ec50", compound.ec50, 1e-9, 1e9)?;
            within("compounds.hill", compound.hill, 0.2, 8.0)?;
            within(
                "compounds.off_axis",
                compound.off_axis,
                0.0,
                if inactive { 0.0 } else { 3.0 },
            )?;
            if let Some(unknown) = compound
                .diseases
                .iter()
                .find(|name| self.diseases.iter().all(|disease| disease.name != **name))
            {
                return Err(SimulateError::UnknownDisease {
                    compound: compound.name.clone(),
                    disease: unknown.clone(),
                });
            }
        }
        Ok(())
    }

    fn check_design(&self) -> Result<(), SimulateError> {
        for &dose in &self.doses {
            within("doses", dose, 1e-9, 1e9)?;
        }
        different("doses", self.doses.iter().map(f64::to_string))?;
        if self.doses.is_empty() && self.compound_count() > 0 {
            return Err(SimulateError::Empty {
                setting: "doses",
                remedy: "give at least one dose above 0, or no compounds",
            });
        }
        let (controls, treatments) = (self.controls_per_plate(), self.treated_wells());
        let free = u64::from(self.wells).saturating_sub(controls);
        if controls > u64::from(self.wells) || treatments > free * u64::from(self.plates) {
            return Err(SimulateError::DoesNotFit {
                controls,
                treatments,
                plates: self.plates,
                wells: self.wells,
            });
        }
        if controls + treatments == 0 && !self.fill_with_controls {
            return Err(SimulateError::Empty {
                setting: "healthy_wells",
                remedy: "give at least one control or treated well, or set fill_with_controls",
            });
        }
        Ok(())
    }
}

fn within(setting: &'static str, value: f64, min: f64, max: f64) -> Result<(), SimulateError> {
    // NaN is in no range.
    if (min..=max).contains(&value) {
        return Ok(());
    }
    Err(SimulateError::OutOfRange {
        setting,
        value,
        min,
        max,
    })
}

fn one_of(setting: &'static str, value: u32, allowed: &'static [u32]) -> Result<(), SimulateError> {
    if allowed.contains(&value) {
        return Ok(());
    }
    Err(SimulateError::NotOneOf {
        setting,
        value,
        allowed,
    })
}

fn usable(setting: &'static str, name: &str) -> Result<(), SimulateError> {
    // The numbering adds up to four characters to a barcode; the longest name leaves room for them.
    format!("{name}0000")
        .parse::<Barcode>()
        .map_err(|source| SimulateError::Name { setting, source })
        .and_then(|_| {
            name.parse::<Barcode>()
                .map(|_| ())
                .map_err(|source| SimulateError::Name { setting, source })
        })
}

fn different(setting: &'static str, names: impl Iterator<Item = String>) -> Result<(), SimulateError> {
    let mut seen = BTreeSet::new();
    for name in names {
        if !seen.insert(name.clone()) {
            return Err(SimulateError::Duplicate { setting, name });
        }
    }
    Ok(())
}
