// Copies crops; the layout is described in mod.rs.
struct Params {
    count: u32, channels: u32, height: u32, width: u32,
    tile_height: u32, tile_width: u32, crops: u32, columns: u32,
    y: u32, x: u32,
}
@group(0) @binding(0) var<uniform> params: Params;
@group(0) @binding(1) var<storage, read> input: array<f32>;
@group(0) @binding(2) var<storage, read_write> output: array<f32>;

@compute @workgroup_size(256)
fn tile(@builtin(global_invocation_id) id: vec3<u32>, @builtin(num_workgroups) groups: vec3<u32>) {
    for (var i = id.x; i < params.count; i += groups.x * 256u) {
        let column = i % params.tile_width;
        let row = (i / params.tile_width) % params.tile_height;
        let plane = i / (params.tile_width * params.tile_height);
        let channel = plane % params.channels;
        let item = plane / params.channels;
        let crop = item % params.crops;
        let y = params.y + crop / params.columns * params.tile_height + row;
        let x = params.x + crop % params.columns * params.tile_width + column;
        let source = (item / params.crops) * params.channels + channel;
        output[i] = input[(source * params.height + y) * params.width + x];
    }
}
