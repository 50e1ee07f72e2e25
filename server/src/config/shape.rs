//! Which keys there are: those of the built-in values.yaml. Brings what a source holds into that shape, and reports keys
//! that nobody knows, keys that have retired, and keys given in two spellings.

use std::collections::BTreeMap;

use figment::value::{Dict, Tag, Value};
use serde_saphyr::Spanned;

use super::finding::{Finding, Origin, Source};
use super::layer::{self, Content, Layer};

/// What may stand at a key.
pub(super) enum Shape {
    /// One value, whose type is known to the one who reads it.
    Leaf,
    /// A list of such.
    List(Box<Shape>),
    /// A map with keys of the administrator's choice.
    Free,
    /// A map that Kubernetes alone reads.
    Foreign,
    /// A map with these keys.
    Map(BTreeMap<String, Shape>),
}

/// Keys whose maps hold names of the administrator's choice.
const FREE: [&str; 14] = [
    "kubernetes.customLabels",
    "kubernetes.customAnnotations",
    "server.apiService.annotations",
    "server.autoscaling.keda.triggers[].leaseMetadata",
    "server.autoscaling.keda.triggers[].metadata",
    "server.autoscaling.prometheus.podMonitorLabels",
    "server.autoscaling.prometheus.ruleLabels",
    "server.deployment.nodeSelector",
    "server.deployment.podAnnotations",
    "server.deployment.podLabels",
    "server.metrics.alerts.labels",
    "server.metrics.dashboards.annotations",
    "server.metrics.dashboards.labels",
    "server.metrics.podMonitor.labels",
];

/// Lists that are empty by default, and the keys of their items, which the built-in values.yaml cannot show.
const ITEMS: [(&str, &[&str]); 3] = [
    (
        "server.autoscaling.keda.triggers",
        &[
            "kind",
            "type",
            "metricType",
            "authenticationName",
            "authenticationKind",
            "metadata",
            "leaseMetadata",
        ],
    ),
    ("server.modelRepositories.pvc", &["claimName", "accessMode"]),
    ("server.modelRepositories.https", &["targetUri", "secretName"]),
];

/// Keys whose lists hold maps that Kubernetes alone reads.
const FOREIGN: [&str; 1] = ["server.deployment.tolerations"];

/// Other spellings under which guides give a key: the map, the other spelling, the key.
pub(super) const SPELLINGS: [(&str, &str, &str); 7] = [
    ("server.autoscaling", "enabled", "enable"),
    ("server.autoscaling.metrics.cpuUtilization", "enable", "enabled"),
    ("server.autoscaling.metrics.memoryUtilization", "enable", "enabled"),
    ("server.autoscaling.metrics.gpuUtilization", "enable", "enabled"),
    ("server.autoscaling.metrics.gpuMemoryUtilization", "enable", "enabled"),
    ("server.autoscaling.metrics.queueTime", "enable", "enabled"),
    ("server.autoscaling.prometheus", "ruleLables", "ruleLabels"),
];

/// Keys that a file may still hold and that mean nothing here.
pub(super) const RETIRED: [(&str, &str); 7] = [
    ("global", "is Helm's own and means nothing to TMS"),
    ("images.mongodb", "has retired: leases are kept in server.database"),
    ("images.rest", "has retired: the server has no image for HTTP of its own"),
    ("images.sidecar", "has retired: the server's own image runs beside Triton"),
    (
        "server.metrics.reportingWindow",
        "has retired: the figures are counters, and whoever reads them chooses the window",
    ),
    ("server.metrics.minimumVisibility", "has retired: all figures are served"),
    ("server.modelRepositories.s3", "is not read by this version, which has no object stores"),
];

impl Shape {
    /// Returns the shape of a document.
    pub fn of(content: &Content) -> Self {
        Self::at(content, "")
    }

    fn at(content: &Content, key: &str) -> Self {
        match content {
            _ if FREE.contains(&key) => Self::Free,
            _ if FOREIGN.contains(&key) => Self::List(Box::new(Self::Foreign)),
            Content::Map(entries) => {
                let entry = |(name, node): &(Spanned<String>, Spanned<Content>)| {
                    (name.value.clone(), Self::at(&node.value, &join(key, &name.value)))
                };
                Self::Map(entries.iter().map(entry).collect())
            }
            Content::List(items) => {
                let item = match ITEMS.iter().find(|(list, _)| *list == key) {
                    Some((_, keys)) => Self::Map(keys.iter().map(|name| Self::of_item(key, name)).collect()),
                    None => items.first().map_or(Self::Leaf, |item| Self::at(&item.value, "")),
                };
                Self::List(Box::new(item))
            }
            Content::Null | Content::Bool(_) | Content::Integer(_) | Content::Float(_) | Content::Text(_) => {
                Self::Leaf
            }
        }
    }

