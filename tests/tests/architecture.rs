//! The arrows between the modules of the server, as ARCHITECTURE.md draws them.

#![expect(clippy::unwrap_used, reason = "a test that cannot go on ends")]

use std::collections::BTreeSet;
use std::fs;
use std::path::{Path, PathBuf};

/// What each module of the server may use of the others. `main` and `serve` wire everything.
const ARROWS: [(&str, &[&str]); 13] = [
    ("domain", &[]),
    ("clock", &[]),
    ("chain", &[]),
    ("agent", &["chain", "clock", "domain"]),
    ("auth", &["domain"]),
    ("config", &["domain"]),
    ("telemetry", &["config"]),
    ("metrics", &["domain"]),
    ("store", &["clock", "domain"]),
    ("cluster", &["clock", "domain", "metrics"]),
    ("custom_metrics", &["chain", "clock", "cluster", "domain", "metrics"]),
    ("grpc", &["auth", "chain", "clock", "domain", "metrics", "store"]),
    ("reconcile", &["clock", "cluster", "domain", "metrics", "store"]),
];

/// Crates that reach outside; the domain uses none of them.
const OUTSIDE: [&str; 8] = ["figment", "kube", "rustix", "sqlx", "tokio", "tonic", "tracing", "tms_proto"];

#[test]
fn arrows_point_only_from_outside_to_the_domain() {
    let mut faults = Vec::new();
    for (module, allowed) in ARROWS {
        for file in files_of(module) {
            for used in words_after(&code_of(&file), "crate::") {
                let is_module = ARROWS.iter().any(|(module, _)| *module == used) || used == "serve";
                if is_module && used != module && !allowed.contains(&used.as_str()) {
                    faults.push(format!("{} uses {used}", file.display()));
                }
            }
        }
    }
    assert!(faults.is_empty(), "{faults:#?}");
}

#[test]
fn the_domain_reaches_for_nothing_outside() {
    for file in files_of("domain") {
        let code = code_of(&file);
        for outside in OUTSIDE {
            assert!(!code.contains(&format!("{outside}::")), "{} uses {outside}", file.display());
        }
        assert!(!code.contains("async "), "{} is not synchronous", file.display());
    }
}

#[test]
fn the_agent_knows_neither_kubernetes_nor_the_api() {
    for file in files_of("agent") {
        for outside in ["kube", "k8s_openapi", "sqlx", "tonic", "tms_proto"] {
            assert!(!code_of(&file).contains(&format!("{outside}::")), "{} uses {outside}", file.display());
        }
    }
}

#[test]
fn all_sql_is_in_the_store() {
    for (module, _) in ARROWS.iter().filter(|(module, _)| *module != "store") {
        for file in files_of(module) {
            assert!(!code_of(&file).contains("sqlx::"), "{} uses sqlx", file.display());
        }
    }
}

#[test]
fn every_module_has_its_place_in_the_architecture() {
    let text = fs::read_to_string(root().join("ARCHITECTURE.md")).unwrap();
    assert!(text.lines().count() < 150, "ARCHITECTURE.md is read in one sitting");
    let entries = fs::read_dir(root().join("server/src")).unwrap();
    let names = entries.map(|entry| entry.unwrap().path().file_stem().unwrap().to_str().unwrap().to_owned());
    for name in names.filter(|name| name != "lib") {
        let is_there = text.contains(&format!("src/{name}")) || text.contains(&format!("`{name}`"));
        assert!(is_there, "ARCHITECTURE.md does not mention {name}");
    }
}

fn root() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).parent().unwrap().to_owned()
}

fn files_of(module: &str) -> Vec<PathBuf> {
    let source = root().join("server/src");
    let mut found = Vec::new();
    let mut open = vec![source.join(module)];
    while let Some(folder) = open.pop() {
        for entry in fs::read_dir(folder).into_iter().flatten() {
            let path = entry.unwrap().path();
            if path.is_dir() { open.push(path) } else { found.push(path) }
        }
    }
    let file = source.join(format!("{module}.rs"));
    if file.exists() {
        found.push(file);
    }
    assert!(!found.is_empty(), "there is no module {module}");
    found
}

/// The code of a file, without its comments.
fn code_of(path: &Path) -> String {
    let text = fs::read_to_string(path).unwrap();
    text.lines().filter(|line| !line.trim_start().starts_with("//")).collect::<Vec<_>>().join("\n")
}

fn words_after(code: &str, prefix: &str) -> BTreeSet<String> {
    let word = |rest: &str| rest.chars().take_while(|c| c.is_alphanumeric() || *c == '_').collect();
    code.split(prefix).skip(1).map(word).collect()
}
