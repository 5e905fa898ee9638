//! Run-time choice of instructions: a loop is compiled once for the target the build is for and once for 8-wide vectors
//! (AVX2), and the best that the processor has is run. On other processors than x86-64 the build's target (NEON on Arm)
//! is used. Both compile the same source without fused multiply-add, so all give the same bits.

/// Whether the processor has AVX2 (and counts bits, as all that have it do); asked once.
#[cfg(target_arch = "x86_64")]
pub(crate) fn has_avx2() -> bool {
    use std::sync::OnceLock;
    static HAS: OnceLock<bool> = OnceLock::new();
    *HAS.get_or_init(|| is_x86_feature_detected!("avx2") && is_x86_feature_detected!("popcnt"))
}

/// Defines functions whose bodies are compiled for each instruction set. What a body calls must be inlined into it.
macro_rules! vectorised {
    ($(
        $(#[$meta:meta])*
        $vis:vis fn $name:ident $(<$($generic:ident: $bound:ident),+>)? ($($arg:ident: $type:ty),* $(,)?) $(-> $ret:ty)? $body:block
    )*) => {$(
        $(#[$meta])*
        $vis fn $name $(<$($generic: $bound),+>)? ($($arg: $type),*) $(-> $ret)? {
            #[inline(always)]
            fn portable $(<$($generic: $bound),+>)? ($($arg: $type),*) $(-> $ret)? $body
            #[cfg(target_arch = "x86_64")]
            {
                #[target_feature(enable = "avx2")]
                fn avx2 $(<$($generic: $bound),+>)? ($($arg: $type),*) $(-> $ret)? {
                    portable $(::<$($generic),+>)? ($($arg),*)
                }
                if $crate::simd::has_avx2() {
                    // SAFETY: the processor has the instructions, as was just asked.
                    return unsafe { avx2 $(::<$($generic),+>)? ($($arg),*) };
                }
            }
            portable $(::<$($generic),+>)? ($($arg),*)
        }
    )*};
}

pub(crate) use vectorised;

/// Floats in a vector.
pub(crate) const LANES: usize = 8;

/// Turns eight rows into columns: of each row as many values as `out` has places.
pub(crate) fn transpose(rows: [&[f32]; LANES], out: &mut [[f32; LANES]]) {
    #[cfg(target_arch = "x86_64")]
    let done = if has_avx2() {
        // SAFETY: the processor has the instructions, as was just asked.
        unsafe { x86::transpose(rows, out) }
    } else {
        0
    };
    #[cfg(not(target_arch = "x86_64"))]
    let done = 0;
    for (x, out) in out.iter_mut().enumerate().skip(done) {
        for (value, row) in out.iter_mut().zip(rows) {
            *value = row[x];
        }
    }
}

/// Appends to `kept` the values at most `ends[0]` and those not below `ends[1]` (NaN is below nothing), and those from `lo`
/// to `hi` of each of `between`, whose `below` grows by the number of values below `lo`.
pub(crate) fn sift(row: &[f32], ends: [f32; 2], between: &mut [Between], kept: &mut Vec<f32>) {
    #[cfg(target_arch = "x86_64")]
    let row = if has_avx2() {
        // SAFETY: the processor has the instructions, as was just asked.
        let done = unsafe { x86::sift(row, ends, between, kept) };
        &row[done..]
    } else {
        row
    };
    for &v in row {
        let mut keep = v <= ends[0] || v.partial_cmp(&ends[1]) != Some(std::cmp::Ordering::Less);
        for b in &mut *between {
            b.below += usize::from(v < b.lo);
            keep |= (b.lo..=b.hi).contains(&v);
        }
        if keep {
            kept.push(v);
        }
    }
}

/// A range of values, both ends included, and how many values lie below it.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Between {
    pub(crate) lo: f32,
    pub(crate) hi: f32,
    pub(crate) below: usize,
}

/// Asks for values that are read soon, so that they come from memory while the processor computes. Nothing happens where
/// there is no such instruction.
#[inline(always)]
pub(crate) fn prefetch<T>(values: &[T]) {
    #[cfg(target_arch = "x86_64")]
    for line in values.chunks(LINE / size_of::<T>()) {
        use std::arch::x86_64::{_MM_HINT_T0, _mm_prefetch};
        // SAFETY: a hint; whatever the address, nothing is read or changed.
        unsafe { _mm_prefetch::<_MM_HINT_T0>(line.as_ptr().cast()) };
    }
    #[cfg(not(target_arch = "x86_64"))]
    let _ = values;
}

/// Bytes that come from memory at once.
#[cfg(target_arch = "x86_64")]
const LINE: usize = 64;

/// What autovectorisation does not find: values that change their place.
#[cfg(target_arch = "x86_64")]
mod x86 {
    use std::arch::x86_64::*;

    use super::{Between, LANES};

    /// Transposes blocks of eight columns and says how many columns that were.
    #[target_feature(enable = "avx2")]
    pub(super) fn transpose(rows: [&[f32]; LANES], out: &mut [[f32; LANES]]) -> usize {
        let (blocks, _) = out.as_chunks_mut::<LANES>();
        for (block, out) in blocks.iter_mut().enumerate() {
            let mut r = [_mm256_setzero_ps(); LANES];
            for (r, row) in r.iter_mut().zip(rows) {
                *r = load(&row[block * LANES..][..LANES]);
            }
            let pairs = |i: usize| {
                let (a, b) = (r[2 * i], r[2 * i + 1]);
                (_mm256_unpacklo_ps(a, b), _mm256_unpackhi_ps(a, b))
            };
            let (p, q, s, t) = (pairs(0), pairs(1), pairs(2), pairs(3));
            let fours = |a: (__m256, __m256), b: (__m256, __m256)| {
                [
                    _mm256_shuffle_ps::<0b01_00_01_00>(a.0, b.0),
                    _mm256_shuffle_ps::<0b11_10_11_10>(a.0, b.0),
                    _mm256_shuffle_ps::<0b01_00_01_00>(a.1, b.1),
                    _mm256_shuffle_ps::<0b11_10_11_10>(a.1, b.1),
                ]
            };
            let (upper, lower) = (fours(p, q), fours(s, t));
            for i in 0..LANES / 2 {
                store(_mm256_permute2f128_ps::<0x20>(upper[i], lower[i]), &mut out[i]);
                store(
                    _mm256_permute2f128_ps::<0x31>(upper[i], lower[i]),
                    &mut out[i + 4],
                );
            }
        }
        out.len() / LANES * LANES
    }

    /// [`super::sift`] for whole vectors; says for how many values. Without branches: each vector is written with what is
    /// kept in front, and the next goes behind that.
    #[target_feature(enable = "avx2,popcnt")]
    pub(super) fn sift(row: &[f32], ends: [f32; 2], between: &mut [Between], kept: &mut Vec<f32>) -> usize {
        let (vectors, _) = row.as_chunks::<LANES>();
        kept.reserve(row.len() + LANES);
        let mut length = kept.len();
        let (low, high) = (_mm256_set1_ps(ends[0]), _mm256_set1_ps(ends[1]));
        for vector in vectors {
            let v = load(vector);
            let mut keep = _mm256_or_ps(
                _mm256_cmp_ps::<_CMP_LE_OQ>(v, low),
                _mm256_cmp_ps::<_CMP_NLT_UQ>(v, high),
            );
            for b in &mut *between {
                let (lo, hi) = (_mm256_set1_ps(b.lo), _mm256_set1_ps(b.hi));
                let below = _mm256_cmp_ps::<_CMP_LT_OQ>(v, lo);
                b.below += _mm256_movemask_ps(below).count_ones() as usize;
                let inside = _mm256_and_ps(
                    _mm256_cmp_ps::<_CMP_GE_OQ>(v, lo),
                    _mm256_cmp_ps::<_CMP_LE_OQ>(v, hi),
                );
                keep = _mm256_or_ps(keep, inside);
            }
            let mask = _mm256_movemask_ps(keep) as u8;
            let order = _mm256_cvtepu8_epi32(_mm_cvtsi64_si128(FRONT[usize::from(mask)]));
            let front = _mm256_permutevar8x32_ps(v, order);
            // SAFETY: there is room for all of the row and one vector more, and no more was kept than was seen.
            unsafe { _mm256_storeu_ps(kept.as_mut_ptr().add(length), front) };
            length += mask.count_ones() as usize;
        }
        // SAFETY: so many values were written, and there is room for them.
        unsafe { kept.set_len(length) };
        vectors.len() * LANES
    }

    /// For each set of lanes, the lanes that belong to it, from the lowest byte on.
    static FRONT: [i64; 256] = {
        let mut table = [0i64; 256];
        let mut mask = 0;
        while mask < 256 {
            let (mut lane, mut place) = (0, 0);
            while lane < LANES {
                if mask >> lane & 1 == 1 {
                    table[mask] |= (lane as i64) << (8 * place);
                    place += 1;
                }
                lane += 1;
            }
            mask += 1;
        }
        table
    };

    #[inline]
    #[target_feature(enable = "avx2")]
    fn load(values: &[f32]) -> __m256 {
        assert!(values.len() >= LANES);
        // SAFETY: there are eight values.
        unsafe { _mm256_loadu_ps(values.as_ptr()) }
    }

    #[inline]
    #[target_feature(enable = "avx2")]
    fn store(v: __m256, values: &mut [f32; LANES]) {
        // SAFETY: there are eight places.
        unsafe { _mm256_storeu_ps(values.as_mut_ptr(), v) };
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn vectors_and_single_values_are_sifted_alike() {
        let special = [
            f32::NAN,
            f32::INFINITY,
            f32::NEG_INFINITY,
            -0.0,
            0.0,
            3.0,
            8.0,
            8.5,
        ];
        let row: Vec<f32> = (0..203)
            .map(|i| match i % 5 {
                0 => special[i / 5 % special.len()],
                _ => (i * 37 % 101) as f32 / 7.0,
            })
            .collect();
        let range = |lo, hi| Between { lo, hi, below: 0 };
        for ends in [[f32::NAN, f32::INFINITY], [0.5, 12.0], [f32::NEG_INFINITY, 3.0]] {
            for between in [
                vec![],
                vec![range(3.0, 8.0)],
                vec![range(1.0, 1.5), range(8.0, 8.0)],
            ] {
                // A vector is not filled by seven values.
                let (mut whole, mut parts) = (between.clone(), between);
                let (mut kept, mut one_by_one) = (vec![7.0], vec![7.0]);
                sift(&row, ends, &mut whole, &mut kept);
                row.chunks(7)
                    .for_each(|part| sift(part, ends, &mut parts, &mut one_by_one));
                let bits = |values: &[f32]| values.iter().map(|v| v.to_bits()).collect::<Vec<_>>();
                assert_eq!(bits(&kept), bits(&one_by_one));
                let below = |b: &[Between]| b.iter().map(|b| b.below).collect::<Vec<_>>();
                assert_eq!(below(&whole), below(&parts));
                assert!(kept.len() > 1 && kept.len() < row.len());
            }
        }
    }

    #[test]
    fn eight_rows_become_columns() {
        for length in [0, 1, 7, 8, 29] {
            let rows: Vec<Vec<f32>> = (0..LANES)
                .map(|lane| (0..length).map(|x| (100 * lane + x) as f32).collect())
                .collect();
            let mut out = vec![[0.0; LANES]; length];
            transpose(std::array::from_fn(|lane| &rows[lane][..]), &mut out);
            for (x, values) in out.iter().enumerate() {
                for (lane, value) in values.iter().enumerate() {
                    assert_eq!(*value, rows[lane][x]);
                }
            }
        }
    }
}
