//! `tmsctl lease simulate`.

mod plot;

use std::io::Read;
use std::path::{Path, PathBuf};
use std::time::Duration;

use clap::Args;
use serde::Serialize;
use tms_proto::v1::{
    BespokeTriton, LeaseSpec, SimulateRequest, SimulateResponse, SimulatedRow, SimulationSummary, Workload,
};

use super::Global;
use super::explain::waiting;
use crate::arguments::{WishArguments, count, duration, proto_duration};
use crate::failure::Failure;
use crate::output::{self, Form};
use crate::text::{facts, inner, line, section, table};
use crate::{view, words};

/// Largest load that servers take, in bytes.
const LARGEST_LOAD: u64 = 512 * 1024;
/// Rows for programs.
const ALL_ROWS: u32 = 5_000;
/// Rows of which the table and the plot are made.
const TOLD_ROWS: u32 = 240;
/// Rows of the table, apart from those in which something changes.
const QUIET_ROWS: usize = 12;

/// Show what autoscaling would do under a load, without creating anything
#[derive(Debug, Args)]
#[command(after_help = "\
The load is CSV whose header names `time` (seconds, or RFC 3339) and `requests_per_second`. The server plays it with the \
algorithm of Kubernetes' autoscaler against a model of replicas, and says what the model takes for granted. Wishes outside \
the bounds are refused as by `tmsctl lease create`. The table has the rows in which replicas change and some between; -o \
json has them all.

With -z, one line each: second, requests per second, replicas, ready, queue time in microseconds, utilization, requests \
that wait.

Examples:
  tmsctl lease simulate --load trace.csv --service-time 80ms --cold-start 90s \\
      --autoscaling-max-replicas 4 --autoscaling-queue-time=200ms
  tmsctl lease simulate --load trace.csv --service-time 80ms --lease 3f0a -o json")]
pub struct Arguments {
    /// Requests per second over time: a CSV file, or - for standard input
    #[arg(long, value_name = "FILE")]
    load: PathBuf,

    /// Let the load of a line hold until the next; otherwise it goes straight from one to the next
    #[arg(long)]
    load_in_steps: bool,

    /// A lease whose autoscaling is simulated, in place of the autoscaling options
    #[arg(long, value_name = "LEASE")]
    lease: Option<String>,

    /// GPUs of each replica [default: the administrator's]
    #[arg(long, value_name = "COUNT", value_parser = count, allow_negative_numbers = true, conflicts_with = "lease")]
    gpus: Option<u32>,

    /// What is simulated always; taken so that the options of `lease create` can be used as they are
    #[arg(long, hide = true)]
    enable_autoscaling: bool,

    #[command(flatten)]
    workload: WorkloadArguments,

    #[command(flatten)]
    wishes: WishArguments,
}

/// What a replica can do.
#[derive(Debug, Args)]
#[command(next_help_heading = "Replica options")]
struct WorkloadArguments {
    /// How long a request takes without waiting, such as 80ms
    #[arg(long, value_name = "TIME", value_parser = duration)]
    service_time: Duration,

    /// Requests that a replica serves at once: instances by batch size [default: 1]
    #[arg(long, value_name = "COUNT", value_parser = count, allow_negative_numbers = true)]
    concurrency: Option<u32>,

    /// From the moment that the containers of a new replica run until it serves [default: 60s]
    #[arg(long, value_name = "DURATION", value_parser = duration)]
    cold_start: Option<Duration>,

    /// From the decision until the containers of a new replica run [default: 5s]
    #[arg(long, value_name = "DURATION", value_parser = duration)]
    pending_time: Option<Duration>,

    /// CPU that a replica uses while it is busy, in percent of its request; needed to scale on it
    #[arg(long, value_name = "PERCENT")]
    busy_cpu: Option<f64>,

    /// Memory that a replica uses always, in percent of its request; needed to scale on it
    #[arg(long, value_name = "PERCENT")]
    memory_use: Option<f64>,

    /// GPU memory that a replica uses always, in percent; needed to scale on it
    #[arg(long, value_name = "PERCENT")]
    gpu_memory_use: Option<f64>,

    /// Let requests arrive one after the other; otherwise independently of each other, so that some wait by chance
    #[arg(long)]
    even_arrivals: bool,
}

#[derive(Serialize)]
struct Simulation {
    autoscaling: Option<view::Autoscaling>,
    summary: Summary,
    rows: Vec<Row>,
    assumptions: Vec<String>,
    warnings: Vec<String>,
}

