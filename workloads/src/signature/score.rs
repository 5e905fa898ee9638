//! Every effect against every disease signature: cosine, rescue, what lies beside, p and q.
//!
//! A [`SignatureScreen`] enters; [`SignatureColumn`]s leave through a callback, disease after disease. Effects are read
//! from their spool once, and their products with all signatures are put there too. Only some diseases and a block of
//! effects are held at a time, in buffers that are used again: neither 20 million scores nor those of a disease lie in
//! memory. Nothing fails but the spool and the callback.

use std::collections::{BTreeMap, BTreeSet};
use std::ops::Range;

use rayon::prelude::*;

use super::effects::{Class as OfNull, Effects};
use super::gather::{ControlPool, Origin, SignatureScreen};
use super::null::{Null, NullScores, cosine, rescue};
use super::rows::{EffectVectors, bytes_of};
use super::tail::{COUNTED, Tail};
use super::vectors::{dot, products};
use super::{SignatureError, SignatureSettings, Vectors};
use crate::compare::Spool;
use crate::compare::multiple::{Corrected, Counts, benjamini_hochberg};

/// Diseases scored at a time: enough for the product to run at full speed.
const SIGNATURE_BLOCK: usize = 32;
/// Bytes of their scores at most, of more than one disease.
const BLOCK_BYTES: usize = 128 << 20;
/// Products, nine scores of a column, and what their p-values need, of an effect against a disease.
const SCORE_BYTES: usize = 96;
/// Effects of one product; the same whatever the number of threads, and so are the bytes.
const EFFECT_BLOCK: usize = 512;
/// Where effects are more than are scored at a time, blocks are so many times smaller.
const BLOCKS: usize = 4;
/// Values of effects, and of their products, that are held at a time, of more than one block of effects.
const VALUES_AT_ONCE: usize = 1 << 18;

/// A block of effects against one disease. Entry `i` of every column belongs to effect `effects.start + i`; NaN where it
/// is not defined (a vector without a length, no control wells for a null).
#[derive(Debug, Default)]
pub struct SignatureColumn {
    /// The signature.
    pub signature: usize,
    /// The effects: all of the screen, or those of some compounds.
    pub effects: Range<usize>,
    /// `cos(e, v)` in [-1, 1]: above 0 the compound resembles the disease. Its reversal `cos(e, −v)` is the negative.
    pub cosine: Vec<f64>,
    /// `e·(−v) / |v|²`: the part of the way from disease to healthy, 1 is all of it. Of an effect on other cells: what
    /// it would do, if effects added up.
    pub rescue: Vec<f64>,
    /// Length of the effect beside the disease axis, in lengths of the signature, 0 and above.
    pub off_axis: Vec<f64>,
    /// One-sided: as far against the signature by chance.
    pub p_reversal: Vec<f64>,
    /// Benjamini-Hochberg over the effects of this disease.
    pub q_reversal: Vec<f64>,
    /// One-sided: as far along the signature by chance.
    pub p_mimic: Vec<f64>,
    /// Benjamini-Hochberg over the effects of this disease.
    pub q_mimic: Vec<f64>,
    /// One-sided: as much rescue by chance.
    pub p_rescue: Vec<f64>,
    /// Benjamini-Hochberg over the effects of this disease.
    pub q_rescue: Vec<f64>,
    pub(super) null: NullScores,
    pub(super) ranked: Vec<(f64, u32)>,
    pub(super) reached: Vec<u32>,
}

/// What effects of one origin and one number of wells share.
struct Class<'a> {
    pool: Option<(usize, &'a ControlPool)>,
    null: Null,
}

/// A class, and its effects of a block, as entries of the block's columns.
type Members<'c> = Vec<(&'c Class<'c>, Vec<u32>)>;

