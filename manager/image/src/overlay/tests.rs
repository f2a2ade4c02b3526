use std::fs;
use std::os::unix::fs::{PermissionsExt, symlink};
use std::path::PathBuf;

use rustix::fs::{FileType, Mode, XattrFlags, lsetxattr, mknodat};

use tokio_util::sync::CancellationToken;

use super::*;
use crate::archive::{Archive, Kind};

/// Layers `0` (top), `1` and `2`, made by hand.
struct Made {
    folder: tempfile::TempDir,
}

impl Made {
    fn new() -> Made {
        let folder = tempfile::tempdir().unwrap();
        for layer in ["0", "1", "2"] {
            fs::create_dir(folder.path().join(layer)).unwrap();
        }
        Made { folder }
    }

    fn path(&self, path: &str) -> PathBuf {
        let path = self.folder.path().join(path);
        fs::create_dir_all(path.parent().unwrap()).unwrap();
        path
    }

    fn file(&self, path: &str, content: &str) -> &Made {
        fs::write(self.path(path), content).unwrap();
        self
    }

    fn folder(&self, path: &str) -> &Made {
        fs::create_dir_all(self.path(path)).unwrap();
        self
    }

    fn whiteout(&self, path: &str) -> &Made {
        let path = self.path(path);
        mknodat(
            rustix::fs::CWD,
            &path,
            FileType::CharacterDevice,
            Mode::empty(),
            0,
        )
        .unwrap();
        self
    }

    fn mark(&self, path: &str, attribute: &CStr, value: &[u8]) -> &Made {
        lsetxattr(self.path(path), attribute, value, XattrFlags::empty()).unwrap();
        self
    }

    fn layers(&self) -> Layers {
        let paths: Vec<PathBuf> = ["0", "1", "2"]
            .iter()
            .map(|layer| self.folder.path().join(layer))
            .collect();
        Layers::open(paths.iter().map(PathBuf::as_path), None).unwrap()
    }

    /// What has changed, in the order in which it is told.
    fn changes(&self, mount_points: &[&str]) -> Vec<String> {
        let mount_points = mount_points.iter().map(|path| path.as_bytes().to_vec()).collect();
        let mut told = Vec::new();
        let text = |path: &[u8]| String::from_utf8_lossy(path).into_owned();
        changes(
            &self.layers(),
            &mount_points,
            &CancellationToken::new(),
            &mut |change| {
                told.push(match change {
                    Change::Put { item, existed } => {
                        format!("{} {}", if existed { 'C' } else { 'A' }, text(&item.entry.path))
                    }
                    Change::Opaque { path } => format!("O {}", text(&path)),
                    Change::Deleted { path, hidden } => {
                        format!("{} {}", if hidden { 'd' } else { 'D' }, text(&path))
                    }
                });
                Ok(())
            },
        )
        .map_err(|(path, e)| format!("{}: {e}", text(&path)))
        .unwrap_or_else(|refusal| told.push(refusal));
        told
    }

    /// The exported tree: names with kinds, link targets and attributes.
    fn exported(&self) -> Vec<String> {
        let stream = export(&self.layers(), &CancellationToken::new(), Vec::new())
            .map_err(|(_, e)| e)
            .unwrap();
        let mut archive = Archive::new(stream.as_slice(), 1000);
        let mut entries = Vec::new();
        while let Some(entry) = archive.next().unwrap() {
            let attributes: Vec<_> = entry
                .xattrs
                .iter()
                .map(|(name, _)| String::from_utf8_lossy(name))
                .collect();
            let link = String::from_utf8_lossy(&entry.link);
            let path = String::from_utf8_lossy(&entry.path);
            entries.push(
                format!("{path} {:?} {link} {}", entry.kind, attributes.join(","))
                    .trim()
                    .to_owned(),
            );
        }
        entries
    }
}

#[test]
fn a_merged_tree_shows_the_topmost_of_each_name() {
    let made = Made::new();
    made.file("2/a/low", "2")
        .file("1/a/mid", "1")
        .file("0/a/top", "0")
        .file("2/a/gone", "");
    made.whiteout("1/a/gone");
    made.file("2/opaque/hidden", "").file("1/opaque/shown", "");
    made.mark("1/opaque", marks().opaque, b"y");
    made.file("2/was-folder/x", "").file("0/was-folder", "");
    made.file("2/was-file", "").file("1/was-file/x", "");
    symlink("/etc/passwd", made.path("0/link")).unwrap();
    fs::hard_link(made.path("2/a/low"), made.path("2/a/second")).unwrap();
    mknodat(
        rustix::fs::CWD,
        made.path("0/socket"),
        FileType::Socket,
        Mode::empty(),
        0,
    )
    .unwrap();
    made.mark("2/a/low", c"user.note", b"x");
    assert_eq!(
        made.exported(),
        [
            "./ Directory",
            "a/ Directory",
            "a/low File  user.note",
            "a/mid File",
            "a/second HardLink a/low",
            "a/top File",
            "link Symlink /etc/passwd",
            "opaque/ Directory",
            "opaque/shown File",
            "was-file/ Directory",
            "was-file/x File",
            "was-folder File",
        ]
    );
}

