//! One plate's plan: its files, its wells in the plate map, its controls and its planes, compared before any pixel is computed.
//!
//! A plate enters; its tasks leave, and everything that is wrong with it at once, with what each costs. What fails: a store that
//! may recover.

use std::collections::{BTreeMap, BTreeSet};

use wellspring_kernels::InputShape;
use wellspring_workloads::layout::{FieldFiles, PlateFiles};
use wellspring_workloads::plate_map::PlateMap;
use wellspring_workloads::profile::{Role, Treatment};
use wellspring_workloads::screen::{Scaling, Screen};
use wellspring_workloads::words::{Barcode, FieldId, WellPosition};

use super::expected::expected_fields;
use super::files::{file_failures, no_image, remarks};
use super::listing::assembled;
use super::scaling::pooled_scaling;
use super::{MapCache, check_planes, count, images, list_plate};
use crate::decode::field_image;
use crate::error::{Domain, FailureClass, Retry, Stage, StageError};
use crate::events::FieldTask;
use crate::fetch::read_channels;
use crate::runs::{Run, run_id};
use crate::shading::ShadingCache;
use crate::store::{ImageStore, Listed};

/// Wells or plates that are named in one message.
pub(super) const MOST_NAMED: usize = 12;

/// What a plate is planned from. Nothing of the network: what else is wrong is found where that is not at hand.
#[derive(Debug, Clone, Copy)]
pub struct PlateSource<'a> {
    /// The checked screen, with absolute paths.
    pub screen: &'a Screen,
    /// Where the images are.
    pub store: &'a ImageStore,
    /// Dark-fields and illumination functions read so far.
    pub shading: &'a ShadingCache,
    /// The screen's plate map, where it was read.
    pub map: &'a MapCache,
}

impl<'a> From<&'a Run> for PlateSource<'a> {
    fn from(run: &'a Run) -> Self {
        Self {
            screen: &run.screen,
            store: &run.store,
            shading: &run.shading,
            map: &run.map,
        }
    }
}

/// What is to be done for a plate, and what of it cannot be.
#[derive(Debug)]
pub struct PlatePlan {
    /// One per field, in well and field order.
    pub tasks: Vec<FieldTask>,
    /// What cannot be done.
    pub failures: Vec<Failure>,
    /// Whether something is wrong with the plate as a whole, so that there are no tasks.
    pub refused: bool,
    /// Whether the store has no image of it.
    pub absent: bool,
    /// Hash of the plate's illumination functions and dark-fields, where it has any.
    pub shading: Option<String>,
    /// Fields that it should have, where the microscope's metadata or the screen say so.
    pub expected: Option<u32>,
    /// Fields that are there of wells that the screen leaves out.
    pub left_out: u32,
    /// What was passed over of the plate's files, in words: a person should know, and no field is lost by it.
    pub remarks: Vec<String>,
}

/// A field by its well and number.
pub(super) type Field = (WellPosition, u32);

impl PlatePlan {
    fn refused(failures: Vec<Failure>) -> Self {
        Self {
            tasks: Vec::new(),
            failures,
            refused: true,
            absent: false,
            shading: None,
            expected: None,
            left_out: 0,
            remarks: Vec::new(),
        }
    }

    pub(super) fn failed(error: StageError) -> Self {
        Self::refused(vec![Failure::plate(error)])
    }
}

/// Part of a plate that cannot be processed.
#[derive(Debug)]
pub struct Failure {
    /// Where it was found.
    pub stage: Stage,
    /// What kind.
    pub class: FailureClass,
    /// The well; the whole plate when absent.
    pub well: Option<WellPosition>,
    /// The field; the whole well when absent.
    pub field: Option<u32>,
    /// Fields it costs.
    pub fields_lost: u32,
    /// What is wrong and what to do.
    pub message: String,
}

impl Failure {
    pub(super) fn plate(error: StageError) -> Self {
        let (stage, class, message) = (error.stage, error.class, error.chain());
        Self {
            stage,
            class,
            well: None,
            field: None,
            fields_lost: 0,
            message,
        }
    }

    pub(super) fn well(class: FailureClass, well: WellPosition, fields_lost: u32, message: String) -> Self {
        Self {
            stage: Stage::Plan,
            class,
            well: Some(well),
            field: None,
            fields_lost,
            message,
        }
    }
}

/// Plans one plate: lists its files, compares them with the plate map, the controls and the planes, and makes its tasks. Where
/// something is wrong with the plate as a whole there are no tasks; all that is wrong is told, whatever was found first.
///
/// # Errors
/// The store is away, or something of this program is wrong: nothing is known of the plate.
pub async fn plan_plate(source: PlateSource<'_>, plate: &Barcode) -> Result<PlatePlan, StageError> {
    plan_rest(source, plate, &BTreeSet::new(), None).await
}

