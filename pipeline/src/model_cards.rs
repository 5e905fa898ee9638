//! The models this machine knows: those whose cards are built in, and those the user added to the models folder.
//!
//! A name enters, a card leaves; or a weights file and a draft of a card enter, and a model of the folder leaves. What
//! fails: a name that is taken or is no name, a card that does not parse, weights that are no such network's. A model is
//! added whole or not at all.

use std::path::{Path, PathBuf};
use std::sync::Arc;

use wellspring_kernels::KernelError;
use wellspring_models::{
    Architecture, Base, Engine, EngineChoice, EngineError, ModelCard, cards, complete, complete_head,
    find_card, open, open_head, verify, verify_head,
};
use wellspring_workloads::screen::Screen;

use crate::model_store::{PullError, make_folder, read, to_safetensors, weights_path};
use crate::results::{AtomicFile, WriteError};

/// How the card of an added model is called, after the model's name.
const CARD_END: &str = ".card.json";

/// Why a model is not known, added or removed.
#[derive(Debug, thiserror::Error)]
pub enum CardsError {
    /// The name cannot be that of a file.
    #[error(
        "'{name}' cannot be a model's name: use up to 64 letters, digits, '-', '_' and '.', a letter or digit first"
    )]
    Name {
        /// The name.
        name: String,
    },
    /// The name is another model's.
    #[error(
        "a model is called '{name}' already; choose another name, or `wellspring models remove {name}` first"
    )]
    Taken {
        /// The name.
        name: String,
    },
    /// No model has the name.
    #[error("no model is called '{name}'; this machine knows {known}")]
    Unknown {
        /// The name.
        name: String,
        /// The names there are.
        known: String,
    },
    /// A card of the folder does not parse.
    #[error("the card '{}' cannot be used: put it right, or take it away with `wellspring models remove`", path.display())]
    Card {
        /// Its file.
        path: PathBuf,
        /// What is wrong with it.
        source: serde_json::Error,
    },
    /// A card is of another model than its file's name says.
    #[error("the card '{}' is of a model called '{name}'; rename one of them", path.display())]
    OtherName {
        /// Its file.
        path: PathBuf,
        /// The name on the card.
        name: String,
    },
    /// A file of the folder cannot be read or removed.
    #[error("'{}' cannot be read or removed", path.display())]
    File {
        /// The file.
        path: PathBuf,
        /// The system's reason.
        source: std::io::Error,
    },
    /// The weights cannot be read, converted or kept.
    #[error(transparent)]
    Weights(#[from] PullError),
    /// A file cannot be written.
    #[error("the model cannot be kept; check space and permissions of the models folder")]
    Write(#[from] WriteError),
    /// The model that a head stands on is not known here.
    #[error(
        "{head} is a head on {base}, which cannot be used here; `wellspring models add` takes it in under that name"
    )]
    Base {
        /// The head.
        head: String,
        /// The model it stands on.
        base: String,
        /// Why it cannot be used.
        source: Box<CardsError>,
    },
    /// The engine does not take the weights.
    #[error(transparent)]
    Engine(#[from] EngineError),
    /// The device that prepares the images, and that the engine shares, is gone.
    #[error(transparent)]
    Device(#[from] KernelError),
}

/// The models of this machine.
#[derive(Debug)]
pub struct Known {
    /// The built-in ones, then the added ones by name.
    pub cards: Vec<Arc<ModelCard>>,
    /// Names of those whose cards cannot be used, and why. They are no hindrance to the others.
    pub broken: Vec<(String, CardsError)>,
}

impl Known {
    /// All names.
    pub fn names(&self) -> Vec<&str> {
        let cards = self.cards.iter().map(|card| card.name.as_str());
        cards
            .chain(self.broken.iter().map(|(name, _)| name.as_str()))
            .collect()
    }
}

/// All models.
pub fn all(folder: &Path) -> Result<Known, CardsError> {
    let mut names = Vec::new();
    match std::fs::read_dir(folder) {
        Ok(entries) => {
            for entry in entries {
                let entry = entry.map_err(|source| at(folder, source))?;
                let name = entry.file_name().to_string_lossy().into_owned();
                names.extend(name.strip_suffix(CARD_END).map(str::to_owned));
            }
        }
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => {}
        Err(error) => return Err(at(folder, error)),
    }
    names.sort();
    let mut known = Known {
        cards: cards().iter().cloned().map(Arc::new).collect(),
        broken: Vec::new(),
    };
    for name in names {
        match added(folder, &name) {
            Ok(card) => known.cards.extend(card),
            Err(error) => known.broken.push((name, error)),
        }
    }
    Ok(known)
}

/// The model called `name`.
pub fn find(folder: &Path, name: &str) -> Result<Arc<ModelCard>, CardsError> {
    if let Some(card) = find_card(name) {
        return Ok(Arc::new(card.clone()));
    }
    if let Some(card) = added(folder, name)? {
        return Ok(card);
    }
    Err(CardsError::Unknown {
        name: name.to_owned(),
        known: all(folder)?.names().join(", "),
    })
}

/// The cards of a screen's networks, in their order.
pub fn of_screen(folder: &Path, screen: &Screen) -> Result<Vec<Arc<ModelCard>>, CardsError> {
    let networks = screen.all_networks();
    networks.map(|network| find(folder, &network.model)).collect()
}

/// The added model called `name`, if there is one.
fn added(folder: &Path, name: &str) -> Result<Option<Arc<ModelCard>>, CardsError> {
    if check_name(name).is_err() {
        return Ok(None);
    }
    let path = card_path(folder, name);
    let text = match std::fs::read(&path) {
        Ok(text) => text,
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => return Ok(None),
        Err(error) => return Err(at(&path, error)),
    };
    let card: ModelCard = match serde_json::from_slice(&text) {
        Ok(card) => card,
        Err(source) => return Err(CardsError::Card { path, source }),
    };
    if card.name != name {
        return Err(CardsError::OtherName {
            path,
            name: card.name,
        });
    }
    Ok(Some(Arc::new(card)))
}

/// Adds a model: converts the weights in `file` where they are a PyTorch checkpoint, completes `draft` with their digest
/// and the canary's embedding by `engine`, and keeps both in the folder.
pub fn add(
    folder: &Path,
    draft: ModelCard,
    file: &Path,
    engine: EngineChoice,
) -> Result<ModelCard, CardsError> {
    check_free(folder, &draft.name)?;
    let bytes = to_safetensors(&draft, read(file)?)?;
    keep(folder, draft, &bytes, engine)
}

/// Refuses a name that no model can have, and one that a model has.
pub fn check_free(folder: &Path, name: &str) -> Result<(), CardsError> {
    check_name(name)?;
    if find_card(name).is_some() || added(folder, name)?.is_some() {
        let name = name.to_owned();
        return Err(CardsError::Taken { name });
    }
    Ok(())
}

/// Completes `draft` with the digest of the weights `bytes` and the canary's embedding by `engine`, and keeps both in the
/// folder.
pub fn keep(
    folder: &Path,
    draft: ModelCard,
    bytes: &[u8],
    engine: EngineChoice,
) -> Result<ModelCard, CardsError> {
    let name = draft.name.clone();
    check_free(folder, &name)?;
    make_folder(folder)?;
    // Under a name of its own until the engine has taken it.
    let trial = tempfile::NamedTempFile::new_in(folder).map_err(|source| at(folder, source))?;
    std::fs::write(trial.path(), bytes).map_err(|source| at(trial.path(), source))?;
    let card = match Stand::of(folder, &draft)? {
        None => complete(draft, trial.path(), engine)?,
        Some(stand) => complete_head(draft, trial.path(), stand.base(), engine)?,
    };
    AtomicFile::write(&weights_path(folder, &card), bytes)?;
    let path = card_path(folder, &name);
    let text = serde_json::to_vec_pretty(&card).map_err(|source| CardsError::Card {
        path: path.clone(),
        source,
    })?;
    AtomicFile::write(&path, &text)?;
    Ok(card)
}

/// What a head stands on.
struct Stand {
    card: Arc<ModelCard>,
    weights: PathBuf,
}

impl Stand {
    /// `None` for a model that stands by itself.
    fn of(folder: &Path, card: &ModelCard) -> Result<Option<Self>, CardsError> {
        let stand = |card: Arc<ModelCard>| Self {
            weights: weights_path(folder, &card),
            card,
        };
        Ok(base_of(folder, card)?.map(stand))
    }

    fn base(&self) -> Base<'_> {
        Base {
            card: &self.card,
            weights: &self.weights,
        }
    }
}