#[derive(Serialize)]
struct Row {
    second: i64,
    requests_per_second: f64,
    replicas: u32,
    ready: u32,
    queue_time_us: Option<f64>,
    utilization: f64,
    waiting: f64,
    proposed: Option<u32>,
    holds: Vec<String>,
}

#[derive(Serialize, Default)]
struct Summary {
    seconds: i64,
    requests: f64,
    waiting_at_end: f64,
    mean_queue_time_us: f64,
    queue_time_50_us: f64,
    queue_time_95_us: f64,
    queue_time_99_us: f64,
    longest_queue_time_us: f64,
    most_replicas: u32,
    mean_replicas: f64,
    changes: u32,
    gpu_hours: f64,
    replica_hours: f64,
    share_over_target: f64,
}

pub async fn run(global: &Global, arguments: Arguments) -> Result<(), Failure> {
    let form = global.form()?;
    let request = arguments.into_request(form)?;
    let connection = global.connect().await?;
    let answer = connection.answer("Simulate", connection.leases().simulate(request)).await?;
    for warning in &answer.warnings {
        output::warn(warning);
    }
    let simulation = Simulation::from(answer);
    form.print(&simulation, || page(&simulation, output::width()), || lines(&simulation.rows))
}

impl Arguments {
    fn into_request(self, form: Form) -> Result<SimulateRequest, Failure> {
        let load_csv = read_load(&self.load)?;
        let spec = match (&self.lease, self.wishes.first_detail()) {
            (Some(_), Some(flag)) => {
                return Err(Failure::usage(format!("{flag} and --lease exclude each other"))
                    .hint("leave --lease out to simulate other autoscaling"));
            }
            (Some(_), None) => None,
            (None, _) => Some(LeaseSpec {
                autoscaling: Some(self.wishes.into_autoscaling()?),
                bespoke: Some(BespokeTriton { gpus: self.gpus, ..BespokeTriton::default() }),
                ..LeaseSpec::default()
            }),
        };
        Ok(SimulateRequest {
            lease_id: self.lease.unwrap_or_default(),
            spec,
            load_csv,
            load_in_steps: self.load_in_steps,
            workload: Some(self.workload.into_workload()?),
            most_rows: if form == Form::Table { TOLD_ROWS } else { ALL_ROWS },
        })
    }
}

impl WorkloadArguments {
    fn into_workload(self) -> Result<Workload, Failure> {
        Ok(Workload {
            service_time: Some(proto_duration(self.service_time)?),
            concurrency: self.concurrency.unwrap_or_default(),
            pending_time: self.pending_time.map(proto_duration).transpose()?,
            cold_start: self.cold_start.map(proto_duration).transpose()?,
            busy_cpu_percent: self.busy_cpu,
            memory_percent: self.memory_use,
            gpu_memory_percent: self.gpu_memory_use,
            even_arrivals: self.even_arrivals,
        })
    }
}

/// Reads no more than a server takes, whatever lies behind the path.
fn read_load(path: &Path) -> Result<String, Failure> {
    let refused = |error: std::io::Error| {
        Failure::usage(format!("the load {} cannot be read: {error}", path.display()))
    };
    let mut text = String::new();
    if path == Path::new("-") {
        std::io::stdin().lock().take(LARGEST_LOAD + 1).read_to_string(&mut text).map_err(refused)?;
    } else {
        let file = std::fs::File::open(path).map_err(refused)?;
        file.take(LARGEST_LOAD + 1).read_to_string(&mut text).map_err(refused)?;
    }
    if text.len() as u64 > LARGEST_LOAD {
        return Err(Failure::usage(format!(
            "the load {} has more than {LARGEST_LOAD} bytes",
            path.display()
        ))
        .hint("leave out lines: between two the load goes straight from one to the next"));
    }
    Ok(text)
}

impl From<SimulateResponse> for Simulation {
    fn from(answer: SimulateResponse) -> Self {
        Self {
            autoscaling: answer.autoscaling.as_ref().map(view::Autoscaling::from),
            summary: answer.summary.map(Summary::from).unwrap_or_default(),
            rows: answer.rows.into_iter().map(Row::from).collect(),
            assumptions: answer.assumptions,
            warnings: answer.warnings,
        }
    }
}

impl From<SimulatedRow> for Row {
    fn from(row: SimulatedRow) -> Self {
        Self {
            second: row.second,
            requests_per_second: row.requests_per_second,
            replicas: row.replicas,
            ready: row.ready,
            queue_time_us: row.queue_time_us,
            utilization: row.utilization,
            waiting: row.waiting,
            proposed: row.proposed,
            holds: row.holds,
        }
    }
}

