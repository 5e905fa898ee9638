//! The screen file: what a scientist writes to launch a screen, checked.
//!
//! TOML text enters, a [`Screen`] leaves, or [`ScreenErrors`]: every problem at once, each with file, line, column
//! and the nearest known name. A relative path stays text until [`Screen::resolve_paths`]; nothing is read here.

mod error;
pub mod graph;
mod nearest;
mod nuclei;
mod plan_text;
mod read;
mod read_added;
mod read_comparison;
mod read_steps;
mod schema;
mod selector;
mod settings;
mod steps;
mod table;
mod treatments;

pub use error::{ScreenError, ScreenErrors, ScreenProblem};
pub use nearest::edits;
pub(crate) use nearest::nearest;
pub use nuclei::{Declump, NucleiSettings, NucleiThreshold};
pub use schema::{json_schema, json_schema_text};
pub use selector::{Selector, SelectorValue};
pub use settings::{
    Background, ChannelSettings, Controls, DeviceChoice, EngineChoice, ImagesSettings, LayoutChoice,
    ModelSettings, OutputSettings, PlateMapColumns, PlateMapSettings, PreprocessSettings, ProfilesSettings,
    QualitySettings, Resize, ResizeMethod, ResizeTo, ResourceSettings, Scaling, ScreenName, ScreenNameError,
    Tiling, ZStack,
};
pub use steps::{EmbedStep, ExternalStep, Reply, Service, StepKind, nearest_column};
pub use treatments::{TreatmentError, TreatmentErrors};

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};
use sha2::{Digest, Sha256};

use crate::canonical::sorted;
use crate::compare::{Align, ComparisonSettings, Normalise};
use crate::monitor::MonitorSettings;
use crate::plate_map::PlateMap;
use crate::profile::Treatment;
use crate::words::{Barcode, WellPosition};

/// The largest screen file that is read, in bytes.
pub const MAX_SCREEN_BYTES: usize = 1 << 20;

/// A checked screen: what is read, done to it, compared and written.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Screen {
    /// The screen's name.
    pub name: ScreenName,
    /// Which version of the screen of this name; 1 is not part of the hash.
    #[serde(default = "first_version", skip_serializing_if = "is_first_version")]
    pub version: u32,
    /// What it is about, for people.
    pub description: String,
    /// Where the images are; without channels in a screen of profiles.
    pub images: ImagesSettings,
    /// How profiles made elsewhere are read; such a screen needs no images and no plate map.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub profiles: Option<ProfilesSettings>,
    /// What each well was given.
    pub plate_map: PlateMapSettings,
    /// Which wells define the axis.
    pub controls: Controls,
    /// The steps before the network.
    pub preprocess: PreprocessSettings,
    /// The gates.
    pub quality: QualitySettings,
    /// How nuclei are counted, where they are.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub nuclei: Option<NucleiSettings>,
    /// The network.
    pub model: ModelSettings,
    /// Networks beside that of `model`, as they stand in the file.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub networks: Vec<EmbedStep>,
    /// Steps outside this program, as they stand in the file.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub steps: Vec<ExternalStep>,
    /// The comparison.
    pub comparison: ComparisonSettings,
    /// The watch over the controls; its defaults are not part of the screen's hash.
    #[serde(default, skip_serializing_if = "is_default")]
    pub monitor: MonitorSettings,
    /// What a worker may use.
    pub resources: ResourceSettings,
    /// What is written.
    pub output: OutputSettings,
}

fn first_version() -> u32 {
    1
}

fn is_first_version(version: &u32) -> bool {
    *version == first_version()
}

fn is_default(settings: &MonitorSettings) -> bool {
    *settings == MonitorSettings::default()
}

/// Line and column, from 1, of the value that a dotted name such as `controls.reference` has in a screen file, or of the
/// innermost table of it that is there; `None` where there is nothing of it.
pub fn place_of(text: &str, name: &str) -> Option<(usize, usize)> {
    read::place_of(text, name)
}

impl Screen {
    /// Parts that change no result: a run may go on with others.
    pub const FREE: [&str; 3] = ["description", "resources", "output"];

    /// Reads a screen file. `file_name` is only for messages.
    ///
    /// # Errors
    /// Every problem of the file at once, in file order.
    pub fn parse(text: &str, file_name: &str) -> Result<Self, ScreenErrors> {
        read::read(text, file_name, &[])
    }

