//! The containers of a pod: Triton, and the agent that lays out its models and loads them in order.

use std::collections::BTreeMap;

use k8s_openapi::api::core::v1::{
    Capabilities, Container, ContainerPort, EnvVar, EnvVarSource, HTTPGetAction, Lifecycle, LifecycleHandler,
    ObjectFieldSelector, Probe, ResourceRequirements, SecurityContext, SleepAction,
};
use k8s_openapi::apimachinery::pkg::api::resource::Quantity;
use k8s_openapi::apimachinery::pkg::util::intstr::IntOrString;

use super::storage::{self, Storage};
use super::{AGENT_PORT, Settings, TRITON_GRPC, TRITON_HTTP, TRITON_METRICS, int};
use crate::domain::lease::{LeaseId, Spec, Triton};

/// Name of Triton's container.
pub const TRITON: &str = "triton";
/// Name of Triton's HTTP port.
pub(super) const HTTP_PORT: &str = "http";
/// Name of Triton's gRPC port.
pub(super) const GRPC_PORT: &str = "grpc";
/// Name of Triton's port for metrics.
pub(super) const METRICS_PORT: &str = "metrics";
/// Name of the agent's container, which is an init container, and of its port.
pub const AGENT: &str = "agent";
/// Variable that gives the agent the models, as JSON in the order in which they are loaded.
const MODELS_VARIABLE: &str = "TMS_MODELS";
/// Variable with the key that opens Triton's repository API to the agent alone, lest clients unload each other's models.
const KEY_VARIABLE: &str = "TMS_REPOSITORY_KEY";
/// Header that carries the key.
const KEY_HEADER: &str = "tms-key";
/// Seconds between two looks at the agent.
const AGENT_PERIOD_SECONDS: u32 = 2;
/// Connections of gRPC are closed after this time, a tenth more or less and with what is under way on them answered, so that
/// clients find the replicas that were added meanwhile.
const CONNECTION_AGE_MS: u32 = 30_000;

/// Returns the agent: a native sidecar, so that Triton starts only when the models are laid out.
pub(super) fn agent(id: LeaseId, storage: &Storage<'_>, settings: &Settings) -> Container {
    let repositories = &settings.repositories;
    let mut environment = variables([(MODELS_VARIABLE, storage.models_as_json().as_str())]);
    environment.push(repository_key());
    environment.extend(variables([
        ("TMS_MAXIMUM_BYTES", repositories.maximum_bytes.to_string().as_str()),
        ("TMS_MAXIMUM_TOTAL_BYTES", repositories.maximum_total_bytes.to_string().as_str()),
        ("TMS_ALLOW_HTTP", if repositories.allows_http { "true" } else { "false" }),
    ]));
    environment.extend(storage.trust());
    Container {
        name: AGENT.to_owned(),
        image: Some(settings.server_image.clone()),
        restart_policy: Some("Always".to_owned()),
        args: Some(vec!["agent".to_owned(), format!("--lease={id}")]),
        env: Some(environment),
        ports: Some(vec![port(AGENT, AGENT_PORT.into())]),
        resources: Some(ResourceRequirements {
            requests: Some(quantities([("cpu", "50m"), ("memory", "64Mi")])),
            limits: Some(quantities([("memory", "256Mi")])),
            claims: None,
        }),
        startup_probe: Some(Probe {
            failure_threshold: Some(int(settings.load_timeout_seconds.div_ceil(AGENT_PERIOD_SECONDS).max(1))),
            period_seconds: Some(int(AGENT_PERIOD_SECONDS)),
            ..probe(AGENT, "/fetched")
        }),
        // A Triton that was started again is ready by itself before it has a model: the first no counts.
        readiness_probe: Some(Probe {
            period_seconds: Some(int(AGENT_PERIOD_SECONDS)),
            timeout_seconds: Some(5),
            failure_threshold: Some(1),
            ..probe(AGENT, "/ready")
        }),
        security_context: Some(SecurityContext { read_only_root_filesystem: Some(true), ..restricted() }),
        termination_message_policy: Some("File".to_owned()),
        volume_mounts: Some(storage.mounts_of_agent()),
        ..Container::default()
    }
}

