//! In which of its two forms a reader of metrics gets them: `OpenMetrics`, for who asks for it, or the older text that every
//! reader knows. HTTP has it by `Accept` (RFC 9110, 12.5.1).

use std::collections::BTreeSet;
use std::fmt::Write as _;

/// How the text of metrics is written.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Form {
    /// Prometheus's own, version 0.0.4.
    Text,
    /// `OpenMetrics`, version 1.0.0.
    OpenMetrics,
}

impl Form {
    /// Which of them a reader wants most by its `Accept`; empty: it has none.
    pub fn wanted(accept: &str) -> Form {
        let mut best = (0.0, 0.0);
        for range in accept.split(',') {
            let mut parts = range.split(';').map(str::trim);
            let kind = parts.next().unwrap_or_default().to_ascii_lowercase();
            let (mut weight, mut is_known) = (1.0_f32, true);
            for part in parts {
                match part.split_once('=') {
                    Some(("q", value)) => weight = value.parse().unwrap_or(0.0),
                    Some(("version", version)) => is_known = ["1.0.0", "0.0.1"].contains(&version),
                    _ => {}
                }
            }
            match kind.as_str() {
                "application/openmetrics-text" if is_known => best.0 = weight.max(best.0),
                "text/plain" | "text/*" | "*/*" => best.1 = weight.max(best.1),
                _ => {}
            }
        }
        if best.0 > 0.0 && best.0 >= best.1 {
            Form::OpenMetrics
        } else {
            Form::Text
        }
    }

    /// Its MIME type.
    pub fn content_type(self) -> &'static str {
        match self {
            Form::Text => "text/plain; version=0.0.4; charset=utf-8",
            Form::OpenMetrics => "application/openmetrics-text; version=1.0.0; charset=utf-8",
        }
    }

    /// From `OpenMetrics`. In the older form a counter is told of by the name that its samples have, and there is neither a
    /// unit nor an end.
    pub(super) fn of(self, openmetrics: String) -> String {
        if self == Form::OpenMetrics {
            return openmetrics;
        }
        let word = |line: &str, word: &str| line.strip_prefix(word).map(str::to_owned);
        let counters: BTreeSet<String> = openmetrics
            .lines()
            .filter_map(|line| Some(word(line, "# TYPE ")?.strip_suffix(" counter")?.to_owned()))
            .collect();
        let mut text = String::with_capacity(openmetrics.len());
        for line in openmetrics.lines() {
            if line == "# EOF" || line.starts_with("# UNIT ") {
                continue;
            }
            let head = ["# HELP ", "# TYPE "]
                .into_iter()
                .find(|head| line.starts_with(head));
            let told = head.and_then(|head| Some((head, line[head.len()..].split_once(' ')?)));
            let _ = match told {
                Some((head, (name, rest))) if counters.contains(name) => {
                    writeln!(text, "{head}{name}_total {rest}")
                }
                Some(("# TYPE ", (name, "unknown"))) => writeln!(text, "# TYPE {name} untyped"),
                Some(("# TYPE ", (name, "info"))) => writeln!(text, "# TYPE {name}_info gauge"),
                _ => writeln!(text, "{line}"),
            };
        }
        text
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn readers_get_the_form_that_they_want_most() {
        let prometheus = "application/openmetrics-text;version=1.0.0;escaping=allow-utf-8;q=0.6,application/openmetrics-text;version=0.0.1;q=0.5,text/plain;version=0.0.4;q=0.3,*/*;q=0.1";
        assert_eq!(Form::wanted(prometheus), Form::OpenMetrics);
        let tools = ["", "*/*", "text/html", "application/openmetrics-text;q=0"];
        let older = [
            "application/openmetrics-text;version=9.0.0,*/*",
            "text/plain,application/openmetrics-text;q=0.9",
        ];
        for accept in tools.iter().chain(&older) {
            assert_eq!(Form::wanted(accept), Form::Text, "{accept:?}");
        }
    }

    #[test]
    fn the_older_text_tells_of_counters_by_the_names_of_their_samples() {
        let text = "# HELP a_seen Seen.\n# TYPE a_seen counter\na_seen_total 1\n# HELP b B.\n# TYPE b gauge\n# UNIT b bytes\nb 2\n# EOF\n";
        assert_eq!(
            Form::Text.of(text.to_owned()),
            "# HELP a_seen_total Seen.\n# TYPE a_seen_total counter\na_seen_total 1\n# HELP b B.\n# TYPE b gauge\nb 2\n"
        );
        assert_eq!(Form::OpenMetrics.of(text.to_owned()), text);
    }
}
