//! Draws a scene: one stamp per cell and channel on planes of light.
//!
//! Settings, precomputed textures and a [`Scene`] enter, one plane of counts per channel leaves, nothing fails.
//! A cell is drawn row by row: the geometry of a row is computed once for all channels, then each channel fills
//! its own row from it.

use std::ops::Range;

use super::field::{Cell, Debris, Scene};
use super::optics::{self, Vignette};
use super::settings::{SimulationSettings, Stain};
use crate::random::{Random, mix};

const TEXTURE: u64 = 7;
/// Side of a texture tile; a power of two so that wrapping is a mask.
const SIDE: usize = 256;

/// What every field of a simulation shares.
#[derive(Debug)]
pub(super) struct Kit {
    fine: Vec<f32>,
    coarse: Vec<f32>,
    vignette: Vignette,
}

impl Kit {
    pub(super) fn new(settings: &SimulationSettings) -> Self {
        let grain = |part: f64| ((settings.cell_diameter * part).round() as usize).clamp(1, 24);
        Self {
            fine: texture(0, grain(0.022)),
            coarse: texture(1, grain(0.06)),
            vignette: Vignette::new(settings),
        }
    }
}

/// A tile of smooth noise, 0 to 1 around 0.5, that wraps at its borders. Textures do not depend on the seed:
/// cells begin at random places in them.
fn texture(kind: u64, radius: usize) -> Vec<f32> {
    let mut random = Random::keyed(&[TEXTURE, kind]);
    let mut tile: Vec<f32> = (0..SIDE * SIDE).map(|_| random.uniform() as f32 - 0.5).collect();
    for _ in 0..2 {
        for step in [1, SIDE] {
            let from = tile.clone();
            for (at, out) in tile.iter_mut().enumerate() {
                let (line, along) = if step == 1 {
                    (at & !(SIDE - 1), at % SIDE)
                } else {
                    (at % SIDE, at / SIDE)
                };
                *out = (0..=2 * radius)
                    .map(|k| from[line + ((along + SIDE + k - radius) % SIDE) * step])
                    .sum::<f32>();
            }
        }
    }
    let mean = tile.iter().sum::<f32>() / tile.len() as f32;
    let variance = tile.iter().map(|v| (v - mean) * (v - mean)).sum::<f32>() / tile.len() as f32;
    let scale = 0.22 / variance.sqrt().max(1e-12);
    tile.iter()
        .map(|v| (0.5 + (v - mean) * scale).clamp(0.0, 1.0))
        .collect()
}

/// Counts of every channel of a scene, in the order of the settings.
pub(super) fn draw(settings: &SimulationSettings, kit: &Kit, scene: &Scene) -> Vec<Vec<u16>> {
    let (height, width) = (settings.height as usize, settings.width as usize);
    let mut planes: Vec<Vec<f32>> = settings
        .channels
        .iter()
        .map(|&stain| vec![background(stain) * scene.background; height * width])
        .collect();
    let mut row = Row::default();
    for cell in &scene.cells {
        Stamp::new(settings, cell).draw(settings, kit, scene, &mut row, &mut planes);
    }
    for (plane, &stain) in planes.iter_mut().zip(&settings.channels) {
        for debris in &scene.debris {
            draw_debris(kit, debris, stain, plane, width);
        }
        if scene.blur_radius > 0 {
            optics::blur(plane, width, scene.blur_radius);
        }
    }
    planes
        .iter()
        .zip(&settings.channels)
        .map(|(plane, &stain)| {
            optics::expose(
                settings,
                &kit.vignette,
                plane,
                mix(scene.key ^ (stain as u64 + 1)),
            )
        })
        .collect()
}

/// Light where there is no cell, as a fraction of full scale.
fn background(stain: Stain) -> f32 {
    match stain {
        Stain::Dna => 0.008,
        Stain::Er | Stain::Rna => 0.014,
        Stain::Agp | Stain::Mito => 0.011,
        Stain::Brightfield => 0.4,
    }
}

/// The geometry of one row of one cell, an entry per pixel.
#[derive(Debug, Default)]
struct Row {
    pixels: Vec<Pixel>,
}

#[derive(Debug, Clone, Copy)]
struct Pixel {
    /// 1 inside the cell, 0 outside, between at the border.
    body: f32,
    /// Distance from the centre in units of the outline's radius: 1 is the border.
    reach: f32,
    /// 1 inside the nucleus, 0 outside, between at its border.
    nucleus: f32,
    /// Cell coordinates in units of the cell radius.
    u: f32,
    v: f32,
    fine: f32,
    coarse: f32,
}

/// A cell with everything that does not change from pixel to pixel.
struct Stamp<'a> {
    cell: &'a Cell,
    radius: f32,
    nucleus_radius: f32,
    stretch: f32,
    nucleus_stretch: f32,
    lobes: [f32; 2],
    offset: (usize, usize),
    /// Nucleoli and Golgi in cell coordinates.
    spots: [(f32, f32); 4],
}

