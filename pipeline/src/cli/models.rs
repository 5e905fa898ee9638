//! `wellspring models`: the networks this machine knows, and their weights.
//! Fails where a name is unknown, weights cannot be fetched, or a file is not the one the card names.

mod fit_head;

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::process::ExitCode;

use anyhow::Context;
use serde_json::json;
use wellspring::error::chain;
use wellspring::model_cards::{self, CardsError, Known};
use wellspring::model_store::{choose_models_folder, models_folder, pull, weights_path};
use wellspring_models::{Architecture, ChannelPolicy, EngineError, ModelCard, find_template, templates};

use super::common::RuntimeArgs;
use super::{bench, say};

#[derive(Debug, clap::Args)]
#[command(
    after_help = "Examples:\n  wellspring models list\n  wellspring models pull efficientnet-lite0\n  \
                  wellspring models pull efficientnet-lite0 --from weights.safetensors\n  \
                  wellspring models verify efficientnet-lite0\n  \
                  wellspring models add dinov2_vits14_pretrain.pth --template dinov2-vit-s14\n  \
                  wellspring models add network.onnx --card network.json\n  \
                  wellspring models fit-head white --run rescue-pilot-1a2b3c4d --kafka localhost:9092\n  \
                  wellspring models bench dinov2-vit-s14"
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
    /// Fetch a network's weights, check and keep them; damaged ones are replaced. Works offline afterwards.
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
    /// Add a network of your own: a PyTorch checkpoint, a TorchScript module, a safetensors or an ONNX file,
    /// with a card.
    ///
    /// Where the card has no digest and no embedding of its canary, they are filled in; where it has, they must be those of
    /// FILE. The digest (content_sha256) is that of the tensors' names, types, shapes and values as a safetensors file has
    /// them, so that it is the same for a checkpoint and for what was made of it; of an ONNX file or a TorchScript module it is
    /// the SHA-256 of FILE. The canary must agree as closely as when a network opens (cosine 0.9999, norm 0.1 %). Tensors that
    /// the card's network does not use are an error unless weights.ignore of the card lists them. Afterwards the network is
    /// known like any other.
    Add(AddArgs),
    /// Fit a head on the control wells of a run or of tables: a whitening, or a linear probe. It becomes a model of its
    /// own, which embeds with the network that made the features.
    FitHead(Box<fit_head::Args>),
    /// Remove a network that was added, or the weights of another; heads on it are named.
    Remove {
        /// The network's name.
        name: String,
    },
    /// Measure a network: milliseconds per image, by batch and threads.
    Bench(bench::EmbedArgs),
}

#[derive(Debug, clap::Args)]
#[command(group(clap::ArgGroup::new("described").required(true).args(["template", "card"])))]
struct AddArgs {
    /// The weights: a PyTorch checkpoint, a TorchScript module, a safetensors or an ONNX file.
    #[arg(value_name = "FILE")]
    file: PathBuf,
    /// The built-in card of a published network to start from; `models list` names them.
    #[arg(long, value_name = "NAME")]
    template: Option<String>,
    /// A card of your own (JSON, as `models add` writes them; models/cards/README.md has every field); `content_sha256` and
    /// the canary's `embedding` may be empty.
    #[arg(long, value_name = "FILE")]
    card: Option<PathBuf>,
    /// What to call it. Default: as the card does.
    #[arg(long, value_name = "NAME")]
    name: Option<String>,
    #[command(flatten)]
    runtime: RuntimeArgs,
}