impl From<SimulationSummary> for Summary {
    fn from(summary: SimulationSummary) -> Self {
        Self {
            seconds: summary.seconds,
            requests: summary.requests,
            waiting_at_end: summary.waiting_at_end,
            mean_queue_time_us: summary.mean_queue_time_us,
            queue_time_50_us: summary.queue_time_50_us,
            queue_time_95_us: summary.queue_time_95_us,
            queue_time_99_us: summary.queue_time_99_us,
            longest_queue_time_us: summary.longest_queue_time_us,
            most_replicas: summary.most_replicas,
            mean_replicas: summary.mean_replicas,
            changes: summary.changes,
            gpu_hours: summary.gpu_hours,
            replica_hours: summary.replica_hours,
            share_over_target: summary.share_over_target,
        }
    }
}

fn page(simulation: &Simulation, width: Option<u16>) -> String {
    let mut page = facts(&summary_facts(&simulation.summary));
    if let Some(width) = width {
        page += &section("Over time", &plots(&simulation.rows, width));
    }
    page += &section("Rows", &row_table(&simulation.rows, width));
    let assumptions: String = simulation.assumptions.iter().map(|text| format!("- {text}\n")).collect();
    page + &section("The model takes for granted", &assumptions)
}

fn summary_facts(summary: &Summary) -> Vec<(&'static str, String)> {
    let length = words::duration(Duration::from_secs(summary.seconds.unsigned_abs()));
    let served = format!("{:.0} in {length}", summary.requests);
    let left = match summary.waiting_at_end {
        some if some >= 1.0 => format!("{served}, and {some:.0} that waited still"),
        _ => served,
    };
    vec![
        ("Requests", left),
        (
            "Queue time",
            format!(
                "p50 {}, p95 {}, p99 {}, at most {}",
                waiting(summary.queue_time_50_us),
                waiting(summary.queue_time_95_us),
                waiting(summary.queue_time_99_us),
                waiting(summary.longest_queue_time_us)
            ),
        ),
        (
            "Replicas",
            format!(
                "{:.1} on average, {} at most, {}",
                summary.mean_replicas,
                summary.most_replicas,
                words::count(summary.changes as usize, "change")
            ),
        ),
        (
            "GPU-hours",
            format!("{:.2}, with {:.2} hours of replicas", summary.gpu_hours, summary.replica_hours),
        ),
        ("Over target", format!("{:.1}% of the time", 100.0 * summary.share_over_target)),
    ]
}

fn plots(rows: &[Row], width: u16) -> String {
    let width = usize::from(width);
    let values = |value: fn(&Row) -> f64| rows.iter().map(value).collect::<Vec<_>>();
    let load =
        plot::bars("requests/s", &values(|row| row.requests_per_second), width, |most| format!("{most:.1}"));
    let replicas =
        plot::bars("replicas", &values(|row| row.replicas.into()), width, |most| format!("{most:.0}"));
    let queue = plot::bars("queue time", &values(|row| row.queue_time_us.unwrap_or(0.0)), width, waiting);
    [load, replicas, queue].concat()
}

/// The rows in which something changes, and some between.
fn row_table(rows: &[Row], width: Option<u16>) -> String {
    let step = rows.len().div_ceil(QUIET_ROWS).max(1);
    let changes = |index: usize| {
        index > 0
            && (rows[index].replicas, rows[index].ready) != (rows[index - 1].replicas, rows[index - 1].ready)
    };
    let is_told = |index: usize| index.is_multiple_of(step) || index + 1 == rows.len() || changes(index);
    let told = rows.iter().enumerate().filter(|(index, _)| is_told(*index)).map(|(_, row)| {
        vec![
            words::duration(Duration::from_secs(row.second.unsigned_abs())),
            format!("{:.1}", row.requests_per_second),
            if row.ready == row.replicas {
                row.replicas.to_string()
            } else {
                format!("{} ({} ready)", row.replicas, row.ready)
            },
            row.queue_time_us.map(waiting).unwrap_or_default(),
            format!("{:.0}%", 100.0 * row.utilization),
        ]
    });
    table(&["TIME", "REQUESTS/S", "REPLICAS", "QUEUE TIME", "UTILIZATION"], told, inner(width))
}

fn lines(rows: &[Row]) -> String {
    let fields = |row: &Row| {
        line(&[
            row.second.to_string(),
            row.requests_per_second.to_string(),
            row.replicas.to_string(),
            row.ready.to_string(),
            row.queue_time_us.map(|time| time.to_string()).unwrap_or_default(),
            row.utilization.to_string(),
            row.waiting.to_string(),
        ])
    };
    rows.iter().map(fields).collect()
}
