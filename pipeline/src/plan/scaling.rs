//! Grey levels by which a plate's images are scaled, from its control wells.
//!
//! A plate's fields and roles enter, two levels for each channel leave. What fails: no control image that can be read.

use std::collections::BTreeMap;

use wellspring_kernels::Histogram;
use wellspring_workloads::layout::FieldFiles;
use wellspring_workloads::profile::{Role, Treatment};
use wellspring_workloads::words::WellPosition;

use super::{PlateSource, images};
use crate::decode::field_image;
use crate::error::{FailureClass, Stage, StageError};

/// Control fields whose histograms are pooled for scaling, spread evenly over the plate's controls.
const SCALING_FIELDS: usize = 32;

/// The grey levels that become 0 and 1, per channel: percentiles pooled over control fields.
pub(super) async fn pooled_scaling(
    source: PlateSource<'_>,
    by_well: &BTreeMap<WellPosition, Vec<&FieldFiles>>,
    treatments: &BTreeMap<WellPosition, Treatment>,
    low: f64,
    high: f64,
) -> Result<Vec<(f32, f32)>, StageError> {
    let controls: Vec<&FieldFiles> = by_well
        .iter()
        .filter(|(well, _)| {
            treatments
                .get(well)
                .is_some_and(|treatment| treatment.role != Role::Treated)
        })
        .flat_map(|(_, fields)| fields.iter().copied())
        .collect();
    let step = controls.len().div_ceil(SCALING_FIELDS).max(1);
    let mut pooled = vec![Histogram::new(); source.screen.images.channels.len()];
    for field in controls.into_iter().step_by(step) {
        // A control image that cannot be read gets its dead letter from its own task; here it only counts less.
        if let Err(error) = pool_field(source, field, &mut pooled).await {
            tracing::warn!(%error, "a control field is left out of the pooled scaling");
        }
    }
    let internal = |error| StageError::internal(Stage::Plan, error);
    let mut scaling = Vec::with_capacity(pooled.len());
    for histogram in &pooled {
        if histogram.total() == 0 {
            return Err(StageError::input(
                Stage::Plan,
                FailureClass::MissingImage,
                "no image of a control well could be read, so the plate cannot be scaled by its controls",
            ));
        }
        let low = histogram.percentile(low).map_err(internal)?;
        let high = histogram.percentile(high).map_err(internal)?;
        scaling.push((low as f32, high as f32));
    }
    Ok(scaling)
}

async fn pool_field(
    source: PlateSource<'_>,
    field: &FieldFiles,
    pooled: &mut [Histogram],
) -> Result<(), StageError> {
    let images = images(field);
    let bytes = crate::fetch::read_channels_first(source.store, &images).await?;
    let planes = images.iter().map(|channel| &channel.planes);
    let image = field_image(bytes.iter().zip(planes), &source.screen.images)?;
    for (channel, histogram) in pooled.iter_mut().enumerate() {
        histogram.merge(&Histogram::of(image.plane(channel)));
    }
    Ok(())
}
