//! How a container is asked whether it is well: what the client wants over what the image says.

use std::time::Duration;

use serde::{Deserialize, Serialize};
use serde_json::Value;

use super::check_strings;
use crate::Error;

/// Docker takes no shorter one.
const SHORTEST_NANOS: i64 = 1_000_000;

/// A health check, in docker's terms. What is 0 or empty is the image's, or docker's default.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct Healthcheck {
    /// `["CMD", program, …]`, `["CMD-SHELL", text]`, or `["NONE"]` for none at all.
    pub test: Vec<String>,
    /// From the end of one probe to the begin of the next.
    pub interval_nanos: i64,
    /// A probe that takes longer has failed.
    pub timeout_nanos: i64,
    /// Failures so shortly after the start do not count.
    pub start_period_nanos: i64,
    /// In place of `interval_nanos` during that time.
    pub start_interval_nanos: i64,
    /// So many failures in a row make it unhealthy.
    pub retries: u32,
}

impl Healthcheck {
    pub(super) fn check(&self) -> Result<(), Error> {
        check_strings("healthcheck.test", &self.test)?;
        let words = self.test.len();
        let is_known = match self.test.first().map(String::as_str) {
            None => true,
            Some("NONE") => words == 1,
            Some("CMD") => words > 1,
            Some("CMD-SHELL") => words == 2,
            Some(_) => false,
        };
        if !is_known {
            let rule = "has to be NONE alone, CMD with a program, or CMD-SHELL with one text";
            return Err(Error::invalid("healthcheck.test", rule));
        }
        let times = [
            ("healthcheck.interval_nanos", self.interval_nanos),
            ("healthcheck.timeout_nanos", self.timeout_nanos),
            ("healthcheck.start_period_nanos", self.start_period_nanos),
            ("healthcheck.start_interval_nanos", self.start_interval_nanos),
        ];
        match times
            .iter()
            .find(|(_, nanos)| *nanos != 0 && *nanos < SHORTEST_NANOS)
        {
            Some((field, _)) => Err(Error::invalid(field, "must be at least 1 ms")),
            None => Ok(()),
        }
    }

    /// The check of a container whose client asked for `asked`, of an image with this config; None: it has none.
    pub(crate) fn resolve(asked: Option<&Healthcheck>, image: &Value) -> Option<Healthcheck> {
        let mut check = of_image(&image["config"]).unwrap_or_default();
        if let Some(asked) = asked {
            if !asked.test.is_empty() {
                check.test.clone_from(&asked.test);
            }
            let times = [
                (&mut check.interval_nanos, asked.interval_nanos),
                (&mut check.timeout_nanos, asked.timeout_nanos),
                (&mut check.start_period_nanos, asked.start_period_nanos),
                (&mut check.start_interval_nanos, asked.start_interval_nanos),
            ];
            for (time, asked) in times.into_iter().filter(|(_, asked)| *asked != 0) {
                *time = asked;
            }
            if asked.retries != 0 {
                check.retries = asked.retries;
            }
        }
        let shell: Vec<String> = serde_json::from_value(image["config"]["Shell"].clone()).unwrap_or_default();
        if let ([kind, text], false) = (check.test.as_slice(), shell.is_empty())
            && kind == "CMD-SHELL"
        {
            let words = [&["CMD".to_owned()], shell.as_slice(), std::slice::from_ref(text)];
            check.test = words.concat();
        }
        check.args().is_some().then_some(check)
    }

    /// What a probe runs; None: there is no check.
    pub(crate) fn args(&self) -> Option<Vec<String>> {
        match self.test.split_first()? {
            (kind, args) if kind == "CMD" => Some(args.to_vec()),
            (kind, [text]) if kind == "CMD-SHELL" => {
                Some(["/bin/sh", "-c", text].map(str::to_owned).to_vec())
            }
            _ => None,
        }
    }

    pub(crate) fn interval(&self) -> Duration {
        or(self.interval_nanos, 30)
    }

    pub(crate) fn timeout(&self) -> Duration {
        or(self.timeout_nanos, 30)
    }