/// Scores all effects against all signatures; `take` gets them signature after signature, and of a signature in blocks of
/// effects, in their order; the effects of a compound are in one block.
///
/// The same screen and settings give the same numbers on any number of threads. Work: one product of effects and
/// signatures, and for each kind of effect (origin and number of wells) its null against every signature.
///
/// # Errors
/// A setting is out of range, the spool fails, or what `take` fails with.
pub fn score<S: Spool, E: From<SignatureError>>(
    screen: &mut SignatureScreen<S>,
    settings: &SignatureSettings,
    mut take: impl FnMut(&SignatureColumn) -> Result<(), E>,
) -> Result<(), E> {
    settings.check()?;
    let SignatureScreen {
        signatures,
        signature_vectors,
        effects: of,
        effect_vectors,
        pools: by_origin,
        ..
    } = screen;
    let pools: Vec<&ControlPool> = by_origin.values().collect();
    let classes = classes(of, by_origin, settings);
    let width = effect_vectors.width();
    let at_once = settings.effects_at_once;
    // More than one pass in any case: smaller blocks then take less memory and no more time.
    let blocks = blocks(
        of,
        if of.len() > at_once {
            at_once / BLOCKS
        } else {
            at_once
        },
    );
    let largest = blocks.iter().map(ExactSizeIterator::len).max().unwrap_or(0);
    let most = BLOCK_BYTES / (SCORE_BYTES * largest.max(1));
    let together = SIGNATURE_BLOCK.min(most).clamp(1, signatures.len().max(1));
    let members: Vec<_> = blocks.iter().map(|block| members(&classes, of, block)).collect();
    let mut aside = Products::put_aside(effect_vectors, signature_vectors, &blocks, together)?;
    let mut dots = vec![0.0; together * largest];
    let mut columns: Vec<SignatureColumn> = Vec::new();
    for (group, vectors) in signature_vectors
        .as_slice()
        .chunks(together * width.max(1))
        .enumerate()
    {
        let first = group * together;
        let n = vectors.len() / width.max(1);
        let along: Vec<Vec<f64>> = pools.par_iter().map(|pool| along(pool, vectors)).collect();
        columns.resize_with(n.max(columns.len()), SignatureColumn::default);
        let p_place = aside.effects.rows.end();
        let mut counts: Vec<[Counts; 3]> = (0..n).map(|_| Default::default()).collect();
        for (number, (block, members)) in blocks.iter().zip(&members).enumerate() {
            let dots = &mut dots[..n * block.len()];
            aside.read(number, first..first + n, dots)?;
            columns[..n].par_iter_mut().enumerate().for_each(|(j, column)| {
                let v = &vectors[j * width..(j + 1) * width];
                let vv = dot(v, v);
                column.fill(first + j, of, block, of_signature(dots, n, j), vv);
                for (class, here) in members {
                    column.test(class, here, &along, j, vv, settings.tail);
                }
            });
            if let [_] = blocks[..] {
                columns[..n].par_iter_mut().for_each(SignatureColumn::correct);
                columns[..n].iter().try_for_each(&mut take)?;
                continue;
            }
            for (column, counts) in columns[..n].iter().zip(&mut counts) {
                for (p, counts) in column.p().into_iter().zip(counts) {
                    aside.effects.rows.append(p)?;
                    p.iter().for_each(|&p| counts.add(p));
                }
            }
        }
        if let [_] = blocks[..] {
            continue;
        }
        // Every q needs every p of its disease: scores are made again, of one disease at a time.
        let mut column = std::mem::take(&mut columns[0]);
        for (j, counts) in counts.into_iter().enumerate() {
            let corrected = counts.map(Counts::corrected);
            let v = &vectors[j * width..(j + 1) * width];
            let vv = dot(v, v);
            let mut place = p_place;
            for (number, block) in blocks.iter().enumerate() {
                let dots = &mut dots[..block.len()];
                aside.read(number, first + j..first + j + 1, dots)?;
                column.fill(first + j, of, block, dots.iter(), vv);
                for (which, p) in [&mut column.p_reversal, &mut column.p_mimic, &mut column.p_rescue]
                    .into_iter()
                    .enumerate()
                {
                    let at = place + bytes_of((j * 3 + which) * block.len());
                    aside.effects.rows.read(at, p)?;
                }
                place += bytes_of(n * 3 * block.len());
                column.look_up(&corrected);
                take(&column)?;
            }
        }
        columns[0] = column;
        aside.effects.rows.forget(p_place);
    }
    Ok(())
}