pub(crate) fn execute(args: Args) -> anyhow::Result<ExitCode> {
    if let Some(folder) = &args.models {
        choose_models_folder(folder);
    }
    let folder = models_folder()?;
    match args.action {
        Action::List { json } => list(&folder, json),
        Action::Pull { name, from } => {
            let card = model_cards::find(&folder, &name)?;
            say::note(format!("fetching {} ...", card.name));
            let path = pull(&card, &folder, from.as_deref())?;
            say::line(format!(
                "{} {} is ready: {}",
                card.name,
                card.version,
                path.display()
            ));
            Ok(ExitCode::SUCCESS)
        }
        Action::Verify { name } => {
            let card = model_cards::find(&folder, &name)?;
            let state = States::new(&folder).of(&card);
            say::line(format!(
                "{} {}: {}",
                card.name,
                card.version,
                state.describe(&card, &folder)
            ));
            Ok(if state.usable() {
                ExitCode::SUCCESS
            } else {
                ExitCode::FAILURE
            })
        }
        Action::Add(add) => self::add(&folder, add),
        Action::FitHead(args) => fit_head::execute(&folder, &args),
        Action::Remove { name } => {
            let heads = model_cards::heads_on(&folder, &name)?;
            let gone = model_cards::remove(&folder, &name)?;
            if !gone.is_empty() && !heads.is_empty() {
                say::note(format!(
                    "note: {} stand{} on {name} and cannot be used without it",
                    heads.join(", "),
                    if heads.len() == 1 { "s" } else { "" }
                ));
            }
            if gone.is_empty() {
                say::line(format!("{name} has no files on this machine"));
            }
            for path in gone {
                say::line(format!("removed {}", path.display()));
            }
            Ok(ExitCode::SUCCESS)
        }
        Action::Bench(args) => bench::embed_alone(&args),
    }
}

fn add(folder: &Path, args: AddArgs) -> anyhow::Result<ExitCode> {
    let mut draft = match (&args.template, &args.card) {
        (Some(name), _) => find_template(name).cloned().with_context(|| {
            let names: Vec<&str> = templates().iter().map(|card| card.name.as_str()).collect();
            format!("no template is called '{name}'; there are {}", names.join(", "))
        })?,
        (None, Some(path)) => {
            let unusable = || format!("the card '{}' cannot be used", path.display());
            let text = std::fs::read(path).with_context(unusable)?;
            serde_json::from_slice::<ModelCard>(&text).with_context(unusable)?
        }
        (None, None) => anyhow::bail!("a network needs a card: give --template or --card"),
    };
    if let Some(name) = args.name {
        draft.name = name;
    }
    let engine = args.runtime.engine_for(folder, &draft)?;
    let card = model_cards::add(folder, draft, &args.file, engine)?;
    say::line(format!(
        "{} {} is ready: {}",
        card.name,
        card.version,
        weights_path(folder, &card).display()
    ));
    if let Some(terms) = &card.terms {
        say::note(format!("{} ({}): {terms}", card.name, card.licence));
    }
    Ok(ExitCode::SUCCESS)
}

fn list(folder: &Path, as_json: bool) -> anyhow::Result<ExitCode> {
    let Known { cards, broken } = model_cards::all(folder)?;
    let mut states = States::new(folder);
    let states = cards.iter().map(|card| (card, states.of(card)));
    if as_json {
        let models = states.map(|(card, state)| in_json(card, &state, folder));
        let broken = broken
            .iter()
            .map(|(name, error)| json!({"name": name, "state": "broken", "problem": chain(error)}));
        say::line(serde_json::Value::from_iter(models.chain(broken)));
        return Ok(ExitCode::SUCCESS);
    }
    for (card, state) in states {
        let input = &card.input;
        let terms = card
            .terms
            .as_ref()
            .map_or(String::new(), |terms| format!(", {terms}"));
        say::line(format!(
            "{} {}{}: {} values per {} from {} x {} pixels, {}{terms}\n  {}",
            card.name,
            card.version,
            base_name(card).map_or(String::new(), |base| format!(", head on {base}")),
            card.embedding_width,
            takes(card),
            input.height,
            input.width,
            card.licence,
            state.describe(card, folder)
        ));
    }
    for (name, error) in &broken {
        say::line(format!("{name}: {}", chain(error)));
    }
    let names: Vec<&str> = templates().iter().map(|card| card.name.as_str()).collect();
    say::line(format!(
        "`wellspring models add FILE --template NAME` takes weights you have; templates: {}",
        names.join(", ")
    ));
    Ok(ExitCode::SUCCESS)
}

