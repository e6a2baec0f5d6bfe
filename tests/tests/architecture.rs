//! The crate diagram of ARCHITECTURE.md holds, and the files it names exist.

use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};

/// Crates in layers: each depends on lower layers only, never on its own.
const LAYERS: [&[&str]; 7] = [
    &["xmpp", "node"],
    &["store", "wire"],
    &["hooks", "locations", "store-embedded", "store-scylla"],
    &["xeps", "router", "admin", "edge"],
    &["setup"],
    &["all-in-one", "cluster"],
    &["starling"],
];

/// What is named in one place only, so that it can be changed there.
const BACK_ENDS: &[&str] = &["store-embedded", "store-scylla"];

/// Libraries that belong to the outer parts; the core stays free of them.
const OUTER: &[&str] = &["tonic", "scylla", "redis", "openraft"];
const CORE: &[&str] = &["xmpp", "store", "hooks", "xeps"];

fn root() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).parent().expect("the workspace").to_owned()
}

/// Dependencies of each crate, build and dev ones left out.
fn dependencies() -> BTreeMap<String, Vec<String>> {
    let mut all = BTreeMap::new();
    for entry in fs::read_dir(root().join("crates")).expect("the crates") {
        let dir = entry.expect("an entry").path();
        let manifest = fs::read_to_string(dir.join("Cargo.toml")).expect("a manifest");
        let mut section = "";
        let mut names = Vec::new();
        for line in manifest.lines().map(str::trim) {
            if line.starts_with('[') {
                section = line;
            } else if section == "[dependencies]" && !line.is_empty() && !line.starts_with('#') {
                let name = line.split(['.', ' ', '=']).next().unwrap_or_default();
                names.push(name.strip_prefix("starling-").unwrap_or(name).to_owned());
            }
        }
        let name = dir.file_name().expect("a name").to_string_lossy().into_owned();
        all.insert(name, names);
    }
    all
}

fn layer(name: &str) -> Option<usize> {
    LAYERS.iter().position(|layer| layer.contains(&name))
}

#[test]
fn every_crate_has_its_layer_and_depends_downwards() {
    let all = dependencies();
    assert_eq!(all.len(), LAYERS.concat().len(), "a crate without a layer, or a layer without its crate");
    for (name, dependencies) in &all {
        let own = layer(name).unwrap_or_else(|| panic!("{name} has no layer"));
        for dependency in dependencies.iter().filter(|one| layer(one).is_some()) {
            let other = layer(dependency).expect("it has one");
            // `wire` speaks of rows, so it stands on `store` within the layer of seams.
            let allowed = other < own || (name == "wire" && dependency == "store");
            assert!(allowed, "{name} (layer {}) depends on {dependency} (layer {})", own + 1, other + 1);
        }
    }
}

#[test]
fn edge_and_router_do_not_know_each_other() {
    let all = dependencies();
    assert!(!all["edge"].iter().any(|one| one == "router"));
    assert!(!all["router"].iter().any(|one| one == "edge"));
}

#[test]
fn back_ends_are_named_in_one_place_and_the_core_is_free() {
    for (name, dependencies) in dependencies() {
        for back_end in BACK_ENDS {
            let named = dependencies.iter().any(|one| one == back_end);
            assert!(!named || ["setup", "starling"].contains(&name.as_str()), "{name} names {back_end}");
        }
        if CORE.contains(&name.as_str()) {
            for outer in OUTER {
                assert!(!dependencies.iter().any(|one| one == outer), "{name} depends on {outer}");
            }
        }
    }
}

#[test]
fn the_files_that_are_named_exist() {
    let text = fs::read_to_string(root().join("ARCHITECTURE.md")).expect("ARCHITECTURE.md");
    let mut named = 0;
    for word in text.split('`').filter(|word| word.ends_with(".rs") && word.contains('/')) {
        let found = [
            root().join(word),
            root().join("crates").join(word),
            root().join("crates/router/src").join(word),
        ];
        assert!(found.iter().any(|path| path.exists()), "ARCHITECTURE.md names {word}, which is not there");
        named += 1;
    }
    assert!(named >= 6, "only {named} files are named");
}
