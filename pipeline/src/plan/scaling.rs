//! Grey levels by which a plate's images are scaled, from its control wells.
//!
//! A plate's fields and roles enter, two levels for each channel leave. What fails: no control image that can be read.

use std::collections::BTreeMap;

use wellspring_kernels::histogram::percentile_of_ranks;
use wellspring_kernels::{Device, DeviceChoice, Histogram, Recipe};
use wellspring_workloads::layout::FieldFiles;
use wellspring_workloads::profile::{Role, Treatment};
use wellspring_workloads::words::{Barcode, WellPosition};

use super::{PlateSource, images};
use crate::decode::field_image;
use crate::error::{FailureClass, Stage, StageError};
use crate::preprocess::before_scaling;
use crate::shading::Shading;

/// Control fields whose grey levels are pooled for scaling, spread evenly over the plate's controls.
const SCALING_FIELDS: usize = 32;

/// The grey levels that become 0 and 1, per channel: percentiles pooled over control fields.
pub(super) async fn pooled_scaling(
    source: PlateSource<'_>,
    by_well: &BTreeMap<WellPosition, Vec<&FieldFiles>>,
    treatments: &BTreeMap<WellPosition, Treatment>,
    (low, high): (f64, f64),
    plate: &Barcode,
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
    let mut pooled = vec![Levels::default(); source.screen.images.channels.len()];
    let shading = source.shading.get(source.screen, plate).await?;
    for field in controls.into_iter().step_by(step) {
        // A control image that cannot be read gets its dead letter from its own task; here it only counts less.
        if let Err(error) = pool_field(source, field, &shading, &mut pooled).await {
            tracing::warn!(%error, "a control field is left out of the pooled scaling");
        }
    }
    let mut scaling = Vec::with_capacity(pooled.len());
    for levels in &pooled {
        let (Some(low), Some(high)) = (levels.percentile(low), levels.percentile(high)) else {
            return Err(StageError::input(
                Stage::Plan,
                FailureClass::MissingImage,
                "no image of a control well could be read, so the plate cannot be scaled by its controls",
            ));
        };
        scaling.push((low as f32, high as f32));
    }
    Ok(scaling)
}

/// Counts a field's grey levels as the scaling will see them: corrected, less their background, resized.
async fn pool_field(
    source: PlateSource<'_>,
    field: &FieldFiles,
    shading: &Shading,
    pooled: &mut [Levels],
) -> Result<(), StageError> {
    let images = images(field);
    let bytes = crate::fetch::read_channels_first(source.store, &images).await?;
    let planes = images.iter().map(|channel| &channel.planes);
    let image = field_image(bytes.iter().zip(planes), &source.screen.images)?;
    let steps = before_scaling(source.screen, image.shape(), shading.clone());
    if steps.is_empty() {
        for (channel, levels) in pooled.iter_mut().enumerate() {
            for (level, count) in Histogram::of(image.plane(channel)).entries() {
                levels.add(f32::from(level), count);
            }
        }
        return Ok(());
    }
    let unfit = |error| StageError::input(Stage::Plan, FailureClass::BadImage, error);
    let failed = |error| StageError::of_kernel(Stage::Plan, error);
    let recipe = Recipe::new(steps, image.shape()).map_err(unfit)?;
    let tensor = Device::open(DeviceChoice::Cpu)
        .and_then(|device| device.run(&recipe, &image))
        .map_err(failed)?;
    for (channel, levels) in pooled.iter_mut().enumerate() {
        tensor
            .plane(0, channel)
            .iter()
            .for_each(|value| levels.add(*value, 1));
    }
    Ok(())
}

/// Counts of grey levels, to a sixteenth of a level.
#[derive(Debug, Clone, Default)]
struct Levels {
    counts: Vec<u64>,
    total: u64,
}

impl Levels {
    const PER_LEVEL: f32 = 16.0;
    /// Four times the levels of a detector: light that is divided by next to nothing counts as that.
    const MOST: f32 = (1 << 22) as f32;

    fn add(&mut self, level: f32, count: u64) {
        let bin = (level * Self::PER_LEVEL).round().clamp(0.0, Self::MOST) as usize;
        if bin >= self.counts.len() {
            self.counts.resize(bin + 1, 0);
        }
        if let Some(counted) = self.counts.get_mut(bin) {
            *counted += count;
        }
        self.total += count;
    }

