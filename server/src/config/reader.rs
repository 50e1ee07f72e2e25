//! Reads single keys of a merged configuration as what they must be. What is faulty is noted and read as `None`, so that
//! one look finds every fault.

use std::fmt::Display;
use std::ops::RangeInclusive;

use figment::value::{Dict, Value};
use jiff::{SignedDuration, Span, SpanRelativeTo};

use super::demand::{Demand, Demands};
use super::finding::{Finding, Origin, Source};
use super::layer::Merged;
use super::scalar::{Scalar, scalar};
use crate::domain::quantity::Quantity;

/// Reads keys and keeps what was found on the way.
pub(super) struct Reader {
    merged: Merged,
    /// What the keys that were read must be.
    pub demands: Demands,
    /// What is wrong.
    pub faults: Vec<Finding>,
    /// What is worth knowing.
    pub warnings: Vec<Finding>,
}

/// Says what is wrong with a text, or nothing where all is well.
pub(super) type FaultOf = fn(&str) -> Option<&'static str>;

impl Reader {
    /// Returns a reader that has found these already.
    pub fn new(merged: Merged, faults: Vec<Finding>, warnings: Vec<Finding>) -> Self {
        Self { merged, demands: Demands::default(), faults, warnings }
    }

    /// Returns a reader of no particular configuration: it reads one item of each list, and every key that may be absent,
    /// to learn what they must be.
    pub fn probing(merged: Merged) -> Self {
        Self { demands: Demands::probing(), ..Self::new(merged, Vec::new(), Vec::new()) }
    }

    /// Reads true or false.
    pub fn boolean(&mut self, key: &str) -> Option<bool> {
        self.demands.note(key, || Demand::Boolean);
        match (self.scalar(key)?, self.is_variable(key)) {
            (Scalar::Bool(value), _) => Some(value),
            (Scalar::Text(text), true) if text.eq_ignore_ascii_case("true") => Some(true),
            (Scalar::Text(text), true) if text.eq_ignore_ascii_case("false") => Some(false),
            (other, _) => {
                let is_quoted =
                    ["true", "false", "yes", "no", "on", "off"].contains(&other.to_string().as_str());
                let quotes = if is_quoted { ", without quotes" } else { "" };
                self.refuse(key, &other, &format!("must be true or false{quotes}"), None)
            }
        }
    }

    /// Reads an integer of this range. `rule` tells which rule another number breaks, or what is no number.
    pub fn integer(
        &mut self,
        key: &str,
        range: RangeInclusive<i64>,
        rule: impl FnOnce(Option<i128>) -> Option<&'static str>,
    ) -> Option<i64> {
        self.demands.note(key, || Demand::Integer(range.clone()));
        let given = self.scalar(key)?;
        let value = match &given {
            Scalar::Integer(value) => Some(*value),
            Scalar::Text(text) if self.is_variable(key) => text.parse().ok(),
            Scalar::Bool(_) | Scalar::Float(_) | Scalar::Text(_) => None,
        };
        let within = value.and_then(|value| i64::try_from(value).ok()).filter(|value| range.contains(value));
        if within.is_none() {
            let is_quoted = matches!(&given, Scalar::Text(text) if text.parse::<i128>().is_ok());
            let quotes = if is_quoted && value.is_none() { ", without quotes" } else { "" };
            let expected = format!("must be an integer from {} to {}{quotes}", range.start(), range.end());
            self.refuse::<()>(key, &given, &expected, rule(value));
        }
        within
    }

    /// Reads an integer of this range.
    pub fn small(&mut self, key: &str, range: RangeInclusive<u32>) -> Option<u32> {
        let value = self.integer(key, i64::from(*range.start())..=i64::from(*range.end()), |_| None)?;
        u32::try_from(value).ok()
    }

    /// Reads a part of one in thousandths, or nothing where none is given.
    pub fn thousandths(&mut self, key: &str, rule: &'static str) -> Option<Option<u32>> {
        self.demands.note(key, || Demand::Part);
        if !self.is_given(key) {
            return Some(None);
        }
        let given = self.scalar(key)?;
        let value = match &given {
            Scalar::Integer(value) => Some(*value as f64),
            Scalar::Float(value) => Some(*value),
            Scalar::Text(text) if self.is_variable(key) => text.parse().ok(),
            Scalar::Bool(_) | Scalar::Text(_) => None,
        };
        let milli = value.map(|value| value * 1000.0).filter(|milli| (0.0..=1000.0).contains(milli));
        match milli {
            Some(milli) if (milli - milli.round()).abs() < 1e-6 => Some(Some(milli.round() as u32)),
            _ => self.refuse(key, &given, "must be a number from 0 to 1, in thousandths", Some(rule)),
        }
    }

    /// Reads a text, which may be empty.
    pub fn text(&mut self, key: &str) -> Option<String> {
        self.demands.note(key, || Demand::Text { may_be_empty: true });
        match self.scalar(key)? {
            Scalar::Text(text) => Some(text),
            other => self.refuse(key, &other, "must be a text: put it in quotes", None),
        }
    }