/// The model that `card` stands on, where it is a head's.
pub fn base_of(folder: &Path, card: &ModelCard) -> Result<Option<Arc<ModelCard>>, CardsError> {
    let Architecture::Head(shape) = &card.architecture else {
        return Ok(None);
    };
    let base = &shape.base.name;
    find(folder, base).map(Some).map_err(|source| CardsError::Base {
        head: card.name.clone(),
        base: base.clone(),
        source: Box::new(source),
    })
}

/// Opens a model with everything `wellspring_models::open` checks; a head together with its base, which must be the one
/// it was fitted on.
pub fn open_model(
    folder: &Path,
    card: &ModelCard,
    weights: &Path,
    engine: EngineChoice,
    threads: usize,
) -> Result<Box<dyn Engine>, CardsError> {
    Ok(match Stand::of(folder, card)? {
        None => open(card, weights, engine, threads)?,
        Some(stand) => open_head(card, weights, stand.base(), engine, threads)?,
    })
}

/// Checks a model's own file against its card, and of a head that `base` is the model it was fitted on. The base's file is
/// checked as that of any model is.
pub fn verify_file(folder: &Path, card: &ModelCard, base: Option<&ModelCard>) -> Result<(), CardsError> {
    let weights = weights_path(folder, card);
    match base {
        None => verify(card, weights)?,
        Some(base) => verify_head(card, weights, base)?,
    }
    Ok(())
}

