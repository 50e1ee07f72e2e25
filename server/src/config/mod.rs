//! The configuration: the built-in values.yaml, the administrator's files and the environment in one, validated once
//! into types that cannot hold a wrong value. Every fault is found at once.

mod autoscaling;
mod builtin;
mod capabilities;
mod chart;
pub mod check;
mod demand;
mod environment;
pub mod finding;
mod keda;
mod labels;
mod layer;
mod reader;
mod repositories;
mod scalar;
pub mod schema;
mod server;
mod shape;
#[cfg(test)]
mod tests;

use std::net::SocketAddr;
use std::num::NonZeroU16;
use std::path::PathBuf;
use std::time::Duration;

use jiff::SignedDuration;
use secrecy::SecretString;

pub use capabilities::check_capabilities;
pub use environment::environment;
pub use finding::{Finding, Invalid, Origin, Source};

use crate::domain::bounds::names::label_value_fault;
use crate::domain::bounds::{Bounds, Provider, RenewalBounds};
use crate::domain::life::Deadlines;
use crate::domain::plan;
use layer::{Document, Layer};
use reader::Reader;
use shape::{Conform, Shape};

/// The values.yaml that holds every default.
const BUILT_IN: &str = include_str!("../../../helm/values.yaml");

/// The configuration of a server.
#[derive(Clone, Debug)]
pub struct Config {
    /// What leases may ask for.
    pub bounds: Bounds,
    /// Namespace of the objects of leases; `None` is the server's own.
    pub namespace: Option<String>,
    /// Where the server answers.
    pub listen: Listen,
    /// Port on which health alone is answered, without TLS; `None` is nowhere.
    pub health_port: Option<NonZeroU16>,
    /// Where leases are kept.
    pub database: Database,
    /// Where the objects of leases go.
    pub cluster: Cluster,
    /// Limits on leases besides their lifetimes.
    pub leases: Leases,
    /// Where the figures of the server are served; `None` for nowhere.
    pub metrics: Option<SocketAddr>,
    /// How custom.metrics.k8s.io is served; `None` where it is not.
    pub custom_metrics: Option<CustomMetrics>,
    /// What the doctor may look at.
    pub doctor: Doctor,
    /// What is logged, and how.
    pub logging: Logging,
    /// Settings of plans, but for the installation, which the database knows.
    plan: plan::Settings,
}

impl Config {
    /// Returns the settings that plans depend on.
    pub fn plan_settings(&self, installation: String) -> plan::Settings {
        plan::Settings { installation, ..self.plan.clone() }
    }

    /// Returns what the clock does to leases besides ending them.
    pub fn deadlines(&self) -> Deadlines {
        Deadlines { load_timeout: self.leases.load_timeout, notices: self.leases.notices.clone() }
    }
}

/// Where the server answers.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Listen {
    /// Address and port; port 0 is any free one.
    pub address: SocketAddr,
    /// TLS, where it is on.
    pub tls: Option<Tls>,
}

/// TLS of the listener, as PEM files.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Tls {
    /// Certificate and those between it and its root.
    pub certificate_file: PathBuf,
    /// Private key.
    pub key_file: PathBuf,
    /// Authorities whose clients alone are let in.
    pub client_ca_file: Option<PathBuf>,
}

/// Where leases are kept.
#[derive(Clone, Debug)]
pub struct Database {
    /// URL without a password, of SQLite or PostgreSQL.
    pub url: String,
    password: Option<Password>,
}

#[derive(Clone, Debug)]
enum Password {
    Text(SecretString),
    File(PathBuf),
}

/// The file of the database's password cannot be read.
#[derive(Debug, thiserror::Error)]
#[error("cannot read server.database.passwordFile {}", path.display())]
pub struct NoPassword {
    path: PathBuf,
    source: std::io::Error,
}

impl Database {
    /// Returns the password, read afresh where a file holds it.
    pub fn password(&self) -> Result<Option<SecretString>, NoPassword> {
        match &self.password {
            None => Ok(None),
            Some(Password::Text(text)) => Ok(Some(text.clone())),
            Some(Password::File(path)) => {
                let text = std::fs::read_to_string(path)
                    .map_err(|source| NoPassword { path: path.clone(), source })?;
                Ok(Some(SecretString::from(text.trim_end_matches(['\r', '\n']))))
            }
        }
    }
}

