// Subtracts a level, kept as a stored value plus a remainder (p.x, p.y).
fn background_level(x: f32, p: vec4<f32>, m: f32) -> f32 {
    return positive((x - p.x) - p.y);
}
