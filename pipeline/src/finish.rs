//! Finish: what a complete run leaves behind. Result files, the report, and records on the profiles and comparisons
//! topics.
//!
//! A complete [`Collection`] enters. Files are whole or absent; records are published once, however often a crash
//! makes this run again: each plate's profiles, and each batch of comparisons, carry their status in the same
//! transaction. Memory is one plate's profiles, or one batch.

mod publish;

use std::path::{Path, PathBuf};

use serde::Serialize;
use tokio::runtime::Handle;

use crate::clock::now_ms;
use crate::collect::Collection;
use crate::compare::{Compared, Exemplar, compare, exemplars};
use crate::decode::field_image;
use crate::error::{Stage, StageError};
use crate::events::RunId;
use crate::external::beyond::{Asker, Asking, StepOutcome, Stopped};
use crate::failpoint;
use crate::kafka::KafkaSettings;
use crate::plan::{images, list_plate};
use crate::report::{self, DeadLetterLine, Montage, ReportInput, RunFacts, Tile};
use crate::results::{JsonLines, Provenance, WriteError, write_json};
use crate::runs::Run;

/// What `run --json` prints and `run.json` keeps.
#[derive(Debug, Clone, Serialize)]
pub struct RunSummary {
    /// The screen's name.
    pub screen: String,
    /// The run.
    pub run: RunId,
    /// Fields the plates should have.
    pub fields_expected: u32,
    /// Fields with features.
    pub fields_done: u32,
    /// Fields that failed for good.
    pub fields_failed: u32,
    /// Dead-letter records.
    pub dead_letters: usize,
    /// Fields that neither arrived nor failed; anything but 0 is a defect.
    pub lost: u32,
    /// Whether anything could be compared: an assay window or a treatment.
    pub compared: bool,
    /// Seconds from the start of `run`, or from the run's submission, to its results.
    pub seconds: f64,
    /// Most memory the process held, in bytes.
    pub peak_rss_bytes: u64,
    /// The output folder.
    pub out: PathBuf,
}

/// `run.json`: the summary and everything that fixed the numbers.
#[derive(Debug, Serialize)]
struct RunFile<'a> {
    #[serde(flatten)]
    summary: &'a RunSummary,
    provenance: &'a Provenance,
    device: &'a str,
    version: &'static str,
    notes: &'a [String],
    /// Of steps that were asked about wells, plates and the screen.
    #[serde(skip_serializing_if = "<[_]>::is_empty")]
    external: &'a [StepOutcome],
    definition: &'a wellspring_workloads::screen::Screen,
}

/// What the process knows and the run does not.
#[derive(Debug, Clone)]
pub struct Surroundings {
    /// The device of the kernels, in words.
    pub device: String,
    /// The engine of the network, in words.
    pub engine: String,
    /// When work on the run began here; `None` where the time counts from its submission.
    pub started: Option<std::time::Instant>,
}

/// Writes everything into `out`, asks the steps of wells, plates and the screen, and publishes what is not published yet.
pub fn finish(
    run: &Run,
    collection: &mut Collection,
    kafka: &KafkaSettings,
    asking: &Asking<'_>,
    surroundings: &Surroundings,
    out: &Path,
) -> Result<(RunSummary, Compared), StageError> {
    let runtime = asking.runtime;
    let model = run.model();
    let mut provenance = Provenance {
        screen: run.screen.name.to_string(),
        run: run.id.clone(),
        screen_sha256: run.screen.hash(),
        model: model.name,
        model_sha256: model.weights_sha256,
        seed: run.screen.comparison.seed,
        transform_sha256: None,
    };
    // A map that cannot be read has failed every plate in planning, with its reason; the tables are then empty.
    let map = runtime.block_on(run.map.get(&run.screen)).ok();
    let mut asker = Asker::new(run, asking, &collection.letters(), &provenance, out);
    let mut compared = compare(run, collection, map.as_deref(), &mut asker, &mut provenance, out)?;
    failpoint::pass("collector", "compare");
    compared
        .drift
        .write(out, &provenance)
        .map_err(|error| StageError::internal(Stage::Compare, error))?;
    asker.screen(&compared)?;
    let asked = asker.finish();
    compared.left_out.extend(asked.left_out);
    for letter in &asked.letters {
        collection.add_letter(letter.clone());
    }
    let mut letters = JsonLines::create(&out.join("dead-letters.jsonl")).map_err(disk)?;
    for letter in collection.letters() {
        letters.push(letter).map_err(disk)?;
    }
    letters.finish().map_err(disk)?;

    // What was steered meanwhile is not published.
    if (asking.stop)() {
        return Err(Stopped::error());
    }
    publish::publish(run, collection, &mut compared, &asked.letters, &provenance, kafka)?;

    let progress = collection.progress();
    let summary = RunSummary {
        screen: run.screen.name.to_string(),
        run: run.id.clone(),
        fields_expected: progress.expected,
        fields_done: progress.done,
        fields_failed: progress.failed,
        dead_letters: progress.dead_letters,
        lost: progress.lost(),
        compared: compared.has_result(),
        seconds: match (surroundings.started, collection.submitted_ms()) {
            (Some(started), _) => started.elapsed().as_secs_f64(),
            (None, Some(submitted)) => now_ms().saturating_sub(submitted) as f64 / 1e3,
            (None, None) => 0.0,
        },
        peak_rss_bytes: crate::memory::peak_rss_bytes(),
        out: out.to_owned(),
    };
    if run.screen.output.report {
        write_report(
            run,
            collection,
            (&compared, &asked.outcomes),
            &summary,
            provenance.clone(),
            runtime,
            surroundings,
            out,
        )?;
    }
    let file = RunFile {
        summary: &summary,
        provenance: &provenance,
        device: &surroundings.device,
        version: env!("CARGO_PKG_VERSION"),
        notes: &notes(&compared),
        external: &asked.outcomes,
        definition: &run.screen,
    };
    failpoint::pass("collector", "finish");
    write_json(&out.join("run.json"), &file).map_err(disk)?;
    Ok((summary, compared))
}

