//! What replicas tell of their models while they come up, and how much of that a lease reports: the least advanced replica
//! counts, and bytes are told in steps, so that a download is a few changes of a row and not thousands.

use super::lease::{Lease, ModelReport, ModelState, Phase};
use super::observed::{ModelFault, Observed, PodSeen, Trouble};

/// A download is told at each of so many parts of it.
const STEPS: u64 = 10;
/// A download of unknown size is told after each of so many bytes.
const STEP_BYTES: u64 = 256 << 20;

/// Returns the report of each model of `lease`, which is in this phase.
pub fn models(
    lease: &Lease,
    phase: Phase,
    observed: &Observed,
    trouble: Option<&Trouble>,
) -> Vec<ModelReport> {
    let faults = match trouble {
        Some(Trouble::Models(faults)) => faults.as_slice(),
        _ => &[],
    };
    let report = |name: &String| {
        let seen = match faults.iter().find(|fault| fault.name == *name) {
            Some(ModelFault { message, .. }) => ModelReport::new(name, ModelState::Failed, message),
            None => seen(name, phase, observed, told(lease, name)),
        };
        match known(lease, name) {
            Some(known) => sparse(known, seen),
            None => seen,
        }
    };
    lease.spec.models.iter().map(|model| report(&model.name)).collect()
}

/// Whether a replica cannot load a model, as far as is known: one whose agent was not asked yet, such as after a restart of this
/// server, is as the lease told it.
pub fn cannot_load(lease: &Lease, pod: &PodSeen) -> bool {
    let told = || lease.spec.models.iter().filter_map(|model| told(lease, &model.name));
    pod.cannot_load() || (pod.is_unheard() && told().any(is_failed))
}

/// Returns what is to be told of a model of which `known` was told: the same again where only bytes changed, and by less
/// than a step, or only numbers in the message, or failed tries by less than twice as many.
pub fn sparse(known: &ModelReport, seen: ModelReport) -> ModelReport {
    let is_of_same = known.state == seen.state
        && known.total_bytes == seen.total_bytes
        && is_same_but_numbers(&known.message, &seen.message)
        && !is_telling(known.failed_tries, seen.failed_tries);
    if is_of_same && !is_step(known.downloaded_bytes, seen.downloaded_bytes, seen.total_bytes) {
        known.clone()
    } else {
        seen
    }
}

/// Whether two messages differ in nothing but numbers, such as those of nodes or bytes.
pub fn is_same_but_numbers(one: &str, other: &str) -> bool {
    let words = |text: &str| text.chars().filter(|c| !c.is_ascii_digit()).collect::<String>();
    words(one) == words(other)
}

/// Returns what models say of why they are not there yet, or nothing.
pub fn reason(models: &[ModelReport]) -> Option<String> {
    let speaking = models.iter().filter(|model| !model.message.is_empty());
    let reason = |model: &ModelReport| {
        let tries = match model.failed_tries {
            0 => String::new(),
            1 => " (tried once)".to_owned(),
            2 => " (tried twice or more)".to_owned(),
            many => format!(" (tried {many} times or more)"),
        };
        format!("{}: {}{tries}", model.name, model.message)
    };
    let reasons: Vec<_> = speaking.map(reason).collect();
    (!reasons.is_empty()).then(|| reasons.join("; "))
}

/// Returns why models are tried again, as far as they are, or nothing.
pub fn reason_to_retry(models: &[ModelReport]) -> Option<String> {
    let is_retried = |model: &&ModelReport| model.failed_tries > 0 && model.state != ModelState::Failed;
    reason(&models.iter().filter(is_retried).cloned().collect::<Vec<_>>())
}

/// Whether a number of failed tries is worth telling: each doubling is, and a new beginning.
fn is_telling(known: u32, seen: u32) -> bool {
    seen < known || (seen > known && seen >= known.saturating_mul(2))
}

fn is_step(known: Option<u64>, seen: Option<u64>, total: Option<u64>) -> bool {
    let step = total.map_or(STEP_BYTES, |total| (total / STEPS).max(1));
    match (known, seen) {
        (Some(known), Some(seen)) => seen >= known.saturating_add(step),
        (None, Some(_)) => true,
        (_, None) => false,
    }
}

fn known<'a>(lease: &'a Lease, name: &str) -> Option<&'a ModelReport> {
    lease.report.models.iter().find(|known| known.name == name)
}

/// Returns what the lease has told of a model on its way in replicas that are not ready, if it has.
fn told<'a>(lease: &'a Lease, name: &str) -> Option<&'a ModelReport> {
    known(lease, name).filter(|known| match lease.report.phase {
        Phase::Loading => true,
        // What is ready there may be so in the other replicas.
        Phase::Degraded => known.state != ModelState::Ready,
        Phase::Pending | Phase::Provisioning | Phase::Ready | Phase::Asleep | Phase::Written => false,
    })
}