/// Where the objects of leases go, and how hard it may be driven.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Cluster {
    /// Directory or cluster.
    pub kind: ClusterKind,
    /// Calls under way at once.
    pub calls_in_flight: usize,
    /// Calls started in a second.
    pub calls_per_second: u32,
    /// After which a call is given up.
    pub call_timeout: Duration,
    /// Between two looks at every lease.
    pub sweep_interval: Duration,
}

/// Where the objects of leases go.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum ClusterKind {
    /// To a directory.
    Manifests {
        /// The directory.
        directory: PathBuf,
    },
    /// To a cluster.
    Kubernetes {
        /// Its kubeconfig; `None` is the account of the pod or the user's own kubeconfig.
        kubeconfig: Option<PathBuf>,
    },
}

/// Limits on leases besides their lifetimes.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Leases {
    /// How long a replica may take to be ready; whole seconds.
    pub load_timeout: SignedDuration,
    /// Leases that one owner may hold at a time; `None` is any number.
    pub maximum_per_owner: Option<u32>,
    /// Idle window of a lease that asks for renewal by use and names none.
    pub idle_window: SignedDuration,
    /// Time between two looks at the use of leases; whole seconds.
    pub look_interval: SignedDuration,
    /// How long before its end a lease gives notice of it.
    pub notices: Vec<SignedDuration>,
}

/// How the server serves custom.metrics.k8s.io.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct CustomMetrics {
    /// Address and port; port 0 is any free one.
    pub address: SocketAddr,
    /// Name of the Service in front of it, and of the Secret of its certificate.
    pub service_name: String,
    /// Prometheus from which the series are read; `None` asks the Tritons.
    pub prometheus_url: Option<String>,
    /// Time between two looks at a Triton.
    pub scrape_interval: Duration,
    /// Time after which a look is given up.
    pub scrape_timeout: Duration,
    /// Time over which values are averaged.
    pub window: Duration,
}

/// What the doctor may look at besides the leases and their namespace.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Doctor {
    /// Prometheus that it asks.
    pub prometheus_url: Option<String>,
    /// Whether it reads Prometheus objects, the namespace of the leases, and APIServices.
    pub has_cluster_rights: bool,
}

/// What is logged, and how.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Logging {
    /// For whom.
    pub format: LogFormat,
    /// From which weight on.
    pub level: LogLevel,
}

/// Form of a log line.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum LogFormat {
    /// For people.
    Text,
    /// For machines.
    Json,
}

/// Weight of a log line.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum LogLevel {
    /// Failures.
    Error,
    /// What may become one.
    Warn,
    /// What happens to leases.
    Info,
    /// What the server does for that.
    Debug,
    /// Everything.
    Trace,
}

impl LogLevel {
    /// Returns the word for it, as a filter of `tracing` reads it.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Error => "error",
            Self::Warn => "warn",
            Self::Info => "info",
            Self::Debug => "debug",
            Self::Trace => "trace",
        }
    }
}

/// Reads the configuration from these files, of which each later one wins, and from the environment, which wins over
/// them. Returns it with what is worth knowing about it.
pub fn load(
    files: &[PathBuf],
    environment: impl Iterator<Item = (String, String)>,
) -> Result<(Config, Vec<Finding>), Invalid> {
    let reading = read(files, environment);
    reading.config.map(|config| (config, reading.warnings)).ok_or(Invalid(reading.faults))
}

/// What came of reading a configuration.
struct Reading {
    /// The configuration, unless there are faults.
    config: Option<Config>,
    faults: Vec<Finding>,
    warnings: Vec<Finding>,
}

fn read(files: &[PathBuf], environment: impl Iterator<Item = (String, String)>) -> Reading {
    let built_in = layer::parse(BUILT_IN, &Source::BuiltIn).expect("the built-in values.yaml is valid YAML");
    let shape = Shape::of(&built_in.value);
    let mut layers: Vec<Layer> = Vec::new();
    let (mut faults, mut warnings) = (Vec::new(), Vec::new());
    let mut sources: Vec<Source> = Vec::new();
    let mut add = |source: Source, content: Document| {
        sources.push(source.clone());
        let mut conform = Conform::new(source, &shape);
        match content {
            Ok(content) => layers.push(conform.layer(&content)),
            Err(fault) => conform.faults.push(*fault),
        }
        faults.append(&mut conform.faults);
        warnings.append(&mut conform.warnings);
    };

    add(Source::BuiltIn, Ok(built_in));
    for path in files {
        add(Source::File(path.clone()), layer::read_file(path));
    }
    let environment = environment::read(environment, &shape);
    for (source, content) in environment.variables {
        add(source, content);
    }

    let mut reader = Reader::new(layer::merge(&layers), faults, warnings);
    let config = config(&mut reader, environment.password);
    let config = config.filter(|_| reader.faults.is_empty());
    let Reader { mut faults, mut warnings, .. } = reader;
    for findings in [&mut faults, &mut warnings] {
        findings.sort_by_key(|finding| {
            (sources.iter().position(|source| *source == finding.origin.source), finding.origin.position)
        });
    }
    Reading { config, faults, warnings }
}

