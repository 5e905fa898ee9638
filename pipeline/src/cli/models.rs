//! `wellspring models`: the networks this build knows, and their weights on this machine.
//! Fails where a name is unknown, weights cannot be fetched, or a file is not the one the card names.

use std::path::{Path, PathBuf};
use std::process::ExitCode;

use serde_json::json;
use wellspring::model_store::{models_folder, pull, weights_path};
use wellspring_models::{ModelCard, cards, find_card};

use super::say;

#[derive(Debug, clap::Args)]
#[command(
    after_help = "Examples:\n  wellspring models list\n  wellspring models pull efficientnet-lite0\n  \
                  wellspring models pull efficientnet-lite0 --from weights.safetensors\n  \
                  wellspring models verify efficientnet-lite0"
)]
pub(crate) struct Args {
    #[command(subcommand)]
    action: Action,
    /// Folder of the weights. Default: the user's cache folder.
    #[arg(long, value_name = "DIR", env = "WELLSPRING_MODELS", global = true)]
    models: Option<PathBuf>,
}

#[derive(Debug, clap::Subcommand)]
enum Action {
    /// Show every network with the state of its weights.
    List {
        /// Print one JSON array.
        #[arg(long)]
        json: bool,
    },
    /// Fetch a network's weights, check and keep them. Works offline afterwards.
    Pull {
        /// The network's name.
        name: String,
        /// Take them from this file (package, checkpoint or safetensors) and not from the network.
        #[arg(long, value_name = "FILE")]
        from: Option<PathBuf>,
    },
    /// Check a network's weights against its card. Exit 1 where they are absent or damaged.
    Verify {
        /// The network's name.
        name: String,
    },
}

pub(crate) fn execute(args: Args) -> anyhow::Result<ExitCode> {
    let folder = match args.models {
        Some(folder) => folder,
        None => models_folder()?,
    };
    match args.action {
        Action::List { json } => list(&folder, json),
        Action::Pull { name, from } => {
            let card = known(&name)?;
            say::note(format!("fetching {} ...", card.name));
            let path = pull(card, &folder, from.as_deref())?;
            say::line(format!(
                "{} {} is ready: {}",
                card.name,
                card.version,
                path.display()
            ));
            Ok(ExitCode::SUCCESS)
        }
        Action::Verify { name } => {
            let card = known(&name)?;
            let state = WeightsState::of(card, &folder);
            say::line(format!(
                "{} {}: {}",
                card.name,
                card.version,
                state.describe(card, &folder)
            ));
            Ok(if state.usable() {
                ExitCode::SUCCESS
            } else {
                ExitCode::FAILURE
            })
        }
    }
}

fn known(name: &str) -> anyhow::Result<&'static ModelCard> {
    find_card(name).ok_or_else(|| {
        let names: Vec<&str> = cards().iter().map(|card| card.name.as_str()).collect();
        anyhow::anyhow!(
            "no model is called '{name}'; this build knows {}",
            names.join(", ")
        )
    })
}

fn list(folder: &Path, as_json: bool) -> anyhow::Result<ExitCode> {
    let states = cards().iter().map(|card| (card, WeightsState::of(card, folder)));
    if as_json {
        let models: Vec<_> = states
            .map(|(card, state)| in_json(card, &state, folder))
            .collect();
        say::line(serde_json::Value::from(models));
        return Ok(ExitCode::SUCCESS);
    }
    for (card, state) in states {
        let input = &card.input;
        say::line(format!(
            "{} {}: {} values per channel from {} x {} pixels, {}\n  {}",
            card.name,
            card.version,
            card.embedding_width,
            input.height,
            input.width,
            card.licence,
            state.describe(card, folder)
        ));
    }
    Ok(ExitCode::SUCCESS)
}

fn in_json(card: &ModelCard, state: &WeightsState, folder: &Path) -> serde_json::Value {
    let problem = match state {
        WeightsState::Damaged(problem) => Some(problem),
        _ => None,
    };
    json!({
        "name": card.name,
        "version": card.version,
        "licence": card.licence,
        "embedding_width": card.embedding_width,
        "input": {"height": card.input.height, "width": card.input.width},
        "weights": weights_path(folder, card),
        "content_sha256": card.weights.content_sha256,
        "state": state.word(),
        "problem": problem,
    })
}

/// What a network's weights on this machine are.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum WeightsState {
    /// Not there.
    Absent,
    /// There, and the ones the card names.
    Verified,
    /// There, but not usable, and why.
    Damaged(String),
}

impl WeightsState {
    /// Reads the file and compares its digest with the card's.
    pub(crate) fn of(card: &ModelCard, folder: &Path) -> Self {
        let path = weights_path(folder, card);
        if !path.exists() {
            return Self::Absent;
        }
        match wellspring_models::verify(card, &path) {
            Ok(()) => Self::Verified,
            Err(error) => Self::Damaged(wellspring::error::chain(&error)),
        }
    }

    pub(crate) fn usable(&self) -> bool {
        *self == Self::Verified
    }

    fn word(&self) -> &'static str {
        match self {
            Self::Absent => "absent",
            Self::Verified => "verified",
            Self::Damaged(_) => "damaged",
        }
    }

    /// The state with what to do about it.
    pub(crate) fn describe(&self, card: &ModelCard, folder: &Path) -> String {
        let path = weights_path(folder, card);
        let name = &card.name;
        match self {
            Self::Absent => {
                format!("weights are not on this machine; `wellspring models pull {name}` fetches them")
            }
            Self::Verified => format!("weights verified: {}", path.display()),
            Self::Damaged(problem) => format!(
                "weights are not usable: {problem}; delete '{}' and run `wellspring models pull {name}`",
                path.display()
            ),
        }
    }
}
