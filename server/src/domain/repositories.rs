//! What the administrator allows of the places that models come from, and which Secret belongs to an address.

use std::net::IpAddr;

use url::{Host, Url};

use super::uri::HttpUri;

/// The administrator's decisions about the places of models.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Repositories {
    /// PersistentVolumeClaims that leases may name, in the namespace of the leases.
    pub claims: Vec<Claim>,
    /// Secrets of addresses. No two have the same target.
    pub credentials: Vec<Credential>,
    /// ConfigMap whose key `ca.crt` holds the authorities by which `https://` is believed, in place of the well-known ones.
    pub trust_bundle: Option<String>,
    /// Whether leases may name `http://`, which anyone on the way can read and change.
    pub allows_http: bool,
    /// Most bytes of one model, as it is downloaded and as it is unpacked.
    pub maximum_bytes: u64,
    /// Most bytes of all models of a lease together, with what is being unpacked; no less than those of one model.
    pub maximum_total_bytes: u64,
}

/// A PersistentVolumeClaim that leases may name.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Claim {
    /// Its name.
    pub name: String,
    /// Who can mount it.
    pub access: AccessMode,
}

/// Who can mount a claim, as Kubernetes words it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum AccessMode {
    /// Pods of one node.
    ReadWriteOnce,
    /// Pods of many nodes, to read.
    ReadOnlyMany,
    /// Pods of many nodes.
    ReadWriteMany,
}

/// A Secret whose content is sent as the `Authorization` header to some addresses.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Credential {
    /// To which addresses.
    pub target: Target,
    /// Name of the Secret, in the namespace of the leases.
    pub secret: String,
}

/// Addresses: those of a host and all its subdomains, below a path.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Target {
    host: TargetHost,
    port: Option<u16>,
    segments: Vec<String>,
}

#[derive(Clone, Debug, PartialEq, Eq)]
enum TargetHost {
    /// Labels from the right.
    Labels(Vec<String>),
    Address(IpAddr),
}

/// Why a text is not a target.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum NotATarget {
    /// It has a scheme.
    #[error("must be written without its scheme, such as models.example.com/internal")]
    Scheme,
    /// It has more than host, port and path.
    #[error(
        "must be a host and a path, such as models.example.com/internal: without user, query, fragment, * and .."
    )]
    More,
    /// It has no host that could be.
    #[error("must begin with a host name or an IP address, such as models.example.com/internal")]
    Host,
}

impl Repositories {
    /// Returns the claim of this name with its index, if leases may name it.
    pub fn claim(&self, name: &str) -> Option<(usize, &Claim)> {
        self.claims.iter().enumerate().find(|(_, claim)| claim.name == name)
    }

    /// Whether pods of one node alone can mount the claim of this name.
    pub fn is_for_one_node(&self, name: &str) -> bool {
        self.claim(name).is_some_and(|(_, claim)| claim.access == AccessMode::ReadWriteOnce)
    }

    /// Returns the Secret whose content is sent to an address: that of the most specific target. None is ever sent over
    /// plain http, where anyone on the way would read it.
    pub fn secret(&self, uri: &HttpUri) -> Option<&str> {
        if uri.is_plain { None } else { self.secret_of_target(uri) }
    }

    /// Returns the Secret of an address, whether or not it may be sent there.
    pub fn secret_of_target(&self, uri: &HttpUri) -> Option<&str> {
        let matching = self.credentials.iter().filter(|credential| credential.target.matches(uri));
        matching
            .max_by_key(|credential| credential.target.weight())
            .map(|credential| credential.secret.as_str())
    }
}

impl Target {
    /// Reads a target such as `models.example.com/internal` or `10.0.0.7:8443`.
    pub fn parse(text: &str) -> Result<Self, NotATarget> {
        if text.contains("://") {
            return Err(NotATarget::Scheme);
        }
        let is_more = text.contains(['@', '?', '#', '\\', '*', '%']) || text.contains(char::is_whitespace);
        if is_more || text.split('/').any(|segment| matches!(segment, "." | "..")) {
            return Err(NotATarget::More);
        }
        if text.is_empty() || text.starts_with('/') {
            return Err(NotATarget::Host);
        }
        let url = Url::parse(&format!("https://{text}")).map_err(|_| NotATarget::Host)?;
        // A URL forgets the port that its scheme means anyway; another scheme's URL keeps it.
        let written_port = || Url::parse(&format!("http://{text}")).ok().and_then(|url| url.port());
        let port = url.port().or_else(written_port);
        let host = match url.host().ok_or(NotATarget::Host)? {
            Host::Domain(name) => TargetHost::Labels(labels(name)),
            Host::Ipv4(address) => TargetHost::Address(address.into()),
            Host::Ipv6(address) => TargetHost::Address(address.into()),
        };
        Ok(Self { host, port, segments: segments(url.path()) })
    }

