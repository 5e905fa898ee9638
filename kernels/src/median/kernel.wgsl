// Median of small neighbourhoods; mod.rs describes it. Of n values the first n / 2 + 2 are kept; the least and the
// greatest kept cannot be the median, so they are dropped for the next value, until three are left.
struct Params { height: u32, width: u32 }
@group(0) @binding(0) var<uniform> params: Params;
@group(0) @binding(1) var<storage, read_write> output: array<f32>;

fn neighbour(plane: u32, i: u32, k: u32, size: u32) -> f32 {
    let half = i32(size / 2u);
    let y = reflect(i32(i / params.width) + i32(k / size) - half, params.height);
    let x = reflect(i32(i % params.width) + i32(k % size) - half, params.width);
    let v = pixel(plane, y * params.width + x);
    // NaN compares false.
    return select(0.0, v, v <= 0.0 || v > 0.0);
}

var<private> kept: array<f32, 14>;

// Moves the least of the first n kept to the front and the greatest to place n - 1.
fn extremes(n: u32) {
    for (var i = 1u; i < n; i++) {
        let a = kept[0];
        let b = kept[i];
        kept[0] = select(a, b, b < a);
        kept[i] = select(b, a, b < a);
    }
    for (var i = 1u; i + 1u < n; i++) {
        let a = kept[i];
        let b = kept[n - 1u];
        kept[i] = select(a, b, b < a);
        kept[n - 1u] = select(b, a, b < a);
    }
}

fn median(plane: u32, i: u32, size: u32) -> f32 {
    let count = size * size;
    var n = count / 2u + 2u;
    for (var k = 0u; k < n; k++) {
        kept[k] = neighbour(plane, i, k, size);
    }
    for (var next = n; n > 3u; next++) {
        extremes(n);
        kept[0] = neighbour(plane, i, next, size);
        n--;
    }
    extremes(3u);
    return kept[1];
}

@compute @workgroup_size(256)
fn median3(@builtin(global_invocation_id) id: vec3<u32>, @builtin(num_workgroups) groups: vec3<u32>) {
    open_plane(id.y);
    let size = params.height * params.width;
    for (var i = id.x; i < size; i += groups.x * 256u) {
        output[id.y * size + i] = median(id.y, i, 3u);
    }
}

@compute @workgroup_size(256)
fn median5(@builtin(global_invocation_id) id: vec3<u32>, @builtin(num_workgroups) groups: vec3<u32>) {
    open_plane(id.y);
    let size = params.height * params.width;
    for (var i = id.x; i < size; i += groups.x * 256u) {
        output[id.y * size + i] = median(id.y, i, 5u);
    }
}
