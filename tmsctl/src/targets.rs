//! The saved targets: which servers there are, what their names are, and which one is meant where none is named.

use std::collections::BTreeMap;
use std::fs::{self, OpenOptions};
use std::io::{self, Write};
use std::path::{Path, PathBuf};

use serde::{Deserialize, Serialize};
use tonic::transport::Uri;

use crate::failure::Failure;

/// A server, and the files that secure the way to it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Target {
    /// `http://` or `https://`, host and port.
    pub url: String,
    /// Certificates of the authorities that may sign the server's certificate, in PEM.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub ca: Option<PathBuf>,
    /// Certificate of the caller, in PEM.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub certificate: Option<PathBuf>,
    /// Private key of the caller, in PEM.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub key: Option<PathBuf>,
}

/// What the configuration file holds.
#[derive(Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Targets {
    /// Name of the target that is meant where none is named.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub default: Option<String>,
    /// Saved targets by name.
    #[serde(default)]
    pub targets: BTreeMap<String, Target>,
}

impl Targets {
    /// Reads the file; one that does not exist holds no targets.
    pub fn load(path: &Path) -> Result<Self, Failure> {
        let text = match fs::read_to_string(path) {
            Ok(text) => text,
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(Self::default()),
            Err(error) => return Err(Failure::local(format!("{} cannot be read: {error}", path.display()))),
        };
        if text.trim().is_empty() {
            return Ok(Self::default());
        }
        serde_saphyr::from_str(&text)
            .map_err(|error| Failure::local(format!("{} makes no sense: {error}", path.display())))
    }

    /// Replaces the file as a whole, readable by its owner alone.
    pub fn save(&self, path: &Path) -> Result<(), Failure> {
        let text = serde_saphyr::to_string(self)
            .map_err(|error| Failure::local(format!("the targets cannot be written as YAML: {error}")))?;
        replace_file(path, &text)
            .map_err(|error| Failure::local(format!("{} cannot be written: {error}", path.display())))
    }

    /// Returns the target that a URL or a saved name means, or the default where neither is given.
    pub fn resolve(&self, wanted: Option<&str>) -> Result<Target, Failure> {
        let name = match (wanted, &self.default) {
            (Some(wanted), _) if wanted.contains("://") => {
                return Ok(Target {
                    url: parse_url(wanted).map_err(Failure::usage)?,
                    ca: None,
                    certificate: None,
                    key: None,
                });
            }
            (Some(wanted), _) => wanted,
            (None, Some(default)) => default,
            (None, None) => return Err(self.no_target()),
        };
        self.get(name).cloned()
    }

    /// Returns the saved target of that name.
    pub fn get(&self, name: &str) -> Result<&Target, Failure> {
        self.targets.get(name).ok_or_else(|| {
            let failure = Failure::usage(format!("there is no target {name:?}"));
            match self.targets.is_empty() {
                true => failure
                    .hint(format!("save it with `tmsctl target add {name} https://…`, or give its URL")),
                false => failure.hint(format!(
                    "the saved ones are {}; a URL begins with http:// or https://",
                    self.names()
                )),
            }
        })
    }

    fn no_target(&self) -> Failure {
        let failure = Failure::usage("no server is named, and there is no default target");
        match self.targets.is_empty() {
            true => {
                failure.hint("save one with `tmsctl target add NAME URL`, or give --target URL or TMS_TARGET")
            }
            false => failure.hint(format!(
                "choose one with `tmsctl target set NAME` or --target NAME; the saved ones are {}",
                self.names()
            )),
        }
    }

    fn names(&self) -> String {
        self.targets.keys().map(String::as_str).collect::<Vec<_>>().join(", ")
    }
}

/// Returns where the configuration file is: `TMSCTL_CONFIG`, or the platform's folder for configuration.
pub fn path() -> Result<PathBuf, Failure> {
    if let Some(path) = std::env::var_os("TMSCTL_CONFIG").filter(|path| !path.is_empty()) {
        return Ok(PathBuf::from(path));
    }
    directories::ProjectDirs::from("", "", "tmsctl")
        .map(|folders| folders.config_dir().join("config.yaml"))
        .ok_or_else(|| {
            Failure::local("this account has no home folder to keep targets in")
                .hint("TMSCTL_CONFIG names the file to use instead")
        })
}

/// Returns the URL of a server without a trailing slash, or why it is none.
pub fn parse_url(text: &str) -> Result<String, String> {
    let uri: Uri = text.parse().map_err(|error| format!("{text:?} is no URL: {error}"))?;
    let Some(authority) = uri.authority() else {
        return Err(format!("{text:?} is no URL: it begins with http:// or https://, then host and port"));
    };
    if !matches!(uri.scheme_str(), Some("http" | "https")) {
        return Err(format!("{text:?} begins with neither http:// nor https://"));
    }
    if authority.as_str().contains('@') {
        return Err(format!("{text:?} has credentials in it, which belong into --certificate and --key"));
    }
    if !matches!(uri.path(), "" | "/") || uri.query().is_some() {
        return Err(format!("{text:?} has more than host and port"));
    }
    Ok(text.trim_end_matches('/').to_owned())
}

