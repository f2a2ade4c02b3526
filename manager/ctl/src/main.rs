//! `managerctl`: what a person types to have containers run by the `manager`.
//!
//! It translates command lines to calls of the `berth.v1` API and answers to text. It keeps nothing and decides
//! nothing about containers; what it does own is the person's terminal (`terminal.rs`, `session.rs`).
#![forbid(unsafe_code)]

mod cli;
mod client;
mod commands;
mod complete;
mod contexts;
mod csv;
mod detach;
mod environment;
mod failure;
mod format;
mod host;
mod output;
mod progress;
mod session;
mod signals;
mod size;
mod stdio;
mod terminal;
mod time;
mod tunnel;
mod views;

use clap::Parser as _;

use crate::failure::Failure;

fn main() {
    complete::if_asked();
    let cli = match cli::Cli::try_parse() {
        Ok(cli) => cli,
        Err(error) => {
            let _ = error.print();
            std::process::exit(usage_exit_code(&error));
        }
    };
    let code = match block_on(commands::execute(cli)) {
        Ok(code) => code,
        Err(failure) => {
            terminal::restore();
            failure.report();
            failure.exit_code
        }
    };
    // Not a return: a thread may still be blocked in a read of stdin, and nobody needs its answer.
    std::process::exit(i32::from(code));
}

/// Runs the one future of this process. One thread is enough to wait on one socket, and starts fastest.
fn block_on(work: impl Future<Output = failure::Result<u8>>) -> failure::Result<u8> {
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .map_err(|error| Failure::new(format!("start the event loop: {error}")))?;
    let result = runtime.block_on(work);
    runtime.shutdown_background();
    result
}

/// What docker's users expect: 0 for help and version, 125 for `run`, else 1.
fn usage_exit_code(error: &clap::Error) -> i32 {
    if !error.use_stderr() {
        return 0;
    }
    let is_run = std::env::args()
        .skip(1)
        .find(|argument| !argument.starts_with('-'))
        .as_deref()
        == Some("run");
    if is_run { i32::from(failure::RUN_FAILED) } else { 1 }
}
