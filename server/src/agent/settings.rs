//! What the agent is told by its environment. The plan of a lease's pod writes these variables; tests replace the paths.

use std::fmt;
use std::net::{Ipv4Addr, Ipv6Addr, SocketAddr, TcpListener};
use std::path::PathBuf;

use hyper::header::HeaderValue;
use serde::Deserialize;

use super::room::Room;
use crate::domain::plan::AGENT_PORT;

/// One model of the lease.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize)]
pub struct Model {
    /// Name under which Triton serves it, which is a plain name of a directory.
    pub name: String,
    /// Where it is fetched from.
    pub uri: String,
    /// Name of the Secret whose content is sent as `Authorization` header.
    #[serde(default)]
    pub secret: Option<String>,
}

/// What the agent is told.
#[derive(Clone)]
pub struct Settings {
    /// The models in the order in which they are loaded.
    pub models: Vec<Model>,
    /// Key of Triton's repository API.
    pub repository_key: Option<HeaderValue>,
    /// Most bytes of one model, downloaded and unpacked each, and of all of them with what is being unpacked.
    pub room: Room,
    /// Whether `http://` is allowed.
    pub allow_http: bool,
    /// Where Triton's HTTP port is, such as `http://127.0.0.1:8000`.
    pub triton_url: String,
    /// Where the agent listens.
    pub address: SocketAddr,
    /// Triton's model repository.
    pub models_directory: PathBuf,
    /// Where claims are mounted.
    pub claims_directory: PathBuf,
    /// Where Secrets are mounted.
    pub credentials_directory: PathBuf,
    /// Where Kubernetes reads why the agent ended.
    pub termination_log: PathBuf,
}

/// A variable that the agent cannot work with.
#[derive(Debug, thiserror::Error)]
#[error("{variable} {problem}")]
pub struct SettingsError {
    variable: &'static str,
    problem: String,
}

impl Settings {
    /// Reads the variables that `lookup` knows.
    pub fn read(lookup: impl Fn(&str) -> Option<String>) -> Result<Self, SettingsError> {
        let directory =
            |variable, default: &str| PathBuf::from(lookup(variable).unwrap_or_else(|| default.to_owned()));
        Ok(Self {
            models: models(&required(&lookup, "TMS_MODELS")?)?,
            repository_key: lookup("TMS_REPOSITORY_KEY").map(|key| header(&key)).transpose()?,
            room: room(&lookup)?,
            allow_http: flag("TMS_ALLOW_HTTP", lookup("TMS_ALLOW_HTTP").as_deref())?,
            triton_url: lookup("TMS_TRITON_URL").unwrap_or_else(|| "http://127.0.0.1:8000".to_owned()),
            address: address(lookup("TMS_AGENT_ADDRESS").as_deref())?,
            models_directory: directory("TMS_MODELS_DIRECTORY", "/models"),
            claims_directory: directory("TMS_CLAIMS_DIRECTORY", "/claims"),
            credentials_directory: directory("TMS_CREDENTIALS_DIRECTORY", "/credentials"),
            termination_log: directory("TMS_TERMINATION_LOG", "/dev/termination-log"),
        })
    }
}

/// Without the key.
impl fmt::Debug for Settings {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Settings")
            .field("models", &self.models.len())
            .field("room", &self.room)
            .field("allow_http", &self.allow_http)
            .finish_non_exhaustive()
    }
}

fn required(
    lookup: impl Fn(&str) -> Option<String>,
    variable: &'static str,
) -> Result<String, SettingsError> {
    lookup(variable).ok_or_else(|| wrong(variable, "is not set: the agent is started by the pod of a lease"))
}

fn models(text: &str) -> Result<Vec<Model>, SettingsError> {
    let models: Vec<Model> = serde_json::from_str(text)
        .map_err(|error| wrong("TMS_MODELS", format!("is not a list of models in JSON: {error}")))?;
    for model in &models {
        let is_plain =
            !model.name.is_empty() && !model.name.starts_with('.') && !model.name.contains(['/', '\0']);
        if !is_plain {
            let problem = format!("has a model {:?}, whose name cannot be a directory's", model.name);
            return Err(wrong("TMS_MODELS", problem));
        }
        if models.iter().filter(|other| other.name == model.name).count() > 1 {
            return Err(wrong("TMS_MODELS", format!("has the model {:?} twice", model.name)));
        }
    }
    Ok(models)
}

fn header(key: &str) -> Result<HeaderValue, SettingsError> {
    let mut value =
        HeaderValue::from_str(key).map_err(|_| wrong("TMS_REPOSITORY_KEY", "cannot be a header's value"))?;
    value.set_sensitive(true);
    Ok(value)
}

