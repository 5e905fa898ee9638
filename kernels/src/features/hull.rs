//! Convex hulls of objects. Enters: an object. Leaves: the area of its hull in pixels, the least and the largest Feret
//! diameter, and the smallest circle around it. Cannot fail.

use crate::features::object::Object;

/// A point of whole coordinates: row, column.
pub(crate) type Point = (i64, i64);

/// Turn of `b` seen from `a` to `c`: positive to the left.
fn turn(a: Point, b: Point, c: Point) -> i64 {
    (b.0 - a.0) * (c.1 - a.1) - (b.1 - a.1) * (c.0 - a.0)
}

/// Corners of the convex hull, one after the other around it, without points on its edges. Source: Andrew's monotone
/// chain, Information Processing Letters 9 (1979) 216.
fn hull(mut points: Vec<Point>) -> Vec<Point> {
    points.sort_unstable();
    points.dedup();
    if points.len() < 3 {
        return points;
    }
    let mut around: Vec<Point> = Vec::with_capacity(points.len() + 1);
    let mut chain = |points: &mut dyn Iterator<Item = Point>| {
        let start = around.len();
        for p in points {
            while around.len() >= start + 2
                && turn(around[around.len() - 2], around[around.len() - 1], p) <= 0
            {
                around.pop();
            }
            around.push(p);
        }
        // The last point begins the next chain.
        around.pop();
    };
    chain(&mut points.iter().copied());
    chain(&mut points.iter().rev().copied());
    around
}

/// First and last pixel of each row, times `scale`: no other pixel is a corner of the hull.
fn ends(object: &Object) -> impl Iterator<Item = Point> {
    object
        .spans
        .iter()
        .flat_map(|s| [(s.y as i64, s.left as i64), (s.y as i64, s.right as i64 - 1)])
}

/// Corners of the hull of the centres of the pixels, within the box of the object.
pub(crate) fn centres(object: &Object) -> Vec<Point> {
    hull(ends(object).collect())
}

/// Pixels whose centre lies within or on the hull of the middles of the sides of all pixels of the object. Source:
/// scikit-image `convex_hull_image`. Whole numbers throughout.
pub(crate) fn convex_area(object: &Object) -> usize {
    // In half pixels.
    let sides = ends(object).flat_map(|(y, x)| {
        let (y, x) = (2 * y, 2 * x);
        [(y, x - 1), (y, x + 1), (y - 1, x), (y + 1, x)]
    });
    let corners = hull(sides.collect());
    let mut area = 0;
    for y in (0..object.bounds.height() as i64).map(|y| 2 * y) {
        let (mut least, mut most) = (i64::MAX, i64::MIN);
        for (&a, &b) in corners.iter().zip(corners.iter().cycle().skip(1)) {
            let (a, b) = if a.0 <= b.0 { (a, b) } else { (b, a) };
            if y < a.0 || y > b.0 {
                continue;
            }
            if a.0 == b.0 {
                least = least.min(a.1.div_euclid(2) + i64::from(a.1.rem_euclid(2) != 0));
                most = most.max(b.1.div_euclid(2));
                continue;
            }
            // Column of the edge in this row, over 2 (b.0 - a.0).
            let over = 2 * (b.0 - a.0);
            let column = a.1 * (b.0 - a.0) + (b.1 - a.1) * (y - a.0);
            least = least.min(-(-column).div_euclid(over));
            most = most.max(column.div_euclid(over));
        }
        area += (most - least + 1).max(0) as usize;
    }
    area
}

/// Least and largest distance between two parallel lines around the hull; both 0 of a single pixel. Source: centrosome
/// `feret_diameter`.
pub(crate) fn feret(corners: &[Point]) -> (f64, f64) {
    let mut largest = 0;
    for (i, a) in corners.iter().enumerate() {
        for b in &corners[i + 1..] {
            let (dy, dx) = (a.0 - b.0, a.1 - b.1);
            largest = largest.max(dy * dy + dx * dx);
        }
    }
    let mut least = f64::INFINITY;
    if corners.len() > 2 {
        for (&a, &b) in corners.iter().zip(corners.iter().cycle().skip(1)) {
            let far = corners.iter().map(|&c| turn(a, b, c).abs()).max().unwrap_or(0);
            let (dy, dx) = ((b.0 - a.0) as f64, (b.1 - a.1) as f64);
            least = least.min(far as f64 / dy.hypot(dx));
        }
    } else {
        least = 0.0;
    }
    (least, (largest as f64).sqrt())
}

/// Row, column and radius of the smallest circle around the corners. Source: Welzl 1991, without shuffling, since a
/// hull has few corners.
pub(crate) fn circle(corners: &[Point]) -> (f64, f64, f64) {
    let points: Vec<(f64, f64)> = corners.iter().map(|&(y, x)| (y as f64, x as f64)).collect();
    let mut best = (points.first().copied().unwrap_or_default(), 0.0f64);
    let outside = |circle: ((f64, f64), f64), p: (f64, f64)| {
        (p.0 - circle.0.0).hypot(p.1 - circle.0.1) > circle.1 * (1.0 + 1e-12) + 1e-12
    };
    for i in 1..points.len() {
        if !outside(best, points[i]) {
            continue;
        }
        best = (points[i], 0.0);
        for j in 0..i {
            if !outside(best, points[j]) {
                continue;
            }
            best = across(points[i], points[j]);
            for k in 0..j {
                if outside(best, points[k]) {
                    best = through(points[i], points[j], points[k]);
                }
            }
        }
    }
    (best.0.0, best.0.1, best.1)
}

/// The circle with two points on a diameter.
fn across(a: (f64, f64), b: (f64, f64)) -> ((f64, f64), f64) {
    let centre = (f64::midpoint(a.0, b.0), f64::midpoint(a.1, b.1));
    (centre, (a.0 - b.0).hypot(a.1 - b.1) / 2.0)
}

/// The circle through three points, which are corners of a hull and so on no line.
fn through(a: (f64, f64), b: (f64, f64), c: (f64, f64)) -> ((f64, f64), f64) {
    let (by, bx, cy, cx) = (b.0 - a.0, b.1 - a.1, c.0 - a.0, c.1 - a.1);
    let d = 2.0 * (by * cx - bx * cy);
    let (bb, cc) = (by * by + bx * bx, cy * cy + cx * cx);
    let (uy, ux) = ((cx * bb - bx * cc) / d, (by * cc - cy * bb) / d);
    ((a.0 + uy, a.1 + ux), uy.hypot(ux))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_square_and_what_has_no_area() {
        let corners = hull(vec![(0, 0), (0, 2), (2, 0), (2, 2), (1, 1), (0, 1)]);
        assert_eq!(corners.len(), 4);
        let (least, largest) = feret(&corners);
        assert!((least - 2.0).abs() < 1e-12 && (largest - 8f64.sqrt()).abs() < 1e-12);
        let (y, x, r) = circle(&corners);
        assert!((y - 1.0).abs() < 1e-12 && (x - 1.0).abs() < 1e-12 && (r - 2f64.sqrt()).abs() < 1e-12);
        assert_eq!(feret(&hull(vec![(3, 3)])), (0.0, 0.0));
        assert_eq!(feret(&hull(vec![(0, 0), (0, 1), (0, 5)])), (0.0, 5.0));
        assert_eq!(circle(&hull(vec![(3, 3)])), (3.0, 3.0, 0.0));
    }
}
