//! What of an earlier run is made from images that are still the same, and so need not be made again.
//!
//! A run and a screen that makes the same features enter. Each plate is planned as its planner would; features whose content,
//! hence whose images, scaling and planes, is that of the new task are copied, and the plate is announced with a list of them, so
//! that its planner makes tasks for the others. What fails: a store that cannot be looked at; then nothing was published.

use std::collections::HashSet;
use std::path::Path;

use futures::StreamExt;
use tokio::runtime::Handle;
use wellspring_workloads::words::Barcode;

use super::copy::{Copied, NewRun, copy_features};
use super::{Old, ReplayError, Replayed, Selection, TRIES, There, gather, producer_of};
use crate::collect::{Collection, Field};
use crate::events::{PlateReady, RunId, TakenOver, WellFields};
use crate::ids::Content;
use crate::kafka::KafkaSettings;
use crate::kafka::topics::Urgency;
use crate::plan::plan_plate;
use crate::runs::Run;
use crate::submit::ready;

/// Plates that are looked at side by side.
const LOOKED_AT: usize = 8;

/// Fields of a run that another one gave, and others.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct TakenOverFields {
    /// Taken over.
    pub same: u64,
    /// To be worked on: changed since, new, or failed before.
    pub anew: u64,
}

/// Takes over of `old` what images, as they are in the store now, would come out the same, into `run`, which makes features in the
/// same way, and announces its plates for the others, as urgent as `lane` says. `scratch` is a folder for temporary files. Blocking.
///
/// # Errors
/// Its images cannot be looked at; Kafka cannot be reached.
pub(crate) fn unchanged(
    kafka: &KafkaSettings,
    old: &Old,
    run: &Run,
    selection: &Selection,
    lane: Urgency,
    (runtime, scratch): (&Handle, &Path),
) -> Result<(Replayed, TakenOverFields), ReplayError> {
    let mut producer = producer_of(kafka, &run.id)?;
    let there = There::read(kafka, &run.id, &run.screen)?;
    let (mut collection, present, _) = gather(kafka, old, &run.id, selection, scratch)?;
    let chosen: Vec<Barcode> = old
        .plates
        .iter()
        .filter(|plate| selection.has(plate))
        .cloned()
        .collect();
    if chosen.is_empty() {
        return Err(ReplayError::Nothing { run: old.run.clone() });
    }
    // Before anything is published, since this may fail.
    let (same, fields) = runtime.block_on(look(run, &old.run, &chosen, &mut collection))?;
    let mut replayed = Replayed {
        run: run.id.clone(),
        plates: chosen.len(),
        published: 0,
        published_before: present.len() as u64,
    };
    let new = NewRun {
        id: &run.id,
        quality: &run.screen.quality,
        present: &present,
    };
    there.register(&mut producer, &run.screen, Some(run.model()), &chosen)?;
    for (plate, taken_over) in chosen.iter().zip(same) {
        if there.planned.contains(plate) {
            continue;
        }
        let same: HashSet<Field> = taken_over.fields.iter().flat_map(WellFields::each).collect();
        let Copied {
            mut batch, published, ..
        } = copy_features(&mut producer, &mut collection, plate, &new, |field| {
            same.contains(field)
        })?;
        replayed.published += published;
        // Last, so that what it says is there is there.
        batch.push(ready(&PlateReady {
            plate: plate.clone(),
            run: Some(run.id.clone()),
            lane: (lane != Urgency::Live).then_some(lane),
            progress: None,
            taken_over: Some(taken_over).filter(|taken_over| !taken_over.fields.is_empty()),
        })?);
        producer.publish_once(TRIES, &batch)?;
    }
    Ok((replayed, fields))
}

/// What each plate takes over of the old run.
async fn look(
    run: &Run,
    old: &RunId,
    plates: &[Barcode],
    collection: &mut Collection,
) -> Result<(Vec<TakenOver>, TakenOverFields), ReplayError> {
    let mut all = Vec::with_capacity(plates.len());
    let mut fields = TakenOverFields { same: 0, anew: 0 };
    let mut said = None;
    let planning = plates
        .iter()
        .map(|plate| async move { (plate, plan_plate(run.into(), plate).await) });
    let mut planned = futures::stream::iter(planning).buffered(LOOKED_AT);
    while let Some((plate, plan)) = planned.next().await {
        let plan = plan.map_err(|source| ReplayError::NoLook {
            plate: plate.clone(),
            source,
        })?;
        if said.is_none() {
            said = plan.failures.first().map(|failure| failure.message.clone());
        }
        let before = collection.contents(plate)?;
        let mut same = Vec::new();
        for task in &plan.tasks {
            let at = (task.field.well, task.field.field);
            let content = Content::of_task(task);
            if content.is_some() && before.get(&at).copied() == content {
                same.push(at);
            }
        }
        fields.same += same.len() as u64;
        fields.anew += (plan.tasks.len() - same.len()) as u64;
        all.push(TakenOver {
            from: old.clone(),
            fields: WellFields::of(same),
            shading: plan.shading,
        });
    }
    if fields.same + fields.anew == 0 {
        let run = old.clone();
        return Err(ReplayError::NoImages { run, said });
    }
    Ok((all, fields))
}