/// As [`plan_plate`], of files that were listed elsewhere.
///
/// # Errors
/// As [`plan_plate`].
pub async fn plan_listed(
    source: PlateSource<'_>,
    plate: &Barcode,
    listed: Vec<Listed>,
) -> Result<PlatePlan, StageError> {
    let files = assembled(source.store, source.screen, listed, Some(plate)).await?;
    plan_rest(source, plate, &BTreeSet::new(), Some(files)).await
}

/// As [`plan_plate`], for the fields that are not `planned` yet; `listed`: its files, where they have just been listed.
pub(super) async fn plan_rest(
    source: PlateSource<'_>,
    plate: &Barcode,
    planned: &BTreeSet<Field>,
    listed: Option<PlateFiles>,
) -> Result<PlatePlan, StageError> {
    let is_planned = |well, field| planned.contains(&(well, field));
    let screen = source.screen;
    // What is wrong with the plate as a whole.
    let (mut of_plate, mut absent) = (Vec::new(), false);
    let found = match listed {
        Some(found) => Some(found),
        None => kept(list_plate(source.store, screen, plate).await, &mut of_plate)?,
    };
    let map = kept(source.map.get(screen).await, &mut of_plate)?;
    let mut failures = found
        .as_ref()
        .map_or_else(Vec::new, |found| file_failures(found, plate, source.store.uri()));
    failures.retain(|of| {
        !of.well
            .zip(of.field)
            .is_some_and(|(well, field)| is_planned(well, field))
    });
    let remarks = found
        .as_ref()
        .map_or_else(Vec::new, |found| remarks(found, plate, source.store.uri()));
    let fields = found.as_ref().and_then(|found| found.plates.get(plate));
    let fields = fields.map_or(&[][..], Vec::as_slice);
    if let Some(found) = &found
        && fields.is_empty()
        && failures.is_empty()
    {
        of_plate.push(no_image(found, screen, plate));
        absent = true;
    }
    let treatments = map.as_ref().and_then(|map| match screen.treatments(map, plate) {
        Ok(treatments) => Some((map, treatments)),
        Err(errors) => {
            let errors = errors.0.into_iter();
            let of_map = |error| StageError::input(Stage::Plan, FailureClass::PlateMap, error);
            of_plate.extend(errors.map(|error| Failure::plate(of_map(error))));
            None
        }
    });
    let shading = check_planes(source, plate, fields)
        .await?
        .unwrap_or_else(|errors| {
            let of_plane = |error| StageError::input(Stage::Plan, FailureClass::Configuration, error);
            of_plate.extend(errors.0.into_iter().map(|error| Failure::plate(of_plane(error))));
            None
        });

    let mut left_out = 0;
    let mut by_well: BTreeMap<WellPosition, Vec<&FieldFiles>> = BTreeMap::new();
    for field in fields {
        by_well.entry(field.well).or_default().push(field);
    }
    if let Some((map, treatments)) = treatments.as_ref().filter(|_| !fields.is_empty()) {
        of_plate.extend(controls_without_images(&by_well, treatments, plate));
        let expected = screen
            .images
            .fields_per_well
            .unwrap_or_else(|| most_common_count(&by_well));
        let unmatched = unmatched_wells(&by_well, treatments, map, plate, expected, &failures);
        let lost: BTreeSet<WellPosition> = unmatched.iter().filter_map(|failure| failure.well).collect();
        failures.extend(unmatched);
        by_well.retain(|well, fields| {
            let given = treatments.contains_key(well);
            if !given && !lost.contains(well) {
                left_out += count(fields.len());
            }
            given
        });
    }
    let expected = found
        .as_ref()
        .zip(treatments.as_ref())
        .and_then(|(found, (_, treatments))| {
            let expected = expected_fields(found, screen, plate, treatments.len());
            expected.map(|expected| expected.without(left_out))
        });
    let treatments = match treatments {
        Some((_, treatments)) if of_plate.is_empty() => treatments,
        _ => {
            // Every field that could have been worked on is lost once.
            if let Some(first) = of_plate.first_mut() {
                let fields = by_well.values().flatten();
                first.fields_lost = count(
                    fields
                        .filter(|field| !is_planned(field.well, field.field))
                        .count(),
                );
            }
            of_plate.extend(failures);
            return Ok(PlatePlan {
                absent,
                expected,
                left_out,
                remarks,
                ..PlatePlan::refused(of_plate)
            });
        }
    };

    let scaling = match screen.preprocess.scaling {
        Scaling::Controls { low, high } if !by_well.is_empty() => {
            Some(pooled_scaling(source, &by_well, &treatments, (low, high), plate).await?)
        }
        _ => None,
    };
    let fields = by_well.into_values().flatten();
    let fields = fields.filter(|field| !is_planned(field.well, field.field));
    Ok(PlatePlan {
        tasks: tasks(screen, plate, fields, scaling.as_deref(), shading.as_deref()),
        failures,
        refused: false,
        absent: false,
        shading,
        expected,
        left_out,
        remarks,
    })
}