#[test]
fn whiteouts_may_be_attributes() {
    let made = Made::new();
    made.file("2/a/gone", "x")
        .file("2/a/kept", "x")
        .file("1/a/gone", "")
        .file("1/a/empty", "");
    made.mark("1/a", marks().opaque, b"x")
        .mark("1/a/gone", marks().whiteout, b"y");
    let exported = made.exported();
    assert_eq!(
        exported,
        ["./ Directory", "a/ Directory", "a/empty File", "a/kept File"]
    );
}

#[test]
fn each_kind_of_change_is_told() {
    let made = Made::new();
    for name in [
        "kept/a",
        "kept/b",
        "gone/a",
        "remade/old",
        "remade/deep/old",
        "file",
    ] {
        made.file(&format!("2/{name}"), "x");
    }
    made.folder("0/kept")
        .whiteout("0/kept/b")
        .whiteout("0/gone")
        .whiteout("0/never-was");
    made.file("0/remade/deep/new", "")
        .file("0/file", "y")
        .folder("0/new/er");
    // As overlayfs marks what takes a whiteout's place; and what is new altogether, where it means nothing.
    made.mark("0/remade", marks().opaque, b"y")
        .mark("0/new", marks().opaque, b"y");
    assert_eq!(
        made.changes(&[]),
        [
            "C ./",
            "C file",
            "D gone",
            "C kept/",
            "D kept/b",
            "A new/",
            "A new/er/",
            "C remade/",
            "O remade",
            "C remade/deep/",
            "A remade/deep/new",
            "d remade/deep/old",
            "d remade/old",
        ]
    );
}

#[test]
fn a_folder_is_changed_by_its_looks_or_by_what_is_in_it() {
    let made = Made::new();
    made.file("1/same/x", "").file("1/mode/x", "").file("1/a/b/x", "");
    made.folder("0/same").folder("0/mode").file("0/a/b/x", "new");
    for folder in ["same", "a", "a/b"] {
        let model = fs::metadata(made.path(&format!("1/{folder}"))).unwrap();
        let open = fs::File::open(made.path(&format!("0/{folder}"))).unwrap();
        open.set_modified(model.modified().unwrap()).unwrap();
    }
    fs::set_permissions(made.path("0/mode"), fs::Permissions::from_mode(0o700)).unwrap();
    assert_eq!(
        made.changes(&[]),
        ["C ./", "C a/", "C a/b/", "C a/b/x", "C mode/"]
    );
}

#[test]
fn what_the_runtime_made_is_left_out_unless_it_was_used() {
    let made = Made::new();
    let mount_points = ["dev", "proc", "etc/hosts", "etc/hostname"];
    made.folder("0/dev")
        .folder("0/proc")
        .file("0/etc/hosts", "")
        .file("0/etc/hostname", "");
    assert_eq!(made.changes(&mount_points), [""; 0]);
    made.file("0/etc/hostname", "mine").file("0/proc/odd", "");
    assert_eq!(
        made.changes(&mount_points),
        ["C ./", "A etc/", "A etc/hostname", "A proc/", "A proc/odd"]
    );
}

#[test]
fn an_overlay_with_options_of_others_is_refused() {
    for attribute in marks().foreign {
        let made = Made::new();
        made.folder("1/a").folder("0/a").mark("0/a", attribute, b"b");
        let told = made.changes(&[]);
        assert!(told[0].contains(attribute.to_str().unwrap()), "{told:?}");
    }
}

#[test]
fn capabilities_go_along_and_marks_of_this_machine_do_not() {
    let made = Made::new();
    // CAP_NET_RAW, permitted and effective: struct vfs_cap_data of linux/capability.h.
    let mut capability = [0u8; 20];
    (capability[0], capability[3], capability[5]) = (1, 2, 0x20);
    made.file("0/ping", "x")
        .mark("0/ping", c"security.capability", &capability);
    made.mark("0/ping", c"trusted.overlay.origin", b"x");
    assert_eq!(
        made.exported(),
        ["./ Directory", "ping File  security.capability"]
    );
    let found = made.layers();
    let root = found.enter(&found.root()).unwrap();
    let ping = root.find(b"ping").unwrap().unwrap();
    let item = item(ping.parent, b"ping", b"ping").unwrap().unwrap();
    assert_eq!(item.entry.kind, Kind::File);
    assert_eq!(
        item.entry.xattrs,
        [(b"security.capability".to_vec(), capability.to_vec())]
    );
}

#[test]
fn a_folder_below_an_opaque_one_is_told_however_much_it_looks_as_before() {
    let made = Made::new();
    made.file("1/d/old", "").folder("1/d/sub").folder("0/d/sub");
    made.mark("0/d", marks().opaque, b"y");
    let at = |folder: &str| fs::File::open(made.path(folder)).unwrap();
    let time = at("1/d/sub").metadata().unwrap().modified().unwrap();
    at("0/d/sub").set_modified(time).unwrap();
    let told = made.changes(&[]);
    assert!(told.iter().any(|change| change.contains("d/sub")), "{told:?}");
}
