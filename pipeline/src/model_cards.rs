//! The models this machine knows: those whose cards are built in, and those the user added to the models folder.
//!
//! A name enters, a card leaves; or a weights file and a draft of a card enter, and a model of the folder leaves. What
//! fails: a name that is taken or is no name, a card that does not parse, weights that are no such network's. A model is
//! added whole or not at all.

use std::path::{Path, PathBuf};
use std::sync::Arc;

use wellspring_kernels::KernelError;
use wellspring_models::{
    Architecture, Base, Engine, EngineChoice, EngineError, ModelCard, cards, complete_bytes,
    complete_head_bytes, find_card, open, open_head, verify, verify_head,
};
use wellspring_workloads::screen::Screen;

use crate::model_store::{Place, PullError, read, to_safetensors, weights_path};
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
    /// A card is a link to a file that is not there.
    #[error(
        "the card '{}' is a link to '{}', which is not there: put that back, or take the link away with `wellspring models \
         remove {name}`",
        path.display(), target.display()
    )]
    DeadLink {
        /// The link.
        path: PathBuf,
        /// Where it leads.
        target: PathBuf,
        /// The model.
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
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => {
            return match std::fs::read_link(&path) {
                Ok(target) => Err(CardsError::DeadLink {
                    path,
                    target,
                    name: name.to_owned(),
                }),
                Err(_) => Ok(None),
            };
        }
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
/// and the canary's embedding by `engine`, and keeps both in the folder. What `draft` has of the two already must be what is
/// found: the digest is that of the tensors, by whatever file they came, or of the file itself where an engine takes it as it
/// is (ONNX, TorchScript).
pub fn add(
    folder: &Path,
    draft: ModelCard,
    file: &Path,
    engine: EngineChoice,
) -> Result<ModelCard, CardsError> {
    check_free(folder, &draft.name)?;
    let bytes = to_safetensors(&draft, file, read(file)?)?;
    keep_of(folder, draft, file, &bytes, engine)
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
    let to = weights_path(folder, &draft);
    keep_of(folder, draft, &to, bytes, engine)
}

/// As [`keep`]; errors say that the bytes are of the file `from`.
fn keep_of(
    folder: &Path,
    draft: ModelCard,
    from: &Path,
    bytes: &[u8],
    engine: EngineChoice,
) -> Result<ModelCard, CardsError> {
    let name = draft.name.clone();
    check_free(folder, &name)?;
    // Before the work, which takes a while: whether there is a place for what comes of it.
    let place = Place::open(folder)?;
    let card = match Stand::of(folder, &draft)? {
        None => complete_bytes(draft, from, bytes, engine)?,
        Some(stand) => complete_head_bytes(draft, from, bytes, stand.base(), engine)?,
    };
    let path = card_path(folder, &name);
    let text = serde_json::to_vec_pretty(&card).map_err(|source| CardsError::Card {
        path: path.clone(),
        source,
    })?;
    place.hold()?;
    // Another process may have added the name meanwhile.
    check_free(folder, &name)?;
    let weights = weights_path(folder, &card);
    let written = AtomicFile::write(&weights, bytes).and_then(|()| AtomicFile::write(&path, &text));
    if let Err(error) = written {
        // Without a card nobody would know them. Where even this fails, the error below says enough.
        let _ = std::fs::remove_file(&weights);
        return Err(error.into());
    }
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

/// Names of the heads that stand on a model.
pub fn heads_on(folder: &Path, name: &str) -> Result<Vec<String>, CardsError> {
    let stands = |card: &Arc<ModelCard>| match &card.architecture {
        Architecture::Head(shape) => shape.base.name == name,
        _ => false,
    };
    let known = all(folder)?.cards.into_iter();
    Ok(known.filter(stands).map(|card| card.name.clone()).collect())
}

/// Removes an added model, or the weights of a built-in one. Returns the files that are gone. Of a model whose card cannot
/// be used, its weights are those that are called as its weights would be.
pub fn remove(folder: &Path, name: &str) -> Result<Vec<PathBuf>, CardsError> {
    let place = folder.is_dir().then(|| Place::open(folder)).transpose()?;
    if let Some(place) = &place {
        place.hold()?;
    }
    // The card first: a model without one is not known, weights without one are only space.
    let files = match find(folder, name) {
        Ok(card) => vec![card_path(folder, name), weights_path(folder, &card)],
        Err(
            CardsError::Card { path, .. }
            | CardsError::OtherName { path, .. }
            | CardsError::DeadLink { path, .. },
        ) => {
            let mut files = vec![path];
            files.extend(weights_called(folder, name)?);
            files
        }
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

/// Files that are called as [`weights_path`] calls weights of the model, of whatever digest.
fn weights_called(folder: &Path, name: &str) -> Result<Vec<PathBuf>, CardsError> {
    let of_model = |file: &str| {
        let rest = file.strip_prefix(name).and_then(|rest| rest.strip_prefix('-'));
        rest.and_then(|rest| rest.split_once('.'))
            .is_some_and(|(digest, end)| {
                digest.len() == 12
                    && digest
                        .bytes()
                        .all(|b| b.is_ascii_digit() || (b'a'..=b'f').contains(&b))
                    && ["safetensors", "onnx", "pt"].contains(&end)
            })
    };
    let mut files = Vec::new();
    for entry in std::fs::read_dir(folder).map_err(|source| at(folder, source))? {
        let entry = entry.map_err(|source| at(folder, source))?;
        if of_model(&entry.file_name().to_string_lossy()) {
            files.push(entry.path());
        }
    }
    files.sort();
    Ok(files)
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
    use crate::error::chain;

    fn golden(file: &str) -> PathBuf {
        Path::new(env!("CARGO_MANIFEST_DIR"))
            .join("../models/golden")
            .join(file)
    }

    /// Files of the folder, without the lock, which stays.
    fn files(folder: &Path) -> Vec<String> {
        let names = std::fs::read_dir(folder)
            .unwrap()
            .map(|entry| entry.unwrap().file_name());
        let mut names: Vec<String> = names.map(|name| name.into_string().unwrap()).collect();
        names.retain(|name| name != ".lock");
        names.sort();
        names
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
        assert!(files(&folder).is_empty());
    }

    #[test]
    fn of_several_that_add_one_name_at_once_one_does_and_its_card_and_weights_stay() {
        let folder = tempfile::tempdir().unwrap();
        let folder = folder.path();
        // The same network under one name, by cards of several versions and of two files.
        let add = |i: usize| {
            let mut card = draft();
            card.version = i.to_string();
            let file = match i % 2 {
                0 => golden("openphenom-layout.pt"),
                _ => golden("per-channel.safetensors"),
            };
            add(folder, card, &file, EngineChoice::Auto)
        };
        let results: Vec<_> = std::thread::scope(|scope| {
            let threads: Vec<_> = (0..6).map(|i| scope.spawn(move || add(i))).collect();
            threads.into_iter().map(|thread| thread.join().unwrap()).collect()
        });
        let (added, refused): (Vec<_>, Vec<_>) = results.into_iter().partition(Result::is_ok);
        assert_eq!(added.len(), 1);
        for error in refused {
            assert!(matches!(error, Err(CardsError::Taken { .. })), "{error:?}");
        }
        let kept = find(folder, "openphenom-layout").unwrap();
        assert_eq!(*kept, *added[0].as_ref().unwrap());
        verify_file(folder, &kept, None).unwrap();
        assert_eq!(files(folder).len(), 2, "{:?}", files(folder));
    }

    #[test]
    fn files_that_hold_no_tensors_are_named_as_what_they_are() {
        let folder = tempfile::tempdir().unwrap();
        let pickle = folder.path().join("list.pkl");
        std::fs::write(&pickle, b"\x80\x04]\x94.").unwrap();
        let text = folder.path().join("page.html");
        std::fs::write(&text, "<html>not found</html>").unwrap();
        let cut = folder.path().join("cut.pt");
        let whole = std::fs::read(golden("openphenom-layout.pt")).unwrap();
        std::fs::write(&cut, &whole[..whole.len() / 2]).unwrap();
        for (file, what) in [
            (golden("onnx-mini.onnx"), "an ONNX file"),
            (golden("torchscript-mini.pt"), "a TorchScript module"),
            (pickle, "a pickle"),
            (text, "no file of weights"),
            (cut, "ends too early"),
        ] {
            let models = folder.path().join("models");
            let error = add(&models, draft(), &file, EngineChoice::Auto).unwrap_err();
            let said = error.to_string();
            assert!(
                matches!(error, CardsError::Weights(PullError::NoTensors { .. })),
                "{said}"
            );
            assert!(
                said.contains(what) && said.contains(&file.display().to_string()),
                "{said}"
            );
        }
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
        assert!(files(folder).is_empty());
        // What is wrong is said of the file that was given.
        assert!(
            chain(&add(folder, draft(), &golden("timm.safetensors"), EngineChoice::Auto).unwrap_err())
                .contains("timm.safetensors")
        );
    }

    #[cfg(unix)]
    #[test]
    fn a_card_that_is_a_link_to_nowhere_is_named_and_can_be_removed() {
        let folder = tempfile::tempdir().unwrap();
        let folder = folder.path();
        std::os::unix::fs::symlink("/nowhere/far.card.json", folder.join("far.card.json")).unwrap();
        assert!(all(folder).unwrap().names().contains(&"far"));
        let said = find(folder, "far").unwrap_err().to_string();
        assert!(
            said.contains("/nowhere/far.card.json") && said.contains("remove far"),
            "{said}"
        );
        assert_eq!(remove(folder, "far").unwrap().len(), 1);
        assert!(files(folder).is_empty());
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
        // Its weights by their name, and nobody else's.
        for name in ["broken-0123456789ab.safetensors", "broken-0123456789ab.onnx"] {
            std::fs::write(folder.path().join(name), "weights").unwrap();
        }
        let others = [
            "broken-2-0123456789ab.pt",
            "broken-0123456789.pt",
            "broken-0123456789ab.txt",
        ];
        for name in others {
            std::fs::write(folder.path().join(name), "others").unwrap();
        }
        assert_eq!(remove(folder.path(), "broken").unwrap().len(), 3);
        assert!(all(folder.path()).unwrap().broken.is_empty());
        assert_eq!(files(folder.path()).len(), others.len());
    }
}