    /// Percentile `q` (0 to 100), as of a [`Histogram`]; `None` where nothing was counted.
    fn percentile(&self, q: f64) -> Option<f64> {
        percentile_of_ranks(self.total, q, |rank| self.nth(rank))
    }

    /// The level of a rank, from 0.
    fn nth(&self, rank: u64) -> Option<f64> {
        let mut below = 0;
        let bin = self.counts.iter().position(|count| {
            below += count;
            below > rank
        })?;
        Some(bin as f64 / f64::from(Self::PER_LEVEL))
    }
}

#[cfg(test)]
mod tests {
    use wellspring_workloads::screen::Screen;

    use super::*;
    use crate::plan::{MapCache, plan_plate};
    use crate::shading::ShadingCache;
    use crate::store::ImageStore;

    #[test]
    fn percentiles_of_levels_are_those_of_the_values() {
        let mut levels = Levels::default();
        assert_eq!(levels.percentile(50.0), None);
        for level in [0.0, 0.25, 100.0, 300.0] {
            levels.add(level, 1);
        }
        assert_eq!(
            [0.0, 50.0, 75.0, 100.0].map(|q| levels.percentile(q).unwrap()),
            [0.0, 50.125, 150.0, 300.0]
        );
        // What is no grey level counts as the nearest.
        levels.add(f32::INFINITY, 1);
        levels.add(-3.0, 1);
        assert_eq!(levels.percentile(0.0), Some(0.0));
        assert_eq!(levels.percentile(100.0), Some(f64::from(1 << 18)));
    }

    /// Three wells of 16 x 16 pixels, whose controls have the levels 1000 to 1255.
    #[tokio::test]
    async fn controls_are_pooled_as_the_scaling_will_see_them() {
        let folder = tempfile::tempdir().unwrap();
        let images = folder.path().join("P1");
        std::fs::create_dir(&images).unwrap();
        for (well, from) in [("A01", 1_000), ("A02", 1_000), ("A03", 30_000)] {
            let file = std::fs::File::create(images.join(format!("P1_{well}_s1_w1.tif"))).unwrap();
            let pixels: Vec<u16> = (from..from + 256).collect();
            let mut tiff = tiff::encoder::TiffEncoder::new(file).unwrap();
            tiff.write_image::<tiff::encoder::colortype::Gray16>(16, 16, &pixels)
                .unwrap();
        }
        let file = |name: &str| folder.path().join(name).display().to_string();
        std::fs::write(
            file("map.csv"),
            "well,compound,dose,role\nA01,,,healthy\nA02,,,disease\nA03,c,1,treated\n",
        )
        .unwrap();
        std::fs::write(file("light.npy"), crate::npy::plane([16, 16], &[2.0; 256])).unwrap();
        let light = format!("illumination = {:?}\n", file("light.npy"));
        for (more, expected) in [
            (String::new(), (1_000.0, 1_255.0)),
            ("background = 100\n".to_owned(), (900.0, 1_155.0)),
            (light.clone(), (500.0, 627.5)),
            (light + "background = 100\n", (400.0, 527.5)),
            // Means of two by two pixels.
            ("resize = 0.5\n".to_owned(), (1_008.5, 1_246.5)),
        ] {
            let text = format!(
                "[screen]\nname = \"pooled\"\n[images]\nstore = {:?}\nlayout = \"imagexpress\"\n\
                 channels = [{{ name = \"DNA\", match = \"w1\" }}]\n[plate_map]\nfile = {:?}\n\
                 [controls]\nreference = {{ role = \"healthy\" }}\nphenotype = {{ role = \"disease\" }}\n\
                 [preprocess]\nscaling = \"controls\"\npercentiles = [0, 100]\n{more}",
                file(""),
                file("map.csv"),
            );
            let screen = Screen::parse(&text, "pooled.toml").unwrap();
            let store = ImageStore::open(&screen.images.store).unwrap();
            let source = PlateSource {
                screen: &screen,
                store: &store,
                shading: &ShadingCache::default(),
                map: &MapCache::default(),
            };
            let plan = plan_plate(source, &"P1".parse().unwrap()).await.unwrap();
            let found: Vec<_> = plan.tasks.iter().map(|task| task.scaling.clone()).collect();
            assert_eq!(
                found,
                vec![Some(vec![expected]); 3],
                "{more}: {:?}",
                plan.failures
            );
        }
    }
}