/// One task for each field.
pub(super) fn tasks<'a>(
    screen: &Screen,
    plate: &Barcode,
    fields: impl Iterator<Item = &'a FieldFiles>,
    scaling: Option<&[(f32, f32)]>,
    shading: Option<&str>,
) -> Vec<FieldTask> {
    let run = run_id(screen);
    let task = |field: &FieldFiles| FieldTask {
        run: run.clone(),
        field: FieldId {
            plate: plate.clone(),
            well: field.well,
            field: field.field,
        },
        images: images(field),
        scaling: scaling.map(<[_]>::to_vec),
        shading: shading.map(str::to_owned),
    };
    fields.map(task).collect()
}

/// Reads and decodes one field, as a worker would; its shape.
///
/// # Errors
/// What its dead letter would say.
pub async fn try_field(source: PlateSource<'_>, task: &FieldTask) -> Result<InputShape, StageError> {
    let bytes = read_channels(source.store, &task.images).await?;
    let planes = task.images.iter().map(|channel| &channel.planes);
    field_image(bytes.iter().zip(planes), &source.screen.images).map(|image| image.shape())
}

/// One of the things that are compared, or what is wrong with it. What may pass ends the planning, to be tried again.
fn kept<T>(found: Result<T, StageError>, of_plate: &mut Vec<Failure>) -> Result<Option<T>, StageError> {
    match found {
        Ok(found) => Ok(Some(found)),
        Err(error) if error.domain != Domain::Input || error.retry != Retry::Never => Err(error),
        Err(error) => {
            of_plate.push(Failure::plate(error));
            Ok(None)
        }
    }
}

/// Controls of a plate none of whose wells has images: nothing of the plate could be compared.
fn controls_without_images(
    by_well: &BTreeMap<WellPosition, Vec<&FieldFiles>>,
    treatments: &BTreeMap<WellPosition, Treatment>,
    plate: &Barcode,
) -> Vec<Failure> {
    let roles = [(Role::Reference, "reference"), (Role::Phenotype, "phenotype")];
    let lacking = roles.into_iter().filter_map(|(role, name)| {
        let of_role = treatments.iter().filter(|(_, treatment)| treatment.role == role);
        let wells: Vec<WellPosition> = of_role.map(|(well, _)| *well).collect();
        if wells.is_empty() || wells.iter().any(|well| by_well.contains_key(well)) {
            return None;
        }
        let mut named: Vec<String> = wells.iter().take(MOST_NAMED).map(WellPosition::to_string).collect();
        if wells.len() > MOST_NAMED {
            named.push(format!("and {} more", wells.len() - MOST_NAMED));
        }
        let message = format!(
            "plate {plate}: no well of controls.{name} has a field with all its images ({}), so that nothing of the plate \
             can be compared; bring their images, or let controls.{name} select wells that have some",
            named.join(", ")
        );
        let error = StageError::input(Stage::Plan, FailureClass::MissingImage, message);
        Some(Failure::plate(error))
    });
    lacking.collect()
}

fn most_common_count(by_well: &BTreeMap<WellPosition, Vec<&FieldFiles>>) -> u32 {
    let mut counts: BTreeMap<usize, usize> = BTreeMap::new();
    for fields in by_well.values() {
        *counts.entry(fields.len()).or_default() += 1;
    }
    counts
        .into_iter()
        .max_by_key(|(_, wells)| *wells)
        .map_or(1, |(fields, _)| count(fields))
}

/// Wells with images that the map lacks, and wells of the map without images.
fn unmatched_wells(
    by_well: &BTreeMap<WellPosition, Vec<&FieldFiles>>,
    treatments: &BTreeMap<WellPosition, Treatment>,
    map: &PlateMap,
    plate: &Barcode,
    expected: u32,
    known: &[Failure],
) -> Vec<Failure> {
    let file = map.file();
    let not_in_map = by_well.iter().filter(|(well, _)| map.treatment(plate, **well).is_none()).map(|(well, fields)| {
        let message = format!(
            "plate {plate} well {well} has {} fields of images but no row in {file}; add the row, or take the images away",
            fields.len()
        );
        Failure::well(FailureClass::PlateMap, *well, count(fields.len()), message)
    });
    // A well whose every field already failed for another reason is not reported twice.
    let reported: BTreeSet<WellPosition> = known.iter().filter_map(|failure| failure.well).collect();
    let not_imaged = treatments
        .keys()
        .filter(|well| !by_well.contains_key(well) && !reported.contains(well))
        .map(|well| {
            let message = format!(
                "plate {plate} well {well} has a row in {file} but no images; remove the row or exclude the well in \
                 [controls] if it was not imaged"
            );
            Failure::well(FailureClass::MissingImage, *well, expected, message)
        });
    not_in_map.chain(not_imaged).collect()
}
