//! Helm, and what it renders.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use serde::Deserialize;
use serde_json::Value;
use tempfile::TempDir;
use tms_tests::cluster::Cluster;
use tms_tests::{skip, tool};

/// The folder of the chart.
pub const CHART: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/../helm");

/// Helm, with a home of its own.
pub struct Helm {
    program: PathBuf,
    home: TempDir,
}

/// What Helm renders.
#[derive(Debug)]
pub struct Rendered(Vec<Value>);

impl Helm {
    /// Returns Helm; `None` where it is not built, which counts as a skipped test.
    pub fn new() -> Option<Self> {
        let Some(program) = tool("helm") else {
            skip("helm is not built: tests/cluster/cluster build");
            return None;
        };
        Some(Self { program, home: TempDir::new().unwrap() })
    }

    /// Runs Helm. Returns what it printed, or its complaint.
    pub fn run(&self, args: &[&str]) -> Result<String, String> {
        self.run_for(Path::new("/dev/null"), args)
    }

    /// Runs Helm inside a cluster, as administrator.
    pub fn run_in(&self, cluster: &Cluster, args: &[&str]) -> Result<String, String> {
        let kubeconfig = cluster.kubeconfig("admin");
        let run = || {
            cluster.enter();
            self.run_for(&kubeconfig, args)
        };
        std::thread::scope(|scope| scope.spawn(run).join().unwrap())
    }

    fn run_for(&self, kubeconfig: &Path, args: &[&str]) -> Result<String, String> {
        let mut command = Command::new(&self.program);
        command.args(args).env("HOME", self.home.path()).env("KUBECONFIG", kubeconfig);
        for proxy in ["http_proxy", "https_proxy", "all_proxy", "HTTP_PROXY", "HTTPS_PROXY", "ALL_PROXY"] {
            command.env_remove(proxy);
        }
        let output = command.output().expect("helm runs");
        let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
        if output.status.success() { Ok(text(&output.stdout)) } else { Err(text(&output.stderr)) }
    }

    /// Renders the chart as release `tms` in namespace `ours`, with these values.
    pub fn template(&self, values: &str) -> Result<Rendered, String> {
        let file = self.home.path().join("values.yaml");
        fs::write(&file, values).unwrap();
        self.template_with(&["--values", file.to_str().unwrap()])
    }

    /// Renders the chart with these flags.
    pub fn template_with(&self, flags: &[&str]) -> Result<Rendered, String> {
        let printed = self.run(&[&["template", "tms", CHART, "--namespace", "ours"], flags].concat())?;
        let objects = serde_yaml::Deserializer::from_str(&printed)
            .map(|document| Value::deserialize(document).expect("Helm prints YAML"))
            .filter(|object| !object.is_null());
        Ok(Rendered(objects.collect()))
    }

    /// The file of an example of the chart.
    pub fn example(name: &str) -> String {
        format!("{CHART}/examples/{name}.yaml")
    }
}

impl Rendered {
    /// Kind and name of each object, sorted.
    pub fn names(&self) -> Vec<String> {
        let name =
            |object: &Value| format!("{} {}", text(&object["kind"]), text(&object["metadata"]["name"]));
        let mut names: Vec<_> = self.0.iter().map(name).collect();
        names.sort();
        names
    }

    /// The only object of a kind.
    pub fn one(&self, kind: &str) -> &Value {
        let found: Vec<_> = self.0.iter().filter(|object| object["kind"] == kind).collect();
        assert_eq!(found.len(), 1, "{kind} among {:?}", self.names());
        found[0]
    }

    /// Whether there is an object of a kind.
    pub fn has(&self, kind: &str) -> bool {
        self.0.iter().any(|object| object["kind"] == kind)
    }

    /// Every object.
    pub fn objects(&self) -> &[Value] {
        &self.0
    }

    /// values.yaml as the server reads it.
    pub fn values(&self) -> &str {
        text(&self.one("ConfigMap")["data"]["values.yaml"])
    }

    /// The pod of the server.
    pub fn pod(&self) -> &Value {
        &self.one("Deployment")["spec"]["template"]
    }
}

/// A text.
pub fn text(value: &Value) -> &str {
    value.as_str().unwrap_or_else(|| panic!("{value} is a text"))
}