impl<'a> Stamp<'a> {
    fn new(settings: &SimulationSettings, cell: &'a Cell) -> Self {
        let radius = 0.5 * settings.cell_diameter as f32 * cell.traits.cell_radius;
        // A healthy nucleus has 0.4 of the cell's diameter, and never fills the cell.
        let nucleus_radius =
            (0.2 * settings.cell_diameter as f32 * cell.traits.nucleus_radius).min(0.7 * radius);
        let mut random = Random::keyed(&[cell.key]);
        let inside = nucleus_radius / radius;
        let mut spots = [(0.0, 0.0); 4];
        for spot in &mut spots[..3] {
            let (x, y) = random.direction();
            let far = random.between(0.15, 0.6) as f32 * inside;
            *spot = (x as f32 * far, y as f32 * far);
        }
        let (x, y) = random.direction();
        spots[3] = (x as f32 * inside * 1.35, y as f32 * inside * 1.35);
        let amplitude = |share: f64| (share * f64::from(cell.traits.lobes)) as f32;
        Self {
            cell,
            radius,
            nucleus_radius,
            stretch: cell.traits.cell_stretch.sqrt(),
            nucleus_stretch: cell.traits.nucleus_stretch.sqrt(),
            lobes: [
                amplitude(random.between(-1.0, 1.0)),
                amplitude(random.between(0.4, 1.4)),
            ],
            offset: (cell.key as usize % SIDE, (cell.key >> 8) as usize % SIDE),
            spots,
        }
    }

    fn draw(
        &self,
        settings: &SimulationSettings,
        kit: &Kit,
        scene: &Scene,
        row: &mut Row,
        planes: &mut [Vec<f32>],
    ) {
        let (height, width) = (settings.height as usize, settings.width as usize);
        // The outline's lobes and ragged border reach beyond the stretched radius.
        let reach = self.radius * self.stretch * (1.1 + self.lobes[0].abs() + self.lobes[1]);
        let span = |centre: f32, reach: f32, size: usize| {
            let low = (centre - reach).floor().clamp(0.0, size as f32) as usize;
            let high = ((centre + reach).ceil() + 1.0).clamp(0.0, size as f32) as usize;
            low..high.max(low)
        };
        for y in span(self.cell.y, reach, height) {
            let dy = y as f32 - self.cell.y;
            let columns = span(self.cell.x, (reach * reach - dy * dy).max(0.0).sqrt(), width);
            let visible = self.geometry(kit, y, columns, row);
            for (plane, &stain) in planes.iter_mut().zip(&settings.channels) {
                let line = &mut plane[y * width..][visible.clone()];
                self.fill(stain, self.cell.gain * scene.gain(stain), &row.pixels, line);
            }
        }
    }

    /// Fills `row` with the part of `columns` where the cell is seen, and says which part.
    fn geometry(&self, kit: &Kit, y: usize, columns: Range<usize>, row: &mut Row) -> Range<usize> {
        let (cosine, sine) = self.cell.axis;
        let dy = y as f32 - self.cell.y;
        let texture_row = ((y + self.offset.1) & (SIDE - 1)) * SIDE;
        // Stretching keeps the area: longer along the axis, narrower across it.
        let scale_of = |radius: f32, stretch: f32| (1.0 / (radius * stretch), stretch / radius);
        let scale = scale_of(self.radius, self.stretch);
        let nuclear_scale = scale_of(self.nucleus_radius, self.nucleus_stretch);
        row.pixels.clear();
        row.pixels.extend(columns.clone().map(|x| {
            let at = texture_row + ((x + self.offset.0) & (SIDE - 1));
            let (fine, coarse) = (kit.fine[at], kit.coarse[at]);
            let dx = x as f32 - self.cell.x;
            let (along, across) = (dx * cosine + dy * sine, dy * cosine - dx * sine);
            let (u, v) = (along * scale.0, across * scale.1);
            let distance = (u * u + v * v).sqrt();
            // Lobes: cosines of two and three times the angle, from the cosine of the angle alone.
            let angle = u / distance.max(1e-6);
            let outline = 1.0
                + self.lobes[0] * (2.0 * angle * angle - 1.0)
                + self.lobes[1] * angle * (4.0 * angle * angle - 3.0);
            let reach = distance / outline + 0.16 * (coarse - 0.5);
            let (nu, nv) = (along * nuclear_scale.0, across * nuclear_scale.1);
            let nuclear = (nu * nu + nv * nv).sqrt() + 0.06 * (coarse - 0.5);
            Pixel {
                body: ((1.0 - reach) * self.radius * 0.4).clamp(0.0, 1.0),
                reach,
                nucleus: ((1.0 - nuclear) * self.nucleus_radius * 0.6 + 0.5).clamp(0.0, 1.0),
                u,
                v,
                fine,
                coarse,
            }
        }));
        // The halo of transmitted light ends at reach 1.12; nothing else reaches further than the body or nucleus.
        let seen = |p: &Pixel| p.reach < 1.12 || p.nucleus > 0.0;
        let Some(first) = row.pixels.iter().position(seen) else {
            row.pixels.clear();
            return columns.start..columns.start;
        };
        let last = row.pixels.iter().rposition(seen).unwrap_or(first);
        row.pixels.truncate(last + 1);
        row.pixels.drain(..first);
        columns.start + first..columns.start + last + 1
    }

