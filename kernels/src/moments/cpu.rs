//! CPU form of `moments`: row by row, the interior without branches so that it vectorises.

/// The neighbour of `i` at `i + 1` or `i - 1`, mirrored at the border.
fn mirror(i: usize, forward: bool, len: usize) -> usize {
    match (forward, len) {
        (_, 1) => 0,
        (true, _) => {
            if i + 1 < len {
                i + 1
            } else {
                len - 2
            }
        }
        (false, _) => {
            if i > 0 {
                i - 1
            } else {
                1
            }
        }
    }
}

/// Sum (two's complement) and sum of squares of the Laplacian.
pub(super) fn laplacian(plane: &[u16], height: usize, width: usize) -> [u64; 2] {
    let (mut sum, mut squares) = (0i64, 0u64);
    let row = |y: usize| &plane[y * width..(y + 1) * width];
    for y in 0..height {
        let (up, here, down) = (
            row(mirror(y, false, height)),
            row(y),
            row(mirror(y, true, height)),
        );
        let at = |x: usize| {
            let side = i32::from(here[mirror(x, false, width)]) + i32::from(here[mirror(x, true, width)]);
            i32::from(up[x]) + i32::from(down[x]) + side - 4 * i32::from(here[x])
        };
        let mut add = |v: i32| {
            sum += i64::from(v);
            squares += u64::from(v.unsigned_abs()) * u64::from(v.unsigned_abs());
        };
        add(at(0));
        if width > 1 {
            add(at(width - 1));
        }
        if width > 2 {
            let (a, b) = interior(up, here, down);
            sum += a;
            squares += b;
        }
    }
    [sum as u64, squares]
}

fn interior(up: &[u16], here: &[u16], down: &[u16]) -> (i64, u64) {
    let inner = here.len() - 2;
    let (left, centre, right) = (&here[..inner], &here[1..=inner], &here[2..]);
    let (up, down) = (&up[1..=inner], &down[1..=inner]);
    let (mut sum, mut squares) = (0i64, 0u64);
    for i in 0..inner {
        let v = i32::from(up[i]) + i32::from(down[i]) + i32::from(left[i]) + i32::from(right[i])
            - 4 * i32::from(centre[i]);
        sum += i64::from(v);
        squares += u64::from(v.unsigned_abs()) * u64::from(v.unsigned_abs());
    }
    (sum, squares)
}
