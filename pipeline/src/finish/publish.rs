//! A run's profiles and comparisons as records, published once, however often a crash makes it happen again.
//!
//! What a run came to enters; transactions leave, each with the status that remembers it: a plate's profiles, or a batch
//! of comparisons. What was published of other profiles, because a service answered otherwise, is published anew. Memory is one of
//! them. Fails where Kafka or the disk does.

use wellspring_workloads::profile::WellProfile;
use wellspring_workloads::words::Barcode;

use crate::collect::Collection;
use crate::compare::{Compared, Finding};
use crate::error::{FailureClass, Stage, StageError};
use crate::events::{ComparisonRecord, DeadLetter, RunId, Status, WellRecord};
use crate::kafka::producer::BatchProducer;
use crate::kafka::topics::Topic;
use crate::kafka::{KafkaFailure, KafkaSettings, OutRecord};
use crate::results::Provenance;
use crate::runs::Run;
use crate::scratch::ScratchError;
use crate::{dead_letters, failpoint, ids};

/// Bytes of comparisons that are published in one transaction.
const BATCH_BYTES: usize = 4 << 20;
/// Dead letters that are published in one transaction; each may hold a request of a fraction of a megabyte.
const LETTERS: usize = 16;

/// Publishes the letters that are new, profiles plate by plate and then the comparisons batch by batch; what was published
/// before is left out. The headers of comparisons say what made them.
pub(super) fn publish(
    run: &Run,
    collection: &Collection,
    compared: &mut Compared,
    letters: &[DeadLetter],
    provenance: &Provenance,
    kafka: &KafkaSettings,
) -> Result<(), StageError> {
    if collection.published.finished && letters.is_empty() {
        return Ok(());
    }
    let mut producer = BatchProducer::open(kafka, &format!("collector-{}", run.id)).map_err(network)?;
    // First: whoever makes the results again must not ask what failed for good.
    for letters in letters.chunks(LETTERS) {
        let records: Result<Vec<OutRecord>, StageError> = letters.iter().map(dead_letters::record).collect();
        commit(&mut producer, &records?)?;
    }
    if collection.published.finished {
        return Ok(());
    }
    let mut contents = Vec::new();
    for plate in collection.plates() {
        let profiles = compared.profiles.plate(plate).map_err(disk)?;
        let (records, content) =
            profile_records(&run.id, plate, &profiles, compared.held.get(plate)).map_err(network)?;
        if !collection.published.has_profiles(plate, &content) {
            commit(&mut producer, &records)?;
        }
        contents.push(content);
    }
    let content = ids::content(contents);
    let no_comparison = compared.no_result();
    let findings = compared.comparison.as_mut().ok();
    let findings = findings.and_then(|shown| shown.findings.take());
    let mut batches = Batches {
        run: &run.id,
        provenance,
        findings: findings.into_iter().flatten(),
        bytes: BATCH_BYTES,
        before: collection.published.comparisons_of(&content),
        published: 0,
    };
    loop {
        let mut batch = batches.next()?;
        let status = if batch.last {
            let progress = collection.progress();
            Status::RunFinished {
                run: run.id.clone(),
                fields_done: progress.done,
                fields_failed: progress.failed,
                no_comparison: no_comparison.clone(),
            }
        } else {
            Status::ComparisonsPublished {
                run: run.id.clone(),
                records: batches.published,
                content: Some(content.clone()),
            }
        };
        batch.records.push(status_record(&status).map_err(network)?);
        commit(&mut producer, &batch.records)?;
        if batch.last {
            return Ok(());
        }
    }
}

fn network(error: KafkaFailure) -> StageError {
    StageError::external(Stage::Compare, FailureClass::Network, error)
}

fn disk(error: ScratchError) -> StageError {
    StageError::internal(Stage::Compare, error)
}

/// Attempts at a transaction.
const TRIES: u32 = 10;

fn commit(producer: &mut BatchProducer, records: &[OutRecord]) -> Result<(), StageError> {
    match producer.publish_once(TRIES, records) {
        Ok(()) => {
            failpoint::pass("collector", "committed");
            Ok(())
        }
        Err(KafkaFailure::Aborted { .. }) => Err(StageError::external(
            Stage::Compare,
            FailureClass::Network,
            "publishing the results was aborted ten times; the result files are written, run the same command again to \
             publish",
        )),
        Err(error) => Err(network(error)),
    }
}

