//! Where a model is fetched from: `pvc://CLAIM/PATH`, `https://…` or `http://…`. What the administrator allows of these is
//! decided in `repositories`. Neither a refusal nor a printed uri repeats credentials, which a query may hold too.

use std::fmt;
use std::net::IpAddr;

use url::{Host, Url};

use super::bounds::names::is_domain;

/// Most bytes of a uri.
const LONGEST: usize = 2048;
/// Most bytes of a file's name on Linux.
const LONGEST_SEGMENT: usize = 255;
/// Begins the one fragment that means something.
const SHA256: &str = "sha256=";

/// Where a model is fetched from.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum ModelUri {
    /// A directory or an archive inside a PersistentVolumeClaim.
    Claim {
        /// Name of the claim.
        claim: String,
        /// Path inside the claim: segments divided by single slashes, none of them empty, `.` or `..`. Nothing in it is
        /// percent-decoded.
        path: String,
    },
    /// An archive that is downloaded.
    Http(HttpUri),
}

/// The address of an archive, normalised as browsers do it, so that everyone who reads it finds the same host in it.
#[derive(Clone, PartialEq, Eq)]
pub struct HttpUri {
    /// The whole address with its query, without the fragment. The query may be a signature: it is for the request alone,
    /// never for a log.
    pub url: String,
    /// Whether it is `http://`, so that anyone on the way can read and change what is fetched.
    pub is_plain: bool,
    /// Name in lower case, without a dot at its end, or IP address, without brackets.
    pub host: String,
    /// Port, where it is not that of the scheme.
    pub port: Option<u16>,
    /// Path, percent-encoded, beginning with a slash.
    pub path: String,
    /// SHA-256 of the file that is downloaded, where the fragment gives it.
    pub sha256: Option<[u8; 32]>,
}

/// Why a text is not the uri of a model. Each says what is allowed.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum UriError {
    /// More bytes than anyone needs.
    #[error("the uri is longer than {LONGEST} bytes")]
    TooLong,
    /// Characters that no uri holds.
    #[error(
        "the uri contains white space or control characters: percent-encode them in https://, and rename the file in pvc://"
    )]
    Blank,
    /// Not a uri.
    #[error(
        "the uri has no scheme: write it in full, such as https://models.example.com/resnet.tar.gz or pvc://claim/resnet"
    )]
    NoScheme,
    /// A scheme that nothing serves, with what is said of it.
    #[error("the uri begins with {scheme}://, {advice}")]
    Scheme {
        /// The scheme.
        scheme: String,
        /// What to do instead.
        advice: &'static str,
    },
    /// A user or a password.
    #[error(
        "the uri contains credentials: leave them out, since others can read a lease; the administrator binds a Secret to \
         the address (server.modelRepositories.https)"
    )]
    Credentials,
    /// Nothing where the host belongs.
    #[error(
        "the uri names no host after its scheme: write it in full, such as https://models.example.com/resnet.tar.gz"
    )]
    NoHost,
    /// No host or port that could be.
    #[error("the uri has no valid host and port: {0}")]
    Authority(url::ParseError),
    /// A backslash, which some programs take for a slash.
    #[error(
        "the uri contains a backslash: write / between segments, or %5C where the character itself is meant"
    )]
    Backslash,
    /// A fragment that says nothing.
    #[error(
        "the fragment of the uri is not #sha256= with the 64 hexadecimal digits of the file: write # as %23 where it belongs to the address"
    )]
    Fragment,
    /// No name of a claim.
    #[error(
        "the uri does not begin with pvc:// and the name of a PersistentVolumeClaim: at most 253 of a-z 0-9 - . are, with a letter or digit at both ends of each part"
    )]
    Claim,
    /// Nothing after the claim.
    #[error(
        "the uri names no path inside the claim: write the model's directory or archive, such as pvc://claim/resnet"
    )]
    NoPath,
    /// A path that could lead elsewhere.
    #[error("the path inside the claim has a segment {0:?}: write it without empty segments, . and ..")]
    Segment(String),
    /// A name that no file can have.
    #[error("the path inside the claim has a segment of more than {LONGEST_SEGMENT} bytes")]
    LongSegment,
    /// Parts of a uri that a path has not.
    #[error(
        "the path inside the claim contains ? or #: rename the file, since pvc:// has neither query nor fragment"
    )]
    NotAPath,
}