/// Ranges of effects of about `most`, each with all effects of its compounds.
fn blocks(effects: &Effects, most: usize) -> Vec<Range<usize>> {
    let mut blocks = Vec::new();
    let mut start = 0;
    while start < effects.len() {
        let mut end = (start + most.max(1)).min(effects.len());
        while end < effects.len() && effects.compound(end) == effects.compound(end - 1) {
            end += 1;
        }
        blocks.push(start..end);
        start = end;
    }
    blocks
}

/// The products of signature `j` of `n`, in the order of the effects.
fn of_signature(dots: &[f64], n: usize, j: usize) -> impl Iterator<Item = &f64> {
    dots.chunks(EFFECT_BLOCK * n)
        .flat_map(move |chunk| chunk.chunks_exact(chunk.len() / n).nth(j).unwrap_or_default())
}

/// `r_i · v` of every control well with every signature of the block: `out[j * n + i]`.
fn along(pool: &ControlPool, vectors: &[f64]) -> Vec<f64> {
    let width = pool.rows.width();
    let rows: Vec<f64> = pool.rows.as_slice().iter().map(|&r| f64::from(r)).collect();
    let mut out = vec![0.0; pool.rows.len() * vectors.len() / width.max(1)];
    products(&rows, vectors, width, &mut out);
    out
}

/// Products of all effects with all signatures, in the effects' spool.
///
/// Blocks of effects, each in parts of [`EFFECT_BLOCK`]; of each part, the signatures one after the other; of each
/// signature, the effects of the part.
struct Products<'a, S: Spool> {
    effects: &'a mut EffectVectors<S>,
    /// Where they begin.
    place: u64,
    blocks: &'a [Range<usize>],
    signatures: usize,
}

impl<'a, S: Spool> Products<'a, S> {
    /// Reads the effects once. The products of `at_once` signatures are taken together.
    fn put_aside(
        effects: &'a mut EffectVectors<S>,
        signatures: &Vectors,
        blocks: &'a [Range<usize>],
        at_once: usize,
    ) -> Result<Self, SignatureError> {
        let (width, n) = (signatures.width().max(1), signatures.len());
        let place = effects.rows.end();
        let rows = (VALUES_AT_ONCE / width.max(n) / EFFECT_BLOCK).max(1) * EFFECT_BLOCK;
        let mut out = vec![0.0; rows.min(effects.len()) * n];
        for from in blocks.iter().flat_map(|block| block.clone().step_by(rows)) {
            let end = blocks.iter().map(|block| block.end).find(|&end| end > from);
            let part = effects.read(from..end.unwrap_or(from).min(from + rows))?;
            let out = &mut out[..part.len() * n];
            out.par_chunks_mut(EFFECT_BLOCK * n)
                .zip(part.as_slice().par_chunks(EFFECT_BLOCK * width))
                .for_each(|(out, rows)| {
                    out.par_chunks_mut(rows.len() / width * at_once)
                        .zip(signatures.as_slice().par_chunks(at_once * width))
                        .for_each(|(out, signatures)| products(rows, signatures, width, out));
                });
            effects.rows.append(out)?;
        }
        Ok(Self {
            effects,
            place,
            blocks,
            signatures: n,
        })
    }

    /// The products of a block of effects with a range of signatures, part after part.
    fn read(
        &mut self,
        block: usize,
        signatures: Range<usize>,
        into: &mut [f64],
    ) -> Result<(), SignatureError> {
        let mut before = self.blocks[block].start;
        for into in into.chunks_mut(EFFECT_BLOCK * signatures.len()) {
            let effects = into.len() / signatures.len();
            let place = self.place + bytes_of(before * self.signatures + effects * signatures.start);
            self.effects.rows.read(place, into)?;
            before += effects;
        }
        Ok(())
    }
}

impl<S: Spool> Drop for Products<'_, S> {
    fn drop(&mut self) {
        self.effects.rows.forget(self.place);
    }
}

