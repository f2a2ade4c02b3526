//! Archives that somebody made to do harm, or that were cut off: each is refused by name and leaves nothing.

use crate::archive::{Archive, Content, load};
use crate::{image, path_in, stored};
use integration::{Image, Layer, Manager, Sandbox, eventually};
use serde_json::{Value, json};
use std::fs;
use std::process::Stdio;

#[test]
fn what_breaks_a_rule_is_refused_and_leaves_nothing() {
    let sandbox = Sandbox::new();
    let manager = Manager::start(&sandbox);
    let before = stored(&manager);
    let good = Archive::layout(&sandbox, &image("one"));
    let docker = good.docker();
    let manifest = Archive::blob(&good.json("index.json")["manifests"][0]);
    let layer = Archive::blob(&good.manifest()["layers"][1]);
    let changed = |archive: &Archive, change: &dyn Fn(&mut Archive)| {
        let mut archive = archive.clone();
        change(&mut archive);
        archive
    };
    let with_index = |change: &dyn Fn(&mut Value)| {
        let mut index = good.json("index.json");
        change(&mut index);
        changed(&good, &|archive| archive.set("index.json", index.to_string()))
    };
    let hostile = Image::busybox().with_layer(Layer::from_tar(&escaping()));
    let cases: Vec<(&str, Archive, &str)> = vec![
        (
            "no image at all",
            Archive(vec![("readme".into(), Content::File(b"x".into()))]),
            "neither an OCI image layout",
        ),
        (
            "a layer with a flipped bit",
            changed(&good, &|archive| {
                let mut content = archive.file(&layer).to_vec();
                content[20] ^= 1;
                archive.set(&layer, content);
            }),
            "the content's digest is",
        ),
        (
            "a layer that is missing",
            changed(&good, &|archive| archive.0.retain(|(name, _)| *name != layer)),
            "is not in it",
        ),
        (
            "a manifest that is missing",
            changed(&good, &|archive| archive.0.retain(|(name, _)| *name != manifest)),
            "is not in it",
        ),
        (
            "a size that is wrong",
            with_index(&|index| index["manifests"][0]["size"] = 7.into()),
            "descriptor says 7",
        ),
        (
            "a name that is none",
            with_index(&|index| {
                index["manifests"][0]["annotations"]["io.containerd.image.name"] = "NO NAME".into();
            }),
            "invalid image reference",
        ),
        (
            "a second image that is missing",
            with_index(&|index| {
                let entry = json!({"mediaType": "application/vnd.oci.image.manifest.v1+json", "size": 3,
                "digest": format!("sha256:{}", "0".repeat(64))});
                index["manifests"].as_array_mut().unwrap().push(entry);
            }),
            "is not in it",
        ),
        (
            "an index of nothing",
            with_index(&|index| index["manifests"] = json!([])),
            "names no image",
        ),
        (
            "a path that climbs",
            changed(&good, &|archive| archive.set("../evil", "x")),
            "leads out",
        ),
        (
            "an absolute path",
            changed(&good, &|archive| archive.set("/etc/evil", "x")),
            "absolute",
        ),
        (
            "a device",
            changed(&good, &|archive| archive.add("null", Content::Device)),
            "devices",
        ),
        (
            "one name twice",
            changed(&good, &|archive| {
                archive.add("oci-layout", Content::File(b"{}".into()));
            }),
            "twice",
        ),
        (
            "a layout of the future",
            changed(&good, &|archive| {
                archive.set("oci-layout", r#"{"imageLayoutVersion":"2.0.0"}"#);
            }),
            "2.0.0",
        ),
        (
            "a link out",
            changed(&docker, &|archive| {
                archive.0.retain(|(name, _)| name != "1/layer.tar");
                archive.add("1/layer.tar", Content::Symlink("../../etc/passwd".into()));
            }),
            "leads out",
        ),
        (
            "links in a ring",
            changed(&docker, &|archive| {
                archive.0.retain(|(name, _)| name != "1/layer.tar");
                archive.add("1/layer.tar", Content::Symlink("layer2.tar".into()));
                archive.add("1/layer2.tar", Content::Symlink("layer.tar".into()));
            }),
            "without an end",
        ),
        (
            "layers in the wrong order",
            changed(&docker, &|archive| {
                let mut items = archive.json("manifest.json");
                items[0]["Layers"].as_array_mut().unwrap().reverse();
                archive.set("manifest.json", items.to_string());
            }),
            "unpacked layer",
        ),
        (
            "a config under another's digest",
            changed(&docker, &|archive| {
                let name = archive.json("manifest.json")[0]["Config"]
                    .as_str()
                    .unwrap()
                    .to_owned();
                archive.set(&name, "{}");
            }),
            "the content's digest is",
        ),
        (
            "a layer that escapes",
            Archive::layout(&sandbox, &hostile),
            "`..`",
        ),
    ];
    for (what, archive, words) in cases {
        println!("{what}");
        let error = load(&manager, &sandbox, &archive).refused();
        assert!(error.contains(words), "{what}: {error}");
        assert_eq!(stored(&manager), before, "{what} left something");
    }
    assert_eq!(manager.ctl(&["images", "-q"]).ok(), "");

    // Cut off, in the middle and near the end.
    let whole = fs::read(good.write(&sandbox.path().join("whole.tar"))).unwrap();
    for bytes in [700, whole.len() / 2, whole.len() - 1500] {
        let cut = path_in(&sandbox, "cut.tar");
        fs::write(&cut, &whole[..bytes]).unwrap();
        manager.ctl(&["load", "-i", &cut]).refused();
        assert_eq!(
            stored(&manager),
            before,
            "an archive of {bytes} bytes left something"
        );
    }
    load(&manager, &sandbox, &good).ok();
}

/// A layer with a file above its root.
fn escaping() -> Vec<u8> {
    let mut tar = tar::Builder::new(Vec::new());
    let mut header = tar::Header::new_gnu();
    header.set_size(1);
    header.set_mode(0o644);
    header.as_old_mut().name[..7].copy_from_slice(b"../evil");
    header.set_cksum();
    tar.append(&header, &b"x"[..]).expect("add a file");
    tar.into_inner().expect("end the layer")
}

#[test]
fn a_client_that_dies_leaves_nothing() {
    let sandbox = Sandbox::new();
    let manager = Manager::start(&sandbox);
    let before = stored(&manager);
    let whole =
        fs::read(Archive::layout(&sandbox, &image("one")).write(&sandbox.path().join("whole.tar"))).unwrap();
    let mut command = manager.ctl_command(&["load"]);
    let mut client = command.stdin(Stdio::piped()).spawn().expect("start managerctl");
    let mut input = client.stdin.take().expect("its input");
    std::io::Write::write_all(&mut input, &whole[..whole.len() / 2]).expect("send half");
    eventually("the half is there", || (stored(&manager) != before).then_some(()));
    client.kill().expect("kill managerctl");
    client.wait().expect("wait for managerctl");
    eventually("the half is gone", || (stored(&manager) == before).then_some(()));
    assert_eq!(manager.ctl(&["images", "-q"]).ok(), "");
}
