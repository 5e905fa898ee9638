//! Finish: what a complete run leaves behind. Result files, the report, and records on the profiles and comparisons
//! topics.
//!
//! A complete [`Collection`] enters. Files are whole or absent; records are published once, however often a crash
//! makes this run again: each plate's profiles, and the comparisons, carry their status in the same transaction.

use std::path::{Path, PathBuf};
use std::time::Duration;

use serde::Serialize;
use tokio::runtime::Handle;
use wellspring_workloads::compare::Design;
use wellspring_workloads::profile::WellProfile;
use wellspring_workloads::words::Barcode;

use crate::collect::Collection;
use crate::compare::{Compared, compare, exemplars};
use crate::decode::field_image;
use crate::error::{FailureClass, Stage, StageError};
use crate::events::{ComparisonRecord, RunId, Status, WellRecord};
use crate::kafka::producer::{BatchProducer, Committed};
use crate::kafka::topics::Topic;
use crate::kafka::{KafkaSettings, OutRecord};
use crate::plan::{images, list_plate, read_plate_map};
use crate::report::{self, DeadLetterLine, Montage, ReportInput, RunFacts, Tile};
use crate::results::{ComparisonTables, JsonLines, Provenance, WriteError, write_json};
use crate::runs::Run;
use crate::{failpoint, ids};

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
    /// Seconds from start to results.
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
    definition: &'a wellspring_workloads::screen::Screen,
}

/// What the process knows and the run does not.
#[derive(Debug, Clone)]
pub struct Surroundings {
    /// The device of the kernels, in words.
    pub device: String,
    /// The engine of the network, in words.
    pub engine: String,
    /// When work on the run began here.
    pub started: std::time::Instant,
}

