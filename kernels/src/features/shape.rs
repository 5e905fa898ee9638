//! Size and shape of an object (CellProfiler MeasureObjectSizeShape). Enters: an object. Leaves: a value per name of
//! [`NAMES`] and, if asked, of [`MOMENT_NAMES`]. Lengths in pixels, areas in pixels, angles in degrees. Cannot fail.
//!
//! FormFactor is `4 pi A / P^2`, Compactness `P^2 / max(4 pi A, 1)`. Radii are distances to the nearest pixel outside
//! the object. Center and BoundingBox count from the corner of the image; maxima lie one after the last pixel.

use std::f64::consts::PI;

use crate::features::object::Object;
use crate::features::table::median;
use crate::features::{hull, moments::Moments, outline};

/// Names of what [`measure`] gives.
pub(crate) const NAMES: [&str; 27] = [
    "Area",
    "BoundingBoxArea",
    "ConvexArea",
    "FilledArea",
    "EquivalentDiameter",
    "Perimeter",
    "PerimeterCrofton",
    "MajorAxisLength",
    "MinorAxisLength",
    "Eccentricity",
    "Orientation",
    "Center_X",
    "Center_Y",
    "BoundingBoxMinimum_X",
    "BoundingBoxMaximum_X",
    "BoundingBoxMinimum_Y",
    "BoundingBoxMaximum_Y",
    "FormFactor",
    "Extent",
    "Solidity",
    "Compactness",
    "EulerNumber",
    "MaximumRadius",
    "MeanRadius",
    "MedianRadius",
    "MinFeretDiameter",
    "MaxFeretDiameter",
];

/// Values of [`NAMES`]. `squares` are the squared distances to the edge, laid out as the mask.
pub(crate) fn measure(object: &Object, moments: &Moments, squares: &[u32], out: &mut Vec<f64>) {
    let bounds = object.bounds;
    let area = object.area() as f64;
    let perimeter = outline::perimeter(object);
    let quads = outline::quads(object);
    let convex = hull::convex_area(object) as f64;
    let (least_feret, largest_feret) = hull::feret(&hull::centres(object));
    let [major, minor] = moments.axes();
    let mut radii: Vec<f64> = object
        .pixels()
        .map(|(y, x)| f64::from(squares[object.place(y, x)]).sqrt())
        .collect();
    let mean_radius = radii.iter().sum::<f64>() / area;
    let largest_radius = radii.iter().copied().fold(0.0, f64::max);
    let box_area = (bounds.height() * bounds.width()) as f64;
    out.extend([
        area,
        box_area,
        convex,
        outline::filled_area(object) as f64,
        (4.0 * area / PI).sqrt(),
        perimeter,
        outline::crofton(&quads),
        major,
        minor,
        moments.eccentricity(),
        moments.orientation(),
        moments.centroid.1 + bounds.left as f64,
        moments.centroid.0 + bounds.top as f64,
        bounds.left as f64,
        bounds.right as f64,
        bounds.top as f64,
        bounds.bottom as f64,
        4.0 * PI * area / (perimeter * perimeter),
        area / box_area,
        area / convex,
        perimeter * perimeter / (4.0 * PI * area).max(1.0),
        outline::euler(&quads),
        largest_radius,
        mean_radius,
        median(&mut radii),
        least_feret,
        largest_feret,
    ]);
}

/// Names of what [`measure_moments`] gives.
pub(crate) fn moment_names() -> Vec<String> {
    let mut names = Vec::new();
    for (kind, highest) in [("Spatial", 2), ("Central", 2), ("Normalized", 3)] {
        for p in 0..=highest {
            names.extend((0..4).map(|q| format!("{kind}Moment_{p}_{q}")));
        }
    }
    names.extend((0..7).map(|i| format!("HuMoment_{i}")));
    for (y, x) in [(0, 0), (0, 1), (1, 0), (1, 1)] {
        names.push(format!("InertiaTensor_{y}_{x}"));
    }
    names.extend((0..2).map(|i| format!("InertiaTensorEigenvalues_{i}")));
    names
}

/// Values of [`moment_names`].
pub(crate) fn measure_moments(moments: &Moments, out: &mut Vec<f64>) {
    for row in &moments.spatial[..3] {
        out.extend(row);
    }
    for row in &moments.central[..3] {
        out.extend(row);
    }
    for row in &moments.normalised {
        out.extend(row);
    }
    out.extend(moments.hu);
    let [a, b, c] = moments.inertia;
    out.extend([a, b, b, c]);
    out.extend(moments.eigenvalues);
}
