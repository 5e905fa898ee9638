//! Numbers as a reader of a report wants them: few digits, a real minus sign, a dash where there is none.

/// What stands where a number is not defined.
pub(super) const NONE: &str = "–";

/// A real minus sign: a hyphen is too short beside digits.
fn minus(text: String) -> String {
    text.replace('-', "\u{2212}")
}

/// Two decimals, for positions on the axis and z values.
pub(super) fn fixed(value: f64) -> String {
    let value = if value.abs() < 0.005 { 0.0 } else { value };
    if !value.is_finite() {
        return NONE.to_owned();
    }
    if value.abs() >= 1e5 {
        minus(format!("{value:.1e}"))
    } else {
        minus(format!("{value:.2}"))
    }
}

/// [`fixed`], or a dash.
pub(super) fn fixed_or_none(value: Option<f64>) -> String {
    value.map_or_else(|| NONE.to_owned(), fixed)
}

/// A p- or q-value: never shown as 0.
pub(super) fn probability(value: Option<f64>) -> String {
    match value {
        None => NONE.to_owned(),
        Some(p) if !p.is_finite() => NONE.to_owned(),
        Some(p) if p >= 0.0995 => format!("{p:.2}"),
        Some(p) if p >= 0.000_95 => format!("{p:.4}").trim_end_matches('0').to_owned(),
        Some(p) => {
            let exponent = p.log10().floor();
            format!(
                "{:.1}×10{}",
                p / 10f64.powf(exponent),
                superscript(exponent as i64)
            )
        }
    }
}

fn superscript(value: i64) -> String {
    value
        .to_string()
        .chars()
        .map(|c| match c {
            '-' => '⁻',
            '1' => '¹',
            '2' => '²',
            '3' => '³',
            '0' | '4'..='9' => char::from_u32('⁰' as u32 + c as u32 - '0' as u32).unwrap_or(c),
            other => other,
        })
        .collect()
}

/// A dose: up to three significant digits, no trailing zeros.
pub(super) fn dose(value: f64) -> String {
    if value == 0.0 || !value.is_finite() {
        return minus(value.to_string());
    }
    let magnitude = value.abs().log10().floor();
    if !(-4.0..6.0).contains(&magnitude) {
        return minus(format!("{value:.1e}"));
    }
    let decimals = (2.0 - magnitude).max(0.0) as usize;
    let text = format!("{value:.decimals$}");
    let text = if text.contains('.') {
        text.trim_end_matches('0').trim_end_matches('.')
    } else {
        &text
    };
    minus(text.to_owned())
}

/// A dose with its unit, `u` at the front of a unit written as µ.
pub(super) fn dose_with_unit(value: f64, unit: &str) -> String {
    format!("{} {}", dose(value), unit_text(unit))
        .trim_end()
        .to_owned()
}

/// `uM` as `µM`.
pub(super) fn unit_text(unit: &str) -> String {
    match unit.strip_prefix('u') {
        Some(rest) if !rest.is_empty() && rest.len() <= 4 && rest != "nit" && rest != "nits" => {
            format!("µ{rest}")
        }
        _ => unit.to_owned(),
    }
}

/// A count with thin spaces between thousands.
pub(super) fn count(value: u64) -> String {
    let digits = value.to_string();
    let mut text = String::with_capacity(digits.len() * 2);
    for (i, digit) in digits.chars().enumerate() {
        if i > 0 && (digits.len() - i).is_multiple_of(3) {
            text.push('\u{202f}');
        }
        text.push(digit);
    }
    text
}

/// A count and its noun, with an `s` unless it is one.
pub(super) fn counted(value: u64, noun: &str) -> String {
    format!("{} {noun}{}", count(value), if value == 1 { "" } else { "s" })
}

/// A duration in words.
pub(super) fn duration(seconds: f64) -> String {
    if !seconds.is_finite() || seconds < 0.0 {
        return NONE.to_owned();
    }
    if seconds < 60.0 {
        return format!("{seconds:.1} s");
    }
    let whole = seconds.round() as u64;
    if whole < 3600 {
        format!("{} min {} s", whole / 60, whole % 60)
    } else {
        format!("{} h {} min", whole / 3600, whole % 3600 / 60)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_read_as_in_a_paper() {
        assert_eq!(fixed(-0.001), "0.00");
        assert_eq!(fixed(-1.234), "−1.23");
        assert_eq!(fixed_or_none(None), "–");
        assert_eq!(probability(Some(0.25)), "0.25");
        assert_eq!(probability(Some(0.012)), "0.012");
        assert_eq!(probability(Some(0.000_433_8)), "4.3×10⁻⁴");
        assert_eq!(dose(0.0), "0");
        assert_eq!(dose(0.3), "0.3");
        assert_eq!(dose(30.0), "30");
        assert_eq!(dose(100.0), "100");
        assert_eq!(dose(1234.0), "1234");
        assert_eq!(dose(0.012_345), "0.0123");
        assert_eq!(dose_with_unit(10.0, "uM"), "10 µM");
        assert_eq!(unit_text("units"), "units");
        assert_eq!(count(1_234_567), "1\u{202f}234\u{202f}567");
        assert_eq!(counted(1, "well"), "1 well");
        assert_eq!(duration(75.2), "1 min 15 s");
    }
}
