//! The flags that describe a lease, which creating and planning share.

use std::io::Read;
use std::path::{Path, PathBuf};
use std::time::Duration;

use clap::Args;
use tms_proto::v1::{AutomaticRenewal, BespokeTriton, LeaseSpec, Model, Toleration};

use super::{ScalingArguments, model, values};
use crate::failure::Failure;

/// What is asked for.
#[derive(Debug, Args)]
pub struct SpecArguments {
    /// A model to serve: its name, and where its directory or an archive of it is fetched from. Repeat it for more
    /// models; they are loaded in the order given
    #[arg(short, long = "model", required = true, value_name = "name=NAME,uri=URI", value_parser = model::parse)]
    models: Vec<Model>,

    /// How long the lease lasts, such as 90m, 1h 30m or 2d [default: the administrator's]
    #[arg(long, value_name = "DURATION", value_parser = values::duration)]
    lifetime: Option<Duration>,

    /// Fixed number of replicas [default: 1]
    #[arg(long, value_name = "COUNT", value_parser = values::count, allow_negative_numbers = true)]
    replicas: Option<u32>,

    /// A label to find the lease by; repeat it for more
    #[arg(long = "label", value_name = "KEY=VALUE", value_parser = values::key_value)]
    labels: Vec<(String, String)>,

    #[command(flatten)]
    renewal: RenewalArguments,

    #[command(flatten)]
    scaling: ScalingArguments,

    #[command(flatten)]
    triton: TritonArguments,
}

/// How use renews the lease.
#[derive(Debug, Args)]
#[command(next_help_heading = "Automatic renewal options")]
pub struct RenewalArguments {
    /// Keep the lease alive while it is used, up to the administrator's longest lifetime
    #[arg(long)]
    auto_renew: bool,

    /// How long the lease lives on after it was used, such as 30m [default: the administrator's]
    #[arg(long, value_name = "DURATION", value_parser = values::duration)]
    idle_window: Option<Duration>,
}

/// The Triton that serves the models.
#[derive(Debug, Args)]
#[command(next_help_heading = "Triton options")]
struct TritonArguments {
    /// Container image of Triton [default: the administrator's]
    #[arg(long, value_name = "IMAGE")]
    triton_image: Option<String>,

    /// GPUs of each replica; 0 runs Triton on CPUs only
    #[arg(long, value_name = "COUNT", value_parser = values::count, allow_negative_numbers = true)]
    gpus: Option<u32>,

    /// Extended resource that stands for a GPU, such as nvidia.com/mig-1g.5gb
    #[arg(long, value_name = "RESOURCE")]
    gpu_resource: Option<String>,

    /// CPU of each replica, such as 4 or 500m
    #[arg(long, value_name = "QUANTITY")]
    cpu: Option<String>,

    /// Main memory of each replica, such as 16Gi
    #[arg(long, value_name = "QUANTITY")]
    memory: Option<String>,

    /// Size of /dev/shm, which counts against the memory, such as 1Gi
    #[arg(long, value_name = "QUANTITY")]
    shared_memory: Option<String>,

    /// An environment variable of Triton; repeat it for more
    #[arg(long, value_name = "NAME=VALUE", value_parser = values::key_value)]
    env: Vec<(String, String)>,

    /// A label that nodes must carry; repeat it for more
    #[arg(long, value_name = "KEY=VALUE", value_parser = values::key_value)]
    node_selector: Vec<(String, String)>,

    /// A taint of nodes that the replicas tolerate; repeat it for more
    #[arg(long = "toleration", value_name = "KEY[=VALUE][:EFFECT[:SECONDS]]", value_parser = values::toleration)]
    tolerations: Vec<Toleration>,

    /// Affinity of the pods: a YAML or JSON file in the form of Kubernetes, or - for standard input
    #[arg(long, value_name = "FILE")]
    affinity_file: Option<PathBuf>,
}