fn disk(error: WriteError) -> StageError {
    StageError::internal(Stage::Compare, error)
}

/// What a reader must know: what was left out, and what the comparison says of itself.
pub fn notes(compared: &Compared) -> Vec<String> {
    let said = match &compared.comparison {
        Ok(shown) => {
            let notes = shown.comparison.notes.iter();
            notes.map(|note| note.text.clone()).collect()
        }
        Err(error) => vec![format!("there is no comparison: {error}")],
    };
    let drift = compared.drift.notes.iter().cloned();
    compared
        .left_out
        .iter()
        .cloned()
        .chain(drift)
        .chain(said)
        .collect()
}

#[allow(
    clippy::too_many_arguments,
    reason = "the report shows all of it, and nothing else takes these together"
)]
fn write_report(
    run: &Run,
    collection: &Collection,
    (compared, outcomes): (&Compared, &[StepOutcome]),
    summary: &RunSummary,
    provenance: Provenance,
    runtime: &Handle,
    surroundings: &Surroundings,
    out: &Path,
) -> Result<(), StageError> {
    let shown = compared.comparison.as_ref();
    let beyond = shown.ok().and_then(|shown| shown.beyond.as_ref()).into_iter();
    let facts = RunFacts {
        provenance,
        description: run.screen.description.clone(),
        finished: crate::clock::rfc3339_now(),
        seconds: summary.seconds,
        fields_expected: summary.fields_expected.into(),
        fields_done: summary.fields_done.into(),
        fields_failed: summary.fields_failed.into(),
        dead_letters: summary.dead_letters as u64,
        device: surroundings.device.clone(),
        engine: surroundings.engine.clone(),
        version: env!("CARGO_PKG_VERSION").to_owned(),
        plates: compared.plate_count as u64,
        wells: compared.well_count as u64,
        more: compared
            .left_out
            .iter()
            .map(|text| ("left out".to_owned(), text.clone()))
            .chain(beyond.map(|text| ("shown".to_owned(), text.clone())))
            .chain(
                outcomes
                    .iter()
                    .map(|outcome| (format!("step {}", outcome.step), outcome.describe())),
            )
            .collect(),
    };
    let dead_letters: Vec<DeadLetterLine> = collection
        .letters()
        .into_iter()
        .map(|letter| DeadLetterLine {
            stage: letter.stage.to_string(),
            subject: crate::dead_letters::subject(letter),
            reason: letter.message.clone(),
        })
        .collect();
    let montage = runtime.block_on(montage(run, exemplars(compared)?));
    let failed = shown.err().map(ToString::to_string);
    let page = report::render(&ReportInput {
        run: &facts,
        comparison: shown.ok().map(|shown| &shown.comparison),
        comparison_failed: failed.as_deref(),
        drift: compared.drift.report.as_ref(),
        replicates: shown.ok().map(|shown| shown.replicates),
        matrix: shown.ok().and_then(|shown| shown.matrix.as_ref()),
        question: run.screen.comparison.question,
        dose_unit: &run.screen.comparison.dose_unit,
        plates: &compared.plates,
        dead_letters: &dead_letters,
        quality_flags: &compared.flags,
        montage: montage.as_ref(),
    })
    .map_err(|error| StageError::internal(Stage::Compare, error))?;
    crate::results::AtomicFile::write(&out.join("report.html"), page.as_bytes()).map_err(disk)
}

/// Example images for the report; an image that cannot be read any more is left out and logged.
async fn montage(run: &Run, exemplars: Vec<Exemplar>) -> Option<Montage> {
    let mut tiles = Vec::new();
    for exemplar in exemplars {
        match tile(run, &exemplar).await {
            Ok(Some(tile)) => tiles.push(tile),
            Ok(None) => {}
            Err(error) => tracing::warn!(%error, label = exemplar.label, "an example image is left out"),
        }
    }
    let channels = run
        .screen
        .images
        .channels
        .iter()
        .map(|channel| channel.name.clone())
        .collect();
    (!tiles.is_empty()).then_some(Montage { channels, tiles })
}

async fn tile(run: &Run, exemplar: &Exemplar) -> Result<Option<Tile>, StageError> {
    let found = list_plate(&run.store, &run.screen, &exemplar.plate).await?;
    let fields = found.plates.get(&exemplar.plate).map_or(&[][..], Vec::as_slice);
    let Some(field) = fields.iter().find(|field| field.well == exemplar.well) else {
        return Ok(None);
    };
    let images = images(field);
    let bytes = crate::fetch::read_channels(&run.store, &images).await?;
    let planes = images.iter().map(|channel| &channel.planes);
    let image = field_image(bytes.iter().zip(planes), &run.screen.images)?;
    Ok(Some(Tile {
        label: exemplar.label.clone(),
        place: format!("{} {} field {}", exemplar.plate, exemplar.well, field.field),
        height: image.height(),
        width: image.width(),
        planes: (0..image.channels())
            .map(|channel| image.plane(channel).to_vec())
            .collect(),
    }))
}
