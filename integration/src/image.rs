//! OCI images made by code: an image layout folder that `skopeo` copies into a registry.

use crate::bundle::busybox_rootfs;
use serde_json::{Value, json};
use sha2::{Digest, Sha256};
use std::fs;
use std::io::Write;
use std::path::Path;
use std::process::Command;

/// One layer, packed.
#[derive(Clone)]
pub struct Layer {
    media_type: &'static str,
    packed: Vec<u8>,
    diff_id: String,
}

impl Layer {
    /// A whole folder.
    pub fn from_folder(folder: &Path) -> Self {
        let mut builder = tar::Builder::new(Vec::new());
        builder.follow_symlinks(false);
        builder
            .append_dir_all(".", folder)
            .expect("read the layer's folder");
        Self::from_tar(&builder.into_inner().expect("finish the layer"))
    }

    /// Files with their contents.
    pub fn from_files(files: &[(&str, &str)]) -> Self {
        let mut builder = tar::Builder::new(Vec::new());
        for (path, text) in files {
            let mut header = tar::Header::new_gnu();
            header.set_size(text.len() as u64);
            header.set_mode(0o644);
            header.set_mtime(1_700_000_000);
            builder
                .append_data(&mut header, path, text.as_bytes())
                .expect("add a file to the layer");
        }
        Self::from_tar(&builder.into_inner().expect("finish the layer"))
    }

    /// A tar stream made by hand, well formed or not.
    pub fn from_tar(tar: &[u8]) -> Self {
        Self::from_pieces(&[(tar, 1)])
    }

    /// A tar stream of pieces, each so many times in a row. Each is packed once, as a member of its own, so that a
    /// layer of any size is made in no time and takes no memory.
    pub fn from_pieces(pieces: &[(&[u8], usize)]) -> Self {
        let (mut packed, mut hasher) = (Vec::new(), Sha256::new());
        for (piece, times) in pieces {
            let mut gzip = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::fast());
            gzip.write_all(piece).expect("compress a layer");
            let member = gzip.finish().expect("compress a layer");
            for _ in 0..*times {
                packed.extend_from_slice(&member);
                hasher.update(piece);
            }
        }
        Self {
            media_type: "application/vnd.oci.image.layer.v1.tar+gzip",
            packed,
            diff_id: format!("sha256:{}", hex::encode(hasher.finalize())),
        }
    }

    /// A tar stream as the program `zstd` packs it, with these arguments.
    pub fn from_zstd(tar: &[u8], arguments: &[&str]) -> Self {
        let file = tempfile::NamedTempFile::new().expect("make a file for the layer");
        fs::write(file.path(), tar).expect("write the layer");
        let output = Command::new("zstd")
            .args(["-q", "-c"])
            .args(arguments)
            .arg(file.path())
            .output()
            .expect("run zstd (package zstd)");
        assert!(
            output.status.success(),
            "zstd: {}",
            String::from_utf8_lossy(&output.stderr)
        );
        Self {
            media_type: "application/vnd.oci.image.layer.v1.tar+zstd",
            packed: output.stdout,
            diff_id: format!("sha256:{}", hex::encode(Sha256::digest(tar))),
        }
    }
}

/// An image in the making.
#[derive(Clone)]
pub struct Image {
    layers: Vec<Layer>,
    /// The `config` object of the image config: `Cmd`, `Env`, `User`, …
    pub config: Value,
}

impl Image {
    /// Busybox, with `/bin/sh` as its command.
    pub fn busybox() -> Self {
        let folder = tempfile::tempdir().expect("make a folder for the image");
        busybox_rootfs(folder.path());
        Self::new(vec![Layer::from_folder(folder.path())])
    }

    /// An image of these layers, base first.
    pub fn new(layers: Vec<Layer>) -> Self {
        Self {
            layers,
            config: json!({"Cmd": ["/bin/sh"], "Env": ["PATH=/bin:/usr/bin"]}),
        }
    }

    /// One more layer on top.
    #[must_use]
    pub fn with_layer(mut self, layer: Layer) -> Self {
        self.layers.push(layer);
        self
    }

    /// Write the image as an OCI image layout (image-spec, image-layout.md) with the tag `image`.
    pub fn write_layout(&self, folder: &Path) {
        fs::create_dir_all(folder.join("blobs/sha256")).expect("make the layout");
        let blob = |media_type: &str, bytes: &[u8]| -> Value {
            let hash = hex::encode(Sha256::digest(bytes));
            fs::write(folder.join("blobs/sha256").join(&hash), bytes).expect("write a blob");
            json!({"mediaType": media_type, "digest": format!("sha256:{hash}"), "size": bytes.len()})
        };
        let mut layers = Vec::new();
        let mut diff_ids = Vec::new();
        for layer in &self.layers {
            diff_ids.push(&layer.diff_id);
            layers.push(blob(layer.media_type, &layer.packed));
        }
        let architecture = if cfg!(target_arch = "aarch64") {
            "arm64"
        } else {
            "amd64"
        };
        let config = json!({
            "created": "2026-01-02T03:04:05Z", "architecture": architecture, "os": "linux", "config": self.config,
            "rootfs": {"type": "layers", "diff_ids": diff_ids},
        });
        let config = blob(
            "application/vnd.oci.image.config.v1+json",
            config.to_string().as_bytes(),
        );
        let manifest = json!({
            "schemaVersion": 2, "mediaType": "application/vnd.oci.image.manifest.v1+json", "config": config, "layers": layers,
        });
        let mut manifest = blob(
            "application/vnd.oci.image.manifest.v1+json",
            manifest.to_string().as_bytes(),
        );
        manifest["annotations"] = json!({"org.opencontainers.image.ref.name": "image"});
        let index = json!({"schemaVersion": 2, "manifests": [manifest]});
        fs::write(folder.join("index.json"), index.to_string()).expect("write the index");
        fs::write(folder.join("oci-layout"), r#"{"imageLayoutVersion":"1.0.0"}"#)
            .expect("write the layout's version");
    }
}
