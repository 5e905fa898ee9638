// Copies crops; the layout is described in mod.rs.
struct Params {
    channels: u32, width: u32, tile_height: u32, tile_width: u32, crops: u32, columns: u32, y: u32, x: u32,
}
@group(0) @binding(0) var<uniform> params: Params;
@group(0) @binding(1) var<storage, read_write> output: array<f32>;

@compute @workgroup_size(256)
fn tile(@builtin(global_invocation_id) id: vec3<u32>, @builtin(num_workgroups) groups: vec3<u32>) {
    let size = params.tile_height * params.tile_width;
    let channel = id.y % params.channels;
    let item = id.y / params.channels;
    let crop = item % params.crops;
    let source = (item / params.crops) * params.channels + channel;
    open_plane(source);
    let top = params.y + crop / params.columns * params.tile_height;
    let left = params.x + crop % params.columns * params.tile_width;
    for (var i = id.x; i < size; i += groups.x * 256u) {
        let y = top + i / params.tile_width;
        let x = left + i % params.tile_width;
        output[id.y * size + i] = pixel(source, y * params.width + x);
    }
}