/// Returns whether a URL leaves this machine without encryption.
pub fn is_exposed(url: &str) -> bool {
    let Ok(uri) = url.parse::<Uri>() else { return false };
    let host = uri.host().unwrap_or_default().trim_start_matches('[').trim_end_matches(']');
    let is_loopback =
        host == "localhost" || host.parse::<std::net::IpAddr>().is_ok_and(|address| address.is_loopback());
    uri.scheme_str() == Some("http") && !is_loopback
}

fn replace_file(path: &Path, text: &str) -> io::Result<()> {
    // A link to the file, as dotfile managers make it, stays a link.
    let path = fs::canonicalize(path).unwrap_or_else(|_| path.to_owned());
    let folder = match path.parent() {
        Some(parent) if !parent.as_os_str().is_empty() => parent,
        _ => Path::new("."),
    };
    fs::create_dir_all(folder)?;
    let draft = folder.join(format!(".tmsctl-{}", uuid::Uuid::new_v4().simple()));
    let result = write_privately(&draft, text).and_then(|()| fs::rename(&draft, &path));
    if result.is_err() {
        let _ = fs::remove_file(&draft);
    }
    result
}

fn write_privately(path: &Path, text: &str) -> io::Result<()> {
    let mut options = OpenOptions::new();
    options.write(true).create_new(true);
    #[cfg(unix)]
    std::os::unix::fs::OpenOptionsExt::mode(&mut options, 0o600);
    let mut file = options.open(path)?;
    file.write_all(text.as_bytes())?;
    file.sync_all()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn target(url: &str) -> Target {
        Target { url: url.into(), ca: None, certificate: None, key: None }
    }

    fn two() -> Targets {
        Targets {
            default: Some("prod".into()),
            targets: BTreeMap::from([
                ("lab".into(), Target { ca: Some("/etc/tms/ca.pem".into()), ..target("https://lab:30345") }),
                ("prod".into(), target("https://tms.example.com")),
            ]),
        }
    }

    #[test]
    fn what_is_saved_is_what_is_loaded_and_only_its_owner_reads_it() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("deep/config.yaml");
        assert_eq!(Targets::load(&path).unwrap(), Targets::default());
        two().save(&path).unwrap();
        two().save(&path).unwrap();
        assert_eq!(Targets::load(&path).unwrap(), two());
        insta::assert_snapshot!(fs::read_to_string(&path).unwrap(), @r"
        default: prod
        targets:
          lab:
            url: https://lab:30345
            ca: /etc/tms/ca.pem
          prod:
            url: https://tms.example.com
        ");
        use std::os::unix::fs::PermissionsExt;
        assert_eq!(fs::metadata(&path).unwrap().permissions().mode() & 0o777, 0o600);
        assert_eq!(fs::read_dir(path.parent().unwrap()).unwrap().count(), 1, "no draft is left behind");
    }

    #[test]
    fn a_file_with_an_unknown_key_is_refused() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("config.yaml");
        fs::write(&path, "defualt: prod\n").unwrap();
        let report = Targets::load(&path).unwrap_err().report();
        assert!(report.contains("defualt"), "{report}");
    }

    #[test]
    fn a_target_is_named_by_url_by_name_or_by_default() {
        let targets = two();
        for (wanted, url) in [
            (Some("http://127.0.0.1:9/"), "http://127.0.0.1:9"),
            (Some("lab"), "https://lab:30345"),
            (None, "https://tms.example.com"),
        ] {
            assert_eq!(targets.resolve(wanted).unwrap().url, url);
        }
    }

    #[test]
    fn a_target_that_is_not_there_is_a_usage_error_with_a_hint() {
        let none = Targets::default();
        let no_default = Targets { default: None, ..two() };
        for (targets, wanted, fault, hint) in [
            (&none, None, "no server is named", "tmsctl target add NAME URL"),
            (&none, Some("lab"), "there is no target \"lab\"", "tmsctl target add lab"),
            (&no_default, None, "no server is named", "the saved ones are lab, prod"),
            (&no_default, Some("lap"), "there is no target \"lap\"", "the saved ones are lab, prod"),
            (&no_default, Some("ftp://x"), "neither http:// nor https://", ""),
        ] {
            let failure = targets.resolve(wanted).unwrap_err();
            let report = failure.report();
            assert_eq!(failure.exit_code(), 2);
            assert!(report.contains(fault) && report.contains(hint), "{wanted:?}: {report}");
        }
    }

    #[test]
    fn a_url_is_a_scheme_a_host_and_a_port() {
        for good in ["http://localhost:30345", "https://tms.example.com", "https://[::1]:1"] {
            assert_eq!(parse_url(good).unwrap(), good);
        }
        for bad in [
            "localhost:30345",
            "ftp://host",
            "https://host/path",
            "https://me:secret@host",
            "https://",
            "a b",
        ] {
            assert!(parse_url(bad).is_err(), "{bad}");
        }
    }

    #[test]
    fn only_http_off_loopback_is_exposed() {
        for (url, exposed) in [
            ("http://localhost:1", false),
            ("http://127.0.0.1:1", false),
            ("http://[::1]:1", false),
            ("https://tms.example.com", false),
            ("http://tms.example.com", true),
            ("http://10.0.0.1:30345", true),
        ] {
            assert_eq!(is_exposed(url), exposed, "{url}");
        }
    }
}
