// Additive mixture of coloured channels; the formula is in mod.rs.
struct Params { plane: u32, channels: u32 }
@group(0) @binding(0) var<uniform> params: Params;
// Red, green and blue of each channel.
@group(0) @binding(1) var<storage, read> colours: array<f32>;
@group(0) @binding(2) var<storage, read_write> output: array<f32>;

@compute @workgroup_size(256)
fn composite(@builtin(global_invocation_id) id: vec3<u32>, @builtin(num_workgroups) groups: vec3<u32>) {
    for (var i = id.x; i < params.plane; i += groups.x * 256u) {
        var sum = vec3<f32>(0.0);
        for (var c = 0u; c < params.channels; c++) {
            open_plane(id.y * params.channels + c);
            let low = positive(pixel(id.y * params.channels + c, i));
            let z = select(1.0, low, low < 1.0);
            sum += z * vec3<f32>(colours[3u * c], colours[3u * c + 1u], colours[3u * c + 2u]);
        }
        let rgb = round(min(sum, vec3<f32>(1.0)) * 255.0);
        let first = 3u * id.y * params.plane + i;
        output[first] = rgb.x;
        output[first + params.plane] = rgb.y;
        output[first + 2u * params.plane] = rgb.z;
    }
}
