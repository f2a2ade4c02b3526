//! What each command does: one function a command, in the file of its theme.

mod archives;
mod check;
mod containers;
mod contexts;
mod cp;
mod credentials;
mod dial;
mod doctor;
mod exec;
mod images;
mod info;
mod leases;
mod login;
mod logs;
mod names;
mod networks;
mod ports;
mod prune;
mod registries;
mod run;
mod stats;
mod storage;
mod store;
mod system;
mod top;
mod update;
mod verify;
mod volumes;

use crate::cli::{
    Cli, Command, ContainerCommand, Format, ImageCommand, Inspect, Kind, LeaseCommand, Manifest,
    NetworkCommand, SystemCommand, VolumeCommand,
};
use crate::client::Client;
use crate::failure::{Failure, Result};
use crate::host::Target;

/// Does what was typed, and gives the exit code.
pub(crate) async fn execute(mut cli: Cli) -> Result<u8> {
    cli.format = cli.format.or_else(|| cli.command.format_letter());
    if cli.format.is_some() && !cli.command.has_format() {
        return Err(Failure::new(
            "--format means nothing to this command, which prints neither table nor JSON",
        ));
    }
    if matches!(cli.format, Some(Format::Template(_))) && !cli.command.has_template() {
        return Err(Failure::new(
            "--format of this command is table or json, and no template",
        ));
    }
    let format = cli.format.clone().unwrap_or(Format::Table);
    let target = match cli.command {
        // These speak to no manager, and can mend what says which one is meant.
        Command::Context(_) | Command::Completion { .. } => Target::of_this_machine(),
        _ => Target::find(&cli.connection),
    };
    let connected = target.and_then(|target| Ok((Client::new(&target)?, target)));
    let (client, target) = connected.map_err(|failure| match cli.command {
        Command::Run(_) => failure.of_run(),
        _ => failure,
    })?;
    match cli.command {
        Command::Context(command) => contexts::execute(command, &format),
        Command::System(SystemCommand::Doctor) => doctor::doctor(&client, &target, format).await,
        Command::System(SystemCommand::DialStdio) => dial::dial_stdio(&target).await,
        Command::System(SystemCommand::Info) | Command::Info => info::info(&client, format).await,
        Command::Pull(flags) => images::pull(&client, &flags).await,
        Command::Push(flags) => registries::push(&client, &flags).await,
        Command::Images(flags) => images::list(&client, &flags, format).await,
        Command::Tag(flags) => store::tag(&client, flags).await,
        Command::History(flags) => store::history(&client, flags, format).await,
        Command::Image(ImageCommand::Prune(flags)) => prune::images(&client, flags).await,
        Command::Image(ImageCommand::Inspect { images, letter }) => {
            let kind = Some(Kind::Image);
            system::inspect(
                &client,
                Inspect {
                    kind,
                    size: false,
                    names: images,
                    letter,
                },
                cli.format,
            )
            .await
        }
        Command::System(SystemCommand::Df { verbose }) => store::disk_usage(&client, verbose, format).await,
        Command::System(SystemCommand::Check { images }) => check::check(&client, images, format).await,
        Command::Image(ImageCommand::Verify { reference }) => {
            verify::verify(&client, reference, format).await
        }
        Command::Lease(LeaseCommand::Create(flags)) => leases::create(&client, flags).await,
        Command::Lease(LeaseCommand::Ls { quiet }) => leases::list(&client, quiet, format).await,
        Command::Lease(LeaseCommand::Rm { ids }) => leases::remove(&client, ids).await,
        Command::Rmi(flags) => images::remove(&client, flags).await,
        Command::Save(flags) => archives::save(&client, flags).await,
        Command::Load(flags) => archives::load(&client, flags).await,
        Command::Import(flags) => archives::import(&client, flags).await,
        Command::Search(flags) => registries::search(&client, &flags, format).await,
        Command::Manifest(Manifest::Inspect(flags)) => registries::inspect_manifest(&client, &flags).await,
        Command::Login(flags) => login::login(&client, flags).await,
        Command::Logout(flags) => login::logout(&flags),
        Command::Run(flags) => Box::pin(run::run(&client, flags)).await.map_err(Failure::of_run),
        Command::Create(flags) => Box::pin(run::create_only(&client, &flags)).await,
        Command::Start(flags) => containers::start(&client, flags).await,
        Command::Stop(flags) => containers::stop(&client, flags).await,
        Command::Kill(flags) => containers::kill(&client, flags).await,
        Command::Restart(flags) => containers::restart(&client, flags).await,
        Command::Pause(flags) => containers::pause(&client, flags.containers).await,
        Command::Unpause(flags) => containers::unpause(&client, flags.containers).await,
        Command::Container(ContainerCommand::Prune(flags)) => prune::containers(&client, flags).await,
        Command::Volume(VolumeCommand::Create(flags)) => volumes::create(&client, flags).await,
        Command::Volume(VolumeCommand::Ls(flags)) => volumes::list(&client, flags, format).await,
        Command::Volume(VolumeCommand::Inspect { names, .. }) => {
            volumes::inspect(&client, names, cli.format).await
        }
        Command::Volume(VolumeCommand::Rm(flags)) => volumes::remove(&client, flags).await,
        Command::Volume(VolumeCommand::Prune(flags)) => prune::volumes(&client, flags).await,
        Command::Network(command) => network(&client, command, format).await,
        Command::Port(flags) => ports::port(&client, flags).await,
        Command::Top(flags) => top::top(&client, flags, format).await,
        Command::Wait(flags) => containers::wait(&client, flags).await,
        Command::Stats(flags) => stats::stats(&client, flags, format).await,
        Command::Update(flags) => update::update(&client, flags).await,
        Command::Rename(flags) => containers::rename(&client, flags).await,
        Command::Rm(flags) => containers::remove(&client, flags).await,
        Command::Ps(flags) => containers::list(&client, &flags, format).await,
        Command::Attach(flags) => containers::attach(&client, flags).await,
        Command::Logs(flags) => logs::logs(&client, flags).await,
        Command::Exec(flags) => exec::exec(&client, flags).await,
        Command::Cp(flags) => cp::copy(&client, flags).await,
        Command::Export(flags) => archives::export(&client, flags).await,
        Command::Commit(flags) => archives::commit(&client, flags).await,
        Command::Diff(flags) => archives::diff(&client, flags).await,
        Command::Inspect(flags) => system::inspect(&client, flags, cli.format).await,
        Command::Version => system::version(&client, format).await,
        Command::Events(flags) => system::events(&client, flags, format).await,
        Command::Completion { shell } => system::completion(shell),
    }
}

async fn network(client: &Client, command: NetworkCommand, format: Format) -> Result<u8> {
    match command {
        NetworkCommand::Create(flags) => networks::create(client, flags).await,
        NetworkCommand::Ls(flags) => networks::list(client, flags, format).await,
        NetworkCommand::Inspect { networks } => networks::inspect(client, networks).await,
        NetworkCommand::Rm { networks, force } => networks::remove(client, networks, force).await,
        NetworkCommand::Prune { filters, force } => networks::prune(client, filters, force).await,
        NetworkCommand::Connect(flags) => networks::connect(client, flags).await,
        NetworkCommand::Disconnect {
            network,
            container,
            force,
        } => networks::disconnect(client, network, container, force).await,
    }
}
