// Counts 16-bit pixels, two to a word, with one global atomic per pixel.
struct Params { plane: u32 }
@group(0) @binding(0) var<uniform> params: Params;
@group(0) @binding(1) var<storage, read> packed: array<u32>;
@group(0) @binding(2) var<storage, read_write> counts: array<atomic<u32>>;

@compute @workgroup_size(256)
fn histogram(@builtin(global_invocation_id) id: vec3<u32>, @builtin(num_workgroups) groups: vec3<u32>) {
    for (var i = id.x; i < params.plane; i += groups.x * 256u) {
        let p = id.y * params.plane + i;
        let v = (packed[p >> 1u] >> ((p & 1u) * 16u)) & 0xffffu;
        atomicAdd(&counts[id.y * 65536u + v], 1u);
    }
}
