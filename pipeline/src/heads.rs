//! Heads: models that are fitted here, on the control wells of a run in the stream or of tables.
//!
//! Profiles of wells, with what these were given, enter; a draft of a card and the bytes of its weights leave, for
//! [`crate::model_cards::keep`] to complete and keep. The fit is `wellspring_workloads::head`, the file and the serving
//! `wellspring_models`. What fails: a run that is not complete, features of another model than the base, wells without
//! a class, and whatever the fit refuses.

mod profiles;

use std::collections::BTreeSet;
use std::path::PathBuf;

use wellspring_models::{
    Architecture, BaseModel, ChannelPolicy, HeadFit, HeadMap, HeadNames, HeadOut, HeadShape, HeadWeights,
    ModelCard, Pooling, WeightsError, WeightsSource, content_digest,
};
use wellspring_workloads::head::{
    ControlWells, Folds, Head, HeadError, ProbeLoss, ProbeSettings, WhitenMethod, WhitenSettings, fit_probe,
    fit_whitening,
};
use wellspring_workloads::matrix::{FeatureMatrix, WidthError};
use wellspring_workloads::plate_map::PlateMap;
use wellspring_workloads::profile::{Role, Treatment, WellProfile};
use wellspring_workloads::screen::Screen;
use wellspring_workloads::words::{Barcode, WellPosition};

use crate::error::StageError;
use crate::results::feature_names;

pub use profiles::{TableKeys, check_table, embedding_columns, family, run_profiles};

/// Why no head was fitted.
#[derive(Debug, thiserror::Error)]
pub enum HeadsError {
    /// The fit.
    #[error(transparent)]
    Fit(#[from] HeadError),
    /// Reading features.
    #[error(transparent)]
    Stage(#[from] StageError),
    /// Profiles of several widths.
    #[error(transparent)]
    Width(#[from] WidthError),
    /// The fitted numbers make no file.
    #[error(transparent)]
    Weights(#[from] WeightsError),
    /// The run is still going on.
    #[error(
        "run '{run}' is not complete: {done} of {expected} planned fields are there; a head that is fitted now could not \
         be fitted again, so wait until `wellspring plates list` shows no open field"
    )]
    Incomplete {
        /// The run.
        run: String,
        /// Fields that arrived or failed.
        done: u32,
        /// Fields planned.
        expected: u32,
    },
    /// The features are of another model, or another version of it.
    #[error(
        "{what} has features of {found}, but the base is {expected}: bring that model back, or embed the images again"
    )]
    OtherModel {
        /// Where they are.
        what: String,
        /// What they are of.
        found: String,
        /// The base.
        expected: String,
    },
    /// The features are no whole embedding of the base.
    #[error(
        "the features are no embedding of {model}: {missing} is missing (a column that was dropped, or a selection of \
         features); give tables as `wellspring run` writes them"
    )]
    Features {
        /// The base.
        model: String,
        /// The first feature that is not there.
        missing: String,
    },
    /// A feature has no values.
    #[error(
        "feature {feature} is NaN or empty in {percent:.1} % of the rows: values are never imputed, embed the images again"
    )]
    NoValues {
        /// The feature.
        feature: String,
        /// Share of the rows.
        percent: f64,
    },
    /// The features are of another screen.
    #[error(
        "'{}' has features of a screen with sha256 {found}, but '{}' has {expected}: give the screen file as it was when \
         they were made, or say with --other-screen that they are the right ones (a file that was moved or changed since has \
         another digest)",
        table.display(), screen.display()
    )]
    OtherScreen {
        /// The table.
        table: PathBuf,
        /// The digest in the table.
        found: String,
        /// The screen file.
        screen: PathBuf,
        /// Its digest.
        expected: String,
    },
    /// The base is a head.
    #[error("{model} is a head on another model: fit on the features of a network")]
    OnHead {
        /// The base.
        model: String,
    },
    /// A control well without a class.
    #[error(
        "plate {plate} well {well} has nothing in column {column} of {file}: give every control well a class there"
    )]
    NoClass {
        /// The plate.
        plate: Barcode,
        /// The well.
        well: WellPosition,
        /// The column.
        column: String,
        /// The plate map.
        file: String,
    },
    /// Classes by columns need a map.
    #[error("--classes names columns of the plate map, and there is none: give one with --platemap")]
    NoMap,
    /// The map lacks a column.
    #[error("--classes names column '{column}', which {file} does not have: it has {known}")]
    NoColumn {
        /// The column.
        column: String,
        /// The plate map.
        file: String,
        /// Its columns.
        known: String,
    },
}

