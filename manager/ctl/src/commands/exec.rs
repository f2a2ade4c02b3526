//! `exec`: one more process in a running container.

use proto::v1::ExecStart;

use super::run::require_terminal;
use crate::cli::Exec;
use crate::client::Client;
use crate::failure::{Failure, Result};
use crate::session::{Options, Session};
use crate::{environment, terminal};

pub(super) async fn exec(client: &Client, flags: Exec) -> Result<u8> {
    let attached = !flags.detach;
    if attached && flags.interactive && flags.tty {
        require_terminal()?;
    }
    let Some((container, command)) = flags.container_and_command.split_first() else {
        return Err(Failure::new("no container is named"));
    };
    let window = terminal::window_size().filter(|_| flags.tty);
    let start = ExecStart {
        container: container.clone(),
        args: command.to_vec(),
        env: environment::gather(&flags.process.env_file, &flags.process.env)?,
        working_dir: flags.process.workdir,
        user: flags.process.user,
        tty: flags.tty,
        stdin: flags.interactive && attached,
        detach: flags.detach,
        privileged: flags.privileged,
        window,
    };
    let session = Session::exec(client, start).await.map_err(Failure::of_command)?;
    if !attached {
        return Ok(0);
    }
    let options = Options {
        stdin: flags.interactive,
        detach_keys: flags.detach_keys,
        window,
        // The API has no signals to an exec: they do to this process what they always do.
        signals_to: None,
        ..Options::default()
    };
    Ok(session
        .relay(options)
        .await
        .map_err(Failure::of_command)?
        .exit_code())
}
