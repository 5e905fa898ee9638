//! Moments of the shape of an object. Enters: an object. Leaves: spatial, central, normalised and Hu's moments, and the
//! axes of the ellipse of the same second moments. Cannot fail.
//!
//! `M[p][q] = sum y^p x^q` over the pixels, rows y and columns x counted from the box of the object; central moments
//! about the centroid; `nu[p][q] = mu[p][q] / mu[0][0]^((p + q) / 2 + 1)`, NaN for p + q < 2. The inertia tensor is
//! `[[mu02, -mu11], [-mu11, mu20]] / mu00`; axes are four times the roots of its eigenvalues, without a term for the
//! size of a pixel. Sources: scikit-image `regionprops`; Hu, IRE Trans. Information Theory 8 (1962) 179.

use crate::features::object::Object;

/// `m[p][q]` for orders 0 to 3.
pub(crate) type Orders = [[f64; 4]; 4];

/// Moments and what follows from them.
pub(crate) struct Moments {
    pub(crate) spatial: Orders,
    pub(crate) central: Orders,
    pub(crate) normalised: Orders,
    pub(crate) hu: [f64; 7],
    /// Row and column of the centroid, within the box.
    pub(crate) centroid: (f64, f64),
    /// `[0][0], [0][1], [1][1]` of the inertia tensor.
    pub(crate) inertia: [f64; 3],
    /// Its eigenvalues, the larger first.
    pub(crate) eigenvalues: [f64; 2],
}

impl Moments {
    pub(crate) fn of(object: &Object) -> Self {
        let spatial = about(object, 0.0, 0.0);
        let area = spatial[0][0];
        let centroid = (spatial[1][0] / area, spatial[0][1] / area);
        let central = about(object, centroid.0, centroid.1);
        let mut normalised = [[f64::NAN; 4]; 4];
        for (p, row) in normalised.iter_mut().enumerate() {
            for (q, nu) in row.iter_mut().enumerate().filter(|(q, _)| p + q >= 2) {
                *nu = central[p][q] / area.powf((p + q) as f64 / 2.0 + 1.0);
            }
        }
        let inertia = [central[0][2] / area, -central[1][1] / area, central[2][0] / area];
        let [a, b, c] = inertia;
        let (mean, spread) = ((a + c) / 2.0, ((a - c) * (a - c) / 4.0 + b * b).sqrt());
        Self {
            spatial,
            central,
            normalised,
            hu: hu(&normalised),
            centroid,
            inertia,
            eigenvalues: [(mean + spread).max(0.0), (mean - spread).max(0.0)],
        }
    }

    /// Length of the major and of the minor axis.
    pub(crate) fn axes(&self) -> [f64; 2] {
        self.eigenvalues.map(|l| 4.0 * l.sqrt())
    }

    /// 0 for a circle, 1 for a line.
    pub(crate) fn eccentricity(&self) -> f64 {
        let [large, small] = self.eigenvalues;
        if large > 0.0 {
            (1.0 - small / large).max(0.0).sqrt()
        } else {
            0.0
        }
    }

    /// Angle between the rows and the major axis, -90 to 90 degrees.
    pub(crate) fn orientation(&self) -> f64 {
        let [a, b, c] = self.inertia;
        if a == c {
            return if b < 0.0 { 45.0 } else { -45.0 };
        }
        (0.5 * (-2.0 * b).atan2(c - a)).to_degrees()
    }
}

/// Moments about a row and a column.
fn about(object: &Object, row: f64, column: f64) -> Orders {
    let mut out = [[0.0; 4]; 4];
    let mut spans = object.spans.iter().peekable();
    while let Some(first) = spans.peek().map(|s| s.y) {
        // Powers of x over one row, then of y.
        let mut sums = [0.0; 4];
        while let Some(span) = spans.next_if(|s| s.y == first) {
            for x in span.left..span.right {
                let d = x as f64 - column;
                sums[0] += 1.0;
                sums[1] += d;
                sums[2] += d * d;
                sums[3] += d * d * d;
            }
        }
        let mut power = 1.0;
        for orders in &mut out {
            for (m, s) in orders.iter_mut().zip(&sums) {
                *m += power * s;
            }
            power *= first as f64 - row;
        }
    }
    out
}

/// Hu's seven invariants.
fn hu(nu: &Orders) -> [f64; 7] {
    let (t0, t1) = (nu[3][0] + nu[1][2], nu[2][1] + nu[0][3]);
    let (q0, q1) = (t0 * t0, t1 * t1);
    let (n4, s, d) = (4.0 * nu[1][1], nu[2][0] + nu[0][2], nu[2][0] - nu[0][2]);
    let (u0, u1) = (t0 * (q0 - 3.0 * q1), t1 * (3.0 * q0 - q1));
    let (r0, r1) = (nu[3][0] - 3.0 * nu[1][2], 3.0 * nu[2][1] - nu[0][3]);
    [
        s,
        d * d + n4 * nu[1][1],
        r0 * r0 + r1 * r1,
        q0 + q1,
        r0 * u0 + r1 * u1,
        d * (q0 - q1) + n4 * t0 * t1,
        r1 * u0 - r0 * u1,
    ]
}