/// Writes everything into `out` and publishes what is not published yet.
pub fn finish(
    run: &Run,
    collection: &mut Collection,
    kafka: &KafkaSettings,
    runtime: &Handle,
    surroundings: &Surroundings,
    out: &Path,
) -> Result<(RunSummary, Compared), StageError> {
    let provenance = Provenance {
        screen: run.screen.name.to_string(),
        run: run.id.clone(),
        screen_sha256: run.screen.hash(),
        model: run.card.name.clone(),
        model_sha256: run.card.weights.content_sha256.clone(),
        seed: run.screen.comparison.seed,
    };
    // A map that cannot be read has failed every plate in planning, with its reason; the tables are then empty.
    let map = runtime.block_on(read_plate_map(&run.screen)).ok();
    let compared = compare(run, collection, map.as_ref(), &provenance, out)?;
    failpoint::pass("collector", "compare");
    write_comparisons(&compared, &provenance, out).map_err(disk)?;
    compared
        .drift
        .write(out, &provenance)
        .map_err(|error| StageError::internal(Stage::Compare, error))?;
    let mut letters = JsonLines::create(&out.join("dead-letters.jsonl")).map_err(disk)?;
    for letter in collection.letters() {
        letters.push(letter).map_err(disk)?;
    }
    letters.finish().map_err(disk)?;

    publish(run, collection, &compared, kafka)?;

    let progress = collection.progress();
    let summary = RunSummary {
        screen: run.screen.name.to_string(),
        run: run.id.clone(),
        fields_expected: progress.expected,
        fields_done: progress.done,
        fields_failed: progress.failed,
        dead_letters: progress.dead_letters,
        lost: progress.lost(),
        seconds: surroundings.started.elapsed().as_secs_f64(),
        peak_rss_bytes: crate::memory::peak_rss_bytes(),
        out: out.to_owned(),
    };
    if run.screen.output.report {
        write_report(
            run,
            collection,
            &compared,
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
        Ok(comparison) => comparison.notes.iter().map(|note| note.text.clone()).collect(),
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

fn write_comparisons(compared: &Compared, provenance: &Provenance, out: &Path) -> Result<(), WriteError> {
    let mut tables = ComparisonTables::create(out, provenance)?;
    let wells = compared.profiles.iter();
    let design = Design::of(wells.map(|well| (&well.plate, &well.treatment)));
    if let (Ok(comparison), Ok(design)) = (&compared.comparison, design) {
        tables.all(comparison, design.plates())?;
    }
    tables.finish().map(|_| ())
}

/// Publishes profiles plate by plate and then the comparisons, each in one transaction with its status.
fn publish(
    run: &Run,
    collection: &Collection,
    compared: &Compared,
    kafka: &KafkaSettings,
) -> Result<(), StageError> {
    if collection.finished {
        return Ok(());
    }
    let failed = |error| StageError::external(Stage::Compare, FailureClass::Network, error);
    let producer = BatchProducer::open(kafka, &format!("collector-{}", run.id)).map_err(failed)?;
    for plate in collection
        .plates()
        .filter(|plate| !collection.profiled.contains(*plate))
    {
        let profiles = compared.profiles.iter().filter(|profile| profile.plate == *plate);
        commit(&producer, profile_records(run, plate, profiles).map_err(failed)?)?;
    }
    commit(
        &producer,
        comparison_records(run, collection, compared).map_err(failed)?,
    )
}

fn commit(producer: &BatchProducer, records: Vec<OutRecord>) -> Result<(), StageError> {
    let failed = |error| StageError::external(Stage::Compare, FailureClass::Network, error);
    for _ in 0..10 {
        if producer.publish(&records).map_err(failed)? == Committed::Yes {
            failpoint::pass("collector", "committed");
            return Ok(());
        }
        std::thread::sleep(Duration::from_millis(500));
    }
    Err(StageError::external(
        Stage::Compare,
        FailureClass::Network,
        "publishing the results was aborted ten times; the result files are written, run the same command again to publish",
    ))
}

/// Ends a record's id with a hash of what it says.
fn of_content(mut record: OutRecord) -> OutRecord {
    record.id = format!("{}/{}", record.id, ids::content([&record.value]));
    record
}

type Records = Result<Vec<OutRecord>, crate::kafka::KafkaFailure>;

fn profile_records<'a>(
    run: &Run,
    plate: &Barcode,
    profiles: impl Iterator<Item = &'a WellProfile>,
) -> Records {
    let mut records = Vec::new();
    for profile in profiles {
        let record = WellRecord {
            run: run.id.clone(),
            plate: plate.clone(),
            well: profile.well,
            fields: profile.fields,
            embedding: profile.values.clone(),
        };
        let id = format!("{}/{plate}/{}/profile", run.id, profile.well);
        records.push(of_content(OutRecord::new(
            Topic::Profiles,
            plate.as_str(),
            id,
            "wellspring.profile.v1",
            &record,
        )?));
    }
    let status = Status::PlateProfiled {
        run: run.id.clone(),
        plate: plate.clone(),
    };
    let id = format!("{}/{plate}/profiled", run.id);
    records.push(of_content(OutRecord::new(
        Topic::Status,
        run.id.clone(),
        id,
        "wellspring.status.v1",
        &status,
    )?));
    Ok(records)
}

fn comparison_records(run: &Run, collection: &Collection, compared: &Compared) -> Records {
    const KIND: &str = "wellspring.comparison.v1";
    let mut records = Vec::new();
    if let Ok(comparison) = &compared.comparison {
        for row in &comparison.rows {
            let key = row.compound.clone().unwrap_or_default();
            let disease = row.disease.clone().unwrap_or_default();
            let dose = row.dose.map(|dose| dose.to_string()).unwrap_or_default();
            let id = format!("{}/{disease}/{key}/{dose}/comparison", run.id);
            let record = ComparisonRecord::Dose {
                run: run.id.clone(),
                comparison: Box::new(row.clone()),
            };
            records.push(of_content(OutRecord::new(
                Topic::Comparisons,
                key,
                id,
                KIND,
                &record,
            )?));
        }
        for summary in &comparison.compounds {
            let key = summary.compound.clone().unwrap_or_default();
            let disease = summary.disease.clone().unwrap_or_default();
            let id = format!("{}/{disease}/{key}/summary", run.id);
            let record = ComparisonRecord::Compound {
                run: run.id.clone(),
                summary: Box::new(summary.clone()),
            };
            records.push(of_content(OutRecord::new(
                Topic::Comparisons,
                key,
                id,
                KIND,
                &record,
            )?));
        }
    }
    let progress = collection.progress();
    let status = Status::RunFinished {
        run: run.id.clone(),
        fields_done: progress.done,
        fields_failed: progress.failed,
    };
    let id = format!("{}/finished", run.id);
    records.push(of_content(OutRecord::new(
        Topic::Status,
        run.id.clone(),
        id,
        "wellspring.status.v1",
        &status,
    )?));
    Ok(records)
}

#[allow(
    clippy::too_many_arguments,
    reason = "the report shows all of it, and nothing else takes these together"
)]
fn write_report(
    run: &Run,
    collection: &Collection,
    compared: &Compared,
    summary: &RunSummary,
    provenance: Provenance,
    runtime: &Handle,
    surroundings: &Surroundings,
    out: &Path,
) -> Result<(), StageError> {
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
        more: compared
            .left_out
            .iter()
            .map(|text| ("left out".to_owned(), text.clone()))
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
    let montage = runtime.block_on(montage(run, compared));
    let failed = compared.comparison.as_ref().err().map(ToString::to_string);
    let page = report::render(&ReportInput {
        run: &facts,
        comparison: compared.comparison.as_ref().ok(),
        comparison_failed: failed.as_deref(),
        drift: compared.drift.report.as_ref(),
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
async fn montage(run: &Run, compared: &Compared) -> Option<Montage> {
    let mut tiles = Vec::new();
    for exemplar in exemplars(compared) {
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

async fn tile(run: &Run, exemplar: &crate::compare::Exemplar) -> Result<Option<Tile>, StageError> {
    let found = list_plate(&run.store, &run.screen, &exemplar.plate).await?;
    let fields = found.plates.get(&exemplar.plate).map_or(&[][..], Vec::as_slice);
    let Some(field) = fields.iter().find(|field| field.well == exemplar.well) else {
        return Ok(None);
    };
    let images = images(field);
    let bytes = crate::fetch::read_channels(&run.store, &images).await?;
    let planes = images.iter().map(|channel| &channel.planes);
    let image = field_image(bytes.iter().zip(planes), run.screen.images.bit_depth)?;
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
