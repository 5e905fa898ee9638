//! Rerun: a screen once more, as a new run that takes over of the last one what would come out the same.
//!
//! Where channels, preprocessing, network and steps are those of the earlier run, the features are taken over of every field whose
//! images are what they were; the others are worked on again, as are all where something of it has changed. Every rerun is a
//! version of the screen of its own.

use std::path::Path;

use tokio::runtime::Handle;
use wellspring_workloads::screen::{Screen, ScreenName};
use wellspring_workloads::words::Barcode;

use crate::collector::read_statuses;
use crate::events::{RunId, Status};
use crate::identity::{IdentityError, same_model};
use crate::kafka::topics::Urgency;
use crate::kafka::{KafkaFailure, KafkaSettings};
use crate::replay::{self, ReplayError, Replayed, Selection, TakenOverFields, find};
use crate::runs::Run;
use crate::submit::submit;

/// Where a rerun begins.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Begin {
    /// With the images of fields that have changed.
    Changed,
    /// With the images of all fields.
    Images,
    /// With the features as they are.
    Features,
}

/// What a rerun does.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Anew {
    /// Everything from the comparison on.
    Comparison,
    /// That, and everything from the images on of fields that have changed.
    Fields(TakenOverFields),
    /// Everything from the images on.
    Embedding,
}

/// Why a screen is not run again.
#[derive(Debug, thiserror::Error)]
pub enum RerunError {
    /// There is nothing to begin from.
    #[error("screen '{0}' was never submitted; `wellspring runs list` shows what was")]
    NeverRun(ScreenName),
    /// It is another screen's.
    #[error(
        "run '{run}' is one of screen '{of}', not of '{name}'; `wellspring runs list` shows the runs of each"
    )]
    OtherScreen {
        /// The run.
        run: RunId,
        /// Whose run it is.
        of: ScreenName,
        /// The screen that is to be run again.
        name: ScreenName,
    },
    /// Features of another network cannot be taken over.
    #[error(transparent)]
    Identity(#[from] IdentityError),
    /// Plates that were asked for by name and are neither the run's nor the screen's.
    #[error(
        "run '{run}' has no plate {}, and the screen names none; `wellspring runs show {run}` shows its plates",
        plates.iter().map(Barcode::as_str).collect::<Vec<_>>().join(", ")
    )]
    NoSuchPlate {
        /// The run before.
        run: RunId,
        /// The plates.
        plates: Vec<Barcode>,
    },
    /// Features of plates that the run before did not have.
    #[error(
        "run '{run}' has no features of plate {}, which the screen names; a rerun without --steps works on what is new",
        plates.iter().map(Barcode::as_str).collect::<Vec<_>>().join(", ")
    )]
    NoFeatures {
        /// The run before.
        run: RunId,
        /// The plates.
        plates: Vec<Barcode>,
    },
    /// The replay.
    #[error(transparent)]
    Replay(#[from] ReplayError),
    /// Kafka.
    #[error(transparent)]
    Kafka(#[from] KafkaFailure),
}

/// The last run that was submitted of a screen of this name.
///
/// # Errors
/// There is none; Kafka cannot be read.
pub fn last_run(kafka: &KafkaSettings, name: &ScreenName) -> Result<RunId, RerunError> {
    let last = submitted(kafka, name)?.pop();
    last.map(|(run, _)| run)
        .ok_or_else(|| RerunError::NeverRun(name.clone()))
}

/// Runs of this name and their versions, in the order in which they were submitted first.
fn submitted(kafka: &KafkaSettings, name: &ScreenName) -> Result<Vec<(RunId, u32)>, KafkaFailure> {
    let mut runs: Vec<(RunId, u32)> = Vec::new();
    for status in read_statuses(kafka)? {
        if let Status::RunSubmitted { run, screen, .. } = status
            && screen.name == *name
            && runs.iter().all(|(known, _)| *known != run)
        {
            runs.push((run, screen.version));
        }
    }
    Ok(runs)
}

/// Runs `screen` again, beginning from the run `old`. `scratch` is a folder for temporary files. Blocking.
///
/// # Errors
/// `old` was never submitted, nothing of it is selected, or the screen cannot be run here; Kafka cannot be reached.
pub fn rerun(
    kafka: &KafkaSettings,
    mut screen: Screen,
    old: &RunId,
    selection: &Selection,
    begin: Begin,
    lane: Urgency,
    (runtime, scratch): (&Handle, &Path),
) -> Result<(Anew, Replayed), RerunError> {
    let before = submitted(kafka, &screen.name)?;
    if let Some(newest) = before.iter().map(|(_, version)| *version).max()
        && screen.version <= newest
    {
        screen.version = newest.saturating_add(1);
    }
    let name = screen.name.clone();
    let before = find(kafka, old)?;
    if before.screen.name != name {
        return Err(RerunError::OtherScreen {
            run: old.clone(),
            of: before.screen.name,
            name,
        });
    }
    // Plates that the screen names are its plates, whatever the run before had.
    let listed = screen.images.plates.clone();
    let mut selection = selection.clone();
    let is_known = |plate: &Barcode| before.plates.contains(plate) || listed.contains(plate);
    let unknown: Vec<Barcode> = selection
        .plates
        .iter()
        .filter(|plate| !is_known(plate))
        .cloned()
        .collect();
    if !unknown.is_empty() {
        return Err(RerunError::NoSuchPlate {
            run: old.clone(),
            plates: unknown,
        });
    }
    // A run of some plates takes no others that are announced later.
    if listed.is_empty() {
        screen.images.plates.clone_from(&selection.plates);
    }
    if selection.plates.is_empty() {
        selection.plates.clone_from(&listed);
    }
    let mut added = listed;
    added.retain(|plate| !before.plates.contains(plate) && selection.plates.contains(plate));
    let run = Run::open(screen.clone()).map_err(ReplayError::from)?;
    let other_model = same_model(old, before.model.as_ref(), &run.model()).err();
    let alike = before.same_features(&screen).is_ok() && other_model.is_none();
    // What is chosen by time is chosen of the features.
    let as_they_are = begin == Begin::Features || begin == Begin::Changed && alike && !selection.is_whole();
    if as_they_are {
        if let Some(error) = other_model {
            return Err(error.into());
        }
        if !added.is_empty() {
            let plates = added;
            return Err(RerunError::NoFeatures {
                run: old.clone(),
                plates,
            });
        }
        let done = replay::features(kafka, old, &name, Some(screen), &selection, scratch)?;
        return Ok((Anew::Comparison, done));
    }
    let of_before =
        selection.plates.is_empty() || selection.plates.iter().any(|plate| before.plates.contains(plate));
    let (anew, mut done) = if !of_before {
        (Anew::Embedding, Replayed::nothing(&run.id))
    } else if begin == Begin::Changed && alike {
        let places = (runtime, scratch);
        let (done, fields) = replay::unchanged(kafka, &before, &run, &selection, lane, places)?;
        (Anew::Fields(fields), done)
    } else {
        let done = replay::plates(kafka, old, &name, Some(screen), &selection, lane, runtime)?;
        (Anew::Embedding, done)
    };
    let announced = submit(kafka, &run, &added, lane, runtime).map_err(ReplayError::from)?;
    done.plates += added.len();
    done.published += announced.len() as u64;
    Ok((anew, done))
}