impl SpecArguments {
    /// Returns the lease that is asked for.
    pub fn into_spec(self) -> Result<LeaseSpec, Failure> {
        Ok(LeaseSpec {
            models: self.models,
            bespoke: Some(self.triton.into_bespoke()?),
            replicas: self.replicas,
            autoscaling: self.scaling.into_autoscaling()?,
            lifetime: self.lifetime.map(values::proto_duration).transpose()?,
            labels: values::labels(self.labels)?,
            automatic_renewal: self.renewal.into_automatic_renewal()?,
        })
    }
}

impl RenewalArguments {
    /// Returns how use is to renew the lease, if that is asked for.
    pub fn into_automatic_renewal(self) -> Result<Option<AutomaticRenewal>, Failure> {
        if !self.auto_renew && self.idle_window.is_some() {
            return Err(Failure::usage(
                "--idle-window says how use renews the lease, which is not asked for",
            )
            .hint("add --auto-renew"));
        }
        let idle_window = self.idle_window.map(values::proto_duration).transpose()?;
        Ok(self.auto_renew.then_some(AutomaticRenewal { idle_window }))
    }
}

impl TritonArguments {
    fn into_bespoke(self) -> Result<BespokeTriton, Failure> {
        Ok(BespokeTriton {
            image: self.triton_image.unwrap_or_default(),
            gpus: self.gpus,
            gpu_resource: self.gpu_resource.unwrap_or_default(),
            cpu: self.cpu.unwrap_or_default(),
            memory: self.memory.unwrap_or_default(),
            shared_memory: self.shared_memory.unwrap_or_default(),
            environment: values::pairs("--env", self.env)?,
            node_selector: values::pairs("--node-selector", self.node_selector)?,
            tolerations: self.tolerations,
            affinity_json: self.affinity_file.as_deref().map(read_affinity).transpose()?.unwrap_or_default(),
        })
    }
}