impl ModelUri {
    /// Reads the uri of a model.
    pub fn parse(text: &str) -> Result<Self, UriError> {
        if text.len() > LONGEST {
            return Err(UriError::TooLong);
        }
        if text.chars().any(|c| c.is_whitespace() || c.is_control()) {
            return Err(UriError::Blank);
        }
        let Some((scheme, rest)) = text.split_once("://").filter(|(scheme, _)| is_scheme(scheme)) else {
            return Err(UriError::NoScheme);
        };
        match scheme {
            "pvc" => claim(rest),
            "https" | "http" => http(text, rest).map(Self::Http),
            _ => Err(UriError::Scheme { scheme: scheme.to_owned(), advice: advice(scheme) }),
        }
    }
}

/// Without query and fragment.
impl fmt::Display for ModelUri {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Claim { claim, path } => write!(f, "pvc://{claim}/{path}"),
            Self::Http(uri) => uri.fmt(f),
        }
    }
}

/// Without query and fragment.
impl fmt::Display for HttpUri {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(without_query(&self.url))
    }
}

/// Without the query.
impl fmt::Debug for HttpUri {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("HttpUri")
            .field("url", &without_query(&self.url))
            .field("sha256", &self.sha256)
            .finish()
    }
}

/// Returns the part of an address that may be printed: all before the query, which may be a signature.
pub fn without_query(uri: &str) -> &str {
    uri.split(['?', '#']).next().unwrap_or_default()
}

fn is_scheme(text: &str) -> bool {
    text.starts_with(|c: char| c.is_ascii_lowercase())
        && text.bytes().all(|b| matches!(b, b'a'..=b'z' | b'0'..=b'9' | b'+' | b'.' | b'-'))
}

/// What to do about a scheme that is not served.
fn advice(scheme: &str) -> &'static str {
    match scheme {
        "s3" | "gs" | "as" | "az" | "azure" | "abfs" | "abfss" | "wasbs" => {
            "and object stores come in a later version: use a signed https:// address of the archive, or pvc://"
        }
        "hf" | "huggingface" | "oci" | "model" | "ngc" => {
            "which comes in a later version: use https:// with an archive of the model, or pvc://"
        }
        "nfs" | "smb" | "cifs" => {
            "which comes in a later version: ask the administrator for a PersistentVolumeClaim of that server, and use pvc://"
        }
        "file" => {
            "which is never served, since replicas see no files but their own: put the model on a PersistentVolumeClaim (pvc://) \
             or on a web server (https://)"
        }
        _ => "which is not known: https://, http:// and pvc:// are",
    }
}

fn claim(rest: &str) -> Result<ModelUri, UriError> {
    let (claim, path) = rest.split_once('/').unwrap_or((rest, ""));
    if claim.contains('@') {
        return Err(UriError::Credentials);
    }
    if !is_domain(claim) {
        return Err(UriError::Claim);
    }
    // A directory may be written with a slash at its end.
    let path = path.strip_suffix('/').unwrap_or(path);
    if path.is_empty() {
        return Err(UriError::NoPath);
    }
    if path.contains(['?', '#']) {
        return Err(UriError::NotAPath);
    }
    for segment in path.split('/') {
        if matches!(segment, "" | "." | "..") {
            return Err(UriError::Segment(segment.to_owned()));
        }
        if segment.len() > LONGEST_SEGMENT {
            return Err(UriError::LongSegment);
        }
    }
    Ok(ModelUri::Claim { claim: claim.to_owned(), path: path.to_owned() })
}

