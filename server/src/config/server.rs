//! Reads everything of values.yaml besides `server.autoscaling`: images, Kubernetes, listener, database, cluster, leases,
//! resources, logging.

use std::net::{IpAddr, SocketAddr};
use std::num::NonZeroU16;
use std::path::PathBuf;
use std::time::Duration;

use jiff::SignedDuration;
use secrecy::SecretString;

use super::reader::Reader;
use super::{
    Cluster, ClusterKind, Database, Leases, Listen, LogFormat, LogLevel, Logging, Password, Tls, labels,
};
use crate::domain::bounds::image::image_fault;
use crate::domain::bounds::names::extended_resource_fault;
use crate::domain::bounds::{RenewalBounds, ResourceBounds, Resources};
use crate::domain::lease::LifetimeBounds;
use crate::domain::quantity::Quantity;

/// Most notices that a lease gives of its end.
const MOST_NOTICES: usize = 8;

/// `images`.
pub(super) struct Images {
    pub server: String,
    pub triton: String,
    pub secrets: Vec<String>,
}

/// `server.triton`.
pub(super) struct Triton {
    pub pre_stop_seconds: u32,
    pub exit_timeout_seconds: u32,
}

#[derive(Clone, Copy, PartialEq)]
enum ServiceType {
    ClusterIp,
    NodePort,
    LoadBalancer,
}

pub(super) fn images(reader: &mut Reader) -> Option<Images> {
    let server = reader.required("images.server", image_fault);
    let triton = reader.required("images.triton", image_fault);
    let secrets: Vec<_> = (0..reader.length("images.secrets"))
        .map(|index| reader.required(&format!("images.secrets[{index}]"), labels::secret_fault))
        .collect();
    Some(Images { server: server?, triton: triton?, secrets: secrets.into_iter().collect::<Option<_>>()? })
}

pub(super) fn listen(reader: &mut Reader) -> Option<Listen> {
    let service = reader.choice(
        "server.apiService.type",
        &[
            ("ClusterIP", ServiceType::ClusterIp),
            ("NodePort", ServiceType::NodePort),
            ("LoadBalancer", ServiceType::LoadBalancer),
        ],
        None,
    );
    let port = port(reader, service);
    let address = address(reader);
    let tls = tls(reader);
    let is_insecure = reader.boolean("server.tls.insecure");
    let (address, tls, is_insecure) = (address?, tls?, is_insecure?);
    if !address.is_loopback() && tls.is_none() {
        let key = "server.apiService.address";
        if is_insecure {
            let problem = format!(
                "listens on {address} without TLS: everyone on the way can read and change what is said"
            );
            reader.warn("server.tls.insecure", problem, None);
        } else {
            reader.fault::<()>(key, "is not a loopback address, so it needs TLS".to_owned(), None);
            reader.advise(
                "set server.tls.certificateFile and server.tls.keyFile, or server.tls.insecure: true",
            );
        }
    }
    let lets_anyone_in = tls.as_ref().is_some_and(|tls| tls.client_ca_file.is_none());
    if !address.is_loopback() && lets_anyone_in {
        let problem = "names no authority of clients: whoever reaches the server is anonymous, and anonymous sees and \
                       releases the leases of all";
        reader.warn("server.tls.clientCaFile", problem.to_owned(), None);
    }
    Some(Listen { address: SocketAddr::new(address, port?), tls })
}

/// Reads the port of health.
pub(super) fn health(reader: &mut Reader) -> Option<Option<NonZeroU16>> {
    let (key, api_key) = ("server.apiService.healthPort", "server.apiService.port");
    let port = reader.small(key, 0..=65535)?;
    if port != 0 && reader.small(api_key, 0..=65535) == Some(port) {
        return reader.fault(key, format!("must be another port than {api_key}"), None);
    }
    Some(u16::try_from(port).ok().and_then(NonZeroU16::new))
}

fn port(reader: &mut Reader, service: Option<ServiceType>) -> Option<u16> {
    let key = "server.apiService.port";
    let port = reader.small(key, 0..=65535)?;
    if service == Some(ServiceType::NodePort) && !(30000..=32767).contains(&port) {
        return reader.fault(
            key,
            "must be an integer from 30000 to 32767 with server.apiService.type NodePort".to_owned(),
            None,
        );
    }
    u16::try_from(port).ok()
}

