//! What of an earlier run is made from images that are still the same, and so need not be made again.
//!
//! A run and a screen that makes the same features enter. Each plate is planned as its planner would; features whose content,
//! hence whose images, scaling and planes, is that of the new task are copied, and the plate is announced with a list of them, so
//! that its planner makes tasks for the others. What fails: a store that cannot be looked at; then nothing was published.

use std::collections::BTreeMap;
use std::path::Path;

use futures::StreamExt;
use tokio::runtime::Handle;
use wellspring_workloads::screen::Screen;
use wellspring_workloads::words::{Barcode, WellPosition};

use super::{
    Copied, ReplayError, Replayed, Selection, TRIES, There, copy_features, find, gather, producer_of,
};
use crate::collect::{Collection, Field};
use crate::events::{PlateReady, RunId, TakenOver, WellFields};
use crate::ids::Content;
use crate::kafka::KafkaSettings;
use crate::kafka::topics::Urgency;
use crate::plan::plan_plate;
use crate::runs::Run;
use crate::submit::{ready, submitted};

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

/// Takes over of `old` what images, as they are in the store now, would come out the same, into a run of `screen`, and announces its
/// plates for the others, as urgent as `lane` says. `scratch` is a folder for temporary files. Blocking.
///
/// # Errors
/// There is no such run, its features are made in another way, its images cannot be looked at; Kafka cannot be reached.
pub fn unchanged(
    kafka: &KafkaSettings,
    old: &str,
    screen: Screen,
    selection: &Selection,
    lane: Urgency,
    (runtime, scratch): (&Handle, &Path),
) -> Result<(Replayed, TakenOverFields), ReplayError> {
    let old = find(kafka, old)?;
    let name = screen.name.clone();
    let run = Run::open(old.renamed(Some(screen), &name)?)?;
    old.same_features(&run.screen)?;
    let mut producer = producer_of(kafka, &run.id)?;
    let there = There::read(kafka, &run.id, &run.screen)?;
    let (mut collection, present, _) = gather(kafka, &old, &run.id, selection, scratch)?;
    let chosen: Vec<Barcode> = old
        .plates
        .iter()
        .filter(|plate| selection.has(plate))
        .cloned()
        .collect();
    if chosen.is_empty() {
        return Err(ReplayError::Nothing { run: old.run });
    }
    // Before anything is published, since this may fail.
    let (same, fields) = runtime.block_on(look(&run, &old.run, &chosen, &mut collection))?;
    let mut replayed = Replayed {
        run: run.id.clone(),
        plates: chosen.len(),
        published: 0,
        published_before: present.len() as u64,
    };
    let unannounced: Vec<Barcode> = chosen
        .iter()
        .filter(|plate| !there.submitted.contains(*plate))
        .cloned()
        .collect();
    if !unannounced.is_empty() {
        producer.publish_once(TRIES, &[submitted(&run, &unannounced)?])?;
    }
    for (plate, taken_over) in chosen.iter().zip(same) {
        if there.planned.contains(plate) {
            continue;
        }
        let wells: BTreeMap<WellPosition, &WellFields> =
            taken_over.fields.iter().map(|of| (of.well, of)).collect();
        let wanted = |(well, field): &Field| wells.get(well).is_some_and(|of| of.fields.contains(field));
        let Copied {
            mut batch, published, ..
        } = copy_features(&mut producer, &mut collection, plate, &run.id, &present, wanted)?;
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
        let mut same: BTreeMap<WellPosition, Vec<u32>> = BTreeMap::new();
        for task in &plan.tasks {
            let at = (task.field.well, task.field.field);
            let content = Content::of_task(task);
            if content.is_some() && before.get(&at).copied() == content {
                same.entry(at.0).or_default().push(at.1);
                fields.same += 1;
            } else {
                fields.anew += 1;
            }
        }
        let same = same.into_iter().map(|(well, fields)| WellFields { well, fields });
        all.push(TakenOver {
            from: old.clone(),
            fields: same.collect(),
            shading: plan.shading,
        });
    }
    if fields.same + fields.anew == 0 {
        let run = old.clone();
        return Err(ReplayError::NoImages { run, said });
    }
    Ok((all, fields))
}
