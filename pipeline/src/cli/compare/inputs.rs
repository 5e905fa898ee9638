//! What `wellspring compare` and `wellspring drift judge` read: tables, a screen, and what each well was given.
//!
//! Arguments enter; the checked screen, where treatments come from, and the index of all tables leave. Fails where a file
//! cannot be read, or the tables contradict the screen or each other.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use anyhow::Context;
use wellspring::compare::Planned;
use wellspring::drift::Watch;
use wellspring::events::ModelIdentity;
use wellspring::plan::read_plate_map;
use wellspring::results::{FeatureColumns, Provenance};
use wellspring::runs::run_id;
use wellspring_workloads::plate_map::PlateMap;
use wellspring_workloads::profile::{Treatment, WellProfile};
use wellspring_workloads::screen::Screen;

use super::super::common;
use super::tables::{Reading, Tables};
use super::treatments::Treatments;
use super::wells::PlateWells;

#[derive(Debug, clap::Args)]
pub(crate) struct Inputs {
    /// Feature or profile tables. Features that not all of them have are dropped.
    #[arg(long, visible_alias = "profiles", value_name = "FILE", num_args = 1.., required = true)]
    pub(crate) features: Vec<PathBuf>,
    /// The screen file: controls and comparison settings are taken from it; its images are not read.
    #[arg(long, value_name = "SCREEN.toml")]
    pub(crate) screen: PathBuf,
    /// What each well was given. Default: the screen's plate map, else the tables' own columns.
    #[arg(long, value_name = "FILE")]
    pub(crate) platemap: Option<PathBuf>,
    /// Take what each well was given from the tables' own columns that are no features, and from those of FILE, where
    /// one is given: its rows are matched by site_id, well_id, or plate and well. The screen's selectors name these
    /// columns, with or without `Metadata_`.
    #[arg(long, value_name = "FILE", num_args = 0..=1, default_missing_value = "")]
    pub(crate) metadata: Option<String>,
    /// Which columns are features: names or patterns such as `Cells_*`. Default: recognised.
    #[arg(long, value_name = "PATTERNS", default_value = "")]
    pub(crate) columns: String,
}

/// What the arguments name, read.
#[derive(Debug)]
pub(crate) struct Opened {
    pub(crate) screen: Screen,
    pub(super) treatments: Treatments,
    pub(super) tables: Tables,
}

/// What was judged, and what was seen on the way.
#[derive(Debug)]
pub(crate) struct Judged {
    pub(crate) watch: Watch,
    /// Plates without those that are quarantined.
    pub(crate) planned: Planned,
    /// In words.
    pub(crate) left_out: Vec<String>,
    pub(crate) rows_left_out: u64,
    pub(crate) provenance: Provenance,
}

impl Inputs {
    /// The checked screen.
    pub(crate) fn screen(&self) -> anyhow::Result<Screen> {
        let mut screen = common::read_screen(&self.screen)?;
        if let Some(path) = &self.platemap {
            let absolute = std::path::absolute(path)?;
            screen.plate_map.file = absolute.to_string_lossy().into_owned();
        }
        Ok(screen)
    }

    /// Reads all. Rows wait in files without a name in `scratch`, which is made where it is not there.
    pub(crate) fn open(&self, screen: Screen, scratch: &Path) -> anyhow::Result<Opened> {
        std::fs::create_dir_all(scratch)
            .with_context(|| format!("the folder '{}' cannot be made", scratch.display()))?;
        let treatments = treatments(self, &screen)?;
        let tables = read_tables(self, &screen, &treatments, scratch)?;
        Ok(Opened {
            screen,
            treatments,
            tables,
        })
    }
}

impl Opened {
    /// The features that are compared.
    pub(crate) fn features(&self) -> &[String] {
        &self.tables.features
    }

    /// In how many percent of the rows a feature is missing that was dropped for it.
    pub(crate) fn percent_missing(&self, feature: &str) -> Option<f64> {
        let mut dropped = self.tables.dropped.iter();
        dropped
            .find(|(name, _)| name == feature)
            .map(|(_, percent)| *percent)
    }

    /// The plate map, where there is one.
    pub(crate) fn plate_map(&self) -> Option<&PlateMap> {
        match &self.treatments {
            Treatments::Map(map) => Some(map),
            Treatments::Own(_) => None,
        }
    }