fn http(text: &str, rest: &str) -> Result<HttpUri, UriError> {
    let (address, fragment) = match text.split_once('#') {
        Some((address, fragment)) => (address, Some(fragment)),
        None => (text, None),
    };
    // The parser would look for a host further on, and take a backslash for a slash.
    let authority = rest.split(['/', '?', '#', '\\']).next().unwrap_or_default();
    if authority.contains('@') {
        return Err(UriError::Credentials);
    }
    if authority.is_empty() {
        return Err(UriError::NoHost);
    }
    if address.contains('\\') {
        return Err(UriError::Backslash);
    }
    let url = Url::parse(address).map_err(UriError::Authority)?;
    let host = match url.host() {
        Some(Host::Domain(name)) => name.trim_end_matches('.').to_owned(),
        Some(Host::Ipv4(address)) => IpAddr::V4(address).to_string(),
        Some(Host::Ipv6(address)) => IpAddr::V6(address).to_string(),
        None => return Err(UriError::NoHost),
    };
    if host.is_empty() {
        return Err(UriError::NoHost);
    }
    let sha256 = match fragment {
        Some(fragment) => Some(fragment.strip_prefix(SHA256).and_then(digest).ok_or(UriError::Fragment)?),
        None => None,
    };
    Ok(HttpUri {
        is_plain: url.scheme() == "http",
        host,
        port: url.port(),
        path: url.path().to_owned(),
        sha256,
        url: url.into(),
    })
}