    /// Returns what stands at a key of the items of a list.
    pub(super) fn of_item(list: &str, name: &str) -> (String, Self) {
        let is_free = FREE.contains(&format!("{list}[].{name}").as_str());
        (name.to_owned(), if is_free { Self::Free } else { Self::Leaf })
    }

    fn expected(&self) -> &'static str {
        match self {
            Self::Leaf => "a single value",
            Self::List(_) => "a list",
            Self::Free | Self::Foreign | Self::Map(_) => "a map",
        }
    }
}

/// Reads what a source holds by the shape of what is known.
pub(super) struct Conform<'a> {
    source: Source,
    root: &'a Shape,
    positions: BTreeMap<String, (u64, u64)>,
    /// What is wrong.
    pub faults: Vec<Finding>,
    /// What is worth knowing.
    pub warnings: Vec<Finding>,
}

impl<'a> Conform<'a> {
    /// Returns a reader of this source, where everything known has this shape.
    pub fn new(source: Source, root: &'a Shape) -> Self {
        Self { source, root, positions: BTreeMap::new(), faults: Vec::new(), warnings: Vec::new() }
    }

    /// Returns what the source holds, without what is faulty.
    pub fn layer(&mut self, content: &Spanned<Content>) -> Layer {
        let values = match self.value(content, self.root, "") {
            Some(Value::Dict(_, values)) => values,
            _ => Dict::new(),
        };
        Layer { source: self.source.clone(), values, positions: std::mem::take(&mut self.positions) }
    }

    fn value(&mut self, node: &Spanned<Content>, shape: &Shape, key: &str) -> Option<Value> {
        match (shape, &node.value) {
            // Null takes what the layers below say.
            (_, Content::Null) => None,
            (Shape::Map(known), Content::Map(entries)) => Some(self.map(entries, known, key)),
            (Shape::Free, Content::Map(entries)) => {
                entries.iter().for_each(|(name, _)| self.keep_position(&join(key, &name.value), name));
                Some(node.value.clone().into_value())
            }
            (Shape::Foreign, Content::Map(_)) => Some(node.value.clone().into_value()),
            (Shape::List(item), Content::List(items)) => {
                let value = |(index, node): (usize, &Spanned<Content>)| {
                    let key = format!("{key}[{index}]");
                    self.keep_position(&key, node);
                    self.value(node, item, &key)
                };
                Some(Value::Array(Tag::Default, items.iter().enumerate().filter_map(value).collect()))
            }
            (Shape::Leaf, Content::Bool(_) | Content::Integer(_) | Content::Float(_) | Content::Text(_)) => {
                Some(node.value.clone().into_value())
            }
            (Shape::Leaf | Shape::List(_) | Shape::Free | Shape::Foreign | Shape::Map(_), _) => {
                let problem = format!("must be {}, and is {}", shape.expected(), kind(&node.value));
                self.faults.push(self.finding(key, node, problem));
                None
            }
        }
    }

    fn map(
        &mut self,
        entries: &[(Spanned<String>, Spanned<Content>)],
        known: &BTreeMap<String, Shape>,
        key: &str,
    ) -> Value {
        let mut values = Dict::new();
        let mut given_as: BTreeMap<&str, &str> = BTreeMap::new();
        for (name, node) in entries {
            let written = join(key, &name.value);
            if let Some((_, why)) = RETIRED.iter().find(|(retired, _)| *retired == written) {
                self.warnings.push(self.finding(&written, name, (*why).to_owned()));
                continue;
            }
            let canonical = canonical(key, &name.value);
            let Some(shape) = known.get(canonical) else {
                self.refuse_unknown(key, name, known);
                continue;
            };
            let path = join(key, canonical);
            self.keep_position(&path, name);
            let Some(value) = self.value(node, shape, &path) else { continue };
            if let Some(other) = given_as.insert(canonical, &name.value)
                && values.get(canonical) != Some(&value)
            {
                let problem = format!("says otherwise than {}, which is the same key", join(key, other));
                let hint = Some(format!("keep {path} alone"));
                self.faults.push(Finding { hint, ..self.finding(&written, name, problem) });
            }
            values.insert(canonical.to_owned(), value);
        }
        Value::Dict(Tag::Default, values)
    }