    /// Reads a text in which `fault_of` finds nothing wrong, or nothing where it is empty.
    pub fn optional(&mut self, key: &str, fault_of: FaultOf) -> Option<Option<String>> {
        let text = self.text(key)?;
        if text.is_empty() {
            return Some(None);
        }
        self.checked(key, text, fault_of).map(Some)
    }

    /// Reads a text in which `fault_of` finds nothing wrong.
    pub fn required(&mut self, key: &str, fault_of: FaultOf) -> Option<String> {
        self.demands.note(key, || Demand::Text { may_be_empty: fault_of("").is_none() });
        let text = self.text(key)?;
        self.checked(key, text, fault_of)
    }

    fn checked(&mut self, key: &str, text: String, fault_of: FaultOf) -> Option<String> {
        match fault_of(&text) {
            None => Some(text),
            Some(problem) => self.refuse(key, &Scalar::Text(text), problem, None),
        }
    }

    /// Reads one of several words.
    pub fn choice<T: Copy>(
        &mut self,
        key: &str,
        words: &[(&str, T)],
        rule: Option<&'static str>,
    ) -> Option<T> {
        self.demands.note(key, || Demand::Choice(words.iter().map(|(word, _)| (*word).to_owned()).collect()));
        let given = self.scalar(key)?;
        let found = match &given {
            Scalar::Text(text) => words.iter().find(|(word, _)| word == text).map(|(_, value)| *value),
            Scalar::Bool(_) | Scalar::Integer(_) | Scalar::Float(_) => None,
        };
        if found.is_none() {
            let words: Vec<&str> = words.iter().map(|(word, _)| *word).collect();
            self.refuse::<()>(key, &given, &format!("must be {}", alternatives(&words)), rule);
        }
        found
    }

    /// Reads a duration of this range.
    pub fn duration(
        &mut self,
        key: &str,
        range: RangeInclusive<SignedDuration>,
        rule: Option<&'static str>,
    ) -> Option<SignedDuration> {
        self.demands.note(key, || Demand::Duration);
        let given = self.scalar(key)?;
        let expected = format!("must be a duration from {:#} to {:#}", range.start(), range.end());
        let Scalar::Text(text) = &given else {
            return self.refuse(key, &given, &format!("{expected}, with its unit, such as 90s or 1h"), rule);
        };
        match parse_duration(text) {
            Some(duration) if range.contains(&duration) => Some(duration),
            Some(_) => self.refuse(key, &given, &expected, rule),
            None => self.refuse(key, &given, &format!("{expected}, such as 90s, 30m or 1h"), rule),
        }
    }

    /// Reads a duration of this range in whole seconds.
    pub fn seconds(
        &mut self,
        key: &str,
        range: RangeInclusive<SignedDuration>,
        rule: Option<&'static str>,
    ) -> Option<u32> {
        let duration = self.duration(key, range, rule)?;
        if duration.subsec_nanos() != 0 {
            let given = self.scalar(key)?;
            return self.refuse(key, &given, "must be whole seconds", rule);
        }
        u32::try_from(duration.as_secs()).ok()
    }

    /// Reads a quantity above zero.
    pub fn quantity(&mut self, key: &str) -> Option<Quantity> {
        self.demands.note(key, || Demand::Quantity);
        let given = self.scalar(key)?;
        match Quantity::parse(&given.to_string()) {
            Ok(quantity) if quantity.is_positive() => Some(quantity),
            Ok(_) => self.refuse(key, &given, "must be more than nothing", None),
            Err(_) => {
                self.refuse(key, &given, "must be a Kubernetes quantity, such as 4, 500m or 16Gi", None)
            }
        }
    }

    /// Reads a quantity above zero, or nothing where none is given.
    pub fn optional_quantity(&mut self, key: &str) -> Option<Option<Quantity>> {
        self.demands.note(key, || Demand::Quantity);
        if self.is_given(key) { self.quantity(key).map(Some) } else { Some(None) }
    }

    /// Reads a map of texts.
    pub fn texts(&mut self, key: &str) -> Option<Vec<(String, String)>> {
        self.demands.note(key, || Demand::Texts);
        let entries: Dict = self.value(key).and_then(|value| value.as_dict().cloned()).unwrap_or_default();
        let mut texts = Vec::new();
        let mut is_sound = true;
        for (name, value) in entries {
            let name_key = format!("{key}.{name}");
            match scalar(&value) {
                Some(Scalar::Text(text)) => texts.push((name, text)),
                None if matches!(value, Value::Empty(..)) => {} // Null takes a label of a lower layer away.
                other => {
                    is_sound = false;
                    let given = other.unwrap_or(Scalar::Text("a map or a list".to_owned()));
                    self.refuse::<()>(&name_key, &given, "must be a text: put it in quotes", None);
                }
            }
        }
        is_sound.then_some(texts)
    }

    /// Returns how many items a list has.
    pub fn length(&self, key: &str) -> usize {
        let length = self.value(key).and_then(|value| value.as_array().map(<[Value]>::len)).unwrap_or(0);
        length.max(usize::from(self.demands.is_probing()))
    }

