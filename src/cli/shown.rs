//! How figures and words of a running Larder are shown at a terminal.
//!
//! Knows numbers, and what a terminal would take for orders.
//! Must not know: what any of them means.

use crate::telemetry::NONE;

/// What came from elsewhere, without what a terminal would take for orders.
pub(super) fn plain(text: &str) -> String {
    text.chars().filter(|c| !c.is_control()).collect()
}

/// A route's name; what no route takes goes by `-` in figures, and people are told what that is.
pub(super) fn route(name: Option<&str>) -> String {
    match name {
        None | Some(NONE) => "(no route)".to_owned(),
        Some(name) => plain(name),
    }
}

/// A ratio, rounded down wherever one is shown: 100 % is all.
pub(super) fn percent(ratio: f64) -> String {
    // What a binary fraction lacks of a figure that ends there is not rounded down.
    format!("{:.1} %", (ratio * 1000.0 + 1e-9).floor() / 10.0)
}

/// A time, by its largest units.
pub(super) fn lasting(secs: f64) -> String {
    // Far beyond what any process lives.
    let whole = if secs.is_finite() && secs > 0.0 { secs.min(1e12) as u64 } else { 0 };
    let (days, hours, minutes) = (whole / 86_400, whole / 3600 % 24, whole / 60 % 60);
    match (days, hours, minutes) {
        (0, 0, 0) if whole < 10 => format!("{:.1} s", secs.max(0.0)),
        (0, 0, 0) => format!("{whole} s"),
        (0, 0, _) => format!("{minutes} min {} s", whole % 60),
        (0, ..) => format!("{hours} h {minutes} min"),
        _ => format!("{days} d {hours} h"),
    }
}

/// Bytes, by their largest unit.
pub(super) fn size(bytes: u64) -> String {
    let units = ["KiB", "MiB", "GiB", "TiB"];
    let (mut amount, mut unit) = (bytes as f64, "B");
    for next in units {
        if amount < 1024.0 {
            break;
        }
        (amount, unit) = (amount / 1024.0, next);
    }
    if unit == "B" { format!("{bytes} B") } else { format!("{amount:.1} {unit}") }
}

/// So many of something, such as `2 routes`.
pub(super) fn counted(number: u64, what: &str) -> String {
    format!("{} {what}{}", grouped(number), if number == 1 { "" } else { "s" })
}

/// With a comma before every three digits.
pub(super) fn grouped(number: u64) -> String {
    let digits = number.to_string();
    let mut out = String::new();
    for (nth, digit) in digits.chars().enumerate() {
        if nth > 0 && (digits.len() - nth).is_multiple_of(3) {
            out.push(',');
        }
        out.push(digit);
    }
    out
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_ratio_is_rounded_down_and_a_whole_one_is_whole() {
        for (ratio, shown) in [
            (0.0, "0.0 %"),
            (0.285, "28.5 %"),
            (0.8725, "87.2 %"),
            (0.8729, "87.2 %"),
            (0.9999, "99.9 %"),
            (0.999_999, "99.9 %"),
            (1.0, "100.0 %"),
        ] {
            assert_eq!(percent(ratio), shown, "{ratio}");
        }
    }

    #[test]
    fn times_and_sizes_are_told_by_their_largest_units() {
        for (secs, text) in [
            (-1.0, "0.0 s"),
            (f64::NAN, "0.0 s"),
            (0.04, "0.0 s"),
            (9.96, "10.0 s"),
            (59.9, "59 s"),
            (61.0, "1 min 1 s"),
            (3_700.0, "1 h 1 min"),
            (200_000.0, "2 d 7 h"),
        ] {
            assert_eq!(lasting(secs), text, "{secs}");
        }
        for (bytes, text) in [
            (0, "0 B"),
            (1_023, "1023 B"),
            (1_024, "1.0 KiB"),
            (1 << 30, "1.0 GiB"),
            (u64::MAX, "16777216.0 TiB"),
        ] {
            assert_eq!(size(bytes), text);
        }
        for (number, text) in [(0, "0"), (999, "999"), (1_000, "1,000"), (1_234_567, "1,234,567")] {
            assert_eq!(grouped(number), text);
        }
        for (number, text) in [(0, "0 keys"), (1, "1 key"), (1_000, "1,000 keys")] {
            assert_eq!(counted(number, "key"), text);
        }
    }
}
