// Black level and illumination correction; the formula is in mod.rs.
struct Params { count: u32, plane: u32, channels: u32, mode: u32, illumination_planes: u32 }
@group(0) @binding(0) var<uniform> params: Params;
@group(0) @binding(1) var<storage, read> input: array<f32>;
@group(0) @binding(2) var<storage, read> black: array<f32>;
@group(0) @binding(3) var<storage, read> illumination: array<f32>;
@group(0) @binding(4) var<storage, read_write> output: array<f32>;

// NaN compares false and gives 0, as on the CPU.
fn positive(v: f32) -> f32 {
    return select(0.0, v, v > 0.0);
}

@compute @workgroup_size(256)
fn flat_field(@builtin(global_invocation_id) id: vec3<u32>, @builtin(num_workgroups) groups: vec3<u32>) {
    for (var i = id.x; i < params.count; i += groups.x * 256u) {
        let channel = (i / params.plane) % params.channels;
        let x = input[i] - black[channel];
        if params.mode == 0u {
            output[i] = positive(x);
            continue;
        }
        let l = illumination[(channel % params.illumination_planes) * params.plane + i % params.plane];
        if params.mode == 1u {
            output[i] = positive(x) / l;
        } else {
            output[i] = positive(x - l);
        }
    }
}
