// Shared by all shaders; put before each of them.

const LARGEST: f32 = 3.4028234663852886e38;

// NaN compares false and gives 0, as on the CPU.
fn positive(v: f32) -> f32 {
    return select(0.0, v, v > 0.0);
}

// Infinities and NaN give 0.
fn finite(v: f32) -> f32 {
    return select(0.0, v, abs(v) <= LARGEST);
}

// Neighbour outside the image: mirrored with the edge pixel repeated (d c b a | a b c d | d c b a).
fn reflect(i: i32, length: u32) -> u32 {
    let n = i32(length);
    var k = i % (2 * n);
    k = select(k, k + 2 * n, k < 0);
    return u32(select(k, 2 * n - 1 - k, k >= n));
}
