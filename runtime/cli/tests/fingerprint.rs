//! Tests `kinglet fingerprint`: the committed lines, on every backend of this processor.

mod fixture;

use fixture::{Folder, program, run};
use kinglet::backend::Backend;

const TEXTS: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/../../firmware-examples/golden/texts.txt");

#[test]
fn every_kernel_gives_the_committed_lines() {
    let golden = [
        ("intents", include_str!("../../../firmware-examples/golden/intents.txt")),
        ("intents-nano", include_str!("../../../firmware-examples/golden/intents-nano.txt")),
        ("requests-nano", include_str!("../../../firmware-examples/golden/requests-nano.txt")),
    ];
    for (name, want) in golden {
        assert_eq!(want.lines().count(), 33);
        let model = format!("{}/../../models/{name}", env!("CARGO_MANIFEST_DIR"));
        for backend in Backend::all() {
            let arguments = ["fingerprint", "--model", &model, "--file", TEXTS];
            let out = program(&arguments).env("KINGLET_BACKEND", backend.name()).output().unwrap();
            assert_eq!(String::from_utf8(out.stdout).unwrap(), want, "{name}, {}", backend.name());
            assert!(out.status.success());
        }
    }
}

#[test]
fn one_text_changes_its_own_line_and_the_hash_of_all() {
    let folder = Folder::new();
    let lines = |text: &str| {
        let texts = folder.write("texts.txt", text);
        let out = run(&["fingerprint", "--file", texts.to_str().unwrap()]).answers();
        out.lines().map(str::to_string).collect::<Vec<_>>()
    };
    let (a, b) = (lines("wake me at seven\nhello\n"), lines("wake me at six\nhello\n"));
    assert_eq!((a.len(), b.len()), (3, 3));
    assert_ne!(a[0], b[0]);
    assert_eq!(a[1], b[1]);
    assert!(a[2].starts_with("all\t") && a[2] != b[2]);
}

#[test]
fn an_onnx_file_is_refused() {
    let folder = Folder::new();
    let (model, texts) = (folder.path().to_str().unwrap(), folder.write("texts.txt", "cat\n"));
    run(&["fingerprint", "--model", model, "--file", texts.to_str().unwrap()]).fails_with(&[".kinglet"]);
}
