//! `tmsctl lease explain LEASE`.

use std::collections::BTreeMap;

use jiff::Timestamp;
use serde::Serialize;
use tms_proto::v1;

use super::Global;
use crate::failure::Failure;
use crate::text::{facts, inner, line, section, table};
use crate::{clock, output, text, view, words};

/// Say why a lease has the replicas that it has
#[derive(Debug, clap::Args)]
#[command(after_help = "\
Shows what each metric proposes, which proposal wins (*), what holds or clips the replicas, what the \
HorizontalPodAutoscaler says of itself, and what it did last. What TMS computed with the controller's algorithm is marked \
so; the rest the cluster says itself.

With -z, one line each, with the first field saying what it is:
  lease     id, state, scaled_by, ready, desired, minimum, maximum, proposed
  summary   sentence
  metric    name, value, target, proposal, wins, error
  hold      kind, computed, metric, until, message
  decision  time, from, to, reason, message

Examples:
  tmsctl lease explain 3f0a
  tmsctl lease explain 3f0a -o json | jq -r .summary")]
pub struct Arguments {
    /// Id of the lease, or a unique prefix of it
    lease: String,
}

#[derive(Debug, Serialize)]
struct Explanation {
    lease_id: String,
    state: &'static str,
    scaled_by: String,
    summary: String,
    replicas: view::Replicas,
    proposed: Option<u32>,
    metrics: Vec<Metric>,
    holds: Vec<Hold>,
    conditions: Vec<Condition>,
    decisions: Vec<Decision>,
    last_scaled_at: Option<Timestamp>,
    unknowns: Vec<String>,
    at: Option<Timestamp>,
    observed_since: Option<Timestamp>,
}

#[derive(Debug, Serialize)]
struct Metric {
    name: String,
    target: i64,
    value: Option<f64>,
    ratio: Option<f64>,
    proposal: Option<u32>,
    age: Option<view::Seconds>,
    wins: bool,
    error: String,
    source: String,
    pods: BTreeMap<&'static str, Vec<String>>,
    reported_value: Option<f64>,
}

#[derive(Debug, Serialize)]
struct Hold {
    kind: String,
    message: String,
    computed: bool,
    metric: String,
    until: Option<Timestamp>,
}

#[derive(Debug, Serialize)]
struct Condition {
    r#type: String,
    status: bool,
    reason: String,
    meaning: String,
    message: String,
    since: Option<Timestamp>,
}

#[derive(Debug, Serialize)]
struct Decision {
    at: Option<Timestamp>,
    from: Option<u32>,
    to: Option<u32>,
    reason: String,
    message: String,
    source: String,
    count: u32,
}

pub async fn run(global: &Global, arguments: Arguments) -> Result<(), Failure> {
    let form = global.form()?;
    let connection = global.connect().await?;
    let request = v1::ExplainRequest { lease_id: arguments.lease };
    let answer = connection.answer("Explain", connection.leases().explain(request)).await?;
    let explanation = Explanation::from(answer);
    form.print(&explanation, || page(&explanation, clock::now(), output::width()), || lines(&explanation))
}

impl From<v1::ExplainResponse> for Explanation {
    fn from(answer: v1::ExplainResponse) -> Self {
        let moment = |at: &Option<prost_types::Timestamp>| at.as_ref().and_then(view::timestamp);
        Self {
            state: view::lease_state(answer.state()),
            scaled_by: answer.scaled_by().as_str_name().trim_start_matches("SCALED_BY_").to_owned(),
            last_scaled_at: moment(&answer.last_scaled_at),
            at: moment(&answer.at),
            observed_since: moment(&answer.observed_since),
            lease_id: answer.lease_id,
            summary: answer.summary,
            replicas: answer.replicas.as_ref().map(view::Replicas::from).unwrap_or_default(),
            proposed: answer.proposed,
            metrics: answer.metrics.into_iter().map(Metric::from).collect(),
            holds: answer.holds.into_iter().map(Hold::from).collect(),
            conditions: answer.conditions.into_iter().map(Condition::from).collect(),
            decisions: answer.decisions.into_iter().map(Decision::from).collect(),
            unknowns: answer.unknowns,
        }
    }
}

