//! Simulate: what autoscaling would have done under a load. It takes time of a processor, so that few run at once, on threads
//! of their own, and the work of each is bounded before it begins.

use std::sync::Arc;

use tms_proto::v1;
use tokio::sync::Semaphore;

use super::explain::options;
use super::status::{Refusal, violation};
use super::{Services, convert};
use crate::auth::Caller;
use crate::domain::autoscaler::simulation::{
    Arrivals, Question, Refused, Service, Shape, Simulation, Timing, Trace, simulate,
};
use crate::domain::bounds::{Accepted, Violation, grant_scaling};
use crate::domain::lease::Triton;
use crate::domain::scaling::{Autoscaling, MetricName, Scaling};

/// Simulations that run at once.
const AT_ONCE: usize = 2;
/// Longest trace, in bytes.
const LARGEST_TRACE: usize = 512 * 1024;
/// Most seconds times replicas, such as a week with eight: some seconds of a processor.
const MOST_WORK: i64 = 5_000_000;
/// Rows of an answer that does not say.
const DEFAULT_ROWS: u32 = 500;
/// Most rows of an answer.
const MOST_ROWS: u32 = 5_000;
/// Most requests that a replica serves at once.
const MOST_AT_ONCE: u32 = 100_000;
/// Longest time of a request, in seconds.
const LONGEST_SERVICE: f64 = 3_600.0;
/// Longest start of a replica, in seconds.
const LONGEST_START: i64 = 86_400;
/// Until the containers of a replica run, in seconds, where nobody says.
const USUAL_PENDING: u32 = 5;
/// Until it serves, in seconds, where nobody says.
const USUAL_COLD_START: u32 = 60;
/// Age of what the autoscaler is told, in scrapes: one until it is recorded, on average half of it until it is asked for.
const DELAY_IN_SCRAPES: u32 = 1;

/// Places of simulations.
#[derive(Clone, Debug)]
pub struct Simulations(Arc<Semaphore>);

impl Default for Simulations {
    fn default() -> Self {
        Self(Arc::new(Semaphore::new(AT_ONCE)))
    }
}

impl Services {
    /// Plays a load against autoscaling.
    pub(super) async fn simulate(
        self: Arc<Self>,
        caller: Caller,
        request: v1::SimulateRequest,
    ) -> Result<v1::SimulateResponse, Refusal> {
        let most_rows = request.most_rows;
        let (question, warnings) = self.question(&caller, request).await?;
        let rows = if most_rows == 0 { DEFAULT_ROWS } else { most_rows };
        let (question, played) = self.simulations.play(question).await?;
        let played = played.map_err(|refused| Refusal::Violations(vec![of_the_model(&refused)]))?;
        let answer = convert::simulation(&question, &played, rows as usize);
        Ok(v1::SimulateResponse { warnings, ..answer })
    }

    /// Returns what is to be played, or every fault of the request.
    async fn question(
        &self,
        caller: &Caller,
        request: v1::SimulateRequest,
    ) -> Result<(Question, Vec<String>), Refusal> {
        let mut faults = Vec::new();
        if request.most_rows == 1 || request.most_rows > MOST_ROWS {
            let rule = format!("{} rows asked, 2 to {MOST_ROWS} are allowed", request.most_rows);
            faults.push(violation("most_rows", rule));
        }
        let trace = trace(&request.load_csv, request.load_in_steps, &mut faults);
        let service = service(&request.workload.unwrap_or_default(), &mut faults);
        let scaled = self.scaled(caller, &request.lease_id, request.spec, &mut faults).await?;
        if let (Some(trace), Some((autoscaling, _, _))) = (&trace, &scaled) {
            let work = trace.seconds().saturating_mul(autoscaling.maximum.into());
            if work > MOST_WORK {
                let rule = format!(
                    "{} seconds of load with up to {} replicas make {work}, at most {MOST_WORK} are allowed: shorten the load",
                    trace.seconds(),
                    autoscaling.maximum
                );
                faults.push(violation("load_csv", rule));
            }
        }
        if let Some((autoscaling, _, _)) = &scaled {
            check_modelled(autoscaling, &service, &mut faults);
        }
        let (Some(trace), Some((autoscaling, triton, warnings)), true) = (trace, scaled, faults.is_empty())
        else {
            return Err(Refusal::Violations(faults));
        };
        let timing = Timing {
            scrape_seconds: self.settings.scrape_interval_seconds,
            window_seconds: self.settings.window_seconds,
            delay_seconds: self.settings.scrape_interval_seconds * DELAY_IN_SCRAPES,
        };
        let service = Service { gpus: triton.gpus, ..service };
        let options = options(&(self.capabilities)());
        Ok((Question { autoscaling, trace, service, timing, options }, warnings))
    }

