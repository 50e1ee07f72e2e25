//! What there is to say about a configuration: where it stands, which rule it breaks, and what to do.

use std::fmt;
use std::path::PathBuf;

/// One thing wrong with a configuration, or worth knowing about it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Finding {
    /// Where it stands.
    pub origin: Origin,
    /// The key, such as `server.apiService.port`; empty where a whole file is meant.
    pub key: String,
    /// What is written there, where that can be shown.
    pub value: Option<String>,
    /// What is the matter and what is allowed. Lower case, no full stop.
    pub problem: String,
    /// The rule that it breaks, A1 to A16, where it is one of them.
    pub rule: Option<&'static str>,
    /// What to do about it, where that is not plain.
    pub hint: Option<String>,
}

impl fmt::Display for Finding {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}", self.origin)?;
        if !self.key.is_empty() {
            write!(f, ": {}", self.key)?;
        }
        if let Some(value) = &self.value {
            write!(f, ": {value}")?;
        }
        write!(f, "\n  {}", self.problem)?;
        if let Some(rule) = self.rule {
            write!(f, " [{rule}]")?;
        }
        if let Some(hint) = &self.hint {
            write!(f, "\n  help: {hint}")?;
        }
        Ok(())
    }
}

/// Where a value comes from.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Origin {
    /// File or variable.
    pub source: Source,
    /// Line and column in the file, from 1.
    pub position: Option<(u64, u64)>,
}

impl Origin {
    /// Returns the origin of what has no line of its own.
    pub fn whole(source: Source) -> Self {
        Self { source, position: None }
    }
}

impl fmt::Display for Origin {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match (&self.source, self.position) {
            // The built-in file is not at hand, so its lines would help nobody.
            (Source::BuiltIn, _) => f.write_str("default"),
            (Source::File(path), None) => write!(f, "{}", path.display()),
            (Source::File(path), Some((line, column))) => write!(f, "{}:{line}:{column}", path.display()),
            (Source::Variable(name), _) => write!(f, "environment variable {name}"),
            (Source::Cluster, _) => f.write_str("cluster"),
        }
    }
}

/// What holds a configuration.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Source {
    /// The values.yaml that the server carries.
    BuiltIn,
    /// A file of the administrator.
    File(PathBuf),
    /// A variable of the environment.
    Variable(String),
    /// No text at all, but the cluster that the server found.
    Cluster,
}

/// The configuration cannot be used: every fault of it, at least one.
#[derive(Debug, thiserror::Error)]
pub struct Invalid(pub Vec<Finding>);

impl fmt::Display for Invalid {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "the configuration has {}", count(self.0.len(), "fault"))?;
        self.0.iter().try_for_each(|fault| write!(f, "\n{fault}"))
    }
}

/// Returns a number with its noun, in the plural where it must be.
pub(super) fn count(number: usize, noun: &str) -> String {
    match number {
        1 => format!("1 {noun}"),
        _ => format!("{number} {noun}s"),
    }
}
