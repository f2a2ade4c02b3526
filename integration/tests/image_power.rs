//! Power cuts: a virtual machine pulls, removes, saves, loads, commits and prunes images until its power is cut. Then
//! its disk is looked at from outside: what was acknowledged is there, what is there is whole, file by file, and nothing
//! is left of what was half done.
//!
//! `BERTH_LAYERS=erofs` in the environment has layers kept as EROFS images, in the machine and outside, for which the
//! machine needs a newer kernel: `BERTH_VM_IMAGE=$(BERTH_VM_KERNEL=sid hack/vm/image)`.

use integration::{Image, Layer, Manager, Random, Sandbox, Vm, eventually, make_disk, run};
use serde_json::{Value, json};
use sha2::{Digest, Sha256};
use std::collections::BTreeMap;
use std::fs;
use std::os::unix::fs::{PermissionsExt, symlink};
use std::path::{Path, PathBuf};
use std::process::Command;
use std::thread;
use std::time::{Duration, Instant};

/// `BERTH_SEED` in the environment repeats another run's decisions, `BERTH_CUTS` asks for more of them.
const SEED: u64 = 0x0062_6572_7468;
const CUTS: u64 = 4;
/// A cut comes so many lines after the machine's first word at most, and so long after that line: an operation takes a
/// second or two on an emulated processor.
const LINES_MAX: u64 = 12;
const PAUSE_MAX: Duration = Duration::from_millis(2500);
/// Far beyond what booting and so many operations take.
const PATIENCE: Duration = Duration::from_mins(10);
const IMAGES: [&str; 3] = ["a:1", "b:1", "c:1"];

/// Says on the second serial line what it is about to change (`touch`), and what is so once that is acknowledged (`have`,
/// `gone`). `x` holds the state of Marsaglia's xorshift32.
const INIT: &str = r#"#!/bin/sh
export PATH=/berth:/usr/local/sbin:/usr/sbin:/usr/bin:/sbin:/bin HOME=/run
mount -t devtmpfs dev /dev
mount -t proc proc /proc
mount -t sysfs sys /sys
mount -t cgroup2 cgroup2 /sys/fs/cgroup
mount -t tmpfs run /run
mount -t tmpfs tmp /tmp
modprobe overlay
ip link set lo up
mount /dev/vdc /mnt
exec >/dev/ttyS1 2>&1
stty raw
docker-registry serve /berth/registry.yml >/run/registry.log 2>&1 &
manager --root /mnt/root --state /run/berth >/run/manager.log 2>&1 &
ctl() { managerctl --socket /run/berth/manager.sock "$@" >/run/out 2>&1; }
tries=0
until ctl version; do
	tries=$((tries + 1))
	[ $tries -lt 600 ] || { cat /run/manager.log && echo "broken: the manager does not answer" && exec sleep 1000; }
	sleep 0.1
done
fail() { echo "broken: $*: $(tail -n 3 /run/out) $(tail -n 3 /run/registry.log)"; sleep 1000; }
x=$seed
random() { # random BOUND: sets n
	x=$((x ^ (x << 13) & 0xffffffff)) x=$((x ^ (x >> 17))) x=$((x ^ (x << 5) & 0xffffffff))
	n=$((x % $1))
}
registry=127.0.0.1:5000
echo begin
while :; do
	random 3
	case $n in 0) image=a:1 ;; 1) image=b:1 ;; *) image=c:1 ;; esac
	random 6
	case $n in
	0 | 1 | 2 | 3)
		echo "touch $image"
		ctl pull $registry/$image || fail pull $image
		echo "have $image"
		;;
	4 | 5)
		echo "touch $image"
		ctl rmi -f $registry/$image
		echo "gone $image"
		;;
	6)
		ctl save -o /tmp/saved.tar $registry/$image || continue
		echo "touch $image"
		ctl rmi -f $registry/$image || fail rmi $image
		ctl load -i /tmp/saved.tar || fail load $image
		echo "have $image"
		;;
	7 | 8)
		echo "touch committed:1"
		ctl create --name worker $registry/$image sh || continue
		ctl commit worker $registry/committed:1 || fail commit $image
		echo "have committed:1"
		ctl rm -f worker || fail rm worker
		;;
	9)
		for image in a:1 b:1 c:1 committed:1; do echo "touch $image"; done
		ctl rm -f worker
		ctl image prune -a -f || fail prune
		for image in a:1 b:1 c:1 committed:1; do echo "gone $image"; done
		;;
	esac
