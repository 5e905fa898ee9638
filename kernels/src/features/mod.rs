//! Features of objects: what CellProfiler measures, by its names. Enters: a raw image, the labels of its objects and
//! checked [`FeatureSettings`]. Leaves: a [`FeatureTable`] with a row per object. Fails on labels of another size than
//! the image, a number of channel names that does not fit, and settings outside their range.
//!
//! A column is named `<objects>_<family>_<measure>_<channel>_<details>`: `Nuclei_AreaShape_Area`,
//! `Nuclei_Intensity_MeanIntensity_DNA`, `Nuclei_Texture_Contrast_DNA_3_00_256`, `Nuclei_Correlation_RWC_DNA_ER`.
//! Formulas are with the families. Objects are measured in parallel, each by one thread: results do not depend on the
//! number of threads.
//!
//! On the CPU only: an object is a few hundred pixels on which sorting, hulls, counts of pairs and floods run one after
//! another, in whole numbers and f64; a shader would have neither, and one object would not fill a workgroup.

mod correlation;
mod granularity;
mod hull;
mod intensity;
mod moments;
mod names;
mod neighbours;
mod object;
mod outline;
mod radial;
mod reconstruct;
mod settings;
mod shape;
mod table;
mod texture;
mod zernike;

pub use neighbours::Population;
pub use settings::{Families, FeatureSettings, Granularity, Texture};
pub use table::FeatureTable;

use rayon::prelude::*;

use crate::features::intensity::Scale;
use crate::features::moments::Moments;
use crate::features::object::Object;
use crate::features::radial::Rings;
use crate::features::zernike::Zernike;
use crate::image::RawImage;
use crate::nuclei::distance::Scratch;
use crate::nuclei::{LabelImage, ObjectBox, ObjectError};

/// Measures the objects of `labels` in every channel of `image`. `channels` names the channels as they shall appear in
/// the names of the columns.
///
/// ```
/// use wellspring_kernels::RawImage;
/// use wellspring_kernels::features::{FeatureSettings, measure};
/// use wellspring_kernels::nuclei::LabelImage;
///
/// # fn main() -> Result<(), Box<dyn std::error::Error>> {
/// let image = RawImage::new(1, 1, 5, vec![0, 100, 300, 0, 0], 65535)?;
/// let labels = LabelImage::new(1, 5, vec![0, 1, 1, 0, 0])?;
/// let table = measure(&image, &labels, &["DNA"], &FeatureSettings::default())?;
/// assert_eq!(table.get("Nuclei_AreaShape_Area"), Some(&[2.0][..]));
/// assert_eq!(table.get("Nuclei_Intensity_MeanIntensity_DNA"), Some(&[200.0 / 65535.0][..]));
/// # Ok(())
/// # }
/// ```
///
/// # Errors
/// Labels of another size than the image, not one name per channel, a setting outside its range.
pub fn measure(
    image: &RawImage,
    labels: &LabelImage,
    channels: &[&str],
    settings: &FeatureSettings,
) -> Result<FeatureTable, ObjectError> {
    settings.check()?;
    let (ours, theirs) = ([labels.height(), labels.width()], [image.height(), image.width()]);
    if ours != theirs {
        return Err(ObjectError::Size {
            labels: ours,
            image: theirs,
        });
    }
    if channels.len() != image.channels() {
        return Err(ObjectError::ChannelNames {
            got: channels.len(),
            channels: image.channels(),
        });
    }
    let field = FieldMeasures::of(image, labels, settings);
    let rows: Vec<Vec<f64>> = labels
        .boxes()
        .par_iter()
        .enumerate()
        .map_init(Room::default, |room, (index, bounds)| {
            row(image, labels, (index, bounds), settings, &field, room)
        })
        .collect();
    let mut rows = rows;
    if settings.families.neighbours {
        let centres: Vec<(f64, f64)> = rows
            .iter()
            .filter_map(|r| Some((*r.first()?, *r.get(1)?)))
            .collect();
        for (row, nearest) in rows.iter_mut().zip(neighbours::nearest(&centres)) {
            row.splice(0..2, [nearest]);
        }
    }
    let names = names::columns(channels, settings);
    Ok(FeatureTable::from_rows(names, &rows, labels.boxes().to_vec()))
}