    /// Whether there is anything at a key that may be absent.
    pub fn is_given(&self, key: &str) -> bool {
        self.value(key).is_some() || self.demands.is_probing()
    }

    /// Whether the default of a key is null.
    pub fn is_null(&self, key: &str) -> bool {
        self.value(key).is_none()
    }

    /// Notes a fault at a key. Returns `None`, as what a faulty key is read as.
    pub fn fault<T>(&mut self, key: &str, problem: String, rule: Option<&'static str>) -> Option<T> {
        let finding = self.finding(key, problem, rule);
        self.faults.push(finding);
        None
    }

    /// Notes a warning at a key.
    pub fn warn(&mut self, key: &str, problem: String, rule: Option<&'static str>) {
        let finding = self.finding(key, problem, rule);
        self.warnings.push(finding);
    }

    /// Adds advice to the fault noted last.
    pub fn advise(&mut self, hint: &str) {
        if let Some(fault) = self.faults.last_mut() {
            fault.hint = Some(hint.to_owned());
        }
    }

    /// Demands that the value of one key is at most that of another. The fault stands at the one that was given last,
    /// since a default is not what the administrator would change.
    pub fn demand_order<T: PartialOrd + Display>(
        &mut self,
        (low_key, low): (&str, Option<&T>),
        (high_key, high): (&str, Option<&T>),
        rule: Option<&'static str>,
    ) {
        let (Some(low), Some(high)) = (low, high) else { return };
        if low <= high {
            return;
        }
        if self.is_default(low_key) && !self.is_default(high_key) {
            let origin = self.origin(low_key);
            self.fault::<()>(
                high_key,
                format!("must be at least {low_key}, which is {low} ({origin})"),
                rule,
            );
            self.advise(&format!("raise it, or set {low_key} too"));
        } else {
            let origin = self.origin(high_key);
            self.fault::<()>(
                low_key,
                format!("must be at most {high_key}, which is {high} ({origin})"),
                rule,
            );
            if self.is_default(high_key) {
                self.advise(&format!("lower it, or set {high_key} too"));
            }
        }
    }

    /// Whether nobody but the built-in values.yaml gives a key.
    pub fn is_default(&self, key: &str) -> bool {
        self.origin(key).source == Source::BuiltIn
    }

    /// Returns where a key was given, or the nearest one above it.
    pub fn origin(&self, key: &str) -> Origin {
        std::iter::successors(Some(key), |key| key.rfind(['.', '[']).map(|end| &key[..end]))
            .find_map(|key| self.merged.origins.get(key).cloned())
            .unwrap_or(Origin::whole(Source::BuiltIn))
    }

    fn finding(&self, key: &str, problem: String, rule: Option<&'static str>) -> Finding {
        let value = self.value(key).and_then(scalar).and_then(|scalar| scalar.shown_at(key));
        Finding { origin: self.origin(key), key: key.to_owned(), value, problem, rule, hint: None }
    }

    fn refuse<T>(
        &mut self,
        key: &str,
        given: &Scalar,
        problem: &str,
        rule: Option<&'static str>,
    ) -> Option<T> {
        let origin = self.origin(key);
        let (key, value) = (key.to_owned(), given.shown_at(key));
        self.faults.push(Finding { origin, key, value, problem: problem.to_owned(), rule, hint: None });
        None
    }

    fn is_variable(&self, key: &str) -> bool {
        matches!(self.origin(key).source, Source::Variable(_))
    }

    fn scalar(&mut self, key: &str) -> Option<Scalar> {
        let found = self.value(key).and_then(scalar);
        if found.is_none() {
            self.fault::<()>(key, "must be given".to_owned(), None);
        }
        found
    }

    /// Finds a key such as `a.b` or `a.list[0].b`.
    fn value(&self, key: &str) -> Option<&Value> {
        let (first, rest) = key.split_once('.').unwrap_or((key, ""));
        let mut found = step(self.merged.values.get(name_of(first))?, first)?;
        for part in rest.split('.').filter(|part| !part.is_empty()) {
            found = step(found.as_dict()?.get(name_of(part))?, part)?;
        }
        Some(found)
    }
}

fn name_of(part: &str) -> &str {
    part.split('[').next().unwrap_or(part)
}

fn step<'a>(value: &'a Value, part: &str) -> Option<&'a Value> {
    match part.split_once('[') {
        Some((_, index)) => value.as_array()?.get(index.strip_suffix(']')?.parse::<usize>().ok()?),
        None => Some(value),
    }
}

fn parse_duration(text: &str) -> Option<SignedDuration> {
    let span: Span = text.parse().ok()?;
    span.to_duration(SpanRelativeTo::days_are_24_hours()).ok()
}

fn alternatives(words: &[&str]) -> String {
    match words {
        [] => String::new(),
        [word] => (*word).to_owned(),
        [first @ .., last] => format!("{} or {last}", first.join(", ")),
    }
}
