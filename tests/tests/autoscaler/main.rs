//! The algorithm of `domain::autoscaler` against the controller itself: scenarios made up at random are decided by both, sync by
//! sync, and every number and reason must be the same.

mod scenario;

use std::collections::BTreeMap;
use std::fs;
use std::path::Path;
use std::process::Command;

use scenario::{Scenario, Step};
use serde::Deserialize;
use serde_json::Value;
use tms_server::domain::autoscaler::decision::{Condition, ConditionKind, Decision};
use tms_server::domain::autoscaler::effect::{Effect, Limit};
use tms_server::domain::autoscaler::metric::{ExternalTarget, Source};
use tms_server::domain::autoscaler::proposal::{Invalid, MissingAs, Outcome, Proposal, Usage};
use tms_server::domain::quantity::Quantity;
use tms_tests::random::number;
use tms_tests::{skip, tool};

/// Scenarios, unless `TMS_TEST_SCENARIOS` says otherwise.
const SCENARIOS: u64 = 600;

/// What the controller decided at one sync.
#[derive(Debug, Deserialize)]
struct Decided {
    replicas: i32,
    conditions: Option<Vec<SetCondition>>,
    metrics: Option<Vec<Value>>,
    error: String,
}

#[derive(Debug, Deserialize, PartialEq, Eq, PartialOrd, Ord)]
struct SetCondition {
    kind: String,
    status: bool,
    reason: String,
}

#[test]
fn every_decision_is_the_controllers() {
    let Some(replay) = tool("autoscaler-replay") else {
        skip("autoscaler-replay is missing; tests/cluster/cluster build makes it");
        return;
    };
    let count = number("TMS_TEST_SCENARIOS").unwrap_or(SCENARIOS);
    let scenarios: Vec<_> = (0..count).map(scenario::scenario).collect();
    let all = controller(&replay, &scenarios);
    assert_eq!(all.len(), scenarios.len());

    let mut branches = BTreeMap::new();
    let mut faults = Vec::new();
    for (scenario, decided) in scenarios.iter().zip(all) {
        assert_eq!(decided.len(), scenario.steps.len());
        for (place, (step, decided)) in scenario.steps.iter().zip(decided).enumerate() {
            let differences = differences(scenario, step, &decided);
            if !differences.is_empty() {
                faults.push(format!(
                    "seed {}, step {place}: {differences:?}\n{step:#?}\n{decided:#?}",
                    scenario.seed
                ));
            }
            branches_of(&step.decision, &mut branches);
        }
    }
    assert!(faults.is_empty(), "{} differ; the first:\n{}", faults.len(), faults[0]);
    println!("{branches:?}");
    if count == SCENARIOS {
        for branch in BRANCHES {
            let seen = branches.get(branch).copied().unwrap_or(0);
            assert!(seen >= 5, "{branch} was seen {seen} times: {branches:#?}");
        }
    }
}

/// Each must be seen 5 times at least, or the scenarios are too tame.
const BRANCHES: [&str; 38] = [
    "above maximum",
    "below minimum",
    "disabled",
    "blocked: all invalid",
    "blocked: some invalid",
    "some invalid, and up",
    "scaled to zero",
    "woken",
    "ratio",
    "within tolerance",
    "within tolerance, supposed",
    "uncertain",
    "missing: target",
    "missing: idle",
    "missing: left out",
    "unready: idle",
    "unready: left out",
    "ignored",
    "invalid: unavailable",
    "invalid: no value",
    "invalid: no pods",
    "invalid: no usable value",
    "invalid: no request",
    "external value",
    "average",
    "percent",
    "limit: maximum",
    "limit: minimum",
    "limit: default rate",
    "limit: disabled",
    "limit: policy",
    "DesiredWithinRange",
    "ScaleUpLimit",
    "ScaleDownLimit",
    "ScaleUpStabilized",
    "ScaleDownStabilized",
    "ReadyForNewScale",
    "SucceededRescale",
];

