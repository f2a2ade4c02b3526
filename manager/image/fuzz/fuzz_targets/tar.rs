//! A layer's tar, unpacked into a folder; nothing may appear beside that folder.
#![no_main]

libfuzzer_sys::fuzz_target!(|content: &[u8]| {
    let folder = tempfile::tempdir().expect("a folder for the layer");
    let root = folder.path().join("root");
    std::fs::create_dir(&root).expect("a folder for the layer");
    image::fuzzing::tar(content, &root);
    let beside = std::fs::read_dir(folder.path()).expect("the folder is still there").count();
    assert_eq!(beside, 1, "the layer wrote outside of its root");
});