    /// Returns the autoscaling that is to be played, from the lease or the wishes.
    async fn scaled(
        &self,
        caller: &Caller,
        lease_id: &str,
        spec: Option<v1::LeaseSpec>,
        faults: &mut Vec<Violation>,
    ) -> Result<Option<(Autoscaling, Triton, Vec<String>)>, Refusal> {
        match (lease_id, spec) {
            ("", Some(spec)) => {
                let (request, unreadable) = convert::request(spec);
                faults.extend(unreadable);
                match grant_scaling(&request, &self.bounds) {
                    Ok(Accepted { granted: (autoscaling, triton), warnings }) => {
                        return Ok(Some((autoscaling, triton, warnings)));
                    }
                    Err(violations) => faults.extend(violations),
                }
            }
            ("", None) => {
                let rule = "nothing to simulate: name a lease, or give `spec.autoscaling`";
                faults.push(violation("spec", rule));
            }
            (_, Some(_)) => {
                faults.push(violation("spec", "a lease and a spec asked, which exclude each other"));
            }
            (prefix, None) => {
                let lease = self.find(caller, prefix).await?;
                match lease.spec.scaling {
                    Scaling::Auto(autoscaling) => {
                        return Ok(Some((autoscaling, lease.spec.triton, Vec::new())));
                    }
                    Scaling::Fixed { replicas } => {
                        let rule = format!(
                            "lease {} has {replicas} replicas, always: leave it out and say what to simulate",
                            lease.id
                        );
                        faults.push(violation("lease_id", rule));
                    }
                }
            }
        }
        Ok(None)
    }
}

impl Simulations {
    /// Plays it when there is a place, off the threads that answer others.
    async fn play(&self, question: Question) -> Result<(Question, Result<Simulation, Refused>), Refusal> {
        let place = Arc::clone(&self.0).acquire_owned().await;
        let place = place.map_err(|_| Refusal::Stopping)?;
        let played = tokio::task::spawn_blocking(move || {
            let played = simulate(&question);
            drop(place);
            (question, played)
        });
        played.await.map_err(|failure| Refusal::Internal(Box::new(failure)))
    }
}

fn trace(text: &str, is_stepped: bool, faults: &mut Vec<Violation>) -> Option<Trace> {
    if text.len() > LARGEST_TRACE {
        let rule = format!("a load of {} bytes, at most {LARGEST_TRACE} are allowed", text.len());
        faults.push(violation("load_csv", rule));
        return None;
    }
    let shape = if is_stepped { Shape::Step } else { Shape::Linear };
    Trace::parse(text, shape).map_err(|fault| faults.push(violation("load_csv", fault.to_string()))).ok()
}

fn service(workload: &v1::Workload, faults: &mut Vec<Violation>) -> Service {
    let seconds_per_request = match &workload.service_time {
        Some(time) => time.seconds as f64 + f64::from(time.nanos) * 1e-9,
        None => 0.0,
    };
    if !(1e-6..=LONGEST_SERVICE).contains(&seconds_per_request) {
        let rule = if workload.service_time.is_none() {
            "how long does a request take, without waiting? That is needed".to_owned()
        } else {
            format!("{seconds_per_request} s asked, a microsecond to an hour is allowed")
        };
        faults.push(violation("workload.service_time", rule));
    }
    let served_at_once = workload.concurrency.max(1);
    if served_at_once > MOST_AT_ONCE {
        let rule = format!("{served_at_once} at once asked, 1 to {MOST_AT_ONCE} are allowed");
        faults.push(violation("workload.concurrency", rule));
    }
    let mut start = |field: &str, asked: Option<&prost_types::Duration>, usual: u32| {
        let Some(asked) = asked else { return usual };
        match u32::try_from(asked.seconds) {
            Ok(seconds) if asked.seconds <= LONGEST_START && asked.nanos >= 0 => seconds,
            Ok(_) | Err(_) => {
                let rule = format!("{} s asked, 0 to {LONGEST_START} s are allowed", asked.seconds);
                faults.push(violation(field, rule));
                usual
            }
        }
    };
    let pending_seconds = start("workload.pending_time", workload.pending_time.as_ref(), USUAL_PENDING);
    let loading_seconds = start("workload.cold_start", workload.cold_start.as_ref(), USUAL_COLD_START);
    let percents = [
        ("workload.busy_cpu_percent", workload.busy_cpu_percent),
        ("workload.memory_percent", workload.memory_percent),
        ("workload.gpu_memory_percent", workload.gpu_memory_percent),
    ];
    for (field, percent) in percents {
        if let Some(percent) = percent.filter(|percent| !(0.0..=1e6).contains(percent)) {
            faults.push(violation(field, format!("{percent} % asked, 0 to 1000000 % are allowed")));
        }
    }
    Service {
        seconds_per_request,
        served_at_once,
        pending_seconds,
        loading_seconds,
        gpus: 0,
        cpu_percent_when_busy: workload.busy_cpu_percent,
        memory_percent: workload.memory_percent,
        gpu_memory_percent: workload.gpu_memory_percent,
        arrivals: if workload.even_arrivals { Arrivals::Even } else { Arrivals::Random },
    }
}

/// Refuses metrics of which the model would know nothing.
fn check_modelled(autoscaling: &Autoscaling, service: &Service, faults: &mut Vec<Violation>) {
    for metric in autoscaling.metrics.keys() {
        let (field, known) = match metric {
            MetricName::CpuUtilization => ("workload.busy_cpu_percent", service.cpu_percent_when_busy),
            MetricName::MemoryUtilization => ("workload.memory_percent", service.memory_percent),
            MetricName::GpuMemoryUtilization => ("workload.gpu_memory_percent", service.gpu_memory_percent),
            MetricName::GpuUtilization | MetricName::QueueTime => continue,
        };
        if known.is_none() {
            let key = metric.key();
            faults
                .push(violation(field, format!("{key} scales the lease: say how much of it a replica uses")));
        }
    }
}

fn of_the_model(refused: &Refused) -> Violation {
    let field = match refused {
        Refused::OutOfRange { field: "minimum" | "maximum", .. } => "spec.autoscaling.min_replicas",
        Refused::OutOfRange { .. } | Refused::Unmodelled { .. } => "workload",
    };
    violation(field, refused.to_string())
}
