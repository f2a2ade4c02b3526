//! Archives of images made file by file, well or with a fault.

use integration::{Done, Image, Manager, Sandbox};
use serde_json::{Value, json};
use sha2::{Digest, Sha256};
use std::fs;
use std::path::{Path, PathBuf};

/// An archive in the making: names with their contents, in their order.
#[derive(Clone)]
pub(crate) struct Archive(pub(crate) Vec<(String, Content)>);

#[derive(Clone)]
pub(crate) enum Content {
    File(Vec<u8>),
    Symlink(String),
    Device,
}

impl Archive {
    /// An OCI layout of an image, with index.json first.
    pub(crate) fn layout(sandbox: &Sandbox, image: &Image) -> Archive {
        let folder = sandbox.path().join("layout-in-the-making");
        image.write_layout(&folder);
        let mut files = Vec::new();
        for name in ["index.json", "oci-layout"] {
            files.push((
                name.to_owned(),
                Content::File(fs::read(folder.join(name)).unwrap()),
            ));
        }
        for entry in fs::read_dir(folder.join("blobs/sha256")).unwrap().flatten() {
            let name = format!("blobs/sha256/{}", entry.file_name().display());
            files.push((name, Content::File(fs::read(entry.path()).unwrap())));
        }
        fs::remove_dir_all(folder).unwrap();
        Archive(files)
    }

    /// An OCI layout of an index with these images.
    pub(crate) fn of_platforms(sandbox: &Sandbox, images: &[(&str, &Image)]) -> Archive {
        let mut archive = Archive(Vec::new());
        let mut entries = Vec::new();
        for (architecture, image) in images {
            let one = Archive::layout(sandbox, image);
            let mut manifest = one.manifest();
            let mut config = one.json(&Self::blob(&manifest["config"]));
            config["architecture"] = (*architecture).into();
            for layer in manifest["layers"].as_array().expect("layers") {
                archive.set(&Self::blob(layer), one.file(&Self::blob(layer)));
            }
            manifest["config"] = archive.put("application/vnd.oci.image.config.v1+json", &config);
            let mut entry = archive.put("application/vnd.oci.image.manifest.v1+json", &manifest);
            entry["platform"] = json!({"os": "linux", "architecture": architecture});
            entries.push(entry);
        }
        let index = json!({"schemaVersion": 2, "mediaType": "application/vnd.oci.image.index.v1+json", "manifests": entries});
        let mut entry = archive.put("application/vnd.oci.image.index.v1+json", &index);
        entry["annotations"] = json!({"io.containerd.image.name": "quay.io/a/multi:1"});
        let top = json!({"schemaVersion": 2, "manifests": [entry]});
        archive.set("index.json", top.to_string());
        archive.set("oci-layout", r#"{"imageLayoutVersion":"1.0.0"}"#);
        archive
    }

    /// Add a document as a blob, and give its descriptor.
    fn put(&mut self, media_type: &str, document: &Value) -> Value {
        let text = document.to_string();
        let hash = hex::encode(Sha256::digest(&text));
        self.set(&format!("blobs/sha256/{hash}"), text.as_str());
        json!({"mediaType": media_type, "digest": format!("sha256:{hash}"), "size": text.len()})
    }

    pub(crate) fn file(&self, name: &str) -> &[u8] {
        match self.0.iter().find(|(other, _)| other == name) {
            Some((_, Content::File(content))) => content,
            _ => panic!("there is no file {name}"),
        }
    }

    pub(crate) fn json(&self, name: &str) -> Value {
        serde_json::from_slice(self.file(name)).expect("JSON")
    }

    pub(crate) fn set(&mut self, name: &str, content: impl Into<Vec<u8>>) {
        self.0.retain(|(other, _)| other != name);
        self.add(name, Content::File(content.into()));
    }

    pub(crate) fn add(&mut self, name: &str, content: Content) {
        self.0.push((name.to_owned(), content));
    }

    /// The blob that a descriptor points to.
    pub(crate) fn blob(descriptor: &Value) -> String {
        let digest = descriptor["digest"].as_str().expect("a digest");
        format!("blobs/{}", digest.replace(':', "/"))
    }

    pub(crate) fn manifest(&self) -> Value {
        self.json(&Self::blob(&self.json("index.json")["manifests"][0]))
    }

    /// The same image as a docker archive, its layers plain, `<id>/layer.tar` each.
    pub(crate) fn docker(&self) -> Archive {
        let manifest = self.manifest();
        let config = self.file(&Self::blob(&manifest["config"]));
        let mut archive = Archive(Vec::new());
        let mut paths = Vec::new();
        for (number, layer) in manifest["layers"].as_array().expect("layers").iter().enumerate() {
            let mut tar = Vec::new();
            let mut gzip = flate2::read::GzDecoder::new(self.file(&Self::blob(layer)));
            std::io::Read::read_to_end(&mut gzip, &mut tar).expect("inflate a layer");
            archive.set(&format!("{number}/layer.tar"), tar);
            paths.push(format!("{number}/layer.tar"));
        }
        let name = format!("{}.json", hex::encode(Sha256::digest(config)));
        let items = json!([{"Config": name, "RepoTags": ["box:1", "box:2"], "Layers": paths}]);
        archive.set(&name, config);
        archive.set("manifest.json", items.to_string());
        archive
    }

    pub(crate) fn write(&self, path: &Path) -> PathBuf {
        let mut tar = tar::Builder::new(Vec::new());
        for (name, content) in &self.0 {
            let mut header = tar::Header::new_gnu();
            header.set_mode(0o644);
            let mut data: &[u8] = &[];
            match content {
                Content::File(bytes) => data = bytes,
                Content::Symlink(target) => {
                    header.set_entry_type(tar::EntryType::Symlink);
                    header.set_link_name_literal(target).expect("a short target");
                }
                Content::Device => header.set_entry_type(tar::EntryType::Char),
            }
            header.set_size(data.len() as u64);
            // As it is: some of these names are what no honest writer has.
            header.as_old_mut().name[..name.len()].copy_from_slice(name.as_bytes());
            header.set_cksum();
            tar.append(&header, data).expect("add a file");
        }
        fs::write(path, tar.into_inner().expect("end the archive")).expect("write the archive");
        path.to_owned()
    }
}

#[track_caller]
pub(crate) fn load(manager: &Manager, sandbox: &Sandbox, archive: &Archive) -> Done {
    let path = archive.write(&sandbox.path().join("loaded.tar"));
    manager.ctl(&["load", "-i", path.to_str().expect("a path")])
}
