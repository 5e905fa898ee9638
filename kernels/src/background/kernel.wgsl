// Background subtraction; the formulas are in mod.rs.
struct Params { count: u32, height: u32, width: u32, radius: u32 }
// A level as a stored value plus a remainder; the second pair is not used.
struct Level { stored: f32, rest: f32, unused_a: f32, unused_b: f32 }
@group(0) @binding(0) var<uniform> params: Params;
@group(0) @binding(1) var<storage, read> input: array<f32>;
@group(0) @binding(2) var<storage, read> chords: array<u32>;
@group(0) @binding(3) var<storage, read> eroded: array<f32>;
@group(0) @binding(4) var<storage, read_write> output: array<f32>;
@group(0) @binding(5) var<storage, read> levels: array<Level>;

const LARGEST: f32 = 3.4028234663852886e38;

fn positive(v: f32) -> f32 {
    return select(0.0, v, v > 0.0);
}

@compute @workgroup_size(256)
fn subtract(@builtin(global_invocation_id) id: vec3<u32>, @builtin(num_workgroups) groups: vec3<u32>) {
    for (var i = id.x; i < params.count; i += groups.x * 256u) {
        let level = levels[i / (params.height * params.width)];
        output[i] = positive((input[i] - level.stored) - level.rest);
    }
}

@compute @workgroup_size(256)
fn erode(@builtin(global_invocation_id) id: vec3<u32>, @builtin(num_workgroups) groups: vec3<u32>) {
    for (var i = id.x; i < params.count; i += groups.x * 256u) {
        let x = i % params.width;
        let y = (i / params.width) % params.height;
        var best = LARGEST;
        for (var k = 0u; k <= 2u * params.radius; k++) {
            let row = y + k;
            if row < params.radius || row - params.radius >= params.height {
                continue;
            }
            let line = i - x - y * params.width + (row - params.radius) * params.width;
            let half = chords[k];
            for (var j = x - min(x, half); j <= min(x + half, params.width - 1u); j++) {
                let v = input[line + j];
                best = select(best, v, v < best);
            }
        }
        output[i] = best;
    }
}

@compute @workgroup_size(256)
fn top_hat(@builtin(global_invocation_id) id: vec3<u32>, @builtin(num_workgroups) groups: vec3<u32>) {
    for (var i = id.x; i < params.count; i += groups.x * 256u) {
        let x = i % params.width;
        let y = (i / params.width) % params.height;
        var best = -LARGEST;
        for (var k = 0u; k <= 2u * params.radius; k++) {
            let row = y + k;
            if row < params.radius || row - params.radius >= params.height {
                continue;
            }
            let line = i - x - y * params.width + (row - params.radius) * params.width;
            let half = chords[k];
            for (var j = x - min(x, half); j <= min(x + half, params.width - 1u); j++) {
                let v = eroded[line + j];
                best = select(best, v, v > best);
            }
        }
        output[i] = positive(input[i] - best);
    }
}
