//! What config.json says.

use std::sync::Arc;

use super::*;
use crate::container::State;
use crate::exec::ExecRequest;
use crate::request::{Bind, Isolation, Mount, Source};
use crate::volumes;

fn image(config: &Value) -> ImageConfiguration {
    serde_json::from_value(json!({
        "architecture": "amd64", "os": "linux", "config": config,
        "rootfs": {"type": "layers", "diff_ids": []},
    }))
    .unwrap()
}

fn built(request: CreateRequest, config: &Value) -> Value {
    let image = image(config);
    let container = Container {
        id: "0123456789abcdef".repeat(4),
        name: "one".to_owned(),
        image_id: String::new(),
        command: process::command(&request, &image).unwrap(),
        stop_signal: 15,
        mounts: volumes::own_mounts(&request),
        request: Arc::new(request),
        state: State::Created,
        pid: 0,
        runs: 0,
        exit: None,
        created_unix_nanos: 0,
        started_unix_nanos: 0,
        address: None,
        bridge_slot: 0,
        ports: Vec::new(),
        error: String::new(),
        restarts: 0,
        stopped_by_hand: false,
        update_pending: false,
        health: None,
    };
    let user = User {
        home: "/root".to_owned(),
        ..User::default()
    };
    let source = |mount: &Mount| match &mount.source {
        Source::Bind(bind) => Seen {
            path: bind.path.clone().into(),
            is_mapped: false,
        },
        _ => Seen {
            path: "/volume".into(),
            is_mapped: true,
        },
    };
    let sources: Vec<_> = container.mounts.iter().map(source).collect();
    let given = Given {
        etc: Path::new("/c"),
        sources: &sources,
        init: Path::new("/usr/libexec/init"),
        joined: &Joined::default(),
        links: &[],
        shm: None,
        groups: &crate::Groups::Machine,
    };
    super::config(&container, &image, &user, &given).unwrap()
}

fn request() -> CreateRequest {
    CreateRequest {
        image: "x".to_owned(),
        ..CreateRequest::default()
    }
}

fn strings(list: &[&str]) -> Vec<String> {
    list.iter().map(|&item| item.to_owned()).collect()
}

#[test]
fn the_request_goes_over_the_image() {
    let image = json!({
        "Env": ["A=image", "PATH=/bin", "broken"], "Cmd": ["sh"], "Entrypoint": ["/init"], "WorkingDir": "/srv",
    });
    let plain = built(request(), &image);
    assert_eq!(plain["process"]["args"], json!(["/init", "sh"]));
    assert_eq!(plain["process"]["cwd"], "/srv");
    assert_eq!(
        plain["process"]["env"],
        json!(["PATH=/bin", "HOSTNAME=0123456789ab", "A=image", "HOME=/root"])
    );

    let asked = CreateRequest {
        env: strings(&["A=asked", "HOME=/x"]),
        command: strings(&["ls"]),
        working_dir: "/tmp".to_owned(),
        tty: true,
        ..request()
    };
    let asked = built(asked, &image);
    assert_eq!(asked["process"]["args"], json!(["/init", "ls"]));
    assert_eq!(asked["process"]["cwd"], "/tmp");
    assert_eq!(
        asked["process"]["env"],
        json!([
            "PATH=/bin",
            "HOSTNAME=0123456789ab",
            "TERM=xterm",
            "A=asked",
            "HOME=/x"
        ])
    );
}

#[test]
fn an_entrypoint_puts_the_images_command_aside() {
    let image = json!({"Cmd": ["sh"], "Entrypoint": ["/init"]});
    let own = CreateRequest {
        entrypoint: Some(strings(&["/other"])),
        ..request()
    };
    assert_eq!(built(own, &image)["process"]["args"], json!(["/other"]));
    let none = CreateRequest {
        entrypoint: Some(strings(&[""])),
        command: strings(&["id"]),
        ..request()
    };
    assert_eq!(built(none, &image)["process"]["args"], json!(["id"]));
}

#[test]
fn nothing_to_run_is_refused() {
    let empty = image(&json!({}));
    assert!(
        process::command(&request(), &empty)
            .unwrap_err()
            .to_string()
            .contains("what to run")
    );
}

#[test]
fn limits_become_resources() {
    let limited = CreateRequest {
        memory_bytes: 64 << 20,
        cpu_quota_millis: 1500,
        pids_limit: 9,
        ..request()
    };
    let config = built(limited, &json!({"Cmd": ["x"]}));
    let resources = &config["linux"]["resources"];
    assert_eq!(resources["memory"]["limit"], 64 << 20);
    assert_eq!(resources["cpu"], json!({"period": 100_000, "quota": 150_000}));
    assert_eq!(resources["pids"], json!({"limit": 9}));
}

#[test]
fn a_privileged_container_is_confined_by_namespaces_only() {
    let plain = built(request(), &json!({"Cmd": ["x"]}));
    assert!(plain["linux"]["seccomp"].is_object() && plain["linux"]["maskedPaths"].is_array());
    let privileged = built(
        CreateRequest {
            privileged: true,
            ..request()
        },
        &json!({"Cmd": ["x"]}),
    );
    assert!(privileged["linux"]["seccomp"].is_null() && privileged["linux"]["maskedPaths"].is_null());
    assert_eq!(
        privileged["linux"]["resources"]["devices"],
        json!([{"allow": true, "access": "rwm"}])
    );
}

#[test]
fn the_hosts_network_has_no_namespace_of_its_own() {
    let has = |config: &Value| {
        config["linux"]["namespaces"]
            .as_array()
            .unwrap()
            .contains(&json!({"type": "network"}))
    };
    assert!(has(&built(request(), &json!({"Cmd": ["x"]}))));
    let host = built(
        CreateRequest {
            network: Network::Host,
            ..request()
        },
        &json!({"Cmd": ["x"]}),
    );
    assert!(!has(&host) && host["linux"]["sysctl"].is_null());
}

