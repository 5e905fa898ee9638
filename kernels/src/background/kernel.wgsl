// Top-hat, rolling ball and blurred background; the formulas are in mod.rs.
struct Params { height: u32, width: u32, radius: u32 }
@group(0) @binding(0) var<uniform> params: Params;
// Half width of the footprint at each row offset.
@group(0) @binding(2) var<storage, read> chords: array<u32>;
// The eroded image, the blurred image, or heights of the ball by row and column distance.
@group(0) @binding(3) var<storage, read> second: array<f32>;
@group(0) @binding(4) var<storage, read_write> output: array<f32>;

@compute @workgroup_size(256)
fn subtract(@builtin(global_invocation_id) id: vec3<u32>, @builtin(num_workgroups) groups: vec3<u32>) {
    open_plane(id.y);
    let size = params.height * params.width;
    for (var i = id.x; i < size; i += groups.x * 256u) {
        output[id.y * size + i] = positive(pixel(id.y, i) - second[id.y * size + i]);
    }
}

@compute @workgroup_size(256)
fn erode(@builtin(global_invocation_id) id: vec3<u32>, @builtin(num_workgroups) groups: vec3<u32>) {
    open_plane(id.y);
    let size = params.height * params.width;
    for (var i = id.x; i < size; i += groups.x * 256u) {
        let x = i % params.width;
        let y = i / params.width;
        var best = LARGEST;
        for (var k = 0u; k <= 2u * params.radius; k++) {
            let row = y + k;
            if row < params.radius || row - params.radius >= params.height {
                continue;
            }
            let line = (row - params.radius) * params.width;
            let half = chords[k];
            for (var j = x - min(x, half); j <= min(x + half, params.width - 1u); j++) {
                let v = pixel(id.y, line + j);
                best = select(best, v, v < best);
            }
        }
        output[id.y * size + i] = best;
    }
}

@compute @workgroup_size(256)
fn top_hat(@builtin(global_invocation_id) id: vec3<u32>, @builtin(num_workgroups) groups: vec3<u32>) {
    open_plane(id.y);
    let size = params.height * params.width;
    for (var i = id.x; i < size; i += groups.x * 256u) {
        let x = i % params.width;
        let y = i / params.width;
        var best = -LARGEST;
        for (var k = 0u; k <= 2u * params.radius; k++) {
            let row = y + k;
            if row < params.radius || row - params.radius >= params.height {
                continue;
            }
            let line = id.y * size + (row - params.radius) * params.width;
            let half = chords[k];
            for (var j = x - min(x, half); j <= min(x + half, params.width - 1u); j++) {
                let v = second[line + j];
                best = select(best, v, v > best);
            }
        }
        output[id.y * size + i] = positive(pixel(id.y, i) - best);
    }
}

@compute @workgroup_size(256)
fn rolling_ball(@builtin(global_invocation_id) id: vec3<u32>, @builtin(num_workgroups) groups: vec3<u32>) {
    open_plane(id.y);
    let size = params.height * params.width;
    for (var i = id.x; i < size; i += groups.x * 256u) {
        let x = i % params.width;
        let y = i / params.width;
        var best = LARGEST;
        for (var k = 0u; k <= 2u * params.radius; k++) {
            let row = y + k;
            if row < params.radius || row - params.radius >= params.height {
                continue;
            }
            let line = (row - params.radius) * params.width;
            let half = chords[k];
            let heights = max(k, params.radius) - min(k, params.radius);
            for (var j = x - min(x, half); j <= min(x + half, params.width - 1u); j++) {
                let distance = max(x, j) - min(x, j);
                let v = pixel(id.y, line + j) + second[heights * (params.radius + 1u) + distance];
                best = select(best, v, v < best);
            }
        }
        output[id.y * size + i] = positive(pixel(id.y, i) - best);
    }
}