    /// Labels of the host count from the right, an IP address as a whole, segments of the path from the left.
    fn matches(&self, uri: &HttpUri) -> bool {
        let is_host = match (&self.host, uri.host.parse::<IpAddr>()) {
            (TargetHost::Address(own), Ok(address)) => *own == address,
            (TargetHost::Labels(own), Err(_)) => labels(&uri.host).starts_with(own),
            (TargetHost::Address(_), Err(_)) | (TargetHost::Labels(_), Ok(_)) => false,
        };
        let asked_port = uri.port.unwrap_or(if uri.is_plain { 80 } else { 443 });
        let is_port = self.port.is_none_or(|port| port == asked_port);
        is_host && is_port && segments(&uri.path).starts_with(&self.segments)
    }

    /// How specific it is: by its host first, then by its path, then by its port.
    fn weight(&self) -> (usize, usize, bool) {
        let labels = match &self.host {
            TargetHost::Labels(labels) => labels.len(),
            TargetHost::Address(_) => 1,
        };
        (labels, self.segments.len(), self.port.is_some())
    }
}

fn labels(host: &str) -> Vec<String> {
    host.trim_end_matches('.').rsplit('.').map(str::to_owned).collect()
}

fn segments(path: &str) -> Vec<String> {
    path.split('/').filter(|segment| !segment.is_empty()).map(str::to_owned).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::domain::uri::ModelUri;

    fn http(text: &str) -> HttpUri {
        match ModelUri::parse(text) {
            Ok(ModelUri::Http(uri)) => uri,
            other => panic!("{text}: {other:?}"),
        }
    }

    fn repositories(targets: &[&str]) -> Repositories {
        let credential = |target: &&str| Credential {
            target: Target::parse(target).expect(target),
            secret: format!("for {target}"),
        };
        Repositories {
            claims: Vec::new(),
            credentials: targets.iter().map(credential).collect(),
            allows_http: true,
            trust_bundle: None,
            maximum_bytes: 1,
            maximum_total_bytes: 2,
        }
    }

    #[test]
    fn a_secret_belongs_to_a_host_its_subdomains_and_what_is_below_a_path() {
        for (target, uri, belongs) in [
            ("models.company.com", "https://models.company.com/a", true),
            ("models.company.com", "https://cdn.models.company.com/a", true),
            ("models.company.com", "https://models.cdn.company.com/a", false),
            ("models.company.com", "https://evilmodels.company.com/a", false),
            ("models.company.com", "https://models.company.com.evil.org/a", false),
            ("Models.Company.com/", "https://MODELS.company.COM./a", true),
            ("h/internal-cdn/repository", "https://h/internal-cdn/repository/ai_models", true),
            ("h/internal-cdn/repository", "https://h/internal-cdn/ai_models/repository", false),
            ("h/internal", "https://h/internal-other/a", false),
            ("h/internal", "https://h/public/../internal/a", true),
            ("h/internal", "https://h/internal/%2e%2e/a", false),
            ("h/internal", "https://h/?/internal/a", false),
            ("10.0.0.7", "https://10.0.0.7/a", true),
            ("10.0.0.7", "https://0x0a000007:8443/a", true),
            ("0.0.7", "https://10.0.0.7/a", false),
            ("[2001:db8::1]", "https://[2001:DB8:0::1]/a", true),
            ("h:8443", "https://h:8443/a", true),
            ("h:8443", "https://h/a", false),
            ("h:443", "https://h/a", true),
            ("h:443", "https://h:8443/a", false),
            ("h:443", "https://sub.h:443/a", true),
            ("h", "https://h:8443/a", true),
        ] {
            assert_eq!(repositories(&[target]).secret(&http(uri)).is_some(), belongs, "{target} of {uri}");
        }
    }

    #[test]
    fn the_most_specific_target_wins_by_host_before_path() {
        let all = [
            "com",
            "example.com/a/b/c",
            "models.example.com",
            "models.example.com/a",
            "models.example.com:81",
        ];
        for (uri, target) in [
            ("https://other.com/a", "com"),
            ("https://example.com/a/b", "com"),
            ("https://example.com/a/b/c/d", "example.com/a/b/c"),
            ("https://models.example.com/a/b/c", "models.example.com/a"),
            ("https://models.example.com/b", "models.example.com"),
            ("https://models.example.com:81/b", "models.example.com:81"),
        ] {
            let mut targets = all;
            for _ in 0..2 {
                assert_eq!(
                    repositories(&targets).secret(&http(uri)),
                    Some(format!("for {target}").as_str()),
                    "{uri}"
                );
                targets.reverse();
            }
        }
    }

    #[test]
    fn no_secret_is_sent_where_anyone_can_read_it() {
        let repositories = repositories(&["h"]);
        assert_eq!(repositories.secret(&http("http://h/a")), None);
        assert_eq!(repositories.secret_of_target(&http("http://h/a")), Some("for h"));
    }

    #[test]
    fn a_target_is_a_host_and_a_path() {
        for (text, fault) in [
            ("https://h/a", NotATarget::Scheme),
            ("", NotATarget::Host),
            ("/a", NotATarget::Host),
            ("h:99999/a", NotATarget::Host),
            ("me@h/a", NotATarget::More),
            ("*.h/a", NotATarget::More),
            ("h/a/../b", NotATarget::More),
            ("h/a?b", NotATarget::More),
            ("h/%61", NotATarget::More),
        ] {
            assert_eq!(Target::parse(text), Err(fault), "{text}");
        }
    }
}