fn address(reader: &mut Reader) -> Option<IpAddr> {
    let key = "server.apiService.address";
    let text = reader.text(key)?;
    match text.parse() {
        Ok(address) => Some(address),
        Err(_) => {
            reader.fault(key, "must be an IP address, such as 127.0.0.1, 0.0.0.0 or ::".to_owned(), None)
        }
    }
}

fn tls(reader: &mut Reader) -> Option<Option<Tls>> {
    let certificate_file = path(reader, "server.tls.certificateFile");
    let key_file = path(reader, "server.tls.keyFile");
    let client_ca_file = path(reader, "server.tls.clientCaFile");
    let (certificate_file, key_file, client_ca_file) = (certificate_file?, key_file?, client_ca_file?);
    match (certificate_file, key_file) {
        (Some(certificate_file), Some(key_file)) => {
            Some(Some(Tls { certificate_file, key_file, client_ca_file }))
        }
        (Some(_), None) => reader.fault(
            "server.tls.keyFile",
            "must be given with server.tls.certificateFile".to_owned(),
            None,
        ),
        (None, Some(_)) => reader.fault(
            "server.tls.certificateFile",
            "must be given with server.tls.keyFile".to_owned(),
            None,
        ),
        (None, None) if client_ca_file.is_some() => {
            let problem = "needs server.tls.certificateFile and server.tls.keyFile".to_owned();
            reader.fault("server.tls.clientCaFile", problem, None)
        }
        (None, None) => Some(None),
    }
}

/// Reads a path, or nothing where it is empty.
fn path(reader: &mut Reader, key: &str) -> Option<Option<PathBuf>> {
    let text = reader.text(key)?;
    Some((!text.is_empty()).then(|| PathBuf::from(text)))
}

pub(super) fn database(reader: &mut Reader, password: Option<SecretString>) -> Option<Database> {
    let key = "server.database.url";
    let file = path(reader, "server.database.passwordFile");
    let url = reader.text(key)?;
    let is_known = ["sqlite:", "postgres:", "postgresql:"].iter().any(|scheme| url.starts_with(scheme));
    if holds_password(&url) {
        reader.fault::<()>(key, "must not hold a password".to_owned(), None);
        reader.advise("give the password by server.database.passwordFile or TMS_DATABASE_PASSWORD");
        return None;
    }
    if !is_known {
        return reader.fault(key, "must begin with sqlite: or postgres:".to_owned(), None);
    }
    let password = match (password, file?) {
        (Some(text), _) => Some(Password::Text(text)),
        (None, Some(file)) => Some(Password::File(file)),
        (None, None) => None,
    };
    Some(Database { url, password })
}

fn holds_password(url: &str) -> bool {
    let rest = url.split_once("://").map_or(url, |(_, rest)| rest);
    let (authority, query) = rest.split_once('?').unwrap_or((rest, ""));
    let in_authority = authority.rsplit_once('@').is_some_and(|(user, _)| user.contains(':'));
    let in_query = query.split('&').any(|part| part.to_ascii_lowercase().starts_with("password="));
    in_authority || in_query
}

pub(super) fn cluster(reader: &mut Reader) -> Option<Cluster> {
    #[derive(Clone, Copy)]
    enum Word {
        Manifests,
        Kubernetes,
    }
    let words = [("manifests", Word::Manifests), ("kubernetes", Word::Kubernetes)];
    let kind = reader.choice("server.cluster.kind", &words, None);
    let directory = path(reader, "server.cluster.manifests.directory");
    let kubeconfig = path(reader, "server.cluster.kubeconfig");
    let calls_in_flight = reader.small("server.cluster.callsInFlight", 1..=1000);
    let calls_per_second = reader.small("server.cluster.callsPerSecond", 1..=10_000);
    let call_timeout = reader.small("server.cluster.callTimeoutSeconds", 1..=300);
    let sweep_interval = reader.small("server.cluster.sweepIntervalSeconds", 1..=86_400);
    let kind = match kind? {
        Word::Kubernetes => ClusterKind::Kubernetes { kubeconfig: kubeconfig? },
        Word::Manifests => match directory? {
            Some(directory) => ClusterKind::Manifests { directory },
            None => {
                let problem = "must be given with server.cluster.kind manifests".to_owned();
                return reader.fault("server.cluster.manifests.directory", problem, None);
            }
        },
    };
    Some(Cluster {
        kind,
        calls_in_flight: usize::try_from(calls_in_flight?).ok()?,
        calls_per_second: calls_per_second?,
        call_timeout: Duration::from_secs(call_timeout?.into()),
        sweep_interval: Duration::from_secs(sweep_interval?.into()),
    })
}

