//! The time, for records and file names. The only reader of the wall clock.

use std::time::{SystemTime, UNIX_EPOCH};

/// Milliseconds since 1970 UTC; 0 on a clock set before 1970.
pub fn now_ms() -> u64 {
    SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |elapsed| {
        u64::try_from(elapsed.as_millis()).unwrap_or(u64::MAX)
    })
}

/// Nanoseconds since the last full second: a cheap source of jitter.
pub fn subsecond_nanos() -> u32 {
    SystemTime::now()
        .duration_since(UNIX_EPOCH)
        .map_or(0, |elapsed| elapsed.subsec_nanos())
}

/// The time now as RFC 3339 in UTC, such as `2026-11-22T23:15:04.123Z`.
pub fn rfc3339_now() -> String {
    rfc3339(now_ms())
}

/// Milliseconds since 1970 as RFC 3339 in UTC.
pub fn rfc3339(ms: u64) -> String {
    let (days, of_day) = (ms / 86_400_000, ms % 86_400_000);
    // Days to civil date, after Howard Hinnant, "chrono-compatible low-level date algorithms": years start in March,
    // so that the leap day is the last of its year.
    let shifted = days + 719_468;
    let era = shifted / 146_097;
    let day_of_era = shifted % 146_097;
    let year_of_era = (day_of_era - day_of_era / 1_460 + day_of_era / 36_524 - day_of_era / 146_096) / 365;
    let day_of_year = day_of_era - (365 * year_of_era + year_of_era / 4 - year_of_era / 100);
    let month_from_march = (5 * day_of_year + 2) / 153;
    let day = day_of_year - (153 * month_from_march + 2) / 5 + 1;
    let month = if month_from_march < 10 {
        month_from_march + 3
    } else {
        month_from_march - 9
    };
    let year = year_of_era + era * 400 + u64::from(month <= 2);
    format!(
        "{year:04}-{month:02}-{day:02}T{:02}:{:02}:{:02}.{:03}Z",
        of_day / 3_600_000,
        of_day / 60_000 % 60,
        of_day / 1_000 % 60,
        of_day % 1_000
    )
}

/// A moment in the past as a person writes it: `90s`, `15m`, `2h` or `3d` before `now_ms`, or a date with or without
/// a time of day in UTC, such as `2026-11-22` or `2026-11-22T23:15:04Z`. Milliseconds since 1970.
pub fn parse_moment(text: &str, now_ms: u64) -> Option<u64> {
    match span_ms(text) {
        Some(ago) => ago.map(|ago| now_ms.saturating_sub(ago)),
        None => parse_date(text),
    }
}

/// A moment to come as a person writes it: in `90s`, `15m`, `2h` or `3d` from `now_ms`, or a date as in [`parse_moment`].
pub fn parse_deadline(text: &str, now_ms: u64) -> Option<u64> {
    match span_ms(text) {
        Some(ahead) => now_ms.checked_add(ahead?),
        None => parse_date(text),
    }
}

/// A number with the unit `s`, `m`, `h` or `d` in milliseconds; the outer `None` where the text ends with no unit.
fn span_ms(text: &str) -> Option<Option<u64>> {
    let (at, unit) = text.char_indices().last()?;
    let seconds: u64 = match unit {
        's' => 1,
        'm' => 60,
        'h' => 3_600,
        'd' => 86_400,
        _ => return None,
    };
    let number = text[..at].parse::<u64>().ok();
    Some(number.and_then(|number| number.checked_mul(seconds * 1_000)))
}

fn parse_date(text: &str) -> Option<u64> {
    let (date, time) = text.split_once(['T', ' ']).unwrap_or((text, "00:00:00"));
    let mut date = date.splitn(3, '-').map(str::parse::<u64>);
    let (year, month, day) = (date.next()?.ok()?, date.next()?.ok()?, date.next()?.ok()?);
    let mut time = time.trim_end_matches('Z').splitn(3, ':').map(str::parse::<f64>);
    let hour = time.next()?.ok()?;
    let minute = time.next().unwrap_or(Ok(0.0)).ok()?;
    let second = time.next().unwrap_or(Ok(0.0)).ok()?;
    let valid = (1970..10_000).contains(&year)
        && (1..=12).contains(&month)
        && (1..=31).contains(&day)
        && (0.0..24.0).contains(&hour)
        && (0.0..60.0).contains(&minute)
        && (0.0..60.0).contains(&second);
    if !valid {
        return None;
    }
    // The inverse of `rfc3339`, after the same source.
    let year = year - u64::from(month <= 2);
    let (era, year_of_era) = (year / 400, year % 400);
    let day_of_year = (153 * ((month + 9) % 12) + 2) / 5 + day - 1;
    let day_of_era = year_of_era * 365 + year_of_era / 4 - year_of_era / 100 + day_of_year;
    let days = (era * 146_097 + day_of_era).checked_sub(719_468)?;
    Some(days * 86_400_000 + ((hour * 3_600.0 + minute * 60.0 + second) * 1_000.0).round() as u64)
}

#[cfg(test)]
mod tests {
    #[test]
    fn known_instants_are_written_as_rfc3339() {
        assert_eq!(super::rfc3339(0), "1970-01-01T00:00:00.000Z");
        assert_eq!(super::rfc3339(951_782_400_000), "2000-02-29T00:00:00.000Z");
        assert_eq!(super::rfc3339(1_795_391_999_999), "2026-11-22T23:59:59.999Z");
    }

    #[test]
    fn moments_are_read_as_they_are_written() {
        for ms in [0, 951_782_400_000, 1_795_391_999_999, 1_795_000_000_000] {
            assert_eq!(super::parse_moment(&super::rfc3339(ms), 5), Some(ms), "{ms}");
        }
        assert_eq!(super::parse_moment("2026-11-22", 0), Some(1_795_305_600_000));
        assert_eq!(super::parse_moment("2h", 10_000_000), Some(2_800_000));
        assert_eq!(super::parse_deadline("2h", 1_000), Some(7_201_000));
        assert_eq!(super::parse_deadline("2026-11-22", 0), Some(1_795_305_600_000));
        assert_eq!(super::parse_deadline("h", 0), None);
        for wrong in ["", "h", "yesterday", "2026-13-01", "2026-11", "12:00", "-3d"] {
            assert_eq!(super::parse_moment(wrong, 0), None, "{wrong}");
        }
    }
}
