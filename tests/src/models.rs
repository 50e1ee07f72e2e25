//! Models for a real Triton, from `tests/models`: what they do is set by parameters of their config.pbtxt.

use std::fmt::Write as _;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

const MODELS: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/models");

/// A model with one input, INPUT, and one output, OUTPUT, both lists of FP32, which answers what it is asked.
#[derive(Clone, Debug)]
pub struct Model {
    kind: &'static str,
    name: String,
    parameters: Vec<(&'static str, String)>,
    /// Names in the text of config.pbtxt, and those that take their place.
    renamed: Vec<(&'static str, String)>,
}

impl Model {
    /// One that takes the parameters `service_time_ms`, `load_time_ms` and `fail_on_load`, the reason of its failure.
    pub fn echo(name: &str) -> Self {
        Self::of_kind("echo", name)
    }

    /// One that loads only where another model of the same Triton is ready.
    pub fn asks(name: &str, other: &str) -> Self {
        Self::of_kind("asks", name).with("asks", other)
    }

    /// An ensemble of two others, which must be loaded before.
    pub fn pair(name: &str, first: &str, second: &str) -> Self {
        let renamed = vec![("first", first.to_owned()), ("second", second.to_owned())];
        Self { renamed, ..Self::of_kind("pair", name) }
    }

    fn of_kind(kind: &'static str, name: &str) -> Self {
        Self { kind, name: name.to_owned(), parameters: Vec::new(), renamed: Vec::new() }
    }

    /// The same with a parameter in its config.pbtxt.
    #[must_use]
    pub fn with(mut self, parameter: &'static str, value: &str) -> Self {
        self.parameters.push((parameter, value.to_owned()));
        self
    }

    pub fn name(&self) -> &str {
        &self.name
    }

    /// Writes the model's directory, named after it, into a folder, and returns its path.
    pub fn lay_out(&self, folder: &Path) -> PathBuf {
        let model = folder.join(&self.name);
        copy_folder(&Path::new(MODELS).join(self.kind), &model);
        fs::write(model.join("config.pbtxt"), self.configuration()).expect("the folder takes a file");
        model
    }

    /// Writes the model as the archive NAME.tar.gz into a folder, and returns its path. The archive holds one directory.
    pub fn pack(&self, folder: &Path) -> PathBuf {
        let archive = folder.join(format!("{}.tar.gz", self.name));
        let laid_out = tempfile::tempdir().expect("a folder can be made");
        self.lay_out(laid_out.path());
        let mut tar = Command::new("tar");
        tar.arg("-czf").arg(&archive).arg("-C").arg(laid_out.path()).arg(&self.name);
        assert!(tar.status().expect("tar runs").success(), "tar packs {}", self.name);
        archive
    }

    fn configuration(&self) -> String {
        let file = Path::new(MODELS).join(self.kind).join("config.pbtxt");
        let mut text = fs::read_to_string(file).expect("a model of tests/models");
        for (from, to) in &self.renamed {
            text = text.replace(&format!("model_name: \"{from}\""), &format!("model_name: {to:?}"));
        }
        let _ = writeln!(text, "name: {:?}", self.name);
        for (key, value) in &self.parameters {
            let _ = writeln!(text, "parameters {{ key: {key:?}, value {{ string_value: {value:?} }} }}");
        }
        text
    }
}

fn copy_folder(from: &Path, to: &Path) {
    fs::create_dir_all(to).expect("a folder can be made");
    for entry in fs::read_dir(from).expect("a folder of tests/models") {
        let entry = entry.expect("the folder stays");
        let target = to.join(entry.file_name());
        if entry.path().is_dir() {
            copy_folder(&entry.path(), &target);
        } else {
            fs::copy(entry.path(), target).expect("a file can be copied");
        }
    }
}

#[cfg(test)]
mod tests {
    use super::Model;

    #[test]
    fn a_model_is_laid_out_under_its_name_with_its_parameters() {
        let folder = tempfile::tempdir().expect("a folder");
        let model = Model::echo("slow").with("service_time_ms", "50").lay_out(folder.path());
        let configuration = std::fs::read_to_string(model.join("config.pbtxt")).expect("it has one");
        assert!(model.ends_with("slow") && model.join("1/model.py").is_file());
        assert!(configuration.contains("\nname: \"slow\"\n"), "{configuration}");
        assert!(configuration.contains(r#"{ key: "service_time_ms", value { string_value: "50" } }"#));
    }

    #[test]
    fn an_ensemble_names_its_parts() {
        let folder = tempfile::tempdir().expect("a folder");
        let model = Model::pair("both", "left", "right").lay_out(folder.path());
        let configuration = std::fs::read_to_string(model.join("config.pbtxt")).expect("it has one");
        assert!(
            configuration.contains("model_name: \"left\"") && configuration.contains("model_name: \"right\"")
        );
        assert!(model.join("1").is_dir());
    }
}