/// Removes an added model, or the weights of a built-in one. Returns the files that are gone. Of a model whose card cannot
/// be used that is the card alone: which weights were its own nobody can tell.
pub fn remove(folder: &Path, name: &str) -> Result<Vec<PathBuf>, CardsError> {
    // The card first: a model without one is not known, weights without one are only space.
    let files = match find(folder, name) {
        Ok(card) => vec![card_path(folder, name), weights_path(folder, &card)],
        Err(CardsError::Card { path, .. } | CardsError::OtherName { path, .. }) => vec![path],
        Err(error) => return Err(error),
    };
    let mut gone = Vec::new();
    for path in files {
        match std::fs::remove_file(&path) {
            Ok(()) => gone.push(path),
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => {}
            Err(error) => return Err(at(&path, error)),
        }
    }
    Ok(gone)
}

fn card_path(folder: &Path, name: &str) -> PathBuf {
    folder.join(format!("{name}{CARD_END}"))
}

/// A name is part of file names, of Kafka records and of columns.
fn check_name(name: &str) -> Result<(), CardsError> {
    let first = name.bytes().next().is_some_and(|b| b.is_ascii_alphanumeric());
    let rest = name
        .bytes()
        .all(|b| b.is_ascii_alphanumeric() || b"-_.".contains(&b));
    if first && rest && name.len() <= 64 {
        Ok(())
    } else {
        Err(CardsError::Name {
            name: name.to_owned(),
        })
    }
}

