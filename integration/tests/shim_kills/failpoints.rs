//! Shims end at each of their failpoints.

use std::fs;

use containerd_shim_protos::ttrpc;
use containerd_shim_protos::types::mount::Mount;
use integration::{eventually, is_gone, kills, run};
use serde_json::json;

use crate::{EXEC_STATUS, INIT_STATUS, KILLED, Stage, UNKNOWN, kill, live};

#[test]
fn a_shim_killed_at_a_failpoint_leaves_what_delete_finds() {
    // What was reaped and is not on disk yet is lost with the shim. Init ends at once: its end may be on disk before its
    // start is told, and is killed only where it was not started.
    let (never, unstarted, known) = (&[UNKNOWN][..], &[KILLED][..], &[INIT_STATUS][..]);
    let started = &[KILLED, INIT_STATUS, UNKNOWN][..];
    let failpoints = [
        ("create.mounted", never),
        ("create.recorded", never),
        ("create.called", unstarted),
        ("create.made", unstarted),
        ("create.told", unstarted),
        ("start.called", started),
        ("start.made", started),
        ("start.told", started),
        ("exit.reaped", never),
        ("exit.recorded", known),
        ("exit.told", known),
        ("delete.called", known),
        ("delete.made", known),
        ("delete.told", known),
    ];
    let stage = Stage::new(&format!("exit {INIT_STATUS}"));
    let times = kills(70).div_ceil(failpoints.len() as u32);
    for (failpoint, statuses) in failpoints {
        for _ in 0..times {
            let shim = stage.shim_that_dies_at(failpoint);
            let told = live(&shim, None);
            let found = stage.clean_up(&shim);
            let context = format!("{failpoint}: {found:?} after {told:?}");
            assert!(statuses.contains(&found.exit_status), "{context}");
            for status in [told.exit, told.deleted].into_iter().flatten() {
                assert_eq!(status, INIT_STATUS, "{context}");
            }
            assert!(told.pid.is_none_or(|pid| pid == found.pid), "{context}");
        }
    }
}

#[test]
fn a_shim_killed_around_an_exec_has_its_exit_on_disk() {
    let stage = Stage::gated();
    let failpoints = [
        ("exec.called", false),
        ("exec.made", false),
        ("exec.told", false),
        ("exit.reaped", false),
        ("exit.recorded", true),
        ("exit.told", true),
    ];
    let times = kills(30).div_ceil(failpoints.len() as u32);
    for (failpoint, is_on_disk) in failpoints {
        for _ in 0..times {
            let (shim, gate) = (stage.shim_that_dies_at(failpoint), stage.gate());
            let told = live(&shim, Some(&gate));
            assert!(
                told.exec.is_none_or(|status| status == EXEC_STATUS),
                "{failpoint}: {told:?}"
            );
            eventually("the shim is dead", || is_gone(shim.pid()).then_some(()));
            let record = fs::read_to_string(shim.bundle.join("e.exit.json")).unwrap_or_default();
            let recorded = record.contains(&format!("\"exit_status\":{EXEC_STATUS},"));
            assert_eq!(recorded, is_on_disk, "{failpoint}: {record}");
            assert_eq!(stage.clean_up(&shim).exit_status, KILLED, "{failpoint}");
        }
    }
}

#[test]
fn a_shim_killed_while_it_mounts_a_root_leaves_the_layers_of_the_image_alone() {
    let stage = Stage::gated();
    let layer = stage.sandbox.path().join("layer");
    fs::create_dir(&layer).expect("make a layer");
    fs::write(layer.join("kept"), "").expect("write a file of the layer");
    let shim = stage.shim_that_dies_at("create.layers");
    let mut root = Mount::new();
    root.type_ = "overlay".into();
    let lower = format!("lowerdir={}:{}", layer.display(), stage.bundle.rootfs().display());
    root.options = vec![
        lower,
        "uidmap=0:100000:65536".into(),
        "gidmap=0:100000:65536".into(),
    ];
    let mut request = shim.request();
    request.rootfs = vec![root];
    let created = shim.tasks.create(ttrpc::context::with_timeout(0), &request);
    assert!(created.is_err(), "{created:?}");
    let mounted = shim.bundle.join("layers/0/kept");
    let refused = fs::remove_file(mounted).expect_err("the layer is mounted read-only");
    assert_eq!(
        refused.kind(),
        std::io::ErrorKind::ReadOnlyFilesystem,
        "{refused}"
    );
    stage.clean_up(&shim);
    // What containerd does with a bundle now reaches no layer.
    assert!(!shim.bundle.join("layers").exists());
    assert!(layer.join("kept").exists());
}

#[test]
fn a_start_or_a_delete_that_is_killed_can_be_repeated() {
    let stage = Stage::gated();
    stage.bundle.write();
    stage.sandbox.owns(&stage.sandbox.path().join("s"));
    // A daemon whose start never came to its end goes by itself.
    for failpoint in ["bootstrap.listening", "bootstrap.spawned", "bootstrap.printed"] {
        run(&mut stage.command("start", failpoint)).refused();
        run(&mut stage.command("delete", "none")).ok();
        stage.sandbox.assert_clean();
    }
    for failpoint in
        ["cleanup.alone", "cleanup.killed", "cleanup.deleted"].repeat(kills(3).div_ceil(3) as usize)
    {
        let shim = stage.shim();
        let pid = shim.create_logged();
        shim.start_process("");
        kill(shim.pid());
        run(&mut stage.command("delete", failpoint)).refused();
        let found = stage.clean_up(&shim);
        assert_eq!((found.pid, found.exit_status), (pid, KILLED), "{failpoint}");
    }
}

#[test]
fn a_shim_killed_when_it_let_the_root_go_leaves_a_container_that_delete_finds() {
    let mut stage = Stage::new("sleep 1000");
    stage
        .bundle
        .set("/annotations/org.berth.rootfs-mounted", json!("until-created"));
    stage.bundle.write();
    let source = stage.sandbox.path().join("root");
    fs::rename(stage.bundle.rootfs(), &source).expect("move the rootfs");
    let mut root = Mount::new();
    root.type_ = "bind".into();
    root.source = source.display().to_string();
    root.options = vec!["rbind".into(), "rw".into()];
    for (failpoint, is_mounted) in [("create.told", true), ("create.let-go", false)] {
        let shim = stage.shim_that_dies_at(failpoint);
        let mut request = shim.request();
        request.rootfs = vec![root.clone()];
        let _ = shim.tasks.create(ttrpc::context::with_timeout(0), &request);
        eventually("the shim is dead", || is_gone(shim.pid()).then_some(()));
        let mounted = shim.bundle.join("rootfs/bin").exists();
        assert_eq!(mounted, is_mounted, "{failpoint}");
        assert_eq!(stage.clean_up(&shim).exit_status, KILLED, "{failpoint}");
        assert!(!shim.bundle.join("rootfs/bin").exists(), "{failpoint}");
        assert!(source.join("bin").exists(), "{failpoint}");
    }
}
