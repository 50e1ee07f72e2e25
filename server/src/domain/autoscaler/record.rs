//! What is known of an autoscaler from what it says of itself: its status now, and a bounded memory of the statuses before. From
//! these follows what the controller must remember, which it tells nobody.

use std::collections::{BTreeMap, VecDeque};

use jiff::{SignedDuration, Timestamp};

use super::history::{Change, History, Recommendation};
use super::{Options, rounded_up};
use crate::domain::scaling::MetricName;

/// Most notes that are kept of one autoscaler.
const MOST_NOTES: usize = 20;
/// Most different recommendations that are kept of one autoscaler. Under a load that goes up and down all the time the oldest
/// of an hour are lost.
const MOST_RECOMMENDATIONS: usize = 64;

/// What an autoscaler says of itself.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Status {
    /// Replicas when it looked last.
    pub current: i32,
    /// Replicas that it wants since.
    pub desired: i32,
    /// When it last changed them.
    pub last_scaled_at: Option<Timestamp>,
    /// Its metrics.
    pub metrics: BTreeMap<MetricName, Reported>,
    /// Its conditions, in its order.
    pub conditions: Vec<Stated>,
}

/// What can be wrong with an autoscaler by its conditions.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Trouble {
    /// It knows the value of none of its metrics, so that it changes nothing.
    NoMetric,
    /// It would have more replicas than its maximum.
    AtMaximum,
}

impl Status {
    /// Whether its conditions say so.
    pub fn is_in(&self, trouble: Trouble) -> bool {
        self.conditions.iter().any(|condition| match trouble {
            // Of a Deployment without replicas it says so too, with a reason of its own, and that is none.
            Trouble::NoMetric => {
                condition.kind == "ScalingActive" && !condition.holds && condition.reason != "ScalingDisabled"
            }
            Trouble::AtMaximum => {
                condition.kind == "ScalingLimited" && condition.holds && condition.reason == "TooManyReplicas"
            }
        })
    }
}

/// What an autoscaler says of one metric, in thousandths of its unit.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Reported {
    /// Value; `None` where it knows none.
    pub value_milli: Option<i64>,
    /// Target.
    pub target_milli: i64,
}

/// A condition as the autoscaler states it.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Stated {
    /// Type, such as `ScalingActive`.
    pub kind: String,
    /// Whether it holds.
    pub holds: bool,
    /// Reason, in CamelCase.
    pub reason: String,
    /// Message.
    pub message: String,
    /// Since when `holds` is as it is.
    pub since: Option<Timestamp>,
}

/// Something that an autoscaler did.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Note {
    /// When; where it was repeated, the last time.
    pub at: Timestamp,
    /// Replicas before, where they are known.
    pub from: Option<i32>,
    /// Replicas after, where they changed.
    pub to: Option<i32>,
    /// Reason, in CamelCase.
    pub reason: String,
    /// Why, in words.
    pub message: String,
    /// Who says so.
    pub source: NoteSource,
    /// How often; at least 1.
    pub count: u32,
}

/// Who says that an autoscaler did something.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum NoteSource {
    /// Its status, which this server saw change.
    Status,
    /// An event of the cluster.
    Event,
}

/// Statuses of one autoscaler, as they were seen one after the other.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Record {
    /// When the first was seen.
    pub since: Timestamp,
    /// The last one.
    pub status: Status,
    /// What it did since, oldest first.
    pub notes: VecDeque<Note>,
    /// What it must have recommended, each from its moment to that of the next.
    recommendations: VecDeque<Recommendation>,
    /// When each value was seen to change.
    changed_at: BTreeMap<MetricName, Timestamp>,
}

impl Record {
    /// Begins with the status that is seen first.
    pub fn begin(status: Status, now: Timestamp) -> Self {
        let mut record = Self {
            since: now,
            status: Status::default(),
            notes: VecDeque::new(),
            recommendations: VecDeque::new(),
            changed_at: BTreeMap::new(),
        };
        record.keep(status, now);
        record
    }

    /// Notes what a new status tells.
    pub fn note(&mut self, status: Status, now: Timestamp) {
        let scaled_at = status.last_scaled_at.filter(|at| self.status.last_scaled_at != Some(*at));
        if let Some(at) = scaled_at.filter(|_| status.desired != self.status.desired) {
            let from = if status.current == status.desired { self.status.desired } else { status.current };
            let (reason, message) = ("SuccessfulRescale".to_owned(), status.values_in_words());
            let (from, to) = (Some(from), Some(status.desired));
            self.push(Note { at, from, to, reason, message, source: NoteSource::Status, count: 1 });
        }
        let worthy = status.conditions.iter().filter(|stated| self.is_worth_a_note(stated));
        let notes: Vec<_> = worthy.map(|stated| stated.note(now)).collect();
        notes.into_iter().for_each(|note| self.push(note));
        self.keep(status, now);
    }