fn room(lookup: impl Fn(&str) -> Option<String>) -> Result<Room, SettingsError> {
    const TOTAL: &str = "TMS_MAXIMUM_TOTAL_BYTES";
    let each = bytes("TMS_MAXIMUM_BYTES", &required(&lookup, "TMS_MAXIMUM_BYTES")?)?;
    // Pods of leases of an older server have none.
    let total = lookup(TOTAL).map_or(Ok(u64::MAX), |text| bytes(TOTAL, &text))?;
    Ok(Room::new(each, total))
}

fn bytes(variable: &'static str, text: &str) -> Result<u64, SettingsError> {
    let bytes = text.parse().ok().filter(|bytes| *bytes > 0);
    bytes.ok_or_else(|| wrong(variable, format!("is {text:?}, which is not a positive number of bytes")))
}

fn flag(variable: &'static str, text: Option<&str>) -> Result<bool, SettingsError> {
    match text {
        None | Some("false") => Ok(false),
        Some("true") => Ok(true),
        Some(other) => Err(wrong(variable, format!("is {other:?}, which is neither true nor false"))),
    }
}

fn address(text: Option<&str>) -> Result<SocketAddr, SettingsError> {
    match text {
        Some(text) => text.parse().map_err(|_| {
            wrong("TMS_AGENT_ADDRESS", format!("is {text:?}, which is not an address and a port"))
        }),
        // Pods have IPv4, IPv6 or both; the second kind of socket takes both, where the node knows it.
        None if TcpListener::bind((Ipv6Addr::UNSPECIFIED, 0)).is_ok() => {
            Ok((Ipv6Addr::UNSPECIFIED, AGENT_PORT).into())
        }
        None => Ok((Ipv4Addr::UNSPECIFIED, AGENT_PORT).into()),
    }
}

fn wrong(variable: &'static str, problem: impl Into<String>) -> SettingsError {
    SettingsError { variable, problem: problem.into() }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(variables: &[(&str, &str)]) -> Result<Settings, SettingsError> {
        Settings::read(|name| {
            let found = variables.iter().find(|(variable, _)| *variable == name);
            found.map(|(_, value)| (*value).to_owned())
        })
    }

    #[test]
    fn the_variables_of_a_pod_are_read() {
        let settings = read(&[
            (
                "TMS_MODELS",
                r#"[{"name":"a","uri":"pvc://c/a"},{"name":"b","uri":"https://h/b","secret":"s"}]"#,
            ),
            ("TMS_MAXIMUM_BYTES", "1024"),
            ("TMS_REPOSITORY_KEY", "a-key"),
        ])
        .unwrap();
        assert_eq!(settings.models[1].secret.as_deref(), Some("s"));
        assert_eq!((settings.room, settings.allow_http), (Room::new(1024, u64::MAX), false));
        assert_eq!(settings.triton_url, "http://127.0.0.1:8000");
        assert_eq!((settings.address.port(), settings.address.ip().is_unspecified()), (8010, true));
        assert!(!format!("{settings:?} {:?}", settings.repository_key).contains("a-key"));
    }

    #[test]
    fn a_wrong_variable_is_named() {
        let maximum = ("TMS_MAXIMUM_BYTES", "1");
        let none = ("TMS_MODELS", "[]");
        let table: [&[(&str, &str)]; 9] = [
            &[maximum],
            &[none],
            &[none, ("TMS_MAXIMUM_BYTES", "1Gi")],
            &[none, maximum, ("TMS_MAXIMUM_TOTAL_BYTES", "0")],
            &[maximum, ("TMS_MODELS", "{}")],
            &[maximum, ("TMS_MODELS", r#"[{"name":"../a","uri":""}]"#)],
            &[maximum, ("TMS_MODELS", r#"[{"name":"a","uri":""},{"name":"a","uri":""}]"#)],
            &[maximum, none, ("TMS_ALLOW_HTTP", "yes")],
            &[maximum, none, ("TMS_AGENT_ADDRESS", "8010")],
        ];
        let refusals = table.map(|variables| read(variables).unwrap_err().to_string());
        insta::assert_snapshot!(refusals.join("\n"), @r#"
        TMS_MODELS is not set: the agent is started by the pod of a lease
        TMS_MAXIMUM_BYTES is not set: the agent is started by the pod of a lease
        TMS_MAXIMUM_BYTES is "1Gi", which is not a positive number of bytes
        TMS_MAXIMUM_TOTAL_BYTES is "0", which is not a positive number of bytes
        TMS_MODELS is not a list of models in JSON: invalid type: map, expected a sequence at line 1 column 0
        TMS_MODELS has a model "../a", whose name cannot be a directory's
        TMS_MODELS has the model "a" twice
        TMS_ALLOW_HTTP is "yes", which is neither true nor false
        TMS_AGENT_ADDRESS is "8010", which is not an address and a port
        "#);
    }
}