fn seen(name: &str, phase: Phase, observed: &Observed, told: Option<&ModelReport>) -> ModelReport {
    let plain = |state| ModelReport::new(name, state, "");
    match phase {
        Phase::Pending | Phase::Provisioning | Phase::Asleep | Phase::Written => plain(ModelState::Pending),
        Phase::Ready => plain(ModelState::Ready),
        Phase::Degraded if observed.replicas.ready > 0 => {
            let failed = observed.pods.iter().map(|pod| of_pod(name, pod, told));
            failed.min_by_key(progress).filter(is_failed).unwrap_or_else(|| plain(ModelState::Ready))
        }
        Phase::Loading | Phase::Degraded => {
            let all = observed.pods.iter().map(|pod| of_pod(name, pod, told));
            all.min_by_key(progress).unwrap_or_else(|| plain(ModelState::Loading))
        }
    }
}

/// Returns where a model is in one replica, as far as that is known: where its agent was not heard yet, what was told before
/// still holds.
fn of_pod(name: &str, pod: &PodSeen, told: Option<&ModelReport>) -> ModelReport {
    let plain = |state| ModelReport::new(name, state, "");
    if pod.is_ready {
        return plain(ModelState::Ready);
    }
    if let Some(model) = pod.told().iter().find(|model| model.name == name) {
        return model.clone();
    }
    // Triton starts once all models are laid out.
    let is_fetched = pod.start.fetched_at.is_some();
    let least = plain(if is_fetched { ModelState::Loading } else { ModelState::Pending });
    let is_possible = |told: &&ModelReport| is_failed(told) || progress(told) >= progress(&least);
    match told.filter(|_| pod.is_unheard()).filter(is_possible) {
        Some(told) => told.clone(),
        None => least,
    }
}

fn is_failed(model: &ModelReport) -> bool {
    model.state == ModelState::Failed
}

/// How far a model is; what failed comes first.
fn progress(model: &ModelReport) -> (u8, u64) {
    let rank = match model.state {
        ModelState::Failed => 0,
        ModelState::Pending | ModelState::Unloaded => 1,
        ModelState::Downloading => 2,
        ModelState::Loading => 3,
        ModelState::Ready => 4,
    };
    (rank, model.downloaded_bytes.unwrap_or(0))
}

#[cfg(test)]
mod tests {
    use jiff::Timestamp;

    use super::*;
    use crate::domain::lease::Replicas;
    use crate::domain::observed::Objects;
    use crate::domain::start::Start;

    fn downloading(downloaded: u64, total: Option<u64>, message: &str) -> ModelReport {
        ModelReport {
            downloaded_bytes: Some(downloaded),
            total_bytes: total,
            ..ModelReport::new("bert", ModelState::Downloading, message)
        }
    }

    fn pod(is_running: bool, models: &[ModelReport]) -> PodSeen {
        PodSeen { is_running, models: Some(models.to_vec()), ..PodSeen::default() }
    }

    fn ready() -> PodSeen {
        PodSeen { is_running: true, is_ready: true, ..PodSeen::default() }
    }

    fn unheard() -> PodSeen {
        PodSeen { is_running: true, ..PodSeen::default() }
    }

    fn in_phase(phase: Phase, pods: Vec<PodSeen>, told: Option<&ModelReport>) -> String {
        let count = pods.iter().filter(|pod| pod.is_ready).count();
        let replicas = Replicas { desired: 2, current: 2, ready: u32::try_from(count).unwrap() };
        let observed =
            Observed { objects: Objects::Match, replicas, deployment_fault: None, pods, active_at: None };
        let seen = seen("bert", phase, &observed, told);
        let bytes = seen.downloaded_bytes.map(|bytes| format!(" {bytes}")).unwrap_or_default();
        format!("{:?}{bytes} {}", seen.state, seen.message).trim_end().to_owned()
    }