    /// When the value of a metric was last seen to change.
    pub fn changed_at(&self, metric: MetricName) -> Option<Timestamp> {
        self.changed_at.get(&metric).copied()
    }

    /// Whether anything is known of what the controller recommended before `now`.
    pub fn has_recommendations(&self) -> bool {
        !self.recommendations.is_empty()
    }

    /// Returns what the controller must remember at `now`, as far as it was seen.
    pub fn history(&self, options: &Options, now: Timestamp) -> History {
        let ends = self.recommendations.iter().skip(1).map(|next| next.at).chain([now]);
        // It was repeated at each sync until it was another.
        let last = |(one, end): (&Recommendation, Timestamp)| Recommendation {
            replicas: one.replicas,
            at: (end - options.sync_period).max(one.at),
        };
        let recommendations = self.recommendations.iter().zip(ends).map(last).collect();
        let changes = self.notes.iter().filter_map(|note| Some((note.to? - note.from?, note.at)));
        let (ups, downs): (Vec<_>, Vec<_>) = changes.filter(|(by, _)| *by != 0).partition(|(by, _)| *by > 0);
        let changes = |those: Vec<(i32, Timestamp)>| {
            those.into_iter().map(|(by, at)| Change { by: by.abs(), at }).collect::<Vec<_>>()
        };
        History::known(recommendations, changes(ups), changes(downs))
    }

    /// A condition that changed, and that people ask about.
    fn is_worth_a_note(&self, stated: &Stated) -> bool {
        let before = self.status.conditions.iter().find(|before| before.kind == stated.kind);
        let is_news =
            before.is_none_or(|before| (before.holds, &before.reason) != (stated.holds, &stated.reason));
        let is_mended = before.is_some_and(|before| before.is_trouble() && stated.kind == before.kind);
        is_news && (stated.is_trouble() || stated.is_limit() || is_mended)
    }

    fn push(&mut self, note: Note) {
        if self.notes.len() == MOST_NOTES {
            self.notes.pop_front();
        }
        self.notes.push_back(note);
    }

    fn keep(&mut self, status: Status, now: Timestamp) {
        for (name, reported) in &status.metrics {
            let before = self.status.metrics.get(name).map(|before| before.value_milli);
            if before != Some(reported.value_milli) {
                self.changed_at.insert(*name, now);
            }
        }
        let proposed = status.proposed();
        if let Some(replicas) = proposed
            && self.recommendations.back().is_none_or(|last| last.replicas != replicas)
        {
            if self.recommendations.len() == MOST_RECOMMENDATIONS {
                self.recommendations.pop_front();
            }
            self.recommendations.push_back(Recommendation { replicas, at: now });
        }
        self.status = status;
    }
}

impl Status {
    /// What its metrics propose together, as far as its means tell: pods without a value are not among them.
    fn proposed(&self) -> Option<i32> {
        let tolerance = Options::default().tolerance;
        let proposals = self.metrics.values().map(|reported| {
            let ratio = reported.ratio()?;
            let is_near = (ratio - 1.0).abs() <= tolerance;
            Some(if is_near { self.current } else { rounded_up(ratio * f64::from(self.current)) })
        });
        proposals.collect::<Option<Vec<_>>>()?.into_iter().max()
    }

    fn values_in_words(&self) -> String {
        let words = self.metrics.iter().filter_map(|(name, reported)| {
            let value = amount(*name, reported.value_milli?);
            Some(format!(
                "{} was {value}, its target is {}",
                name.key(),
                amount(*name, reported.target_milli)
            ))
        });
        words.collect::<Vec<_>>().join("; ")
    }
}

impl Reported {
    /// The value by the target.
    pub fn ratio(&self) -> Option<f64> {
        (self.target_milli > 0).then_some(self.value_milli? as f64 / self.target_milli as f64)
    }
}

impl Stated {
    /// Whether it says that something is wrong.
    pub fn is_trouble(&self) -> bool {
        matches!(self.kind.as_str(), "AbleToScale" | "ScalingActive") && !self.holds
    }

    fn note(&self, at: Timestamp) -> Note {
        let (reason, message) = (self.reason.clone(), self.message.clone());
        Note { at, from: None, to: None, reason, message, source: NoteSource::Status, count: 1 }
    }

    /// Whether it says that something holds or clips the replicas.
    pub fn is_limit(&self) -> bool {
        (self.kind == "ScalingLimited" && self.holds) || self.reason.ends_with("Stabilized")
    }
}

/// Returns an amount of a metric with its unit.
pub fn amount(name: MetricName, milli: i64) -> String {
    let amount = milli as f64 / 1000.0;
    if name.is_percent() { format!("{amount} %") } else { format!("{amount} us") }
}

/// Returns so long after a moment, for the ages of what is seen; never negative.
pub fn age(at: Timestamp, now: Timestamp) -> SignedDuration {
    now.duration_since(at).max(SignedDuration::ZERO)
}
