//! The agent beside a real Triton.

use std::fs::{self, File};
use std::io::Read;
use std::net::TcpListener;
use std::os::unix::fs::symlink;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::Mutex;

use serde_json::Value;
use tempfile::TempDir;
use tms_tests::{skip, tool};

use crate::harness::{Agent, Pod};

/// Where Triton's parts lie below a folder, as in its image.
const SERVER: &str = "opt/tritonserver";
const LIBRARIES: &str = "opt/nvidia_pytriton.libs";
const PACKAGES: &str = "usr/local/lib/python3.11/dist-packages";

/// A folder with a Triton: that of `TMS_TEST_TRITON`, or what is in the image that `tests/cluster/cluster build` made,
/// which stays unpacked in the target folder.
fn triton_folder() -> Option<PathBuf> {
    static ONE_AT_A_TIME: Mutex<()> = Mutex::new(());
    if let Some(given) = std::env::var_os("TMS_TEST_TRITON") {
        return Some(given.into());
    }
    let image = tool("triton.tar")?;
    // The parts' folder is named after what the image is made of.
    let version = image.parent().and_then(Path::file_name).unwrap().to_str().unwrap().to_owned();
    let target = Path::new(env!("CARGO_TARGET_TMPDIR"));
    let folder = target.join(format!("triton-of-{version}"));
    let _guard = ONE_AT_A_TIME.lock().unwrap();
    if !folder.exists() {
        fs::rename(unpack(&image, target).keep(), &folder).unwrap();
    }
    Some(folder)
}

/// Unpacks the layers of an OCI archive. Triton's Python is told nothing by its environment, so what it needs lies beside
/// its backend.
fn unpack(image: &Path, parent: &Path) -> TempDir {
    let folder = tempfile::tempdir_in(parent).unwrap();
    let blob = |digest: &str| format!("blobs/{}", digest.replace(':', "/"));
    let index = json(image, "index.json");
    let manifest = json(image, &blob(index["manifests"][0]["digest"].as_str().unwrap()));
    for layer in manifest["layers"].as_array().unwrap() {
        let name = blob(layer["digest"].as_str().unwrap());
        let piped = "tar --extract --to-stdout --file \"$1\" \"$2\" | tar --extract --no-same-owner --directory \"$3\"";
        let mut command = Command::new("bash");
        command.args(["-c", piped, "-"]).arg(image).arg(name).arg(folder.path());
        assert!(command.status().unwrap().success());
    }
    let backend = folder.path().join(SERVER).join("backends/python");
    for package in ["numpy", "numpy.libs"] {
        symlink(Path::new("../../../..").join(PACKAGES).join(package), backend.join(package)).unwrap();
    }
    folder
}

fn json(archive: &Path, name: &str) -> Value {
    let mut archive = tar::Archive::new(File::open(archive).unwrap());
    let is_it = |entry: &tar::Entry<'_, File>| entry.path().unwrap().as_ref() == Path::new(name);
    let mut entry = archive.entries().unwrap().map(Result::unwrap).find(is_it).unwrap();
    let mut text = String::new();
    entry.read_to_string(&mut text).unwrap();
    serde_json::from_str(&text).unwrap()
}

/// A running Triton, which is killed when it is dropped.
struct Triton {
    child: Child,
}

impl Triton {
    fn start(folder: &Path, pod: &Pod, port: u16) -> Self {
        let log = File::options().create(true).append(true).open(pod.path("triton-log")).unwrap();
        let server = folder.join(SERVER);
        let mut command = Command::new("setpriv");
        command.args(["--pdeathsig", "KILL", "--"]).arg(server.join("bin/tritonserver"));
        command.arg(format!("--model-repository={}", pod.path("models").display()));
        command.arg(format!("--backend-directory={}", server.join("backends").display()));
        command.arg(format!("--http-port={port}")).args([
            "--http-address=127.0.0.1",
            "--model-control-mode=explicit",
            "--http-restricted-api=model-repository:tms-key=the-key",
            "--allow-grpc=false",
            "--allow-metrics=false",
        ]);
        command.env("LD_LIBRARY_PATH", folder.join(LIBRARIES)).env("PATH", "/usr/bin:/bin");
        command.stdin(Stdio::null()).stdout(log.try_clone().unwrap()).stderr(log);
        Self { child: command.spawn().unwrap() }
    }