/// What the effects of a screen share, by what their null depends on.
fn classes<'a>(
    effects: &Effects,
    pools: &'a BTreeMap<Origin, ControlPool>,
    settings: &SignatureSettings,
) -> BTreeMap<OfNull, Class<'a>> {
    let different: BTreeSet<OfNull> = (0..effects.len()).map(|effect| effects.class(effect)).collect();
    different
        .into_iter()
        .map(|(number, wells)| {
            let origin = &effects.origins()[number as usize];
            let pool = pools
                .iter()
                .enumerate()
                .find(|(_, (of, _))| *of == origin)
                .map(|(index, (_, pool))| (index, pool));
            let name = match origin {
                Origin::Healthy => String::new(),
                Origin::Disease(name) => format!("disease {}", name.as_deref().unwrap_or_default()),
            };
            let null = pool.map_or_else(Null::default, |(_, pool)| {
                Null::new(pool, wells as usize, &name, settings)
            });
            ((number, wells), Class { pool, null })
        })
        .collect()
}

fn members<'c>(
    classes: &'c BTreeMap<OfNull, Class<'c>>,
    effects: &Effects,
    block: &Range<usize>,
) -> Members<'c> {
    let mut members: BTreeMap<OfNull, Vec<u32>> = BTreeMap::new();
    for (entry, effect) in (0u32..).zip(block.clone()) {
        members.entry(effects.class(effect)).or_default().push(entry);
    }
    let of_class = |(of, entries)| Some((classes.get(&of)?, entries));
    members.into_iter().filter_map(of_class).collect()
}

impl SignatureColumn {
    /// `cos(e, −v)` of entry `i`.
    pub fn reversal(&self, i: usize) -> f64 {
        -self.cosine[i]
    }

    fn p(&self) -> [&[f64]; 3] {
        [&self.p_reversal, &self.p_mimic, &self.p_rescue]
    }

    /// Scores without p of a block of effects, from their products with the signature.
    fn fill<'d>(
        &mut self,
        signature: usize,
        effects: &Effects,
        block: &Range<usize>,
        dots: impl Iterator<Item = &'d f64>,
        vv: f64,
    ) {
        self.signature = signature;
        self.effects = block.clone();
        for column in [&mut self.cosine, &mut self.rescue, &mut self.off_axis] {
            column.clear();
        }
        for (&ev, ee) in dots.zip(effects.squares(block.clone())) {
            self.cosine.push(cosine(ev, ee, vv));
            self.rescue.push(rescue(ev, vv));
            let beside = (ee - ev * ev / vv).max(0.0);
            self.off_axis
                .push(if vv > 0.0 { (beside / vv).sqrt() } else { f64::NAN });
        }
        for column in [&mut self.p_reversal, &mut self.p_mimic, &mut self.p_rescue] {
            column.clear();
            column.resize(block.len(), f64::NAN);
        }
    }

    /// q where these are all effects of the screen.
    fn correct(&mut self) {
        for (p, q) in [
            (&self.p_reversal, &mut self.q_reversal),
            (&self.p_mimic, &mut self.q_mimic),
            (&self.p_rescue, &mut self.q_rescue),
        ] {
            let p: Vec<Option<f64>> = p.iter().map(|&p| Some(p)).collect();
            q.clear();
            q.extend(benjamini_hochberg(&p).into_iter().map(|q| q.unwrap_or(f64::NAN)));
        }
    }

    /// q where all p of the screen were counted.
    fn look_up(&mut self, corrected: &[Corrected; 3]) {
        let [reversal, mimic, rescue] = corrected;
        for (p, q, corrected) in [
            (&self.p_reversal, &mut self.q_reversal, reversal),
            (&self.p_mimic, &mut self.q_mimic, mimic),
            (&self.p_rescue, &mut self.q_rescue, rescue),
        ] {
            q.clear();
            q.extend(p.iter().map(|&p| corrected.q(p).unwrap_or(f64::NAN)));
        }
    }

    /// p of the effects of one class against column `j` of the group.
    fn test(&mut self, class: &Class<'_>, here: &[u32], along: &[Vec<f64>], j: usize, vv: f64, tail: bool) {
        let possible = class.null.len() > 0 && vv > 0.0;
        let Some((index, pool)) = class.pool.filter(|_| possible) else {
            return;
        };
        let n = pool.rows.len();
        let along = &along[index][j * n..(j + 1) * n];
        let shift = pool.moves[self.signature];
        class.null.score(along, &pool.share, shift, vv, &mut self.null);
        let Self {
            null,
            ranked,
            reached,
            ..
        } = self;
        let mut at_least = |scores: &[f64], sign: f64, null: &mut Vec<f64>, p: &mut [f64]| {
            ranked.clear();
            let of = here.iter().map(|&entry| (sign * scores[entry as usize], entry));
            ranked.extend(of.filter(|(score, _)| !score.is_nan()));
            p_at_least(ranked, null, tail, reached, p);
        };
        at_least(&self.rescue, 1.0, &mut null.rescue, &mut self.p_rescue);
        at_least(&self.cosine, 1.0, &mut null.cosine, &mut self.p_mimic);
        null.cosine.iter_mut().for_each(|cosine| *cosine = -*cosine);
        at_least(&self.cosine, -1.0, &mut null.cosine, &mut self.p_reversal);
    }
}