/// Reads every key, then builds the configuration if all of them are sound.
fn config(reader: &mut Reader, password: Option<SecretString>) -> Option<Config> {
    let images = server::images(reader);
    let namespace = reader.optional("kubernetes.namespace", labels::namespace_fault);
    let part_of = reader.optional("kubernetes.partOf", label_value_fault);
    let custom_labels = labels::labels(reader, "kubernetes.customLabels", None);
    let custom_annotations = labels::annotations(reader, "kubernetes.customAnnotations");
    let listen = server::listen(reader);
    let database = server::database(reader, password);
    let cluster = server::cluster(reader);
    let lifetime = server::lifetime(reader);
    let leases = server::leases(reader);
    let resources = server::resources(reader);
    let repositories = repositories::repositories(reader);
    let autoscaling = autoscaling::bounds(reader);
    let prometheus = autoscaling::prometheus(reader);
    let builtin = builtin::builtin(reader);
    let keda = keda::keda(reader);
    let triton = server::triton(reader);
    let metrics = server::metrics(reader);
    let logging = server::logging(reader);
    let health = server::health(reader);
    let has_cluster_rights = reader.boolean("server.doctor.clusterRights");
    chart::check(reader);

    let (images, autoscaling, prometheus, triton) = (images?, autoscaling?, prometheus?, triton?);
    let (cluster, leases, repositories) = (cluster?, leases?, repositories?);
    let (listen, keda) = (listen?, keda?);
    keda::demand_prometheus(reader, &keda, &autoscaling);
    let custom_metrics = builtin::custom_metrics(
        reader,
        builtin?,
        &autoscaling,
        &prometheus,
        listen.address.ip(),
        &cluster.kind,
    );
    let of_builtin = custom_metrics.as_ref().and_then(|served| served.prometheus_url.clone());
    let of_keda = keda.prometheus_url.clone().filter(|_| autoscaling.provider == Provider::Keda);
    let doctor = Doctor {
        prometheus_url: prometheus.url.clone().or(of_builtin).or(of_keda),
        has_cluster_rights: has_cluster_rights?,
    };
    let asks_tritons = custom_metrics.as_ref().is_some_and(|served| served.prometheus_url.is_none());
    if autoscaling.enabled && !asks_tritons {
        autoscaling::warn_of_labels(reader, &prometheus);
    }
    let plan = plan::Settings {
        installation: String::new(),
        server_image: images.server,
        pull_secrets: images.secrets,
        part_of: part_of?,
        custom_labels: custom_labels?,
        custom_annotations: custom_annotations?,
        pod_monitor_labels: prometheus.pod_monitor_labels,
        rule_labels: prometheus.rule_labels,
        repositories: repositories.clone(),
        provider: autoscaling.provider,
        keda,
        gpu_source: autoscaling.gpu_source,
        scrape_interval_seconds: prometheus.scrape_interval_seconds,
        scrape_timeout_seconds: prometheus.scrape_timeout_seconds,
        window_seconds: prometheus.window_seconds,
        load_timeout_seconds: u32::try_from(leases.load_timeout.as_secs()).ok()?,
        pre_stop_seconds: triton.pre_stop_seconds,
        exit_timeout_seconds: triton.exit_timeout_seconds,
    };
    let automatic_renewal = match cluster.kind {
        ClusterKind::Manifests { .. } => None,
        ClusterKind::Kubernetes { .. } => Some(RenewalBounds {
            default_idle_window: leases.idle_window,
            look_interval: leases.look_interval,
        }),
    };
    let bounds = Bounds {
        autoscaling,
        lifetime: lifetime?,
        resources: resources?,
        repositories,
        default_image: images.triton,
        automatic_renewal,
    };
    Some(Config {
        bounds,
        namespace: namespace?,
        listen,
        health_port: health?,
        database: database?,
        cluster,
        leases,
        metrics: metrics?,
        custom_metrics,
        doctor,
        logging: logging?,
        plan,
    })
}
