//! The `shim` binary, also installed as `containerd-shim-berth-v1`. See the library's text for how it is made.

use std::process::ExitCode;

use shim::arguments::{Arguments, HELP, Verb};
use shim::{bootstrap, daemon};

fn main() -> ExitCode {
    let arguments = match Arguments::parse(std::env::args().skip(1)) {
        Ok(arguments) => arguments,
        Err(error) => return fail(&error),
    };
    let result: Result<(), Box<dyn std::error::Error>> = match arguments.verb {
        Verb::Start => bootstrap::start(&arguments).map_err(Into::into),
        Verb::Delete => bootstrap::delete(&arguments).map_err(Into::into),
        Verb::Info => bootstrap::info().map_err(Into::into),
        Verb::Serve => daemon::serve(&arguments).map_err(Into::into),
        Verb::Version => {
            println!("shim {} (berth, containerd shim v2)", env!("CARGO_PKG_VERSION"));
            Ok(())
        }
        Verb::Help => {
            print!("{HELP}");
            Ok(())
        }
    };
    match result {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => fail(error.as_ref()),
    }
}

fn fail(error: &dyn std::error::Error) -> ExitCode {
    eprintln!("shim: {error}");
    ExitCode::FAILURE
}