/// Reads 64 hexadecimal digits.
fn digest(text: &str) -> Option<[u8; 32]> {
    let digits = text.chars().map(|c| c.to_digit(16)).collect::<Option<Vec<_>>>()?;
    let bytes = digits
        .chunks(2)
        .map(|pair| pair.iter().fold(0, |byte, digit| byte << 4 | *digit as u8))
        .collect::<Vec<_>>();
    (digits.len() == 64).then(|| bytes.try_into().ok()).flatten()
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    const HEX: &str = "0123456789abcdef0123456789ABCDEF0123456789abcdef0123456789abcdef";

    fn refusal(text: &str) -> String {
        ModelUri::parse(text).expect_err(text).to_string()
    }

    fn http(text: &str) -> HttpUri {
        match ModelUri::parse(text) {
            Ok(ModelUri::Http(uri)) => uri,
            other => panic!("{text}: {other:?}"),
        }
    }

    #[test]
    fn a_claim_and_a_path_inside_it_are_taken_word_for_word() {
        for (text, claim, path) in [
            ("pvc://models/resnet", "models", "resnet"),
            ("pvc://models/resnet/", "models", "resnet"),
            ("pvc://models.v2/a/b/resnet.tar.gz", "models.v2", "a/b/resnet.tar.gz"),
            ("pvc://models/100%25/..a/…", "models", "100%25/..a/…"),
        ] {
            let expected = ModelUri::Claim { claim: claim.to_owned(), path: path.to_owned() };
            assert_eq!(ModelUri::parse(text), Ok(expected), "{text}");
        }
    }

    #[test]
    fn an_address_is_normalised_and_its_checksum_is_not_sent() {
        let uri = http(&format!("https://Models.Example.COM.:8443/a/./b/../c%2Fd?sig=x%3D&a#sha256={HEX}"));
        assert_eq!(uri.url, "https://models.example.com.:8443/a/c%2Fd?sig=x%3D&a");
        assert_eq!((uri.is_plain, uri.host.as_str(), uri.port), (false, "models.example.com", Some(8443)));
        assert_eq!(uri.path, "/a/c%2Fd");
        assert_eq!(uri.sha256.map(|sum| (sum[0], sum[15], sum[31])), Some((0x01, 0xef, 0xef)));

        let plain = http("http://[2001:DB8::1]:80/x");
        assert_eq!((plain.is_plain, plain.host.as_str(), plain.port), (true, "2001:db8::1", None));
        // As programs in C read it: nothing else may see another host.
        assert_eq!(http("https://0x7f.1/x").host, "127.0.0.1");
    }

    #[test]
    fn the_query_is_never_printed() {
        let uri = ModelUri::parse(&format!("https://models.example.com/a.zip?signature=secret#sha256={HEX}"))
            .unwrap();
        assert_eq!(uri.to_string(), "https://models.example.com/a.zip");
        assert!(!format!("{uri:?}").contains("secret"), "{uri:?}");
        for text in
            ["https://h:99999/?secret", "https:///x?secret", "https://h/?secret#secret", "s3://h/?secret"]
        {
            let refused = ModelUri::parse(text).unwrap_err();
            assert!(!format!("{refused} {refused:?}").contains("secret"), "{refused:?}");
        }
    }

    #[test]
    fn every_refusal_says_what_is_allowed() {
        let long = format!("https://{}", "a".repeat(2041));
        let long_segment = format!("pvc://models/{}", "a".repeat(256));
        let refusals = [
            "",
            "resnet",
            "/models/x",
            "://x",
            "HTTPS://x/y",
            "https:x",
            long.as_str(),
            "https://a b",
            "https://a\u{0}",
            "https://",
            "https:///x",
            "https://.",
            "https://?x",
            "https://u:p@h",
            "https://token@h/x",
            "https://h:99999/",
            "https://a^b/",
            "https://h\\@evil/x",
            "https://h/a\\b",
            "https://h/x#",
            "https://h/x#sha256=00",
            "https://h/x#md5=00",
            "pvc://",
            "pvc:///x",
            "pvc://Models/x",
            "pvc://me@models/x",
            "pvc://models",
            "pvc://models/",
            "pvc://models//x",
            "pvc://models/a//",
            "pvc://models/../x",
            "pvc://models/a/.",
            "pvc://models/a?b",
            long_segment.as_str(),
            "s3://bucket/x",
            "hf://a/b",
            "nfs://server/x",
            "file:///models/x",
            "ftp://host/x",
        ];
        let table = refusals.map(|text| {
            let start: String = text.chars().take(24).collect();
            format!("{start:?}: {}", refusal(text))
        });
        insta::assert_snapshot!(table.join("\n"), @r#"
        "": the uri has no scheme: write it in full, such as https://models.example.com/resnet.tar.gz or pvc://claim/resnet
        "resnet": the uri has no scheme: write it in full, such as https://models.example.com/resnet.tar.gz or pvc://claim/resnet
        "/models/x": the uri has no scheme: write it in full, such as https://models.example.com/resnet.tar.gz or pvc://claim/resnet
        "://x": the uri has no scheme: write it in full, such as https://models.example.com/resnet.tar.gz or pvc://claim/resnet
        "HTTPS://x/y": the uri has no scheme: write it in full, such as https://models.example.com/resnet.tar.gz or pvc://claim/resnet
        "https:x": the uri has no scheme: write it in full, such as https://models.example.com/resnet.tar.gz or pvc://claim/resnet
        "https://aaaaaaaaaaaaaaaa": the uri is longer than 2048 bytes
        "https://a b": the uri contains white space or control characters: percent-encode them in https://, and rename the file in pvc://
        "https://a\0": the uri contains white space or control characters: percent-encode them in https://, and rename the file in pvc://
        "https://": the uri names no host after its scheme: write it in full, such as https://models.example.com/resnet.tar.gz
        "https:///x": the uri names no host after its scheme: write it in full, such as https://models.example.com/resnet.tar.gz
        "https://.": the uri names no host after its scheme: write it in full, such as https://models.example.com/resnet.tar.gz
        "https://?x": the uri names no host after its scheme: write it in full, such as https://models.example.com/resnet.tar.gz
        "https://u:p@h": the uri contains credentials: leave them out, since others can read a lease; the administrator binds a Secret to the address (server.modelRepositories.https)
        "https://token@h/x": the uri contains credentials: leave them out, since others can read a lease; the administrator binds a Secret to the address (server.modelRepositories.https)
        "https://h:99999/": the uri has no valid host and port: invalid port number
        "https://a^b/": the uri has no valid host and port: invalid international domain name
        "https://h\\@evil/x": the uri contains a backslash: write / between segments, or %5C where the character itself is meant
        "https://h/a\\b": the uri contains a backslash: write / between segments, or %5C where the character itself is meant
        "https://h/x#": the fragment of the uri is not #sha256= with the 64 hexadecimal digits of the file: write # as %23 where it belongs to the address
        "https://h/x#sha256=00": the fragment of the uri is not #sha256= with the 64 hexadecimal digits of the file: write # as %23 where it belongs to the address
        "https://h/x#md5=00": the fragment of the uri is not #sha256= with the 64 hexadecimal digits of the file: write # as %23 where it belongs to the address
        "pvc://": the uri does not begin with pvc:// and the name of a PersistentVolumeClaim: at most 253 of a-z 0-9 - . are, with a letter or digit at both ends of each part
        "pvc:///x": the uri does not begin with pvc:// and the name of a PersistentVolumeClaim: at most 253 of a-z 0-9 - . are, with a letter or digit at both ends of each part
        "pvc://Models/x": the uri does not begin with pvc:// and the name of a PersistentVolumeClaim: at most 253 of a-z 0-9 - . are, with a letter or digit at both ends of each part
        "pvc://me@models/x": the uri contains credentials: leave them out, since others can read a lease; the administrator binds a Secret to the address (server.modelRepositories.https)
        "pvc://models": the uri names no path inside the claim: write the model's directory or archive, such as pvc://claim/resnet
        "pvc://models/": the uri names no path inside the claim: write the model's directory or archive, such as pvc://claim/resnet
        "pvc://models//x": the path inside the claim has a segment "": write it without empty segments, . and ..
        "pvc://models/a//": the path inside the claim has a segment "": write it without empty segments, . and ..
        "pvc://models/../x": the path inside the claim has a segment "..": write it without empty segments, . and ..
        "pvc://models/a/.": the path inside the claim has a segment ".": write it without empty segments, . and ..
        "pvc://models/a?b": the path inside the claim contains ? or #: rename the file, since pvc:// has neither query nor fragment
        "pvc://models/aaaaaaaaaaa": the path inside the claim has a segment of more than 255 bytes
        "s3://bucket/x": the uri begins with s3://, and object stores come in a later version: use a signed https:// address of the archive, or pvc://
        "hf://a/b": the uri begins with hf://, which comes in a later version: use https:// with an archive of the model, or pvc://
        "nfs://server/x": the uri begins with nfs://, which comes in a later version: ask the administrator for a PersistentVolumeClaim of that server, and use pvc://
        "file:///models/x": the uri begins with file://, which is never served, since replicas see no files but their own: put the model on a PersistentVolumeClaim (pvc://) or on a web server (https://)
        "ftp://host/x": the uri begins with ftp://, which is not known: https://, http:// and pvc:// are
        "#);
    }

    proptest! {
        #[test]
        fn no_text_makes_the_parser_panic(text in "(pvc|https?|[a-z]{1,5})(://)?\\PC{0,60}") {
            let _ = ModelUri::parse(&text);
        }

        #[test]
        fn an_accepted_claim_leads_nowhere_else(text in "pvc://[a-z.-]{1,5}/[a-z./%\\\\]{0,12}") {
            if let Ok(ModelUri::Claim { claim, path }) = ModelUri::parse(&text) {
                prop_assert!(!claim.contains('/') && !claim.contains(".."));
                prop_assert!(path.split('/').all(|segment| !matches!(segment, "" | "." | "..")), "{path}");
                prop_assert_eq!(text.trim_end_matches('/'), format!("pvc://{claim}/{path}"));
            }
        }

        #[test]
        fn reading_a_normalised_address_again_changes_nothing(text in "https?://[a-zA-Z0-9.@:\\[\\]%-]{1,12}[/a-z.%?&=]{0,20}") {
            if let Ok(ModelUri::Http(uri)) = ModelUri::parse(&text) {
                prop_assert_eq!(Some(uri.clone()), match ModelUri::parse(&uri.url) {
                    Ok(ModelUri::Http(again)) => Some(again),
                    _ => None,
                });
                prop_assert!(!uri.host.contains(['@', '/', '?']), "{}", uri.host);
            }
        }
    }
}
