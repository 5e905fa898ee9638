//! PackBits: runs of one byte, and bytes as they are. Source: TIFF 6.0, section 9.

use crate::error::CodecError;

/// Fills `out` from `input`; what follows is not looked at.
pub(crate) fn decode(mut input: &[u8], out: &mut [u8]) -> Result<(), CodecError> {
    let expected = out.len();
    let mut rest = out;
    while !rest.is_empty() {
        let short = CodecError::Short {
            written: expected - rest.len(),
            expected,
        };
        let Some((&head, after)) = input.split_first() else {
            return Err(short);
        };
        input = after;
        match head as i8 {
            -128 => {}
            copies @ -127..0 => {
                let Some((&value, after)) = input.split_first() else {
                    return Err(short);
                };
                input = after;
                let run = (1 - isize::from(copies)).unsigned_abs().min(rest.len());
                let (filled, after) = rest.split_at_mut(run);
                filled.fill(value);
                rest = after;
            }
            literal @ 0.. => {
                let run = (usize::from(literal.unsigned_abs()) + 1).min(rest.len());
                let Some((bytes, after)) = input.split_at_checked(run) else {
                    return Err(short);
                };
                input = after;
                let (filled, after) = rest.split_at_mut(run);
                filled.copy_from_slice(bytes);
                rest = after;
            }
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_example_of_the_specification() {
        let packed = [
            0xfe, 0xaa, 0x02, 0x80, 0x00, 0x2a, 0xfd, 0xaa, 0x03, 0x80, 0x00, 0x2a, 0x22, 0xf7, 0xaa,
        ];
        let mut out = [0; 24];
        decode(&packed, &mut out).unwrap();
        let mut expected = vec![
            0xaa, 0xaa, 0xaa, 0x80, 0x00, 0x2a, 0xaa, 0xaa, 0xaa, 0xaa, 0x80, 0x00, 0x2a, 0x22,
        ];
        expected.extend([0xaa; 10]);
        assert_eq!(out.as_slice(), expected);
    }

    #[test]
    fn nothing_to_do_is_skipped_and_an_end_in_mid_run_is_an_error() {
        let mut out = [0; 2];
        decode(&[0x80, 0x80, 0x01, 7, 8], &mut out).unwrap();
        assert_eq!(out, [7, 8]);
        for cut in [&[][..], &[0x01], &[0x01, 7], &[0xff]] {
            let error = decode(cut, &mut out).unwrap_err();
            assert_eq!(
                error,
                CodecError::Short {
                    written: 0,
                    expected: 2
                }
            );
        }
    }
}
