// Black level (p.x) and illumination (m; its reciprocal in the division); the formula is in mod.rs.

fn black_level(x: f32, p: vec4<f32>, m: f32) -> f32 {
    return positive(x - p.x);
}

fn flat_field_divide(x: f32, p: vec4<f32>, m: f32) -> f32 {
    return positive(x - p.x) * m;
}

fn flat_field_subtract(x: f32, p: vec4<f32>, m: f32) -> f32 {
    return positive((x - p.x) - m);
}