/// What is found for the whole field before its objects.
struct FieldMeasures {
    /// Spectrum of each object, channel after channel.
    spectra: Vec<Vec<Vec<f64>>>,
    /// Level of texture of each grey level.
    levels: Vec<u8>,
    polynomials: Vec<Vec<f64>>,
}

impl FieldMeasures {
    fn of(image: &RawImage, labels: &LabelImage, settings: &FeatureSettings) -> Self {
        let families = settings.families;
        let channels = if families.granularity { image.channels() } else { 0 };
        Self {
            spectra: (0..channels)
                .into_par_iter()
                .map(|c| granularity::spectra(image.plane(c), labels, &settings.granularity))
                .collect(),
            levels: match families.texture {
                true => texture::level_table(settings.white, settings.texture.levels),
                false => Vec::new(),
            },
            polynomials: match families.zernike {
                true => zernike::polynomials(),
                false => Vec::new(),
            },
        }
    }
}

/// Room for one object, kept from one to the next.
#[derive(Default)]
struct Room {
    scratch: Scratch,
    texture: Option<texture::Texture>,
}

/// All features of one object, in the order of [`names::columns`]; with neighbours, its centre stands first, in two
/// values, instead of the distance.
fn row(
    image: &RawImage,
    labels: &LabelImage,
    (index, bounds): (usize, &ObjectBox),
    settings: &FeatureSettings,
    field: &FieldMeasures,
    room: &mut Room,
) -> Vec<f64> {
    let families = settings.families;
    let object = Object::new(labels, index, *bounds);
    let scale = Scale(settings.white);
    let mut out = Vec::new();
    if families.neighbours || families.shape || families.moments {
        let moments = Moments::of(&object);
        if families.neighbours {
            out.extend([
                moments.centroid.0 + bounds.top as f64,
                moments.centroid.1 + bounds.left as f64,
            ]);
        }
        if families.shape {
            let squares = object.distances(&mut room.scratch);
            shape::measure(&object, &moments, &squares, &mut out);
        }
        if families.moments {
            shape::measure_moments(&moments, &mut out);
        }
    }
    let values: Vec<Vec<u16>> = (0..image.channels())
        .map(|c| object.values(image.plane(c)))
        .collect();
    let zernike = families
        .zernike
        .then(|| Zernike::of(&object, &field.polynomials, &values, scale));
    if let Some(zernike) = &zernike {
        zernike.shape(&mut out);
    }
    let edge = if families.intensity {
        object.edge()
    } else {
        Vec::new()
    };
    let rings = families.radial.then(|| {
        let squares = object.distances(&mut room.scratch);
        let squares = object.distances_within(&squares, &mut room.scratch);
        Rings::of(&object, &squares, settings.rings)
    });
    for (c, values) in values.iter().enumerate() {
        if families.intensity {
            intensity::measure(&object, values, &edge, scale, &mut out);
        }
        if families.texture {
            let texture = room.texture.get_or_insert_with(texture::Texture::default);
            texture.measure(&object, values, &field.levels, settings.texture.scale, &mut out);
        }
        if let Some(spectrum) = field.spectra.get(c).and_then(|s| s.get(index)) {
            out.extend(spectrum);
        }
        if let Some(rings) = &rings {
            rings.measure(values, &mut out);
        }
        if let Some(zernike) = &zernike {
            zernike.intensity(c, &mut out);
        }
    }
    if families.colocalisation {
        let ranks: Vec<_> = values.iter().map(|v| correlation::ranks(v)).collect();
        let channel = |c: usize| correlation::Channel {
            values: &values[c],
            ranks: &ranks[c],
        };
        for (a, b) in names::pairs(values.len()) {
            correlation::measure(
                &channel(a),
                &channel(b),
                settings.colocalisation_percent,
                &mut out,
            );
        }
    }
    out
}