    fn fill(&self, stain: Stain, gain: f32, pixels: &[Pixel], line: &mut [f32]) {
        let traits = &self.cell.traits;
        let grain = |p: &Pixel| p.fine + traits.coarse * (p.coarse - p.fine);
        // Cells thin out towards their border.
        let thickness = |p: &Pixel| p.body * (1.05 - p.reach * p.reach).max(0.0);
        // Gathered at the nucleus: the weight moves from the whole cell to its centre.
        let gathered = |p: &Pixel, gather: f32| {
            let near = (1.15 - p.reach).max(0.0);
            1.0 - gather + gather * 2.2 * near * near
        };
        let spot = |p: &Pixel, at: usize, size: f32| {
            let (du, dv) = (p.u - self.spots[at].0, p.v - self.spots[at].1);
            (1.0 - (du * du + dv * dv) / (size * size)).max(0.0)
        };
        let nuclear = self.nucleus_radius / self.radius;
        match stain {
            Stain::Dna => brightest(line, pixels, gain, |p| {
                p.nucleus * traits.dna * (0.16 + 0.14 * grain(p))
            }),
            Stain::Er => brightest(line, pixels, gain, |p| {
                let body = thickness(p) * (1.0 - 0.7 * p.nucleus);
                0.34 * body * gathered(p, traits.er_gather) * (0.25 + 0.95 * grain(p))
            }),
            Stain::Rna => brightest(line, pixels, gain, |p| {
                let nucleoli =
                    spot(p, 0, 0.3 * nuclear) + spot(p, 1, 0.38 * nuclear) + spot(p, 2, 0.25 * nuclear);
                let body = thickness(p) * (1.0 - 0.45 * p.nucleus) * (0.35 + 0.7 * grain(p));
                0.22 * body + 0.2 * p.nucleus * nucleoli.min(1.2)
            }),
            Stain::Agp => brightest(line, pixels, gain, |p| {
                let edge = (1.0 - (p.reach - 0.88).abs() * 7.0).max(0.0) * p.body;
                let golgi = spot(p, 3, 0.22) * (1.0 - p.nucleus) * p.body;
                let body = thickness(p) * (1.0 - 0.35 * p.nucleus) * (0.3 + 0.8 * grain(p));
                0.16 * body + 0.2 * traits.agp_edge * edge + 0.2 * golgi * (0.5 + p.fine)
            }),
            Stain::Mito => brightest(line, pixels, gain, |p| {
                // The contour lines of smooth noise are threads; the coarse noise breaks them up.
                let line = (1.0 - 5.0 * (p.fine - 0.5).abs()).max(0.0);
                let threads = line + traits.coarse * ((2.5 * p.coarse - 0.9).clamp(0.0, 1.0) - line);
                let body = thickness(p) * (1.0 - 0.9 * p.nucleus);
                0.3 * body * gathered(p, traits.mito_gather) * (0.12 + threads)
            }),
            Stain::Brightfield => {
                for (out, p) in line.iter_mut().zip(pixels) {
                    let halo = (1.0 - (p.reach - 1.0).abs() * 9.0).max(0.0);
                    let membrane = (p.nucleus * (1.0 - p.nucleus)) * 4.0;
                    let inside = p.body * (0.1 * (grain(p) - 0.5) - 0.035);
                    *out += gain * (0.07 * halo * (0.5 + traits.agp_edge) + inside - 0.04 * membrane);
                }
            }
        }
    }
}

/// Neighbours overlap: the brighter one is seen, and a cell outshines the background.
fn brightest(line: &mut [f32], pixels: &[Pixel], gain: f32, light: impl Fn(&Pixel) -> f32) {
    for (out, pixel) in line.iter_mut().zip(pixels) {
        *out = out.max(gain * light(pixel));
    }
}

fn draw_debris(kit: &Kit, debris: &Debris, stain: Stain, plane: &mut [f32], width: usize) {
    let height = plane.len() / width;
    let reach = debris.half_length.max(debris.half_width) * 1.3;
    let low = |centre: f32| (centre - reach).max(0.0) as usize;
    let high = |centre: f32, size: usize| ((centre + reach).max(0.0) as usize + 1).min(size);
    let strength = match stain {
        Stain::Dna => 0.5,
        Stain::Er | Stain::Rna => 0.35,
        Stain::Agp | Stain::Mito => 0.4,
        Stain::Brightfield => -0.3,
    };
    for y in low(debris.y)..high(debris.y, height) {
        for x in low(debris.x)..high(debris.x, width) {
            let (dx, dy) = (x as f32 - debris.x, y as f32 - debris.y);
            let along = (dx * debris.axis.0 + dy * debris.axis.1) / debris.half_length;
            let across = (dy * debris.axis.0 - dx * debris.axis.1) / debris.half_width;
            let texture = kit.coarse[(y & (SIDE - 1)) * SIDE + (x & (SIDE - 1))];
            let inside = 1.0 - along * along - across * across + 0.6 * (texture - 0.5);
            plane[y * width + x] += strength * debris.brightness * inside.clamp(0.0, 0.6);
        }
    }
}
