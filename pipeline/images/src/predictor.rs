//! Predictors: pixels that were stored as differences become pixels again, in place, row by row.
//!
//! A running sum waits for the sum before it; eight (or sixteen) values at a time, shifted and added to themselves three
//! (four) times, wait once for all of them. The loops over arrays of fixed size become vector instructions.
//! Source: TIFF 6.0, section 14 (horizontal differences); Adobe, TIFF Technical Note 3 (floats).

/// How pixels were made easier to compress.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Predictor {
    /// Not at all (1).
    None,
    /// Each pixel is the difference from its left neighbour (2).
    Horizontal,
    /// Floats: their bytes in planes, the highest first, each byte the difference from its left neighbour (3).
    Float,
}

impl Predictor {
    pub(crate) const READ: &'static str =
        "1 (none), 2 (horizontal differences), and 3 for floats, with a compression";

    pub(crate) fn from_tag(value: u64) -> Option<Self> {
        Some(match value {
            1 => Self::None,
            2 => Self::Horizontal,
            3 => Self::Float,
            _ => return None,
        })
    }
}

macro_rules! running_sum {
    ($(#[$doc:meta])* $name:ident, $word:ty, $lanes:literal, $($step:literal),+) => {
        $(#[$doc])*
        pub(crate) fn $name(row: &mut [$word]) {
            let mut sum: $word = 0;
            let mut blocks = row.chunks_exact_mut($lanes);
            for block in &mut blocks {
                let mut lanes = [0; $lanes];
                lanes.copy_from_slice(block);
                $(
                    let before = lanes;
                    for lane in $step..$lanes {
                        lanes[lane] = before[lane].wrapping_add(before[lane - $step]);
                    }
                )+
                for lane in &mut lanes {
                    *lane = lane.wrapping_add(sum);
                }
                sum = lanes[$lanes - 1];
                block.copy_from_slice(&lanes);
            }
            for value in blocks.into_remainder() {
                sum = sum.wrapping_add(*value);
                *value = sum;
            }
        }
    };
}

running_sum!(
    /// Differences of bytes become bytes.
    sum_u8, u8, 16, 1, 2, 4, 8
);
running_sum!(
    /// Differences of 16-bit words become words.
    sum_u16, u16, 8, 1, 2, 4
);
running_sum!(
    /// Differences of 32-bit words become words.
    sum_u32, u32, 4, 1, 2
);

/// The planes of bytes of a row become the bits of floats. `planes` is working memory.
pub(crate) fn float_row(row: &mut [u32], planes: &mut Vec<u8>) {
    planes.clear();
    planes.extend_from_slice(bytemuck::cast_slice(row));
    sum_u8(planes);
    let (high, rest) = planes.split_at(row.len());
    let (second, rest) = rest.split_at(row.len());
    let (third, low) = rest.split_at(row.len());
    let bytes = high.iter().zip(second).zip(third).zip(low);
    for (bits, (((high, second), third), low)) in row.iter_mut().zip(bytes) {
        *bits = u32::from_be_bytes([*high, *second, *third, *low]);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    proptest! {
        #[test]
        fn running_sums_undo_differences(values: Vec<u32>) {
            let differences = |mask: u32| -> Vec<u32> {
                let before = std::iter::once(0).chain(values.iter().copied());
                values.iter().zip(before).map(|(now, before)| now.wrapping_sub(before) & mask).collect()
            };
            let mut words = differences(u32::MAX);
            sum_u32(&mut words);
            prop_assert_eq!(&words, &values);
            let mut words: Vec<u16> = differences(0xffff).iter().map(|v| *v as u16).collect();
            sum_u16(&mut words);
            prop_assert!(words.iter().zip(&values).all(|(a, b)| *a == *b as u16));
            let mut words: Vec<u8> = differences(0xff).iter().map(|v| *v as u8).collect();
            sum_u8(&mut words);
            prop_assert!(words.iter().zip(&values).all(|(a, b)| *a == *b as u8));
        }

        #[test]
        fn float_rows_come_back(values: Vec<u32>) {
            let mut planes: Vec<u8> = Vec::new();
            for plane in 0..4 {
                planes.extend(values.iter().map(|bits| bits.to_be_bytes()[plane]));
            }
            let before = std::iter::once(0).chain(planes.clone());
            let differences: Vec<u8> = planes.iter().zip(before).map(|(now, before)| now.wrapping_sub(before)).collect();
            let mut row: Vec<u32> =
                differences.chunks_exact(4).map(|b| u32::from_ne_bytes([b[0], b[1], b[2], b[3]])).collect();
            float_row(&mut row, &mut Vec::new());
            prop_assert_eq!(row, values);
        }
    }
}