pub(super) fn lifetime(reader: &mut Reader) -> Option<LifetimeBounds> {
    let [default_key, minimum_key, maximum_key] =
        ["server.leases.defaultLifetime", "server.leases.minimumLifetime", "server.leases.maximumLifetime"];
    let range = || SignedDuration::from_secs(1)..=SignedDuration::from_hours(3650 * 24);
    let default = reader.duration(default_key, range(), None);
    let minimum = reader.duration(minimum_key, range(), None);
    let maximum = reader.duration(maximum_key, range(), None);
    let [shown_default, shown_minimum, shown_maximum] = [default, minimum, maximum].map(|it| it.map(Shown));
    let default_pair = (default_key, shown_default.as_ref());
    reader.demand_order((minimum_key, shown_minimum.as_ref()), default_pair, None);
    reader.demand_order(default_pair, (maximum_key, shown_maximum.as_ref()), None);
    Some(LifetimeBounds { minimum: minimum?, default: default?, maximum: maximum? })
}

/// A duration as values.yaml writes it.
#[derive(PartialEq, PartialOrd)]
struct Shown(SignedDuration);

impl std::fmt::Display for Shown {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{:#}", self.0)
    }
}

pub(super) fn leases(reader: &mut Reader) -> Option<Leases> {
    let range = SignedDuration::from_mins(1)..=SignedDuration::from_hours(24);
    let load_timeout = reader.seconds("server.leases.loadTimeout", range, None);
    let maximum = reader.small("server.leases.maximumPerOwner", 0..=1_000_000);
    let (idle_window, look_interval) = automatic_renewal(reader);
    let notices = notices(reader);
    Some(Leases {
        load_timeout: SignedDuration::from_secs(load_timeout?.into()),
        maximum_per_owner: Some(maximum?).filter(|maximum| *maximum > 0),
        idle_window: idle_window?,
        look_interval: look_interval?,
        notices: notices?,
    })
}

fn automatic_renewal(reader: &mut Reader) -> (Option<SignedDuration>, Option<SignedDuration>) {
    let window_key = "server.leases.automaticRenewal.idleWindow";
    let range = || SignedDuration::from_secs(1)..=SignedDuration::from_hours(3650 * 24);
    let idle_window = reader.duration(window_key, range(), None);
    let interval_key = "server.leases.automaticRenewal.lookInterval";
    let looks = SignedDuration::from_secs(1)..=SignedDuration::from_hours(24);
    let look_interval = reader.seconds(interval_key, looks, None);
    let look_interval = look_interval.map(|seconds| SignedDuration::from_secs(seconds.into()));
    if let (Some(default_idle_window), Some(look_interval)) = (idle_window, look_interval) {
        let shortest = RenewalBounds { default_idle_window, look_interval }.minimum_idle_window();
        if default_idle_window < shortest {
            let problem = format!(
                "leaves less than three looks in an idle window: {interval_key} is {look_interval:#}, so that {window_key} \
                 must be at least {shortest:#}"
            );
            // A default is not what the administrator would change.
            let key = if reader.is_default(window_key) { interval_key } else { window_key };
            reader.fault::<()>(key, problem, None);
        }
    }
    (idle_window, look_interval)
}

