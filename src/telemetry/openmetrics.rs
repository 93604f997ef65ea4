//! Which of the two texts of `GET /metrics` a scraper is given: OpenMetrics 1.0 where it prefers that.
//!
//! Must not know: what stands in either (`exposition`).

/// A form of the exposition.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Format {
    /// Prometheus text, version 0.0.4.
    #[default]
    Prometheus,
    /// OpenMetrics, version 1.0.0.
    OpenMetrics,
}

impl Format {
    /// What a scraper with this `Accept` is given: OpenMetrics where it is named, of this version or of none, and no
    /// less welcome than plain text (RFC 9110 §12.5.1). A wildcard is content with plain text.
    pub fn accepted(accept: &str) -> Self {
        let mut best = [0.0_f32, 0.0];
        for range in accept.split(',') {
            let mut parts = range.split(';').map(str::trim);
            let name = parts.next().unwrap_or_default();
            let (mut quality, mut version) = (1.0, None);
            for (key, value) in parts.filter_map(|part| part.split_once('=')) {
                match key.trim().to_ascii_lowercase().as_str() {
                    "q" => quality = value.trim().parse().unwrap_or(0.0),
                    "version" => version = Some(value.trim().trim_matches('"')),
                    _ => {}
                }
            }
            let [open, plain] = &mut best;
            if name.eq_ignore_ascii_case("application/openmetrics-text") {
                if version.is_none_or(|version| version == "1.0.0") {
                    *open = open.max(quality);
                }
            } else if ["text/plain", "text/*", "*/*"].iter().any(|known| name.eq_ignore_ascii_case(known)) {
                *plain = plain.max(quality);
            }
        }
        let [open, plain] = best;
        if open > 0.0 && open >= plain { Self::OpenMetrics } else { Self::Prometheus }
    }

    /// The value of `Content-Type`.
    pub const fn content_type(self) -> &'static str {
        match self {
            Self::Prometheus => "text/plain; version=0.0.4; charset=utf-8",
            Self::OpenMetrics => "application/openmetrics-text; version=1.0.0; charset=utf-8",
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_scraper_gets_the_text_that_it_prefers() {
        let prometheus = "application/openmetrics-text;version=1.0.0;q=0.5,application/openmetrics-text;version=0.0.1;\
                          q=0.4,text/plain;version=0.0.4;q=0.3,*/*;q=0.2";
        let rows = [
            (prometheus, Format::OpenMetrics),
            ("application/openmetrics-text", Format::OpenMetrics),
            ("Application/OpenMetrics-Text; version=\"1.0.0\"; charset=utf-8", Format::OpenMetrics),
            ("application/openmetrics-text;version=0.0.1", Format::Prometheus),
            ("application/openmetrics-text;q=0", Format::Prometheus),
            ("application/openmetrics-text;q=0.1, text/plain;q=0.2", Format::Prometheus),
            ("application/openmetrics-text;q=x", Format::Prometheus),
            ("text/plain", Format::Prometheus),
            ("*/*", Format::Prometheus),
            ("text/html, */*;q=0.1", Format::Prometheus),
            ("", Format::Prometheus),
            (";;,=,q=", Format::Prometheus),
        ];
        for (accept, expected) in rows {
            assert_eq!(Format::accepted(accept), expected, "{accept}");
        }
    }
}
