//! Reads `server.modelRepositories`: where models may come from, and the Secrets of these places.

use super::labels;
use super::reader::Reader;
use crate::domain::bounds::names::is_domain;
use crate::domain::quantity::Quantity;
use crate::domain::repositories::{AccessMode, Claim, Credential, Repositories, Target};

const CLAIMS: &str = "server.modelRepositories.pvc";
const ADDRESSES: &str = "server.modelRepositories.https";
const MAXIMUM: &str = "server.modelRepositories.maximumSize";
const MAXIMUM_TOTAL: &str = "server.modelRepositories.maximumTotalSize";

/// Reads the whole section.
pub(super) fn repositories(reader: &mut Reader) -> Option<Repositories> {
    let claims = claims(reader);
    let credentials = credentials(reader);
    let trust_bundle = reader.optional("server.modelRepositories.trustBundle", labels::object_fault);
    let allows_http = reader.boolean("server.modelRepositories.allowHttp");
    let maximum_bytes = size(reader, MAXIMUM);
    let maximum_total_bytes = total(reader, maximum_bytes);
    Some(Repositories {
        claims: claims?,
        credentials: credentials?,
        trust_bundle: trust_bundle?,
        allows_http: allows_http?,
        maximum_bytes: maximum_bytes?,
        maximum_total_bytes: maximum_total_bytes?,
    })
}

fn claims(reader: &mut Reader) -> Option<Vec<Claim>> {
    let modes = [
        ("ReadWriteOnce", AccessMode::ReadWriteOnce),
        ("ReadOnlyMany", AccessMode::ReadOnlyMany),
        ("ReadWriteMany", AccessMode::ReadWriteMany),
    ];
    let read: Vec<_> = (0..reader.length(CLAIMS))
        .map(|index| {
            let name = reader.required(&format!("{CLAIMS}[{index}].claimName"), claim_fault);
            let access = reader.choice(&format!("{CLAIMS}[{index}].accessMode"), &modes, None);
            Some(Claim { name: name?, access: access? })
        })
        .collect();
    let claims: Vec<_> = read.into_iter().collect::<Option<_>>()?;
    refuse_repetition(
        reader,
        &claims,
        |index| format!("{CLAIMS}[{index}].claimName"),
        |one, other| one.name == other.name,
    )?;
    Some(claims)
}

fn credentials(reader: &mut Reader) -> Option<Vec<Credential>> {
    let read: Vec<_> = (0..reader.length(ADDRESSES))
        .map(|index| {
            let target = target(reader, &format!("{ADDRESSES}[{index}].targetUri"));
            let secret = reader.required(&format!("{ADDRESSES}[{index}].secretName"), labels::secret_fault);
            Some(Credential { target: target?, secret: secret? })
        })
        .collect();
    let credentials: Vec<_> = read.into_iter().collect::<Option<_>>()?;
    let key = |index| format!("{ADDRESSES}[{index}].targetUri");
    refuse_repetition(reader, &credentials, key, |one, other| one.target == other.target)?;
    Some(credentials)
}

fn target(reader: &mut Reader, key: &str) -> Option<Target> {
    let text = reader.text(key)?;
    match Target::parse(&text) {
        Ok(target) => Some(target),
        Err(fault) => reader.fault(key, fault.to_string(), None),
    }
}

/// Refuses the first item that says of the same thing what an earlier one says.
fn refuse_repetition<T>(
    reader: &mut Reader,
    items: &[T],
    key: impl Fn(usize) -> String,
    is_same: impl Fn(&T, &T) -> bool,
) -> Option<()> {
    for (index, item) in items.iter().enumerate() {
        if let Some(first) = items[..index].iter().position(|earlier| is_same(earlier, item)) {
            return reader.fault(&key(index), format!("must not repeat {}", key(first)), None);
        }
    }
    Some(())
}

/// Reads what all models of a lease may take: by default one of the largest, with the archive that it comes in.
fn total(reader: &mut Reader, maximum_bytes: Option<u64>) -> Option<u64> {
    let Some(given) = reader.optional_quantity(MAXIMUM_TOTAL)? else {
        return maximum_bytes.map(|maximum| maximum.saturating_mul(2));
    };
    let total = bytes(reader, MAXIMUM_TOTAL, given)?;
    if maximum_bytes.is_some_and(|maximum| total < maximum) {
        return reader.fault(
            MAXIMUM_TOTAL,
            format!("must be at least {MAXIMUM}, which bounds each model"),
            None,
        );
    }
    Some(total)
}

fn size(reader: &mut Reader, key: &str) -> Option<u64> {
    let size = reader.quantity(key)?;
    bytes(reader, key, size)
}

fn bytes(reader: &mut Reader, key: &str, size: Quantity) -> Option<u64> {
    if size < Quantity::from_bytes(1 << 20) {
        return reader.fault(key, "must be at least 1Mi: without a unit it counts bytes".to_owned(), None);
    }
    match size.whole_bytes() {
        Some(bytes) => Some(bytes),
        None => reader.fault(key, "must be whole bytes".to_owned(), None),
    }
}

/// What is wrong with the name of a PersistentVolumeClaim.
fn claim_fault(text: &str) -> Option<&'static str> {
    (!is_domain(text)).then_some(
        "is not the name of a PersistentVolumeClaim: at most 253 of a–z 0–9 - . are, with a letter or digit at both ends",
    )
}
