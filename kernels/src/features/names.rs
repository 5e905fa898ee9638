//! Names of feature columns, as CellProfiler writes them. Enters: names of channels and settings. Leaves: the name of
//! each value of a row, in the order in which the row is measured. Cannot fail.

use crate::features::settings::FeatureSettings;
use crate::features::{correlation, intensity, radial, shape, texture, zernike};

/// Every pair of channels, the lower first.
pub(crate) fn pairs(channels: usize) -> impl Iterator<Item = (usize, usize)> {
    (0..channels).flat_map(move |a| (a + 1..channels).map(move |b| (a, b)))
}

/// Names of all columns.
pub(crate) fn columns(channels: &[&str], settings: &FeatureSettings) -> Vec<String> {
    let families = settings.families;
    let mut names: Vec<String> = Vec::new();
    if families.neighbours {
        names.push("Neighbors_FirstClosestDistance_Adjacent".to_owned());
    }
    if families.shape {
        names.extend(shape::NAMES.map(|n| format!("AreaShape_{n}")));
    }
    if families.moments {
        names.extend(shape::moment_names().iter().map(|n| format!("AreaShape_{n}")));
    }
    if families.zernike {
        names.extend(zernike::orders().map(|(n, m)| format!("AreaShape_Zernike_{n}_{m}")));
    }
    for channel in channels {
        if families.intensity {
            names.extend(intensity::NAMES.map(|n| format!("{n}_{channel}")));
        }
        if families.texture {
            let (scale, levels) = (settings.texture.scale, settings.texture.levels);
            for direction in 0..texture::DIRECTIONS.len() {
                let name = |n| format!("Texture_{n}_{channel}_{scale}_{direction:02}_{levels}");
                names.extend(texture::NAMES.map(name));
            }
        }
        if families.granularity {
            let steps = 1..=settings.granularity.length;
            names.extend(steps.map(|k| format!("Granularity_{k}_{channel}")));
        }
        if families.radial {
            let rings = settings.rings;
            for name in radial::NAMES {
                let of = |ring| format!("RadialDistribution_{name}_{channel}_{ring}of{rings}");
                names.extend((1..=rings).map(of));
            }
        }
        if families.zernike {
            for kind in ["Magnitude", "Phase"] {
                let name = |(n, m)| format!("RadialDistribution_Zernike{kind}_{channel}_{n}_{m}");
                names.extend(zernike::orders().map(name));
            }
        }
    }
    if families.colocalisation {
        for (a, b) in pairs(channels.len()) {
            let (a, b) = (channels[a], channels[b]);
            // A measure of one of the two is named with that one first.
            names.extend(correlation::NAMES.map(|n| match n.rsplit_once('_') {
                Some((n, "2")) => format!("Correlation_{n}_{b}_{a}"),
                Some((n, _)) => format!("Correlation_{n}_{a}_{b}"),
                None => format!("Correlation_{n}_{a}_{b}"),
            }));
        }
    }
    names
        .iter_mut()
        .for_each(|n| n.insert_str(0, &format!("{}_", settings.objects)));
    names
}