#[test]
fn a_bind_replaces_the_default_mount_of_its_place_and_outer_ones_come_first() {
    let bind = |target: &str, read_only| Bind {
        source: "/s".to_owned(),
        target: target.to_owned(),
        read_only,
    };
    let binds = vec![
        bind("/data/deep/er", false),
        bind("/dev/shm/", false),
        bind("/data", true),
    ];
    let config = built(CreateRequest { binds, ..request() }, &json!({"Cmd": ["x"]}));
    let mounts = config["mounts"].as_array().unwrap();
    let targets: Vec<_> = mounts
        .iter()
        .map(|mount| mount["destination"].as_str().unwrap())
        .collect();
    assert!(!targets.contains(&"/dev/shm"));
    assert_eq!(
        targets[targets.len() - 3..],
        ["/data", "/dev/shm/", "/data/deep/er"]
    );
    assert_eq!(
        mounts[targets.len() - 3]["options"],
        json!(["rbind", "rprivate", "rro"])
    );
}

#[test]
fn an_exec_keeps_what_it_does_not_change() {
    let base = built(
        request(),
        &json!({"Cmd": ["x"], "Env": ["A=1"], "WorkingDir": "/srv"}),
    );
    let request = ExecRequest {
        args: strings(&["id"]),
        env: strings(&["A=2"]),
        tty: true,
        ..ExecRequest::default()
    };
    let exec = process::exec(&base["process"], &request, None);
    assert_eq!(exec["args"], json!(["id"]));
    assert_eq!(exec["cwd"], "/srv");
    assert_eq!(
        exec["env"],
        json!([
            "PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin",
            "HOSTNAME=0123456789ab",
            "A=2",
            "HOME=/root",
            "TERM=xterm"
        ])
    );
    assert_eq!(exec["capabilities"], base["process"]["capabilities"]);
    let user = User {
        uid: 5,
        gid: 6,
        additional_gids: vec![7],
        home: "/h".to_owned(),
    };
    let exec = process::exec(&base["process"], &request, Some(&user));
    assert_eq!(
        exec["user"],
        json!({"uid": 5, "gid": 6, "additionalGids": [6, 7]})
    );
    assert!(exec["env"].as_array().unwrap().contains(&json!("HOME=/h")));
}

#[test]
fn an_init_comes_before_the_program_where_processes_are_the_containers_own() {
    let asked = |pid: &str| CreateRequest {
        init: true,
        command: vec!["run".to_owned()],
        isolation: Isolation {
            pid: pid.to_owned(),
            ..Isolation::default()
        },
        ..request()
    };
    let has_mount = |config: &Value| {
        let mounts = config["mounts"].as_array().unwrap();
        mounts.iter().any(|mount| {
            mount["destination"] == "/sbin/docker-init"
                && mount["source"] == "/usr/libexec/init"
                && mount["options"].as_array().unwrap().contains(&json!("ro"))
        })
    };
    let with = built(asked(""), &json!({}));
    assert_eq!(with["process"]["args"], json!(["/sbin/docker-init", "--", "run"]));
    assert!(has_mount(&with));
    let without = built(asked("host"), &json!({}));
    assert_eq!(without["process"]["args"], json!(["run"]));
    assert!(!has_mount(&without));
}

#[test]
fn the_last_group_of_a_user_namespace_is_the_last_without_a_gap() {
    assert_eq!(last_of("         0          0 4294967295\n"), Some(GROUP_MAX));
    assert_eq!(last_of("0 1000 1\n1 100000 65536\n"), Some(65_536));
    assert_eq!(last_of("5 7 2\n0 100000 3\n"), Some(2));
    assert_eq!(last_of("1 100000 65536\n"), None);
    assert_eq!(last_of(""), None);
}

#[test]
fn ids_of_its_own_come_with_a_user_namespace_and_map_what_is_the_containers_alone() {
    let mut request = CreateRequest::default();
    request.isolation.owners = Some(Owners {
        uids: "0:100000:1000,1000:300000:10".parse().unwrap(),
        gids: "0:200000:500".parse().unwrap(),
    });
    request.binds.push(Bind {
        source: "/bind".to_owned(),
        target: "/bind".to_owned(),
        read_only: false,
    });
    request.storage.mounts.push(Mount {
        target: "/volume".to_owned(),
        read_only: false,
        source: Source::Volume(crate::request::VolumeSource::default()),
    });
    let config = built(request, &json!({"Cmd": ["x"]}));
    let linux = &config["linux"];
    let kinds: Vec<_> = linux["namespaces"].as_array().unwrap().iter().collect();
    assert!(kinds.contains(&&json!({"type": "user"})), "{kinds:?}");
    let uids = json!([
        {"containerID": 0, "hostID": 100_000, "size": 1000},
        {"containerID": 1000, "hostID": 300_000, "size": 10},
    ]);
    assert_eq!(linux["uidMappings"], uids);
    assert_eq!(linux["sysctl"]["net.ipv4.ping_group_range"], "0 499");
    let mapped = |place: &str| {
        let mut mounts = config["mounts"].as_array().unwrap().iter();
        let mount = mounts.find(|mount| mount["destination"] == place).unwrap();
        mount["uidMappings"].clone()
    };
    assert_eq!(mapped("/volume"), uids);
    assert_eq!(mapped("/bind"), Value::Null);
    assert_eq!(mapped("/etc/hosts"), Value::Null);
}