fn at(path: &Path, source: std::io::Error) -> CardsError {
    CardsError::File {
        path: path.to_owned(),
        source,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn golden(file: &str) -> PathBuf {
        Path::new(env!("CARGO_MANIFEST_DIR"))
            .join("../models/golden")
            .join(file)
    }

    fn draft() -> ModelCard {
        let text = std::fs::read(golden("openphenom-layout.json")).unwrap();
        let mut card: ModelCard = serde_json::from_slice(&text).unwrap();
        card.weights.content_sha256.clear();
        card.canary.embedding.clear();
        card
    }

    #[test]
    fn graphs_and_modules_are_pulled_as_they_are() {
        let folder = tempfile::tempdir().unwrap();
        for (name, end) in [("onnx-mini", "onnx"), ("torchscript-mini", "pt")] {
            let card = std::fs::read(golden(&format!("{name}.json"))).unwrap();
            let card: ModelCard = serde_json::from_slice(&card).unwrap();
            let file = golden(&format!("{name}.{end}"));
            let kept = crate::model_store::pull(&card, folder.path(), Some(&file)).unwrap();
            assert_eq!(kept.extension(), Some(end.as_ref()));
            assert_eq!(std::fs::read(&kept).unwrap(), std::fs::read(&file).unwrap());
            let other = golden("timm.safetensors");
            let error = crate::model_store::pull(&card, folder.path(), Some(&other)).unwrap_err();
            assert!(matches!(error, PullError::Digest { .. }), "{error}");
        }
    }

    #[test]
    fn a_model_is_added_from_a_checkpoint_found_and_removed() {
        let folder = tempfile::tempdir().unwrap();
        let folder = folder.path().join("models");
        assert_eq!(all(&folder).unwrap().cards.len(), cards().len());
        let card = add(
            &folder,
            draft(),
            &golden("openphenom-layout.pt"),
            EngineChoice::Auto,
        )
        .unwrap();
        assert_eq!(*find(&folder, "openphenom-layout").unwrap(), card);
        assert_eq!(all(&folder).unwrap().cards.len(), cards().len() + 1);
        let weights = weights_path(&folder, &card);
        assert!(wellspring_models::open(&card, &weights, EngineChoice::Auto, 1).is_ok());
        let again = add(
            &folder,
            draft(),
            &golden("openphenom-layout.pt"),
            EngineChoice::Auto,
        );
        assert!(matches!(again, Err(CardsError::Taken { .. })));
        assert_eq!(remove(&folder, "openphenom-layout").unwrap().len(), 2);
        assert!(matches!(
            find(&folder, "openphenom-layout"),
            Err(CardsError::Unknown { .. })
        ));
        assert_eq!(std::fs::read_dir(&folder).unwrap().count(), 0);
    }

    #[test]
    fn what_cannot_be_a_model_leaves_nothing_behind() {
        let folder = tempfile::tempdir().unwrap();
        let folder = folder.path();
        for name in ["", "../x", ".hidden", "a/b", "with space", &"x".repeat(65)] {
            let mut draft = draft();
            draft.name = name.to_owned();
            let error = add(folder, draft, &golden("openphenom-layout.pt"), EngineChoice::Auto).unwrap_err();
            assert!(matches!(error, CardsError::Name { .. }), "{error}");
        }
        let error = add(folder, draft(), &golden("timm.safetensors"), EngineChoice::Auto).unwrap_err();
        assert!(matches!(error, CardsError::Engine(_)), "{error}");
        let mut taken = draft();
        taken.name = "efficientnet-lite0".to_owned();
        let error = add(folder, taken, &golden("openphenom-layout.pt"), EngineChoice::Auto).unwrap_err();
        assert!(matches!(error, CardsError::Taken { .. }), "{error}");
        assert_eq!(std::fs::read_dir(folder).unwrap().count(), 0);
    }

    #[test]
    fn a_broken_card_is_named_and_no_hindrance_to_other_models() {
        let folder = tempfile::tempdir().unwrap();
        std::fs::write(folder.path().join("broken.card.json"), "{}").unwrap();
        let error = find(folder.path(), "broken").unwrap_err();
        assert!(
            matches!(&error, CardsError::Card { path, .. } if path.ends_with("broken.card.json")),
            "{error}"
        );
        let known = all(folder.path()).unwrap();
        assert_eq!(known.cards.len(), cards().len());
        assert!(known.names().contains(&"broken") && known.broken.len() == 1);
        assert!(find(folder.path(), "efficientnet-lite0").is_ok());
        let error = find(folder.path(), "other").unwrap_err();
        assert!(error.to_string().contains("broken"), "{error}");
        assert_eq!(remove(folder.path(), "broken").unwrap().len(), 1);
        assert!(all(folder.path()).unwrap().broken.is_empty());
    }
}
