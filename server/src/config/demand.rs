//! What the keys of a configuration must be, as far as one value alone shows it. The reader notes it as it reads, so
//! that the schema says what the server does.

use std::collections::BTreeMap;
use std::ops::RangeInclusive;

/// What stands at a key.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Demand {
    /// True or false.
    Boolean,
    /// An integer of this range.
    Integer(RangeInclusive<i64>),
    /// A number from 0 to 1.
    Part,
    /// A text.
    Text { may_be_empty: bool },
    /// One of these words.
    Choice(Vec<String>),
    /// A duration with its unit.
    Duration,
    /// A quantity of Kubernetes.
    Quantity,
    /// A map of texts.
    Texts,
}

/// What each key must be.
#[derive(Debug, Default)]
pub(super) struct Demands {
    of: BTreeMap<String, Demand>,
    is_probing: bool,
}

impl Demands {
    /// Returns no demands yet, for a reader that reads what is absent too.
    pub fn probing() -> Self {
        Self { is_probing: true, ..Self::default() }
    }

    /// Whether what is absent is read too.
    pub fn is_probing(&self) -> bool {
        self.is_probing
    }

    /// Notes what a key must be, unless a wider demand was noted before. Servers that only read are spared the work.
    pub fn note(&mut self, key: &str, demand: impl FnOnce() -> Demand) {
        if self.is_probing {
            self.of.entry(of_any_item(key)).or_insert_with(demand);
        }
    }

    /// Returns what a key must be; items of lists are written `list[]`.
    pub fn at(&self, key: &str) -> Option<&Demand> {
        self.of.get(key)
    }

    /// Returns the keys of which something is known.
    pub fn keys(&self) -> impl Iterator<Item = &str> {
        self.of.keys().map(String::as_str)
    }
}

/// Returns the key of any item where `key` names one: `a[].b` of `a[3].b`.
fn of_any_item(key: &str) -> String {
    let mut parts = key.split('[');
    let first = parts.next().unwrap_or_default().to_owned();
    parts.fold(first, |mut all, part| {
        all.push_str("[]");
        all.push_str(part.split_once(']').map_or("", |(_, rest)| rest));
        all
    })
}
