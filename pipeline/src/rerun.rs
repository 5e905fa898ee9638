//! Rerun: a screen once more, as a new run that takes over of the last one what would come out the same.
//!
//! Where channels, preprocessing, network and steps are those of the earlier run, its features are taken over and only
//! compared anew; otherwise its plates are announced again. Every rerun is a version of the screen of its own. Whether images
//! have changed in the store since is not looked at: `embed` says that they have.

use std::path::Path;

use tokio::runtime::Handle;
use wellspring_workloads::screen::{Screen, ScreenName};

use crate::collector::read_statuses;
use crate::events::{RunId, Status};
use crate::identity::same_model;
use crate::kafka::topics::Urgency;
use crate::kafka::{KafkaFailure, KafkaSettings};
use crate::replay::{self, ReplayError, Replayed, Selection, find};
use crate::runs::Run;

/// What a rerun does.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Anew {
    /// Everything from the comparison on.
    Comparison,
    /// Everything from the images on.
    Embedding,
}

/// Why a screen is not run again.
#[derive(Debug, thiserror::Error)]
pub enum RerunError {
    /// There is nothing to begin from.
    #[error("screen '{0}' was never submitted; `wellspring runs list` shows what was")]
    NeverRun(ScreenName),
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

/// Runs `screen` again, beginning from the run `old`; with `embed` from the images in any case. `scratch` is a folder for
/// temporary files. Blocking.
///
/// # Errors
/// `old` was never submitted, nothing of it is selected, or the screen cannot be run here; Kafka cannot be reached.
pub fn rerun(
    kafka: &KafkaSettings,
    mut screen: Screen,
    old: &RunId,
    selection: &Selection,
    embed: bool,
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
    let run = find(kafka, old)?;
    let model = Run::open(screen.clone()).map_err(ReplayError::from)?.model();
    let alike = run.same_features(&screen).is_ok() && same_model(old, run.model.as_ref(), &model).is_ok();
    if alike && !embed {
        let done = replay::features(kafka, old, &name, Some(screen), selection, scratch)?;
        return Ok((Anew::Comparison, done));
    }
    let done = replay::plates(kafka, old, &name, Some(screen), selection, lane, runtime)?;
    Ok((Anew::Embedding, done))
}