/// What a head stands on.
fn base_name(card: &ModelCard) -> Option<&str> {
    match &card.architecture {
        Architecture::Head(shape) => Some(&shape.base.name),
        _ => None,
    }
}

/// What one embedding is of.
fn takes(card: &ModelCard) -> String {
    match card.channel_policy {
        _ if !card.fitted_channels().is_empty() => {
            format!("image of the channels {}", card.fitted_channels().join(", "))
        }
        ChannelPolicy::ChannelAgnostic { most } => format!("image of up to {most} channels"),
        ChannelPolicy::FirstConvolution { channels } | ChannelPolicy::Fitted { channels } => {
            format!("image of {channels} channels")
        }
        _ => "channel".to_owned(),
    }
}

fn in_json(card: &ModelCard, state: &WeightsState, folder: &Path) -> serde_json::Value {
    let problem = match state {
        WeightsState::Damaged(problem) | WeightsState::NoBase(problem) => Some(problem),
        _ => None,
    };
    json!({
        "name": card.name,
        "version": card.version,
        "base": base_name(card),
        "channels": card.fitted_channels(),
        "licence": card.licence,
        "terms": card.terms,
        "embedding_width": card.embedding_width,
        "channel_policy": card.channel_policy,
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
    /// Those of a head are there, but what it stands on is not usable, and why.
    NoBase(String),
}

/// The states of models. Every file is read once, also that of a network on which several heads stand.
pub(crate) struct States<'a> {
    folder: &'a Path,
    known: BTreeMap<String, WeightsState>,
}

impl<'a> States<'a> {
    /// Of the models in a folder.
    pub(crate) fn new(folder: &'a Path) -> Self {
        Self {
            folder,
            known: BTreeMap::new(),
        }
    }

    /// Reads the file and compares its digest with the card's.
    pub(crate) fn of(&mut self, card: &ModelCard) -> WeightsState {
        if let Some(state) = self.known.get(&card.name) {
            return state.clone();
        }
        let state = self.read(card);
        self.known.insert(card.name.clone(), state.clone());
        state
    }

    fn read(&mut self, card: &ModelCard) -> WeightsState {
        let path = weights_path(self.folder, card);
        if !path.exists() {
            return WeightsState::Absent;
        }
        let base = match model_cards::base_of(self.folder, card) {
            Ok(base) => base,
            Err(error) => return WeightsState::NoBase(chain(&error)),
        };
        match (model_cards::verify_file(self.folder, card, base.as_deref()), base) {
            (Err(CardsError::Engine(error @ EngineError::OtherBase { .. })), _) => {
                WeightsState::NoBase(chain(&error))
            }
            // What helps is said for the state as a whole.
            (Err(CardsError::Engine(EngineError::WrongDigest { expected, found, .. })), _) => {
                WeightsState::Damaged(format!(
                    "the content digest of '{}' is {found}, the card says {expected}",
                    path.display()
                ))
            }
            (Err(error), _) => WeightsState::Damaged(chain(&error)),
            (Ok(()), None) => WeightsState::Verified,
            (Ok(()), Some(base)) => match self.of(&base) {
                WeightsState::Verified => WeightsState::Verified,
                other => {
                    let said = other.describe(&base, self.folder);
                    WeightsState::NoBase(format!("it stands on {}, whose {said}", base.name))
                }
            },
        }
    }
}

impl WeightsState {
    pub(crate) fn usable(&self) -> bool {
        *self == Self::Verified
    }

    fn word(&self) -> &'static str {
        match self {
            Self::Absent => "absent",
            Self::Verified => "verified",
            Self::Damaged(_) => "damaged",
            Self::NoBase(_) => "no_base",
        }
    }

    /// The state with what to do about it.
    pub(crate) fn describe(&self, card: &ModelCard, folder: &Path) -> String {
        let path = weights_path(folder, card);
        let name = &card.name;
        match self {
            Self::Absent if base_name(card).is_some() => format!(
                "weights are not on this machine; fit the head again, or bring its file: `wellspring models pull {name} \
                 --from FILE`"
            ),
            Self::Absent if card.weights.package.is_none() => format!(
                "weights are not on this machine; fetch them from {} and run `wellspring models pull {name} --from FILE`",
                card.weights.uri
            ),
            Self::Absent => {
                format!("weights are not on this machine; `wellspring models pull {name}` fetches them")
            }
            Self::Verified => format!("weights verified: {}", path.display()),
            Self::NoBase(problem) => format!("cannot be used: {problem}"),
            Self::Damaged(problem) if card.weights.package.is_none() => format!(
                "weights are not usable: {problem}; bring its file again with `wellspring models pull {name} --from FILE`, \
                 or `wellspring models remove {name}` and {}",
                if base_name(card).is_some() {
                    "fit it anew"
                } else {
                    "add it anew"
                }
            ),
            Self::Damaged(problem) => format!(
                "weights are not usable: {problem}; `wellspring models pull {name}` fetches them anew"
            ),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use wellspring::heads::{self, Controls, Kind, Request};
    use wellspring_models::EngineChoice;
    use wellspring_workloads::profile::{Role, Treatment, WellProfile};
    use wellspring_workloads::words::WellPosition;

    /// Wells of two channels of the small network `timm`.
    fn wells() -> Vec<WellProfile> {
        let well = |i: u8| WellProfile {
            plate: "P1".parse().unwrap(),
            well: WellPosition::new(1 + i / 12, 1 + i % 12).unwrap(),
            treatment: Treatment {
                role: Role::Reference,
                disease: None,
                compound: None,
                dose: None,
            },
            fields: 1,
            cell_count: None,
            values: (0..48)
                .map(|j| f32::from((u16::from(i) * 37 + j * 11) % 19))
                .collect(),
        };
        (0..20).map(well).collect()
    }

    #[test]
    fn the_network_under_several_heads_is_read_once() {
        let folder = tempfile::tempdir().unwrap();
        let folder = folder.path();
        let golden = Path::new(env!("CARGO_MANIFEST_DIR")).join("../models/golden");
        let card = std::fs::read(golden.join("timm.json")).unwrap();
        let draft = serde_json::from_slice(&card).unwrap();
        let base = model_cards::add(
            folder,
            draft,
            &golden.join("timm.safetensors"),
            EngineChoice::Auto,
        )
        .unwrap();
        let fitted = |name: &str| {
            let request = Request {
                name,
                base: &base,
                channels: 2,
                channel_names: vec!["DNA".to_owned(), "AGP".to_owned()],
                from: "a test".to_owned(),
                controls: Controls::Reference,
                kind: Kind::Whitening(Default::default()),
            };
            let (draft, weights) = heads::fit(request, &wells(), None).unwrap();
            model_cards::keep(folder, draft, &weights, EngineChoice::Auto).unwrap()
        };
        let (first, second) = (fitted("first"), fitted("second"));
        assert_eq!(first.fitted_channels(), ["DNA", "AGP"]);
        assert_eq!(
            model_cards::heads_on(folder, "timm").unwrap(),
            ["first", "second"]
        );
        let mut states = States::new(folder);
        assert_eq!(states.of(&first), WeightsState::Verified);
        std::fs::remove_file(weights_path(folder, &base)).unwrap();
        assert_eq!(states.of(&second), WeightsState::Verified, "read again");
        // What is wrong with the network is said of its heads, with what helps.
        let state = States::new(folder).of(&second);
        let text = state.describe(&second, folder);
        assert!(
            text.contains("it stands on timm") && text.contains("pull timm --from FILE"),
            "{text}"
        );
        assert!(matches!(state, WeightsState::NoBase(_)), "{state:?}");
    }
}