done
"#;

/// What was acknowledged of an image; nothing while something is under way.
type Known = BTreeMap<String, Option<bool>>;

fn heed(known: &mut Known, said: &[String]) {
    for line in said {
        let Some((word, image)) = line.split_once(' ') else {
            continue;
        };
        let now = match word {
            "touch" => None,
            "have" => Some(true),
            "gone" => Some(false),
            _ => continue,
        };
        known.insert(image.to_owned(), now);
    }
}

/// Images that share a layer, of some hundred files, some of them large.
fn images() -> [Image; 3] {
    let mut random = Random::new(SEED);
    let mut layer = |count: u64, bytes: u64| {
        let files: Vec<(String, String)> = (0..count)
            .map(|i| {
                let text = (0..bytes / 16).map(|_| format!("{:016x}", random.number()));
                (format!("files/{count}-{i}"), text.collect())
            })
            .collect();
        let files: Vec<(&str, &str)> = files.iter().map(|(path, text)| (&**path, &**text)).collect();
        Layer::from_files(&files)
    };
    let (many, few) = (layer(100, 2000), layer(3, 1 << 18));
    [
        Image::busybox().with_layer(many.clone()),
        Image::busybox().with_layer(few.clone()),
        Image::busybox()
            .with_layer(many)
            .with_layer(few)
            .with_layer(layer(20, 5000)),
    ]
}

/// The disk of programs: the product, a registry that can't be written, and what the machine is to do.
fn programs(sandbox: &Sandbox) -> PathBuf {
    let folder = sandbox.path().join("programs");
    fs::create_dir(&folder).expect("make the folder of programs");
    {
        let manager = Manager::start(sandbox);
        for (image, name) in images().iter().zip(IMAGES) {
            manager.registry().push(image, name);
        }
        run(Command::new("cp")
            .arg("-a")
            .arg(manager.registry().data())
            .arg(folder.join("registry")))
        .ok();
    }
    for program in ["manager", "managerctl", "shim", "runtime"] {
        run(Command::new("strip")
            .arg("-o")
            .arg(folder.join(program))
            .arg(integration::binary(program)))
        .ok();
    }
    run(Command::new("cp").arg("/usr/bin/docker-registry").arg(&folder)).ok();
    let config = "version: 0.1\nlog:\n  level: error\nstorage:\n  filesystem:\n    rootdirectory: /berth/registry\n  \
        maintenance:\n    readonly:\n      enabled: true\nhttp:\n  addr: 127.0.0.1:5000\n";
    fs::write(folder.join("registry.yml"), config).expect("write the registry's configuration");
    fs::write(folder.join("init"), INIT).expect("write the machine's program");
    fs::set_permissions(folder.join("init"), fs::Permissions::from_mode(0o755)).expect("make it one");
    let disk = sandbox.path().join("programs.ext4");
    make_disk(&disk, 256, Some(&folder));
    disk
}

/// Run the machine on this disk, and cut its power `pause` after it has said so many lines.
fn work_and_cut(mut vm: Vm, lines: u64, pause: Duration) -> Vec<String> {
    let booted = Instant::now();
    let mut begin = None;
    loop {
        let said = vm.said();
        begin = begin.or_else(|| said.iter().position(|line| line == "begin"));
        if begin.is_some_and(|begin| said.len() as u64 > begin as u64 + lines) {
            break;
        }
        let trouble = match () {
            () if is_broken(&said) => Some("has failed"),
            () if vm.is_over() => Some("has ended"),
            () if booted.elapsed() > PATIENCE => Some("does not go on"),
            () => None,
        };
        if let Some(trouble) = trouble {
            panic!("the machine {trouble}: {said:#?}\n{}", vm.console());
        }
        thread::sleep(Duration::from_millis(5));
    }
    thread::sleep(pause);
    let said = vm.cut();
    assert!(!is_broken(&said), "{said:#?}");
    said
}