/// Which control wells a head is fitted on.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Controls {
    /// Those that define 0.
    Reference,
    /// Those that define 1.
    Phenotype,
    /// Both.
    All,
}

impl Controls {
    /// Whether a well is one of them.
    pub fn has(self, treatment: &Treatment) -> bool {
        match treatment.role {
            Role::Reference => self != Self::Phenotype,
            Role::Phenotype => self != Self::Reference,
            Role::Treated => false,
        }
    }

    fn words(self) -> &'static str {
        match self {
            Self::Reference => "reference wells",
            Self::Phenotype => "phenotype wells",
            Self::All => "reference and phenotype wells",
        }
    }
}

/// What to fit.
#[derive(Debug, Clone)]
pub enum Kind {
    /// Whitening.
    Whitening(WhitenSettings),
    /// A linear probe.
    Probe {
        /// How.
        settings: ProbeSettings,
        /// Columns of the plate map whose cells name a well's class; none: the well's role and disease model.
        columns: Vec<String>,
    },
}

/// What a head is fitted on, and what to call it.
#[derive(Debug)]
pub struct Request<'a> {
    /// The head's name.
    pub name: &'a str,
    /// The network whose features they are.
    pub base: &'a ModelCard,
    /// Channels of an image.
    pub channels: usize,
    /// Their names, in order; empty where nothing names them.
    pub channel_names: Vec<String>,
    /// Where the profiles are from, in words.
    pub from: String,
    /// Which wells.
    pub controls: Controls,
    /// What.
    pub kind: Kind,
}

/// A screen has other channels than a head was fitted on.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error(
    "{model} is a head that was fitted on the channels {fitted}, in this order, and the screen has {found}: name and order \
     the channels of [images] so, or fit a head on features of this screen"
)]
pub struct OtherChannels {
    /// The head.
    pub model: String,
    /// Its channels.
    pub fitted: String,
    /// Those of the screen.
    pub found: String,
}

/// Names of a screen's channels, in order.
pub fn channel_names(screen: &Screen) -> Vec<String> {
    let channels = screen.images.channels.iter();
    channels.map(|channel| channel.name.to_string()).collect()
}

/// Refuses a screen whose channels are not those that a head was fitted on, in their order. A network takes any, and so
/// does a head whose features came without names of channels.
pub fn check_channels(card: &ModelCard, screen: &Screen) -> Result<(), OtherChannels> {
    let (fitted, found) = (card.fitted_channels(), channel_names(screen));
    if fitted.is_empty() || fitted == found {
        return Ok(());
    }
    Err(OtherChannels {
        model: card.name.clone(),
        fitted: fitted.join(", "),
        found: found.join(", "),
    })
}