/// Ends a record's id with a hash of what it says.
fn of_content(mut record: OutRecord) -> OutRecord {
    record.id = format!("{}/{}", record.id, ids::content([&record.value]));
    record
}

/// Comparisons of one transaction.
struct Batch {
    records: Vec<OutRecord>,
    last: bool,
}

/// Comparisons in batches.
struct Batches<'r, I> {
    run: &'r RunId,
    provenance: &'r Provenance,
    findings: I,
    /// Bytes after which a batch is full.
    bytes: usize,
    /// How many were published by an earlier attempt: from the same profiles the same is found in the same order.
    before: u64,
    /// How many are published when the batch that was given last is.
    published: u64,
}

impl<I: Iterator<Item = Result<Finding, ScratchError>>> Batches<'_, I> {
    fn next(&mut self) -> Result<Batch, StageError> {
        let mut records = Vec::new();
        let mut bytes = 0;
        for finding in self.findings.by_ref() {
            let finding = finding.map_err(disk)?;
            self.published += 1;
            if self.published <= self.before {
                continue;
            }
            let transform = self.provenance.transform_sha256.as_deref();
            let mut record = comparison_record(self.run, transform, finding).map_err(network)?;
            record.headers.extend(self.provenance.headers());
            bytes += record.value.len();
            records.push(record);
            if bytes >= self.bytes {
                return Ok(Batch { records, last: false });
            }
        }
        Ok(Batch { records, last: true })
    }
}

/// A plate's profiles with the status that remembers them, and the hash of what they say.
fn profile_records(
    run: &RunId,
    plate: &Barcode,
    profiles: &[WellProfile],
    held: Option<&String>,
) -> Result<(Vec<OutRecord>, String), KafkaFailure> {
    let mut records = Vec::new();
    for profile in profiles {
        let record = WellRecord {
            run: run.clone(),
            plate: plate.clone(),
            well: profile.well,
            fields: profile.fields,
            embedding: profile.values.clone(),
        };
        let id = format!("{run}/{plate}/{}/profile", profile.well);
        records.push(of_content(OutRecord::new(
            Topic::Profiles,
            plate.as_str(),
            id,
            "wellspring.profile.v1",
            &record,
        )?));
    }
    let said = records.iter().map(|record| record.value.as_slice());
    let content = ids::content(said.chain(held.map(String::as_bytes)));
    records.push(status_record(&Status::PlateProfiled {
        run: run.clone(),
        plate: plate.clone(),
        held: held.cloned(),
        content: Some(content.clone()),
    })?);
    Ok((records, content))
}

fn comparison_record(
    run: &RunId,
    transform: Option<&str>,
    finding: Finding,
) -> Result<OutRecord, KafkaFailure> {
    let transform_sha256 = transform.map(str::to_owned);
    const KIND: &str = "wellspring.comparison.v1";
    let record = match finding {
        Finding::Row(row) => {
            let key = row.compound.clone().unwrap_or_default();
            let disease = row.disease.clone().unwrap_or_default();
            let dose = row.dose.map(|dose| dose.to_string()).unwrap_or_default();
            let id = format!("{run}/{disease}/{key}/{dose}/comparison");
            let record = ComparisonRecord::Dose {
                run: run.clone(),
                transform_sha256,
                comparison: row,
            };
            OutRecord::new(Topic::Comparisons, key, id, KIND, &record)
        }
        Finding::Compound(summary) => {
            let key = summary.compound.clone().unwrap_or_default();
            let disease = summary.disease.clone().unwrap_or_default();
            let id = format!("{run}/{disease}/{key}/summary");
            let record = ComparisonRecord::Compound {
                run: run.clone(),
                transform_sha256,
                summary,
            };
            OutRecord::new(Topic::Comparisons, key, id, KIND, &record)
        }
    };
    record.map(of_content)
}

