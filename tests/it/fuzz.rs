//! The checks of the fuzz targets, run on their seeds. `make fuzz` runs them on mutated input.

use std::{
    fs,
    path::Path,
    process::{Command, Stdio},
};

#[path = "../../fuzz/lib.rs"]
mod targets;

use targets::{destinations, fronts, json, signatures, sources, timestamp};

#[test]
fn every_target_accepts_its_seeds() {
    let folder = tempfile::tempdir().unwrap();
    let script = Path::new(env!("CARGO_MANIFEST_DIR")).join("scripts/fuzz_seeds.py");
    let mut seeds = Command::new("python3");
    assert!(seeds.arg(script).arg(folder.path()).stdout(Stdio::null()).status().unwrap().success());
    let mut checked = Vec::new();
    for target in fs::read_dir(folder.path()).unwrap().map(Result::unwrap) {
        let name = target.file_name().into_string().unwrap();
        let check = check_of(&name);
        for seed in fs::read_dir(target.path()).unwrap().map(Result::unwrap) {
            check(&fs::read(seed.path()).unwrap());
        }
        checked.push(name);
    }
    let of_the_package = fs::read_dir(Path::new(env!("CARGO_MANIFEST_DIR")).join("fuzz/targets"));
    assert_eq!(checked.len(), of_the_package.unwrap().count(), "{checked:?}");
}

fn check_of(target: &str) -> fn(&[u8]) {
    // libFuzzer gives a target that takes a `&str` only valid UTF-8.
    fn text(check: fn(&str), seed: &[u8]) {
        std::str::from_utf8(seed).into_iter().for_each(check);
    }
    match target {
        "destinations" => |seed| text(destinations::check, seed),
        "fronts" => |seed| text(fronts::check, seed),
        "json" => json::check,
        "signatures" => signatures::check,
        "sources" => |seed| text(sources::check, seed),
        "timestamp" => |seed| text(timestamp::check, seed),
        _ => panic!("no check for the seeds of {target}"),
    }
}