/// Fits a head on the profiles of control wells, whose first values are the base's embedding. Gives a draft of its card,
/// without a canary, and its weights; the same profiles give the same bytes.
pub fn fit(
    request: Request<'_>,
    profiles: &[WellProfile],
    map: Option<&PlateMap>,
) -> Result<(ModelCard, Vec<u8>), HeadsError> {
    let base = request.base;
    if matches!(base.architecture, Architecture::Head(_)) {
        return Err(HeadsError::OnHead {
            model: base.name.clone(),
        });
    }
    let width = base.image_width(request.channels).unwrap_or(0);
    let mut wells: Vec<&WellProfile> = profiles
        .iter()
        .filter(|p| request.controls.has(&p.treatment))
        .collect();
    wells.sort_by_key(|profile| (&profile.plate, profile.well));
    let names = feature_names(&base.name, width);
    let mut rows = FeatureMatrix::new(width);
    for profile in &wells {
        rows.push(profile.values.get(..width).unwrap_or(&profile.values))?;
    }
    let controls = ControlWells {
        names,
        wells: wells.iter().map(|p| (p.plate.clone(), p.well)).collect(),
        rows,
    };
    let plates: BTreeSet<&Barcode> = wells.iter().map(|profile| &profile.plate).collect();
    let mut made = HeadFit {
        from: request.from,
        method: String::new(),
        controls: request.controls.words().to_owned(),
        plates: plates.len(),
        wells: wells.len(),
        shrinkage: None,
        ridge: None,
        held_out: None,
        balanced_accuracy: None,
    };
    let (head, shape) = match request.kind {
        Kind::Whitening(settings) => {
            let fit = fit_whitening(&controls, &settings)?;
            made.method = settings.method.word().to_owned();
            made.shrinkage = Some(fit.shrinkage);
            let components = fit.components;
            let shape = match settings.method {
                WhitenMethod::Zca | WhitenMethod::ZcaCor => HeadMap::WhitenedFeatures { components },
                WhitenMethod::Pca | WhitenMethod::PcaCor => HeadMap::WhitenedComponents { components },
            };
            (fit.head, shape)
        }
        Kind::Probe { settings, columns } => {
            let classes: Vec<String> = wells
                .iter()
                .map(|profile| class(profile, map, &columns))
                .collect::<Result<_, _>>()?;
            let fit = fit_probe(&controls, &classes, &settings)?;
            let how = match settings.loss {
                ProbeLoss::Squares => "ridge",
                ProbeLoss::Logistic => "logistic regression",
            };
            made.method = match columns.is_empty() {
                true => format!("{how} on role and disease"),
                false => format!("{how} on {}", columns.join(", ")),
            };
            made.ridge = Some(fit.ridge);
            made.balanced_accuracy = Some(fit.balanced_accuracy);
            made.held_out = Some(match fit.folds {
                Folds::Plates(n) => format!("{n} plates in turn"),
                Folds::Wells(n) => format!("wells, in {n} parts"),
            });
            (fit.head, HeadMap::Classes { names: fit.classes })
        }
    };
    let embedding_width = head.width_out();
    let names = HeadNames {
        channels: request.channel_names.clone(),
        classes: match &shape {
            HeadMap::Classes { names } => names.clone(),
            _ => Vec::new(),
        },
    };
    let weights = weights_of(head, names).to_safetensors()?;
    let content_sha256 = content_digest(&weights)?;
    let mut card = base.clone();
    card.name = request.name.to_owned();
    // With other numbers, classes or channels it is another version, whoever fits it.
    card.version = format!("1-{:.8}", content_sha256);
    card.weights = WeightsSource {
        uri: format!("`wellspring models fit-head` on {}", made.from),
        content_sha256,
        package: None,
        keys: Vec::new(),
        ignore: Vec::new(),
    };
    card.channel_policy = ChannelPolicy::Fitted {
        channels: request.channels,
    };
    card.pooling = Pooling::Head;
    card.embedding_width = embedding_width;
    card.canary.embedding.clear();
    card.architecture = Architecture::Head(Box::new(HeadShape {
        base: BaseModel {
            name: base.name.clone(),
            version: base.version.clone(),
            content_sha256: base.weights.content_sha256.clone(),
        },
        channels: request.channel_names,
        map: shape,
        fit: made,
    }));
    Ok((card, weights))
}

fn weights_of(head: Head, names: HeadNames) -> HeadWeights {
    HeadWeights {
        names,
        mean: head.mean,
        gain: head.gain,
        directions: head.directions.as_slice().to_vec(),
        out: match head.back {
            Some(back) => HeadOut::Features {
                gains: back.gains,
                floor: back.floor,
            },
            None => HeadOut::Directions { bias: head.bias },
        },
    }
}

/// The class of a control well: what the columns say, or its role and disease model.
fn class(profile: &WellProfile, map: Option<&PlateMap>, columns: &[String]) -> Result<String, HeadsError> {
    let WellProfile {
        plate,
        well,
        treatment,
        ..
    } = profile;
    if columns.is_empty() {
        return Ok(match (treatment.role, &treatment.disease) {
            (Role::Phenotype, Some(disease)) => disease.clone(),
            (Role::Phenotype, None) => "phenotype".to_owned(),
            _ => "reference".to_owned(),
        });
    }
    let map = map.ok_or(HeadsError::NoMap)?;
    let cell = |column: &String| {
        if !map.columns().contains(column) {
            return Err(HeadsError::NoColumn {
                column: column.clone(),
                file: map.file().to_owned(),
                known: map.columns().join(", "),
            });
        }
        let row = map.treatment(plate, *well);
        let cell = row.and_then(|row| map.cell(row, column)).map(str::trim);
        match cell.filter(|cell| !cell.is_empty()) {
            Some(cell) => Ok(cell.to_owned()),
            None => Err(HeadsError::NoClass {
                plate: plate.clone(),
                well: *well,
                column: column.clone(),
                file: map.file().to_owned(),
            }),
        }
    };
    let cells: Vec<String> = columns.iter().map(cell).collect::<Result<_, _>>()?;
    Ok(cells.join(" "))
}