fn controller(replay: &Path, scenarios: &[Scenario]) -> Vec<Vec<Decided>> {
    let folder = tempfile::tempdir().expect("a temporary folder");
    let (input, output) = (folder.path().join("scenarios.json"), folder.path().join("decisions.json"));
    let text: Vec<_> = scenarios.iter().map(Scenario::to_json).collect();
    fs::write(&input, Value::from(text).to_string()).expect("the file can be written");
    let ran = Command::new(replay)
        .args(["-test.run", "TestReplay"])
        .envs([("REPLAY_SCENARIOS", &input), ("REPLAY_DECISIONS", &output)])
        .output()
        .expect("the controller starts");
    let text = |bytes| String::from_utf8_lossy(bytes).into_owned();
    assert!(ran.status.success(), "{}{}", text(&ran.stdout), text(&ran.stderr));
    let answer = fs::read(&output).expect("the controller answers");
    serde_json::from_slice(&answer).expect("the answer is as agreed")
}

fn differences(scenario: &Scenario, step: &Step, theirs: &Decided) -> Vec<String> {
    let ours = &step.decision;
    let mut differences = Vec::new();
    let mut compare = |what: &str, ours: String, theirs: String| {
        if ours != theirs {
            differences.push(format!("{what}: {ours} here, {theirs} there"));
        }
    };
    compare("replicas", ours.replicas.to_string(), theirs.replicas.to_string());
    let is_invalid = ours.proposals.iter().any(Result::is_err);
    compare("invalid", is_invalid.to_string(), (!theirs.error.is_empty()).to_string());
    compare(
        "conditions",
        format!("{:?}", expected(scenario, step)),
        format!("{:?}", conditions(scenario, theirs)),
    );
    let metrics = theirs.metrics.as_deref().unwrap_or_default();
    compare("metrics", ours.proposals.len().to_string(), metrics.len().to_string());
    for (place, (proposal, metric)) in ours.proposals.iter().zip(metrics).enumerate() {
        if is_divided_by_zero(step, place) {
            continue;
        }
        let ours = proposal.as_ref().ok().map(|proposal| shown(proposal.usage));
        compare("usage", format!("{ours:?}"), format!("{:?}", current(metric)));
    }
    differences
}

/// Whether the value is a mean over no replicas: the controller shows what the machine makes of that, and decides without it.
fn is_divided_by_zero(step: &Step, place: usize) -> bool {
    let source = &step.situation.metrics[place].source;
    step.situation.scale.existing == 0
        && matches!(source, Source::External { target: ExternalTarget::Average(_), .. })
}

/// Conditions in the order of their types. Without the gate nobody looks at ScaledToZero.
fn conditions(scenario: &Scenario, decided: &Decided) -> Vec<(String, bool, String)> {
    let all = decided.conditions.iter().flatten();
    let all = all.map(|set| (set.kind.clone(), set.status, set.reason.clone()));
    sorted(scenario, all.collect())
}

fn expected(scenario: &Scenario, step: &Step) -> Vec<(String, bool, String)> {
    let set = step.decision.conditions.iter();
    let mut all: Vec<_> = set
        .map(|Condition { kind, status, reason }| (format!("{kind:?}"), *status, (*reason).to_owned()))
        .collect();
    let zero = format!("{:?}", ConditionKind::ScaledToZero);
    if step.situation.was_scaled_to_zero && all.iter().all(|(kind, ..)| *kind != zero) {
        all.push((zero.clone(), true, zero));
    }
    sorted(scenario, all)
}

fn sorted(scenario: &Scenario, mut all: Vec<(String, bool, String)>) -> Vec<(String, bool, String)> {
    all.retain(|(kind, ..)| scenario.options.has_scale_to_zero || kind != "ScaledToZero");
    all.sort();
    all
}

fn shown(usage: Usage) -> i64 {
    match usage {
        Usage::Percent { percent, .. } => percent.into(),
        Usage::Average(milli) | Usage::Total(milli) => milli,
    }
}