    fn refuse_unknown(&mut self, key: &str, name: &Spanned<String>, known: &BTreeMap<String, Shape>) {
        let written = join(key, &name.value);
        let hint = if written.eq_ignore_ascii_case("server.database.password") {
            Some(
                "keep passwords out of values: server.database.passwordFile or TMS_DATABASE_PASSWORD"
                    .to_owned(),
            )
        } else {
            let elsewhere = || only_place_of(&name.value, self.root);
            let beside = || nearest(&name.value, known.keys()).map(|near| join(key, near));
            let known = || known.keys().map(String::as_str).collect::<Vec<_>>().join(", ");
            let meant = elsewhere().or_else(beside).map(|key| format!("did you mean {key}?"));
            Some(meant.unwrap_or_else(|| format!("known here: {}", known())))
        };
        let fault = Finding { hint, ..self.finding(&written, name, "is not a key of TMS".to_owned()) };
        self.faults.push(fault);
    }

    fn keep_position<T>(&mut self, key: &str, node: &Spanned<T>) {
        self.positions.insert(key.to_owned(), (node.referenced.line(), node.referenced.column()));
    }

    fn finding<T>(&self, key: &str, node: &Spanned<T>, problem: String) -> Finding {
        let position = (node.referenced.line(), node.referenced.column());
        Finding {
            origin: Origin {
                source: self.source.clone(),
                position: (position != (0, 0)).then_some(position),
            },
            key: key.to_owned(),
            value: None,
            problem,
            rule: None,
            hint: None,
        }
    }
}

/// Returns the key of values.yaml that a variable of the environment means, spelled as values.yaml spells it as far as it
/// is known, and what may stand there.
pub(super) fn key_of_variable<'a>(parts: &[&str], mut shape: &'a Shape) -> (Vec<String>, Option<&'a Shape>) {
    let mut names: Vec<String> = Vec::new();
    for (index, part) in parts.iter().enumerate() {
        let Shape::Map(known) = shape else {
            names.extend(parts[index..].iter().map(|part| (*part).to_owned()));
            let below = if matches!(shape, Shape::Free) && index + 1 == parts.len() {
                Some(&Shape::Leaf)
            } else {
                None
            };
            return (names, below);
        };
        let parent = names.join(".");
        let other = SPELLINGS
            .iter()
            .find(|(map, other, _)| *map == parent && other.eq_ignore_ascii_case(part))
            .map(|(_, _, name)| *name);
        let name = other.unwrap_or(part);
        let Some((name, below)) = known.iter().find(|(known, _)| known.eq_ignore_ascii_case(name)) else {
            let rest = parts[index..].iter().map(|part| part.to_lowercase());
            names.extend(rest);
            return (names, None);
        };
        names.push(name.clone());
        shape = below;
    }
    (names, Some(shape))
}

/// Returns the document that says `value` at the key of these names.
pub(super) fn nest(names: &[String], value: Content) -> Spanned<Content> {
    let wrap = |inner, name: &String| {
        layer::without_position(Content::Map(vec![(layer::without_position(name.clone()), inner)]))
    };
    names.iter().rev().fold(layer::without_position(value), wrap)
}

/// Returns a key below another.
pub(super) fn join(key: &str, name: &str) -> String {
    if key.is_empty() { name.to_owned() } else { format!("{key}.{name}") }
}

fn canonical<'a>(map: &str, name: &'a str) -> &'a str {
    SPELLINGS
        .iter()
        .find(|(parent, other, _)| *parent == map && *other == name)
        .map_or(name, |(_, _, canonical)| canonical)
}

/// Returns the key of this very name, if there is one alone: the part above it was left out, or the indentation is off.
fn only_place_of(name: &str, root: &Shape) -> Option<String> {
    let mut places = Vec::new();
    collect_places(name, root, "", &mut places);
    if places.len() == 1 { places.pop() } else { None }
}

fn collect_places(name: &str, shape: &Shape, key: &str, places: &mut Vec<String>) {
    let Shape::Map(known) = shape else { return };
    for (child, below) in known {
        let path = join(key, child);
        if child == name {
            places.push(path.clone());
        }
        collect_places(name, below, &path, places);
    }
}

/// Returns the known name that `name` most likely means.
fn nearest<'a>(name: &str, known: impl Iterator<Item = &'a String>) -> Option<&'a String> {
    known
        .map(|known| (likeness(&name.to_lowercase(), &known.to_lowercase()), known))
        .filter(|(likeness, _)| *likeness >= 0.8)
        .max_by(|(one, _), (other, _)| one.total_cmp(other))
        .map(|(_, known)| known)
}

fn likeness(one: &str, other: &str) -> f64 {
    let is_part = one.len() > 3 && other.contains(one);
    strsim::jaro_winkler(one, other).max(if is_part { 0.8 } else { 0.0 })
}

fn kind(content: &Content) -> &'static str {
    match content {
        Content::Null => "null",
        Content::Bool(_) => "a boolean",
        Content::Integer(_) | Content::Float(_) => "a number",
        Content::Text(_) => "a text",
        Content::List(_) => "a list",
        Content::Map(_) => "a map",
    }
}
