//! What becomes of a container's output.

use clap::Args;
use proto::v1::Logging;

#[derive(Debug, Args)]
pub(crate) struct LoggingFlags {
    /// Keep or send output by json-file, local, none, journald or syslog; else as the manager does
    #[arg(long, value_name = "DRIVER", default_value = "", hide_default_value = true)]
    log_driver: String,
    /// Set an option of the logging driver (max-size=10m)
    #[arg(long, value_name = "NAME=VALUE", value_parser = option)]
    log_opt: Vec<(String, String)>,
}

impl LoggingFlags {
    pub(crate) fn message(&self) -> Logging {
        Logging {
            driver: self.log_driver.clone(),
            options: self.log_opt.iter().cloned().collect(),
        }
    }
}

fn option(text: &str) -> Result<(String, String), String> {
    match text.split_once('=') {
        Some((name, value)) if !name.is_empty() => Ok((name.to_owned(), value.to_owned())),
        _ => Err("not of the form NAME=VALUE".to_owned()),
    }
}
