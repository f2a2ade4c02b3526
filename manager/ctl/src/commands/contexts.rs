//! `context create`, `ls`, `use`, `show`, `inspect`, `rm`. They speak to no manager.

use serde_json::json;

use crate::cli::{ContextCommand, Format};
use crate::contexts::{Context, Contexts};
use crate::failure::{Failure, Result};
use crate::host::Target;
use crate::output::{self, Table, cell};

pub(super) fn execute(command: ContextCommand, format: &Format) -> Result<u8> {
    let contexts = Contexts::open()?;
    match command {
        ContextCommand::Create {
            endpoint,
            description,
            name,
        } => {
            if endpoint.host.is_none() {
                return Err(Failure::new("a context needs the address of its manager: --host"));
            }
            contexts.create(&name, &description, &Target::of_endpoint(&endpoint)?)?;
            output::print_line(&name)?;
        }
        ContextCommand::Ls { quiet } => list(&contexts, quiet, format)?,
        ContextCommand::Use { name } => {
            contexts.set_current(&name)?;
            output::print_line(&name)?;
        }
        ContextCommand::Show => output::print_line(&contexts.current()?)?,
        ContextCommand::Inspect { names } => {
            let names = if names.is_empty() {
                vec![contexts.current()?]
            } else {
                names
            };
            let all: Vec<Context> = names
                .iter()
                .map(|name| contexts.get(name))
                .collect::<Result<_>>()?;
            output::print_json(&all)?;
        }
        ContextCommand::Rm { force, names } => {
            for name in names {
                contexts.remove(&name, force)?;
                output::print_line(&name)?;
            }
        }
    }
    Ok(0)
}

fn list(contexts: &Contexts, quiet: bool, format: &Format) -> Result<()> {
    let (all, current) = (contexts.all()?, contexts.current()?);
    if quiet {
        return output::print(
            &all.iter()
                .map(|context| context.name.clone() + "\n")
                .collect::<String>(),
        );
    }
    if *format == Format::Json {
        return output::print_json(&all);
    }
    if let Format::Template(layout) = format {
        let row = |context: &Context| {
            let dockers = json!({"Current": context.name == current, "DockerEndpoint": context.host});
            crate::format::row(dockers, context)
        };
        let rows: Vec<_> = all.iter().map(row).collect::<Result<_>>()?;
        let sample = rows.first().cloned().unwrap_or_default();
        return layout.print_rows(&rows, &sample, &[]);
    }
    let mut table = Table::new(&["NAME", "DESCRIPTION", "HOST"]);
    for context in all {
        let mark = if context.name == current { " *" } else { "" };
        table.row([
            cell(context.name + mark),
            cell(context.description),
            cell(context.host),
        ]);
    }
    table.print()
}
