//! Credentials from Secrets, which Kubernetes mounts into the agent alone. Their content is never printed.

use std::fs;
use std::io;
use std::path::{Path, PathBuf};

use hyper::header::HeaderValue;

use super::fault::Fault;

/// The key of a Secret that holds the header.
const KEY: &str = "authorization";

/// Returns the value of the `Authorization` header that a Secret holds: under the key `authorization`, or under its only key.
pub fn authorization(directory: &Path, secret: &str) -> Result<HeaderValue, Fault> {
    let file = file(&directory.join(secret), secret)?;
    let content = fs::read(&file).map_err(|error| unreadable(secret, &error))?;
    let mut value = HeaderValue::from_bytes(content.trim_ascii_end()).map_err(|_| {
        Fault::permanent(format!(
            "Secret {secret:?} holds more than one line, or characters that no header may have: store the value of the \
             Authorization header in it, such as \"Bearer …\""
        ))
    })?;
    value.set_sensitive(true);
    Ok(value)
}

fn file(directory: &Path, secret: &str) -> Result<PathBuf, Fault> {
    let preferred = directory.join(KEY);
    if preferred.is_file() {
        return Ok(preferred);
    }
    let keys = keys(directory).map_err(|error| unreadable(secret, &error))?;
    match keys.as_slice() {
        [only] => Ok(only.clone()),
        keys => Err(Fault::permanent(format!(
            "Secret {secret:?} has {} keys and none of them is {KEY:?}: store the value of the Authorization header under {KEY:?}",
            keys.len()
        ))),
    }
}

/// Returns the files of a mounted Secret. Kubernetes keeps its own beside them, whose names begin with two dots.
fn keys(directory: &Path) -> io::Result<Vec<PathBuf>> {
    let mut keys = Vec::new();
    for entry in fs::read_dir(directory)? {
        let path = entry?.path();
        let is_own = path.file_name().is_some_and(|name| name.as_encoded_bytes().starts_with(b".."));
        if !is_own && path.is_file() {
            keys.push(path);
        }
    }
    Ok(keys)
}

fn unreadable(secret: &str, error: &io::Error) -> Fault {
    Fault::permanent(format!("Secret {secret:?} cannot be read in the pod: {error}"))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(files: &[(&str, &[u8])]) -> Result<HeaderValue, Fault> {
        let folder = tempfile::tempdir().unwrap();
        let secret = folder.path().join("s");
        fs::create_dir(&secret).unwrap();
        for (name, content) in files {
            fs::write(secret.join(name), content).unwrap();
        }
        authorization(folder.path(), "s")
    }

    #[test]
    fn the_key_authorization_or_the_only_key_is_the_header() {
        for files in [
            [("authorization", &b"Bearer x\n"[..]), ("other", b"y")].as_slice(),
            &[("token", b"Bearer x\r\n"), ("..data", b"z")],
        ] {
            let value = read(files).unwrap();
            assert_eq!(value.to_str().unwrap(), "Bearer x");
            assert_eq!(format!("{value:?}"), "Sensitive");
        }
    }

    #[test]
    fn a_secret_that_will_not_do_is_refused_without_its_content() {
        let table = [
            read(&[]).unwrap_err().to_string(),
            read(&[("a", b"hush"), ("b", b"hush")]).unwrap_err().to_string(),
            read(&[("a", b"hush\nhush")]).unwrap_err().to_string(),
            authorization(Path::new("/nonexistent"), "s").unwrap_err().to_string(),
        ];
        assert!(!table.concat().contains("hush"));
        insta::assert_snapshot!(table.join("\n"), @r#"
        Secret "s" has 0 keys and none of them is "authorization": store the value of the Authorization header under "authorization"
        Secret "s" has 2 keys and none of them is "authorization": store the value of the Authorization header under "authorization"
        Secret "s" holds more than one line, or characters that no header may have: store the value of the Authorization header in it, such as "Bearer …"
        Secret "s" cannot be read in the pod: No such file or directory (os error 2)
        "#);
    }
}