/// The value that the status of the autoscaler shows, percent or thousandths.
fn current(metric: &Value) -> Option<i64> {
    let of = ["containerResource", "pods", "external"].iter().find_map(|kind| metric.get(kind))?;
    let current = of.get("current")?;
    let milli = |amount: &Value| {
        let amount: Quantity = amount.as_str()?.parse().ok()?;
        i64::try_from(amount.nanos() / 1_000_000).ok()
    };
    let percent = current.get("averageUtilization").and_then(Value::as_i64);
    percent.or_else(|| milli(current.get("averageValue").or_else(|| current.get("value"))?))
}

fn branches_of(decision: &Decision, branches: &mut BTreeMap<&'static str, usize>) {
    let mut saw = |branch| *branches.entry(branch).or_insert(0) += 1;
    saw("all");
    decision.conditions.iter().for_each(|condition| saw(condition.reason));
    let has_invalid = decision.proposals.iter().any(Result::is_err);
    if has_invalid && decision.replicas > decision.current {
        saw("some invalid, and up");
    }
    if decision.current > 0 && decision.replicas == 0 {
        saw("scaled to zero");
    }
    if decision.current == 0 && decision.replicas > 0 {
        saw("woken");
    }
    for proposal in &decision.proposals {
        match proposal {
            Ok(proposal) => branches_of_proposal(proposal, &mut saw),
            Err(Invalid::Unavailable(_)) => saw("invalid: unavailable"),
            Err(Invalid::NoValue) => saw("invalid: no value"),
            Err(Invalid::NoPods) => saw("invalid: no pods"),
            Err(Invalid::NoUsableValue { .. }) => saw("invalid: no usable value"),
            Err(Invalid::NoRequest { .. }) => saw("invalid: no request"),
            Err(Invalid::NothingRequested) => saw("invalid: nothing requested"),
        }
    }
    for effect in &decision.effects {
        match effect {
            Effect::Disabled => saw("disabled"),
            Effect::AboveMaximum { .. } => saw("above maximum"),
            Effect::BelowMinimum { .. } => saw("below minimum"),
            Effect::Blocked { proposed: None, .. } => saw("blocked: all invalid"),
            Effect::Blocked { proposed: Some(_), .. } => saw("blocked: some invalid"),
            Effect::Limited { by: Limit::Maximum, .. } => saw("limit: maximum"),
            Effect::Limited { by: Limit::Minimum, .. } => saw("limit: minimum"),
            Effect::Limited { by: Limit::DefaultRate, .. } => saw("limit: default rate"),
            Effect::Limited { by: Limit::Disabled, .. } => saw("limit: disabled"),
            Effect::Limited { by: Limit::Policy { .. }, .. } => saw("limit: policy"),
            Effect::Invalid { .. }
            | Effect::Missing { .. }
            | Effect::Unready { .. }
            | Effect::WithinTolerance { .. }
            | Effect::Uncertain { .. }
            | Effect::Stabilized { .. } => {}
        }
    }
}

fn branches_of_proposal(proposal: &Proposal, saw: &mut impl FnMut(&'static str)) {
    match (proposal.outcome, proposal.supposition) {
        (Outcome::Ratio, _) => saw("ratio"),
        (Outcome::WithinTolerance, None) => saw("within tolerance"),
        (Outcome::WithinTolerance, Some(_)) => saw("within tolerance, supposed"),
        (Outcome::Uncertain, _) => saw("uncertain"),
    }
    match proposal.usage {
        Usage::Percent { .. } => saw("percent"),
        Usage::Average(_) => saw("average"),
        Usage::Total(_) => saw("external value"),
    }
    if !proposal.groups.ignored.is_empty() {
        saw("ignored");
    }
    let supposition = proposal.supposition;
    if !proposal.groups.missing.is_empty() {
        match supposition.map(|supposition| supposition.missing) {
            Some(MissingAs::Target) => saw("missing: target"),
            Some(MissingAs::Idle) => saw("missing: idle"),
            Some(MissingAs::LeftOut) => saw("missing: left out"),
            None => {}
        }
    }
    if !proposal.groups.unready.is_empty() {
        let are_idle = supposition.is_some_and(|supposition| supposition.unready_are_idle);
        saw(if are_idle { "unready: idle" } else { "unready: left out" });
    }
}