fn read_affinity(path: &Path) -> Result<String, Failure> {
    let unreadable = |error| Failure::usage(format!("{} cannot be read: {error}", path.display()));
    let mut text = String::new();
    if path == Path::new("-") {
        std::io::stdin().read_to_string(&mut text).map_err(unreadable)?;
    } else {
        text = std::fs::read_to_string(path).map_err(unreadable)?;
    }
    let value: serde_json::Value = serde_saphyr::from_str(&text)
        .map_err(|error| Failure::usage(format!("{} makes no sense: {error}", path.display())))?;
    match value.is_object() {
        true => Ok(value.to_string()),
        false => Err(Failure::usage(format!("{} holds no affinity", path.display()))
            .hint("an affinity has the keys nodeAffinity, podAffinity and podAntiAffinity")),
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use clap::Parser;
    use tms_proto::v1::{Autoscaling, Metric};

    use super::*;

    #[derive(Parser)]
    struct Line {
        #[command(flatten)]
        spec: SpecArguments,
    }

    fn spec(line: &str) -> Result<LeaseSpec, Failure> {
        let arguments = format!("create -m name=resnet50,uri=pvc://models/resnet50 {line}");
        Line::try_parse_from(arguments.split_whitespace()).expect("clap takes the line").spec.into_spec()
    }

    #[test]
    fn a_bare_line_leaves_everything_to_the_administrator() {
        let spec = spec("").unwrap();
        assert_eq!(spec.bespoke, Some(BespokeTriton::default()));
        assert_eq!((spec.replicas, spec.autoscaling, spec.lifetime), (None, None, None));
    }

    #[test]
    fn the_lines_of_the_guide_mean_what_it_says() {
        assert_eq!(spec("--enable-autoscaling").unwrap().autoscaling, Some(Autoscaling::default()));
        let four = Autoscaling { max_replicas: Some(4), ..Autoscaling::default() };
        let line = "--enable-autoscaling --autoscaling-max-replicas 4";
        assert_eq!(spec(line).unwrap().autoscaling, Some(four));
    }

    #[test]
    fn a_metric_is_on_has_a_threshold_or_is_off() {
        let line = "--enable-autoscaling --autoscaling-cpu-utilization --autoscaling-queue-time=200ms \
                    --autoscaling-gpu-utilization=off --autoscaling-min-replicas 2";
        let wish = |enable, threshold| Metric { enable: Some(enable), threshold };
        let metrics = BTreeMap::from([
            ("cpuUtilization".to_owned(), wish(true, None)),
            ("queueTime".to_owned(), wish(true, Some(200_000))),
            ("gpuUtilization".to_owned(), wish(false, None)),
        ]);
        let expected = Autoscaling { min_replicas: Some(2), metrics, ..Autoscaling::default() };
        assert_eq!(spec(line).unwrap().autoscaling, Some(expected));
    }

    #[test]
    fn a_detail_of_autoscaling_without_autoscaling_is_a_usage_error() {
        for flag in [
            "--autoscaling-max-replicas 4",
            "--autoscaling-min-replicas 1",
            "--autoscaling-cpu-utilization",
            "--autoscaling-memory-utilization=70",
            "--autoscaling-gpu-utilization=80",
            "--autoscaling-gpu-memory-utilization",
            "--autoscaling-queue-time=200ms",
            "--autoscaling-behavior-file x.yaml",
        ] {
            let failure = spec(flag).unwrap_err();
            let name = flag.split([' ', '=']).next().unwrap();
            assert_eq!(failure.exit_code(), 2);
            assert!(failure.report().contains(name) && failure.report().contains("add --enable-autoscaling"));
        }
    }

    #[test]
    fn renewal_by_use_is_asked_for_with_or_without_a_window() {
        let window = |line| spec(line).unwrap().automatic_renewal.map(|renewal| renewal.idle_window);
        assert_eq!(window(""), None);
        assert_eq!(window("--auto-renew"), Some(None));
        let ten_minutes = prost_types::Duration { seconds: 600, nanos: 0 };
        assert_eq!(window("--auto-renew --idle-window 10m"), Some(Some(ten_minutes)));
        assert!(spec("--idle-window 10m").unwrap_err().report().contains("add --auto-renew"));
    }

    #[test]
    fn files_are_read_as_yaml_or_json() {
        let folder = tempfile::tempdir().unwrap();
        let affinity = folder.path().join("affinity.yaml");
        std::fs::write(&affinity, "nodeAffinity:\n  requiredDuringSchedulingIgnoredDuringExecution: {}\n")
            .unwrap();
        let behavior = folder.path().join("behavior.json");
        let text = r#"{"scaleDown": {"stabilizationWindowSeconds": 300, "policies": [{"type": "Pods", "value": 1, "periodSeconds": 60}]}}"#;
        std::fs::write(&behavior, text).unwrap();
        let line = format!(
            "--affinity-file {} --enable-autoscaling --autoscaling-behavior-file {}",
            affinity.display(),
            behavior.display()
        );
        let spec = spec(&line).unwrap();
        let json = r#"{"nodeAffinity":{"requiredDuringSchedulingIgnoredDuringExecution":{}}}"#;
        assert_eq!(spec.bespoke.unwrap().affinity_json, json);
        let scale_down = spec.autoscaling.unwrap().behavior.unwrap().scale_down.unwrap();
        assert_eq!(scale_down.stabilization_window_seconds, Some(300));
        assert_eq!(scale_down.policies[0].value, 1);
    }

    #[test]
    fn a_file_that_holds_no_affinity_is_refused() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("affinity.yaml");
        std::fs::write(&path, "[1, 2]").unwrap();
        assert_eq!(spec(&format!("--affinity-file {}", path.display())).unwrap_err().exit_code(), 2);
        assert_eq!(spec("--affinity-file /nowhere").unwrap_err().exit_code(), 2);
    }
}