    fn kill(&mut self) {
        self.child.kill().unwrap();
        self.child.wait().unwrap();
    }
}

impl Drop for Triton {
    fn drop(&mut self) {
        // It may have been killed already.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// A model of the Python backend, whose `initialize` is given.
fn model(pod: Pod, name: &str, backend: &str, initialize: &str) -> Pod {
    let config = format!(
        "name: \"{name}\"\nbackend: \"{backend}\"\ninput [{{ name: \"X\" data_type: TYPE_FP32 dims: [ 1 ] }}]\n\
         output [{{ name: \"Y\" data_type: TYPE_FP32 dims: [ 1 ] }}]\ninstance_group [{{ kind: KIND_CPU }}]\n"
    );
    let code =
        format!("class TritonPythonModel:\n    def initialize(self, arguments):\n        {initialize}\n");
    let pod = pod.claim(&format!("{name}/config.pbtxt"), config.as_bytes());
    let pod = pod.claim(&format!("{name}/1/model.py"), code.as_bytes());
    pod.model(name, &format!("pvc://c/{name}"))
}

/// Says when a model was initialised.
fn note(pod: &Pod, name: &str) -> String {
    format!("open({:?}, 'a').write('{name} ')", pod.path("order"))
}

fn free_port() -> u16 {
    TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port()
}

/// Starts both and hands them over, or says that there is no Triton.
async fn beside_triton(pod: Pod) -> Option<(Pod, Agent, Triton, u16)> {
    let Some(folder) = triton_folder() else {
        skip("there is no Triton: tests/cluster/cluster build makes one");
        return None;
    };
    let port = free_port();
    let pod = pod.with("TMS_TRITON_URL", format!("http://127.0.0.1:{port}"));
    let agent = pod.start().await;
    let triton = Triton::start(&folder, &pod, port);
    Some((pod, agent, triton, port))
}

#[tokio::test]
async fn a_real_triton_loads_in_order_and_again_after_its_restart() {
    let pod = Pod::new();
    let (second, first) = (note(&pod, "second"), note(&pod, "first"));
    let pod = model(pod, "z-first", "python", &format!("import time; time.sleep(0.3); {first}"));
    let pod = model(pod, "a-second", "python", &second);
    let Some((pod, mut agent, mut triton, port)) = beside_triton(pod).await else { return };
    agent.answers("/ready").await;
    assert_eq!(fs::read_to_string(pod.path("order")).unwrap(), "first second ");

    triton.kill();
    agent.shows("models are lost", |status| status["models"][0]["state"] == "loading").await;
    let (code, why) = agent.get("/ready").await;
    assert!(code == 503 && why.contains("Triton"), "{code} {why}");
    let folder = triton_folder().unwrap();
    let _triton = Triton::start(&folder, &pod, port);
    agent.answers("/ready").await;
    assert_eq!(fs::read_to_string(pod.path("order")).unwrap(), "first second first second ");
    assert!(agent.terminate().await.success());
}

#[tokio::test]
async fn what_a_real_triton_refuses_is_said_in_plain_words() {
    for (backend, initialize, break_config, expected) in [
        (
            "python",
            "raise ValueError('weights are missing')",
            false,
            "ValueError: weights are missing (1/model.py, line 3)",
        ),
        (
            "nothere",
            "pass",
            false,
            "config.pbtxt asks for the backend \"nothere\", which this Triton image does not have: change it, or choose another image",
        ),
        (
            "python",
            "pass",
            true,
            "Triton cannot read the model's config.pbtxt: it is not a valid ModelConfig (the log of the container triton says where)",
        ),
    ] {
        let pod = model(model(Pod::new(), "good", "python", "pass"), "bad", backend, initialize);
        let pod =
            if break_config { pod.claim("bad/config.pbtxt", b"backend: \"python\" oops {}") } else { pod };
        let Some((pod, mut agent, _triton, _)) = beside_triton(pod).await else { return };
        assert_eq!(agent.ended().await.code(), Some(3), "{}", pod.log());
        let message: Value = serde_json::from_str(&pod.termination()).unwrap();
        assert_eq!(message["failed"][0]["name"], "bad");
        assert_eq!(message["failed"][0]["message"], expected);
    }
}