impl From<v1::MetricExplanation> for Metric {
    fn from(metric: v1::MetricExplanation) -> Self {
        let pods = [
            ("counted", metric.counted_pods),
            ("missing", metric.missing_pods),
            ("unready", metric.unready_pods),
            ("ignored", metric.ignored_pods),
        ];
        Self {
            name: metric.name,
            target: metric.target,
            value: metric.value,
            ratio: metric.ratio,
            proposal: metric.proposal,
            age: metric.age.as_ref().map(view::Seconds::from),
            wins: metric.wins,
            error: metric.error,
            source: metric.source,
            pods: BTreeMap::from(pods),
            reported_value: metric.reported_value,
        }
    }
}

impl From<v1::Hold> for Hold {
    fn from(hold: v1::Hold) -> Self {
        let v1::Hold { kind, message, computed, metric, until } = hold;
        Self { kind, message, computed, metric, until: until.as_ref().and_then(view::timestamp) }
    }
}

impl From<v1::AutoscalerCondition> for Condition {
    fn from(condition: v1::AutoscalerCondition) -> Self {
        let v1::AutoscalerCondition { r#type, status, reason, meaning, message, since } = condition;
        Self { r#type, status, reason, meaning, message, since: since.as_ref().and_then(view::timestamp) }
    }
}

impl From<v1::ScalingDecision> for Decision {
    fn from(decision: v1::ScalingDecision) -> Self {
        let v1::ScalingDecision { at, from, to, reason, message, source, count } = decision;
        Self { at: at.as_ref().and_then(view::timestamp), from, to, reason, message, source, count }
    }
}

fn page(explanation: &Explanation, now: Timestamp, width: Option<u16>) -> String {
    let view::Replicas { ready, desired, minimum, maximum, .. } = explanation.replicas;
    let replicas = match explanation.scaled_by.as_str() {
        "UNOBSERVED" => format!("scaled from {minimum} to {maximum}, not observed"),
        "NOTHING" => format!("{ready} of {desired} ready"),
        _ => format!("{ready} of {desired} ready, scaled from {minimum} to {maximum}"),
    };
    let told = |at: Option<Timestamp>| at.map(|at| words::moment(at, now)).unwrap_or_default();
    let mut page = facts(&[
        ("Lease", explanation.lease_id.clone()),
        ("State", text::state(explanation.state)),
        ("Replicas", replicas),
        ("Proposed", explanation.proposed.map(|count| count.to_string()).unwrap_or_default()),
        ("Scaled", told(explanation.last_scaled_at)),
        ("Why", explanation.summary.clone()),
    ]);
    page += &section("Metrics", &metric_table(&explanation.metrics, width));
    page += &section("Held by", &hold_table(&explanation.holds, now, width));
    page += &section("Autoscaler", &condition_table(&explanation.conditions, width));
    page += &section("Decisions", &decision_table(&explanation.decisions, now, width));
    if let Some(since) = explanation.observed_since {
        page +=
            &format!("  seen by this server since {}; before, what events still tell\n", words::date(since));
    }
    let unknowns: String = explanation.unknowns.iter().map(|unknown| unknown.clone() + "\n").collect();
    page + &section("Unknown", &unknowns)
}

fn metric_table(metrics: &[Metric], width: Option<u16>) -> String {
    let rows = metrics.iter().map(|metric| {
        let pods: Vec<_> = ["counted", "missing", "unready", "ignored"]
            .into_iter()
            .filter_map(|group| Some((group, metric.pods.get(group)?.len())))
            .filter(|(_, count)| *count > 0)
            .map(|(group, count)| format!("{count} {group}"))
            .collect();
        let message = if metric.error.is_empty() { pods.join(", ") } else { metric.error.clone() };
        vec![
            format!("{}{}", metric.name, if metric.wins { " *" } else { "" }),
            metric.value.map_or("?".to_owned(), |value| amount(&metric.name, value)),
            words::threshold(&metric.name, metric.target),
            metric.proposal.map_or("?".to_owned(), |count| count.to_string()),
            metric.age.map(|age| words::duration(age.0)).unwrap_or_default(),
            message,
        ]
    });
    unless_empty(metrics, &["METRIC", "VALUE", "TARGET", "PROPOSES", "AGE", "MESSAGE"], rows, width)
}

fn hold_table(holds: &[Hold], now: Timestamp, width: Option<u16>) -> String {
    let rows = holds.iter().map(|hold| {
        vec![
            hold.kind.clone(),
            if hold.computed { "computed" } else { "cluster" }.to_owned(),
            hold.until.map(|until| words::relative(until, now)).unwrap_or_default(),
            hold.message.clone(),
        ]
    });
    unless_empty(holds, &["WHAT", "SAID BY", "ENDS", "MESSAGE"], rows, width)
}

fn condition_table(conditions: &[Condition], width: Option<u16>) -> String {
    let rows = conditions.iter().map(|condition| {
        vec![
            condition.r#type.clone(),
            if condition.status { "yes" } else { "no" }.to_owned(),
            condition.reason.clone(),
            if condition.meaning.is_empty() { &condition.message } else { &condition.meaning }.clone(),
        ]
    });
    unless_empty(conditions, &["CONDITION", "HOLDS", "REASON", "MESSAGE"], rows, width)
}

fn decision_table(decisions: &[Decision], now: Timestamp, width: Option<u16>) -> String {
    let rows = decisions.iter().map(|decision| {
        let times = if decision.count > 1 { format!(" ({} times)", decision.count) } else { String::new() };
        vec![
            decision.at.map(|at| words::relative(at, now)).unwrap_or_default(),
            change(decision),
            decision.reason.clone(),
            decision.message.clone() + &times,
        ]
    });
    unless_empty(decisions, &["WHEN", "REPLICAS", "WHAT", "MESSAGE"], rows, width)
}

fn unless_empty<T>(
    things: &[T],
    header: &[&str],
    rows: impl Iterator<Item = Vec<String>>,
    width: Option<u16>,
) -> String {
    if things.is_empty() { String::new() } else { table(header, rows, inner(width)) }
}

fn change(decision: &Decision) -> String {
    match (decision.from, decision.to) {
        (Some(from), Some(to)) => format!("{from} to {to}"),
        (None, Some(to)) => format!("to {to}"),
        (_, None) => String::new(),
    }
}

/// Returns a value of a metric with its unit.
pub fn amount(metric: &str, value: f64) -> String {
    match metric {
        "queueTime" => waiting(value),
        _ => format!("{value:.0}%"),
    }
}

/// Returns a time that requests wait, from microseconds.
pub fn waiting(microseconds: f64) -> String {
    match microseconds {
        long if long >= 999_500.0 => format!("{:.1}s", long / 1e6),
        some if some >= 999.5 => format!("{:.0}ms", some / 1e3),
        short => format!("{short:.0}us"),
    }
}

fn lines(explanation: &Explanation) -> String {
    let view::Replicas { ready, desired, minimum, maximum, .. } = explanation.replicas;
    let number = |count: Option<u32>| count.map(|count| count.to_string()).unwrap_or_default();
    let mut text = line(&[
        "lease",
        &explanation.lease_id,
        explanation.state,
        &explanation.scaled_by,
        &ready.to_string(),
        &desired.to_string(),
        &minimum.to_string(),
        &maximum.to_string(),
        &number(explanation.proposed),
    ]);
    text += &line(&["summary", &explanation.summary]);
    for metric in &explanation.metrics {
        let value = metric.value.map(|value| value.to_string()).unwrap_or_default();
        text += &line(&[
            "metric",
            &metric.name,
            &value,
            &metric.target.to_string(),
            &number(metric.proposal),
            &metric.wins.to_string(),
            &metric.error,
        ]);
    }
    for hold in &explanation.holds {
        let until = hold.until.map(|until| until.to_string()).unwrap_or_default();
        text += &line(&["hold", &hold.kind, &hold.computed.to_string(), &hold.metric, &until, &hold.message]);
    }
    for decision in &explanation.decisions {
        let at = decision.at.map(|at| at.to_string()).unwrap_or_default();
        text += &line(&[
            "decision",
            &at,
            &number(decision.from),
            &number(decision.to),
            &decision.reason,
            &decision.message,
        ]);
    }
    text
}