/// `p[g] = (1 + #{null ≥ score}) / (1 + B)` (Phipson and Smyth 2010) for every `(score, g)`, or the tail's where few
/// null values reach it. Null values without a direction count as reaching every score.
fn p_at_least(
    ranked: &mut [(f64, u32)],
    null: &mut [f64],
    tail: bool,
    reached: &mut Vec<u32>,
    p: &mut [f64],
) {
    ranked.sort_unstable_by(|a, b| a.0.total_cmp(&b.0).then(a.1.cmp(&b.1)));
    // reached[r]: null values that reach exactly the r lowest scores.
    reached.clear();
    reached.resize(ranked.len() + 1, 0);
    for &value in null.iter() {
        let r = if value.is_nan() {
            ranked.len()
        } else {
            ranked.partition_point(|&(score, _)| score <= value)
        };
        reached[r] += 1;
    }
    let size = null.len() as f64;
    let mut fitted: Option<Option<Tail>> = None;
    let mut count = 0usize;
    for (r, &(score, g)) in ranked.iter().enumerate().rev() {
        count += reached[r + 1] as usize;
        let counted = (1 + count) as f64 / (1.0 + size);
        let beyond = (tail && count < COUNTED)
            .then(|| *fitted.get_or_insert_with(|| Tail::fit(null)))
            .flatten();
        p[g as usize] = beyond.map_or(counted, |tail| tail.p_at_least(score));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn p_counts_the_null_values_that_reach_a_score() {
        let mut ranked = vec![(0.5, 2), (0.1, 0), (0.5, 1), (0.9, 3)];
        let mut p = vec![f64::NAN; 5];
        p_at_least(
            &mut ranked,
            &mut [0.5, 0.2, 0.95, 0.0],
            true,
            &mut Vec::new(),
            &mut p,
        );
        assert_eq!(p[..4], [4.0 / 5.0, 3.0 / 5.0, 3.0 / 5.0, 2.0 / 5.0]);
        assert!(p[4].is_nan());
    }

    #[test]
    fn p_falls_with_the_score_across_the_end_of_counting() {
        let mut null: Vec<f64> = (0..5000)
            .map(|i| (f64::from(i) * 0.7).sin() * (f64::from(i) * 1.3).cos())
            .collect();
        let mut ranked: Vec<(f64, u32)> = (0..400u32).map(|g| (0.8 + 0.001 * f64::from(g), g)).collect();
        let mut p = vec![f64::NAN; 400];
        p_at_least(&mut ranked, &mut null, true, &mut Vec::new(), &mut p);
        assert!(p.is_sorted_by(|a, b| a >= b));
        assert!(p[399] > 0.0 && p[399] < 1.0 / 5001.0);
        let mut counted = vec![f64::NAN; 400];
        p_at_least(&mut ranked, &mut null, false, &mut Vec::new(), &mut counted);
        assert_eq!(counted[399], 1.0 / 5001.0);
        assert_eq!(p[0], counted[0]);
    }
}