    #[test]
    fn the_least_advanced_replica_counts() {
        let loading = ModelReport::new("bert", ModelState::Loading, "");
        let failed = ModelReport::new("bert", ModelState::Failed, "corrupt");
        let start = Start { fetched_at: Some(Timestamp::UNIX_EPOCH), ..Start::default() };
        let fetched = PodSeen { start, ..pod(true, &[]) };
        let fetching = |bytes| pod(true, &[downloading(bytes, Some(100), "")]);
        let cases = [
            (Phase::Loading, vec![fetching(50), fetching(20)], "Downloading 20"),
            (Phase::Loading, vec![fetching(50), pod(true, &[loading])], "Downloading 50"),
            (Phase::Loading, vec![fetching(50), ready()], "Downloading 50"),
            (Phase::Loading, vec![fetching(50), pod(false, &[])], "Pending"),
            (Phase::Loading, vec![fetching(50), pod(true, &[])], "Pending"),
            (Phase::Loading, vec![fetching(50), fetched.clone()], "Downloading 50"),
            (Phase::Loading, vec![fetched], "Loading"),
            (Phase::Loading, vec![fetching(50), pod(true, std::slice::from_ref(&failed))], "Failed corrupt"),
            (Phase::Loading, vec![pod(true, &[])], "Pending"),
            (Phase::Loading, vec![unheard()], "Pending"),
            (Phase::Provisioning, vec![pod(false, &[])], "Pending"),
            (Phase::Ready, vec![ready(), fetching(50)], "Ready"),
            (Phase::Degraded, vec![ready(), fetching(50)], "Ready"),
            (Phase::Degraded, vec![ready(), pod(true, &[failed])], "Failed corrupt"),
            (Phase::Degraded, vec![fetching(50)], "Downloading 50"),
            (Phase::Degraded, vec![], "Loading"),
        ];
        for (phase, pods, expected) in cases {
            assert_eq!(in_phase(phase, pods.clone(), None), expected, "{phase:?} {pods:?}");
        }
    }

    #[test]
    fn what_was_told_holds_until_the_agent_is_heard() {
        let told = downloading(60, Some(100), "");
        let failed = ModelReport::new("bert", ModelState::Failed, "corrupt");
        let start = Start { fetched_at: Some(Timestamp::UNIX_EPOCH), ..Start::default() };
        let fetched = PodSeen { start, ..unheard() };
        let fetching = |bytes| pod(true, &[downloading(bytes, Some(100), "")]);
        let cases = [
            (Phase::Loading, vec![unheard()], &told, "Downloading 60"),
            (Phase::Loading, vec![unheard(), fetching(80)], &told, "Downloading 60"),
            (Phase::Loading, vec![unheard(), fetching(20)], &told, "Downloading 20"),
            (Phase::Loading, vec![fetching(70)], &told, "Downloading 70"),
            (Phase::Loading, vec![fetched.clone()], &told, "Loading"),
            (Phase::Loading, vec![pod(false, &[])], &told, "Pending"),
            (Phase::Loading, vec![PodSeen::default()], &told, "Pending"),
            (Phase::Provisioning, vec![PodSeen::default()], &told, "Pending"),
            (Phase::Degraded, vec![ready(), unheard()], &told, "Ready"),
            (Phase::Degraded, vec![ready(), fetched], &failed, "Failed corrupt"),
            (Phase::Degraded, vec![ready(), ready()], &failed, "Ready"),
        ];
        for (phase, pods, told, expected) in cases {
            assert_eq!(in_phase(phase, pods.clone(), Some(told)), expected, "{phase:?} {pods:?} {told:?}");
        }
    }

    #[test]
    fn failed_tries_are_told_at_each_doubling() {
        let failed = |failed_tries| ModelReport { failed_tries, ..downloading(0, None, "out of memory") };
        let mut told = failed(0);
        let mut all = Vec::new();
        for tries in (1..=20).chain([1]) {
            let next = sparse(&told, failed(tries));
            if next != told {
                all.push(next.failed_tries);
            }
            told = next;
        }
        assert_eq!(all, [1, 2, 4, 8, 16, 1]);
    }

    #[test]
    fn a_download_is_told_in_steps() {
        let mib = |count: u64| count << 20;
        let (all, step) = (Some(1000), mib(256));
        // Told, seen, whether that is told.
        let cases = [
            (downloading(100, all, ""), downloading(199, all, ""), false),
            (downloading(100, all, ""), downloading(200, all, ""), true),
            (downloading(100, all, ""), downloading(20, all, ""), false),
            (downloading(100, all, ""), downloading(101, None, ""), true),
            (downloading(0, None, ""), downloading(step - 1, None, ""), false),
            (downloading(0, None, ""), downloading(step, None, ""), true),
            (downloading(0, Some(5), ""), downloading(1, Some(5), ""), true),
            (downloading(100, all, ""), downloading(101, all, "no answer within 10s"), true),
            (downloading(100, all, "again in 1s"), downloading(101, all, "again in 15s"), false),
            (downloading(100, all, ""), ModelReport::new("bert", ModelState::Loading, ""), true),
            (ModelReport::new("bert", ModelState::Pending, ""), downloading(0, None, ""), true),
        ];
        for (told, seen, is_told) in cases {
            let expected = if is_told { seen.clone() } else { told.clone() };
            assert_eq!(sparse(&told, seen.clone()), expected, "{told:?} then {seen:?}");
        }
    }
}