    /// As [`Screen::parse`], where the names of all models are known: another name is one more problem of the file.
    ///
    /// # Errors
    /// Every problem of the file at once, in file order.
    pub fn parse_with_models(text: &str, file_name: &str, models: &[&str]) -> Result<Self, ScreenErrors> {
        read::read(text, file_name, models)
    }

    /// Makes relative paths (store, plate map and its metadata, illumination, dark-field, output folder, drift
    /// reference, transform, commands of steps) absolute against `base_dir`, the folder
    /// of the screen file, with `/` between. URIs (`scheme://...`) and absolute paths stay.
    pub fn resolve_paths(&mut self, base_dir: &str) {
        let commands = self.steps.iter_mut().filter_map(|step| match &mut step.service {
            Service::Command { command } => Some(command),
            _ => None,
        });
        // Of a command's words only what says itself that it is a relative path.
        let words = commands.flatten();
        let words = words.filter(|word| word.starts_with("./") || word.starts_with("../"));
        let paths = [
            Some(&mut self.images.store),
            Some(&mut self.plate_map.file),
            self.plate_map.external.as_mut(),
            self.preprocess.illumination.as_mut(),
            self.preprocess.dark_field.as_mut(),
            self.output.folder.as_mut(),
            (!self.monitor.reference.is_empty()).then_some(&mut self.monitor.reference),
            (!self.comparison.transform.is_empty()).then_some(&mut self.comparison.transform),
        ];
        for path in paths.into_iter().flatten().chain(words) {
            let drive = path.as_bytes().get(1) == Some(&b':') && path.as_bytes()[0].is_ascii_alphabetic();
            let absolute = path.contains("://") || path.starts_with(['/', '\\']) || drive;
            if !absolute && !base_dir.is_empty() && !path.is_empty() {
                *path = format!("{}/{path}", base_dir.trim_end_matches('/'));
            }
        }
    }

    /// SHA-256, in lower-case hex, of the canonical form: the checked screen as JSON with sorted keys. Comments,
    /// order and spelled-out defaults of the file do not change it, nor do [`Screen::FREE`] parts; anything that changes a
    /// result does.
    pub fn hash(&self) -> String {
        // Every part of a screen serialises (string keys, finite numbers), so the fallback is never taken; it still
        // depends on the whole screen.
        let canonical = serde_json::to_value(self)
            .map(|mut value| {
                if let Some(parts) = value.as_object_mut() {
                    parts.retain(|part, _| !Self::FREE.contains(&part.as_str()));
                }
                sorted(value).to_string()
            })
            .unwrap_or_else(|_| format!("{self:?}"));
        Sha256::digest(canonical.as_bytes())
            .iter()
            .map(|byte| format!("{byte:02x}"))
            .collect()
    }

    /// What each well of a plate was given, with its role. Excluded wells are absent.
    ///
    /// # Errors
    /// Every problem at once: a plate or column the map does not have, a selector that selects no well of the
    /// plate, a well both reference and phenotype, a well that is neither and has no compound.
    pub fn treatments(
        &self,
        map: &PlateMap,
        plate: &Barcode,
    ) -> Result<BTreeMap<WellPosition, Treatment>, TreatmentErrors> {
        treatments::treatments(&self.controls, map, plate)
    }

    /// As [`Screen::treatments`], for tables made elsewhere, which often hold empty wells: a well that is no control and
    /// has no compound is left out and returned besides.
    ///
    /// # Errors
    /// As [`Screen::treatments`], except for wells without a compound.
    pub fn treatments_of_known_wells(
        &self,
        map: &PlateMap,
        plate: &Barcode,
    ) -> Result<(BTreeMap<WellPosition, Treatment>, Vec<WellPosition>), TreatmentErrors> {
        treatments::of_known_wells(&self.controls, map, plate)
    }

    /// Every network that sees a field: that of `[model]`, whose step has the model's name, then those of `[[steps]]`.
    pub fn all_networks(&self) -> impl Iterator<Item = EmbedStep> + '_ {
        let first = EmbedStep {
            name: self.model.name.clone(),
            model: self.model.name.clone(),
            engine: self.model.engine,
        };
        std::iter::once(first).chain(self.networks.iter().cloned())
    }

    /// Whether the screen can only be compared, from tables: it has no images.
    pub fn is_of_profiles(&self) -> bool {
        self.images.channels.is_empty()
    }

    /// The plan as text, as `wellspring check` prints it.
    pub fn plan_text(&self) -> String {
        plan_text::plan_text(self)
    }
}
