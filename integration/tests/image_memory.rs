//! The manager's memory while it pulls: bounded, whatever is in the image.

use integration::{Done, Image, Layer, Manager, Sandbox, eventually};
use std::fs;

/// What the manager may have resident at most.
const PEAK_BYTES_MAX: u64 = 80 << 20;

/// A header of a tar, with a name of at most 100 bytes.
fn header(kind: tar::EntryType, name: &str, target: &str, size: u64) -> [u8; 512] {
    let mut header = tar::Header::new_ustar();
    header.set_path(name).expect("it fits a header");
    if !target.is_empty() {
        header.set_link_name(target).expect("it fits a header");
    }
    header.set_entry_type(kind);
    header.set_mode(0o755);
    header.set_mtime(1_700_000_000);
    header.set_size(size);
    header.set_cksum();
    *header.as_bytes()
}

fn folder(name: &str) -> [u8; 512] {
    header(tar::EntryType::Directory, name, "", 0)
}

fn file(name: &str) -> [u8; 512] {
    header(tar::EntryType::Regular, name, "", 0)
}

fn link(name: &str, target: &str) -> [u8; 512] {
    header(tar::EntryType::Link, name, target, 0)
}

/// Pull an image of these layers, and look at the memory that it took.
fn pull(manager: &Manager, layers: Vec<Layer>) -> Done {
    let name = manager.registry().push(&Image::new(layers), "image:1");
    let (done, peak) = manager.peak_bytes(|| manager.ctl(&["pull", "-q", &name]));
    println!("peak: {} MiB", peak >> 20);
    assert!(peak <= PEAK_BYTES_MAX, "the pull took {} MiB", peak >> 20);
    done
}

/// Pull an image of a layer that is to be refused, and leaves nothing.
fn refused(layer: Layer) -> String {
    let sandbox = Sandbox::new();
    let manager = Manager::start(&sandbox);
    let stored = || {
        let folders = ["blobs/sha256", "s", "tmp", "trash"];
        let images = manager.root().join("images");
        folders.map(|folder| fs::read_dir(images.join(folder)).into_iter().flatten().count())
    };
    let before = stored();
    let refusal = pull(&manager, vec![layer]).refused();
    eventually("what was unpacked is gone", || (stored() == before).then_some(()));
    refusal
}

#[test]
fn a_file_of_a_gibibyte_goes_through_the_manager_and_not_into_its_memory() {
    let sandbox = Sandbox::new();
    let manager = Manager::start(&sandbox);
    let noise: Vec<u8> = (0..16384u32)
        .map(|i| (i.wrapping_mul(2_654_435_761) >> 13) as u8)
        .collect();
    let piece = noise.repeat(64);
    let first = header(tar::EntryType::Regular, "large", "", (piece.len() * 1024) as u64);
    let layer = Layer::from_pieces(&[(&first, 1), (&piece, 1024), (&[0; 1024], 1)]);
    pull(&manager, vec![layer]).ok();
}

#[test]
fn three_hundred_thousand_entries_are_not_kept_in_memory() {
    let sandbox = Sandbox::new();
    let manager = Manager::start(&sandbox);
    let mut tar: Vec<u8> = (0..9)
        .flat_map(|target| file(&format!("targets/{target}")))
        .collect();
    for outer in 0..30_000 {
        let path = format!("srv/application/modules/{outer}");
        tar.extend(folder(&path));
        // Links are the entries that take a file system the least.
        for inner in 0..9 {
            tar.extend(link(&format!("{path}/{inner}"), &format!("targets/{inner}")));
        }
    }
    pull(&manager, vec![Layer::from_tar(&tar)]).ok();
}

#[test]
fn large_windows_of_layers_at_once_do_not_add_up() {
    let sandbox = Sandbox::new();
    let manager = Manager::start(&sandbox);
    let bytes = 40 << 20;
    let layer = |name: &str| {
        let mut tar = header(tar::EntryType::Regular, name, "", bytes).to_vec();
        tar.resize(tar.len() + bytes as usize + 1024, 0);
        Layer::from_zstd(&tar, &["--zstd=wlog=25"])
    };
    pull(&manager, ["a", "b", "c"].map(layer).to_vec()).ok();
}

/// Each name is one that a layer may have and that makes no file, so that the manager is as fast as it can be.
#[test]
fn an_archive_of_ten_million_entries_is_refused() {
    let entries: Vec<u8> = (0..10_000)
        .flat_map(|i| file(&format!(".wh..wh.plnk/{i}")))
        .collect();
    let refusal = refused(Layer::from_pieces(&[(&entries, 1000)]));
    assert!(refusal.contains("more than 4000000 entries"), "{refusal}");
}

#[test]
fn folders_that_a_few_names_imply_by_the_hundred_thousand_are_refused() {
    let mut builder = tar::Builder::new(Vec::new());
    for first in 0..1000 {
        let mut header = tar::Header::new_gnu();
        header.set_size(0);
        let path = format!("{first}/{}f", "d/".repeat(250));
        builder
            .append_data(&mut header, path, &[][..])
            .expect("add a file");
    }
    let layer = Layer::from_tar(&builder.into_inner().expect("finish the layer"));
    let refusal = refused(layer);
    assert!(refusal.contains("bytes of memory"), "{refusal}");
}
