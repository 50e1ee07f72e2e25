//! What people are told to type does what they are told it does.

use std::path::Path;

use crate::harness::{Person, Place, clean, ended, program};

const QUICKSTART: &str = include_str!("../../../docs/quickstart.md");

/// Returns the blocks of a document in a language.
pub fn blocks<'a>(document: &'a str, language: &str) -> Vec<&'a str> {
    let begin = format!("\n```{language}\n");
    document.split(&begin).skip(1).map(|rest| rest.split("```").next().unwrap()).collect()
}

#[test]
fn the_demo_of_the_readme_works() {
    let root = Path::new(env!("CARGO_MANIFEST_DIR"));
    let mut command = clean(&root.join("demo"));
    command.arg(program("tmsctl").parent().unwrap());
    let said = ended(command, 60);
    assert_eq!(said.code, 0, "{}", said.whole());
    for kind in ["HorizontalPodAutoscaler", "PodMonitor", "PrometheusRule"] {
        assert!(said.out.lines().any(|line| line == format!("kind: {kind}")), "{kind}: {}", said.out);
    }
    assert!(said.out.contains("RELEASED") && said.out.contains("acquired, renewed and released"));
}

#[test]
fn the_commands_of_the_quick_start_work() {
    let place = Place::new(blocks(QUICKSTART, "yaml")[0]);
    assert_eq!(place.check_config().whole(), "ok\nexit 0");
    let server = place.start();
    let script = blocks(QUICKSTART, "sh").join("\n").replace("127.0.0.1:30345", server.address());
    let said = Person::new().shell(&format!("set -eux\n{script}"));
    assert_eq!(said.code, 0, "{}", said.whole());
    assert!(said.out.contains("? (1-4)") && said.out.contains("RELEASED"), "{}", said.whole());
}

#[test]
fn the_refusal_of_the_quick_start_is_what_the_server_says() {
    let place = Place::new(blocks(QUICKSTART, "yaml")[0]);
    let server = place.start();
    let example = blocks(QUICKSTART, "console").into_iter().find(|block| block.contains("fatal: ")).unwrap();
    let (line, told) = example.split_once('\n').unwrap();
    let said = server.person().tmsctl(line.strip_prefix("$ tmsctl ").unwrap());
    assert_eq!((said.code, said.err.as_str()), (1, told));
}