fn status_record(status: &Status) -> Result<OutRecord, KafkaFailure> {
    let run = status.run();
    let what = match status {
        Status::PlateProfiled { plate, .. } => format!("{plate}/profiled"),
        Status::ComparisonsPublished { records, .. } => format!("published/{records}"),
        _ => "finished".to_owned(),
    };
    let id = format!("{run}/{what}");
    OutRecord::status(id, status).map(of_content)
}

#[cfg(test)]
mod tests {
    use wellspring_workloads::compare::{Call, Comparison};

    use super::*;

    fn finding(dose: u32) -> Result<Finding, ScratchError> {
        Ok(Finding::Row(Box::new(Comparison {
            disease: None,
            compound: Some("drug".to_owned()),
            dose: Some(f64::from(dose)),
            dose_unit: "uM".to_owned(),
            n_wells: 2,
            n_plates: 1,
            counter_screen: false,
            on_axis: None,
            off_axis: 0.5,
            aligned_on_axis: None,
            excess: None,
            off_z: None,
            off_z_support: None,
            effect_z: None,
            effect_z_support: None,
            rescue: None,
            specificity: None,
            distance: 0.5,
            direction_cosine: None,
            cell_ratio: None,
            p_value: None,
            q_value: None,
            p_off: None,
            q_off: None,
            map_q_value: None,
            call: Call::Inactive,
        })))
    }

    fn provenance() -> Provenance {
        Provenance {
            screen: "a screen".to_owned(),
            run: "run".to_owned(),
            screen_sha256: "5c".to_owned(),
            model: "net".to_owned(),
            model_sha256: "3d".to_owned(),
            seed: 42,
            transform_sha256: Some("0a1b2c3d4e5f".to_owned()),
        }
    }

    #[test]
    fn every_comparison_says_in_its_headers_what_made_it() {
        let (run, provenance) = ("run".to_owned(), provenance());
        let mut batches = Batches {
            run: &run,
            provenance: &provenance,
            findings: (0..3).map(finding),
            bytes: 1,
            before: 0,
            published: 0,
        };
        for _ in 0..3 {
            let batch = batches.next().unwrap();
            let [record] = batch.records.as_slice() else {
                panic!("a batch of one byte has one record");
            };
            for (name, value) in [
                ("ce_seed", "42"),
                ("ce_screensha256", "5c"),
                ("ce_modelsha256", "3d"),
            ] {
                let found: Vec<_> = record.headers.iter().filter(|(key, _)| *key == name).collect();
                assert_eq!(found, [&(name, value.to_owned())], "once each");
            }
            let value = String::from_utf8_lossy(&record.value).into_owned();
            assert!(
                value.contains("0a1b2c3d4e5f"),
                "the alignment is in the record itself"
            );
        }
        assert!(batches.next().unwrap().records.is_empty());
    }

    /// Ids of the records of each batch, and what its status would remember.
    fn published(before: u64) -> Vec<(Vec<String>, u64)> {
        let (run, provenance) = ("run".to_owned(), provenance());
        let mut batches = Batches {
            run: &run,
            provenance: &provenance,
            findings: (0..25).map(finding),
            bytes: 1_000,
            before,
            published: 0,
        };
        let mut all = Vec::new();
        loop {
            let batch = batches.next().unwrap();
            let bytes: usize = batch.records.iter().map(|record| record.value.len()).sum();
            let largest = batch.records.iter().map(|record| record.value.len()).max();
            assert!(bytes < 1_000 + largest.unwrap_or(0), "{bytes}");
            let ids = batch.records.into_iter().map(|record| record.id).collect();
            all.push((ids, batches.published));
            if batch.last {
                return all;
            }
        }
    }

    #[test]
    fn comparisons_are_published_once_whichever_batch_a_crash_came_after() {
        let all = published(0);
        assert!(all.len() > 2, "{all:?}");
        let ids = |batches: &[(Vec<String>, u64)]| -> Vec<String> {
            batches.iter().flat_map(|(ids, _)| ids.clone()).collect()
        };
        assert_eq!(ids(&all).len(), 25);
        for crash in 1..all.len() {
            let (done, remembered) = (ids(&all[..crash]), all[crash - 1].1);
            assert_eq!(remembered, done.len() as u64);
            let after = ids(&published(remembered));
            assert_eq!([done, after].concat(), ids(&all));
        }
    }
}