fn notices(reader: &mut Reader) -> Option<Vec<SignedDuration>> {
    let key = "server.leases.notices";
    let range = || SignedDuration::from_secs(1)..=SignedDuration::from_hours(24 * 365);
    let count = reader.length(key);
    if count > MOST_NOTICES {
        return reader.fault(key, format!("must hold at most {MOST_NOTICES} durations"), None);
    }
    // All of them, so that every fault is found.
    let notices: Vec<_> =
        (0..count).map(|index| reader.duration(&format!("{key}[{index}]"), range(), None)).collect();
    notices.into_iter().collect()
}

pub(super) fn resources(reader: &mut Reader) -> Option<ResourceBounds> {
    let key = |part: &str| format!("server.resources.{part}");
    let gpus = reader.small(&key("default.gpus"), 0..=1024);
    let most_gpus = reader.small(&key("maximum.gpus"), 0..=1024);
    let cpu = reader.quantity(&key("default.cpu"));
    let most_cpu = reader.quantity(&key("maximum.cpu"));
    let memory = memory_at(reader, &key("default.memory"));
    let most_memory = memory_at(reader, &key("maximum.memory"));
    let shared_memory = memory_at(reader, &key("default.sharedMemory"));
    let gpu_resource = reader.required(&key("gpuResource"), extended_resource_fault);

    reader.demand_order(
        (&key("default.gpus"), gpus.as_ref()),
        (&key("maximum.gpus"), most_gpus.as_ref()),
        None,
    );
    reader.demand_order((&key("default.cpu"), cpu.as_ref()), (&key("maximum.cpu"), most_cpu.as_ref()), None);
    let (memory_key, shared_key) = (key("default.memory"), key("default.sharedMemory"));
    reader.demand_order((&memory_key, memory.as_ref()), (&key("maximum.memory"), most_memory.as_ref()), None);
    reader.demand_order((&shared_key, shared_memory.as_ref()), (&memory_key, memory.as_ref()), None);
    Some(ResourceBounds {
        default: Resources {
            gpus: gpus?,
            cpu: cpu?.to_string(),
            memory: memory?.to_string(),
            shared_memory: shared_memory?.to_string(),
        },
        maximum: Resources {
            gpus: most_gpus?,
            cpu: most_cpu?.to_string(),
            memory: most_memory?.to_string(),
            shared_memory: most_memory?.to_string(),
        },
        gpu_resource: gpu_resource?,
    })
}

fn memory_at(reader: &mut Reader, key: &str) -> Option<Quantity> {
    let quantity = reader.quantity(key)?;
    if quantity < Quantity::from_bytes(1 << 20) {
        return reader.fault(key, "must be at least 1Mi: without a unit it counts bytes".to_owned(), None);
    }
    Some(quantity)
}

pub(super) fn triton(reader: &mut Reader) -> Option<Triton> {
    let pre_stop_seconds = reader.small("server.triton.preStopSeconds", 0..=600);
    let exit_timeout_seconds = reader.small("server.triton.exitTimeoutSeconds", 1..=3600);
    Some(Triton { pre_stop_seconds: pre_stop_seconds?, exit_timeout_seconds: exit_timeout_seconds? })
}

/// Reads where the figures are served, or nothing where they are not.
pub(super) fn metrics(reader: &mut Reader) -> Option<Option<SocketAddr>> {
    let is_enabled = reader.boolean("server.metrics.enabled");
    let key = "server.metrics.listen";
    let listen = reader.text(key)?.parse();
    if listen.is_err() {
        let problem = "must be an IP address and a port, such as 0.0.0.0:30346 or [::]:30346".to_owned();
        reader.fault::<()>(key, problem, None);
    }
    Some(is_enabled?.then_some(listen.ok()?))
}

pub(super) fn logging(reader: &mut Reader) -> Option<Logging> {
    let formats = [("text", LogFormat::Text), ("json", LogFormat::Json)];
    let levels = [
        ("error", LogLevel::Error),
        ("warn", LogLevel::Warn),
        ("info", LogLevel::Info),
        ("debug", LogLevel::Debug),
        ("trace", LogLevel::Trace),
    ];
    let format = reader.choice("server.logging.format", &formats, None);
    let level = reader.choice("server.logging.level", &levels, None);
    Some(Logging { format: format?, level: level? })
}
