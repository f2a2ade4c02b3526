//! `info`, `system info`: the machine, the manager's configuration, and how much there is.

use proto::v1::InfoRequest;
use serde_json::{Value, json};

use crate::cli::Format;
use crate::client::Client;
use crate::failure::Result;
use crate::output;
use crate::size::format_binary_bytes;
use crate::views::Info;

pub(super) async fn info(client: &Client, format: Format) -> Result<u8> {
    let reply = client.system().info(InfoRequest {}).await;
    let info = Info::from(reply.map_err(|status| client.failure(&status))?.into_inner());
    match &format {
        Format::Json => output::print_json(&info)?,
        Format::Table => output::print(&output::clean_lines(&text(&info)))?,
        Format::Template(layout) => {
            let row = crate::format::row(dockers(&info), &info)?;
            layout.print_rows(std::slice::from_ref(&row), &row, &[])?;
        }
    }
    Ok(0)
}

/// Docker's fields.
fn dockers(info: &Info) -> Value {
    let version = &info.version;
    let pools = info.default_address_pools.iter();
    let mut fields = json!({
        "ID": info.id,
        "Name": info.hostname,
        "Containers": info.containers.all(),
        "ContainersRunning": info.containers.running,
        "ContainersPaused": info.containers.paused,
        "ContainersStopped": info.containers.stopped,
        "Images": info.images,
        "Driver": "overlay",
        "DriverStatus": [["Layers", info.layers]],
        "LoggingDriver": version.log_driver,
        "CgroupDriver": "cgroupfs",
        "CgroupVersion": if version.cgroups == "v2" { "2" } else { "1" },
        "KernelVersion": version.kernel,
        "OperatingSystem": info.operating_system,
        "OSVersion": info.os_version,
        "OSType": version.os,
        "Architecture": version.architecture,
        "NCPU": info.cpus,
        "MemTotal": info.memory_bytes,
        "DockerRootDir": version.root,
        "ServerVersion": version.version,
        "Plugins": {"Log": version.log_drivers, "Network": info.network_drivers, "Volume": info.volume_drivers},
        "SecurityOptions": info.security_options,
        // There is one, which has no other name.
        "DefaultRuntime": "berth",
        "Runtimes": {"berth": {}},
        "InitBinary": "berth-init",
        // Containers run on without the manager, always.
        "LiveRestoreEnabled": true,
        "Swarm": {"LocalNodeState": "inactive"},
        "Isolation": "",
        "Labels": [],
        "ExperimentalBuild": false,
        "DefaultAddressPools": pools.map(|pool| json!({"Base": pool.base, "Size": pool.size})).collect::<Vec<_>>(),
        "Warnings": info.warnings(),
    });
    if let (Some(fields), Value::Object(more)) = (fields.as_object_mut(), limits(info)) {
        fields.extend(more);
    }
    fields
}

/// What of limits the machine can do.
fn limits(info: &Info) -> Value {
    let can = |limit: &str| info.limits.iter().any(|known| known == limit);
    json!({
        "MemoryLimit": can("memory"),
        "SwapLimit": can("swap"),
        "OomKillDisable": can("oom-kill"),
        "CPUShares": can("cpu-shares"),
        // By docker's names for templates, and by those of its JSON.
        "CPUCfsPeriod": can("cpu-quota"),
        "CPUCfsQuota": can("cpu-quota"),
        "CpuCfsPeriod": can("cpu-quota"),
        "CpuCfsQuota": can("cpu-quota"),
        "CPUSet": can("cpuset"),
        "PidsLimit": can("pids"),
        "IPv4Forwarding": info.ipv4_forwarding,
    })
}

fn text(info: &Info) -> String {
    let version = &info.version;
    let containers = &info.containers;
    let mut lines = vec![
        ("Manager", version.version.clone()),
        ("  API", version.api_version.clone()),
        ("  runtime", version.runtime_version.clone()),
        ("  root", version.root.clone()),
        ("Containers", containers.all().to_string()),
        ("  running", containers.running.to_string()),
        ("  paused", containers.paused.to_string()),
        ("  stopped", containers.stopped.to_string()),
        ("Images", info.images.to_string()),
        ("  layers as", info.layers.clone()),
        ("  registries", info.registry_config.join(":")),
        ("Volumes", info.volumes.to_string()),
        ("  drivers", info.volume_drivers.join(", ")),
        ("Networks", info.networks.to_string()),
        ("  drivers", info.network_drivers.join(", ")),
        ("  bridge", format!("{} {}", info.bridge, info.bridge_address)),
    ];
    let pools = info.default_address_pools.iter();
    let pools: Vec<_> = pools
        .map(|pool| format!("{} by /{}", pool.base, pool.size))
        .collect();
    listed(&mut lines, "  pools", &pools);
    let options = info.log_options.iter();
    let options: Vec<_> = options.map(|(name, value)| format!("{name}={value}")).collect();
    let logging = format!("{} (of {})", version.log_driver, version.log_drivers.join(", "));
    lines.push(("Logging", logging));
    listed(&mut lines, "  options", &options);
    let ulimits = info.default_ulimits.iter();
    let ulimits: Vec<_> = ulimits
        .map(|limit| format!("{}={}:{}", limit.name, limit.soft, limit.hard))
        .collect();
    listed(&mut lines, "Ulimits", &ulimits);
    if info.default_shm_bytes > 0 {
        lines.push(("/dev/shm", format_binary_bytes(info.default_shm_bytes)));
    }
    listed(&mut lines, "DNS", &info.dns);
    listed(&mut lines, "  search", &info.dns_search);
    listed(&mut lines, "  options", &info.dns_options);
    if !info.userns_remap.is_empty() {
        lines.push(("Userns remap", info.userns_remap.clone()));
        lines.push(("  users", info.userns_uid_map.clone()));
        lines.push(("  groups", info.userns_gid_map.clone()));
    }
    lines.extend([
        ("Machine", info.hostname.clone()),
        ("  system", info.operating_system.clone()),
        ("  platform", format!("{}/{}", version.os, version.architecture)),
        ("  kernel", version.kernel.clone()),
        ("  cgroups", version.cgroups.clone()),
        ("  limits", info.limits.join(", ")),
        ("  security", info.security_options.join(" ")),
        ("  CPUs", info.cpus.to_string()),
        ("  memory", format_binary_bytes(info.memory_bytes)),
    ]);
    let configuration = &info.configuration;
    let file = match configuration.file.as_str() {
        "" => "no file",
        file => file,
    };
    lines.push(("Configuration", file.to_owned()));
    lines.push(("  read", configuration.loaded.clone()));
    for (name, value) in [
        ("  metrics", &info.metrics_address),
        ("  traces", &info.traces_endpoint),
    ] {
        if !value.is_empty() {
            lines.push((name, value.clone()));
        }
    }
    let lines = lines
        .iter()
        .map(|(name, value)| format!("{:<15} {value}", format!("{name}:")));
    let warnings = info
        .warnings()
        .into_iter()
        .map(|warning| format!("WARNING: {warning}"));
    lines.chain(warnings).collect::<Vec<_>>().join("\n") + "\n"
}

fn listed(lines: &mut Vec<(&'static str, String)>, name: &'static str, values: &[String]) {
    if !values.is_empty() {
        lines.push((name, values.join(", ")));
    }
}