    pub(crate) fn start_period(&self) -> Duration {
        or(self.start_period_nanos, 0)
    }

    pub(crate) fn start_interval(&self) -> Duration {
        or(self.start_interval_nanos, 5)
    }

    pub(crate) fn retries(&self) -> u32 {
        if self.retries == 0 { 3 } else { self.retries }
    }
}

fn or(nanos: i64, default_seconds: u64) -> Duration {
    match u64::try_from(nanos) {
        Ok(nanos @ 1..) => Duration::from_nanos(nanos),
        _ => Duration::from_secs(default_seconds),
    }
}

/// `Healthcheck` of an image's config. One that makes no sense is none, as with docker.
fn of_image(config: &Value) -> Option<Healthcheck> {
    #[derive(Deserialize)]
    #[serde(default, rename_all = "PascalCase")]
    #[derive(Default)]
    struct Written {
        test: Vec<String>,
        interval: i64,
        timeout: i64,
        start_period: i64,
        start_interval: i64,
        retries: u32,
    }
    let written: Written = serde_json::from_value(config["Healthcheck"].clone()).ok()?;
    let check = Healthcheck {
        test: written.test,
        interval_nanos: written.interval,
        timeout_nanos: written.timeout,
        start_period_nanos: written.start_period,
        start_interval_nanos: written.start_interval,
        retries: written.retries,
    };
    check.check().is_ok().then_some(check)
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    fn test(words: &[&str]) -> Healthcheck {
        Healthcheck {
            test: words.iter().map(|word| (*word).to_owned()).collect(),
            ..Healthcheck::default()
        }
    }

    #[test]
    fn the_client_wins_over_the_image_field_by_field() {
        let image = json!({"config": {"Healthcheck": {"Test": ["CMD-SHELL", "is-up"], "Interval": 5_000_000_000_i64, "Retries": 7}}});
        let of_image = Healthcheck::resolve(None, &image).unwrap();
        assert_eq!(of_image.args().unwrap(), ["/bin/sh", "-c", "is-up"]);
        let asked = Healthcheck {
            interval_nanos: 1_000_000_000,
            ..Healthcheck::default()
        };
        let both = Healthcheck::resolve(Some(&asked), &image).unwrap();
        assert_eq!(
            (
                both.interval().as_secs(),
                both.retries(),
                both.timeout().as_secs()
            ),
            (1, 7, 30)
        );
        assert_eq!(both.test, of_image.test);
        assert_eq!(Healthcheck::resolve(Some(&test(&["NONE"])), &image), None);
        assert_eq!(Healthcheck::resolve(Some(&asked), &json!({})), None);
    }

    #[test]
    fn an_image_may_have_a_shell_of_its_own_or_nonsense() {
        let image = json!({"config": {"Shell": ["/sh", "-ec"], "Healthcheck": {"Test": ["CMD-SHELL", "x"]}}});
        let check = Healthcheck::resolve(None, &image).unwrap();
        assert_eq!(check.args().unwrap(), ["/sh", "-ec", "x"]);
        for nonsense in [
            json!("x"),
            json!({"Test": ["MAYBE"]}),
            json!({"Test": ["CMD", "x"], "Interval": -1}),
            json!({"Test": [1]}),
        ] {
            let image = json!({"config": {"Healthcheck": nonsense}});
            assert_eq!(Healthcheck::resolve(None, &image), None, "{image}");
        }
    }

    #[test]
    fn what_cannot_be_meant_is_refused() {
        for words in [
            &["CMD"][..],
            &["CMD-SHELL"],
            &["CMD-SHELL", "a", "b"],
            &["NONE", "x"],
            &["sh"],
        ] {
            assert!(test(words).check().is_err(), "{words:?}");
        }
        for words in [&[][..], &["NONE"], &["CMD", "true"], &["CMD-SHELL", "true"]] {
            test(words).check().unwrap();
        }
        let short = Healthcheck {
            timeout_nanos: 5,
            ..Healthcheck::default()
        };
        assert!(short.check().unwrap_err().to_string().contains("timeout_nanos"));
    }
}
