// Scaling between two levels; the formula is in mod.rs. p: lower end (stored, remainder), 1 / span, scale.

fn percentile_scale(x: f32, p: vec4<f32>, m: f32) -> f32 {
    let z = ((x - p.x) - p.y) * p.z;
    let low = select(0.0, z, z > 0.0);
    return select(1.0, low, low < 1.0) * p.w;
}

fn percentile_scale_rounded(x: f32, p: vec4<f32>, m: f32) -> f32 {
    return round(percentile_scale(x, p, m));
}