/// Returns Triton, which starts without models and is given them by the agent.
pub(super) fn triton(spec: &Spec, storage: &Storage<'_>, settings: &Settings) -> Container {
    Container {
        name: TRITON.to_owned(),
        image: Some(spec.triton.image.clone()),
        args: Some(arguments(&spec.triton, settings)),
        env: Some(environment(&spec.triton)),
        ports: Some(vec![
            port(HTTP_PORT, TRITON_HTTP.into()),
            port(GRPC_PORT, TRITON_GRPC.into()),
            port(METRICS_PORT, TRITON_METRICS.into()),
        ]),
        resources: Some(resources(&spec.triton)),
        // Without it, the liveness probe would end a Triton that is slow to set up its GPUs.
        startup_probe: Some(Probe {
            period_seconds: Some(2),
            timeout_seconds: Some(5),
            failure_threshold: Some(150),
            ..probe(HTTP_PORT, "/v2/health/live")
        }),
        readiness_probe: Some(Probe {
            period_seconds: Some(5),
            timeout_seconds: Some(5),
            failure_threshold: Some(3),
            ..probe(HTTP_PORT, "/v2/health/ready")
        }),
        liveness_probe: Some(Probe {
            period_seconds: Some(10),
            timeout_seconds: Some(5),
            failure_threshold: Some(6),
            ..probe(HTTP_PORT, "/v2/health/live")
        }),
        lifecycle: pre_stop(settings),
        security_context: Some(restricted()),
        volume_mounts: Some(storage.mounts_of_triton()),
        ..Container::default()
    }
}

fn arguments(triton: &Triton, settings: &Settings) -> Vec<String> {
    let key = format!("model-repository:{KEY_HEADER}=$({KEY_VARIABLE})");
    let mut arguments = vec![
        "tritonserver".to_owned(),
        format!("--model-repository={}", storage::REPOSITORY),
        "--model-control-mode=explicit".to_owned(),
        "--strict-readiness=true".to_owned(),
        format!("--exit-timeout-secs={}", settings.exit_timeout_seconds),
        format!("--grpc-max-connection-age={CONNECTION_AGE_MS}"),
        format!("--http-restricted-api={key}"),
        format!("--grpc-restricted-protocol={key}"),
    ];
    if triton.gpus == 0 {
        arguments.push("--allow-gpu-metrics=false".to_owned());
    }
    arguments
}

fn environment(triton: &Triton) -> Vec<EnvVar> {
    let mut environment: BTreeMap<&str, &str> =
        triton.environment.iter().map(|(name, value)| (name.as_str(), value.as_str())).collect();
    if triton.gpus == 0 {
        // CUDA images ask for every GPU of a node whose default runtime is NVIDIA's.
        environment.insert("NVIDIA_VISIBLE_DEVICES", "void");
    }
    let mut variables = variables(environment);
    variables.push(repository_key());
    variables
}

/// The UID of the pod: random, known to the pod and to those who may read pods, and no Secret that somebody has to keep.
fn repository_key() -> EnvVar {
    EnvVar {
        name: KEY_VARIABLE.to_owned(),
        value: None,
        value_from: Some(EnvVarSource {
            field_ref: Some(ObjectFieldSelector { api_version: None, field_path: "metadata.uid".to_owned() }),
            ..EnvVarSource::default()
        }),
    }
}

/// Returns variables that arrive word for word: Kubernetes would replace `$(NAME)` and halve `$$`.
fn variables<'a>(pairs: impl IntoIterator<Item = (&'a str, &'a str)>) -> Vec<EnvVar> {
    let variable = |(name, value): (&str, &str)| EnvVar {
        name: name.to_owned(),
        value: Some(value.replace('$', "$$")),
        value_from: None,
    };
    pairs.into_iter().map(variable).collect()
}

fn resources(triton: &Triton) -> ResourceRequirements {
    let requests = quantities([("cpu", triton.cpu.as_str()), ("memory", &triton.memory)]);
    let mut limits = quantities([("memory", triton.memory.as_str())]);
    if triton.gpus > 0 {
        limits.insert(triton.gpu_resource.clone(), Quantity(triton.gpus.to_string()));
    }
    ResourceRequirements { requests: Some(requests), limits: Some(limits), claims: None }
}

fn pre_stop(settings: &Settings) -> Option<Lifecycle> {
    // Older clusters refuse a sleep of zero seconds.
    (settings.pre_stop_seconds > 0).then(|| Lifecycle {
        pre_stop: Some(LifecycleHandler {
            sleep: Some(SleepAction { seconds: settings.pre_stop_seconds.into() }),
            ..LifecycleHandler::default()
        }),
        ..Lifecycle::default()
    })
}

fn restricted() -> SecurityContext {
    SecurityContext {
        allow_privilege_escalation: Some(false),
        capabilities: Some(Capabilities { drop: Some(vec!["ALL".to_owned()]), add: None }),
        ..SecurityContext::default()
    }
}

fn probe(port: &str, path: &str) -> Probe {
    Probe {
        http_get: Some(HTTPGetAction {
            path: Some(path.to_owned()),
            port: IntOrString::String(port.to_owned()),
            ..HTTPGetAction::default()
        }),
        ..Probe::default()
    }
}

fn port(name: &str, number: i32) -> ContainerPort {
    ContainerPort { name: Some(name.to_owned()), container_port: number, ..ContainerPort::default() }
}

fn quantities<const N: usize>(pairs: [(&str, &str); N]) -> BTreeMap<String, Quantity> {
    pairs.into_iter().map(|(resource, amount)| (resource.to_owned(), Quantity(amount.to_owned()))).collect()
}