    /// The profiles of the wells that `wanted` wants; what was left out, in words; and how many rows that could not be
    /// used.
    pub(crate) fn profiles(
        &self,
        wanted: impl Fn(&Treatment) -> bool,
    ) -> anyhow::Result<(Vec<WellProfile>, Vec<String>, u64)> {
        let mut left_out = self.tables.left_out.clone();
        let (mut profiles, mut rows_left_out) = (Vec::new(), self.tables.rows_left_out);
        for plate in self.tables.plates() {
            let mut wells =
                PlateWells::plan(&self.screen, &self.tables, &self.treatments, plate, &mut left_out)?;
            rows_left_out += wells.rows_left_out;
            wells.wells.retain(|(treatment, _)| wanted(treatment));
            profiles.extend(wells.profiles(&self.tables)?);
        }
        Ok((profiles, left_out.notes(), rows_left_out))
    }

    /// Looks at every plate before any is compared, and judges its controls where the screen asks for it.
    pub(crate) fn judge(&self) -> anyhow::Result<Judged> {
        let Self {
            screen,
            treatments,
            tables,
        } = self;
        let mut left_out = tables.left_out.clone();
        treatments.without_rows(tables, &mut left_out);
        let mut rows_left_out = tables.rows_left_out;
        let mut planned = Planned::default();
        for plate in tables.plates() {
            let wells = PlateWells::plan(screen, tables, treatments, plate, &mut left_out)?;
            rows_left_out += wells.rows_left_out;
            if screen.monitor.enabled {
                planned.watch(screen, &wells.profiles(tables)?, BTreeMap::new());
            }
            planned.add(wells.facts, wells.wells.iter().map(|(treatment, _)| treatment));
        }
        let provenance = provenance(screen, &tables.features);
        Ok(Judged {
            watch: planned.judge(screen, &provenance)?,
            left_out: left_out.notes(),
            rows_left_out,
            planned,
            provenance,
        })
    }
}

/// The plate map of the command line, of the screen, or the tables' own columns.
fn treatments(args: &Inputs, screen: &Screen) -> anyhow::Result<Treatments> {
    if args.platemap.is_none() && (args.metadata.is_some() || screen.plate_map.file.is_empty()) {
        return Ok(Treatments::own(screen));
    }
    let map = common::runtime()?.block_on(read_plate_map(screen)).context(
        "give the plate map with --platemap, or --metadata where the tables say what each well was given",
    )?;
    Ok(Treatments::Map(map))
}

fn read_tables(
    args: &Inputs,
    screen: &Screen,
    treatments: &Treatments,
    scratch: &Path,
) -> anyhow::Result<Tables> {
    let features = if args.columns.is_empty() {
        let patterns = screen.profiles.as_ref().map(|profiles| profiles.features.clone());
        FeatureColumns::from_patterns(patterns.unwrap_or_default())
    } else {
        FeatureColumns::from_text(&args.columns)
    };
    let metadata = args.metadata.as_deref().filter(|file| !file.is_empty());
    let reading = Reading {
        paths: &args.features,
        features,
        metadata: metadata.map(Path::new),
        labels: match treatments {
            Treatments::Map(_) => Vec::new(),
            Treatments::Own(_) => Treatments::columns(screen),
        },
        scratch,
    };
    Tables::read(&reading, screen)
}

/// As a run writes it, where the features are those of the screen's networks.
fn provenance(screen: &Screen, features: &[String]) -> Provenance {
    let family = features
        .first()
        .and_then(|name| name.rsplit_once('_'))
        .map_or("", |(family, _)| family);
    // Models that this machine does not know made their features elsewhere.
    let cards = wellspring::model_store::models_folder()
        .ok()
        .filter(|_| family == screen.model.name)
        .and_then(|folder| wellspring::model_cards::of_screen(&folder, screen).ok());
    let model = cards.map(|cards| ModelIdentity::of(cards.iter().map(|card| &**card)));
    Provenance {
        screen: screen.name.to_string(),
        run: run_id(screen),
        screen_sha256: screen.hash(),
        model: model.as_ref().map_or_else(
            || "features made elsewhere".to_owned(),
            |model| model.name.clone(),
        ),
        model_sha256: model.map_or_else(String::new, |model| model.weights_sha256),
        seed: screen.comparison.seed,
        transform_sha256: None,
    }
}
