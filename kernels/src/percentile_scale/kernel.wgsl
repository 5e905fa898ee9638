// Scaling between two levels; the formula is in mod.rs.
struct Params { count: u32, plane: u32, round: u32, scale: f32, tiny: f32 }
// One level as a stored value plus a remainder.
struct Range { lo: f32, lo_rest: f32, hi: f32, hi_rest: f32 }
@group(0) @binding(0) var<uniform> params: Params;
@group(0) @binding(1) var<storage, read> input: array<f32>;
@group(0) @binding(2) var<storage, read> ranges: array<Range>;
@group(0) @binding(3) var<storage, read_write> output: array<f32>;

@compute @workgroup_size(256)
fn percentile_scale(@builtin(global_invocation_id) id: vec3<u32>, @builtin(num_workgroups) groups: vec3<u32>) {
    for (var i = id.x; i < params.count; i += groups.x * 256u) {
        let r = ranges[i / params.plane];
        let span = (r.hi - r.lo) + (r.hi_rest - r.lo_rest);
        let inverse = 1.0 / select(params.tiny, span, span > params.tiny);
        var z = ((input[i] - r.lo) - r.lo_rest) * inverse;
        z = select(0.0, z, z > 0.0);
        z = select(1.0, z, z < 1.0) * params.scale;
        if params.round != 0u {
            z = round(z);
        }
        output[i] = z;
    }
}
