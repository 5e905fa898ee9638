//! A seeded, deterministic generator of microscope plates with known truth.
//!
//! [`SimulationSettings`] enter; plate barcodes, a plate map, truth tables, file names and rendered fields leave.
//! Building fails with a [`SimulateError`] where the settings cannot be met; rendering fails only for a field
//! that is not part of the simulation.
//!
//! Use: assay planning and power analysis (how many replicates find an effect of this size under this noise?),
//! load tests, and end-to-end tests whose answer is known. A field is a function of settings and field id alone,
//! so fields can be rendered in any order, on any thread, one at a time, and no plate is ever held in memory.
//!
//! The model, in the order of the files: `design` gives each well a true position on the axis from healthy (0) to
//! disease (1) and a distance off it; `phenotype` turns these into traits of cells; `field` places cells and
//! decides what goes wrong; `render` draws them; `optics` adds light, blur and camera. It is a plausible cartoon,
//! not a biophysical model: traits, ranges and artefacts are what assay papers report, the numbers are ours.

mod check;
mod design;
mod error;
mod field;
mod optics;
mod phenotype;
mod render;
mod settings;
mod tables;

use crate::words::{Barcode, Channel, FieldId, WellPosition};

pub use error::SimulateError;
pub use settings::{
    Artefacts, CompoundClass, CompoundSettings, DiseaseModel, GeneratedCompounds, SimulationSettings, Stain,
};

/// One rendered field of view.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct FieldImage {
    /// The channels, in the order of the settings.
    pub channels: Vec<Channel>,
    /// Rows of pixels.
    pub height: u32,
    /// Columns of pixels.
    pub width: u32,
    /// One plane per channel, row by row, `height * width` pixels, 0 to `2^bit_depth - 1`.
    pub pixels: Vec<Vec<u16>>,
}

/// A checked simulation, ready to render. Cheap to share between threads; holds no image.
#[derive(Debug)]
pub struct Simulation {
    settings: SimulationSettings,
    channels: Vec<Channel>,
    plates: Vec<Barcode>,
    compounds: Vec<design::Compound>,
    wells: Vec<Vec<design::WellPlan>>,
    kit: render::Kit,
}

impl Simulation {
    /// Checks the settings and lays out the plates.
    ///
    /// # Errors
    /// The first setting that cannot be used, with what is allowed.
    pub fn new(settings: SimulationSettings) -> Result<Self, SimulateError> {
        settings.check()?;
        let named = |setting| move |source| SimulateError::Name { setting, source };
        let plates = (1..=settings.plates)
            .map(|number| {
                format!("{}{number:04}", settings.name)
                    .parse()
                    .map_err(named("name"))
            })
            .collect::<Result<Vec<Barcode>, _>>()?;
        let channels = settings
            .channels
            .iter()
            .map(|stain| stain.name().parse().map_err(named("channels")))
            .collect::<Result<Vec<Channel>, _>>()?;
        let compounds = design::compounds(&settings);
        if let Some(name) = twice(&compounds) {
            return Err(SimulateError::Duplicate {
                setting: "compounds",
                name,
            });
        }
        let wells = design::layout(&settings, &compounds);
        let kit = render::Kit::new(&settings);
        Ok(Self {
            settings,
            channels,
            plates,
            compounds,
            wells,
            kit,
        })
    }

    /// The settings it was built from.
    pub fn settings(&self) -> &SimulationSettings {
        &self.settings
    }

    /// The plates' barcodes, in order.
    pub fn plates(&self) -> &[Barcode] {
        &self.plates
    }

    /// The channels, in the order of the planes; channel `i` is `w{i + 1}` in file names.
    pub fn channels(&self) -> &[Channel] {
        &self.channels
    }

    /// The used wells of a plate, row by row; empty for a barcode that is not simulated.
    pub fn wells(&self, plate: &Barcode) -> impl Iterator<Item = WellPosition> {
        let plans = self
            .plate_index(plate)
            .map_or(&[][..], |index| &self.wells[index]);
        plans.iter().map(|plan| plan.well)
    }

