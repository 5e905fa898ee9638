// Writes what a chain leaves as floats.
struct Params { plane: u32 }
@group(0) @binding(0) var<uniform> params: Params;
@group(0) @binding(1) var<storage, read_write> output: array<f32>;

@compute @workgroup_size(256)
fn convert(@builtin(global_invocation_id) id: vec3<u32>, @builtin(num_workgroups) groups: vec3<u32>) {
    open_plane(id.y);
    for (var i = id.x; i < params.plane; i += groups.x * 256u) {
        output[id.y * params.plane + i] = pixel(id.y, i);
    }
}
