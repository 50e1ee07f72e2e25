//! The substance of an object, hashed: says whether anything of it changed that anybody may want.

use std::hash::{DefaultHasher, Hash, Hasher};

use kube::api::DynamicObject;
use serde_json::Value;

/// What people and controllers may want of an object: not its status and bookkeeping.
pub(super) trait Substance {
    fn feed(&self, hasher: &mut DefaultHasher);
}

impl Substance for DynamicObject {
    fn feed(&self, hasher: &mut DefaultHasher) {
        self.metadata.labels.hash(hasher);
        self.metadata.annotations.hash(hasher);
        for owner in self.metadata.owner_references.iter().flatten() {
            owner.uid.hash(hasher);
        }
        for (key, value) in self.data.as_object().into_iter().flatten().filter(|(key, _)| *key != "status") {
            key.hash(hasher);
            value.feed(hasher);
        }
    }
}

impl Substance for Value {
    fn feed(&self, hasher: &mut DefaultHasher) {
        self.hash(hasher);
    }
}

/// Returns a hash of the substance of an object.
pub(super) fn hash_of(substance: &impl Substance) -> u64 {
    let mut hasher = DefaultHasher::new();
    substance.feed(&mut hasher);
    hasher.finish()
}