    /// The plate map as CSV: `plate,well,state,role,compound,dose`. `state` is `healthy` or the disease's name,
    /// `role` is `healthy`, `disease` or `treated`; vehicle wells have compound `DMSO` and dose 0.
    pub fn plate_map_csv(&self) -> String {
        tables::plate_map(self)
    }

    /// The truth per compound and disease as CSV: `compound,disease,class,emax,ec50,hill,off_axis`. For an
    /// inactive compound `ec50` and `hill` are empty.
    pub fn truth_compounds_csv(&self) -> String {
        tables::truth_compounds(self)
    }

    /// The truth per well as CSV: `plate,well,state,role,compound,dose,on_axis,off_axis,well_on_axis,cell_count,
    /// empty_fields,blurred_fields,debris_fields`. `on_axis` and `off_axis` are what compound and dose give,
    /// `well_on_axis` adds the well's own deviation, `cell_count` counts nuclei centred in all its fields, and the
    /// artefact columns hold field numbers separated by spaces.
    ///
    /// Places every cell of every field, without drawing: about a second for the largest plates.
    pub fn truth_wells_csv(&self) -> String {
        tables::truth_wells(self)
    }

    /// The path of one image, relative to the folder of all plates, as ImageXpress writes it:
    /// `SIM0001/SIM0001_A01_s1_w1.tif`. Fields (sites) count from 1; `channel` is an index into
    /// [`channels`](Self::channels) and counts from 0.
    pub fn file_name(&self, plate: &Barcode, well: WellPosition, field: u32, channel: usize) -> String {
        format!("{plate}/{plate}_{well}_s{field}_w{}.tif", channel + 1)
    }

    /// Every field: plate by plate, row by row, field by field. Lazy, so memory does not grow with the plates.
    pub fn field_ids(&self) -> impl Iterator<Item = FieldId> {
        self.plates
            .iter()
            .zip(&self.wells)
            .flat_map(move |(plate, plans)| {
                plans.iter().flat_map(move |plan| {
                    (1..=self.settings.fields).map(move |field| FieldId {
                        plate: plate.clone(),
                        well: plan.well,
                        field,
                    })
                })
            })
    }

    /// How many fields [`field_ids`](Self::field_ids) yields.
    pub fn field_count(&self) -> u64 {
        let wells: usize = self.wells.iter().map(Vec::len).sum();
        wells as u64 * u64::from(self.settings.fields)
    }

    /// Renders one field. The bytes depend on the settings and the field alone.
    ///
    /// # Errors
    /// [`SimulateError::NoSuchField`] for a plate, well or field number that is not simulated.
    pub fn render(&self, id: &FieldId) -> Result<FieldImage, SimulateError> {
        let (plate, plan) = self.find(id).ok_or_else(|| SimulateError::NoSuchField {
            field: id.clone(),
            plates: self.plates.len(),
            fields: self.settings.fields,
        })?;
        let scene = field::Scene::new(&self.settings, plate, plan, id.field);
        Ok(FieldImage {
            channels: self.channels.clone(),
            height: self.settings.height,
            width: self.settings.width,
            pixels: render::draw(&self.settings, &self.kit, &scene),
        })
    }

    fn plate_index(&self, plate: &Barcode) -> Option<usize> {
        // Barcodes are numbered in order with a fixed width, so they are sorted.
        self.plates.binary_search(plate).ok()
    }

    fn find(&self, id: &FieldId) -> Option<(usize, &design::WellPlan)> {
        let plate = self.plate_index(&id.plate)?;
        let plans = &self.wells[plate];
        let at = plans.binary_search_by_key(&id.well, |plan| plan.well).ok()?;
        (1..=self.settings.fields)
            .contains(&id.field)
            .then(|| (plate, &plans[at]))
    }
}

fn twice(compounds: &[design::Compound]) -> Option<String> {
    let mut names: Vec<&str> = compounds.iter().map(|compound| compound.name.as_str()).collect();
    names.sort_unstable();
    names
        .windows(2)
        .find(|pair| pair[0] == pair[1])
        .map(|pair| pair[0].to_owned())
}
