//! The syntax of a reference to a container image: `[host[:port]/]path[:tag][@digest]`.

/// Longest name of an image, without tag and digest.
const LONGEST_NAME: usize = 255;

/// What is wrong with a reference, in words that follow it, or nothing where all is well.
pub(crate) fn image_fault(reference: &str) -> Option<&'static str> {
    let (rest, digest) = match reference.split_once('@') {
        Some((rest, digest)) => (rest, Some(digest)),
        None => (reference, None),
    };
    let end_of_host = rest.rfind('/').unwrap_or(0);
    let (name, tag) = match rest[end_of_host..].find(':') {
        Some(colon) => (&rest[..end_of_host + colon], Some(&rest[end_of_host + colon + 1..])),
        None => (rest, None),
    };
    if name.len() > LONGEST_NAME {
        return Some("names an image with more than 255 characters");
    }
    if !is_name(name) {
        return Some("is not an image, such as nvcr.io/nvidia/tritonserver:25.06-py3");
    }
    if tag.is_some_and(|tag| !is_tag(tag)) {
        return Some(
            "has a malformed tag: 1 to 128 of A-Z a-z 0-9 _ . - make one, not beginning with . or -",
        );
    }
    if digest.is_some_and(|digest| !is_digest(digest)) {
        return Some("has a malformed digest: sha256: and 64 hexadecimal digits make one");
    }
    None
}

fn is_name(name: &str) -> bool {
    match name.split_once('/') {
        Some((host, path)) if is_like_host(host) => is_host(host) && path.split('/').all(is_path_component),
        Some(_) | None => name.split('/').all(is_path_component),
    }
}

/// Docker's rule for whether the first component is a host.
fn is_like_host(component: &str) -> bool {
    component == "localhost"
        || component.contains(['.', ':'])
        || component.bytes().any(|b| b.is_ascii_uppercase())
}

fn is_host(host: &str) -> bool {
    let (domain, port) = match host.split_once(':') {
        Some((domain, port)) => (domain, Some(port)),
        None => (host, None),
    };
    let is_label = |label: &str| {
        label.starts_with(|c: char| c.is_ascii_alphanumeric())
            && label.ends_with(|c: char| c.is_ascii_alphanumeric())
            && label.bytes().all(|b| b.is_ascii_alphanumeric() || b == b'-')
    };
    domain.split('.').all(is_label)
        && port.is_none_or(|port| port.parse::<u16>().is_ok() && port.bytes().all(|b| b.is_ascii_digit()))
}

/// Lower-case letters and digits, with `.`, `_`, `__` or any number of `-` between them.
fn is_path_component(component: &str) -> bool {
    let is_plain = |c: char| c.is_ascii_lowercase() || c.is_ascii_digit();
    let is_separator = |text: &str| matches!(text, "" | "." | "_" | "__") || text.bytes().all(|b| b == b'-');
    component.starts_with(is_plain)
        && component.ends_with(is_plain)
        && component.split(is_plain).all(is_separator)
}

fn is_tag(tag: &str) -> bool {
    (1..=128).contains(&tag.len())
        && !tag.starts_with(['.', '-'])
        && tag.bytes().all(|b| b.is_ascii_alphanumeric() || matches!(b, b'_' | b'.' | b'-'))
}

fn is_digest(digest: &str) -> bool {
    digest.split_once(':').is_some_and(|(algorithm, value)| {
        let length = match algorithm {
            "sha256" => 64,
            "sha512" => 128,
            _ => return false,
        };
        value.len() == length && value.bytes().all(|b| matches!(b, b'0'..=b'9' | b'a'..=b'f'))
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_reference_has_the_form_that_registries_know() {
        let digest = format!("sha256:{}", "0".repeat(64));
        for reference in [
            "triton",
            "library/triton",
            "nvcr.io/nvidia/tritonserver:25.06-py3",
            "localhost/x",
            "localhost:5000/x:1",
            "registry.example.com:5000/a/b__c/d-e--f.g:Tag_1",
            "REGISTRY/x",
            &format!("a@{digest}"),
            &format!("a.b/c:1@{digest}"),
        ] {
            assert_eq!(image_fault(reference), None, "{reference}");
        }
        for reference in [
            "",
            " ",
            "a b",
            "a\n",
            "A",
            "a/",
            "/a",
            "a//b",
            "a:",
            "a:-x",
            "a:b:c",
            "a.b:x/c",
            "a.b:99999/c",
            "a@",
            "a@sha256:12",
            "a@md5:0",
            "https://nvcr.io/x",
            "a_-b",
            "a___b",
            "-a",
            "é",
            ":1",
            &format!("@{digest}"),
            &"a".repeat(256),
            &format!("a:{}", "b".repeat(129)),
        ] {
            assert!(image_fault(reference).is_some(), "{reference}");
        }
    }
}