fn is_broken(said: &[String]) -> bool {
    said.iter().any(|line| line.starts_with("broken"))
}

/// Mount the disk, start a manager on it, and compare.
fn check(data: &Path, known: &mut Known) {
    let sandbox = Sandbox::new();
    let mounted = sandbox.path().join("data");
    fs::create_dir(&mounted).expect("make a mount point");
    fs::create_dir(sandbox.path().join("manager")).expect("make the manager's folder");
    symlink(mounted.join("root"), sandbox.path().join("manager/lib")).expect("link the root");
    run(Command::new("mount").args(["-o", "loop"]).arg(data).arg(&mounted)).ok();
    {
        let manager = Manager::start(&sandbox);
        for (image, known) in known.iter_mut() {
            let done = manager.ctl(&["image", "inspect", &format!("127.0.0.1:5000/{image}")]);
            let is_here = done.code == 0;
            assert!(
                known.is_none_or(|known| known == is_here),
                "{image} was acknowledged as {known:?}: {done}"
            );
            *known = Some(is_here);
            if is_here {
                manager
                    .ctl(&[
                        "run",
                        "--rm",
                        "--network",
                        "none",
                        &format!("127.0.0.1:5000/{image}"),
                        "true",
                    ])
                    .ok();
            }
        }
        let checked = manager.ctl(&["--format", "json", "system", "check"]);
        let found: Value = serde_json::from_str(&checked.stdout).unwrap_or_else(|e| panic!("{e}: {checked}"));
        assert!(checked.code == 0 && found["notChecked"] == json!([]), "{found:#}");
        let layers = found["checked"]["layers"].as_u64();
        assert!(
            layers >= Some(u64::from(known.values().any(|known| *known == Some(true)))),
            "{found:#}"
        );
        println!("  checked: {}", found["checked"]);
    }
    // By other means than the product's, too.
    for blob in fs::read_dir(mounted.join("root/images/blobs/sha256"))
        .expect("list the blobs")
        .flatten()
    {
        let content = fs::read(blob.path()).expect("read a blob");
        assert_eq!(
            blob.file_name(),
            *hex::encode(Sha256::digest(content)),
            "it is not what its name says"
        );
    }
    let left: Vec<_> = fs::read_dir(mounted.join("root/images/tmp"))
        .expect("list the store's tmp")
        .flatten()
        .collect();
    assert!(left.is_empty(), "{left:?}");
    run(Command::new("umount").arg(&mounted)).ok();
    // Another mount namespace, such as one that another container is just being made in, may have it a moment longer.
    eventually("the disk is unmounted everywhere", || {
        let devices = run(Command::new("losetup").arg("--associated").arg(data));
        devices.stdout.is_empty().then_some(())
    });
    run(Command::new("e2fsck").args(["-f", "-n"]).arg(data)).ok();
}

#[test]
fn a_power_cut_at_any_moment_loses_nothing_and_breaks_nothing() {
    let Some(image) = Vm::image() else { return };
    let cuts = std::env::var("BERTH_CUTS").map_or(CUTS, |text| text.parse().expect("BERTH_CUTS is a number"));
    let layers = std::env::var("BERTH_LAYERS").unwrap_or_else(|_| "folders".to_owned());
    let mut random = Random::seeded(SEED);
    let sandbox = Sandbox::new();
    let programs = programs(&sandbox);
    let data = sandbox.path().join("data.ext4");
    make_disk(&data, 512, None);
    let mut known = Known::new();
    for cut in 1..=cuts {
        let (lines, pause) = (random.below(LINES_MAX), random.moment(PAUSE_MAX));
        let seed = (random.below(1 << 31) | 1).to_string();
        let variables = [("seed", &*seed), ("BERTH_LAYERS", &*layers)];
        let vm = Vm::boot(&image, &programs, &data, &variables);
        heed(&mut known, &work_and_cut(vm, lines, pause));
        println!("cut {cut}, {pause:?} after line {lines}: {known:?}");
        check(&data, &mut known);
    }
}
